"""What the daemon opens and starts while people mean it harm, as the kernel saw it: traced by strace, not by a seam.

Law 9: the daemon never executes what it observes, and no tag names a file to open.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Daemon, Tracker, eventually, let_slack_pass, running_daemon

import reprod
from reprod.capture.process.identity import boot_id, start_ticks

MINOR = f"python{sys.version_info[0]}.{sys.version_info[1]}"

#: The daemon keeps its own pid: with -D it is strace that becomes the grandchild.
TRACED = (
    "import os, sys; os.execvp('strace', ['strace', '-D', '-f', '-s', '4096', '-o', sys.argv[1], "
    "'-e', 'trace=execve,open,openat,openat2', sys.executable, '-P', '-m', 'reprod', 'daemon'])"
)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder of programs that leave a mark; ``trap/mark`` is that mark."""
    folder = tmp_path / "trap"
    folder.mkdir()
    script = f'#!/bin/sh\necho "$0" >> {folder}/mark\nexit 1\n'
    names = ("git", "pip", "pip3", "conda", "mamba", "uv", "python", "python3", MINOR, "nvidia-smi", "lscpu")
    for name in names:
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def repository(data: Path, trap: Path) -> Path:
    """The dataset as a git repository that runs the trap at every command of git, and as a place for imports."""
    subprocess.run(["git", "init", "-q"], cwd=data, check=True, env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull})
    with (data / ".git" / "config").open("a") as config:
        config.write(f"[core]\n\tfsmonitor = {trap}/git\n\thooksPath = {trap}\n\tpager = {trap}/git\n")
        config.write(f'[filter "x"]\n\tclean = {trap}/git\n\tprocess = {trap}/git\n[diff]\n\texternal = {trap}/git\n')
    (data / ".gitattributes").write_text("* filter=x\n")
    for module in ("sitecustomize", "usercustomize", "msgspec", "mlflow", "json"):
        (data / f"{module}.py").write_text(f"open({str(trap / 'mark')!r}, 'a').write(__file__)\n")
    return data


@pytest.fixture
def venv(tmp_path: Path, trap: Path) -> Path:
    """An environment whose interpreter, configuration, .pth and customisations are all traps."""
    prefix = tmp_path / "venv"
    site = prefix / "lib" / MINOR / "site-packages"
    site.mkdir(parents=True)
    shutil.copytree(trap, prefix / "bin")
    version = ".".join(map(str, sys.version_info[:3]))
    (prefix / "pyvenv.cfg").write_text(f"home = {trap}\nversion = {version}\nexecutable = {trap}/python\n")
    code = f"import os; os.system({str(trap / 'pip')!r})\n"
    for name in ("evil.pth", "sitecustomize.py", "usercustomize.py"):
        (site / name).write_text(code)
    record = site / "evil-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Name: evil\nVersion: 1.0\n\n")
    return prefix


def traced(daemon: Daemon) -> str:
    return (daemon.place.base / "trace").read_text(errors="surrogateescape")


def opened(trace: str) -> set[str]:
    """Return every name that was tried to be opened, by the daemon or a child of it."""
    names = re.findall(r"open(?:at2?)?\((?:AT_FDCWD, |\d+, )?\"((?:[^\"\\]|\\.)*)\"", trace)
    return {name.encode().decode("unicode_escape") for name in names}


def executed(trace: str) -> set[str]:
    """Return every program that was tried to be started."""
    return set(re.findall(r"execve\(\"((?:[^\"\\]|\\.)*)\"", trace))


