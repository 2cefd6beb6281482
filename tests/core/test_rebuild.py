"""requirements.txt and the verdict whether an environment can be built again."""

import random
import re

import pytest
from packaging.version import InvalidVersion, Version

from reprod.core.packages import BrokenRecord, Conda, CondaPackage, Package, PackageSet, Python
from reprod.core.rebuild import Rebuildable, judge, origin_of, requirements_text, step

SITE = "/v/lib/python3.11/site-packages"
PYTHON = Python("3.11.7", "/v", "/usr")
COMMIT, SHA = "a" * 40, "b" * 64
GIT = {"direct_url": "https://h/o/r.git", "vcs": "git", "commit": COMMIT, "origin": "vcs"}
WHEEL = {"direct_url": "https://h/x-1.0-py3-none-any.whl", "origin": "archive"}
#: What an installer reads as one requirement: a name with a version, or with an address.
REQUIREMENT = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*(?:==[A-Za-z0-9.!+_-]+| @ (?:git\+|hg\+)?(?:https?|ssh)://[^\s;$\\'\"<>{}*`^|]+)"
)


def package(name="x", version="1.0", **fields):
    return Package(name, version, SITE, **{"installer": "pip", "origin": "index", **fields})


def requirements(*packages, **fields):
    lines = requirements_text(PackageSet(packages, **fields)).splitlines()
    return [line for line in lines if not line.startswith("#")]


