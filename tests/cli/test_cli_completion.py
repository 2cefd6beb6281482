"""``reprod completion``: what is offered where, who knows it, in the three shells, and that it never disturbs."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from scripted_daemon import Done, ScriptedDaemon
from terminal import Terminal

from reprod.cli.completion import FILES, offer, split
from reprod.cli.tree import build_parser
from reprod.core.run import PendingRun
from reprod.store import files, outbox, registry

Run = Callable[..., Done]

RUNS = ["3508d65246f347e7", "319a7d6d05ab4e4c"]


def offered(*words: str) -> list[str]:
    return [word for word, _ in offer(words)]


@pytest.fixture
def known(daemon: ScriptedDaemon) -> ScriptedDaemon:
    """A daemon with two datasets, three versions and two runs."""

    def answer(params: dict[str, str]) -> dict[str, object]:
        words = {
            "datasets": [["images", "/data/images"], ["tables", "/data/tables"]],
            "versions": [[str(n), "then"] for n in (12, 11, 1)] if params["name"] == "tables" else [],
            "runs": [[run, "fast captured"] for run in RUNS],
        }[params["kind"]]
        return {"result": {"words": words}}

    daemon.answers["complete"] = answer
    return daemon


def test_commands_and_flags_are_the_parsers(home: Path) -> None:
    """Every command of the parser is offered with its help, and every flag of a command; nothing is written twice."""
    commands = offered("")
    assert {"status", "dataset", "runs", "retry", "completion"} <= set(commands)
    assert offered("dataset", "") == ["add", "remove", "move", "rename", "list"]
    assert {"--watch", "--check", "--json", "--help"} <= set(offered("status", "--"))
    assert set(offered("export", "tables", "--format", "")) == {"sha256sums", "json", "bagit", "croissant", "parquet"}
    assert "--format=bagit" in offered("export", "tables", "--format=b")
    assert "blake2b" in offered("manifest", ".", "--algorithm", "md5", "")
    assert dict(offer(["stat"]))["status"].startswith("show what the daemon knows")


def test_values_by_what_they_are(known: ScriptedDaemon) -> None:
    """Names, versions, runs and files, each where it can stand, and nothing where nothing can."""
    assert offered("status", "") == ["images", "tables"]
    assert offered("status", "images", "") == []
    assert offered("diff", "") == ["images", "tables", "run:", FILES]
    assert offered("diff", "tables", "tables@") == ["tables@12", "tables@11", "tables@1"]
    assert offered("verify", "run:") == [f"run:{run}" for run in RUNS]
    assert offered("retry", "") == [f"run:{run}" for run in RUNS]
    assert offered("snapshot", "tables", "--run", "") == RUNS
    assert offered("export", "tables", "--dataset", "") == ["images", "tables"]
    assert offered("dataset", "rename", "") == ["images", "tables"]
    assert offered("dataset", "rename", "tables", "") == []
    assert offered("dataset", "add", "") == []
    assert offered("dataset", "add", "new", "") == [FILES]
    assert offered("--config", "") == [FILES]
    assert offered("--config", "f", "log", "") == ["images", "tables"]
    assert offered("scan", "--full", "") == ["images", "tables"]
    assert offered("completion", "") == ["bash", "zsh", "fish"]
    assert offered("nonsense", "") == offered("")


def test_only_what_fits_is_printed(known: ScriptedDaemon, reprod: Run) -> None:
    """The answer is the words that begin as what is written, with what they are."""
    assert reprod("completion", "fish", "--", "log", "tab").out == "tables\t/data/tables\n"
    assert reprod("completion", "zsh", "--", "log", "x").out == ""
    assert reprod("completion", "zsh", "--", "status", "--wat").out.startswith("--watch\t")


@pytest.mark.parametrize(
    ("line", "out"),
    [
        ("reprod log tab", "tables"),
        ("reprod log ", "images tables"),
        ("reprod diff tables@1", "@12 @11 @1"),
        ("reprod diff run:31", "319a7d6d05ab4e4c"),
        ("reprod export tables --format=ba", "bagit"),
        ("reprod log 'tab", "tables"),
        ("reprod log tables ", ""),
    ],
)
def test_bash_splits_words_in_its_own_way(known: ScriptedDaemon, reprod: Run, line: str, out: str) -> None:
    """For bash a word begins anew after ``:`` and ``=`` and at ``@``: only what comes then is printed."""
    done = reprod("completion", "bash", "--", line, " \t\n\"'><=;|&(:@")
    assert " ".join(each.partition("\t")[0] for each in done.out.splitlines()) == out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("reprod", [""]),
        ("reprod ", [""]),
        ("reprod st", ["st"]),
        ("reprod log  x ", ["log", "x", ""]),
        ('r "a b', ["a b"]),
    ],
)
def test_splitting(line: str, words: list[str]) -> None:
    """The last word is the one that is being written, also in an open quotation."""
    assert split(line) == words


# --- who knows -------------------------------------------------------------------------------------------------------


@pytest.fixture
def registered(home: Path) -> Iterator[Path]:
    """A registry with two datasets, one of which was removed, one with a name no shell should see, and a run."""
    db = files.open_registry(home / "state").db

    def fill(c: object) -> None:
        for name in ("images", "gone", "$(evil)"):
            registry.add(c, name, b"/data/" + name.encode(), f"{name}.sqlite", 1)  # type: ignore[arg-type]
        registry.remove(c, "gone", 2)  # type: ignore[arg-type]
        for run in ("3508d652", "`evil`"):
            made = PendingRun(run, "1", "e\x1b[2J\tvil", "FINISHED", 1, 2, "images")
            outbox.notice(c, "u", run, "images", msgspec.json.encode(made), 1)  # type: ignore[arg-type]

    db.write(fill)
    yield home
    db.close()


def test_without_a_daemon_the_registry_knows(registered: Path, reprod: Run) -> None:
    """Names that a shell would act on are not offered, texts are escaped."""
    assert reprod("completion", "fish", "--", "log", "").out == "images\t/data/images\n"
    assert reprod("completion", "fish", "--", "retry", "").out == "run:3508d652\te\\x1b[2J\\tvil noticed\n"


def test_a_daemon_that_hangs_is_passed_over(registered: Path, reprod: Run) -> None:
    """Acceptance 26: somebody who listens and never answers costs a moment; then the registry is read, in silence."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(registered / "state" / "control.sock"))
        listener.listen()
        done = reprod("completion", "fish", "--", "log", "")
        assert (done.code, done.out, done.err) == (0, "images\t/data/images\n", "")


