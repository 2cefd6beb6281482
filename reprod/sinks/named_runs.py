"""Finds runs by what names their datasets: not the run itself, another tag by now, or another host's record of it.

An experiment's tag ``reprod.dataset`` counts for the runs in it that have no such tag, else the first rule that fits
the experiment's name does. MLflow tells no time at which a tag was set, so whoever asks says since when each counts. A
run whose own tag is empty wants no dataset at all. Times are milliseconds since the epoch. Child process only.
"""

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any, get_args

from reprod.core.run import PendingRun, Source, dataset_names, key_of, split_name
from reprod.sinks.find_runs import HANDLED_A_CLAUSE, Experiment, RunFinder, is_refused
from reprod.sinks.many_hosts import NODES, OWNER, RECORDED, STATE, read_nodes
from reprod.sinks.protocol import (
    STORE_EXPERIMENT,
    Implied,
    ImpliedNow,
    ImpliedSource,
    Recorded,
    RecordedNow,
    Retagged,
)

PENDING = "tags.`reprod.dataset` IS NULL AND tags.`reprod.state` IS NULL"

PAGE_SIZE = 1000


def answer(finder: RunFinder, ask: Implied | Retagged | Recorded) -> ImpliedNow | list[PendingRun] | RecordedNow:
    """Return what one of the three asks for."""
    match ask:
        case Implied():
            return find_implied(finder, ask)
        case Retagged():
            return find_retagged(finder, ask)
        case Recorded():
            return find_recorded(finder, ask)


def find_implied(finder: RunFinder, ask: Implied) -> ImpliedNow:
    """Return what experiments and rules say now, and the runs for which that counts and which have no state.

    Looks at the experiments that the last poll listed.
    """
    sources = tuple(_sources(finder.experiments, ask.rules))
    known = {key: since for key, since in ask.since if key in sources}
    if not known:
        return ImpliedNow(sources)
    by_experiment = {key.experiment_id: (key, since_ms) for key, since_ms in known.items()}
    younger = f"attributes.start_time > {min(known.values()) - 1}"
    found: dict[str, PendingRun] = {}
    for run in finder.search(sorted(by_experiment), f"{PENDING} AND {younger}", (younger,), PAGE_SIZE, ask.handled):
        key, since_ms = by_experiment[str(run.info.experiment_id)]
        tags = run.data.tags
        if "reprod.state" not in tags and "reprod.dataset" not in tags and int(run.info.start_time or 0) >= since_ms:
            found[str(run.info.run_id)] = finder.pending(run, key.dataset, key.source)
    return ImpliedNow(sources, tuple(found.values()))


def _sources(experiments: Iterable[Experiment], rules: Iterable[tuple[str, str]]) -> Iterator[ImpliedSource]:
    """Yield what is said of each experiment of which anything is."""
    rules = tuple(rules)
    for each in experiments:
        if each.name == STORE_EXPERIMENT:
            continue
        fitting = next((dataset for pattern, dataset in rules if fnmatchcase(each.name, pattern)), "")
        said: tuple[tuple[Source, str], ...] = (("experiment", each.dataset), ("rule", fitting))
        source, dataset = next(((source, text) for source, text in said if dataset_names(text)), ("rule", ""))
        if dataset:
            yield ImpliedSource(each.experiment_id, source, dataset)


def find_retagged(finder: RunFinder, ask: Retagged) -> list[PendingRun]:
    """Return the runs of which something else was recorded than their tag says now."""
    found: dict[str, PendingRun] = {}
    everywhere = [each.experiment_id for each in finder.experiments]
    for value in ask.recorded:
        if not value or set(value) & set("'\"\\`"):  # cannot be put into a filter
            continue
        question = f"tags.`reprod.recorded` = '{value}' AND tags.`reprod.dataset` != '{value}'"
        try:
            runs = finder.search(everywhere, question, (question,), PAGE_SIZE, ())
        except Exception as error:
            if not is_refused(error):
                raise
            continue  # one value that the server's parser stumbles over must not end all polling
        for run in runs:
            if dataset_names(run.data.tags.get("reprod.dataset", "")):
                found[str(run.info.run_id)] = finder.pending(run)
    return list(found.values())


def find_recorded(finder: RunFinder, ask: Recorded) -> RecordedNow:
    """Return the younger runs that other hosts recorded, told apart by whether this host has to say something there.

    One search, which finds a run once: whoever asks keeps the ids of those that are settled.
    """
    question = f"tags.`{STATE}` LIKE '%' AND tags.`{OWNER}` != '{ask.host_id}'"
    question += f" AND attributes.start_time > {ask.since_ms}"
    seen = [run_id for run_id in ask.seen if run_id.isascii() and run_id.isalnum()][-HANDLED_A_CLAUSE:]
    if seen:
        question += " AND attributes.run_id NOT IN ({})".format(",".join(f"'{run_id}'" for run_id in seen))
    everywhere = [each.experiment_id for each in finder.experiments]
    try:
        found = finder.search(everywhere, question, (question,), PAGE_SIZE, ())
    except Exception as error:
        if not is_refused(error):
            raise
        return RecordedNow()  # a server that does not take this question must not end all polling
    runs, settled = list[PendingRun](), list[str]()
    for run in found:
        named, source = _named_by_record(run)
        lacking = [each for each in dataset_names(named) if split_name(each)[0] in ask.names]
        if any(ask.host_id[:8] not in read_nodes(run.data.tags.get(NODES + key_of(each), "")) for each in lacking):
            runs.append(finder.pending(run, named, source))
        else:
            settled.append(str(run.info.run_id))
    return RecordedNow(tuple(runs), tuple(settled))


def _named_by_record(run: Any) -> tuple[str, Source]:
    """Return the datasets of a recorded run, and who named them: its own tag, or what its record says."""
    tags = run.data.tags
    if "reprod.dataset" in tags:
        return str(tags["reprod.dataset"]), "run"
    said = tags.get("reprod.dataset_from", "")
    return str(tags.get(RECORDED, "")), next((each for each in get_args(Source) if each == said), "run")
