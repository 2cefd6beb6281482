"""Files of a run whose names were not published, compared with the digest of all of them. Real files, no server."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reprod.cli.verify_view import tell
from reprod.config import DatasetConfig, load
from reprod.errors import DamagedError, IncompleteError
from reprod.ops.fetch import UnpublishedError
from reprod.ops.generate import generate
from reprod.ops.run_whole import verify_whole

RUN = "a" * 32


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files and a link that were selected, one that was not; and no configuration."""
    monkeypatch.setenv("REPROD_CONFIG", str(tmp_path / "etc" / "reprod.toml"))
    monkeypatch.setenv("REPROD_STATE_DIR", str(tmp_path / "state"))
    root = tmp_path / "data"
    (root / "sub").mkdir(parents=True)
    (root / "a.csv").write_text("first")
    (root / "sub" / "b.csv").write_text("second")
    (root / "link").symlink_to("a.csv")
    (root / "notes.log").write_text("not selected")
    return root


def unpublished(data: Path, published: str, *, name: str = "d", exclude: tuple[str, ...] = ("*.log",)) -> Any:
    """Return what a run says of the files as they are now."""
    with generate(data, exclude=exclude) as made:
        digest, header = made.header.digest or "", {"dataset": name, "digest": made.header.digest}
        if published == "summary":
            header |= {"selection": made.header.selection}
            header |= {"summary": {"total_files": made.files, "total_size_bytes": made.size}}
    return UnpublishedError(RUN, name, digest, {**header, "published": published})


def verify(error: UnpublishedError, data: Path, *datasets: DatasetConfig, mode: Any = "full") -> dict[str, Any]:
    """Return the answer of a host with these datasets."""
    config = replace(load(tracking=False), datasets=datasets)
    return verify_whole(error, config, str(data), mode=mode, ref=f"run:{RUN}")


def test_totals_and_a_selection_say_whether_all_is_as_it_was(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a summary the digest of the selected files is computed: 0 if it is the recorded one, 1 after any change; the
    totals of both sides are told, and no name is called new. Without reading, or by a manifest that cannot be: none."""
    error = unpublished(data, "summary")
    (data / "more.log").write_text("not selected either")
    answer = verify(error, data)
    assert (answer["valid"], answer["digest_actual"], answer["content_verified"]) == (True, error.digest, True)
    assert (answer["checked_files"], answer["checked_links"], answer["extra"]) == (3, 1, [])
    assert tell(answer, as_json=False) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "only the whole was compared: the names of its files were not published" in shown
    assert "2 files of 11 B recorded, 2 files of 11 B found" in shown

    (data / "sub" / "c.csv").write_text("new")
    answer = verify(error, data, mode="uncached")
    assert (answer["differs"], answer["complete"], answer["missing"], answer["extra"]) == (True, True, [], [])
    assert answer["whole"] == {
        "published": "summary", "recorded": {"files": 2, "bytes": 11}, "found": {"files": 3, "bytes": 14},
    }  # fmt: skip
    assert tell(answer, as_json=False) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert f"recorded {error.digest}" in shown
    assert "3 files of 14 B found" in shown

    os.unlink(data / "sub" / "c.csv")
    for mode in ("quick", "sampled"):
        with pytest.raises(IncompleteError) as caught:
            verify(error, data, mode=mode)
        assert "reprod verify run:" in caught.value.hint
    forged = {**error.header, "summary": {"total_files": 3, "total_size_bytes": 11}}
    with pytest.raises(DamagedError, match="other totals"):
        verify(UnpublishedError(RUN, "d", error.digest, forged), data)
    with pytest.raises(DamagedError, match="selection"):
        verify(UnpublishedError(RUN, "d", error.digest, {**error.header, "selection": {"include": 3}}), data)


def test_a_digest_alone_is_never_said_to_differ(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a digest alone the selection of the registered dataset is tried, then everything: 0 if one gives it, else 5,
    because which files were selected is not known."""
    selected, everything = unpublished(data, "digest"), unpublished(data, "digest", exclude=())
    registered = DatasetConfig("d", "/elsewhere", exclude=("*.log",))
    for error in (selected, everything):
        answer = verify(error, data, registered)
        assert (answer["valid"], answer["digest_actual"], answer["whole"]["recorded"]) == (True, error.digest, None)
        assert tell(answer, as_json=False) == 0
        assert "recorded," not in capsys.readouterr().out
    answer = verify(selected, data, DatasetConfig("other", "/elsewhere", exclude=("*.log",)))
    assert (answer["valid"], answer["differs"], answer["complete"], answer["digest_actual"]) == (
        False, False, False, None,
    )  # fmt: skip
    assert tell(answer, as_json=False) == 5
    assert "which files were selected was not published" in " ".join(capsys.readouterr().out.split())


def test_patterns_of_another_root_prove_no_difference(data: Path) -> None:
    """Of NAME/SUB the selection is written from the root of NAME: where it may mean other files below SUB, another
    digest gives 5; where it means the same, 1."""
    for exclude, code in (((), 1), (("*.log", "tmp/"), 1), (("/sub/old",), 5)):
        error = unpublished(data / "sub", "summary", name="d/sub", exclude=exclude)
        answer = verify(error, data / "sub")
        assert answer["valid"]
        (data / "sub" / "b.csv").write_text(f"other {len(exclude)} {code}")
        answer = verify(error, data / "sub")
        assert tell(answer, as_json=True) == code
