"""prune, dataset move and rename, and the screens of log and diff where there is much to tell."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from history_store import DAY, HistoryStore
from scripted_daemon import Done, ScriptedDaemon
from terminal import seen_on

from reprod.cli.tree import build_parser
from reprod.config import load
from reprod.daemon.attention import _dataset_needs
from reprod.store import registry

Run = Callable[..., Done]

RELOADED: dict[str, Any] = {"added": [], "removed": [], "changed": [], "misconfigured": [], "restart_needed": []}


@pytest.fixture
def store(home: Path) -> Iterator[HistoryStore]:
    """STATE with five versions of one dataset, twenty days old and younger, and a configuration that has it."""
    found = HistoryStore(home)
    now = time.time_ns()
    for age, content in ((20, 1), (20, 2), (19, 3), (1, 4), (0, 5)):
        found.seal(now - age * DAY + content, a=content + 10, b=7, **{f"n{content}": content})
    register(home, "data", home / "data")
    yield found
    found.close()


def register(home: Path, name: str, path: Path) -> Path:
    file = home / "etc" / "datasets.d" / f"{name}.toml"
    file.write_text(f'# mine\n  path = "{path}"  # here\nexclude = ["*.tmp"]\n')
    return file


@pytest.mark.parametrize("command", [("prune",), ("dataset", "move"), ("dataset", "rename")], ids=" ".join)
def test_help_ends_with_an_example(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """As that of every command."""
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args([*command, "--help"])
    assert caught.value.code == 0
    assert f"\n  reprod {' '.join(command)} " in capsys.readouterr().out.rpartition("example")[2]


class TestPrune:
    def test_dry_run_says_what_would_go(self, store: HistoryStore, reprod: Run) -> None:
        """Without a daemon too; nothing is changed by it."""
        done = reprod("prune", "--dry-run")
        assert done.code == 0
        assert (
            done.out.splitlines()[0]
            == "data  1 version would be forgotten, 4 kept (1 the newest, 2 recent, 1 one a day)"
        )
        assert "@1" in done.out
        assert reprod("prune", "data", "--dry-run", "--json").json["datasets"][0]["pruned"] == [1]

    def test_it_forgets(self, store: HistoryStore, reprod: Run) -> None:
        """Then log shows it as forgotten, and it cannot be compared any more: 5, with what to look at."""
        assert "1 version forgotten" in reprod("prune").out
        assert "0 versions forgotten" in reprod("prune").out
        last = reprod("log", "data").out.splitlines()[-1]
        assert last.startswith("@1 ")
        assert last.endswith("first → forgotten")
        done = reprod("diff", "data@1", "data@5")
        assert (done.code, done.out) == (5, "")
        assert "hint: reprod log data" in done.err

    def test_the_configuration_counts(self, store: HistoryStore, home: Path, reprod: Run) -> None:
        """[store] of reprod.toml is what a command without a daemon goes by."""
        (home / "etc" / "reprod.toml").write_text("[store]\nkeep_days = 0\nkeep_daily_days = 0\n")
        store.run("r", data=2)
        kept = reprod("prune", "--json").json["datasets"][0]
        assert (kept["pruned"], kept["kept"]["run"]) == ([1, 3], 1)

    @pytest.mark.parametrize("line", ["keep_days = -1", 'keep_daily_days = "90"', "max_gb = true", "keep_years = 1"])
    def test_a_wrong_value_is_named(self, store: HistoryStore, home: Path, reprod: Run, line: str) -> None:
        """78, with file, line and key, before anything is forgotten."""
        (home / "etc" / "reprod.toml").write_text(f"[store]\n{line}\n")
        done = reprod("prune")
        assert (done.code, done.out) == (78, "")
        assert f"reprod.toml:2: [store] {'unknown key' if 'years' in line else line.split(maxsplit=1)[0]}" in done.err
        assert store.opened["data"].read(lambda c: c.execute("SELECT sum(pruned) FROM version").fetchone()[0]) == 0

    def test_a_live_daemon_is_asked(self, daemon: ScriptedDaemon, reprod: Run) -> None:
        """It owns the files; its refusals are the command's."""
        report = {
            "name": "x", "dry_run": False, "pruned": list(range(1, 15)), "kept": {"newest": 1}, "kept_versions": 1,
            "bytes_before": 4096, "bytes": 2048, "over_bytes": 100,
        }  # fmt: skip
        daemon.says("prune", datasets=[report])
        done = reprod("prune", "x")
        assert daemon.calls[-1] == ("prune", {"name": "x", "dry_run": False})
        assert "and 4 more" in done.out
        assert "over max_gb" in done.out
        daemon.refuses("prune", 4, "nothing is kept of a dataset named 'y'")
        assert reprod("prune", "y").code == 4

    def test_where_nothing_ever_ran(self, home: Path, reprod: Run) -> None:
        """All is nothing, one by name is an error, and no state is made by asking."""
        assert reprod("prune").code == 0
        assert reprod("prune", "x").code == 4
        assert list((home / "state").iterdir()) == []


