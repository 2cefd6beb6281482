"""How a process was invoked: command, entry, launchers, ranks, start; of this process and, by files, of another."""

import json
import os
import subprocess
import sys

import psutil
import pytest

from reprod.capture.process.invocation import read_invocation, read_process_invocation
from reprod.core.invocation import Entry, Launcher, as_notebook, parse_command, ranks_of
from reprod.core.launcher import find_launcher
from reprod.errors import IncompleteError

#: A program that prints its own invocation as JSON.
REPORT = """
import json
from dataclasses import asdict
from reprod.capture.process.invocation import read_invocation
print(json.dumps(asdict(read_invocation())), flush=True)
"""

COMMANDS = [
    (["python", "train.py", "--lr", "1"], ("script", "train.py"), (), ("--lr", "1")),
    (["/v/bin/python3.11", "-u", "-X", "dev", "-W", "error", "a.py", "-m", "x"], ("script", "a.py"), 5, ("-m", "x")),
    (["python", "-Wignore", "-Xutf8", "--", "-odd.py"], ("script", "-odd.py"), ("-Wignore", "-Xutf8"), ()),
    (["python3", "-m", "pkg.train", "-c", "x"], ("module", "pkg.train"), (), ("-c", "x")),
    (["python", "-Impkg", "7"], ("module", "pkg"), ("-I",), ("7",)),
    (["python", "-c", "import x", "arg"], ("command", None), (), ("arg",)),
    (["python", "-uc", "import x"], ("command", None), ("-u",), ()),
    (["python", "--check-hash-based-pycs", "never", "a.py"], ("script", "a.py"), 2, ()),
    (["python", "-", "arg"], ("stdin", None), (), ("arg",)),
    (["python"], ("interactive", None), (), ()),
    (["python", "-i"], ("interactive", None), ("-i",), ()),
    (["python", "-m"], ("module", None), (), ()),
    (["/opt/app/trainer", "--fast"], ("program", "/opt/app/trainer"), (), ("--fast",)),
]


@pytest.mark.parametrize(("arguments", "entry", "options", "following"), COMMANDS)
def test_a_command_line_is_taken_apart_as_the_interpreter_does(arguments, entry, options, following):
    """Options of the interpreter, the entry, and what the entry got."""
    command = parse_command(arguments)
    assert (command.entry.kind, command.entry.name) == entry
    assert command.following == following
    assert len(command.options) == options if isinstance(options, int) else command.options == options


def test_no_command_line_is_no_entry():
    """Kernel threads and zombies have none."""
    assert parse_command([]).entry is None
    assert parse_command([""]).entry is None


def test_options_that_ignore_the_environment():
    """``-E`` and ``-I`` switch ``PYTHONHASHSEED`` off, also among others; values of options do not."""
    ignored = (["python", "-E", "a"], ["python", "-sI", "a"], ["python", "-Im", "a"])
    heeded = (["python", "-W", "Error", "a"], ["python", "-XEI", "a"], ["python", "a.py", "-E"])
    assert [parse_command(words).ignores_environment for words in (*ignored, *heeded)] == [*[True] * 3, *[False] * 3]


LAUNCHERS = {
    "torchrun": ["/v/bin/python", "/v/bin/torchrun", "--nproc_per_node", "4", "train.py"],
    "torchrun ": ["python", "-m", "torch.distributed.run", "train.py"],
    "accelerate": ["/v/bin/python3", "/v/bin/accelerate", "launch", "train.py"],
    "accelerate ": ["python", "-m", "accelerate.commands.launch", "train.py"],
    "deepspeed": ["python", "-u", "-m", "deepspeed.launcher.launch", "--world_info=x", "train.py"],
    "mpirun": ["mpirun", "-np", "4", "python", "train.py"],
    "srun": ["slurmstepd: [123.0]"],
    "ray": ["ray::train_loop"],
    "papermill": ["python", "/v/bin/papermill", "in.ipynb", "out.ipynb"],
    "pytest": ["python", "-m", "pytest", "-q"],
    "uv": ["uv", "run", "--with", "x", "python", "train.py"],
    "mlflow": ["python", "/v/bin/mlflow", "run", "."],
    "reprod": ["/v/bin/python", "/v/bin/reprod", "run", "--dataset", "x", "--", "python", "train.py"],
    "jupyter": ["python", "/v/bin/jupyter-lab", "--no-browser"],
}
NO_LAUNCHERS = [
    ["bash", "-c", "torchrun train.py"],
    ["python", "train.py", "torchrun"],
    ["python", "/v/bin/mlflow", "server"],
    ["uv", "pip", "install", "x"],
    ["sshd: me [priv]"],
    ["python", "/v/bin/reprod", "daemon"],
    ["accelerate", "config"],
    [],
]


