"""The screens of ``env capture``, ``env list`` and ``env show``: an environment for people.

Rule: what is unknown is said with its reason, beside what is known; packages stand in columns on a terminal and one a
line elsewhere.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from reprod.cli import render
from reprod.cli.screen import Column, Screen, columns, table
from reprod.core import environment_facts
from reprod.core.environment import NOT_APPLICABLE, Environment, Record
from reprod.core.environment_files import rebuildable
from reprod.core.execution import Subject
from reprod.core.manifest import rfc3339
from reprod.core.packages import PackageSet
from reprod.core.rebuild import Rebuildable

_REBUILD = {"yes": ("good", "green"), "partial": ("warn", "yellow"), "no": ("bad", "red")}

#: Reasons against a rebuild on the screen of a capture; env show has all.
_REASONS = 3

#: A column of packages: longer entries have a line of their own.
_WIDEST = 38
_GAP = 2

#: More than any environment has: what a terminal gets of a record that somebody made up.
_PACKAGES = 2000


def show_captured(screen: Screen, record: Record, files: Iterable[str], directory: str, run_id: str | None) -> None:
    """Show what was captured in a few lines, what of it is unknown, and where it is now."""
    env = record.environment
    screen.prose(f"captured {screen.paint(_digest(env.digest()), 'bold')}  {subject_text(record.execution.subject)}")
    known: dict[str, str] = dict(environment_facts.machine_facts(env))
    shown: list[environment_facts.Fact] = [(label, known[label]) for label in ("Python",) if label in known]
    shown.append(("packages", environment_facts.packages_text(env.packages)))
    shown += [(label, known[label]) for label in ("GPUs", "CUDA", "container") if label in known]
    if env.git is not None:
        shown.append(("git", environment_facts.joined([environment_facts.git_text(env.git), env.git.root])))
    _fields(screen, [*shown, *environment_facts.benchmark_facts(record.execution)])
    _show_rebuild(screen, rebuildable(env), _REASONS)
    _show_unknown(screen, record)
    screen.prose(f"wrote {render.safe(directory)}: {', '.join(map(render.safe, files))}")
    if run_id is not None:
        screen.prose(f"logged to run {render.safe(run_id)}")


def show_list(screen: Screen, rows: Sequence[dict[str, Any]]) -> None:
    """Show the environments that are known; who had them stands below where a line has no room for it."""
    shown = screen.listed(rows)
    cells = [_row(row) for row in shown]
    subjects = ["; ".join(map(_subject_row, row["subjects"])) or "-" for row in shown]
    heads = [*_HEADS, Column("OF", drop=1)]
    whole = table(screen, heads, [[*row, (of, "")] for row, of in zip(cells, subjects, strict=True)], indent=0)
    if screen.width is None or whole[0].endswith("OF"):
        for line in whole:
            screen.line(line)
    else:
        heading, *lines = table(screen, _HEADS, cells, indent=0)
        screen.line(heading)
        for line, subject in zip(lines, subjects, strict=True):
            screen.line(line)
            screen.prose(subject, 2, "dim")
    if len(rows) > len(shown):
        screen.prose(f"and {len(rows) - len(shown):,} more (in a pipe or with --json all)", 0, "dim")


_HEADS = [
    Column("DIGEST"),
    Column("PYTHON"),
    Column("PACKAGES", right=True),
    Column("RUNS", right=True),
    Column("FIRST SEEN"),
    Column("LAST SEEN"),
]


def _row(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (render.digest(row["digest"]), "bold"),
        (render.safe(row["python"] or "-"), ""),
        (render.number(row["packages"]), ""),
        (render.number(row["runs"]), ""),
        (render.ago(row["first_seen_at"]), ""),
        (render.ago(row["last_seen_at"]), ""),
    ]


def _subject_row(subject: dict[str, Any]) -> str:
    count = subject["processes"]
    kind = render.plural(count, "process", "processes") if count else subject["kind"]
    where = f"{render.file_name(subject['prefix'])} " if subject["prefix"] else ""
    return f"{where}on {render.safe(subject['host'])} ({kind})"


def show_whole(screen: Screen, record: Record, digest: str, about: str) -> None:
    """Show all that is known of one environment."""
    env, seen = record.environment, record.execution
    screen.line(f"{screen.paint(_digest(digest), 'bold')}  {render.safe(about)}")
    taken = rfc3339(seen.taken_ns)
    when = f"{render.moment(taken)}, {render.ago(taken)}"
    _fields(screen, [("of", subject_text(seen.subject)), ("taken", when)])
    screen.field("digest", f"env1:{digest}", whole=True)
    _fields(screen, environment_facts.machine_facts(env))
    if env.cpu is not None and env.cpu.flags:
        _fields(screen, [("CPU flags", " ".join(env.cpu.flags))])
    if env.git is not None:
        _section(screen, "code", environment_facts.code_facts(env.git))
    _show_variables(screen, env)
    _section(screen, "process", environment_facts.process_facts(seen))
    _fields(screen, environment_facts.benchmark_facts(seen))
    if env.packages is not None:
        _show_packages(screen, env.packages)
    if env.conda is not None:
        screen.line()
        screen.line(screen.paint(f"conda packages ({len(env.conda.packages):,})", "bold"))
        _in_columns(screen, [f"{each.name} {each.version} {each.build}" for each in env.conda.packages])
    screen.line()
    _show_rebuild(screen, rebuildable(env), None)
    _show_unknown(screen, record)
    for problem in environment_facts.problems(env):
        screen.prose(f"not read: {render.safe(problem)}", 2, "yellow")


def subject_text(subject: Subject) -> str:
    """Return whose environment it is: ``/venv on trainer (process 4242, in-process)``."""
    who = f"{subject.kind} {subject.pid}" if subject.pid is not None else subject.kind
    where = f"{render.file_name(subject.prefix)} " if subject.prefix else ""
    return f"{where}on {render.safe(subject.host)} ({who}, {render.safe(subject.how)})"


def _digest(digest: str) -> str:
    return render.digest(f"env1:{digest}")


def _fields(screen: Screen, facts: Iterable[environment_facts.Fact]) -> None:
    before = None
    for label, text in facts:
        if not text:
            continue
        screen.field(render.safe(label) if label != before else "", render.safe(text))
        before = label


def _section(screen: Screen, title: str, facts: Iterable[environment_facts.Fact]) -> None:
    listed = list(facts)
    if listed:
        screen.line()
        screen.line(screen.paint(title, "bold"))
        _fields(screen, listed)


def _show_variables(screen: Screen, env: Environment) -> None:
    if not env.variables and not env.other_variables:
        return
    screen.line()
    screen.line(screen.paint("variables", "bold"))
    for name, value in env.variables.items():
        screen.prose(f"{render.safe(name)}={render.safe(value)}", 2)
    if env.other_variables:
        others = ", ".join(map(render.safe, env.other_variables))
        screen.prose(f"also set, their values are not recorded: {others}", 2, "dim")


def _show_packages(screen: Screen, found: PackageSet) -> None:
    screen.line()
    screen.line(screen.paint(f"packages ({environment_facts.packages_text(found)})", "bold"))
    _in_columns(screen, [f"{each.name} {each.version}" for each in found.packages if not each.shadowed])
    for package in found.packages:
        name = f"{render.safe(package.name)} {render.safe(package.version)}"
        if package.shadowed:
            screen.prose(f"shadowed: {name} in {render.file_name(package.location)}", 2, "dim")
        elif package.direct_url:
            commit = f" at {render.safe(package.commit)}" if package.commit else ""
            kind = f"{package.origin or 'from'}: "
            screen.prose(f"{render.safe(kind)}{name}, {render.safe(package.direct_url)}{commit}", 2)
        for path in package.edited or ():
            screen.prose(f"edited: {render.file_name(path)} of {name}", 2, "yellow")
    for broken in found.broken:
        screen.prose(f"broken: {render.safe(broken.record)}: {render.safe(broken.reason)}", 2, "yellow")


def _in_columns(screen: Screen, entries: Sequence[str]) -> None:
    """Write entries from top to bottom, in as many columns as a terminal has room for."""
    told = [render.safe(entry) for entry in entries]
    if screen.width is None:
        for entry in told:
            screen.line(f"  {entry}")
        return
    shown = told[:_PACKAGES]
    short = [entry for entry in shown if columns(entry) <= _WIDEST]
    width = max(map(columns, short), default=1) + _GAP
    count = max(1, (screen.width - _GAP) // width)
    height = -(-len(short) // count)
    for row in range(height):
        cells = short[row::height]
        screen.line("  " + "".join(cell + " " * (width - columns(cell)) for cell in cells).rstrip())
    for entry in shown:
        if columns(entry) > _WIDEST:
            screen.prose(entry, 2)
    if len(told) > len(shown):
        screen.prose(f"and {len(told) - len(shown):,} more (in a pipe or with --json all)", 2, "dim")


def _show_rebuild(screen: Screen, verdict: Rebuildable, most: int | None) -> None:
    mark, colour = _REBUILD[verdict.verdict]
    words = {
        "yes": "all of it can be had again",
        "partial": "not all of it can be had again",
        "no": "it cannot be had again",
    }
    screen.field(
        "rebuilds", screen.paint(f"{screen.mark(mark)} {verdict.verdict}", colour) + f": {words[verdict.verdict]}"
    )
    shown = verdict.reasons[:most]
    for reason in shown:
        screen.prose(f"- {render.safe(reason)}", 12)
    if len(verdict.reasons) > len(shown):
        screen.prose(f"- and {len(verdict.reasons) - len(shown):,} more: reprod env show lists them", 12, "dim")


def _show_unknown(screen: Screen, record: Record) -> None:
    facts = environment_facts.unknown_facts(record)
    for i, (section, why) in enumerate(facts):
        applies = why not in NOT_APPLICABLE
        text = f"{render.safe(section)}: {render.safe(why)}"
        screen.field("unknown" if i == 0 else "", screen.paint(text, "" if applies else "dim"))
