"""The pictures of the report page: bars in SVG, which print and need neither script nor network.

Rule: a picture is a table whose every number stands beside its bar, so that nothing is lost to whoever cannot see it.
Lengths are shares of the longest bar, or of the whole where parts of one whole are shown.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reprod.core.amount import size
from reprod.core.profile import DataProfile, Share, SizeClass
from reprod.core.report_html import NOTHING, Html, join, named, plural, tag, text

#: Characters of a name in a picture, and of a path.
_NAME, _PATH = 44, 80


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its label, its length in any unit, and what is said beside it."""

    label: Html
    length: int
    amount: str
    note: str
    rest: bool = False


def pictures(profile: DataProfile) -> Html:
    """Return what kinds of files, which directories and which sizes a set is made of."""
    found = [
        _picture("By type", _shares(profile.types, profile.other_types, "no type")),
        _picture("By directory", _shares(profile.directories, profile.other_directories, "at the top")),
        _picture("By size of file", [_size_bar(each) for each in profile.sizes]),
        _picture(
            "Largest files", [Bar(named(e.path, _PATH), e.bytes, size(e.bytes), "") for e in profile.largest], "wide"
        ),
    ]
    return tag("div", *found, class_="pictures") if any(found) else NOTHING


def _picture(title: str, bars: Sequence[Bar], kind: str = "narrow") -> Html:
    if not bars:
        return NOTHING
    longest = max(bar.length for bar in bars) or 1
    rows = [
        tag(
            "tr",
            tag("th", bar.label, scope="row"),
            tag("td", _drawn(bar.length / longest, "rest" if bar.rest else None), class_="bar"),
            tag("td", bar.amount, class_="amount"),
            tag("td", bar.note, class_="note") if bar.note else NOTHING,
        )
        for bar in bars
    ]
    return tag("table", tag("caption", title), tag("tbody", *rows), class_=f"picture {kind}")


def _drawn(share: float, class_: str | None) -> Html:
    # Half a unit for whatever is not nothing: a bar that cannot be seen says that there is none.
    width = f"{max(share * 100, 0.5) if share else 0:.1f}"
    bar = tag("rect", width=width, height="8", rx="1", class_=class_)
    return tag("svg", bar, viewBox="0 0 100 8", preserveAspectRatio="none", aria_hidden="true")


def _shares(shares: Iterable[Share], others: Share | None, nameless: str) -> list[Bar]:
    bars = [
        Bar(
            named(each.name, _NAME) if each.name else tag("i", nameless),
            each.bytes,
            size(each.bytes),
            plural(each.files, "file"),
        )
        for each in shares
    ]
    if others is not None:
        bars.append(
            Bar(tag("i", "all others"), others.bytes, size(others.bytes), plural(others.files, "file"), rest=True)
        )
    return bars


def _size_bar(each: SizeClass) -> Bar:
    label = "larger" if each.below is None else "empty" if each.below == 1 else f"below {_round(each.below)}"
    return Bar(text(label), each.files, plural(each.files, "file"), size(each.bytes))


def _round(count: int) -> str:
    return size(count).replace(".0 ", " ")


def strip(parts: Iterable[tuple[str, int]]) -> Html:
    """Return one bar whose parts, ``(class, count)``, are shares of the whole."""
    found = [(kind, count) for kind, count in parts if count]
    total = sum(count for _, count in found)
    drawn, begin = [], 0.0
    for kind, count in found:
        width = 100 * count / total
        drawn.append(tag("rect", x=f"{begin:.2f}", width=f"{width:.2f}", height="4", class_=kind))
        begin += width
    svg = tag("svg", *drawn, viewBox="0 0 100 4", preserveAspectRatio="none", aria_hidden="true", class_="strip")
    return svg if drawn else join(())
