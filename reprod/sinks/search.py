"""Finds a run by what a person writes, tells all of it, and lists the runs on a dataset. Child process only.

Read-only. A text becomes part of a filter only in characters that mean nothing there; what the filter finds too much is
left out here. Searches are bounded by pages, an answer by what one line may hold.
"""

import re
from collections.abc import Iterable, Iterator
from functools import singledispatch
from typing import Any

from reprod.sinks.failures import classify, error_code, kind_of
from reprod.sinks.run_folder import list_folder
from reprod.sinks.run_messages import AskRun, FindRun, Input, RunHead, RunsOn, RunsPage, WholeRun
from reprod.sinks.searching import EXPERIMENTS_A_CALL, active_experiments, chunks, run_page, run_pages

#: MLflow's own ids; other stores may have others, which then are found as a prefix of themselves.
RUN_ID = re.compile(r"[0-9a-f]{32}\Z")
PREFIX = re.compile(r"[0-9A-Za-z-]{1,64}\Z")

#: Runs a page (1,000 take some 2 s), and pages that are looked at for one question.
PAGE, PAGES = 1000, 10

#: Folders that are listed and paths that are told: a run with a large environment has 20 of ours.
MOST_FOLDERS, MOST_PATHS = 64, 1000

#: What a filter takes as it stands; anything else becomes ``_``, which stands for any one character in LIKE.
_UNFIT = re.compile(r"[^0-9A-Za-z .-]")


@singledispatch
def answer(ask: Any, client: Any) -> Any:
    """Return the answer to one of the questions of ``run_messages``."""
    raise TypeError(f"no question of this module: {type(ask).__name__}")


@answer.register
def find(ask: FindRun, client: Any) -> tuple[RunHead, ...]:
    """Return the runs that a text may mean, the newest first."""
    if RUN_ID.match(ask.text):
        try:
            run = client.get_run(ask.text)
        except Exception as error:
            if kind_of(error) not in {"gone", "permanent"}:
                raise
        else:
            return (_head(run, _experiment_name(client, run)),)
    names = _experiments(client)
    found: dict[str, RunHead] = {}
    for run in _candidates(client, list(names), ask.text):
        run_id, name = str(run.info.run_id), str(run.info.run_name or "")
        if run_id.startswith(ask.text) or name == ask.text:
            found[run_id] = _head(run, names.get(str(run.info.experiment_id)))
            if len(found) >= ask.at_most:
                break
    return tuple(sorted(found.values(), key=lambda head: -head.start_ms))


@answer.register
def whole(ask: AskRun, client: Any) -> WholeRun:
    """Return all that the server knows of a run; raises where there is none."""
    run = client.get_run(ask.run_id)
    data = run.data
    paths, unlisted = _listed(client, str(run.info.run_id), ask.folders)
    rows = getattr(getattr(run, "inputs", None), "dataset_inputs", None) or ()
    inputs = (row.dataset for row in rows)
    return WholeRun(
        head=_head(run, _experiment_name(client, run)),
        params={str(key): str(value) for key, value in data.params.items()},
        metrics={str(key): repr(float(value)) for key, value in data.metrics.items()},
        tags=_ours(data.tags),
        inputs=tuple(Input(str(e.name), str(e.digest), str(e.source), str(e.profile or "")) for e in inputs),
        artifacts=tuple(paths),
        unlisted=unlisted,
    )


@answer.register
def runs_on(ask: RunsOn, client: Any) -> RunsPage:
    """Return a page of the runs on which something of a dataset was recorded. ``ask.name`` is a dataset's name."""
    names = _experiments(client)
    everywhere = list(names)
    chunk, _, token = ask.page.partition(":")
    start = int(chunk or 0)
    question = f"tags.`reprod.recorded` LIKE '%{_UNFIT.sub('_', ask.name)}%'"
    page = run_page(client, everywhere[start : start + EXPERIMENTS_A_CALL], question, PAGE, token or None)
    following = start + EXPERIMENTS_A_CALL
    more = f"{start}:{page.token}" if page.token else f"{following}:" if following < len(everywhere) else None
    runs = ((_head(run, names.get(str(run.info.experiment_id))), _ours(run.data.tags)) for run in page)
    return RunsPage(tuple(runs), more)


def _candidates(client: Any, experiments: list[str], text: str) -> Iterator[Any]:
    """Yield the runs whose id may begin with a text, and those whose name may be it."""
    if PREFIX.match(text):
        try:
            yield from _pages(client, experiments, f"attributes.run_id LIKE '{text}%'")
        except Exception as error:  # a store that knows no LIKE for ids
            if error_code(error) not in {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}:
                raise
            yield from _pages(client, experiments, "")
            return
    if _UNFIT.search(text):
        yield from _pages(client, experiments, f"attributes.run_name LIKE '{_UNFIT.sub('_', text)}'")
    else:
        yield from _pages(client, experiments, f"attributes.run_name = '{text}'")


def _pages(client: Any, experiments: list[str], question: str) -> Iterator[Any]:
    """Yield runs, the newest first, from at most ``PAGES`` pages of each thousand experiments."""
    for some in chunks(experiments):
        yield from run_pages(client, some, question, PAGE, at_most=PAGES, newest_first=True)


def _experiments(client: Any) -> dict[str, str]:
    """Return the name of each active experiment by its id."""
    return {str(each.experiment_id): str(each.name) for each in active_experiments(client)}


def _experiment_name(client: Any, run: Any) -> str | None:
    try:
        return str(client.get_experiment(run.info.experiment_id).name)
    except Exception as error:
        if kind_of(error) not in {"gone", "permanent", "denied"}:
            raise
        return None


def _head(run: Any, experiment: str | None) -> RunHead:
    info = run.info
    return RunHead(
        run_id=str(info.run_id),
        name=str(info.run_name or ""),
        experiment=experiment,
        status=str(info.status),
        start_ms=int(info.start_time or 0),
        end_ms=int(info.end_time) if info.end_time else None,
        active=str(info.lifecycle_stage) == "active",
    )


def _ours(tags: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in tags.items() if str(key).startswith("reprod.")}


def _listed(client: Any, run_id: str, tops: Iterable[str]) -> tuple[list[str], str | None]:
    """Return the files in these folders, and why they could not be listed: tags tell a lot without them."""
    found: list[str] = []
    folders = list(tops)
    for _ in range(MOST_FOLDERS):
        if not folders or len(found) >= MOST_PATHS:
            break
        folder = folders.pop()
        try:
            infos = list_folder(client, run_id, folder)
        except Exception as error:  # the artifacts' store is another one, and fails in its own ways
            failure = classify(error)
            if failure.kind == "unreachable":
                raise
            return found, failure.message
        for info in infos:
            if str(info.path) != folder:  # of a file some stores list the file itself
                (folders if info.is_dir else found).append(str(info.path))
    return sorted(found), None
