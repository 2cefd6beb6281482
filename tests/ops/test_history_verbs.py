"""log, diff and the chain over a dataset's whole life: other roots, moves, renames, manifest files, altered records."""

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from history_store import DAY, HistoryStore

from reprod.config import DatasetConfig, StoreConfig
from reprod.core import digest
from reprod.core.binding import bind
from reprod.errors import DamagedError, IncompleteError, NotFoundError, UsageError
from reprod.ops import history, prune, rehome
from reprod.ops.chain import verify_chain
from reprod.ops.diff import diff
from reprod.ops.plan import Order
from reprod.ops.reference import last_used, open_version, resolve
from reprod.ops.refresh import Report, Settings, refresh
from reprod.store import files, listing, registry, timeline, versions


@pytest.fixture
def store(tmp_path: Path) -> Iterator[HistoryStore]:
    """Three versions of one dataset, sealed a minute apart."""
    found = HistoryStore(tmp_path)
    now = time.time_ns() - 3600 * 10**9
    found.seal(now, a=1, b=2, c=3)
    found.seal(now + 60 * 10**9, a=1, b=5, c=3)
    found.seal(now + 120 * 10**9, a=1, moved=5, d=6)
    yield found
    found.close()


def scan(store: HistoryStore, name: str = "data", **named: Any) -> Report:
    """Refresh a dataset of real files as the daemon does."""
    config = DatasetConfig(name, str(store.roots[name]), **named)
    report = refresh(store.opened[name], config, Order(), Settings(str(store.state)))
    store.records.write(lambda c: registry.sealed(c, name, report.version))
    return report


def real(store: HistoryStore, name: str = "real", **content: str) -> Path:
    """A dataset of real files, scanned once."""
    store.open(name)
    for path, text in content.items():
        (store.roots[name] / path).write_text(text)
    scan(store, name)
    return store.roots[name]


def ask(store: HistoryStore, a: str, b: str | None = None) -> dict[str, Any]:
    return diff(store.state, store.config, a, b)


# --- epochs ----------------------------------------------------------------------------------------------------------


def test_another_root_is_another_epoch(store: HistoryStore) -> None:
    """Numbers and chain go on, every version can still be asked for, and nothing is compared across."""
    store.run("r1", data=2)
    store.open(root="elsewhere")
    fourth = store.seal(time.time_ns(), x=1)
    fifth = store.seal(time.time_ns(), x=2, y=2)
    assert (fourth.reason, fifth.seq) == ("root", fourth.seq + 1)
    assert fourth.seq > 3
    rows = history.log(store.state, "data")
    assert [(row["version"], row["epoch"]) for row in rows] == [
        (fifth.seq, 2), (fourth.seq, 2), (3, 1), (2, 1), (1, 1),
    ]  # fmt: skip
    assert [row["root"].rpartition("/")[2] for row in rows] == ["elsewhere", "elsewhere", "data", "data", "data"]
    assert [row["runs"] for row in rows][3] == ["r1"]
    for a, b in (
        ("data@3", f"data@{fourth.seq}"),
        (f"data@{fifth.seq}", "data@1"),
        ("data@2", "data"),
        ("run:r1", "data"),
    ):
        with pytest.raises(UsageError, match="different roots") as caught:
            ask(store, a, b)
        assert "elsewhere" in caught.value.message
    assert ask(store, "data@1", "run:r1")["summary"]["modified"] == 1
    assert ask(store, f"data@{fourth.seq}", f"data@{fifth.seq}")["summary"]["added"] == 1
    assert last_used(store.state, "data") is None  # of this root
    with closing(open_version(store.state, resolve(store.state, "run:r1"))) as db:
        assert db.read(lambda c: len(list(listing.entries(c, 2)))) == 3
    chain = verify_chain(store.state, "data", contents=True)
    assert (chain["valid"], chain["complete"], chain["versions"], chain["contents_checked"]) == (True, True, 5, 5)


def test_a_root_that_was_away_for_a_moment_is_taken_up_again(store: HistoryStore) -> None:
    """A typing error in the path, corrected before anything was sealed there, leaves no trace in the history."""
    store.open(root="typo")
    db = store.open()
    assert db.read(versions.newest).seq == 3  # type: ignore[union-attr]
    assert store.seal(time.time_ns(), a=9).seq == 4
    assert {row["epoch"] for row in history.log(store.state, "data")} == {1}
    store.open(root="other")
    other = store.seal(time.time_ns(), z=1)
    store.open()
    back = store.seal(time.time_ns(), a=9)
    assert back.seq > other.seq > 4  # but once something was, it is not known what happened here meanwhile
    assert [row["epoch"] for row in history.log(store.state, "data")] == [3, 2, 1, 1, 1, 1]


