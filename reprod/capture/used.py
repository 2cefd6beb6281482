"""Owns what a process tells of itself at its end: what it has loaded, how it computes, where its generators are.

Taken in the process itself in some 10 ms, and plain JSON, because whose modules these are is found out by a child: it
takes longer than an exiting process should. Standard library only.
"""

import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from reprod.capture.imports.loaded import loaded_modules
from reprod.capture.imports.mapped import mapped_files
from reprod.capture.numerics.random_state import read_random_state
from reprod.capture.numerics.settings import read_numerics
from reprod.errors import IncompleteError


def used_by_now(script: str | None = None) -> dict[str, Any]:
    """Return ``loaded``, ``mapped``, ``numerics``, ``random_state`` as mappings; ``unknown`` says why one is None.

    ``script`` is the path of the program's own file, which at the end no module has any more.
    """
    unknown: dict[str, str] = {}

    def take(name: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except IncompleteError as error:
            unknown[name] = error.message
        except Exception as error:  # noqa: BLE001 - the user's modules may be anything; the rest is told all the same
            unknown[name] = f"{type(error).__name__}: {error}"
        return None

    loaded = take("imports", lambda: asdict(loaded_modules()))
    if loaded is not None and script is not None:
        loaded["files"] = list(dict.fromkeys([os.path.normpath(script), *loaded["files"]]))
    mapped = take("mapped", mapped_files)
    numerics = take("numerics", lambda: asdict(read_numerics(mapped)))
    state = take("random_state", lambda: asdict(read_random_state()))
    seen = mapped and {"paths": mapped.paths, "deleted": sorted(mapped.deleted)}
    return {"loaded": loaded, "mapped": seen, "numerics": numerics, "random_state": state, "unknown": unknown}
