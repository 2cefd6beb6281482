"""Values of the package section: names, comment lines, conda's explicit form, and that they survive JSON."""

import dataclasses

import msgspec
import pytest

from reprod.core.packages import (
    BrokenRecord,
    Conda,
    CondaPackage,
    Package,
    PackageSet,
    Python,
    comment,
    conda_losses,
    explicit_line,
    explicit_text,
    normalise,
)

URL = "https://conda.anaconda.org/conda-forge/linux-64/x-1.0-h1_0.conda"


@pytest.mark.parametrize("name", ["Foo.Bar", "foo-bar", "FOO__BAR", "foo.-_bar"])
def test_one_project_has_one_name(name):
    """Every spelling of PEP 503 is the same project."""
    assert normalise(name) == "foo-bar"


@pytest.mark.parametrize(
    "text", ["a\nevil==1", "a\r\nb", "a\x00b", "a\x85b", "a\u2028b", "a\\", "a\\ \\", "--hash\\\n", ""]
)
def test_a_comment_stays_one_line(text):
    """No line break and no continuation comes out of a recorded text."""
    line = comment(text)
    assert line.startswith("# ")
    assert len(line.splitlines()) == 1
    assert not line.endswith("\\")


def test_records_survive_json_and_older_ones_decode():
    """Each value round-trips, and a record that knows only the first fields is one with the others unknown."""
    found = PackageSet(
        (Package("a", "1.0", "/s", edited=("a.py",), tags=("py3-none-any",), origin="index", requested=False),),
        (BrokenRecord("x.dist-info", "/s", "why", leftover=True),),
        ("p",),
    )
    conda = Conda("/c", "base", (CondaPackage("x", "1", "0", url=URL),), ("p",))
    for value in (found, conda, Python("3.11.7", "/v", "/u", gil=True)):
        assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value
    old = msgspec.convert({"name": "a", "version": "1", "location": "/s"}, Package)
    assert (old.record_sha256, old.requested, old.edited, old.shadowed) == (None, None, None, False)
    for kind in (Package, Python, CondaPackage):
        assert all(field.default is not dataclasses.MISSING for field in dataclasses.fields(kind)[3:])


class TestExplicit:
    @pytest.mark.parametrize(
        ("fields", "end"),
        [
            ({"sha256": "b" * 64, "md5": "a" * 32}, f"#sha256:{'b' * 64}"),
            ({"md5": "a" * 32}, f"#{'a' * 32}"),
            ({}, ""),
            ({"sha256": "CANARY"}, ""),
        ],
    )
    def test_the_strongest_known_hash_is_used(self, fields, end):
        """sha256, else md5, else none; what has another form is left out."""
        assert explicit_line(CondaPackage("x", "1", "0", url=URL, **fields)) == URL + end

    @pytest.mark.parametrize(
        "url",
        [
            None,
            "file:///home/me/conda-bld/linux-64/x-1.0-0.conda",
            "https://h/$HOME/x-1.0-0.conda",
            "https://h/x-1.0-0.conda\nhttps://evil/y-1-0.conda",
            "https://h/x.conda https://evil/y.conda",
            "https://h/x-1.0-0.whl",
            "--file=/etc/passwd",
            "https://-oProxyCommand=x/y.conda",
        ],
    )
    def test_what_cannot_be_fetched_is_a_comment(self, url):
        """A local build, no address, or one that conda would expand or read as more, is a loss and no line."""
        conda = Conda("/c", "x", (CondaPackage("x", "1.0", "0", url=url),))
        (loss,) = conda_losses(conda)
        assert loss.startswith("conda package x 1.0 0: ")
        lines = explicit_text(conda).splitlines()
        assert lines[-1] == "@EXPLICIT"
        assert all(line.startswith("#") for line in lines[:-1])
        assert any("x 1.0 0" in line for line in lines)

    def test_the_file(self):
        """Header, how to use it, platform, what is missing, and then one address a line, in the given order."""
        packages = (
            CondaPackage("x", "1.0", "h1_0", url=URL, sha256="b" * 64, subdir="linux-64"),
            CondaPackage("tz", "2", "0", url="https://h/c/noarch/tz-2-0.tar.bz2", subdir="noarch"),
        )
        conda = Conda("/c", "x", packages, ("conda-meta/y.json: it is no record of a package",))
        assert explicit_text(conda, header=["Captured\nnow"]).splitlines() == [
            "# Captured now",
            "# To create an environment: conda create --name NAME --file conda_packages.txt",
            "# platform: linux-64",
            "# not in this file: conda-meta/y.json: it is no record of a package",
            "@EXPLICIT",
            f"{URL}#sha256:{'b' * 64}",
            "https://h/c/noarch/tz-2-0.tar.bz2",
        ]
