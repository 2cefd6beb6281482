"""Which dependencies were really used: loaded files against the installers' own lists."""

import csv
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from live_process import MINOR

from reprod.capture.imports.loaded import Loaded, loaded_modules
from reprod.capture.imports.mapped import MappedFiles, mapped_files
from reprod.capture.imports.named import scan_imports
from reprod.capture.imports.used import read_imports, read_mapped_imports
from reprod.errors import IncompleteError

#: A program that prints what it used as JSON, after the code before it.
REPORT = """
import json
from dataclasses import asdict
from reprod.capture.imports.used import read_imports
print(json.dumps(asdict(read_imports())))
"""


def install(site, name, version, files, *, listed=True):
    """Install one distribution as an installer does: its files, its metadata, and the list of both."""
    record = site / f"{name.replace('-', '_')}-{version}.dist-info"
    record.mkdir(parents=True, exist_ok=True)
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: not-this\n")
    for path, text in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
    if listed:
        with (record / "RECORD").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([*((path, "sha256=x", "1") for path in files), (f"{record.name}/RECORD", "", "")])
    return record


def used(found):
    return {item.name: (item.version, item.by) for item in found.distributions}


@pytest.fixture
def site(tmp_path):
    """A site directory with distributions whose names are not those of their modules."""
    site = tmp_path / "site-packages"
    install(site, "scikit-fake", "1.5+cu121", {"fakelearn/__init__.py": "", "fakelearn/tree.py": ""})
    install(site, "space-one", "1.0", {"space/one/__init__.py": ""})
    install(site, "space-two", "2.0", {"space/two/__init__.py": ""})
    install(site, "single", "0.1", {"only_module.py": ""})
    install(site, "never-imported", "9.9", {"never/__init__.py": "", "fakelearn_extra/__init__.py": ""})
    (site / "orphan.py").write_text("")
    return site


def run(program, site, tmp_path, **variables):
    """Run ``program`` as a script beside a local module and return what it says that it used."""
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    (work / "mine.py").write_text("import only_module\n")
    (work / "train.py").write_text(program + REPORT)
    environ = {**os.environ, "PYTHONPATH": str(site), **variables}
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=work, env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(done.stdout)


def test_a_real_process_names_exactly_the_distributions_it_loaded(site, tmp_path):
    """Names differ from modules, a namespace is shared, own code and orphans are told apart, the rest is not used."""
    found = run("import fakelearn.tree, space.two, orphan, mine, json\n", site, tmp_path)
    fakes = {item["name"]: item for item in found["distributions"] if item["location"] == str(site)}
    assert {name: (item["version"], item["files"], item["by"]) for name, item in fakes.items()} == {
        "scikit-fake": ("1.5+cu121", 2, "record"),
        "space-two": ("2.0", 1, "record"),
        "single": ("0.1", 1, "record"),
    }
    work = str(tmp_path / "work")
    assert [file for file in found["local_files"] if file.startswith(work)] == [f"{work}/mine.py", f"{work}/train.py"]
    assert found["local_count"] == len(found["local_files"])
    assert found["unresolved"] == ["orphan"]
    assert (found["how"], found["complete"]) == ("in-process", True)
    assert found["standard_library"] > 20


def test_this_process_agrees_with_the_lists_of_all_distributions():
    """What is found with few lists read is what a map of every file of every distribution says."""
    owners = {}
    for dist in importlib.metadata.distributions():
        name = dist.name  # read anew at each access
        # Not dist.files: that looks for each of 30,000 files on the disk.
        for row in csv.reader((dist.read_text("RECORD") or "").splitlines()):
            owners.setdefault(os.path.normpath(dist.locate_file(row[0])), set()).add(name)
    hooks = ("_distutils_hack", "__editable__", "_editable_impl_", "_virtualenv")
    files = {file for file in loaded_modules().files if not any(hook in file for hook in hooks)}
    files |= {path for path in mapped_files().paths if "site-packages" in path and ".so" in path}
    claims = [owners[file] for file in files if file in owners]
    found = {item.name for item in read_imports().distributions if item.by == "record"}
    # Of several that list a file (MLflow is installed by three) the one that has the module's name may stand alone.
    assert all(found & claim for claim in claims)
    assert found <= set().union(*claims)
    assert len(found) > 5


