"""``reprod demo``: the main job shown from end to end, with nothing faked.

A real daemon with its own MLflow server, real files and a real model (see demo_material), and the commands that a user
would type. Each step says what it does and what happened; a step that did not happen ends the demo with an exit code
other than 0 and leaves the logs. Nothing outside its folder is touched. Times are seconds.
"""

import argparse
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from reprod.cli import codes, render
from reprod.cli import demo_material as material
from reprod.cli.demo_material import CHANGED_FILE, FLIPPED_FILE, TRAINING
from reprod.cli.demo_stage import Ran, Stage, StepFailedError, own_name
from reprod.cli.main import BROKEN_PIPE
from reprod.cli.screen import Screen
from reprod.errors import ReprodError, StateError

#: Measured on two cores: captured within 0.5 s of the run's end, scanned in 0.5 s, gone in 1.2 s. The rest is for busy
#: machines.
CAPTURED_S = 45.0
SCANNED_S = 30.0
SERVER_GONE_S = 5.0

SHOWN_TAGS = ("reprod.state", "reprod.digest", "reprod.version", "reprod.bound", "reprod.assurance", "reprod.error")
SHOWN_PARAMS = ("python_version", "cpu_count", "gpu_count")


def run(args: argparse.Namespace) -> int:
    """Run the demo; return 0 if every step happened.

    Raises ConfigError (MLflow or scikit-learn is missing), UsageError or TrackingError (the port cannot be used),
    StepFailedError.
    """
    material.require_packages()
    try:
        stage = Stage(args.port)
    except OSError as error:
        raise StateError(
            f"no temporary folder can be made: {error}", hint="set TMPDIR to a folder with 100 MB of free space"
        ) from error
    before = {number: signal.signal(number, _interrupt) for number in _asked_to_end()}
    done = stopped = False
    try:
        _Demo(stage, keep=args.keep).play()
        done = True
    except KeyboardInterrupt:
        stopped = True
        print("\nstopped; cleaning up", file=sys.stderr)
        raise
    except OSError:  # nobody reads on (`reprod demo | head -1`), or there is no room where they would
        stopped = True
        raise
    except ReprodError:
        raise
    except Exception:
        print(f"the logs are kept: {stage.folder}", file=sys.stderr)
        raise
    finally:
        # A second Ctrl-C must not leave half of it behind; this takes a moment only.
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        if not (done and args.keep):
            stage.stop()
            if done or stopped:
                stage.remove()
        signal.signal(signal.SIGINT, interrupt)
        for number, handler in before.items():
            signal.signal(number, handler)
    return codes.FINE