class TestStep:
    @pytest.mark.parametrize(
        ("fields", "line"),
        [
            ({}, "x==1.0"),
            ({"version": "2!1.0rc1.post2.dev3"}, "x==2!1.0rc1.post2.dev3"),
            ({"origin": None, "installer": None}, "x==1.0"),
            (GIT, f"x @ git+https://h/o/r.git@{COMMIT}"),
            (GIT | {"direct_url": "ssh://git@h/o/r"}, f"x @ git+ssh://git@h/o/r@{COMMIT}"),
            (GIT | {"subdirectory": "python/x"}, f"x @ git+https://h/o/r.git@{COMMIT}#subdirectory=python/x"),
            (GIT | {"vcs": None, "origin": None}, f"x @ git+https://h/o/r.git@{COMMIT}"),
            (WHEEL, "x @ https://h/x-1.0-py3-none-any.whl"),
            (WHEEL | {"archive_sha256": SHA}, f"x @ https://h/x-1.0-py3-none-any.whl#sha256={SHA}"),
            (
                WHEEL | {"archive_sha256": SHA, "subdirectory": "p"},
                f"x @ https://h/x-1.0-py3-none-any.whl#sha256={SHA}&subdirectory=p",
            ),
            ({"origin": "conda", "direct_url": "file:///croot/x_1/work"}, "x==1.0"),
        ],
    )
    def test_what_can_be_had_again(self, fields, line):
        """An index, a repository at its commit, an archive by its checksum: the line installs exactly that."""
        found = step(package(**fields))
        assert (found.line, found.loss) == (line, None)
        assert REQUIREMENT.fullmatch(line)

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"origin": "editable", "direct_url": "file:///src/x"}, "editable, its code is in file:///src/x"),
            ({"origin": "directory", "direct_url": "file:///src/x"}, "from the local directory file:///src/x"),
            (WHEEL | {"direct_url": "file:///d/x.whl", "archive_sha256": SHA}, f"this machine only, sha256 {SHA}"),
            (WHEEL | {"direct_url": "https://h/x.whl?X-Amz-Signature=***"}, "a secret that is not recorded"),
            (GIT | {"direct_url": "file:///src/x"}, f"this machine only, commit {COMMIT}"),
            (GIT | {"direct_url": "https://h/r?token=***"}, "a secret that is not recorded"),
            (GIT | {"commit": None}, "its commit is not recorded"),
            (GIT | {"direct_url": "ext::sh -c touch% M"}, "no address that can be fetched safely"),
            (GIT | {"direct_url": "ssh://-oProxyCommand=touch/r"}, "no address that can be fetched safely"),
            (GIT | {"vcs": "svn"}, "no address that can be fetched safely"),
            (GIT | {"subdirectory": "../etc"}, "no address that can be fetched safely"),
            (GIT | {"subdirectory": "a/.."}, "no address that can be fetched safely"),
            (GIT | {"subdirectory": "/etc"}, "no address that can be fetched safely"),
            ({"origin": "system"}, f"by the operating system in {SITE}"),
            ({"version": "1.0-final-build"}, "no installer of today accepts this"),
            ({"version": "0.1.dev3+g1a2b3c4.d20240101"}, "built from a work tree"),
            ({"version": "1.0+dirty"}, "built from a work tree"),
        ],
    )
    def test_what_cannot_is_no_line_and_has_its_reason(self, fields, reason):
        """What would fail, or bring something else, is a comment and a reason against rebuilding."""
        found = step(package(**fields))
        assert found.line is None
        assert reason in found.loss
        text = requirements_text(PackageSet((package(**fields),)))
        assert reason in text
        assert all(line.startswith("#") for line in text.splitlines())
        assert judge(PackageSet((package("ok"), package(**fields))), python=PYTHON).verdict == "partial"

    @pytest.mark.parametrize(
        ("name", "version", "hint"),
        [
            ("torch", "2.4.0+cu121", "the index that PyTorch keeps for cu121"),
            ("torchvision", "0.19.0+cpu", "the index that PyTorch keeps for cpu"),
            ("torch", "2.4.0+rocm6.1", "the index that PyTorch keeps for rocm6.1"),
            ("torch", "2.4.0+mine", "the index or folder that it came from"),
            ("jaxlib", "0.4.1+cuda11.cudnn86", "the index or folder that it came from"),
        ],
    )
    def test_20_a_local_version_is_kept_and_no_index_is_guessed(self, name, version, hint):
        """Acceptance 20: the version stays whole in the line; the other index is named in a comment, not used."""
        text = requirements_text(PackageSet((package(name, version),)))
        assert f"\n{name}=={version}\n" in text
        assert next(line for line in text.splitlines() if hint in line).startswith(
            "# not restored by this file alone: "
        )
        assert judge(PackageSet((package(name, version),)), python=PYTHON).verdict == "partial"

    def test_20_what_conda_built_is_its_version(self):
        """Acceptance 20: no ``@ file:///croot`` in the file; the note says where the very build stands."""
        text = requirements_text(PackageSet((package(origin="conda", direct_url="file:///croot/x_1/work"),)))
        assert "croot" not in text
        assert "installed by conda, see conda_packages.txt" in text
        assert text.endswith("\nx==1.0\n")

    @pytest.mark.parametrize(
        "url",
        [
            "https://h/x.whl\nevil==1",
            "https://h/x.whl evil",
            "https://h/${AWS_SECRET_ACCESS_KEY}/x.whl",
            "https://h/x.whl\\",
            "https://h/x.whl;python_version>'3'",
            "https://h/`id`.whl",
            "https://h",
            "HTTPS://h/x.whl",
            "https://ü/x.whl",
        ],
    )
    @pytest.mark.parametrize("fields", [GIT, WHEEL])
    def test_no_address_becomes_more_than_one_requirement(self, url, fields):
        """Line breaks, continuations, markers, variables and quotes of a hostile record never reach a requirement."""
        assert requirements(package(**fields | {"direct_url": url})) == []

    def test_random_records_give_only_requirements_and_comments(self):
        """Whatever a record holds, each line of the file is a comment or one requirement of a strict form."""
        rng = random.Random(20261123)
        alphabet = "ab1./:@#&=?%;$\\{}'\" \n\r\t\u2028-+*<>|~!_"
        for _ in range(5000):
            text = "".join(rng.choice(alphabet) for _ in range(rng.randrange(24)))
            fields = {
                "name": rng.choice(["x", text]),
                "version": rng.choice(["1.0", text]),
                "direct_url": rng.choice([None, text, "https://h/" + text, "git+ssh://" + text]),
                "commit": rng.choice([None, COMMIT]),
                "subdirectory": rng.choice([None, text]),
                "vcs": rng.choice([None, "git", "hg", text]),
                "origin": rng.choice([None, "vcs", "archive", "index", "conda", "editable", "directory"]),
            }
            for line in requirements(package(**fields), problems=(text,)):
                assert REQUIREMENT.fullmatch(line), (line, fields)

    def test_versions_are_those_that_installers_accept(self):
        """One version that is none makes an installer refuse the whole file, so ours is the installers' own rule."""
        rng = random.Random(20261123)
        parts = [
            "1",
            "0",
            "2!",
            ".",
            "a",
            "b2",
            "rc1",
            ".post3",
            "-4",
            ".dev5",
            "+g1",
            "+cu121",
            "-",
            "_",
            "v",
            "alpha",
        ]
        accepted = 0
        for _ in range(5000):
            version = "".join(rng.choice(parts) for _ in range(rng.randrange(1, 6)))
            try:
                Version(version)
                expected = True
            except InvalidVersion:
                expected = False
            assert (step(package("x", version, origin="conda")).line is not None) == expected, version
            accepted += expected
        assert accepted > 300


