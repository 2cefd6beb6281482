"""Commits that no remote has travel as a bundle, or the patch goes back to one that a remote has."""

import os

import pytest
from git_place import PATIENT, capture, commit, git, make_repo, restore, true_tree, write

from reprod.capture.git.command import Budget
from reprod.capture.git.repository import read_git


@pytest.fixture
def clone(tmp_path):
    """A clone of a remote (``origin`` beside it), with one commit that both have."""
    origin = make_repo(tmp_path / "origin")
    git(tmp_path, "clone", "-q", str(origin), "clone")
    return tmp_path / "clone"


def test_unpushed_commits_are_restored_to_the_same_commit(clone, tmp_path):
    """Three unpushed commits, one of them a merge, come out of a fresh clone and the bundle with their exact names."""
    git(clone, "checkout", "-q", "-b", "side")
    write(clone, {"side": b"s\n"})
    commit(clone, "side")
    git(clone, "checkout", "-q", "main")
    write(clone, {"main": b"m\n", "line\nbreak": b"n\n"})
    commit(clone, "main")
    git(clone, "merge", "-q", "--no-ff", "-m", "merged", "side")
    state, files = capture(clone)
    assert (state.unpushed, state.base, state.restorable) == (3, state.commit, "yes")
    assert [(file.name, file.size) for file in state.files] == [
        ("git_commits.bundle", len(files["git_commits.bundle"]))
    ]
    fresh = tmp_path / "fresh"
    git(tmp_path, "clone", "-q", str(tmp_path / "origin"), str(fresh))
    (fresh / ".git/b").write_bytes(files["git_commits.bundle"])
    git(fresh, "fetch", "-q", ".git/b", "HEAD")
    assert git(fresh, "rev-parse", "FETCH_HEAD") == state.commit == git(clone, "rev-parse", "HEAD")
    assert git(fresh, "rev-parse", "FETCH_HEAD^{tree}") == state.tree
    git(fresh, "fsck", "--strict")


def test_without_a_remote_the_bundle_is_the_whole_repository(tmp_path):
    """A repository that was never pushed is restored from its bundle alone."""
    repo = make_repo(tmp_path / "repo")
    write(repo, {"b": b"b\n"})
    state, files = capture(repo)
    assert (state.unpushed, state.restorable, state.remotes) == (1, "yes", ())
    assert restore(state, files, tmp_path / "restored") == state.tree


def test_what_is_pushed_has_no_bundle(clone):
    """Nothing is bundled that a remote-tracking branch holds, whichever branch that is."""
    commit(clone)
    git(clone, "push", "-q", "origin", "HEAD:elsewhere")
    state, files = capture(clone)
    assert (state.unpushed, state.ahead, state.restorable, files) == (0, 1, "yes", {})


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("x.py", b"token = 'ghp_" + b"a1B2c3D4e5" * 4 + b"'\n", "looks like a secret"),
        ("x.bin", "k = 'AKIAQX7J2M4N6P8R3T5V'".encode("utf-16"), "looks like a secret"),
        (".env", b"A=1\n", "the name of a secret"),
        ("large.bin", os.urandom(1 << 17), "their bundle has over 100000 bytes"),
    ],
)
def test_a_bundle_that_may_not_leave(clone, tmp_path, name, content, why):
    """Where the commits cannot be kept, the patch starts from the pushed one: the code is had, its history is not."""
    write(clone, {name: content, "good.py": b"good\n"})
    commit(clone)
    (clone / name).unlink()
    write(clone, {"more.py": b"more\n"})
    commit(clone)
    state, files = read_git(str(clone), budget=Budget(PATIENT.seconds, bundle_bytes=100_000))
    assert (state.dirty, state.restorable, list(files)) == (False, "partial", ["git_diff.txt"])
    assert len(state.reasons) == 1
    assert state.reasons[0].startswith("2 unpushed commits are not recorded: ")
    assert why in state.reasons[0]
    assert state.base == git(clone, "rev-parse", "origin/main") != state.commit
    origin = tmp_path / "origin"
    assert restore(state, files, tmp_path / "restored", remote=origin) == state.tree == true_tree(clone, tmp_path / "o")
    assert content.strip() not in b"".join(files.values())


def test_a_secret_in_a_message(clone):
    """Messages are in the bundle too."""
    commit(clone, "use hf_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789")
    state, files = capture(clone)
    assert (state.restorable, files) == ("partial", {})
    assert "looks like a secret" in state.reasons[0]


def test_nothing_of_the_commits_leaves_where_patches_are_off(clone):
    """With ``names`` and ``off`` the commits stay where they are, and that is said."""
    commit(clone)
    for patch in ("names", "off"):
        state, files = capture(clone, patch=patch)
        assert (state.restorable, files) == ("partial", {})
        assert state.reasons == ("1 unpushed commits are not recorded",)


def test_a_commit_that_nobody_can_have_again(tmp_path):
    """Without a remote and without a bundle the code is lost with the directory."""
    repo = make_repo(tmp_path / "repo", {"large": os.urandom(1 << 17)})
    write(repo, {"b": b"b\n"})
    state, files = read_git(str(repo), budget=Budget(PATIENT.seconds, bundle_bytes=1000))
    assert (state.restorable, state.base, list(files)) == ("no", None, ["git_diff.txt"])
