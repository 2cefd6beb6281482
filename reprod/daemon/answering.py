"""Which of a run's datasets this daemon records: asked when a poll finds the run, and again when it is published.

The rule is `reprod.core.hosts.verdict`; here are the facts that it needs: our datasets, our boots, what others have.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from reprod.core.hosts import Parts, Verdict, contested, verdict
from reprod.core.process import ProcessContext
from reprod.core.run import PendingRun, dataset_names, split_name

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

#: Runs claimed at a time: each is taken in by the poll that follows.
MOST_CLAIMED = 1000


class Answering:
    """Knows what this host answers for."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._claimed: dict[str, None] = {}

    def claim(self, run_id: str) -> None:
        """A person says that a run is this host's (`reprod snapshot --run`): it is not contested when it is found."""
        self._claimed[run_id] = None
        for oldest in list(self._claimed)[:-MOST_CLAIMED]:
            del self._claimed[oldest]

    def of(self, run: PendingRun) -> dict[str, Verdict]:
        """Return what becomes of each name of a run that a poll found; it is ours if any of them is ``answer``."""
        found = self._verdicts(dataset_names(run.dataset), ProcessContext.parse(run.context or ""))
        if run.run_id in self._claimed:
            return {name: "answer" if each == "contested" else each for name, each in found.items()}
        return found

    def parts(self, names: Iterable[str], context: ProcessContext | None) -> Parts:
        """Return what is recorded of a run that was found to be ours, by what its datasets are called now.

        If by now all of them are contested they are recorded all the same: when the run was found they were not.
        """
        found = self._verdicts(names, context)
        ours = tuple(name for name, each in found.items() if each == "answer")
        disputed = [name for name, each in found.items() if each == "contested"]
        if not ours:
            ours, disputed = tuple(disputed), []
        others = self._daemon.advertiser.others
        unknown = tuple(name for name in found if name not in {*ours, *disputed})
        return Parts(
            ours, {name: self.why(name) for name in disputed}, unknown, bool(others) and self._open(ours, context)
        )

    def why(self, named: str) -> str:
        """Say why a name is contested, and what to do."""
        advertiser = self._daemon.advertiser
        return contested(named, advertiser.own(), advertiser.others)

    def said(self, run: PendingRun) -> str | None:
        """Return what to tell a run that nobody can record because of a contested name; None for any other."""
        found = self.of(run)
        disputed = [name for name, each in found.items() if each == "contested"]
        return None if not disputed or "answer" in found.values() else "; ".join(map(self.why, disputed))

    def _verdicts(self, names: Iterable[str], context: ProcessContext | None) -> dict[str, Verdict]:
        daemon, bases = self._daemon, {name: split_name(name)[0] for name in names}
        scopes = {base: daemon.works[base].dataset.scope for base in bases.values() if base in daemon.works}
        rivals = daemon.advertiser.rivals(scopes) if context is None else frozenset[str]()
        found = {name: verdict(name, context, scopes, daemon.boots, rivals) for name in bases}
        if context is None and not daemon.advertiser.knows:  # who else has them is not known yet: at the next poll
            return {
                name: "leave" if each == "answer" and scopes[bases[name]] == "host" else each
                for name, each in found.items()
            }
        return found

    def _open(self, names: Iterable[str], context: ProcessContext | None) -> bool:
        """Whether others may answer for the same run: it does not say where it ran, or the data is everywhere."""
        works = self._daemon.works
        return context is None or any(works[split_name(name)[0]].dataset.scope == "shared" for name in names)
