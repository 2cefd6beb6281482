"""Owns how a path of a dataset that keeps its names to itself is told: ``<dataset NAME>/...``, with nothing behind it.

Such a path stands in a text (from the root on), or is a word of a command, which may be relative to a directory. In a
text it ends where the quote before it ends, else with its line or at the next path of a list: a name may hold blanks,
and too much is better hidden than too little. Paths are text without trailing slashes. Pure.
"""

import posixpath
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from reprod.core.plain import plain
from reprod.core.redact_values import is_number

#: The whole path begins here: not within a longer one, but behind a short option (``-d/data``).
_BEFORE = r"(?:(?<![\w.~@+%-])|(?<=^-[A-Za-z])|(?<=[\s\"']-[A-Za-z]))"
#: The name of the root ends here: ``/data-old`` is another folder.
_AFTER = r"(?![\w+@~-]|\.\w)"
_TAIL = re.compile(r"[\r\n]|[:;,] ?/")
_HOME = re.compile(r"/(?:home|Users)/[^/]+(?=/)|/root(?=/)")
#: What stands before the value in one word: ``--data=``, ``data.path=``, ``-d``.
_HEAD = re.compile(r"[^\s='\"/]*=|-[A-Za-z](?=[./])")
_BETWEEN = re.compile(r"[,:;\[\]{}()'\"`\s=]+")


@dataclass(frozen=True, slots=True)
class Reserved:
    """A dataset whose names are not told. ``roots``: where it lies, and the same with links resolved.

    ``whole``: its root is not told either.
    """

    name: str
    roots: tuple[str, ...]
    whole: bool = False

    @property
    def below(self) -> str:
        """What is told in place of a path below the root."""
        return f"<dataset {self.name}>/..."


class Curtain:
    """Hides what is reserved; without anything reserved it hides nothing, and is false."""

    def __init__(self, reserved: Collection[Reserved]) -> None:
        self._by_root = {root: each for each in reserved for root in map(_plain_root, each.roots) if root}
        forms = {form: each for root, each in self._by_root.items() for form in _forms(root)}
        self._forms = forms
        # The longest first: of a dataset within another it is the inner one's name.
        found = "|".join(map(re.escape, sorted(forms, key=len, reverse=True)))
        self._found = re.compile(f"{_BEFORE}(?:{found}){_AFTER}")

    def __bool__(self) -> bool:
        return bool(self._by_root)

    def owner(self, path: str) -> Reserved | None:
        """Return whose an absolute path is: that of the innermost root at or above it; None: nobody's."""
        path = posixpath.normpath(plain(path))
        found = [root for root in self._by_root if path == root or path.startswith(f"{root}/")]
        return self._by_root[max(found, key=len)] if found else None

    def within(self, folder: str) -> list[tuple[str, Reserved]]:
        """Return what is reserved at or below a folder: ``(path from there, whose)``, ``""`` for the folder itself."""
        folder = posixpath.normpath(plain(folder))
        return [
            (root[len(folder) :].strip("/"), each)
            for root, each in self._by_root.items()
            if root == folder or root.startswith(f"{folder.rstrip('/')}/")
        ]

    def text(self, text: str) -> str:
        """Return a text with what is reserved hidden wherever it stands."""
        if not self._by_root:
            return text
        parts, done = [], 0
        while (match := self._found.search(text, done)) is not None:
            owner, end = self._forms[match.group()], _tail(text, match)
            is_below = text[match.end() : end].strip("/") != ""
            shown = owner.below if is_below else f"<dataset {owner.name}>" if owner.whole else match.group()
            parts += [text[done : match.start()], shown]
            done = end if is_below or owner.whole else match.end()
        return "".join([*parts, text[done:]])

    def word(self, word: str, cwd: str | None) -> str:
        """Return a word of a command that was given in ``cwd`` (None: not known), what it names hidden.

        A word without a slash or a dot is not taken for a path.
        """
        shown = self.text(word)
        if shown != word or not self._by_root:
            return shown
        head = _HEAD.match(word)
        at = head.end() if head else 0
        for piece in (word[at:], *_BETWEEN.split(word[at:])):
            owner = self._named(piece, cwd)
            if owner is not None:
                return word[:at] + owner.below
        return word

    def value(self, tree: Any) -> Any:
        """Return a tree of builtins with what is reserved hidden in each of its texts, of the same shape."""
        if isinstance(tree, str):
            return self.text(tree)
        if isinstance(tree, Mapping):
            return {self.value(key): self.value(item) for key, item in tree.items()}
        return [self.value(item) for item in tree] if isinstance(tree, list | tuple) else tree

    def _named(self, piece: str, cwd: str | None) -> Reserved | None:
        """Return whose a piece of a word is, if it is a path below a root, as seen from ``cwd``."""
        is_path = "/" in piece or ("." in piece and not is_number(piece))
        if not is_path or piece.startswith("-") or not piece.strip("./") or (cwd is None and piece[0] != "/"):
            return None
        path = posixpath.normpath(posixpath.join(cwd or "/", piece))
        owner = self.owner(path)
        return None if owner is None or (path in self._by_root and not owner.whole) else owner


def _plain_root(root: str) -> str:
    return posixpath.normpath(plain(root)).rstrip("/") if root else ""


def _forms(root: str) -> list[str]:
    """Return how a root may be written: as it is, in a URL, from the home folder."""
    return [root, quote(root), _HOME.sub("~", root, count=1) if _HOME.match(root) else root]


def _tail(text: str, match: re.Match[str]) -> int:
    """Return where the path ends whose root was found."""
    if not text.startswith("/", match.end()):
        return match.end()
    opened = text[match.start() - 1 : match.start()]
    if opened and opened in "\"'`":
        closed = re.compile(rf"(?<!\\){opened}|[\r\n]").search(text, match.end())
        if closed is not None and closed.group() == opened:
            return closed.start()
    found = _TAIL.search(text, match.end())
    return found.start() if found else len(text)
