"""Data whose names are not published: a run whose process names such a file everywhere, and what it is then told."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Daemon, Place, Tracker, dt1, eventually, let_slack_pass, make_data, running_daemon
from leak import assert_no_leak

pytestmark = pytest.mark.mlflow

TRAIN = """
import sys, mlflow, reprod
with mlflow.start_run(experiment_id={experiment!r}) as run:
    mlflow.set_tag("reprod.dataset", {names!r})
    print(run.info.run_id, flush=True)
    sys.stdin.read()
"""
GIT = ("git", "-c", "user.name=e2e", "-c", "user.email=e2e@example.org", "-c", "init.defaultBranch=main")


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """A repository above the data of two datasets, in which files of both changed; ``vault`` is a link to one."""
    root, away = tmp_path / "clinic", tmp_path / "sequestered-ward"
    for folder in (root / "patients", away):
        make_data(folder)
        (folder / "smith.csv").write_text("1")
        (folder / "library").mkdir()
    (root / "vault").symlink_to(away)
    (root / "train.py").write_text("")
    for arguments in (("init", "-q"), ("add", "train.py", "patients/smith.csv"), ("commit", "-q", "-m", "first")):
        subprocess.run([*GIT, *arguments], cwd=root, check=True, timeout=30, capture_output=True)
    (root / "patients" / "smith.csv").write_text("smith's new line")
    (root / "patients" / "jones.bin").write_bytes(b"\0" * 3_000_000)
    return root


@pytest.fixture
def daemon(tmp_path: Path, mlflow_server: str, clinic: Path, name: str) -> Iterator[Daemon]:
    """A daemon that publishes totals of the first and the digest of the second."""
    with running_daemon(tmp_path / "d", mlflow_server) as running:
        running.place.register(f"{name}-p", clinic / "patients", publish="summary")
        running.place.register(f"{name}-v", clinic / "vault", publish="digest")
        running.call("reload")
        for each in (f"{name}-p", f"{name}-v"):
            running.sealed(each, 1, 60)
        let_slack_pass()
        yield running


def test_a_run_is_told_no_path_of_data_that_keeps_them_to_itself(
    daemon: Daemon, tracker: Tracker, clinic: Path, name: str, tmp_path: Path
) -> None:
    """Command line, directory, variables and the repository of a process that names files of such data, of one through
    a link: no artifact, tag, param or input of its run has a name, the digests are there, and so is the rest. From a
    host without any state the files are verified by the digest."""
    script, away = clinic / "train.py", tmp_path / "sequestered-ward"
    script.write_text(TRAIN.format(experiment=tracker.experiment, names=f"{name}-p,{name}-v"))
    variables = daemon.place.variables() | {"MLFLOW_TRACKING_URI": tracker.uri, "GIT_PYTHON_REFRESH": "quiet"}
    variables |= {"PYTHONPATH": f"{clinic}/patients/smith-library:{away}/smith-library", "PYTHONDONTWRITEBYTECODE": "1"}
    words = ["--data=../../clinic/patients/smith.csv", f"{clinic}/vault/smith.csv", "../smith.csv", "--epochs", "3"]
    process = subprocess.Popen(
        [sys.executable, str(script), *words],
        cwd=away / "library", env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        run_id = process.stdout.readline().strip()
        tags = tracker.wait_state(run_id, timeout_s=60)
    finally:
        process.communicate(timeout=60)
    eventually(lambda: "reprod.drift" in tracker.ours(run_id), 60, "the end is written")
    tracker.wait_params(run_id, "data_path")

    assert tags[f"reprod.digest.{name}-p"] == dt1(clinic / "patients")
    run = tracker.client.get_run(run_id)
    blobs = {path: tracker.read(run_id, path, tmp_path / "down") for path in tracker.artifacts(run_id)}
    assert_no_leak({"a file": "smith.csv", "another": "jones.bin", "a line": "smith's new line"}, blobs=blobs)
    assert_no_leak(
        {"a folder": "smith-library", "the vault": "sequestered-ward", "its link": "clinic/vault"}, blobs=blobs
    )
    ours = {key: value for key, value in run.to_dictionary()["data"]["tags"].items() if key.startswith("reprod.")}
    told = json.dumps([ours, run.data.params, run.to_dictionary()["inputs"]])
    assert_no_leak({"a file": "smith.csv", "the vault": "sequestered-ward"}, blobs={"run": told})
    system = json.loads(blobs["environment/system_info.json"])
    patients, vault = f"<dataset {name}-p>/...", f"<dataset {name}-v>/..."
    assert system["process"]["arguments"][1:] == [str(script), f"--data={patients}", vault, vault, "--epochs", "3"]
    assert system["environment_variables"]["PYTHONPATH"] == f"{patients}:{vault}"
    assert (system["process"]["cwd"], system["git"]["restorable"]) == (vault, "partial")
    assert "git_diff.txt" in {each["name"] for each in system["git"]["files"]}, "changed code is there"

    later = Place(tmp_path / "later", tracker.uri)
    for which, code in (("p", 0), ("v", 6)):  # where the files were is published of the first alone
        assert later.cli("verify", f"run:{run_id}", "--dataset", f"{name}-{which}").returncode == code
    for which, root in (("p", clinic / "patients"), ("v", clinic / "vault")):
        asked = ("verify", f"run:{run_id}", "--root", str(root), "--dataset", f"{name}-{which}", "--json")
        done = later.cli(*asked)
        assert (done.returncode, json.loads(done.stdout)["digest_actual"]) == (0, tags[f"reprod.digest.{name}-{which}"])
    assert later.cli(*asked, "--quick").returncode == 5
    (clinic / "patients" / "smith.csv").write_text("smith's other line")
    (away / "smith.csv").write_text("2")
    assert later.cli(*asked).returncode == 5, "nobody says which files of the vault were selected"
    asked = ("verify", f"run:{run_id}", "--root", str(clinic / "patients"), "--dataset", f"{name}-p")
    done = later.cli(*asked)
    assert (done.returncode, "only the whole was compared" in done.stdout) == (1, True)
