"""What reprod adds to a training process: the first run that it starts, any later one, and its end."""

import importlib.util
import os
import subprocess
import sys

from bench import Bench
from measure import Sample, until
from table import Target

FIRST = Target("20 ms", "10 ms")
END = Target("50 ms", "20 ms")

#: Prints the milliseconds of a first and a later start, and of the end, with the modules that MLflow has loaded.
_SCRIPT = """
import glob, os, time
if {mlflow}: import mlflow
from reprod.integrations.context import ReprodRunContext
def timed(call):
    began = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - began)
first, later = timed(ReprodRunContext().tags), timed(ReprodRunContext().tags)
ends = time.monotonic() + 30  # the recording child has to: on two cores it would be measured too
while not glob.glob(os.environ["REPROD_STATE_DIR"] + "/handover/*.record.json") and time.monotonic() < ends:
    time.sleep(0.05)
from reprod.capture import handover
print(first, later, timed(lambda: handover.tell_used(at_end=True)))
"""


def training(bench: Bench) -> None:
    """Start a process again and again, with no daemon: then the record waits in a file, which costs it the same."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("REPROD_", "MLFLOW_"))}
    script = _SCRIPT.format(mlflow=importlib.util.find_spec("mlflow") is not None)
    taken = []
    for number in range(2 * bench.rounds + 1):
        state = bench.folder / "training" / str(number)
        place = {"REPROD_STATE_DIR": str(state), "GIT_PYTHON_REFRESH": "quiet"}
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=kept | place, capture_output=True, text=True, check=True, cwd=bench.folder)
        taken.append([float(word) for word in done.stdout.split()])
        until(lambda folder=state: list(folder.glob("handover/*.execution.json")), 30, "the end to be told")
    first, later, end = (Sample(tuple(values)) for values in zip(*taken[1:], strict=True))
    bench.table.add("MLflow's run context, first run of a process", first, "ms", target=FIRST)
    bench.table.add("MLflow's run context, a later run", later, "ms")
    bench.table.add("what a process tells at its end", end, "ms", target=END)
