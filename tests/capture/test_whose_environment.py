"""Research tests 10, 11, 13, 14 and 16: whose interpreter a live process has is told right, or not at all.

Every process is a real one. A reading happens in this process or in a child of the test's; nothing is executed of what
is read.
"""

import json
import os
import shutil
import subprocess
import sys
import zipapp
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live_process import MINOR, WAIT
from site_records import let_age, write_dist

from reprod.capture.environment import read_process
from reprod.capture.process.identity import boot_id, current_context, host_name, start_ticks, started_ns
from reprod.core.environment import Record
from reprod.core.process import ProcessContext
from reprod.errors import IncompleteError

CANARY = "CANARY7f3a"
Start = Callable[..., "subprocess.Popen[str]"]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def context_of(pid: int, prefix: Path | str) -> ProcessContext:
    ticks = start_ticks(pid)
    assert ticks is not None
    return ProcessContext(1, host_name(), boot_id(), pid, ticks, str(prefix))


def packages(record: Record) -> set[str] | None:
    found = record.environment.packages
    return None if found is None else {package.name for package in found.packages}


def site_of(prefix: Path) -> Path:
    return prefix / "lib" / f"python{MINOR}" / "site-packages"


def make_venv(prefix: Path, *dists: str) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True, timeout=60)
    for dist in dists:
        write_dist(site_of(prefix), *dist.split("=="))
    let_age(site_of(prefix))
    return prefix


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_venv(tmp_path_factory.mktemp("number13") / "train", "only-here==1.5")


class TestNumber10:
    def test_the_readers_own_packages_are_never_the_answer(self, start: Start, tmp_path: Path) -> None:
        """A reader without numpy reads a training with numpy: numpy; once the training has ended: a reason, no list."""
        reader = make_venv(tmp_path / "a", "only-of-the-daemon==1.0")
        training = make_venv(tmp_path / "b", "numpy==1.26.4")
        process = start(training / "bin/python", "-c", WAIT)
        context = context_of(process.pid, training)
        code = (
            "import sys; sys.path += sys.argv[2].split(':')\n"
            "from reprod.capture.environment import read_process\n"
            "from reprod.core.process import ProcessContext\n"
            "from reprod.errors import IncompleteError\n"
            "try: found = read_process(ProcessContext.parse(sys.argv[1])).environment.packages\n"
            "except IncompleteError as error: print(error.message)\n"
            "else: print(sorted(package.name for package in found.packages))\n"
        )
        path = ":".join(entry for entry in sys.path if entry)

        def read() -> str:
            command = [reader / "bin/python", "-c", code, context.to_json(), path]
            return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()

        assert read() == "['numpy']"
        process.kill()
        process.wait(10)
        assert read() == f"process {context.pid} has ended or is not the one that started the run"


