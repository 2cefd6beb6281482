"""The LEAK fixture itself: it has a secret in every channel and finds each in every form, or it would prove nothing."""

import base64
import gzip
import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest
from leak import assert_no_leak, cloud_stub, find_leaks, plant

CANARIES = {"one": "CNRY0123456789abcdef/+=x", "two": 'CNRYfedcba9876543210"\\é'}

FORMS = {
    "raw": lambda s: s,
    "a half": lambda s: s[:15],
    "the other half": lambda s: s[-15:],
    "quoted": lambda s: quote(s, safe=""),
    "JSON": lambda s: json.dumps({"x": s}),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64 of a login": lambda s: base64.b64encode(f"user:{s}".encode()).decode(),
    "base64 for URLs": lambda s: base64.urlsafe_b64encode(f"x{s}y".encode()).decode(),
    "hex": lambda s: s.encode().hex(),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_search_bites(form, tmp_path):
    """A canary in a blob, in a file deep in a folder, and in a packed one is found in each form, by channel."""
    text = f"before{FORMS[form](CANARIES['one'])}after"
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"\xff\x00" + text.encode())
    (tmp_path / "packed.gz").write_bytes(gzip.compress(text.encode()))
    found = find_leaks(CANARIES, [tmp_path], {"blob": text})
    assert len(found) == 3
    assert all(": one (" in each for each in found)
    for case in ({"paths": [tmp_path / "a"]}, {"paths": [tmp_path / "packed.gz"]}, {"blobs": {"b": text.encode()}}):
        with pytest.raises(AssertionError, match=r": one \("):
            assert_no_leak(CANARIES, **case)


def test_the_search_lets_clean_text_pass(tmp_path):
    """Where no canary is, nothing is found; a path that does not exist is a mistake of the test."""
    (tmp_path / "clean").write_text("CNRY *** abcdef 0123456789")
    assert_no_leak(CANARIES, [tmp_path], {"x": "CNRY01234567"})
    with pytest.raises(AssertionError, match="nothing to look into"):
        assert_no_leak(CANARIES, [tmp_path / "nothing"])


def test_every_channel_holds_a_secret_of_its_own(tmp_path):
    """Each canary is really there, in a variable, an argument or a file, and none is in two channels."""
    leak = plant(tmp_path / "leak", site_packages=sys.path[-1:])
    assert len(set(leak.canaries.values())) == len(leak.canaries) > 40
    blobs = {"variables": "\n".join(leak.environ.values()), "argv": "\n".join(leak.argv)}
    found = find_leaks(
        leak.canaries, [leak.home, leak.repository, leak.prefix / "pip.conf", *leak.prefix.rglob("state")], blobs
    )
    found += find_leaks(leak.canaries, leak.prefix.rglob("direct_url.json"))
    hit = {each.rpartition(": ")[2].rpartition(" (")[0] for each in found}
    assert hit == set(leak.canaries)
    remotes = subprocess.run(["git", "remote", "-v"], cwd=leak.repository, capture_output=True, text=True, timeout=30)
    assert leak.canaries["remote user"] in remotes.stdout, "what git itself prints is not clean"
    assert (leak.prefix / "bin" / "python").exists()


def test_the_cloud_answers_with_canaries(tmp_path: Path):
    """Whatever the metadata service is asked, it answers with a canary and remembers the question."""
    leak = plant(tmp_path / "leak")
    with cloud_stub(leak) as (url, asked), urllib.request.urlopen(f"{url}/latest/user-data", timeout=10) as answer:  # noqa: S310
        body = answer.read()
    assert asked == ["GET /latest/user-data"]
    assert find_leaks(leak.canaries, blobs={"answer": body}) == ["answer: cloud /latest/user-data (raw)"]
