"""How numbers are computed: libraries, threads, determinism, seeds, of what is loaded and of nothing else."""

import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from reprod.capture.imports.mapped import MappedFiles
from reprod.capture.numerics.blas import identify
from reprod.capture.numerics.random_state import read_random_state
from reprod.capture.numerics.settings import read_numerics, read_process_numerics, read_torch
from reprod.core.numerics import NumericLibrary, TorchSettings, hash_seed_of, numeric_variables
from reprod.errors import IncompleteError


def python(code, *options, **variables):
    """Run ``code`` in a fresh interpreter and return what it printed, as JSON."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHONHASH", "OMP"))}
    environ.update(variables)
    command = [sys.executable, *options, "-c", code]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


NAMES = {
    "numpy.libs/libopenblas64_p-r0-0cf96a72.3.23.dev.so": ("blas", "OpenBLAS", "0.3.23.dev"),
    "numpy.libs/libopenblasp-r0-34a18dc3.3.7.so": ("blas", "OpenBLAS", "0.3.7"),
    "lib/libopenblasp-r0.3.21.so": ("blas", "OpenBLAS", "0.3.21"),
    "lib/libopenblas.so.0": ("blas", "OpenBLAS", None),
    "scipy.libs/libscipy_openblas-6cdc3b4a.so": ("blas", "OpenBLAS", "0.3.30"),
    "lib/libmkl_rt.so.2": ("blas", "MKL", None),
    "lib/blas/libblas.so.3.12.0": ("blas", "BLAS", "3.12.0"),
    "lib/libcblas.so.3": ("blas", "BLAS", None),
    "lib/libblis.so.4.0.0": ("blas", "BLIS", None),
    "lib/libtatlas.so.3.10.3": ("blas", "ATLAS", "3.10.3"),
    "torch/lib/libtorch_cpu.so": ("blas", "torch", "2.2.0+cu121"),
    "scikit_learn.libs/libgomp-a34b3233.so.1.0.0": ("openmp", "libgomp", None),
    "lib/libiomp5.so": ("openmp", "libiomp5", None),
    "lib/libomp.so": ("openmp", "libomp", None),
}


def test_libraries_are_known_by_their_files(tmp_path):
    """Name and version come from the file's name or the package's own text; others are no numeric libraries."""
    (tmp_path / "scipy").mkdir()
    (tmp_path / "scipy" / "__config__.py").write_text(
        'raise SystemExit\nCONFIG = {"Build Dependencies": {\n"blas": {"name": "x", "version": "0.3.30"},\n'
        '"lapack": {"version": "9.9"}}}\n'
    )
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "version.py").write_text("__version__ = '2.2.0+cu121'\ndebug = False\n")
    others = ["lib/libc.so.6", "lib/libopenblas.txt", "lib/libmkl_avx2.so.2", "lib/libompi.so.40", "lib/libgompers.so"]
    found = identify(MappedFiles(tuple(f"{tmp_path}/{name}" for name in (*NAMES, *others))))
    assert {lib.path.removeprefix(f"{tmp_path}/"): (lib.kind, lib.name, lib.version) for lib in found} == NAMES


def test_a_version_file_that_leads_elsewhere_is_not_followed(tmp_path):
    """A link or FIFO beside a library leaves its version unknown and costs no wait."""
    secret = tmp_path / "secret"
    secret.write_text('"blas": {"version": "CANARY"}\n')
    for name in ("numpy", "scipy"):
        (tmp_path / name).mkdir()
    (tmp_path / "numpy" / "__config__.py").symlink_to(secret)
    os.mkfifo(tmp_path / "scipy" / "__config__.py")
    paths = tuple(f"{tmp_path}/{name}.libs/libscipy_openblas-6cdc3b4a.so" for name in ("numpy", "scipy"))
    assert [library.version for library in identify(MappedFiles(paths))] == [None, None]


def test_a_real_blas_says_its_version_kernel_and_threads():
    """The OpenBLAS that numpy brought is asked by its own functions, and a limit set in the process shows."""
    pytest.importorskip("numpy", reason="needs a real numpy with its BLAS")
    code = """
import json, numpy
from dataclasses import asdict
from reprod.capture.numerics.settings import read_numerics
print(json.dumps([asdict(library) for library in read_numerics().libraries]))
"""
    found = [library for library in python(code, OPENBLAS_NUM_THREADS="1") if library["name"] == "OpenBLAS"]
    if not found:
        pytest.skip("this numpy came with another BLAS")
    assert found[0]["threads"] == 1
    assert found[0]["kernel"]
    assert found[0]["build"].startswith(f"OpenBLAS {found[0]['version']} ")


def test_a_library_that_does_not_answer_stays_what_its_file_says(tmp_path):
    """A file of that name without the functions is recorded without threads; asking loads no library."""
    target = tmp_path / "libopenblasp-r0.3.21.so"
    other = tmp_path / "libopenblasp-r0.3.22.so"
    source = next((Path(os.__file__).parent / "lib-dynload").glob("_*.cpython-*.so"), None)
    if source is None:
        pytest.skip("this interpreter has no compiled modules as files")
    shutil.copy(source, target)
    shutil.copy(source, other)
    code = f"""
