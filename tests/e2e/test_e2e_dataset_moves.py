"""A real daemon whose datasets are moved, renamed, given up and pruned while it runs, and killed in between."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from harness import Daemon, dt1, eventually, make_data, running_daemon

DAY = 86_400_000_000_000

#: A daemon that need not wait ten minutes before it looks for what is due.
EAGER = (
    "import sys; from reprod.daemon import pruner; pruner.FIRST_S = 0.0; sys.argv = ['reprod', 'daemon']; "
    "from reprod.__main__ import main; main()"
)


def log(daemon: Daemon, name: str) -> list[tuple[int, str]]:
    """Versions and why, newest first, as a person asks for them."""
    done = daemon.place.cli("log", name, "--json")
    assert done.returncode == 0, done.stderr
    return [(row["version"], row["reason"]) for row in json.loads(done.stdout)["versions"]]


def done(daemon: Daemon, *argv: str, code: int = 0) -> str:
    result = daemon.place.cli(*argv)
    assert result.returncode == code, result.stderr
    return result.stdout


def test_moved_renamed_and_given_to_another_root(tmp_path: Path) -> None:
    """History follows a move and a rename, live and after a kill; another root under the name begins anew."""
    data = make_data(tmp_path / "data")
    with running_daemon(tmp_path / "place", datasets={"data": data}) as daemon:
        daemon.sealed("data", 1)
        (data / "part-0.csv").write_text("changed")
        daemon.sealed("data", 2)
        there = data.rename(tmp_path / "there")
        eventually(lambda: daemon.dataset("data")["state"] == "unavailable", 15, "the root is missed")
        done(daemon, "dataset", "move", "data", str(there))
        shown = daemon.sealed("data", 3)
        assert (shown["path"], shown["digest"]) == (str(there), dt1(there))
        assert log(daemon, "data") == [(3, "moved"), (2, "change"), (1, "first")]
        (there / "part-0.csv").write_text("watched here too")
        daemon.sealed("data", 4)

        done(daemon, "dataset", "rename", "data", "named")
        daemon.sealed("named", 4)
        assert [d["name"] for d in daemon.status()["datasets"]] == ["named"]
        assert log(daemon, "named")[0] == (4, "change")
        assert "named" in daemon.place.cli("log", "data").stderr
        daemon.restart()
        eventually(lambda: daemon.status()["datasets"], 10, "it is taken in")
        daemon.sealed("named", 4)

        other = make_data(tmp_path / "other", 2)
        done(daemon, "dataset", "remove", "named")
        done(daemon, "dataset", "add", "named", str(other))
        first = daemon.sealed("named", 5)["version"]
        assert log(daemon, "named")[0] == (first, "root")
        refused = daemon.place.cli("diff", "named@4", "named")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert str(there) in refused.stderr
        done(daemon, "verify", "named", "--chain")

        done(daemon, "dataset", "remove", "named", "--purge")
        assert list((daemon.place.state / "datasets").iterdir()) == []


@pytest.mark.parametrize("verb", ["move", "rename"])
def test_killed_between_the_intent_and_its_end(tmp_path: Path, verb: str) -> None:
    """The file in datasets.d changed and nobody was there to carry it out: the next start does."""
    data = make_data(tmp_path / "data")
    with running_daemon(tmp_path / "place", datasets={"data": data}) as daemon:
        daemon.sealed("data", 1)
        there = tmp_path / "there"
        folder = daemon.place.folder
        if verb == "move":
            daemon.call("intend", name="data", moving_to=str(there))
        else:
            daemon.call("intend", name="data", renaming_to="named")
        daemon.kill()
        if verb == "move":
            data.rename(there)
            daemon.place.register("data", there)
        else:
            (folder / "data.toml").rename(folder / "named.toml")
        daemon.start()
        name, version, reason = ("data", 2, "moved") if verb == "move" else ("named", 1, "first")
        eventually(lambda: daemon.status()["datasets"], 10, "it is taken in")
        daemon.sealed(name, version)
        assert log(daemon, name)[0] == (version, reason)
        assert log(daemon, name)[-1] == (1, "first")


def test_pruned_while_it_watches(tmp_path: Path) -> None:
    """The command asks the daemon, which goes on; what is forgotten is told by log, status and diff."""
    data = make_data(tmp_path / "data")
    with running_daemon(tmp_path / "place", datasets={"data": data}, store={"keep_daily_days": 5}) as daemon:
        for number in range(1, 5):
            daemon.sealed("data", number)
            (data / "part-0.csv").write_text(f"content {number}")
        daemon.sealed("data", 5)
        daemon.terminate()
        with closing(sqlite3.connect(daemon.place.state / "datasets" / "data.sqlite")) as db, db:
            db.execute("UPDATE mark SET sealed_ns = sealed_ns - ? WHERE seq < 4", (40 * DAY,))
        daemon.start()
        eventually(lambda: daemon.status()["datasets"], 10, "it is taken in")
        daemon.sealed("data", 5)
        report = daemon.call("prune", name=None, dry_run=True)["datasets"][0]
        assert report["pruned"] == [1, 2]
        assert "2 versions forgotten" in done(daemon, "prune")
        history = eventually(lambda: daemon.dataset("data")["history"], 10, "history is counted")
        assert (history["versions"], history["pruned"]) == (3, 2)
        assert history["pruned_at"] is not None
        assert history["next_prune_at"] > history["pruned_at"]
        daemon.wait_event("dataset.pruned", dataset="data", versions=2, kept=3)
        done(daemon, "diff", "data@1", "data@5", code=5)
        done(daemon, "diff", "data@3", "data@5", code=1)
        (data / "part-0.csv").write_text("still watched")
        shown = daemon.sealed("data", 6)
        assert shown["digest"] == dt1(data)
        assert eventually(lambda: daemon.dataset("data")["history"]["versions"] == 4, 10, "the new one is counted")

        daemon.terminate()
        with closing(sqlite3.connect(daemon.place.state / "datasets" / "data.sqlite")) as db, db:
            db.execute("UPDATE mark SET sealed_ns = sealed_ns - ? WHERE seq < 6", (40 * DAY,))
            db.execute("UPDATE meta SET value = CAST('1' AS BLOB) WHERE key = 'pruned_ns'")
        daemon.program = ("-c", EAGER)
        daemon.start()
        daemon.wait_event("dataset.pruned", dataset="data", versions=2, kept=2)  # by itself: it was due
