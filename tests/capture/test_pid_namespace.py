"""Which pids a process's pid is one of: two containers are never taken for one process."""

import json
import os
import subprocess
import sys

import pytest

from reprod.capture.process.identity import current_context

SAY = "from reprod.capture.process.identity import current_context; print(current_context().to_json())"


def test_a_process_knows_its_namespace() -> None:
    """It is the kernel's number of it."""
    assert current_context().pid_ns == os.stat("/proc/self/ns/pid").st_ino


def test_two_containers_have_different_keys() -> None:
    """Process 1 of two namespaces of one machine: the same boot and pid, another namespace."""
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", sys.executable, "-c", SAY]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ended = [process.communicate(timeout=30) for process in running]
    if any(process.returncode for process in running):
        pytest.skip(f"no pid namespace can be made here: {ended[0][1].strip()}")
    one, other = (json.loads(out) for out, _ in ended)
    assert (one["boot_id"], one["pid"], one["host"]) == (other["boot_id"], other["pid"], other["host"])
    assert one["pid"] == 1
    assert len({one["pid_ns"], other["pid_ns"], current_context().pid_ns}) == 3
