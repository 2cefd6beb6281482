"""Attributes as the server has them: on a network file system a stat may be answered from a cache for a minute.

statx(2) with AT_STATX_FORCE_SYNC asks the server, and what comes is what later calls see too. Python has no statx
before 3.15; elsewhere than on Linux, and where libc has none, nothing happens. Workers import this when it is needed.
"""

import ctypes
from functools import cache
from typing import Any

_AT_SYMLINK_NOFOLLOW, _AT_NO_AUTOMOUNT, _AT_STATX_FORCE_SYNC, _AT_EMPTY_PATH = 0x100, 0x800, 0x2000, 0x1000
_STATX_BASIC_STATS = 0x7FF
_FLAGS = _AT_SYMLINK_NOFOLLOW | _AT_NO_AUTOMOUNT | _AT_STATX_FORCE_SYNC | _AT_EMPTY_PATH


def ask_server(directory: int, name: bytes = b"") -> None:
    """Have the kernel learn anew what ``name`` in an open directory is, or the directory itself.

    What fails here fails in the stat that follows too, which says why.
    """
    call, answer = _statx()
    if call is not None:
        call(directory, name, _FLAGS, _STATX_BASIC_STATS, answer())


@cache
def _statx() -> tuple[Any, Any]:
    """Return the function and the type of its answer (256 bytes, statx(2)); None where there is none."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)
    if call is not None:
        call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
        call.restype = ctypes.c_int
    return call, ctypes.c_char * 256
