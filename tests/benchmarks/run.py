"""Measure reprod beside its yardsticks, in one run on one machine: ``make bench``, or this file with ``--help``.

Nothing here is asserted: the lines go into docs/performance.md by hand, with the machine. Each figure is a median, and
each ratio is that of medians taken in turn, so that a drift of the machine's speed hits both. Needs the extra `mlflow`
for the row that talks to a tracking server, `blake3` for that algorithm; what is missing is said, not measured.
"""

import argparse
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import algorithms
import daemon
import history
import machine
import manifest
import million
import rag
import scans
import stream
import training
from bench import Bench
from table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """A row of --only: what measures it, and which sizes it depends on (besides the rounds)."""

    measure: Callable[[Bench], None]
    sizes: tuple[str, ...]


ROWS = {
    "cold-small": Row(scans.cold_small, ("files", "peer-files")),
    "cold-large": Row(scans.cold_large, ("large-mib",)),
    "blake3": Row(algorithms.blake3, ("large-mib",)),
    "md5": Row(algorithms.md5, ("large-mib",)),
    "no-change": Row(scans.no_change, ("files", "peer-files")),
    "one-change": Row(scans.one_change, ("files", "peer-files")),
    "history": Row(history.history, ("history-files", "versions")),
    "manifest": Row(manifest.manifest, ("manifest-files",)),
    "daemon": Row(daemon.costs, ("files",)),
    "stream": Row(stream.stream, ("stream-seconds",)),
    "tag": Row(daemon.tag, ("files",)),
    "training": Row(training.training, ()),
    "workers": Row(scans.workers, ("files", "large-mib")),
    "rag": Row(rag.rag, ("manifest-files",)),
    "million": Row(million.million, ("million",)),
}

#: Options with a size: what is measured, and what only shows that the rows run.
SIZES = {
    "files": (100_000, 300, "small files of 4 KiB"),
    "large-mib": (512, 2, "size of each of 4 large files"),
    "million": (1_000_000, 1500, "files of 16 bytes in the row million"),
    "history-files": (200_000, 500, "files in the row history"),
    "versions": (50, 4, "versions in the row history"),
    "manifest-files": (5_000, 100, "files of 16 KiB in the row manifest"),
    "stream-seconds": (20, 1, "seconds in the row stream, which writes up to 200 MiB in each"),
    "peer-files": (20_000, 100, "files of 4 KiB for DVC, which takes 50 times as long"),
    "rounds": (3, 1, "rounds of each measurement"),
}
IDLE_S, QUICK_IDLE_S = 10.0, 0.2

TWO_CORES = 2


def main() -> int:
    """Run the chosen rows and print a line of the table for each figure."""
    args = parse()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or every worker compiles reprod anew
    keep_to(args.cores)
    folder = Path(tempfile.mkdtemp(prefix="reprod-bench-", dir=args.dir)).absolute()
    table = Table()
    try:
        bench = prepare(args, folder, table)
        about = machine.describe(folder)
        print(machine.sentence(about), end="\n\n")
        table.head()
        failed = [name for name in args.only if not measured(name, bench, args)]
        if args.json:
            table.write(Path(args.json), {"machine": about, "arguments": vars(args), "failed": failed})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed else 0


def measured(name: str, bench: Bench, args: argparse.Namespace) -> bool:
    """Measure one row; whether that worked."""
    bench.table.row, bench.table.arguments = name, unusual(name, args)
    try:
        ROWS[name].measure(bench)
    except Exception as error:  # noqa: BLE001 - the other rows take an hour, and do not depend on this one
        traceback.print_exc()
        bench.table.skip(name, f"{type(error).__name__}: {error}"[:200].replace("|", "/"))
        return False
    return True


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (usual, quick, what) in SIZES.items():
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"{what} (default: {usual:,}; quick: {quick:,})")
    rows = ", ".join(ROWS)
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW", help=rows)
    parser.add_argument("--peers", action="store_true", help="beside DVC, model_signing (make bench-peers) and git too")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: only shows that the rows run")
    parser.add_argument("--dir", help="where to make the files, removed at the end but for those of the row million")
    parser.add_argument(
        "--cores", type=int, default=TWO_CORES, metavar="N", help="processors to use (default: 2; 0: all)"
    )
    parser.add_argument("--json", metavar="FILE", help="write every single figure there, and the machine")
    args = parser.parse_args(argv)
    for name, (usual, quick, _) in SIZES.items():
        if size(name, args) is None:
            setattr(args, name.replace("-", "_"), quick if args.quick else usual)
    return args


def size(name: str, args: argparse.Namespace) -> int | None:
    """Return the value of one of SIZES."""
    value: int | None = getattr(args, name.replace("-", "_"))
    return value


def unusual(row: str, args: argparse.Namespace) -> str:
    """Return the arguments, besides the row, that it takes to measure the same again."""
    if args.quick:
        return "--quick"
    said = [
        f"--{name} {size(name, args)}" for name in (*ROWS[row].sizes, "rounds") if size(name, args) != SIZES[name][0]
    ]
    return " ".join([*said, *([f"--cores {args.cores}"] if args.cores != TWO_CORES else [])])


def prepare(args: argparse.Namespace, folder: Path, table: Table) -> Bench:
    """Return what the rows are given."""
    return Bench(
        folder=folder,
        kept=Path(args.dir).absolute() if args.dir else None,
        files=args.files,
        large_mib=args.large_mib,
        million=args.million,
        history_files=args.history_files,
        versions=args.versions,
        manifest_files=args.manifest_files,
        stream_seconds=args.stream_seconds,
        rounds=args.rounds,
        peers=args.peers,
        peer_files=args.peer_files,
        idle_s=QUICK_IDLE_S if args.quick else IDLE_S,
        table=table,
    )


def keep_to(cores: int) -> None:
    """Let this process and its children have so many processors; 0: all that it has."""
    mine = sorted(os.sched_getaffinity(0))
    if cores:
        os.sched_setaffinity(0, mine[:cores])


if __name__ == "__main__":
    sys.exit(main())