import json, ctypes
ctypes.CDLL({str(target)!r})
from dataclasses import asdict
from reprod.capture.imports.mapped import MappedFiles
from reprod.capture.numerics.settings import read_numerics
names = ({str(target)!r}, {str(other)!r})
found = [asdict(library) for library in read_numerics(MappedFiles(names)).libraries]
print(json.dumps([found, {str(other)!r} in open("/proc/self/maps").read()]))
"""
    libraries, loaded = python(code)
    assert [(lib["version"], lib["threads"], lib["build"]) for lib in libraries] == [
        ("0.3.21", None, None),
        ("0.3.22", None, None),
    ]
    assert not loaded


def test_another_process_shows_its_libraries_and_variables(tmp_path, start):
    """From outside: what is mapped and what the process started with; what only it could tell is said to be missing."""
    target = tmp_path / "libopenblasp-r0.3.21.so"
    source = next((Path(os.__file__).parent / "lib-dynload").glob("_*.cpython-*.so"), None)
    if source is None:
        pytest.skip("this interpreter has no compiled modules as files")
    shutil.copy(source, target)
    code = "import ctypes,sys;ctypes.CDLL(sys.argv[1]);print('ready',flush=True);sys.stdin.read()"
    process = start(sys.executable, "-I", "-S", "-c", code, target)
    environ = {"OMP_NUM_THREADS": "4", "PYTHONHASHSEED": "7", "OMP_SECRET": "CANARY"}
    found = read_process_numerics(process.pid, environ)
    assert found.libraries == (NumericLibrary("blas", "OpenBLAS", str(target), "0.3.21"),)
    assert found.variables == {"OMP_NUM_THREADS": "4", "PYTHONHASHSEED": "7"}
    assert (found.hash_seed, found.torch, len(found.problems)) == ("7", None, 1)
    assert read_process_numerics(process.pid, environ, is_isolated=True).hash_seed == "random"
    assert read_process_numerics(process.pid, {}).hash_seed is None


def test_mapped_files_that_cannot_be_read_leave_the_libraries_unknown(tmp_path):
    """Unknown is None with a reason, not an empty list; of another process it is an error."""
    found = read_numerics(proc=str(tmp_path))
    assert found.libraries is None
    assert any("mapped files are not readable" in problem for problem in found.problems)
    with pytest.raises(IncompleteError, match="mapped files are not readable"):
        read_process_numerics(1, {}, proc=str(tmp_path))


SEED = """
import json, os, sys
if "late" in sys.argv[1:]:
    os.environ["PYTHONHASHSEED"] = "9"
