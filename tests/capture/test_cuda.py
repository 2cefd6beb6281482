"""CUDA versions: of the driver, of the packages, of the toolkit and of loaded files, each told apart."""

import mmap
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from reprod.capture.gpu.cuda import read_cuda
from reprod.capture.gpu.loaded_libraries import loaded_gpu_libraries
from reprod.capture.imports.mapped import mapped_files
from reprod.core.accelerator import (
    Cuda,
    Gpu,
    Library,
    MigInstance,
    agree,
    count_multiprocessors,
    normalise_bus,
    visible_indices,
)


@dataclass(frozen=True)
class Dist:
    name: str
    version: str
    location: str = "/nonexistent"


def test_no_cuda_is_an_answer(tmp_path):
    """Without any CUDA every field is None and nothing is a problem."""
    assert read_cuda([Dist("numpy", "2.1.0"), Dist("torch", "2.2.0+cpu")], root=str(tmp_path)) == Cuda()


def test_three_versions_are_kept_apart(tmp_path):
    """What the driver supports, what the packages bring and what lies in /usr/local/cuda are three fields."""
    toolkit = tmp_path / "usr/local/cuda"
    toolkit.mkdir(parents=True)
    (toolkit / "version.json").write_text('{"cuda": {"name": "CUDA SDK", "version": "11.8.0"}}')
    packages = [
        Dist("torch", "2.2.0+cu121"),
        Dist("nvidia-cuda-runtime-cu12", "12.1.105"),
        Dist("nvidia_cudnn_cu12", "8.9.2.26"),
        Dist("nvidia-nccl-cu12", "2.19.3"),
        Dist("nvidia-cublas-cu12", "12.1.3.1"),
    ]
    found = read_cuda(packages, driver_max="12.4", root=str(tmp_path))
    assert (found.driver_max, found.runtime, found.toolkit) == ("12.4", "12.1.105", "11.8.0")
    assert (found.cudnn, found.nccl, found.cublas) == ("8.9.2.26", "2.19.3", "12.1.3.1")
    assert (found.toolkit_path, found.problems) == ("/usr/local/cuda", ())
    assert Library("cudart", "12.1", "build", "torch 2.2.0+cu121") in found.libraries
    assert Library("cudnn", "8.9.2.26", "distribution", "nvidia_cudnn_cu12 8.9.2.26") in found.libraries
    assert msgspec.json.decode(msgspec.json.encode(found), type=Cuda) == found


@pytest.mark.parametrize(
    ("packages", "runtime"),
    [
        ([("torch", "1.13.1+cu117")], "11.7"),
        ([("torch", "1.8.0+cu92")], "9.2"),
        ([("torch", "2.9.0+cu130")], "13.0"),
        ([("nvidia-cuda-runtime", "13.0.48"), ("nvidia-cudnn-cu13", "9.13.0.50")], "13.0.48"),
        ([("jaxlib", "0.4.7+cuda12.cudnn88")], "12"),
        ([("flash-attn", "2.5.8+cu122torch2.3cxx11abifalse")], "12.2"),
        # What an extension was built with does not decide against what PyTorch brings.
        ([("flash-attn", "2.5.8+cu122torch2.3"), ("torch", "2.3.0+cu121")], "12.1"),
        ([("cucumber", "1.0+cuckoo"), ("torch", "2.2.0+cpu"), ("x", "1+abcu121")], None),
    ],
)
def test_the_runtime_of_packages(tmp_path, packages, runtime):
    """Local versions and the runtime's own package say which CUDA runs; names alone never do."""
    found = read_cuda([Dist(*package) for package in packages], root=str(tmp_path))
    assert (found.runtime, found.problems) == (runtime, ())


def test_contradicting_runtimes_are_unknown(tmp_path):
    """Two runtimes in one environment leave the field None and are both named."""
    packages = [Dist("torch", "2.2.0+cu121"), Dist("nvidia-cuda-runtime-cu12", "12.4.127")]
    found = read_cuda(packages, root=str(tmp_path))
    assert found.runtime is None
    assert found.problems == (
        "runtime: 12.4.127 (nvidia-cuda-runtime-cu12 12.4.127), 12.1 (torch 2.2.0+cu121) disagree",
    )
    assert len(found.libraries) == 2


def test_pytorch_says_what_it_was_built_for(tmp_path):
    """PyTorch from an index has no local version; its own version file is read as text, never imported."""
    (tmp_path / "torch").mkdir()
    marker = tmp_path / "ran"
    (tmp_path / "torch/version.py").write_text(
        f"open({str(marker)!r}, 'w')\n__version__ = '2.6.0'\ncuda: Optional[str] = '12.4'\nhip: Optional[str] = None\n"
    )
    found = read_cuda([Dist("torch", "2.6.0", str(tmp_path))], root=str(tmp_path))
    assert found.runtime == "12.4"
    assert not marker.exists()


def test_conda_packages_count(tmp_path):
    """The runtime and libraries that conda installed are evidence like wheels."""
    pairs = [("cuda-cudart", "12.4.127"), ("cudnn", "9.1.1.17"), ("pytorch-cuda", "12.4"), ("zlib", "1.3")]
    found = read_cuda([], conda=pairs, root=str(tmp_path))
    assert (found.runtime, found.cudnn) == ("12.4.127", "9.1.1.17")


