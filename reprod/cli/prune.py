"""``reprod prune``: forget old versions now, or say which would go. A live daemon does it, else this command."""

import argparse
import sys
from typing import Any

from reprod.cli import codes, render
from reprod.cli.history import unscanned
from reprod.cli.place import Place, locate
from reprod.cli.screen import Screen
from reprod.errors import NotFoundError

# Folding a version of a million changes takes some ten seconds, and there may be many.
SILENCE_S = 60.0

_REASONS = {
    "newest": "the newest",
    "recent": "recent",
    "waiting": "a run still waits for them",
    "run": "runs used them",
    "daily": "one a day",
}
_SHOWN = 10


def run(args: argparse.Namespace) -> int:
    """Prune one dataset or all."""
    place = locate(args)
    try:
        reports = _reports(place, args.name, dry_run=args.dry_run)
    finally:
        place.close()
    if args.json:
        print(render.to_json("prune", {"dry_run": args.dry_run, "datasets": reports}))
        return codes.FINE
    screen = Screen(sys.stdout)
    for report in reports:
        _show(screen, report)
    if not reports:
        screen.prose("there is no history to look through")
    return codes.FINE


def _reports(place: Place, name: str | None, *, dry_run: bool) -> list[dict[str, Any]]:
    if place.client is not None:
        params = {"name": name, "dry_run": dry_run}
        answer = place.client.call("prune", params, timeout_s=SILENCE_S, patient=True)
        return list(answer.get("datasets") or [])
    from reprod.ops import prune

    config = place.config()
    try:
        return prune.prune_here(place.state, name, config.store, dry_run=dry_run)
    except NotFoundError as error:
        raise unscanned(config, name, error) from error


def _show(screen: Screen, report: dict[str, Any]) -> None:
    gone = report.get("pruned") or []
    verb = "would be forgotten" if report.get("dry_run") else "forgotten"
    name = screen.paint(render.safe(report.get("name")), "bold")
    kept = ", ".join(
        f"{count:,} {_REASONS.get(why, why)}" for why, count in (report.get("kept") or {}).items() if count
    )
    screen.prose(f"{name}  {render.plural(len(gone), 'version')} {verb}, {report.get('kept_versions')} kept ({kept})")
    if gone:
        shown = ", ".join(f"@{seq}" for seq in gone[:_SHOWN])
        more = f" and {len(gone) - _SHOWN:,} more (--json lists them)" if len(gone) > _SHOWN else ""
        screen.prose(f"{shown}{more}", 2, "dim")
    if report.get("bytes") is not None:
        before, after = report.get("bytes_before"), report["bytes"]
        screen.prose(f"{render.size(before)} before, {render.size(after)} now", 2, "dim")
    if report.get("over_bytes"):
        screen.prose(
            f"still {render.size(report['over_bytes'])} over max_gb: what is left is recent or used by runs",
            2,
            "yellow",
        )