@pytest.fixture
def daemon(tmp_path: Path, mlflow_server: str, repository: Path, venv: Path, trap: Path, name: str) -> Iterator[Daemon]:
    """Yield a traced daemon whose PATH begins with the traps, on the hostile dataset and environment."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    variables = {"PATH": f"{trap}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}
    settings = {"interval_seconds": 0.5, "interpreters": [str(venv)]}
    base = tmp_path / "d"
    program = ("-c", TRACED, str(base / "trace"))
    with running_daemon(
        base, mlflow_server, {name: repository}, environ=variables, program=program, environment=settings
    ) as running:
        running.sealed(name, 1)
        let_slack_pass()
        yield running


@pytest.mark.mlflow
def test_no_program_of_a_user_is_started_and_no_tag_names_a_file(
    daemon: Daemon, tracker: Tracker, repository: Path, venv: Path, trap: Path, tmp_path: Path, name: str
) -> None:
    """Acceptance 16: hashing a hostile repository, sampling a hostile environment, reading a live process that names
    it, and recording runs whose tags are paths: the daemon starts its own Python only, and opens no such path."""
    secret = tmp_path / "secret"
    (secret / "lib").mkdir(parents=True)
    (secret / "pyvenv.cfg").write_text("home = /\n")
    (secret / "registry.sqlite").write_text("no database")
    context = {"v": 1, "host": "h", "boot_id": boot_id(), "pid": os.getpid(), "start_ticks": start_ticks(os.getpid())}
    live = tracker.finished_run(name, context=json.dumps({**context, "prefix": str(venv)}))
    gone = tracker.finished_run(name, context=json.dumps({**context, "start_ticks": 1, "prefix": str(secret)}))
    not_ours = [
        tracker.finished_run(tag)
        for tag in (str(secret), f"../../{secret.name}", "registry.sqlite", "..", "/etc/shadow", f"{name}\0", "%2e%2e")
    ]
    also = [
        tracker.finished_run(f"{name},{tag}")
        for tag in (
            str(secret / "registry.sqlite"),
            f"../{secret.name}",
            f"../{daemon.place.state.name}/registry",
            "\x1b[2J",
        )
    ]
    for run in (live, gone):
        tracker.wait_state(run)
    for run in also:
        eventually(lambda run=run: tracker.ours(run).get("reprod.state"), 30, f"run {run} has a state")  # type: ignore[misc]
    daemon.wait_event("environment.changed", subject=str(venv))
    assert [set(tracker.ours(run)) for run in not_ours] == [{"reprod.dataset"}] * len(not_ours)

    trace = traced(daemon)
    assert not (trap / "mark").exists(), (trap / "mark").read_text()
    started = {os.path.realpath(each) for each in executed(trace)} - {os.path.realpath(sys.executable)}
    # MLflow's own import asks `uname -p` of the daemon's PATH, in the daemon's child (platform.platform()).
    assert {os.path.basename(each) for each in started} <= {"uname"}
    names = opened(trace)
    assert str(venv / "pyvenv.cfg") in names, "the trace sees what is opened"
    assert not [each for each in names if secret.name in Path(each).parts]
    assert not [each for each in names if "shadow" in each]
    modules = {"sitecustomize.py", "usercustomize.py", "evil.pth"}
    assert not [each for each in names if each.startswith(str(venv)) and each.endswith(".py")]
    assert names & {str(repository / each) for each in modules} == set(), "hashed below the open root, never by path"

    (trap / "mark").unlink(missing_ok=True)
    subprocess.run(["git", "status"], cwd=repository, capture_output=True, timeout=20)
    assert (trap / "mark").exists(), "the trap itself must work"


@pytest.mark.mlflow
def test_a_prefix_that_only_a_tag_names_is_not_looked_into(
    daemon: Daemon, tracker: Tracker, tmp_path: Path, name: str
) -> None:
    """A context with the pid of any live process and a prefix elsewhere: nothing below it is opened or told about."""
    secret = tmp_path / "secret"
    (secret / "lib" / "python3.99").mkdir(parents=True)
    context = {"v": 1, "host": "h", "boot_id": boot_id(), "pid": os.getpid(), "start_ticks": start_ticks(os.getpid())}
    run = tracker.finished_run(name, context=json.dumps({**context, "prefix": str(secret)}))
    tracker.wait_state(run)
    looked_at = [each for each in opened(traced(daemon)) if secret.name in Path(each).parts]
    assert looked_at == []


def test_access_is_never_asked() -> None:
    """Acceptance 17: no os.access, faccessat or eaccess anywhere in the package, under whatever name it is imported:
    it asks for the real user, so it lies under capabilities; open tells the truth."""
    found = []
    for path in Path(reprod.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            used = node.attr if isinstance(node, ast.Attribute) else node.name if isinstance(node, ast.alias) else ""
            if used in {"access", "eaccess", "faccessat"}:
                found.append(f"{path}:{getattr(node, 'lineno', '?')}")
    assert found == []
