"""``reprod verify``: are the files what a version says? Reads every byte unless told otherwise. No daemon is needed."""

import argparse
import sys
from typing import Any

from reprod.cli import codes, render
from reprod.cli.place import locate
from reprod.cli.screen import ProgressLine, Screen

# A terminal is no place for a million names; --json lists them all.
_SHOWN = 50

_REASONS = {"content": "other content", "size": "other size", "type": "other kind of file"}


def run(args: argparse.Namespace) -> int:
    """Verify; return 0 if valid and complete, 1 if something differs, 5 if something could not be read."""
    from reprod.ops import verify

    place = locate(args)
    place.close()
    config = place.config()
    with ProgressLine(render.safe(args.ref)) as progress:
        answer = verify.verify(place.state, config, args.ref, args.path, args.mode, _no_checkpoint, progress.show)
    if args.json:
        print(render.to_json("verify", answer))
    else:
        _show(Screen(sys.stdout), answer)
    return exit_code(answer)


def exit_code(answer: dict[str, Any]) -> int:
    """Return 0, 1 or 5 for a verification's report."""
    incomplete = answer.get("complete") is False or bool(answer.get("unreadable"))
    differs = any(answer.get(kind) for kind in ("missing", "mismatched", "extra"))
    if not answer.get("valid") and not incomplete:
        differs = True
    return codes.worst(codes.DIFFERS if differs else codes.FINE, codes.INCOMPLETE if incomplete else codes.FINE)


def _show(screen: Screen, answer: dict[str, Any]) -> None:
    name = _name(answer)
    code = exit_code(answer)
    checked = render.plural(answer.get("checked_files") or 0, "file")
    took = f"({checked}, {render.size(answer.get('bytes_hashed') or 0)} read, {render.duration(answer.get('seconds'))})"
    if code == codes.FINE:
        screen.prose(f"{screen.mark('good')} {name} is what was recorded {took}", colour="green")
    elif code == codes.INCOMPLETE:
        screen.prose(f"{screen.mark('warn')} {name} could not be verified as a whole {took}", colour="yellow")
    else:
        screen.prose(f"{screen.mark('bad')} {name} does not match what was recorded {took}", colour="red")
    if not answer.get("content_verified", True):
        screen.prose("content not read: sizes and times only", 2, "yellow")
    for each in _mismatches(answer):
        screen.line(f"  {each}")
    moved = answer.get("moved") or []
    for entry in moved[:_SHOWN]:
        screen.line(f"  moved: {render.file_name(entry.get('from'))} → {render.file_name(entry.get('to'))}")
    _listing(screen, "missing", _without(answer.get("missing"), [entry.get("from") for entry in moved[:_SHOWN]]))
    _listing(screen, "not recorded", _without(answer.get("extra"), [entry.get("to") for entry in moved[:_SHOWN]]))
    _listing(screen, "not readable", answer.get("unreadable") or [])
    expected, actual = answer.get("digest_expected"), answer.get("digest_actual")
    if "digest_actual" in answer and expected != actual:
        screen.prose(f"recorded {render.safe(expected or 'no digest')}", 2, "dim")
        screen.prose(f"found    {render.safe(actual or 'no digest')}", 2, "dim")


def _name(answer: dict[str, Any]) -> str:
    ref, version = render.safe(answer.get("ref")), answer.get("version")
    return ref if version is None or ref.endswith(f"@{version}") else f"{ref}@{version}" if ":" not in ref else ref


def _without(entries: list[Any] | None, told: list[Any]) -> list[Any]:
    """Return the entries that were not told already: a moved file is missing here and new there."""
    return [entry for entry in entries or [] if entry not in told]


def _mismatches(answer: dict[str, Any]) -> list[str]:
    lines = []
    found = answer.get("mismatched") or []
    for entry in found[:_SHOWN]:
        reason = _REASONS.get(str(entry.get("reason")), render.safe(entry.get("reason")))
        if entry.get("silent"):
            reason += " behind unchanged size and times (silent corruption)"
        detail = f"{_value(entry.get('expected'))} → {_value(entry.get('actual'))}"
        lines.append(f"modified: {render.file_name(entry)}  {reason}  {detail}")
    if len(found) > _SHOWN:
        lines.append(f"modified: and {len(found) - _SHOWN:,} more (--json lists them)")
    return lines


def _value(value: object) -> str:
    return render.size(value) if isinstance(value, int) else render.digest(value) if value else "-"


def _listing(screen: Screen, label: str, entries: list[Any]) -> None:
    for entry in entries[:_SHOWN]:
        problem = f"  {render.safe(entry['problem'])}" if isinstance(entry, dict) and entry.get("problem") else ""
        screen.line(f"  {label}: {render.file_name(entry)}{problem}")
    if len(entries) > _SHOWN:
        screen.line(f"  {label}: and {len(entries) - _SHOWN:,} more (--json lists them)")


def _no_checkpoint() -> None:
    """Do nothing: on the command line Ctrl-C already interrupts wherever it comes."""