class TestNumber11:
    """An environment made to hurt who reads it. The audit hook and the markers tell what was executed or opened."""

    @pytest.fixture
    def evil(self, tmp_path: Path) -> Path:
        """Return a venv whose every part leaves a mark when it is run, with metadata that hangs, lies or is huge."""
        prefix = make_venv(tmp_path / "evil", "harmless==1.0")
        site, mark = site_of(prefix), tmp_path / "mark"
        (site / "evil.pth").write_text(f"import os; open({str(mark)!r}, 'w')\n{tmp_path}/elsewhere\n")
        (site / "sitecustomize.py").write_text(f"open({str(mark)!r}, 'w')\n")
        (site / "fifo-1.0.dist-info").mkdir()
        os.mkfifo(site / "fifo-1.0.dist-info" / "METADATA")
        secret = tmp_path / "credentials"
        secret.write_text(json.dumps({"url": f"https://{CANARY}@h/x", "dir_info": {}, "Name": CANARY}))
        linked = write_dist(site, "linked", "1.0")
        (linked / "direct_url.json").symlink_to(secret)
        (linked / "RECORD").symlink_to(secret)
        (site / "link-1.0.dist-info").mkdir()
        (site / "link-1.0.dist-info" / "METADATA").symlink_to(secret)
        (site / "huge-1.0.dist-info").mkdir()
        with open(site / "huge-1.0.dist-info" / "METADATA", "wb") as file:
            file.truncate(1 << 30)
        for name in ("pip", "conda", "uv"):
            (prefix / "bin" / name).write_text(f"#!/bin/sh\ntouch {mark}\n")
            (prefix / "bin" / name).chmod(0o755)
        (tmp_path / "elsewhere").mkdir()
        let_age(site)
        return prefix

    def test_nothing_of_it_runs_and_nothing_comes_out(self, start: Start, evil: Path, tmp_path: Path) -> None:
        """No process is started, no file outside is opened, and no word of a linked secret is in the record."""
        process = start(evil / "bin/python", "-I", "-S", "-c", WAIT)
        record = self.read(context_of(process.pid, evil), tmp_path)
        assert not (tmp_path / "mark").exists()
        assert CANARY not in json.dumps(record)
        found = record["environment"]["packages"]
        assert found is not None, record["environment"]["unknown"]
        assert {"harmless", "linked"} <= {package["name"] for package in found["packages"]}
        assert {"fifo-1.0.dist-info", "huge-1.0.dist-info", "link-1.0.dist-info"} <= {
            each["record"] for each in found["broken"]
        }

    def test_a_hostile_home_is_not_followed(self, start: Start, evil: Path, tmp_path: Path) -> None:
        """pyvenv.cfg may name any standard library: it is no evidence, and nothing of it runs."""
        process = start(evil / "bin/python", "-I", "-S", "-c", WAIT)
        hostile = tmp_path / "hostile"
        (hostile / "lib" / f"python{MINOR}").mkdir(parents=True)
        (hostile / "lib" / f"python{MINOR}" / "os.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n")
        (hostile / "bin").mkdir()
        (hostile / "bin" / "python3").write_text(f"#!/bin/sh\ntouch {tmp_path / 'mark'}\n")
        (hostile / "bin" / "python3").chmod(0o755)
        (evil / "pyvenv.cfg").write_text(f"home = {hostile}/bin\nversion = {MINOR}.0\n")
        self.read(context_of(process.pid, evil), tmp_path)
        assert not (tmp_path / "mark").exists()

    def test_a_tag_names_no_file(self, start: Start, tmp_path: Path) -> None:
        """A prefix that only the tag names is not even opened, whatever lies there."""
        evil = make_venv(tmp_path / "claimed", "evil==1.0")
        process = start(sys.executable, "-I", "-S", "-c", WAIT)
        record = self.read(context_of(process.pid, evil), tmp_path)
        assert record["environment"]["packages"] is None
        assert "it claims" in record["environment"]["unknown"]["packages"]
        assert not [path for path in record["opened"] if path.startswith(str(evil))]

    def read(self, context: ProcessContext, tmp_path: Path) -> dict[str, object]:
        """Read the process in a child of its own that notes what it opens and starts; return the record and that."""
        code = (
            "import json, sys\n"
            "opened = []\n"
            "from reprod.capture import environment, gathering\n"
            "from reprod.core.environment import encode_record\n"
            "from reprod.core.process import ProcessContext\n"
            "for name in ('read_accelerators', 'read_cloud'): setattr(gathering, name, lambda: None)\n"
            "def hook(event, args):\n"
            "    if event == 'open': opened.append(str(args[0]))\n"
            "    started = event in {'subprocess.Popen', 'os.exec', 'os.posix_spawn', 'os.fork', 'os.system', 'exec'}\n"
            "    if started: opened.append(f'{event} {args}'); print('STARTED', event, file=sys.stderr)\n"
            "import encodings.idna, encodings.utf_8\n"
            "context = ProcessContext.parse(sys.argv[1])\n"
            "sys.addaudithook(hook)\n"
            "record = json.loads(encode_record(environment.read_process(context)))\n"
            "print(json.dumps({**record, 'opened': opened}))\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", code, context.to_json()],
            capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path,
        )  # fmt: skip
        assert "STARTED subprocess" not in ended.stderr
        assert "STARTED os." not in ended.stderr
        return json.loads(ended.stdout)


