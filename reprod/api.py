"""The library's calls, for training scripts. They work with no daemon, and MLflow is used as the user has set it up.

``tag_dataset``, ``track`` and ``wait_captured`` never raise and never block over 50 ms because of reprod (what MLflow
itself takes and ``wait_captured`` aside): what goes wrong is one warning line on stderr. ``strict=True`` turns that
round. Times are seconds.
"""

import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from reprod.core import protocol
from reprod.core.address import same_server
from reprod.core.run import DATASET_NAME, dataset_names
from reprod.errors import (
    DaemonUnavailableError,
    NotFoundError,
    ReprodError,
    StateError,
    UsageError,
    VersionsDifferError,
    did_you_mean,
)

#: How long a strict call waits for the daemon; one that is not strict has 20 ms (law 11).
STRICT_ANSWER_S = 5.0
POLL_FIRST_S = 0.05
POLL_LAST_S = 1.0


def capture_environment(output_dir: str | Path = "./env_artifacts", log_to_mlflow: bool = False) -> dict[str, Path]:
    """Capture this process's environment into files; return their paths by name.

    ``requirements.txt``, ``packages.json`` and ``system_info.json`` are each replaced atomically in ``output_dir``,
    which is made if needed. With ``log_to_mlflow`` they are also logged to the active run (or MLFLOW_RUN_ID's) under
    ``environment/`` with the parameters, a taken name going to ``reprod.NAME``; without a run that is a UsageError,
    and none is started. Raises StateError when the directory cannot be written, TrackingError when MLflow fails.
    """
    from reprod.capture.environment import capture_self
    from reprod.ops.write_environment import log_artifacts, write_artifacts
    from reprod.sinks import inprocess

    run = inprocess.find_run() if log_to_mlflow else None
    record = capture_self()
    files = write_artifacts(record, Path(output_dir))
    if run is not None:
        log_artifacts(record, files, run.run_id)
    return files


def tag_dataset(name: str, run_id: str | None = None, *, strict: bool = False) -> bool:
    """Say that the run (the active one, or ``run_id``) uses dataset ``name``; return whether the run carries the tag.

    Sets the tags ``reprod.dataset`` and, if the run is this process's, ``reprod.context``; hands over who this
    process is and wakes the daemon. With ``strict`` it raises instead of warning: UsageError, TrackingError,
    NotFoundError (no such run or dataset), DaemonUnavailableError.
    """
    try:
        warning = _tag_dataset(name, run_id, strict=strict)
    except Exception as error:  # law 11: whatever it is, the training goes on
        if strict:
            raise
        _warn(f"dataset {name!r} was not tagged: {error}")
        return False
    if warning is not None:
        if strict:
            raise warning
        _warn(str(warning))
    return True


class track:  # noqa: N801 - it is used as a function is
    """``with reprod.track("imagenet"):`` says that the active run (or ``run_id``) uses the dataset, and what it used.

    As ``tag_dataset`` at the entry; at the exit what was really loaded by then, and the settings that it computed with,
    are handed over by a child, after the environment. They belong to the process, so the last of several blocks stands.
    ``async with`` does the same. With ``strict`` the entry raises what ``tag_dataset`` raises, and the exit StateError.
    """

    def __init__(self, name: str, run_id: str | None = None, *, strict: bool = False) -> None:
        self.name = name
        self.tagged = False
        self._run_id, self._strict = run_id, strict

    def __enter__(self) -> Self:
        self.tagged = tag_dataset(self.name, self._run_id, strict=self._strict)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            from reprod.capture.handover import tell_used

            told = tell_used()
        except Exception:  # noqa: BLE001 - law 11, for a reprod that is half upgraded too
            told = False
        if self._strict and not told and kind is None:
            raise StateError("what was used could not be handed over", hint="does sys.executable start this Python?")

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.__exit__(kind)


def wait_captured(run_id: str | None = None, timeout_s: float = 60.0, *, strict: bool = False) -> str | None:
    """Wait until the daemon has recorded the run; return its ``reprod.state``, or None after ``timeout_s`` seconds.

    The run is ``run_id``, the active one, or the last that this process ended. With ``strict`` it raises what went
    wrong on the way (TrackingError, NotFoundError, UsageError); a timeout is None all the same.
    """
    try:
        from reprod.sinks import inprocess

        wanted = run_id or inprocess.find_recent_run_id()
        return _wait_state(wanted, timeout_s)
    except Exception as error:  # law 11: whatever it is, the script goes on
        if strict:
            raise
        _warn(f"cannot tell whether the run was captured: {error}")
        return None