from reprod.capture.numerics.settings import read_numerics
found = read_numerics()
print(json.dumps([found.hash_seed, found.problems, hash("reprod")]))
"""


def test_the_hash_seed_is_what_the_interpreter_really_used():
    """A seed counts only if it was set at the start and not ignored: equal seeds, equal hashes."""
    first, second = python(SEED, PYTHONHASHSEED="42"), python(SEED, PYTHONHASHSEED="42")
    assert first == second
    assert first[0] == "42"
    assert python(SEED, PYTHONHASHSEED="0")[:2] == ["0", []]
    assert python(SEED)[:2] == ["random", []]
    assert python(SEED, "-E", PYTHONHASHSEED="42")[:2] == ["random", []]
    late = python(SEED.replace('"late" in sys.argv[1:]', "True"))
    assert late[0] is None
    assert "not in the environment of the start" in late[1][0]


def test_how_a_hash_seed_is_written():
    """``random``, nothing and numbers; what the interpreter refuses at its start is unknown."""
    assert [hash_seed_of(value) for value in (None, "", "random", "0", "007", "4294967295")] == [
        *("random", "random", "random", "0", "7", "4294967295"),
    ]
    assert [hash_seed_of(value) for value in ("4294967296", "abc", "-1")] == [None, None, None]


def test_only_listed_variables_are_taken():
    """A name that merely begins like a setting is left out, a long value is cut."""
    environ = {"OMP_NUM_THREADS": "2", "OMP_TOKEN": "CANARY", "XLA_FLAGS": "x" * 9999, "PATH": "/bin"}
    assert numeric_variables(environ) == {"OMP_NUM_THREADS": "2", "XLA_FLAGS": "x" * 4096}


class Loud(types.ModuleType):
    """A module that notes what it is asked for that its dictionary does not hold: the real one may import it."""

    def __init__(self, name):
        super().__init__(name)
        self.asked = []

    def __getattr__(self, name):
        self.asked.append(name)
        raise AttributeError(name)


@pytest.fixture
def torch(monkeypatch):
    """A stub of PyTorch that counts what would start CUDA, and raises where the real one does."""
    stub, cuda, cudnn, backend = Loud("torch"), Loud("torch.cuda"), types.SimpleNamespace(), types.SimpleNamespace()
    cuda.started = []
    cuda.is_initialized = lambda: bool(cuda.started)
    cuda.is_available = cuda._lazy_init = lambda: cuda.started.append(1)
    stub.cuda, stub.__version__ = cuda, "2.2.0+cu121"
    stub.get_num_threads, stub.get_num_interop_threads = lambda: 8, lambda: 2
    stub.are_deterministic_algorithms_enabled = lambda: True
    stub.get_float32_matmul_precision = lambda: 1 / 0
    stub.get_default_dtype = types.SimpleNamespace
    stub.initial_seed = lambda: 2**64 - 1
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = True, False, "yes"
    cudnn.conv = types.SimpleNamespace(fp32_precision="tf32")
    backend.matmul = type("Mixed", (), {"allow_tf32": property(lambda self: 1 / 0), "fp32_precision": "ieee"})()
    for name, module in {"": stub, ".cuda": cuda, ".backends.cudnn": cudnn, ".backends.cuda": backend}.items():
        monkeypatch.setitem(sys.modules, f"torch{name}", module)
    return stub


def test_pytorch_is_read_and_not_started(torch):
    """Switches that answer are recorded, the others are unknown; CUDA is untouched and nothing is imported."""
    before = set(sys.modules)
    settings, state, whole = read_torch(), read_random_state(), read_numerics()
    assert (torch.asked, torch.cuda.asked, torch.cuda.started) == ([], [], [])
    assert not torch.cuda.is_initialized()
    assert set(sys.modules) == before
    assert (
        settings
        == whole.torch
        == TorchSettings(
            version="2.2.0+cu121",
            threads=8,
            interop_threads=2,
            deterministic=True,
            cudnn_deterministic=True,
            cudnn_benchmark=False,
            cudnn_conv="tf32",
            cuda_matmul="ieee",
        )
    )
    assert state.torch_seed == str(2**64 - 1)


def test_a_half_imported_pytorch_is_unknown_and_harmless(monkeypatch):
    """Another thread may be importing it, or an import of it may be blocked."""
    half = Loud("torch")
    monkeypatch.setitem(sys.modules, "torch", half)
    settings, state = read_torch(), read_random_state()
    assert (settings, state.torch_seed, half.asked) == (TorchSettings(), None, [])
    monkeypatch.setitem(sys.modules, "torch", None)
    assert read_torch() is None
    assert read_random_state().torch_seed is None


def test_nothing_that_is_not_loaded_is_loaded():
    """Acceptance test 31: modules stay as they were, and a fork after the capture works."""
    code = """
import json, os, sys
sys.modules.pop("random", None)
import reprod.capture.numerics.settings, reprod.capture.numerics.random_state
import reprod.capture.imports.used, reprod.capture.process.invocation
before = set(sys.modules)
settings = reprod.capture.numerics.settings.read_numerics()
state = reprod.capture.numerics.random_state.read_random_state()
reprod.capture.imports.used.read_imports()
reprod.capture.process.invocation.read_invocation()
child = os.fork()
if child == 0:
    reprod.capture.numerics.settings.read_numerics()
    os._exit(7)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
heavy = [name for name in ("torch", "numpy", "ctypes", "random", "psutil") if name in sys.modules]
print(json.dumps([sorted(set(sys.modules) - before), heavy, settings.torch, state.numpy_sha256, code]))
"""
    assert python(code, "-S", PYTHONPATH=str(Path(__file__).parents[2])) == [[], [], None, None, 7]


def test_the_state_of_generators_tells_seeds_and_draws():
    """Equal seeds and draws give equal digests; asking draws nothing."""
    code = """
import json, random, sys
from reprod.capture.numerics.random_state import read_random_state
random.seed(5)
first = read_random_state().python_sha256
again = read_random_state().python_sha256
value = random.random()
drawn = read_random_state().python_sha256
random.seed(5)
print(json.dumps([first, again == first, drawn == first, read_random_state().python_sha256 == first,
                  random.random() == value]))
"""
    one, two = python(code), python(code)
    assert one == two
    assert one[1:] == [True, False, True, True]
    assert len(one[0]) == 64


def test_the_state_of_numpy_tells_its_seed():
    """numpy's global generator, seeded alike in two processes, has one digest; another seed has another."""
    pytest.importorskip("numpy", reason="needs a real numpy")
    code = """
import json, numpy, sys
from reprod.capture.numerics.random_state import read_random_state
digests = []
for seed in (1, 2, 1):
    numpy.random.seed(seed)
    digests.append(read_random_state().numpy_sha256)
print(json.dumps([digests, float(numpy.random.random())]))
"""
    (digests, value), again = python(code), python(code)
    assert [digests, value] == again
    assert digests[0] == digests[2] != digests[1]
