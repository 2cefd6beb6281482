"""The opt-in hardware benchmark: bounded, polite, refused during a run, and honest about what it skipped."""

import os
import subprocess
import sys
import time
from pathlib import Path

import fake_nvml
import msgspec
import pytest

from reprod.capture.benchmark.hardware import NAMES, _measure_gpu, run_benchmark
from reprod.core.benchmark import Benchmark, Measurement, summarise
from reprod.errors import IncompleteError

#: For tests of other things than the bound: a slow machine under load may take its time.
AMPLE_S = 60.0

BUFFERED = "not past the page cache: this file system knows no direct transfers"
TORCH = """
__version__ = "2.9+fake"
float32, float16, uint8 = "float32", "float16", "uint8"
class Tensor:
    def copy_(self, other): return self
def make(*args, **kwargs): return Tensor()
rand = zeros = empty_like = make
def matmul(left, right): return left
class cuda:
    is_available = staticmethod(lambda: True)
    mem_get_info = staticmethod(lambda: (8 << 30, 80 << 30))
    get_device_name = staticmethod(lambda index: "Fake H100")
    synchronize = staticmethod(lambda: None)
"""
#: The stand-in without its lost GPU.
IDLE = fake_nvml.WORKS.replace("return 3", "return 2")
SLOW_NUMPY = "import time\ntime.sleep(600)\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disk")


@pytest.fixture(scope="module")
def taken(place: Path) -> tuple[Benchmark, int]:
    """One real benchmark of this machine, and the directory's time stamp before it."""
    before = place.stat().st_mtime_ns
    return run_benchmark(str(place), seconds=AMPLE_S), before


def test_everything_is_measured_or_said_why_not(taken, place):
    """Each measurement has repeats, a unit and its rates in order, or a reason; the machine's state is beside them."""
    found, _ = taken
    names = [measurement.name for measurement in found.measurements]
    assert set(NAMES) <= {*names, *found.skipped}
    assert {"cpu_sha256", "cpu_sha256_all", "cpu_integer", "cpu_float", "memory_copy"} <= set(names)
    for measurement in found.measurements:
        assert 0 < measurement.lowest <= measurement.median <= measurement.highest
        assert measurement.repeats >= 2
        assert measurement.unit in {"B/s", "iterations/s", "FLOP/s"}
    assert found.load_before is not None
    assert found.processors == len(os.sched_getaffinity(0))
    assert found.niceness is not None
    assert found.niceness >= 10
    assert found.others_cpu is not None
    assert 0 <= found.others_cpu <= 1
    assert found.directory == str(place)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Benchmark) == found


def test_the_disk_is_left_as_it_was(taken, place):
    """The disk is measured in the directory, and neither a file nor a new time stamp is left there."""
    found, before = taken
    notes = [measurement.note for measurement in found.measurements if measurement.name.startswith("disk")]
    assert notes == [None if _has_direct(place) else BUFFERED] * 2
    assert list(place.iterdir()) == []
    assert place.stat().st_mtime_ns == before


def _has_direct(place: Path) -> bool:
    try:
        os.close(os.open(place, os.O_TMPFILE | os.O_RDWR | os.O_DIRECT, 0o600))
    except OSError:
        return False
    return True


#: A file system that knows neither files without a name nor direct transfers, as network file systems are.
PLAIN_FILES = """
import errno, os, sys
from reprod.capture.benchmark import workload
opened = os.open
def plain(path, flags, *rest, **options):
    if flags & os.O_TMPFILE == os.O_TMPFILE:
        raise OSError(errno.EOPNOTSUPP, "not supported")
    return opened(path, flags, *rest, **options)
os.open = plain
workload._measure_disk(sys.argv[1])
"""


def test_a_file_system_of_plain_files_is_measured_and_left_empty(tmp_path):
    """Where a file needs a name it loses it at once; that the page cache took part is said."""
    done = subprocess.run([sys.executable, "-c", PLAIN_FILES, tmp_path], capture_output=True, timeout=60)
    lines = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    assert [(line["name"], line.get("note")) for line in lines] == [("disk_write", BUFFERED), ("disk_read", BUFFERED)]
    assert list(tmp_path.iterdir()) == []


def test_what_measures_stays_in_the_child(taken):
    """The work, and what it imports, is never loaded into the process that asks."""
    assert not {"reprod.capture.benchmark.workload", "reprod.capture.benchmark.workload_gpu", "torch"} & set(
        sys.modules
    )


@pytest.mark.parametrize(
    ("directory", "reason"), [(None, "no directory was given"), ("/nonexistent/x", "No such file or directory")]
)
def test_without_a_directory_the_disk_is_skipped(directory, reason):
    """What has no disk to measure says so, and the rest is measured."""
    found = run_benchmark(directory, seconds=AMPLE_S)
    assert (found.skipped["disk_write"], found.skipped["disk_read"]) == (reason, reason)
    assert len(found.measurements) >= 5


