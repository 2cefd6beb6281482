"""Owns the shapes of tokens: what tells by itself, without a name, that it is a secret.

The formats are those that the issuers publish. Rule: a shape begins with something rare and ends with the repeat that
may be long, so that no text makes the search take longer than a few looks at each character. Offsets are characters.
"""

import re
from collections.abc import Generator, Iterator

from reprod.core.redact_values import MASK, Span

#: Every shape of the list has a run of so many letters, digits, ``_`` and ``-``; text without one holds none of them.
SHORTEST_RUN = 18

#: One shape a word; its first character stands as it is.
_LIST = r"""
AKIA[A-Z0-9]{16}(?![A-Za-z0-9]) ASIA[A-Z0-9]{16}(?![A-Za-z0-9]) A[BC][IC]A[A-Z0-9]{16}(?![A-Za-z0-9])
gh[pousr]_[A-Za-z0-9]{20,} github_pat_[A-Za-z0-9_]{20,} GR1348941[A-Za-z0-9_-]{18,}
gl(?:pat|ptt|rt|dt|oas|soat|ft|imt|agent|cbt|ffct)-[A-Za-z0-9_.-]{16,} hf_[A-Za-z0-9]{30,} api_org_[A-Za-z0-9]{30,}
sk-(?:proj|svcacct|admin|None|ant|or|lf|live|test|service)-[A-Za-z0-9_-]{20,} sk-[A-Za-z0-9]{20,} gsk_[A-Za-z0-9]{40,}
r8_[A-Za-z0-9]{30,} pplx-[A-Za-z0-9]{40,} xai-[A-Za-z0-9]{60,} nvapi-[A-Za-z0-9_-]{40,} pcsk_[A-Za-z0-9_]{40,}
lsv2_(?:pt|sk)_[a-f0-9]{32}_[a-f0-9]{10} wandb_v\d_[A-Za-z0-9_]{40,} KGAT_[A-Za-z0-9]{20,}
xox[abcdeoprs][.-](?:xox[abp]-)?[A-Za-z0-9-]{10,} xapp-\d-[A-Za-z0-9-]{20,} AIza[A-Za-z0-9_-]{30,}
ya29\.[A-Za-z0-9_-]{20,} GOCSPX-[A-Za-z0-9_-]{20,} 1//0[A-Za-z0-9_-]{30,} npm_[A-Za-z0-9]{30,}
pypi-(?:Ag[A-Za-z0-9_-]{30,}|[A-Za-z0-9_-]{48,}) dapi[a-f0-9]{32}(?:-\d)? dose[a-f0-9]{32}
sk_(?:live|test)_[A-Za-z0-9]{16,} rk_(?:live|test)_[A-Za-z0-9]{16,} whsec_[A-Za-z0-9+/=]{24,}
SK[a-f0-9]{32}(?![A-Za-z0-9]) SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,} do[opr]_v1_[a-f0-9]{40,}
dckr_[op]at_[A-Za-z0-9_-]{20,} hv[sbr]\.[A-Za-z0-9_-]{20,}
eyJ(?:hcGlfYWRkcmVzcyI6|1c2VybmFtZSI6)[A-Za-z0-9+/_-]{20,}={0,2}
gl(?:sa|c)_[A-Za-z0-9_=+/]{30,} sntr(?:yu_|ys_)[A-Za-z0-9_=+/]{40,} NRAK-[A-Z0-9]{20,} NRII-[A-Za-z0-9_-]{20,}
PMAK-[a-f0-9]{24}-[a-f0-9]{34} pul-[a-f0-9]{40} lin_api_[A-Za-z0-9]{30,} ntn_[A-Za-z0-9]{40,}
shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32} tskey-[a-z]{3,12}-[A-Za-z0-9-]{16,} sb[ps]_[a-f0-9]{40} rubygems_[a-f0-9]{48}
pn[ubt]_[A-Za-z0-9]{36}(?![A-Za-z0-9]) dt0[a-z]\d\d\.[A-Z0-9]{24}\.[A-Z0-9]{60,} ATATT3[A-Za-z0-9_=-]{60,}
ATBB[A-Za-z0-9]{28,} LTAI[A-Za-z0-9]{16,26}(?![A-Za-z0-9]) AGE-SECRET-KEY-1[A-Z0-9]{50,}
pat[A-Za-z0-9]{14}\.[a-f0-9]{64} figd_[A-Za-z0-9_-]{30,} pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.=-]{32,}
dp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9_.-]{30,} AKCp[A-Za-z0-9]{60,} cmVmdGtu[A-Za-z0-9]{50,} sqp_[a-f0-9]{40}
CCIPAT_[A-Za-z0-9_]{30,} bkua_[a-f0-9]{40} ops_eyJ[A-Za-z0-9+/_-]{60,}={0,2} EAA[A-Za-z0-9]{90,}
sq0(?:atp|csp)-[A-Za-z0-9_-]{20,} p8e-[a-z0-9]{32} HRKU-[A-Za-z0-9_-]{30,} nfp_[A-Za-z0-9]{30,} sgp_[A-Za-z0-9_]{40,}
M[A-Za-z0-9]{23,25}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,} N[A-Za-z0-9]{23,25}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}
key-[a-f0-9]{32}
"""


