"""The verbs that capture the environment of the interpreter that runs reprod, and measure its machine.

Where a person calls the command, the process that captures is reprod's own: its packages, variables, limits and
repository (that of the working directory) are those that a training there would have; what it imported, its threads
and its seeds say nothing of one, and are not recorded.
"""

import os
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from reprod.capture.benchmark.hardware import run_benchmark
from reprod.capture.environment import capture_paths
from reprod.capture.packages.edited_files import deepen
from reprod.capture.process.identity import current_context, is_alive
from reprod.capture.process.interpreter import describe_self
from reprod.capture.taint import read_taint
from reprod.core.benchmark import Benchmark
from reprod.core.described import described
from reprod.core.environment import Record, clean
from reprod.core.packages import Package, PackageSet
from reprod.core.process import ProcessContext
from reprod.core.redact import Redactor
from reprod.core.run import ENDED, PendingRun
from reprod.errors import IncompleteError, NotFoundError
from reprod.store import files, outbox

Report = Callable[[dict[str, Any]], None]

#: How the subject of such a record says that it was found out.
_HOW = "in-process, by the reprod command"

NOT_A_TRAINING = "reprod's own process: it tells nothing of a training"
_OF_A_TRAINING = ("numerics", "random_state", "imports")

#: Runs that are looked at for one in progress: the newest.
_RUNS = 1000


def capture(*, deep: bool = False, benchmark: Benchmark | None = None, report: Report = lambda _: None) -> Record:
    """Return the environment of this interpreter, as a command started here would have it.

    ``deep`` reads every installed file, and ``report`` hears how far that is. ``benchmark`` is kept with it.
    """
    try:
        context, cwd = current_context(), os.getcwd()
    except OSError as error:
        raise IncompleteError(
            f"this process cannot tell who it is: {error.strerror or error}",
            hint="is /proc mounted, and the working directory still there?",
        ) from error
    record = capture_paths(context, sys_path=sys.path, python=describe_self(), cwd=cwd, how=_HOW)
    unknown = {**record.execution.unknown, **dict.fromkeys(_OF_A_TRAINING, NOT_A_TRAINING)}
    execution = replace(
        record.execution, numerics=None, random_state=None, imports=None, benchmark=benchmark, unknown=unknown
    )
    environment = record.environment
    if deep and environment.packages is not None:
        environment = replace(environment, packages=_deepened(environment.packages, report))
    # What came in after the record was cleaned: names of files, and what a measuring child said.
    taint = read_taint(os.environ, home=os.path.expanduser("~"), prefix=sys.prefix)
    return clean(replace(record, execution=execution, environment=environment), Redactor(taint))


def _deepened(found: PackageSet, report: Report) -> PackageSet:
    """Return the packages with the files that are not as they were installed; some 1,000 files a second when cold."""
    packages: list[Package] = []
    problems, files_read = list(found.problems), 0

    def count() -> None:
        nonlocal files_read
        files_read += 1
        percent = 100 * len(packages) / len(found.packages)
        report({"phase": "reading installed files", "files": files_read, "percent": percent})

    for package in found.packages:
        one = deepen(PackageSet((package,)), checkpoint=count)
        packages.extend(one.packages)
        problems.extend(one.problems)
    return replace(found, packages=tuple(packages), problems=tuple(problems))


def measure(state: Path, output: Path) -> Benchmark:
    """Measure this machine, its disk where ``output`` will be; takes 5 s at most.

    :raises IncompleteError: a run is in progress here, or no child can be started.
    """
    directory = next(each for each in (output.absolute(), *output.absolute().parents) if each.is_dir())
    return run_benchmark(os.fspath(directory), running=_running(state))


def _running(state: Path) -> list[str]:
    """Return the runs of which a process lives here: the one of this environment, and those that the state knows.

    A run whose process is not known may be anywhere, and one that was killed stays RUNNING on the server for ever.
    """
    import msgspec

    mine = os.environ.get("MLFLOW_RUN_ID")
    found = [mine] if mine else []
    try:
        records = files.open_registry_readonly(state)
    except NotFoundError:
        return found
    with closing(records):
        _, rows = records.read(lambda c: outbox.listed(c, "all", _RUNS))
    for row, _ in rows:
        try:
            run = msgspec.json.decode(row.run, type=described(PendingRun))
        except msgspec.MsgspecError:  # of another version of reprod
            continue
        context = ProcessContext.parse(run.context or "")
        if row.state != "done" and run.status not in ENDED and context is not None and is_alive(context):
            found.append(row.run_id)
    return found