def test_looking_runs_no_module_and_imports_nothing(site, tmp_path):
    """Modules that import on any attribute, modules not loaded yet, and odd things in sys.modules stay as they are."""
    program = """
import importlib.util, sys, types
class Loud(types.ModuleType):
    def __getattribute__(self, name):
        raise SystemExit("touched " + name)
class Odd:
    __slots__ = ()
    @property
    def __dict__(self):
        raise RuntimeError("touched")
import only_module
only_module.__getattr__ = lambda name: sys.exit("asked for " + name)
spec = importlib.util.find_spec("fakelearn")
spec.loader = importlib.util.LazyLoader(spec.loader)
lazy = sys.modules["fakelearn"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lazy)
sys.modules["loud"], sys.modules["odd"], sys.modules["none"] = Loud("loud"), Odd(), None
from dataclasses import asdict
import json, reprod.capture.imports.used
before = set(sys.modules)
reprod.capture.imports.used.read_imports()
assert set(sys.modules) == before, set(sys.modules) - before
assert type(lazy).__name__ == "_LazyModule"
"""
    found = run(program, site, tmp_path)
    assert [item["name"] for item in found["distributions"] if item["location"] == str(site)] == ["single"]


def test_what_a_process_took_can_be_resolved_in_another(site):
    """A training process takes the facts and a child works on them; without its mapped files it is not complete."""
    loaded = Loaded((f"{site}/fakelearn/tree.py", "/code/train.py"), (str(site),), ("/usr/lib/python3",))
    again = Loaded(**{key: tuple(value) for key, value in json.loads(json.dumps(asdict(loaded))).items()})
    found = read_imports(again)
    assert used(found) == {"scikit-fake": ("1.5+cu121", "record")}
    assert found.local_files == ("/code/train.py",)
    assert not found.complete
    assert len(found.problems) == 1
    assert read_imports(again, MappedFiles(())).complete


def test_libraries_that_are_no_modules_count_for_their_distribution(site):
    """A library that only the linker loads (a BLAS, CUDA's) shows which distribution it came with."""
    install(site, "nvidia-fake-cu12", "12.1", {"nvidia/fake/lib/libfake.so.12": ""})
    mapped = MappedFiles(("/usr/lib/libc.so.6", f"{site}/nvidia/fake/lib/libfake.so.12"))
    found = read_imports(Loaded((), (str(site),), ()), mapped)
    assert used(found) == {"nvidia-fake-cu12": ("12.1", "record")}
    assert (found.local_files, found.unresolved) == ((), ())


def test_a_real_path_and_a_link_to_it_are_one_directory(site, tmp_path):
    """The kernel names real paths, the interpreter the path through a link (lib64): both lead to one distribution."""
    link = tmp_path / "lib64"
    link.symlink_to(site.parent)
    place = str(link / "site-packages")
    mapped = MappedFiles((f"{site}/fakelearn/tree.so",))
    install(site, "scikit-fake", "1.5+cu121", {"fakelearn/__init__.py": "", "fakelearn/tree.so": ""})
    found = read_imports(Loaded((f"{place}/fakelearn/__init__.py",), (place,), ()), mapped)
    assert [(item.name, item.location, item.files) for item in found.distributions] == [("scikit-fake", place, 2)]


def test_two_lists_that_name_one_file_are_both_said(site):
    """Which of two distributions wrote a file cannot be told: both are listed, with the reason."""
    install(site, "vision", "1", {"cv/__init__.py": ""})
    install(site, "vision-headless", "2", {"cv/__init__.py": ""})
    found = read_imports(Loaded((f"{site}/cv/__init__.py",), (str(site),), ()), MappedFiles(()))
    assert set(used(found)) == {"vision", "vision-headless"}
    assert found.problems == (f"{site}: vision-1 and vision_headless-2 list the same files of cv",)


def test_names_that_lists_have_to_quote(site):
    """A comma or quote in a path does not hide its file."""
    install(site, "quoted", "1", {'odd/a,"b.py': "", "odd/plain.py": ""})
    loaded = Loaded((f'{site}/odd/a,"b.py', f"{site}/odd/plain.py"), (str(site),), ())
    assert [item.files for item in read_imports(loaded, MappedFiles(())).distributions] == [2]


EDITABLES = {
    "path": ({"_editable_impl_proj.pth": "{src}\n"}, "editable"),
    "finder": (
        {
            "__editable__.proj-1.pth": "import __editable___proj_finder; __editable___proj_finder.install()",
            "__editable___proj_finder.py": "MAPPING: dict[str, str] = {{'proj': '{src}/proj'}}\nraise SystemExit\n",
        },
        "editable",
    ),
    "hook": ({"_proj.pth": "import _proj_loader"}, "editable"),
}


