"""What of the changes travels and what does not: secrets, sizes, filters, and whether the patch gives the tree."""

import os
import tempfile
from pathlib import Path

import pytest
from git_place import PATIENT, capture, commit, git, make_repo, restore, true_tree, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reprod.capture.git.patch as patch_module
from reprod.capture.git.command import Budget
from reprod.capture.git.repository import MAX_WITHHELD, read_git
from reprod.capture.git.secrets import is_secret_name

TOKEN = b"ghp_" + b"a1B2c3D4e5" * 4
KEY = b"AKIAQX7J2M4N6P8R3T5V"
NOTEBOOK = b'{"cells": [{"outputs": [{"text": ["logged in with ' + TOKEN + b'"]}]}]}\n'


@pytest.fixture
def repo(tmp_path):
    """A repository whose commit a remote has."""
    path = make_repo(tmp_path / "repo", {"a.py": b"1\n", "config.py": b"region = 'eu'\n", "old.pem": b"CANARY\n"})
    pushed(path)
    return path


def pushed(path):
    git(path, "update-ref", "refs/remotes/origin/main", "HEAD")


def test_secrets_stay(repo, tmp_path):
    """Files with the name of a secret, and changes that show one, are withheld by path; the rest is restored."""
    write(repo, {".env": b"A=CANARY\n", "id_rsa": b"CANARY\n", "deep/.aws/x": b"CANARY\n", "a.py": b"2\n"})
    write(repo, {"config.py": b"region = 'eu'\nkey = '" + KEY + b"'\n", "note.ipynb": NOTEBOOK, "new.py": b"fine\n"})
    write(repo, {"blob.bin": b"\0\1" + TOKEN + b"\0", "wide.txt": TOKEN.decode().encode("utf-16")})
    write(repo, {"db.yaml": b"url: postgres://u:x7Kq9ZpL2mWv8RtY3n@db/x\n"})
    (repo / "old.pem").unlink()
    git(repo, "add", ".env", "config.py")
    state, files = capture(repo)
    patch = files["git_diff.txt"]
    names = "its name says that it holds a secret"
    shown = "it holds what looks like a secret"
    assert {entry.path: entry.reason for entry in state.withheld} == {
        ".env": names, "id_rsa": names, "deep/.aws/x": names, "old.pem": names, "config.py": shown, "note.ipynb": shown,
        "blob.bin": shown, "wide.txt": shown, "db.yaml": shown,
    }  # fmt: skip
    assert (state.restorable, state.reasons) == ("partial", ("9 changed files are withheld",))
    for secret in (b"CANARY", KEY, TOKEN, b"x7Kq9ZpL2mWv8RtY3n"):
        assert secret not in patch
    assert restore(state, files, tmp_path / "restored", remote=repo) == state.tree
    assert (tmp_path / "restored/a.py").read_bytes() == b"2\n"
    assert (tmp_path / "restored/new.py").read_bytes() == b"fine\n"
    assert not (tmp_path / "restored/.env").exists()


def test_a_secret_that_is_taken_out(repo):
    """The line that goes is in a patch as well as the line that comes, in text and in a binary file."""
    write(repo, {"config.py": b"key = '" + KEY + b"'\n", "blob": b"\0" + TOKEN})
    commit(repo)
    pushed(repo)
    write(repo, {"config.py": b"key = ask()\n", "blob": b"\0"})
    state, files = capture(repo)
    assert [entry.path for entry in state.withheld] == ["blob", "config.py"]
    assert files == {}


def test_values_that_are_known_to_be_secret(repo):
    """A password of no shape at all is found by its value, in the forms in which it may stand."""
    write(
        repo, {"a.py": b"connect('correct horse battery')\n", "b.py": b"u = 'https://h/?q=correct%20horse%20battery'\n"}
    )
    assert capture(repo)[0].withheld == ()
    state, files = capture(repo, tainted=["correct horse battery"])
    assert [entry.path for entry in state.withheld] == ["a.py", "b.py"]
    assert files == {}
    commit(repo)
    assert "looks like a secret" in capture(repo, tainted=["correct horse battery"])[0].reasons[0]


@pytest.mark.parametrize(
    ("path", "secret"),
    [
        (b".env", True), (b".env.local", True), (b"prod.ENV", True), (b"x/server.pem", True), (b"id_ed25519", True),
        (b"home/.ssh/config", True), (b"credentials.json", True), (b".netrc", True), (b".docker/config.json", True),
        (b"secrets.toml", True), (b"terraform.tfstate", True), (b"kubeconfig.yml", True), (b"\xff.key", True),
        (b"id_mapping.py", False), (b"environment.yml", False), (b"tokenizer.json", False), (b"keys.py", False),
        (b"docker/config.json", False), (b"src/secretary.py", False), (b"monkey", False), (b"id_rsa.pub", False),
    ],
)  # fmt: skip
def test_names_of_secrets(path, secret):
    """Names that programs give to secrets are known, and code that is about such things is code."""
    assert is_secret_name(path) is secret


