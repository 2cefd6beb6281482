"""Interpreters described by reading files."""

import platform
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from live_process import MINOR

from reprod.capture.process.interpreter import describe_self, read_layout
from reprod.errors import IncompleteError

ROOT = Path(__file__).parents[2]


def make_prefix(path, minor, config=None):
    (path / "bin").mkdir(parents=True)
    site = path / "lib" / f"python{minor}" / "site-packages"
    site.mkdir(parents=True)
    if config is not None:
        (path / "pyvenv.cfg").write_text(config)
    return site


def test_this_process():
    """The calling process describes itself."""
    python = describe_self()
    assert python.version == ".".join(map(str, sys.version_info[:3]))
    assert (python.prefix, python.base_prefix) == (sys.prefix, sys.base_prefix)
    assert (python.implementation, python.executable) == (platform.python_implementation(), sys.executable)
    assert python.build == ", ".join(platform.python_build())
    assert python.compiler == platform.python_compiler()
    assert python.cache_tag == sys.implementation.cache_tag
    assert python.soabi == sysconfig.get_config_var("SOABI")
    assert python.free_threaded == bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    assert python.gil == getattr(sys, "_is_gil_enabled", lambda: True)()


def test_describing_itself_imports_no_build_configuration():
    """The build configuration of sysconfig, hundreds of variables, is not imported into the user's process."""
    code = "import sys; from reprod.capture.process.interpreter import describe_self; describe_self(); "
    code += "print([name for name in sys.modules if name.startswith('_sysconfigdata')])"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, timeout=30, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr


def test_what_only_the_process_knows_is_unknown_from_files(venv):
    """Files tell version, prefixes and the tag of extension modules; the running process's own facts stay unknown."""
    own, read = describe_self(), read_layout(str(venv)).python
    assert (read.version, read.base_prefix, read.soabi, read.free_threaded) == (
        own.version,
        own.base_prefix,
        own.soabi,
        own.free_threaded,
    )
    assert (read.executable, read.build, read.compiler, read.cache_tag, read.gil) == (None, None, None, None, None)


def test_a_free_threaded_build_is_told_by_its_library(tmp_path):
    """The directory of its standard library ends in t, its packages lie in there, and its tag has the t too."""
    site = tmp_path / "lib/python3.13t/site-packages"
    site.mkdir(parents=True)
    (site.parent / "os.py").touch()
    data = site.parent / "_sysconfigdata_t_linux_x86_64-linux-gnu.py"
    data.write_text("build_time_vars = {'SO': '.so',\n 'SOABI': 'cpython-313t-x86_64-linux-gnu',\n}\n")
    (tmp_path / "include/python3.13t").mkdir(parents=True)
    (tmp_path / "include/python3.13t/patchlevel.h").write_text('#define PY_VERSION "3.13.1"\n')
    layout = read_layout(str(tmp_path))
    assert layout.site_dirs == (str(site),)
    assert (layout.python.version, layout.python.free_threaded) == ("3.13.1", True)
    assert layout.python.soabi == "cpython-313t-x86_64-linux-gnu"
    # Debian has a second name for it.
    (site.parent / "_sysconfigdata__other.py").symlink_to(data.name)
    assert read_layout(str(tmp_path)).python.soabi == "cpython-313t-x86_64-linux-gnu"
    # Two configurations, as with a debug build beside it: which of them runs is not known.
    (site.parent / "_sysconfigdata_d_linux.py").write_text("build_time_vars = {'SOABI': 'other'}")
    assert read_layout(str(tmp_path)).python.soabi is None


def test_real_venv_equals_what_it_says_when_asked(venv):
    """Version and site directories read from files are those that the interpreter itself reports."""
    code = "import platform as p, site, sys; "
    code += "print(p.python_version(), sys.base_prefix, *site.getsitepackages(), sep=chr(10))"
    asked = subprocess.run([venv / "bin/python", "-c", code], capture_output=True, text=True, check=True, timeout=20)
    version, base, *sites = asked.stdout.splitlines()
    layout = read_layout(str(venv))
    assert layout.python.version == version
    assert layout.python.base_prefix == base
    assert list(layout.site_dirs) == sites


