"""What somebody keeps of a repository who wants less than was captured."""

import subprocess
from pathlib import Path

import pytest

from reprod.core.environment import Environment, Record, trimmed
from reprod.core.execution import Execution, Subject
from reprod.core.repository import Attachment, Git, changed_names

SEEN = Execution(Subject("process", "h", "b", "handover"), 1)


def record(patch: bytes = b"", **others: bytes) -> Record:
    files = {"git_diff.txt": patch, "git_commits.bundle": b"pack", **others}
    attachments = tuple(Attachment(name, "0", len(files[name])) for name in ("git_diff.txt", "git_commits.bundle"))
    return Record(
        SEEN, Environment(git=Git("c", "b", True, "/r", tree="t", files=attachments, restorable="yes")), files
    )


def patch_of(folder: Path) -> bytes:
    """Return the patch of one new, one changed, one deleted file and names that git quotes."""

    def git(*arguments: str) -> bytes:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=20).stdout

    git("init", "-q")
    for name in ("changed", "gone", "with blank b/x", 'quo"te\n'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("1\n")
    git("add", "-A")
    git("commit", "-q", "-m", "x")
    (folder / "changed").write_text("2\n")
    (folder / "gone").unlink()
    (folder / "new").write_bytes(b"\0\1")
    (folder / "with blank b/x").write_text("diff --git a/no b/no\nnew file mode 1\n")
    (folder / 'quo"te\n').chmod(0o755)
    git("add", "-A")
    return git("diff", "--cached", "--binary", "--full-index", "--no-renames", "HEAD")


def test_names_of_what_changed(tmp_path):
    """Each file of a real patch has a line: what became of it, and its name as git writes it."""
    assert changed_names(patch_of(tmp_path)).decode().splitlines() == [
        "M changed",
        "D gone",
        "A new",
        'M "quo\\"te\\n"',
        "M with blank b/x",
    ]


def test_all_is_kept_by_default():
    """``patch`` changes nothing."""
    assert trimmed(record(b"x"), "patch") == record(b"x")


@pytest.mark.parametrize("keep", ["names", "off"])
def test_less_is_kept(tmp_path, keep):
    """No content of a file stays, other files do, and the record says that code is missing."""
    found = trimmed(record(patch_of(tmp_path), other=b"1"), keep)
    assert found.files["other"] == b"1"
    assert "git_commits.bundle" not in found.files
    assert ("git_diff.txt" in found.files) == (keep == "names")
    assert not any(b"@@" in content for content in found.files.values())
    git = found.environment.git
    assert {each.name for each in git.files} == set(found.files) - {"other"}
    assert git.restorable == "partial"
    assert any(f"git_diff = {keep}" in reason for reason in git.reasons)
    assert git.tree == "t"
