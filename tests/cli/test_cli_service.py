"""``reprod service`` without systemd: the text of the files, whose they are, who can run the interpreter, refusals.

What it does to a machine is in tests/systemd/test_service_install.py.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripted_daemon import Done

from reprod.cli import service_files, service_purge, service_reach
from reprod.config import places
from reprod.errors import StateError, UsageError

Run = Callable[..., Done]

REPOSITORY = Path(__file__).parents[2]
UNITS = REPOSITORY / "systemd"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


@pytest.fixture
def account(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ordinary user's home, with no service manager to be found."""
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "local-state"))
    monkeypatch.setenv("PATH", str(home / "nothing"))
    monkeypatch.setattr(places, "is_system_account", lambda: False)
    return home


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may go to, as pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="reprod-public-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def without_commands(text: str) -> list[str]:
    """Return a unit's lines but for what an installation puts in."""
    return [line for line in text.splitlines() if not line.startswith(("ExecStart=", "ExecReload=", "# Written by"))]


@pytest.mark.parametrize(("scope", "source"), [("--user", "reprod-user.service"), ("--system", "reprod.service")])
def test_what_is_printed_is_the_repositorys_unit_with_this_interpreter(reprod: Run, scope: str, source: str) -> None:
    """--print gives the unit of systemd/ up to its commands, twice the same, and writes nothing (13, 48)."""
    first, second = (reprod("service", "install", scope, "--print") for _ in range(2))

    assert (first.code, first.err, first.out) == (0, "", second.out)
    unit = first.out.split("\n\n# /etc/sysusers.d", 1)[0].split("# /etc/systemd/system/reprod.service\n")[-1]
    assert without_commands(unit) == without_commands((UNITS / source).read_text())
    assert f"ExecStart={sys.executable} -m reprod daemon\n" in unit
    assert f"ExecReload={sys.executable} -m reprod reload\n" in unit


def test_the_machines_service_comes_with_its_user_its_folders_and_its_limits(reprod: Run) -> None:
    """--system prints every file with its path before it, and each but the unit is the repository's as it is."""
    out = reprod("service", "install", "--system", "--print").out

    for name, path in (
        ("reprod.sysusers.conf", "/etc/sysusers.d/reprod.conf"),
        ("reprod.tmpfiles.conf", "/etc/tmpfiles.d/reprod.conf"),
        ("60-reprod.sysctl.conf", "/etc/sysctl.d/60-reprod.conf"),
    ):
        assert f"# {path}\n{(UNITS / name).read_text()}# Written by" in out


def test_another_configuration_goes_into_the_unit(reprod: Run, tmp_path: Path) -> None:
    """--config reaches the daemon by its absolute path, and only the daemon."""
    out = reprod("service", "install", "--print", "--config", str(tmp_path / "my own.toml")).out

    assert f'-m reprod daemon --config "{tmp_path}/my own.toml"\n' in out
    assert "ExecReload=" + sys.executable + " -m reprod reload\n" in out


@pytest.mark.parametrize("name", ["a b", "a%c", "a$d", "a${HOME}e", 'a"b', "a'b", "a\\b", 'a b%c$d"e', "a=b"])
def test_any_path_of_an_interpreter_is_one_that_systemd_reads_back(tmp_path: Path, name: str) -> None:
    """Spaces, %, $, quotes and backslashes in the interpreter's path: systemd-analyze accepts it in silence (48)."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    python = tmp_path / name / "python"
    python.parent.mkdir()
    shutil.copy("/bin/true", python)
    unit = tmp_path / "reprod.service"
    unit.write_text(service_files.render((UNITS / "reprod-user.service").read_text(), [str(python), "-m", "reprod"]))

    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_what_systemd_cannot_start_is_refused() -> None:
    """A path that neither systemd nor env(1) can take is said, not written."""
    with pytest.raises(UsageError, match="both of = and one of"):
        service_files.command_line(["/opt/a=$b/python", "-m", "reprod"])


def test_a_file_is_known_again_and_a_change_of_it_is_seen(tmp_path: Path) -> None:
    """Absent, as it is to be, of another version of reprod, changed by a person, somebody else's."""
    file = service_files.ServiceFile("x", tmp_path / "x", service_files.sealed("[Unit]\n"))
    found = [file.found()]
    for text in (
        file.text,
        service_files.sealed("[Unit]\n# older\n"),
        file.text.replace("[Unit]", "[Unit]\n# mine"),
        file.text + "Nice=1\n",
        "[Unit]\n",
    ):
        file.path.write_text(text)
        found.append(file.found())

    assert found == ["absent", "same", "ours", "changed", "changed", "changed"]


