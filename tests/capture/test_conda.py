"""What conda linked into a prefix, from its own records."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import reprod.capture.packages.conda as module
from reprod.capture.packages.conda import read_conda
from reprod.core.packages import explicit_text

CANARY = "CANARY7f3a"
CHANNEL = "https://conda.anaconda.org/conda-forge"


def link(prefix, name, version="1.0", build="h1_0", **fields):
    """Write a record as conda does: with a list of files that is longer than all else."""
    meta = Path(prefix) / "conda-meta"
    meta.mkdir(parents=True, exist_ok=True)
    file = f"{name}-{version}-{build}"
    record = {
        "name": name,
        "version": version,
        "build": build,
        "build_number": 0,
        "channel": f"{CHANNEL}/linux-64",
        "depends": [],
        "files": [f"lib/{name}/{number}.py" for number in range(500)],
        "fn": f"{file}.conda",
        "md5": "a" * 32,
        "sha256": "b" * 64,
        "subdir": "linux-64",
        "url": f"{CHANNEL}/linux-64/{file}.conda",
        "paths_data": {"paths": [{"_path": f"lib/{name}/{number}.py", "size_in_bytes": 1} for number in range(500)]},
    }
    (meta / f"{file}.json").write_text(json.dumps(record | fields, indent=2))
    return meta / f"{file}.json"


def test_records_become_packages_and_an_explicit_file(tmp_path):
    """Name, version, build, channel, address and hashes are known, and a package follows what it depends on."""
    prefix = tmp_path / "envs" / "train"
    link(prefix, "numpy", "2.1.0", "py311_1", depends=["python >=3.11,<3.12", "libblas"])
    link(prefix, "python", "3.11.7", depends=["zlib", "pip", "__glibc >=2.17"], sha256=None)
    link(prefix, "pip", depends=["python"], subdir="noarch", url=f"{CHANNEL}/noarch/pip-1.0-h1_0.tar.bz2")
    link(prefix, "zlib")
    link(prefix, "libblas")
    conda = read_conda(str(prefix))
    assert (conda.prefix, conda.name, conda.problems) == (str(prefix), "train", ())
    order = [package.name for package in conda.packages]
    assert order.index("zlib") < order.index("python") < order.index("numpy")
    assert order.index("libblas") < order.index("numpy")
    numpy = conda.packages[order.index("numpy")]
    assert (numpy.version, numpy.build, numpy.channel) == ("2.1.0", "py311_1", f"{CHANNEL}/linux-64")
    assert (numpy.md5, numpy.sha256, numpy.fn) == ("a" * 32, "b" * 64, "numpy-2.1.0-py311_1.conda")
    lines = explicit_text(conda).splitlines()
    assert "# platform: linux-64" in lines
    explicit = lines[lines.index("@EXPLICIT") + 1 :]
    assert [line.rpartition("/")[2].partition("-")[0] for line in explicit] == order
    assert f"{CHANNEL}/linux-64/numpy-2.1.0-py311_1.conda#sha256:{'b' * 64}" in explicit
    assert f"{CHANNEL}/linux-64/python-3.11.7-h1_0.conda#{'a' * 32}" in explicit


def test_8_variables_and_history_are_never_opened(tmp_path):
    """Acceptance 8: of conda's folder only the records of packages are opened, and tokens of channels stay out."""
    url = f"https://u:{CANARY}@conda.anaconda.org/t/{CANARY}/private/linux-64/x-1.0-h1_0.conda"
    link(tmp_path, "x", url=url, channel=f"https://conda.anaconda.org/t/{CANARY}/private", requested_spec=CANARY)
    meta = tmp_path / "conda-meta"
    (meta / "state").write_text(json.dumps({"version": 1, "env_vars": {"TOKEN": CANARY}}))
    (meta / "history").write_text(f"# cmd: conda create -c https://conda.anaconda.org/t/{CANARY}/private x\n")
    (meta / "pinned").write_text(CANARY)
    code = (
        "import sys; import msgspec; from reprod.capture.packages.conda import read_conda\n"
        "seen = []; sys.addaudithook(lambda event, args: seen.append(args[0]) if event == 'open' else None)\n"
        "found = read_conda(sys.argv[1]); opened = [str(name) for name in seen]\n"
        "print(opened); print(found)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True, timeout=60
    )
    opened, found = done.stdout.splitlines()
    assert opened == repr([str(meta), "x-1.0-h1_0.json"])
    assert CANARY not in found
    (package,) = read_conda(str(tmp_path)).packages
    assert package.url == "https://conda.anaconda.org/private/linux-64/x-1.0-h1_0.conda"
    assert package.channel == "https://conda.anaconda.org/private"