def test_removed_and_added_again_it_goes_on(store: HistoryStore) -> None:
    """The same root under the same name is the same history."""
    store.records.write(lambda c: registry.remove(c, "data", 1))
    store.open()
    assert store.seal(time.time_ns(), a=9).seq == 4


def test_nothing_is_bound_across_a_change_of_the_root(store: HistoryStore) -> None:
    """What another root holds was not what the name meant when the run started, however old it is."""
    data = store.base / "two"
    data.mkdir()
    (data / "f").write_text("old")
    before = time.time_ns()
    while time.time_ns() - before < 60_000_000:
        pass
    start = time.time_ns() - 30_000_000  # after everything in it
    store.open(root="two")
    assert scan(store).sealed
    time.sleep(0.05)
    scan(store)
    found = bind(store.opened["data"].read(timeline.marks), start, 1_000_000)
    assert (found.seq, found.bound) == (None, "late")


@pytest.mark.parametrize(("a", "b"), [("real@1", "real"), ("run:r1", "real"), ("real", "real@1"), ("real", None)])
def test_a_root_that_only_the_configuration_knows(store: HistoryStore, a: str, b: str | None) -> None:
    """Nothing is compared across before a daemon read it either; but a move, and a manifest, are."""
    real(store, a="1")
    store.run("r1", at=time.time_ns(), real=1)
    there = store.roots["real"] = store.base / "there"
    there.mkdir()
    (there / "a").write_text("2")
    with pytest.raises(UsageError, match="different roots") as caught:
        ask(store, a, b)
    assert str(there) in caught.value.message
    assert ask(store, sums(store.base / "S", a="2"), "real")["different"] is False
    rehome.intend(store.records, "real", str(there), None)
    assert ask(store, a, b)["summary"]["modified"] == 1


def test_a_name_that_nobody_knows_is_not_another_dataset(store: HistoryStore) -> None:
    """Two names are refused as such only if both are datasets."""
    store.open("other")
    store.seal(time.time_ns(), "other", x=1)
    for a, b in (("nosuch", "data"), ("data@1", "nosuch@1"), ("nosuch", "neither")):
        with pytest.raises(NotFoundError, match="no dataset named 'nosuch'"):
            ask(store, a, b)
    with pytest.raises(UsageError, match="data is of data, other@1 of other"):
        ask(store, "data", "other@1")


@pytest.mark.parametrize("state", ["empty", "missing"])
def test_a_run_that_was_recorded_elsewhere(tmp_path: Path, store: HistoryStore, state: str) -> None:
    """Without a registry too the hint leads to its manifest; to start a daemon would not."""
    if state == "empty":
        (tmp_path / state).mkdir()
    for place in (tmp_path / state, store.state):
        with pytest.raises(NotFoundError, match="no run 'abc' was recorded here") as caught:
            diff(place, store.config, "run:abc", "run:def")
        assert "reprod export run:ID --format sha256sums > S; reprod verify S DIR" in caught.value.hint


# --- another place, another name -------------------------------------------------------------------------------------


def carry_out(store: HistoryStore, name: str, root: Path | None = None, new: str | None = None) -> None:
    """What ``dataset move`` and ``rename`` do, without a configuration."""
    rehome.intend(store.records, name, str(root) if root else None, new)
    store.opened.pop(name).close()
    held = {new or name: str(root or store.roots[name])}
    rehome.settle(store.state, store.records, [DatasetConfig(key, path) for key, path in held.items()])
    if new:
        store.roots[new] = store.roots.pop(name)


