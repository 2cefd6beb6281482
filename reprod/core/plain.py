"""Owns how text from outside is made fit for UTF-8.

A module of its own because training processes need it at once, and the rules for secrets beside it take 20 ms to load.
"""


def plain(text: str) -> str:
    r"""Return ``text`` fit for UTF-8: bytes that were not (as ``os.fsdecode`` keeps them) become ``\xNN``."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape" if _only_escapes(text) else "replace").decode(
            "utf-8", "backslashreplace"
        )
    return text


def _only_escapes(text: str) -> bool:
    return all(not "\ud800" <= c <= "\udfff" or "\udc80" <= c <= "\udcff" for c in text)
