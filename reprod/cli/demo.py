"""``reprod demo``: the main job shown from end to end, with nothing faked.

A real daemon with its own MLflow server, real files (scikit-learn's bundled tables, the sources of two installed
packages), a real model, the commands that a user would type. Each step says what it does and what happened; a step that
did not happen ends the demo with an exit code other than 0 and leaves the logs. It touches nothing outside its folder.
"""

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from importlib import util
from pathlib import Path
from types import FrameType
from typing import Any

from reprod.cli import codes, render
from reprod.cli.demo_stage import Ran, Stage, StepFailedError
from reprod.cli.screen import Screen
from reprod.errors import ConfigError, ReprodError

#: From the tag of a run that has ended to its last tag of ours took 1 to 3 s on two cores; the rest is for busy ones.
CAPTURED_S = 45.0

CHANGED_FILE = "breast_cancer.csv"
FLIPPED_FILE = "digits.csv.gz"

SHOWN_TAGS = ("reprod.state", "reprod.digest", "reprod.version", "reprod.bound", "reprod.assurance")

TRAINING = """\
import sys
import mlflow
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

with mlflow.start_run(run_name=sys.argv[2]) as run:
    mlflow.set_tag("reprod.dataset", "tables")  # the only line about reproducibility

    table = np.loadtxt(sys.argv[1], delimiter=",", skiprows=1)
    model = RandomForestClassifier(n_estimators=50, random_state=0)
    accuracy = cross_val_score(model, table[:, :-1], table[:, -1], cv=3).mean()
    mlflow.log_param("n_estimators", 50)
    mlflow.log_metric("accuracy", accuracy)
print(run.info.run_id, round(accuracy, 4))
"""


