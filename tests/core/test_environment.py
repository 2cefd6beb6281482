"""Environment values: identity, digest, JSON form, files and parameters."""

import json
from dataclasses import replace

import pytest

from reprod.core.accelerator import Accelerators, Gpu
from reprod.core.environment import Environment, Record, clean, decode, decode_record, encode, encode_record
from reprod.core.environment_files import (
    artifacts,
    parameters,
    read_back,
    rebuildable,
    requirements_text,
    system_info,
)
from reprod.core.execution import Execution, Subject
from reprod.core.invocation import Invocation
from reprod.core.machine import Cpu, Limits, Memory, System
from reprod.core.packages import Conda, CondaPackage, Package, PackageSet, Python
from reprod.core.process import ProcessContext
from reprod.core.redact import Redactor
from reprod.core.repository import Attachment, Git
from reprod.errors import DamagedError

BOOT = "39aa8962-07c0-47cc-bbed-ea6469f36a84"
CONTEXT = ProcessContext(v=1, host="h", boot_id=BOOT, pid=12, start_ticks=345, prefix="/venv")
SEEN = Execution(Subject("process", "h", BOOT, "handover", 12, 345, "/venv"), 1_700_000_000_123_000_000)
FULL = Environment(
    python=Python("3.11.7", "/venv", "/usr", "CPython", "/venv/bin/python"),
    packages=PackageSet(
        (
            Package("zlib-ng", "1.0", "/venv/s"),
            Package("Alpha_b", "2.0+cu121", "/venv/s"),
            Package("mine", "0.1", "/venv/s", "file:///src/mine", None, True),
        )
    ),
    system=System("Linux", "6.1", "#1", "x86_64", "Debian", libc="glibc", libc_version="2.36"),
    cpu=Cpu("Xeon", threads=8, cores=4),
    memory=Memory(1 << 34, 0),
    limits=Limits(affinity_count=2),
    accelerators=Accelerators((Gpu(0, "H100", "550.1", None, "0000:00:04.0"),), "NVML"),
    git=Git("a" * 40, "main", True, "/src", "https://h/o/r", tree="t" * 40),
    variables={"OMP_NUM_THREADS": "2"},
)


class TestProcessContext:
    def test_round_trip(self):
        """A context survives its tag, and its key names the process."""
        assert ProcessContext.parse(CONTEXT.to_json()) == CONTEXT
        assert CONTEXT.key == f"{BOOT}:12:345:@h"

    def test_unknown_keys_are_tolerated(self):
        """A newer training side may add keys."""
        value = json.loads(CONTEXT.to_json()) | {"v": 2, "new": [1]}
        assert ProcessContext.parse(json.dumps(value)) == replace(CONTEXT, v=2)

    @pytest.mark.parametrize(
        "change",
        [
            {"pid": 0},
            {"pid": True},
            {"pid": "12"},
            {"pid": -1},
            {"pid": 2**70},
            {"start_ticks": 1.5},
            {"v": 0},
            {"host": ""},
            {"host": "a\nb"},
            {"boot_id": "../../etc"},
            {"boot_id": BOOT + "\n"},
            {"prefix": "relative"},
            {"prefix": "/a\0b"},
            {"prefix": "/" + "x" * 5000},
            {"prefix": None},
        ],
    )
    def test_wrong_values_are_refused(self, change):
        """Each field has one form; anything else is no context."""
        assert ProcessContext.parse(json.dumps(json.loads(CONTEXT.to_json()) | change)) is None

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 9000, '{"v":1}', "\ud800"])
    def test_parse_is_total(self, text):
        """Any text gives a context or None, never an exception."""
        assert ProcessContext.parse(text) is None


