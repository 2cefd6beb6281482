"""Finds tagged runs on a tracking server. Imports mlflow: for the child process only.

No timestamp of MLflow moves when a tag is set, so presence and absence of tags is the only complete question. Pages
are offsets into a result that shrinks when a state is written (30 pending, page size 10: only 20 seen, measured):
all pages are collected before anything is returned. A server before 3.11 cannot be asked for absence; that it is one
is found out by asking it, and again every ``OLD_FOR_S`` seconds.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reprod.core.run import PendingRun, Source, dataset_names
from reprod.sinks.failures import error_code, kind_of
from reprod.sinks.protocol import RunRow, RunsNow
from reprod.sinks.searching import active_experiments, chunks, run_pages

PENDING = "tags.`reprod.dataset` IS NOT NULL AND tags.`reprod.state` IS NULL"

#: MLflow before 3.11 refuses IS NULL on tags; LIKE needs the tag to exist, so a missing state is seen only here.
TAGGED = "tags.`reprod.dataset` LIKE '%'"

#: 1,000 excluded ids cost 440 ms on 50,000 runs (measured); beyond this the clauses cost more than the rows. The parser
#: of the server (sqlparse 0.6) refuses 10,000 words, and an id with its comma is two: 3,000 were taken, 5,000 not.
HANDLED_A_CLAUSE = 500
HANDLED_AT_MOST = 2000

#: Fewer runs than this are asked for one by one: a request for each is no more than a search.
FEW = 3

#: What asks for the age of a server alone: no other word in it can be refused.
IS_NULL = "tags.`reprod.state` IS NULL"

#: A server may be upgraded while the child lives: three more requests an hour.
OLD_FOR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Experiment:
    """An active experiment; ``dataset`` is its tag ``reprod.dataset``, "" without one."""

    experiment_id: str
    name: str
    dataset: str


class RunFinder:
    """Asks one server; remembers for a while that it is too old for the short question."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._old_until_s = float("-inf")
        self._experiments: list[Experiment] | None = None
        self._names: dict[str, str] = {}

    @property
    def experiments(self) -> list[Experiment]:
        """As the last poll found them; a child that was killed since then lists them anew, instead of finding none."""
        if self._experiments is None:
            self._experiments = list(self._list_experiments())
            self._names = {each.experiment_id: each.name for each in self._experiments}
        return self._experiments

    @property
    def lacks_is_null(self) -> bool:
        """Whether the server is known to be too old to be asked for runs without a tag."""
        return time.monotonic() < self._old_until_s

    def poll(self, page_size: int, handled: Sequence[str] = ()) -> list[PendingRun]:
        """Return every run that has a dataset tag and no state, oldest first within 1,000 experiments, each once."""
        self._experiments = None
        everywhere = [each.experiment_id for each in self.experiments]
        found: dict[str, PendingRun] = {}
        for run in self.search(everywhere, PENDING, (TAGGED,), page_size, handled):
            tags = run.data.tags
            if "reprod.state" not in tags and dataset_names(tags.get("reprod.dataset", "")):
                found[str(run.info.run_id)] = self.pending(run)
        return list(found.values())

    def search(
        self, experiments: Sequence[str], question: str, simpler: Sequence[str], page_size: int, handled: Sequence[str]
    ) -> list[Any]:
        """Return the runs that ``question`` finds; a server too old for IS NULL is asked the ``simpler`` clauses.

        Those find more: who asks looks at the tags again. ``handled`` runs are left out of it, as far as the server
        lets itself be told.
        """
        if not self.lacks_is_null:
            try:
                return self._search(experiments, question, page_size)
            except Exception as error:
                if not is_refused(error) or not self._is_too_old(experiments):
                    raise
            self._old_until_s = time.monotonic() + OLD_FOR_S
        try:
            return self._search(experiments, " AND ".join([*simpler, *_except(handled)]), page_size)
        except Exception as error:
            if not is_refused(error) or not handled:
                raise
        return self._search(experiments, " AND ".join(simpler), page_size)

    def _is_too_old(self, experiments: Sequence[str]) -> bool:
        """Whether the server knows tags but no IS NULL: a refusal has many reasons, and this is but one of them."""
        one = experiments[:1]
        try:
            self._client.search_runs(one, filter_string=IS_NULL, max_results=1)
        except Exception as error:
            if not is_refused(error):
                raise
        else:
            return False
        try:
            self._client.search_runs(one, filter_string=TAGGED, max_results=1)
        except Exception as error:
            if not is_refused(error):
                raise
            return False
        return True

    def runs(self, run_ids: Iterable[str]) -> RunsNow:
        """Return these runs as they are now; deleted and unknown ones are ``missing``."""
        asked = list(dict.fromkeys(run_ids))
        found = self._found_together(asked)
        rows, missing, denied = [], [], []
        for run_id in asked:
            try:
                run = found[run_id] if run_id in found else self._client.get_run(run_id)
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
            rows.append(RunRow(run=self.pending(run), tags=tags))
        return RunsNow(tuple(rows), tuple(missing), tuple(denied))

    def pending(self, run: Any, dataset: str | None = None, source: Source = "run") -> PendingRun:
        """Return what reprod sees of MLflow's run; ``dataset`` is what ``source`` names for it, None: its own tag."""
        info, tags = run.info, run.data.tags
        return PendingRun(
            run_id=str(info.run_id),
            experiment_id=str(info.experiment_id),
            name=str(info.run_name or ""),
            status=str(info.status),
            start_ms=int(info.start_time or 0),
            end_ms=int(info.end_time) if info.end_time else None,
            dataset=str(tags.get("reprod.dataset", "")) if dataset is None else dataset,
            source=source,
            context=tags.get("reprod.context"),
            note=tags.get("reprod.note"),
            parent=tags.get("mlflow.parentRunId"),
            experiment=self._names.get(str(info.experiment_id), ""),
        )

    def _found_together(self, run_ids: Sequence[str]) -> dict[str, Any]:
        """Return those of many runs that searches find, by their id; whatever they do not find has to be asked for."""
        found: dict[str, Any] = {}
        if len(run_ids) < FEW or self._experiments is None:
            return found
        everywhere = [each.experiment_id for each in self._experiments]
        for quoted in _quoted(run_ids):
            try:
                runs = self._search(everywhere, f"attributes.run_id IN ({quoted})", HANDLED_A_CLAUSE)
            except Exception as error:
                if not is_refused(error):
                    raise
                break
            found |= {str(run.info.run_id): run for run in runs}
        return found

    def _list_experiments(self) -> Iterator[Experiment]:
        for found in active_experiments(self._client):
            dataset = (found.tags or {}).get("reprod.dataset", "")
            yield Experiment(str(found.experiment_id), str(found.name), str(dataset))

    def _search(self, experiments: Sequence[str], question: str, page_size: int) -> list[Any]:
        found: list[Any] = []
        for some in chunks(experiments):
            found += run_pages(self._client, some, question, page_size)
        return found


def is_refused(error: Exception) -> bool:
    """Whether the server does not take a question as it was put."""
    return error_code(error) in {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}


def _except(handled: Sequence[str]) -> Iterator[str]:
    for quoted in _quoted(handled[-HANDLED_AT_MOST:]):
        yield f"attributes.run_id NOT IN ({quoted})"


def _quoted(run_ids: Sequence[str]) -> Iterator[str]:
    """Yield lists of ids for filters. Only what an id can be goes into one; a foreign one finds nothing anyway."""
    usable = [run_id for run_id in run_ids if run_id.isascii() and run_id.replace("-", "").isalnum()]
    for start in range(0, len(usable), HANDLED_A_CLAUSE):
        yield ",".join(f"'{run_id}'" for run_id in usable[start : start + HANDLED_A_CLAUSE])
