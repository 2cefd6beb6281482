"""The report page: whatever names it is given, it is one well-formed document that fetches, runs and hides nothing."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprod.core import environment_diff
from reprod.core.delta import compare
from reprod.core.drift import DatasetDrift, Drift, DriftedPath
from reprod.core.entry import Content, Entry, Kind
from reprod.core.environment import Environment, Record
from reprod.core.execution import Execution, Subject
from reprod.core.packages import Package, PackageSet, Python
from reprod.core.plain import plain
from reprod.core.profile import profile
from reprod.core.report import MOST_BYTES, bare_page, page_of
from reprod.core.report_html import LONGEST_NAME, shortened, visible
from reprod.core.report_since import EarlierRun, EnvironmentSince, Since, since_delta
from reprod.core.repository import Git, Withheld
from reprod.core.run_record import RunRecord, UsedDataset

START = 1_790_000_000_000_000_000
DIGEST = "dt1:" + "ab" * 32

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "</style></title><script>alert(1)</script>",
    "<!--",
    "]]>",
    "&lt;&amp;#0;&#x110000;",
    "a\u202egpj.exe",
    "x\0y\x1b[31m\x7f\r\n\t",
    "\udcff\udce9 not utf-8",
    "\ud83d lone",
    "//evil.example/x.png",
    "https://evil.example/x.png",
    "url(https://evil.example)",
    "e" + "\u0301" * 50,
    "n" * 4000,
    "<" * 4000,
    "\U000e0001" * 4000,
]


class Reader(HTMLParser):
    """Reads a page as a browser would and notes what must not be there; closing tags must fit."""

    VOID = frozenset({"meta"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data!r}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data!r}")


#: All that a page is made of. Nothing here runs, fetches, navigates or submits.
TAGS = frozenset(
    re.findall(
        r"\S+",
        """
    html head meta title style body main header footer section div p h1 h2 h3 b i span code pre bdi time dl dt dd ul
    li table caption thead tbody tr th td details summary svg rect
""",
    )
)
ATTRIBUTES = frozenset(
    re.findall(
        r"\S+",
        """
    lang charset http-equiv content name class datetime scope data-of viewbox preserveaspectratio aria-hidden x width
    height rx
