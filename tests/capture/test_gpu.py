"""GPUs: NVML in a child, nvidia-smi, /proc; without a driver nothing is started, and what hangs is ended."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import fake_nvml
import msgspec
import pytest
from waiting import eventually

from reprod.capture import child
from reprod.capture.gpu import nvidia_smi
from reprod.capture.gpu.accelerators import read_accelerators
from reprod.capture.process.identity import start_ticks
from reprod.core.accelerator import Accelerators, Gpu, MigInstance
from reprod.errors import IncompleteError

HERE = Path(__file__).parent
WITHOUT_ANYTHING = "/nonexistent"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a stand-in for nvidia-ml-py first on the path that the child gets; no nvidia-smi unless a test brings it."""
    monkeypatch.setenv("PATH", WITHOUT_ANYTHING)
    monkeypatch.setattr(nvidia_smi, "PLACES", ())

    def install(text: str) -> Path:
        directory = fake_nvml.write_module(tmp_path / "path", text)
        monkeypatch.syspath_prepend(str(directory))
        return directory

    return install


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine whose driver lists one GPU that has a device."""
    root = tmp_path / "root"
    fake_nvml.add_gpu(root, 0, bus="0000:0a:00.0")
    return root


def test_no_driver_is_no_gpu_and_starts_nothing(tmp_path):
    """Without a driver the answer is none, which is known, and no process is started to find that out."""
    script = (
        "import sys\n"
        "started = []\n"
        "sys.addaudithook(lambda event, _: event.split('.')[0] in ('subprocess', 'os') and any(\n"
        "    word in event for word in ('Popen', 'fork', 'spawn', 'exec', 'system')) and started.append(event))\n"
        "from reprod.capture.gpu.accelerators import read_accelerators\n"
        "print(read_accelerators(sys.argv[1]), started)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == f"{Accelerators()!r} []", done.stderr
    assert Accelerators() == Accelerators(gpus=(), how="no driver")


def test_nvml_tells_everything(install, root):
    """Each field is what NVML says, in the units of the record, with MIG instances whose numbers have gaps."""
    install(fake_nvml.WORKS)
    found = read_accelerators(str(root))
    parts = tuple(
        MigInstance(f"MIG-part{number}", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 7 + number, 0, 85520809984, 16)
        for number in (0, 2)
    )
    assert found.gpus[0] == Gpu(
        index=0,
        name="NVIDIA H100 80GB HBM3",
        driver="550.90.07",
        uuid="GPU-0000",
        bus="0000:0a:00.0",
        vendor="NVIDIA",
        memory_bytes=85520809984,
        capability="9.0",
        multiprocessors=132,
        vbios="96.00.89.00.01",
        ecc=True,
        mig=True,
        mig_instances=parts,
        power_limit_mw=500000,
        power_default_mw=700000,
        sm_clock_max_mhz=1980,
        memory_clock_max_mhz=2619,
        sm_clock_set_mhz=1755,
        memory_clock_set_mhz=2619,
        persistence=True,
        compute_mode="exclusive process",
    )
    assert (found.how, found.cuda_driver_max) == ("NVML", "12.4")
    assert msgspec.json.decode(msgspec.json.encode(found), type=Accelerators) == found


def test_what_nvml_does_not_tell_is_none(install, root):
    """What a GPU does not support is None; what is refused is None and said; a lost GPU counts and is said."""
    install(fake_nvml.WORKS)
    found = read_accelerators(str(root))
    assert found.gpus[1] == Gpu(1, "NVIDIA T4", "550.90.07", "GPU-0001", "0000:0a:01.0")
    assert found.gpus[2] == Gpu(2, None, "550.90.07")
    assert found.problems == ("GPU 1: memory: refused", "GPU 2 does not answer: GPU is lost")


def test_nvml_is_never_loaded_here(install, root):
    """The module that loads NVML is imported in a child only, and so is the package."""
    install(fake_nvml.WORKS)
    read_accelerators(str(root))
    assert not {"pynvml", "reprod.capture.gpu.nvml"} & set(sys.modules)


def test_a_driver_that_hangs_is_a_timeout(install, root):
    """A library that hangs costs its time, is a timeout by name, and is ended with all that it started (test 32)."""
    directory = install(fake_nvml.HANGS)
    with pytest.raises(IncompleteError, match=r"^timeout: NVML did not answer within"):
        # Long enough for a slow machine to start the child at all.
        read_accelerators(str(root), seconds=4.0)
    pids = [int(pid) for pid in (directory / "pids").read_text().split()]
    assert len(pids) == 2
    eventually(lambda: all(start_ticks(pid) is None for pid in pids), 10, "the child's group was killed")


def test_a_child_that_cannot_be_killed_is_not_joined_by_another(install, root, monkeypatch):
    """While a child that hangs in the kernel is left, the next question is a timeout at once and starts nothing."""
    install(fake_nvml.WORKS)
    with subprocess.Popen(["/bin/sleep", "600"]) as stuck:
        try:
            monkeypatch.setattr(child, "_stuck", [("NVML", stuck)])
            monkeypatch.setattr(subprocess, "Popen", None)
            with pytest.raises(IncompleteError, match=rf"^timeout: NVML: process {stuck.pid}, asked earlier"):
                read_accelerators(str(root))
        finally:
            stuck.kill()
    monkeypatch.undo()


def test_nvidia_smi_answers_where_the_package_is_missing(install, root, tmp_path, monkeypatch):
    """Without nvidia-ml-py the driver's own program is asked; what it marks as absent is None."""
    install(fake_nvml.MISSING)
    rows = (
        "0, GPU-77, NVIDIA A100-SXM4-40GB, 00000000:07:00.0, 550.90.07, 40960, 92.00.45.00.03, 8.0, Enabled, "
        "Disabled, 400.00, 400.00, 1410, 1215, 1095, 1215, Enabled, Default\n"
        "1, GPU-78, NVIDIA T4, 00000000:08:00.0, 550.90.07, 15360, [N/A], 7.5, [N/A], [N/A], 70.55, "
        "[Not Supported], [Unknown Error], 5001, [N/A], [N/A], Disabled, Exclusive_Process\n"
    )
    program = fake_nvml.write_program(
        tmp_path / "bin",
        f"""case "$1" in
  --query-gpu*) printf '%s' '{rows}' ;;
  *) echo '| NVIDIA-SMI 550.90.07   KMD Version: 550.90.07   CUDA UMD Version: 12.4 |' ;;
esac
""",
    )
    # A directory that is relative is another one in each working directory: its program is not run.
    fake_nvml.write_program(tmp_path / "relative", "echo '0, GPU-13, evil'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"relative:{program}")
    assert read_accelerators(str(root)) == Accelerators(
        gpus=(
            Gpu(
                0,
                "NVIDIA A100-SXM4-40GB",
                "550.90.07",
                "GPU-77",
                "0000:07:00.0",
                memory_bytes=40960 << 20,
                capability="8.0",
                vbios="92.00.45.00.03",
                ecc=True,
                mig=False,
                power_limit_mw=400000,
                power_default_mw=400000,
                sm_clock_max_mhz=1410,
                memory_clock_max_mhz=1215,
                sm_clock_set_mhz=1095,
                memory_clock_set_mhz=1215,
                persistence=True,
                compute_mode="default",
            ),
            Gpu(
                1,
                "NVIDIA T4",
                "550.90.07",
                "GPU-78",
                "0000:08:00.0",
                memory_bytes=15360 << 20,
                capability="7.5",
                power_limit_mw=70550,
                memory_clock_max_mhz=5001,
                persistence=False,
                compute_mode="exclusive process",
            ),
        ),
        how="nvidia-smi",
        cuda_driver_max="12.4",
    )


def test_an_older_nvidia_smi_is_asked_for_what_it_knows(install, root, tmp_path, monkeypatch):
    """A program that refuses a field is asked again without it, and the record says which."""
    install(fake_nvml.MISSING)
    program = fake_nvml.write_program(
        tmp_path / "bin",
        """case "$1" in
  --query-gpu*compute_cap*) echo 'Field "compute_cap" is not a valid field to query.'; exit 2 ;;
  --query-gpu*mig.mode*) echo 'Field "mig.mode.current" is not a valid field to query.'; exit 2 ;;
  --query-gpu*) echo '0, GPU-1, Tesla V100, 00000000:07:00.0, 418.1, 16160, 88, Enabled, 300, 300, 1, 2, 3, 4, N/A, x';;
  *) echo 'CUDA Version: 10.1' ;;
esac
""",
    )
    monkeypatch.setenv("PATH", str(program))
    found = read_accelerators(str(root))
    gpu = found.gpus[0]
    assert (gpu.name, gpu.ecc, gpu.power_limit_mw, gpu.memory_clock_set_mhz) == ("Tesla V100", True, 300000, 4)
    assert (gpu.capability, gpu.mig, gpu.persistence, gpu.compute_mode) == (None, None, None, None)
    assert found.cuda_driver_max == "10.1"
    assert found.problems == ("this nvidia-smi does not know compute_cap, mig.mode.current",)


def test_an_nvidia_smi_that_hangs_is_a_timeout(install, root, tmp_path, monkeypatch):
    """The program that hangs is ended with what it started, and the reason is timeout (test 32)."""
    install(fake_nvml.MISSING)
    program = fake_nvml.write_program(tmp_path / "bin", f"echo $$ > {tmp_path}/pid\n/bin/sleep 600\n")
    monkeypatch.setenv("PATH", str(program))
    with pytest.raises(IncompleteError, match=r"^timeout: nvidia-smi did not answer"):
        read_accelerators(str(root), seconds=4.0)
    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: start_ticks(pid) is None, 10, "nvidia-smi was killed")


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        (fake_nvml.MISSING, "only /proc was read: nvidia-ml-py is not installed"),
        (fake_nvml.NO_LIBRARY, "only /proc was read: libnvidia-ml.so.1 is not installed"),
        (fake_nvml.MISMATCH, "only /proc was read: RM has detected an NVML/RM version mismatch."),
        ("raise RuntimeError", "only /proc was read: pynvml cannot be imported: RuntimeError"),
        ("import os; os._exit(1)", "only /proc was read: NVML's process ended without an answer"),
    ],
)
def test_proc_answers_where_nvml_does_not(install, root, module, problem):
    """Names, bus and driver come from /proc then, question marks are None, and the record says why it is so little."""
    install(module)
    fake_nvml.add_gpu(root, 1, bus="0000:0b:00.0", uuid="GPU-????????-????", vbios="??.??.??.??.??")
    assert read_accelerators(str(root)) == Accelerators(
        gpus=(
            Gpu(0, "NVIDIA H100 80GB HBM3", "550.90.07", "GPU-1", "0000:0a:00.0", vbios="96.00"),
            Gpu(1, "NVIDIA H100 80GB HBM3", "550.90.07", None, "0000:0b:00.0"),
        ),
        how="/proc/driver/nvidia",
        problems=(problem,),
    )


