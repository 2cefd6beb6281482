"""Environment values: identity, digest, JSON form, files and parameters."""

import json
from dataclasses import replace

import pytest

from reprod.core.environment import (
    Environment,
    Git,
    Gpu,
    Package,
    ProcessContext,
    Python,
    Subject,
    System,
    artifacts,
    convert,
    decode,
    encode,
    parameters,
    requirements_text,
    system_info,
)
from reprod.errors import DamagedError

BOOT = "39aa8962-07c0-47cc-bbed-ea6469f36a84"
CONTEXT = ProcessContext(v=1, host="h", boot_id=BOOT, pid=12, start_ticks=345, prefix="/venv")
FULL = Environment(
    subject=Subject("process", "h", BOOT, "handover", 12, 345, "/venv"),
    taken_ns=1_700_000_000_123_000_000,
    python=Python("3.11.7", "/venv", "/usr", "CPython", "/venv/bin/python"),
    packages=(
        Package("zlib-ng", "1.0", "/venv/s"),
        Package("Alpha_b", "2.0+cu121", "/venv/s"),
        Package("mine", "0.1", "/venv/s", "file:///src/mine", None, True),
    ),
    system=System("Linux", "6.1", "#1", "x86_64", "Debian", "glibc 2.36", "Xeon", 8, 4, 2, 1 << 34, 0),
    gpus=(Gpu(0, "H100", "550.1", None, "0000:00:04.0"),),
    git=Git("a" * 40, "main", True, "/src", "https://h/o/r"),
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
        """Time, process, boot and the way of finding out are no part of it."""
        other = replace(
            FULL,
            taken_ns=1,
            subject=replace(FULL.subject, pid=99, start_ticks=1, how="in-process", boot_id=BOOT[::-1]),
            variables=dict(reversed(FULL.variables.items())),
        )
        assert other.digest() == FULL.digest()
        assert len(FULL.digest()) == 64

    @pytest.mark.parametrize(
        "change",
        [
            {"packages": FULL.packages[:2]},
            {"packages": None},
            {"gpus": None},
            {"git": None},
            {"variables": {}},
            {"problems": ("x",)},
            {"subject": replace(FULL.subject, prefix="/other")},
        ],
    )
    def test_another_environment(self, change):
        """Whatever describes the environment changes the digest; unknown is not empty."""
        assert replace(FULL, **change).digest() != FULL.digest()


class TestCodec:
    def test_round_trip(self):
        """Bytes and JSON objects give the same record back."""
        assert decode(encode(FULL)) == FULL
        assert convert(json.loads(encode(FULL))) == FULL

    def test_newer_fields_are_ignored(self):
        """A record of a later version is readable as far as it is known."""
        assert convert(json.loads(encode(FULL)) | {"later": 1}) == FULL

    @pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"subject":1}', b"\xff", b"[" * 100_000])
    def test_damage(self, data):
        """What is no record is DamagedError, whatever the bytes."""
        with pytest.raises(DamagedError):
            decode(data)

    def test_wrong_types(self):
        """A record with a field of another type is refused whole."""
        with pytest.raises(DamagedError):
            convert(json.loads(encode(FULL)) | {"variables": {"A": 1}})


class TestFiles:
    def test_requirements(self):
        """Header lines, then sorted name==version with local versions kept."""
        lines = requirements_text(FULL).splitlines()
        assert [line for line in lines if not line.startswith("#")] == [
            "Alpha_b==2.0+cu121",
            "mine==0.1",
            "zlib-ng==1.0",
        ]
        assert "# mine: editable, from file:///src/mine" in lines

    def test_no_line_can_be_smuggled_in(self):
        """A line break inside a recorded text never becomes a requirement."""
        text = requirements_text(replace(FULL, problems=("a\nevil==1\u2028evil==2",)))
        assert len([line for line in text.splitlines() if not line.startswith("#")]) == 3

    def test_system_info_has_the_seed_shape(self):
        """The seed's keys are there, filled where known and null where not."""
        info = system_info(FULL)
        for key in ("timestamp", "platform", "python", "cpu", "memory", "gpu", "git", "environment_variables"):
            assert info[key]
        assert info["timestamp"] == "2023-11-14T22:13:20.123Z"
        assert info["git"]["uncommitted_changes"] is True
        bare = system_info(Environment(FULL.subject, 0, unknown={"gpu": "why"}))
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
        assert parameters(Environment(FULL.subject, 0)) == {}
        assert parameters(Environment(FULL.subject, 0, gpus=())) == {"gpu_count": "0"}
        detached = parameters(replace(FULL, git=Git("b" * 40, None, False, "/src")))
        assert "git_branch" not in detached
        assert detached["git_uncommitted_changes"] == "false"

    def test_artifacts(self):
        """Three files, and only the system's where packages are unknown."""
        files = artifacts(FULL)
        assert list(files) == ["packages.json", "requirements.txt", "system_info.json"]
        assert json.loads(files["packages.json"])["packages"][1]["editable"] is True
        assert json.loads(files["system_info.json"])["digest"] == FULL.digest()
        assert list(artifacts(replace(FULL, packages=None))) == ["system_info.json"]
