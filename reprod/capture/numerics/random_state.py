"""Owns how the state of random number generators is told: by digests, of generators that are loaded already.

Equal digests say that two processes seeded alike and drew as many numbers. Nothing is drawn, nothing is seeded, and
CUDA's generators are left alone, because asking them starts CUDA. About 1 ms.
"""

import hashlib
import sys
from collections.abc import Iterator
from typing import Any

from reprod.core.numerics import RandomState


def read_random_state() -> RandomState:
    """Return the state of PyTorch's, numpy's and Python's global generators; None for one that is not loaded."""
    return RandomState(torch_seed=_torch_seed(), numpy_sha256=_numpy_digest(), python_sha256=_python_digest())


def _torch_seed() -> str | None:
    seed = _result("torch", "initial_seed")
    return str(seed) if type(seed) is int else None


def _numpy_digest() -> str | None:
    """Return the digest of ``numpy.random.get_state(legacy=False)``, the global generator that ``seed`` seeds."""
    state = _result("numpy.random", "get_state", legacy=False)
    return _digest(state) if isinstance(state, dict) else None


def _python_digest() -> str | None:
    state = _result("random", "getstate")
    return _digest(state) if isinstance(state, tuple) else None


def _result(module: str, name: str, **arguments: Any) -> Any:
    try:
        function = object.__getattribute__(sys.modules.get(module), "__dict__").get(name)
        return function(**arguments) if callable(function) else None
    except Exception:  # noqa: BLE001 - a stub or another version: its state is unknown, and the training goes on
        return None


def _digest(state: object) -> str:
    digest = hashlib.sha256()
    for part in _parts(state):
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    """Yield a state as text, one value a line: mappings in order of keys, arrays as type and numbers."""
    if isinstance(value, dict):
        for key in sorted(value):
            yield f"{key}:\n".encode()
            yield from _parts(value[key])
    elif hasattr(value, "tolist") and hasattr(value, "dtype"):
        yield f"{value.dtype} {value.tolist()}\n".encode()
    else:
        yield f"{value.hex() if isinstance(value, float) else value!r}\n".encode()
