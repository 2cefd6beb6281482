"""``reprod service install | uninstall``: put the daemon under systemd's care, and take it out again.

Rule: everything that can be refused is refused before the first file is written; a file that a person changed is
neither overwritten nor removed unless --force says so. What is changed on the machine is said, one line each.
"""

import argparse
import os
import sys
from pathlib import Path

from reprod.cli import codes, render
from reprod.cli.screen import Screen
from reprod.cli.service_files import UNIT, Scope, ServiceFile, files_of, is_ours, is_untouched, paths_of, printed
from reprod.cli.service_limits import say_limits
from reprod.cli.service_manager import START_S, Manager, first_line, last_line, run
from reprod.cli.service_purge import Purge
from reprod.cli.service_reach import require_reach
from reprod.client import Client
from reprod.config import load, places
from reprod.errors import AlreadyRunningError, ReprodError, StateError
from reprod.fs.atomic import remove, write_atomic
from reprod.ops.doctor_probe import user_name

#: READY=1 comes when the socket answers; on a busy machine the question itself takes a moment.
ANSWER_S = 10.0


def install(args: argparse.Namespace) -> int:
    """Write the files, enable the unit; with --now start it and wait until it answers."""
    scope: Scope = args.scope
    files = files_of(scope, args.config)
    if args.print:
        sys.stdout.write(printed(files))
        return codes.FINE
    screen, manager = Screen(sys.stdout), Manager(scope)
    manager.require()
    _require_root(scope, "install")
    changed = [file.path for file in files if file.found() == "changed"]
    if changed and not args.force:
        return _refuse_changed(changed, f"reprod service install --{scope} --print | diff {changed[0]} -")
    require_reach(scope)
    if args.config:
        load(args.config, tracking=False)  # the service would end with it, and a daemon that runs would be lost
    if not _is_accepted(manager, files[0], forced=args.force):
        return codes.DIFFERS
    if args.now:
        _require_no_other(manager)
    news = [file for file in files if _write(screen, file)]
    if scope == "system":
        _apply(screen, files)
        require_reach(scope)  # once more, now that the user surely exists
    manager.call("daemon-reload")
    manager.call("enable", UNIT)
    alone = scope == "system" or lingers(user_name(os.geteuid()))
    screen.line(f"enabled {UNIT}: it starts {'with the machine' if alone else 'when you log in'}")
    code = _start(screen, manager) if args.now else codes.FINE
    _say_next(screen, manager, started=args.now, news=bool(news))
    if scope == "system":
        say_limits(screen, files, apply=args.now)
    return code


def uninstall(args: argparse.Namespace) -> int:
    """Stop and disable the service and remove its files; with --purge configuration, state and history too."""
    scope: Scope = args.scope
    _require_root(scope, "uninstall")
    screen, manager = Screen(sys.stdout), Manager(scope)
    present = {path: path.read_bytes() for path in paths_of(scope) if path.is_file()}
    ours = [path for path, content in present.items() if is_ours(content)]
    changed = [path for path in ours if not is_untouched(present[path])]
    if changed and not args.force:
        return _refuse_changed(changed, f"look at it, then: reprod service uninstall --{scope} --force")
    purge = Purge.of(scope) if args.purge else None
    if purge is not None and not purge.is_wanted(screen, yes=args.yes):
        return codes.DIFFERS
    gone = [] if manager.absence() else _stop(manager)
    for path in ours:
        remove(path)
        gone.append(f"removed {path}")
    _remove_wants(scope)
    for line in gone:
        screen.line(render.safe(line))
    if not manager.absence():
        manager.call("daemon-reload")
        manager.call("reset-failed", UNIT, check=False)
    for path in present.keys() - ours:
        screen.line(f"left {path}: reprod service install did not write it")
    _say_left(screen, scope, bool(ours), purged=purge is not None)
    if purge is not None:
        purge.carry_out(screen)
    if not ours and (purge is None or not purge.folders):
        also = " and nothing of it is left" if purge is not None else ""
        screen.line(f"nothing to remove: no service was installed here{also}")
    return codes.FINE


def _require_root(scope: Scope, verb: str) -> None:
    if scope == "system" and os.geteuid() != 0:
        line = f"sudo {sys.executable} -m reprod service {verb} --system"
        raise StateError(f"only root may {verb} a service of the machine", hint=line)


def _refuse_changed(changed: list[Path], hint: str) -> int:
    several = ", ".join(str(path) for path in changed)
    print(f"error: not as reprod wrote it, so it is left alone: {render.safe(several)}", file=sys.stderr)
    print(
        f"hint: {render.safe(hint)}   (--force: your change is lost; a drop-in keeps it: systemctl edit)",
        file=sys.stderr,
    )
    return codes.DIFFERS


def _is_accepted(manager: Manager, unit: ServiceFile, *, forced: bool) -> bool:
    """Say what systemd has against the unit; whether to go on."""
    complaints = manager.complaints(unit.text)
    for line in complaints:
        print(f"systemd-analyze verify: {render.safe(line)}", file=sys.stderr)
    if complaints and not forced:
        print("error: this machine's systemd does not accept the unit; nothing was written", file=sys.stderr)
        print("hint: --force installs it in spite of that", file=sys.stderr)
    return forced or not complaints