def test_an_nvidia_smi_that_fails_leaves_proc(install, root, tmp_path, monkeypatch):
    """What the program says instead of GPUs becomes the reason."""
    install(fake_nvml.MISSING)
    program = fake_nvml.write_program(tmp_path / "bin", "echo 'NVIDIA-SMI has failed: no driver'; exit 9\n")
    monkeypatch.setenv("PATH", str(program))
    found = read_accelerators(str(root))
    assert (found.how, found.problems) == (
        "/proc/driver/nvidia",
        ("only /proc was read: nvidia-smi: NVIDIA-SMI has failed: no driver",),
    )


def test_a_container_has_the_gpus_of_its_devices(install, root):
    """Where /proc lists the host's GPUs, only those with a device here count; with none the answer is unknown."""
    install(fake_nvml.NO_LIBRARY)
    fake_nvml.add_gpu(root, 1, bus="0000:0b:00.0", uuid="GPU-2", device=False)
    assert [gpu.uuid for gpu in read_accelerators(str(root)).gpus] == ["GPU-1"]
    for name in ("nvidia0", "nvidiactl"):
        (root / "dev" / name).unlink()
    with pytest.raises(IncompleteError, match="lists 2 GPUs, but there are no devices here"):
        read_accelerators(str(root))


def test_a_gpu_whose_file_is_damaged_is_unknown(install, root):
    """A GPU that the driver lists and does not describe makes the answer unknown, never a smaller count."""
    install(fake_nvml.NO_LIBRARY)
    (root / "proc/driver/nvidia/gpus/0000:0a:00.0/information").write_text("")
    with pytest.raises(IncompleteError, match="does not name its model"):
        read_accelerators(str(root))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("proc/driver/nvidia/version", "NVIDIA devices are present but /proc does not describe them"),
        ("dev/nvidia0", "NVIDIA devices are present but /proc does not describe them"),
        ("dev/kfd", "an AMD GPU driver is present, but not its list of GPUs"),
        ("dev/dxg", r"a GPU of Windows \(WSL\) \(/dev/dxg\) is present"),
        ("dev/nvhost-gpu", "a GPU of a Jetson board"),
        ("dev/hl0", "an Intel Gaudi accelerator"),
        ("dev/neuron0", "an AWS Neuron accelerator"),
        ("dev/accel0", "a Google TPU"),
    ],
)
def test_a_silent_driver_is_unknown(install, tmp_path, path, said):
    """A driver or device that cannot be asked is unknown and named, never a count of 0."""
    install(fake_nvml.NO_LIBRARY)
    (tmp_path / "root" / path).parent.mkdir(parents=True)
    (tmp_path / "root" / path).touch()
    with pytest.raises(IncompleteError, match=said):
        read_accelerators(str(tmp_path / "root"))


