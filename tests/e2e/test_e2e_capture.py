"""The main job: a run is tagged, and then carries exactly what it was trained on."""

import gzip
import hashlib
import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import Daemon, Tracker, dt1, eventually, let_events_tell_apart, let_slack_pass, running_daemon

from reprod.capture.process.identity import current_context

pytestmark = pytest.mark.mlflow

#: How many runs wait at once; ``make torture`` has 250. More pages than two are what counts.
RUNS = int(os.environ.get("REPROD_RUNS", "12"))

#: The real daemon, which asks for five runs a page.
SMALL_PAGES = """
import sys
from reprod.daemon import noticing
noticing.PAGE_SIZE = 5
from reprod.__main__ import main
sys.exit(main(["daemon"]))
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, mlflow_server: str) -> Iterator[Daemon]:
    """Yield one daemon for the tests here that do not hurt it; each registers a dataset of its own."""
    base = tmp_path_factory.mktemp("capture")
    with running_daemon(base, mlflow_server) as running:
        yield running


@pytest.fixture
def registered(daemon: Daemon, name: str, data: Path) -> str:
    """Register the dataset at the running daemon and wait for its first version; return its name."""
    daemon.place.register(name, data)
    assert daemon.call("reload")["added"] == [name]
    daemon.sealed(name, 1)
    let_slack_pass()
    return name


def test_a_finished_run_in_a_later_experiment_gets_all_of_the_contract(
    daemon: Daemon, registered: str, tracker: Tracker, data: Path, tmp_path: Path
) -> None:
    """A run that was finished and tagged in an experiment made after the daemon started gets every tag, param,
    metric, artifact and the dataset input of the contract, and its digest is that of an independent reading."""
    later = Tracker(tracker.client, tracker.uri, tracker.client.create_experiment(f"later-{uuid.uuid4().hex}"))
    run_id = later.start_run(context=current_context().to_json())
    later.client.set_terminated(run_id)
    later.tag(run_id, registered)
    later.wait_state(run_id)
    eventually(lambda: "reprod.drift" in later.ours(run_id), 60, "its end is said on the run")
    eventually(lambda: "data_manifest/drift.json" in later.artifacts(run_id), 60, "its end is on the run")
    tags = later.ours(run_id)
    digest = dt1(data)
    files = [p for p in data.rglob("*") if p.is_file() and not p.is_symlink()]
    size = sum(p.stat().st_size for p in files)

    chain = tags.pop("reprod.chain")
    assert chain.startswith(f"{registered}@1:")
    assert tags.pop("reprod.host")
    assert uuid.UUID(tags.pop("reprod.host_id"))
    # Of a run that ended before its tag came, the scan after its end says none; without one nothing is known.
    assert tags.pop("reprod.drift") in {"none", "unknown"}
    assert tags.pop("reprod.rebuildable") in {"yes", "partial"}  # this very environment's: reprod may be a checkout
    assert tags.pop("reprod.context") == current_context().to_json()
    assert tags == {
        "reprod.dataset": registered,
        "reprod.recorded": registered,
        "reprod.dataset_from": "run",
        "reprod.state": "captured",
        "reprod.digest": digest,
        "reprod.version": "1",
        "reprod.bound": "start",
        f"reprod.digest.{registered}": digest,
        f"reprod.version.{registered}": "1",
        f"reprod.bound.{registered}": "start",
        "reprod.assurance": "walk",
    }
    run = later.client.get_run(run_id)
    assert run.data.params["data_path"] == str(data)
    assert run.data.params["hash_algorithms"] == "sha256"
    assert run.data.params["manifest_version"] == "1.0"
    assert {"python_version", "platform_system", "cpu_count", "gpu_count"} <= set(run.data.params)
    assert run.data.metrics["data_files_count"] == len(files)
    assert run.data.metrics["data_size_bytes"] == size
    assert run.data.metrics["data_processing_time"] > 0
    assert [(i.dataset.name, i.dataset.digest) for i in run.inputs.dataset_inputs] == [
        (registered, digest.removeprefix("dt1:")[:36])
    ]
    assert later.artifacts(run_id) == [
        "data_manifest/data_manifest.json",
        "data_manifest/drift.json",
        "environment/environment.json",
        "environment/packages.json",
        "environment/requirements.txt",
        "environment/system_info.json",
        "reprod/report.html",
    ]
    manifest = json.loads(later.read(run_id, "data_manifest/data_manifest.json", tmp_path / "down"))
    assert manifest["digest"] == digest
    assert manifest["complete"] is True
    assert {f["relative_path"]: f["hashes"]["sha256"] for f in manifest["files"]} == {
        p.relative_to(data).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }
    assert manifest["summary"]["total_files"] == len(files)


def test_no_mlflow_tag_is_written(daemon: Daemon, registered: str, tracker: Tracker) -> None:
    """Tags that MLflow or the user set are the same before and after the capture."""
    run_id = tracker.finished_run(mine="yes")
    before = tracker.client.get_run(run_id).data.tags
    tracker.tag(run_id, registered)
    tracker.wait_state(run_id)
    after = tracker.client.get_run(run_id).data.tags
    assert {k: v for k, v in after.items() if not k.startswith("reprod.")} == before


def test_a_run_tagged_after_the_data_changed_gets_the_digest_of_its_start(
    daemon: Daemon, registered: str, tracker: Tracker, data: Path
) -> None:
    """The digest is what the disk held when the run started, though another version is newest when it is tagged; a run
    that starts afterwards gets the new one."""
    first = dt1(data)
    context = current_context().to_json()
    run_id = tracker.start_run(context=context)
    # A scan that begins a slack after the start is the proof that nothing had changed by then.
    let_slack_pass()
    daemon.call("scan", name=registered)
    tracker.client.set_terminated(run_id)
    (data / "sub" / "part-1.csv").write_text("changed after the start")
    daemon.sealed(registered, 2)
    tracker.tag(run_id, registered)
    tags = tracker.wait_state(run_id)
    assert (tags["reprod.digest"], tags["reprod.version"], tags["reprod.bound"]) == (first, "1", "start")

    later = tracker.finished_run(registered, context=context)
    tags = tracker.wait_state(later)
    assert (tags["reprod.digest"], tags["reprod.version"], tags["reprod.bound"]) == (dt1(data), "2", "start")
    assert dt1(data) != first


def test_events_alone_prove_the_start(daemon: Daemon, registered: str, tracker: Tracker, data: Path) -> None:
    """With no walk between the start and the change, the watch's own hints prove what the run started on, and the run
    says that its assurance is ``events``."""
    first = dt1(data)
    run_id = tracker.start_run(context=current_context().to_json())
    let_events_tell_apart()
    (data / "part-0.csv").write_text("changed after the start")
    daemon.sealed(registered, 2)
    tracker.client.set_terminated(run_id)
    tracker.tag(run_id, registered)
    tags = tracker.wait_state(run_id)
    assert (tags["reprod.digest"], tags["reprod.bound"]) == (first, "start")
    assert tags["reprod.assurance"] == "events"


def test_without_a_context_the_configured_slack_decides(
    daemon: Daemon, registered: str, tracker: Tracker, data: Path
) -> None:
    """A run that does not say which process it is (clock unknown) gets its start's digest when the change lies beyond
    clock_slack_seconds, and is ``ambiguous``, with candidates and without a digest, when it lies within."""
    first = dt1(data)
    run_id = tracker.start_run()
    let_events_tell_apart()
    (data / "part-0.csv").write_text("well after the start")
    daemon.sealed(registered, 2)
    tracker.client.set_terminated(run_id)
    tracker.tag(run_id, registered)
    assert tracker.wait_state(run_id)["reprod.digest"] == first

    (data / "part-0.csv").write_text("within the slack of the start")
    start_ms = (data / "part-0.csv").stat().st_ctime_ns // 1_000_000 - 50
    near = str(tracker.client.create_run(tracker.experiment, start_time=start_ms).info.run_id)
    tracker.client.set_terminated(near)
    daemon.sealed(registered, 3)
    tracker.tag(near, registered)
    tags = tracker.wait_state(near, "incomplete")
    assert "reprod.digest" not in tags
    assert f"reprod.digest.{registered}" not in tags
    assert tags["reprod.bound"] == "ambiguous"
    assert tags["reprod.candidates"].startswith("2:dt1:")
    assert registered in tags["reprod.error"]
    assert "data_files_count" not in tracker.client.get_run(near).data.metrics


def test_a_running_run_gets_its_params_when_it_has_ended(daemon: Daemon, registered: str, tracker: Tracker) -> None:
    """While the run trains it is captured without params; they come when it has ended."""
    run_id = tracker.start_run(registered)
    tracker.wait_state(run_id)
    assert tracker.params(run_id) == {}
    tracker.client.set_terminated(run_id)
    assert tracker.wait_params(run_id, "data_path")["manifest_version"] == "1.0"


def test_an_unknown_name_is_left_alone_and_delays_nobody(daemon: Daemon, registered: str, tracker: Tracker) -> None:
    """A run of a dataset that this daemon does not have gets no tag of ours; a known one beside it is captured; a run
    that names both ends ``incomplete``, names the unknown one in its error, and has no plain digest."""
    unknown = tracker.finished_run("nobodyknows")
    both = tracker.finished_run(f"{registered},nobodyknows")
    known = tracker.finished_run(registered)
    assert "reprod.digest" in tracker.wait_state(known)
    tags = tracker.wait_state(both, "incomplete")
    assert "nobodyknows" in tags["reprod.error"]
    assert "reprod.digest" not in tags
    assert f"reprod.digest.{registered}" in tags
    assert tracker.ours(unknown) == {"reprod.dataset": "nobodyknows"}
    eventually(lambda: daemon.status()["runs"]["waiting"] == 0, 10, "nothing waits, the unknown one neither")


def test_several_datasets_are_all_recorded(
    daemon: Daemon, registered: str, tracker: Tracker, data: Path, tmp_path: Path
) -> None:
    """A run that names two datasets gets both digests under their names, totals, and a manifest for each."""
    other, second = f"{registered}-b", tmp_path / "second"
    second.mkdir()
    (second / "x.bin").write_bytes(b"x" * 1000)
    daemon.place.register(other, second)
    daemon.call("reload")
    daemon.sealed(other, 1)
    let_slack_pass()
    run_id = tracker.finished_run(f"{registered},{other}")
    tags = tracker.wait_state(run_id)
    assert tags[f"reprod.digest.{registered}"] == dt1(data)
    assert tags[f"reprod.digest.{other}"] == dt1(second)
    assert "reprod.digest" not in tags
    tracker.wait_params(run_id, "data_path")  # they come later where the run was found before it was finished
    run = tracker.client.get_run(run_id)
    assert run.data.metrics[f"data_files_count.{other}"] == 1
    assert run.data.metrics["data_files_count"] == run.data.metrics[f"data_files_count.{registered}"] + 1
    assert run.data.params["data_path"] == f"{data},{second}"
    assert len(run.inputs.dataset_inputs) == 2
    assert f"data_manifest/{other}/data_manifest.json" in tracker.artifacts(run_id)


def test_what_the_user_logged_stays(
    daemon: Daemon, registered: str, tracker: Tracker, data: Path, tmp_path: Path
) -> None:
    """The user's own param, artifact and metric of our names keep their values; ours stand beside, under reprod."""
    run_id = tracker.start_run(context=current_context().to_json())
    tracker.client.log_param(run_id, "data_path", "mine")
    tracker.client.log_param(run_id, "python_version", "the user's")
    tracker.client.log_metric(run_id, "data_files_count", -1)
    tracker.client.log_text(run_id, "mine", "data_manifest/data_manifest.json")
    tracker.client.log_text(run_id, "mine too", "environment/requirements.txt")
    tracker.client.set_terminated(run_id)
    tracker.tag(run_id, registered)
    tracker.wait_state(run_id)
    run = tracker.client.get_run(run_id)
    assert run.data.params["data_path"] == "mine"
    assert run.data.params["reprod.data_path"] == str(data)
    assert run.data.params["python_version"] == "the user's"
    assert run.data.params["reprod.python_version"]
    assert tracker.history(run_id, "data_files_count") == [-1]
    assert run.data.metrics["reprod.data_files_count"] == 6
    assert tracker.read(run_id, "data_manifest/data_manifest.json", tmp_path / "a") == b"mine"
    assert tracker.read(run_id, "environment/requirements.txt", tmp_path / "b") == b"mine too"
    ours = json.loads(tracker.read(run_id, "reprod/data_manifest/data_manifest.json", tmp_path / "c"))
    assert ours["digest"] == dt1(data)
    assert "reprod/environment/requirements.txt" in tracker.artifacts(run_id)