@pytest.mark.parametrize("style", EDITABLES)
def test_the_sources_of_an_editable_install_are_its_distribution_and_own_code(site, tmp_path, style):
    """However the back end points to the sources; its files are listed too, because a version says little of them."""
    src = tmp_path / "project" / "src"
    (src / "proj").mkdir(parents=True)
    pointers, by = EDITABLES[style]
    record = install(site, "proj", "1", {name: text.format(src=src) for name, text in pointers.items()})
    url = (src if style != "hook" else src.parent).as_uri()
    (record / "direct_url.json").write_text(json.dumps({"url": url, "dir_info": {"editable": True}}))
    loaded = Loaded((f"{src}/proj/__init__.py", "/elsewhere/train.py"), (str(site), str(src)), ())
    found = read_imports(loaded, MappedFiles(()))
    assert used(found) == {"proj": ("1", by)}
    assert found.local_files == ("/elsewhere/train.py", f"{src}/proj/__init__.py")


def test_a_finder_may_provide_a_single_module(site, tmp_path):
    """A finder's path of a single module has no suffix; a file whose name merely begins alike is not it."""
    finder = {"__editable___proj_finder.py": f"MAPPING = {{'mod': '{tmp_path}/mod'}}\n"}
    record = install(site, "proj", "1", finder)
    (record / "direct_url.json").write_text(json.dumps({"url": tmp_path.as_uri(), "dir_info": {"editable": True}}))
    files = (f"{tmp_path}/mod.py", f"{tmp_path}/mod_other.py")
    found = read_imports(Loaded(files, (str(site),), ()), MappedFiles(()))
    assert used(found) == {"proj": ("1", "editable")}
    assert [item.files for item in found.distributions] == [1]


def test_an_installed_command_is_not_own_code(site, tmp_path):
    """A program that an installer wrote into ``bin`` counts to its distribution, also to an editable one."""
    command, mine = tmp_path / "bin" / "tool", tmp_path / "bin" / "mine"
    (tmp_path / "src" / "proj").mkdir(parents=True)
    record = install(site, "proj", "1", {"_proj.pth": f"{tmp_path}/src\n"})
    with (record / "RECORD").open("a") as file:
        file.write("../bin/tool,sha256=x,1\n")
    (record / "direct_url.json").write_text(
        json.dumps({"url": (tmp_path / "src").as_uri(), "dir_info": {"editable": True}})
    )
    files = (str(command), str(mine), f"{tmp_path}/src/proj/__init__.py")
    found = read_imports(Loaded(files, (f"{tmp_path}/bin", str(site)), ()), MappedFiles(()))
    assert used(found) == {"proj": ("1", "editable")}
    assert [item.files for item in found.distributions] == [2]
    assert found.local_files == (str(mine), f"{tmp_path}/src/proj/__init__.py")


def test_an_environment_inside_an_editable_project_is_not_the_project(site, tmp_path):
    """A project with its virtual environment below it does not own what is installed there."""
    record = install(site, "proj", "1", {"_proj.pth": f"{tmp_path}\n"})
    (record / "direct_url.json").write_text(json.dumps({"url": tmp_path.as_uri(), "dir_info": {"editable": True}}))
    files = (f"{site}/fakelearn/tree.py", f"{tmp_path}/proj.py", f"{site}/orphan.py")
    found = read_imports(Loaded(files, (str(site), str(tmp_path)), ()), MappedFiles(()))
    assert used(found) == {"scikit-fake": ("1.5+cu121", "record"), "proj": ("1", "editable")}
    assert found.unresolved == ("orphan",)