@pytest.mark.parametrize(
    "words",
    [
        ["log", ""],
        ["diff", "nothing@"],
        ["retry", ""],
        ["--nonsense", ""],
        ["log", "\udcff"],
        ["\x1b", "x"],
        ["--", ""],
        [],
    ],
)
def test_it_never_disturbs(home: Path, reprod: Run, words: list[str]) -> None:
    """Acceptance 26: without a daemon, a registry or sense: nothing on standard error, and 0."""
    done = reprod("completion", "zsh", "--", *words)
    assert (done.code, done.err) == (0, "")


def test_a_damaged_registry_is_passed_over(home: Path, reprod: Run) -> None:
    """So is what cannot be read."""
    (home / "state" / "registry.sqlite").write_bytes(b"nonsense" * 1000)
    done = reprod("completion", "zsh", "--", "log", "")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_the_scripts_name_no_command_of_reprods() -> None:
    """A new version needs no new script: all it says comes from the program."""
    from reprod.cli.completion_scripts import SCRIPTS

    commands = set(next(a for a in build_parser()._actions if a.dest == "run" or a.choices).choices or ())  # type: ignore[call-overload]
    assert set(SCRIPTS) == {"bash", "zsh", "fish"}
    for script in SCRIPTS.values():
        code = "\n".join(line for line in script.splitlines() if not line.lstrip().startswith("#"))
        assert not {word for word in commands - {"completion"} if f"reprod {word}" in code}


# --- the shells ------------------------------------------------------------------------------------------------------


