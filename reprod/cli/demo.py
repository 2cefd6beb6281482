"""``reprod demo``: the main job shown from end to end, with nothing faked.

A real daemon with its own MLflow server, real files and a real model (see demo_material), and the commands that a user
would type. A step that did not happen ends the demo with an exit code other than 0 and leaves the logs. Nothing outside
its folder is touched. Times are seconds.
"""

import argparse
import signal
import sys
from types import FrameType

from reprod.cli import codes
from reprod.cli import demo_material as material
from reprod.cli.demo_asking import Asking
from reprod.cli.demo_material import CHANGED_FILE, PLAIN, TRAINING
from reprod.cli.demo_recording import REPORT, Recording
from reprod.cli.demo_stage import Stage, own_name
from reprod.cli.demo_telling import Telling, expect
from reprod.errors import ReprodError, StateError

#: Gone in 1.2 s on two cores; the rest is for busy machines.
SERVER_GONE_S = 10.0


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
    """The story: what is done in which order, and what a reader is told before each of it."""

    def __init__(self, stage: Stage, *, keep: bool) -> None:
        self.stage = stage
        self.keep = keep
        self.telling = Telling(stage)
        self.recording = Recording(stage, self.telling)
        self.asking = Asking(self.recording, self.telling)

    def play(self) -> None:
        """Show everything, in order."""
        self.telling.screen.prose(
            "reprod knows which bytes and which environment an MLflow run was trained on. Here it shows how, with a "
            f"real daemon, server, model and data. All of it is in {self.stage.folder}"
        )
        self._record()
        self._ask()
        self._say_what_to_open()
        if not self.keep:
            self.telling.step("End the daemon and its MLflow server, remove the folder", self._stop)
        self.telling.end()

    def _record(self) -> None:
        step, story = self.telling.step, self.recording
        step("Copy scikit-learn's tables, and the sources of it and of MLflow", story.copy)
        step("Start the daemon, which starts an MLflow server of its own", story.start)
        step("Register both as datasets; every byte is read once", story.register)
        step("Describe this Python and this machine in files, as any script can", story.capture_environment)
        step("Wait for the MLflow server", story.await_server)
        step("Train a model; its script names its dataset in one line", story.train_first, shown=TRAINING)
        step("Look at what reprod wrote to that run", story.show_first)
        step(f"Change one value in {CHANGED_FILE}", story.change)
        step(
            f"Name the dataset on the experiment and train again; {PLAIN} is the script without that line. "
            "A file is added while it trains",
            story.train_second,
        )
        step(
            "Name it on the command line and train on one thread. A value is changed and changed back while it trains",
            story.train_third,
        )

    def _ask(self) -> None:
        step, story = self.telling.step, self.asking
        step("List the runs, and the versions of the dataset", story.list_all)
        step("Ask why the second run could differ from the first", story.compare_runs)
        step("Ask whether the second and the third ran with the same", story.compare_environments)
        step(f"Ask which runs had {CHANGED_FILE} as it is now", story.ask_who)
        step("Ask all about the third run", story.show_run)
        step("Describe a folder without the daemon, and check it", story.describe)
        step("Flip one bit in a file and put its mtime back: size and time say nothing", story.flip)
        step(
            "Remove another file. Are these the files of the third run? Asked as on another host, which knows "
            "nothing but the address of the MLflow server",
            story.verify_elsewhere,
        )

    def _stop(self) -> str:
        self.stage.stop()
        self.stage.wait(self.stage.is_over, SERVER_GONE_S, "the MLflow server is still there")
        self.stage.remove()
        expect(not self.stage.folder.exists(), f"{self.stage.folder} cannot be removed")
        return "nothing is left"

    def _say_what_to_open(self) -> None:
        screen, stage = self.telling.screen, self.stage
        screen.line()
        if not self.keep:
            screen.prose("To see the runs in the MLflow UI (Dataset column, tags, params, artifacts, report):")
            screen.line(f"    {own_name()} demo --keep")
            return
        page = stage.server.page(self.recording.runs[2].run_id)
        screen.prose("Open in a browser: the runs with their Dataset column, the third run, and its report")
        screen.line(f"    {page.partition('/runs/')[0]}")
        screen.line(f"    {page}")
        screen.line(f"    {page}/artifacts/{REPORT}")
        screen.prose("To use this daemon from a shell:")
        for key, value in stage.variables.items():
            screen.line(f"    export {key}={value}")
        screen.line(f"    {own_name()} status")
        screen.prose(f"The daemon (pid {stage.pid}) and its MLflow server stay up. To end both and remove the folder:")
        screen.line(f"    kill {stage.pid}; sleep 2; rm -r {stage.folder}")


def _asked_to_end() -> list[signal.Signals]:
    """Return the signals besides Ctrl-C that end the demo; one that is ignored stays so, for ``nohup`` means it."""
    return [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does, so that a TERM cleans up too."""
    raise KeyboardInterrupt
