"""The other commands: what they ask, what they print, how they end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from scripted_daemon import Done, ScriptedDaemon, dataset_row, status_answer
from waiting import eventually

import reprod.ops
from reprod.cli.tree import build_parser
from reprod.errors import NotFoundError

Run = Callable[..., Done]

RELOADED: dict[str, Any] = {"added": [], "removed": [], "changed": [], "misconfigured": [], "restart_needed": []}


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[Any, ...]]]:
    """Stand in for one function of reprod.ops, whose own tests are elsewhere; return the calls it gets."""

    def install(module: str, function: str, answer: Any) -> list[tuple[Any, ...]]:
        calls: list[tuple[Any, ...]] = []

        def stand_in(*args: Any) -> Any:
            calls.append(args)
            if isinstance(answer, Exception):
                raise answer
            return answer

        made = ModuleType(f"reprod.ops.{module}")
        setattr(made, function, stand_in)
        monkeypatch.setitem(sys.modules, f"reprod.ops.{module}", made)
        monkeypatch.setattr(reprod.ops, module, made, raising=False)
        return calls

    return install


def commands() -> list[tuple[str, ...]]:
    """Every command, and every command of a group."""
    names = ("daemon", "status", "dataset", "scan", "snapshot", "log", "diff", "verify", "reload", "demo")
    return [(name,) for name in names] + [("dataset", name) for name in ("add", "remove", "list")] + [()]


class TestTree:
    @pytest.mark.parametrize("command", commands(), ids=" ".join)
    def test_every_help_has_an_example(self, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
        """--help of each command exits 0 and ends with an example that starts with ``reprod``."""
        with pytest.raises(SystemExit) as caught:
            build_parser().parse_args([*command, "--help"])
        assert caught.value.code == 0
        tail = capsys.readouterr().out.rpartition("example")[2]
        assert "\n  reprod " in tail

    @pytest.mark.parametrize(
        "argv",
        [
            [],
            ["nonsense"],
            ["dataset"],
            ["status", "--nonsense"],
            ["dataset", "add", "x"],
            ["verify", "x", "--quick", "--full"],
            ["demo", "--port", "x"],
        ],
    )
    def test_wrong_use_is_2(self, argv: list[str], reprod_process: Run) -> None:
        """Wrong use exits 2, says so on standard error and leaves standard output empty."""
        done = reprod_process(*argv)
        assert (done.code, done.out) == (2, "")
        assert "usage:" in done.err

    def test_config_is_global(self) -> None:
        """--config is taken before and after the command."""
        assert build_parser().parse_args(["--config", "f", "status"]).config == "f"
        assert build_parser().parse_args(["status", "--config", "f"]).config == "f"
        assert build_parser().parse_args(["status"]).config is None

    def test_the_demo_is_reserved(self) -> None:
        """The demo's flags are what its module reads."""
        args = build_parser().parse_args(["demo", "--keep", "--port", "5001"])
        assert (args.run, args.keep, args.port) == ("demo:run", True, 5001)

    def test_version(self, reprod_process: Run) -> None:
        """--version is one line."""
        assert reprod_process("--version").out == "reprod 0.1.0\n"


