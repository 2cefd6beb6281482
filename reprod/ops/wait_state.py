"""The verb that waits, in a training process, until its run is recorded.

It polls in a thread of its own: MLflow's call to a dead server blocks for minutes, and the wait has a bound. Times are
seconds.
"""

import threading
import time

from reprod.errors import NotFoundError, ReprodError
from reprod.sinks import inprocess

POLL_FIRST_S = 0.05
POLL_LAST_S = 1.0


def wait_state(run_id: str, timeout_s: float) -> str | None:
    """Return the run's ``reprod.state`` as soon as it has one, or None after ``timeout_s`` seconds.

    :raises NotFoundError: there is no such run.
    :raises TrackingError: MLflow failed, and still does at the end.
    """
    states: list[str] = []
    errors: list[ReprodError] = []
    deadline = time.monotonic() + timeout_s
    stop = threading.Event()

    def poll() -> None:
        pause = POLL_FIRST_S
        while not stop.is_set():
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
            pause = min(pause * 1.5, POLL_LAST_S)

    thread = threading.Thread(target=poll, name="reprod-wait", daemon=True)
    thread.start()
    thread.join(timeout_s)
    stop.set()
    if errors:
        raise errors[0]
    return states[0] if states else None
