"""What is recorded of a user's repository beside its changes, and what is said where there is nothing to record."""

import os
import subprocess

import pytest
from git_place import CLEAN, PATIENT, capture, commit, git, make_repo, write
from waiting import eventually

from reprod.capture.git.command import Budget
from reprod.capture.git.repository import read_git
from reprod.core.repository import Git, Remote
from reprod.errors import IncompleteError


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    """No settings of this machine's, and no repository that the tests may lie in."""
    for name, value in CLEAN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))


@pytest.fixture
def repo(tmp_path):
    return make_repo(tmp_path / "repo")


def test_clean_then_dirty(repo):
    """Commit, tree, branch and root are git's own; an untracked file is dirt, an ignored one is not."""
    (repo / "sub").mkdir()
    write(repo, {"sub/x": b"x\n"})
    commit(repo)
    state, files = capture(repo / "sub")
    assert (state.commit, state.branch, state.root) == (git(repo, "rev-parse", "HEAD"), "main", str(repo))
    assert (state.tree, state.cwd) == (git(repo, "rev-parse", "HEAD^{tree}"), "sub")
    assert (state.dirty, state.remote, state.restorable, list(files)) == (False, None, "yes", ["git_commits.bundle"])
    (repo / ".git/info/exclude").write_text("ignored\n")
    (repo / "ignored").touch()
    assert not capture(repo)[0].dirty
    (repo / "new").touch()
    assert capture(repo)[0].dirty
    (repo / "new").unlink()
    (repo / "a.txt").write_text("2\n")
    assert capture(repo)[0].dirty


def test_counts(repo):
    """Staged, unstaged and new files are counted apart; one that is both counts in both."""
    write(repo, {"b": b"b", "c": b"c"})
    commit(repo)
    write(repo, {"b": b"bb", "c": b"cc", "new": b"", "dir/new": b""})
    git(repo, "add", "b")
    write(repo, {"b": b"bbb"})
    state, _ = capture(repo)
    assert (state.staged, state.unstaged, state.untracked, state.conflicts) == (1, 2, 2, 0)


def test_detached_head_has_no_branch(repo):
    """A detached head gives the commit and no branch."""
    git(repo, "checkout", "-q", "--detach")
    state, _ = capture(repo)
    assert state.branch is None
    assert len(state.commit) == 40


def test_where_the_branch_stands(repo, tmp_path):
    """Upstream, ahead, behind and unpushed are against what was last fetched, and the tag is the nearest."""
    git(repo, "tag", "-a", "v1.0", "-m", "x")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(repo), str(clone))
    for _ in range(2):
        commit(clone, "mine")
    commit(repo, "theirs")
    git(clone, "fetch", "-q")
    state, _ = capture(clone)
    assert (state.upstream, state.ahead, state.behind, state.unpushed) == ("origin/main", 2, 1, 2)
    assert state.describe.startswith("v1.0-2-g")
    git(clone, "checkout", "-q", "-b", "alone")
    state, _ = capture(clone)
    assert (state.upstream, state.ahead, state.behind, state.unpushed) == (None, None, None, 2)


def test_reasons(repo, tmp_path, monkeypatch):
    """No repository, no commit, no git, no directory, within .git, a bare one: each says so."""
    (tmp_path / "plain").mkdir()
    with pytest.raises(IncompleteError, match="not a git repository"):
        capture(tmp_path / "plain")
    git(tmp_path / "plain", "init", "-q")
    with pytest.raises(IncompleteError, match="no commit yet"):
        capture(tmp_path / "plain")
    with pytest.raises(IncompleteError, match="does not exist"):
        capture(tmp_path / "gone")
    with pytest.raises(IncompleteError, match="work tree"):
        capture(repo / ".git")
    git(tmp_path, "clone", "-q", "--bare", str(repo), "bare")
    with pytest.raises(IncompleteError, match="work tree"):
        capture(tmp_path / "bare")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(IncompleteError, match="not installed"):
        capture(repo)


def test_entries_that_are_no_repository(tmp_path):
    """A .git that is a file of something else, an empty directory or a dangling link ends the search with a reason."""
    for name, make in (
        ("file", lambda path: path.write_text("not a git file\n")),
        ("empty", lambda path: path.mkdir()),
        ("gone", lambda path: path.write_text("gitdir: /nowhere/at/all\n")),
        ("link", lambda path: path.symlink_to("/nowhere")),
    ):
        (tmp_path / name).mkdir()
        make(tmp_path / name / ".git")
        with pytest.raises(IncompleteError, match="git"):
            capture(tmp_path / name)


