"""A state directory with one dataset, sealed by real scans of real files: what exports read."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from reprod.config import DatasetConfig
from reprod.ops.plan import Order
from reprod.ops.refresh import Settings, refresh
from reprod.store import files, registry, versions

#: Every kind of name that some format or tool stumbles over.
HOSTILE: dict[bytes, bytes] = {
    b"plain.csv": b"a,b\n1,2\n",
    b"new\nline": b"1",
    b"cr\rname": b"2",
    b"back\\slash": b"3",
    b"\xff\xfe.bin": b"4",
    b" sp ace .txt": b"5",
    b"-dash": b"6",
    b"*star": b"6",
    "é".encode(): b"7",
    "e\u0301".encode(): b"8",
    b"empty": b"",
    b"100%.csv": b"9",
    b"a-b/c": b"2",
    b"a/z": b"1",
    b"a/b/q": b"3",
    b"a/b.txt": b"5",
    b"a.txt": b"4",
}

#: Of these, what a bag can hold.
BAGGABLE = {
    path: data for path, data in HOSTILE.items() if b"\xff" not in path and path not in {b"100%.csv", "é".encode()}
}


class ExportPlace:
    """``root`` holds the files of the dataset ``data``; ``state`` is where its versions are."""

    def __init__(self, base: Path, algorithms: tuple[str, ...] = ("sha256",), only: str = "") -> None:
        self.base, self.root, self.state = base, base / "data", base / "state"
        self.root.mkdir()
        path = str(self.root / only) if only else str(self.root)
        self._records = files.open_registry(self.state).db
        self._db = files.open_dataset(self.state, self._records, "data", os.fsencode(path)).db
        self._config = DatasetConfig("data", path, algorithms=algorithms)

    def fill(self, contents: Mapping[bytes, bytes]) -> "ExportPlace":
        for path, data in contents.items():
            full = os.path.join(os.fsencode(self.root), path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "wb") as file:
                file.write(data)
        return self

    def seal(self) -> versions.Version:
        version = refresh(self._db, self._config, Order(), Settings(str(self.state), 1)).version
        self._records.write(lambda c: registry.sealed(c, "data", version))
        return version

    def ask_for(self, *algorithms: str) -> None:
        """Have further digests from the next scan on."""
        self._config = replace(self._config, algorithms=algorithms)

    def mark(self, statement: str) -> None:
        """Change a row, as pruning or a failed read would have."""
        self._db.write(lambda c: c.execute(statement))

    def close(self) -> None:
        self._db.close()
        self._records.close()


def tree_of(folder: Path) -> dict[str, bytes | str]:
    """Everything below a folder: contents of files, targets of links."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = os.fsencode(path.relative_to(folder)).decode("latin-1")
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = path.read_bytes()
    return found