""",
    )
)


def read(page: bytes) -> Reader:
    """Return the page as read, checked for all that holds of every page."""
    assert len(page) <= MOST_BYTES
    text = page.decode()
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    assert reader.tags <= TAGS
    assert reader.attributes <= ATTRIBUTES
    shown = "".join(reader.text)
    assert [c for c in shown if not c.isprintable() and c not in "\n\u200c\u200d"] == []
    assert not re.search(
        r"url\(|@import|expression\(|javascript:", text[text.index("<style>") : text.index("</style>")]
    )
    return reader


def record_with(name: str, packages: int = 3) -> Record:
    """Return an environment in which every text is ``name``."""
    installed = tuple(Package(f"{name}{i}", name, name) for i in range(packages))
    git = Git(
        name, name, True, name, tree=name, withheld=(Withheld(name, 1, name),), restorable="partial", reasons=(name,)
    )
    python = Python(name, name, name, implementation=name, build=name)
    env = Environment(
        python=python, packages=PackageSet(installed), git=git, variables={name: name}, unknown={name: name}
    )
    return Record(Execution(Subject("process", name, name, name), START, unknown={name: name}), env)


def page_with(name: str) -> bytes:
    """Return a page in which every text that comes from outside is ``name``."""
    raw = name.encode("utf-8", "surrogatepass")
    entries = [Entry(raw + b"/%d." % i + raw, Content(Kind.FILE, i, b"x" * 32), START) for i in range(20)]
    before = {raw + b"-%d" % i: Content(Kind.FILE, i + 1, b"%032d" % i) for i in range(9)}
    after = {raw + b"=%d" % i: Content(Kind.FILE, i + 1, b"%032d" % (i // 2)) for i in range(9)}
    earlier = EarlierRun(name, name, START)
    fit = plain(name)  # environments are made fit for UTF-8 where they are captured
    here, there = record_with(fit), record_with(fit + "2", packages=60)
    used = UsedDataset(
        name, DIGEST, 2, "start", name, 3, 4, START, error=name, selection={name: [name], "include": name}
    )
    lost = replace(used, name=name + "!", digest=None, bound="late", candidates=((1, name), (2, None)))
    moved = DatasetDrift(name, "changed", name, 1, 2, {"modified": 30}, (DriftedPath(name, "modified", START, 2),) * 30)
    run = RunRecord(
        name, name, name, "FINISHED", START, START, name, START, name, "walk", name,
        (used, lost), Drift(name, START, START, START, (moved,)), here, name,
        problems=(name,), children={name: 3},
    )  # fmt: skip
    delta = since_delta(name, earlier, 1, "dt1:00", compare(before, after))
    since = Since((delta,), EnvironmentSince(earlier, environment_diff.compare(there, here)))
    return page_of(run, {name: profile(entries), name + "!": name}, since)


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_no_name_becomes_markup_or_acts_on_a_reader(name: str) -> None:
    """A page full of one hostile name is well formed, of harmless elements only, and shows what acts as an escape."""
    reader = read(page_with(name))
    shown = "".join(reader.text)

    assert "script" not in reader.tags
    assert visible(name)[:20] in shown


@given(st.text(st.characters(codec=None), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_any_name_gives_a_well_formed_page(name: str) -> None:
    """Whatever characters a name is made of, lone surrogates too, the page is well formed and shows them all."""
    assert visible(name)[:LONGEST_NAME] in "".join(read(page_with(name)).text)


def test_equal_values_give_equal_bytes() -> None:
    """A delivery that is tried again writes the same page."""
    assert page_with("imagenet") == page_with("imagenet")


def test_a_long_name_keeps_its_beginning_and_its_end() -> None:
    """A name of 4,000 characters is shortened in the middle, and says how long it is."""
    short = shortened("a" * 100 + "b" * 3896 + ".jpg")

    assert short.startswith("aaaa")
    assert short.endswith("bbb.jpg (4,000 characters)")
    assert len(short) < LONGEST_NAME + 30


def test_a_page_of_anything_stays_small() -> None:
    """Fifty datasets with the longest hostile names and hundreds of differences still make a page of bounded size."""
    name = "\U000e0001" * 4000
    raw = name.encode()
    entries = [Entry(b"%d" % i + raw + b"/x", Content(Kind.FILE, i, b"x" * 32)) for i in range(20)]
    used = [UsedDataset(f"{i}{name}", DIGEST, 2, "start", name, 3, 4, START, error=name) for i in range(50)]
    run = RunRecord(
        "id", name, name, "FINISHED", START, None, datasets=tuple(used), error=name, environment=record_with(name, 600)
    )
    profiles = {each.name: profile(entries) for each in used}
    there = record_with(name + "2", 500)
    since = Since((), EnvironmentSince(EarlierRun(name, name), environment_diff.compare(there, record_with(name, 600))))

    read(page_of(run, profiles, since))


def test_what_is_not_known_is_said() -> None:
    """A run of which nothing but its names is known has a page that claims nothing."""
    run = RunRecord(
        "0" * 32, "r", None, "RUNNING", START, None, datasets=(UsedDataset("d", bound="late", error="a gap"),)
    )
    shown = " ".join(read(page_of(run)).text)

    assert "Not proven" in shown
    assert "A gap." in shown
    assert "judged when the run has ended" in shown
    assert "not known" in shown
    assert "sha256sum" not in shown
    assert "Proven" not in shown.replace("Not proven", "")


def test_the_commands_fit_the_run() -> None:
    """A proven run has commands to verify, compare and export it; with several datasets each is named."""
    one = UsedDataset("a", DIGEST, 1, "start", "/data/it's a", 1, 1, START)
    run = RunRecord("f" * 32, "r", None, "FINISHED", START, START, "captured", datasets=(one,))
    before = Since((since_delta("a", EarlierRun("e" * 32, "q", START), 1, "dt1:00", compare({}, {})),), None)
    shown = "".join(read(page_of(run, {}, before)).text)
    assert f"reprod verify run:{'f' * 32}" in shown
    assert f"reprod diff run:{'e' * 32} run:{'f' * 32}" in shown
    assert f"reprod export run:{'f' * 32} --format sha256sums" in shown
    assert "(cd '/data/it'\"'\"'s a' && sha256sum --check --quiet) < SHA256SUMS" in shown

    both = replace(run, datasets=(one, replace(one, name="b", root="/data/b\\xff")))
    shown = "".join(read(page_of(both)).text)
    assert "--dataset b " in shown
    assert "(cd DIRECTORY &&" in shown

    below = replace(run, datasets=(replace(one, name="a/sub", root="/data/a/sub"),))
    assert "sha256sum" not in "".join(read(page_of(below)).text)


def test_a_page_that_cannot_be_made_says_so() -> None:
    """What is written in place of a page names the error and is a well-formed page itself."""
    run = RunRecord("f" * 32, "<r>", None, "FINISHED", START, START)

    assert "ValueError: <b>" in "".join(read(bare_page(run, "ValueError: <b>")).text)
