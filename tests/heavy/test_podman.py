"""Real containers: Podman runs trainings whose data is a bind mount, and the daemon is outside, on the host.

Not in the suite: it needs root, Podman with crun, and debootstrap, which fetches a small Debian (100 MB) and pip's
MLflow for it. ``REPROD_HEAVY=1 pytest tests/heavy/test_podman.py`` runs it; with ``REPROD_HEAVY_KEPT=FOLDER`` the
image's files are made there, or taken from there. Nothing of Podman's own store is used.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
from heavy_place import IS_WANTED, Here, run_ids

MISSING = [name for name in ("podman", "crun", "debootstrap", "unshare") if shutil.which(name) is None]
REPOSITORY = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.mlflow,
    pytest.mark.root,
    pytest.mark.skipif(not IS_WANTED, reason="builds an image: REPROD_HEAVY=1"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap needs root"),
    pytest.mark.timeout(1800),
]

#: Where Debian's Python has what pip installs for the whole machine.
PACKAGES = "usr/local/lib/python3.11/dist-packages"
#: What the containers call themselves, and no host does.
DISTRIBUTION = "Container Linux of the heavy tests"
TRAIN = """
import mlflow, sys, time
with mlflow.start_run(experiment_id=sys.argv[1]) as run:
    print(run.info.run_id, flush=True)
    try:
        import reprod
        reprod.wait_captured(run.info.run_id, 60)
    except ImportError:
        time.sleep(3)
"""


@dataclass(frozen=True, slots=True)
class Podman:
    """Podman with a store of its own; ``images`` are by whether reprod is installed in them."""

    base: Path
    images: dict[bool, str]

    def ask(self, *arguments: str) -> str:
        """Run one command to its end and return what it printed.

        crun refuses a machine that has both versions of control groups mounted, so the second is hidden from it.
        """
        store = ["--root", f"{self.base}/root", "--runroot", f"{self.base}/run", "--storage-driver", "vfs"]
        script = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec podman "$@"'
        command = ["unshare", "--mount", "sh", "-c", script, "podman", *store, "--cgroup-manager", "cgroupfs"]
        command += ["--runtime", "crun", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def train(self, here: Here, *options: str, reprod: bool, before: tuple[str, ...] = ()) -> str:
        """Train in a container that has the data at /data; return the run's id."""
        (here.base / "code").mkdir(exist_ok=True)
        (here.base / "code" / "train.py").write_text(TRAIN)
        (here.base / "os-release").write_text(f'PRETTY_NAME="{DISTRIBUTION}"\n')
        mounts = [f"--volume={here.data}:/data", f"--volume={here.base}/code:/code", "--workdir=/code"]
        mounts.append(f"--volume={here.base}/os-release:/etc/os-release:ro")
        # What it would raise by itself a container may not have either.
        limits = ["--network=host", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"]
        variables = [f"--env=MLFLOW_TRACKING_URI={here.tracker.uri}", "--env=GIT_PYTHON_REFRESH=quiet"]
        if not before:
            variables.append(f'--env=MLFLOW_RUN_CONTEXT={{"reprod.dataset":"{here.name}"}}')
        command = [*before, "/usr/bin/python3", "train.py", here.tracker.experiment]
        (run_id,) = run_ids(
            self.ask("run", "--rm", *mounts, *limits, *variables, *options, self.images[reprod], *command)
        )
        return run_id


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Podman:
    base = tmp_path_factory.mktemp("podman")
    kept = os.environ.get("REPROD_HEAVY_KEPT")
    debian = debian_with_mlflow((Path(kept) if kept else base) / "debian")
    made = Podman(base, {False: "plain", True: "equipped"})
    make_image(made, debian, "plain")
    equipped = base / "equipped"
    subprocess.run(["cp", "--archive", str(debian), str(equipped)], check=True, timeout=300)
    install(equipped, str(REPOSITORY))
    (equipped / "usr/local/bin").mkdir(parents=True, exist_ok=True)
    program = "#!/usr/bin/python3\nfrom reprod.__main__ import main\nraise SystemExit(main())\n"
    (equipped / "usr/local/bin/reprod").write_text(program)
    (equipped / "usr/local/bin/reprod").chmod(0o755)
    make_image(made, equipped, "equipped")
    return made


def debian_with_mlflow(root: Path) -> Path:
    """Return the files of a small Debian 12 with its Python and MLflow's client."""
    if not (root / "whole").exists():
        packages = "--include=python3,ca-certificates"
        mirror = os.environ.get("REPROD_DEBIAN_MIRROR")
        command = ["debootstrap", "--variant=minbase", packages, "bookworm", str(root), *([mirror] if mirror else [])]
        subprocess.run(command, check=True, timeout=900, stdout=subprocess.DEVNULL)
        # Device nodes: a container gets its own, and whoever copies /dev/zero as a file fills the disk.
        shutil.rmtree(root / "dev")
        (root / "dev").mkdir()
        install(root, f"mlflow-skinny=={version('mlflow')}")
        (root / "whole").touch()
    return root


def install(root: Path, requirement: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(root / PACKAGES), "--upgrade"]
    subprocess.run([*command, "--python-version=3.11", "--only-binary=:all:", requirement], check=True, timeout=900)


def make_image(podman: Podman, root: Path, name: str) -> None:
    archive = podman.base / f"{name}.tar"
    subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True, timeout=300)
    podman.ask("import", "--quiet", str(archive), name)
    archive.unlink()


