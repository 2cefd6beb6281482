"""A walk that suddenly misses most of a dataset is not believed until a second one misses it too."""

import shutil
from typing import Any

import pytest
from ops_place import Place

from reprod.errors import DatasetUnavailableError
from reprod.fs import walk
from reprod.ops import loss
from reprod.store import meta

FILES = 1500


@pytest.fixture
def full(place: Place) -> Place:
    """A dataset whose half lies in each of two directories."""
    for folder in ("a", "b"):
        (place.root / folder).mkdir()
        for n in range(FILES):
            (place.root / folder / f"{n}").write_bytes(b"x")
    place.refresh()
    return place


def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the second walk be late enough."""
    monkeypatch.setattr(loss, "CONFIRM_NS", 0)


def test_half_a_listing_forgets_nothing(full: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that lists as empty for a while is unavailable, not deleted; afterwards all is as it was."""
    real = walk._list

    def empty(listing: walk.Listing, *others: Any, **more: Any) -> None:
        if listing.path != b"a":
            real(listing, *others, **more)

    lstat = walk.lstat_at
    with monkeypatch.context() as patched:
        patched.setattr(walk, "_list", empty)
        patched.setattr("reprod.ops.scan.lstat_at", lambda fd, name: lstat(fd, b"not there"))
        with pytest.raises(DatasetUnavailableError, match=r"1,500 of 3,000 files are gone, and no event told of it"):
            full.refresh()
        with pytest.raises(DatasetUnavailableError):  # too soon to be a second opinion
            full.refresh()
    report = full.refresh()
    assert (report.sealed, report.version.files) == (False, 2 * FILES)
    assert full.db.read(meta.read).held_ns is None
    full.assert_equals_disk()


def test_a_second_walk_confirms(full: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is gone for good, without an event, is recorded by the second walk, without a hand."""
    shutil.rmtree(full.root / "a")
    with pytest.raises(DatasetUnavailableError):
        full.refresh()
    later(monkeypatch)
    assert full.refresh().version.removed == FILES
    full.assert_equals_disk()
    assert full.db.read(meta.read).held_ns is None


def test_a_loss_that_ended_is_forgotten(full: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later loss is held anew, however long ago the last one was."""
    (full.root / "a").rename(full.base / "away")
    with pytest.raises(DatasetUnavailableError):
        full.refresh()
    (full.base / "away").rename(full.root / "a")
    full.refresh()
    later(monkeypatch)
    shutil.rmtree(full.root / "b")
    with pytest.raises(DatasetUnavailableError):
        full.refresh()


def test_a_loss_in_plain_sight_is_recorded_at_once(full: Place) -> None:
    """Events told of the deletion, of a directory or of each file: there is nothing to doubt."""
    shutil.rmtree(full.root / "a")
    full.watch.hint(b"a")
    assert full.refresh().version.removed == FILES
    for n in range(1400):
        (full.root / "b" / f"{n}").unlink()
        full.watch.hint(b"b/%d" % n)
    assert full.refresh().version.removed == 1400
    full.assert_equals_disk()


def test_what_is_small_or_only_moved_is_no_loss(full: Place) -> None:
    """A thousand files, a renamed directory, and another selection are recorded without an event."""
    for n in range(1000):
        (full.root / "a" / f"{n}").unlink()
    assert full.refresh().version.removed == 1000
    (full.root / "b").rename(full.root / "c")
    assert full.refresh().version.removed == FILES
    (full.root / ".reprodignore").write_text("c/\n")
    assert full.refresh().version.files == 501


def test_a_clock_set_back_does_not_confirm(full: Place) -> None:
    """A held walk that seems to lie ahead is held anew."""
    shutil.rmtree(full.root / "a")
    full.db.write(lambda c: meta.write(c, held_ns=4 * 10**18))
    for _ in range(2):
        with pytest.raises(DatasetUnavailableError):
            full.refresh()
    held = full.db.read(meta.read).held_ns
    assert held is not None
    assert held < 4 * 10**18