def test_broken_and_hostile_records_are_problems(tmp_path):
    """What is no record of a package is named with its reason; nothing of its content comes out or is followed."""
    link(tmp_path, "good")
    meta = tmp_path / "conda-meta"
    contents = {
        "empty": b"",
        "text": CANARY.encode(),
        "list": b"[]",
        "deep": b"[" * 100_000,
        "bytes": b'{"name": "\xff"}',
        "half": json.dumps({"name": CANARY, "version": "1"}).encode(),
        "typed": json.dumps({"name": CANARY, "version": 1, "build": "x"}).encode(),
        "injected": json.dumps({"name": f"a\n{CANARY}", "version": "1", "build": "x"}).encode(),
    }
    for name, content in contents.items():
        (meta / f"{name}.json").write_bytes(content)
    (meta / "link.json").symlink_to("/etc/passwd")
    os.mkfifo(meta / "fifo.json")
    (meta / "folder.json").mkdir()
    with open(meta / "huge.json", "wb") as file:
        file.truncate(module.RECORD_BYTES + 1)
    conda = read_conda(str(tmp_path))
    assert [package.name for package in conda.packages] == ["good"]
    named = sorted(problem.partition(".json")[0].removeprefix("conda-meta/") for problem in conda.problems)
    assert named == sorted([*contents, "link", "fifo", "folder", "huge"])
    assert CANARY not in repr(conda)


def test_two_records_of_one_package_are_both_there_and_said(tmp_path):
    """An update that was interrupted leaves two; neither is dropped."""
    link(tmp_path, "x", "1.0")
    link(tmp_path, "x", "2.0")
    conda = read_conda(str(tmp_path))
    assert sorted(package.version for package in conda.packages) == ["1.0", "2.0"]
    assert conda.problems == ("conda-meta: x has 2 records",)


def test_names_of_environments(tmp_path):
    """An environment below envs has its folder's name, the one with conda in it is base, others have only a path."""
    link(tmp_path / "opt", "conda")
    link(tmp_path / "elsewhere", "x")
    assert read_conda(str(tmp_path / "opt")).name == "base"
    assert read_conda(str(tmp_path / "elsewhere")).name is None


def test_what_is_no_conda_prefix_is_none(tmp_path):
    """A virtual environment has no section; a conda prefix that cannot be listed has one, with the reason."""
    assert read_conda(str(tmp_path)) is None
    assert read_conda(str(tmp_path / "gone")) is None
    (tmp_path / "conda-meta").symlink_to("conda-meta")
    conda = read_conda(str(tmp_path))
    assert conda.packages == ()
    assert "symbolic link" in conda.problems[0]


def test_a_record_is_remembered_until_it_changes(tmp_path, monkeypatch):
    """An unchanged record is not decoded again; an update is seen, whatever was remembered."""
    reads = []
    real = module.read_bounded
    monkeypatch.setattr(module, "read_bounded", lambda *args, **options: reads.append(args) or real(*args, **options))
    link(tmp_path, "x", build="h1_0")
    deadline = time.monotonic() + 60
    while True:
        before = len(reads)
        assert read_conda(str(tmp_path)).packages[0].sha256 == "b" * 64
        if len(reads) == before:
            break
        # A record written this instant is read again: it could still change without showing it.
        assert time.monotonic() < deadline
    link(tmp_path, "x", build="h1_0", sha256="c" * 64)
    assert read_conda(str(tmp_path)).packages[0].sha256 == "c" * 64


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_long_chain_of_dependencies_is_no_recursion(tmp_path, number):
    """Thousands of packages that depend on each other, forwards, backwards or in a circle, are put in order."""
    count = 1500
    edges = {0: lambda n: n - 1, 1: lambda n: n + 1, 2: lambda n: (n + 1) % count}[number]
    meta = tmp_path / "conda-meta"
    meta.mkdir()
    for n in range(count):
        record = {"name": f"p{n:04}", "version": "1", "build": "0", "depends": [f"p{edges(n):04} >=1"]}
        (meta / f"p{n:04}.json").write_text(json.dumps(record))
    order = [package.name for package in read_conda(str(tmp_path)).packages]
    expected = [f"p{n:04}" for n in range(count)]
    assert order == (expected if number == 0 else expected[::-1])
