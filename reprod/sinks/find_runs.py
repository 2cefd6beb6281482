"""Finds tagged runs on a tracking server. Imports mlflow: for the child process only.

No timestamp of MLflow moves when a tag is set, so presence and absence of tags is the only complete question. Pages
are offsets into a result that shrinks when a state is written (30 pending, page size 10: only 20 seen, measured):
all pages are collected before anything is returned.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from reprod.core.run import PendingRun, dataset_names
from reprod.sinks.failures import error_code, kind_of
from reprod.sinks.protocol import RunRow, RunsNow

PENDING = "tags.`reprod.dataset` IS NOT NULL AND tags.`reprod.state` IS NULL"

#: MLflow before 3.11 refuses IS NULL on tags; LIKE needs the tag to exist, so a missing state is seen only here.
TAGGED = "tags.`reprod.dataset` LIKE '%'"

#: An empty list of experiments finds nothing, and 260,000 ids at once were a 500 (measured).
EXPERIMENTS_A_CALL = 1000

#: 1,000 excluded ids cost 440 ms on 50,000 runs (measured); beyond this the clauses cost more than the rows.
HANDLED_A_CLAUSE = 500
HANDLED_AT_MOST = 5000


class RunFinder:
    """Asks one server; remembers, for its own life, that the server is too old for the short question."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.lacks_is_null = False

    def poll(self, page_size: int, handled: Sequence[str] = ()) -> list[PendingRun]:
        """Return every run that has a dataset tag and no state, oldest first within 1,000 experiments, each once."""
        experiments = list(self._experiment_ids())
        if not self.lacks_is_null:
            try:
                return self._search(experiments, PENDING, page_size)
            except Exception as error:
                if error_code(error) not in {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}:
                    raise
        found = self._search(experiments, _tagged_except(handled), page_size)
        self.lacks_is_null = True
        return found

    def runs(self, run_ids: Iterable[str]) -> RunsNow:
        """Return these runs as they are now; deleted and unknown ones are ``missing``."""
        rows, missing, denied = [], [], []
        for run_id in dict.fromkeys(run_ids):
            try:
                run = self._client.get_run(run_id)
            except Exception as error:
                # A malformed id is refused with a 400 before it is looked up: no run has it.
                kind = kind_of(error)
                if kind in {"gone", "permanent"}:
                    missing.append(run_id)
                elif kind == "denied":
                    denied.append(run_id)
                else:
                    raise
                continue
            if run.info.lifecycle_stage != "active":
                missing.append(run_id)
                continue
            tags = {key: str(value) for key, value in run.data.tags.items() if key.startswith("reprod.")}
            rows.append(RunRow(run=_pending(run), tags=tags))
        return RunsNow(tuple(rows), tuple(missing), tuple(denied))

    def _experiment_ids(self) -> Iterator[str]:
        from mlflow.entities import ViewType

        token = None
        while True:
            page = self._client.search_experiments(
                view_type=ViewType.ACTIVE_ONLY, max_results=EXPERIMENTS_A_CALL, page_token=token
            )
            for experiment in page:
                yield str(experiment.experiment_id)
            token = page.token
            if not token:
                return

    def _search(self, experiments: list[str], question: str, page_size: int) -> list[PendingRun]:
        found: dict[str, PendingRun] = {}
        for start in range(0, len(experiments), EXPERIMENTS_A_CALL):
            for run in self._pages(experiments[start : start + EXPERIMENTS_A_CALL], question, page_size):
                tags = run.data.tags
                if "reprod.state" not in tags and dataset_names(tags.get("reprod.dataset", "")):
                    found[str(run.info.run_id)] = _pending(run)
        return list(found.values())

    def _pages(self, experiments: list[str], question: str, page_size: int) -> Iterator[Any]:
        from mlflow.entities import ViewType

        token = None
        while True:
            page = self._client.search_runs(
                experiments,
                filter_string=question,
                run_view_type=ViewType.ACTIVE_ONLY,
                max_results=page_size,
                # Oldest first, so that a run that starts meanwhile comes on a later page and moves none.
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return


def _tagged_except(handled: Sequence[str]) -> str:
    clauses = [TAGGED]
    # Only what an id can be goes into the filter; a foreign one excludes nothing anyway.
    usable = [run_id for run_id in handled if run_id.isascii() and run_id.replace("-", "").isalnum()]
    latest = usable[-HANDLED_AT_MOST:]
    for start in range(0, len(latest), HANDLED_A_CLAUSE):
        quoted = ",".join(f"'{run_id}'" for run_id in latest[start : start + HANDLED_A_CLAUSE])
        clauses.append(f"attributes.run_id NOT IN ({quoted})")
    return " AND ".join(clauses)


def _pending(run: Any) -> PendingRun:
    info, tags = run.info, run.data.tags
    return PendingRun(
        run_id=str(info.run_id),
        experiment_id=str(info.experiment_id),
        name=str(info.run_name or ""),
        status=str(info.status),
        start_ms=int(info.start_time or 0),
        end_ms=int(info.end_time) if info.end_time else None,
        dataset=str(tags.get("reprod.dataset", "")),
        context=tags.get("reprod.context"),
        note=tags.get("reprod.note"),
    )
