"""MLflow's run context provider: what every run that this process starts is tagged with.

``reprod.context`` always, ``reprod.dataset`` inside a block of ``reprod.track``. MLflow imports this module while it is
imported itself and forgives only ImportError and AttributeError, so it imports nothing at its top, and every method
swallows what it meets: a run without our tag is better than no run.
"""


class ReprodRunContext:
    """What MLflow asks for tags in ``start_run``; duck-typed, so that MLflow itself need not be imported."""

    def in_context(self) -> bool:
        """Return whether this provider has tags to give: always."""
        return True

    def tags(self) -> dict[str, str]:
        """Return ``reprod.context``, which names this process, and tell the daemon of it once per process.

        With ``reprod.dataset`` where the run starts inside ``reprod.track``. Each is there without the other.
        """
        found = {}
        for key, value in (("reprod.dataset", _dataset), ("reprod.context", _context_json)):
            try:
                text = value()
            except Exception:  # noqa: BLE001, S112 - law 11: nothing of reprod may reach start_run
                continue
            if text is not None:
                found[key] = text
        return found


# The pid that announced itself already: a forked worker is another process.
_announced_by: int | None = None


def _dataset() -> str | None:
    from reprod.capture.tracked import datasets_of_run

    return datasets_of_run()


def _context_json() -> str | None:
    global _announced_by
    import os

    from reprod.capture.process.identity import current_context

    text = current_context().to_json()
    if _announced_by != os.getpid():
        _announced_by = os.getpid()
        from reprod.integrations.handover import announce

        announce()
    return text
