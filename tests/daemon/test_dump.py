"""The dump of tasks and threads in a process of its own; that the daemon has it is shown in test_e2e_observability."""

import subprocess
import sys

FLOOD = """
import os, signal, sys, threading
from reprod.daemon import dump
from reprod.daemon.signals import DUMP, Signals

class Log:
    def info(self, event, **keys):
        print(event, keys["tasks"], keys["threads"], keys["loop_answers"], flush=True)
        told.set()
    warning = info

told = threading.Event()

dump.ANSWER_S = 0.05
signals, dumps = Signals(), dump.Dumps(Log())
signals.arm()
dumps.arm()
signals.answer(DUMP, dumps.ask)
sys.setswitchinterval(1000)  # the thread that reads gets no turn meanwhile

def deep(left):
    if left:
        return deep(left - 1)
    for _ in range(500):
        os.kill(os.getpid(), signal.SIGUSR2)

deep(90)
print("flooded", flush=True)
sys.setswitchinterval(0.005)
assert told.wait(30)
"""

BROKEN = """
import threading
from reprod.daemon import dump

class Log:
    def warning(self, event, **keys):
        print(event, keys["error"], "most recent call first" in keys["dump"], flush=True)
        told.set()

def fail():
    raise RuntimeError("no frames")

dump._threads = fail
dumps = dump.Dumps(Log())
dumps.arm()
for _ in range(2):
    told = threading.Event()
    dumps.ask()
    assert told.wait(30)
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
    assert set(rest) == {"daemon.dump 0 2 False"}


def test_what_cannot_be_told_in_python_is_told_in_c() -> None:
    """If making the record fails, the stacks that faulthandler writes in C are logged; each time."""
    assert run(BROKEN) == ["daemon.dump RuntimeError('no frames') True"] * 2
