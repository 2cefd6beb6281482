"""The package set of site directories, from the installers' records."""

import importlib.metadata
import json
import os
import re
import sys
import time

from reprod.capture.packages import read_packages


def normalised(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_this_environment_equals_importlib_metadata():
    """What this process would import is exactly what is read, local versions included."""
    expected = {}
    for found in importlib.metadata.distributions():
        expected.setdefault(normalised(found.metadata["Name"]), found.version)
    result = read_packages(sys.path)
    assert {normalised(package.name): package.version for package in result.packages} == expected
    assert result.problems == ()
    assert len(expected) > 50


def test_200_packages_cost_30_ms(tmp_path, dist):
    """Reading a large environment is cheap enough to do at every run."""
    for number in range(200):
        dist(tmp_path, f"package-{number}", "1.0", RECORD="x" * 5000)
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        assert len(read_packages([str(tmp_path)]).packages) == 200
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.030


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
    dist(site, "good", "1.0")
    begin = time.monotonic()
    result = read_packages([str(site)])
    assert time.monotonic() - begin < 1
    assert [package.name for package in result.packages] == ["good", "url"]
    assert "CANARY" not in repr(result)
    for name in ("linked", "fifo", "folder", "url"):
        assert sum(f"/{name}-1.0.dist-info" in problem for problem in result.problems) == 1, name


def test_broken_records_are_reported(tmp_path, dist):
    """No record is dropped in silence: each is a package or a problem."""
    texts = {
        "noname": b"Version: 1.0\n",
        "noversion": b"Name: noversion\n\nVersion: 1.0\n",
        "bytes": b"Name: \xff\xfe\nVersion: 1.0\n",
        "injected": b"Name: a\rb==1\nVersion: 1.0\n",
        "space": b"Name: x\nVersion: 1.0 ; rm -rf\n",
        "empty": b"",
    }
    for name, text in texts.items():
        (dist(tmp_path, name, "1.0") / "METADATA").write_bytes(text)
    (tmp_path / "~umpy-1.0.dist-info").mkdir()
    (tmp_path / "void-1.0.dist-info").mkdir()
    result = read_packages([str(tmp_path)])
    assert result.packages == ()
    assert len(result.problems) == len(texts) + 2


def test_a_gigabyte_of_metadata_costs_its_cap(tmp_path, dist):
    """A file is read to its cap at most."""
    metadata = dist(tmp_path, "big", "2.0") / "METADATA"
    os.truncate(metadata, 1 << 30)
    begin = time.monotonic()
    assert [package.version for package in read_packages([str(tmp_path)]).packages] == ["2.0"]
    assert time.monotonic() - begin < 0.5


def test_first_on_the_path_wins(tmp_path, dist):
    """The record that an import would find counts; two in one directory are said."""
    dist(tmp_path / "a", "Torch_x", "2.0")
    dist(tmp_path / "b", "torch-x", "1.0")
    dist(tmp_path / "b", "twice", "1.0")
    dist(tmp_path / "b", "twice", "2.0")
    result = read_packages([str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "missing")])
    assert [(package.name, package.version) for package in result.packages] == [("Torch_x", "2.0"), ("twice", "1.0")]
    assert len(result.problems) == 1


def test_direct_urls_are_kept_without_credentials(tmp_path, dist):
    """Where a package came from is known, and no secret of the address."""
    url = "https://u:CANARY@host/x.whl?X-Amz-Signature=CANARY&v=1"
    dist(tmp_path, "wheel", "1.0", direct_url__json=json.dumps({"url": url, "archive_info": {}}))
    git = {"url": "https://CANARY@host/o/r", "vcs_info": {"vcs": "git", "commit_id": "a" * 40}}
    dist(tmp_path, "vcs", "1.0", direct_url__json=json.dumps(git))
    dist(
        tmp_path, "own", "1.0", direct_url__json=json.dumps({"url": "file:///src/own", "dir_info": {"editable": True}})
    )
    dist(tmp_path, "odd", "1.0", direct_url__json='{"url": ["CANARY"]}')
    result = read_packages([str(tmp_path)])
    assert "CANARY" not in repr(result)
    found = {package.name: package for package in result.packages}
    assert found["wheel"].direct_url == "https://host/x.whl?X-Amz-Signature=***&v=1"
    assert (found["vcs"].direct_url, found["vcs"].commit) == ("https://host/o/r", "a" * 40)
    assert found["own"].editable
    assert found["odd"].direct_url is None
    assert len(result.problems) == 1


def test_old_egg_info(tmp_path):
    """Records of old installers, a directory or a single file, count too."""
    (tmp_path / "d.egg-info").mkdir()
    (tmp_path / "d.egg-info/PKG-INFO").write_text("Name: d\nVersion: 1\n")
    (tmp_path / "f-2.egg-info").write_text("Name: f\nVersion: 2\n")
    result = read_packages([str(tmp_path)])
    assert [(package.name, package.version) for package in result.packages] == [("d", "1"), ("f", "2")]
