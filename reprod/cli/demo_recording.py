"""The first half of ``reprod demo``: a daemon, its datasets, and three trainings that it records.

Each training names its dataset in another way, and something else happens to the data meanwhile: nothing, a new file,
and a value that is changed and changed back. What must be on a run is read from the MLflow server. Times are seconds.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reprod.cli import demo_material as material
from reprod.cli import render
from reprod.cli.demo_material import ADDED_FILE, CHANGED_FILE, PLAIN, TAGGED
from reprod.cli.demo_process import Training
from reprod.cli.demo_stage import Stage
from reprod.cli.demo_telling import Telling, expect
from reprod.errors import TrackingError

#: Measured on two cores: 2.5 s until a run starts (imports), 1 s for the forest, captured within 0.5 s, a change seen
#: within 1.2 s, scanned in 0.5 s. The rest is for busy machines.
STARTED_S = 90.0
TRAINED_S = 90.0
CAPTURED_S = 60.0
SEEN_S = 60.0
SCANNED_S = 60.0

THREADS = 1

#: What is shown of a run: the tag, and what its value means where that is always the same.
_TAGS = {
    "reprod.state": "all that is said of it is proven",
    "reprod.digest": "stands for all names and contents",
    "reprod.version": "of the dataset",
    "reprod.bound": "what the disk held at its start",
    "reprod.assurance": "every file was looked at after that",
    "reprod.dataset_from": "",
    "reprod.drift": "",
    "reprod.error": "",
}
_MEANINGS = {
    ("reprod.dataset_from", "run"): "who named the dataset: the run's tag",
    ("reprod.dataset_from", "experiment"): "who named the dataset",
    ("reprod.drift", "none"): "nothing changed while it ran",
    ("reprod.drift", "appended"): "only new files came while it ran",
    ("reprod.drift", "changed"): "the data was another meanwhile",
}
#: Of these the later runs differ from the first.
_AGAIN = ("reprod.digest", "reprod.version", "reprod.dataset_from", "reprod.drift", "reprod.error")
_VALUE = 17

#: Each a line of what is shown.
_VALUES = (
    ("params", ("python_version", "cpu_count", "gpu_count")),
    ("params", ("git_commit", "git_uncommitted_changes")),
    ("metrics", ("data_files_count", "data_size_bytes")),
)
REPORT = "reprod/report.html"
_DUE = ("environment/requirements.txt", "environment/system_info.json", "data_manifest/data_manifest.json", REPORT)
_SECTIONS = "platform, python, cpu, memory, gpu, git, environment_variables"
_CAPTURED_FILES = {"requirements.txt", "system_info.json"}


@dataclass(frozen=True, slots=True)
class Recorded:
    """A run that was recorded: its name, its id and the digest of its data."""

    name: str
    run_id: str
    digest: str

    @property
    def ref(self) -> str:
        """Return how a command is told of it."""
        return f"run:{self.name}"


class Recording:
    """The steps until three runs are recorded; ``runs`` are those, in their order."""

    def __init__(self, stage: Stage, telling: Telling) -> None:
        self.stage = stage
        self.telling = telling
        self.tables = stage.folder / "tables"
        self.runs: list[Recorded] = []

    def copy(self) -> str:
        """Lay out the files that everything works on."""
        sources = self.stage.folder / "sources"
        material.copy_tables(self.tables)
        material.copy_sources(sources)
        material.write_scripts(self.stage.folder)
        committed = (
            "the script is committed to git"
            if material.commit_scripts(self.stage.folder)
            else "without git, so its code is unknown"
        )
        return f"tables: {material.extent(self.tables)}; sources: {material.extent(sources)}; {committed}"

    def start(self) -> str:
        """Start the daemon."""
        self.telling.typed("reprod daemon")
        self.stage.start_daemon()
        return f"it answers, pid {self.stage.pid}"

    def register(self) -> str:
        """Register both datasets and wait for their first versions."""
        for name in ("tables", "sources"):
            self.telling.command("dataset", "add", name, name, quiet=True)

        def scanned() -> bool:
            datasets = self.stage.ask("status")["datasets"]
            return len(datasets) == 2 and all(item["state"] == "current" for item in datasets)

        self.stage.wait(scanned, SCANNED_S, "the first scan has not ended")
        datasets = self.stage.ask("status")["datasets"]
        files, size = (sum(item[key] for item in datasets) for key in ("files", "bytes"))
        return f"{render.plural(files, 'file')}, {render.size(size)}; each dataset has a version and a digest"

    def capture_environment(self) -> str:
        """Write what this Python is into files."""
        folder = self.stage.folder / "env"
        self.telling.command("env", "capture", "--output-dir", "env", quiet=True)
        names = sorted(path.name for path in folder.iterdir())
        expect(set(names) >= _CAPTURED_FILES, f"only {names} were written")
        packages = [line for line in (folder / "requirements.txt").read_text("utf-8").splitlines() if "==" in line]
        system = json.loads((folder / "system_info.json").read_text("utf-8"))
        missing = [name for name in _SECTIONS.split(", ") if name not in system]
        expect(bool(packages) and not missing, f"{len(packages)} packages are named, and these are not: {missing}")
        shown = f"{render.plural(len(packages), 'package')}: {packages[0]} ..."
        self.telling.facts([("requirements.txt", shown), ("system_info.json", _SECTIONS)])
        others = ", ".join(name for name in names if name not in _CAPTURED_FILES)
        conda = "" if "conda_packages.txt" in names else "; conda_packages.txt only where conda is"
        return f"also {others}{conda}"

    def await_server(self) -> str:
        """Wait for the MLflow server, then show what the daemon does."""
        self.stage.wait_server()
        self.telling.command("status")
        return f"it answers at {self.stage.server.url}"

    def train_first(self) -> str:
        """Train with the tag in the script, and leave the data alone."""
        return self._train(TAGGED, "first", due=("run", "none"))

    def show_first(self) -> str:
        """Show what reprod wrote to the first run."""
        run_id, server = self.runs[0].run_id, self.stage.server
        found = server.run(run_id)
        for kind, names in _VALUES:
            given = [f"{key}={_short(key, found[kind][key])}" for key in names if key in found[kind]]
            self.telling.facts([(kind, " ".join(given))] if given else [])
        files = server.artifacts(run_id)
        self.telling.facts([("artifact", name) for name in files])
        missing = [name for name in _DUE if name not in files]
        expect(not missing, f"the run has no {', '.join(missing)}")
        expect(found["datasets"] == ["tables"], f"the dataset inputs of the run are {found['datasets']}")
        expect(found["params"]["n_estimators"] == "50" and "accuracy" in found["metrics"], "the script's own are gone")
        page = await_artifact(self.stage, run_id, REPORT, lambda content: b"</html>" in content)
        about = f"{REPORT}, {render.size(len(page))}, is a page about the run that needs nothing else"
        return f"beside the script's own n_estimators and accuracy; {about}"

    def change(self) -> str:
        """Change the data between two trainings."""
        version = self._version()
        old, new = material.change_value(self.tables / CHANGED_FILE)
        self._await_version(version)
        return f"line 2 begins with {new} now, it was {old}"

    def train_second(self) -> str:
        """Train with the tag on the experiment; a file is added meanwhile."""
        self.stage.server.tag_experiment(self.runs[0].run_id, "reprod.dataset", "tables")
        return self._train(PLAIN, "second", due=("experiment", "appended"), meanwhile=self._add)

    def train_third(self) -> str:
        """Train by ``reprod run``, with other settings; a file is changed and changed back meanwhile."""
        by = ("run", "--dataset", "tables", "--")
        return self._train(PLAIN, "third", by, due=("run", "changed"), meanwhile=self._change_and_restore)

    # --- one training ------------------------------------------------------------------------------------------------

    def _train(
        self,
        script: str,
        name: str,
        by: tuple[str, ...] = (),
        *,
        due: tuple[str, str],
        meanwhile: Callable[[], None] | None = None,
    ) -> str:
        """Train and have it recorded; ``due`` is who must have named the dataset, and the drift that must be found."""
        arguments = (f"tables/{CHANGED_FILE}", name)
        threads = THREADS if by else 0
        before = [f"OMP_NUM_THREADS={threads}", "reprod", *by] if by else []
        self.telling.typed(*before, "python", script, *arguments)
        training = self.stage.train(script, *arguments, by=by, threads=threads)
        self.stage.wait(lambda: bool(training.run_id()), STARTED_S, "the training has started no run")
        run_id = training.run_id()
        self._await_tag(run_id, "reprod.state", training)  # captured while it trains
        if meanwhile is not None:
            meanwhile()
        training.end()
        self.stage.wait(lambda: bool(training.accuracy()), TRAINED_S, "the training has not ended")
        tags = self._await_tag(run_id, "reprod.drift", training)
        self._show_tags(tags, _AGAIN if self.runs else tuple(_TAGS))
        found = (tags["reprod.state"], tags["reprod.dataset_from"], tags["reprod.drift"])
        expect(found == ("captured", *due), f"it was to be captured, {' and '.join(due)}, and is {found}")
        expect(tags["reprod.bound"] == "start", "what the run started on is not proven")
        expect(all(tags["reprod.digest"] != other.digest for other in self.runs), "two runs have one digest")
        self.runs.append(Recorded(name, run_id, tags["reprod.digest"]))
        return f"run {run_id[:8]} is recorded, its accuracy is {training.accuracy()}"

    def _show_tags(self, tags: dict[str, Any], names: tuple[str, ...]) -> None:
        for key in names:
            if key in tags:
                meaning = "" if self.runs else _TAGS[key]
                meaning = meaning or _MEANINGS.get((key, tags[key]), "")
                self.telling.facts([(key, f"{_short(key, tags[key]):{_VALUE}} {meaning}".rstrip())])

    def _await_tag(self, run_id: str, tag: str, training: Training) -> dict[str, Any]:
        """Return the tags of a run once ``tag`` is there, and reprod.state is what it stays."""

        def there() -> bool:
            training.run_id()  # says so if it has failed meanwhile
            tags = self.stage.server.run(run_id)["tags"]
            # An incomplete run may still become a captured one.
            return tag in tags and tags.get("reprod.state") in {"captured", "failed"}

        self.stage.wait(there, CAPTURED_S, f"the run has no {tag}")
        return dict(self.stage.server.run(run_id)["tags"])

    def _add(self) -> None:
        version = self._version()
        material.add_table(self.tables / ADDED_FILE, like=self.tables / CHANGED_FILE)
        self.telling.facts([("meanwhile", f"tables/{ADDED_FILE} is added")])
        self._await_version(version)

    def _change_and_restore(self) -> None:
        path = self.tables / CHANGED_FILE
        content, version = path.read_bytes(), self._version()
        old, new = material.change_value(path)
        self._await_version(version)
        material.put(path, content)
        self._await_version(version + 1)
        self.telling.facts([("meanwhile", f"{CHANGED_FILE}: {old} becomes {new} and {old} again")])

    def _version(self) -> int:
        datasets = {item["name"]: item for item in self.stage.ask("status")["datasets"]}
        return int(datasets["tables"]["version"])

    def _await_version(self, last: int) -> None:
        self.stage.wait(lambda: self._version() > last, SEEN_S, "the daemon has not seen the change")


def await_artifact(stage: Stage, run_id: str, path: str, settled: Callable[[bytes], bool]) -> bytes:
    """Return an artifact once it is ``settled``: it may be written anew at any time after the end of a training."""
    found: list[bytes] = []

    def there() -> bool:
        try:
            found[:] = [stage.server.artifact(run_id, path)]
        except TrackingError:
            return False
        return settled(found[0])

    stage.wait(there, CAPTURED_S, f"{path} of run {run_id[:8]} is not what it should be")
    return found[0]


def _short(key: str, value: object) -> str:
    """Return a value as people read it: a digest or a commit by its first digits, a count without a fraction."""
    text = str(value)
    if key == "git_commit":
        return text[:12]
    return render.digest(text) if key == "reprod.digest" else text.removesuffix(".0")
