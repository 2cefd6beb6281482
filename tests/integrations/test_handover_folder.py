"""A training while no daemon answers: its record waits in the user's own state until one takes it in."""

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import waiting as waiting_for
from control_seam import ControlSeam

from reprod.capture.environment import capture_self
from reprod.capture.process.identity import current_context
from reprod.core.environment import Record, decode, encode_record
from reprod.core.process import ProcessContext
from reprod.core.protocol import MAX_HANDOVER
from reprod.integrations import recorder
from reprod.ops import handover_folder
from reprod.ops.handover_folder import file_name, keep, waiting
from reprod.ops.handovers import take_in
from reprod.ops.publish import find_environment
from reprod.store import files, snapshots
from reprod.store.connection import Database

Script = Callable[..., "subprocess.CompletedProcess[str]"]

HAND_OVER = "from reprod.integrations.handover import announce; announce('run')"
SAY = "from reprod.capture.process.identity import current_context; print(current_context().to_json())\n"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def registry(state: Path) -> Iterator[Database]:
    with closing(files.open_registry(state).db) as db:
        yield db


def eventually(true: Callable[[], Any]) -> Any:
    return waiting_for.eventually(true, 60, "it happens")


def names(state: Path) -> list[str]:
    return [each.name for each in waiting(state)]


def content(context: ProcessContext, **holding: object) -> bytes:
    return json.dumps({"context": context.to_object(), **holding}).encode()


def record() -> Record:
    return capture_self(git=False)


def test_a_short_script_without_a_daemon_leaves_its_record(script: Script, state: Path) -> None:
    """Record and end wait in files that nobody else can read, in a folder that nobody else can enter."""
    ended = script(SAY + HAND_OVER, OMP_NUM_THREADS="3")
    assert (ended.returncode, ended.stderr) == (0, "")
    context = ProcessContext.parse(ended.stdout)
    assert context is not None
    wanted = [file_name(context, "execution"), file_name(context, "record")]
    eventually(lambda: sorted(names(state)) == wanted)
    folder = state / "handover"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    given = json.loads((folder / file_name(context, "record")).read_bytes())
    assert ProcessContext.from_object(given["context"]) == context
    assert given["record"]["environment"]["variables"]["OMP_NUM_THREADS"] == "3"


def test_a_run_that_trained_without_a_daemon_gets_its_environment(
    script: Script, state: Path, registry: Database
) -> None:
    """Who looks for the environment of that process finds it in the files, which are gone then."""
    ended = script(SAY + HAND_OVER)
    context = ProcessContext.parse(ended.stdout)
    assert context is not None
    eventually(lambda: len(names(state)) == 2)
    found = find_environment(registry, context.to_json(), time.time_ns())
    assert found.unknown is None
    assert found.execution is not None
    assert found.execution.subject.pid == context.pid
    assert found.execution.imports is not None
    assert found.execution.imports.how == "in-process"
    stored = registry.read(lambda c: snapshots.environment(c, found.digest or ""))
    assert stored is not None
    assert decode(stored).packages is not None
    assert names(state) == []
    assert find_environment(registry, context.to_json(), time.time_ns()) == found


def test_the_next_handover_passes_on_what_waits(script: Script, state: Path, tmp_path: Path) -> None:
    """A daemon of another user's reads no file: it is told by the next process of the same user that finds it."""
    first = ProcessContext.parse(script(SAY + HAND_OVER).stdout)
    assert first is not None
    eventually(lambda: len(names(state)) == 2)
    seam = ControlSeam(tmp_path / "control.sock")
    second = ProcessContext.parse(script(SAY + HAND_OVER).stdout)
    seam.wait("handover record", 2)
    seam.wait("handover execution", 2)
    assert {given["context"]["pid"] for given in seam.of("handover record")} == {first.pid, second and second.pid}
    eventually(lambda: names(state) == [])
    seam.close()


def test_what_is_refused_waits_for_a_daemon_of_ones_own(state: Path, tmp_path: Path) -> None:
    """A refusal of what is passed on takes nothing away."""
    assert keep(state, "x.record.json", content(current_context(), record={}))
    refuse = '{"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "no"}}\n'
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control.sock"))
        listener.listen()
        code = "import sys; from pathlib import Path; from reprod.integrations.recorder import _pass_on\n"
        code += "_pass_on(Path(sys.argv[1]), [sys.argv[2]])"
        child = subprocess.Popen([sys.executable, "-c", code, str(state), str(tmp_path / "control.sock")])
        listener.settimeout(60)
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            assert json.loads(lines.readline())["params"]["record"] == {}
            connection.sendall(refuse.encode())
        assert child.wait(60) == 0
    assert names(state) == ["x.record.json"]


def test_where_a_daemon_was_the_record_waits_at_once_and_is_tried_again(tmp_path: Path, state: Path) -> None:
    """A daemon that dies after the announcement finds the file when it comes back, and so does a machine that dies."""
    path = tmp_path / "control.sock"
    given = {"found": True, "sockets": [str(path)]}
    lines = [recorder._line(current_context(), record())]
    code = (
        "import json, sys; from reprod.integrations import recorder; from reprod.core.process import ProcessContext\n"
        "given, context, line = json.loads(sys.argv[1]), ProcessContext.parse(sys.argv[2]), sys.stdin.buffer.read()\n"
        "print(recorder.hand_over(given, context, 'record', [line]))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(given), current_context().to_json()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "REPROD_STATE_DIR": str(state)},
    )  # fmt: skip
    assert child.stdin is not None
    child.stdin.write(lines[0])
    child.stdin.close()
    child.stdin = None
    eventually(lambda: names(state) == [file_name(current_context(), "record")])
    seam = ControlSeam(path)
    assert child.communicate(timeout=60)[0] == b"True\n"
    assert len(seam.of("handover record")) == 1
    assert names(state) == []
    seam.close()


