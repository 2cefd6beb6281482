"""Names that some systems take for one: equal after Unicode normalisation, different in their bytes.

Here they are two entries, as they are on Linux. A copy on macOS, or in a tool that normalises, keeps one of them, so a
manifest warns. Memory is that of the names outside ASCII in the directories that are open.
"""

import unicodedata


class Lookalikes:
    """Looks at one path after another; they come in the order of their bytes."""

    def __init__(self) -> None:
        self._directories: list[bytes] = []
        self._names: list[dict[str, bytes]] = [{}]

    def check(self, path: bytes) -> tuple[bytes, bytes] | None:
        """Return an earlier path and the part of this one that looks like it, the first time that they meet."""
        if path.isascii():
            return None
        parts = path.split(b"/")
        common = 0
        for mine, theirs in zip(self._directories, parts[:-1], strict=False):
            if mine != theirs:
                break
            common += 1
        del self._directories[common:], self._names[common + 1 :]
        found = None
        for level in range(common, len(parts)):
            name = parts[level]
            first = self._names[level].setdefault(_normal(name), name)
            if first != name and found is None:
                found = b"/".join([*parts[:level], first]), b"/".join(parts[: level + 1])
            if level + 1 < len(parts):
                self._directories.append(name)
                self._names.append({})
        return found


def warning(one: bytes, other: bytes) -> str:
    """Return the sentence for two names, in ASCII so that they can be told apart."""
    return f"{_shown(one)} and {_shown(other)} are one name to systems that normalise Unicode"


def _normal(name: bytes) -> str:
    return unicodedata.normalize("NFC", name.decode("utf-8", "surrogateescape"))


def _shown(path: bytes) -> str:
    return ascii(path.decode("utf-8", "backslashreplace"))
