"""What in the status needs a person: each with one sentence of what is wrong, and what to do about it.

Rule: what mends itself, or what nobody can do anything about, is not here. A command that helps stands there whole.
"""

import time
from typing import TYPE_CHECKING, Any

from reprod.core.amount import size
from reprod.core.run import split_name
from reprod.sinks.child import HINTS
from reprod.store import outbox

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon


def attention(daemon: "Daemon", datasets: list[dict[str, Any]], counts: outbox.Counts) -> list[dict[str, str]]:
    """Return what a person should act on, each with what to do."""
    needs = _tracking_needs(daemon, counts)
    if daemon.stuck is not None:
        needs.append(_need(f"nothing can be written down: {daemon.stuck.message}", daemon.stuck.hint))
    if daemon.listener.error is not None:
        needs.append(_need(daemon.listener.error, daemon.listener.hint))
    if daemon.registry_set_aside is not None:
        lost = f"the registry was damaged and rebuilt; the old one is {daemon.registry_set_aside}"
        needs.append(_need(lost, "runs that waited in it are found again by polling; look at the file, then remove it"))
    needs += [
        _need(
            f"the database of {work.dataset.name} was damaged and rebuilt; the old one is {work.set_aside}",
            "versions from before cannot be proven any more; look at the file, then remove it",
        )
        for work in daemon.works.values()
        if work.set_aside is not None
    ]
    needs += [
        _need(
            f"{_runs(count)} of other hosts name {name}, which is this host's alone: left to the daemons there",
            f'if the data is the same there: scope = "shared" in datasets.d/{name}.toml',
        )
        for name, count in sorted(daemon.trigger.elsewhere.items())
    ]
    needs += _contested_needs(daemon)
    for shown in datasets:
        needs += [{"dataset": shown["name"], **need} for need in _dataset_needs(shown)]
    return needs


def _tracking_needs(daemon: "Daemon", counts: outbox.Counts) -> list[dict[str, str]]:
    needs = []
    if daemon.tracking.state == "none":
        cure = 'set tracking_uri in reprod.toml, or MLFLOW_TRACKING_URI; "local" starts one'
        needs.append(_need("no tracking server: tagged runs are not noticed", cure))
    elif daemon.tracking.state == "unreachable":
        denied = daemon.tracking.denied
        lost = f"the tracking server {'refuses reprod' if denied else 'does not answer'}: {daemon.tracking.error}"
        waiting = f"{_runs(counts.waiting)} waiting: delivered" if counts.waiting else "runs are recorded"
        wait = f"{waiting} when it is back: start it, or correct tracking_uri"
        needs.append(_need(lost, HINTS["denied"] + "; then restart the daemon" if denied else wait))
    if refused := len(daemon.courier.denied):
        cure = "let it edit their experiments, then they are recorded by themselves; reprod runs --waiting"
        needs.append(_need(f"reprod's user on the tracking server may not write to {_runs(refused)}", cure))
    if counts.failed:
        needs.append(_need(f"{_runs(counts.failed)} could not be recorded", "reprod runs --failed says why"))
    return needs


def _contested_needs(daemon: "Daemon") -> list[dict[str, str]]:
    """Return what to do for runs that nobody records, since several hosts have what they name: one for each name."""
    seen = daemon.trigger.unanswered
    alike: dict[str, list[str]] = {}  # runs by what they are told: equal words mean equal names and hosts
    for run_id, told in seen.disputed(time.monotonic()).items():
        alike.setdefault(told, []).append(run_id)
    needs = []
    for run_ids in alike.values():
        found = seen.since.get(run_ids[0])
        verdicts = daemon.answering.of(found[1]) if found is not None else {}
        names = [named for named, each in verdicts.items() if each == "contested"]
        if names:
            who = f"{_runs(len(run_ids))} of {', '.join(names)}"
            cure = f"on the host where it ran: reprod snapshot {split_name(names[0])[0]} --run {run_ids[0]}"
            needs.append(_need(f"{who} not recorded: several hosts have that, and nobody said where it ran", cure))
    return needs


def _dataset_needs(shown: dict[str, Any]) -> list[dict[str, str]]:
    name, problems = shown["name"], shown["problems"]
    if shown["state"] in {"unavailable", "failed", "misconfigured"}:
        return [_need(f"{name}: {shown['reason']}", str(shown["hint"] or ""))]
    needs = []
    if shown["state"] == "incomplete":
        first = f"first: {problems[0]['path']} ({problems[0]['problem']})" if problems else f"reprod scan {name}"
        count = shown["problem_count"]
        told = "1 entry cannot be read or keeps" if count == 1 else f"{count:,} entries cannot be read or keep"
        needs.append(_need(f"{name}: {told} changing: no digest", first))
    over = (shown.get("history") or {}).get("over_bytes")
    if over:
        cure = "runs and the last keep_days need it: raise [store] max_gb, or lower keep_days"
        needs.append(_need(f"the database of {name} is {size(over)} over max_gb", cure))
    reason = str(shown["watch_reason"] or "")
    if shown["watch"] == "poll" and not reason.startswith("configured"):
        needs.append(_need(f"{name} is polled, not watched: {reason}", "changes are found by walking"))
    return needs


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _need(what: str, hint: str) -> dict[str, str]:
    return {"what": what, "hint": hint}