def test_a_script_that_logs_our_names_after_us_does_not_crash(
    daemon: Daemon, registered: str, tracker: Tracker, data: Path
) -> None:
    """log_params of our names in a run that was captured already succeeds; ours then go to ``reprod.NAME``."""
    run_id = tracker.start_run(registered, context=current_context().to_json())
    tracker.wait_state(run_id)
    from mlflow.entities import Param

    mine = [Param("data_path", "late"), Param("gpu_count", "8"), Param("manifest_version", "1.0")]
    tracker.client.log_batch(run_id, params=mine)
    tracker.client.set_terminated(run_id)
    params = tracker.wait_params(run_id, "reprod.data_path", "reprod.gpu_count")
    assert (params["data_path"], params["gpu_count"]) == ("late", "8")
    assert params["reprod.data_path"] == str(data)
    assert "reprod.manifest_version" not in params


def test_a_run_that_was_incomplete_first_still_overwrites_nothing_of_the_users(
    daemon: Daemon, name: str, tracker: Tracker, data: Path, tmp_path: Path
) -> None:
    """A run that is tagged while the root is away is ``incomplete``, and ``captured`` when it is back unchanged; that
    second capture, which has more files and metrics than the first, respects the user's things too."""
    root = tmp_path / "link"  # taken away without a trace in the directory itself
    root.symlink_to(data)
    daemon.place.register(name, root)
    daemon.call("reload")
    daemon.sealed(name, 1)
    let_slack_pass()
    run_id = tracker.start_run()
    tracker.client.log_text(run_id, "mine", "data_manifest/data_manifest.json")
    tracker.client.log_metric(run_id, "data_size_bytes", -1)
    let_slack_pass()
    root.unlink()
    tracker.tag(run_id, name)
    tags = tracker.wait_state(run_id, "incomplete")
    assert "does not exist" in tags["reprod.error"]
    assert not [key for key in tags if key.startswith(("reprod.digest", "reprod.version"))]
    assert daemon.dataset(name)["state"] == "unavailable"
    root.symlink_to(data)
    tags = tracker.wait_state(run_id)
    assert (tags["reprod.digest"], tags["reprod.bound"]) == (dt1(data), "start")
    assert not {"reprod.error", "reprod.candidates", f"reprod.candidates.{name}"} & set(tags)
    assert tracker.read(run_id, "data_manifest/data_manifest.json", tmp_path / "a") == b"mine"
    assert tracker.history(run_id, "data_size_bytes") == [-1]
    ours = json.loads(tracker.read(run_id, "reprod/data_manifest/data_manifest.json", tmp_path / "c"))
    assert ours["digest"] == dt1(data)