class TestMove:
    def test_only_the_path_changes(self, store: HistoryStore, home: Path, reprod: Run) -> None:
        """Comments and all else in the file stay; without a daemon the registry follows at once."""
        file = home / "etc" / "datasets.d" / "data.toml"
        (home / "new place").mkdir()
        done = reprod("dataset", "move", "data", str(home / "new place"))
        assert (done.code, done.err) == (0, "")
        assert file.read_text() == f'# mine\n  path = "{home}/new place"  # here\nexclude = ["*.tmp"]\n'
        known = store.records.read(lambda c: registry.dataset(c, "data"))
        assert known is not None
        assert (known.root, known.file, known.moving_to) == (str(home / "new place").encode(), "data.sqlite", None)
        assert "no daemon is running" in done.out

    @pytest.mark.parametrize(
        ("argv", "code"),
        [
            (("nope", "{home}/new"), 4),
            (("data", "{home}/data"), 2),
            (("data", "{home}/data/."), 2),
            (("data", "{home}/other"), 2),
            (("data", "{home}/state"), 2),
            (("data", "{home}/file"), 2),
            (("data", "{home}/missing"), 6),
        ],
    )
    def test_what_is_refused_leaves_nothing(
        self, store: HistoryStore, home: Path, reprod: Run, argv: tuple[str, str], code: int
    ) -> None:
        """The same place, another dataset's, reprod's own state, a file for a folder, nothing at all."""
        for name in ("new", "other"):
            (home / name).mkdir()
        (home / "file").write_text("x")
        register(home, "other", home / "other")
        before = (home / "etc" / "datasets.d" / "data.toml").read_text()
        done = reprod("dataset", "move", *(part.format(home=home) for part in argv))
        assert (done.code, done.out) == (code, "")
        assert "hint: " in done.err
        assert (home / "etc" / "datasets.d" / "data.toml").read_text() == before
        known = store.records.read(lambda c: registry.dataset(c, "data"))
        assert known is not None
        assert (known.root, known.moving_to) == (str(home / "data").encode(), None)

    def test_a_path_that_is_not_one_line_is_left_alone(self, store: HistoryStore, home: Path, reprod: Run) -> None:
        """Rather refuse than change the wrong line."""
        file = home / "etc" / "datasets.d" / "data.toml"
        file.write_text(f'path = """\\\n{home}/data"""\nexclude = ["path = \\"x\\""]\n')
        (home / "new").mkdir()
        before = file.read_text()
        assert reprod("dataset", "move", "data", str(home / "new")).code == 78
        assert file.read_text() == before

    def test_the_daemon_hears_of_it_first(self, daemon: ScriptedDaemon, home: Path, reprod: Run) -> None:
        """The intent goes before the file, so that whoever reads the file next knows; then it reads again."""
        for name in ("data", "new"):
            (home / name).mkdir()
        register(home, "data", home / "data")
        daemon.says("intend", known=True)
        daemon.says("reload", **RELOADED)
        assert reprod("dataset", "move", "data", str(home / "new")).code == 0
        intent = {"name": "data", "moving_to": str(home / "new")}
        assert daemon.calls[-2:] == [("intend", intent), ("reload", {})]

    def test_a_refused_reload_is_taken_back(self, daemon: ScriptedDaemon, home: Path, reprod: Run) -> None:
        """File and intent are as they were."""
        for name in ("data", "new"):
            (home / name).mkdir()
        file = register(home, "data", home / "data")
        before = file.read_text()
        daemon.says("intend", known=True)
        daemon.refuses("reload", 78, "reprod.toml is wrong")
        assert reprod("dataset", "move", "data", str(home / "new")).code == 78
        assert file.read_text() == before
        assert daemon.calls[-1] == ("intend", {"name": "data"})


