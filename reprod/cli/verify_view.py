"""The screen of a verification, and of a check of the chain: what a person reads, and the exit code that goes with it.

Takes the ``reprod.verify/1`` and ``reprod.verify-chain/1`` objects. Rule: the first line is the result, the next say
how deep it looked, and only then come the paths, so that a quick look is never read as if all had been read.
"""

import sys
from typing import Any

from reprod.cli import codes, render
from reprod.cli.screen import Screen

_REASONS = {"content": "other content", "size": "other size", "type": "other kind of file"}

_WHY_UNREADABLE = {"vanished": "vanished while it was to be read", "unstable": "changed while it was read"}


def tell(answer: dict[str, Any], *, as_json: bool) -> int:
    """Show a verification's report and return its exit code."""
    if as_json:
        print(render.to_json("verify", answer))
    else:
        _show(Screen(sys.stdout), answer)
    return exit_code(answer)


def exit_code(answer: dict[str, Any]) -> int:
    """Return 0, 1 or 5 for a verification's report."""
    incomplete = answer.get("complete") is False or bool(answer.get("unreadable"))
    differs = answer.get("differs")
    if differs is None:
        differs = any(answer.get(kind) for kind in ("missing", "mismatched", "extra"))
    if not answer.get("valid") and not incomplete:
        differs = True
    return codes.worst(codes.DIFFERS if differs else codes.FINE, codes.INCOMPLETE if incomplete else codes.FINE)


def _show(screen: Screen, answer: dict[str, Any]) -> None:
    screen.prose(*_headline(screen, answer))
    _show_counts(screen, answer)
    _show_depth(screen, answer)
    _show_whole(screen, answer.get("whole"))
    _show_mismatches(screen, answer)
    moved = answer.get("moved") or []
    gone, come = ([render.file_name(_end(entry, key)) for entry in moved] for key in ("from", "to"))
    shown = screen.listed(list(zip(gone, come, strict=True)))
    for source, target in shown:
        screen.line(f"  moved: {source} → {target}")
    _say_more(screen, "moved", len(moved) - len(shown))
    _listing(screen, "missing", _without(answer.get("missing"), gone))
    note = "" if answer.get("extra_fails", True) else " (nothing says that it should not be there)"
    _listing(screen, "not recorded", _without(answer.get("extra"), come), note)
    _listing(screen, "not readable", answer.get("unreadable") or [])
    _listing(screen, "written since, and not read", answer.get("unread") or [])
    _listing(screen, "not known when it was recorded", answer.get("unknown") or [])
    for warning in answer.get("manifest_warnings") or []:
        screen.prose(f"{screen.mark('warn')} {render.safe(warning)}", 2, "yellow")
    expected, actual = answer.get("digest_expected"), answer.get("digest_actual")
    if actual is not None and expected is not None and expected != actual:
        screen.prose(f"recorded {render.safe(expected)}", 2, "dim")
        screen.prose(f"found    {render.safe(actual)}", 2, "dim")


def _show_counts(screen: Screen, answer: dict[str, Any]) -> None:
    """Say in one line what is listed below, where that is more than one thing."""
    moved = len(answer.get("moved") or [])
    counted = [
        (len(answer.get("mismatched") or []), "modified"),
        (moved, "moved"),
        (len(answer.get("missing") or []) - moved, "missing"),
        (len(answer.get("extra") or []) - moved, "not recorded"),
        (len(answer.get("unreadable") or []), "not readable"),
    ]
    told = [f"{count:,} {what}" for count, what in counted if count > 0]
    if sum(max(count, 0) for count, _ in counted) > 1:
        screen.prose(" · ".join(told), 2)


def _headline(screen: Screen, answer: dict[str, Any]) -> tuple[str, int, str]:
    name, code = _name(answer), exit_code(answer)
    checked = render.plural(_files(answer), "file")
    links = answer.get("checked_links") or 0
    if links:
        checked += f", {render.plural(links, 'link')}"
    took = f"({checked}, {render.size(answer.get('bytes_hashed') or 0)} read, {render.duration(answer.get('seconds'))})"
    if code == codes.INCOMPLETE:
        return f"{screen.mark('warn')} {name} could not be verified as a whole {took}", 0, "yellow"
    if code != codes.FINE:
        return f"{screen.mark('bad')} {name} does not match what was recorded {took}", 0, "red"
    if answer.get("content_verified", True):
        return f"{screen.mark('good')} {name} is what was recorded {took}", 0, "green"
    return f"{screen.mark('good')} {name}: nothing differs in what was checked {took}", 0, "green"


def _show_depth(screen: Screen, answer: dict[str, Any]) -> None:
    """Say what was not looked at, and what the result rests on."""
    sample = answer.get("sample")
    if sample:
        chances = sample["detection_probability"]
        files = f"{answer.get('hashed_files', 0):,} of {render.plural(_files(answer), 'file')}"
        drawn = f"a random {sample['percent']:g} % (seed {sample['seed']}) and " if sample["percent"] else ""
        screen.prose(f"content of {files} read: {drawn}every file with other times", 2, "yellow")
        told = ", ".join(f"{_percent(chance)} if it is in {count}" for count, chance in chances.items())
        if sample["percent"]:
            screen.prose(f"chance of finding silent damage: {told}", 2, "dim")
    elif answer.get("mode", "quick") == "quick" and not answer.get("content_verified", True):
        screen.prose("content not read: sizes and times only", 2, "yellow")
    if answer.get("weak"):
        screen.prose("only md5 or sha1: shows damage, not what somebody changed on purpose", 2, "yellow")
    metadata = answer.get("metadata_only_count") or 0
    if metadata:
        screen.prose(f"other times or permissions: {metadata:,} (the content is equal where it was read)", 2, "dim")


