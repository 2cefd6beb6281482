"""Who records a run where several hosts have a dataset of its name, and what hosts tell each other."""

import json
import uuid
from typing import Any

import pytest

from reprod.core.hosts import (
    FORGOTTEN_NS,
    Advertised,
    Host,
    Offer,
    contested,
    from_tags,
    newest,
    present,
    rival_names,
    to_tags,
    verdict,
)
from reprod.core.process import ProcessContext

OWN_BOOT, OTHER_BOOT = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
NOW = 1_800_000_000_000_000_000


def host(number: int, name: str = "box") -> Host:
    return Host(str(uuid.UUID(int=number << 96)), f"{name}{number}")


def said(number: int, *, scope: Any = "host", seen_ns: int = NOW, machine: str | None = "", **roots: str) -> Advertised:
    """Return what a host says; its machine is its own unless one is given."""
    offers = {name: Offer(scope, root, "dt1:" + "a" * 64, 3, 10) for name, root in roots.items()}
    return Advertised(host(number), seen_ns, offers, f"m{number}" if machine == "" else machine)


def context(boot: str) -> ProcessContext:
    return ProcessContext(1, "node", boot, 7, 99, "/usr")


@pytest.mark.parametrize(
    ("named", "boot", "rivals", "expected"),
    [
        ("mine", None, (), "answer"),
        ("mine", None, ("mine",), "contested"),
        ("mine/train", None, ("mine",), "contested"),
        ("mine", OWN_BOOT, ("mine",), "answer"),
        ("mine", OTHER_BOOT, (), "leave"),
        ("mine", OTHER_BOOT, ("mine",), "leave"),
        ("common", None, ("common",), "answer"),
        ("common", OTHER_BOOT, ("common",), "answer"),
        ("common/train", OWN_BOOT, (), "answer"),
        ("nobody", None, (), "unknown"),
        ("nobody", OWN_BOOT, (), "unknown"),
    ],
)
def test_who_answers(named: str, boot: str | None, rivals: tuple[str, ...], expected: str) -> None:
    """The context decides for a host's own data, nothing for shared data, and without one nobody guesses."""
    scopes: dict[str, Any] = {"mine": "host", "common": "shared"}

    assert verdict(named, context(boot) if boot else None, scopes, {OWN_BOOT}, rivals) == expected


def test_rivals_are_hosts_with_other_data_of_the_name() -> None:
    """Another host with scope host is a rival; shared data, a host long gone and the same root of this machine not."""
    own = said(1, data="/data", more="/more")
    old = said(5, seen_ns=NOW - FORGOTTEN_NS, more="/elsewhere")
    moved = said(6, machine="m1", data="/data")  # the same machine and root: a state directory that was deleted
    others = present([own, said(2, data="/data"), said(3, scope="shared", more="/more"), old, moved], own.host.id, NOW)

    assert [each.host.name for each in others] == ["box2", "box3", "box6"]
    assert rival_names(own, others) == {"data"}
    assert rival_names(own, [moved]) == frozenset()
    assert rival_names(own, [said(7, machine="m1", data="/home/b/data")]) == {"data"}


def test_every_host_says_the_same_of_a_contested_name() -> None:
    """The error is the same from each host, names them, and says what to do; hundreds of hosts are counted."""
    hosts = [said(n, data=f"/d{n}") for n in (3, 1, 2)]
    texts = {contested("data", own, [o for o in hosts if o is not own]) for own in hosts}
    many = contested("data", hosts[0], [said(n, data="/x") for n in range(10, 200)])

    assert len(texts) == 1
    text = texts.pop()
    assert text.startswith(f"data: {host(1)}, {host(2)}, {host(3)} each have a dataset of this name")
    assert "reprod snapshot data --run RUN_ID" in text
    assert "reprod.tag_dataset" in text
    assert 'scope = "shared"' in text
    assert "and 186 more" in many
    assert len(many) < 1000


def test_what_a_host_says_comes_back_from_its_tags() -> None:
    """Tags hold all of it within MLflow's limits, also a root of 4,096 odd characters; of two runs the newer counts."""
    own = said(1, data="/data", deep="/" + "ü" * 4095)
    tags = to_tags(own, "2026-11-23T00:00:00Z")
    again = from_tags(tags)

    assert max(map(len, tags.values())) <= 8000
    assert again is not None
    assert again.offers["data"] == own.offers["data"]
    assert (again.host, again.seen_ns, again.machine) == (own.host, NOW, "m1")
    assert again.offers["deep"].root is None
    older = to_tags(said(1, seen_ns=NOW - 1), "")
    assert newest([tags, older]) == newest([older, tags]) == [again]


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"reprod.host.id": "x"},
        {"reprod.host.id": str(uuid.UUID(int=1)), "reprod.host.seen_ns": "-1"},
        {"reprod.host.id": str(uuid.UUID(int=1)), "reprod.host.seen_ns": "9" * 40},
    ],
)
def test_odd_tags_say_nothing_of_a_host(odd: dict[str, str]) -> None:
    """What anybody may have written there is no host, and raises nothing."""
    assert from_tags(odd) is None


def test_an_odd_dataset_tag_is_left_out() -> None:
    """A host whose tags were edited is still a host, without what cannot be read."""
    tags = to_tags(said(1, data="/data"), "")
    for name, value in (("a", "{"), ("b", "[]"), ("c", '{"scope": "all"}'), ("d", "[" * 5000)):
        tags[f"reprod.host.dataset.{name}"] = value
    tags["reprod.host.dataset.e"] = json.dumps({"scope": "host", "root": 7, "version": True, "files": "x"})
    found = from_tags(tags)

    assert found is not None
    assert set(found.offers) == {"data", "e"}
    assert found.offers["e"] == Offer("host")
