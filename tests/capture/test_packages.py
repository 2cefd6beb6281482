"""The package set of site directories, from the installers' records."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hand_wheel import find_uv, make_prefix, run_installer, write_project, write_wheel

from reprod.capture.packages.installed import read_packages

#: Every way in which a record appears on disk.
RECORD = re.compile(r"~.+|.+\.(dist-info|egg-info|egg-link)")


def normalised(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def records_on_disk(*sites):
    return sorted(name for site in sites for name in os.listdir(site) if RECORD.fullmatch(name))


def test_this_environment_equals_importlib_metadata():
    """What this process would import is exactly what is read, local versions included."""
    expected = {}
    for found in importlib.metadata.distributions():
        expected.setdefault(normalised(found.metadata["Name"]), found.version)
    result = read_packages(sys.path)
    counted = [package for package in result.packages if not package.shadowed]
    assert {normalised(package.name): package.version for package in counted} == expected
    assert (result.broken, result.problems) == ((), ())
    assert len(expected) > 50
    assert all(package.record_sha256 for package in counted)


def test_12_200_packages_cost_no_child_process_and_few_reads(tmp_path, dist):
    """Acceptance 12: five small reads a package, no RECORD that is unchanged is read twice, and nothing is started.

    The time is for the benchmarks: 30 ms is the aim, 18 ms was measured for 193 real packages.
    """
    for number in range(200):
        dist(tmp_path, f"package-{number}", "1.0", RECORD=f"a{number}.py,sha256=x,1\n" * 500, WHEEL="", INSTALLER="uv")
    code = (
        "import sys, time; from reprod.capture.packages.installed import read_packages\n"
        "seen = []; sys.addaudithook(lambda event, args: seen.append((event, args)))\n"
        "started = ('subprocess', 'os.fork', 'os.posix', 'os.exec')\n"
        "def read():\n"
        "    del seen[:]; assert len(read_packages([sys.argv[1]]).packages) == 200\n"
        "    opened = [str(args[0]) for event, args in seen if event == 'open']\n"
        "    return len(opened), opened.count('RECORD'), [event for event, _ in seen if event.startswith(started)]\n"
        "print(read()); deadline = time.monotonic() + 45\n"
        # A RECORD of this very instant could change without showing it, and is read again.
        "while (last := read())[1] and time.monotonic() < deadline: pass\n"
        "print(last)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True, timeout=60
    )
    # A record is a directory, METADATA, INSTALLER, direct_url.json (there is none), RECORD and WHEEL.
    assert done.stdout.splitlines() == [f"({1 + 200 * 6}, 200, [])", f"({1 + 200 * 5}, 0, [])"]


@pytest.mark.parametrize("kind", ["pip", pytest.param("uv", marks=pytest.mark.skipif(not find_uv(), reason="no uv"))])
def test_12_the_set_equals_what_the_installer_lists(tmp_path, kind):
    """Acceptance 12: an environment without pip in it, with an editable and a local directory, equals its listing."""
    site = make_prefix(tmp_path / "env")
    write_wheel(tmp_path, "from-index", "2.0+cu121", {"x.py": ""})
    write_project(tmp_path / "own", "own", "0.1")
    write_project(tmp_path / "copied", "copied", "0.2")
    run_installer(kind, tmp_path / "env", "install", "--find-links", tmp_path, "from-index", tmp_path / "copied")
    run_installer(kind, tmp_path / "env", "install", "--no-deps", "-e", tmp_path / "own")
    listed = json.loads(run_installer(kind, tmp_path / "env", "list", "--format", "json"))
    found = read_packages([str(site)])
    assert {(each.name, each.version) for each in found.packages} == {
        (each["name"], each["version"]) for each in listed
    }
    assert {each.name: (each.origin, each.installer) for each in found.packages} == {
        "from-index": ("index", kind),
        "own": ("editable", kind),
        "copied": ("directory", kind),
    }
    assert all(each.requested and each.tags == ("py3-none-any",) for each in found.packages)
    assert {each.name for each in found.packages if each.editable} == {"own"}
    assert found.packages[2].direct_url == f"file://{tmp_path}/own"


def test_hostile_records_are_reported_and_not_followed(tmp_path, dist):
    """Links, FIFOs and devices are neither followed nor waited for, and each is named."""
    secret = tmp_path / "secret"
    secret.write_text("Name: CANARY\nVersion: 1.0\nurl: CANARY\n")
    site = tmp_path / "site"
    (dist(site, "linked", "1.0") / "METADATA").unlink()
    (site / "linked-1.0.dist-info/METADATA").symlink_to(secret)
    (dist(site, "fifo", "1.0") / "METADATA").unlink()
    os.mkfifo(site / "fifo-1.0.dist-info/METADATA")
    (site / "folder-1.0.dist-info").symlink_to(dist(tmp_path / "elsewhere", "folder", "1.0"))
    (dist(site, "url", "1.0") / "direct_url.json").symlink_to(secret)
    for file in ("INSTALLER", "WHEEL", "RECORD"):
        (site / "url-1.0.dist-info" / file).symlink_to(secret)
    dist(site, "good", "1.0")
    begin = time.monotonic()
    result = read_packages([str(site)])
    assert time.monotonic() - begin < 60
    assert [package.name for package in result.packages] == ["good", "url"]
    assert "CANARY" not in repr(result)
    assert [broken.record.split("-")[0] for broken in result.broken] == ["fifo", "folder", "linked"]
    assert len([problem for problem in result.problems if "/url-1.0.dist-info/" in problem]) == 3


def test_19_broken_records_are_listed(tmp_path, dist):
    """Acceptance 19: no record is dropped in silence; each on disk is a package, or broken with the reason."""
    texts = {
        "noname": (b"Version: 1.0\n", "no Name"),
        "noversion": (b"Name: noversion\n\nVersion: 1.0\n", "no Version"),
        "bytes": (b"Name: \xff\xfe\nVersion: 1.0\n", "no valid Name"),
        "injected": (b"Name: a\rb==1\nVersion: 1.0\n", "no valid Name"),
        "space": (b"Name: x\nVersion: 1.0 ; rm -rf\n", "no valid Version"),
        "empty": (b"", "no Name"),
    }
    for name, (text, _) in texts.items():
        (dist(tmp_path, name, "1.0") / "METADATA").write_bytes(text)
    (tmp_path / "~umpy-1.0.dist-info").mkdir()
    (tmp_path / "~umpy").mkdir()
    (tmp_path / "void-1.0.dist-info").mkdir()
    (tmp_path / "file-1.0.dist-info").touch()
    (tmp_path / os.fsdecode(b"\xff-1.0.dist-info")).mkdir()
    (tmp_path / "gone.egg-link").write_text("/no/such/directory\n.")
    (tmp_path / "blank.egg-link").touch()
    dist(tmp_path, "fine", "1.0")
    dist(tmp_path, "twice", "1.0")
    dist(tmp_path, "twice", "2.0")
    result = read_packages([str(tmp_path)])
    assert len(result.packages) + len(result.broken) == len(records_on_disk(tmp_path))
    assert [(package.name, package.version, package.shadowed) for package in result.packages] == [
        ("fine", "1.0", False),
        ("twice", "1.0", False),
        ("twice", "2.0", True),
    ]
    reasons = {broken.record: broken.reason for broken in result.broken}
    assert all(wanted in reasons[f"{name}-1.0.dist-info"] for name, (_, wanted) in texts.items())
    assert reasons["void-1.0.dist-info"] == "it has no METADATA"
    assert "\\xff-1.0.dist-info" in reasons
    assert [broken.record for broken in result.broken if broken.leftover] == ["~umpy", "~umpy-1.0.dist-info"]
    assert result.problems == (f"{tmp_path}: twice has two records, 1.0 and 2.0",)


def test_19_every_kind_of_record_counts(tmp_path, dist):
    """Acceptance 19: records of distutils, setuptools, its develop mode and eggs, and editable ones of today."""
    site, source, egg = tmp_path / "site", tmp_path / "src", tmp_path / "e-1-py3.egg"
    for directory, name in (
        (site / "d.egg-info", "d"),
        (source / "dev_elop.egg-info", "dev-elop"),
        (egg / "EGG-INFO", "e"),
    ):
        directory.mkdir(parents=True)
        (directory / "PKG-INFO").write_text(f"Metadata-Version: 1.0\nName: {name}\nVersion: 1\n")
    (site / "f-2.egg-info").write_text("Name: f\nVersion: 2\n")
    (site / "dev-elop.egg-link").write_text(f"{source}\n.")
    editable = json.dumps({"dir_info": {"editable": True}, "url": "file:///src/own"})
    for installer in ("pip", "uv", "hatch"):
        dist(site, f"by-{installer}", "1", direct_url__json=editable, INSTALLER=f"{installer}\n")
    # The path is as setuptools' develop mode leaves it: the sources and the eggs stand in easy-install.pth.
    result = read_packages([str(site), str(source), str(egg)])
    assert len(result.packages) == len(records_on_disk(site, source)) + 1
    assert [(each.name, each.version, each.editable, each.shadowed) for each in result.packages] == [
        ("by-hatch", "1", True, False),
        ("by-pip", "1", True, False),
        ("by-uv", "1", True, False),
        ("d", "1", False, False),
        ("dev-elop", "1", True, False),
        ("dev-elop", "1", False, True),
        ("e", "1", False, False),
        ("f", "2", False, False),
    ]
    assert (result.broken, result.problems) == ((), ())
    assert {each.direct_url for each in result.packages if each.editable} == {"file:///src/own", f"file://{source}"}


def test_20_local_versions_and_conda_builds(tmp_path, dist):
    """Acceptance 20: a local version is kept whole, and what conda built is told from what the user built."""
    dist(tmp_path, "torch", "2.4.0+cu121", INSTALLER="pip\n")
    croot = json.dumps({"dir_info": {}, "url": "file:///croot/numpy_and_numpy_base_1701295038894/build/dist/numpy.whl"})
    dist(tmp_path, "numpy", "1.26.4", INSTALLER="conda", direct_url__json=croot)
    forge = json.dumps({"dir_info": {}, "url": "file:///home/conda/feedstock_root/build_artifacts/six_1/work"})
    dist(tmp_path, "six", "1.16.0", INSTALLER="pip", direct_url__json=forge)
    dist(tmp_path, "mine", "1.0", INSTALLER="pip", direct_url__json='{"dir_info": {}, "url": "file:///home/me/mine"}')
    dist(tmp_path, "wheel", "1.0", INSTALLER="pip", direct_url__json='{"url": "file:///home/me/wheel-1.0-x.whl"}')
    dist(tmp_path, "odd", "1.0", INSTALLER="<script>")
    dist(tmp_path / "lib/python3/dist-packages", "apt", "1.0")
    result = read_packages([str(tmp_path), str(tmp_path / "lib/python3/dist-packages")])
    assert {each.name: (each.version, each.origin) for each in result.packages} == {
        "torch": ("2.4.0+cu121", "index"),
        "numpy": ("1.26.4", "conda"),
        "six": ("1.16.0", "conda"),
        "mine": ("1.0", "directory"),
        "wheel": ("1.0", "archive"),
        "odd": ("1.0", None),
        "apt": ("1.0", "system"),
    }


def test_a_terabyte_of_metadata_costs_its_cap(tmp_path, dist):
    """A file is read to its cap at most, and Name and Version are found behind a long first part."""
    metadata = dist(tmp_path, "big", "2.0") / "METADATA"
    os.truncate(metadata, 1 << 40)
    late = dist(tmp_path, "late", "1.0") / "METADATA"
    late.write_text("Author: " + "x" * 5000 + "\nName: late\nVersion: 1.0\n")
    begin = time.monotonic()
    assert [package.version for package in read_packages([str(tmp_path)]).packages] == ["2.0", "1.0"]
    assert time.monotonic() - begin < 60


def test_first_on_the_path_wins(tmp_path, dist):
    """The record that an import would find counts, the others are shadowed; one directory by two names is read once."""
    dist(tmp_path / "a", "Torch_x", "2.0")
    dist(tmp_path / "b", "torch-x", "1.0")
    (tmp_path / "lib64").symlink_to("b")
    result = read_packages([str(tmp_path / name) for name in ("a", "b", "missing", "lib64", "a")])
    assert [(package.name, package.version, package.shadowed) for package in result.packages] == [
        ("Torch_x", "2.0", False),
        ("torch-x", "1.0", True),
    ]
    assert result.problems == ()


def test_direct_urls_are_kept_without_credentials(tmp_path, dist):
    """Where a package came from is known, and no secret of the address."""
    sources = {
        "wheel": {
            "url": "https://u:CANARY@host/x.whl?X-Amz-Signature=CANARY&v=1",
            "archive_info": {"hash": "sha256=" + "b" * 64},
        },
        "vcs": {
            "url": "https://CANARY@host/o/r",
            "vcs_info": {"vcs": "git", "commit_id": "a" * 40},
            "subdirectory": "python",
        },
        "own": {"url": "file:///src/own", "dir_info": {"editable": True}},
        "odd": {"url": ["CANARY"]},
        "shapes": {"url": "https://host/x.whl", "archive_info": {"hashes": "CANARY"}, "vcs_info": ["CANARY"]},
        "forms": {"url": "https://h/o", "vcs_info": {"vcs": "CANARY", "commit_id": "CANARY"}, "subdirectory": "a\nb"},
    }
    for name, source in sources.items():
        dist(tmp_path, name, "1.0", direct_url__json=json.dumps(source))
    result = read_packages([str(tmp_path)])
    assert "CANARY" not in repr(result)
    found = {package.name: package for package in result.packages}
    assert found["wheel"].direct_url == "https://host/x.whl?X-Amz-Signature=***&v=1"
    assert found["wheel"].archive_sha256 == "b" * 64
    vcs = found["vcs"]
    assert (vcs.direct_url, vcs.vcs, vcs.commit, vcs.subdirectory) == ("https://host/o/r", "git", "a" * 40, "python")
    assert found["own"].editable
    assert found["odd"].direct_url is None
    assert (found["shapes"].archive_sha256, found["shapes"].vcs) == (None, None)
    assert (found["forms"].vcs, found["forms"].commit, found["forms"].subdirectory) == (None, None, None)
    assert len(result.problems) == 1


def test_a_directory_that_cannot_be_listed_is_a_problem(tmp_path):
    """A zip file on the path holds modules, but no record that is read; that is said."""
    (tmp_path / "modules.zip").write_bytes(b"PK")
    result = read_packages([str(tmp_path / "modules.zip")])
    assert result.packages == ()
    assert result.problems == (f"{tmp_path}/modules.zip: Not a directory",)


def test_the_flood_is_bounded(tmp_path, monkeypatch):
    """A directory with more records than any real one is read to a limit, which is said."""
    monkeypatch.setattr("reprod.capture.packages.installed.MAX_RECORDS", 3)
    for number in range(5):
        Path(tmp_path, f"p{number}-1.dist-info").mkdir()
    result = read_packages([str(tmp_path)])
    assert len(result.broken) == 3
    assert result.problems == (f"{tmp_path}: 5 records, only the first 3 were read",)
