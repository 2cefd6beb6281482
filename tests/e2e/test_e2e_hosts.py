"""Several daemons on one tracking server: who records a run, and what becomes of copies that differ.

Two real daemons with states of their own on this machine, each told another boot id and host name.
"""

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import QUICKER, Daemon, Tracker, dt1, eventually, let_slack_pass, make_data, running_daemon

from reprod.capture.process.identity import current_context

pytestmark = pytest.mark.mlflow

WAIT_S = 40.0  # two daemons start, and each looks at the other's

#: Another machine, as far as a daemon can tell; what takes minutes takes moments; where there is a folder for that,
#: deliveries are put off until a file of the run's name is in it.
ELSEWHERE = """
import os, sys
from reprod.capture.process import identity as process
process.boot_id, process.host_name = lambda: {boot!r}, lambda: {host!r}
from reprod.daemon import advertise, nodes, notes
advertise.ROUND_S, advertise.FRESH_S, advertise.READ_S = 0.2, 0.2, 1.0
nodes.AGAIN_S, nodes.RETRY_S = (0.2, 0.4, 0.6), 0.2
notes.ROUND_S, notes.CONTESTED_AFTER_S = 0.2, 0.3
from reprod.errors import StateError
from reprod.ops import deliver
from reprod.store import outbox
outbox.FIRST_RETRY_NS = outbox.LONGEST_RETRY_NS = 100_000_000
gates, write = {gates!r}, deliver.deliver
def when_told(records, delivery, *rest, **more):
    if gates and not os.path.exists(os.path.join(gates, delivery.run_id)):
        raise StateError("not yet")
    return write(records, delivery, *rest, **more)
deliver.deliver = when_told
{quicker}
from reprod.__main__ import main
sys.exit(main(["daemon"]))
"""


@dataclass
class Elsewhere:
    """A daemon on a machine of its own."""

    daemon: Daemon
    boot: str
    gates: Path | None

    @property
    def id(self) -> str:
        return str(json.loads((self.daemon.place.state / "host.json").read_text())["id"])

    def context(self) -> str:
        """Return what a training process there says of itself."""
        return json.dumps({**current_context().to_object(), "boot_id": self.boot, "host": "there"})

    def open(self, run_id: str) -> None:
        assert self.gates is not None
        (self.gates / run_id).touch()


@contextmanager
def machine(
    base: Path, uri: str, host: str, datasets: dict[str, tuple[Path, str]], *, gated: bool = False
) -> Iterator[Elsewhere]:
    """Yield a daemon on another machine with ``{name: (root, scope)}``, all scanned once."""
    boot, gates = str(uuid.uuid4()), base / "gates"
    gates.mkdir(parents=True)
    code = ELSEWHERE.format(boot=boot, host=host, gates=str(gates) if gated else "", quicker=QUICKER)
    with running_daemon(base, uri, program=("-c", code)) as daemon:
        for name, (root, scope) in datasets.items():
            daemon.place.register(name, root, scope=scope)
        daemon.call("reload")
        for name in datasets:
            daemon.sealed(name, 1, WAIT_S)
        yield Elsewhere(daemon, boot, gates if gated else None)


def advertised(tracker: Tracker, name: str) -> list[dict[str, str]]:
    """Return the tags of the hosts that say that they have a dataset."""
    store = tracker.client.get_experiment_by_name("reprod-datasets")
    if store is None:
        return []
    runs = tracker.client.search_runs([store.experiment_id], f"tags.`reprod.host.dataset.{name}` LIKE '%'")
    return [run.data.tags for run in runs]


def delete_host(tracker: Tracker, host_id: str) -> None:
    """Delete the run by which a host tells what it has."""
    store = tracker.client.get_experiment_by_name("reprod-datasets")
    for run in tracker.client.search_runs([store.experiment_id], f"tags.`reprod.host.id` = '{host_id}'"):
        tracker.client.delete_run(run.info.run_id)


def wait_error(tracker: Tracker, run_id: str, what: Any) -> str:
    eventually(lambda: "reprod.error" in tracker.ours(run_id), WAIT_S, what)
    return tracker.ours(run_id)["reprod.error"]


