"""Owns the forms in which a known secret may turn up again: as it is, quoted for a URL, in base64, escaped as in JSON.

Values come from where secrets are kept (``reprod.capture.taint``), are held in memory only, and are never shown.
"""

from collections.abc import Collection, Iterable

from reprod.core.redact_values import MASK, Span, is_nothing, is_number

#: Shorter values are found in harmless text too often; research 1.5 (b).
SHORTEST = 8
#: A process with more secrets than this has a list of something else.
MOST = 1000
#: What people put where a secret belongs, and what must not vanish from every text.
_COMMON = frozenset(
    (
        "password", "changeme", "username", "postgres", "postgresql", "localhost", "anonymous", "x-access-token",
        "x-oauth-basic", "__token__", "unlimited", "internal", "production", "development", "interactive",
    )
)  # fmt: skip


class Taint:
    """Values that must not leave, and all their forms; its ``repr`` tells only how many."""

    __slots__ = ("_forms", "_heads", "_size")

    def __init__(self, values: Collection[str] = ()) -> None:
        kept = [value for value in dict.fromkeys(values) if is_taintable(value)][:MOST]
        self._size = len(kept)
        forms = {form for value in kept for form in _forms(value) if len(form) >= SHORTEST}
        # The longest first: a form that holds another one is replaced whole.
        self._forms = sorted(forms, key=lambda form: (-len(form), form))
        self._heads = frozenset(form[:SHORTEST] for form in forms)

    def __repr__(self) -> str:
        return f"Taint({self._size} values)"

    def __bool__(self) -> bool:
        return bool(self._forms)

    def spans(self, text: str) -> Iterable[Span]:
        """Yield every place where a form of a value stands."""
        if len(text) < SHORTEST:
            return
        starts = (text[at : at + SHORTEST] for at in range(len(text) - SHORTEST + 1))
        # The words of a log line are short: with 60 secrets, to look up each stretch halves what a line costs.
        if 2 * len(text) < len(self._forms) and self._heads.isdisjoint(starts):
            return
        for form in self._forms:
            at = text.find(form) if form in text else -1  # asking first: a line of the log costs a third less
            while at >= 0:
                yield at, at + len(form), MASK
                at = text.find(form, at + len(form))


def is_taintable(value: str) -> bool:
    """Return whether ``value`` is long and special enough to be taken out wherever it turns up."""
    plain = value.strip()
    return (
        len(plain) >= SHORTEST
        and len(set(plain)) > 2
        and plain.lower() not in _COMMON
        and not is_nothing(plain)
        and not (is_number(plain) and len(plain) < 12)
        and MASK not in plain
    )


def _forms(value: str) -> Iterable[str]:
    import json  # these three cost more than the rest of the redaction, and most processes need none of them
    from urllib.parse import quote, quote_plus

    for each in dict.fromkeys((value, value.strip())):
        yield each
        yield each.encode("utf-8", "replace").decode("latin-1")  # as bytes that are searched one by one
        for quoted in (quote(each, safe=""), quote(each), quote_plus(each)):
            yield quoted
            yield _lower_escapes(quoted)
        yield json.dumps(each)[1:-1]
        yield json.dumps(each, ensure_ascii=False)[1:-1]
        yield json.dumps(json.dumps(each)[1:-1])[1:-1]
        yield repr(each)[1:-1]
        yield from _base64_forms(each.encode("utf-8", "replace"))


def _lower_escapes(quoted: str) -> str:
    parts = quoted.split("%")
    return "%".join([parts[0], *(part[:2].lower() + part[2:] for part in parts[1:])])


def _base64_forms(data: bytes) -> Iterable[str]:
    """Yield what the base64 of any text that holds ``data`` contains: one form for each place within three bytes."""
    import base64

    for before in range(3):
        whole = len(data) + before
        encoded = base64.b64encode(b"\0" * before + data)
        # The first characters mix with what stands before, the last with what follows.
        core = encoded[(0, 2, 3)[before] : whole // 3 * 4 + (0, 1, 2)[whole % 3]].decode()
        yield core
        yield core.replace("+", "-").replace("/", "_")
