"""The library's calls, for training scripts. They work with no daemon, and MLflow is used as the user has set it up.

``tag_dataset``, ``track`` and ``wait_captured`` never raise and never block over 50 ms because of reprod (what MLflow
itself takes and ``wait_captured`` aside): what goes wrong is one warning line on stderr. ``strict=True`` turns that
round. Times are seconds.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from reprod.core import protocol
from reprod.core.address import same_server
from reprod.core.run import checked_names
from reprod.errors import (
    DaemonUnavailableError,
    NotFoundError,
    ReprodError,
    StateError,
    UsageError,
    VersionsDifferError,
    did_you_mean,
)

if TYPE_CHECKING:
    from reprod.capture.tracked import Block

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: How long a strict call waits for the daemon; one that is not strict has 20 ms (law 11).
STRICT_ANSWER_S = 5.0


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
        _warn(_told(warning))
    return True


class track:  # noqa: N801 - it is used as a function is
    """``with reprod.track("imagenet"):`` says that the runs of this block use the dataset, and what they used.

    A run that is active at the entry (or ``run_id``) is tagged there; one that starts inside gets the tag as it starts,
    by MLflow's context provider. Blocks in blocks add up: the run uses the datasets of all. Each is for its own task
    and thread. At the exit what was really loaded by then, and the settings that it computed with, are handed over by a
    child, after the environment. They belong to the process, so the last of several blocks stands.

    ``async with`` does the same, and so does ``@reprod.track("imagenet")`` on a function or coroutine function. With
    ``strict`` the entry raises what ``tag_dataset`` raises, and the exit UsageError if no run started, or StateError.
    """

    def __init__(self, name: str, run_id: str | None = None, *, strict: bool = False) -> None:
        self.name = name
        self._run_id, self._strict = run_id, strict
        self._block: Block | None = None
        self._tagged = self._waits = False

    @property
    def tagged(self) -> bool:
        """Whether a run carries the tag by now."""
        return self._tagged or (self._waits and self._block is not None and self._block.asked)

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException as error:
            if self._strict or not isinstance(error, Exception):
                self._leave()
                raise
            _warn(f"dataset {self.name!r} is not tracked: {error}")
        return self

    def _begin(self) -> None:
        from reprod.capture import tracked

        names = checked_names(self.name)
        if self._run_id is None:
            self._block = tracked.Block(tuple(names))
            tracked.enter(self._block)
        self._waits = self._run_id is None and not _has_run()
        if not self._waits:
            self._tagged = tag_dataset(tracked.datasets_with(names), self._run_id, strict=self._strict)
        elif (doubt := _doubt_before_run(names, strict=self._strict)) is not None:
            if self._strict:
                raise doubt
            _warn(_told(doubt))

    def _leave(self) -> None:
        if self._block is not None:
            from reprod.capture import tracked

            tracked.leave(self._block)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._leave()
            from reprod.capture.handover import tell_used

            told = tell_used()
        except Exception:  # noqa: BLE001 - law 11, for a reprod that is half upgraded too
            told = False
        if kind is not None:
            return
        if self._waits and not self.tagged:
            what, hint = f"no run started in the block of dataset {self.name!r}", "start it inside, in the same thread"
            if self._strict:
                raise UsageError(what, hint=f"{hint}; of one that MlflowClient made: reprod.tag_dataset(NAME, run_id)")
            _warn(f"{what}: {hint}")
        elif self._strict and not told:
            raise StateError("what was used could not be handed over", hint="does sys.executable start this Python?")

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.__exit__(kind)

    def __call__(self, function: _Function) -> _Function:
        """Return ``function`` so that each of its calls is such a block; of a generator only the call itself is."""
        from functools import wraps
        from inspect import iscoroutinefunction

        def block() -> track:  # a call of its own: calls may overlap
            return track(self.name, self._run_id, strict=self._strict)

        if iscoroutinefunction(function):

            @wraps(function)
            async def waited(*args: Any, **more: Any) -> Any:
                with block():
                    return await function(*args, **more)

            return cast("_Function", waited)

        @wraps(function)
        def called(*args: Any, **more: Any) -> Any:
            with block():
                return function(*args, **more)

        return cast("_Function", called)


def wait_captured(run_id: str | None = None, timeout_s: float = 60.0, *, strict: bool = False) -> str | None:
    """Wait until the daemon has recorded the run; return its ``reprod.state``, or None after ``timeout_s`` seconds.

    The run is ``run_id``, the active one, or the last that this process ended. With ``strict`` it raises what went
    wrong on the way (TrackingError, NotFoundError, UsageError); a timeout is None all the same.
    """
    try:
        from reprod.ops.wait_state import wait_state
        from reprod.sinks import inprocess

        return wait_state(run_id or inprocess.find_recent_run_id(), timeout_s)
    except Exception as error:  # law 11: whatever it is, the script goes on
        if strict:
            raise
        _warn(f"cannot tell whether the run was captured: {error}")
        return None


def _tag_dataset(name: str, run_id: str | None, *, strict: bool) -> ReprodError | None:
    """Set the tags and tell the daemon; return what is worth a warning although the run is tagged."""
    from reprod.capture.handover import ANSWER_S, ask
    from reprod.capture.process.identity import current_context
    from reprod.core.process import ProcessContext
    from reprod.sinks import inprocess

    names = checked_names(name)
    run = inprocess.find_run(run_id)
    own = current_context().to_json()
    # Another process's run, or an ended one, must not be given this process's environment.
    mine = run.context == own or (run.context is None and run.status == "RUNNING")
    tags = {"reprod.dataset": name} | ({"reprod.context": own} if mine else {})
    inprocess.set_tags(run.run_id, tags)
    uri = inprocess.tracking_uri()
    # A further process of a run that started elsewhere: its host's daemon compares its copy.
    part = not mine and run.status == "RUNNING" and ProcessContext.parse(run.context or "") is not None
    wait_s = STRICT_ANSWER_S if strict else ANSWER_S
    answer = ask(run.run_id, name, uri, identify=mine or part, takes_part=part, answer_s=wait_s)
    if answer is None:
        return DaemonUnavailableError("no reprod daemon answers", hint="start one: reprod daemon") if strict else None
    return doubt(answer, names, uri)


def _has_run() -> bool:
    """Whether there is a run to tag. Raises TrackingError, NotFoundError for the one that MLFLOW_RUN_ID names."""
    from reprod.sinks import inprocess

    try:
        inprocess.find_run()
    except UsageError:  # no run, or no MLflow: then none starts either
        return False
    return True


def _doubt_before_run(names: list[str], *, strict: bool) -> ReprodError | None:
    """Ask the daemon whether it knows the datasets; return what it has against a run on them, if it answers."""
    from reprod.capture.handover import ANSWER_S, ask

    answer = ask(None, ",".join(names), identify=False, answer_s=STRICT_ANSWER_S if strict else ANSWER_S)
    if answer is None:
        return DaemonUnavailableError("no reprod daemon answers", hint="start one: reprod daemon") if strict else None
    return doubt(answer, names, None)


def doubt(answer: Mapping[str, Any], names: list[str], uri: str | None) -> ReprodError | None:
    """Return what the daemon's answer says against this tag being captured, if anything."""
    if answer.get("unknown") or protocol.is_too_old(answer):
        why = "does not know what this library tells it" if answer.get("unknown") else protocol.TOO_OLD
        found = protocol.differ(answer, why, str(sys.modules["reprod"].__version__))
        return VersionsDifferError(found.message, hint=found.hint)
    theirs = answer.get("tracking_uri")
    if uri is not None and isinstance(theirs, str) and not same_server(theirs, uri):
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
                return NotFoundError(f"the daemon has no dataset {root!r}", hint=hint)
    return None


def _told(doubt: ReprodError) -> str:
    return f"{doubt.message}; {doubt.hint}" if doubt.hint else doubt.message


def _warn(message: str) -> None:
    """Write one line to stderr; not a Python warning, which a strict filter would turn into an exception."""
    from reprod.core.redact_known import redact_known

    try:
        sys.stderr.write(f"reprod: warning: {' '.join(redact_known(message, os.environ).split())}\n")
    except (OSError, ValueError, AttributeError):
        return