def test_records_without_a_list_of_files_are_said_to_be_weaker_evidence(tmp_path):
    """A distribution's package without RECORD (Debian, egg-info) is told by the top-level name, and says so."""
    site = tmp_path / "dist-packages"
    record = install(site, "debian-thing", "3.0", {"thing/__init__.py": ""}, listed=False)
    (record / "top_level.txt").write_text("thing\n")
    old = site / "oldegg.egg-info"
    old.write_text("Metadata-Version: 1.1\nName: oldegg\nVersion: 0.9\n")
    legacy = site / "legacy-1.egg-info"
    legacy.mkdir()
    (legacy / "PKG-INFO").write_text("Name: legacy\nVersion: 1\n")
    (legacy / "installed-files.txt").write_text("../legacy_module.py\nPKG-INFO\n")
    files = (f"{site}/thing/__init__.py", f"{site}/oldegg.py", f"{site}/legacy_module.py")
    found = read_imports(Loaded(files, (str(site),), ()), MappedFiles(()))
    assert used(found) == {
        "debian-thing": ("3.0", "top-level"),
        "oldegg": ("0.9", "top-level"),
        "legacy": ("1", "record"),
    }


def test_hostile_records_neither_hang_nor_leak(site, tmp_path):
    """Links and FIFOs in place of lists and metadata are problems; what they lead to does not come out."""
    secret = tmp_path / "secret"
    secret.write_text("Name: CANARY\nVersion: 1\nevil/__init__.py,,\n")
    (install(site, "evil", "1", {"evil/__init__.py": ""}) / "METADATA").unlink()
    (site / "evil-1.dist-info" / "METADATA").symlink_to(secret)
    record = install(site, "fifo", "1", {"fifo/__init__.py": ""})
    (record / "RECORD").unlink()
    os.mkfifo(record / "RECORD")
    (record / "direct_url.json").symlink_to(secret)
    begin = time.monotonic()
    files = (f"{site}/evil/__init__.py", f"{site}/fifo/__init__.py", "/elsewhere/x.py")
    found = read_imports(Loaded(files, (str(site),), ()), MappedFiles(()))
    assert time.monotonic() - begin < 60
    assert used(found) == {"evil": (None, "record")}
    assert found.unresolved == ("fifo",)
    assert "CANARY" not in repr(found)
    assert any("fifo-1.dist-info/RECORD: not a regular file" in problem for problem in found.problems)


def test_lists_without_end_cost_their_bound(site, monkeypatch):
    """Lists that are made to be huge are read up to a bound for the whole directory, and that is said."""
    monkeypatch.setattr("reprod.capture.packages.records.SITE_BYTES", 1000)
    for number in range(5):
        record = install(site, f"huge-{number}", "1", {})
        (record / "RECORD").write_text("x,,\n" * 1000)
    found = read_imports(Loaded((f"{site}/zzz.py",), (str(site),), ()), MappedFiles(()))
    assert found.unresolved == ("zzz",)
    assert sum("its lists of files are larger" in problem for problem in found.problems) == 1


def extension_module():
    """Return a small compiled module of this interpreter, to be copied; skip where there is none."""
    folder = Path(os.__file__).parent / "lib-dynload"
    found = sorted(folder.glob(f"_*.cpython-{MINOR.replace('.', '')}*.so"), key=lambda path: path.stat().st_size)
    if not found:
        pytest.skip("this interpreter has no compiled modules as files")
    return found[0]


def test_another_process_shows_what_it_has_mapped_as_a_lower_bound(site, tmp_path, start):
    """From outside extension modules tell distributions and own code; one replaced under the process is said."""
    source = extension_module()
    suffix = source.name.partition(".")[2]
    install(site, "compiled", "4.2", {f"compiled/_core.{suffix}": "", "compiled/__init__.py": ""})
    own = tmp_path / f"mine.{suffix}"
    for target in (site / "compiled" / f"_core.{suffix}", own):
        shutil.copy(source, target)
    code = "import ctypes,sys;[ctypes.CDLL(p) for p in sys.argv[1:]];print('ready',flush=True);sys.stdin.read()"
    process = start(sys.executable, "-I", "-S", "-c", code, site / "compiled" / f"_core.{suffix}", own)
    found = read_mapped_imports(process.pid, [str(site)])
    assert used(found) == {"compiled": ("4.2", "record")}
    assert found.local_files == (str(own),)
    assert (found.how, found.complete, found.problems) == ("maps", False, ())
    (site / "compiled" / f"_core.{suffix}").unlink()
    (problem,) = read_mapped_imports(process.pid, [str(site)]).problems
    assert problem == f"{site}/compiled/_core.{suffix} was replaced or removed since it was loaded"


def test_mapped_files_that_cannot_be_read_are_a_reason(tmp_path):
    """No process, no list: the reason is an error, not an empty list."""
    with pytest.raises(IncompleteError, match="mapped files are not readable"):
        read_mapped_imports(7, [], proc=str(tmp_path))