@pytest.fixture
def path_to_reprod(tmp_path: Path) -> str:
    """A PATH on which ``reprod`` is this program."""
    folder = tmp_path / "bin"
    folder.mkdir()
    # A busy machine's daemon may take longer than a person waits for a completion.
    code = "import sys; from reprod.cli import completion; completion.ANSWER_S = 50; "
    code += "from reprod.__main__ import main; sys.exit(main(sys.argv[1:]))"
    (folder / "reprod").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    (folder / "reprod").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def shell(name: str, path: str, home: Path) -> Terminal:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    setup = {
        "bash": 'eval "$(reprod completion bash)"',
        "zsh": "autoload -Uz compinit; compinit -u -D; source <(reprod completion zsh)",
    }
    variables = {"PATH": path, "PS1": "> ", "HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_DATA_HOME": str(home)}
    if name == "fish":
        (home / "fish" / "completions").mkdir(parents=True)
        script = subprocess.run(["reprod", "completion", "fish"], env={**os.environ, "PATH": path}, capture_output=True)
        (home / "fish" / "completions" / "reprod.fish").write_bytes(script.stdout)
        command = ["fish", "--no-config", "--private", "-C", f"source {home}/fish/completions/reprod.fish"]
    else:
        command = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}[name]
    terminal = PlainTerminal([], 100, 40, command=command, **variables)
    if name != "fish":
        terminal.type(f"{setup[name]}; echo rea''dy\n")
        terminal.until(lambda _: "ready\r\n" in terminal.raw, "the shell is set up")
    return terminal


class PlainTerminal(Terminal):
    """A terminal whose pane nobody looks at: a shell's line editor knows more sequences than the glass does."""

    def read(self, *, last: bool = False) -> str:
        feed, self.glass.feed = self.glass.feed, lambda _text: None  # type: ignore[method-assign]
        try:
            return super().read(last=last)
        finally:
            self.glass.feed = feed  # type: ignore[method-assign]


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_in_a_real_shell(known: ScriptedDaemon, home: Path, path_to_reprod: str, name: str) -> None:
    """A person writes, presses Tab, and gets the rest: a command, a dataset, a version, a run."""
    with shell(name, path_to_reprod, home) as terminal:
        for typed, expected in (
            ("echo reprod; reprod stat\tima\t", "status images"),
            ("reprod diff tables@12\trun:31\t", "tables@12 run:319a7d6d05ab4e4c"),
            ("reprod export tables --format=ba\t", "--format=bagit"),
        ):
            for key in typed.split("\t")[:-1]:
                terminal.type(f"{key}\t")
                terminal.until(lambda _, key=key: key[-2:] in terminal.raw, "it is written")  # type: ignore[misc]
                settle(terminal)
            terminal.type("\x01#\n")  # a comment of the whole line: what stands there is shown, and not run
            plain = "".join(expected.split())
            terminal.until(lambda _, plain=plain: plain in squeezed(terminal.raw), f"{expected} in {name}")  # type: ignore[misc]


def settle(terminal: Terminal) -> None:
    """Wait until nothing has been written for a moment: Tab shows no end of its own."""
    import time

    quiet = time.monotonic()
    while time.monotonic() - quiet < 0.7:
        if terminal.read():
            quiet = time.monotonic()
        time.sleep(0.02)


def squeezed(raw: str) -> str:
    """Return what a line editor wrote, without sequences, blanks and backspaces."""
    import re

    text = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]|\x1b.|[\r\n\x07 ]", "", raw)
    while "\x08" in text:
        text = re.sub(r"[^\x08]?\x08", "", text, count=1)
    return text


def test_in_fish(known: ScriptedDaemon, home: Path, path_to_reprod: str) -> None:
    """fish tells what it would offer, without a terminal."""
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    variables = {"PATH": path_to_reprod, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_DATA_HOME": str(home)}
    for line, expected in (
        ("reprod stat", ["status"]),
        ("reprod log tab", ["tables"]),
        ("reprod diff tables@1", ["tables@1", "tables@11", "tables@12"]),
        ("reprod retry run:31", ["run:319a7d6d05ab4e4c"]),
        ("reprod status --wat", ["--watch"]),
    ):
        code = f"reprod completion fish | source; complete -C {line!r}"
        done = subprocess.run(
            ["fish", "-c", code], env={**os.environ, **variables}, capture_output=True, text=True, timeout=60
        )
        assert sorted(each.partition("\t")[0] for each in done.stdout.splitlines()) == expected, done.stderr
