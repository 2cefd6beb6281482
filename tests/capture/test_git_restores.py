"""Whatever state a repository is in, the record leads back to the tree of the code that ran, or says what lacks."""

import os
import shutil

import pytest
from git_place import capture, commit, git, make_repo, restore, true_tree, write

from reprod.errors import IncompleteError

#: Settings of a user or a repository that change what git prints or stores.
SETTINGS = {
    "plain": {},
    "noprefix": {"diff.noprefix": "true"},
    "mnemonic": {"diff.mnemonicPrefix": "true"},
    "color": {"color.ui": "always", "color.diff": "always"},
    "external": {"diff.external": "/bin/false"},
    "textconv": {"diff.word.textconv": "/bin/false", "diff.word.command": "/bin/false", "diff.word.binary": "true"},
    "autocrlf": {"core.autocrlf": "true", "core.safecrlf": "true"},
    "copies": {"diff.renames": "copies", "status.renames": "copies"},
}

START = {
    "a.py": b"one\ntwo\nthree\n" * 5,
    "b.py": b"b\n",
    "dir/c.txt": b"c\n",
    "data.bin": bytes(range(256)) * 4,
    "crlf.txt": b"x\r\ny\r\n",
    "no_end": b"no line end",
    "run.sh": b"#!/bin/sh\n",
    "dir/sub/d.py": b"d\n",
    ".gitattributes": b"*.py diff=word\n",
    ".gitignore": b"ignored/\n",
}


def staged(repo):
    write(repo, {"a.py": b"staged\n"})
    git(repo, "add", "a.py")


def unstaged(repo):
    write(repo, {"a.py": b"one\nTWO\nthree\n" * 5})


def both(repo):
    staged(repo)
    write(repo, {"a.py": b"staged\nand more\n"})


def deleted(repo):
    (repo / "a.py").unlink()
    (repo / "data.bin").unlink()
    git(repo, "rm", "-q", "b.py")


def staged_then_gone(repo):
    write(repo, {"new.py": b"n\n"})
    git(repo, "add", "new.py")
    (repo / "new.py").unlink()


def untracked_by_hand(repo):
    git(repo, "rm", "-q", "--cached", "a.py")


def renamed(repo):
    git(repo, "mv", "a.py", "z.py")
    write(repo, {"z.py": b"one\ntwo\nthree\n" * 5 + b"more\n"})
    (repo / "b.py").rename(repo / "dir/b2.py")


def binary(repo):
    write(repo, {"data.bin": bytes(reversed(range(256))) * 4, "new.bin": os.urandom(999), "was_text": b"\0\1\2"})
    write(repo, {"b.py": b"text became binary \0\n"})


def mode(repo):
    (repo / "run.sh").chmod(0o755)
    (repo / "b.py").chmod(0o755)
    write(repo, {"b.py": b"and its content\n"})


def symlink(repo):
    (repo / "link").symlink_to("dir/c.txt")
    (repo / "outside").symlink_to("/etc/hostname")
    (repo / "b.py").unlink()
    (repo / "b.py").symlink_to("a.py")


def kinds(repo):
    """A file becomes a directory, a directory a file, a directory a link."""
    (repo / "b.py").unlink()
    write(repo, {"b.py/inside": b"i\n"})
    shutil.rmtree(repo / "dir/sub")
    write(repo, {"dir/sub": b"now a file\n"})


def linked_directory(repo):
    (repo / "dir").rename(repo / "moved")
    (repo / "dir").symlink_to("moved")


def crlf(repo):
    write(repo, {"crlf.txt": b"x\r\nchanged\r\n", "a.py": b"lf became\r\ncrlf\r\n", "new.txt": b"a\r\nb\n"})


def no_end(repo):
    write(repo, {"no_end": b"still no line end", "a.py": b"one", "ends": b"\n\n"})


def names(repo):
    odd = [
        "ünï cödé.py",
        "with space",
        "tab\there",
        'quo"te',
        "back\\slash",
        "line\nbreak",
        "-dash",
        "a => b",
        "*?[x]",
        " ",
    ]
    write(
        repo,
        dict.fromkeys(odd, b"n\n") | {"trailing ": b"", "diff --git a": b"diff --git a/x b/x\n", ":(attr)": b""},
    )
    with open(os.fsencode(repo) + b"/not-\xff-utf8", "wb") as file:
        file.write(b"\xff\xfe latin\n")


def untracked(repo):
    write(repo, {"new/deep/er/x.py": b"x\n", "new/y.txt": b"y\n", "ignored/z": b"never\n"})


def empty(repo):
    write(repo, {"empty": b"", "b.py": b"", "new/empty": b""})


