"""Wheels and source projects made by hand, and the real installers that install them, with no network.

A project carries this very file as its build backend (PEP 517 and 660), so that nothing has to be fetched to build it.
"""

import base64
import csv
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path


def write_wheel(folder, name, version, files, generator="hand"):
    """Write a wheel with ``files`` (path -> text) into ``folder``; return its path. Equal input, equal bytes."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    texts = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: {generator}\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if "scripts" in texts:
        texts[f"{info}/entry_points.txt"] = texts.pop("scripts")
    rows = []
    for path, text in texts.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append([path, f"sha256={digest}", len(text.encode())])
    record = io.StringIO()
    csv.writer(record, lineterminator="\n").writerows([*rows, [f"{info}/RECORD", "", ""]])
    texts[f"{info}/RECORD"] = record.getvalue()
    path = Path(folder) / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), text)
    return path


def write_project(folder, name, version):
    """Write a source project of one module into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text("value = 1\n")
    (folder / "project.json").write_text(json.dumps({"name": name, "version": version}))
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\nversion = "{version}"\n'
        '[build-system]\nrequires = []\nbuild-backend = "hand_wheel"\nbackend-path = ["."]\n'
    )
    shutil.copy(__file__, folder / "hand_wheel.py")
    return folder


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """The hook of PEP 517."""
    project = json.loads(Path("project.json").read_text())
    module = f"{project['name']}.py"
    return write_wheel(wheel_directory, **project, files={module: Path(module).read_text()}).name


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    """The hook of PEP 660."""
    project = json.loads(Path("project.json").read_text())
    return write_wheel(wheel_directory, **project, files={f"_{project['name']}.pth": f"{Path.cwd()}\n"}).name


def make_prefix(path):
    """Make a real virtual environment without pip; return its site directory."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True, timeout=60)
    return next(Path(path).glob("lib/python3*/site-packages"))


def find_uv():
    """Return the uv on the path or beside this interpreter, or None."""
    return shutil.which("uv") or shutil.which("uv", path=os.path.dirname(sys.executable))


def run_installer(kind, prefix, *arguments):
    """Run ``pip`` or ``uv pip`` for ``prefix``, with no index and no configuration but this; return its stdout."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "UV_"))}
    environ |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environ |= {"PIP_NO_CACHE_DIR": "1", "UV_NO_CONFIG": "1", "UV_OFFLINE": "0", "UV_NO_INDEX": "1"}
    environ |= {"UV_CACHE_DIR": f"{prefix}.uv-cache", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TERMINAL_PROMPT": "0"}
    if kind == "pip":
        command = [sys.executable, "-m", "pip", "--python", f"{prefix}/bin/python", *arguments]
    else:
        command = [find_uv(), "pip", *arguments, "--python", f"{prefix}/bin/python"]
    done = subprocess.run(
        [str(part) for part in command], env=environ, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
