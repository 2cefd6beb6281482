"""The part of the report page that speaks of the environment and the code: what ran, and how it differs.

Rule: what decides about a result comes first (differences by their gravity), what describes comes after, and long lists
are folded in, where no script is needed to open them.
"""

from collections.abc import Iterable

from reprod.core import environment_facts
from reprod.core.environment import PREFIX, Record
from reprod.core.environment_diff import Class, Comparison, Difference
from reprod.core.environment_facts import Fact
from reprod.core.environment_files import rebuildable
from reprod.core.report_data import Detail, callout
from reprod.core.report_html import (
    NOTHING,
    Html,
    code,
    facts,
    join,
    moment,
    named,
    prose,
    sentence,
    shortened,
    table,
    tag,
)
from reprod.core.report_since import EnvironmentSince
from reprod.core.report_words import Mark, counted, said_of_class
from reprod.core.repository import Git
from reprod.core.run_record import RunRecord

_REBUILD: dict[str, tuple[Mark, str]] = {
    "yes": ("good", "can be built again from what is recorded"),
    "partial": ("warn", "can be built again in part"),
    "no": ("bad", "cannot be built again"),
}

#: How an environment was taken, where the record's own word says little.
_HOW = {"handover": "told by the process itself", "registry": "from what the daemon has stored"}

#: Reasons and unknown sections that a page shows.
_REASONS = 6

#: Facts of the machine that a reader looks for first; the others are folded in.
_FIRST = ("Python", "GPUs", "CUDA", "ROCm", "CPU", "memory", "system", "container")
_FIRST_OF_PROCESS = ("command", "directory", "job")

_TOLD: frozenset[Class] = frozenset({"semantic", "numeric", "unknown"})


def environment_section(run: RunRecord, since: EnvironmentSince | None, detail: Detail) -> Html:
    """Return what the run ran with, and how that differs from the run before."""
    heading = tag("h2", "Environment")
    record = run.environment
    if record is None:
        why = run.environment_unknown or "No environment was recorded for this run."
        return tag(
            "section", heading, tag("p", "The environment of the training process is not known. ", prose(sentence(why)))
        )
    return tag("section", heading, _compared(since, detail), _known(record), _folded(record, detail))


def _known(record: Record) -> Html:
    env = record.environment
    rows = [(label, text) for label, text in environment_facts.machine_facts(env) if label in _FIRST]
    rows.insert(1, ("packages", environment_facts.packages_text(env.packages)))
    rows += [
        (label, text) for label, text in environment_facts.process_facts(record.execution) if label in _FIRST_OF_PROCESS
    ]
    verdict = rebuildable(env)
    mark, words = _REBUILD[verdict.verdict]
    reasons = [tag("li", prose(reason)) for reason in verdict.reasons[:_REASONS]]
    if len(verdict.reasons) > _REASONS:
        reasons.append(tag("li", f"and {len(verdict.reasons) - _REASONS:,} more in system_info.json"))
    listed = tag("details", tag("summary", "Why not wholly"), tag("ul", *reasons)) if reasons else NOTHING
    again = join([tag("span", verdict.verdict, class_=f"pill {mark}"), f" {words}", listed])
    how = record.execution.subject.how
    taken = join([moment(record.execution.taken_ns), ", ", prose(_HOW.get(how, how), 120)])
    return facts([*_cells(rows), ("Rebuild", again), ("Taken", taken), ("Digest", code(PREFIX + env.digest()))])


def _folded(record: Record, detail: Detail) -> Html:
    env, seen = record.environment, record.execution
    rows = [(label, text) for label, text in environment_facts.machine_facts(env) if label not in _FIRST]
    rows += [
        (label, text)
        for label, text in environment_facts.process_facts(seen)
        if label not in _FIRST_OF_PROCESS and text
    ]
    rows += [(f"not known: {label}", why) for label, why in environment_facts.unknown_facts(record)[:_REASONS]]
    parts = [tag("details", tag("summary", "More about machine and process"), facts(_cells(rows)))] if rows else []
    packages = [each for each in env.packages.packages if not each.shadowed] if env.packages else []
    if packages:
        names = [tag("li", prose(f"{each.name} {each.version}", 80)) for each in packages[: detail.packages]]
        if len(packages) > len(names):
            names.append(tag("li", f"and {len(packages) - len(names):,} more in packages.json"))
        listed = tag("ul", *names, class_="packages")
        parts.append(tag("details", tag("summary", f"All {len(packages):,} packages"), listed))
    return join(parts)


