"""The commands of ``reprod env``: names, flags, one-line descriptions and examples, for ``reprod.cli.tree``."""

from reprod.cli.commands import Commands, json_flag

#: What can stand for an environment.
_REF = "now, run:ID, host, a digest, a folder that env capture wrote, or an interpreter's prefix"


def add_env(commands: Commands) -> None:
    """Add the group."""
    inner = commands.add_group(
        "env", "capture, list, show and compare environments", ["reprod env diff run:0a1b2c3d run:4d5e6f70"]
    )
    parser = inner.add(
        "capture",
        "env:capture",
        "describe the environment that this reprod is installed in, in files and on a run",
        [
            "reprod env capture",
            "reprod env capture --output-dir ./env --mlflow-run 0a1b2c3d4e5f",
            "reprod env capture --deep --benchmark --json | jq .not_rebuildable",
        ],
    )
    parser.add_argument("--output-dir", metavar="D", default="./env_artifacts", help="a folder: ./env_artifacts")
    parser.add_argument(
        "--mlflow-run", metavar="RUN_ID", nargs="?", const="", help="log it to this run; left out: MLFLOW_RUN_ID's"
    )
    parser.add_argument("--deep", action="store_true", help="read every installed file: which were edited since?")
    parser.add_argument(
        "--benchmark", action="store_true", help="measure the machine too, 5 s; not while a run goes on"
    )
    json_flag(parser)
    parser = inner.add(
        "list", "env:list_known", "list the environments that are known here, of runs and samples", ["reprod env list"]
    )
    json_flag(parser)
    parser = inner.add(
        "show",
        "env:show",
        "show one environment in full; without REF this interpreter's, now",
        ["reprod env show", "reprod env show run:0a1b2c3d", "reprod env show host", "reprod env show ./env_artifacts"],
    )
    parser.add_argument("ref", metavar="REF", nargs="?", help=_REF)
    json_flag(parser)
    parser = inner.add(
        "diff",
        "env:diff",
        "say how far apart two environments are; exit 1 if results may differ, 5 if that is not known",
        ["reprod env diff run:0a1b2c3d run:4d5e6f70", "reprod env diff run:0a1b2c3d now --verbose"],
    )
    parser.add_argument("a", metavar="A", help=_REF)
    parser.add_argument("b", metavar="B", help="the same forms")
    parser.add_argument("--verbose", action="store_true", help="list also what cannot matter, or is not known to")
    parser.add_argument(
        "--fail-on", choices=("numeric", "semantic"), default="numeric", help="exit 1 from this class on: numeric"
    )
    json_flag(parser)
