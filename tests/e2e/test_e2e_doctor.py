"""``reprod doctor`` on a real daemon: nothing to do where all is well, and what is broken on purpose is found."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Tracker, eventually, let_slack_pass, make_data, running_daemon

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def examine(daemon: Daemon, *argv: str, uri: str = "", before: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
    """Run the doctor as a user at a shell with ``MLFLOW_TRACKING_URI``; return its exit code and its document."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "reprod", "doctor", "--json", *argv],
        env={**daemon.place.variables(), "MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.stderr == ""
    found = json.loads(done.stdout)
    return done.returncode, found


def of(found: dict[str, Any], check: str, level: str) -> list[dict[str, Any]]:
    return [each for each in found["findings"] if (each["check"], each["level"]) == (check, level)]


def wrong(found: dict[str, Any]) -> list[str]:
    return [each["what"] for each in found["findings"] if each["level"] in {"bad", "warn"}]


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may go to, as pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="reprod-public-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def tracked(tmp_path: Path, mlflow_server: str, name: str, data: Path) -> Iterator[Daemon]:
    """Yield a daemon with one dataset and a tracking server; every manifest goes to a store run."""
    (data / "own").write_text(name)  # a digest, and so a store run, of its own
    with running_daemon(tmp_path / "d", mlflow_server, {name: data}, mlflow={"max_inline_files": 0}) as daemon:
        daemon.sealed(name, 1)
        let_slack_pass()
        yield daemon


def test_nothing_is_to_be_mended_where_all_is_well(tracked: Daemon, tracker: Tracker, name: str) -> None:
    """A healthy daemon with a recorded run: exit 0, and every check has looked."""
    run_id = tracker.start_run(name)
    tracker.wait_state(run_id)
    eventually(lambda: tracked.status()["tracking"]["state"] == "reachable", 20, "the server was polled")

    code, found = examine(tracked, uri=tracker.uri)

    assert (code, wrong(found)) == (0, [])
    said = {each["check"] for each in found["findings"]}
    assert said >= {
        "daemon",
        "tracking",
        "shell",
        "datasets",
        "watch",
        "inotify",
        "permissions",
        "state",
        "disk",
        "clock",
    }
    assert {each["what"] for each in of(found, "references", "ok")} == {
        "1 reference of a run resolves",
        "1 of 1 store runs of reprod-datasets were asked for, and are there",
    }
    assert found["live"] is True
    assert found["daemon_version"] == found["version"]


def test_a_server_that_is_down_is_told_apart_from_a_shell_that_means_another(tmp_path: Path, data: Path) -> None:
    """Nothing listens at the daemon's server: bad, here and there; this shell's variable leads elsewhere: bad too."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with running_daemon(tmp_path / "d", uri, {"x": data}) as daemon:
            eventually(lambda: daemon.status()["tracking"]["state"] == "unreachable", 20, "the daemon noticed")
            code, found = examine(daemon, uri="http://127.0.0.1:1")

    assert code == 1
    assert f"{uri} does not answer here: Connection refused" in of(found, "tracking", "bad")[0]["what"]
    assert of(found, "shell", "bad")[0]["mend"] == [f"export MLFLOW_TRACKING_URI={uri}"]


def test_references_that_no_longer_resolve_are_named(
    tracked: Daemon, tracker: Tracker, name: str, tmp_path: Path
) -> None:
    """A run whose version is pruned, one whose dataset's file is gone, one that failed: each with its run id."""
    run_id = tracker.start_run(name)
    tracker.wait_state(run_id)
    version = tracked.dataset(name)["version"]
    tracked.terminate()
    state = tracked.place.state
    registry, file = state / "registry.sqlite", state / "datasets" / f"{name}.sqlite"

    _execute(file, "UPDATE version SET pruned = 1")
    _, found = examine(tracked, uri=tracker.uri)
    lost = of(found, "references", "warn")
    assert [f"{name}@{version} of run {run_id}" in each["what"] and "was pruned" in each["what"] for each in lost] == [
        True
    ]
    assert lost[0]["mend"][0].startswith(f"reprod export run:{run_id} --dataset {name} --format sha256sums")

    file.rename(tmp_path / "away.sqlite")
    _, found = examine(tracked, uri=tracker.uri)
    assert [each["what"].startswith(f"{name}: there is no ") for each in of(found, "references", "bad")] == [True]

    _execute(registry, "UPDATE delivery SET state = 'failed', error = 'no room for it'")
    code, found = examine(tracked, uri=tracker.uri)
    failed = [each for each in of(found, "references", "bad") if run_id in each["what"]]
    assert code == 1
    assert failed[0]["what"] == f"run {run_id} ({name}): no room for it"
    assert failed[0]["mend"] == [f"reprod retry run:{run_id}"]


def _execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(statement)
        db.commit()


def test_a_store_run_that_was_deleted_is_missed(tracked: Daemon, tracker: Tracker, name: str) -> None:
    """A manifest's run that is gone from the server: it is named, and the line brings it back."""
    tracker.wait_state(tracker.start_run(name))
    stored = next(
        run.info.run_id
        for experiment in tracker.client.search_experiments(filter_string="name = 'reprod-datasets'")
        for run in tracker.client.search_runs([experiment.experiment_id], f"tags.`reprod.manifest.dataset` = '{name}'")
    )
    tracker.client.delete_run(stored)

    code, found = examine(tracked, uri=tracker.uri)

    assert code == 1
    assert stored in of(found, "references", "warn")[0]["what"]
    assert of(found, "references", "warn")[0]["mend"] == [f"mlflow runs restore --run-id {stored}"]
    tracker.client.restore_run(stored)
    assert not of(examine(tracked, uri=tracker.uri)[1], "references", "warn")


@needs_root
def test_a_closed_folder_is_found_as_the_daemons_user_sees_it(tmp_path: Path, public: Path) -> None:
    """--as a user of this machine, over real permissions: the dataset that the daemon reads is closed to that user."""
    data = make_data(public / "data")
    (data / "closed").mkdir(mode=0o700)
    with running_daemon(tmp_path / "d", datasets={"x": data}) as daemon:
        daemon.sealed("x", 1)
        assert not of(examine(daemon)[1], "permissions", "bad")
        code, found = examine(daemon, "--as", "nobody")

    assert code == 1
    assert found["user"] == "nobody"
    assert f"may not list {data}/closed (mode 0700, root:root)" in of(found, "permissions", "bad")[-1]["what"]


@needs_root
def test_what_only_the_daemons_own_mounts_hide_is_said(tmp_path: Path, data: Path) -> None:
    """A daemon in a mount namespace where something else lies over the dataset: it is there, and not for the daemon."""
    code = (
        f"import subprocess, sys; subprocess.run(['mount', '-t', 'tmpfs', 'none', {str(data.parent)!r} + '/hidden'], "
        "check=True); sys.argv = ['reprod', 'daemon']; from reprod.__main__ import main; main()"
    )
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    make_data(hidden / "x")
    inner = ["unshare", "--mount", sys.executable, "-c", code]
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, timeout=10).returncode:
        pytest.skip("no mount namespaces here")
    program = ("-c", f"import os; os.execvp('unshare', {inner!r})")
    with running_daemon(tmp_path / "d", datasets={"x": hidden / "x"}, program=program) as daemon:
        eventually(lambda: daemon.dataset("x")["state"] == "unavailable", 15, "the daemon misses it")
        _, found = examine(daemon)

    bad = of(found, "permissions", "bad")
    assert [f"{hidden}/x is there, and the daemon does not see it" in each["what"] for each in bad] == [True]
    assert not of(found, "datasets", "bad")  # the cause is told once


