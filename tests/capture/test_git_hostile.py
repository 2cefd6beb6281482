"""A repository cannot make the capture run anything, write anything, wait for ever or read what is not its own."""

import hashlib
import os
import subprocess

import pytest
from git_place import CLEAN, PATIENT, capture, commit, git, make_repo, restore, write

from reprod.capture.git.repository import read_git
from reprod.errors import IncompleteError


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    """No settings of this machine's, and no repository that the tests may lie in."""
    for name, value in CLEAN.items():
        if name != "GIT_ALLOW_PROTOCOL":
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))


@pytest.fixture
def trap(tmp_path):
    """A program that leaves a mark when it is run: (its path, the mark)."""
    marker = tmp_path / "marker"
    script = tmp_path / "evil.sh"
    script.write_text(f"#!/bin/sh\necho $0 $@ >> {marker}\ncat\n")
    script.chmod(0o755)
    return script, marker


#: Every setting that names a program.
PROGRAMS = [
    "core.fsmonitor",
    "core.pager",
    "core.editor",
    "core.sshCommand",
    "core.askPass",
    "core.alternateRefsCommand",
    "core.gitProxy",
    "filter.evil.clean",
    "filter.evil.smudge",
    "filter.proc.process",
    "merge.evil.driver",
    "sequence.editor",
    "interactive.diffFilter",
    "diff.external",
    "diff.evil.command",
    "diff.evil.textconv",
    "gpg.program",
    "credential.helper",
    "uploadpack.packObjectsHook",
]


def arm(repo, script):
    """Configure every program that git can be made to run by a repository."""
    hooks = repo / ".git/own-hooks"
    hooks.mkdir()
    names = ["pre-commit", "post-checkout", "post-index-change", "reference-transaction", "fsmonitor-watchman"]
    for name in (*names, "applypatch-msg", "post-applypatch", "pre-applypatch", "pre-auto-gc", "post-rewrite"):
        for folder in (hooks, repo / ".git/hooks"):
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(script)
    for key in PROGRAMS:
        git(repo, "config", key, str(script))
    git(repo, "config", "core.hooksPath", str(hooks))
    for key in ("filter.evil.required", "filter.proc.required", "commit.gpgSign", "tag.gpgSign"):
        git(repo, "config", key, "true")
    for command in ("status", "rev-parse", "config", "apply", "update-index", "diff-index"):
        git(repo, "config", f"alias.{command}", f"!{script}")
    (repo / ".git/included").write_text(f"[core]\n\tfsmonitor = {script}\n")
    git(repo, "config", "include.path", str(repo / ".git/included"))


def photograph(repo):
    """Return every file of .git with its bytes and times."""
    found = {}
    for folder, _, names in os.walk(repo / ".git"):
        for name in names:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            with open(path, "rb") as file:
                found[path] = (status.st_mtime_ns, status.st_ctime_ns, status.st_ino, file.read())
    return found


def test_nothing_configured_in_the_repository_runs(tmp_path, trap):
    """No fsmonitor, hook, filter, driver or alias runs, at the capture or at the restore, and .git stays as it is."""
    script, marker = trap
    files = {
        ".gitattributes": b"*.txt filter=evil diff=evil merge=evil\n*.bin filter=proc\n",
        "b.bin": b"b",
        "a.txt": b"1\n",
    }
    repo = make_repo(tmp_path / "repo", files)
    library = make_repo(tmp_path / "library", {".gitattributes": b"*.txt filter=evil\n", "a.txt": b"1\n"})
    git(repo, "submodule", "--quiet", "add", "-q", f"file://{library}", "lib")
    commit(repo)
    arm(repo, script)
    for key in ("core.fsmonitor", "filter.evil.clean"):
        git(repo / "lib", "config", key, str(script))
    write(repo, {"a.txt": b"3\n", "b.bin": b"c", "plain.py": b"p\n", "lib/a.txt": b"2\n"})
    before = photograph(repo)
    state, kept = capture(repo)
    assert photograph(repo) == before
    assert not marker.exists(), marker.read_text()
    assert (state.dirty, state.restorable) == (True, "partial")
    assert {(entry.path, entry.reason) for entry in state.withheld} == {
        ("a.txt", "it passes through the filter evil, which is not run"),
        ("b.bin", "it passes through the filter proc, which is not run"),
    }
    assert restore(state, kept, tmp_path / "restored") == state.tree
    assert not marker.exists(), marker.read_text()
    subprocess.run(["git", "status"], cwd=repo, capture_output=True, timeout=20)
    assert marker.exists(), "the trap itself must work"