class TestRename:
    def test_the_file_and_the_history_follow(self, store: HistoryStore, home: Path, reprod: Run) -> None:
        """The old name is no dataset any more, and whoever asks for it is told the new one."""
        assert reprod("dataset", "rename", "data", "named").code == 0
        assert [item.name for item in load().datasets] == ["named"]
        assert reprod("log", "named").out.count("\n") == 6
        done = reprod("log", "data")
        assert (done.code, "named" in done.err) == (4, True)

    @pytest.mark.parametrize(
        ("argv", "code"),
        [
            (("nope", "x"), 4),
            (("data", "data"), 2),
            (("data", "other"), 2),
            (("data", "removed"), 2),
            (("data", "a/b"), 2),
            (("data", ".hidden"), 2),
            (("data", ""), 2),
        ],
    )
    def test_what_is_refused_leaves_nothing(
        self, store: HistoryStore, home: Path, reprod: Run, argv: tuple[str, str], code: int
    ) -> None:
        """A taken name, that of a history that was kept, and what is no name."""
        (home / "other").mkdir()
        register(home, "other", home / "other")
        store.open("removed")
        store.records.write(lambda c: registry.remove(c, "removed", 1))
        done = reprod("dataset", "rename", *argv)
        assert (done.code, done.out) == (code, "")
        assert sorted(p.name for p in (home / "etc" / "datasets.d").iterdir()) == ["data.toml", "other.toml"]
        known = store.records.read(lambda c: registry.dataset(c, "data"))
        assert known is not None
        assert known.renaming_to is None


