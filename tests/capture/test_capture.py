"""Whole environments: of this process, of another, of a prefix, of the host."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from live_process import MINOR, WAIT

import reprod.capture.gathering as module
from reprod.capture.ending import capture_end
from reprod.capture.environment import capture_paths, capture_self, read_host, read_prefix, read_process
from reprod.capture.process.identity import boot_id, current_context, host_name, start_ticks
from reprod.capture.process.interpreter import describe_self
from reprod.capture.used import used_by_now
from reprod.core.accelerator import Accelerators, Gpu
from reprod.core.environment import decode_record, encode, encode_record
from reprod.core.environment_files import artifacts, parameters, system_info
from reprod.core.execution import with_end
from reprod.core.process import ProcessContext
from reprod.errors import IncompleteError

CANARY = "CANARY7f3a"


def context_of(process, prefix):
    return ProcessContext(1, host_name(), boot_id(), process.pid, start_ticks(process.pid), str(prefix))


def names(environment):
    return {package.name: package.version for package in environment.packages.packages}


def test_capture_self():
    """The calling process is the subject, with its own packages and interpreter."""
    record = capture_self(git=False)
    environment = record.environment
    assert record.execution.subject.kind == "process"
    assert record.execution.subject.pid == os.getpid()
    assert "msgspec" in names(environment)
    assert environment.python.executable == sys.executable
    assert environment.unknown["git"] == "not asked"


def test_secrets_never_get_in(tmp_path, monkeypatch, dist):
    """Secrets in variables, remotes and package sources are in no byte of a record or its files."""
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "DATABASE_URL", "NCCL_AUTH_TOKEN"):
        monkeypatch.setenv(name, f"https://u:{CANARY}@h/0123456789")
    monkeypatch.setenv("TORCH_HOME", f"https://u:{CANARY}@h")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    dist(tmp_path / "site", "p", "1.0", direct_url__json=f'{{"url": "https://{CANARY}@h/o/r"}}')
    repo = tmp_path / "repo"
    repo.mkdir()
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", CANARY],
        ["remote", "add", "origin", f"https://u:{CANARY}@h/o/r?private_token={CANARY}"],
    ):
        subprocess.run(["git", *command], cwd=repo, check=True, timeout=20)
    record = capture_paths(current_context(), sys_path=[str(tmp_path / "site")], python=describe_self(), cwd=str(repo))
    environment = record.environment
    assert environment.git.remote.startswith("https://h/o/r")
    assert environment.packages.packages[0].direct_url == "https://h/o/r"
    for data in (encode(environment), *artifacts(record).values()):
        assert CANARY.encode() not in data


def test_the_script_says_which_repository(tmp_path, monkeypatch):
    """The code's repository counts, not the working directory's; an installed command has none of its own."""
    asked = []
    monkeypatch.setattr(module, "read_git", lambda directory, **_: asked.append(directory))
    code = tmp_path / "code"
    code.mkdir()
    for script in (str(code / "train.py"), "code/train.py", f"{sys.prefix}/bin/train", None, "/gone/x.py"):
        capture_paths(current_context(), sys_path=[], python=describe_self(), cwd=str(tmp_path), script=script)
    assert asked == [str(code), str(code), str(tmp_path), str(tmp_path), str(tmp_path)]


def test_the_hash_seed_is_that_of_the_start(monkeypatch):
    """A variable that is set too late has no effect on hashes, and what a child reads claims none."""
    variables = Path("/proc/self/environ").read_text().split("\0")
    started = dict(part.split("=", 1) for part in variables if "=" in part)
    monkeypatch.setenv("PYTHONHASHSEED", "12345")
    record = capture_paths(current_context(), sys_path=[], python=describe_self(), cwd="/", git=False)
    assert record.execution.numerics.variables["PYTHONHASHSEED"] == "12345"
    assert record.execution.numerics.hash_seed == started.get("PYTHONHASHSEED", "random")


def test_a_child_does_not_mix_its_parent_with_who_has_its_pid_now(venv, start):
    """The pid of a process that has ended may be another's: nothing of that one gets into the record."""
    process = start(venv / "bin/python", "-c", WAIT)
    context = context_of(process, venv)
    given = {"sys_path": [], "python": describe_self(), "cwd": "/", "git": False}
    assert capture_paths(context, **given).execution.invocation.arguments[0] == str(venv / "bin/python")
    execution = capture_paths(replace(context, start_ticks=context.start_ticks - 1), **given).execution
    assert (execution.invocation, execution.numerics, execution.imports) == (None, None, None)
    assert "had ended before" in execution.unknown["invocation"]
    assert execution.placement is not None