class TestNumber13:
    """The right prefix or an explicit unknown, never a wrong one: each way of starting a training."""

    @pytest.fixture
    def tell(self, tmp_path: Path) -> Iterator[Callable[..., ProcessContext]]:
        """Start a command whose Python says who it is; return what it said. Ended by the fixture."""
        script = tmp_path / "train.py"
        site = ":".join(path for path in sys.path if path)
        script.write_text(
            f"import sys; sys.path += {site!r}.split(':')\n"
            "from reprod.capture.process.identity import current_context\n"
            "print(current_context().to_json(), flush=True)\n"
            "sys.stdin.read()\n"
        )
        started: list[subprocess.Popen[str]] = []

        def tell(*command: object, **options: object) -> ProcessContext:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path, **options,  # type: ignore[call-overload]
            )  # fmt: skip
            started.append(process)
            assert process.stdout is not None
            said = ProcessContext.parse(process.stdout.readline())
            assert said is not None
            return said

        yield tell
        for process in started:
            process.communicate(timeout=20)

    def check(self, context: ProcessContext, train: Path, *, known: bool = True) -> Record:
        """The packages of the environment, or none with a reason; ``known``: that it has to be told."""
        record = read_process(context)
        found = packages(record)
        assert found in ({"only-here"}, None)
        if found is None:
            assert record.environment.unknown["packages"]
            assert not known, record.environment.unknown["packages"]
        else:
            assert Path(record.execution.subject.prefix or "") == train
        return record

    def test_absolute(self, tell: Callable[..., ProcessContext], train: Path) -> None:
        """The whole path of the environment's python."""
        self.check(tell(train / "bin/python", "train.py"), train)

    def test_activated(self, tell: Callable[..., ProcessContext], train: Path) -> None:
        """``python``, found on the PATH of an activated environment."""
        environ = {"PATH": f"{train}/bin:{os.environ['PATH']}", "VIRTUAL_ENV": str(train)}
        self.check(tell("python", "train.py", env=environ, executable=train / "bin/python"), train)

    def test_relative(self, tell: Callable[..., ProcessContext], train: Path, tmp_path: Path) -> None:
        """A path from the working directory."""
        self.check(tell(os.path.relpath(train / "bin/python", tmp_path), "train.py"), train)

    def test_symlinked_environment(self, tell: Callable[..., ProcessContext], train: Path, tmp_path: Path) -> None:
        """The environment by a link to its directory: its prefix is the link, its packages are those behind it."""
        link = tmp_path / "link"
        link.symlink_to(train)
        record = read_process(tell(link / "bin/python", "train.py"))
        assert packages(record) == {"only-here"}

    def test_symlinked_python(self, tell: Callable[..., ProcessContext], train: Path, tmp_path: Path) -> None:
        """A link to the environment's python: Python itself then finds no environment, and neither is one made up."""
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "python").symlink_to(train / "bin" / "python")
        context = tell(tmp_path / "bin" / "python", "train.py")
        record = read_process(context)
        assert packages(record) is None or Path(record.execution.subject.prefix or "") == Path(context.prefix)
        assert "only-here" not in (packages(record) or set())

    def test_renamed(self, tell: Callable[..., ProcessContext], train: Path, tmp_path: Path) -> None:
        """prctl changes the short name only; a title over the arguments leaves nothing to tell from."""
        script = (tmp_path / "train.py").read_text()
        short = "import ctypes; ctypes.CDLL(None).prctl(15, b'bash', 0, 0, 0)\n"
        (tmp_path / "short.py").write_text(short + script)
        self.check(tell(train / "bin/python", "short.py"), train)
        for title in ("ray::train()", "python", f"{sys.base_prefix}/bin/python3: worker", sys._base_executable):
            (tmp_path / "title.py").write_text(TITLE.format(title=title) + script)
            context = tell(train / "bin/python", "title.py", "x" * 200)
            assert Path(f"/proc/{context.pid}/cmdline").read_bytes().startswith(title.encode() + b"\0")
            self.check(context, train, known=False)

    def test_uv_run(self, tell: Callable[..., ProcessContext], train: Path, tmp_path: Path) -> None:
        """uv is a parent, or becomes the python of the environment."""
        beside = os.path.dirname(sys.executable)  # as in this project's own environment, which nobody has to activate
        uv = shutil.which("uv", path=f"{beside}:{os.environ['PATH']}")
        if uv is None:
            pytest.skip("uv is not installed")
        environ = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(train), "VIRTUAL_ENV": str(train), "UV_OFFLINE": "1"}
        command = (uv, "run", "--no-project", "--active", "--python", train / "bin/python", "train.py")
        self.check(tell(*command, env=environ), train)

    def test_a_worker_of_a_launcher(self, tell: Callable[..., ProcessContext], train: Path, tmp_path: Path) -> None:
        """torchrun and its like start their workers with their own python and a module."""
        (tmp_path / "launch.py").write_text(
            "import subprocess, sys\nsys.exit(subprocess.call([sys.executable, '-u', *sys.argv[1:]]))\n"
        )
        self.check(tell(train / "bin/python", "-m", "launch", "train.py"), train)
        context = tell("sh", "-c", f"{train}/bin/python launch.py -m train; true")
        self.check(context, train)

    def test_a_zip_application(self, tell: Callable[..., ProcessContext], train: Path, tmp_path: Path) -> None:
        """A .pyz that is run by its first line, or by the python of the environment."""
        source = tmp_path / "app"
        source.mkdir()
        shutil.copy(tmp_path / "train.py", source / "__main__.py")
        zipapp.create_archive(source, tmp_path / "app.pyz", interpreter=str(train / "bin/python"))
        self.check(tell(tmp_path / "app.pyz"), train)
        self.check(tell(train / "bin/python", "app.pyz"), train)

    def test_a_shim(self, tell: Callable[..., ProcessContext], train: Path, tmp_path: Path) -> None:
        """pyenv's python is a script that becomes the real one."""
        shims = tmp_path / "shims"
        shims.mkdir()
        (shims / "python").write_text(f'#!/bin/sh\nexec "{train}/bin/python" "$@"\n')
        (shims / "python").chmod(0o755)
        self.check(tell("python", "train.py", env={"PATH": str(shims)}, executable=shims / "python"), train)

    def test_a_conda_environment(self, tell: Callable[..., ProcessContext], tmp_path: Path) -> None:
        """An environment with an interpreter of its own, as conda's: no pyvenv.cfg, and conda-meta beside it."""
        base = Path(sys.base_prefix)
        prefix = tmp_path / "conda"
        (prefix / "bin").mkdir(parents=True)
        shutil.copy2((base / "bin" / f"python{MINOR}").resolve(), prefix / "bin" / f"python{MINOR}")
        (prefix / "bin" / "python").symlink_to(f"python{MINOR}")
        (prefix / "lib").mkdir()
        library = prefix / "lib" / f"python{MINOR}"
        library.mkdir()
        for entry in (base / "lib" / f"python{MINOR}").iterdir():
            if entry.name != "site-packages":
                (library / entry.name).symlink_to(entry)
        for shared in (base / "lib").glob("libpython*"):
            (prefix / "lib" / shared.name).symlink_to(shared)
        (prefix / "include").mkdir()
        (prefix / "include" / f"python{MINOR}").symlink_to(base / "include" / f"python{MINOR}")
        write_dist(library / "site-packages", "only-here", "1.5")
        (prefix / "conda-meta").mkdir()
        let_age(prefix / "conda-meta")
        environ = {"LD_LIBRARY_PATH": str(base / "lib"), "CONDA_PREFIX": str(prefix), "PATH": f"{prefix}/bin"}
        self.check(tell("python", "train.py", env=environ, executable=prefix / "bin/python"), prefix)

    def test_a_launcher_shell_is_no_interpreter(self, start: Start) -> None:
        """A shell that leads to Python has no environment: not that of the system, not that of its child."""
        process = start("/bin/sh", "-c", "echo ready; read line")
        for prefix in ("/", "/usr", sys.prefix):
            record = read_process(context_of(process.pid, prefix))
            assert packages(record) is None
            assert "a launcher, or no known Python" in record.environment.unknown["packages"]

    def test_two_that_contradict_each_other(self, start: Start, train: Path, tmp_path: Path) -> None:
        """One environment is activated and claimed, the python of another runs: neither is believed."""
        other = make_venv(tmp_path / "other", "only-there==1.0")
        process = start(train / "bin/python", "-c", WAIT, env={"VIRTUAL_ENV": str(other)})
        record = read_process(context_of(process.pid, other))
        assert packages(record) is None
        assert f"it claims {other}, but its command line names {train}" in record.environment.unknown["packages"]

    def test_packages_that_changed_under_it(self, start: Start, train: Path, tmp_path: Path) -> None:
        """What was installed or removed since the process started makes the list unknown, with the directory named."""
        prefix = make_venv(tmp_path / "changing", "only-here==1.5", "gone==1.0")
        process = start(prefix / "bin/python", "-c", WAIT)
        context = context_of(process.pid, prefix)
        assert packages(read_process(context)) == {"only-here", "gone"}
        clock_was_set = started_ns(context.start_ticks) - 3600 * 1_000_000_000
        assert packages(read_process(context, clock_was_set)) is None
        shutil.rmtree(site_of(prefix) / "gone-1.0.dist-info")
        record = read_process(context)
        assert packages(record) is None
        assert record.execution.imports is None
        assert record.environment.unknown["packages"] == f"{site_of(prefix)} was changed after the process had started"


