"""``reprod service install | uninstall`` under real systemd: files, user, start, refusals, odd paths, lingering."""

import json
from collections.abc import Iterator

import pytest
from bed import Bed, eventually

pytestmark = pytest.mark.systemd

UNIT = "/etc/systemd/system/reprod.service"
FILES = (UNIT, "/etc/sysusers.d/reprod.conf", "/etc/tmpfiles.d/reprod.conf", "/etc/sysctl.d/60-reprod.conf")
ALICE = {"XDG_RUNTIME_DIR": "/run/user/1500"}


@pytest.fixture(autouse=True)
def _clean(bed: Bed) -> Iterator[None]:
    """Leave the machine as it was: no service, no user of it; the kernel's settings, which are the host's, closed."""
    if bed.run("mountpoint", "-q", "/proc/sys").returncode:
        bed.run("mount", "-o", "bind", "/proc/sys", "/proc/sys")
        bed.run("mount", "-o", "remount,bind,ro", "/proc/sys")
    _remove(bed)
    yield
    _remove(bed)


def _remove(bed: Bed) -> None:
    bed.try_systemctl("stop", "reprod")
    bed.try_systemctl("reset-failed", "reprod")
    places = (
        "/etc/reprod",
        "/var/lib/reprod",
        "/run/reprod",
        f"{UNIT}.d",
        "/etc/systemd/system/multi-user.target.wants",
    )
    bed.run("rm", "-rf", *FILES, *places)
    bed.systemctl("daemon-reload")


def service(
    bed: Bed, *argv: str, user: str | None = None, python: str = "/opt/reprod/bin/python"
) -> tuple[int, str, str]:
    """Run ``reprod service``; return code, what was printed, what was complained of."""
    env = ALICE if user else None
    done = bed.run(python, "-m", "reprod", "service", *argv, user=user, env=env, timeout_s=120)
    return done.returncode, done.stdout, done.stderr


def seen(bed: Bed) -> dict[str, str]:
    return {path: bed.path(path).read_text() for path in FILES if bed.path(path).exists()}


def test_install_now_makes_a_service_that_answers_and_uninstall_takes_it_away(bed: Bed) -> None:
    """--system --now, without its user there: files as --print says, enabled, answering; twice changes nothing."""
    bed.run("userdel", "reprod")
    printed = service(bed, "install", "--system", "--print")[1]
    code, out, err = service(bed, "install", "--system", "--now")

    assert (code, err) == (0, ""), out
    assert "started: reprod" in out
    assert "\n".join(f"# {path}\n{text}" for path, text in seen(bed).items()) == printed
    assert bed.systemctl("is-enabled", "reprod") == "enabled"
    pid = bed.show("reprod", "MainPID")["MainPID"]
    assert f"(pid {pid})" in out
    owner = bed.run("stat", "-c", "%U", "/var/lib/reprod").stdout.strip()
    assert owner == "reprod"
    assert "this machine does not let fs.inotify" in out or "fs.inotify" not in out
    assert "sysctl --load" not in out  # it was tried

    before = seen(bed)
    code, out, err = service(bed, "install", "--system")
    assert (code, err) == (0, "")
    assert out.count("is as it is to be") == 4
    assert seen(bed) == before
    assert bed.show("reprod", "MainPID")["MainPID"] == pid  # without --now nothing is restarted

    code, out, err = service(bed, "uninstall", "--system")
    assert (code, err) == (0, "")
    assert seen(bed) == {}
    assert bed.try_systemctl("is-active", "reprod").stdout.strip() != "active"
    left = bed.run("sh", "-c", "find /etc/systemd/system /usr/lib/sysusers.d -name '*reprod*'").stdout
    assert left == ""
    assert bed.path("/var/lib/reprod/registry.sqlite").exists()
    code, out, err = service(bed, "uninstall", "--system", "--purge", "--yes")
    assert (code, err) == (0, "")
    assert not bed.path("/var/lib/reprod").exists()
    assert not bed.path("/etc/reprod").exists()


def test_a_file_that_a_person_changed_is_left_alone(bed: Bed) -> None:
    """Neither install nor uninstall touches a changed unit (1), nothing else is touched then; --force does."""
    service(bed, "install", "--system")
    mine = bed.path(UNIT).read_text().replace("Nice=10", "Nice=5")
    bed.write(UNIT, mine)
    before = seen(bed)
    for verb in ("install", "uninstall"):
        code, _, err = service(bed, verb, "--system")
        assert (code, seen(bed)) == (1, before)
        assert f"not as reprod wrote it, so it is left alone: {UNIT}\n" in err

    assert service(bed, "install", "--system", "--force")[0] == 0
    assert bed.path(UNIT).read_text() != mine
    assert bed.systemctl("cat", "reprod").count("Nice=10") == 1


def test_a_service_that_does_not_start_shows_why(bed: Bed) -> None:
    """A wrong reprod.toml: installed, exit 3, and the journal's last lines with the reason are on the screen."""
    bed.write("/etc/reprod/reprod.toml", "[mlflwo]\n")
    code, _, err = service(bed, "install", "--system", "--now")

    assert code == 3
    assert "it is installed, and does not run" in err
    assert "/etc/reprod/reprod.toml:1: unknown section" in err
    assert "hint: systemctl status reprod.service" in err