def _show_whole(screen: Screen, whole: dict[str, Any] | None) -> None:
    """Say that no file was compared with another, and the totals of both sides where they are known."""
    if whole is None:
        return
    screen.prose("only the whole was compared: the names of its files were not published", 2, "yellow")
    if whole["recorded"] is not None:
        screen.prose(f"{_totals(whole['recorded'])} recorded, {_totals(whole['found'])} found", 2, "dim")


def _totals(totals: dict[str, int]) -> str:
    return f"{render.plural(totals['files'], 'file')} of {render.size(totals['bytes'])}"


def _files(answer: dict[str, Any]) -> int:
    return int(answer.get("checked_files") or 0) - int(answer.get("checked_links") or 0)


def _percent(chance: float) -> str:
    return "over 99.9 %" if 0.999 < chance < 1 else f"{100 * chance:.3g} %"


def _name(answer: dict[str, Any]) -> str:
    if answer.get("root") is not None:
        return render.safe(answer["root"])
    ref, version = render.safe(answer.get("ref")), answer.get("version")
    return ref if version is None or ref.endswith(f"@{version}") else f"{ref}@{version}" if ":" not in ref else ref


def _end(entry: dict[str, Any], key: str) -> dict[str, Any]:
    """Return one end of a move as an entry with a path."""
    encoded = entry.get(f"{key}_b64")
    return {"path": entry.get(key), **({"path_b64": encoded} if encoded else {})}


def _without(entries: list[Any] | None, told: list[str]) -> list[Any]:
    """Return the entries that were not told already, as they are shown: a moved file is missing here and new there."""
    known = set(told)
    return [entry for entry in entries or [] if render.file_name(entry) not in known]


def _show_mismatches(screen: Screen, answer: dict[str, Any]) -> None:
    found = answer.get("mismatched") or []
    kinds = {str(entry.get("path")): entry for entry in answer.get("type_changes") or []}
    shown = screen.listed(found)
    for entry in shown:
        reason = _REASONS.get(str(entry.get("reason")), render.safe(entry.get("reason")))
        if entry.get("silent"):
            reason += " behind unchanged size and times (silent corruption)"
        if "expected_size" in entry:
            before, after = entry["expected_size"], entry["actual_size"]
        elif entry.get("reason") == "type" and str(entry.get("path")) in kinds:
            kind = kinds[str(entry.get("path"))]
            before, after = kind["expected"], kind["actual"]
        else:
            before, after = entry.get("expected"), entry.get("actual")
        both = isinstance(before, int) and isinstance(after, int)
        change = render.growth(before, after) if both else f"{_value(before)} → {_value(after)}"
        screen.entry(f"modified: {render.file_name(entry)}", f"{reason}  {change}")
    _say_more(screen, "modified", len(found) - len(shown))


def _value(value: object) -> str:
    return render.size(value) if isinstance(value, int) else render.digest(value) if value else "-"


def _listing(screen: Screen, label: str, entries: list[Any], note: str = "") -> None:
    shown = screen.listed(entries)
    for entry in shown:
        problem = ""
        if isinstance(entry, dict) and entry.get("problem"):
            word = str(entry["problem"])
            problem = f"  {render.safe(_WHY_UNREADABLE.get(word, word))}"
        screen.line(f"  {label}: {render.file_name(entry)}{problem}{note}")
    _say_more(screen, label, len(entries) - len(shown))


def _say_more(screen: Screen, label: str, hidden: int) -> None:
    if hidden:
        screen.line(f"  {label}: and {hidden:,} more (in a pipe or with --json all)")


def show_chain(screen: Screen, answer: dict[str, Any]) -> None:
    """Show whether the records of a dataset's versions are those that were sealed."""
    name, count = render.safe(answer["name"]), render.plural(answer["versions"], "version")
    if answer["valid"]:
        whole = "is whole" if answer.get("complete", True) else "has gaps"
        mark, colour = ("good", "green") if answer.get("complete", True) else ("warn", "yellow")
        screen.prose(f"{screen.mark(mark)} the chain of {name} {whole} ({count})", colour=colour)
    else:
        screen.prose(f"{screen.mark('bad')} the chain of {name} is broken ({count})", colour="red")
    for entry in screen.listed(answer["broken"]):
        screen.line(f"  version {entry['version']}: {render.safe(entry['reason'])}")
    for entry in screen.listed(answer.get("lost") or []):
        run = f", which run {render.safe(entry['run_id'])} recorded" if entry.get("run_id") else ""
        screen.line(f"  lost: version {entry['version']}{run}")
    if answer.get("contents_verified"):
        screen.prose(f"{render.plural(answer['contents_checked'], 'digest')} computed again from the entries", 2, "dim")
    head = answer.get("head")
    if head:
        screen.prose(f"head {render.safe(head['chain'])} (version {head['version']})", 2, "dim")