class TestTheFolder:
    def test_it_is_bounded(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The oldest go first where there are too many, too many bytes, or where they are too old."""
        monkeypatch.setattr(handover_folder, "MOST_FILES", 3)
        for number in range(5):
            assert keep(state, f"{number}.json", b"x" * 10)
            os.utime(state / "handover" / f"{number}.json", ns=(1, time.time_ns() - 10**9 * (60 - number)))
        assert names(state) == ["2.json", "3.json", "4.json"]
        monkeypatch.setattr(handover_folder, "MOST_BYTES", 25)
        assert keep(state, "5.json", b"x" * 10)
        assert names(state) == ["4.json", "5.json"]
        os.utime(state / "handover" / "4.json", (1, 1))
        assert keep(state, "6.json", b"x")
        assert sorted(names(state)) == ["5.json", "6.json"]
        assert not keep(state, "7.json", b"x" * (MAX_HANDOVER + 1))

    def test_what_a_killed_writer_left_goes(self, state: Path) -> None:
        """Half a file is never taken in, and does not stay for ever."""
        assert keep(state, "a.json", b"{}")
        half = state / "handover" / ".0123.tmp"
        half.write_bytes(b"half")
        assert names(state) == ["a.json"]
        os.utime(half, (1, 1))
        assert keep(state, "b.json", b"{}")
        assert not half.exists()

    def test_what_is_no_file_of_ones_own_is_not_read(self, state: Path, tmp_path: Path) -> None:
        """Links, pipes, directories and what is too long are passed over without waiting."""
        assert keep(state, "a.json", b"{}")
        folder, secret = state / "handover", tmp_path / "secret"
        secret.write_text("{}")
        (folder / "link.json").symlink_to(secret)
        os.mkfifo(folder / "pipe.json")
        (folder / "directory.json").mkdir()
        with open(folder / "long.json", "wb") as file:
            file.truncate(MAX_HANDOVER + 1)
        if os.geteuid() == 0:
            (folder / "theirs.json").write_bytes(b"{}")
            os.chown(folder / "theirs.json", 65534, 65534)
        assert names(state) == ["a.json"]

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make what is another user's")
    @pytest.mark.parametrize("which", ["state", "folder"])
    def test_nothing_is_left_with_or_read_from_another_user(self, state: Path, which: str) -> None:
        """A state directory or folder of somebody else's is neither written to nor read."""
        assert keep(state, "a.json", b"{}")
        os.chown(state if which == "state" else state / "handover", 65534, 65534)
        assert names(state) == []
        assert not keep(state, "b.json", b"{}")
        assert [path.name for path in (state / "handover").iterdir()] == ["a.json"]

    def test_a_link_is_no_folder(self, state: Path, tmp_path: Path) -> None:
        """Whoever can write into the state cannot lead the writer elsewhere."""
        state.mkdir()
        (tmp_path / "elsewhere").mkdir()
        (state / "handover").symlink_to(tmp_path / "elsewhere")
        assert not keep(state, "a.json", b"{}")
        assert not list((tmp_path / "elsewhere").iterdir())

    def test_a_full_or_closed_place_costs_the_file_only(self, tmp_path: Path) -> None:
        """Where nothing can be written, nothing is raised."""
        (tmp_path / "file").write_text("")
        assert not keep(tmp_path / "file" / "state", "a.json", b"{}")
        assert not keep(Path("/proc/self/state"), "a.json", b"{}")


class TestTakingIn:
    def test_what_is_not_understood_goes(self, state: Path, registry: Database) -> None:
        """Garbage and files of other versions are removed; the good one among them is kept."""
        good = record()
        bad = [
            b"",
            b"\xff",
            b"[]",
            b"{}",
            b'{"context": 1}',
            b"[" * 100_000,
            content(current_context(), record={"x": 1}),
        ]
        bad += [content(current_context(), execution={"subject": 1}), content(current_context())]
        for number, each in enumerate(bad):
            assert keep(state, f"{number}.json", each)
        whole = content(current_context(), record=json.loads(encode_record(good)))
        assert keep(state, "good.json", whole)
        assert take_in(registry) == len(bad) + 1
        assert names(state) == []
        known = registry.read(lambda c: snapshots.handover(c, current_context().key))
        assert known is not None
        assert known.digest == good.environment.digest()
        assert known.uid == os.geteuid()

    def test_who_was_seen_to_own_the_process_stays_its_owner(self, state: Path, registry: Database) -> None:
        """A file of one's own does not speak for a process that announced itself as another user's."""
        registry.write(lambda c: snapshots.announce(c, current_context().key, 4711, time.time_ns()))
        given = record()
        assert keep(state, "a.json", content(current_context(), record=json.loads(encode_record(given))))
        take_in(registry)
        assert registry.read(lambda c: snapshots.environment(c, given.environment.digest())) is None
        known = registry.read(lambda c: snapshots.handover(c, current_context().key))
        assert known is not None
        assert (known.uid, known.digest) == (4711, None)


def test_the_folder_is_where_the_daemon_of_the_same_user_looks(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child's state is that of the configuration's rules, in the environment that the process had."""
    from reprod.config import places

    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert recorder._state() == places.state_dir() == Path(environ["REPROD_STATE_DIR"])
