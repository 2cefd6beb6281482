"""Owns the addresses that a repository names, its remotes and submodules, without what they let in with."""

import os
from collections.abc import Mapping

from reprod.capture.bounded import read_bounded
from reprod.capture.git.command import Place, run
from reprod.capture.git.private import Checkout
from reprod.core.redact import plain, redact_text, redact_url
from reprod.core.repository import Remote
from reprod.errors import IncompleteError

#: Nobody reads more, and a record has to stay small.
MAX_REMOTES = 20

#: ``.gitmodules`` has three lines for each submodule.
MAX_SUBMODULE_SETTINGS = 1 << 20


def read_remotes(checkout: Checkout) -> tuple[Remote, ...]:
    """Return the remotes as they are configured (``insteadOf`` is not applied), ``origin`` first."""
    urls = _collect(checkout.config, "remote.", ".url")
    pushed = _collect(checkout.config, "remote.", ".pushurl")
    names = sorted(urls, key=lambda name: name != "origin")
    return tuple(
        Remote(plain(name), clean(urls[name]), clean(pushed[name]) if name in pushed else None)
        for name in names[:MAX_REMOTES]
    )


def read_submodule_urls(place: Place) -> dict[str, str]:
    """Return the address of each submodule by its path, as ``.gitmodules`` has it."""
    try:
        data = read_bounded(os.path.join(place.directory, ".gitmodules"), MAX_SUBMODULE_SETTINGS)
        said = os.fsdecode(run(place, ["config", "-z", "--no-includes", "--file", "-", "--list"], stdin=data))
    except (OSError, IncompleteError):
        return {}
    config: dict[str, tuple[str | None, ...]] = {}
    for entry in said.split("\0"):
        key, given, value = entry.partition("\n")
        if given:
            config[key] = (*config.get(key, ()), value)
    paths = _collect(config, "submodule.", ".path")
    urls = _collect(config, "submodule.", ".url")
    return {path: clean(urls[name]) for name, path in paths.items() if name in urls}


def clean(url: str) -> str:
    """Return an address without credentials; a helper's command line (``ext::``) is searched as text."""
    return redact_text(redact_url(url))


def _collect(config: Mapping[str, tuple[str | None, ...]], prefix: str, suffix: str) -> dict[str, str]:
    """Return the first value of each ``prefix NAME suffix``, by name."""
    found = {}
    for key, values in config.items():
        if key.startswith(prefix) and key.endswith(suffix) and len(key) > len(prefix) + len(suffix):
            first = next((value for value in values if value), None)
            if first is not None:
                found[key[len(prefix) : -len(suffix)]] = first
    return found