def run(args: argparse.Namespace) -> int:
    """Run the demo; return 0 if every step happened.

    Raises ConfigError (MLflow or scikit-learn is missing), UsageError or TrackingError (the port cannot be used),
    StepFailedError.
    """
    _require_packages()
    before = signal.signal(signal.SIGTERM, _interrupt)
    stage = Stage(args.port)
    done = stopped = False
    try:
        _Demo(stage, keep=args.keep).play()
        done = True
    except KeyboardInterrupt:
        stopped = True
        print("\nstopped; cleaning up", file=sys.stderr)
        raise
    finally:
        # A second Ctrl-C must not leave half of it behind; this takes a moment only.
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        if not (done and args.keep):
            stage.stop()
            if done or stopped:
                stage.remove()
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, before)
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
        self.screen.prose(f"reprod demo: everything happens in {self.stage.folder}, and all of it is real.")
        self._do("Copy two real datasets here; the originals are only read", self._copy)
        self._do("Start the daemon, which starts an MLflow server of its own", self._start)
        self._do("Register both datasets", self._register)
        self._do("Wait for the first scan: every byte is read once", self._scan)
        self._do("Wait for the MLflow server", self._await_server)
        self._do("Train a model in a process of its own", lambda: self._train("first"), shown=TRAINING)
        self._do("Wait until the run is captured", self._await_captured)
        self._do(f"Change one value in {CHANGED_FILE}", self._change)
        self._do("Train again, the same script", lambda: self._train("second"))
        self._do("Wait until that run is captured too", self._await_captured)
        self._do("Ask what the second run was trained on that the first was not", self._compare)
        self._do("Flip one bit in another file, and put its mtime back", self._flip)
        self._do("Ask whether the files are still those of the second run", self._verify)
        self._close()

    def _do(self, what: str, act: Callable[[], str], shown: str = "") -> None:
        """Do one step: say what, do it, say what happened and how long it took."""
        self._step += 1
        self.screen.line()
        self.screen.prose(self.screen.paint(f"{self._step:2}  {what}", "bold"))
        self._show(shown)
        began = time.monotonic()
        try:
            happened = act()
        except (ReprodError, OSError) as error:
            message = getattr(error, "message", "") or str(error)
            self.screen.prose(f"{self._sign('bad')} {render.safe(message)}", 4, "red")
            raise StepFailedError(
                f"step {self._step} of the demo did not happen: {message}",
                hint=f"the logs are kept: {self.stage.daemon_log}, {self.stage.state}/*.log",
            ) from error
        took = render.duration(time.monotonic() - began)
        self.screen.prose(f"{self._sign('good')} {happened} ({took})", 4, "green")

    # --- steps -------------------------------------------------------------------------------------------------------

    def _copy(self) -> str:
        _copy_tree(_package("sklearn") / "datasets" / "data", self.tables)
        for name in ("mlflow", "sklearn"):
            _copy_tree(_package(name), self.sources / name)
        return f"tables: {_extent(self.tables)}; sources of MLflow and scikit-learn: {_extent(self.sources)}"

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
        scanned = self._command("scan", also_json=True)
        datasets = {item["name"]: item for item in scanned["datasets"]}
        _expect(all(item["complete"] for item in datasets.values()), f"a dataset is incomplete: {datasets}")
        self.digests.append(datasets["tables"]["digest"])
        return "each has a version and a digest"

    def _await_server(self) -> str:
        self.stage.wait_server()
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
        state = ""

        def captured() -> bool:
            nonlocal state
            state = str(self.stage.run(run_id)["tags"].get("reprod.state", ""))
            return state != ""

        self.stage.wait(captured, CAPTURED_S, "the run is not captured")
        found = self.stage.run(run_id)
        files = self.stage.artifacts(run_id)
        tags = {key: str(found["tags"].get(key, "-")) for key in SHOWN_TAGS}
        self._show_run(tags, found["params"], files)
        error = found["tags"].get("reprod.error", "")
        _expect(state == "captured", f"the run is {state}: {error}")
        _expect("environment/requirements.txt" in files, "the run has no environment")
        _expect("data_manifest/data_manifest.json" in files, "the run has no manifest")
        digest = tags["reprod.digest"]
        if len(self.runs) == 1:
            _expect(digest == self.digests[0], f"the digest is {digest}, the scan's was {self.digests[0]}")
            return "the daemon saw the tag and recorded what the run started on"
        self.digests.append(digest)
        _expect(digest != self.digests[0], "both runs have the same digest")
        return "recorded, with another digest"

    def _change(self) -> str:
        path = self.tables / CHANGED_FILE
        lines = path.read_text("utf-8").split("\n")
        old, comma, rest = lines[1].partition(",")
        new = f"{float(old) + 1:g}"
        lines[1] = new + comma + rest
        path.write_text("\n".join(lines), "utf-8")
        return f"line 2 begins with {new} now, it was {old}"

    def _compare(self) -> str:
        for name, run_id, digest in zip(("first", "second"), self.runs, self.digests, strict=True):
            self._show(f"{name:7}run {run_id[:8]}  {render.digest(digest)}")
        first, second = (f"run:{run_id[:8]}" for run_id in self.runs)
        found = self._command("diff", first, second, also_json=True, code=codes.DIFFERS)
        counts = {key: found["summary"][key] for key in ("added", "removed", "renamed", "modified")}
        paths = [item["path"] for item in found["modified"]]
        _expect(paths == [CHANGED_FILE] and sum(counts.values()) == 1, f"{counts}: {paths}")
        return f"exactly one file differs, {CHANGED_FILE}"

    def _flip(self) -> str:
        path = self.tables / FLIPPED_FILE
        before = path.stat()
        middle = before.st_size // 2
        with path.open("r+b") as stream:
            stream.seek(middle)
            (byte,) = stream.read(1)
            stream.seek(middle)
            stream.write(bytes([byte ^ 1]))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = path.stat()
        same = (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        _expect(same, "the mtime did not come back")
        return f"byte {middle:,} of {FLIPPED_FILE}: {byte:#04x} is {byte ^ 1:#04x} now; size and mtime are as before"

    def _verify(self) -> str:
        found = self._command("verify", f"run:{self.runs[1][:8]}", also_json=True, code=codes.DIFFERS)
        paths = [item["path"] for item in found["mismatched"]]
        others = [*found["missing"], *found["extra"]]
        _expect(paths == [FLIPPED_FILE] and not others, f"it named {paths} and {others}")
        return f"no: exit code 1, and it names {FLIPPED_FILE}"

    # --- what is shown -----------------------------------------------------------------------------------------------

    def _command(
        self, *arguments: str, also_json: bool = False, quiet: bool = False, code: int = codes.FINE
    ) -> dict[str, Any]:
        """Run a command and show what it printed; with ``also_json`` run it again and return its JSON object."""
        self._show("$ reprod " + " ".join(arguments).replace(f"{self.stage.folder}/", ""))
        ran = self.stage.reprod(*arguments)
        if not quiet or ran.code != code:
            self._show(ran.out)
        _expect_code(ran, code)
        if not also_json:
            return {}
        again = self.stage.reprod(*arguments, "--json")
        _expect_code(again, code)
        return again.document

    def _show(self, text: str) -> None:
        for line in text.rstrip("\n").split("\n") if text else []:
            self.screen.line(f"    {line}".rstrip())

    def _show_run(self, tags: dict[str, str], params: dict[str, str], files: list[str]) -> None:
        for key, value in tags.items():
            shown = render.digest(value) if key == "reprod.digest" else render.safe(value)
            self.screen.line(f"    {key:17} {shown}")
        ours = ("python_version", "platform_system", "cpu_count", "gpu_count", "hash_algorithms")
        given = " ".join(f"{key}={render.safe(params[key])}" for key in ours if key in params)
        for label, value in (("params", given or "follow"), ("artifacts", " ".join(files))):
            words = f"{label:17} {value}"
            self.screen.prose(words, 4)

    def _sign(self, kind: str) -> str:
        signs = {"good": ("✓", "ok"), "bad": ("✗", "failed:")}
        return signs[kind][0 if self.screen.unicode else 1]

    def _close(self) -> None:
        screen, stage = self.screen, self.stage
        screen.line()
        screen.prose(f"All {self._step} steps happened, in {render.duration(time.monotonic() - self._began)}.")
        if not self.keep:
            screen.prose("Daemon and server end now and the folder is removed. To look around in the MLflow UI:")
            screen.line("    reprod demo --keep")
            return
        screen.prose("Open in a browser: the experiment (see the Dataset column), and the second run")
        experiment = stage.run(self.runs[1])["experiment_id"]
        screen.line(f"    {stage.url}/#/experiments/{experiment}")
        screen.line(f"    {stage.url}/#/experiments/{experiment}/runs/{self.runs[1]}")
        screen.prose("Ask this daemon:")
        for key, value in stage.variables.items():
            screen.line(f"    export {key}={value}")
        screen.line("    reprod status")
        screen.prose(f"The daemon (pid {stage.pid}) and its MLflow server stay up. To stop both and remove all of it:")
        screen.line(f"    kill {stage.pid}; sleep 2; rm -r {stage.folder}")


def _require_packages() -> None:
    """Raise ConfigError unless MLflow (the full package, for its server) and scikit-learn are installed."""
    missing = [
        name for module, name in (("mlflow", "mlflow"), ("sklearn", "scikit-learn")) if not util.find_spec(module)
    ]
    if "mlflow" not in missing and not util.find_spec("mlflow.server"):
        missing.append("mlflow")
    if missing:
        raise ConfigError(
            f"the demo trains a real model and needs {' and '.join(missing)}, not installed for {sys.executable}",
            hint='pip install "reprod[mlflow]" scikit-learn',
        )


def _package(name: str) -> Path:
    """Return the folder of an installed package, without importing it."""
    spec = util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise StepFailedError(f"{name} is installed, but not as a folder of files")
    return Path(next(iter(spec.submodule_search_locations)))


def _copy_tree(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))


def _extent(folder: Path) -> str:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return f"{render.plural(len(sizes), 'file')}, {render.size(sum(sizes))}"


def _expect(fact: bool, otherwise: str) -> None:
    if not fact:
        raise StepFailedError(otherwise)


def _expect_code(ran: Ran, code: int) -> None:
    said = (ran.err or ran.out).strip()
    _expect(ran.code == code, f"exit code {ran.code} where {code} was due: {said[-500:]}")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does, so that a TERM cleans up too."""
    raise KeyboardInterrupt
