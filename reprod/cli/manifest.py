"""``reprod manifest``: describe a folder or a file as it is now, or check it against such a description. No daemon.

Rule: the document goes to standard output or into the file that --output names, what is said of it to the other one's
side: a result on standard output never has talk in it. The output itself is no part of the set that it describes.
"""

import argparse
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from reprod.cli import codes, render
from reprod.cli.output import ended_by_signals
from reprod.cli.screen import ProgressLine, Screen
from reprod.core.entry import Entry, named
from reprod.core.manifest import Header, document, document_chunks, looked_at
from reprod.errors import StateError, UsageError

if TYPE_CHECKING:
    from reprod.ops.generate import Generated

SCHEMA = "reprod.manifest/1"

# Problems that a person reads; the document lists them all.
_SHOWN = 10

_GITIGNORE_ACTING = str.maketrans({character: f"\\{character}" for character in "\\*?["})

# Below this the start is most of the time.
_SPEED_COUNTS_FROM_S = 0.5

# Entries between two looks at the clock while a document is written.
_WRITTEN_AT_ONCE = 5000


def run(args: argparse.Namespace) -> int:
    """Make a manifest, or with --validate check one; return 0, 5 if something could not be read, or 1 if it differs."""
    path = _path(args)
    if args.validate is not None:
        return _validate(args, path)
    if args.mode or args.sample is not None or args.seed is not None:
        raise UsageError("a manifest is made by reading everything", hint="how much to read goes with --validate F")
    from reprod.ops.generate import check_metadata, generate

    output = None if args.output in {None, "-"} else args.output
    exclude, own = list(args.exclude), _own_output(output, path)
    if own is not None:
        exclude.append(_pattern(own))
    progress = ProgressLine("manifest")
    reading = generate(
        path,
        include=args.include,
        exclude=exclude,
        algorithms=args.algorithm or ["sha256"],
        max_files=args.max_files,
        metadata=check_metadata(_metadata(args.metadata)),
        progress=lambda counts: progress.show({"phase": "reading", "files": counts.files, "bytes": counts.bytes}),
    )
    with ended_by_signals(), progress, reading as found:
        if output is None:
            progress.clear()
            warnings = _print(found, schema=SCHEMA if args.json else None)
        else:
            warnings = _save(found, output, progress)
            progress.clear()
        _tell(args, found, output, own, warnings)
        return _code(found)


def _code(found: "Generated") -> int:
    """Return 5 for a set that is not whole though nobody asked for a part; a cut that was asked for is no fault."""
    missing = found.problems or (found.header.digest is None and found.header.max_files is None)
    return codes.INCOMPLETE if missing else codes.FINE


def _path(args: argparse.Namespace) -> str:
    """Return PATH; where a flag with several values took it for its last one, take it back."""
    if args.path is not None:
        return str(args.path)
    flag, count = args.last_values
    if count > 1 and os.path.lexists(getattr(args, flag)[-1]):
        return str(getattr(args, flag).pop())
    raise UsageError("PATH is missing", hint="write it first: reprod manifest PATH --include '*.csv' '*.json'")


def _metadata(pairs: list[str]) -> dict[str, str] | None:
    for pair in pairs:
        if not pair.partition("=")[1] or pair.startswith("="):
            raise UsageError(f"--metadata {pair!r} is no KEY=VALUE", hint="--metadata experiment=baseline seed=7")
    return {key: value for key, _, value in (pair.partition("=") for pair in pairs)} if pairs else None


def _own_output(output: str | None, path: str) -> str | None:
    """Return where the document itself lies in the folder that it describes, None if it does not.

    Standard output may be such a file too (``reprod manifest . > manifest.json``): the shell has already made it.
    """
    try:
        if output is None:
            if not stat.S_ISREG(os.fstat(1).st_mode):
                return None
            output = os.readlink("/proc/self/fd/1")
        root = os.path.realpath(path)
        target = os.path.realpath(output)
    except (OSError, ValueError):
        return None
    if os.path.commonpath([root, target]) != root or root == target or not os.path.isdir(root):
        return None
    relative = os.path.relpath(target, root)
    try:
        relative.encode()
    except UnicodeEncodeError:  # patterns are text; such a name cannot be left out
        return None
    return relative


