"""Owns which names say that their value is a secret, and where in a text a name and its value stand.

A name is judged by its words, the last one first: a password is secret whatever it looks like; a token unless it is one
of a language model's (``pad_token``) or a word; a key only if it looks drawn by chance. Offsets are characters. Every
repeat is bounded or stands last, so that the time grows with the text and not faster.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from reprod.core.redact_values import (
    JUDGED,
    MASK,
    Span,
    is_call,
    is_code,
    is_nothing,
    is_number,
    is_path,
    is_random,
    is_wordy,
)

#: How surely a name is secret; 0: it is not.
HARD, TOKEN, SOFT, KEY = 4, 3, 2, 1


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_HARD_ENDS: tuple[str, ...] = (
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "credential",
    "privatekey",
    "secretkey",
)
_HARD_ENDS += ("apikey", "accesskey", "authkey", "sharedkey", "accountkey", "masterkey", "signingkey", "encryptionkey")
#: ``x key`` is hard for these x.
_KEYS = _words(
    "api access private account secret encryption signing master storage shared subscription service auth license "
    "deploy admin app application session sas wandb openai anthropic hf client kaggle comet neptune ssh gpg vault"
)
#: ``x key`` says nothing for these x, nor does ``x token`` for the second set: data structures and language models.
_PLAIN_KEYS = _words(
    "cache sort primary foreign partition group label image text data dataset json object s3 file row dict state map "
    "index hash dedup idempotency public pub lookup search metric query value attn attention num head config param "
    "experiment override registry target input output field column feature batch sample node run version"
)
_PLAIN_TOKENS = _words(
    "pad eos bos cls sep unk mask special image start end stop decoder encoder prompt trigger placeholder initializer "
    "instance class next last first prev previous begin sos im think eot eod tool continuation new max min num per "
    "forced text audio video box prefix suffix separator word sub sample vocab memory register added extra eom eoh "
    "current each input output generated register concept modifier speaker"
)
#: Words behind the one that counts, which do not change what it is.
_TRAILING = _words("value string str text plain raw b64 base64 base default override prod dev staging test env")
_SOFTS = _words("auth pat pass sig signature sas pw psk cookie dsn hmac jwt bearer authorization")
#: Behind these the name speaks of the secret and does not hold it.
_ABOUT = _words(
    "file path dir directory name names env var variable field len length type url uri ttl policy manager store ref "
    "size dim dims count num format version prompt stdin column col prefix suffix algorithm alg expiry expires timeout "
    "mode required hint index idx ids helper provider kind method class scope"
)


def tier(name: str) -> int:
    """Return how surely ``name`` is that of a secret: HARD, TOKEN, SOFT, KEY or 0."""
    words = [word.lower() for word in _WORD.findall(name)]
    while len(words) > 1 and (words[-1] in _TRAILING or words[-1].isdigit()):
        words.pop()
    if not words or name == "PWD":  # the working directory
        return 0
    last = words[-1][:-1] if words[-1].endswith("s") and not words[-1].endswith("ss") else words[-1]
    before = words[-2] if len(words) > 1 else ""
    if words[-1] in _ABOUT:
        return 0
    found = _tier_of(last, before, plural=last != words[-1])
    if found or not any(_tier_of(word, first, plural=False) >= TOKEN for first, word in pairwise(["", *words])):
        return found
    # "API_KEY_OF_TEAM_2" and "access_key_id": the word is there, but something follows that may change what it says.
    return HARD if last == "id" and words[-3:-1] == ["access", "key"] else KEY


def _tier_of(word: str, before: str, *, plural: bool) -> int:
    if word.endswith(_HARD_ENDS) or (word == "pwd" and before != "old"):
        return HARD
    if word == "key":
        return HARD if before in _KEYS else 0 if before in _PLAIN_KEYS else KEY
    if word.endswith("token"):
        return 0 if before in _PLAIN_TOKENS else SOFT if plural else TOKEN
    return SOFT if word in _SOFTS else 0


def is_secret(name: str, value: str) -> bool:
    """Return whether ``name`` says that ``value`` is a secret: surely, or maybe and the value looks like one."""
    return _holds(tier(name), value)


def _holds(level: int, value: str) -> bool:
    """Return whether a value of a name of this ``tier`` is a secret."""
    if not level or is_nothing(value):
        return False
    if level == HARD:
        return not is_path(value)
    if is_number(value) or is_path(value):
        return False
    if level == KEY:
        return is_random(value)
    if level == SOFT:
        return len(value) >= 8 and (is_random(value) or not is_wordy(value))
    return len(value) >= 4 and not (is_wordy(value) and (len(value) <= 8 or re.search(r"[._-]", value) is not None))


_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*+")
#: What every secret name has in it, in lower case.
_ANCHORS = "pass secret credential token key auth pwd jwt sig pat sas psk pw hmac".split(" ")  # noqa: SIM905 - one line
#: Between a name and its value: an assignment in some language, a list of arguments, an element, a variable of a pod.
_GAP = r"""(?P<gap>
      \\{0,3}["'`]?\]?[ \t]{0,20}(?::=|=>|={1,3}|:(?!:))[ \t]{0,20}
    | ["']?\s{0,40},?\s{0,40}["']?value["']?\s{0,8}[:=][ \t]{0,8}
    | (?P<loose>[ \t]{1,20}(?:(?:is|was)[ \t])?
      |\\{0,3}["'][ \t]{0,4},?[ \t\n]{0,40}(?=\\{0,3}["'])|[ \t]{0,8}\n[ \t]{0,40}-[ \t]{1,4})
    | %3[ad]|\((?=["'])|>|[ \t]{0,8}\|[ \t]{0,8}
)"""
#: One expression for what follows every anchor: compiling one for each would take 40 ms of every start.
_REST = re.compile(r"[a-z0-9_.\-]{0,64}+" + _GAP + r"(?P<open>[brfu]{0,2}\\{0,3}[\"'`])?", re.VERBOSE)
_NAME = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
MAX_NAME = 80
#: An unquoted value ends here; the cut is looked for in its first characters only.
_END = re.compile(r"[\s\"'`<>]")
_CUT = re.compile(
    r";|&(?=[\w.%\-]{1,64}=)|,(?=[\w.\-]{1,64}[=:]|[\"'\[{]|\Z)|\\[rnt](?=[\"'\\]|[A-Z]|\Z)|\\(?=\Z)|%26(?=\w{1,64}%3[dD])"
)
CUT_WITHIN = 300


def name_spans(text: str, lowered: str) -> Iterator[Span]:
    """Yield the values of secret names in ``text``; ``lowered`` is the same text, character by character."""
    ends = _Ends(text)
    for word in _ANCHORS:
        at = lowered.find(word)
        while at >= 0:
            match = _REST.match(lowered, at + len(word))
            span = _judge(text, at, match, ends) if match else None
            if span is not None:
                yield span
            at = lowered.find(word, span[1] if span else at + len(word))


class _Ends:
    """Finds where unquoted values end; remembers the last, since a long run is asked about again and again."""

    def __init__(self, text: str) -> None:
        self._text, self._from, self._end = text, 0, -1

    def of(self, start: int) -> int:
        if not self._from <= start <= self._end:
            found = _END.search(self._text, start)
            self._from, self._end = start, found.start() if found else len(self._text)
        return self._end


def _judge(text: str, at: int, match: re.Match[str], ends: _Ends) -> Span | None:
    """Return the value of the name around ``at`` if it is a secret; ``match`` is what stands behind its anchor."""
    head = text[max(0, at - MAX_NAME) : at]
    begin = at - (len(head) - len(head.rstrip(_NAME)))
    name = text[begin : match.start("gap")]
    level = tier(name)
    if not level:
        return None
    gap, before = match.group("gap"), text[begin - 1 : begin]
    if gap == ">" and before != "<":
        return None
    start = match.end()
    end = _quoted_end(text, start, match.group("open"), ends)
    value = text[start : min(end, start + JUDGED)]
    if not match.group("open") and _is_expression(value, name, level):
        return None
    if "|" in gap or match.group("loose") is not None:
        is_option = name.startswith("-") and "|" not in gap
        if not (_follows_option(value, level) if is_option else _stands_alone(value, level, name)):
            return None
    elif before and before in "?&#;" and level == KEY and not is_nothing(value) and not is_wordy(value):
        level = HARD
    return (start, end, MASK) if value and _holds(level, value) else None


def _quoted_end(text: str, start: int, opening: str | None, ends: _Ends) -> int:
    """Return where the value ends: at the quote that opened it if that is on the same line, else with its word."""
    if opening:
        quote = opening[-1]
        line = text.find("\n", start, start + 65536)
        end = text.find(quote, start, line if line >= 0 else start + 65536)
        while end > start and opening.count("\\") == 0 and text[end - 1] == "\\" and text[end - 2] != "\\":
            end = text.find(quote, end + 1, line if line >= 0 else start + 65536)
        if end >= 0:
            slashes = len(text[start:end]) - len(text[start:end].rstrip("\\"))
            return end - min(slashes, opening.count("\\"))
    end = ends.of(start)
    cut = _CUT.search(text, start, min(end, start + CUT_WITHIN))
    if cut and not (cut.end() == start + CUT_WITHIN < end and cut.group() in {",", "\\"}):
        end = cut.start()
    tail = text[max(start, end - 64) : end]
    return end - len(tail) + len(tail.rstrip(")]},;:."))


def _is_expression(value: str, name: str, level: int) -> bool:
    """Return whether an unquoted value is a program's: ``api_key``, ``store.auth_key)``, ``get_secret(name``."""
    if is_code(value) or (level < HARD and is_call(value)):
        return True
    word = _IDENTIFIER.match(value)
    if word is None:
        return False
    found, rest = word.group(), value[word.end() :]
    if rest.startswith("("):
        return len(found) > 3 and is_wordy(found)
    if rest.strip(")]},;:."):
        return False
    ends_secret = tier(found) >= TOKEN and re.search("[._]", found) is not None
    return is_wordy(found) and (ends_secret or found == name.rpartition(".")[2])


def _follows_option(value: str, level: int) -> bool:
    return not value.startswith("--") and re.fullmatch(r"-[A-Za-z]", value) is None and level > 0


def _stands_alone(value: str, level: int, name: str) -> bool:
    """Return whether a word behind a secret word, with nothing but a blank between, is its value and not prose."""
    if name.isupper() and level >= (SOFT if "_" in name else HARD):  # ENV NAME value
        return len(value) >= 8 and not is_wordy(value) and not is_path(value)
    if name == "password" and level == HARD and len(value) >= 6 and not is_wordy(value):  # a line of .netrc
        return True
    return level >= TOKEN and is_random(value)