class _Demo:
    """The story. ``play`` tells it; each step returns the sentence that says what happened, or raises."""

    def __init__(self, stage: Stage, *, keep: bool) -> None:
        self.stage = stage
        self.keep = keep
        self.screen = Screen(sys.stdout)
        self.tables = stage.folder / "tables"
        self.sources = stage.folder / "sources"
        self.script = stage.folder / "train.py"
        self.runs: list[str] = []
        self.digests: list[str] = []
        self._step = 0
        self._began = time.monotonic()

    def play(self) -> None:
        """Show everything, in order."""
        self.screen.prose(f"reprod demo: nothing is faked, and all of it is in {self.stage.folder}")
        self._do("Copy scikit-learn's tables, and the sources of it and of MLflow", self._copy)
        self._do("Start the daemon, which starts an MLflow server of its own", self._start)
        self._do("Register both datasets", self._register)
        self._do("Wait for the first scan, which reads every byte once", self._scan)
        self._do("Wait for the MLflow server", self._await_server)
        self._do("Train a model in a process of its own", lambda: self._train("first"), shown=TRAINING)
        self._do("Wait until the run is captured", self._await_captured)
        self._do(f"Change one value in {CHANGED_FILE}", self._change)
        self._do("Train again, the same script", lambda: self._train("second"))
        self._do("Wait until that run is captured too", self._await_captured)
        self._do("Ask what the second run was trained on that the first was not", self._compare)
        self._do("Flip one bit in another file, and put its mtime back", self._flip)
        self._do("Ask whether the files are still those of the second run", self._verify)
        self._say_what_to_open()
        if not self.keep:
            self._do("End the daemon and its MLflow server, remove the folder", self._stop)
        self.screen.line()
        took = render.duration(time.monotonic() - self._began)
        self.screen.prose(f"All {self._step} steps happened, in {took}.", colour="bold")

    def _do(self, what: str, act: Callable[[], str], shown: str = "") -> None:
        """Do one step: say what, do it, say what happened and how long it took."""
        self._step += 1
        self.screen.line()
        self.screen.prose(f"{self._step:2}  {what}", colour="bold")
        for line in shown.splitlines():
            self.screen.line(f"    {line}".rstrip())
        began = time.monotonic()
        try:
            happened = act()
        except (ReprodError, OSError) as error:
            _require_reader(error)
            message, hint = (error.message, error.hint) if isinstance(error, ReprodError) else (str(error), "")
            logs = f"the logs are kept: {self.stage.daemon_log} {self.stage.state}/*.log"
            self.screen.prose(f"{self._sign('bad')} {render.safe(message)}", 4, "red")
            raise StepFailedError(
                f"step {self._step} of the demo did not happen: {message}",
                hint=f"{hint}; {logs}" if hint else logs,
            ) from error
        took = render.duration(time.monotonic() - began)
        self.screen.prose(f"{self._sign('good')} {happened} ({took})", 4, "green")

    # --- steps -------------------------------------------------------------------------------------------------------

    def _copy(self) -> str:
        material.copy_tables(self.tables)
        material.copy_sources(self.sources)
        return f"tables: {material.extent(self.tables)}; sources: {material.extent(self.sources)}"

    def _start(self) -> str:
        self._show("$ reprod daemon")
        self.stage.start_daemon()
        return f"it answers, pid {self.stage.pid}"

    def _register(self) -> str:
        for name in ("tables", "sources"):
            self._command("dataset", "add", name, str(getattr(self, name)), quiet=True)
        names = [str(item["name"]) for item in self.stage.ask("status")["datasets"]]
        _expect(names == ["sources", "tables"], f"the daemon watches {names}")
        return "the daemon watches both"

    def _scan(self) -> str:
        def scanned() -> bool:
            return all(item["state"] == "current" for item in self.stage.ask("status")["datasets"])

        self.stage.wait(scanned, SCANNED_S, "the first scan has not ended")
        datasets = {item["name"]: item for item in self.stage.ask("status")["datasets"]}
        self.digests.append(datasets["tables"]["digest"])
        files, size = (sum(item[key] for item in datasets.values()) for key in ("files", "bytes"))
        return f"{render.plural(files, 'file')}, {render.size(size)}; each dataset has a version and a digest"

    def _await_server(self) -> str:
        self.stage.wait_server()
        self._command("status")
        return f"it answers at {self.stage.url}"

    def _train(self, name: str) -> str:
        self.script.write_text(TRAINING, "utf-8")
        data = self.tables / CHANGED_FILE
        self._show(f"$ python train.py tables/{CHANGED_FILE} {name}")
        ran = self.stage.python(self.script, str(data), name)
        words = ran.out.split()
        _expect(ran.code == 0 and len(words) >= 2, f"the training failed: {(ran.err or ran.out).strip()[-500:]}")
        run_id, accuracy = words[-2:]
        self.runs.append(run_id)
        return f"run {run_id[:8]} has ended, accuracy {accuracy}"

    def _await_captured(self) -> str:
        run_id = self.runs[-1]

        def judged() -> bool:
            # An incomplete run may still become a captured one.
            return self.stage.run(run_id)["tags"].get("reprod.state") in {"captured", "failed"}

        try:
            self.stage.wait(judged, CAPTURED_S, "the run is not captured")
        finally:
            found = self.stage.run(run_id)
            tags = {key: str(value) for key, value in found["tags"].items() if key.startswith("reprod.")}
            digest = tags.get("reprod.digest", "")
            shown = {**tags, "reprod.digest": render.digest(digest)}
            self._show_facts([(key, shown[key]) for key in SHOWN_TAGS if key in tags])
        _expect(tags["reprod.state"] == "captured", "the run could not be recorded")
        self._check_artifacts(run_id, found["params"])
        _expect(found["datasets"] == ["tables"], f"the dataset inputs of the run are {found['datasets']}")
        if len(self.runs) == 1:
            _expect(digest == self.digests[0], f"the digest is {digest}, the scan's was {self.digests[0]}")
            return "the daemon saw the tag and recorded what the run started on"
        self.digests.append(digest)
        _expect(digest != self.digests[0], "both runs have the same digest")
        return "recorded, with another digest"

    def _check_artifacts(self, run_id: str, params: dict[str, str]) -> None:
        files = self.stage.artifacts(run_id)
        if len(self.runs) == 1:
            given = [f"{key}={params[key]}" for key in SHOWN_PARAMS if key in params]
            self._show_facts([("params", " ".join(given)), *(("artifact", name) for name in files)])
        for due in ("environment/requirements.txt", "data_manifest/data_manifest.json"):
            _expect(due in files, f"the run has no {due}")

    def _change(self) -> str:
        old, new = material.change_value(self.tables / CHANGED_FILE)
        return f"line 2 begins with {new} now, it was {old}"

    def _compare(self) -> str:
        both = zip(self.runs, self.digests, strict=True)
        self._show_facts([(f"run {run_id[:8]}", render.digest(digest)) for run_id, digest in both])
        question = ["diff", *(f"run:{run_id[:8]}" for run_id in self.runs)]
        self._command(*question, code=codes.DIFFERS)
        found = self._answer(*question, code=codes.DIFFERS)
        counts = {key: found["summary"][key] for key in ("added", "removed", "renamed", "modified")}
        paths = [item["path"] for item in found["modified"]]
        _expect(paths == [CHANGED_FILE] and sum(counts.values()) == 1, f"{counts}: {paths}")
        return f"exactly one file differs, {CHANGED_FILE}"

    def _flip(self) -> str:
        path = self.tables / FLIPPED_FILE
        before = path.stat()
        place, byte = material.flip_bit(path)
        after = path.stat()
        same = (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        _expect(same, "size or mtime is not as before")
        return f"byte {place:,} of {FLIPPED_FILE} is {byte ^ 1:#04x}, was {byte:#04x}; size and mtime as before"

    def _verify(self) -> str:
        question = ["verify", f"run:{self.runs[1][:8]}"]
        self._command(*question, code=codes.DIFFERS)
        found = self._answer(*question, code=codes.DIFFERS)
        paths = [item["path"] for item in found["mismatched"]]
        others = [*found["missing"], *found["extra"]]
        _expect(paths == [FLIPPED_FILE] and not others, f"it named {paths} and {others}")
        return f"no: exit code 1, and it names {FLIPPED_FILE}"

    def _stop(self) -> str:
        self.stage.stop()
        self.stage.wait(self.stage.is_over, SERVER_GONE_S, "the MLflow server is still there")
        self.stage.remove()
        _expect(not self.stage.folder.exists(), f"{self.stage.folder} cannot be removed")
        return "nothing is left"

    # --- what is shown -----------------------------------------------------------------------------------------------

    def _command(self, *arguments: str, quiet: bool = False, code: int = codes.FINE) -> None:
        """Run a command as a user would, on this terminal; ``quiet`` shows only that it was run."""
        self._show("$ reprod " + " ".join(arguments).replace(f"{self.stage.folder}/", ""))
        _expect_code(self.stage.reprod(*arguments, show=not quiet), code)

    def _answer(self, *arguments: str, code: int) -> dict[str, Any]:
        """Run a command with --json, which is what its outcome is judged by."""
        ran = self.stage.reprod(*arguments, "--json")
        _expect_code(ran, code)
        return ran.document

    def _show(self, text: str) -> None:
        self.screen.prose(render.safe(text))

    def _show_facts(self, facts: list[tuple[str, str]]) -> None:
        for key, value in facts:
            self.screen.line(f"    {key:17} {render.safe(value)}")

    def _sign(self, kind: str) -> str:
        signs = {"good": ("✓", "ok"), "bad": ("✗", "failed:")}
        return signs[kind][0 if self.screen.unicode else 1]

    def _say_what_to_open(self) -> None:
        screen, stage = self.screen, self.stage
        screen.line()
        if not self.keep:
            screen.prose("To see both runs in the MLflow UI (Dataset column, tags, params, artifacts):")
            screen.line(f"    {own_name()} demo --keep")
            return
        experiment = f"{stage.url}/#/experiments/{stage.run(self.runs[1])['experiment_id']}"
        screen.prose("Open in a browser: both runs with their Dataset column, and the second run")
        screen.line(f"    {experiment}")
        screen.line(f"    {experiment}/runs/{self.runs[1]}")
        screen.prose("To use this daemon from a shell:")
        for key, value in stage.variables.items():
            screen.line(f"    export {key}={value}")
        screen.line(f"    {own_name()} status")
        screen.prose(f"The daemon (pid {stage.pid}) and its MLflow server stay up. To end both and remove the folder:")
        screen.line(f"    kill {stage.pid}; sleep 2; rm -r {stage.folder}")


def _expect(fact: bool, otherwise: str) -> None:
    if not fact:
        raise StepFailedError(otherwise)


def _expect_code(ran: Ran, code: int) -> None:
    said = (ran.err or ran.out).strip()
    if ran.code == BROKEN_PIPE:
        raise BrokenPipeError
    _expect(ran.code == code, f"exit code {ran.code} where {code} was due: {said[-500:]}")


def _require_reader(error: Exception) -> None:
    """Raise the OSError of our own output, if that is what ended a step: then nothing failed but the showing."""
    if isinstance(error, BrokenPipeError):
        raise error
    if sys.stdout is not None:
        sys.stdout.flush()


def _asked_to_end() -> list[signal.Signals]:
    """Return the signals besides Ctrl-C that end the demo; one that is ignored stays so, for ``nohup`` means it."""
    return [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does, so that a TERM cleans up too."""
    raise KeyboardInterrupt