def test_launchers_are_known_by_what_they_run():
    """Executables, scripts, modules and titles; the same names in other uses are none."""
    assert {name: find_launcher(words) for name, words in LAUNCHERS.items()} == {n: n.strip() for n in LAUNCHERS}
    assert [find_launcher(words) for words in NO_LAUNCHERS] == [None] * len(NO_LAUNCHERS)


def test_a_notebook_is_its_entry_and_not_its_kernel():
    """The kernel's module is replaced by the notebook, whose path only the front end knows."""
    kernel = parse_command(["python", "-m", "ipykernel_launcher", "-f", "/run/kernel-1.json"]).entry
    script = parse_command(["python", "/v/site-packages/ipykernel_launcher.py", "-f", "x"]).entry
    assert as_notebook(kernel, "/home/me/work.ipynb") == Entry("notebook", "/home/me/work.ipynb")
    assert as_notebook(script, None) == Entry("notebook", None)
    assert as_notebook(Entry("script", "train.py"), "/home/me/work.ipynb") == Entry("script", "train.py")


def test_only_numbers_are_ranks():
    """A rank variable with anything else in it is not taken."""
    environ = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "CANARY", "PMI_RANK": "", "RANK_TOKEN": "5"}
    assert ranks_of(environ) == {"RANK": "3", "WORLD_SIZE": "8"}


def run(tmp_path, *arguments, **variables):
    environ = {**os.environ, **variables}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        input=REPORT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_process_says_how_it_began_whatever_it_did_since(tmp_path):
    """sys.argv and the working directory may change; arguments, entry and file of the program stay."""
    (tmp_path / "train.py").write_text("import os, sys\nsys.argv[:] = ['other']\nos.chdir('/')\n" + REPORT)
    found = run(tmp_path, "-X", "dev", "train.py", "--lr", "1", RANK="1", WORLD_SIZE="2", OMPI_COMM_WORLD_RANK="1")
    assert found["arguments"] == [sys.executable, "-X", "dev", "train.py", "--lr", "1"]
    assert found["entry"] == {"kind": "script", "name": "train.py"}
    assert found["main_file"] == f"{tmp_path}/train.py"
    assert found["options"] == ["-X", "dev"]
    assert found["cwd"] == "/"
    assert found["executable"] == os.path.realpath(sys.executable)
    assert found["ranks"] == {"RANK": "1", "WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}
    assert {"name": "mpirun", "by": "variable", "arguments": []} in found["launchers"]
    assert found["uid"] == os.getuid()
    assert found["problems"] == []


def test_modules_commands_and_input_are_entries(tmp_path):
    """``-m``, ``-c`` and a program on standard input."""
    (tmp_path / "job.py").write_text(REPORT)
    module, command, stdin = run(tmp_path, "-m", "job"), run(tmp_path, "-c", REPORT), run(tmp_path, "-")
    assert (module["entry"], module["main_file"]) == ({"kind": "module", "name": "job"}, f"{tmp_path}/job.py")
    assert (command["entry"], command["main_file"]) == ({"kind": "command", "name": None}, None)
    assert (stdin["entry"], stdin["main_file"]) == ({"kind": "stdin", "name": None}, None)


def test_parents_that_launch_are_found_through_shells(tmp_path):
    """A launcher's own command line is part of how the process was started; the shell between is not."""
    (tmp_path / "torchrun").write_text(
        "import subprocess, sys\nsys.exit(subprocess.call(['sh', '-c', '\"$0\" train.py; exit $?', sys.executable]))\n"
    )
    (tmp_path / "train.py").write_text(REPORT)
    launchers = run(tmp_path, "torchrun", "--nproc_per_node", "2")["launchers"]
    assert launchers[0] == {
        "name": "torchrun",
        "by": "parent",
        "arguments": [sys.executable, "torchrun", "--nproc_per_node", "2"],
    }
    assert "sh" not in {launcher["name"] for launcher in launchers}


def test_another_process_is_described_by_its_files_as_it_describes_itself(tmp_path, start):
    """Arguments, entry, directory, executable, user and start agree from inside and outside."""
    (tmp_path / "wait.py").write_text(REPORT + "import sys; sys.stdin.read()\n")
    process = start(sys.executable, "-s", "wait.py", "--epochs", "3", "", cwd=tmp_path)
    found = read_process_invocation(process.pid, {"LOCAL_RANK": "0"})
    assert found.arguments == (sys.executable, "-s", "wait.py", "--epochs", "3", "")
    assert (found.entry, found.main_file) == (Entry("script", "wait.py"), f"{tmp_path}/wait.py")
    assert (found.cwd, found.executable) == (str(tmp_path), os.path.realpath(sys.executable))
    assert (found.uid, found.ranks, found.problems) == (os.getuid(), {"LOCAL_RANK": "0"}, ())
    assert abs(found.started_ns / 1e9 - psutil.Process(process.pid).create_time()) < 2


@pytest.fixture
def tree(tmp_path):
    """A fake /proc, for what a real one does not show on demand."""

    def add(pid, parent, *arguments, ticks=100):
        folder = tmp_path / "proc" / str(pid)
        folder.mkdir(parents=True)
        fields = ["S", str(parent), *["0"] * 17, str(ticks), *["0"] * 20]
        (folder / "stat").write_text(f"{pid} (a) b (c) {' '.join(fields)}\n")
        (folder / "cmdline").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in arguments))
        return folder

    add.proc = str(tmp_path / "proc")
    return add


