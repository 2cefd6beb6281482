"""Several hosts that write to one run: nothing of another's is overwritten, whatever the order."""

import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reprod.core.run import Payload
from reprod.sinks import deliver_run
from reprod.sinks.advertise import compare
from reprod.sinks.deliver_run import deliver
from reprod.sinks.host_messages import Node
from reprod.sinks.many_hosts import node, read_nodes, share
from reprod.sinks.protocol import SinkError

A, B, C = (str(uuid.UUID(int=n << 96 | n)) for n in (0xAAAAAAAA, 0xBBBBBBBB, 0xCCCCCCCC))
ONE, TWO = "dt1:" + "1" * 64, "dt1:" + "2" * 64
RUN = "run"


def record(host: str, digest: str | None, *, name: str = "data", state: Any = "captured", **more: Any) -> Payload:
    """Return what a host delivers of a run on one dataset."""
    tags = {"reprod.host": f"box-{host[:1]}", "reprod.recorded": name}
    if digest is None:
        tags |= {f"reprod.bound.{name}": "late", "reprod.error": "not provable"}
        state = "incomplete"
    else:
        for key in (f".{name}", ""):
            tags |= {f"reprod.digest{key}": digest, f"reprod.bound{key}": "start"}
        tags |= {f"reprod.version.{name}": str(host.count("a")), "reprod.chain": f"{name}@{host[:2]}"}
    fields: dict[str, Any] = {"run_id": RUN, "state": state, "timestamp_ms": 1_700_000_000_000, "tags": tags}
    return Payload(**fields | {"host_id": host, "rivals": True} | more)


def written(existing: dict[str, str], payload: Payload) -> dict[str, str]:
    """Return the run's tags after a host wrote its share."""
    mine = share(existing, payload)
    found = {key: value for key, value in existing.items() if key not in mine.remove} | mine.tags
    return found | ({"reprod.state": payload.state} if mine.owns and payload.state else {})


def settled(*payloads: Payload, rounds: int = 2) -> dict[str, str]:
    """Return the run's tags after the hosts wrote one after the other, each also again."""
    tags: dict[str, str] = {}
    for payload in payloads * rounds:
        tags = written(tags, payload)
    return tags


def test_one_host_alone_leaves_no_trace_of_many() -> None:
    """Where nobody else wrote, a record is what it was, and its host."""
    tags = settled(record(A, ONE))

    assert tags == record(A, ONE).tags | {"reprod.host_id": A, "reprod.state": "captured"}
    assert share({}, record(A, ONE, host_id=None)).tags == record(A, ONE).tags


@pytest.mark.parametrize("order", [*itertools.permutations((A, B, C))])
def test_equal_digests_are_one_record(order: tuple[str, ...]) -> None:
    """Whoever comes second adds itself to the nodes and nothing else."""
    tags = settled(*(record(host, ONE) for host in order))
    nodes = json.loads(tags.pop("reprod.nodes.data"))

    assert nodes == dict.fromkeys((A[:8], B[:8], C[:8]), "1" * 12)
    assert tags == settled(record(order[0], ONE))


@pytest.mark.parametrize("order", [*itertools.permutations((A, B, C))])
def test_differing_digests_are_a_conflict_and_nothing_is_overwritten(order: tuple[str, ...]) -> None:
    """The first record stays whole, the other's stands beside it, and the conflict names all."""
    digests = {A: ONE, B: TWO, C: ONE}
    first = settled(record(order[0], digests[order[0]]))
    tags = settled(*(record(host, digests[host]) for host in order))

    assert {key: tags[key] for key in first} == first
    for host in order[1:]:
        beside = f"reprod.digest.data/{host[:8]}"
        assert tags.get(beside) == (digests[host] if digests[host] != digests[order[0]] else None)
    assert f"reprod.version.data/{B[:8]}" in tags or order[0] == B
    assert tags["reprod.conflict.data"] == (
        f"2 digests: {A[:8]}={'1' * 12}, {B[:8]}={'2' * 12}, {C[:8]}={'1' * 12}; "
        f"the run's record is that of {order[0][:8]}"
    )


