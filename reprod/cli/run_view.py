"""The screen of ``show``: what a run was trained on, what of it is otherwise here now, and what can be had again.

Rule: every section says what is known and, right below, how it is here; what is not known is said with its reason.
"""

from collections import Counter
from collections.abc import Iterable

from reprod.cli import render
from reprod.cli.env_view import subject_text
from reprod.cli.screen import Screen
from reprod.core import environment_facts
from reprod.core.drift import DatasetDrift
from reprod.core.environment_diff import ORDER
from reprod.core.manifest import rfc3339
from reprod.core.rebuild import judge
from reprod.core.run import key_of
from reprod.core.run_record import RunRecord, UsedDataset
from reprod.ops.run_here import DatasetHere, EnvironmentHere, Here

_STATES = {"captured": ("good", "green"), "incomplete": ("warn", "yellow"), "failed": ("bad", "red")}
_HERE = {
    "same": ("good", "green"),
    "touched": ("warn", "yellow"),
    "differs": ("bad", "red"),
    "absent": ("new", ""),
    "unknown": ("warn", "yellow"),
}
_GRADES = {"semantic": ("bad", "red"), "numeric": ("warn", "yellow"), "unknown": ("warn", "yellow")}
_REBUILD = {"yes": ("good", "green"), "partial": ("warn", "yellow"), "no": ("bad", "red")}

_BOUND = {
    "start": "what the disk held when the run started, proven by a walk or the watch",
    "ctime": "what the disk held when the run started, proven by its times",
    "ambiguous": "it changed too close to the start of the run to say which",
    "late": "what it held when the run started cannot be proven any more",
}
_DRIFT = {
    "none": "nothing changed while it ran",
    "appended": "only new files came while it ran",
    "changed": "it changed while it ran",
    "unknown": "whether it changed while it ran is not known",
}

_NAMED_BY = {"experiment": "its data is named by its experiment", "rule": "its data is named by a [[rule]]"}

#: Reasons against a rebuild, names of drifted files and differing packages that a screen tells.
_REASONS, _NAMED = 3, 3


def show_run(screen: Screen, run: RunRecord, here: Here) -> None:
    """Show all of it."""
    _show_head(screen, run)
    beside = {each.name: each for each in here.datasets}
    _title(screen, "data")
    if not run.datasets:
        screen.prose("no dataset was recorded: nothing names one (tag reprod.dataset)", 2, "yellow")
    for used in run.datasets:
        drift = next((each for each in run.drift.datasets if each.name == used.name), None) if run.drift else None
        _show_dataset(screen, used, drift, beside.get(used.name))
        conflict = run.tags.get(f"reprod.conflict.{key_of(used.name)}")
        if conflict:
            screen.field("conflict", screen.paint(render.safe(conflict), "yellow"))
    if run.drift is None and run.tags.get("reprod.drift") in _DRIFT:
        screen.field("drift", _DRIFT[run.tags["reprod.drift"]])
    _show_code(screen, run, here)
    _show_environment(screen, run, here.environment)
    _show_rebuild(screen, run)
    for problem in run.problems:
        screen.prose(f"{screen.mark('bad')} {render.safe(problem)}", 2, "red")
    _show_checks(screen, run)


def _show_checks(screen: Screen, run: RunRecord) -> None:
    """Name the commands that read every byte."""
    proven = [each.name for each in run.datasets if each.digest is not None]
    if proven:
        _title(screen, "check it")
    for name in proven:
        which = f" --dataset {render.safe(name)}" if len(proven) > 1 else ""
        screen.line(f"  reprod verify run:{render.safe(run.run_id)}{which}")


def _show_head(screen: Screen, run: RunRecord) -> None:
    mark, colour = _STATES.get(run.state or "", ("new", "yellow"))
    name = f"  {render.safe(run.name)}" if run.name else ""
    screen.line(f"{screen.paint('run ' + render.safe(run.run_id), 'bold')}{name}")
    started = rfc3339(run.start_ns)
    seconds = (run.end_ns - run.start_ns) / 1e9 if run.end_ns is not None else None
    ran = f", ran {render.duration(seconds)}" if seconds is not None else ""
    where = f"{run.experiment}, " if run.experiment else ""
    screen.field(
        "run", render.safe(f"{where}{run.status}, started {render.moment(started)} ({render.ago(started)}){ran}")
    )
    told = run.state or _why_nothing(run)
    by = f" by {run.host}" if run.host else ""
    sure = f", as sure as a {run.assurance} is" if run.assurance else ""
    screen.field(
        "recorded", f"{screen.paint(f'{screen.mark(mark)} {render.safe(told)}', colour)}{render.safe(by + sure)}"
    )
    source = _NAMED_BY.get(run.tags.get("reprod.dataset_from", ""))
    if source:
        screen.field("", source)
    for said in (run.error, run.tags.get("reprod.note")):
        if said:
            screen.field("", render.safe(said))


def _why_nothing(run: RunRecord) -> str:
    """Say what a run waits for of which nothing is recorded."""
    named = run.tags.get("reprod.dataset")
    if not named:
        return "nothing is recorded of it, for it names no dataset: tag it with reprod.dataset = NAME"
    return f"nothing is recorded of it yet: reprod status, where {named} is, says what it waits for"


def _title(screen: Screen, text: str) -> None:
    screen.line()
    screen.line(screen.paint(text, "bold"))


