r"""Gitignore lines as regular expressions that take time in proportion to a path's length, whatever was written.

A regular expression that is made of a pattern word by word tries every place for every star: three stars take half a
second for one name, ten take for ever. That is never needed. Between two stars stand a fixed number of characters, and
the first place where they fit leaves the most to what follows, so no other one has to be tried: atomic groups say so.
What follows the last star is compared with the end of the component alone. Folders between ``**`` are found likewise,
but for the last of them: it is tried from the deepest folder upwards, because a match at the end of a path counts for
more than one of a folder above it.

Lines and paths are text in which each character is one byte (Latin-1). A directory ends with ``/``. As in git
neither a wildcard nor a class ever matches ``/``, and only ASCII white space is cut off a line.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_BLANKS = " \t\n\r\f\v"

#: The only group in an expression: it matched if not the path itself fits the pattern, but a folder above it.
_FOLDER = "(?P<folder>/)"
_END = rf"(?:{_FOLDER}|\Z)"

_POSIX = re.compile(r"\[:([a-z]+):\]")
_POSIX_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": " \t",
    "digit": "0-9",
    "lower": "a-z",
    "space": " \t\n\r\f\v",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}


@dataclass(frozen=True, slots=True)
class Patterns:
    """Compiled lines, the last one first: ``(expression, whether it takes what it matches)``."""

    rules: tuple[tuple[re.Pattern[str], bool], ...]

    def match(self, path: str) -> bool:
        """Whether the lines match a path: the last one that fits it, else the last one that fits a folder above it."""
        above: bool | None = None
        for expression, takes in self.rules:
            found = expression.match(path)
            if found is None:
                continue
            if found.lastgroup is None:
                return takes
            if above is None:
                above = takes
        return bool(above)


def compile_lines(lines: Iterable[str]) -> Patterns:
    """Compile lines; comments and empty ones mean nothing. :raises ValueError: a line is no pattern; it is the text."""
    rules = []
    for line in lines:
        try:
            rule = _rule(line)
        except (_BadPattern, re.error):
            raise ValueError(line) from None
        if rule is not None:
            rules.append(rule)
    return Patterns(tuple(reversed(rules)))


class _BadPattern(Exception):  # noqa: N818 - never leaves this module
    """A range from a larger character to a smaller one, a backslash at the end, ``!`` alone."""


def _rule(line: str) -> tuple[re.Pattern[str], bool] | None:
    """Compile one line; None for one that means nothing."""
    pattern = _trimmed(line)
    if pattern in {"", "/"} or pattern.startswith("#"):
        return None
    takes = not pattern.startswith("!")
    expression = _expression(_with_posix_classes(pattern if takes else pattern[1:]))
    return None if expression is None else (re.compile(expression, re.DOTALL), takes)


def _trimmed(line: str) -> str:
    """Cut blanks off the end, but for one that is escaped."""
    cut = line.rstrip(_BLANKS)
    escaped = (len(cut) - len(cut.rstrip("\\"))) % 2
    return line[: len(cut) + escaped]


def _with_posix_classes(pattern: str) -> str:
    """Write out the classes that git knows: ``[[:digit:]]`` is ``[0-9]``."""
    return _POSIX.sub(lambda found: _POSIX_CLASSES.get(found[1], found[0]), pattern) if "[:" in pattern else pattern


# --- folders ---------------------------------------------------------------------------------------------------------


def _expression(pattern: str) -> str | None:
    """Return the expression of a pattern for ``re.match``; None where a bracket is never closed, which fits nothing."""
    parts = pattern.split("/")
    of_folder = not parts[-1]
    parts = _normalised(parts)
    if parts == ["**"] or parts == ["**", "*"]:
        return f"[^/]*{_FOLDER}" if of_folder and len(parts) == 1 else ""
    if parts == ["**", "*", "**"]:
        return f"[^/]*{_FOLDER}" if of_folder else "[^/]*/"
    end = _END
    if parts[-1] == "**":
        end = _FOLDER if of_folder else "/"
        del parts[-1]
    anywhere = parts[0] == "**"
    runs: list[list[str]] = [[]]
    for part in parts[anywhere:]:
        if part == "**":
            runs.append([])
            continue
        atoms = _atoms(part)
        if atoms is None:
            return None
        runs[-1].append(_component(atoms))
    return _expression_of_runs(runs, anywhere=anywhere) + end


def _normalised(parts: list[str]) -> list[str]:
    """Return the components of a pattern: it begins with ``**`` if it fits at any depth, ends so for all below."""
    if not parts[0]:
        parts = parts[1:]
    elif len(parts) == 1 or (len(parts) == 2 and not parts[1]):
        parts = ["**", *parts]
    if not parts:
        raise _BadPattern
    parts = [*parts[:-1], parts[-1] or "**"]
    return [part for i, part in enumerate(parts) if not (part == "**" and i and parts[i - 1] == "**")]


def _expression_of_runs(runs: list[list[str]], *, anywhere: bool) -> str:
    """Put runs of components together: each but the last as far up as it fits, and never again.

    :param anywhere: whether the first one may begin at any depth, else it stands at the root.
    """
    *middle, last = ["/".join(run) for run in runs]
    expression = ""
    for number, run in enumerate(middle):
        between = "(?:/[^/]++)*?/" if number else "(?:[^/]++/)*?" if anywhere else ""
        expression += f"(?>{between}{run}(?=/))"
    return expression + ("(?:/.+)?/" if middle else "(?:.+/)?" if anywhere else "") + last


# --- one component ---------------------------------------------------------------------------------------------------

_STAR = "*"


def _component(atoms: list[str]) -> str:
    """Return the expression of a component: stars, and between them expressions of one character each.

    What comes after it is ``/`` or the end.
    """
    if _STAR not in atoms:
        return "".join(atoms)
    if atoms == [_STAR]:
        return "[^/]++"
    first = atoms.index(_STAR)
    last = len(atoms) - atoms[::-1].index(_STAR)
    found = "".join(atoms[:first])
    for piece in _pieces(atoms[first:last]):
        found += f"(?>[^/]*?{piece})"
    tail = "".join(atoms[last:])
    if not tail:
        return found + "[^/]*+"
    return found + f"(?=[^/]{{{len(atoms) - last}}})[^/]*+(?<={tail})"


def _pieces(atoms: list[str]) -> Iterator[str]:
    """Yield what stands between stars."""
    piece = ""
    for atom in atoms:
        if atom != _STAR:
            piece += atom
        elif piece:
            yield piece
            piece = ""


def _atoms(component: str) -> list[str] | None:
    """Return ``_STAR`` for each star and an expression for any other character; None for a bracket without an end."""
    atoms: list[str] = []
    at = 0
    while at < len(component):
        character = component[at]
        at += 1
        if character == "\\":
            if at == len(component):
                raise _BadPattern
            atoms.append(re.escape(component[at]))
            at += 1
        elif character == "[":
            closed = component.find("]", at + 1 + (component[at : at + 1] in {"!", "^"}))
            if closed < 0:
                return None
            atoms.append(_class(component[at:closed]))
            at = closed + 1
        else:
            atoms.append(_STAR if character == "*" else "[^/]" if character == "?" else re.escape(character))
    return atoms


def _class(content: str) -> str:
    """Return the expression of what stands in brackets: characters and ranges, after ``!`` or ``^`` all but these."""
    inverted = content[0] in {"!", "^"}
    at = int(inverted)
    found = ""
    while at < len(content):
        if at + 2 < len(content) and content[at + 1] == "-":
            if content[at] > content[at + 2]:
                raise _BadPattern
            found += f"{re.escape(content[at])}-{re.escape(content[at + 2])}"
            at += 3
        else:
            found += re.escape(content[at])
            at += 1
    return f"[^/{found}]" if inverted else f"(?!/)[{found}]"