def test_code_about_secrets_is_code(repo):
    """A program that asks for a password holds none."""
    write(repo, {"login.py": b"def login(password=None, token=os.environ['HF_TOKEN']):\n    api_key = get_key()\n"})
    assert capture(repo)[0].withheld == ()


def test_names_only_and_off(repo):
    """With ``names`` the changed files are told by letter and name, with ``off`` not; the tree is the same."""
    write(repo, {"a.py": b"2\n", "new\nname": b"\n", ".env": b"CANARY"})
    (repo / "config.py").unlink()
    whole, _ = capture(repo)
    names, files = capture(repo, patch="names")
    assert files == {"git_diff.txt": b"M\ta.py\nD\tconfig.py\nA\tnew\\nname\n"}
    off, nothing = capture(repo, patch="off")
    assert nothing == {}
    assert whole.tree == names.tree == off.tree
    assert [entry.path for entry in off.withheld] == [".env"]
    assert "the contents of 3 changed files are not recorded, as configured" in names.reasons


def test_budgets(repo, tmp_path):
    """What is over a limit is withheld with its size; code comes before data, small files before large ones."""
    noise = os.urandom
    write(
        repo,
        {"big.bin": noise(200_000), "data/00": noise(40_000), "data/01": noise(40_000), "train.py": b"x = 1\n" * 5000},
    )
    write(repo, {"a.py": b"\n".join(noise(20).hex().encode() for _ in range(4000))})
    budget = Budget(PATIENT.seconds, file_bytes=100_000, patch_bytes=260_000)
    state, files = read_git(str(repo), budget=budget)
    assert {entry.path: (entry.size, entry.reason) for entry in state.withheld} == {
        "big.bin": (200_000, "it is over the limit for one file"),
        "data/01": (40_000, "there is no room for it in the patch"),
    }
    assert len(files["git_diff.txt"]) <= 260_000
    assert restore(state, files, tmp_path / "restored", remote=repo) == state.tree
    assert (tmp_path / "restored/train.py").exists()


def test_a_deleted_file_that_is_large(repo):
    """The patch of a deletion holds what was there, so it has a limit as well."""
    write(repo, {"table.csv": b"a,b\n" * 100_000})
    commit(repo)
    (repo / "table.csv").unlink()
    state, files = read_git(str(repo), budget=Budget(PATIENT.seconds, patch_bytes=100_000))
    assert [(entry.path, entry.size) for entry in state.withheld] == [("table.csv", None)]
    assert "git_diff.txt" not in files


def test_huge_and_many(repo):
    """50 GB in one new file and 30,000 new files beside the code cost but their names; the code is in the patch."""
    with open(repo / "huge.bin", "wb") as file:
        file.truncate(50 << 30)
    (repo / "frames").mkdir()
    for number in range(30_000):
        os.symlink("x", repo / "frames" / f"{number:06}.jpg")
    write(repo, {"zz/train.py": b"code\n"})
    state, files = capture(repo)
    assert b"zz/train.py" in files["git_diff.txt"]
    assert len(files["git_diff.txt"]) <= 4 << 20
    assert state.untracked == 30_002
    assert len(state.withheld) == MAX_WITHHELD
    assert state.withheld_more + MAX_WITHHELD == 30_002 - 2000
    assert capture(repo)[0].withheld == state.withheld


def test_files_that_are_too_many_to_list(repo, monkeypatch):
    """Where new files could not be listed to the end, nothing is said of those that were not."""
    monkeypatch.setattr("reprod.capture.git.changes.UNTRACKED_S", -1.0)
    write(repo, {"new.py": b"x\n"})
    state, _ = capture(repo)
    assert (state.dirty, state.tree, state.restorable) == (None, None, "partial")
    assert state.reasons == ("new files were not listed to the end, there are too many",)


def test_a_file_that_is_not_readable(repo, tmp_path):
    """A new file that its reader may not open is withheld; the others are recorded."""
    write(repo, {"closed": b"x", "open.py": b"y\n"})
    (repo / "closed").chmod(0)
    if os.geteuid() == 0:
        (repo / "closed").unlink()
        os.symlink("loop", repo / "loop")  # root may open everything; a link is recorded as what it is
        assert capture(repo)[0].withheld == ()
        return
    state, files = capture(repo)
    assert [(entry.path, entry.reason) for entry in state.withheld] == [
        ("closed", "it could not be read: Permission denied")
    ]
    assert restore(state, files, tmp_path / "restored", remote=repo) == state.tree


