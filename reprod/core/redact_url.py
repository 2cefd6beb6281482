"""Owns what is secret in an address: user information, query values, and what ``scp``, ``curl`` and headers write.

A user alone is kept where it proves nothing (``ssh://git@host``, ``git@host:path``). Offsets are characters. Rules look
around a rare anchor (``://``, ``@``, a header's name), so a text without any costs one search each.
"""

import re
from collections.abc import Iterator

from reprod.core.redact_names import KEY, SOFT, tier
from reprod.core.redact_values import MASK, Span, is_nothing, is_number, is_random, is_wordy

#: A user name of this length before ``@host`` is a token.
TOKEN_LENGTH = 20
#: Nothing is looked for farther than this from an anchor.
REACH = 4096

_WORD_END = re.compile(r"[\s\"'<>`]")
_SCHEME = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+.-"
_AUTHORITY_END = re.compile(r"[/?#]")
_PORT = re.compile(r":(?![0-9]*\Z)")
_QUERY = re.compile(r"([?&#;])([\w.\-%\[\]]{1,80})=([^&#;\s\"'<>`]+)")
#: Keys of a signed address that are secret only together with a signature.
_SIGNED = frozenset({"se", "sp", "sv", "sr", "st", "spr", "policy", "key-pair-id", "awsaccesskeyid", "googleaccessid"})
_HOST = re.compile(r"@(?!sha(?:1|256|384|512):|md5:)[\w.-]{1,255}:(?!\s|\Z)")
_ANY_HOST = re.compile(
    r"@(?:tcp\(|(?!sha(?:1|256|384|512)\b)[A-Za-z][\w-]*(?:\.[\w-]+)+|localhost\b|\d+\.\d+\.\d+\.\d+)"
)
_USER_STOPS = "/@\"'`=<>()[]{},;"


def url_spans(text: str, *, whole: bool = False) -> Iterator[Span]:
    """Yield the secrets of every URL in ``text``; ``whole`` takes the text as one, with blanks and quotes in it."""
    word_end = -1
    at = text.find("://")
    while at >= 0:
        if at > word_end:
            found = None if whole else _WORD_END.search(text, at)
            word_end = found.start() if found else len(text)
            yield from _query_spans(text, at, word_end)
        span = _user_span(text, at, word_end)
        if span is not None:
            yield span
        at = text.find("://", at + 3)
    if "?" in text and ("sig=" in text or "ignature=" in text):
        yield from _query_spans(text, 0, len(text))


def _user_span(text: str, at: int, word_end: int) -> Span | None:
    start = at + 3
    found = _AUTHORITY_END.search(text, start, word_end)
    end = found.start() if found else word_end
    cut = text.rfind("@", start, end)
    authority = text[start:end]
    if cut < 0 and not authority.startswith("[") and _PORT.search(authority[:REACH]):
        # "https://u:p/w@host": what looks like a port is no number, so a password that holds a slash began here.
        cut = text.rfind("@", start, min(word_end, start + REACH))
    if cut < 0:
        return None
    user = text[start:cut]
    head = text[max(0, at - 31) : at]
    scheme = head[len(head.rstrip(_SCHEME)) :].lower()
    if "ssh" in scheme and ":" not in user and len(user) < TOKEN_LENGTH:
        return None
    return start, cut + 1, ""


def _query_spans(text: str, start: int, end: int) -> Iterator[Span]:
    signed = None
    for match in _QUERY.finditer(text, start, end):
        name, value = match.group(2).lower(), match.group(3)
        if is_nothing(value):
            continue
        level = tier(match.group(2))
        if name in _SIGNED:
            signed = ("sig" in text[start:end].lower()) if signed is None else signed
            secret = signed
        elif name.startswith(("x-amz-", "x-goog-")) or level > SOFT:
            secret = True
        elif level in {SOFT, KEY}:
            secret = not is_number(value) and not (is_wordy(value) and len(value) < 24)
        else:
            secret = name == "code" and is_random(value)
        if secret:
            yield match.start(3), match.end(3), MASK


