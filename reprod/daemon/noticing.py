"""What the tracking server is asked in one poll: runs that name datasets, imply them, or name others by now.

Also runs that another host recorded before this one saw them, where the data has scope ``shared``: every host that has
it says what it found, whoever was first.

Blocks: for a thread. Since when an experiment's tag or a rule counts is kept in the registry: from the poll before the
one that saw it first, because it was set in between; a daemon that has just started counts from then. Seconds are of
the monotonic clock.
"""

import time
from typing import TYPE_CHECKING

from reprod.core.run import PendingRun
from reprod.sinks.protocol import Implied, ImpliedSource, Recorded
from reprod.store import asked, hosts

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

PAGE_SIZE = 1000
#: A changed tag is found by a question for each value that was recorded: seldom, unless somebody rang. Each costs the
#: server about what a poll does: after all of them it is left alone for so many times as long, ten minutes at most.
RETAGGED_S, RETAGGED_RUNG_S = 60.0, 2.0
RETAGGED_TIMES, RETAGGED_RUNG_TIMES, RETAGGED_SELDOMEST_S = 10.0, 2.0, 600.0

#: Not at every bell: anybody may ring, and whoever comes second has time.
ELSEWHERE_S = 5.0

#: How long after its start a run is still compared: a search must not become longer with a server's history.
ELSEWHERE_AGE_NS = 900_000_000_000
#: Run ids of 32 characters; more than so many in 15 minutes are looked at again, which changes nothing.
MOST_SEEN = 5000


class Noticing:
    """Asks one tracking server."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._last_poll_ns: int | None = None
        self._retagged_s = float("-inf")
        self._rung = False  # since tags were compared last
        self._elsewhere_s = float("-inf")
        self._seen: dict[str, None] = {}  # runs of other hosts that need nothing of this one

    def ask(self, *, rung: bool) -> list[PendingRun]:
        """Return the runs that are to be recorded, each once. :raises SinkError: the server does not answer."""
        child, began_ns = self._daemon.tracking.child, time.time_ns()
        key = self._daemon.tracking.key
        handled = self._daemon.records.read(lambda c: hosts.settled_runs(c, key)) if child.polled.is_old else ()
        found = {run.run_id: run for run in child.poll(page_size=PAGE_SIZE, handled=handled)}
        for run in self._implied(began_ns, handled):
            found.setdefault(run.run_id, run)
        self._rung |= rung
        found |= {run.run_id: run for run in self._retagged(key)}
        if time.monotonic() - self._elsewhere_s >= ELSEWHERE_S:
            for run in self._elsewhere(began_ns):
                found.setdefault(run.run_id, run)
            self._elsewhere_s = time.monotonic()
        self._last_poll_ns = began_ns
        return list(found.values())

    def _retagged(self, key: str) -> list[PendingRun]:
        """Return runs that name other datasets by now than those that were recorded here, if it is time to ask."""
        waited_s, child = time.monotonic() - self._retagged_s, self._daemon.tracking.child
        every_s, times = (RETAGGED_RUNG_S, RETAGGED_RUNG_TIMES) if self._rung else (RETAGGED_S, RETAGGED_TIMES)
        if waited_s < every_s:
            return []
        values = self._daemon.records.read(lambda c: asked.recorded_values(c, key))
        if waited_s < min(len(values) * child.polled.took_s * times, RETAGGED_SELDOMEST_S):
            return []
        found = child.retagged(values) if values else []
        self._retagged_s, self._rung = time.monotonic(), False
        return found

    def _elsewhere(self, began_ns: int) -> list[PendingRun]:
        """Return runs on shared data of ours that another host recorded and that are not done here.

        Also where no other host is known: that it is there we may learn minutes after it recorded its first run.
        """
        daemon = self._daemon
        names = tuple(name for name, work in list(daemon.works.items()) if work.dataset.scope == "shared")
        if not names:
            return []
        since_ms = (began_ns - ELSEWHERE_AGE_NS) // 1_000_000
        now = daemon.tracking.child.recorded(Recorded(daemon.advertiser.host.id, names, since_ms, tuple(self._seen)))
        unseen = [run for run in now.runs if run.run_id not in self._seen]
        # Only what was done here is done with: taking it in, or delivering it, may fail.
        key = daemon.tracking.key
        known = set(daemon.records.read(lambda c: hosts.settled_runs(c, key))) if unseen else set[str]()
        self._seen |= dict.fromkeys([*now.settled, *(run.run_id for run in unseen if run.run_id in known)])
        for oldest in list(self._seen)[:-MOST_SEEN]:
            del self._seen[oldest]
        return [run for run in unseen if run.run_id not in known]

    def _implied(self, began_ns: int, handled: tuple[str, ...]) -> list[PendingRun]:
        """Return runs whose experiment, or a rule, names their datasets."""
        child, key, records = self._daemon.tracking.child, self._daemon.tracking.key, self._daemon.records
        rules = tuple((rule.experiment, rule.dataset) for rule in self._daemon.config.rules)
        known = self._since()
        now = child.implied(Implied(rules, tuple(known.items()), handled))
        if set(now.sources) == known.keys():
            return list(now.runs)
        present = [(each.experiment_id, each.source, each.dataset) for each in now.sources]
        since_ns = self._last_poll_ns or began_ns
        records.write(lambda c: asked.keep_implied(c, key, present, since_ns))
        return list(child.implied(Implied(rules, tuple(self._since().items()), handled)).runs)

    def _since(self) -> dict[ImpliedSource, int]:
        key = self._daemon.tracking.key
        rows = self._daemon.records.read(lambda c: asked.implied(c, key))
        return {
            ImpliedSource(experiment, "rule" if source == "rule" else "experiment", dataset): since // 1_000_000
            for (experiment, source, dataset), since in rows.items()
        }