def test_one_name_and_different_bytes(tmp_path: Path, data: Path, name: str, tracker: Tracker) -> None:
    """Without a context nobody guesses and the run says how to mend it; with one its host alone records it, and so does
    the host of whoever says that it ran there; a run that waits is recorded once the name is one host's again."""
    other = make_data(tmp_path / "other", 6)
    with (
        machine(tmp_path / "a", tracker.uri, "alpha", {name: (data, "host")}) as a,
        machine(tmp_path / "b", tracker.uri, "beta", {name: (other, "host")}) as b,
    ):
        both = eventually(lambda: len(found := advertised(tracker, name)) == 2 and found, WAIT_S, a.daemon.tail)
        assert {tags["reprod.host.name"] for tags in both} == {"alpha", "beta"}
        assert all("reprod.dataset" not in tags for tags in both)
        delete_host(tracker, a.id)
        eventually(lambda: len(advertised(tracker, name)) == 2, WAIT_S, a.daemon.tail)  # it says so again
        let_slack_pass()
        unclear, waiting = tracker.start_run(name), tracker.finished_run(f"{name}/sub")

        error = wait_error(tracker, unclear, a.daemon.tail)
        for said in (f"alpha ({a.id[:8]})", f"beta ({b.id[:8]})", f"reprod snapshot {name} --run", 'scope = "shared"'):
            assert said in error
        assert set(tracker.ours(unclear)) == {"reprod.dataset", "reprod.error"}

        tracker.client.set_tag(unclear, "reprod.context", b.context())
        tags = tracker.wait_state(unclear)
        assert (tags["reprod.digest"], tags["reprod.host_id"], tags["reprod.host"]) == (dt1(other), b.id, "beta")
        assert "reprod.error" not in tags
        assert not [key for key in tags if "conflict" in key or "nodes" in key]

        claimed = tracker.finished_run(name)
        wait_error(tracker, claimed, b.daemon.tail)
        # The other host may have said it on the run first.
        needs = eventually(
            lambda: [need for need in b.daemon.status()["attention"] if f"--run {claimed}" in need["hint"]],
            WAIT_S,
            b.daemon.tail,
        )
        assert [need["hint"] for need in needs] == [f"on the host where it ran: reprod snapshot {name} --run {claimed}"]
        assert needs[0]["what"].startswith(f"1 run of {name} not recorded: several hosts have that")
        assert b.daemon.place.cli("snapshot", name, "--run", claimed).returncode == 0
        assert tracker.wait_state(claimed)["reprod.digest"] == dt1(other)

        wait_error(tracker, waiting, b.daemon.tail)
        (b.daemon.place.folder / f"{name}.toml").unlink()
        b.daemon.call("reload")
        tags = tracker.wait_state(waiting)
        assert (tags["reprod.digest"], tags["reprod.host"]) == (dt1(data / "sub"), "alpha")
        assert "reprod.error" not in tags
        eventually(lambda: len(advertised(tracker, name)) == 1, WAIT_S, b.daemon.tail)


def test_shared_data_that_is_equal_or_not(tmp_path: Path, data: Path, name: str, tracker: Tracker) -> None:
    """Of equal shared data one record is made, and both hosts stand in it. Of data that differs the first record stays
    whole, whoever was first, also if both write at once; the other's digest and manifest lie beside it."""
    same, torn = f"{name}-same", f"{name}-torn"
    copy, other = shutil.copytree(data, tmp_path / "copy", symlinks=True), make_data(tmp_path / "other", 6)
    there = {same: (data, "shared"), torn: (data, "shared")}
    with (
        machine(tmp_path / "a", tracker.uri, "alpha", there, gated=True) as a,
        machine(
            tmp_path / "b", tracker.uri, "beta", {same: (copy, "shared"), torn: (other, "shared")}, gated=True
        ) as b,
    ):
        eventually(lambda: len(advertised(tracker, torn)) == 2, WAIT_S, a.daemon.tail)
        let_slack_pass()
        runs = [(tracker.finished_run(n), n, order) for n, order in ((same, (a, b)), (torn, (b, a)), (torn, ()))]
        for run_id, _, _ in runs:
            for each in (a, b):
                each.daemon.wait_event("run.published", WAIT_S, run_id=run_id)
        for run_id, used, order in runs:
            for each in order or (a, b):
                each.open(run_id)
                if order:
                    each.daemon.wait_event("run.captured", WAIT_S, run_id=run_id)
            for each in (a, b):
                each.daemon.wait_event("run.captured", WAIT_S, run_id=run_id)
            tags = tracker.wait_state(run_id)
            first, second = (a, b) if tags["reprod.host_id"] == a.id else (b, a)
            assert not order or order[0] is first
            digests = {a.id: dt1(data), b.id: dt1(data if used == same else other)}
            check(tracker, tmp_path, run_id, tags, first, second, used, digests)


def check(
    tracker: Tracker,
    folder: Path,
    run_id: str,
    tags: dict[str, str],
    first: Elsewhere,
    second: Elsewhere,
    used: str,
    digests: dict[str, str],
) -> None:
    """Look at a run that two hosts recorded."""
    ours, theirs, beside = digests[first.id], digests[second.id], second.id[:8]
    nodes = {host[:8]: digest[4:16] for host, digest in digests.items()}
    assert (tags["reprod.digest"], tags[f"reprod.digest.{used}"]) == (ours, ours)
    assert json.loads(tags[f"reprod.nodes.{used}"]) == nodes
    manifest = json.loads(tracker.read(run_id, "data_manifest/data_manifest.json", folder / run_id))
    assert manifest["digest"] == ours
    assert len(tracker.history(run_id, "data_files_count")) == 1
    if ours == theirs:
        assert not [key for key in tags if "conflict" in key or beside in key]
        assert not [path for path in tracker.artifacts(run_id) if beside in path]
    else:
        assert tags[f"reprod.digest.{used}/{beside}"] == theirs
        assert "2 digests" in tags[f"reprod.conflict.{used}"]
        path = f"reprod/{beside}/data_manifest/data_manifest.json"
        assert json.loads(tracker.read(run_id, path, folder / f"{run_id}-2"))["digest"] == theirs


