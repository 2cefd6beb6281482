"""File systems that are mounted and unmounted under reprod.service, seen through its own mount namespace."""

import pytest
from bed import Bed, eventually
from service_place import Service, dt1

pytestmark = pytest.mark.systemd


def test_a_root_that_is_mounted_late_goes_and_comes_back(service: Service, bed: Bed) -> None:
    """43: a dataset whose file system is not mounted yet when the daemon starts is unavailable, and found within 5 s of
    its mounting, although the unit has a mount namespace of its own; changes in it are noticed. Unmounted, it is
    unavailable again and nothing counts as removed; mounted again, it is current with nothing read anew."""
    service.make_data("/srv/disk")
    bed.path("/mnt/late").mkdir(parents=True, exist_ok=True)
    data = bed.path("/mnt/late")
    mount(bed)
    service.configure("", late="/mnt/late")
    service.start()
    service.becomes("late", dt1(data))
    service.stop()
    bed.run("umount", "/mnt/late")
    service.start()
    away(service)

    mount(bed)
    assert service.becomes("late", dt1(data), 5)["version"] == 1
    (data / "new").write_text("new")
    shown = service.becomes("late", dt1(data), 5)
    assert (shown["watch"], shown["version"]) == ("inotify", 2)
    assert bed.run("umount", "/mnt/late").returncode == 0
    away(service)
    before = len(service.events("dataset.refreshed"))
    mount(bed)
    assert service.becomes("late", dt1(data), 5)["version"] == 2
    last = eventually(lambda: service.events("dataset.refreshed")[before:], 10, service.said)
    assert {event["REPROD_REMOVED"] for event in service.events("dataset.refreshed")} == {"0"}
    assert last[-1]["REPROD_HASHED_FILES"] == "0"


def away(service: Service) -> None:
    """Wait until the dataset is unavailable, with what was known of it."""
    eventually(lambda: service.dataset("late").get("state") == "unavailable", 10, service.said)
    assert service.dataset("late")["files"] >= 2


def mount(bed: Bed) -> None:
    """Mount the dataset's root in the bed, outside of the unit's own namespace, as an administrator does."""
    done = bed.run("mount", "--bind", "/srv/disk", "/mnt/late")
    assert done.returncode == 0, done.stderr
