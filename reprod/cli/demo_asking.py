"""The second half of ``reprod demo``: what can be asked of recorded runs, and how damage is found.

Each answer is judged by its JSON against what the first half did, so one that names another file ends the demo. Times
are seconds.
"""

import json
from typing import Any

from reprod.cli import codes
from reprod.cli import demo_material as material
from reprod.cli.demo_material import ADDED_FILE, CHANGED_FILE, FLIPPED_FILE, REMOVED_FILE
from reprod.cli.demo_recording import Recording, await_artifact
from reprod.cli.demo_telling import Telling, expect

MANIFEST = "manifest.json"


class Asking:
    """The steps after three runs are recorded."""

    def __init__(self, recording: Recording, telling: Telling) -> None:
        self.stage = recording.stage
        self.telling = telling
        self.tables = recording.tables
        self.runs = recording.runs

    def list_all(self) -> str:
        """List runs and versions, and judge that the restored file led back to an old digest."""
        self.telling.command("runs")
        self.telling.command("log", "tables")
        versions = self.stage.reprod("log", "tables", "--json").document["versions"]
        digests = {item["version"]: item["digest"] for item in versions}
        expect(digests[3] == digests[5] != digests[4], f"the digests are {digests}")
        return "version 5 is 3 again: only who watched knows that the third run may have read 4"

    def compare_runs(self) -> str:
        """Ask what could explain that the second run came out otherwise than the first."""
        first, second, _ = self.runs
        for each in self.runs:
            await_artifact(self.stage, each.run_id, "environment/environment.json", _has_told_its_end)
        found = self.telling.answer("diff", first.ref, second.ref, code=codes.DIFFERS)
        (data,) = found["data"]
        listing = data["difference"]
        counts = {key: listing["summary"][key] for key in ("added", "removed", "renamed", "modified")}
        paths = [item["path"] for item in listing["modified"]]
        expect(paths == [CHANGED_FILE] and sum(counts.values()) == 1, f"{counts}: {paths}")
        expect((data["digest_a"], data["digest_b"]) == (first.digest, second.digest), "the digests are others")
        return f"the data: exactly one file differs, {CHANGED_FILE}"

    def compare_environments(self) -> str:
        """Ask how far apart the environments of two runs are."""
        _, second, third = self.runs
        found = self.telling.answer("env", "diff", second.ref, third.ref, code=codes.DIFFERS)
        whats = [item["what"] for item in found["differences"] if item["class"] == "numeric"]
        expect(found["verdict"] == "numeric" and bool(whats), f"the verdict is {found['verdict']}: {whats}")
        return "the setting of the third run is found, and what it may do to a result"

    def ask_who(self) -> str:
        """Ask which runs had a file as it is now."""
        first, second, third = self.runs
        found = self.telling.answer("who", "tables", CHANGED_FILE, code=codes.FINE)
        held = {row["run_id"]: bool(row["held"]) for row in found["runs"]}
        due = {first.run_id: False, second.run_id: True, third.run_id: True}
        expect(held == due, f"it said {held}")
        return "two runs had it as it is now, the first as it was before"

    def show_run(self) -> str:
        """Ask all about one run."""
        third = self.runs[2]
        found = self.telling.answer("show", third.ref, code=codes.FINE)
        (data,) = found["drift"]["datasets"]
        expect((found["state"], data["verdict"]) == ("captured", "changed"), "it was recorded otherwise")
        return "what it was trained on, with what, and whether it can be had again"

    def describe(self) -> str:
        """Write a manifest of some of the files, and find it valid."""
        patterns = ("--include", "*.csv", "*.gz", "--exclude", "diabetes*")
        self.telling.command("manifest", "tables", *patterns, "--algorithm", "md5", "--output", MANIFEST)
        files = json.loads((self.stage.folder / MANIFEST).read_text("utf-8"))["files"]
        names = {item["relative_path"] for item in files}
        expect({CHANGED_FILE, FLIPPED_FILE, REMOVED_FILE, ADDED_FILE} <= names, f"it lists {names}")
        expect(not any(name.startswith("diabetes") or name.endswith(".py") for name in names), f"it lists {names}")
        expect(all(set(item["hashes"]) == {"md5", "sha256"} for item in files), "a hash is missing")
        found = self._validated(codes.FINE)
        expect(found["checked_files"] == len(files), "not all of them were checked")
        return f"{len(files)} files with size, time, md5 and sha256; the folder is valid"

    def flip(self) -> str:
        """Change content behind the back of size and mtime, and find that only reading tells."""
        path = self.tables / FLIPPED_FILE
        before = path.stat()
        place, byte = material.flip_bit(path)
        after = path.stat()
        same = (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        expect(same, "size or mtime is not as before")
        self._validated(codes.FINE, "--quick")
        found = self._validated(codes.DIFFERS)
        expect(_paths(found) == ([FLIPPED_FILE], []), f"it named {_paths(found)}")
        return f"byte {place:,} of {FLIPPED_FILE} is {byte ^ 1:#04x}, was {byte:#04x}: only reading the bytes told it"

    def verify_elsewhere(self) -> str:
        """Remove a file, and ask without daemon and state whether the files are still those of a run."""
        (self.tables / REMOVED_FILE).unlink()
        found = self.telling.answer("verify", self.runs[2].ref, code=codes.DIFFERS, alone=True)
        expect(_paths(found) == ([FLIPPED_FILE], [REMOVED_FILE]), f"it named {_paths(found)}")
        state = self.stage.elsewhere / "state"
        expect(not state.exists(), f"a state was made in {state}")
        return f"no: {FLIPPED_FILE} has another content, and {REMOVED_FILE} is missing"

    def _validated(self, code: int, *flags: str) -> dict[str, Any]:
        return self.telling.answer("manifest", "tables", "--validate", MANIFEST, *flags, code=code)


def _has_told_its_end(content: bytes) -> bool:
    """Whether a training's own process has told what it had really loaded: ``content`` is environment.json."""
    try:
        imports = json.loads(content)["execution"]["imports"]
    except ValueError:  # half written
        return False
    return bool(imports and imports["complete"])


def _paths(found: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return what another content has and what is missing; anything else that differs counts as the latter."""
    return [item["path"] for item in found["mismatched"]], [*found["missing"], *found["extra"]]
