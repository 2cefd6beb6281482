"""Turn what a person writes into an environment: ``now``, ``run:ID``, ``host``, a digest, a file, or a prefix.

Read-only and without a daemon. A run is looked for in the state first, which needs no network, then on the tracking
server. What is not of a process has no execution: the one given then says so in ``unknown``, section by section.
"""

import os
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reprod.capture.bounded import read_bounded, reason
from reprod.capture.environment import read_prefix
from reprod.config import Config
from reprod.core.described import described
from reprod.core.environment import NO_INTERPRETER, NO_PROCESS, PREFIX, Record, decode
from reprod.core.environment_files import read_back
from reprod.core.execution import Execution, Subject
from reprod.core.manifest import rfc3339
from reprod.errors import ConfigError, DamagedError, IncompleteError, NotFoundError, StateError, UsageError
from reprod.ops import capture_here
from reprod.ops.environments import HOST, sampled_subject
from reprod.ops.fetch_environment import INSTALLED, LARGEST_BYTES, WHOLE, fetch_environment
from reprod.ops.fetch_run import find_run, open_server
from reprod.ops.handovers import last_word
from reprod.store import environments, files, outbox, snapshots
from reprod.store.connection import Database

Source = Literal["now", "run", "digest", "sample", "prefix", "file"]

#: This interpreter, as it is now.
NOW = "now"

#: Why a digest alone says nothing of a process: many may have had that environment.
NOT_BY_DIGEST = "a digest names no process: run:ID does"

_DIGEST = re.compile(r"(?:env1:)?[0-9a-f]{4,64}\Z")
_OF_A_PROCESS = ("invocation", "numerics", "random_state", "imports")


@dataclass(frozen=True, slots=True)
class Named:
    """An environment that was referred to. ``digest`` (hex) is that of what is stored; ``about`` is for people."""

    ref: str
    source: Source
    about: str
    record: Record
    digest: str
    run_id: str | None = None

    def document(self) -> dict[str, Any]:
        """Return what it is, without its content, for JSON."""
        import msgspec

        return {
            "ref": self.ref,
            "source": self.source,
            "run_id": self.run_id,
            "digest": PREFIX + self.digest,
            "subject": msgspec.to_builtins(self.record.execution.subject),
            "taken_at": rfc3339(self.record.execution.taken_ns),
        }


def resolve(state: Path, text: str | None, config: Callable[[], Config]) -> Named:
    """Return the environment that ``text`` means; None or ``now``: this interpreter's, now.

    :param config: called where a tracking server may have to be asked.
    :raises UsageError: it is several. :raises NotFoundError: it is none. :raises IncompleteError: nothing is recorded.
    """
    if text is None or text == NOW:
        record = capture_here.capture()
        return Named(NOW, "now", "this interpreter, now", record, record.environment.digest())
    if text.startswith("run:"):
        return _of_run(state, text, config)
    found = None
    if text == HOST:
        found = _of_sample(state, text, HOST)
    elif _DIGEST.match(text):
        found = _of_digest(state, text)
    if found is None and text != HOST:
        found = _of_path(state, text)
    if found is None:
        raise NotFoundError(
            f"no environment {text!r} is known here",
            hint="reprod env list; or a run:ID, host, a folder that env capture wrote, an interpreter's prefix",
        )
    return found


def _of_run(state: Path, text: str, config: Callable[[], Config]) -> Named:
    wanted = text.removeprefix("run:")
    run_id, found, unknown = _recorded(state, text, wanted)
    if found is not None:
        return found
    try:
        run_id, record = fetch_from_server(config(), run_id or wanted)
    except (ConfigError, NotFoundError, IncompleteError) as error:
        if unknown is not None:  # what this state knows of the run says more
            raise unknown from error
        if isinstance(error, ConfigError):
            raise NotFoundError(f"no run {wanted!r} was recorded here, and {error.message}", hint=error.hint) from error
        raise
    about = f"run {run_id}, from the tracking server"
    return Named(text, "run", about, record, record.environment.digest(), run_id)


def fetch_from_server(config: Config, run: str) -> tuple[str, Record]:
    """Return a run's id and environment from the configured tracking server.

    :param run: the id, its first characters, or the name. :raises UsageError: it is several.
    :raises ConfigError: no tracking server is configured. Else as ``fetch_environment``.
    """
    child = open_server(config)
    try:
        run_id = find_run(child, run).run_id
        return run_id, fetch_environment(child, run_id)
    finally:
        child.close()


