"""The screen of ``reprod status``: who answers, the tracking server, a line for each dataset, what needs a person last.

Takes the ``reprod.status/1`` object as the daemon or the registry gives it; a missing or null field is shown as ``-``
or left out, never guessed.
"""

from typing import Any

from reprod.cli import render
from reprod.cli.dataset_view import show_table, state_of
from reprod.cli.screen import Screen, columns

NO_TRACKING = "no tracking server: tagged runs are not noticed"
_NO_TRACKING_HINT = 'set tracking_uri under [mlflow] in reprod.toml ("local" starts one), then restart the daemon'


def show_all(screen: Screen, answer: dict[str, Any]) -> None:
    """Write the whole screen."""
    show_known(screen, answer)
    show_needs(screen, answer)


def show_known(screen: Screen, answer: dict[str, Any]) -> None:
    """Write what there is."""
    datasets = answer.get("datasets") or []
    _header(screen, answer)
    screen.line()
    if datasets:
        show_table(screen, datasets)
    else:
        screen.prose("no datasets yet", 2)
        screen.prose("hint: reprod dataset add NAME PATH", 2)
    _environment(screen, answer)


def _header(screen: Screen, answer: dict[str, Any]) -> None:
    if not answer.get("live", True):
        when = f"{render.ago(answer['stopped_at'])}" if answer.get("stopped_at") else ""
        if answer.get("silent"):
            what = "reprod does not answer"
        else:
            what = f"reprod is not running{f': stopped {when}' if when else ''}"
        screen.prose(f"{screen.mark('new')} {what}. Last known state, not live:", colour="red")
        return
    whose = f"{'system' if answer.get('system') else 'user'} daemon of {render.safe(answer.get('user'))}"
    parts = [
        *([whose] if answer.get("user") is not None else []),
        f"pid {answer.get('pid', '-')}",
        f"up {render.duration(answer.get('uptime_seconds'))}",
        render.size(answer.get("rss_bytes")),
    ]
    name = f"{screen.mark('good')} reprod {render.safe(answer.get('version'))}"
    about = " · ".join(parts)
    if screen.width is None or columns(name) + 2 + columns(about) <= screen.width:
        screen.line(f"{screen.paint(name, 'green')}  {about}")
    else:
        screen.line(screen.paint(name, "green"))
        screen.prose(about, 2)
    _tracking(screen, answer.get("tracking") or {}, answer.get("runs") or {}, bool(answer.get("attention")))
    _totals(screen, answer.get("datasets") or [])


def _totals(screen: Screen, datasets: list[dict[str, Any]]) -> None:
    if not datasets:
        return
    parts = [f"watching {render.plural(len(datasets), 'dataset')}"]
    for key, shown in (("files", lambda count: render.plural(count, "file")), ("bytes", render.size)):
        known = [each[key] for each in datasets if isinstance(each.get(key), int)]
        parts += [shown(sum(known))] if known else []
    screen.prose(" · ".join(parts), 2)


def _tracking(screen: Screen, tracking: dict[str, Any], runs: dict[str, Any], told: bool) -> None:
    """Write the lines about the tracking server; ``told``: what to do about it stands further below."""
    state = tracking.get("state")
    waiting = _waiting(runs)
    if state == "none":
        screen.prose(NO_TRACKING, 2, "yellow")
        if any(runs.get(key) for key in ("waiting", "incomplete", "failed")):
            screen.prose(waiting, 2)
        if not told:
            screen.prose(f"hint: {_NO_TRACKING_HINT}", 2)
        return
    address = f" {render.safe(tracking['uri'])}" if tracking.get("uri") else ""
    where = f"MLflow{address}{' (local)' if tracking.get('local') else ''}"
    if state == "unreachable":
        reason = f": {render.safe(tracking['error'])}" if tracking.get("error") else ""
        screen.prose(f"{where} is unreachable{reason}", 2, "yellow")
        last = (
            f"last answer {render.ago(tracking['last_poll_at'])}" if tracking.get("last_poll_at") else "no answer yet"
        )
        screen.prose(f"{last} · {waiting}", 2)
        return
    word = {"reachable": "reachable", "starting": "starting"}.get(str(state), render.safe(state))
    polled = f" · polled {render.ago(tracking['last_poll_at'])}" if tracking.get("last_poll_at") else ""
    server = f"{where} {word}{polled}"
    if screen.width is None or columns(f"  {server} · {waiting}") <= screen.width:
        screen.prose(f"{server} · {waiting}", 2)
    else:
        screen.prose(server, 2)
        screen.prose(waiting, 2)


def _waiting(runs: dict[str, Any]) -> str:
    text = f"{render.plural(runs.get('waiting') or 0, 'run')} waiting"
    if runs.get("waiting") and runs.get("oldest_waiting_seconds") is not None:
        text += f", the oldest for {render.duration(runs['oldest_waiting_seconds'])}"
    for key in ("incomplete", "failed"):
        if runs.get(key):
            text += f", {runs[key]:,} {key}"
    return text


def _environment(screen: Screen, answer: dict[str, Any]) -> None:
    environment = answer.get("environment") or {}
    if not environment.get("digest"):
        return
    sampled = environment.get("interpreters") or 0
    also = f" · {render.plural(sampled, 'interpreter')} sampled" if sampled else ""
    screen.line()
    screen.prose(
        f"environment {render.digest(environment['digest'])}  taken {render.ago(environment.get('taken_at'))}{also}", 2
    )


def show_needs(screen: Screen, answer: dict[str, Any]) -> None:
    """Write what needs a person."""
    needs = answer.get("attention") or []
    if not needs:
        return
    screen.line()
    verb = "needs" if len(needs) == 1 else "need"
    screen.line(screen.paint(f"{render.plural(len(needs), 'thing')} {verb} you:", "bold"))
    told = {item.get("name"): item for item in answer.get("datasets") or []}
    for need in needs:
        what, hint = _need(need, told.get(need.get("dataset")))
        screen.prose(f"{screen.mark('warn')} {what}", 2, "yellow")
        if hint:
            screen.prose(f"hint: {hint}", 4)


def _need(need: dict[str, Any], dataset: dict[str, Any] | None) -> tuple[str, str]:
    """Return what a person should act on, and the hint; what already stands below its dataset is not told twice."""
    what, hint = render.safe(need.get("what")), render.safe(need.get("hint") or "")
    if dataset is None or not dataset.get("reason") or need.get("what") != f"{dataset['name']}: {dataset['reason']}":
        return what, hint
    return f"{render.safe(dataset['name'])} is {state_of(dataset)[2]}, see above", ""
