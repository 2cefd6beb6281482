"""Records of distributions in site directories, made by hand."""

import time
from pathlib import Path


def write_dist(site: Path, name: str, version: str, **files: str) -> Path:
    """Write one dist-info as an installer does; ``files`` are further files by name (``__`` stands for a dot)."""
    record = site / f"{name.replace('-', '_')}-{version}.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: not-this\n")
    for file, text in files.items():
        (record / file.replace("__", ".")).write_text(text)
    return record


def let_age(path: Path) -> None:
    """Return when a change of ``path`` is plainly older than whatever starts from now on."""
    while time.time_ns() - path.stat().st_ctime_ns < 100_000_000:
        time.sleep(0.01)