def test_it_is_refused_during_a_run():
    """While a run is in progress nothing is measured, and the runs are named."""
    with pytest.raises(IncompleteError, match="no benchmark while a run is in progress: run-a, run-b"):
        run_benchmark(running=["run-b", "run-a"])


def test_it_ends_when_its_time_is_up(tmp_path, monkeypatch):
    """A measurement that hangs is ended with the benchmark; what was measured before is kept. Takes its bound, 5 s."""
    monkeypatch.syspath_prepend(str(fake_nvml.write_module(tmp_path / "path", SLOW_NUMPY, "numpy")))
    found = run_benchmark(str(tmp_path))
    assert found.seconds < 60
    assert "cpu_sha256" in {measurement.name for measurement in found.measurements}
    for name in ("cpu_matrix", "memory_copy", "disk_write", "disk_read"):
        assert found.skipped[name] == "stopped: there were 5.0 s for it"
    assert found.niceness is None


def test_a_measuring_process_that_dies_is_not_called_slow(tmp_path, monkeypatch):
    """Where the process ended early, the reason is that, and what it told before counts."""
    monkeypatch.syspath_prepend(str(fake_nvml.write_module(tmp_path / "path", "import os; os._exit(1)", "numpy")))
    found = run_benchmark(seconds=AMPLE_S)
    assert found.skipped["memory_copy"] == "the measuring process ended before it"


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Measure the GPU of a machine with a driver; torch and nvidia-ml-py on the path of the child are stand-ins."""
    root = tmp_path / "root"
    fake_nvml.add_gpu(root, 0, bus="0000:0a:00.0")

    def measure(*, torch: str = TORCH, nvml: str = IDLE, within: float = AMPLE_S):
        path = fake_nvml.write_module(tmp_path / "path", nvml)
        fake_nvml.write_module(path, torch, "torch")
        monkeypatch.syspath_prepend(str(path))
        skipped: dict[str, str] = {}
        return _measure_gpu(time.monotonic() + within, skipped, str(root)), skipped

    return measure


def test_a_gpu_is_measured_through_torch(measure):
    """With torch and an idle GPU there are a product in two precisions and a copy, which name the GPU."""
    found, skipped = measure()
    assert [item.name for item in found] == ["gpu_matrix_float32", "gpu_matrix_float16", "gpu_copy"]
    assert [item.unit for item in found] == ["FLOP/s", "FLOP/s", "B/s"]
    assert "Fake H100, torch 2.9+fake" in found[2].work
    assert skipped == {}


@pytest.mark.parametrize(
    ("stubs", "reason"),
    [
        ({"torch": "raise ImportError"}, "torch cannot be imported"),
        ({"torch": "import os; os._exit(1)"}, "the measuring process ended before it"),
        ({"torch": TORCH.replace("True", "False")}, "torch finds no GPU that it can use"),
        ({"torch": TORCH.replace("(8 << 30", "(1 << 30")}, "the GPU has less than 2 GiB of free memory"),
        ({"nvml": IDLE.replace("gpu=0)", "gpu=80)")}, "GPU 0 is in use"),
        ({"nvml": IDLE.replace("return []", "return [1]")}, "GPU 0 is in use"),
        ({"nvml": fake_nvml.MISSING}, "whether the GPUs are idle is not known: nvidia-ml-py cannot be imported"),
        ({"nvml": fake_nvml.WORKS}, "whether the GPUs are idle is not known: GPU is lost"),
        ({"within": 0.9}, "no time was left for it"),
    ],
)
def test_a_gpu_that_is_not_measured_says_why(measure, stubs, reason):
    """A GPU that is in use, or that may be, is left alone."""
    assert measure(**stubs) == ([], {"gpu": reason})


def test_without_a_driver_no_gpu_is_looked_for(tmp_path):
    """Where no driver is, no process is started for a GPU, and that is the reason."""
    skipped: dict[str, str] = {}
    assert _measure_gpu(time.monotonic() + AMPLE_S, skipped, str(tmp_path)) == []
    assert skipped == {"gpu": "no NVIDIA driver is present"}


def test_the_middle_and_the_spread():
    """The summary has the median, not the mean, and tells how uneven the repeats were."""
    found = summarise("x", "B/s", [10.0, 11.0, 100.0], "work")
    assert found == Measurement("x", "B/s", 11.0, 10.0, 100.0, 3, "work")
    assert round(found.spread, 2) == 8.18
    with pytest.raises(ValueError, match="no repeats"):
        summarise("x", "B/s", [], "work")
