"""``reprod/report.html``: one page that says what a run was trained on, and how well that is known.

Rule: one self-contained document that needs no script, no network and no colour: MLflow shows it in a sandboxed frame.
Every text that comes from outside is escaped in ``core.report_html``; equal values give equal bytes; whatever the
values hold, a page stays below ``MOST_BYTES``. Pure, so that the daemon (``ops.report``) and ``reprod report run:ID``
write the same page of the same facts:

    profiles = {"imagenet": profile(entries)}           # core.profile; by the name in UsedDataset
    since = Since(datasets=(since_delta(...),), environment=EnvironmentSince(...))      # core.report_since
    Path("report.html").write_bytes(page_of(run, profiles, since))
"""

import shlex
from collections.abc import Iterator, Mapping

from reprod.core.profile import DataProfile
from reprod.core.report_data import Detail, callout, data_section, drift_section, since_section
from reprod.core.report_environment import code_section, environment_section
from reprod.core.report_html import (
    NOTHING,
    Html,
    code,
    facts,
    join,
    moment,
    named,
    prose,
    sentence,
    shortened,
    tag,
    text,
)
from reprod.core.report_since import Since
from reprod.core.report_style import STYLE
from reprod.core.report_words import (
    Mark,
    Said,
    said_of_data,
    said_of_drift,
    said_of_environment,
    said_of_since,
)
from reprod.core.run import DATASET_NAME, ENDED
from reprod.core.run_record import RunRecord, UsedDataset

#: A page that a browser shows at once, and that a server keeps for each run.
MOST_BYTES = 200_000

#: From all that is worth showing to what always fits, whatever the names and numbers are.
_DETAILS = (
    Detail(datasets=40, pictured=6, files=6, differences=40, packages=400),
    Detail(datasets=20, pictured=2, files=4, differences=12, packages=100),
    Detail(datasets=6, pictured=1, files=1, differences=3, packages=10),
)

#: Beside the absence of any: were a name ever to become markup, a browser would neither run nor fetch anything.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"

#: What ``reprod.state`` means.
_STATES: dict[str, tuple[Mark, str]] = {
    "captured": ("good", "all that the run named was whole and is proven"),
    "incomplete": ("warn", "not all that the run named could be read or proven"),
    "failed": ("bad", "reprod cannot go on until a person acts"),
}

#: Datasets that get commands of their own.
_COMMANDS = 4


def page_of(
    run: RunRecord, profiles: Mapping[str, DataProfile | str] | None = None, since: Since | None = None
) -> bytes:
    """Return the page of a run as UTF-8.

    :param profiles: of each dataset by its name in ``run.datasets``; a text says why one was not profiled.
    :param since: what became of data and environment since the run before; None: not looked up, and not spoken of.
    """
    page = b""
    for detail in _DETAILS:
        page = b"<!DOCTYPE html>\n" + _document(run, profiles or {}, since, detail).encode() + b"\n"
        if len(page) <= MOST_BYTES:
            break
    return page


def bare_page(run: RunRecord, why: str) -> bytes:
    """Return a page that says that the whole one could not be made, and where else what it tells is found."""
    told = Said("bad", "This page could not be made", f"{why}. What it tells is in the run's other artifacts and tags.")
    body = tag("main", _header(run), callout(told), _commands(run, None), _footer(run))
    return b"<!DOCTYPE html>\n" + tag("html", _head(run), tag("body", body), lang="en").encode() + b"\n"


def _head(run: RunRecord) -> Html:
    return tag(
        "head",
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{text(_POLICY)}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark">'),
        tag("title", f"What run {shortened(run.name or run.run_id, 60)} was trained on"),
        tag("style", Html(STYLE)),
    )


def _document(run: RunRecord, profiles: Mapping[str, DataProfile | str], since: Since | None, detail: Detail) -> Html:
    ended = run.status in ENDED
    body = [
        _header(run),
        _tiles(run, since, ended=ended),
        _trouble(run),
        data_section(run, profiles, detail),
        since_section(run, since.datasets, detail) if since is not None else NOTHING,
        drift_section(run.drift, ended=ended),
        environment_section(run, since.environment if since is not None else None, detail),
        code_section(run.environment),
        _commands(run, since),
        _footer(run),
    ]
    return tag("html", _head(run), tag("body", tag("main", *body)), lang="en")