SCRIPT = """
open({marker!r}, "w")
import os.path, fakelearn.tree
from space import one
from typing import TYPE_CHECKING
import importlib
from helper import build
if TYPE_CHECKING:
    import never
def late():
    import no_such_module.part
    return importlib.import_module("only_module")
"""


def test_a_script_is_scanned_and_never_run(site, tmp_path):
    """Imports anywhere in the script and in own files that it leads to; what is found nowhere is named."""
    marker = tmp_path / "marker"
    code = tmp_path / "code"
    (code / "helper").mkdir(parents=True)
    (code / "train.py").write_text(SCRIPT.format(marker=str(marker)))
    (code / "helper" / "__init__.py").write_text("from .inner import thing\nfrom . import VALUE\n")
    (code / "helper" / "inner.py").write_text("import space.two, space.three\nfrom .. import helper\n")
    found = scan_imports(str(code / "train.py"), [str(site)])
    assert set(used(found)) == {"scikit-fake", "space-one", "space-two", "single"}
    assert found.local_files == tuple(
        f"{code}/{name}" for name in ("helper/__init__.py", "helper/inner.py", "train.py")
    )
    assert found.unresolved == ("no_such_module", "space.three")
    assert (found.how, found.complete, found.problems) == ("static", False, ())
    assert found.standard_library == 3
    assert not marker.exists()


def test_a_script_finds_modules_that_a_finder_provides(site, tmp_path):
    """An editable install that is no directory on the path is found by its literal mapping."""
    src = tmp_path / "project"
    (src / "proj").mkdir(parents=True)
    (src / "proj" / "__init__.py").write_text("import only_module\n")
    finder = {"__editable___proj_finder.py": f"MAPPING = {{'proj': '{src}/proj'}}\n"}
    record = install(site, "proj", "1", finder)
    (record / "direct_url.json").write_text(json.dumps({"url": src.as_uri(), "dir_info": {"editable": True}}))
    script = tmp_path / "go.py"
    script.write_text("import proj\n")
    found = scan_imports(str(script), [str(site)])
    assert used(found) == {"proj": ("1", "editable"), "single": ("0.1", "record")}


def notebook(*cells, language="python"):
    made = [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]
    return json.dumps(
        {
            "cells": [{"cell_type": "markdown", "source": "import never"}, *made],
            "metadata": {"kernelspec": {"language": language}},
            "nbformat": 4,
        }
    )


def test_a_notebook_with_magics_survives(site, tmp_path):
    """Magics, shell lines, other languages and help are left out; a broken cell still gives its import lines."""
    path = tmp_path / "work.ipynb"
    path.write_text(
        notebook(
            "%matplotlib inline\nimport fakelearn\nfiles = !ls *.csv\nif files:\n    %time x = 1\nfakelearn?\n",
            "%%bash\nimport never\n",
            "%%time\nfrom space.one import *\n",
            "!pip install never\nimport only_module, missing_thing\nthis is no python\n",
            "",
        )
    )
    found = scan_imports(str(path), [str(site)])
    assert set(used(found)) == {"scikit-fake", "space-one", "single"}
    assert found.unresolved == ("missing_thing",)
    (problem,) = found.problems
    assert "cell 5" in problem
    assert "only lines that begin with an import" in problem


@pytest.mark.parametrize("text", ["not json", "[]", '{"cells": 5}', notebook("x <- 1", language="R"), "[" * 10**6])
def test_what_is_no_python_notebook_is_a_reason(tmp_path, text):
    """Another language or a damaged file is an error with the reason, never an empty result."""
    path = tmp_path / "work.ipynb"
    path.write_text(text)
    with pytest.raises(IncompleteError, match="was not scanned"):
        scan_imports(str(path), [])


def test_source_that_is_not_valid_still_names_its_imports(site, tmp_path):
    """Python 2, hostile nesting and an own file that is a FIFO cost a problem, not the scan."""
    (tmp_path / "deep.py").write_text("x = " + "(" * 5000 + ")" * 5000)
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "old.py").write_text("import fakelearn, space.one\nimport deep, pipe\nprint 'hello'\n")
    found = scan_imports(str(tmp_path / "old.py"), [str(site)])
    assert set(used(found)) == {"scikit-fake", "space-one"}
    assert any("old.py: line 3 is not valid" in problem for problem in found.problems)
    assert found.unresolved == ("pipe",)