def user_spans(text: str) -> Iterator[Span]:
    """Yield ``user:password@`` of ``user:password@host:path`` and the like, and a token as the user of such a form."""
    at = text.find("@")
    while at >= 0:
        span = _before_at(text, at)
        if span is not None:
            yield span
        at = text.find("@", at + 1)


def _before_at(text: str, at: int) -> Span | None:
    is_scp = _HOST.match(text, at) is not None
    if not is_scp and _ANY_HOST.match(text, at) is None:
        return None
    window = text[max(0, at - REACH) : at]
    start = at - len(window) + 1 + max([window.rfind(stop) for stop in _USER_STOPS] + [_last_blank(window)])
    user, colon, password = text[start:at].partition(":")
    if start > 0 and text[start - 1] == "/" and not _is_address(text[max(0, start - 7) : start]):
        return None  # of a path
    if colon and user and password and user != "mailto":
        plain = is_number(password) or (not is_scp and (is_wordy(password) or len(password) < 6))
        return None if plain else (start, at + 1, "")
    if not colon and len(user) >= TOKEN_LENGTH and (is_scp or is_random(user)) and re.fullmatch(r"[\w.-]+", user):
        return start, at + 1, ""
    return None


def _is_address(head: str) -> bool:
    """Return whether what stands before a user is the beginning of an address, also of one that is misspelt."""
    return head.endswith(("//", "http:/", "https:/"))


def _last_blank(window: str) -> int:
    return max(window.rfind(" "), window.rfind("\n"), window.rfind("\t"), window.rfind("\r"))


_OPEN = r"""\\{0,3}["'`]?\]?\s{0,4}[:=,]\s{0,4}(?:[bru](?=\\{0,3}["']))?\\{0,3}["'`]?\s{0,2}"""
_AUTHORIZATION = re.compile(
    "authorization"
    + _OPEN
    + r"(?:(?:bearer|basic|token|digest|negotiate|apikey|key|bot)[ \t]{1,4})?(?P<secret>[^\s\"'`\\,;<>]+)"
)
_AWS4 = re.compile(r"aws4-hmac-sha256[ \t]+(?P<secret>credential=[^\n\"'`\\]+)")
_BEARER = re.compile(r"bearer[ \t]{1,4}(?P<secret>[^\s\"'`\\,;<>]{16,})")
_BASIC = re.compile(r"basic[ \t]{1,4}(?P<secret>[a-z0-9+/_-]{12,}={0,2})")
_COOKIE = re.compile(
    r"cookie" + r"""\\{0,3}["'`]?\s{0,4}:\s{0,4}\\{0,3}["'`]?""" + r"(?P<secret>[^\n\"'`\\=;]{1,128}=[^\n\"'`\\]+)"
)
_CURL = re.compile(r"(?:-u|--user|--proxy-user)[ =]{1,4}[\"']?[^\s:\"']{1,256}:(?P<secret>[^\s\"']+)")
_SSHPASS = re.compile(r"sshpass[ \t]+-p[ \t]*[\"']?(?P<secret>[^\s\"']+)")
_HEADERS = (
    ("authorization", _AUTHORIZATION),
    ("aws4-hmac", _AWS4),
    ("bearer", _BEARER),
    ("basic", _BASIC),
    ("cookie", _COOKIE),
    ("-u", _CURL),
    ("--user", _CURL),
    ("sshpass", _SSHPASS),
)


def header_spans(text: str, lowered: str) -> Iterator[Span]:
    """Yield the credentials of HTTP headers and of the options that become headers."""
    for anchor, rule in _HEADERS:
        for match in rule.finditer(lowered) if anchor in lowered else ():
            start, end = match.span("secret")
            value = text[start:end]
            if is_nothing(value):
                continue
            if rule is _BASIC and not _is_login(value):
                continue
            if rule in {_BEARER, _CURL} and (is_wordy(value) or len(value) < 8):
                continue
            yield start, end, MASK


def _is_login(value: str) -> bool:
    """Return whether a value is ``user:password`` in base64."""
    import base64

    try:
        decoded = base64.b64decode(value[:REACH] + "=" * (-len(value[:REACH]) % 4), altchars=b"-_")
    except ValueError:
        return False
    return b":" in decoded
