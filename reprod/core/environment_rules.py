"""What each fact of an environment may do to a result: the table behind ``reprod.core.environment_diff``.

``numeric``: other instructions, libraries or thread counts add the same numbers in another order (numpy issue 23523,
PyTorch issues 155423 and 155552; cuBLAS promises equal bits for the same toolkit, architecture and number of SMs only).
``semantic``: other code, another version of what was used, another seed. A fact that no rule names counts as numeric:
a new one must not pass for harmless before somebody thought about it. Pure.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Grade = Literal["equivalent", "benign", "unknown", "numeric", "semantic"]

#: A count of threads that is set in one of these does not follow the number of CPUs.
_PINS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

#: Where things lie on a disk and what an environment is called: never part of a result by itself.
_PLACES = (
    r"VIRTUAL_ENV|CONDA_PREFIX|CONDA_DEFAULT_ENV|HF_HOME|TORCH_HOME|TOKENIZERS_PARALLELISM|MASTER_PORT|\w+_CACHE\w*"
)
_NUMERIC = (
    r"(OMP|KMP|MKL|OPENBLAS|GOTO|BLIS|NUMEXPR|VECLIB|NPY|CUDA|CUBLAS|CUDNN|NVIDIA|NCCL|TF|XLA|JAX|ATEN)_\w+"
    r"|LD_PRELOAD|LD_LIBRARY_PATH"
)


@dataclass(frozen=True, slots=True)
class Judged:
    """The class of one difference, and what it rests on if that is not plain from the fact."""

    grade: Grade
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Around:
    """What else has to be known to judge a fact: all facts of both sides, and the distributions that were used.

    ``used`` holds normalised names; None: not known, each counts as used.
    """

    left: dict[str, object]
    right: dict[str, object]
    used: frozenset[str] | None

    def is_used(self, name: str) -> bool:
        """Return whether either side used a distribution, as far as is known."""
        return self.used is None or name in self.used

    def agree(self, prefix: str) -> bool:
        """Return whether both sides have the same known facts below ``prefix``."""
        mine, theirs = (
            {fact: value for fact, value in side.items() if fact.startswith(prefix)} for side in (self.left, self.right)
        )
        return bool(mine) and mine == theirs

    def is_pinned(self) -> bool:
        """Return whether the number of threads is set, alike, and so does not follow the number of CPUs."""
        names = [f"variables.{name}" for name in _PINS]
        return any(name in self.left and self.left[name] == self.right.get(name) for name in names)


Rule = Callable[[str, object, object, Around], Judged]


def classify(fact: str, left: object, right: object, around: Around) -> Judged:
    """Return what it means that ``fact`` is ``left`` on one side and ``right`` on the other; None is "not known".

    Only what could be grave is ``unknown`` for being missing.
    """
    rule = next((found for pattern, found in _RULES if pattern.fullmatch(fact)), None)
    judged = rule(fact, left, right, around) if callable(rule) else Judged(rule or "numeric")
    missing = left is None or right is None
    if missing and judged.grade in {"numeric", "semantic"} and not _is_absence(fact):
        return Judged("unknown", judged.why or "missing on one side")
    return judged


def _is_absence(fact: str) -> bool:
    """Return whether None says "there is none": packages and variables are listed whole, so one that is missing is."""
    return bool(re.fullmatch(r"(packages|conda|gpus)\.[^.]+|variables\..+|(cuda|rocm)\..+|git\.withheld", fact))


def _python_version(_fact: str, left: object, right: object, around: Around) -> Judged:
    minors = {".".join(str(version).split(".")[:2]) for version in (left, right)}
    if len(minors) > 1:
        return Judged("semantic", "another minor version")
    if around.agree("packages."):
        return Judged("benign", "a patch release, with the same packages")
    return Judged("numeric", "a patch release, and the packages differ too")


def _version(fact: str, left: object, right: object, around: Around) -> Judged:
    name = fact.split(".")[1]
    if left is not None and right is not None and _is_same_version(str(left), str(right)):
        return Judged("equivalent", "two spellings of one version")
    return _installed(name, around)


def _content(fact: str, left: object, right: object, around: Around) -> Judged:
    """The installed files: of another version they are others anyway, which the version says already."""
    name = fact.split(".")[1]
    version = f"packages.{name}"
    if around.left.get(version) != around.right.get(version):
        return Judged("equivalent", "follows from the version")
    if fact.endswith(".edited") and not left and not right:
        return Judged("equivalent", "only one side was read again, and nothing was edited")
    judged = _installed(name, around)
    if judged.grade == "benign" or left is None or right is None:
        return judged
    return Judged(judged.grade, "the same version with other content")


def _installed(name: str, around: Around) -> Judged:
    if not around.is_used(name):
        return Judged("benign", "neither side imported it")
    return Judged("semantic", None if around.used is not None else "whether it was imported is not known")


def _flags(_fact: str, left: object, right: object, _around: Around) -> Judged:
    mine, theirs = (set(side) if isinstance(side, list | tuple) else set() for side in (left, right))
    changes = [f"-{name}" for name in sorted(mine - theirs)] + [f"+{name}" for name in sorted(theirs - mine)]
    shown = " ".join(changes[:12]) + (f" and {len(changes) - 12} more" if len(changes) > 12 else "")
    return Judged("numeric", shown or None)


def _cpu_model(_fact: str, _left: object, _right: object, around: Around) -> Judged:
    if around.agree("cpu.flags") and around.agree("cpu.vendor"):
        return Judged("benign", "the same vendor and instructions")
    return Judged("numeric")


def _cpu_count(_fact: str, _left: object, _right: object, around: Around) -> Judged:
    if around.is_pinned():
        return Judged("benign", "the number of threads is set, and the same")
    return Judged("numeric", "threads follow the number of CPUs unless OMP_NUM_THREADS is set")


def _driver(_fact: str, left: object, right: object, _around: Around) -> Judged:
    majors = {str(version).split(".")[0] for version in (left, right)}
    return Judged("numeric" if len(majors) > 1 else "benign", "another major version" if len(majors) > 1 else None)


def _library(_fact: str, left: object, right: object, _around: Around) -> Judged:
    minors = {".".join(str(version).split(".")[:2]) for version in (left, right)}
    return Judged("numeric" if len(minors) > 1 else "benign")


def _gpu(_fact: str, left: object, right: object, _around: Around) -> Judged:
    return Judged("semantic") if left is None or right is None else Judged("numeric", "another model")


def _capability(_fact: str, left: object, right: object, _around: Around) -> Judged:
    majors = {str(value).split(".")[0] for value in (left, right)}
    return Judged("semantic", "another architecture") if len(majors) > 1 else Judged("numeric")


def _code(fact: str, _left: object, _right: object, around: Around) -> Judged:
    """Commit and branch say nothing where the trees are known: equal trees are equal code."""
    if around.left.get("git.tree") is None or around.right.get("git.tree") is None:
        return Judged("semantic" if fact == "git.commit" else "equivalent")
    return Judged("equivalent", "the tree tells the code")


def _is_same_version(left: str, right: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(left) == Version(right)
    except InvalidVersion:
        return left == right


def _table(*rows: tuple[str, Grade | Rule]) -> tuple[tuple[re.Pattern[str], Grade | Rule], ...]:
    return tuple((re.compile(pattern), rule) for pattern, rule in rows)


#: The first pattern that matches the whole fact decides.
_RULES = _table(
    (r"python\.version", _python_version),
    (r"python\.(implementation|free_threaded|gil)", "semantic"),
    (r"python\.(prefix|base_prefix|executable)", "equivalent"),
    (r"python\..+", "benign"),
    (r"packages\.[^.]+", _version),
    (r"packages\.[^.]+\.(record_sha256|commit|edited)", _content),
    (r"packages\.[^.]+\..+", "equivalent"),
    (r"broken\..+", "unknown"),
    (r"conda\..+", "numeric"),
    (r"system\.(libc|libc_version|libc_tunables|machine)", "numeric"),
    (r"system\.system", "semantic"),
    (r"system\..+", "benign"),
    (r"cpu\.flags", _flags),
    (r"cpu\.(isa_level|vendor)", "numeric"),
    (r"cpu\.model", _cpu_model),
    (r"cpu\.(threads|cores|sockets)", "equivalent"),
    (r"cpu\..+", "equivalent"),
    (r"limits\.(cpu_effective)", _cpu_count),
    (r"limits\..+", "equivalent"),
    (r"memory\..+", "equivalent"),
    (r"gpus\.\d+", _gpu),
    (r"gpus\.\d+\.vendor", "semantic"),
    (r"gpus\.\d+\.capability", _capability),
    (r"gpus\.\d+\.(multiprocessors|mig|ecc)", "numeric"),
    (r"gpus\.\d+\.driver", _driver),
    (r"gpus\.\d+\..+", "equivalent"),
    (r"(cuda|rocm)\.(driver_max|driver)", _driver),
    (r"(cuda|rocm)\.(runtime|cudnn|nccl|cublas)", _library),
    (r"(cuda|rocm)\.toolkit", "benign"),
    (r"container\..+", "benign"),
    (r"cloud\..+", "benign"),
    (r"git\.tree", "semantic"),
    (r"git\.withheld", "unknown"),
    (r"git\.(commit|dirty)", _code),
    (r"git\..+", "equivalent"),
    (rf"variables\.({_PLACES})", "equivalent"),
    (r"variables\.PYTHONHASHSEED", "semantic"),
    (rf"variables\.({_NUMERIC})", "numeric"),
    (r"variables\..+", "semantic"),
    (r"numerics\.hash_seed", "semantic"),
    (r"numerics\.libraries\.[^.]+\.(path|build)", "equivalent"),
    (r"numerics\..+", "numeric"),
    (r"random_state\.torch_seed", "semantic"),
    # Seeded at random unless a program does it, and moved on by each draw: only equal states say something.
    (r"random_state\..+", "equivalent"),
)