def test_what_a_script_names_stands_in_until_its_end(tmp_path, venv):
    """Imports that the script will make are named by its text, through the user's own files; the end replaces them."""
    (tmp_path / "train.py").write_text("import layers\ndef later():\n    import only_here\n")
    (tmp_path / "layers.py").write_text("from numpy import array\n")
    site = venv / f"lib/python{MINOR}/site-packages"
    given = {"sys_path": [str(site)], "python": describe_self(), "cwd": str(tmp_path), "git": False}
    record = capture_paths(current_context(), script="train.py", **given)
    named = record.execution.named_imports
    assert (named.how, named.complete) == ("static", False)
    assert set(named.local_files) == {str(tmp_path / "train.py"), str(tmp_path / "layers.py")}
    assert set(named.unresolved) == {"numpy", "only_here"}  # their records have no files here
    assert decode_record(encode_record(record)) == record
    end = capture_end(current_context(), used_by_now(str(tmp_path / "train.py")))
    assert end.imports.complete
    assert with_end(record.execution, end).named_imports is None
    assert with_end(record.execution, replace(end, imports=None)).named_imports == named
    assert capture_paths(current_context(), **given).execution.named_imports is None


def test_a_notebook_names_its_imports(tmp_path, venv, start):
    """Of a kernel the notebook that it runs is read, not the launcher; one that cannot be read is a reason."""
    (tmp_path / "ipykernel_launcher.py").write_text(WAIT)
    cell = {"cell_type": "code", "source": ["%matplotlib inline\n", "import msgspec\n"], "outputs": []}
    (tmp_path / "train.ipynb").write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4}))
    process = start(venv / "bin/python", "-m", "ipykernel_launcher", cwd=tmp_path)
    given = {"sys_path": sys.path, "python": describe_self(), "cwd": str(tmp_path), "git": False}
    for name in ("train.ipynb", "gone.ipynb"):
        variables = {"JPY_SESSION_NAME": str(tmp_path / name)}
        execution = capture_paths(context_of(process, venv), variables=variables, **given).execution
        assert execution.invocation.entry.kind == "notebook"
        if name == "train.ipynb":
            assert [each.name for each in execution.named_imports.distributions] == ["msgspec"]
        else:
            assert "gone.ipynb was not scanned" in execution.unknown["named_imports"]


