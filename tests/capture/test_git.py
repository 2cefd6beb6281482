"""The state of a user's repository, with everything that it could run switched off."""

import subprocess

import pytest

import reprod.capture.git as git_module
from reprod.capture.git import read_git
from reprod.errors import IncompleteError


@pytest.fixture
def repo(tmp_path, monkeypatch):
    """A real repository with one commit, and no settings of this machine's."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    path = tmp_path / "repo"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    git(path, "config", "user.email", "a@b")
    git(path, "config", "user.name", "a")
    (path / "a.txt").write_text("1\n")
    git(path, "add", ".")
    git(path, "commit", "-q", "-m", "x")
    return path


def git(path, *arguments):
    return subprocess.run(
        ["git", *arguments], cwd=path, check=True, capture_output=True, text=True, timeout=20
    ).stdout.strip()


def test_clean_then_dirty(repo):
    """Commit, branch and root are git's own; an untracked file is dirt, an ignored one is not."""
    (repo / "sub").mkdir()
    state = read_git(str(repo / "sub"))
    assert (state.commit, state.branch, state.root) == (git(repo, "rev-parse", "HEAD"), "main", str(repo))
    assert (state.dirty, state.remote) == (False, None)
    (repo / ".git/info/exclude").write_text("ignored\n")
    (repo / "ignored").touch()
    assert not read_git(str(repo)).dirty
    (repo / "new").touch()
    assert read_git(str(repo)).dirty
    (repo / "new").unlink()
    (repo / "a.txt").write_text("2\n")
    assert read_git(str(repo)).dirty


def test_detached_head_has_no_branch(repo):
    """A detached head gives the commit and no branch."""
    git(repo, "checkout", "-q", "--detach")
    state = read_git(str(repo))
    assert state.branch is None
    assert len(state.commit) == 40


def test_reasons(repo, tmp_path, monkeypatch):
    """No repository, no commit, no git, no directory: each says so."""
    (tmp_path / "plain").mkdir()
    with pytest.raises(IncompleteError, match="not a git repository"):
        read_git(str(tmp_path / "plain"))
    git(tmp_path / "plain", "init", "-q")
    with pytest.raises(IncompleteError, match="no commit yet"):
        read_git(str(tmp_path / "plain"))
    with pytest.raises(IncompleteError, match="does not exist"):
        read_git(str(tmp_path / "gone"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(IncompleteError, match="not installed"):
        read_git(str(repo))


def test_nothing_configured_in_the_repository_runs(repo, tmp_path):
    """fsmonitor, hooks, clean, smudge and process filters do not run, and the index stays as it is."""
    marker = tmp_path / "marker"
    script = tmp_path / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {marker}\ncat\n")
    script.chmod(0o755)
    (repo / ".gitattributes").write_text("*.txt filter=evil\n*.bin filter=proc\n")
    (repo / "b.bin").write_text("b")
    git(repo, "add", ".")
    git(repo, "commit", "-q", "-m", "y")
    for key in ("core.fsmonitor", "filter.evil.clean", "filter.evil.smudge", "filter.proc.process", "diff.external"):
        git(repo, "config", key, str(script))
    git(repo, "config", "filter.proc.required", "true")
    (repo / "a.txt").write_text("3\n")
    (repo / "b.bin").write_text("c")
    index = (repo / ".git/index").read_bytes()
    assert read_git(str(repo)).dirty
    assert not marker.exists()
    assert (repo / ".git/index").read_bytes() == index
    subprocess.run(["git", "status"], cwd=repo, capture_output=True, timeout=20)
    assert marker.exists(), "the trap itself must work"


def test_remotes_lose_their_credentials(repo):
    """The remote is recorded without the token in its address."""
    git(repo, "remote", "add", "other", "https://CANARY@elsewhere/o/r")
    git(repo, "remote", "add", "origin", "https://u:CANARY@host/o/r.git")
    assert read_git(str(repo)).remote == "https://host/o/r.git"
    git(repo, "remote", "set-url", "origin", "git@github.com:o/r.git")
    assert read_git(str(repo)).remote == "git@github.com:o/r.git"


def test_variables_cannot_lead_elsewhere(repo, tmp_path, monkeypatch):
    """GIT_DIR of a surrounding hook does not name another repository."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))
    assert read_git(str(repo)).root == str(repo)


def test_a_hung_git_is_bounded(repo, tmp_path, monkeypatch):
    """A git that does not answer costs its limit and is a reason."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/git").write_text("#!/bin/sh\nexec /bin/sleep 30\n")
    (tmp_path / "bin/git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(git_module, "TIMEOUT_S", 0.3)
    with pytest.raises(IncompleteError, match=r"took over 0\.3 s"):
        read_git(str(repo))
