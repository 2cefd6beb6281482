"""``reprod diff`` of two states of a dataset: a version, a run's, or the files as they are now."""

import argparse
import sys
from typing import Any

from reprod.cli import codes, render
from reprod.cli.history import unscanned
from reprod.cli.place import locate
from reprod.cli.screen import Screen
from reprod.core.run import SHOWN_ID
from reprod.errors import NotFoundError


def run(args: argparse.Namespace) -> int:
    """Compare two states of a dataset, those that runs used too, by what this host knows."""
    from reprod.ops import diff as verb

    place = locate(args)
    place.close()
    config = place.config()
    try:
        answer = verb.diff(place.state, config, args.a, args.b, _no_checkpoint)
    except NotFoundError as error:
        raise unscanned(config, args.a, unscanned(config, args.b, error)) from error
    doubtful = [e for e in answer.get("modified") or [] if e.get("problem_a") or e.get("problem_b")]
    certain = len(answer.get("modified") or []) > len(doubtful)
    differs = certain or any(answer.get(kind) for kind in ("added", "removed", "renamed"))
    if args.json:
        print(render.to_json("diff", answer))
    else:
        _show_diff(Screen(sys.stdout), answer, differs or bool(doubtful))
    incomplete = bool(doubtful) or any((answer.get(side) or {}).get("complete") is False for side in ("a", "b"))
    return codes.worst(codes.DIFFERS if differs else codes.FINE, codes.INCOMPLETE if incomplete else codes.FINE)


def _show_diff(screen: Screen, answer: dict[str, Any], differs: bool) -> None:
    sides = f"{_side(answer.get('a'))} → {_side(answer.get('b'))}"
    for key in ("a", "b"):
        if (answer.get(key) or {}).get("complete") is False:
            screen.prose(f"{_side(answer[key])} is not wholly known", 0, "yellow")
    unknown = answer.get("unknown") or []
    if not differs:
        screen.prose(f"{sides}   no difference{' in what is known' if unknown else ''}")
        _show_unknown(screen, answer, unknown)
        return
    counts = [
        f"{len(answer[kind]):,} {kind}" for kind in ("added", "modified", "removed", "renamed") if answer.get(kind)
    ]
    growth = (answer.get("summary") or {}).get("bytes")
    if growth:
        counts.append(f"{'+' if growth > 0 else '−'}{render.size(abs(growth))}")
    screen.prose(f"{sides}   {' · '.join(counts)}")
    _show_changes(screen, answer)
    _show_unknown(screen, answer, unknown)


def show_listed(screen: Screen, answer: dict[str, Any]) -> None:
    """Show what differs between two sets that were compared elsewhere."""
    _show_diff(screen, answer, differs=True)


def _show_changes(screen: Screen, answer: dict[str, Any]) -> None:
    for kind, show in (("added", _added), ("modified", _modified), ("renamed", _renamed), ("removed", _removed)):
        entries = answer.get(kind) or []
        shown = screen.listed(entries)
        for entry in shown:
            screen.entry(*show(screen, entry))
        if len(entries) > len(shown):
            screen.line(f"  and {len(entries) - len(shown):,} more {kind} (in a pipe or with --json all)")


def _show_unknown(screen: Screen, answer: dict[str, Any], entries: list[dict[str, Any]]) -> None:
    """List the folders of which nothing is said, each with the side that could not list it."""
    shown = screen.listed(entries)
    for entry in shown:
        sides = " and ".join(_title(answer.get(key)) for key in ("a", "b") if entry.get("side") in {key, "both"})
        screen.line(f"  {screen.paint('?', 'yellow')}  {render.file_name(entry)}  not known in {sides}")
    if len(entries) > len(shown):
        hidden = render.plural(len(entries) - len(shown), "more folder")
        screen.line(f"  and {hidden} of which that is not known (in a pipe or with --json all)")


def _added(screen: Screen, entry: dict[str, Any]) -> tuple[str, str]:
    return f"{screen.paint('A', 'green')}  {render.file_name(entry)}", render.size(entry.get("size"))


def _removed(screen: Screen, entry: dict[str, Any]) -> tuple[str, str]:
    return f"{screen.paint('D', 'red')}  {render.file_name(entry)}", render.size(entry.get("size"))


def _modified(screen: Screen, entry: dict[str, Any]) -> tuple[str, str]:
    sizes = render.growth(entry.get("size_a"), entry.get("size_b"))
    hashes = f"{render.digest(entry.get('digest_a'))} → {render.digest(entry.get('digest_b'))}"
    problem = entry.get("problem_b") or (f"was {entry['problem_a']}" if entry.get("problem_a") else "")
    about = render.safe(problem) if problem else f"{sizes}  {hashes}"
    return f"{screen.paint('M', 'yellow')}  {render.file_name(entry)}", about


def _renamed(screen: Screen, entry: dict[str, Any]) -> tuple[str, str]:
    old, new = (
        render.file_name({"path": entry.get(key), "path_b64": entry.get(f"{key}_b64")}) for key in ("from", "to")
    )
    return f"{screen.paint('R', 'cyan')}  {old} → {new}", render.size(entry.get("size"))


def _side(ref: object) -> str:
    """Return one side of a comparison as people write it: ``imagenet@41 dt1:7f3a1c0e1234``, ``imagenet now``."""
    title = _title(ref)
    if not isinstance(ref, dict):
        return title
    shown = ref.get("digest") if ref.get("name") is None else ref.get("version") is not None
    return f"{title} {render.digest(ref.get('digest'))}" if shown else title


def _title(ref: object) -> str:
    """Return one side of a comparison without its digest."""
    if not isinstance(ref, dict):
        return render.safe(ref)
    name = render.safe(ref.get("ref") or ref.get("name") or "?")
    version = ref.get("version")
    if ref.get("name") is None:  # a manifest file
        return name
    if version is None:
        return name if name.startswith("run:") else f"{name.split('@')[0]} now"
    if ref.get("run_id"):
        return f"{render.safe(ref['name'])}@{version} (run {render.safe(ref['run_id'])[:SHOWN_ID]})"
    return name if name.endswith(f"@{version}") else f"{name}@{version}"


def _no_checkpoint() -> None:
    """Do nothing: on the command line Ctrl-C already interrupts wherever it comes."""
