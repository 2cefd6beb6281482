"""When a run ended, which of several verdicts counts, and ``drift.json`` there and back."""

import copy
import json
from typing import Any

import pytest

from reprod.core.drift import DatasetDrift, Drift, DriftedPath, Verdict
from reprod.core.drift_document import from_document, to_document
from reprod.core.drift_rule import Ending, ending

SECOND = 1_000_000_000
AT = 1_795_000_000 * SECOND


@pytest.mark.parametrize(
    ("running", "seen", "said", "expected"),
    [
        (100, 200, 150, Ending(145, 155)),  # its own word, by a clock that may be off
        (148, 152, 150, Ending(148, 152)),  # what was seen here is surer
        (100, 200, None, Ending(100, 200)),  # its process is gone
        (100, 200, 90, Ending(100, 200)),  # of before it was resumed
        (100, 200, 300, Ending(100, 200)),  # of another clock
        (100, 90, None, Ending(90, 90)),  # the clock was set back
    ],
)
def test_when_a_run_ended(running: int, seen: int, said: int | None, expected: Ending) -> None:
    """The end that a run says of itself counts only if it can be the end of what was seen."""
    assert ending(running, seen, said, 5) == expected


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (("none", "none"), "none"),
        (("none", "appended"), "appended"),
        (("appended", "unknown"), "unknown"),
        (("unknown", "changed", "none"), "changed"),
        ((), "unknown"),
    ],
)
def test_the_weakest_verdict_is_that_of_the_run(verdicts: tuple[Verdict, ...], expected: Verdict) -> None:
    """What changed is said even where something else is unknown."""
    datasets = tuple(DatasetDrift(str(i), verdict, "why") for i, verdict in enumerate(verdicts))
    assert Drift("r", 1, 2, 3, datasets).verdict == expected


DRIFT = Drift(
    "run",
    AT,
    AT + SECOND,
    AT + 2 * SECOND,
    (
        DatasetDrift(
            "data/sub",
            "changed",
            "why",
            3,
            5,
            {"modified": 1, "added": 12_000},
            (DriftedPath("a\n\\xff<b>", "modified", AT + 5_000, 4, "YQr/PGI+"), DriftedPath("c", "added", AT)),
        ),
    ),
    "FINISHED",
)


def test_the_document_says_all_that_is_known() -> None:
    """What was written is read back; JSON readers of all kinds take it, and what is left out is counted."""
    text = json.dumps(to_document(DRIFT))
    assert text.isascii()
    assert from_document(json.loads(text)) == DRIFT
    assert json.loads(text)["datasets"][0]["paths_left_out"] == 11_999


def broken() -> list[Any]:
    """Documents that are none: a value of another type or meaning in each place."""
    found: list[Any] = [None, [], "", {}, {"schema": "reprod.drift/2"}]
    whole = to_document(DRIFT)
    for key in ("run_id", "started_at", "ended_at", "judged_at", "datasets"):
        found += [{**whole, key: value} for value in (None, 5, [5], {"a": 1})]
    found += [{**whole, "started_at": "x"}, {**whole, "datasets": "x"}, {**whole, "ended": 5}]
    for key in ("name", "verdict", "reason", "from_version", "counts", "paths"):
        other = copy.deepcopy(whole)
        other["datasets"][0][key] = 1.5
        found.append(other)
    for key in ("path", "what", "at", "version", "path_b64"):
        other = copy.deepcopy(whole)
        other["datasets"][0]["paths"][0][key] = ["x"]
        found.append(other)
    return found


@pytest.mark.parametrize("document", broken())
def test_anything_else_is_no_drift(document: Any) -> None:
    """A file that somebody else put there is not believed, and raises nothing."""
    assert from_document(document) is None