def test_a_built_wheel_brings_the_units(tmp_path: Path) -> None:
    """The files of systemd/ are package data: a wheel has them all, and an installation prints them (13)."""
    pytest.importorskip("hatchling", reason="building needs hatchling")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    wheel = next(tmp_path.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")

    code = (
        "import reprod, sys; from reprod.cli.main import main; print(reprod.__file__, file=sys.stderr); "
        "sys.exit(main(sys.argv[1:]))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code, "service", "install", "--system", "--print"],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )

    assert printed.stderr.startswith(str(tmp_path / "site"))
    assert without_commands(printed.stdout.partition("\n\n# /etc/sysusers.d")[0])[1:] == without_commands(
        (UNITS / "reprod.service").read_text()
    )
    carried = {
        str(path.relative_to(tmp_path / "site/reprod/systemd"))
        for path in (tmp_path / "site/reprod/systemd").rglob("*")
        if path.is_file()
    }
    assert carried == {str(path.relative_to(UNITS)) for path in UNITS.rglob("*") if path.is_file()}


def test_without_systemd_it_says_what_to_do_instead(account: Path, reprod: Run) -> None:
    """No service manager: exit 3, nothing is written, `reprod daemon` is named."""
    for scope in ("--user", "--system"):
        done = reprod("service", "install", scope)

        assert done.code == 3
        assert "no systemctl on this machine" in done.err
        assert "hint: run it yourself and keep it running: reprod daemon" in done.err
    assert not (account / "config").exists()


@pytest.mark.skipif(os.path.isdir("/run/systemd/system"), reason="systemd runs this machine")
def test_a_container_is_told_what_its_first_process_is(reprod: Run) -> None:
    """systemctl is there, and systemd is not process 1: that is said by its name."""
    if shutil.which("systemctl") is None:
        pytest.skip("there is no systemctl here")
    done = reprod("service", "install", "--system")

    assert done.code == 3
    assert f"process 1 is {Path('/proc/1/comm').read_text().strip()}" in done.err


def test_uninstall_removes_what_was_written_and_nothing_else(account: Path, reprod: Run) -> None:
    """The unit and the link that enabled it go; a drop-in, other units, configuration and state stay, and are named."""
    units = service_files.user_units()
    units.mkdir(parents=True)
    (units / "reprod.service").write_text(service_files.sealed("[Unit]\n"))
    (units / "other.service").write_text("[Unit]\n")
    (units / "reprod.service.d").mkdir()
    (units / "default.target.wants").mkdir()
    (units / "default.target.wants" / "reprod.service").symlink_to(units / "reprod.service")
    (account / "config" / "reprod").mkdir()
    (account / "local-state" / "reprod").mkdir(parents=True)

    done = reprod("service", "uninstall")

    assert (done.code, done.err) == (0, "")
    assert sorted(path.name for path in units.rglob("*")) == [
        "default.target.wants",
        "other.service",
        "reprod.service.d",
    ]
    assert f"removed {units}/reprod.service\n" in done.out
    assert f"left {units}/reprod.service.d: your own settings" in done.out
    assert f"left {account}/config/reprod, the configuration\nleft {account}/local-state/reprod, the state" in done.out
    assert "to delete them too: reprod service uninstall --user --purge\n" in done.out
    assert "nothing to remove" in reprod("service", "uninstall").out


def test_uninstall_leaves_a_unit_that_a_person_wrote_or_changed(account: Path, reprod: Run) -> None:
    """One that reprod did not write is never removed; a changed one only with --force."""
    unit = service_files.user_units() / "reprod.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Unit]\n")

    assert "did not write it" in reprod("service", "uninstall", "--force").out
    assert unit.exists()
    unit.write_text(service_files.sealed("[Unit]\n").replace("[Unit]", "[Unit]\n# mine"))
    done = reprod("service", "uninstall")
    assert done.code == 1
    assert "not as reprod wrote it" in done.err
    assert unit.exists()
    assert reprod("service", "uninstall", "--force").code == 0
    assert not unit.exists()


def test_purge_asks_says_what_and_deletes_only_that(account: Path, reprod: Run) -> None:
    """Without a terminal and --yes nothing happens (2); then both go, and what a link leads to stays."""
    config, state = account / "config" / "reprod", account / "local-state" / "reprod"
    (config / "datasets.d").mkdir(parents=True)
    (config / "reprod.toml").write_text("")
    state.parent.mkdir()
    elsewhere = account / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "registry.sqlite").write_bytes(b"x" * 2048)
    state.symlink_to(elsewhere)

    refused = reprod("service", "uninstall", "--purge")
    assert refused.code == 2
    assert "add --yes" in refused.err
    assert config.exists()
    done = reprod("service", "uninstall", "--purge", "--yes")

    assert done.code == 0, done.err
    assert f"{config}  the configuration (1 file, 0 B)" in done.out
    assert f"deleted {state}" in done.out
    assert not config.exists()
    assert not state.is_symlink()
    assert (elsewhere / "registry.sqlite").exists()
    assert (account / "state").exists()  # that of $REPROD_STATE_DIR is nobody's service's
    again = reprod("service", "uninstall", "--purge", "--yes")
    assert (again.code, again.out) == (
        0,
        "nothing to remove: no service was installed here and nothing of it is left\n",
    )