def test_above_the_inline_limit_the_run_gets_a_reference(
    tmp_path: Path, data: Path, name: str, tracker: Tracker
) -> None:
    """A dataset of more files than max_inline_files gets a header; the manifest lies once on a run of its own, is never
    captured as work, and sha256sum itself accepts it. A second run refers to the same."""
    with running_daemon(tmp_path / "d", tracker.uri, {name: data}, mlflow={"max_inline_files": 3}) as daemon:
        daemon.sealed(name, 1)
        let_slack_pass()
        runs = [tracker.finished_run(name) for _ in range(2)]
        for run_id in runs:
            tracker.wait_state(run_id)
    headers = [json.loads(tracker.read(r, "data_manifest/data_manifest.json", tmp_path / r)) for r in runs]
    header = headers[0]
    assert (header["files"], header["files_omitted"], header["digest"]) == ([], True, dt1(data))
    assert header["summary"]["total_files"] == 6
    reference = header["reference"]
    assert reference == headers[1]["reference"]
    assert (reference["digest"], reference["experiment"]) == (dt1(data), "reprod-datasets")
    store = tracker.client.get_run(reference["run_id"])
    assert store.data.tags["reprod.manifest.digest"] == dt1(data)
    assert not {"reprod.dataset", "reprod.state"} & set(store.data.tags)
    sums = gzip.decompress(tracker.read(reference["run_id"], "SHA256SUMS.gz", tmp_path / "b"))
    (tmp_path / "SHA256SUMS").write_bytes(sums)
    command = ["sha256sum", "-c", "--strict", "--quiet", str(tmp_path / "SHA256SUMS")]
    assert subprocess.run(command, cwd=data).returncode == 0
    assert len(sums.splitlines()) == 6