@pytest.mark.parametrize("line", ["version_info = 3.10.4", "version_info = 3.10.4.final.0", "version=3.10.4"])
def test_versions_of_uv_and_virtualenv(tmp_path, line):
    """Each tool's spelling of the version is understood, for a Python that this machine does not have."""
    site = make_prefix(tmp_path, "3.10", f"home = /nowhere/bin\n{line}\nimplementation = CPython\n")
    layout = read_layout(str(tmp_path))
    assert (layout.python.version, layout.python.implementation) == ("3.10.4", "CPython")
    assert layout.site_dirs == (str(site),)


def test_nothing_of_a_hostile_prefix_runs(tmp_path):
    """A prefix whose interpreter, home, .pth and sitecustomize would all run code is only read."""
    marker = tmp_path / "marker"
    prefix = tmp_path / "evil"
    site = make_prefix(prefix, "3.10", f"home = {tmp_path}/evil/bin\nversion = 3.10.1\n")
    python = prefix / "bin/python"
    python.write_text(f"#!/bin/sh\ntouch {marker}\n")
    python.chmod(0o755)
    (site / "evil.pth").write_text(f"import pathlib; pathlib.Path({str(marker)!r}).touch()\n")
    (site / "sitecustomize.py").write_text(f"open({str(marker)!r}, 'w')\n")
    assert read_layout(str(prefix)).python.version == "3.10.1"
    assert not marker.exists()


def test_base_installation_names_its_version_in_a_header(tmp_path):
    """Without pyvenv.cfg the installation's own header gives the exact version; without it there is none."""
    make_prefix(tmp_path, "3.12")
    with pytest.raises(IncompleteError, match="exact version"):
        read_layout(str(tmp_path))
    (tmp_path / "include/python3.12").mkdir(parents=True)
    (tmp_path / "include/python3.12/patchlevel.h").write_text('#define PY_VERSION              "3.12.7"\n')
    assert read_layout(str(tmp_path)).python.version == "3.12.7"
    assert read_layout(sys.base_prefix).python.version == describe_self().version


@pytest.mark.parametrize("config", [None, "home = /x\nversion = 3.9.1\n", "version = ../../etc\n"])
def test_unclear_prefixes_are_refused(tmp_path, config):
    """Several Pythons, or a version that the files contradict, is no answer."""
    make_prefix(tmp_path, "3.10", config)
    if config is None:
        (tmp_path / "lib/python3.11").mkdir()
    with pytest.raises(IncompleteError):
        read_layout(str(tmp_path))


def test_missing_prefix_and_linked_config(tmp_path):
    """A prefix that is not there, or whose configuration is a link, is refused with the reason."""
    with pytest.raises(IncompleteError, match="no Python"):
        read_layout(str(tmp_path / "gone"))
    make_prefix(tmp_path, "3.10")
    (tmp_path / "pyvenv.cfg").symlink_to("/etc/passwd")
    with pytest.raises(IncompleteError, match=r"pyvenv\.cfg"):
        read_layout(str(tmp_path))


def test_pth_lines_and_system_packages(tmp_path):
    """Directories named by .pth files and, where switched on, the base's packages are searched too."""
    base, prefix, extra = tmp_path / "base", tmp_path / "v", tmp_path / "src"
    base_site = make_prefix(base, MINOR)
    extra.mkdir()
    config = f"home = {base}/bin\nversion = {MINOR}.1\ninclude-system-site-packages = true\n"
    site = make_prefix(prefix, MINOR, config)
    (site / "x.pth").write_text(f"# no\n{extra}\n/not/there\nimport os\n")
    (prefix / "lib64").symlink_to("lib")
    assert read_layout(str(prefix)).site_dirs == (str(site), str(extra), str(base_site))
