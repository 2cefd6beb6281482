"""How far apart two environments are: each difference has a class, and the gravest is the verdict.

``identical`` < ``equivalent`` < ``benign`` < ``unknown`` < ``numeric`` < ``semantic``: numeric differences can change
the last digits of a result, semantic ones what is computed, benign ones neither as far as anybody knows. What is
missing where it could be grave is ``unknown``, never equal. The classes of single facts are in
``reprod.core.environment_rules``. ``identical`` is said of what went in, not of results: libraries promise those for
the same hardware and versions at most. Pure: nothing here reads a file.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from reprod.core.environment import NOT_APPLICABLE, Environment, Record
from reprod.core.environment_rules import Around, classify
from reprod.core.numerics import NumericLibrary
from reprod.core.packages import PackageSet, normalise

Class = Literal["identical", "equivalent", "benign", "unknown", "numeric", "semantic"]

ORDER: tuple[Class, ...] = ("identical", "equivalent", "benign", "unknown", "numeric", "semantic")

#: Sections that every process has: where both sides do not know one, that is no agreement.
_NEEDED = ("python", "packages", "system", "cpu", "limits", "accelerators", "git")

#: What it means that one side alone does not know a section; ``unknown`` for those above.
_MISSING: dict[str, Class] = {
    **dict.fromkeys(_NEEDED, "unknown"),
    **dict.fromkeys(("cuda", "rocm", "numerics", "random_state"), "unknown"),
    **dict.fromkeys(("conda", "container", "cloud"), "benign"),
    "memory": "equivalent",
}

#: Sections whose facts are items with facts of their own.
_ITEMS = frozenset({"packages", "gpus"})

#: A long value, as a set of CPU flags, is shown by what differs in it.
_LONGEST = 120


@dataclass(frozen=True, slots=True)
class Difference:
    """One fact that is not the same, or not known. ``fact`` is its place: ``packages.numpy``, ``cpu.flags``.

    ``left`` and ``right`` are texts, None where it is missing; ``why`` says what the class rests on, if that is not
    plain from the fact.
    """

    fact: str
    grade: Class
    left: str | None
    right: str | None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All differences, the gravest first, and the verdict."""

    verdict: Class
    differences: tuple[Difference, ...]


def compare(left: Record, right: Record) -> Comparison:
    """Return how the environment and the settings of ``right`` differ from those of ``left``."""
    around = Around(facts(left), facts(right), _used(left, right))
    missing = list(_missing_sections(left, right))
    same = left.environment.digest() == right.environment.digest()
    if same:  # what neither side knows is then not known of one environment
        missing = [each for each in missing if not hasattr(left.environment, each.fact)]
    unknown = frozenset("gpus" if each.fact == "accelerators" else each.fact for each in missing)
    found = [*missing, *_differences(around, unknown)]
    floor = ORDER.index("identical" if same else "equivalent")
    found.sort(key=lambda each: (-ORDER.index(each.grade), each.fact))
    gravest = max((ORDER.index(each.grade) for each in found), default=floor)
    return Comparison(ORDER[gravest], tuple(found))


