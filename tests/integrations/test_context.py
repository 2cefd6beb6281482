"""MLflow's run context provider, with the real MLflow."""

import json
import shutil
from pathlib import Path

import pytest

import reprod
from reprod.capture.process.identity import current_context
from reprod.core.process import ProcessContext
from reprod.integrations.context import ReprodRunContext

RUN = """
import mlflow, os
mlflow.set_experiment("t")
with mlflow.start_run() as run:
    pass
print(os.getpid(), mlflow.get_run(run.info.run_id).data.tags.get("reprod.context"))
"""


def test_tags_name_this_process(monkeypatch):
    """The provider's tag is the process's own context."""
    monkeypatch.setenv("REPROD_SOCKET", "/nowhere")
    provider = ReprodRunContext()
    assert provider.in_context()
    assert ProcessContext.parse(provider.tags()["reprod.context"]) == current_context()


def test_only_the_standard_library_is_imported(script):
    """Loading and using the provider imports neither msgspec nor psutil nor anything else that is installed."""
    code = """
import sys
for name in ("msgspec", "psutil", "anyio", "structlog", "mlflow", "watchfiles"):
    sys.modules[name] = None
before = set(sys.modules)
from reprod.integrations.context import ReprodRunContext
assert ReprodRunContext().tags()
print({name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))
"""
    ended = script(code)
    assert ended.stdout == "{'reprod'}\n", ended.stderr


@pytest.mark.mlflow
class TestWithMlflow:
    @pytest.fixture(autouse=True)
    def tracking(self, environ, database):
        environ["MLFLOW_TRACKING_URI"] = database

    def test_start_run_sets_the_tag_and_a_short_script_hands_over(self, control, script):
        """A script with no line of reprod's in it, that ends right after start_run, is known with its packages."""
        ended = script(RUN)
        assert ended.returncode == 0, ended.stderr
        pid, tag = ended.stdout.split(maxsplit=1)
        context = ProcessContext.parse(tag)
        assert context.pid == int(pid)
        (given,) = control.wait("handover record")
        assert ProcessContext.from_object(given["context"]) == context
        assert "mlflow" in {package["name"] for package in given["record"]["environment"]["packages"]["packages"]}
        assert len(control.of("announce")) == 1

    @pytest.mark.parametrize(
        "breakage",
        [
            "import sys; sys.modules['reprod.integrations.context'] = None",
            "import sys; sys.modules['reprod.capture.process.identity'] = None",
            "import sys; sys.modules['reprod.capture.handover'] = None",
            "import builtins; o = open; builtins.open = lambda f, *a, **k: 1/0 if '/stat' in str(f) else o(f, *a, **k)",
        ],
    )
    def test_a_broken_provider_breaks_nothing(self, script, breakage):
        """With the provider or what it needs broken, MLflow is imported and the run is made."""
        ended = script(breakage + "\n" + RUN)
        assert ended.returncode == 0, ended.stderr
        assert "None" in ended.stdout


def test_the_entry_point_is_declared():
    """The installed package offers the provider to MLflow under the group that it reads."""
    project = (Path(reprod.__file__).parent.parent / "pyproject.toml").read_text()
    assert '[project.entry-points."mlflow.run_context_provider"]' in project
    assert "reprod.integrations.context:ReprodRunContext" in project


def test_a_forked_worker_announces_itself(control, script):
    """A worker made by fork is another process, with an announcement and a record of its own."""
    code = """
import os
from reprod.integrations.context import ReprodRunContext
ReprodRunContext().tags()
ReprodRunContext().tags()
if os.fork() == 0:
    ReprodRunContext().tags()
    os._exit(0)
os.wait()
"""
    ended = script(code)
    assert ended.returncode == 0, ended.stderr
    pids = {given["context"]["pid"] for given in control.wait("handover record", 2)}
    assert len(pids) == 2
    assert len(control.of("announce")) == 2


def test_json_of_the_tag_is_small():
    """The tag stays far below MLflow's limit and is one JSON object."""
    text = ReprodRunContext().tags()["reprod.context"]
    assert len(text) < 1000
    assert set(json.loads(text)) == {"v", "host", "boot_id", "pid", "start_ticks", "prefix", "pid_ns"}


@pytest.mark.mlflow
def test_a_reprod_whose_modules_raise_does_not_break_importing_mlflow(script, tmp_path):
    """With every module of reprod broken but the provider's own, MLflow is imported and runs are made (T11)."""
    package = tmp_path / "broken" / "reprod"
    shutil.copytree(Path(reprod.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    kept = {package / "__init__.py", package / "integrations" / "__init__.py", package / "integrations" / "context.py"}
    for file in package.rglob("*.py"):
        if file not in kept:
            file.write_text("raise ValueError('broken')\n")
    code = "import reprod; assert 'broken' in reprod.__file__\n" + RUN
    ended = script(code, PYTHONPATH=str(package.parent), MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/own.db")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split()[-1] == "None"
