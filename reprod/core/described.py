"""Types that msgspec may be given by several threads: each is described to it once, under a lock.

msgspec makes the description of a dataclass at its first use and shows it to other threads before it is whole: two that
use a type for the first time at the same moment end the process (SIGSEGV, msgspec 0.19 to 0.22, in three of three runs
of four threads). So every type goes through ``described`` on its way to ``decode``, ``convert`` or ``Decoder``.
"""

from _thread import allocate_lock
from typing import TypeVar

T = TypeVar("T")

_lock = allocate_lock()
_done: set[object] = set()


def described(kind: type[T]) -> type[T]:
    """Return a type that any thread may give to msgspec now."""
    if kind not in _done:
        import msgspec

        with _lock:
            msgspec.json.Decoder(kind)
            _done.add(kind)
    return kind
