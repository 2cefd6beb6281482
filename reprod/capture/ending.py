"""Owns what becomes of what a process told at its end: in its child, whose modules these were is looked up.

Reads the installers' lists of files, as the process's own user. pandas with PyTorch takes 30 ms.
"""

import os
import time
from collections.abc import Mapping
from typing import Any

from reprod.capture.imports.loaded import Loaded
from reprod.capture.imports.mapped import MappedFiles
from reprod.capture.imports.used import read_imports
from reprod.capture.sections import Sections
from reprod.capture.subject import subject_of_process
from reprod.capture.taint import read_taint
from reprod.core.described import described
from reprod.core.environment import Environment, Record, clean
from reprod.core.execution import Execution
from reprod.core.numerics import Numerics, RandomState
from reprod.core.plain import plain
from reprod.core.process import ProcessContext
from reprod.core.redact import Redactor

#: Lists of files on a cold network file system; 32,000 files are read in 80 ms.
IMPORTS_S = 20.0


def capture_end(context: ProcessContext, used: Mapping[str, Any]) -> Execution:
    """Return what process ``context`` had used when it took ``used`` (``reprod.capture.used``), without secrets.

    To be called in its own child, as its user. Of the other facts of the process there is nothing.
    """
    import msgspec

    seen = Sections()
    seen.unknown.update({name: plain(why) for name, why in used["unknown"].items()})
    loaded, mapped = used["loaded"], used["mapped"]
    files = None if mapped is None else MappedFiles(tuple(mapped["paths"]), frozenset(mapped["deleted"]))
    own = Loaded(*(tuple(loaded[name]) for name in ("files", "search_path", "library"))) if loaded else None
    imports = seen.take("imports", lambda: read_imports(own, files), IMPORTS_S) if own is not None else None
    found = Execution(
        subject_of_process(context, "handover"),
        time.time_ns(),
        numerics=msgspec.convert(used["numerics"], described(Numerics)) if used["numerics"] else None,
        random_state=msgspec.convert(used["random_state"], described(RandomState)) if used["random_state"] else None,
        imports=imports,
        unknown=seen.unknown,
    )
    taint = read_taint(os.environ, home=os.environ.get("HOME"), prefix=context.prefix)
    return clean(Record(found, Environment()), Redactor(taint)).execution
