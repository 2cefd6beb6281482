"""Manifests above the inline limit: uploaded once a version, as deltas where that pays, proven when they are read."""

import dataclasses
import gzip
import json
import os
import random
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import oracle
import pytest
from ops_place import Place, as_contents

from reprod.config import load
from reprod.core import digest
from reprod.core.run import PendingRun
from reprod.core.snapshot import BoundDataset, Snapshot
from reprod.errors import ConfigError, DamagedError, IncompleteError, NotFoundError, UsageError
from reprod.ops import upload
from reprod.ops.deliver import deliver
from reprod.ops.fetch import FetchedManifest, fetch_manifest, fetch_reference
from reprod.sinks.child import MlflowChild
from reprod.sinks.environment import set_client_defaults
from reprod.store import listing, outbox, versions
from reprod.store.connection import open_database, open_readonly

pytestmark = [pytest.mark.mlflow, pytest.mark.timeout(180)]

FILES, VERSIONS, CHANGED = 1500, 40, 15

#: Odd names that every reader has to take: LF, backslash, not UTF-8, a directory that sorts before its neighbour.
ODD = [b"d/new\nline", b"d/back\\slash\\n", b"d/\xff\xfe", b"a-b/c", b"a/z", b"a.txt", b"cr\rname"]


@pytest.fixture(scope="module")
def client(mlflow_server: str) -> Any:
    set_client_defaults(os.environ)
    from mlflow import MlflowClient

    return MlflowClient(mlflow_server)


@pytest.fixture(scope="module")
def child(mlflow_server: str) -> Iterator[MlflowChild]:
    shared = MlflowChild(mlflow_server)
    yield shared
    shared.close()


class Host:
    """One host with a dataset and a registry, and the deliveries it makes."""

    def __init__(self, base: Path, uri: str, child: MlflowChild, client: Any, name: str | None = None) -> None:
        base.mkdir(exist_ok=True)
        self.place = Place(base)
        self.name = name or f"d{uuid.uuid4().hex[:10]}"
        self.uri, self.child, self.client = uri, child, client
        self.experiment = client.create_experiment(f"work-{uuid.uuid4().hex}")
        self.scratch = base / "scratch"
        self.scratch.mkdir()
        self.records = open_database(base / "registry.sqlite", "registry")

    def close(self) -> None:
        self.records.close()
        self.place.close()

    def seal(self) -> int:
        self.place.refresh(watched=False)
        newest = self.place.db.read(versions.newest)
        assert newest is not None
        return newest.seq

    def deliver(self, seq: int, limit: int = 1000, check_again_s: float = 600.0, *, several: bool = False) -> str:
        """Deliver a version to a new run; return the run's id."""
        run_id = str(self.client.create_run(self.experiment, tags={"reprod.dataset": self.name}).info.run_id)
        self.send(self.owe(run_id, seq, several=several), limit, check_again_s)
        return run_id

    def send(self, row: outbox.Delivery, limit: int, check_again_s: float) -> None:
        deliver(
            self.records,
            row,
            self.child,
            lambda name, seq, at_ns: open_readonly(self.place.db.path),
            self.scratch,
            max_inline_files=limit,
            check_again_s=check_again_s,
        )
        assert list(self.scratch.iterdir()) == []

    def store(self, seq: int) -> None:
        """Bring a version's manifest to the server, as its first delivery does."""
        node = bytes.fromhex(self.text(seq).removeprefix("dt1:"))
        db = open_readonly(self.place.db.path)
        server = upload.Server(self.records, self.child, self.uri, self.scratch)
        upload.ensure_stored(server, upload.Stored(self.name, seq, node, db))
        db.close()

    def owe(self, run_id: str, seq: int, *, several: bool = False) -> outbox.Delivery:
        version = self.place.db.read(lambda c: versions.version(c, seq))
        assert version.digest is not None
        bound = BoundDataset(
            self.name, str(self.place.root), "start", "walk", seq, digest.text(version.digest), version.files,
            version.size, version.sealed_ns, version.chain.hex(), ("sha256",), 0.1,
        )  # fmt: skip
        both = (bound, dataclasses.replace(bound, name="other")) if several else (bound,)
        snapshot = Snapshot(1_700_000_000_000_000_000, "here", both, None, None, "not asked")
        run = PendingRun(run_id, self.experiment, "r", "RUNNING", 0, None, self.name)
        encode = msgspec.json.encode
        self.records.write(lambda c: outbox.notice(c, self.uri, run_id, self.name, encode(run), 1))
        rows = self.records.read(lambda c: outbox.due(c, self.uri, "noticed", 10))
        self.records.write(lambda c: outbox.published(c, rows[0].id, encode(snapshot)))
        found = self.records.read(lambda c: outbox.get(c, rows[0].id))
        assert found is not None
        return found

    def text(self, seq: int) -> str:
        found = self.place.db.read(lambda c: versions.version(c, seq)).digest
        assert found is not None
        return digest.text(found)

    def runs(self) -> list[Any]:
        """Return every active store run of this dataset, found or not, oldest first."""
        experiment = self.client.get_experiment_by_name("reprod-datasets")
        found = [] if experiment is None else self.client.search_runs(
            [experiment.experiment_id],
            f"attributes.run_name LIKE '{self.name} %'",
            order_by=["attributes.start_time ASC"],
            max_results=1000,
        )  # fmt: skip
        return list(found)

    def run_of(self, seq: int) -> Any:
        (found,) = [r for r in self.runs() if r.data.tags.get("reprod.manifest.digest") == self.text(seq)]
        return found

    def header(self, run_id: str, into: Path) -> dict[str, Any]:
        into.mkdir(parents=True, exist_ok=True)
        path = self.client.download_artifacts(run_id, "data_manifest/data_manifest.json", str(into))
        found: dict[str, Any] = json.loads(Path(path).read_bytes())
        return found


