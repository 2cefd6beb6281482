"""Whether the tracking server is in trouble, or single runs are: what deliveries that fail tell together.

Rule: one run that fails says nothing of the server, for its artifact store may be full or its files too large. A second
one, and nothing that succeeded between them, says that the server is in trouble: then nothing is tried for a while. A
run that failed while the server took others is to blame itself from then on, and says nothing any more. After a failure
a run of another experiment is asked next, because each experiment may have an artifact store of its own. Seconds are of
the loop's clock.
"""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0  # one row tries a server in trouble, not each of the outbox


class Doubt:
    """What is held against one tracking server. ``failed_last`` is the row that did, None after a success."""

    def __init__(self) -> None:
        self.failed_last: int | None = None
        self._suspects: set[int] = set()  # rows that failed since the server took one
        self._to_blame: set[int] = set()  # rows that failed while it took others
        self._until_s, self._pause_s = 0.0, FIRST_PAUSE_S

    def left_s(self, now_s: float) -> float:
        """Return for how long nothing is to be tried; 0 or less: now."""
        return self._until_s - now_s

    def succeed(self, row_id: int) -> None:
        """The server answered to a row: what failed before it failed for reasons of its own."""
        self._to_blame = (self._to_blame | self._suspects) - {row_id}
        self.clear()

    def fail(self, row_id: int, now_s: float) -> None:
        """A row failed as if the server were in trouble."""
        self.failed_last = row_id
        if row_id in self._to_blame:
            return
        self._suspects.add(row_id)
        if len(self._suspects) > 1:
            self._suspects = {row_id}  # one more is enough for the next pause
            self._until_s = now_s + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def clear(self) -> None:
        """Nothing is held against the server: it answers again, or somebody asks for a try."""
        self.failed_last = None
        self._suspects = set()
        self._until_s, self._pause_s = 0.0, FIRST_PAUSE_S
