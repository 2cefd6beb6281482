"""A dataset that keeps its names to itself: how its paths are told in texts, commands and records."""

import dataclasses
import hashlib

import msgspec
import pytest

from reprod.core.environment import Environment, Record
from reprod.core.execution import Execution, Subject
from reprod.core.invocation import Entry, Invocation, Launcher
from reprod.core.redact_paths import Curtain, Reserved
from reprod.core.redact_record import hidden
from reprod.core.repository import Attachment, Git, Submodule, Withheld
from reprod.core.snapshot import BoundDataset, Publish, Snapshot

#: The root of the first is told, that of the second is not.
CURTAIN = Curtain(
    [
        Reserved("patients", ("/secret/project", "/mnt/disk1/project")),
        Reserved("deep", ("/home/bob/d p/x",), whole=True),
    ]
)
PATIENTS, DEEP = "<dataset patients>/...", "<dataset deep>/..."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/secret/project", "/secret/project"),
        ("/secret/project/", "/secret/project/"),
        ("/secret/project-old/x", "/secret/project-old/x"),
        ("/other/secret/project/x", "/other/secret/project/x"),
        ("/secret/project/Jo Smith.csv is gone\nnext", f"{PATIENTS}\nnext"),
        ("/mnt/disk1/project/x", PATIENTS),
        ("--data=/secret/project/a b.csv", f"--data={PATIENTS}"),
        ("-d/secret/project/x", f"-d{PATIENTS}"),
        ("/secret/project/lib:/usr/lib:/secret/project/x", f"{PATIENTS}:/usr/lib:{PATIENTS}"),
        ("open('/secret/project/it is.csv', 3)", f"open('{PATIENTS}', 3)"),
        ('{"a": "/secret/project/x.csv", "lr": 3}', f'{{"a": "{PATIENTS}", "lr": 3}}'),
        ("/home/bob/d p/x", "<dataset deep>"),
        ("file:///home/bob/d%20p/x/y.csv", f"file://{DEEP}"),
        ("~/d p/x/y", DEEP),
        ("no path", "no path"),
    ],
)
def test_a_path_below_such_a_root_is_told_as_its_datasets(text: str, shown: str) -> None:
    """In any text, quoted, joined or in a URL, also with its links resolved; another folder stays as it is, and to hide
    twice is to hide once."""
    assert CURTAIN.text(text) == shown
    assert CURTAIN.text(shown) == shown
    assert Curtain([]).text(text) == text


@pytest.mark.parametrize(
    ("cwd", "word", "shown"),
    [
        ("/secret", "project/smith.csv", PATIENTS),
        ("/etc", "../secret/project/smith", PATIENTS),
        ("/secret/other", "data.path=../project/smith", f"data.path={PATIENTS}"),
        ("/secret/project", "--data=smith.csv", f"--data={PATIENTS}"),
        ("/secret/project", "a.csv,b.csv", PATIENTS),
        (None, "/secret/./project//x", PATIENTS),
        ("/secret", "cat project/smith.csv", PATIENTS),
        ("/secret", "train.py", "train.py"),
        ("/secret/project", "--lr=0.1", "--lr=0.1"),
        ("/secret/project", "adam", "adam"),
        ("/secret/project", "..", ".."),
        (None, "project/smith.csv", "project/smith.csv"),
    ],
)
def test_a_word_of_a_command_is_a_path_from_where_it_was_given(cwd: str | None, word: str, shown: str) -> None:
    """What a command names relative to its directory is hidden like the whole path; numbers and plain words stay."""
    assert CURTAIN.word(word, cwd) == shown


#: Three files that changed: code, one of the data, and one of the data that git has to quote.
PATCH = b"""diff --git a/train.py b/train.py
--- a/train.py
+++ b/train.py
@@ -1 +1 @@
+x = 1
diff --git a/project/smith.csv b/project/smith.csv
new file mode 100644
+diff --git is a line of it
diff --git "a/project/m\\303\\274ller.csv" "b/project/m\\303\\274ller.csv"
new file mode 100644
"""