def _recorded(state: Path, text: str, wanted: str) -> tuple[str | None, Named | None, IncompleteError | None]:
    """Return the id of a run that this state knows, and its environment or why that is not recorded."""
    import msgspec

    from reprod.core.snapshot import Snapshot

    try:
        records = files.open_registry_readonly(state)
    except NotFoundError:
        return None, None, None
    with closing(records):
        rows = records.read(lambda c: outbox.find(c, wanted)) if wanted else []
        ids = sorted({row.run_id for row in rows})
        if len(ids) > 1:
            raise UsageError(
                f"{wanted!r} is several runs: {', '.join(ids[:3])}", hint="give more characters of the run id"
            )
        if not rows:
            return None, None, None
        run_id, stored = rows[0].run_id, rows[0].snapshot
        if stored is None:
            return run_id, None, IncompleteError(f"run {run_id} is not recorded yet", hint="reprod runs")
        snapshot = msgspec.json.decode(stored, type=described(Snapshot))
        key, execution = snapshot.environment, records.read(lambda c: last_word(c, rows[0], snapshot))
        if key is None or execution is None:
            why = snapshot.environment_unknown or "nobody captured it"
            missing = f"the environment of run {run_id} is not recorded: {why}"
            return run_id, None, IncompleteError(missing, hint="reprod doctor")
        record = _kept(records, key, execution)
        return run_id, Named(text, "run", f"run {run_id}", record, key, run_id), None


def _of_digest(state: Path, text: str) -> Named | None:
    prefix = text.removeprefix(PREFIX)
    try:
        records = files.open_registry_readonly(state)
    except NotFoundError:
        return None
    with closing(records):
        found = records.read(lambda c: environments.matching(c, prefix))
        if len(found) > 1:
            shown = ", ".join(digest[:12] for digest in found[:3])
            raise UsageError(f"{text!r} is several environments: {shown}", hint="give more characters of the digest")
        if not found:
            return None
        seen = [each for each in records.read(lambda c: list(environments.sightings(c))) if each.digest == found[0]]
        last = max(seen, key=lambda each: each.last_ns, default=None)
        execution = _without_process(last) if last else Execution(Subject("interpreter", "unknown", "", "registry"), 0)
        return Named(text, "digest", "as it is stored", _kept(records, found[0], execution), found[0])


def _without_process(seen: environments.Sighting) -> Execution:
    """Return where and when an environment was seen last, without what is one process's own."""
    if seen.sampled is not None:
        return _sampled(seen.sampled, seen.first_ns, seen.last_ns)
    subject = seen.execution.subject if seen.execution else Subject("interpreter", "unknown", "", "registry")
    return Execution(subject, seen.last_ns, unknown=dict.fromkeys(_OF_A_PROCESS, NOT_BY_DIGEST))


def _of_sample(state: Path, text: str, subject: str) -> Named | None:
    try:
        records = files.open_registry_readonly(state)
    except NotFoundError:
        return None
    with closing(records):
        found = records.read(lambda c: snapshots.samples(c, subject))
        if not found:
            return None
        last = found[-1]
        record = _kept(records, last.digest, _sampled(subject, last.first_ns, last.last_ns))
        return Named(text, "sample", "as the daemon sampled it last", record, last.digest)


def _sampled(subject: str, first_ns: int, last_ns: int) -> Execution:
    how = f"files, unchanged from {rfc3339(first_ns)} to {rfc3339(last_ns)}"
    why = NO_INTERPRETER if subject == HOST else NO_PROCESS
    return Execution(sampled_subject(subject, how), last_ns, unknown=dict.fromkeys(_OF_A_PROCESS, why))


def _kept(records: Database, digest: str, execution: Execution) -> Record:
    stored = records.read(lambda c: snapshots.environment(c, digest))
    if stored is None:
        raise DamagedError(f"the environment {digest[:12]} is not in the registry any more", hint="reprod env list")
    return Record(execution, decode(stored), records.read(lambda c: snapshots.environment_files(c, digest)))


def _of_path(state: Path, text: str) -> Named | None:
    """Return what a captured file holds, what was sampled of a prefix, or what a prefix that nobody samples has now."""
    path = Path(text)
    whole = path / WHOLE if path.is_dir() else path
    if whole.is_file():
        record = read_captured(whole)
        return Named(text, "file", f"captured in {text}", record, record.environment.digest())
    prefix = os.path.abspath(text)
    for each in dict.fromkeys((text, prefix, os.path.realpath(text))):
        found = _of_sample(state, text, each)
        if found is not None:
            return found
    if not path.is_dir():
        return None
    try:
        record = read_prefix(prefix)
    except IncompleteError as error:
        raise NotFoundError(
            f"{text} holds no environment: {error.message}",
            hint="name a folder that reprod env capture wrote, or the prefix of an interpreter",
        ) from error
    return Named(text, "prefix", "read now: no daemon samples it", record, record.environment.digest())


def read_captured(whole: Path) -> Record:
    """Return the record in an environment.json and the packages.json beside it, as ``env capture`` wrote them.

    :raises StateError: a file cannot be read. :raises DamagedError: it is none, or the two are not of one capture.
    """
    try:
        document = read_bounded(os.fspath(whole.resolve()), LARGEST_BYTES)
        installed = whole.with_name(INSTALLED)
        packages = read_bounded(os.fspath(installed.resolve()), LARGEST_BYTES) if os.path.lexists(installed) else None
    except OSError as error:
        raise StateError(f"{whole} cannot be read: {reason(error)}", hint="check its permissions") from error
    return read_back(document, packages)