@pytest.mark.parametrize("first", [A, B])
def test_a_proof_takes_the_place_of_none(first: str) -> None:
    """Of two hosts the one that can prove the digest makes the record, whichever came first; the other's is beside."""
    unproven, proven = record(B, None), record(A, ONE)
    both = (proven, unproven) if first == A else (unproven, proven)
    tags = settled(*both, rounds=1)
    assert settled(*both).items() >= tags.items()

    assert tags["reprod.state"] == "captured"
    assert (tags["reprod.digest.data"], tags["reprod.host_id"]) == (ONE, A)
    assert (tags[f"reprod.bound.data/{B[:8]}"], tags["reprod.bound.data"]) == ("late", "start")
    assert json.loads(tags.get("reprod.nodes.data", "{}")).get(A[:8], "1" * 12) == "1" * 12
    assert "reprod.conflict.data" not in tags


def test_a_host_may_write_its_own_record_again() -> None:
    """What was incomplete becomes captured, a retag replaces it, and what other hosts found stays."""
    tags = settled(record(A, None))
    tags = written(tags, record(A, ONE, remove_tags=("reprod.error", "reprod.nodes.data")))
    assert (tags["reprod.digest.data"], tags.get("reprod.error")) == (ONE, None)
    tags = written(tags, record(B, TWO))
    again = written(tags, record(A, ONE, remove_tags=("reprod.nodes.data", "reprod.conflict.data")))
    assert again == tags
    mended = written(tags, record(A, TWO))
    assert "reprod.conflict.data" not in mended
    assert mended[f"reprod.digest.data/{B[:8]}"] == TWO


def test_a_record_of_what_the_run_no_longer_names_gives_way() -> None:
    """Retagged to data of another host, a run is recorded by that one; what was recorded for a former tag is not."""
    tags = settled(record(A, ONE)) | {"reprod.dataset": "other"}
    found = written(tags, record(B, TWO, name="other", remove_tags=("reprod.digest.data",)))

    assert (found["reprod.host_id"], found["reprod.digest"], found["reprod.recorded"]) == (B, TWO, "other")
    assert "reprod.digest.data" not in found
    assert written(found, record(A, ONE))["reprod.host_id"] == B


def test_what_comes_after_the_end_is_the_owners() -> None:
    """Params of a second host are nobody's; its drift stands beside unless it is the same."""
    tags = settled(record(A, ONE))
    end = {"state": None, "params": {"x": "1"}, "tags": {"reprod.drift": "changed"}}

    assert written(tags, record(A, ONE, **end))["reprod.drift"] == "changed"
    assert written(tags, record(B, ONE, **end))[f"reprod.drift/{B[:8]}"] == "changed"
    assert share(tags | {"reprod.drift": "changed"}, record(B, ONE, **end)).tags == {}
    assert not share(tags, record(B, ONE, **end)).owns


def test_a_record_of_an_older_reprod_is_its_hosts() -> None:
    """Before host ids there was the host's name: the same host goes on with it, another stands beside."""
    old = {"reprod.host": "box-a", "reprod.digest.data": TWO, "reprod.state": "captured"}

    assert written(old, record(A, ONE))["reprod.digest.data"] == ONE
    assert written(old, record(B, ONE))["reprod.digest.data"] == TWO


