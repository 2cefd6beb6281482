"""The digest of a RECORD, and what became of the files that it lists."""

import hashlib
import os
import time

import pytest
from hand_wheel import find_uv, make_prefix, run_installer, write_wheel

import reprod.capture.packages.record_digest as module
from reprod.capture.packages.edited_files import check_files, deepen
from reprod.capture.packages.installed import read_packages
from reprod.capture.packages.record_digest import digest_record, read_rows

HASH = "sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
FILES = {
    "alpha/__init__.py": "value = 1\n",
    "alpha/data.txt": "data\n",
    'alpha/odd "name", with a comma.txt': "odd\n",
    "alpha/größe.txt": "ü\n",
    "scripts": "[console_scripts]\nalpha = alpha:main\n",
}


def only(site):
    found = read_packages([str(site)])
    assert (found.broken, found.problems) == ((), ())
    (package,) = found.packages
    return package


def installed(tmp_path, kind="pip", name="env", **change):
    """Return the site directory of a new prefix with alpha 1.0 in it."""
    wheels = tmp_path / f"wheels-{name}"
    wheels.mkdir()
    write_wheel(wheels, "alpha", "1.0", FILES | change)
    site = make_prefix(tmp_path / name)
    run_installer(kind, tmp_path / name, "install", "--find-links", wheels, "alpha==1.0")
    return site