#: Writes a title over the arguments, as setproctitle does; ``arg_start`` and ``arg_end`` are fields 48 and 49.
TITLE = """
import ctypes
fields = open("/proc/self/stat").read().rpartition(")")[2].split()
begin, end = int(fields[45]), int(fields[46])
ctypes.memset(begin, 0, end - begin)
ctypes.memmove(begin, {title!r}.encode(), len({title!r}))
"""


@needs_root
def test_number_14_a_pid_that_is_used_again() -> None:
    """In a pid namespace of its own a second process gets the first one's pid; it is not taken for it."""
    code = """
import os, subprocess, sys, time
from dataclasses import replace
from reprod.capture.environment import read_process
from reprod.capture.process.identity import current_context, start_ticks
from reprod.errors import IncompleteError
def wait():
    return subprocess.Popen([sys.executable, "-c", "import sys; print(); sys.stdin.read()"], stdin=-1, stdout=-1)
first = wait(); first.stdout.readline()
context = replace(current_context(), pid=first.pid, start_ticks=start_ticks(first.pid))
assert read_process(context).execution.subject.pid == first.pid
first.kill(); first.wait()
before = time.monotonic()
while time.monotonic() < before + 0.05: pass
with open("/proc/sys/kernel/ns_last_pid", "w") as file: file.write(str(context.pid - 1))
second = wait(); second.stdout.readline()
assert second.pid == context.pid, (second.pid, context.pid)
try: read_process(context); print("believed")
except IncompleteError as error: print(error.message)
second.kill(); second.wait()
"""
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("no pid namespace can be made here")
    ended = subprocess.run([*command, sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "has ended or is not the one that started the run" in ended.stdout


@needs_root
def test_number_16_another_users_process(start: Start, tmp_path: Path) -> None:
    """A reader without rights keeps what every user may see, the command line and the cgroup, and says why no more."""
    process = start(sys.executable, "-c", WAIT, env={"HF_TOKEN": CANARY})
    context = context_of(process.pid, sys.prefix)
    os.seteuid(65534)
    try:
        record = read_process(context)
    finally:
        os.seteuid(0)
    environment, execution = record.environment, record.execution
    assert environment.packages is None
    assert environment.unknown["packages"].startswith("permission: ")
    assert (environment.python, environment.variables, environment.git) == (None, {}, None)
    assert environment.unknown["variables"] == environment.unknown["packages"]
    assert execution.invocation is not None
    assert (execution.invocation.arguments or ())[1:] == ("-c", WAIT)
    assert environment.limits is not None
    assert environment.limits.affinity_count == len(os.sched_getaffinity(0))
    assert execution.subject.prefix is None
    process.kill()
    process.wait(10)
    with pytest.raises(IncompleteError, match="has ended"):
        read_process(context)


@needs_root
def test_another_root_is_a_container(start: Start, tmp_path: Path) -> None:
    """A process with another root directory sees other files by the same names: its packages are not read here."""
    root = tmp_path / "root"
    root.mkdir()
    there = [f"/{top}" for top in ("usr", "lib", "lib64", "bin", Path(sys.executable).resolve().parts[1])]
    places = [path for path in dict.fromkeys([*there, f"/{Path(sys.prefix).parts[1]}"]) if os.path.exists(path)]
    binds = [f"mkdir -p {root}{path} && mount --rbind {path} {root}{path}" for path in places]
    run = f"exec chroot {root} {sys.executable} -c {json.dumps(WAIT)}"
    code = " && ".join([f"mount -t tmpfs none {root}", *binds, run])
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace can be made here")
    process = start("unshare", "--mount", "sh", "-c", code)
    record = read_process(context_of(process.pid, sys.prefix))
    assert packages(record) is None
    assert record.environment.unknown["packages"] == "the process runs in a container (another root directory)"


def test_another_pid_namespace_is_said_so() -> None:
    """The context of a process in a container names a pid that is another's here: that one is not looked at."""
    own = current_context()
    elsewhere = ProcessContext(1, own.host, own.boot_id, own.pid, own.start_ticks, own.prefix, 4026530000)
    with pytest.raises(IncompleteError, match="another pid namespace"):
        read_process(elsewhere)