def test_other_accelerators_beside_a_gpu_are_named(install, root):
    """An accelerator that is not described does not hide the GPUs that are; a processor's own graphics is none."""
    install(fake_nvml.NO_LIBRARY)
    cards = (("0000:00:02.0", 128, "0x8086"), ("0000:83:00.0", 129, "0x8086"), ("0000:0a:00.0", 130, "0x10de"))
    for address, minor, vendor in cards:
        device = root / "sys/devices" / address
        (root / "sys/class/drm" / f"renderD{minor}").mkdir(parents=True)
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (root / "sys/class/drm" / f"renderD{minor}" / "device").symlink_to(device)
    gaudi = root / "sys/class/accel/accel0/device"
    gaudi.mkdir(parents=True)
    (root / "sys/drivers/habanalabs").mkdir(parents=True)
    (gaudi / "driver").symlink_to(root / "sys/drivers/habanalabs")
    found = read_accelerators(str(root))
    assert len(found.gpus) == 1
    assert found.others == ("an Intel Gaudi accelerator (/dev/accel/accel0)", "an Intel GPU (0000:83:00.0)")


#: Runs every collector of accelerators in a process that has a (stub of) torch, and forks afterwards.
IN_TRAINING = """
import json, os, sys
sys.path[:0] = sys.argv[2:]
import torch, msgspec
before = set(sys.modules)
from reprod.capture.gpu.accelerators import read_accelerators
from reprod.capture.gpu.cuda import read_cuda
from reprod.capture.numerics.settings import read_numerics
from reprod.capture.gpu.rocm import read_rocm
found = read_accelerators(sys.argv[1])
read_cuda([], driver_max=found.cuda_driver_max, root=sys.argv[1]), read_rocm([], root=sys.argv[1]), read_numerics()
foreign = [name for name in set(sys.modules) - before if name.split(".")[0] not in sys.stdlib_module_names]
pid = os.fork()
if pid == 0:
    os._exit(7)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(json.dumps([len(found.gpus), torch.cuda.is_initialized(), status, sorted(foreign)]))
"""


