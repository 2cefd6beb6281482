"""Owns what Python source says it imports, by its syntax alone: scripts and notebooks, never executed.

A notebook's cells hold what is not Python (``%matplotlib inline``, ``!pip install``, ``files = !ls``, ``%%bash``): such
lines and cells are left out, and a cell that is still no Python gives the imports that stand at the beginning of its
lines. Imports that only a type checker sees do not count.
"""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from reprod.errors import DamagedError

#: Cell magics whose cell is Python all the same; the cells of all others are another language or text.
_PYTHON_CELLS = frozenset({"time", "timeit", "capture", "prun", "python", "python3", "pypy", "debug"})
_MAGIC = re.compile(r"^(\s*)(?:[%!?].*|[\w.\[\]'\", ]+=\s*[%!].*|[%\w.*]+\?\??\s*)$")
_LINE = re.compile(r"^\s*(?:import\s+(?P<modules>[\w.]+(?:\s*,\s*[\w.]+)*)|from\s+(?P<origin>[\w.]+)\s+import\s)")


@dataclass(frozen=True, slots=True)
class ImportedNames:
    """Dotted names in order of appearance. A relative import keeps its dots: ``.model``; ``problems`` say what was cut.

    ``from a.b import c`` gives ``a.b.c``: whether ``c`` is a module can only be told by the files.
    """

    names: tuple[str, ...]
    problems: tuple[str, ...] = ()


def names_in_script(source: str) -> ImportedNames:
    """Return what a script imports; where its syntax is not this Python's, what its lines begin with."""
    names, problem = _names(source)
    return ImportedNames(tuple(dict.fromkeys(names)), (problem,) if problem else ())


def names_in_notebook(text: str) -> ImportedNames:
    """Return what the code cells of a notebook (``.ipynb``) import; DamagedError if it is no Python notebook."""
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedError("the notebook is not JSON", hint="open it in Jupyter and save it again") from error
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise DamagedError("the notebook has no list of cells", hint="convert it to notebook format 4")
    language = _language(notebook)
    if language not in {None, "python", "ipython"}:
        raise DamagedError(f"the notebook is written in {language}, not in Python", hint="only Python is read")
    names: dict[str, None] = {}
    problems = []
    for number, cell in enumerate(cells, 1):
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            continue
        lines = cell.get("source", "")
        source = "".join(part for part in lines if isinstance(part, str)) if isinstance(lines, list) else str(lines)
        found, problem = _names(_without_magics(source))
        names.update(dict.fromkeys(found))
        if problem:
            problems.append(f"cell {number}: {problem}")
    return ImportedNames(tuple(names), tuple(problems))


def _language(notebook: dict[str, object]) -> str | None:
    metadata = notebook.get("metadata")
    for section, key in (("kernelspec", "language"), ("language_info", "name")):
        value = metadata.get(section) if isinstance(metadata, dict) else None
        language = value.get(key) if isinstance(value, dict) else None
        if isinstance(language, str):
            return language.lower()
    return None


def _without_magics(source: str) -> str:
    """Return the Python of a cell; a line that is not becomes ``pass``, so that its block is not empty."""
    lines = source.splitlines()
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    if lines and lines[first].lstrip().startswith("%%"):
        words = lines[first].strip()[2:].split()
        if not words or words[0] not in _PYTHON_CELLS:
            return ""
        lines[first] = ""
    if _parses("\n".join(lines)):
        return "\n".join(lines)
    return "\n".join(_MAGIC.sub(r"\1pass", line) for line in lines)


def _parses(source: str) -> bool:
    try:
        _parse(source)
    except ValueError:
        return False
    return True


def _parse(source: str) -> ast.Module:
    """Return the syntax tree; raises ValueError with the reason."""
    import warnings

    try:
        with warnings.catch_warnings():
            # An invalid escape in the user's source is no matter of whoever reads it.
            warnings.simplefilter("ignore")
            return ast.parse(source, type_comments=False)
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno} is not valid for this Python") from None
    except (RecursionError, MemoryError):
        raise ValueError("nested too deeply") from None


def _names(source: str) -> tuple[list[str], str | None]:
    try:
        return list(_walk(_parse(source))), None
    except ValueError as error:
        lines = (_LINE.match(line) for line in source.splitlines())
        found = [name for match in lines if match for name in re.split(r"\s*,\s*", match["modules"] or match["origin"])]
        return found, f"{error}; only lines that begin with an import were looked at"


def _walk(tree: ast.AST) -> Iterator[str]:
    """Yield imported names; by a stack, because deep source would exhaust the recursion limit."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            separator = "." if node.module else ""
            yield from (origin if alias.name == "*" else f"{origin}{separator}{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and (name := _called(node)) is not None:
            yield name
        if isinstance(node, ast.If) and _only_for_types(node.test):
            pending.extend(reversed(node.orelse))
        else:
            pending.extend(reversed(list(ast.iter_child_nodes(node))))


def _called(node: ast.Call) -> str | None:
    """Return the module of ``importlib.import_module("x")`` and ``__import__("x")`` where it is written out."""
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
    if name not in {"import_module", "__import__"} or not node.args:
        return None
    value = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
    return value if isinstance(value, str) and re.fullmatch(r"[^\W\d][\w.]*", value) else None


def _only_for_types(test: ast.expr) -> bool:
    return (test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)) == "TYPE_CHECKING"