class TestScreens:
    def test_log_tells_roots_apart_and_ends_somewhere(self, store: HistoryStore, home: Path, reprod: Run) -> None:
        """Another root begins below a line that says so; a terminal gets the newest fifty versions, a pipe all."""
        store.open("data", root="elsewhere")
        now = time.time_ns()
        for i in range(48):
            store.seal(now + i, a=100 + i)
        lines = reprod("log", "data").out.splitlines()
        assert f"before, at another root: {home}/data (nothing is compared across)" in lines
        assert len(lines) == 1 + 53 + 1
        lines = seen_on(["log", "data"], 400).text.strip().splitlines()
        assert f"before, at another root: {home}/data (nothing is compared across)" in lines
        assert lines[-1] == "and 3 more versions (in a pipe or with --json all)"
        assert len(lines) == 1 + 50 + 1 + 1
        assert len(reprod("log", "data", "--json").json["versions"]) == 53

    def test_diff_ends_somewhere(self, store: HistoryStore, reprod: Run) -> None:
        """Fifty of a kind on a terminal, all of them in a pipe and for a program."""
        store.seal(time.time_ns(), **{f"new{i:03}": i + 30 for i in range(60)})
        done = reprod("diff", "data@5", "data@6")
        assert (done.code, done.out.count("\n  A  new")) == (1, 60)
        assert "more" not in done.out
        text = seen_on(["diff", "data@5", "data@6"], 100).text
        assert text.count("\n  A  new") == 50
        assert "\n  and 10 more added (in a pipe or with --json all)\n" in text
        assert len(reprod("diff", "data@5", "data@6", "--json").json["added"]) == 60

    def test_diff_of_different_roots_is_refused(self, store: HistoryStore, reprod: Run) -> None:
        """2, with both roots."""
        store.open("data", root="elsewhere")
        seq = store.seal(time.time_ns(), a=1).seq
        done = reprod("diff", "data@5", f"data@{seq}")
        assert done.code == 2
        assert "elsewhere" in done.err

    def test_diff_of_manifest_files(self, home: Path, reprod: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """By path, or by a usual name here; one that is damaged is 65."""
        monkeypatch.chdir(home)
        (home / "A.sums").write_text(f"{'a' * 64}  one\n{'b' * 64}  two\n")
        (home / "SHA256SUMS").write_text(f"{'a' * 64}  one\n{'c' * 64}  two\n{'b' * 64}  old two\n")
        done = reprod("diff", "./A.sums", "SHA256SUMS")
        assert done.code == 1
        assert "M  two" in done.out
        assert reprod("diff", "./A.sums", "./A.sums").code == 0
        assert reprod("diff", "./A.sums").code == 2
        (home / "bad.json").write_text("{")
        assert reprod("diff", "./A.sums", "bad.json").code == 65


class TestNothingThere:
    @pytest.mark.parametrize(
        "argv", [("dataset", "add", "x", ""), ("dataset", "move", "data", "")], ids=lambda argv: argv[1]
    )
    def test_an_empty_path_is_not_the_current_folder(
        self, store: HistoryStore, home: Path, reprod: Run, argv: tuple[str, ...]
    ) -> None:
        """As an unset shell variable gives it: a usage error, and nothing is changed."""
        before = (home / "etc" / "datasets.d" / "data.toml").read_text()
        done = reprod(*argv)
        assert (done.code, done.out) == (2, "")
        assert "the path is empty" in done.err
        assert [p.name for p in (home / "etc" / "datasets.d").iterdir()] == ["data.toml"]
        assert (home / "etc" / "datasets.d" / "data.toml").read_text() == before

    def test_an_empty_name_is_not_all(self, store: HistoryStore, reprod: Run) -> None:
        """It is a dataset that nobody knows."""
        assert reprod("prune", "").code == 4
        done = reprod("status", "")
        assert done.code == 3
        assert "data" not in done.out
        assert store.opened["data"].read(lambda c: c.execute("SELECT sum(pruned) FROM version").fetchone()[0]) == 0

    @pytest.mark.parametrize(
        "argv",
        [("prune",), ("prune", "--dry-run"), ("log", "data"), ("diff", "data"), ("dataset", "move", "data", "{}")],
    )
    def test_a_state_that_may_not_be_entered(
        self, home: Path, reprod: Run, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...]
    ) -> None:
        """77, as for what may not be read; a name that is too long fails for root as a permission does for others."""
        (home / "data").mkdir()
        (home / "new").mkdir()
        register(home, "data", home / "data")
        monkeypatch.setenv("REPROD_STATE_DIR", str(home / ("x" * 300)))
        monkeypatch.setenv("REPROD_SOCKET", str(home / "socket"))
        done = reprod(*(part.format(home / "new") for part in argv))
        assert (done.code, done.out) == (77, "")
        assert "hint: " in done.err

    def test_status_of_a_state_that_may_not_be_entered(
        self, home: Path, reprod: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No daemon answers, and why nothing is known is said too."""
        monkeypatch.setenv("REPROD_STATE_DIR", str(home / ("x" * 300)))
        monkeypatch.setenv("REPROD_SOCKET", str(home / "socket"))
        done = reprod("status")
        assert done.code == 3
        assert "registry.sqlite" in done.err

    @pytest.mark.parametrize(
        "argv", [("log", "young"), ("diff", "young"), ("diff", "data@1", "young"), ("prune", "young")]
    )
    @pytest.mark.parametrize("recorded", [True, False], ids=["others are", "nothing is"])
    def test_a_dataset_that_waits_for_its_first_scan(
        self, store: HistoryStore, home: Path, reprod: Run, argv: tuple[str, ...], *, recorded: bool
    ) -> None:
        """It is registered, so it is not unknown."""
        if not recorded and "data@1" not in argv:
            store.close()
            for path in (home / "state").glob("registry*"):
                path.unlink()
            store.opened.clear()
        (home / "young").mkdir()
        register(home, "young", home / "young")
        done = reprod(*argv)
        assert (done.code, done.out) == (4, "")
        assert "young is not scanned yet" in done.err
        assert "hint: start the daemon" in done.err
        missing = reprod(*(part.replace("young", "old") for part in argv))
        assert (missing.code, "not scanned yet" in missing.err) == (4, False)

    def test_the_name_it_has(self, store: HistoryStore, reprod: Run) -> None:
        """Nobody is told to remove a dataset that was to be renamed to its own name."""
        done = reprod("dataset", "rename", "data", "data")
        assert (done.code, done.out) == (2, "")
        assert "data is called that already" in done.err
        assert "remove" not in done.err


def test_status_of_one_says_how_long_versions_are_kept(daemon: ScriptedDaemon, reprod: Run) -> None:
    """The daemon's own values; nothing where it does not tell them."""
    known = {"name": "x", "state": "current", "path": "/x"}
    daemon.says("status", datasets=[known], store={"keep_days": 7, "keep_daily_days": 90, "max_gb": 2.5})
    assert (
        "kept      all of 7 days, one a day for 90 days, what runs used for ever · max_gb 2.5"
        in reprod("status", "x").out
    )
    daemon.says("status", datasets=[known], store={"keep_days": 0.5, "keep_daily_days": 90, "max_gb": 0})
    assert "all of 0.5 days, one a day for 90 days, what runs used for ever\n" in reprod("status", "x").out
    daemon.says("status", datasets=[known])
    assert "kept" not in reprod("status", "x").out


@pytest.mark.parametrize(
    ("count", "told"), [(12, "12 B"), (1500, "1.5 KiB"), (13_300_000, "12.7 MiB"), (2_500_000_000, "2.3 GiB")]
)
def test_over_the_cap_by_a_size_that_can_be_read(count: int, told: str) -> None:
    """A database that is over max_gb by megabytes is not over it by 0.0 GB."""
    shown = {"name": "x", "problems": [], "state": "current", "watch": "none", "watch_reason": None}
    needs = _dataset_needs({**shown, "history": {"over_bytes": count}})
    assert [need["what"] for need in needs] == [f"the database of x is {told} over max_gb"]
