"""The operating system, its C library and the memory: of the caller, of another process, of one with another root."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import pytest
from live_process import WAIT
from machine_tree import link, plant

from reprod.capture.machine.memory import read_memory
from reprod.capture.machine.system import read_platform
from reprod.core.machine import Cpu, Disk, Limits, Memory, Placement, System
from reprod.errors import IncompleteError

ALPINE = 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.20.3\nPRETTY_NAME="Alpine Linux v3.20"\nHOME_URL="x"\n'
GLIBC = b"\x7fELF...\0GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\nCopyright\0"


def maps(path: Path, inode: int | None = None, deleted: str = "") -> str:
    """Return the maps of a program that has one library loaded."""
    inode = path.stat().st_ino if inode is None else inode
    head = "55d0a0000000-55d0a0002000 r--p 00000000 fe:00 260386                     /usr/bin/python3\n"
    return (
        head + f"7ff844226000-7ff84424c000 r--p 00000000 fe:00 {inode}                     /lib/{path.name}{deleted}\n"
    )


def test_this_machine() -> None:
    """The facts agree with the standard library's, and nothing is a problem."""
    system = read_platform()
    assert (system.system, system.release, system.machine) == (os.uname()[0], os.uname()[2], os.uname()[4])
    assert (system.libc, system.libc_version) in {platform.libc_ver(), ("musl", None)}
    assert system.os_id == platform.freedesktop_os_release()["ID"]
    assert system.os == platform.freedesktop_os_release()["PRETTY_NAME"]


def test_another_process_has_the_library_that_it_loaded(start) -> None:
    """Another process's C library is read from the file that it has mapped, and is that of this one here."""
    child = start(sys.executable, "-c", WAIT)
    here, there = read_platform(), read_platform(child.pid)
    assert (there.libc, there.libc_version, there.os) == (here.libc, here.libc_version, here.os)


def test_tunables(monkeypatch) -> None:
    """What can switch instruction sets off is recorded: the value, empty if it is not set, None if nobody knows."""
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert read_platform().libc_tunables == ""
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX512F")
    assert read_platform().libc_tunables == "glibc.cpu.hwcaps=-AVX512F"
    assert read_platform(os.getpid()).libc_tunables is None
    assert read_platform(os.getpid(), environ={"A": "b"}).libc_tunables == ""


@pytest.mark.parametrize("target", ["../usr/lib/os-release", "/usr/lib/os-release", "/etc/static/os-release"])
def test_the_name_comes_from_the_processs_own_root(tmp_path, target) -> None:
    """Links are followed inside of the root, absolute ones too: never the reader's own distribution."""
    plant(tmp_path, {"usr/lib/os-release": ALPINE, "etc/static/os-release": ALPINE, "proc/self/maps": ""})
    link(tmp_path, "etc/os-release", target)
    system = read_platform(root=str(tmp_path))
    assert (system.os, system.os_id, system.os_version) == ("Alpine Linux v3.20", "alpine", "3.20.3")


@pytest.mark.parametrize("target", ["/etc/os-release", "os-release", "/dev/null", "/nowhere"])
def test_a_name_that_cannot_be_read(tmp_path, target) -> None:
    """A link to itself, out of the root, or to no regular file leaves the name unknown with a reason."""
    link(tmp_path, "etc/os-release", target)
    (tmp_path / "dev").mkdir()
    os.mkfifo(tmp_path / "dev/null")
    system = read_platform(root=plant(tmp_path, {"proc/self/maps": ""}))
    assert (system.os, system.os_id) == (None, None)
    assert system.problems[0].startswith("os-release: ")


