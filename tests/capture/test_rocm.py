"""AMD GPUs from the kernel's topology, and ROCm's versions."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from reprod.capture.gpu.accelerators import read_accelerators
from reprod.capture.gpu.kfd import NODES, read_kfd
from reprod.capture.gpu.rocm import read_rocm
from reprod.core.accelerator import Gpu, Library, Rocm
from reprod.errors import IncompleteError


@dataclass(frozen=True)
class Dist:
    name: str
    version: str
    location: str = "/nonexistent"


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def add_node(root: Path, number: int, minor: int, **properties: int) -> None:
    """Add a GPU with 64 GiB in two banks of its own, beside a bank of the host's."""
    lines = {"cpu_cores_count": 0, "simd_count": 440, "simd_per_cu": 4, "gfx_target_version": 90010, "domain": 0}
    lines |= {"vendor_id": 4098, "location_id": 0xC100, "drm_render_minor": minor, **properties}
    write(root, f"{NODES}/{number}/properties", "".join(f"{key} {value}\n" for key, value in lines.items()))
    write(root, f"{NODES}/{number}/name", "aldebaran\n")
    for bank, (heap, size) in enumerate(((0, 1 << 40), (1, 1 << 35), (2, 1 << 35))):
        write(root, f"{NODES}/{number}/mem_banks/{bank}/properties", f"heap_type {heap}\nsize_in_bytes {size}\n")
    write(root, f"dev/dri/renderD{minor}", "")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with one processor node and two GPUs."""
    write(tmp_path, "dev/kfd", "")
    write(tmp_path, f"{NODES}/0/properties", "cpu_cores_count 64\nsimd_count 0\ngfx_target_version 0\n")
    add_node(tmp_path, 2, 128, unique_id=0x1234, max_engine_clk_fcompute=1700)
    add_node(tmp_path, 10, 129, gfx_target_version=110501, location_id=0x0308)
    write(tmp_path, "sys/module/amdgpu/version", "6.7.0\n")
    device = "sys/class/drm/renderD128/device"
    write(tmp_path, f"{device}/product_name", "AMD Instinct MI250X\n")
    write(tmp_path, f"{device}/vbios_version", "113-D65210-063\n")
    write(tmp_path, f"{device}/hwmon/hwmon3/power1_cap", "500000000\n")
    write(tmp_path, f"{device}/hwmon/hwmon3/power1_cap_default", "560000000\n")
    return tmp_path


def test_the_topology_tells_the_gpus(root):
    """Nodes with SIMD units are GPUs, in the order of their numbers; what a card does not tell is None."""
    found = read_accelerators(str(root))
    assert found.gpus == (
        Gpu(
            0,
            "AMD Instinct MI250X",
            "6.7.0",
            "GPU-0000000000001234",
            "0000:c1:00.0",
            vendor="AMD",
            memory_bytes=1 << 36,
            capability="gfx90a",
            multiprocessors=110,
            vbios="113-D65210-063",
            power_limit_mw=500000,
            power_default_mw=560000,
            sm_clock_max_mhz=1700,
        ),
        Gpu(
            1,
            "aldebaran",
            "6.7.0",
            None,
            "0000:03:01.0",
            vendor="AMD",
            memory_bytes=1 << 36,
            capability="gfx1151",
            multiprocessors=110,
        ),
    )
    assert (found.how, found.problems) == ("kfd", ())


def test_a_container_has_the_gpus_of_its_devices(root):
    """A GPU whose render device is not here is the host's; without /dev/kfd there is none to use."""
    (root / "dev/dri/renderD128").unlink()
    assert [gpu.capability for gpu in read_kfd(str(root))[0]] == ["gfx1151"]
    (root / "dev/kfd").unlink()
    assert read_kfd(str(root)) == ((), ())


def test_a_topology_that_cannot_be_read_is_unknown(tmp_path):
    """The driver's device without its list of GPUs is unknown, never none."""
    write(tmp_path, "dev/kfd", "")
    with pytest.raises(IncompleteError, match="not its list of GPUs"):
        read_kfd(str(tmp_path))


def test_a_node_that_is_damaged_is_a_problem(root):
    """A node that cannot be read is named, the others stay."""
    (root / NODES / "10/properties").unlink()
    gpus, problems = read_kfd(str(root))
    assert (len(gpus), problems) == (1, ("AMD node 10: No such file or directory",))


def test_three_versions_are_kept_apart(root):
    """Driver, runtime of the packages and installed toolkit are three fields; ROCM_PATH comes before /opt/rocm."""
    write(root, "opt/rocm/.info/version", "6.1.0-82\n")
    write(root, "opt/mine/.info/version", "6.3.1-48\n")
    packages = [Dist("torch", "2.4.0+rocm6.1"), Dist("numpy", "2.0")]
    found = read_rocm(packages, root=str(root))
    assert found == Rocm(
        driver="6.7.0",
        runtime="6.1",
        toolkit="6.1.0-82",
        toolkit_path="/opt/rocm",
        libraries=(Library("hip", "6.1", "build", "torch 2.4.0+rocm6.1"),),
    )
    assert msgspec.json.decode(msgspec.json.encode(found), type=Rocm) == found
    mine = read_rocm(packages, variables={"ROCM_PATH": "/opt/mine"}, root=str(root))
    assert (mine.toolkit, mine.toolkit_path) == ("6.3.1-48", "/opt/mine")


def test_no_rocm_is_an_answer(tmp_path):
    """Without ROCm every field is None; a PyTorch for CUDA is none; text that is no version does not come out."""
    write(tmp_path, "opt/rocm/.info/version", "password: hunter2\n")
    assert read_rocm([Dist("torch", "2.4.0+cu121")], root=str(tmp_path)) == Rocm()


def test_contradicting_runtimes_are_unknown(tmp_path):
    """Two runtimes leave the field None and are both named."""
    found = read_rocm([Dist("torch", "2.4.0+rocm6.1"), Dist("vllm", "0.6+rocm624")], root=str(tmp_path))
    assert found.runtime is None
    assert found.problems == ("runtime: 6.1 (torch 2.4.0+rocm6.1), 624 (vllm 0.6+rocm624) disagree",)
