"""Process identity on this machine."""

import os
import subprocess
import sys
from dataclasses import replace

import psutil
from live_process import WAIT

from reprod.capture.process.identity import current_context, is_alive, start_ticks


def test_this_process_is_alive():
    """The own context is right and its start agrees with psutil's."""
    context = current_context()
    assert (context.pid, context.prefix) == (os.getpid(), sys.prefix)
    assert is_alive(context)
    born = psutil.boot_time() + context.start_ticks / os.sysconf("SC_CLK_TCK")
    assert abs(born - psutil.Process().create_time()) < 2


def test_a_reused_pid_is_another_process():
    """Same pid with another start, or the same in another boot, is not that process."""
    context = current_context()
    assert not is_alive(replace(context, start_ticks=context.start_ticks + 1))
    assert not is_alive(replace(context, boot_id="0" * 8 + context.boot_id[8:]))
    assert not is_alive(replace(context, pid=2**22 + 1))


def test_a_hostile_command_name(start, tmp_path):
    """Blanks and brackets in the command's name do not shift the fields."""
    evil = tmp_path / "x) R 1 (2"
    evil.symlink_to(sys.executable)
    process = start(evil, "-I", "-S", "-c", WAIT)
    plain = start(sys.executable, "-I", "-S", "-c", WAIT)
    assert 0 <= start_ticks(plain.pid) - start_ticks(process.pid) < 1000


def test_a_zombie_is_not_alive():
    """A process that has ended but is not reaped has nothing to read."""
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert start_ticks(process.pid) is None
    process.wait(30)