#: A host, the run of some versions, and what these truly held.
History = tuple[Host, dict[int, str], dict[int, oracle.Contents]]


def fill(place: Place, count: int, salt: str) -> None:
    for i in range(count):
        place.write(f"part-{i // 100:03d}/file-{i:05d}.csv", f"{salt} {i}")


def sizes(client: Any, run_id: str, path: str | None = None) -> dict[str, int]:
    found: dict[str, int] = {}
    for info in client.list_artifacts(run_id, path):
        found |= sizes(client, run_id, info.path) if info.is_dir else {info.path: info.file_size}
    return found


def damage(client: Any, run_id: str, name: str, content: bytes, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    client.log_artifact(run_id, str(folder / name))


def contents(fetched: FetchedManifest) -> oracle.Contents:
    return as_contents({entry.path: entry.content for entry in fetched.entries()})


@pytest.fixture(scope="module")
def history(
    tmp_path_factory: pytest.TempPathFactory, mlflow_server: str, child: MlflowChild, client: Any
) -> Iterator[History]:
    """40 versions of 1,500 files that differ by 1 % each, all of them on the server."""
    host = Host(tmp_path_factory.mktemp("history"), mlflow_server, child, client)
    rng = random.Random(7)
    fill(host.place, FILES, host.name)
    for path in ODD:
        target = os.path.join(host.place.raw, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        Path(os.fsdecode(target)).write_bytes(path)
    os.symlink(b"a.txt", os.path.join(host.place.raw, b"a/link"))
    names = sorted(p for p in host.place.root.glob("part-*/*"))
    truth: dict[int, oracle.Contents] = {}
    runs: dict[int, str] = {}
    for number in range(1, VERSIONS + 1):
        if number > 1:
            for path in rng.sample(names, CHANGED - 3):
                path.write_text(f"version {number} {rng.random()}")
            host.place.write(f"added/{number}", f"new in {number}")
            os.unlink(names.pop(rng.randrange(len(names))))
            link = os.path.join(host.place.raw, b"a/link")
            os.unlink(link)
            os.symlink(b"target %d" % number, link)
        seq = host.seal()
        assert seq == number
        if number in {1, 16, 37, 40}:
            runs[number] = host.deliver(seq)
            truth[number] = oracle.scan(host.place.raw)
        else:
            host.store(seq)  # a delivery of each would only take longer
    yield host, runs, truth
    host.close()


def test_each_version_is_uploaded_once_and_most_as_deltas(history: History, client: Any) -> None:
    """40 versions make 40 store runs: a checkpoint at 1, 17 and 33, deltas of a few percent of one between, each
    naming its base; none of them carries reprod.dataset."""
    host, _, _ = history
    runs = [host.run_of(seq) for seq in range(1, VERSIONS + 1)]
    assert len(host.runs()) == VERSIONS
    kinds = [run.data.tags["reprod.manifest.kind"] for run in runs]
    assert [i + 1 for i, kind in enumerate(kinds) if kind == "checkpoint"] == [1, 17, 33]
    for i, run in enumerate(runs):
        tags = run.data.tags
        assert "reprod.dataset" not in tags
        assert (tags["reprod.manifest.dataset"], tags["reprod.manifest.version"]) == (host.name, str(i + 1))
        assert run.info.status == "FINISHED"
        files = sizes(client, run.info.run_id)
        if kinds[i] == "delta":
            assert tags["reprod.manifest.base"] == host.text(i)
            assert tags["reprod.manifest.base_run"] == runs[i - 1].info.run_id
            assert set(files) == {"delta.jsonl.gz"}
            assert files["delta.jsonl.gz"] < 0.05 * sizes(client, runs[0].info.run_id)["SHA256SUMS.gz"]
        else:
            assert set(files) == {"SHA256SUMS.gz", "sizes.gz", "links.jsonl"}


def test_the_run_carries_a_header_that_refers_by_digest(history: History, client: Any, tmp_path: Path) -> None:
    """What a run gets of a large manifest is below 8 KB: the header with counts and the reference."""
    host, runs, _ = history
    files = {path: size for path, size in sizes(client, runs[37]).items() if path.startswith("data_manifest")}
    assert list(files) == ["data_manifest/data_manifest.json"]
    assert sum(files.values()) < 8192
    header = host.header(runs[37], tmp_path)
    assert (header["files"], header["symlinks"], header["files_omitted"]) == ([], [], True)
    assert header["summary"]["total_files"] == FILES + len(ODD)
    assert header["reference"] == {
        "digest": host.text(37),
        "experiment": "reprod-datasets",
        "run_id": host.run_of(37).info.run_id,
    }


@pytest.mark.parametrize("seq", [1, 16, 37, 40])
def test_a_version_in_the_chain_is_whole_from_artifacts_alone(history: History, child: MlflowChild, seq: int) -> None:
    """Version 37 of 40, and others, come back with every path, size and digest that the disk had, odd names and
    symlinks included, and with the digest that an independent reading gives."""
    host, runs, truth = history
    with fetch_manifest(child, runs[seq]) as fetched:
        assert fetched.digest == oracle.dt1(truth[seq]) == host.text(seq)
        assert contents(fetched) == truth[seq]
        assert contents(fetched) == truth[seq]  # may be asked again
        assert [entry.path for entry in fetched.entries()] == sorted(truth[seq])
        assert (fetched.name, fetched.has_metadata) == (host.name, False)
        assert fetched.header["data_path"] == str(host.place.root)
        folder = fetched.folder
    assert not folder.exists()


def test_the_checkpoint_is_what_sha256sum_accepts_and_reproducible(
    history: History, client: Any, tmp_path: Path
) -> None:
    """SHA256SUMS.gz has no name and no time, is canonical, and sha256sum -c takes it for the tree of that version."""
    host, _, truth = history
    run_id = host.run_of(1).info.run_id
    packed = Path(client.download_artifacts(run_id, "SHA256SUMS.gz", str(tmp_path))).read_bytes()
    assert packed[3:8] == b"\0\0\0\0\0"
    sums = gzip.decompress(packed)
    assert sums == oracle.flat_sums(truth[1])
    odd = [b"a-b/c", b"a/z", b"a.txt"]
    lines = [line for line in sums.splitlines(True) if any(line.endswith(b"  " + path + b"\n") for path in odd)]
    (tmp_path / "few").write_bytes(b"".join(lines))
    assert len(lines) == 3
    assert (
        subprocess.run(["sha256sum", "-c", "--strict", "--quiet", tmp_path / "few"], cwd=host.place.root).returncode
        == 0
    )


def test_more_runs_on_one_version_upload_nothing(history: History, tmp_path: Path) -> None:
    """Further runs on a version that is on the server refer to the same store run, asked again or not."""
    host, _, _ = history
    before = len(host.runs())
    known = host.run_of(37).info.run_id
    for again_s in (600.0, 0.0, 600.0):
        run_id = host.deliver(37, check_again_s=again_s)
        assert host.header(run_id, tmp_path / run_id)["reference"]["run_id"] == known
    assert len(host.runs()) == before


@pytest.mark.parametrize(
    "how", ["altered row", "another digest", "cut", "empty", "no gzip", "missing base", "a bomb", "sizes altered"]
)
def test_a_damaged_chain_is_damage_and_gives_nothing(
    mlflow_server: str,
    child: MlflowChild,
    client: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    """Any file of the chain that is missing, cut or altered, be it in one digit, is DamagedError, which names no
    digest; nothing is left of the download."""
    host = Host(tmp_path / "host", mlflow_server, child, client)
    fill(host.place, 60, host.name)
    host.deliver(host.seal(), limit=10)
    host.place.write("part-000/file-00001.csv", "other")
    run_id = host.deliver(host.seal(), limit=10)
    base, delta = host.run_of(1).info.run_id, host.run_of(2).info.run_id
    good = Path(client.download_artifacts(delta, "delta.jsonl.gz", str(tmp_path))).read_bytes()
    lines = gzip.decompress(good).splitlines(True)
    row = json.loads(lines[1])
    flipped = json.dumps({**row, "sha256": row["sha256"][:-1] + ("0" if row["sha256"][-1] != "0" else "1")}).encode()
    match how:
        case "altered row":
            damage(client, delta, "delta.jsonl.gz", gzip.compress(lines[0] + flipped + b"\n"), tmp_path / "x")
        case "another digest":
            head = lines[0].replace(host.text(1).encode(), host.text(2).encode())
            damage(client, delta, "delta.jsonl.gz", gzip.compress(head + lines[1]), tmp_path / "x")
        case "cut":
            damage(client, delta, "delta.jsonl.gz", good[:-9], tmp_path / "x")
        case "empty":
            damage(client, delta, "delta.jsonl.gz", b"", tmp_path / "x")
        case "no gzip":
            damage(client, delta, "delta.jsonl.gz", lines[0], tmp_path / "x")
        case "missing base":
            client.delete_run(base)
        case "a bomb":
            damage(client, delta, "delta.jsonl.gz", gzip.compress(b"\n" * (100 << 20), 1), tmp_path / "x")
        case "sizes altered":
            damage(client, base, "sizes.gz", gzip.compress(b"1\n" * 60), tmp_path / "x")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with pytest.raises(DamagedError) as caught:
        fetch_manifest(child, run_id)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert host.text(2)[4:16] not in caught.value.message
    assert caught.value.exit_code == 65
    host.close()


def test_a_lost_store_run_is_uploaded_again(
    mlflow_server: str, child: MlflowChild, client: Any, tmp_path: Path
) -> None:
    """A store run that somebody deleted comes back with the next delivery of its version; one below it in the chain
    comes back with a delivery of a version that rests on it."""
    host = Host(tmp_path / "host", mlflow_server, child, client)
    fill(host.place, 60, host.name)
    runs = []
    for number in (1, 2, 3):
        host.place.write("part-000/file-00001.csv", f"version {number}")
        runs.append(host.deliver(host.seal(), limit=10))
    first, second = (host.run_of(seq).info.run_id for seq in (1, 2))
    client.delete_run(second)
    with pytest.raises(DamagedError):
        fetch_manifest(child, runs[2])
    host.deliver(3, limit=10, check_again_s=0)
    assert host.run_of(2).info.run_id != second
    client.delete_run(first)  # version 2 rests on nothing now
    for run_id, seq in ((runs[1], 2), (runs[2], 3)):
        with fetch_manifest(child, run_id) as fetched:
            assert fetched.digest == host.text(seq)
    host.deliver(1, limit=10, check_again_s=0)
    with fetch_manifest(child, runs[0]) as fetched:
        assert fetched.digest == host.text(1)
    assert len(host.runs()) == 3
    host.close()


def test_two_hosts_with_the_same_data_share_one_upload(
    mlflow_server: str, child: MlflowChild, client: Any, tmp_path: Path
) -> None:
    """A daemon that finds another's store run refers to it, chain included; duplicates from a race are harmless, and
    where one of them is damaged the other is read."""
    name = f"d{uuid.uuid4().hex[:10]}"
    one = Host(tmp_path / "one", mlflow_server, child, client, name)
    two = Host(tmp_path / "two", mlflow_server, child, client, name)
    for host in (one, two):
        fill(host.place, 60, name)
        host.seal()
        host.place.write("part-000/file-00001.csv", "second")
        host.seal()
    for seq in (1, 2):
        one.deliver(seq, limit=10)
    run_id = two.deliver(2, limit=10)
    assert len(one.runs()) == 2
    with fetch_manifest(child, run_id) as fetched:
        assert fetched.digest == oracle.dt1(oracle.scan(two.place.raw))
    # The race: nobody's row, nobody's tag yet, so both upload.
    server = upload.Server(two.records, child, "elsewhere", two.scratch)
    node = bytes.fromhex(two.text(2).removeprefix("dt1:"))
    upload._upload(server, upload.Stored(name, 2, node, two.place.db))
    assert len(one.runs()) == 3
    twice = [r for r in one.runs() if r.data.tags["reprod.manifest.digest"] == one.text(2)]
    damage(client, twice[0].info.run_id, "delta.jsonl.gz", b"garbage", tmp_path / "x")
    with fetch_manifest(child, run_id) as fetched:
        assert fetched.digest == one.text(2)
    one.close()
    two.close()


def test_a_large_difference_is_a_checkpoint(
    mlflow_server: str, child: MlflowChild, client: Any, tmp_path: Path
) -> None:
    """A version that differs in half of its files, and one after a purged base, are uploaded whole; what came back to
    an earlier content is not uploaded at all."""
    host = Host(tmp_path / "host", mlflow_server, child, client)
    fill(host.place, 60, "first " + host.name)
    host.deliver(host.seal(), limit=10)
    fill(host.place, 40, "second " + host.name)
    host.deliver(host.seal(), limit=10)
    assert host.run_of(2).data.tags["reprod.manifest.kind"] == "checkpoint"
    fill(host.place, 40, "first " + host.name)
    third = host.seal()
    assert host.text(third) == host.text(1)
    host.deliver(third, limit=10)
    assert len(host.runs()) == 2
    host.place.write("part-000/file-00001.csv", "other")
    host.deliver(host.seal(), limit=10)
    assert host.run_of(4).data.tags["reprod.manifest.base"] == host.text(1)
    host.place.db.write(lambda c: c.execute("UPDATE version SET pruned = 1"))
    host.place.write("part-000/file-00001.csv", "yet another")
    host.deliver(host.seal(), limit=10)
    assert host.run_of(5).data.tags["reprod.manifest.kind"] == "checkpoint"
    host.close()


def test_a_dataset_that_began_anew_rests_on_nothing_old(
    mlflow_server: str, child: MlflowChild, client: Any, tmp_path: Path
) -> None:
    """A file that was purged and begun again has the same name and numbers, and other versions: no delta leads from
    the old ones, and what is fetched is what the disk has."""
    host = Host(tmp_path / "host", mlflow_server, child, client)
    fill(host.place, 60, "old " + host.name)
    host.deliver(host.seal(), limit=10)
    run_id = str(client.create_run(host.experiment, tags={"reprod.dataset": host.name}).info.run_id)
    old = host.owe(run_id, 1)
    host.place.db.close()
    for path in host.place.state.iterdir():
        path.unlink()
    host.place.restart()
    fill(host.place, 60, "new " + host.name)
    assert host.seal() == 1
    with pytest.raises(DamagedError, match="not the version that was recorded"):
        host.send(old, 10, 600)
    host.place.write("part-000/file-00001.csv", "other")
    run_id = host.deliver(host.seal(), limit=10)
    assert host.run_of(2).data.tags["reprod.manifest.kind"] == "checkpoint"
    with fetch_manifest(child, run_id) as fetched:
        assert contents(fetched) == oracle.scan(host.place.raw)
    host.close()


def test_a_small_manifest_is_whole_on_the_run(
    mlflow_server: str, child: MlflowChild, client: Any, tmp_path: Path
) -> None:
    """Up to the limit nothing goes to the store experiment; the manifest on the run is proven in the same way, with
    its times and modes, and a user's own file in its place does not matter."""
    host = Host(tmp_path / "host", mlflow_server, child, client)
    fill(host.place, 8, host.name)
    os.symlink("nowhere", host.place.root / "link")
    seq = host.seal()
    run_id = host.deliver(seq, limit=10)
    assert host.runs() == []
    with fetch_manifest(child, run_id, host.name) as fetched:
        assert fetched.has_metadata
        found = {entry.path: entry for entry in fetched.entries()}
    stored = {e.path: e for e in host.place.db.read(lambda c: list(listing.entries(c, seq)))}
    assert found.keys() == stored.keys()
    entry, was = found[b"part-000/file-00003.csv"], stored[b"part-000/file-00003.csv"]
    assert (entry.content, entry.mode) == (was.content, was.mode)
    assert abs(entry.mtime_ns - was.mtime_ns) < 1000
    document = host.header(run_id, tmp_path / "h")
    document["files"][0]["hashes"]["sha256"] = "0" * 64
    (tmp_path / "data_manifest.json").write_text(json.dumps(document))
    client.log_artifact(run_id, str(tmp_path / "data_manifest.json"), "data_manifest")
    with pytest.raises(DamagedError):
        fetch_manifest(child, run_id)
    (tmp_path / "data_manifest.json").write_text("mine")
    client.log_artifact(run_id, str(tmp_path / "data_manifest.json"), "data_manifest")
    with pytest.raises(DamagedError, match="says what its tag says"):
        fetch_manifest(child, run_id)
    host.close()


def test_what_cannot_be_fetched_says_why(
    mlflow_server: str, child: MlflowChild, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown run, a run without a digest, several datasets and none named, a name it did not use, no server."""
    host = Host(tmp_path / "host", mlflow_server, child, client)
    fill(host.place, 12, host.name)
    run_id = host.deliver(host.seal(), limit=10, several=True)
    with pytest.raises(NotFoundError, match="no run"):
        fetch_manifest(child, "0" * 32)
    bare = client.create_run(host.experiment).info.run_id
    with pytest.raises(IncompleteError, match="no recorded digest"):
        fetch_manifest(child, bare)
    with pytest.raises(UsageError, match="several"):
        fetch_manifest(child, run_id)
    with pytest.raises(NotFoundError, match="no digest of third"):
        fetch_manifest(child, run_id, "third")
    with fetch_manifest(child, run_id, "other") as fetched:
        assert fetched.name == "other"
    assert len(host.runs()) == 1  # two datasets with one content
    file = tmp_path / "reprod.toml"
    file.write_text("")
    monkeypatch.setenv("REPROD_STATE_DIR", str(tmp_path / "nothing"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="no tracking server"):
        fetch_reference(load(str(file)), f"run:{run_id}")
    file.write_text(f'[mlflow]\ntracking_uri = "{mlflow_server}"\n')
    with fetch_reference(load(str(file)), f"run:{run_id}", host.name) as fetched:
        assert fetched.digest == host.text(1)
    host.close()