def test_which_gpus_the_process_sees(monkeypatch):
    """CUDA_VISIBLE_DEVICES of the process decides; of another user's, whose variables are unknown, nothing is."""
    gpus = tuple(Gpu(index, "H100", vendor="NVIDIA") for index in range(3))
    monkeypatch.setattr(module, "read_accelerators", lambda: Accelerators(gpus=gpus, how="nvml"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    record = capture_self(git=False)
    assert record.execution.visible_gpus == (2, 0)
    assert list(system_info(record)["visible_gpus"]) == [2, 0]
    assert len(record.environment.accelerators.gpus) == 3
    assert read_host().execution.visible_gpus is None

    def denied(_):
        raise IncompleteError("permission: not yours")

    monkeypatch.setattr("reprod.capture.environment.examine", denied)
    execution = read_process(current_context()).execution
    assert (execution.visible_gpus, execution.unknown["visible_gpus"]) == (None, "permission: not yours")


def test_where_packages_are_unknown_cuda_is_not_known_to_be_absent(monkeypatch):
    """What the packages bring was not seen, and the sections that are made from them say so."""

    def broken(_):
        raise OSError("server gone")

    monkeypatch.setattr(module, "read_packages", broken)
    environment = capture_self(git=False).environment
    assert environment.cuda.problems == environment.rocm.problems == (module.NO_PACKAGES,)


def test_a_failing_collector_costs_its_own_section_only(monkeypatch):
    """An unforeseen error in one collector is that section's reason; the record is whole otherwise."""

    def broken():
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(module, "read_accelerators", broken)
    record = capture_self(git=False)
    environment = record.environment
    assert environment.accelerators is None
    assert "boom" in environment.unknown["accelerators"]
    assert "gpu_count" not in parameters(environment)
    assert environment.system is not None
    assert environment.packages


class TestReadProcess:
    def test_a_foreign_venv_process(self, venv, start):
        """The packages of a live process in another environment are that environment's, never ours."""
        process = start(venv / "bin/python", "-c", WAIT, env={"OMP_NUM_THREADS": "3", "HF_TOKEN": CANARY})
        record = read_process(context_of(process, venv))
        environment = record.environment
        assert names(environment) == {"numpy": "1.26.4", "only-here": "1.5+cu121"}
        assert record.execution.subject.prefix == str(venv)
        assert environment.variables == {"OMP_NUM_THREADS": "3"}
        assert environment.git is None
        assert "own user" in environment.unknown["git"]
        assert environment.python.version == describe_self().version

    @pytest.mark.parametrize("relative", [True, False])
    def test_the_command_line_finds_it_too(self, venv, start, relative):
        """A relative or activated python backs its prefix; another one in the context is unknown, not believed."""
        command = "bin/python" if relative else "python"
        process = start(command, "-c", WAIT, cwd=venv, env={"PATH": f"{venv}/bin"}, executable=venv / "bin/python")
        assert names(read_process(context_of(process, venv)).environment).keys() == {"numpy", "only-here"}
        record = read_process(context_of(process, "/nowhere"))
        assert record.environment.packages is None
        assert record.execution.subject.prefix is None
        assert "it claims /nowhere, but its command line names" in record.environment.unknown["packages"]

    def test_a_claim_that_the_process_does_not_back_is_not_looked_at(self, venv, start, tmp_path):
        """Two environments of one base cannot be swapped by naming the other one, which a tag may do."""
        other = tmp_path / "other"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", other], check=True, timeout=30)
        process = start(venv / "bin/python", "-c", WAIT)
        unknown = read_process(context_of(process, other)).environment.unknown
        assert f"it claims {other}, but its command line names {venv}" in unknown["python"]

    def test_an_environment_of_another_interpreter_is_refused(self, start, tmp_path):
        """A prefix whose files do not lead to the running executable is no answer, and no base stands in for it."""
        fake = tmp_path / "fake"
        (fake / "lib/python3.11/site-packages").mkdir(parents=True)
        (fake / "pyvenv.cfg").write_text("home = /opt/other/bin\nversion = 3.11.1\n")
        process = start("ghost", "-c", WAIT, executable=sys.executable, env={})
        environment = read_process(context_of(process, fake)).environment
        assert environment.python is None
        assert "not clear" in environment.unknown["packages"]

    def test_mapped_modules_contradict(self, venv, start):
        """A process that has another environment's modules in memory does not run in the one that it names."""
        code = f"import sys; sys.path.insert(0, {next(p for p in sys.path if p.endswith('site-packages'))!r}); "
        code += "import msgspec; " + WAIT
        process = start(venv / "bin/python", "-c", code)
        environment = read_process(context_of(process, venv)).environment
        assert environment.packages is None
        assert "modules come from" in environment.unknown["packages"]

    def test_ended_and_reused(self, venv, start):
        """A process that has ended, and another one with its pid, are refused with the reason."""
        process = start(venv / "bin/python", "-c", WAIT)
        context = context_of(process, venv)
        with pytest.raises(IncompleteError, match="has ended or is not the one"):
            read_process(replace(context, start_ticks=context.start_ticks - 1))
        with pytest.raises(IncompleteError, match="another boot"):
            read_process(replace(context, boot_id="0" * 8 + context.boot_id[8:]))
        process.kill()
        process.wait(5)
        with pytest.raises(IncompleteError, match="has ended"):
            read_process(context)

    def test_ending_in_the_middle(self, venv, start, monkeypatch):
        """A process that ends while it is read gives no record: nothing proves what was read."""
        process = start(venv / "bin/python", "-c", WAIT)
        context = context_of(process, venv)
        real = module.read_packages

        def read_and_end(paths):
            process.kill()
            process.wait(5)
            return real(paths)

        monkeypatch.setattr(module, "read_packages", read_and_end)
        with pytest.raises(IncompleteError, match="has ended"):
            read_process(context)

    def test_becoming_another_program(self, venv, start, monkeypatch):
        """exec keeps pid and start; the change of program is noticed all the same."""
        code = "import os, sys; print('ready', flush=True); sys.stdin.readline(); "
        code += f"os.execv({sys.executable!r}, ['x', '-c', {WAIT!r}])"
        process = start(venv / "bin/python", "-c", code)
        context = context_of(process, venv)
        real = module.read_packages

        def read_and_exec(paths):
            process.stdin.write("go\n")
            process.stdin.flush()
            process.stdout.readline()
            return real(paths)

        monkeypatch.setattr(module, "read_packages", read_and_exec)
        with pytest.raises(IncompleteError):
            read_process(context)


def test_read_prefix(venv):
    """The timer's record of an interpreter has its packages and no process."""
    record = read_prefix(str(venv))
    environment = record.environment
    assert record.execution.subject.kind == "interpreter"
    assert names(environment) == {"numpy": "1.26.4", "only-here": "1.5+cu121"}
    assert environment.digest() == read_prefix(str(venv)).environment.digest()
    with pytest.raises(IncompleteError):
        read_prefix("/nowhere")


def test_read_host():
    """The host's record has no packages, and says why."""
    record = read_host()
    environment = record.environment
    assert environment.packages is None
    assert environment.unknown["packages"]
    assert environment.memory.total_bytes > 0
    assert list(artifacts(record)) == ["environment.json", "system_info.json"]
