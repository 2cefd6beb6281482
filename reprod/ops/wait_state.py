"""The verb that waits, in a training process, until its run is recorded.

It polls in a thread of its own: MLflow's call to a dead server blocks for minutes, and the wait has a bound. Times are
seconds.
"""

import threading
import time

from reprod.errors import NotFoundError, ReprodError
from reprod.sinks import inprocess

#: Between two questions: a tenth of the wait so far, so that the answer is late by no more than that.
POLL_SHARE, POLL_FIRST_S, POLL_LAST_S = 0.1, 0.05, 1.0


def wait_state(run_id: str, timeout_s: float) -> str | None:
    """Return the run's ``reprod.state`` as soon as it has one, or None after ``timeout_s`` seconds.

    :raises NotFoundError: there is no such run.
    :raises TrackingError: MLflow failed, and still does at the end.
    """
    states: list[str] = []
    errors: list[ReprodError] = []
    began = time.monotonic()
    deadline = began + timeout_s
    stop = threading.Event()

    def poll() -> None:
        while not stop.is_set():
            pause = min(max(POLL_FIRST_S, POLL_SHARE * (time.monotonic() - began)), POLL_LAST_S)
            try:
                state = inprocess.read_tags(run_id).get("reprod.state")
            except ReprodError as error:
                # Kept until the deadline: a server that restarts answers again. A missing run never comes.
                if isinstance(error, NotFoundError) or time.monotonic() + pause > deadline:
                    errors.append(error)
                    return
                state = None
            if state:
                states.append(state)
                return
            stop.wait(pause)

    thread = threading.Thread(target=poll, name="reprod-wait", daemon=True)
    thread.start()
    thread.join(timeout_s)
    stop.set()
    if errors:
        raise errors[0]
    return states[0] if states else None