def test_a_configuration_that_cannot_be_used_is_refused_before_anything_is_written(bed: Bed) -> None:
    """--config of a file that is not there, or is wrong: 78 as the daemon would end with, no file; a daemon stays."""
    bed.write("/etc/wrong.toml", "[mlflwo]\n")
    for name, said in (("/etc/nope.toml", "/etc/nope.toml does not exist"), ("/etc/wrong.toml", "unknown section")):
        code, out, err = service(bed, "install", "--system", "--now", "--config", name)

        assert (code, out) == (78, "")
        assert said in err
        assert seen(bed) == {}


def test_an_interpreter_that_the_user_cannot_reach_is_refused_before_anything_is_written(bed: Bed) -> None:
    """A virtual environment in a closed home: 77, the folder by name, no file, no user."""
    bed.run(
        "sh",
        "-c",
        "mkdir -p /home/alice/venv && cp -a /opt/reprod/pyvenv.cfg /opt/reprod/bin /opt/reprod/lib /home/alice/venv",
    )
    bed.run("sh", "-c", "ln -sf /opt/reprod/python/bin/python3 /home/alice/venv/bin/python")
    code, _, err = service(bed, "install", "--system", python="/home/alice/venv/bin/python")

    assert code == 77
    assert "no way through /home/alice (mode 0700, alice:alice)" in err
    assert "chmod o+x /home/alice" in err
    assert seen(bed) == {}


def test_a_daemon_by_hand_is_not_fought_with(bed: Bed) -> None:
    """One that has the socket already is said (75), because the service would end at once."""
    service(bed, "install", "--system")
    code = (
        "from subprocess import DEVNULL, Popen; "
        "print(Popen(['/opt/reprod/bin/python', '-m', 'reprod', 'daemon'], stdout=DEVNULL, stderr=DEVNULL).pid)"
    )
    bed.run("mkdir", "-p", "/run/reprod")
    pid = bed.run("/opt/reprod/bin/python", "-c", code).stdout.strip()
    eventually(lambda: bed.run("reprod", "status").returncode == 0, 20, "it answers")
    try:
        code_, _, err = service(bed, "install", "--system", "--now")
    finally:
        bed.run("kill", pid)

    assert code_ == 75
    assert f"hint: kill {pid}" in err


def test_a_path_with_spaces_and_signs_starts(bed: Bed) -> None:
    """Interpreters below folders that systemd would take apart: each starts for real, with its own packages (48)."""
    for name in ("a b", "c%d", 'e$f "g'):
        folder = f"/opt/{name}"
        copy = f"mkdir -p '{folder}/bin' && cp -a /opt/reprod/pyvenv.cfg /opt/reprod/lib '{folder}'"
        done = bed.run("sh", "-c", f"{copy} && ln -sf /opt/reprod/python/bin/python3 '{folder}/bin/python'")
        assert done.returncode == 0, done.stderr
        code, out, err = service(bed, "install", "--system", "--now", python=f"{folder}/bin/python")

        assert (code, err) == (0, ""), name
        pid = bed.show("reprod", "MainPID")["MainPID"]
        command = bed.path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        assert command[0].decode() == f"{folder}/bin/python"
        assert "started: reprod" in out


def test_a_user_has_a_service_that_lingers(bed: Bed) -> None:
    """alice without root: installed, started, state below her home, socket for her alone; linger is hinted at (18)."""
    bed.systemctl("start", "user@1500")
    try:
        code, out, err = service(bed, "install", "--now", user="alice")
        assert (code, err) == (0, "")
        assert "enabled reprod.service: it starts when you log in\n" in out
        assert "sudo loginctl enable-linger alice" in out
        unit = "/home/alice/.config/systemd/user/reprod.service"
        assert service(bed, "install", "--print", user="alice")[1] == bed.path(unit).read_text()
        assert bed.path("/home/alice/.local/state/reprod/registry.sqlite").exists()
        assert bed.run("stat", "-c", "%a %U", "/run/user/1500/reprod/control.sock").stdout == "600 alice\n"
        doctor = bed.run("/opt/reprod/bin/python", "-m", "reprod", "doctor", "--json", user="alice", env=ALICE)
        linger = [each for each in json.loads(doctor.stdout)["findings"] if each["check"] == "linger"]
        assert linger[0]["mend"] == ["sudo loginctl enable-linger alice"]
        bed.write("/var/lib/systemd/linger/alice", "")
        lingering = service(bed, "install", user="alice")[1]
        assert "enable-linger" not in lingering
        assert "enabled reprod.service: it starts with the machine\n" in lingering

        code, out, err = service(bed, "uninstall", user="alice")
        assert (code, err) == (0, "")
        assert bed.run("sh", "-c", "find /home/alice/.config -name 'reprod.service*'").stdout == ""
        assert bed.path("/home/alice/.local/state/reprod/registry.sqlite").exists()
        assert service(bed, "uninstall", "--purge", "--yes", user="alice")[0] == 0
        assert not bed.path("/home/alice/.local/state/reprod").exists()
    finally:
        bed.run("rm", "-f", "/var/lib/systemd/linger/alice")
        bed.systemctl("stop", "user@1500")


def test_a_user_without_a_session_is_told(bed: Bed) -> None:
    """No manager of the user (su, a container): 3, what to do instead, and no file."""
    done = bed.run("reprod", "service", "install", user="alice")

    assert done.returncode == 3
    assert "no service manager of its user" in done.stderr
    assert "reprod daemon" in done.stderr
    assert not bed.path("/home/alice/.config/systemd/user/reprod.service").exists()