def test_quotes_and_strange_names(tmp_path) -> None:
    """Quotes and backslashes are the shell's, and bytes that are no UTF-8 can be stored."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_bytes(b"NAME='My \\$OS'\nID=caf\xe9\n# VERSION_ID=no\n")
    system = read_platform(root=plant(tmp_path, {"proc/self/maps": ""}))
    assert (system.os, system.os_id, system.os_version) == ("My $OS", "caf\\xe9", None)
    assert msgspec.json.decode(msgspec.json.encode(system), type=System) == system


def test_library_by_its_banner(tmp_path) -> None:
    """The version is what the very file says that is mapped; a file that was replaced says nothing."""
    plant(tmp_path, {"etc/os-release": ALPINE, "proc/self/maps": ""})
    (tmp_path / "lib").mkdir()
    for name in ("libc.so.6", "libc-2.31.so"):
        (tmp_path / "lib" / name).write_bytes(GLIBC)
        (tmp_path / "proc/self/maps").write_text(maps(tmp_path / "lib" / name))
        system = read_platform(root=str(tmp_path))
        assert (system.libc, system.libc_version, system.problems) == ("glibc", "2.36", ())
    for text in (maps(tmp_path / "lib/libc.so.6", inode=1), maps(tmp_path / "lib/libc.so.6", deleted=" (deleted)")):
        (tmp_path / "proc/self/maps").write_text(text)
        system = read_platform(root=str(tmp_path))
        assert (system.libc, system.libc_version) == ("glibc", None)
        assert system.problems == ("libc: its file may have been replaced",)


def test_libraries_that_do_not_tell(tmp_path) -> None:
    """musl is named without a version, a static program has no library, a file without a banner no version."""
    plant(tmp_path, {"etc/os-release": ALPINE, "lib/ld-musl-x86_64.so.1": "", "lib/libc.so.6": "nothing"})
    told = {"ld-musl-x86_64.so.1": ("musl", None), "libc.so.6": ("glibc", None)}
    for name, expected in told.items():
        plant(tmp_path, {"proc/self/maps": maps(tmp_path / "lib" / name)})
        system = read_platform(root=str(tmp_path))
        assert (system.libc, system.libc_version) == expected
        assert len(system.problems) == 1
    plant(tmp_path, {"proc/self/maps": "55d0a0000000-55d0a0002000 r--p 00000000 fe:00 26 /usr/bin/static\n"})
    assert read_platform(root=str(tmp_path)).libc is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change another root directory")
def test_a_process_with_another_root(tmp_path, start) -> None:
    """A real process in another root has that root's distribution, and its library cannot be looked up there."""
    plant(tmp_path, {"etc/static/os-release": ALPINE})
    link(tmp_path, "etc/os-release", "/etc/static/os-release")
    child = start(sys.executable, "-c", f"import os; os.chroot({str(tmp_path)!r}); {WAIT}")
    system = read_platform(child.pid)
    assert system.os_id == "alpine"
    assert (system.libc, system.libc_version) == ("glibc", None) or system.libc == "musl"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_another_users_process() -> None:
    """Without the right to look the kernel is known, distribution and library are not, and the reason is permission."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("no setpriv here")
    script = (
        "import msgspec; from reprod.capture.machine.system import read_platform; "
        "from reprod.capture.machine.limits import read_limits; "
        f"print(msgspec.json.encode([read_platform({os.getpid()}), read_limits({os.getpid()})]).decode())"
    )
    command = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/")
    if "ModuleNotFoundError" in done.stderr or "PermissionError" in done.stderr:
        pytest.skip("another user cannot read this installation")
    assert done.returncode == 0, done.stderr
    system, limits = json_of(done.stdout)
    assert system["release"] == os.uname().release
    assert (system["os"], system["libc"]) == (None, None)
    assert set(system["problems"]) == {"os-release: permission", "libc: permission"}
    assert limits["affinity_count"] == len(os.sched_getaffinity(0))


def json_of(text: str) -> list[dict[str, object]]:
    return msgspec.json.decode(text)


@pytest.mark.parametrize(
    "value",
    [
        read_platform(),
        Memory(),
        Cpu(),
        Limits(),
        Limits(cpu_quota="max", cpuset_count="max", memory_max="max", memory_high="max", cpu_effective=2.0),
        Limits(cpu_quota=1.5, cpuset_count=3, memory_max=1 << 40, problems=("a", "b")),
        Placement("0-3", "0,2"),
        Disk("/data", "/", "ext4", "/dev/sda1", options=("rw",), rotational=False),
    ],
)
def test_what_is_stored_is_read_back(value) -> None:
    """Every value survives JSON with its types: no limit, a number and unknown stay three different things."""
    assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value


def test_memory() -> None:
    """The total is psutil's, and swap is known, 0 where there is none."""
    memory = read_memory()
    assert memory.total_bytes == psutil.virtual_memory().total
    assert memory.swap_bytes is not None


def test_memory_of_another_machine(tmp_path) -> None:
    """KiB become bytes; a total that is missing is unknown, swap that is missing is None and not 0."""
    root = plant(
        tmp_path, {"proc/meminfo": "MemTotal:       24683656 kB\nMemFree: 1 kB\nSwapTotal:       2097148 kB\n"}
    )
    assert read_memory(root) == Memory(24683656 * 1024, 2097148 * 1024)
    assert read_memory(plant(tmp_path, {"proc/meminfo": "MemTotal: 1 kB\n"})) == Memory(1024, None)
    with pytest.raises(IncompleteError):
        read_memory(plant(tmp_path, {"proc/meminfo": "MemFree: 1 kB\n"}))