class TestDigest:
    def test_18_it_is_of_the_archive_not_of_the_install(self, tmp_path):
        """Acceptance 18: another prefix, byte code and scripts do not change it; another content of a version does."""
        one, two = installed(tmp_path, name="one"), installed(tmp_path, name="another-prefix")
        other = installed(tmp_path, name="rebuilt", **{"alpha/__init__.py": "value = 2\n"})
        assert (tmp_path / "one/bin/alpha").exists()
        assert b".pyc" in (one / "alpha-1.0.dist-info/RECORD").read_bytes()
        assert only(one).record_sha256 == only(two).record_sha256
        assert only(one).version == only(other).version
        assert only(one).record_sha256 != only(other).record_sha256

    @pytest.mark.skipif(find_uv() is None, reason="needs uv, to compare what it writes with what pip writes")
    def test_18_pip_and_uv_give_the_same(self, tmp_path):
        """Acceptance 18: who installed is recorded beside the digest and is no part of it."""
        by_pip, by_uv = only(installed(tmp_path, "pip", "p")), only(installed(tmp_path, "uv", "u"))
        assert (by_pip.installer, by_uv.installer) == ("pip", "uv")
        assert by_pip.record_sha256 == by_uv.record_sha256 is not None

    def test_each_writer_of_csv_gives_the_same(self):
        """Line ends, order, needless quotes, byte code and what installers add are no part of it; the rest is."""
        info = "a-1.dist-info"
        plain = f"a/x.py,{HASH},0\na/y.py,{HASH},0\n"
        noise = f"{info}/RECORD,,\n{info}/INSTALLER,{HASH},0\n{info}/direct_url.json,{HASH},0\n/abs,{HASH},0\n"
        noise += f"../../../bin/a,{HASH},0\na/__pycache__/x.cpython-311.pyc,,\n\n"
        expected = hashlib.sha256(plain.rstrip("\n").encode()).hexdigest()
        spellings = [
            plain,
            plain + noise,
            noise + plain.replace("\n", "\r\n"),
            f'"a/y.py","{HASH}","0"\na/x.py,{HASH},0\n"a/q.pyc",,\n',
        ]
        assert {digest_record(text.encode(), info.encode()) for text in spellings} == {expected}
        for changed in (plain.replace("x.py", "z.py"), plain.replace("47DE", "48DE"), plain + f"..b,{HASH},0\n"):
            assert digest_record(changed.encode(), info.encode()) != expected
        assert digest_record(noise.encode(), b"other-1.dist-info") != digest_record(noise.encode(), info.encode())

    @pytest.mark.parametrize("text", ["", "\n", "a/x.py,,\n", f"a-1.dist-info/INSTALLER,{HASH},0\n"])
    def test_what_proves_nothing_is_unknown(self, text):
        """A RECORD without a hash of its own gives no digest, so that two of them are never called equal."""
        assert digest_record(text.encode(), b"a-1.dist-info") is None

    def test_what_is_not_readable_is_a_problem_of_a_known_package(self, tmp_path, dist):
        """A missing RECORD is unknown; a link, and one larger than can be, is said; the packages stay."""
        dist(tmp_path, "none", "1.0")
        (dist(tmp_path, "link", "1.0") / "RECORD").symlink_to("/etc/passwd")
        with open(dist(tmp_path, "huge", "1.0") / "RECORD", "wb") as file:
            file.truncate(module.RECORD_BYTES + 1)
        (dist(tmp_path, "quotes", "1.0") / "RECORD").write_bytes(b'"' + b"x" * 200_000 + b"\n")
        found = read_packages([str(tmp_path)])
        assert [(each.name, each.record_sha256) for each in found.packages] == [
            ("huge", None),
            ("link", None),
            ("none", None),
            ("quotes", None),
        ]
        assert sorted(problem.split("/")[-2].split("-")[0] for problem in found.problems) == ["huge", "link", "quotes"]

    def test_it_is_remembered_until_the_file_changes(self, tmp_path, dist, monkeypatch):
        """An unchanged RECORD is not read again, a rewritten one is, though its size and time may be the same."""
        record = dist(tmp_path, "a", "1.0", RECORD=f"a.py,{HASH},0\n") / "RECORD"
        reads = []
        real = module.read_bounded
        monkeypatch.setattr(
            module, "read_bounded", lambda *args, **options: reads.append(args) or real(*args, **options)
        )
        deadline = time.monotonic() + 60
        while True:
            before = len(reads)
            first = only(tmp_path).record_sha256
            if len(reads) == before:
                break
            # A RECORD written this instant is read again: it could still change without showing it.
            assert time.monotonic() < deadline
        status = os.stat(record)
        record.write_text(f"b.py,{HASH},0\n")
        os.utime(record, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert only(tmp_path).record_sha256 != first


class TestEdits:
    def test_18_deep_names_the_edited_file(self, tmp_path):
        """Acceptance 18: an edit in site-packages leaves the digest as it is; reading the files names the very file."""
        site = installed(tmp_path)
        before = only(site)
        assert deepen(read_packages([str(site)])).packages[0].edited == ()
        with open(site / "alpha/__init__.py", "r+", encoding="utf-8") as file:
            file.write("Value")
        (site / "alpha/data.txt").unlink()
        (site / "alpha/größe.txt").unlink()
        (site / "alpha/größe.txt").symlink_to("/etc/passwd")
        assert only(site).record_sha256 == before.record_sha256
        assert only(site).edited is None
        assert deepen(read_packages([str(site)])).packages[0].edited == (
            "alpha/__init__.py",
            "alpha/data.txt",
            "alpha/größe.txt",
        )
        reasons = {finding.path: finding.reason for finding in check_files(before)}
        assert "not what was installed" in reasons["alpha/__init__.py"]
        assert "symbolic link" in reasons["alpha/größe.txt"]

    def test_rows_outside_the_site_directory_are_not_looked_at(self):
        """No path of a hostile RECORD leads out, and byte code is left to Python."""
        text = (
            f"../../x,{HASH},1\n/etc/shadow,{HASH},1\na/../../b,{HASH},1\na.pyc,{HASH},1\nno-hash,,\nok.py,{HASH},9\n"
        )
        assert list(read_rows(text.encode())) == [("ok.py", HASH)]

    def test_a_weak_hash_proves_nothing_and_the_work_can_be_stopped(self, tmp_path, dist):
        """md5 in a RECORD is said instead of trusted, and a checkpoint that raises ends the reading."""
        (tmp_path / "a.py").write_text("x")
        dist(tmp_path, "a", "1.0", RECORD=f"a.py,md5=nTZ7Ld,1\nb.py,{HASH},0\n")
        found = read_packages([str(tmp_path)])
        assert "proves nothing" in next(check_files(found.packages[0])).reason
        with pytest.raises(KeyboardInterrupt):
            deepen(found, checkpoint=lambda: (_ for _ in ()).throw(KeyboardInterrupt))
