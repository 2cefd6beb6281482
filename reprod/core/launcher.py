"""Owns which commands are known to start training processes, and how one is told from a command line.

Shells, ``env`` and ``nohup`` are none: what they start is what the user typed. Nothing here reads a file.
"""

import os
import re
from collections.abc import Mapping, Sequence

from reprod.core.invocation import parse_command

#: Launcher: the names of its executables, scripts and modules.
_COMMANDS = {
    "torchrun": "torchrun torch.distributed.run torch.distributed.launch",
    "accelerate": "accelerate accelerate-launch accelerate.commands.launch",
    "deepspeed": "deepspeed deepspeed.launcher.runner deepspeed.launcher.launch",
    "mpirun": "mpirun mpiexec orterun orted prterun prted prun mpiexec.hydra hydra_pmi_proxy hydra_bstrap_proxy",
    "srun": "srun slurmstepd",
    "ray": "raylet ray",
    "horovodrun": "horovodrun horovod.runner.launch",
    "papermill": "papermill papermill.cli",
    "nbconvert": "jupyter-nbconvert nbconvert jupyter-execute",
    "jupyter": "jupyter jupyter-lab jupyter-notebook jupyter-server jupyterhub-singleuser",
    "ipykernel": "ipykernel_launcher ipykernel colab_kernel_launcher",
    "pytest": "pytest py.test",
    "dask": "dask dask-worker distributed.cli.dask_worker",
    "spark": "spark-submit pyspark.daemon pyspark.worker",
    "debugpy": "debugpy debugpy.adapter",
}
#: Launchers whose command has their own name.
_PLAIN = """
    uv poetry pdm hatch pipenv conda mamba micromamba pixi apptainer singularity enroot bsub pbsdsh qsub
    tox nox make snakemake nextflow dvc mlflow wandb guild airflow prefect dagster luigi kedro metaflow zenml
    clearml-agent lightning fabric coverage kernprof scalene py-spy nsys ncu reprod
"""
_NAMES = {name: label for label, names in _COMMANDS.items() for name in names.split()}
_NAMES |= {name: name for name in _PLAIN.split()}

#: Commands of many uses launch only with one of these words: ``mlflow run`` does, ``mlflow server`` does not.
_RUN = "uv poetry pdm hatch pipenv conda mamba micromamba pixi coverage guild kedro mlflow reprod"
_WORDS = {
    **{name: {"run"} for name in _RUN.split()},
    **{name: {"run", "exec", "shell", "start"} for name in ("apptainer", "singularity", "enroot")},
    "accelerate": {"launch"},
    "dask": {"worker"},
    "dvc": {"repro", "exp"},
    "jupyter": {"lab", "notebook", "server", "nbconvert", "execute"},
    "wandb": {"agent", "launch-agent"},
}
#: So far after the command such a word may stand: options with values come before it.
_WITHIN = 8

#: What a launcher leaves in the variables, also where it is no parent (a service manager, a remote agent).
_VARIABLES = {
    "TORCHELASTIC_RUN_ID": "torchrun",
    "ACCELERATE_MIXED_PRECISION": "accelerate",
    "OMPI_COMM_WORLD_RANK": "mpirun",
    "SLURM_STEP_ID": "srun",
    "HOROVOD_RANK": "horovodrun",
    "RAY_RAYLET_PID": "ray",
    "PYTEST_CURRENT_TEST": "pytest",
    "JPY_PARENT_PID": "jupyter",
}


def find_launcher(arguments: Sequence[str]) -> str | None:
    """Return which known launcher a command line (``argv[0]`` included) is, None if it is none."""
    command = parse_command(arguments)
    if command.entry is None or command.entry.name is None:
        return None
    # Some write a title over their arguments: "ray::train", "slurmstepd: [123.0]".
    name = re.split(r"::|: |\s", os.path.basename(command.entry.name), maxsplit=1)[0].removesuffix(".py")
    words = _WORDS.get(name)
    if words is not None and words.isdisjoint(command.following[:_WITHIN]):
        return None
    return _NAMES.get(name)


def launchers_named_by(environ: Mapping[str, str]) -> list[str]:
    """Return the launchers that a process's variables name, each once."""
    return list(dict.fromkeys(name for variable, name in _VARIABLES.items() if variable in environ))