class TestDigest:
    def test_same_environment_in_another_process(self):
        """The order in which variables were set is no part of it, and nothing of the process is."""
        other = replace(FULL, variables=dict(reversed(FULL.variables.items())))
        assert other.digest() == FULL.digest()
        assert len(FULL.digest()) == 64

    @pytest.mark.parametrize(
        "change",
        [
            {"packages": PackageSet(FULL.packages.packages[:2])},
            {"packages": None},
            {"accelerators": None},
            {"git": None},
            {"variables": {}},
            {"packages": replace(FULL.packages, problems=("x",))},
            {"python": replace(FULL.python, prefix="/other")},
        ],
    )
    def test_another_environment(self, change):
        """Whatever describes the environment changes the digest; unknown is not empty."""
        assert replace(FULL, **change).digest() != FULL.digest()


class TestCodec:
    def test_round_trip(self):
        """Bytes and JSON objects give the same record back."""
        assert decode(encode(FULL)) == FULL
        record = Record(SEEN, FULL, {"git_diff.txt": b"\0\xff"})
        assert decode_record(encode_record(record)) == record

    def test_newer_fields_are_ignored(self):
        """A record of a later version is readable as far as it is known."""
        assert decode(json.dumps(json.loads(encode(FULL)) | {"later": 1}).encode()) == FULL

    @pytest.mark.parametrize("data", [b"", b"[]", b'{"python":1}', b"\xff", b"[" * 100_000])
    def test_damage(self, data):
        """What is no record is DamagedError, whatever the bytes."""
        with pytest.raises(DamagedError):
            decode(data)
        with pytest.raises(DamagedError):
            decode_record(data)

    def test_wrong_types(self):
        """A record with a field of another type is refused whole."""
        with pytest.raises(DamagedError):
            decode(json.dumps(json.loads(encode(FULL)) | {"variables": {"A": 1}}).encode())


class TestFiles:
    def test_requirements(self):
        """Header lines, then sorted name==version with local versions kept."""
        lines = requirements_text(Record(SEEN, FULL)).splitlines()
        assert [line for line in lines if not line.startswith("#")] == ["Alpha_b==2.0+cu121", "zlib-ng==1.0"]
        assert any("mine" in line and "file:///src/mine" in line for line in lines if line.startswith("#"))

    def test_no_line_can_be_smuggled_in(self):
        """A line break inside a recorded text never becomes a requirement."""
        text = requirements_text(
            Record(SEEN, replace(FULL, packages=replace(FULL.packages, problems=("a\nevil==1\u2028evil==2",))))
        )
        assert len([line for line in text.splitlines() if not line.startswith("#")]) == 2

    def test_system_info_has_the_seed_shape(self):
        """The seed's keys are there, filled where known and null where not."""
        info = system_info(Record(SEEN, FULL))
        for key in ("timestamp", "platform", "python", "cpu", "memory", "gpu", "git", "environment_variables"):
            assert info[key]
        assert info["timestamp"] == "2023-11-14T22:13:20.123Z"
        assert info["git"]["uncommitted_changes"] is True
        bare = system_info(Record(SEEN, Environment(unknown={"gpu": "why"})))
        assert bare["gpu"] is None
        assert bare["unknown"] == {"gpu": "why"}

    def test_parameters(self):
        """Known values are there as text; the usable CPUs count."""
        assert parameters(FULL) == {
            "python_version": "3.11.7",
            "platform_system": "Linux",
            "cpu_count": "2",
            "gpu_count": "1",
            "git_commit": "a" * 40,
            "git_branch": "main",
            "git_uncommitted_changes": "true",
        }

    def test_unknown_parameters_are_absent(self):
        """No value is made up; no GPU is 0, unknown GPUs are nothing."""
        assert parameters(Environment()) == {}
        assert parameters(Environment(accelerators=Accelerators())) == {"gpu_count": "0"}
        detached = parameters(replace(FULL, git=Git("b" * 40, None, False, "/src")))
        assert "git_branch" not in detached
        assert detached["git_uncommitted_changes"] == "false"

    def test_artifacts(self):
        """Two files for people and two that hold everything; none about packages where these are unknown."""
        files = artifacts(Record(SEEN, FULL))
        assert list(files) == ["environment.json", "packages.json", "requirements.txt", "system_info.json"]
        assert json.loads(files["packages.json"])["packages"][2]["editable"] is True
        assert json.loads(files["system_info.json"])["digest"] == f"env1:{FULL.digest()}"
        assert list(artifacts(Record(SEEN, replace(FULL, packages=None)))) == ["environment.json", "system_info.json"]

    def test_conda_has_a_file(self):
        """A conda prefix gives the file that conda itself takes, with the address and digest of each package."""
        url = "https://conda.anaconda.org/conda-forge/linux-64/zlib-1.3-0.conda"
        conda = Conda("/c", "base", (CondaPackage("zlib", "1.3", "0", url=url, sha256="a" * 64),))
        text = artifacts(Record(SEEN, replace(FULL, conda=conda)))["conda_packages.txt"].decode()
        assert "@EXPLICIT" in text.splitlines()
        assert any(line.startswith(url) for line in text.splitlines())

    def test_what_belongs_to_the_environment_is_among_them(self):
        """A patch of the repository is a file beside the others."""
        files = artifacts(Record(SEEN, FULL, {"git_diff.txt": b"+1\n"}))
        assert files["git_diff.txt"] == b"+1\n"