class TestText:
    def test_header_comments_and_then_sorted_lines(self):
        """Header lines first, all comments before the first requirement, requirements by normalised name."""
        packages = (package("zlib-ng"), package("Alpha_b"), package("own", origin="editable", direct_url="file:///o"))
        broken = (BrokenRecord("void-1.dist-info", SITE, "No such file or directory"),)
        text = requirements_text(PackageSet(packages, broken, ("a\nevil==1",)), header=["Captured\nnow"])
        assert text.splitlines() == [
            "# Captured now",
            "# To install: pip install --no-deps -r requirements.txt, or: uv pip sync requirements.txt",
            "# not restored by this file alone: own 1.0: editable, its code is in file:///o",
            f"# not restored by this file alone: void-1.dist-info in {SITE}: No such file or directory",
            "# not readable: a evil==1",
            "Alpha_b==1.0",
            "zlib-ng==1.0",
        ]

    def test_a_shadowed_version_is_not_installed(self):
        """Only what an import would find gets a line; the other one is said."""
        packages = (package(), Package("X", "2.0", "/other", shadowed=True))
        text = requirements_text(PackageSet(packages))
        assert "# X 2.0 in /other: another X comes first on the path" in text
        assert requirements(*packages) == ["x==1.0"]
        assert judge(PackageSet(packages), python=PYTHON) == Rebuildable("yes")