def _write(screen: Screen, file: ServiceFile) -> bool:
    """Write one file, unless it is there as it is to be."""
    if file.found() == "same":
        screen.line(f"{file.path} is as it is to be")
        return False
    try:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file.path, file.text.encode())
    except OSError as error:
        raise StateError(f"{file.path} cannot be written: {error.strerror}", hint="is the disk read-only?") from error
    screen.line(f"wrote {file.path}")
    return True


def _apply(screen: Screen, files: tuple[ServiceFile, ...]) -> None:
    """Make the user, the group and the folders now and not at the next boot."""
    paths = {file.source: str(file.path) for file in files}
    for command in (
        ["systemd-sysusers", paths["reprod.sysusers.conf"]],
        ["systemd-tmpfiles", "--create", paths["reprod.tmpfiles.conf"]],
    ):
        done = run(command)
        if done.returncode:
            raise StateError(f"{command[0]} failed: {last_line(done.stderr)}", hint=" ".join(command))
        screen.line(f"ran {' '.join(command)}")


def _require_no_other(manager: Manager) -> None:
    """Raise AlreadyRunningError if a daemon that this service did not start has the socket: it would end with 75."""
    if manager.is_active():
        return
    try:
        with Client(socket_of(manager.scope)) as client:
            client.open(retry_s=0)
            pid = client.call("hello").get("pid")
    except ReprodError:
        return
    raise AlreadyRunningError(f"a daemon that systemd did not start runs already (pid {pid})", hint=f"kill {pid}")


def _start(screen: Screen, manager: Manager) -> int:
    """Start the service and wait until it answers; else show what it said."""
    done = manager.call("restart", UNIT, timeout_s=START_S, check=False)
    failed = (first_line(done.stderr) or "it did not start") if done.returncode else ""
    if not failed:
        try:
            with Client(socket_of(manager.scope), timeout_s=ANSWER_S) as client:
                client.open(retry_s=ANSWER_S)
                hello = client.call("hello")
        except ReprodError as error:
            failed = error.message
        else:
            version, pid = render.safe(hello.get("version")), render.safe(hello.get("pid"))
            screen.line(f"started: reprod {version} answers (pid {pid})")
            return codes.FINE
    print(f"error: it is installed, and does not run: {render.safe(failed)}", file=sys.stderr)
    for line in manager.journal():
        print(f"  {render.safe(line)}", file=sys.stderr)
    print(f"hint: {manager.command} status {UNIT}", file=sys.stderr)
    return codes.NO_DAEMON


def socket_of(scope: Scope) -> Path:
    """Return where a service of this scope listens, whatever this shell's variables say."""
    if scope == "system":
        return places.SYSTEM_SOCKET
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return Path(runtime) / "reprod" / "control.sock"


def _say_next(screen: Screen, manager: Manager, *, started: bool, news: bool) -> None:
    if not started:
        verb = "restart" if news and manager.is_active() else "start"
        screen.line(f"{verb} it: {manager.command} {verb} reprod")
    if manager.scope == "user":
        user = user_name(os.geteuid())
        if not lingers(user):
            screen.line("it ends when you log out; to keep it running:")
            screen.line(f"  sudo loginctl enable-linger {user}")
        for name in ("REPROD_STATE_DIR", "REPROD_CONFIG", "REPROD_SOCKET"):
            if os.environ.get(name):
                screen.line(f"note: {name} is set in this shell; the service does not see it")


def lingers(user: str) -> bool:
    """Whether a user's services run without a login (logind keeps a file for each)."""
    return os.path.exists(f"/var/lib/systemd/linger/{user}")


def _stop(manager: Manager) -> list[str]:
    """Stop and disable the unit; return what to say."""
    if manager.call("cat", UNIT, check=False).returncode:
        return []
    was_active = manager.is_active()
    manager.call("disable", "--now", UNIT, timeout_s=START_S)
    return [f"stopped and disabled {UNIT}" if was_active else f"disabled {UNIT}"]


def _remove_wants(scope: Scope) -> None:
    """Remove the links that ``enable`` made, where no systemd was there to do it."""
    for path in paths_of(scope):
        if path.name != UNIT:
            continue
        for wants in ("multi-user.target.wants", "default.target.wants"):
            link = path.parent / wants / UNIT
            if link.is_symlink() and not link.exists():
                link.unlink()


def _say_left(screen: Screen, scope: Scope, removed: bool, *, purged: bool) -> None:
    dropins = paths_of(scope)[0].with_name(f"{UNIT}.d")
    if dropins.is_dir():
        screen.line(f"left {dropins}: your own settings of the service")
    root_user = scope == "user" and places.is_system_account()  # its places are the machine's
    kept = () if purged or root_user or not removed else Purge.of(scope).folders
    for path, what in kept:
        screen.line(f"left {render.file_name(str(path))}, {what}")
    if kept:
        it, root = "it" if len(kept) == 1 else "them", "sudo " if scope == "system" and os.geteuid() else ""
        screen.line(f"to delete {it} too: {root}reprod service uninstall --{scope} --purge")
    if scope == "system" and removed:
        screen.line(f"left the user and group {places.SERVICE_USER}; remove them: userdel {places.SERVICE_USER}")