class TestReadingBack:
    def test_everything_comes_back(self):
        """Two of the files hold the whole record."""
        record = Record(replace(SEEN, invocation=Invocation(("python", "train.py"))), FULL)
        files = artifacts(record)
        assert read_back(files["environment.json"], files["packages.json"]) == record

    def test_unknown_packages_come_back_unknown(self):
        """A record without packages has one file, and says so when it is read."""
        record = Record(SEEN, replace(FULL, packages=None, unknown={"packages": "why"}))
        assert read_back(artifacts(record)["environment.json"], None) == record

    @pytest.mark.parametrize("change", [b"", b"{}", b"[]", b'{"environment": 1, "execution": 2}'])
    def test_damage(self, change):
        """What is no environment of ours is refused."""
        with pytest.raises(DamagedError):
            read_back(change, None)

    def test_files_of_two_captures_do_not_fit(self):
        """The digest in the first is of both."""
        other = artifacts(Record(SEEN, replace(FULL, packages=PackageSet())))["packages.json"]
        with pytest.raises(DamagedError, match="not of one capture"):
            read_back(artifacts(Record(SEEN, FULL))["environment.json"], other)


def test_the_digest_is_of_the_tree_not_of_how_commits_were_packed():
    """A bundle is packed anew each time; the same code stays the same environment."""
    one, other = (
        replace(FULL, git=replace(FULL.git, files=(Attachment("git_commits.bundle", sha, 1),))) for sha in "ab"
    )
    assert one.digest() == other.digest()


def test_rebuildable_says_what_is_in_the_way():
    """An editable install and a repository that nobody asked about are reasons."""
    found = rebuildable(FULL)
    assert found.verdict == "partial"
    assert any("mine" in reason for reason in found.reasons)


def test_no_secret_leaves_in_a_record():
    """Whatever a collector took in, a known secret is in no byte of the record, and the rest stays as it was."""
    seen = replace(SEEN, invocation=Invocation(("train.py", "--lr", "0.1", "--api-key", "CANARY-8f3a9c")))
    record = clean(Record(seen, replace(FULL, variables={"OMP_X": "CANARY-8f3a9c"})), Redactor(["CANARY-8f3a9c"]))
    assert b"CANARY" not in encode_record(record)
    assert record.execution.invocation.arguments[:3] == ("train.py", "--lr", "0.1")
    assert replace(record.environment, variables=FULL.variables) == FULL


def test_a_value_of_a_list_that_is_a_secret_costs_its_section_only():
    """Somebody's password may be a word that we use: the section that holds it is unknown, the record is there."""
    record = clean(Record(SEEN, replace(FULL, packages=PackageSet((Package("a", "1", "/s", origin="directory"),)))),
                   Redactor(["directory"]))  # fmt: skip
    assert record.environment.packages is None
    assert "secret" in record.environment.unknown["packages"]
    assert record.environment.cpu == FULL.cpu
