"""One anyio task group that calls the verbs early: hints, timers, runs, control socket."""
