"""Owns which datasets the code that runs now has said it uses: the open blocks of ``reprod.track``.

A block counts for the code inside it and for nobody else: for tasks that are made in it, and for threads that were
given its context (``asyncio.to_thread`` does that), but not for another thread of the same process, which may be at
something else. Standard library only: it runs inside training processes.
"""

from contextvars import ContextVar

_open: "ContextVar[tuple[Block, ...]]" = ContextVar("reprod_open_blocks", default=())


class Block:
    """One block: ``names`` as the tag has them; ``asked`` is True once MLflow has asked for tags inside it."""

    __slots__ = ("asked", "names")

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.asked = False


def enter(block: Block) -> None:
    """Begin a block, inside those that are open here."""
    _open.set((*_open.get(), block))


def leave(block: Block) -> None:
    """End it. Where it was not entered here (a generator that another task closes) nothing happens."""
    _open.set(tuple(each for each in _open.get() if each is not block))


def datasets() -> str | None:
    """Return the value of ``reprod.dataset`` here, the outermost block's first; None outside of every block."""
    names = dict.fromkeys(name for block in _open.get() for name in block.names)
    return ",".join(names) or None


def datasets_with(names: list[str]) -> str:
    """Return ``datasets`` with ``names`` behind it, each once."""
    here = datasets()
    return ",".join(dict.fromkeys([*(here.split(",") if here else []), *names]))


def datasets_of_run() -> str | None:
    """Return ``datasets`` for a run that starts now; the blocks remember it."""
    for block in _open.get():
        block.asked = True
    return datasets()