@pytest.mark.parametrize("order", [*itertools.permutations(("record", "b", "c"))])
def test_nodes_say_what_they_found(order: tuple[str, ...]) -> None:
    """Nodes before and after the record, in any order: all are named, and the record is only the first host's."""
    tags: dict[str, str] = {}
    for who in order * 2:
        if who == "record":
            tags = written(tags, record(A, ONE, rivals=False))
        else:
            tags |= node(tags, {"data": ONE if who == "b" else TWO}, B if who == "b" else C)

    assert json.loads(tags["reprod.nodes.data"]) == {A[:8]: "1" * 12, B[:8]: "1" * 12, C[:8]: "2" * 12}
    assert "2 digests" in tags["reprod.conflict.data"]
    assert tags[f"reprod.digest.data/{C[:8]}"] == TWO
    assert (tags["reprod.digest.data"], tags["reprod.state"], tags["reprod.host_id"]) == (ONE, "captured", A)
    assert node(tags, {"data": TWO}, C) == {}


def test_a_node_that_proves_nothing_is_no_conflict() -> None:
    """A word instead of a digest says why there is none."""
    tags = written({}, record(A, ONE))
    news = node(tags, {"data": "late"}, B)

    assert news == {"reprod.nodes.data": json.dumps({A[:8]: "1" * 12, B[:8]: "late"})}


def test_a_thousand_nodes_fit_into_a_tag() -> None:
    """Those that differ have their place; of those that agree as many are named as MLflow takes."""
    tags = written({}, record(A, ONE))
    for number in range(1, 1000):
        tags |= node(tags, {"data": TWO if number % 100 == 0 else ONE}, str(uuid.UUID(int=number << 96)))
    nodes = read_nodes(tags["reprod.nodes.data"])

    assert max(map(len, tags.values())) <= 8000
    assert sorted(nodes.values()).count("2" * 12) == 9
    assert nodes[A[:8]] == "1" * 12
    assert len(nodes) > 200


@pytest.mark.parametrize("odd", ["{", "[]", "7", '{"a": 1}', "[" * 5000])
def test_odd_nodes_are_none(odd: str) -> None:
    """What a person wrote there is replaced by what hosts found."""
    assert json.loads(node({"reprod.nodes.data": odd}, {"data": ONE}, B)["reprod.nodes.data"]) == {B[:8]: "1" * 12}


# --- on a real server -------------------------------------------------------------------------------------------------


@pytest.fixture
def run_id(client: Any, experiment: str) -> str:
    return str(client.create_run(experiment).info.run_id)


def at_once(*calls: Callable[[], Any]) -> None:
    """Make the calls in threads that start together; what one raises is raised here."""
    together, errors = threading.Barrier(len(calls)), list[BaseException]()

    def run(call: Callable[[], Any]) -> None:
        together.wait(10)
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - for the thread of the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    if errors:
        raise errors[0]


def insist(client: Any, payload: Payload) -> None:
    """Deliver as the outbox does: again while another host is at it."""
    for _ in range(100):
        try:
            deliver(client, payload)
        except SinkError as error:
            if error.kind != "busy":
                raise
            threading.Event().wait(0.2)
        else:
            return
    raise AssertionError("always busy")


@pytest.mark.mlflow
def test_hosts_that_record_a_run_at_one_moment(client: Any, run_id: str, tmp_path: Path) -> None:
    """Three hosts with two digests deliver together: one whole record, its manifest, both digests, one conflict."""
    payloads = []
    for host, digest in ((A, ONE), (B, TWO), (C, ONE)):
        folder = tmp_path / host
        (folder / "data_manifest").mkdir(parents=True)
        (folder / "data_manifest" / "data_manifest.json").write_text(digest)
        payloads.append(record(host, digest, run_id=run_id, artifacts_dir=str(folder), metrics={"m": float(len(host))}))
    at_once(*(lambda p=p: insist(client, p) for p in payloads))  # type: ignore[misc]
    run = client.get_run(run_id)
    tags = run.data.tags
    owner = tags["reprod.host_id"]
    first = next(p for p in payloads if p.host_id == owner)

    assert {key: tags[key] for key in first.tags} == first.tags
    assert tags["reprod.state"] == "captured"
    assert len(client.get_metric_history(run_id, "m")) == 1
    manifest = client.download_artifacts(run_id, "data_manifest/data_manifest.json", str(tmp_path))
    assert Path(manifest).read_text() == first.tags["reprod.digest.data"]
    for other in payloads:
        if other.tags["reprod.digest.data"] != first.tags["reprod.digest.data"]:
            short = str(other.host_id)[:8]
            assert tags[f"reprod.digest.data/{short}"] == other.tags["reprod.digest.data"]
            assert client.list_artifacts(run_id, f"reprod/{short}/data_manifest")
            assert f"{short}=" in tags["reprod.conflict.data"]