def _by_first(shapes: list[str]) -> str:
    """Return one expression for all: branches that differ in their first character are told apart at once."""
    firsts = dict.fromkeys(shape[0] for shape in shapes)
    return "|".join(f"{c}(?:{'|'.join(s[1:] for s in shapes if s[0] == c)})" for c in firsts)


_SHAPES = _LIST.split()
#: How a shape begins, up to its first repeat or choice.
_HEADS = sorted({re.match(r"(?:[A-Za-z0-9_/-]|\\\.)+", shape).group() for shape in _SHAPES})  # type: ignore[union-attr]
_SHAPE = re.compile(_by_first(_SHAPES))
#: With the character before it, so that the search leaps from one such character to the next.
_HEAD = re.compile(rf"[^A-Za-z0-9](?={_by_first(_HEADS)})")
_RUN = re.compile(rf"[A-Za-z0-9_\-]{{{SHORTEST_RUN},}}+")
#: How far the head of a shape reaches out of the run to its left: ``dp.audit.``
_LEFT = 16

#: An RSA key of 16,384 bits takes 12,700 characters.
LONGEST_KEY = 16384

#: Shapes with what is rare in their middle, and those that may have no long run, each with a text that it must hold.
_AZURE_SECRET = re.compile(r"(?<![A-Za-z0-9_~.])[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{30,}")
_AWS = re.compile(
    r"(?<![A-Za-z0-9])(?:ABSK[A-Za-z0-9+/]{60,}|(?:IQoJb3JpZ2lu|FwoGZXIvYXdz|FQoGZXIvYXdz)[A-Za-z0-9+/]{40,})={0,2}"
)
_ACCOUNT_KEY = re.compile(r"[A-Za-z0-9+/]{86}==")
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
_GOES_ON = _BASE64 | {"-"}
_ANCHORED = (
    ("Q~", _AZURE_SECRET),
    (".atlasv1.", re.compile(r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{40,}")),
    (":AA", re.compile(r"(?<![A-Za-z0-9])(?:bot)?\d{8,10}:AA[A-Za-z0-9_-]{33}")),
    ("ABSK", _AWS),
    ("b3JpZ2lu", _AWS),
    ("GZXIvYXdz", _AWS),
    ("eyJ", re.compile(r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,600}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,4}")),
)
_PEM = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END = re.compile(r"-----END (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----")
_PEM_LINES = re.compile(r"(?:(?:\\[nrt]|[\s\"',+]){0,16}[A-Za-z0-9+/=]{16,}+)*+")
_HOOKS = re.compile(
    r"(?:hooks\.slack\.com/(?:services|workflows|triggers)/|/api/webhooks/[0-9]{1,30}/|webhook\.office\.com/webhookb2/)"
    r"(?P<secret>[^\s\"'<>?]{16,})"
)
_PUTTY = re.compile(r"Private-Lines: \d{1,6}(?P<secret>(?:(?:\\[nr]|\s){1,4}[A-Za-z0-9+/=]{1,128})+)")


def shape_spans(text: str) -> Iterator[Span]:
    """Yield every token whose shape is known, and every private key."""
    done = 0
    for run in _RUN.finditer(text):
        if run.end() > done:
            done = yield from _tokens(text, max(done, run.start() - _LEFT), run.end())
    yield from _account_keys(text)
    for anchor, shape in _ANCHORED:
        if anchor in text:
            yield from ((match.start(), match.end(), MASK) for match in shape.finditer(text))
    if "PRIVATE KEY" in text:
        yield from _pem_spans(text)
    if "hook" in text:
        yield from ((*match.span("secret"), MASK) for match in _HOOKS.finditer(text))
    if "Private-Lines" in text:
        yield from ((*match.span("secret"), MASK) for match in _PUTTY.finditer(text))


def _tokens(text: str, start: int, end: int) -> Generator[Span, None, int]:
    """Yield the tokens that begin between ``start`` and ``end``; return where the last one ends, at least ``end``."""
    if start == 0 and (match := _SHAPE.match(text)):
        yield match.start(), match.end(), MASK
        start = match.end()
    while start < end and (head := _HEAD.search(text, start, end)):
        match = _SHAPE.match(text, head.end())
        if match:
            yield match.start(), match.end(), MASK
        start = match.end() if match else head.end()
    return max(start, end)


def _account_keys(text: str) -> Iterator[Span]:
    """Yield the account keys of Azure, 64 bytes in base64; behind ``sha512-`` it is a digest."""
    at = text.find("==", 86)
    while at >= 0:
        if text[at - 1] in _BASE64 and _ACCOUNT_KEY.match(text, at - 86) and text[at - 87 : at - 86] not in _GOES_ON:
            yield at - 86, at + 2, MASK
        at = text.find("==", at + 2)


def _pem_spans(text: str) -> Iterator[Span]:
    at = 0
    while begin := _PEM.search(text, at):
        end = _PEM_END.search(text, begin.end(), begin.end() + LONGEST_KEY)
        if end is not None:
            at = end.end()
        else:
            lines = _PEM_LINES.match(text, begin.end())
            at = lines.end() if lines else begin.end()
            if at == begin.end():
                continue  # a program that looks for such keys
        yield begin.start(), at, MASK