@pytest.mark.parametrize(
    ("file", "text", "version"),
    [
        ("version.json", '{"cuda": {"version": "12.6.20241114"}}', "12.6.20241114"),
        ("version.txt", "CUDA Version 10.2.89\n", "10.2.89"),
        ("include/cuda.h", "#ifndef X\n#define CUDA_VERSION 12040\n", "12.4"),
        ("version.json", '{"cuda": {"version": "12; rm"}}', None),
        ("version.json", "[" * 100_000, None),
        ("version.json", '{"cuda": 3}', None),
    ],
)
def test_the_toolkit_tells_its_version(tmp_path, file, text, version):
    """Each form in which toolkits wrote their version is read; anything else is unknown and does not come out."""
    path = tmp_path / "usr/local/cuda" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert read_cuda([], root=str(tmp_path)).toolkit == version


def test_the_toolkit_is_the_one_that_a_build_would_take(tmp_path):
    """CUDA_HOME comes first, then the nvcc on PATH, then /usr/local/cuda; nvcc is not run."""
    for place, version in (("usr/local/cuda", "11.0"), ("opt/a", "12.0"), ("opt/b", "12.5")):
        (tmp_path / place / "bin").mkdir(parents=True)
        (tmp_path / place / "version.json").write_text(f'{{"cuda": {{"version": "{version}"}}}}')
    nvcc = tmp_path / "opt/b/bin/nvcc"
    nvcc.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    nvcc.chmod(0o755)
    found = [
        read_cuda([], variables=variables, root=str(tmp_path))
        for variables in ({"CUDA_HOME": "/opt/a", "PATH": "/opt/b/bin"}, {"PATH": "bin:/usr/bin:/opt/b/bin"}, {})
    ]
    assert [(cuda.toolkit, cuda.toolkit_path) for cuda in found] == [
        ("12.0", "/opt/a"),
        ("12.5", "/opt/b"),
        ("11.0", "/usr/local/cuda"),
    ]
    assert not (tmp_path / "ran").exists()


def test_loaded_libraries_are_those_that_are_mapped(tmp_path):
    """A file that a live process has mapped is named with what its name tells; nothing else of the process is."""
    names = ["libcudart-d0da41ae.so.11.0", "libcudnn_ops_infer.so.8", "libcublas.so.12.1.3.1", "libcuda.so.550.90.07"]
    plain = ["libcudafoo.so.1", "libcudart.so.txt", "notlibnccl.so.2"]
    for name in (*names, *plain):
        (tmp_path / name).write_bytes(b"x" * mmap.PAGESIZE)
    script = (
        "import mmap, os, sys\n"
        "held = [mmap.mmap(os.open(path, os.O_RDONLY), 0, prot=mmap.PROT_READ) for path in sys.argv[1:]]\n"
        "os.unlink(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, *(str(tmp_path / name) for name in (*names, *plain))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = loaded_gpu_libraries(mapped_files(process.pid))
    assert [(item.name, item.version, item.origin, Path(item.source).name) for item in found] == [
        ("cublas", "12.1.3.1", "loaded", names[2]),
        ("cuda", "550.90.07", "loaded", names[3]),
        ("cudart", "11.0", "loaded", names[0]),
        ("cudnn_ops_infer", "8", "loaded", names[1]),
    ]
    assert loaded_gpu_libraries(mapped_files()) == ()


def test_the_longest_version_wins_only_over_its_beginnings():
    """Versions agree if each is the beginning of the longest, by whole numbers."""
    assert agree(["12", "12.1", "12.1.105"]) == "12.1.105"
    assert agree(["12.1", "12.10.3"]) is None
    assert agree([]) is None


def test_numbers_of_the_driver_become_ours():
    """Bus addresses are written as sysfs writes them; multiprocessors only where the ratio is known and whole."""
    assert normalise_bus("00000000:0A:00.0") == "0000:0a:00.0"
    assert normalise_bus("10000:0a:00.0") == "10000:0a:00.0"
    assert normalise_bus("0A:00.0") == "0000:0a:00.0"
    assert [normalise_bus(text) for text in ("", "GPU-1", None)] == [None] * 3
    assert count_multiprocessors(16896, "9.0") == 132
    assert count_multiprocessors(6912, "8.0") == 108
    assert [count_multiprocessors(*pair) for pair in ((100, "9.0"), (128, "99.0"), (None, "9.0"), (0, "9.0"))] == [
        None
    ] * 4


def test_which_gpus_a_process_sees():
    """CUDA_VISIBLE_DEVICES means what CUDA makes of it; where CUDA's order is its own, numbers tell nothing."""
    part = MigInstance(uuid="MIG-9")
    gpus = [Gpu(0, "H100", uuid="GPU-aa1"), Gpu(1, "H100", uuid="GPU-aa2"), Gpu(2, "H100", mig_instances=(part,))]

    def visible(value: str, **variables: str) -> tuple[int, ...] | None:
        return visible_indices(gpus, {"CUDA_VISIBLE_DEVICES": value, **variables})

    assert visible_indices(gpus, {}) == (0, 1, 2)
    assert visible_indices([Gpu(0, "MI300", vendor="AMD")], {}) is None
    assert visible("") == ()
    assert visible("2, 0") == (2, 0)
    assert visible("1,-1,0") == (1,)
    assert visible("7") == ()
    assert visible("GPU-aa2,MIG-9") == (1, 2)
    assert visible("GPU-aa") == ()  # ambiguous
    gpus.append(Gpu(3, "T4", uuid="GPU-bb"))
    assert visible("0") is None
    assert visible("0", CUDA_DEVICE_ORDER="PCI_BUS_ID") == (0,)
    assert visible("GPU-bb") == (3,)