def record(root: str) -> Record:
    """A record of a process whose every section names a file of the dataset, its code in a repository at ``root``."""
    files = {"git_diff.txt": PATCH, "git_commits.bundle": b"packed", "git_diff.1.txt": b"diff --git a/x b/x\n"}
    git = Git(
        "c0ffee", "main", True, root, cwd="project", restorable="yes",
        withheld=(Withheld("project/smith.bin", 7, "large"), Withheld("project/jones", 8, "large"),
                  Withheld("model.bin", 9, "large")),
        submodules=(Submodule("library", "beef", files=("git_diff.1.txt",)),),
        files=tuple(Attachment(name, hashlib.sha256(c).hexdigest(), len(c)) for name, c in files.items()),
        problems=("project/smith.csv was not read",),
    )  # fmt: skip
    invocation = Invocation(
        arguments=("python", "train.py", "--data", "smith.csv", "--also=/secret/project/smith"),
        cwd="/secret/project", entry=Entry("script", "train.py"), main_file="/secret/train.py",
        launchers=(Launcher("make", "parent", ("make", "/secret/project/smith")),),
    )  # fmt: skip
    subject = Subject("process", "host", "boot", "in-process", prefix="/secret/project/smith-venv")
    environment = Environment(
        git=git, variables={"PYTHONPATH": "/secret/project/smith:/usr/lib"}, unknown={"cpu": "no /secret/project/smith"}
    )
    return Record(Execution(subject, 1, invocation), environment, files)


def test_a_record_names_nothing_below_such_a_root() -> None:
    """Command, directory, settings, reasons, and what a repository above the data holds of it; code and the rest stay,
    attachments are what is said of them, and a repository that lost something says so."""
    found = hidden(record("/secret"), CURTAIN)
    told = msgspec.json.encode(found).decode() + repr(found.files)
    assert [name for name in ("smith", "jones", "ller.csv", "packed") if name in told] == []
    invocation, git = found.execution.invocation, found.environment.git
    assert invocation is not None
    assert git is not None
    assert invocation.arguments == ("python", PATIENTS, "--data", PATIENTS, f"--also={PATIENTS}")
    assert (invocation.cwd, invocation.main_file) == ("/secret/project", "/secret/train.py")
    assert found.environment.variables == {"PYTHONPATH": f"{PATIENTS}:/usr/lib"}
    assert found.files["git_diff.txt"] == PATCH[: PATCH.index(b"diff --git a/project")]
    assert {each.name: each.sha256 for each in git.files} == {
        name: hashlib.sha256(content).hexdigest() for name, content in found.files.items()
    }
    assert set(found.files) == {"git_diff.txt", "git_diff.1.txt"}
    assert [(each.path, each.size) for each in git.withheld] == [(PATIENTS, None), ("model.bin", 9)]
    assert git.restorable == "partial"
    assert "commits that no remote has, are not kept" in git.reasons[-1]


def test_a_repository_elsewhere_keeps_all_of_its_files() -> None:
    """Data beside the code takes nothing from it; a repository within the data is not told at all."""
    plain = hidden(record("/code"), CURTAIN)
    assert plain.files == record("/code").files
    git = plain.environment.git
    assert git is not None
    assert (git.restorable, git.withheld) == ("yes", record("/code").environment.git.withheld)  # type: ignore[union-attr]
    within = hidden(record("/secret/project/code"), CURTAIN)
    assert within.files == {}
    assert "model.bin" not in msgspec.json.encode(within).decode()


def test_an_error_names_no_path_that_is_not_published() -> None:
    """Why a dataset has no digest goes to a tag of the run: without its root where that is not told, and without what
    lies below it in any case."""
    lost = BoundDataset(
        "patients", "/secret/project", None, None, None, None, None, None, None, None, ("sha256",), 0.0,
        error="unavailable: /secret/project does not exist",
    )  # fmt: skip
    below = dataclasses.replace(lost, error="'/secret/project/smith' cannot be listed")
    snapshot = Snapshot(1, "host", (lost,), None, None, None)

    def told(dataset: BoundDataset, publish: Publish) -> list[str]:
        return dataclasses.replace(snapshot, datasets=(dataclasses.replace(dataset, publish=publish),)).errors

    assert told(lost, "summary") == told(lost, "full") == ["patients: unavailable: /secret/project does not exist"]
    assert told(lost, "digest") == ["patients: unavailable: <dataset patients> does not exist"]
    assert told(below, "summary") == told(below, "digest") == [f"patients: '{PATIENTS}' cannot be listed"]


def test_nothing_reserved_changes_nothing() -> None:
    """A run whose datasets are all published gets its record as it was captured."""
    found = record("/secret")
    assert hidden(found, Curtain([])) is found
    other = Curtain([Reserved("other", ("/elsewhere",))])
    assert dataclasses.replace(hidden(found, other)) == found