def test_code_that_the_repository_does_not_hold(repo):
    """A directory that a repository above it ignores is not what that repository's commit names."""
    (repo / ".gitignore").write_text("work/\n")
    commit(repo)
    write(repo, {"work/train.py": b"x\n"})
    state, _ = capture(repo / "work")
    assert (state.root, state.cwd, state.dirty, state.restorable) == (str(repo), "work", False, "partial")
    assert state.reasons == ("the repository holds nothing of work, where the code is",)
    assert capture(repo)[0].restorable == "yes"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://CANARY@h/o/r", "https://h/o/r"),
        ("https://u:CANARY@h/o/r.git", "https://h/o/r.git"),
        ("https://CANARY:x-oauth-basic@h", "https://h"),
        ("https://u:p/CANARY@h", "https://h"),
        ("u:CANARY@h:o/r", "h:o/r"),
        ("https://h/r?private_token=CANARY", "https://h/r?private_token=***"),
        ("git@github.com:o/r.git", "git@github.com:o/r.git"),
        ("https://u:CANARY@[::1]:8080/r", "https://[::1]:8080/r"),
        ("ssh://git@h:22/o/r", "ssh://git@h:22/o/r"),
        ("ext::ssh --password=CANARY %S", "ext::ssh --password=*** %S"),
        ("../relative/r.git", "../relative/r.git"),
    ],
)
def test_remotes_lose_their_credentials(repo, url, shown):
    """An address is recorded without what it lets in with, wherever it stands: remote, push, rewrite, submodule."""
    git(repo, "config", "remote.origin.url", url)
    git(repo, "config", "remote.origin.pushurl", url)
    git(repo, "config", f"url.{url}.insteadOf", "short:")
    git(repo, "remote", "add", "backup", "short:backup")
    git(repo, "config", "branch.main.remote", url)
    write(repo, {".gitmodules": f'[submodule "lib"]\n\tpath = lib\n\turl = "{url}"\n'.encode()})
    make_repo(repo / "lib")
    git(repo, "add", "lib")
    state, files = capture(repo, patch="names")
    assert state.remote == shown
    assert state.remotes == (Remote("origin", shown, shown), Remote("backup", "short:backup"))
    assert [module.url for module in state.submodules] == [shown]
    assert "CANARY" not in repr(state)
    assert not any(b"CANARY" in data for data in files.values())


def test_variables_cannot_lead_elsewhere(repo, tmp_path, monkeypatch):
    """GIT_DIR, GIT_INDEX_FILE and GIT_WORK_TREE of a surrounding hook do not name another repository."""
    for name in ("DIR", "INDEX_FILE", "WORK_TREE", "OBJECT_DIRECTORY", "NAMESPACE"):
        monkeypatch.setenv(f"GIT_{name}", str(tmp_path / "other"))
    assert read_git(str(repo), budget=PATIENT)[0].root == str(repo)


def test_a_hung_git_is_bounded(repo, tmp_path, monkeypatch):
    """A git that does not answer costs its limit and is a reason, also when what hangs is a child of its."""
    (tmp_path / "bin").mkdir()
    seconds = f"54321.{os.getpid()}"
    (tmp_path / "bin/git").write_text(f"#!/bin/sh\n/bin/sleep {seconds}\necho never\n")
    (tmp_path / "bin/git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(IncompleteError, match="rev-parse did not end in time"):
        read_git(str(repo), budget=Budget(seconds=0.3))

    def running() -> str:
        return subprocess.run(["/bin/ps", "-eo", "args"], capture_output=True, text=True, timeout=20).stdout

    eventually(lambda: f"sleep {seconds}" not in running(), 10, "it was killed too")


def test_no_time_left_is_a_reason(repo, monkeypatch):
    """What could not be found out in time is unknown, and nothing is claimed of it."""
    import reprod.capture.git.repository as module

    def late(place):
        raise IncompleteError("git status did not end in time")

    monkeypatch.setattr(module, "read_changes", late)
    state, files = capture(repo)
    assert (state.commit, state.branch) == (git(repo, "rev-parse", "HEAD"), "main")
    assert (state.dirty, state.tree, state.restorable, files) == (None, None, None, {})
    assert state.problems == ("what differs from the commit is not known: git status did not end in time",)


def test_no_room_for_the_private_directory(repo, monkeypatch):
    """Where nothing can be written, the commit is still told."""
    monkeypatch.setenv("TMPDIR", "/proc/none")
    monkeypatch.setattr("tempfile.tempdir", "/proc/none")
    state, files = capture(repo)
    assert (state.commit, state.dirty, state.tree, files) == (git(repo, "rev-parse", "HEAD"), None, None, {})
    assert state.problems[0].startswith("what differs from the commit is not known: ")


def test_an_older_record_is_read():
    """A record of the first version has five fields."""
    import msgspec

    old = {"commit": "c" * 40, "branch": None, "dirty": True, "root": "/src", "remote": None}
    state = msgspec.convert(old, Git)
    assert (state.dirty, state.tree, state.restorable) == (True, None, None)
    assert msgspec.json.decode(msgspec.json.encode(state), type=Git) == state