def test_a_move_is_an_entry_of_its_own(store: HistoryStore) -> None:
    """The history goes on at the new place, a version says so, and a run between is bound to neither side."""
    root = real(store, a="1", b="2")
    before_ns = time.time_ns()
    root.rename(store.base / "there")
    carry_out(store, "real", store.base / "there")
    start = time.time_ns()
    store.open("real", root="there")
    while time.time_ns() < start + 50_000_000:
        pass
    report = scan(store, "real")
    assert (report.version.seq, report.version.reason, report.sealed) == (2, "moved", True)
    assert not scan(store, "real").sealed
    rows = history.log(store.state, "real")
    assert [(row["version"], row["root"].rpartition("/")[2], row["epoch"]) for row in rows] == [
        (2, "there", 1), (1, "real", 1),
    ]  # fmt: skip
    assert rows[0]["digest"] == rows[1]["digest"]
    marks = store.opened["real"].read(timeline.marks)
    for moment in (before_ns, start):
        assert bind(marks, moment, 1_000_000).seq is None
    while time.time_ns() < report.version.sealed_ns + 80_000_000:
        pass
    later = time.time_ns() - 30_000_000
    scan(store, "real")
    assert bind(store.opened["real"].read(timeline.marks), later, 1_000_000).seq == 2
    assert not ask(store, "real@1", "real")["different"]
    assert verify_chain(store.state, "real", contents=True)["valid"]


def test_a_move_that_was_interrupted_is_still_one(store: HistoryStore) -> None:
    """A walk that is cut off at the new place leaves the next one to say it; an intent alone changes nothing."""

    class StoppedError(Exception):
        """Raised in the place of a kill."""

    def stop() -> None:
        raise StoppedError

    root = real(store, a="1")
    target = store.base / "there"
    rehome.intend(store.records, "real", str(target), None)
    assert not scan(store, "real").sealed
    root.rename(target)
    carry_out(store, "real", target)
    db = store.open("real", root="there")
    with pytest.raises(StoppedError):
        refresh(db, DatasetConfig("real", str(target)), Order(), Settings(str(store.state)), checkpoint=stop)
    assert scan(store, "real").version.reason == "moved"
    assert scan(store, "real").version.seq == 2


def test_an_intent_is_found_by_whoever_opens_the_file(store: HistoryStore) -> None:
    """The configuration changed and the process was killed before it could carry anything out."""
    rehome.intend(store.records, "data", str(store.base / "there"), None)
    store.open(root="there")
    assert store.seal(time.time_ns(), a=1, moved=5, d=6, reason="moved").seq == 4
    rehome.intend(store.records, "data", None, "named")
    store.opened.pop("data").close()
    store.records.write(lambda c: registry.remove(c, "data", 1))
    store.open("named", root="there")
    assert [row["version"] for row in history.log(store.state, "named")] == [4, 3, 2, 1]


def test_a_rename_takes_the_runs_with_it(store: HistoryStore) -> None:
    """run:ID, log and pins find the dataset by its present name; its old one may stand for another dataset."""
    store.run("r1", at=time.time_ns(), data=1)
    carry_out(store, "data", new="named")
    with pytest.raises(NotFoundError) as caught:
        history.log(store.state, "data")
    assert "named" in caught.value.hint
    reference = resolve(store.state, "run:r1")
    assert (reference.name, reference.seq) == ("named", 1)
    assert resolve(store.state, "run:r1", name="data").name == "named"
    assert [row["runs"] for row in history.log(store.state, "named")] == [[], [], ["r1"]]
    store.open("named", root="data")
    assert store.seal(time.time_ns(), "named", a=8).seq == 4
    store.open("data", root="data2")
    store.seal(time.time_ns(), z=1)
    store.run("r2", at=time.time_ns(), data=1)
    assert resolve(store.state, "run:r2").name == "data"
    assert resolve(store.state, "run:r1").name == "named"
    db, known = files.open_dataset_readonly(store.state, "data", at_ns=1)  # as a delivery that waits since then does
    db.close()
    assert known.name == "named"
    store.store = StoreConfig(0, 0)
    assert prune.prune(store.state, store.records, "named", store.store)["kept"]["run"] in {0, 1}
    assert history.log(store.state, "named")[-1]["pruned"] is False
    carry_out(store, "named", new="third")
    assert resolve(store.state, "run:r1").name == "third"
    assert verify_chain(store.state, "third", contents=True)["runs"] == 1


def test_a_name_with_a_history_is_taken(store: HistoryStore) -> None:
    """Also when its dataset was removed: two histories cannot become one."""
    store.open("other")
    store.seal(1, "other", x=1)
    store.records.write(lambda c: registry.remove(c, "other", 1))
    with pytest.raises(UsageError, match="other"):
        rehome.intend(store.records, "data", None, "other")
    assert rehome.intend(store.records, "never scanned", None, "x") is False


