"""The page of metrics as text, and the numbers that only grow: what no daemon is needed to see."""

import json
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import get_args

import anyio
import pytest
from prometheus_client.parser import text_string_to_metric_families

from reprod.core.redact import plain
from reprod.daemon.counters import Counters, DatasetCounts
from reprod.daemon.exposition import Family, Page
from reprod.daemon.metrics import FAMILIES, STATES
from reprod.daemon.pulse import Pulse
from reprod.daemon.work import State
from reprod.ops.findings import Counts
from reprod.ops.refresh import Report
from reprod.store.versions import Version

DOCS = Path(__file__).parents[2] / "docs"
SOME = {"a_total": Family("counter", "Of something."), "b_bytes": Family("gauge", "Of something else.")}


def report(counts: Counts, *, full: bool = True, sealed: bool = True, unannounced: int = 0) -> Report:
    version = Version(
        **dict.fromkeys(Version.__dataclass_fields__, 0) | {"digest": None}  # what is counted does not look at it
    )
    return Report(version, sealed, False, full, 0, counts, (), unannounced, 0.5, "ext4")


def test_whatever_a_label_holds_is_one_label() -> None:
    """Quotes, backslashes, line breaks, what looks like a sample, and bytes that are no UTF-8 come back as given."""
    odd = ['say "x"', "back\\slash", "two\nlines", 'x"} 1\nb_bytes{a="', "\udcff", "\u2028 \r \x1b[2J", "", "ü", "\\n"]
    page = Page(SOME)
    for number, text in enumerate(odd):
        page.add("a_total", number, name=text)
    page.text().encode("utf-8")
    (family,) = text_string_to_metric_families(page.text())
    assert [(s.labels["name"], s.value) for s in family.samples] == [(plain(t), n) for n, t in enumerate(odd)]


def test_a_sample_has_a_family_and_what_is_not_known_has_none() -> None:
    """A name without help is refused, None makes no sample, a family without one does not appear; values are exact."""
    page = Page(SOME)
    page.add("b_bytes", None, name="x")
    assert page.text() == "\n"
    with pytest.raises(KeyError):
        page.add("c", 1)
    page.add("b_bytes", 2**62 + 1)
    page.add("b_bytes", 0.1, name="x")
    assert page.text().splitlines() == [
        "# HELP b_bytes Of something else.",
        "# TYPE b_bytes gauge",
        "b_bytes 4611686018427387905",
        'b_bytes{name="x"} 0.1',
    ]


def test_names_say_what_they_are() -> None:
    """Every metric is ours, has a sentence of help, and is called ``_total`` if and only if it is a counter."""
    for name, family in FAMILIES.items():
        assert name.startswith("reprod_")
        assert name.endswith("_total") is (family.kind == "counter"), name
        assert family.help.endswith("."), name
        assert "\n" not in family.help


def test_what_a_refresh_reads_counts_while_it_reads_and_only_once() -> None:
    """Progress and end of a refresh add up to what it read; one that fails keeps what it read; the next begins anew."""
    counts, first = DatasetCounts(), Counts()
    for files, size in ((1, 10), (3, 30), (3, 30)):
        first.hashed_files, first.hashed_bytes = files, size
        counts.advance(first)
    assert (counts.hashed_files, counts.hashed_bytes) == (3, 30)
    first.hashed_files, first.hashed_bytes = 4, 40
    counts.end(report(first))
    assert (counts.hashed_files, counts.hashed_bytes, counts.full, counts.full_s) == (4, 40, 1, 0.5)

    counts.advance(Counts(hashed_files=2, hashed_bytes=5))  # and then it fails
    counts.end(report(Counts(hashed_files=1, hashed_bytes=1), full=False, sealed=False, unannounced=1))
    assert (counts.hashed_files, counts.hashed_bytes) == (7, 46)
    assert (counts.full, counts.hinted, counts.sealed, counts.unannounced) == (1, 1, 1, 1)


def test_numbers_of_deliveries_lose_none_between_threads() -> None:
    """Threads that count at once lose nothing, and only what has all is captured."""
    counters = Counters()

    def count() -> None:
        for number in range(2000):
            counters.deliver("captured" if number % 2 else "incomplete")
            counters.postpone()
            counters.fail()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (counters.deliveries, counters.captured, counters.postponed, counters.failed) == (8000, 4000, 8000, 8000)


def test_a_dataset_that_comes_back_goes_on_counting() -> None:
    """Whoever asks for a dataset's numbers gets the same ones, so that a reload takes none back."""
    counters = Counters()
    counters.of("x").overflows += 1
    assert counters.of("x").overflows == 1
    assert counters.of("y").overflows == 0


async def test_the_pulse_tells_how_late_the_loop_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that was held up for half a second shows so, for a minute."""
    monkeypatch.setattr("reprod.daemon.pulse.EVERY_S", 0.05)
    pulse = Pulse()
    async with anyio.create_task_group() as group:
        group.start_soon(pulse.run)
        await anyio.sleep(0.01)
        time.sleep(0.5)  # what holds it up
        with anyio.fail_after(10):
            while pulse.lag_s < 0.3:
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()


def names_in(text: str) -> set[str]:
    """Return the metrics that an expression or a document names."""
    return set(re.findall(r"\breprod_[a-z_]+\b", text))


def test_the_dashboard_shows_only_what_there_is() -> None:
    """docs/grafana/reprod.json is JSON with panels that do not overlap, and each metric in its expressions exists."""
    dashboard = json.loads((DOCS / "grafana" / "reprod.json").read_text())
    panels = dashboard["panels"]
    expressions = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    variables = [variable.get("definition", "") for variable in dashboard["templating"]["list"]]
    assert names_in("\n".join(expressions + variables)) <= FAMILIES.keys()
    assert len(expressions) > 20
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_the_alerts_ask_only_what_there_is() -> None:
    """docs/alerts.yml is YAML, each alert says what and what to do, and each metric and state in it exists."""
    yaml = pytest.importorskip("yaml")
    (group,) = yaml.safe_load((DOCS / "alerts.yml").read_text())["groups"]
    rules = group["rules"]
    assert names_in("\n".join(rule["expr"] for rule in rules)) <= FAMILIES.keys()
    states = {s for rule in rules for found in re.findall(r'state=~?"([^"]*)"', rule["expr"]) for s in found.split("|")}
    assert states <= set(STATES)
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert {"summary", "description"} == rule["annotations"].keys()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Prometheus) is not installed")
def test_promtool_takes_the_alerts() -> None:
    """Prometheus' own checker finds nothing wrong with docs/alerts.yml."""
    command = ["promtool", "check", "rules", str(DOCS / "alerts.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_states_are_those_of_a_dataset() -> None:
    """Every state that a dataset's work can have, and the one of a wrong file, has its sample."""
    assert set(STATES) == {*get_args(State), "misconfigured"}