def _show_dataset(screen: Screen, used: UsedDataset, drift: DatasetDrift | None, here: DatasetHere | None) -> None:
    version = f"@{used.version} " if used.version is not None else ""
    counts = [
        render.plural(used.files, "file") if used.files is not None else "",
        render.size(used.bytes) if used.bytes is not None else "",
    ]
    told = ", ".join(part for part in counts if part)
    screen.prose(
        f"{screen.paint(render.safe(used.name), 'bold')}  {version}{render.digest(used.digest)}  {told}".rstrip(), 2
    )
    if used.digest is not None:
        screen.field("digest", render.safe(used.digest), whole=True)
    if used.bound is not None:
        screen.field("bound", f"{used.bound}: {_BOUND[used.bound]}")
    if used.root:
        screen.field("at", render.file_name(used.root))
    if used.error:
        screen.field("error", screen.paint(render.safe(used.error), "yellow"))
    for version_number, digest in used.candidates:
        screen.field("perhaps", f"@{version_number} {render.digest(digest)}")
    if drift is not None:
        paths = ", ".join(render.file_name(each.path) for each in drift.paths[:_NAMED])
        screen.field(
            "drift", f"{_DRIFT[drift.verdict]}: {render.safe(drift.reason)}" + (f" ({paths})" if paths else "")
        )
    if here is not None:
        mark, colour = _HERE[here.verdict]
        named = f": {', '.join(render.file_name(each) for each in here.sample)}" if here.sample else ""
        where = f"{render.file_name(here.root)}: " if here.root and here.root != used.root else ""
        screen.field(
            "here now", screen.paint(f"{screen.mark(mark)} {where}{render.safe(here.sentence)}{named}", colour)
        )


def _show_code(screen: Screen, run: RunRecord, here: Here) -> None:
    _title(screen, "code")
    git = run.environment.environment.git if run.environment is not None else None
    if git is None:
        commit = run.params.get("reprod.git_commit", run.params.get("git_commit"))
        why = run.environment.environment.unknown.get("git") if run.environment is not None else run.environment_unknown
        told = f"commit {commit}" if commit else "not known" + (f": {why}" if why else "")
        screen.prose(render.safe(told), 2, "" if commit else "yellow")
        return
    screen.field("git", render.safe(environment_facts.git_text(git)))
    screen.field("at", render.file_name(git.root))
    if git.remote:
        screen.field("remote", render.safe(git.remote))
    if here.code is not None:
        mark, colour = {True: ("good", "green"), False: ("bad", "red"), None: ("warn", "yellow")}[here.code.same]
        screen.field("here now", screen.paint(f"{screen.mark(mark)} {render.safe(here.code.sentence)}", colour))


def _show_environment(screen: Screen, run: RunRecord, here: EnvironmentHere | None) -> None:
    _title(screen, "environment")
    if run.environment is None:
        screen.prose(render.safe(f"not recorded: {run.environment_unknown or 'nobody captured it'}"), 2, "yellow")
        return
    env, seen = run.environment.environment, run.environment.execution
    screen.field("of", subject_text(seen.subject))
    known = dict(environment_facts.machine_facts(env))
    facts = [
        (label, known[label]) for label in ("Python", "system", "CPU", "GPUs", "CUDA", "container") if label in known
    ]
    for label, text in [*facts, ("packages", environment_facts.packages_text(env.packages))]:
        screen.field(label, render.safe(text))
    if here is None:
        return
    if here.comparison is None:
        screen.field("here now", screen.paint(f"{screen.mark('warn')} {render.safe(here.sentence)}", "yellow"))
        return
    mark, colour = _GRADES.get(here.comparison.verdict, ("good", "green"))
    counted = Counter(each.grade for each in here.comparison.differences)
    told = ", ".join(f"{counted[grade]:,} {grade}" for grade in reversed(ORDER) if counted[grade]) or "no difference"
    verdict = f"{screen.mark(mark)} {here.comparison.verdict}: {told} ({render.file_name(here.of)})"
    screen.field("here now", screen.paint(verdict, colour))
    gravest = [each for each in here.comparison.differences if each.grade in _GRADES][:_NAMED]
    for each in gravest:
        screen.field("", render.safe(f"{each.fact}: {each.left or '-'} → {each.right or '-'}"))
    if counted:
        screen.field("", f"reprod env diff run:{render.safe(run.run_id)} now lists all")


def _show_rebuild(screen: Screen, run: RunRecord) -> None:
    _title(screen, "can it be had again?")
    proven = [each for each in run.datasets if each.digest is not None]
    if proven:
        told = "the bytes are not on the server, but what is recorded proves any copy of them"
        screen.field(
            "data", told if not any("manifest of" in each for each in run.problems) else "its manifest is gone"
        )
    if run.environment is None:
        screen.field("rest", "not known: no environment is recorded")
        return
    env = run.environment.environment
    if env.git is not None:
        _verdict(screen, "code", env.git.restorable or "no", env.git.reasons)
    packages = judge(env.packages, env.conda, python=env.python)
    _verdict(screen, "packages", packages.verdict, packages.reasons)


def _verdict(screen: Screen, label: str, verdict: str, reasons: Iterable[str]) -> None:
    mark, colour = _REBUILD[verdict]
    screen.field(label, screen.paint(f"{screen.mark(mark)} {verdict}", colour))
    listed = list(reasons)
    for each in listed[:_REASONS]:
        screen.field("", render.safe(each))
    if len(listed) > _REASONS:
        screen.field("", f"and {render.plural(len(listed) - _REASONS, 'more reason')} (with --json all)")
