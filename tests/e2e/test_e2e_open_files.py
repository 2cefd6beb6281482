"""Files that somebody has open for writing, in a real daemon."""

import mmap
import sys
import time
from pathlib import Path

import pytest
from harness import dt1, eventually, make_data, running_daemon

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="leases and IN_CLOSE_WRITE are Linux's")


@pytest.mark.parametrize("held_s", [0.0, 3.0], ids=["closed soon", "held for long"])
def test_a_mapped_file_has_no_digest_until_it_is_closed(tmp_path: Path, held_s: float) -> None:
    """A store through a mapping changes no stat and makes no event; the digest is the disk's soon after the closing,
    which nothing but that tells, however long the file was held."""
    data = make_data(tmp_path / "data")
    target = data / "array.bin"
    target.write_bytes(bytes(8192))
    with running_daemon(tmp_path / "d", "", {"arrays": data}) as daemon:
        daemon.sealed("arrays", 1)
        with open(target, "r+b") as file:
            page = mmap.mmap(file.fileno(), 8192)  # noqa: TID251 - a training job that writes
        page[0] = 1
        page.flush()
        target.touch()
        shown = eventually(
            lambda: (d := daemon.dataset("arrays"))["state"] == "incomplete" and d, 10, "the dataset is incomplete"
        )
        assert (shown["digest"], shown["problems"][0]["problem"]) == (None, "unstable")
        page[1] = 2
        held_until = time.monotonic() + held_s
        eventually(lambda: time.monotonic() > held_until, held_s + 5, "it was held for long")
        assert daemon.dataset("arrays")["digest"] is None
        page[2] = 3
        page.close()
        wanted = dt1(data)
        eventually(lambda: daemon.dataset("arrays")["digest"] == wanted, 10, "the digest is the disk's")