@pytest.mark.parametrize("way", ["provider", "reprod run"])
def test_the_environment_is_the_containers(podman: Podman, here: Here, way: str) -> None:
    """Reprod in the image and the socket's folder mounted: data bound by the host, environment told from inside."""
    before = ("reprod", "run", "--dataset", here.name, "--") if way == "reprod run" else ()
    run_id = podman.train(here, f"--volume={here.daemon.place.state}:/run/reprod", reprod=True, before=before)
    record = here.record(run_id)
    assert here.tracker.ours(run_id)["reprod.bound"] == "start"
    container, one = record["environment"]["container"], record["execution"]["container"]
    assert (container["present"], container["runtime"]) == (True, "podman")
    assert len(one["id"]) == 64
    assert record["environment"]["system"]["os"] == DISTRIBUTION
    assert record["environment"]["python"]["executable"] == "/usr/bin/python3"
    assert record["execution"]["invocation"]["main_file"] == "/code/train.py"
    requirements = here.tracker.read(run_id, "environment/requirements.txt", here.base / "read").decode()
    assert f"mlflow-skinny=={version('mlflow')}" in requirements.splitlines()
    assert "pytest" not in requirements, "the host's packages"


@pytest.mark.parametrize(
    ("reprod", "reason"), [(False, "does not say which process it is"), (True, "another pid namespace")]
)
def test_without_the_socket_it_is_unknown_and_never_the_hosts(
    podman: Podman, here: Here, reprod: bool, reason: str
) -> None:
    """The data is recorded all the same; of the environment only why it is not known, and no file of the host's."""
    run_id = podman.train(here, reprod=reprod)
    assert reason in here.unknown(run_id)
    assert here.tracker.ours(run_id)["reprod.bound"] == "start"
    assert not [path for path in here.tracker.artifacts(run_id) if path.startswith("environment/")]


def test_a_container_that_shares_the_hosts_processes_is_recognised_and_not_taken_for_the_host(
    podman: Podman, here: Here
) -> None:
    """``--pid=host``, no socket: the daemon sees the process, says which container it is in, and claims no packages."""
    record = here.record(podman.train(here, "--pid=host", reprod=True))
    environment = record["environment"]
    assert (environment["container"]["present"], environment["container"]["runtime"]) == (True, "podman")
    assert len(record["execution"]["container"]["id"]) == 64
    assert environment["system"]["os"] == DISTRIBUTION
    for section in ("packages", "python", "git"):
        assert environment.get(section) is None
        assert "another root directory" in environment["unknown"][section]
