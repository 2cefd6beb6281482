"""``reprod doctor`` and the sandbox of the real service: what hides or closes a dataset, and that its line mends it."""

import json
from typing import Any

import pytest
from bed import eventually
from service_place import Service

pytestmark = pytest.mark.systemd


def doctor(service: Service, *argv: str) -> list[dict[str, Any]]:
    """Return what the doctor finds, as root at a shell of the machine."""
    done = service.bed.run("reprod", "doctor", "--json", *argv)
    assert done.returncode in {0, 1, 3}, done.stderr
    found = json.loads(done.stdout)
    assert found["unit"] == "reprod.service"
    return list(found["findings"])


def about(findings: list[dict[str, Any]], dataset: str) -> dict[str, Any]:
    """Return the one finding about a dataset: its cause is told once."""
    found = [each for each in findings if each["dataset"] == dataset]
    assert len(found) == 1, findings
    return found[0]


def state_of(service: Service, dataset: str) -> str:
    """Return what the daemon says of a dataset, empty while it does not answer."""
    done = service.bed.run("reprod", "status", "--json")
    rows = json.loads(done.stdout)["datasets"] if done.returncode == 0 else []
    return next((row["state"] for row in rows if row["name"] == dataset), "")


def mended(service: Service, line: str, dataset: str) -> None:
    """Run the line that the doctor gave, as a person pastes it; the dataset is read then."""
    done = service.bed.run("sh", "-c", line)
    assert done.returncode == 0, done.stderr
    eventually(lambda: state_of(service, dataset) == "current", 30, service.bed.tail)


@pytest.mark.parametrize(
    ("path", "drop_in", "directive"),
    [
        ("/tmp/x", "", "PrivateTmp=yes"),
        ("/var/tmp/a b%c", "", "PrivateTmp=yes"),
        ("/home/carol/data", "ProtectHome=yes", "ProtectHome=yes"),
        ("/home/carol/data", "ProtectHome=tmpfs", "ProtectHome=tmpfs"),
        ("/srv/hidden/x", "TemporaryFileSystem=/srv/hidden", "TemporaryFileSystem=/srv/hidden"),
    ],
)
def test_the_directive_that_hides_a_dataset_is_named_and_its_line_shows_it(
    service: Service, path: str, drop_in: str, directive: str
) -> None:
    """A dataset that the sandbox hides: the directive, the unit, and a line after which the daemon reads it (15)."""
    service.bed.run("rm", "-rf", path, "/home/carol")
    service.make_data(path)
    service.bed.run("chmod", "-R", "a+rX", "/home/carol")
    service.configure(hidden=path)
    if drop_in:
        service.drop_in(drop_in)
    service.start()
    eventually(lambda: state_of(service, "hidden") in {"unavailable", "failed"}, 20, service.bed.tail)

    found = about(doctor(service), "hidden")

    assert found["what"] == f"hidden: {directive} in reprod.service hides {path}"
    mended(service, found["mend"][0], "hidden")
    assert not [each for each in doctor(service) if each["dataset"] == "hidden" and each["level"] == "bad"]


def test_a_closed_folder_has_three_cures_and_each_works(service: Service) -> None:
    """Data of a group in a 0750 folder: folder, mode, owner, uid; by group, by ACL, by capability it is read (14)."""
    bed = service.bed
    bed.run("rm", "-rf", "/srv/closed")
    service.make_data("/srv/closed/x")
    bed.run("chgrp", "alice", "/srv/closed")
    bed.run("chmod", "0750", "/srv/closed")
    service.configure(closed="/srv/closed/x")
    service.start()

    found = about(doctor(service), "closed")
    uid = bed.run("id", "-u", "reprod").stdout.strip()
    assert found["what"] == f"closed: reprod (uid {uid}) may not go through /srv/closed (mode 0750, root:alice)"
    group, acl, capability = found["mend"]
    assert group == "usermod -aG alice reprod"
    assert acl == "setfacl -m u:reprod:x /srv/closed"
    assert "AmbientCapabilities=CAP_DAC_READ_SEARCH" in capability

    for line in (group, acl):
        if bed.run("sh", "-c", f"command -v {line.split()[0]}").returncode:
            continue  # a minimal machine has no ACLs
        assert bed.run("sh", "-c", line).returncode == 0
        bed.systemctl("restart", "reprod")
        eventually(lambda: state_of(service, "closed") == "current", 20, bed.tail)
        assert not [each for each in doctor(service) if each["dataset"] == "closed"]
        bed.run("gpasswd", "-d", "reprod", "alice")
        bed.run("setfacl", "-b", "/srv/closed")
        bed.run("chmod", "0700", "/srv/closed")
        bed.run("chmod", "0750", "/srv/closed")
    bed.systemctl("restart", "reprod")
    assert about(doctor(service), "closed")["level"] == "bad"
    mended(service, capability, "closed")
    assert not [each for each in doctor(service) if each["dataset"] == "closed"]


def test_a_user_outside_the_group_is_told_how_to_get_in(service: Service) -> None:
    """alice may not ask the machine's daemon: that is said, with the line; what needs no daemon is looked at (20)."""
    service.make_data("/srv/y")
    service.configure(y="/srv/y")
    service.start()
    done = service.bed.run("reprod", "doctor", "--json", user="alice")
    found = {each["check"]: each for each in json.loads(done.stdout)["findings"]}

    assert done.returncode in {1, 3}
    assert "does not answer this user" in found["daemon"]["what"]
    assert found["daemon"]["mend"] == ["sudo usermod -aG reprod alice    # counts from the next login on"]


def test_the_daemon_says_what_it_cannot_see_before_a_dataset_is_added(service: Service) -> None:
    """Below PrivateTmp the directive, in a closed folder the place, the uid and three cures; what is open passes."""
    service.make_data("/tmp/seen/x")
    service.make_data("/srv/shut/x")
    service.make_data("/srv/wide")
    service.bed.run("chmod", "0700", "/srv/shut")
    service.start()
    code = (
        "import sys; from reprod.client import connect; from reprod.cli.visible import require_visible\n"
        "client = connect(); require_visible(client, client.call('hello')['pid'], sys.argv[1])"
    )

    def refusal(path: str) -> str:
        done = service.bed.run("/opt/reprod/bin/python", "-c", code, path)
        return done.stderr.strip().rpartition("\n")[2]

    hidden = "the daemon does not see /tmp/seen/x: PrivateTmp=yes in reprod.service hides it"
    assert hidden in refusal("/tmp/seen/x")
    assert "the daemon does not see /tmp: PrivateTmp=yes in reprod.service hides it" in refusal("/tmp")
    uid = service.bed.run("id", "-u", "reprod").stdout.strip()
    assert f"reprod (uid {uid}) may not go through /srv/shut (mode 0700, root:root)" in refusal("/srv/shut/x")
    assert refusal("/srv/wide") == ""