@pytest.mark.parametrize("left", [(), ("", "", "")])
def test_a_title_over_the_arguments_leaves_the_entry_unknown(tree, left):
    """What a process wrote over its command line is shown, and no entry is guessed from it; what is left is empty."""
    tree(50, 1, "python train.py: epoch 3", *left)
    found = read_process_invocation(50, {}, proc=tree.proc)
    assert found.arguments == ("python train.py: epoch 3",)
    assert (found.entry, found.main_file) == (None, None)
    assert any("title over its arguments" in problem for problem in found.problems)


def test_what_may_not_be_read_is_unknown_with_the_reason(tree):
    """Another user's process shows its command line, but neither directory nor executable."""
    tree(50, 1, "python", "train.py")
    found = read_process_invocation(50, {}, proc=tree.proc)
    assert (found.entry, found.main_file, found.cwd, found.executable) == (
        Entry("script", "train.py"),
        None,
        None,
        None,
    )
    assert [problem.partition(":")[0] for problem in found.problems] == ["working directory", "executable"]


@pytest.mark.skipif(os.getuid() != 0, reason="gives a process to another user: needs root")
def test_another_users_launcher_is_named_without_its_arguments(tree):
    """The chain is followed over users and to its end; only the same user's command lines are taken."""
    tree(20, 1, "sbatchd")
    os.chown(tree(30, 20, "srun", "--comment", "CANARY"), 1234, 1234)
    tree(40, 30, "python", "/v/bin/torchrun", "train.py")
    tree(50, 40, "python", "train.py")
    found = read_process_invocation(50, {"TORCHELASTIC_RUN_ID": "x", "SLURM_STEP_ID": "0"}, proc=tree.proc)
    assert found.launchers == (
        Launcher("torchrun", "parent", ("python", "/v/bin/torchrun", "train.py")),
        Launcher("srun", "parent"),
    )


def test_parents_in_a_circle_end(tree):
    """A chain that does not end (pids that were used again while it was read) is cut."""
    tree(40, 50, "bash")
    tree(50, 40, "python", "train.py")
    assert read_process_invocation(50, {}, proc=tree.proc).launchers == ()


def test_no_process_is_a_reason(tree):
    """Ended, or a kernel thread."""
    tree(7, 2)
    for pid in (7, 8):
        with pytest.raises(IncompleteError, match="has ended, or has no command line"):
            read_process_invocation(pid, {}, proc=tree.proc)


def test_a_very_long_command_line_is_cut_and_says_so(tree):
    """Thousands of file names are recorded in part."""
    tree(50, 1, "python", "train.py", *["x" * 40] * 5000, "y" * 40000)
    found = read_process_invocation(50, {}, proc=tree.proc)
    assert len(found.arguments) == 1000
    assert any("there are 5003" in problem for problem in found.problems)


def test_a_users_name_comes_from_the_local_file_or_the_process(tmp_path):
    """No name service is asked; a user that the file does not know is what the process calls itself."""
    users = tmp_path / "passwd"
    users.write_text(f"other:x:99999:0::/:\nme-{os.getuid()}:x:{os.getuid()}:0:Name:/home/me:/bin/sh\nbroken\n")
    assert read_invocation(users=str(users)).user == f"me-{os.getuid()}"
    missing = str(tmp_path / "none")
    assert read_process_invocation(os.getpid(), {"LOGNAME": "ldap-me"}, users=missing).user == "ldap-me"
    assert read_process_invocation(os.getpid(), {}, users=missing).user is None