def intent_to_add(repo):
    write(repo, {"ita.py": b"content\n", "ita_empty": b""})
    git(repo, "add", "-N", "ita.py", "ita_empty")


def partly_staged(repo):
    write(repo, {"a.py": b"ONE\ntwo\nthree\n" + b"one\ntwo\nthree\n" * 4})
    git(repo, "add", "a.py")
    write(repo, {"a.py": b"ONE\ntwo\nthree\n" + b"one\ntwo\nthree\n" * 3 + b"one\ntwo\nend\n"})


def hidden(repo):
    """A local setting that its owner hides from git is part of the code that runs."""
    git(repo, "update-index", "--assume-unchanged", "a.py")
    git(repo, "update-index", "--skip-worktree", "b.py")
    write(repo, {"a.py": b"hidden\n", "b.py": b"hidden too\n"})


def attributes(repo):
    write(repo, {".gitattributes": b"c.txt text eol=crlf\n*.py -diff\n*.id ident\n"})
    write(repo, {"a.py": b"not shown as text\n", "dir/c.txt": b"c\r\nd\r\n", "v.id": b"$Id$\n"})


def detached(repo):
    git(repo, "checkout", "-q", "--detach")
    unstaged(repo)


def split_index(repo):
    git(repo, "config", "core.splitIndex", "true")
    git(repo, "update-index", "--split-index")
    staged(repo)
    untracked(repo)


def same_second(repo):
    """Written within the second of the index, with the same size: only the content tells."""
    git(repo, "add", "-A")
    write(repo, {"b.py": b"B\n"})
    git(repo, "add", "b.py")
    write(repo, {"b.py": b"C\n"})
    for name in ("b.py", ".git/index"):
        os.utime(repo / name, ns=(10**18, 10**18))


def sparse(repo):
    git(repo, "sparse-checkout", "set", "--cone", "dir/sub")
    write(repo, {"dir/sub/d.py": b"D\n", "new.py": b"n\n", "moved/x": b"outside of the cone\n"})


def sparse_index(repo):
    sparse(repo)
    git(repo, "sparse-checkout", "reapply", "--sparse-index")


def conflict(repo):
    git(repo, "checkout", "-q", "-b", "other")
    write(repo, {"a.py": b"theirs\n", "dir/c.txt": b"theirs\n"})
    (repo / "b.py").unlink()
    commit(repo)
    git(repo, "checkout", "-q", "main")
    write(repo, {"a.py": b"ours\n", "b.py": b"ours\n"})
    commit(repo)
    with pytest.raises(AssertionError):
        git(repo, "merge", "-q", "other")


STATES = [
    staged, unstaged, both, deleted, staged_then_gone, untracked_by_hand, renamed, binary, mode, symlink, kinds,
    linked_directory, crlf, no_end, names, untracked, empty, intent_to_add, partly_staged, hidden, attributes, detached,
    split_index, same_second, sparse, sparse_index, conflict,
]  # fmt: skip


#: All that may be in force together, and each alone on a repository that is in many states at once.
TOGETHER = {key: value for name, pairs in SETTINGS.items() if name != "autocrlf" for key, value in pairs.items()}
MIXED = [staged, binary, symlink, crlf, no_end, names, untracked, empty, intent_to_add, hidden, mode]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_every_state(tmp_path, state):
    """The tree is that of the files as they lay there, and the patch leads to it, whatever git is set to print."""
    repo = make_repo(tmp_path / "repo", START)
    state(repo)
    _leads_back(repo, tmp_path / "plain")
    for key, value in TOGETHER.items():
        git(repo, "config", key, value)
    _leads_back(repo, tmp_path / "together")
    git(repo, "config", "core.autocrlf", "true")
    git(repo, "config", "core.safecrlf", "true")
    _leads_back(repo, tmp_path / "autocrlf", core_autocrlf="true")


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=list(SETTINGS))
def test_every_setting(tmp_path, settings):
    """Each setting alone changes nothing for a repository that is in many states at once."""
    repo = make_repo(tmp_path / "repo", START)
    for state in MIXED:
        state(repo)
    for key, value in settings.items():
        git(repo, "config", key, value)
    wanted = {"core_autocrlf": "true"} if "core.autocrlf" in settings else {}
    _leads_back(repo, tmp_path / "scratch", **wanted)


def _leads_back(repo, scratch, **settings):
    found, files = capture(repo)
    assert found.tree == true_tree(repo, scratch / "oracle", **settings)
    assert (found.dirty, found.restorable, found.reasons, found.problems) == (True, "yes", (), ())
    assert restore(found, files, scratch / "restored") == found.tree