def test_purge_leaves_a_state_that_a_daemon_holds(account: Path, reprod: Run) -> None:
    """A daemon that systemd did not start keeps its state: 75, naming its pid."""
    state = account / "local-state" / "reprod"
    state.mkdir(parents=True)
    with (state / "lock").open("wb", buffering=0) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(b"4242")
        done = reprod("service", "uninstall", "--purge", "--yes")

    assert done.code == 75
    assert "(pid 4242)" in done.err
    assert state.exists()


def test_root_does_not_purge_the_state_of_an_installed_machine_service(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Root's own service has the machine's places: while the machine's is installed they are not deleted."""
    monkeypatch.setattr(places, "is_system_account", lambda: True)
    monkeypatch.setattr(service_purge, "MACHINE_UNIT", tmp_path / "reprod.service")
    (tmp_path / "reprod.service").write_text("")

    with pytest.raises(UsageError, match="state of the machine's service too"):
        service_purge.Purge.of("user")


@needs_root
def test_an_interpreter_that_the_services_user_cannot_reach_is_refused_with_the_cure(
    public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder that is closed is named with its mode and owner, and where to install instead."""
    python = public / "home" / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (public / "home").chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))

    with pytest.raises(StateError) as raised:
        service_reach.require_reach("system")

    assert f"no way through {public}/home (mode 0700, root:root)" in raised.value.message
    assert "python3 -m venv /opt/reprod" in raised.value.hint
    assert f"chmod o+x {public}/home" in raised.value.hint


def test_an_interpreter_that_finds_reprod_by_this_shell_alone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What works by PYTHONPATH only does not work in a service: it is run as the service would, and said."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True, timeout=60)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))

    with pytest.raises(StateError, match="No module named reprod") as raised:
        service_reach.require_reach("user")

    assert "not by PYTHONPATH" in raised.value.hint
