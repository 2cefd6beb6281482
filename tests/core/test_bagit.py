"""The names that a bag can hold: what is accepted is read back by the reference reader as it was written."""

from pathlib import Path

import bagit as reader
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprod.core import bagit

NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=12).filter(
    lambda name: name not in {".", ".."}
)
ODD_PIECES = [*"ab \t\r\n%0AD*#~\\\x0b\x85\u2028é", "e\u0301"]
ODD = st.lists(st.sampled_from(ODD_PIECES), min_size=1, max_size=8).map("".join)


@given(names=st.lists(NAME | ODD, min_size=1, max_size=6, unique=True))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_reference_reader_reads_back_every_name_that_is_accepted(names: list[str], tmp_path: Path) -> None:
    """bagit-python finds in a manifest of ours the very paths that went in, and so do we."""
    check, paths = bagit.PathCheck(), [name.encode() for name in names]
    for path in paths:
        check.look(path)
    version = check.version()
    if check.count:
        return
    lines = [bagit.manifest_line(b"\x11" * 32, path) for path in paths]
    (tmp_path / "bagit.txt").write_bytes(bagit.declaration(version))
    (tmp_path / "manifest-sha256.txt").write_bytes(b"".join(lines))

    assert set(reader.Bag(str(tmp_path)).entries) == {f"data/{name}" for name in names}
    assert [path for _, path in bagit.read_manifest(lines)] == paths


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        ([b"\xff"], "is not UTF-8"),
        (["é".encode(), "e\u0301".encode()], "Unicode normalisation"),
        ([b"ends "], "would not be read back"),
        ([b"a%0Ab"], "would not be read back"),
        ([b"a\n\n\nb"], "would not be read back"),
        (["a\u2028b".encode()], "would not be read back"),
        ([b"100%", b"a\nb"], "no version of BagIt can hold both"),
    ],
)
def test_a_name_that_no_bag_can_hold_is_refused_with_the_reason(paths: list[bytes], why: str) -> None:
    """Each such name counts, and the list says which one and why."""
    check = bagit.PathCheck()
    for path in paths:
        check.look(path)
    check.version()

    assert check.count == 1
    assert why in check.refused[0]


def test_the_version_of_a_bag_is_the_one_that_encodes_its_names_alike() -> None:
    """BagIt 1.0 would encode a percent sign, which no reader decodes; 0.97 encodes nothing."""
    plain, percent, line_break = bagit.PathCheck(), bagit.PathCheck(), bagit.PathCheck()
    plain.look(b"a.csv")
    percent.look(b"100%.csv")
    line_break.look(b"a\nb")

    assert (plain.version(), percent.version(), line_break.version()) == ("1.0", "0.97", "1.0")


def test_a_tag_stays_one_line_whatever_its_value() -> None:
    """A name from elsewhere cannot add tags to bag-info.txt."""
    assert bagit.info([("Name", "a\nPayload-Oxum: 0.0"), ("None", None)]) == b"Name: a Payload-Oxum: 0.0\n"