def test_a_training_process_stays_as_it_is(root, tmp_path):
    """Reading accelerators imports nothing but reprod, leaves CUDA as it was, and forks go on working (test 31)."""
    path = fake_nvml.write_module(tmp_path / "path", fake_nvml.WORKS)
    stub = (
        "class Cuda:\n    started = False\n    def is_initialized(self): return Cuda.started\n"
        "    def __getattr__(self, name): Cuda.started = True; return lambda *_: 0\n"
        "cuda = Cuda()\n"
    )
    fake_nvml.write_module(tmp_path / "path", stub, "torch")
    done = subprocess.run([sys.executable, "-c", IN_TRAINING, root, path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    gpus, initialized, status, foreign = msgspec.json.decode(done.stdout)
    assert (gpus, initialized, status) == (3, False, 7)
    assert [name for name in foreign if not name.startswith(("reprod", "msgspec"))] == []


#: In a mount namespace whose /proc shows a driver: the whole capture, with an nvidia-smi on PATH that hangs.
WHOLE = """
mount -t tmpfs none /proc/driver && mkdir /proc/driver/nvidia || exit 99
exec "$0" -c '
import sys; sys.path.insert(0, sys.argv[1])
from reprod.capture.environment import capture_self
import json
record = capture_self(git=False)
env = record.environment
print(json.dumps([env.unknown, env.python is not None, len(env.packages.packages)]))' "$1"
"""


@pytest.mark.root
def test_a_capture_survives_a_driver_that_hangs(tmp_path):
    """With an nvidia-smi that hangs a capture has the rest, and says timeout (test 32). Takes its bound, 5 s."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare to show a driver in /proc")
    if not os.path.isdir("/proc/driver"):
        pytest.skip("this kernel has no /proc/driver to mount over")
    path = fake_nvml.write_module(tmp_path / "path", fake_nvml.MISSING)
    program = fake_nvml.write_program(tmp_path / "bin", "/bin/sleep 600\n")
    done = subprocess.run(
        ["unshare", "--mount", "/bin/sh", "-c", WHOLE, sys.executable, path],
        env={**os.environ, "PATH": f"{program}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=90,
    )
    if done.returncode == 99:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    unknown, python, packages = msgspec.json.decode(done.stdout)
    assert [reason for reason in unknown.values() if reason.startswith("timeout: nvidia-smi")] != []
    assert python
    assert packages > 10


def test_the_real_package_against_a_native_library(root, tmp_path, monkeypatch):
    """nvidia-ml-py itself, on a libnvidia-ml.so.1 of ours, gives what that library says: names and types fit."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    if not any(os.path.exists(os.path.join(entry, "pynvml.py")) for entry in sys.path):
        pytest.skip("needs nvidia-ml-py (extra gpu)")
    library = tmp_path / "lib" / "libnvidia-ml.so.1"
    library.parent.mkdir()
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, HERE / "fake_nvml.c"], check=True, timeout=60)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library.parent))
    found = read_accelerators(str(root))
    assert found == Accelerators(
        gpus=(
            Gpu(
                0,
                "Fake H100",
                "580.1",
                "GPU-abc",
                "0000:1b:00.0",
                memory_bytes=80 << 30,
                capability="9.0",
                multiprocessors=132,
                vbios="96.1",
                ecc=False,
                mig=False,
                power_limit_mw=350000,
                sm_clock_max_mhz=1755,
                memory_clock_max_mhz=2619,
                persistence=True,
                compute_mode="default",
            ),
        ),
        how="NVML",
        cuda_driver_max="13.0",
        problems=("GPU 0: default power limit: Insufficient Permissions",),
    )


def test_the_real_driver():
    """On a machine with an NVIDIA driver the GPUs are those of its own program."""
    program = nvidia_smi.find_program()
    if not os.path.exists("/dev/nvidiactl") or program is None:
        pytest.skip("needs an NVIDIA driver with nvidia-smi")
    listed = subprocess.run(
        [program, "--query-gpu=uuid,name", "--format=csv,noheader"], capture_output=True, text=True, timeout=60
    ).stdout
    found = read_accelerators()
    assert [f"{gpu.uuid}, {gpu.name}" for gpu in found.gpus if gpu.vendor == "NVIDIA"] == listed.splitlines()
    assert found.cuda_driver_max is not None
    assert all(gpu.capability and gpu.bus and gpu.driver for gpu in found.gpus)