def _tag_dataset(name: str, run_id: str | None, *, strict: bool) -> ReprodError | None:
    """Set the tags and tell the daemon; return what is worth a warning although the run is tagged."""
    from reprod.capture.handover import ANSWER_S, ask
    from reprod.capture.process import current_context
    from reprod.sinks import inprocess

    names = dataset_names(name)
    bad = [part for part in names if not DATASET_NAME.match(part.partition("/")[0])]
    if bad or not names:
        raise UsageError(
            f"{(bad or [name])[0]!r} is no dataset name",
            hint="letters, digits, '.', '_' and '-', and /sub/dir after it",
        )
    run = inprocess.find_run(run_id)
    own = current_context().to_json()
    # Another process's run, or an ended one, must not be given this process's environment.
    mine = run.context == own or (run.context is None and run.status == "RUNNING")
    tags = {"reprod.dataset": name} | ({"reprod.context": own} if mine else {})
    inprocess.set_tags(run.run_id, tags)
    uri = inprocess.tracking_uri()
    answer = ask(run.run_id, name, uri, identify=mine, answer_s=STRICT_ANSWER_S if strict else ANSWER_S)
    if answer is None:
        return DaemonUnavailableError("no reprod daemon answers", hint="start one: reprod daemon") if strict else None
    return _doubt(answer, names, uri)


def _doubt(answer: Mapping[str, Any], names: list[str], uri: str) -> ReprodError | None:
    """Return what the daemon's answer says against this tag being captured, if anything."""
    if answer.get("unknown") or protocol.is_too_old(answer):
        why = "does not know what this library tells it" if answer.get("unknown") else protocol.TOO_OLD
        found = protocol.differ(answer, why, str(sys.modules["reprod"].__version__))
        return VersionsDifferError(f"{found.message}; {found.hint}", hint=found.hint)
    theirs = answer.get("tracking_uri")
    if isinstance(theirs, str) and not same_server(theirs, uri):
        from reprod.core.redact import redact_url

        said = f"the daemon watches {redact_url(theirs)}" if theirs else "the daemon has no tracking server"
        return UsageError(f"{said}, this run is on {redact_url(uri)}: it will not be captured")
    known = answer.get("datasets")
    if answer.get("known") is False:
        known = [item for item in known if isinstance(item, str)] if isinstance(known, list) else []
        for name in names:
            root = name.partition("/")[0]
            if root not in known:
                hint = did_you_mean(root, known) or f"reprod dataset add {root} PATH"
                return NotFoundError(f"the daemon has no dataset {root!r}; {hint}", hint=hint)
    return None


def _wait_state(run_id: str, timeout_s: float) -> str | None:
    """Poll in a thread of its own: MLflow's call to a dead server blocks for minutes, and the wait has a bound."""
    from reprod.sinks import inprocess

    states: list[str] = []
    errors: list[ReprodError] = []
    deadline = time.monotonic() + timeout_s
    stop = threading.Event()

    def poll() -> None:
        pause = POLL_FIRST_S
        while not stop.is_set():
            try:
                state = inprocess.read_tags(run_id).get("reprod.state")
            except ReprodError as error:
                # Kept until the deadline: a server that restarts answers again. A missing run never comes.
                if isinstance(error, NotFoundError) or time.monotonic() + pause > deadline:
                    errors.append(error)
                    return
                state = None
            if state:
                states.append(state)
                return
            stop.wait(pause)
            pause = min(pause * 1.5, POLL_LAST_S)

    thread = threading.Thread(target=poll, name="reprod-wait", daemon=True)
    thread.start()
    thread.join(timeout_s)
    stop.set()
    if errors:
        raise errors[0]
    return states[0] if states else None


def _warn(message: str) -> None:
    """Write one line to stderr; not a Python warning, which a strict filter would turn into an exception."""
    from reprod.core.redact import redact_text

    try:
        sys.stderr.write(f"reprod: warning: {' '.join(redact_text(message).split())}\n")
    except (OSError, ValueError, AttributeError):
        return
