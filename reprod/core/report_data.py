"""The part of the report page that speaks of data: what it was, how well that is bound, what is new, what moved.

Rule: how well something is known stands before what it is. Lists are samples, and say how many there are in all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reprod.core.amount import size
from reprod.core.digest import short
from reprod.core.drift import DatasetDrift, Drift
from reprod.core.profile import DataProfile
from reprod.core.report_html import NOTHING, Html, code, facts, join, moment, named, plural, prose, sentence, table, tag
from reprod.core.report_pictures import pictures, strip
from reprod.core.report_since import CHANGES, ChangedFile, DatasetSince
from reprod.core.report_words import Said, is_same, said_of_assurance, said_of_binding, said_of_drift
from reprod.core.run_record import RunRecord, UsedDataset

#: Paths of a drift that a page shows.
_DRIFTED = 20

#: Versions around a start that nobody could tell apart: more than a few help nobody.
_CANDIDATES = 4


@dataclass(frozen=True, slots=True)
class Detail:
    """How much a page shows: a page that comes out too large is made again with less.

    Datasets at all, those with pictures, changed files, differences of environments, packages.
    """

    datasets: int
    pictured: int
    files: int
    differences: int
    packages: int


def callout(said: Said, *more: object) -> Html:
    """Return a verdict with its sentence, and paragraphs after it."""
    first = tag("p", tag("b", said.word), ". ", prose(said.sentence))
    return tag("div", first, *(tag("p", each) for each in more if each), class_=f"callout {said.mark}")


def data_section(run: RunRecord, profiles: Mapping[str, DataProfile | str], detail: Detail) -> Html:
    """Return what the run was trained on, dataset by dataset."""
    parts: list[Html] = []
    for place, each in enumerate(run.datasets[: detail.datasets]):
        heading = [named(each.name)] + ([f" @{each.version}"] if each.version is not None else [])
        parts += [tag("h3", *heading), _binding(run, each), _dataset_facts(each)]
        parts.append(_profile(profiles.get(each.name), detail, pictured=place < detail.pictured))
    if len(run.datasets) > detail.datasets:
        parts.append(tag("p", f"and {len(run.datasets) - detail.datasets:,} more datasets: reprod show lists them"))
    if not run.datasets:
        parts.append(tag("p", "No dataset is recorded for this run."))
    return tag("section", tag("h2", "Data at the start"), *parts, _children(run.children, detail))


def _children(children: Mapping[str, int], detail: Detail) -> Html:
    if not children:
        return NOTHING
    told = [f"{count:,} on {used}" for used, count in list(children.items())[: detail.datasets]]
    more = [f"{len(children) - len(told):,} other kinds"] if len(children) > len(told) else []
    total = plural(sum(children.values()), "run")
    return join([tag("h3", "Runs within this one"), tag("p", f"{total}: ", prose(", ".join(told + more)), ".")])


def _binding(run: RunRecord, dataset: UsedDataset) -> Html:
    said = said_of_binding(dataset)
    proven = dataset.digest is not None
    terms = ", ".join(
        f"{key} = {value}"
        for key, value in (("bound", dataset.bound), ("assurance", run.assurance if proven else None))
        if value
    )
    return callout(
        said,
        said_of_assurance(run.assurance) if proven else None,
        prose(sentence(dataset.error)) if dataset.error else None,
        tag("span", f"In reprod's words: {terms}", class_="dim") if terms else None,
    )


def _dataset_facts(dataset: UsedDataset) -> Html:
    rows: list[tuple[object, object]] = []
    if dataset.digest is not None:
        rows.append(("Digest", code(dataset.digest)))
    if dataset.version is not None:
        since = [", sealed ", moment(dataset.sealed_ns)] if dataset.sealed_ns is not None else []
        rows.append(("Version", join([f"@{dataset.version}", *since])))
    if dataset.files is not None:
        held = plural(dataset.files, "file")
        rows.append(("Holds", held if dataset.bytes is None else f"{held}, {size(dataset.bytes)}"))
    if dataset.root is not None:
        rows.append(("Path", code(dataset.root)))
    if dataset.selection is not None:
        chosen = " · ".join(_chosen(dataset.selection))
        rows.append(("Selection", code(chosen, 300) if chosen else "everything below the path"))
    for version, digest in dataset.candidates[:_CANDIDATES]:
        rows.append(("May have been", f"@{version}, {short(digest) if digest else 'incomplete'}"))
    return facts(rows) if rows else NOTHING


#: How the parts of a selection are called on a page, in this order; others come after these.
_CHOSEN_BY = {"include": "include", "exclude": "exclude", "ignore_file": ".reprodignore", "symlinks": "symlinks"}


def _chosen(selection: Mapping[str, object]) -> Iterable[str]:
    for key in [*_CHOSEN_BY, *(each for each in selection if each not in _CHOSEN_BY)]:
        value = selection.get(key)
        words = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
        by_default = (key, words) == ("symlinks", "record")
        if isinstance(words, str) and words and not by_default and not key.endswith("_b64"):  # those repeat a text
            yield f"{_CHOSEN_BY.get(key, key)}: {words}"


def _profile(profile: DataProfile | str | None, detail: Detail, *, pictured: bool) -> Html:
    if profile is None or not (pictured or isinstance(profile, str)):
        return NOTHING
    if isinstance(profile, str):
        return tag("p", prose(sentence(profile)), class_="dim")
    others = [
        plural(count, one, many)
        for count, one, many in (
            (profile.links, "symlink", "symlinks"),
            (profile.special, "special file, not in the set", "special files, not in the set"),
            (profile.problems, "entry that could not be read", "entries that could not be read"),
        )
        if count
    ]
    parts = [pictures(profile)]
    if profile.oldest_ns is not None:
        span = join(
            ["Files last modified between ", moment(profile.oldest_ns), " and ", moment(profile.newest_ns), "."]
        )
        parts.append(tag("p", span, class_="dim"))
    if others:
        parts.append(tag("p", f"Also {', '.join(others)}.", class_="dim"))
    return join(parts)


def since_section(run: RunRecord, found: Iterable[DatasetSince], detail: Detail) -> Html:
    """Return what became of each dataset since the run before on it."""
    used = {each.name: each for each in run.datasets}
    parts = [
        join([tag("h3", named(then.name)) if len(used) > 1 else NOTHING, _since(used[then.name], then, detail)])
        for then in list(found)[: detail.datasets]
        if then.name in used
    ]
    return tag("section", tag("h2", "Data since the run before"), *parts) if parts else NOTHING


def _since(dataset: UsedDataset, then: DatasetSince, detail: Detail) -> Html:
    if then.run is None:
        return tag("p", "No earlier run on this dataset is known.")
    when = join([", started ", moment(then.run.start_ns)]) if then.run.start_ns is not None else NOTHING
    who = join(["The run before: ", named(then.run.name), " (", code(then.run.run_id), ")", when, "."])
    if is_same(dataset, then):
        return join([tag("p", who), tag("p", "It had the same bytes under the same names: equal digests.")])
    if then.unknown is not None:
        return join([tag("p", who), tag("p", prose(sentence(then.unknown)))])
    versions = f" From @{then.version} to @{dataset.version}:" if then.version and dataset.version else ""
    counts = [(what, then.counts.get(what, 0)) for what in CHANGES]
    told = [tag("span", _key(what), f"{count:,} {what}") for what, count in counts if count]
    if not told:
        return join([tag("p", who), tag("p", "The digests differ; what exactly differs was not looked up.")])
    rows = [_changed(each) for what in CHANGES for each in _some(then.sample, what, detail.files)]
    more = sum(count for _, count in counts) - len(rows)
    rest = tag("p", f"and {more:,} more: reprod diff lists them", class_="dim") if more > 0 else NOTHING
    listed = table(("", "File", "Size"), rows, "rows files") if rows else NOTHING
    return join([tag("p", who, versions), tag("p", *told, class_="counts"), strip(counts), listed, rest])


def _some(sample: Iterable[ChangedFile], what: str, most: int) -> list[ChangedFile]:
    return [each for each in sample if each.what == what][:most]


def _changed(each: ChangedFile) -> tuple[Html, Html, Html]:
    path = named(each.path) if each.was is None else join([named(each.was), " → ", named(each.path)])
    known = [size(count) for count in (each.before, each.after) if count is not None]
    grown = known[:1] if len(set(known)) == 1 else known
    return join([_key(each.what), each.what]), path, tag("span", " → ".join(grown), class_="amount")


def drift_section(drift: Drift | None, *, ended: bool) -> Html:
    """Return what became of the data between the start and the end of the run."""
    said = said_of_drift(drift, ended=ended)
    parts = (
        [callout(said)] + [_drifted(each, alone=len(drift.datasets) == 1) for each in drift.datasets] if drift else []
    )
    return tag("section", tag("h2", "Data during the run"), *(parts or [callout(said)]))


def _key(what: str) -> Html:
    return tag("i", class_=f"key {what}", aria_hidden="true")


def _drifted(each: DatasetDrift, *, alone: bool) -> Html:
    counts = ", ".join(f"{count:,} {what}" for what, count in each.counts.items() if count)
    counted = counts if each.verdict == "changed" else ""  # what the reason then says, and more exactly
    told = counted or "; ".join(part for part in (each.why.rstrip("."), counts) if part)
    said = tag("p", prose(sentence(told))) if told else NOTHING
    parts = [NOTHING if alone else tag("h3", named(each.name)), said]
    if each.paths:
        rows = [
            (
                join([_key(path.what), path.what]),
                named(path.path),
                join([moment(path.at_ns), f", @{path.version}" if path.version else ""]),
            )
            for path in each.paths[:_DRIFTED]
        ]
        parts.append(table(("", "File", "Seen"), rows, "rows files"))
        total = sum(each.counts.values())
        if total > len(rows):
            parts.append(tag("p", f"and {total - len(rows):,} more: data_manifest/drift.json", class_="dim"))
    return join(parts)