def _cells(rows: Iterable[Fact]) -> list[tuple[object, object]]:
    return [(shortened(label[:1].upper() + label[1:], 60), prose(text, 240)) for label, text in rows]


def _compared(since: EnvironmentSince | None, detail: Detail) -> Html:
    if since is None:
        return NOTHING
    who = join(["Compared with the run before, ", named(since.run.name), " (", code(since.run.run_id), ")."])
    if since.comparison is None:
        return tag("p", who, " ", prose(sentence(since.unknown or "its environment is not known")))
    found = since.comparison
    told = [each for each in found.differences if each.grade in _TOLD]
    parts = [callout(said_of_class(found.verdict), who, _counts(found))]
    if told:
        listed = _listed(told)[: detail.differences]
        why = any(each.why for each in listed)
        heads = ("", "What", "Before", "Now", "Why")
        parts.append(table(heads if why else heads[:-1], [_difference(each, why=why) for each in listed], "rows"))
        if len(told) > len(listed):
            parts.append(tag("p", f"and {len(told) - len(listed):,} more: reprod env diff lists them", class_="dim"))
        parts.append(tag("p", _LEGEND, class_="dim"))
    return join(parts)


_LEGEND = (
    "semantic: something else may be computed. numeric: the last digits may differ. unknown: missing on one side, and "
    "missing is never equal."
)


def _listed(differences: Iterable[Difference]) -> list[Difference]:
    """Return differences by gravity; within one, code and machine before packages, which may be hundreds."""
    grades: list[Class] = ["semantic", "numeric", "unknown"]
    return sorted(
        differences, key=lambda e: (grades.index(e.grade), e.fact.startswith(("packages.", "conda.")), e.fact)
    )


def _counts(comparison: Comparison) -> Html:
    told = ", ".join(f"{count:,} {grade}" for grade, count in counted(comparison))
    return tag("span", f"Differences: {told}.", class_="dim") if told else NOTHING


def _difference(each: Difference, *, why: bool) -> tuple[object, ...]:
    mark = said_of_class(each.grade).mark
    values = (tag("i", "none") if side is None else code(side) for side in (each.left, each.right))
    reason = (prose(each.why or ""),) if why else ()
    return tag("span", each.grade, class_=f"pill {mark}"), code(each.fact), *values, *reason


def code_section(record: Record | None) -> Html:
    """Return the state of the repository that the run's code came from."""
    git = record.environment.git if record is not None else None
    if record is None or git is None:
        why = record.environment.unknown.get("git") if record is not None else None
        return tag(
            "section", tag("h2", "Code"), tag("p", "No git repository is known", prose(f": {why}" if why else "."))
        )
    return tag("section", tag("h2", "Code"), _state(git), facts(_git_facts(git)))


def _state(git: Git) -> Html:
    if git.dirty is None:
        return NOTHING
    if not git.dirty:
        return tag("p", tag("span", "clean", class_="pill good"), " The code is that of the commit.")
    kept = any(each.name.startswith("git_diff") for each in git.files)
    where = "the changes are in environment/git_diff.txt." if kept else "the changes are not kept."
    return tag(
        "p", tag("span", "uncommitted changes", class_="pill warn"), f" The commit alone is not what ran: {where}"
    )


def _git_facts(git: Git) -> list[tuple[object, object]]:
    rows: list[tuple[object, object]] = [("Commit", code(git.commit)), ("Branch", prose(git.branch or "detached"))]
    changed = [
        f"{count:,} {words}"
        for count, words in ((git.staged, "staged"), (git.unstaged, "unstaged"), (git.untracked, "untracked"))
        if count
    ]
    if changed:
        rows.append(("Changed files", ", ".join(changed)))
    if git.unpushed:
        rows.append(("Unpushed", f"{git.unpushed:,} {'commit' if git.unpushed == 1 else 'commits'}"))
    if git.tree:
        rows.append(("Tree", code(git.tree)))
    rows += [("Remote", code(f"{each.name} {each.url}")) for each in git.remotes[:3]]
    if git.restorable:
        rows.append(("Can be had again", prose("; ".join([git.restorable, *git.reasons[:_REASONS]]))))
    rows += [("Withheld", join([named(each.path), ": ", prose(each.reason)])) for each in git.withheld[:_REASONS]]
    return [*rows, ("Path", code(git.root))]
