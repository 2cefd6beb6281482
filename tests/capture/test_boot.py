"""The identity of a boot: one function for all who ask."""

from pathlib import Path

import pytest

from reprod.capture.process import identity as process
from reprod.core.process import ProcessContext


def test_the_boot_is_the_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The id is the kernel's own text; where it says none it is empty, which is no context's, so nobody is taken for
    alive."""
    context = process.current_context()
    assert context.boot_id == process.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert process.is_alive(context)
    monkeypatch.setattr(process, "_BOOT_ID", str(tmp_path / "none"))
    assert process.boot_id() == ""
    assert not process.is_alive(context)
    assert ProcessContext.from_object({**context.to_object(), "boot_id": ""}) is None