def facts(record: Record) -> dict[str, object]:
    """Return what is known, flat: ``section.name`` or ``section.item.name`` to its value; None is left out.

    An item (a package, a GPU) has its version or name as its own value.
    """
    import msgspec

    env = record.environment
    found: dict[str, object] = {}
    for section in ("python", "system", "cpu", "limits", "memory", "cuda", "rocm", "container", "cloud", "git"):
        found |= _flat(section, msgspec.to_builtins(_section(record, section)))
    installed = env.packages or PackageSet()
    for package in installed.packages:
        if not package.shadowed:
            found |= _item(f"packages.{normalise(package.name)}", package.version, msgspec.to_builtins(package))
    for broken in installed.broken:
        if not broken.leftover:
            found[f"broken.{broken.record}"] = broken.reason
    for each in env.conda.packages if env.conda else ():
        found[f"conda.{each.name}"] = f"{each.version} {each.build}"
    for gpu in env.accelerators.gpus if env.accelerators else ():
        found |= _item(f"gpus.{gpu.index}", gpu.name or "a GPU", msgspec.to_builtins(gpu))
    found |= {f"variables.{name}": value for name, value in env.variables.items()}
    numerics = record.execution.numerics
    if numerics is not None:
        found |= _flat("numerics", {"hash_seed": numerics.hash_seed})
        found |= _flat("numerics.torch", msgspec.to_builtins(numerics.torch))
        for name, library in _numbered(numerics.libraries or ()):
            found |= _item(f"numerics.libraries.{name}", library.version or "?", msgspec.to_builtins(library))
        found |= {f"numerics.gpu_libraries.{each.name}": each.version or "?" for each in numerics.gpu_libraries or ()}
    return found | _flat("random_state", msgspec.to_builtins(record.execution.random_state))


def _numbered(libraries: Iterable[NumericLibrary]) -> Iterator[tuple[str, NumericLibrary]]:
    """Yield each library under a name of its own: a process may have loaded two of one name (numpy's and scipy's)."""
    seen: Counter[str] = Counter()
    for each in sorted(libraries, key=lambda library: (library.name, library.version or "")):
        seen[each.name] += 1
        yield each.name if seen[each.name] == 1 else f"{each.name}#{seen[each.name]}", each


def _flat(prefix: str, section: dict[str, Any] | None) -> dict[str, object]:
    """Return the fields of a section; lists of objects are what other facts tell, or prose."""
    return {
        f"{prefix}.{name}": value
        for name, value in (section or {}).items()
        if value is not None and name not in {"problems", "evidence", "reasons", "libraries", "files", "packages"}
    }


def _item(fact: str, value: str, fields: dict[str, Any]) -> dict[str, object]:
    own = {name: field for name, field in fields.items() if name not in {"name", "version", "index", "kind"}}
    return {fact: value, **_flat(fact, own)}


def _used(left: Record, right: Record) -> frozenset[str] | None:
    """Return what either side imported, if both were asked and saw everything."""
    names: set[str] = set()
    for record in (left, right):
        imports = record.execution.imports
        if imports is None or not imports.complete:
            return None
        names.update(normalise(each.name) for each in imports.distributions)
    return frozenset(names)


def _missing_sections(left: Record, right: Record) -> Iterator[Difference]:
    for section, grade in _MISSING.items():
        sides = [(side, _section(side, section) is not None) for side in (left, right)]
        reasons = [_reason(side, section) for side, known in sides if not known]
        either = any(known for _, known in sides)
        if not reasons or (not either and (section not in _NEEDED or set(reasons) <= NOT_APPLICABLE)):
            continue
        texts = ["known" if known else None for _, known in sides]
        yield Difference(section, grade, texts[0], texts[1], "; ".join(dict.fromkeys(reasons)))


def _section(record: Record, name: str) -> object:
    return getattr(record.environment if name in Environment.__slots__ else record.execution, name)


def _reason(record: Record, section: str) -> str:
    return record.environment.unknown.get(section) or record.execution.unknown.get(section) or "not recorded"


def _differences(around: Around, passed_over: frozenset[str]) -> Iterator[Difference]:
    for fact in sorted({*around.left, *around.right}):
        mine, theirs = around.left.get(fact), around.right.get(fact)
        section, *rest = fact.split(".")
        item = ".".join((section, *rest[:1]))
        if mine == theirs or section in passed_over:
            continue
        # A package or GPU that one side lacks is one difference, not one for each field.
        if section in _ITEMS and item != fact and (item not in around.left or item not in around.right):
            continue
        judged = classify(fact, mine, theirs, around)
        yield Difference(fact, judged.grade, _text(mine), _text(theirs), judged.why)


def _text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
