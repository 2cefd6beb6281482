"""The Prometheus text format 0.0.4, by hand: the library for it costs 8 MiB and 75 ms of a start.

A page knows its families beforehand; a sample of none is a KeyError, so that no metric is without its help. Label
values are escaped, whatever they hold; what is not UTF-8 is shown with ``\\xNN``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from reprod.core.redact import plain

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


@dataclass(frozen=True, slots=True)
class Family:
    """What all samples of one name have in common. A counter only grows, and its name ends with ``_total``."""

    kind: Literal["counter", "gauge"]
    help: str


class Page:
    """Samples, collected in any order and shown by family."""

    def __init__(self, families: Mapping[str, Family]) -> None:
        self._families = families
        self._lines: dict[str, list[str]] = {name: [] for name in families}

    def add(self, name: str, value: float | None, /, **labels: str) -> None:
        """Add a sample; None is what is not known, and makes none."""
        lines = self._lines[name]
        if value is not None:
            shown = ",".join(f'{key}="{plain(text).translate(_ESCAPES)}"' for key, text in labels.items())
            lines.append(f"{name}{{{shown}}} {value!r}" if shown else f"{name} {value!r}")

    def text(self) -> str:
        """Return the page; families without samples are left out."""
        blocks = []
        for name, lines in self._lines.items():
            family = self._families[name]
            if lines:
                blocks += [f"# HELP {name} {family.help}", f"# TYPE {name} {family.kind}", *lines]
        return "\n".join(blocks) + "\n"