def _pattern(relative: str) -> str:
    """Return the gitignore pattern for exactly this path."""
    escaped = relative.translate(_GITIGNORE_ACTING)
    return f"/{escaped[:-1]}\\ " if escaped.endswith(" ") else f"/{escaped}"


def _print(found: "Generated", schema: str | None) -> list[str]:
    """Write the document to standard output; return what it warns of."""
    warnings: list[str] = []
    header = replace(found.header, schema=schema)
    if sys.stdout is None:  # closed by the shell
        raise StateError("there is no standard output", hint="write to a file: --output FILE")

    def write(entries: Iterator[Entry]) -> None:
        try:
            for piece in document_chunks(header, looked_at(entries, warnings)):
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            hint = "make room, or write elsewhere: --output FILE"
            raise StateError(f"standard output cannot be written: {error.strerror}", hint=hint) from error

    found.read(write)
    return warnings


def _save(found: "Generated", output: str, progress: ProgressLine) -> list[str]:
    """Write the document to a file; return what it warns of."""
    from reprod.ops.generate import save

    warnings: list[str] = []

    def write(entries: Iterator[Entry]) -> None:
        save(document_chunks(found.header, looked_at(_counted(entries, found.files, progress), warnings)), output)

    found.read(write)
    return warnings


def _counted(entries: Iterator[Entry], total: int, progress: ProgressLine) -> Iterator[Entry]:
    for number, entry in enumerate(entries):
        if number % _WRITTEN_AT_ONCE == 0:
            progress.show({"phase": "writing", "files": number, "total_files": total})
        yield entry


def _tell(
    args: argparse.Namespace, found: "Generated", output: str | None, own: str | None, warnings: list[str]
) -> None:
    """Say what was made: on standard output if the document went elsewhere, else on standard error."""
    if args.json:
        if output is not None:
            head = replace(found.header, schema=SCHEMA)
            answer = found.read(lambda entries: document(head, entries, list_files=False))
            print(render.to_json("manifest", {**answer, "output": output}))
        return
    screen = Screen(sys.stdout if output is not None else sys.stderr)
    header = found.header
    name = screen.paint(render.safe(header.data_path), "bold")
    counted = f"{render.plural(found.files, 'file')}, {render.size(found.size)}"
    screen.line(f"{name}  {render.digest(header.digest)}  {counted}")
    written = f" → {render.safe(output)}" if output is not None else ""
    screen.prose(f"{_speed(header, found.seconds)}{written}", 2, "dim")
    if own is not None:
        screen.prose(f"{render.safe(own)} is the manifest itself, so it is left out", 2, "dim")
    if header.max_files is not None:
        screen.prose(f"cut after the first {render.plural(header.max_files, 'file')}: no digest", 2, "yellow")
    for warning in warnings[:_SHOWN]:
        screen.prose(f"{screen.mark('warn')} {render.safe(warning)}", 2, "yellow")
    if found.problems:
        screen.prose("incomplete: no digest until these can be read", 2, "yellow")
        for path, problem in found.problems[:_SHOWN]:
            screen.prose(f"{render.file_name(named(path or b'.'))}: {problem.word}", 4)
        if len(found.problems) > _SHOWN:
            screen.prose(f"and {len(found.problems) - _SHOWN:,} more (the manifest lists them)", 4)


def _speed(header: Header, seconds: float) -> str:
    took = f"read in {render.duration(seconds)}"
    if not header.hashed_bytes or seconds < _SPEED_COUNTS_FROM_S:
        return took
    files = round((header.hashed_files or 0) / seconds)
    return f"{took}, {files:,} files/s, {render.size(header.hashed_bytes / seconds)}/s"


def _validate(args: argparse.Namespace, path: str) -> int:
    """Compare the files at ``path`` with the manifest that --validate names, as ``reprod verify F PATH`` does."""
    from reprod.cli import verify

    made = ("output", "include", "exclude", "max_files", "algorithm", "metadata")
    wrong = [f"--{name.replace('_', '-')}" for name in made if getattr(args, name)]
    if wrong:
        raise UsageError(
            f"--validate takes what it needs from the manifest, {wrong[0]} is for making one",
            hint=f"reprod manifest PATH --validate {args.validate}",
        )
    return verify.run(
        argparse.Namespace(
            config=args.config, ref=args.validate, path=None, root=path, dataset=None, chain=False,
            mode=args.mode or "full", sample=args.sample, seed=args.seed, json=args.json,
        )
    )  # fmt: skip