def test_purged_with_all_its_roots(store: HistoryStore) -> None:
    """No file and no former name is left."""
    store.open(root="two")
    store.seal(time.time_ns(), x=1)
    carry_out(store, "data", new="named")
    history.purge(store.state, "named", store.records)
    assert list((store.state / "datasets").iterdir()) == []
    with pytest.raises(NotFoundError) as caught:
        history.log(store.state, "data")
    assert "named" not in caught.value.hint


def test_a_purged_history_is_never_taken_for_a_later_one(store: HistoryStore) -> None:
    """A run on it refers to nothing, also when its name and its numbers are given again: told, and no alarm."""
    store.run("r1", at=time.time_ns(), data=1)
    store.run("old", at=1, data=2)
    store.opened.pop("data").close()
    history.purge(store.state, "data", store.records)
    store.open()
    assert store.seal(time.time_ns(), a=9).seq == 1
    store.run("r2", at=time.time_ns(), data=1)
    for ref in ("run:r1", "run:old"):
        for refused in (resolve, lambda state, ref: ask(store, ref), verify_chain):
            with pytest.raises(NotFoundError, match="the history of data that this run used was purged"):
                refused(store.state, ref)
    with pytest.raises(NotFoundError, match="purged"):
        files.open_dataset_readonly(store.state, "data", seq=1, at_ns=1)  # as a delivery that waits since then does
    assert resolve(store.state, "run:r2").seq == 1
    assert [row["runs"] for row in history.log(store.state, "data")] == [["r2"]]
    chain = verify_chain(store.state, "data")
    assert (chain["valid"], chain["complete"], chain["runs"]) == (True, True, 1)


def test_a_purge_reaches_the_former_names(store: HistoryStore) -> None:
    """Runs under a name from before a rename too; those on the dataset that has the name now are not touched."""
    store.run("r1", at=time.time_ns(), data=1)
    carry_out(store, "data", new="named")
    store.open("data", root="data2")
    store.seal(time.time_ns(), z=1)
    store.run("r2", at=time.time_ns(), data=1)
    history.purge(store.state, "named", store.records)
    assert resolve(store.state, "run:r2").name == "data"
    assert [row["runs"] for row in history.log(store.state, "data")] == [["r2"]]
    with pytest.raises(NotFoundError, match="was purged"):
        resolve(store.state, "run:r1")
    with pytest.raises(NotFoundError) as caught:
        history.log(store.state, "named")
    assert "called" not in caught.value.hint
    store.records.write(lambda c: registry.purge(c, "data", time.time_ns()))
    names = store.records.read(registry.Names)
    assert (names.renamed("data"), names.present("data", 1), names.purged("data", 1)) == (None, "data", True)


def test_one_of_several_datasets_of_a_run(store: HistoryStore) -> None:
    """The refusal names the versions to write instead; a purged one can be picked by name and is told as such."""
    store.open("other")
    store.seal(time.time_ns(), "other", x=1)
    store.run("r1", at=time.time_ns(), data=2, other=1)
    with pytest.raises(UsageError, match="several datasets: data, other") as caught:
        resolve(store.state, "run:r1")
    assert "data@2 or other@1" in caught.value.hint
    assert "--dataset" in caught.value.hint
    store.opened.pop("other").close()
    history.purge(store.state, "other", store.records)
    with pytest.raises(UsageError, match="several datasets: data, other"):
        resolve(store.state, "run:r1")
    assert resolve(store.state, "run:r1", name="data").seq == 2
    with pytest.raises(NotFoundError, match="the history of other"):
        resolve(store.state, "run:r1", name="other")
    with pytest.raises(NotFoundError, match="did not use nope"):
        resolve(store.state, "run:r1", name="nope")


def test_a_renamed_dataset_is_found_again_without_the_registry(store: HistoryStore) -> None:
    """Its file is called as it was at first, and says itself what it is called."""
    root = real(store, a="1")
    carry_out(store, "real", new="named")
    store.records.close()
    (store.state / "registry.sqlite").unlink()
    store.records = files.open_registry(store.state).db
    store.open("named", root="real")
    (root / "a").write_text("2")
    assert scan(store, "named").version.seq == 2


# --- selections ------------------------------------------------------------------------------------------------------


def test_a_selection_is_an_entry_of_its_own(store: HistoryStore) -> None:
    """It says what is selected from then on."""
    real(store, a="1", b="2")
    scan(store, "real", exclude=("b",))
    row = history.log(store.state, "real")[0]
    assert (row["reason"], row["removed"], row["selection"]["exclude"]) == ("selection", 1, ["b"])


# --- manifest files --------------------------------------------------------------------------------------------------


