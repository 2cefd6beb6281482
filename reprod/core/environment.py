"""Owns what an environment is: its sections, digest and JSON form.

A `Record` is what one capture gives: the environment, the execution it was seen in, and the files that belong to it.
A section that is not known is None, with its reason in ``unknown`` (section -> reason): never guessed, never taken
from another process. Nothing here reads a file.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any, TypeVar

from reprod.core.accelerator import Accelerators, Cuda, Rocm
from reprod.core.described import described
from reprod.core.execution import Execution
from reprod.core.hosting import Container
from reprod.core.machine import Cpu, Limits, Memory, System
from reprod.core.packages import Conda, PackageSet, Python
from reprod.core.redact import Redactor
from reprod.core.repository import Git, is_file_name, limit
from reprod.errors import DamagedError

_Part = TypeVar("_Part", "Environment", "Execution")

#: What a digest of an environment begins with: the form of the JSON that is hashed.
PREFIX = "env1:"

#: Reasons that say there is nothing to know; any other says that something is not known.
NO_PROCESS = "an interpreter is no process"
NO_INTERPRETER = "a machine has none of its own"
NOT_APPLICABLE = frozenset({NO_PROCESS, NO_INTERPRETER})

#: What JSON and its types say of a value that they cannot take; msgspec's own errors are ValueErrors.
_UNFIT = (ValueError, TypeError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class Environment:
    """What a process, an interpreter or a host ran with: equal for two processes that ran with the same.

    ``conda`` is None for a prefix that is not conda's: then it is no key of ``unknown``. ``other_variables`` are names
    of variables that were set, may matter, and whose values are not recorded.
    """

    python: Python | None = None
    packages: PackageSet | None = None
    conda: Conda | None = None
    system: System | None = None
    cpu: Cpu | None = None
    memory: Memory | None = None
    limits: Limits | None = None
    accelerators: Accelerators | None = None
    cuda: Cuda | None = None
    rocm: Rocm | None = None
    container: Container | None = None
    git: Git | None = None
    variables: dict[str, str] = field(default_factory=dict)
    other_variables: tuple[str, ...] = ()
    unknown: dict[str, str] = field(default_factory=dict)

    def digest(self) -> str:
        """Return sha256 (hex) of the canonical JSON form, without what is null or empty.

        So a field that a later version adds changes no digest of a record that does not have it. Known to be empty and
        unknown differ by the section, and by ``unknown``. A bundle of commits is packed anew each time, so the files of
        a repository count by its tree and commit.
        """
        import msgspec

        value = msgspec.to_builtins(self)
        if value["git"] is not None:
            del value["git"]["files"]
        sections = {name: _filled(section) for name, section in value.items() if section is not None}
        return hashlib.sha256(msgspec.json.encode(sections, order="deterministic")).hexdigest()


@dataclass(frozen=True, slots=True)
class Record:
    """One capture. ``files`` belong to the environment: what its repository held uncommitted, for example, by name."""

    execution: Execution
    environment: Environment
    files: dict[str, bytes] = field(default_factory=dict)


def encode(env: Environment) -> bytes:
    """Return the environment as one JSON object."""
    import msgspec

    return msgspec.json.encode(env)


def decode(data: bytes) -> Environment:
    """Return the environment that ``encode`` wrote; raise DamagedError if it is not one."""
    import msgspec

    try:
        return msgspec.json.decode(data, type=described(Environment))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(error) from error


def encode_record(record: Record) -> bytes:
    """Return the whole capture as one JSON object; the contents of files are base64."""
    import msgspec

    return msgspec.json.encode(record)


def decode_record(data: bytes) -> Record:
    """Return the capture that ``encode_record`` wrote, as a handover brings it; raise DamagedError if it is none.

    What comes may be made to hurt: a file with a name that no capture gives is refused.
    """
    import msgspec

    try:
        record = msgspec.json.decode(data, type=described(Record))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(error) from error
    if not all(map(is_file_name, record.files)):
        raise _damaged(ValueError("it has a file that is none of a repository's"))
    return record


def clean(record: Record, redactor: Redactor) -> Record:
    """Return the record without a secret that ``redactor`` knows or recognises: what every capture ends with (law 10).

    The files were made by collectors that leave out whole what holds a secret: a patch with a mask would not apply.
    """
    return Record(_clean(record.execution, redactor), _clean(record.environment, redactor), record.files)


def trimmed(record: Record, git_diff: str) -> Record:
    """Return the record with as much of the repository's changes as ``git_diff`` lets be kept."""
    if record.environment.git is None:
        return record
    git, files = limit(record.environment.git, record.files, git_diff)
    return Record(record.execution, replace(record.environment, git=git), files)


def _clean(section: _Part, redactor: Redactor) -> _Part:
    """Return one part of a record without secrets; a section that cannot be told without one is unknown.

    So is one that could not be written down and read again, whatever its collector met: it must not cost the others.
    """
    try:
        return _passed(section, redactor)
    except _UNFIT:
        flaws = dict(_flaws(section, redactor))
        if not flaws:  # it is none of them: a bug
            raise
        empty: dict[str, Any] = {each.name: _default(each) for each in fields(section) if each.name in flaws}
        return _passed(replace(section, **empty, unknown={**section.unknown, **flaws}), redactor)


def _passed(section: _Part, redactor: Redactor) -> _Part:
    """Return a part as it is after redaction, JSON and back; raises one of `_UNFIT` if it does not come back."""
    import msgspec

    found = redactor.value(msgspec.to_builtins(section))
    return msgspec.json.decode(msgspec.json.encode(found), type=described(type(section)))


def _flaws(section: _Part, redactor: Redactor) -> Iterator[tuple[str, str]]:
    """Yield the sections that do not pass alone, and why."""
    spare = [each for each in fields(section) if _default(each) is not MISSING]
    alone = replace(section, **{each.name: _default(each) for each in spare})
    for each in spare:
        one = replace(alone, **{each.name: getattr(section, each.name)})
        try:
            _passed(one, redactor)
        except _UNFIT as error:
            try:
                _passed(one, _BLIND)
            except _UNFIT:
                yield each.name, f"what was found cannot be recorded: {redactor.text(str(error))}"
            else:  # a value of a fixed list is a secret here, or looks like one
                yield each.name, "one of its values is the same as a secret of this process"


def _default(each: Field[Any]) -> Any:
    return each.default if each.default_factory is MISSING else each.default_factory()


class _Blind(Redactor):
    """Lets everything pass, to tell why something did not: what it returns is thrown away."""

    def value(self, tree: Any) -> Any:
        return tree


_BLIND = _Blind()


def _filled(value: Any) -> Any:
    """Return a tree without what is null or empty in it."""
    if isinstance(value, dict):
        return {key: _filled(item) for key, item in value.items() if item is not None and item not in ("", [], {}, ())}
    return [_filled(item) for item in value] if isinstance(value, list | tuple) else value


def _damaged(error: Exception) -> DamagedError:
    from reprod.core.redact import redact_text

    said = redact_text(str(error))  # a decoder quotes the value that it cannot use
    return DamagedError(
        f"this is not an environment record: {said}", hint="it was written by another version of reprod, or damaged"
    )