def _header(run: RunRecord) -> Html:
    state = run.state or "not yet"
    mark, meaning = _STATES.get(state, ("quiet", ""))
    rows: list[tuple[object, object]] = [("Run", code(run.run_id))]
    if run.experiment:
        rows.append(("Experiment", named(run.experiment)))
    times = [moment(run.start_ns)]
    if run.end_ns is not None:
        times += [text(" to "), moment(run.end_ns)]
    rows.append(("Ran", join([*times, f", {shortened(run.status.lower(), 20)}"])))
    rows.append(("Recorded", join([tag("span", prose(state, 40), class_=f"pill {mark}"), f" {meaning}"])))
    heading = tag("h1", named(run.name or run.run_id))
    return tag("header", tag("p", "What this run was trained on", class_="kind"), heading, facts(rows))


def _tiles(run: RunRecord, since: Since | None, *, ended: bool) -> Html:
    tiles = [_tile("Data at the start", said_of_data(run))]
    if since is not None:
        tiles.append(_tile("Since the run before", said_of_since(run, since)))
    tiles.append(_tile("Data during the run", said_of_drift(run.drift, ended=ended)))
    tiles.append(_tile("Environment", said_of_environment(run, since.environment if since is not None else None)))
    return tag("div", *tiles, class_="tiles")


def _tile(kind: str, said: Said) -> Html:
    return tag(
        "div",
        tag("p", kind, class_="kind"),
        tag("b", said.word),
        tag("p", prose(sentence(said.sentence), 260)),
        class_=f"tile {said.mark}",
    )


def _trouble(run: RunRecord) -> Html:
    error = run.error or ""
    for each in run.datasets:  # said with its dataset already
        error = error.replace(f"{each.name}: {each.error}", "")
    told = [*([run.error] if run.error and error.strip("; ") else []), *run.problems[:5]]
    if not told:
        return NOTHING
    return tag("div", *(tag("p", prose(each)) for each in told), class_="callout warn")


def _commands(run: RunRecord, since: Since | None) -> Html:
    before = next((each.run.run_id for each in since.datasets if each.run is not None), None) if since else None
    lead = "Nothing here has to be believed. On a machine that has the data, with MLFLOW_TRACKING_URI as for this run:"
    lines = join(join([line, Html("\n")]) for line in _lines(run, before))
    return tag("section", tag("h2", "Check it yourself"), tag("p", lead), tag("pre", lines))


def _plain(word: str) -> str:
    """Return an id or a name for a command line; a stand-in for what no shell should be given."""
    return word if DATASET_NAME.match(word) else "ID"


def _lines(run: RunRecord, before: str | None) -> Iterator[str]:
    this = f"run:{_plain(run.run_id)}"
    proven = [each for each in run.datasets if each.digest is not None]
    yield "# all that is recorded of this run"
    yield f"reprod show {this}"
    if not proven:
        return
    yield "# are the files still those of the run? Reads every byte"
    yield f"reprod verify {this}"
    if before is not None:
        yield "# what differs from the run before"
        yield f"reprod diff run:{_plain(before)} {this}"
    # Of a subdirectory the list would be the whole dataset's where the versions are at hand.
    whole = [each for each in proven if "/" not in each.name]
    if whole:
        yield "# without reprod: a list that sha256sum takes"
    for each in whole[:_COMMANDS]:
        which = f" --dataset {_plain(each.name)}" if len(run.datasets) > 1 else ""
        yield f"reprod export {this}{which} --format sha256sums --output SHA256SUMS"
        yield f"(cd {_folder(each)} && sha256sum --check --quiet) < SHA256SUMS"


def _folder(dataset: UsedDataset) -> str:
    """Return the root for a shell; a stand-in where it is not known, or shows characters that it does not have."""
    root = dataset.root
    return shlex.quote(root) if root and root.isprintable() and "\\" not in root and len(root) < 512 else "DIRECTORY"


def _footer(run: RunRecord) -> Html:
    told = [text("Written by reprod")]
    if run.host:
        told.append(join([" on ", named(run.host)]))
    if run.recorded_ns is not None:
        told.append(join([", recorded ", moment(run.recorded_ns)]))
    note = ". It knows what lay in the dataset, not which of its files the script opened."
    return tag("footer", tag("p", *told, note, class_="dim"))