@pytest.mark.mlflow
def test_nodes_that_write_at_one_moment_all_stand_there(client: Any, run_id: str) -> None:
    """Eight nodes that write the same tag together, and look again until nothing is missing, erase nobody."""
    deliver(client, record(A, ONE, run_id=run_id, rivals=False))
    hosts = [str(uuid.UUID(int=n << 96)) for n in range(1, 9)]

    def settle(host: str) -> None:
        agreed = 0
        while agreed < 3:
            state = compare(client, Node(run_id, host, {"data": ONE}))
            agreed = agreed + 1 if state == "settled" else 0
            threading.Event().wait(0.05 * (agreed + 1) * (1 + hosts.index(host) / 8))

    at_once(*(lambda h=h: settle(h) for h in hosts))  # type: ignore[misc]

    assert set(read_nodes(client.get_run(run_id).data.tags["reprod.nodes.data"])) == {A[:8], *(h[:8] for h in hosts)}


@pytest.mark.mlflow
def test_a_node_goes_on_looking_until_the_run_is_recorded(client: Any, run_id: str) -> None:
    """A node that came first learns only from the record that its copy differs."""
    ask = Node(run_id, B, {"data": TWO})
    assert [compare(client, ask) for _ in range(2)] == ["written", "unrecorded"]
    deliver(client, record(A, ONE, run_id=run_id, rivals=False))

    assert [compare(client, ask) for _ in range(2)] == ["written", "settled"]
    assert client.get_run(run_id).data.tags[f"reprod.digest.data/{B[:8]}"] == TWO


@pytest.mark.mlflow
def test_a_host_that_is_about_to_write_is_waited_for_unless_it_died(client: Any, run_id: str) -> None:
    """While another host has just said that it writes, ours waits; one that died does not hold the run for ever, and
    nothing of all that is left on the run."""
    ours = record(A, ONE, run_id=run_id)
    client.set_tag(run_id, "reprod.writing", f"{B} {int(time.time())}")
    with pytest.raises(SinkError) as raised:
        deliver(client, ours)
    assert raised.value.kind == "busy"
    assert "reprod.digest.data" not in client.get_run(run_id).data.tags

    client.set_tag(run_id, "reprod.writing", f"{B} {int(time.time()) - 100}")
    deliver(client, ours)

    tags = client.get_run(run_id).data.tags
    assert (tags["reprod.host_id"], tags["reprod.digest.data"], tags["reprod.state"]) == (A, ONE, "captured")
    assert "reprod.writing" not in tags


@pytest.mark.mlflow
def test_a_host_that_was_held_up_after_it_looked_overwrites_nothing(
    client: Any, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that saw a free run, and says that it writes only when another has recorded it, stands beside that."""
    look, looks = deliver_run.tags_of, [0]

    def held_up(client: Any, run: str) -> dict[str, str]:
        found = look(client, run)
        looks[0] += 1
        if looks[0] == 1:
            monkeypatch.setattr(deliver_run, "tags_of", look)
            deliver(client, record(A, ONE, run_id=run_id))
        return found

    monkeypatch.setattr(deliver_run, "tags_of", held_up)
    deliver(client, record(B, TWO, run_id=run_id))

    tags = client.get_run(run_id).data.tags
    assert (tags["reprod.host_id"], tags["reprod.digest.data"]) == (A, ONE)
    assert tags[f"reprod.digest.data/{B[:8]}"] == TWO
    assert "reprod.writing" not in tags