def sums(path: Path, **content: str) -> str:
    path.write_text("".join(f"{hashlib.sha256(t.encode()).hexdigest()}  {n}\n" for n, t in content.items()))
    return str(path)


def test_manifest_files_against_anything(store: HistoryStore) -> None:
    """Two files, a file and a version, a file and the files now; both ways round."""
    real(store, a="alpha", b="beta", c="gamma")
    one = sums(store.base / "ONE", a="alpha", b="beta", c="gamma")
    two = sums(store.base / "TWO", a="ALPHA", bb="beta", c="gamma", n="new")
    found = ask(store, one, two)
    assert [c["path"] for c in found["modified"]] == ["a"]
    assert [c["path"] for c in found["added"]] == ["n"]
    assert [(r["from"], r["to"]) for r in found["renamed"]] == [("b", "bb")]
    assert found["algorithm"] == "sha256"
    assert (found["a"]["name"], found["a"]["complete"], found["b"]["ref"]) == (None, True, two)
    for b in ("real@1", "real"):
        assert not ask(store, one, b)["different"]
        assert not ask(store, b, one)["different"]
        assert ask(store, b, two)["summary"]["modified"] == 1
    (store.base / "real" / "a").write_text("ALPHA")
    assert [m["path"] for m in ask(store, one, "real")["modified"]] == ["a"]
    (store.base / "real" / "link").symlink_to("a")  # of which SHA256SUMS can say nothing
    assert ask(store, one, "real")["added"] == []
    with pytest.raises(UsageError):
        ask(store, one)
    (store.base / "BAD").write_text("no manifest\n")
    with pytest.raises(DamagedError):
        ask(store, one, str(store.base / "BAD"))


def test_without_a_common_hash_it_is_unknown(store: HistoryStore) -> None:
    """Equal sizes prove nothing; other sizes do."""
    real(store, a="alpha", b="beta")
    documents = {}
    for name, algorithm in (("md5", hashlib.md5), ("sha1", hashlib.sha1)):
        entries = [
            {
                "path": path, "relative_path": path, "size_bytes": len(text),
                "hashes": {name: algorithm(text.encode()).hexdigest()},
            }
            for path, text in (("a", "alpha"), ("b", "beta" if name == "md5" else "longer"))
        ]  # fmt: skip
        documents[name] = store.base / f"{name}.json"
        size = sum(e["size_bytes"] for e in entries)  # type: ignore[misc]
        summary = {"total_files": 2, "total_size_bytes": size}
        documents[name].write_text(json.dumps({"manifest_version": "1.0", "files": entries, "summary": summary}))
    found = ask(store, str(documents["md5"]), str(documents["sha1"]))
    assert found["algorithm"] is None
    assert {m["path"]: m["problem_b"] for m in found["modified"]} == {"a": "no common hash", "b": None}
    assert {m["problem_b"] for m in ask(store, str(documents["md5"]), "real@1")["modified"]} == {"no common hash"}


# --- the chain -------------------------------------------------------------------------------------------------------


def alter(store: HistoryStore, sql: str, *values: object) -> None:
    """Change the dataset's file behind our back, with sqlite3."""
    with closing(sqlite3.connect(store.state / "datasets" / "data.sqlite")) as db, db:
        db.execute(sql, values)


def broken(store: HistoryStore, *, contents: bool = False) -> list[int]:
    found = verify_chain(store.state, "data", contents=contents)
    assert found["valid"] == (not found["broken"])
    return sorted({entry["version"] for entry in found["broken"]})


@pytest.mark.parametrize("at", range(0, 160, 7))
def test_any_byte_of_a_record(store: HistoryStore, at: int) -> None:
    """One changed byte of version 2's record, whichever it is, names version 2 (test 24)."""
    with closing(sqlite3.connect(store.state / "datasets" / "data.sqlite")) as db:
        record = db.execute("SELECT CAST(record AS BLOB) FROM version WHERE seq = 2").fetchone()[0]
    at %= len(record)
    altered = record[:at] + bytes([record[at] ^ (0x81 if at % 2 else 0x01)]) + record[at + 1 :]
    alter(store, "UPDATE version SET record = CAST(? AS TEXT) WHERE seq = 2", altered)
    assert broken(store) == [2]


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("UPDATE version SET digest = zeroblob(32) WHERE seq = 2", [2]),
        ("UPDATE version SET digest = NULL WHERE seq = 3", [3]),
        ("UPDATE version SET files = files + 1 WHERE seq = 1", [1]),
        ("UPDATE version SET bytes = 0 WHERE seq = 3", [3]),
        ("UPDATE version SET problems = 1 WHERE seq = 1", [1]),
        ("UPDATE version SET reason = 'rebuilt' WHERE seq = 1", [1]),
        ("UPDATE mark SET sealed_ns = sealed_ns + 1 WHERE seq = 2", [2]),
        ("DELETE FROM version WHERE seq = 2", [3]),
        ("DELETE FROM version WHERE seq = 3", [3]),
        ("UPDATE version SET chain = zeroblob(32) WHERE seq = 2", [2, 3]),
    ],
)
def test_what_a_version_says_is_bound_to_its_record(store: HistoryStore, sql: str, named: list[int]) -> None:
    """A column, the seal's time, a version taken out."""
    assert broken(store) == []
    alter(store, sql)
    assert broken(store) == named


