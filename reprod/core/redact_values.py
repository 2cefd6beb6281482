"""Owns how a value looks: like nothing, a number, a path, words, or chance.

A value is judged by its characters alone; nothing here knows a name or a format. Standard library only, no I/O.
"""

import re

#: What stands where a secret was.
MASK = "***"

#: ``(start, end, replacement)`` of a stretch of text that must not leave; offsets count characters.
Span = tuple[int, int, str]

#: Longer ones are judged by their start: a secret does not become a word after this many characters.
JUDGED = 160

_NOTHING = re.compile(
    r"""(?ix)
    (?: none | null | nil | true | false | yes | no | on | off | undefined | n/?a | required | optional | disabled
      | enabled | default | auto | missing | empty | unset | hidden | redacted | removed | invalid | expired
      | x{3,} | [*.\-_]+ | <[^<>]*>? | \[[a-z_ -]*\]? | \$\{[^{}]*\}? | (?-i:\$[A-Z_][A-Z0-9_]*) | \$\([^()]*\)?
      | \{+[\w.:! -]*\}* | %\(\w+\)s? | %[sdr] | %\w+% | \|+ | -+> | \S
    )"""
)
_NUMBER = re.compile(r"(?ix) [-+]? (?: 0x[0-9a-f]{1,10} | [0-9][0-9_,.:]* (?:e[-+]?[0-9]+)? (?:[a-z%]{0,3}) )")
_TYPES = re.compile(
    r"(?:str|int|float|bytes|bool|object|Any|SecretStr|list|dict|tuple|set|String|string|number|Optional|Union|Literal"
    r"|List|Dict|Sequence|Mapping|Iterable|Callable)(?=\W|\Z)"
)
#: What a program writes where a person writes the secret: ``os.environ["X"]``, ``getpass()``, ``args.token``.
_CODE = re.compile(
    r"(?:self|args|cls|os|env|config|cfg|opts?|options|settings|kwargs|params|request|st|secrets|conf|flags|FLAGS|hparams|"
    r"tokenizer|training_args|model_args|data_args|lambda|await|not|f)\b[.\[( ]"
    r"|(?:os\.)?(?:getenv|environ|getpass|input|load_\w+|get_\w+|read_\w+|resolve_\w+|len)\b[.\[(]"
)
_CALL = re.compile(r"[A-Za-z_][A-Za-z_0-9.]{0,80}[\[(]")
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_WORDY = re.compile(r"[A-Z]?[a-z]*[0-9]{0,4}|[A-Z]+[0-9]{0,4}|(?:[A-Z][a-z]+)+[0-9]{0,4}|[0-9]+[a-z]{0,3}")
_CHUNK = re.compile(r"[A-Za-z0-9]+")
_LOWER, _UPPER, _DIGIT = range(3)
_FILE = re.compile(
    r"(?i)[^\s]{1,255}\.(?:pem|key|json|txt|crt|cer|ya?ml|toml|env|pub|cfg|ini|conf|csv|py|sh|log|p12|jks)"
)


def is_nothing(value: str) -> bool:
    """Return whether a value stands for the absence of one, or for one that is filled in elsewhere."""
    return not value or _NOTHING.fullmatch(value[:JUDGED]) is not None


def is_number(value: str) -> bool:
    """Return whether a value is a number, a duration or a size."""
    return len(value) < 40 and _NUMBER.fullmatch(value) is not None


def is_code(value: str) -> bool:
    """Return whether a value is an expression that fetches the secret, or a type in a signature."""
    return _CODE.match(value) is not None or _TYPES.match(value) is not None


def is_call(value: str) -> bool:
    """Return whether a value begins as a call or an index does."""
    return _CALL.match(value) is not None


def is_path(value: str) -> bool:
    """Return whether a value is the path of a file, made of words."""
    value = value[:JUDGED]
    if value.startswith(("/", "~/", "./", "../")):
        return not is_random(value)
    return _FILE.fullmatch(value) is not None and not is_random(value)


def is_wordy(value: str) -> bool:
    """Return whether a value is words, perhaps with a number behind each: ``sort-by-length_v2``, ``resnet50``."""
    chunks = _CHUNK.findall(value[:JUDGED])
    return all(_WORDY.fullmatch(chunk) for chunk in chunks)


def is_random(value: str) -> bool:
    """Return whether a stretch of a value was drawn by chance: a digest, an identifier or a key.

    The kind of character (lower, upper, digit) changes 0.62 times a character in random letters and digits, 0.47 in
    hexadecimal digits, under 0.35 in words in camel case and in names of models.
    """
    return any(_is_random_chunk(chunk) for chunk in _CHUNK.findall(value[:JUDGED]) if len(chunk) >= 14)


def _is_random_chunk(chunk: str) -> bool:
    changes = len(_WORDS.findall(chunk)) - 1  # "Ab" counts as one word; good enough on both sides
    digits = sum(c.isdigit() for c in chunk)
    if digits == len(chunk):
        return False
    if digits:
        return changes >= (len(chunk) - 1) * 0.22
    return len(chunk) >= 20 and changes >= len(chunk) * 0.26
