"""``reprod dataset add | remove | move | rename | list``: change the files in datasets.d and have the daemon follow.

Rule: the file is written first and is the truth; if the daemon refuses it, it is taken back, so that a refused command
leaves nothing behind. Without a daemon the file stays and the command says that nobody watches yet.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from reprod.cli import codes, render
from reprod.cli.daemon_ import RELOAD_TIMEOUT_S
from reprod.cli.dataset_view import state_of
from reprod.cli.place import Place, locate
from reprod.cli.screen import Cell, Column, Screen, table
from reprod.config import (
    DEFAULT_EXCLUDE,
    Config,
    Edit,
    add_dataset,
    move_dataset,
    nested_in,
    remove_dataset,
    rename_dataset,
)
from reprod.errors import ConfigError, DaemonUnavailableError, NotFoundError, ReprodError, StateError, UsageError


def add(args: argparse.Namespace) -> int:
    """Register a dataset and have the daemon watch it."""
    place = locate(args)
    try:
        config = place.config()
        if place.reads_here and place.client is not None:
            from reprod.cli.visible import require_visible

            require_visible(place.client, place.hello.get("pid"), args.path)
        file = add_dataset(
            config, args.name, args.path, include=args.include, exclude=args.exclude, algorithms=args.algorithm
        )
        if place.reads_here:
            _reload_or_take_back(place, args.name, file, lambda: file.unlink(missing_ok=True))
        _say_added(Screen(sys.stdout), place, place.config(), args, file)
    finally:
        place.close()
    return codes.FINE


def remove(args: argparse.Namespace) -> int:
    """Stop watching a dataset; with --purge delete its history too."""
    place = locate(args)
    screen = Screen(sys.stdout)
    try:
        try:
            file = remove_dataset(place.config(), args.name)
            screen.prose(f"removed {args.name} ({render.safe(file)})")
            if place.client is not None and place.reads_here:
                place.client.call("reload", timeout_s=RELOAD_TIMEOUT_S)
        except NotFoundError:
            if not args.purge:
                raise  # with --purge an earlier remove is completed
        if args.purge:
            _purge(place, args.name)
            screen.prose(f"deleted the history of {args.name}")
        else:
            screen.prose(f"its history is kept: reprod log {args.name}")
    finally:
        place.close()
    return codes.FINE


def move(args: argparse.Namespace) -> int:
    """Say that the data of a dataset is at another place now; its history goes on there."""
    place = locate(args)
    try:
        edit = move_dataset(_own_config(place), args.name, args.path)
        root = os.path.abspath(os.path.expanduser(args.path))
        _carry_out(place, args.name, args.name, edit, moving_to=root)
    finally:
        place.close()
    screen = Screen(sys.stdout)
    screen.prose(f"moved {render.safe(args.name)} to {render.file_name(root)}")
    screen.prose("its history goes on; a run is bound to what was there before the move, or since, never across", 2)
    _say_who_follows(screen, place)
    return codes.FINE


def rename(args: argparse.Namespace) -> int:
    """Give a dataset another name; its history, and the runs that used it, go with it."""
    place = locate(args)
    try:
        edit = rename_dataset(_own_config(place), args.old, args.new)
        _carry_out(place, args.old, args.new, edit, renaming_to=args.new)
    finally:
        place.close()
    screen = Screen(sys.stdout)
    screen.prose(f"renamed {render.safe(args.old)} to {render.safe(args.new)}")
    screen.prose(f"runs are recorded that are tagged {render.safe(args.new)} from now on", 2)
    _say_who_follows(screen, place)
    return codes.FINE


def list_all(args: argparse.Namespace) -> int:
    """List what is registered, with the state where a daemon answers."""
    place = locate(args)
    try:
        if place.client is not None:
            rows = place.client.call("status", {"name": None}).get("datasets") or []
        else:
            rows = _rows(place.config())
    finally:
        place.close()
    if args.json:
        print(render.to_json("dataset-list", {"live": place.live, "datasets": rows}))
        return codes.FINE
    screen = Screen(sys.stdout)
    if not rows:
        screen.prose("no datasets yet")
        screen.prose("hint: reprod dataset add NAME PATH")
        return codes.FINE
    cells = [
        [(render.safe(row.get("name")), "bold"), _state(screen, row), (render.file_name(row.get("path") or "-"), "")]
        for row in rows
    ]
    for line in table(screen, [Column("DATASET"), Column("STATE"), Column("PATH")], cells, indent=0):
        screen.line(line)
    if not place.live:
        Screen(sys.stderr).prose("no daemon is running: reprod daemon")
    return codes.FINE


def _state(screen: Screen, row: dict[str, Any]) -> Cell:
    if not row.get("state"):
        return "not watched now", ""
    mark, colour, word = state_of(row)
    return f"{screen.mark(mark)} {word}", colour


def _rows(config: Config) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"name": item.name, "path": item.path, "state": None, "reason": None, "hint": None} for item in config.datasets
    ]
    rows += [
        {"name": item.name, "path": None, "state": "misconfigured", "reason": item.message, "hint": item.hint}
        for item in config.misconfigured
    ]
    return sorted(rows, key=lambda row: str(row["name"]))


def _own_config(place: Place) -> Config:
    """Return the configuration to change. Raises UsageError if the daemon whose history it is reads another one."""
    if place.live and not place.reads_here:
        raise UsageError(
            f"the running daemon reads {place.hello.get('config')}, not {place.config_path}",
            hint="leave --config out, or stop that daemon first",
        )
    return place.config()


def _carry_out(place: Place, old: str, new: str, edit: Edit, **wanted: str) -> None:
    """Note what is wanted, change the file, have it carried out; if that is refused, nothing is left of it."""
    _intend(place, old, **wanted)
    try:
        edit.make()
        if place.client is not None:
            _reload_or_take_back(place, new, edit.new, edit.take_back)
    except DaemonUnavailableError:
        raise  # the file is written, and who reads it next finds the intent
    except ReprodError:
        _intend(place, old)
        raise
    if place.client is None and _has_registry(place):
        from reprod.ops import rehome
        from reprod.store import files

        with closing(files.open_registry(place.state).db) as records:
            rehome.settle(place.state, records, place.config().datasets)


def _intend(place: Place, name: str, **wanted: str) -> None:
    if place.client is not None:
        place.client.call("intend", {"name": name, **wanted})
    elif _has_registry(place):
        from reprod.ops import rehome
        from reprod.store import files

        with closing(files.open_registry(place.state).db) as records:
            rehome.intend(records, name, wanted.get("moving_to"), wanted.get("renaming_to"))


def _has_registry(place: Place) -> bool:
    """Whether anything was ever recorded there. Raises StateError."""
    try:
        return (place.state / "registry.sqlite").exists()
    except OSError as error:
        raise StateError(f"cannot look into {place.state}: {error.strerror}", hint="check its permissions") from error


def _say_who_follows(screen: Screen, place: Place) -> None:
    if not place.live:
        screen.prose("no daemon is running: it follows when one starts (reprod daemon)", 2)


def _reload_or_take_back(place: Place, name: str, file: Path, take_back: Callable[[], None]) -> None:
    assert place.client is not None  # noqa: S101 - reads_here
    try:
        answer = place.client.call("reload", timeout_s=RELOAD_TIMEOUT_S)
    except DaemonUnavailableError as error:
        # It may have read the file already, so taking it back would leave the two apart.
        raise DaemonUnavailableError(
            f"{file} is written, but then: {error.message}", hint="the daemon reads it at its next start or reload"
        ) from error
    except ReprodError:
        take_back()
        raise
    refused = [wrong for wrong in answer.get("misconfigured") or [] if wrong.get("name") == name]
    if refused:
        take_back()
        try:
            place.client.call("reload", timeout_s=RELOAD_TIMEOUT_S)
        except ReprodError:  # the refusal below is what the user needs to read
            pass
        raise ConfigError(str(refused[0].get("message")), hint=str(refused[0].get("hint") or ""))


def _say_added(screen: Screen, place: Place, config: Config, args: argparse.Namespace, file: Path) -> None:
    dataset = next((item for item in config.datasets if item.name == args.name), None)
    path = render.file_name(dataset.path) if dataset else render.file_name(args.path)
    screen.prose(f"added {args.name}: {path}")
    screen.prose(f"written to {render.safe(file)}", 2)
    exclude = dataset.exclude if dataset else DEFAULT_EXCLUDE
    screen.prose(f"exclude = {render.safe(json.dumps(list(exclude), ensure_ascii=False))}", 2)
    for inner, outer in nested_in(config):
        if args.name == inner:
            screen.prose(f"it is inside dataset {outer}: its files belong to both", 2)
        elif args.name == outer:
            screen.prose(f"dataset {inner} is inside it: those files belong to both", 2)
    if place.reads_here and place.client is not None:
        try:
            _say_outlook(screen, args.name, place.client.call("outlook", {"name": args.name}))
        except ReprodError:  # an older daemon, or data that is gone again: it is added all the same
            screen.prose(f"the first scan begins now: reprod status {args.name}", 2)
    elif place.live:
        screen.prose(
            f"the running daemon reads {render.safe(place.hello.get('config'))} and will not see this", 2, "yellow"
        )
    else:
        if dataset is not None:
            from reprod.ops.estimate import estimate

            found = estimate(dataset, str(place.state))
            screen.prose(f"{_found(found.files, whole=found.whole)} on {render.safe(found.fs_type)}", 2)
        screen.prose("no daemon is running: it is scanned when one starts (reprod daemon)", 2)


def _say_outlook(screen: Screen, name: str, told: dict[str, Any]) -> None:
    """Write what the daemon found in the moment since: how large it is, how it is watched and why not otherwise."""
    found = _found(told.get("files") or 0, whole=bool(told.get("whole")))
    size = f", {render.size(told['bytes'])}" if told.get("bytes") is not None else ""
    screen.prose(f"{found}{size} on {render.safe(told.get('file_system') or 'an unknown file system')}", 2)
    if told.get("watch") in {"inotify", "watchfiles"}:
        screen.prose(f"watched by {told['watch']}", 2)
    else:
        how = "polled, not watched" if told.get("watch") == "poll" else "not watched yet"
        screen.prose(f"{how}: {render.safe(told.get('watch_reason') or 'it is not known why')}", 2, "yellow")
    if told.get("version") is not None:
        screen.prose(f"scanned: @{told['version']}  {render.digest(told.get('digest'))}", 2)
    else:
        screen.prose(f"the first scan is under way: reprod status {name}", 2)


def _found(files: int, *, whole: bool) -> str:
    return f"{render.plural(files, 'file')}{'' if whole else ' and more'}"


def _purge(place: Place, name: str) -> None:
    if place.client is not None:
        place.client.call("purge", {"name": name}, timeout_s=RELOAD_TIMEOUT_S)
        return
    from reprod.ops import history

    history.purge(place.state, name)