@pytest.mark.parametrize("differs", [False, True], ids=["equal", "different"])
def test_shared_data_of_a_host_that_comes_after_the_record(
    tmp_path: Path, data: Path, name: str, tracker: Tracker, differs: bool
) -> None:
    """A host that has shared data says what it found also on a run that another had recorded while it was away: equal
    bytes put both into the run's nodes, different ones are a conflict, and no tag of the first record is changed."""
    theirs = make_data(tmp_path / "other", 6) if differs else shutil.copytree(data, tmp_path / "copy", symlinks=True)
    with (
        machine(tmp_path / "a", tracker.uri, "alpha", {name: (data, "shared")}) as a,
        machine(tmp_path / "b", tracker.uri, "beta", {name: (theirs, "shared")}) as b,
    ):
        b.daemon.terminate()
        let_slack_pass()
        run_id = tracker.finished_run(name)
        tracker.wait_state(run_id)
        a.daemon.wait_event("run.captured", WAIT_S, run_id=run_id)
        first = tracker.ours(run_id)
        assert not [key for key in first if "conflict" in key or "nodes" in key]
        b.daemon.start()
        b.daemon.wait_event("run.captured", WAIT_S, run_id=run_id)
        tags = tracker.ours(run_id)
        check(tracker, tmp_path, run_id, tags, a, b, name, {a.id: dt1(data), b.id: dt1(theirs)})
        assert {key: tags.get(key) for key in first} == first
        assert (f"reprod.conflict.{name}" in tags) == differs


def test_the_nodes_of_a_run_compare_their_copies(tmp_path: Path, data: Path, name: str, tracker: Tracker) -> None:
    """A daemon that a process of its node told of a run binds its own copy at the run's start and says so on the run,
    before or after the run's own host, over a restart too; a copy that differs is a conflict, and one that has to wait
    for its walk holds up no other."""
    torn, seldom, other = f"{name}-torn", f"{name}-seldom", make_data(tmp_path / "other", 6)
    copy = shutil.copytree(data, tmp_path / "copy", symlinks=True)
    with (
        machine(tmp_path / "a", tracker.uri, "alpha", {name: (data, "host"), torn: (data, "host")}, gated=True) as a,
        machine(tmp_path / "b", tracker.uri, "beta", {name: (copy, "host"), torn: (other, "host")}) as b,
    ):
        b.daemon.place.register(seldom, copy, walk_at_most_every=3600)
        b.daemon.call("reload")
        b.daemon.sealed(seldom, 1)
        let_slack_pass()
        first, second, third = (tracker.start_run(n, context=a.context()) for n in (name, torn, seldom))
        takes_part(b, third)
        takes_part(b, first)
        takes_part(b, second)
        b.daemon.restart()
        b.daemon.wait_event("run.compared", WAIT_S, run_id=second)
        assert "reprod.state" not in tracker.ours(second)
        for run_id in (first, second):
            a.open(run_id)
        for run_id, used, theirs in ((first, name, data), (second, torn, other)):
            both = {a.id[:8]: dt1(data)[4:16], b.id[:8]: dt1(theirs)[4:16]}
            tracker.wait_state(run_id)
            wait_nodes(tracker, run_id, used, both, b)
            tags = tracker.ours(run_id)
            assert (tags["reprod.digest"], tags["reprod.host_id"]) == (dt1(data), a.id)
            assert (f"reprod.conflict.{used}" in tags) == (used == torn)
        beside = f"reprod.digest.{torn}/{b.id[:8]}"
        eventually(lambda: tracker.ours(second).get(beside) == dt1(other), WAIT_S, b.daemon.tail)


def wait_nodes(tracker: Tracker, run_id: str, used: str, expected: dict[str, str], there: Elsewhere) -> None:
    key = f"reprod.nodes.{used}"
    eventually(lambda: json.loads(tracker.ours(run_id).get(key, "{}")) == expected, WAIT_S, there.daemon.tail)


def takes_part(there: Elsewhere, run_id: str) -> None:
    """Say to the daemon there that this process, which is one of its machine's, takes part in a run."""
    there.daemon.call("announce", context=json.loads(there.context()), run_id=run_id, takes_part=True)