@pytest.mark.timeout(120 + 2 * RUNS)
def test_many_pending_runs_are_each_recorded_once(tmp_path: Path, data: Path, name: str, tracker: Tracker) -> None:
    """RUNS runs that were finished and tagged while no daemon ran are all captured, in pages of five, each once."""
    with running_daemon(tmp_path / "d", tracker.uri, {name: data}, program=("-c", SMALL_PAGES)) as daemon:
        daemon.sealed(name, 1)
        daemon.terminate()
        let_slack_pass()
        with ThreadPoolExecutor(4) as pool:
            runs = list(pool.map(lambda _: tracker.finished_run(name), range(RUNS)))
        daemon.start()
        eventually(
            lambda: len(daemon.events("run.captured")) >= RUNS, 60 + RUNS, lambda: f"{RUNS} captured; {daemon.tail()}"
        )
        eventually(lambda: daemon.status()["runs"]["waiting"] == 0, 10, "nothing waits")
        delivered = [event["run_id"] for event in daemon.events("run.captured")]
        assert sorted(delivered) == sorted(runs)
        assert not daemon.events("delivery.postponed")
    digest = dt1(data)
    for run in tracker.client.search_runs([tracker.experiment], max_results=1000):
        assert run.data.tags["reprod.state"] == "captured", run.data.tags
        assert run.data.tags["reprod.digest"] == digest
        assert tracker.history(run.info.run_id, "data_files_count") == [6]
