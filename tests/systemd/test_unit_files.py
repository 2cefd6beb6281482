"""The files of systemd/ by themselves: systemd finds nothing to complain about, and the package holds each of them."""

import subprocess
import tomllib
from pathlib import Path

import pytest
from bed import REPOSITORY, UNITS, Bed

pytestmark = pytest.mark.systemd

DROP_INS = sorted((UNITS / "drop-ins").glob("*.conf"))

#: In tenths; what the packaging of most daemons reaches is over 90.
THRESHOLD = "25"


def analyze(*argv: str | Path, runtime: Path) -> "subprocess.CompletedProcess[str]":
    """Run ``systemd-analyze``."""
    try:
        return subprocess.run(
            ["systemd-analyze", *argv],
            capture_output=True,
            text=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "XDG_RUNTIME_DIR": str(runtime), "HOME": str(runtime)},
            timeout=30,
        )
    except FileNotFoundError:
        pytest.skip("systemd-analyze is not installed")


def with_drop_ins(folder: Path) -> Path:
    """Return a copy of the system unit with all drop-ins beside it, as an administrator may have them."""
    unit = folder / "reprod.service"
    unit.write_text((UNITS / "reprod.service").read_text())
    beside = folder / "reprod.service.d"
    beside.mkdir()
    for file in DROP_INS:
        (beside / file.name).write_text(file.read_text())
    return unit


def test_systemd_accepts_the_units_in_silence(tmp_path: Path) -> None:
    """13: `systemd-analyze verify` has nothing to say about the system unit, alone and with every drop-in, nor about
    the user unit."""
    whole = with_drop_ins(tmp_path)
    for arguments in ((UNITS / "reprod.service",), (whole,), ("--user", UNITS / "reprod-user.service")):
        done = analyze("verify", "--man=no", *arguments, runtime=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), arguments
    broken = tmp_path / "broken.service"
    broken.write_text((UNITS / "reprod.service").read_text().replace("ProtectHome=", "ProtectHouse="))
    assert "ProtectHouse" in analyze("verify", "--man=no", broken, runtime=tmp_path).stderr


def test_the_system_unit_is_exposed_to_little(tmp_path: Path) -> None:
    """13: `systemd-analyze security` gives the system unit less than 2.5 of 10, also with the drop-in that lets it read
    everything."""
    for unit in (UNITS / "reprod.service", with_drop_ins(tmp_path)):
        done = analyze("security", "--offline=true", f"--threshold={THRESHOLD}", unit, runtime=tmp_path)
        assert done.returncode == 0, done.stdout[-200:]
        print(f"\nfigures: {done.stdout.strip().splitlines()[-1]}", end="")
    done = analyze("security", "--offline=true", "--threshold=5", UNITS / "reprod.service", runtime=tmp_path)
    assert done.returncode != 0


def test_user_folders_and_limits_are_understood(bed: Bed) -> None:
    """13: the files for systemd-sysusers, systemd-tmpfiles and sysctl make what they are to make: a user with the state
    as home and no shell, folders that root alone writes in, and limits by names that this kernel has."""
    user = bed.run("getent", "passwd", "reprod").stdout.strip().split(":")
    assert user[5:] == ["/var/lib/reprod", "/usr/sbin/nologin"]
    bed.write("/etc/tmpfiles.d/reprod.conf", (UNITS / "reprod.tmpfiles.conf").read_text())
    assert bed.run("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/reprod.conf").returncode == 0
    for folder in ("/etc/reprod", "/etc/reprod/datasets.d"):
        assert bed.run("stat", "--format=%a %U %G", folder).stdout.strip() == "755 root root"
    settings = [
        line for line in (UNITS / "60-reprod.sysctl.conf").read_text().splitlines() if line[:1] not in {"#", ""}
    ]
    assert len(settings) == 3
    for line in settings:
        name, _, value = line.partition(" = ")
        assert value.isdecimal()
        assert Path("/proc/sys", *name.split(".")).exists()


def test_both_units_share_what_does_not_depend_on_whose_they_are() -> None:
    """The user unit is the system unit without an account and without what needs root; what both set is equal, and what
    `reprod service install` replaces is there in both."""
    system, user = (settings(name) for name in ("reprod.service", "reprod-user.service"))
    assert {key for key in user if user[key] != system.get(key)} == {"WantedBy", "UMask"}
    for unit in (system, user):
        assert unit["ExecStart"] == ["/usr/bin/env reprod daemon"]
        assert unit["ExecReload"] == ["/usr/bin/env reprod reload"]
        assert unit["RestartPreventExitStatus"] == ["75 77 78"]


def settings(name: str) -> dict[str, list[str]]:
    """Return what a unit sets, by key."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        if line[:1].isalpha():
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_the_package_holds_the_files() -> None:
    """13: the wheel has this very folder as reprod/systemd, and the source distribution has it."""
    build = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert build["wheel"]["force-include"] == {"systemd": "reprod/systemd"}
    assert "systemd" in build["sdist"]["include"]