def test_too_few_watches_are_told_with_the_line_that_raises_them(tmp_path: Path) -> None:
    """A limit of 20 watches for 40 folders: it is polled, the need is counted, the sysctl line is given (42)."""
    root = tmp_path / "many"
    for number in range(40):
        (root / f"d{number}").mkdir(parents=True)
    namespace = ["unshare", "--user", "--map-root-user"]
    limit = "open('/proc/sys/user/max_inotify_watches', 'w').write('20')"
    if subprocess.run([*namespace, sys.executable, "-c", limit], capture_output=True, timeout=20).returncode:
        pytest.skip("no user namespaces here")
    code = f"{limit}; import sys; sys.argv = ['reprod', 'daemon']; from reprod.__main__ import main; main()"
    program = ("-c", f"import os; os.execvp('unshare', {[*namespace, sys.executable, '-c', code]!r})")
    with running_daemon(tmp_path / "d", datasets={"x": root}, program=program) as daemon:
        eventually(lambda: daemon.dataset("x")["watch"] == "poll", 20, "the daemon polls it")
        daemon.sealed("x", 1)
        before = ("nsenter", f"--target={daemon.pid}", "--user", "--preserve-credentials")
        code_, found = examine(daemon, before=before)

    need = of(found, "inotify", "bad")[0]
    assert code_ == 1
    assert "42 watches of inotify are needed" in need["what"]
    assert "the limit is 20 (user.max_inotify_watches)" in need["what"]
    assert need["mend"][0].startswith("sysctl -w user.max_inotify_watches=1048576")
    assert "is polled, not watched: inotify limit reached" in of(found, "watch", "warn")[0]["what"]