class TestJudge:
    def test_27_it_is_said_at_capture_time(self):
        """Acceptance 27: an editable and a wheel from a local file make it partial, each with its reason."""
        found = PackageSet(
            (
                package("fine"),
                package("own", origin="editable", direct_url="file:///src/own"),
                package("built", origin="archive", direct_url="file:///dist/built-1.0-py3-none-any.whl"),
            )
        )
        verdict = judge(found, python=PYTHON)
        assert verdict.verdict == "partial"
        assert [reason.partition(" ")[0] for reason in verdict.reasons] == ["own", "built"]

    def test_yes_needs_everything(self):
        """Only a known Python, readable records and packages that can all be had again give yes."""
        found = PackageSet((package(), package("y", **GIT)))
        assert judge(found, python=PYTHON) == Rebuildable("yes")
        assert judge(PackageSet(), python=PYTHON) == Rebuildable("yes")

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"broken": (BrokenRecord("v-1.dist-info", SITE, "empty"),)}, "v-1.dist-info"),
            ({"problems": ("/x: Permission denied",)}, "Permission denied"),
            ({"packages": (package(edited=("x.py", "y.py")),)}, "x: 2 installed files were edited"),
            ({"packages": (package(), package(version="2.0", shadowed=True))}, "both 1.0 and 2.0 are recorded"),
            ({"packages": (package(origin="conda"),)}, "conda, whose own records are unknown"),
        ],
    )
    def test_partial_has_a_reason(self, change, reason):
        """Each thing that stands in the way is named, and alone is enough."""
        verdict = judge(PackageSet(**{"packages": (package(),), **change}), python=PYTHON)
        assert verdict.verdict == "partial"
        assert len(verdict.reasons) == 1
        assert reason in verdict.reasons[0]

    def test_leftovers_and_unedited_files_do_not_count(self):
        """What no import can find, and a check that found nothing, stand in nobody's way."""
        leftover = BrokenRecord("~x-1.dist-info", SITE, "left over", leftover=True)
        assert judge(PackageSet((package(edited=()),), (leftover,)), python=PYTHON) == Rebuildable("yes")

    def test_no_is_when_nothing_can_be_had(self):
        """Unknown packages, or only packages that are nowhere else, cannot be rebuilt at all."""
        assert judge(None, python=PYTHON) == Rebuildable("no", ("the packages are unknown",))
        assert judge(PackageSet((package(origin="editable"),)), python=PYTHON).verdict == "no"
        assert judge(PackageSet((package(),)), python=None).verdict == "partial"

    def test_conda_counts(self):
        """A conda prefix with an address for each package is rebuilt by its own file; a local build is not."""
        found = PackageSet((package(origin="conda"),))
        fine = CondaPackage("x", "1.0", "0", url="https://h/c/linux-64/x-1.0-0.conda")
        assert judge(found, Conda("/c", None, (fine,)), python=PYTHON) == Rebuildable("yes")
        local = CondaPackage("y", "1.0", "0", url="file:///bld/y-1.0-0.conda")
        verdict = judge(found, Conda("/c", None, (fine, local), ("p",)), python=PYTHON)
        assert (verdict.verdict, len(verdict.reasons)) == ("partial", 2)

    def test_the_code_counts(self):
        """The verdict on the repository is taken in: its reasons are added, and only yes leaves yes."""
        found = PackageSet((package(),))
        assert judge(found, python=PYTHON, code=Rebuildable("yes")) == Rebuildable("yes")
        assert judge(found, python=PYTHON, code=Rebuildable("no", ("lost",))) == Rebuildable("partial", ("lost",))
        assert judge(None, code=Rebuildable("partial", ("lost",))).reasons == ("the packages are unknown", "lost")


@pytest.mark.parametrize(
    ("fields", "origin"),
    [
        ({}, "index"),
        ({"installer": None}, None),
        ({"installer": "conda"}, "conda"),
        ({"installer": "conda", "editable": True}, "editable"),
        ({"installer": "debian"}, "system"),
        ({"installer": None, "location": "/usr/lib/python3/dist-packages"}, "system"),
        ({"installer": "pip", "location": "/usr/local/lib/python3.11/dist-packages"}, "index"),
        ({"direct_url": "file:///home/x/feedstock_root/build_artifacts/y/work"}, "conda"),
        ({"direct_url": "file:///tmp/build/80754af9/y_1/work"}, "conda"),
        ({"direct_url": "file:///home/me/croot.d/y"}, "directory"),
        ({"direct_url": "https://h/croot/x.whl"}, "archive"),
        ({"direct_url": "https://h/x?file=y"}, "archive"),
        ({"direct_url": "file:///d/x-1.tar.gz"}, "archive"),
        ({"direct_url": "https://h/o/r", "vcs": "git"}, "vcs"),
    ],
)
def test_origins(fields, origin):
    """Where a package came from is told by its installer's notes only, and left open where they leave it open."""
    base = {"installer": "pip", "location": SITE, "direct_url": None, "editable": False, "vcs": None}
    assert origin_of(**base | fields) == origin
