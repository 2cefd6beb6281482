"""The dump of tasks and threads in a process of its own; that the daemon has it is shown in test_e2e_observability."""

import subprocess
import sys

FLOOD = """
import os, signal, sys, threading, time
from reprod.daemon import dump

class Log:
    def info(self, event, **keys):
        print(event, keys["tasks"], keys["threads"], keys["loop_answers"], flush=True)
    warning = info

dump.PIPE_BYTES, dump.ANSWER_S = 4096, 0.05
dump.Dumps(Log()).arm()
sys.setswitchinterval(1000)  # the thread that reads gets no turn meanwhile

def deep(left):
    if left:
        return deep(left - 1)
    for _ in range(500):
        os.kill(os.getpid(), signal.SIGUSR2)

deep(90)
print("flooded", flush=True)
sys.setswitchinterval(0.005)
until = time.monotonic() + 2
while time.monotonic() < until:
    time.sleep(0.05)
"""

BROKEN = """
import os, signal, time
from reprod.daemon import dump

class Log:
    def warning(self, event, **keys):
        print(event, keys["error"], "most recent call first" in keys["dump"], flush=True)

def fail():
    raise RuntimeError("no frames")

dump._threads = fail
dump.Dumps(Log()).arm()
for _ in range(2):
    os.kill(os.getpid(), signal.SIGUSR2)
    time.sleep(0.7)
"""


def run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_flood_of_signals_holds_nothing_up() -> None:
    """More signals than the pipe takes, while nobody reads it, neither block the process nor end it; some are answered,
    also before there is an event loop."""
    first, *rest = run(FLOOD)
    assert first == "flooded"
    assert rest
    assert set(rest) == {"daemon.dump 0 1 False"}


def test_what_cannot_be_told_in_python_is_told_by_the_handler() -> None:
    """If making the record fails, faulthandler's own stacks, taken when the signal came, are logged; each time."""
    assert run(BROKEN) == ["daemon.dump RuntimeError('no frames') True"] * 2