class TestEndings:
    def test_a_bug_is_70_with_its_place(
        self, daemon: ScriptedDaemon, reprod: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An unexpected exception is one line with its place; REPROD_DEBUG=1 adds the traceback."""
        daemon.says("status", datasets=7)
        done = reprod("status")
        assert done.code == 70
        assert done.err.startswith("error: a bug in reprod: TypeError: ")
        assert "reprod/cli/status" in done.err
        assert "REPROD_DEBUG=1" in done.err
        assert "Traceback" not in done.err
        monkeypatch.setenv("REPROD_DEBUG", "1")
        assert "Traceback" in reprod("status").err

    def test_a_reader_that_goes_away(self, daemon: ScriptedDaemon) -> None:
        """``reprod ... | head -1`` ends without a word."""
        rows = [dataset_row(f"d{i}") for i in range(5000)]
        daemon.says("status", **status_answer(*rows))
        process = subprocess.Popen(
            [sys.executable, "-m", "reprod", "status"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stderr is not None
        assert "reprod 0.1.0" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        process.stderr.close()
        assert process.wait(30) == 141

    def test_ctrl_c_is_130(self, daemon: ScriptedDaemon) -> None:
        """An interrupt during a long answer ends with 130 and no traceback."""

        def never(_params: dict[str, Any]) -> dict[str, Any]:
            time.sleep(60)  # longer than the test; the thread is a daemon's
            return {}

        daemon.answers["scan"] = never
        process = subprocess.Popen(
            [sys.executable, "-m", "reprod", "scan"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        eventually(lambda: "scan" in [method for method, _ in daemon.calls], 20, "it asks")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (130, "", "")

    def test_no_daemon_is_3(self, home: Path, reprod: Run) -> None:
        """Commands that need a live daemon say so with 3."""
        for argv in (["scan"], ["snapshot", "x"], ["reload"]):
            done = reprod(*argv)
            assert (done.code, done.out) == (3, "")
            assert done.err.endswith("hint: start it: reprod daemon\n")

    def test_a_terminal_that_knows_ascii_only(self, daemon: ScriptedDaemon, reprod_process: Run) -> None:
        """Where the encoding lacks a character the output is escaped, not an error."""
        daemon.says("status", **status_answer(dataset_row("x", reason="ünavailable 日本")))
        done = reprod_process("status", PYTHONIOENCODING="ascii", LANG="C")
        assert done.code == 0
        assert done.out.isascii()
        assert "\\xfcnavailable" in done.out


class TestScan:
    ROW: ClassVar[dict[str, Any]] = {
        "name": "x",
        "version": 7,
        "digest": "dt1:" + "a" * 64,
        "complete": True,
        "changed": True,
        "files": 18,
        "bytes": 2048,
        "added": 2,
        "modified": 1,
        "removed": 3,
        "hashed_files": 3,
        "hashed_bytes": 1024,
        "seconds": 0.5,
        "problems": [],
        "problem_count": 0,
    }

    def test_what_it_asks_and_says(self, daemon: ScriptedDaemon, reprod: Run) -> None:
        """The flags reach the daemon; the result is what changed, what was hashed and how long it took."""
        daemon.progress = [{"dataset": "x", "phase": "hashing", "files": 1, "bytes": 10}]
        daemon.says("scan", datasets=[self.ROW])
        done = reprod("scan", "x", "--full", "--accept-root")
        assert daemon.calls[-1] == ("scan", {"name": "x", "full": True, "accept_root": True})
        assert done.code == 0
        assert done.out == "x  @7  dt1:aaaaaaaaaaaa  +2 −3 ~1   18 files, 2.0 KiB\n  hashed 3 files, 1.0 KiB in 0.5 s\n"
        assert done.err == ""

    def test_incomplete_is_5(self, daemon: ScriptedDaemon, reprod: Run) -> None:
        """What could not be read is named, with 5; --json is one object with everything."""
        bad = {
            **self.ROW,
            "complete": False,
            "digest": None,
            "changed": False,
            "problem_count": 30,
            "problems": [{"path": "a\nb", "problem": "Permission denied"}],
        }
        daemon.says("scan", datasets=[self.ROW, bad])
        done = reprod("scan")
        assert done.code == 5
        assert "no digest  unchanged" in done.out
        assert "  a\\nb: Permission denied\n  and 29 more problems (--json lists them)\n" in done.out
        done = reprod("scan", "--json")
        assert done.code == 5
        assert done.json["schema"] == "reprod.scan/1"
        assert done.json["datasets"][1]["problems"][0]["path"] == "a\nb"

    def test_one_that_could_not_run(self, daemon: ScriptedDaemon, reprod: Run) -> None:
        """Of several, one that was not scanned is said with its reason and its code; the others are shown."""
        gone = {"name": "y", "error": "/mnt/y is not mounted", "complete": False}
        daemon.says("scan", datasets=[self.ROW, gone])
        done = reprod("scan")
        assert done.code == 5
        assert "y  not scanned: /mnt/y is not mounted\n" in done.out
        daemon.says("scan", datasets=[self.ROW, {**gone, "exit_code": 6}])
        assert reprod("scan").code == 6

    def test_accept_root_is_for_one(self, daemon: ScriptedDaemon, reprod: Run) -> None:
        """Accepting another root for all datasets at once is refused."""
        daemon.says("scan", datasets=[])
        assert reprod("scan", "--accept-root").code == 2
        assert "no dataset" in reprod("scan").out

    def test_unavailable_is_6(self, daemon: ScriptedDaemon, reprod: Run) -> None:
        """The daemon's refusal keeps its code."""
        daemon.refuses("scan", 6, "/mnt/x is not mounted")
        assert reprod("scan", "x").code == 6


class TestSnapshot:
    def test_for_a_run(self, daemon: ScriptedDaemon, reprod: Run) -> None:
        """The run reaches the daemon, the whole digest and the waiting delivery are said."""
        answer = {
            "name": "x",
            "version": 7,
            "digest": "dt1:" + "a" * 64,
            "complete": True,
            "files": 18,
            "bytes": 2048,
            "assurance": "walk",
            "sealed_at": "2026-11-23T05:00:00Z",
            "run_id": "abc",
            "delivery": "waiting",
        }
        daemon.says("snapshot", **answer)
        done = reprod("snapshot", "x", "--run", "abc")
        assert daemon.calls[-1] == ("snapshot", {"name": "x", "run_id": "abc"})
        assert done.code == 0
        assert "dt1:" + "a" * 64 in done.out
        assert "for run abc (waiting for the tracking server)" in done.out
        daemon.says("snapshot", **{**answer, "complete": False, "digest": None})
        assert reprod("snapshot", "x").code == 5
        assert reprod("snapshot", "x", "--json").json["digest"] is None


class TestReload:
    def test_what_changed(self, daemon: ScriptedDaemon, reprod: Run) -> None:
        """Added, removed and changed datasets and keys that need a restart are said."""
        daemon.says(
            "reload", **{**RELOADED, "added": ["a"], "changed": ["b", "c"], "restart_needed": ["watch.backend"]}
        )
        done = reprod("reload")
        assert done.code == 0
        assert done.out.startswith("reloaded: added a; changed b, c\n")
        assert "watch.backend" in done.out
        daemon.says("reload", **RELOADED)
        assert reprod("reload").out == "reloaded: nothing changed\n"

    def test_a_wrong_file_fails_visibly(self, daemon: ScriptedDaemon, reprod: Run) -> None:
        """A misconfigured dataset and a refused reprod.toml are both 78, so that systemctl reload fails."""
        wrong = {"name": "x", "file": "/x.toml", "message": "x.toml:1: unknown key 'a'", "hint": "did you mean path?"}
        daemon.says("reload", **{**RELOADED, "misconfigured": [wrong]})
        done = reprod("reload")
        assert done.code == 78
        assert "error: x.toml:1: unknown key 'a'\nhint: did you mean path?\n" in done.err
        daemon.refuses("reload", 78, "reprod.toml:3: poll_seconds = 0")
        assert reprod("reload").code == 78


class TestDataset:
    def test_add(self, daemon: ScriptedDaemon, reprod: Run) -> None:
        """The file is written where the daemon reads, the daemon reloads, the exclude line is shown."""
        data = daemon.home / "data"
        data.mkdir()
        daemon.says("reload", **{**RELOADED, "added": ["x"]})
        done = reprod("dataset", "add", "x", str(data), "--include", "*.csv", "*.json", "--algorithm", "md5")
        assert done.code == 0
        file = daemon.home / "etc" / "datasets.d" / "x.toml"
        assert 'include = ["*.csv", "*.json"]' in file.read_text()
        assert 'exclude = [".snapshot/", ".zfs/", ".nfs*", "lost+found/"]' in done.out
        assert f"added x: {data}" in done.out
        assert [method for method, _ in daemon.calls] == ["hello", "look", "reload", "outlook"]

    def test_add_where_the_daemon_reads(
        self, daemon: ScriptedDaemon, reprod: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The daemon's own folder counts, not this account's; an explicit other --config is said not to be read."""
        (daemon.home / "data").mkdir()
        monkeypatch.setenv("REPROD_CONFIG", str(daemon.home / "elsewhere" / "reprod.toml"))
        daemon.says("reload", **RELOADED)
        assert reprod("dataset", "add", "x", str(daemon.home / "data")).code == 0
        assert (daemon.home / "etc" / "datasets.d" / "x.toml").exists()
        other = daemon.home / "other.toml"
        other.write_text("")
        daemon.calls.clear()
        done = reprod("--config", str(other), "dataset", "add", "y", str(daemon.home / "data"))
        assert (daemon.home / "datasets.d" / "y.toml").exists()
        assert "will not see this" in done.out
        assert [method for method, _ in daemon.calls] == ["hello"]

    def test_a_refused_file_is_taken_back(self, daemon: ScriptedDaemon, reprod: Run) -> None:
        """If reload fails, or the daemon cannot use the dataset, nothing is left behind."""
        (daemon.home / "data").mkdir()
        file = daemon.home / "etc" / "datasets.d" / "x.toml"
        daemon.refuses("reload", 78, "reprod.toml:3: poll_seconds = 0: expected seconds")
        done = reprod("dataset", "add", "x", str(daemon.home / "data"))
        assert (done.code, file.exists()) == (78, False)
        wrong = {"name": "x", "file": str(file), "message": "cannot read it", "hint": "chmod"}
        daemon.says("reload", **{**RELOADED, "misconfigured": [wrong]})
        done = reprod("dataset", "add", "x", str(daemon.home / "data"))
        assert (done.code, file.exists()) == (78, False)
        assert done.err == "error: cannot read it\nhint: chmod\n"
        assert [method for method, _ in daemon.calls][-2:] == ["reload", "reload"]

    def test_another_wrong_file_does_not_matter(self, daemon: ScriptedDaemon, reprod: Run) -> None:
        """A dataset that was misconfigured before does not stop a new one."""
        (daemon.home / "data").mkdir()
        daemon.says("reload", **{**RELOADED, "misconfigured": [{"name": "old", "file": "", "message": "", "hint": ""}]})
        assert reprod("dataset", "add", "x", str(daemon.home / "data")).code == 0

    def test_without_a_daemon(self, home: Path, reprod: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is written all the same, a bad MLFLOW_TRACKING_URI has no say, and nobody is said to watch."""
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
        monkeypatch.chdir(home)
        (home / "data" / "inner").mkdir(parents=True)
        done = reprod("dataset", "add", "x", "data")
        assert done.code == 0
        assert "no daemon is running" in done.out
        done = reprod("dataset", "add", "y", "data/inner")
        assert "it is inside dataset x" in done.out
        listed = reprod("dataset", "list")
        assert str(home / "data" / "inner") in listed.out
        value = reprod("dataset", "list", "--json").json
        assert value["schema"] == "reprod.dataset-list/1"
        assert [(row["name"], row["path"]) for row in value["datasets"]] == [
            ("x", str(home / "data")),
            ("y", str(home / "data" / "inner")),
        ]

    def test_bad_input(self, home: Path, reprod: Run) -> None:
        """Missing root 6, taken name and inside STATE 2, unknown name 4: each one line and one hint."""
        (home / "data").mkdir()
        assert reprod("dataset", "add", "x", str(home / "data")).code == 0
        for argv, code in (
            (["add", "x", str(home / "data")], 2),
            (["add", "y", str(home / "nowhere")], 6),
            (["add", "y", str(home / "state")], 2),
            (["add", "y/z", str(home / "data")], 2),
            (["remove", "z"], 4),
        ):
            done = reprod("dataset", *argv)
            assert (done.code, done.out) == (code, ""), argv
            error, hint = done.err.splitlines()
            assert error.startswith("error: ")
            assert hint.startswith("hint: ")
        assert os.listdir(home / "etc" / "datasets.d") == ["x.toml"]

    def test_remove(self, daemon: ScriptedDaemon, reprod: Run) -> None:
        """The file goes, the daemon reloads, history stays; --purge asks the daemon, also for one removed before."""
        file = daemon.home / "etc" / "datasets.d" / "x.toml"
        file.write_text('path = "/d"\n')
        daemon.says("reload", **{**RELOADED, "removed": ["x"]})
        daemon.says("purge")
        done = reprod("dataset", "remove", "x")
        assert done.code == 0
        assert not file.exists()
        assert "history is kept" in done.out
        assert ("purge", {"name": "x"}) not in daemon.calls
        assert reprod("dataset", "remove", "x").code == 4
        assert reprod("dataset", "remove", "x", "--purge").code == 0
        assert daemon.calls[-1] == ("purge", {"name": "x"})

    def test_purge_without_a_daemon(self, home: Path, reprod: Run, verb: Callable[..., Any]) -> None:
        """Without a daemon the verb deletes the history itself."""
        calls = verb("history", "purge", None)
        (home / "etc" / "datasets.d" / "x.toml").write_text('path = "/d"\n')
        assert reprod("dataset", "remove", "x", "--purge").code == 0
        assert calls == [(home / "state", "x")]

    def test_list_from_the_daemon(self, daemon: ScriptedDaemon, reprod: Run) -> None:
        """With a daemon the list has the states."""
        daemon.says("status", **status_answer(dataset_row("x", "unavailable")))
        done = reprod("dataset", "list")
        assert done.out == "DATASET  STATE          PATH\nx        ✗ unavailable  /data/x\n"
        assert reprod("dataset", "list", "--json").json["live"] is True


class TestHistory:
    ROWS: ClassVar[list[dict[str, Any]]] = [
        {
            "version": 2,
            "sealed_at": "2026-11-23T05:00:00Z",
            "digest": None,
            "complete": False,
            "files": 3,
            "bytes": 2048,
            "added": 1,
            "modified": 0,
            "removed": 0,
            "reason": "rescan after overflow",
            "runs": ["a" * 32] * 5,
        },
        {
            "version": 1,
            "sealed_at": "2026-11-22T05:00:00Z",
            "digest": "dt1:" + "b" * 64,
            "complete": True,
            "files": 2,
            "bytes": 1024,
            "added": 2,
            "modified": 0,
            "removed": 0,
            "reason": "first scan",
            "runs": [],
        },
    ]

    def test_log(self, home: Path, reprod: Run, verb: Callable[..., Any]) -> None:
        """One line a version with what changed and which runs used it; without a daemon, from this account's state."""
        calls = verb("history", "log", self.ROWS)
        done = reprod("log", "x")
        assert calls == [(home / "state", "x")]
        assert done.code == 0
        first, second = done.out.splitlines()[1:]
        assert first.startswith("@2 ")
        assert "+1 −0 ~0" in first
        assert "incomplete" in first
        assert first.endswith("rescan after overflow → run aaaaaaaa, aaaaaaaa and 3 more")
        assert "dt1:bbbbbbbbbbbb" in second
        assert reprod("log", "x", "--json").json == {"schema": "reprod.log/1", "name": "x", "versions": self.ROWS}

    def test_the_daemons_state_counts(self, daemon: ScriptedDaemon, reprod: Run, verb: Callable[..., Any]) -> None:
        """Where a daemon answers, its history is shown."""
        hello = daemon.answers["hello"]
        assert isinstance(hello, dict)
        hello["result"]["state"] = "/srv/state"
        calls = verb("history", "log", [])
        assert "no version yet" in reprod("log", "x").out
        assert calls == [(Path("/srv/state"), "x")]

    def test_an_unknown_dataset(self, home: Path, reprod: Run, verb: Callable[..., Any]) -> None:
        """The verb's error keeps its code."""
        verb("history", "log", NotFoundError("there is no dataset 'x'", hint="reprod dataset list"))
        assert reprod("log", "x").code == 4

    def test_diff(self, home: Path, reprod: Run, verb: Callable[..., Any]) -> None:
        """Added, modified, renamed and removed, each with its sign; exit 1; hostile names escaped."""
        same = "c" * 64
        answer = {
            "a": {"ref": "x@1", "name": "x", "version": 1, "digest": "dt1:" + "b" * 64, "complete": True},
            "b": {"ref": "x", "name": "x", "version": None, "digest": None, "complete": True},
            "added": [{"path": "?", "path_b64": "/wo=", "size": 812 * 1024}],
            "removed": [{"path": "tmp/notes\x1b.txt", "size": 1100}],
            "modified": [
                {"path": "index.json", "size_a": 1024, "size_b": 2048, "digest_a": same, "digest_b": "d" * 64}
            ],
            "renamed": [{"from": "old/b.pdf", "to": "new/b.pdf", "size": 5}],
            "summary": {"bytes": -1024},
        }
        calls = verb("diff", "diff", answer)
        done = reprod("diff", "x@1")
        assert calls[0][2:4] == ("x@1", None)
        assert done.code == 1
        assert done.out.splitlines() == [
            "x@1 dt1:bbbbbbbbbbbb → x now   1 added · 1 modified · 1 removed · 1 renamed · −1.0 KiB",
            "  A  \\xff\\n  812.0 KiB",
            "  M  index.json  1.0 KiB → 2.0 KiB  cccccccccccc → dddddddddddd",
            "  R  old/b.pdf → new/b.pdf  5 B",
            "  D  tmp/notes\\x1b.txt  1.1 KiB",
        ]
        assert reprod("diff", "x@1", "--json").json["schema"] == "reprod.diff/1"

    def test_what_cannot_be_read_now_is_5(self, home: Path, reprod: Run, verb: Callable[..., Any]) -> None:
        """A file that is unreadable now is unknown, not different; with a real difference the code is 1."""
        dark = {
            "path": "dark",
            "size_a": 5,
            "size_b": 0,
            "digest_a": "a" * 64,
            "digest_b": None,
            "problem_b": "no access",
        }
        answer = {"a": {"ref": "x@1", "version": 1}, "b": {"ref": "x", "version": None}, "modified": [dark]}
        verb("diff", "diff", answer)
        done = reprod("diff", "x@1")
        assert done.code == 5
        assert "  M  dark  no access" in done.out
        verb("diff", "diff", {**answer, "added": [{"path": "new", "size": 1}]})
        assert reprod("diff", "x@1").code == 1

    @pytest.mark.parametrize(("complete", "code"), [(True, 0), (False, 5)])
    def test_no_difference(self, home: Path, reprod: Run, verb: Callable[..., Any], complete: bool, code: int) -> None:
        """No difference is 0, unless one side is not wholly known: 5."""
        side = {"ref": "x@1", "version": 1, "digest": None, "complete": complete}
        verb("diff", "diff", {"a": side, "b": side, "added": [], "removed": [], "modified": [], "renamed": []})
        done = reprod("diff", "x@1", "x@1")
        assert done.code == code
        assert "no difference" in done.out


class TestVerify:
    FINE: ClassVar[dict[str, Any]] = {
        "ref": "x",
        "version": 41,
        "digest_expected": "dt1:" + "a" * 64,
        "digest_actual": "dt1:" + "a" * 64,
        "valid": True,
        "complete": True,
        "content_verified": True,
        "checked_files": 3,
        "bytes_hashed": 2048,
        "missing": [],
        "mismatched": [],
        "extra": [],
        "unreadable": [],
        "seconds": 1.5,
    }

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({}, 0),
            ({"content_verified": False}, 0),
            ({"valid": False, "missing": ["a"]}, 1),
            ({"valid": False, "extra": ["a"]}, 1),
            ({"valid": False}, 1),
            ({"valid": False, "complete": False, "unreadable": [{"path": "a", "problem": "EIO"}]}, 5),
            ({"valid": False, "complete": False, "missing": ["a"], "unreadable": [{"path": "b", "problem": "EIO"}]}, 1),
        ],
    )
    def test_codes(self, home: Path, reprod: Run, verb: Callable[..., Any], changes: dict[str, Any], code: int) -> None:
        """0 valid and complete, 1 differs, 5 incomplete; 1 goes before 5."""
        verb("verify", "verify", {**self.FINE, **changes})
        assert reprod("verify", "x").code == code
        assert reprod("verify", "x", "--json").code == code

    def test_what_it_asks(self, home: Path, reprod: Run, verb: Callable[..., Any]) -> None:
        """Reference, path and mode reach the verb; the default reads every byte."""
        calls = verb("verify", "verify", self.FINE)
        assert reprod("verify", "x").out == "● x@41 is what was recorded (3 files, 2.0 KiB read, 1.5 s)\n"
        reprod("verify", "run:abc", "sub/dir", "--quick")
        assert calls[0][2:5] == ("x", None, "full")
        assert calls[1][2:5] == ("run:abc", "sub/dir", "quick")

    def test_what_it_says(self, home: Path, reprod: Run, verb: Callable[..., Any]) -> None:
        """Silent corruption is named as such; every other kind has its word; unread content is said."""
        digest = "dt1:" + "b" * 64
        answer = {
            **self.FINE,
            "valid": False,
            "content_verified": False,
            "digest_actual": digest,
            "missing": ["gone", "old"],
            "extra": ["new\n", "renamed"],
            "moved": [{"from": "old", "to": "renamed"}],
            "unreadable": [{"path": "dark", "problem": "Permission denied"}],
            "mismatched": [
                {"path": "flip", "reason": "content", "expected": "c" * 64, "actual": "d" * 64, "silent": True},
                {"path": "grown", "reason": "size", "expected": 1024, "actual": 2048, "silent": False},
            ],
        }
        verb("verify", "verify", answer)
        lines = reprod("verify", "x").out.splitlines()
        assert lines[0].startswith("✗ x@41 does not match what was recorded")
        assert "  content not read: sizes and times only" in lines
        assert (
            "  modified: flip  other content behind unchanged size and times (silent corruption)  "
            "cccccccccccc → dddddddddddd" in lines
        )
        assert "  modified: grown  other size  1.0 KiB → 2.0 KiB" in lines
        assert "  missing: gone" in lines
        assert "  moved: old → renamed" in lines
        assert "  missing: old" not in lines
        assert "  not recorded: renamed" not in lines
        assert "  not recorded: new\\n" in lines
        assert "  not readable: dark  Permission denied" in lines
        assert f"  found    {digest}" in lines
        assert json.loads(reprod("verify", "x", "--json").out)["schema"] == "reprod.verify/1"