def test_a_history_that_was_rewritten_contradicts_its_witnesses(store: HistoryStore) -> None:
    """With a chain that fits: the registry's head and what runs recorded still tell."""
    store.run("r1", data=2)
    with closing(sqlite3.connect(store.state / "datasets" / "data.sqlite")) as db, db:
        previous = db.execute("SELECT chain FROM version WHERE seq = 1").fetchone()[0]
        for seq in (2, 3):
            record = db.execute("SELECT record FROM version WHERE seq = ?", (seq,)).fetchone()[0]
            if seq == 2:
                record = record.replace('"symlinks":"record"', '"symlinks":"skip"')
            previous = versions.link(previous, record.encode())
            db.execute("UPDATE version SET record = ?, chain = ? WHERE seq = ?", (record, previous, seq))
    found = verify_chain(store.state, "data")
    assert [(entry["version"], entry["reason"].split()[0]) for entry in found["broken"]] == [(2, "run"), (3, "the")]


def test_altered_rows_give_another_digest(store: HistoryStore) -> None:
    """What the chain cannot see, the entries themselves can: every kept version is computed again."""
    alter(store, "UPDATE history SET sha256 = zeroblob(32) WHERE version = 3 AND file = 2")
    assert broken(store) == []
    assert broken(store, contents=True) == [2]
    assert verify_chain(store.state, "data@1", contents=True)["contents_checked"] == 3


def test_a_lost_file_is_not_a_broken_chain(store: HistoryStore) -> None:
    """Set aside as damaged, its versions cannot be checked any more: said, and no alarm."""
    store.run("r1", data=2)
    store.opened.pop("data").close()
    path = store.state / "datasets" / "data.sqlite"
    with open(path, "r+b") as file:
        file.write(b"\0" * 100)
    store.open()
    assert store.seal(time.time_ns(), a=1).reason == "rebuilt"
    found = verify_chain(store.state, "data")
    assert (found["valid"], found["complete"]) == (True, False)
    assert [(entry["version"], entry["run_id"]) for entry in found["lost"]] == [(2, "r1")]


def test_a_record_that_nobody_can_read_is_damage(store: HistoryStore) -> None:
    """Not a bug: whoever needs it says which version."""
    alter(store, "UPDATE version SET record = '{' WHERE seq = 1")
    with pytest.raises(DamagedError, match="version 1"):
        history.log(store.state, "data")


def test_pruned_records_stay_in_the_chain(store: HistoryStore) -> None:
    """What was forgotten is still witnessed."""
    store.store = StoreConfig(0, 0)
    alter(store, "UPDATE mark SET sealed_ns = sealed_ns - ?", 40 * DAY)
    prune.prune(store.state, store.records, "data", store.store)
    found = verify_chain(store.state, "data")
    assert (found["versions"], found["pruned"]) == (3, 2)
    with pytest.raises(IncompleteError):
        ask(store, "data@1", "data@3")


def test_seen_from_outside(store: HistoryStore) -> None:
    """The chain's value as the documentation defines it, from the stored text alone."""
    with closing(sqlite3.connect(store.state / "datasets" / "data.sqlite")) as db:
        rows = db.execute("SELECT record, chain, digest FROM version ORDER BY seq").fetchall()
    previous = ""
    for record, chain, found in rows:
        previous = hashlib.sha256(f"reprod-chain-v1\n{previous}\n{record}\n".encode()).hexdigest()
        assert previous == chain.hex()
        assert json.loads(record)["digest"] == digest.text(found)
    assert os.path.exists(store.state)