def test_lfs_is_recorded_as_its_pointer(tmp_path):
    """A file in LFS that was only touched is unchanged, a changed one is its new pointer, an absent one counts."""
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize %d\n"
    old = pointer % (b"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", 4)
    new = pointer % (b"fe520676b1a1d93dabab2319eea03674f3632eaeeb163d1e88244f5eb1de10eb", 4)
    repo = make_repo(tmp_path / "repo", {"touched.bin": old, "changed.bin": old, "missing.bin": old})
    write(repo, {".gitattributes": b"*.bin filter=lfs diff=lfs merge=lfs -text\n"})
    commit(repo)
    pushed(repo)
    git(repo, "config", "filter.lfs.clean", "git-lfs clean -- %f")
    git(repo, "config", "filter.lfs.process", "git-lfs filter-process")
    git(repo, "config", "filter.lfs.required", "true")
    write(repo, {"touched.bin": b"test", "changed.bin": b"TEST"})
    assert capture(repo)[0].lfs_missing == 1
    state, files = capture(repo)
    assert (state.lfs_files, state.staged, state.unstaged) == (3, 0, 1)
    assert [(entry.path, entry.size, entry.reason) for entry in state.withheld] == [
        ("changed.bin", 4, "its content is in Git LFS, only its pointer is recorded")
    ]
    assert state.restorable == "partial"
    assert restore(state, files, tmp_path / "restored", remote=repo) == state.tree
    assert (tmp_path / "restored/changed.bin").read_bytes() == new.replace(
        b"fe520676b1a1d93dabab2319eea03674f3632eaeeb163d1e88244f5eb1de10eb", _sha256(b"TEST")
    )


def _sha256(data):
    import hashlib

    return hashlib.sha256(data).hexdigest().encode()


def test_a_patch_that_is_not_the_tree_is_not_called_one(repo, monkeypatch):
    """A patch that git printed wrongly, or that lost a line, is found by applying it."""
    write(repo, {"a.py": b"2\n", "b.py": b"b\n"})
    split = patch_module._split
    monkeypatch.setattr(
        patch_module, "_split", lambda *args: {p: s.replace(b"+b\n", b"+B\n") for p, s in split(*args).items()}
    )
    state, _ = capture(repo)
    assert state.restorable == "partial"
    assert state.reasons == ("the patch could not be proven to give the tree",)


def test_the_same_code_has_the_same_tree(repo, tmp_path):
    """Committed or not, staged or not: equal files are equal code."""
    write(repo, {"a.py": b"2\n", "new/x.py": b"x\n"})
    loose = capture(repo)[0].tree
    git(repo, "add", "-A")
    staged = capture(repo)[0].tree
    commit(repo)
    assert loose == staged == capture(repo)[0].tree == git(repo, "rev-parse", "HEAD^{tree}")


NAMES = [
    "a",
    "b.py",
    "dir/c",
    "dir/d e",
    "ünï",
    "line\nbreak",
    'q"uote',
    "back\\slash",
    "dir/deep/x",
    "tab\t.txt",
    "-n",
]
CONTENTS = [
    b"",
    b"one\n",
    b"one\r\ntwo\r\n",
    b"no end",
    b"\0binary\xff",
    b"one\ntwo\nthree\n" * 9,
    b"\xfe\xff",
    KEY + b"\n",
]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from(NAMES), st.sampled_from(CONTENTS)),
        st.tuples(st.sampled_from(["delete", "chmod", "link", "add", "intent", "uncache"]), st.sampled_from(NAMES)),
        st.tuples(st.just("rename"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
        st.tuples(st.sampled_from(["commit", "stash-index"])),
    ),
    max_size=12,
)


def _edit(repo: Path, step: tuple) -> None:
    """Do one thing that a person does to a working tree; what is not possible just then is not done."""
    kind, *rest = step
    path = repo / rest[0] if rest else repo
    try:
        if kind == "write":
            write(repo, {rest[0]: rest[1]})
        elif kind == "delete":
            path.unlink()
        elif kind == "chmod":
            path.chmod(path.lstat().st_mode ^ 0o111)
        elif kind == "link":
            path.unlink(missing_ok=True)
            path.symlink_to("dir")
        elif kind == "rename":
            path.rename(repo / rest[1])
        elif kind == "add":
            git(repo, "add", "--", rest[0])
        elif kind == "intent":
            git(repo, "add", "-N", "--", rest[0])
        elif kind == "uncache":
            git(repo, "rm", "-q", "--cached", "--", rest[0])
        elif kind == "commit":
            git(repo, "commit", "-q", "-m", "x")
        else:
            git(repo, "add", "-u")
    except (OSError, AssertionError):
        pass


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_any_sequence_of_edits_is_restored(steps):
    """After any edits the record leads back to the tree that lies there, or to it without the files that it names."""
    with tempfile.TemporaryDirectory() as folder:
        repo = make_repo(Path(folder, "repo"), {"a": b"one\n", "dir/c": b"one\r\n", "b.py": b"\0\1"})
        pushed(repo)
        for step in steps:
            _edit(repo, step)
        state, files = capture(repo)
        restored = restore(state, files, Path(folder, "restored"), remote=repo)
        assert restored == state.tree
        assert KEY not in b"".join(files.values())
        if state.restorable == "yes":
            assert state.tree == true_tree(repo, Path(folder, "oracle"))
        else:
            assert state.reasons
            assert state.withheld or "unpushed" in state.reasons[0]