def test_a_missing_object_is_not_fetched(tmp_path, trap):
    """In a partial clone git would fetch what it lacks, with the program that the repository names."""
    script, marker = trap
    script.write_text(f"#!/bin/sh\ntouch {marker}\nexit 1\n")
    origin = make_repo(tmp_path / "origin", {"a.txt": b"1\n", "b.txt": b"2\n"})
    git(origin, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--filter=blob:none", "--sparse", f"file://{origin}", "clone")
    clone = tmp_path / "clone"
    git(clone, "sparse-checkout", "set", "--no-cone", "/a.txt")
    write(origin, {"c.txt": b"3\n"})
    commit(origin)
    git(clone, "fetch", "-q")
    git(clone, "reset", "-q", "--soft", "origin/main")
    git(clone, "rm", "-q", "-r", "--cached", "--sparse", ".")
    for key in ("core.sshCommand", "remote.origin.uploadpack"):
        git(clone, "config", key, str(script))
    git(clone, "config", "remote.origin.url", "ssh://host/r")
    git(clone, "config", "protocol.allow", "always")
    state, _ = capture(clone)
    assert state.dirty is True
    assert state.tree is None
    assert state.restorable == "partial"
    assert state.reasons[0].startswith("the changes are not recorded")
    assert not marker.exists(), marker.read_text()
    subprocess.run(["git", "cat-file", "-p", "HEAD:c.txt"], cwd=clone, capture_output=True, timeout=20)
    assert marker.exists(), "the trap itself must work"


def test_a_repository_of_another_user(tmp_path):
    """Git's refusal to work in a repository that belongs to somebody else is reported, not bypassed."""
    repo = make_repo(tmp_path / "repo")
    if os.geteuid() != 0:
        pytest.skip("giving a file to another user needs root")
    for folder, _, names in os.walk(repo):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            os.lchown(path, 65534, 65534)
    with pytest.raises(IncompleteError, match="dubious ownership"):
        capture(repo)


def test_a_working_tree_that_is_set_elsewhere(tmp_path):
    """core.worktree cannot make a home directory the code."""
    make_repo(tmp_path / "home/repo")
    write(tmp_path / "home", {"letter.txt": b"CANARY"})
    git(tmp_path / "home/repo", "config", "core.worktree", str(tmp_path / "home"))
    with pytest.raises(IncompleteError, match="set elsewhere"):
        capture(tmp_path / "home/repo")
    git(tmp_path / "home/repo", "config", "core.worktree", str(tmp_path / "nowhere"))
    with pytest.raises(IncompleteError, match="git"):
        capture(tmp_path / "home/repo")


def test_an_index_that_names_files_outside(tmp_path):
    """A name that leads out of the repository is not followed."""
    write(tmp_path, {"outside.txt": b"CANARY\n"})
    repo = make_repo(tmp_path / "repo", {"xx/outside.txt": b"1\n", "b.txt": b"1\n"})
    index = (repo / ".git/index").read_bytes()
    forged = index[: index.index(b"TREE")].replace(b"xx/outside.txt", b"../outside.txt")
    (repo / ".git/index").write_bytes(forged + hashlib.sha1(forged, usedforsecurity=False).digest())
    assert "../outside.txt" in git(repo, "status", "--short"), "git itself does look there"
    state, files = capture(repo)
    assert ("../outside.txt", "its name leads out of the repository") in {(e.path, e.reason) for e in state.withheld}
    assert not any(b"CANARY" in data for data in files.values())
    assert "CANARY" not in repr(state)


def test_files_behind_a_link_are_not_read(tmp_path):
    """What a directory held is deleted once it is a link; what lies behind the link is somebody else's."""
    write(tmp_path, {"private/c.txt": b"CANARY\n"})
    repo = make_repo(tmp_path / "repo", {"dir/c.txt": b"mine\n"})
    (repo / "dir/c.txt").unlink()
    (repo / "dir").rmdir()
    (repo / "dir").symlink_to(tmp_path / "private")
    state, files = capture(repo)
    assert state.restorable == "yes"
    assert b"CANARY" not in files["git_diff.txt"]
    assert restore(state, files, tmp_path / "restored") == state.tree


def test_special_files(tmp_path):
    """FIFOs and devices are no files to record, and nobody waits for what comes out of them."""
    repo = make_repo(tmp_path / "repo", {"a.txt": b"1\n", "was.txt": b"1\n"})
    os.mkfifo(repo / "pipe")
    (repo / "was.txt").unlink()
    os.mkfifo(repo / "was.txt")
    os.mkfifo(repo / ".gitmodules")
    state, files = capture(repo)
    assert (state.tree, state.dirty) == (git(repo, "rev-parse", "HEAD^{tree}"), True)
    assert [(entry.path, entry.reason) for entry in state.withheld] == [
        ("was.txt", "it is neither a file nor a symbolic link")
    ]
    assert list(files) == ["git_commits.bundle"]


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    """The private directory is gone afterwards, also when a step failed."""
    import reprod.capture.git.repository as module

    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    repo = make_repo(tmp_path / "repo")
    write(repo, {"new": b"n"})
    capture(repo)
    monkeypatch.setattr(module, "read_patch", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        read_git(str(repo), budget=PATIENT)
    assert os.listdir(tmp_path / "tmp") == []