def test_a_shallow_clone(tmp_path):
    """Changes in a shallow clone are a patch on a commit that the remote has."""
    origin = make_repo(tmp_path / "origin", START)
    write(origin, {"b.py": b"second\n"})
    commit(origin)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{origin}", str(clone))
    untracked(clone)
    found, files = capture(clone)
    assert (found.shallow, found.unpushed, found.restorable, list(files)) == (True, 0, "yes", ["git_diff.txt"])
    assert (found.upstream, found.ahead, found.behind) == ("origin/main", 0, 0)
    assert restore(found, files, tmp_path / "restored", remote=origin) == found.tree == true_tree(clone, tmp_path / "o")
    git(clone, "update-ref", "-d", "refs/remotes/origin/main")
    git(clone, "update-ref", "-d", "refs/remotes/origin/HEAD", "--no-deref")
    found, files = capture(clone)
    assert (found.restorable, found.base, "git_commits.bundle" in files) == ("no", None, False)
    assert "the clone is shallow" in found.reasons[0]


def test_a_linked_worktree(tmp_path):
    """A linked worktree has its own index and branch, and the objects of the repository."""
    repo = make_repo(tmp_path / "repo", START)
    git(repo, "worktree", "add", "-q", "-b", "side", str(tmp_path / "linked"))
    untracked(tmp_path / "linked")
    unstaged(repo)
    found, files = capture(tmp_path / "linked")
    assert (found.worktree, found.branch, found.staged, found.unstaged, found.untracked) == (True, "side", 0, 0, 2)
    assert restore(found, files, tmp_path / "restored") == found.tree == true_tree(tmp_path / "linked", tmp_path / "o")
    assert capture(repo)[0].worktree is False


def test_a_repository_of_sha256(tmp_path):
    """A repository with sha256 object names is captured the same way."""
    repo = tmp_path / "repo"
    repo.mkdir()
    git(repo, "init", "-q", "--object-format=sha256")
    write(repo, START)
    commit(repo)
    binary(repo)
    conflict_free = capture(repo)
    assert len(conflict_free[0].tree) == 64
    assert restore(*conflict_free, tmp_path / "restored") == conflict_free[0].tree


def test_no_commit_yet(tmp_path):
    """A repository without a commit cannot be named, and that is the reason."""
    (tmp_path / "repo").mkdir()
    git(tmp_path / "repo", "init", "-q")
    write(tmp_path / "repo", START)
    with pytest.raises(IncompleteError, match="no commit yet"):
        capture(tmp_path / "repo")


def test_a_dirty_submodule(tmp_path):
    """A submodule has a tree and a patch of its own: git would not tell that it has changes of its own."""
    library = make_repo(tmp_path / "library", {"lib.py": b"1\n"})
    repo = make_repo(tmp_path / "repo", START)
    git(repo, "-c", "protocol.file.allow=always", "submodule", "add", "-q", f"file://{library}", "vendor/lib")
    commit(repo)
    assert capture(repo)[0].submodules[0].dirty is False
    write(repo, {"vendor/lib/lib.py": b"2\n", "vendor/lib/more.py": b"3\n"})
    found, files = capture(repo)
    module = found.submodules[0]
    assert (found.dirty, found.unstaged, found.tree) == (True, 0, git(repo, "rev-parse", "HEAD^{tree}"))
    assert (module.path, module.dirty, module.url) == ("vendor/lib", True, f"file://{library}")
    assert module.commit == module.recorded == git(library, "rev-parse", "HEAD")
    assert (module.files, module.restorable, found.restorable) == (("git_diff.1.txt",), "yes", "yes")
    state, own = capture(repo / "vendor/lib")
    assert own["git_diff.txt"] == files["git_diff.1.txt"]
    into = tmp_path / "restored"
    assert restore(state, files, into, remote=library, number=".1") == module.tree
    same = make_repo(tmp_path / "same", {"lib.py": b"2\n", "more.py": b"3\n"})
    assert module.tree == git(same, "rev-parse", "HEAD^{tree}")


def test_a_submodule_at_another_commit(tmp_path):
    """The commit that lies there is part of the tree, and so of the patch."""
    library = make_repo(tmp_path / "library", {"lib.py": b"1\n"})
    repo = make_repo(tmp_path / "repo", START)
    git(repo, "-c", "protocol.file.allow=always", "submodule", "add", "-q", f"file://{library}", "lib")
    commit(repo)
    newer = commit(repo / "lib", "unpushed")
    found, files = capture(repo)
    assert (found.submodules[0].commit, found.submodules[0].restorable) == (newer, "yes")
    assert f"+Subproject commit {newer}".encode() in files["git_diff.txt"]
    assert "git_commits.1.bundle" in found.submodules[0].files
    assert restore(found, files, tmp_path / "restored") == found.tree
