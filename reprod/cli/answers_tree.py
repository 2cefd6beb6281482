"""The commands that answer from the tracking server alone: show, who, report; for ``reprod.cli.tree``."""

from reprod.cli.commands import Commands, json_flag

_RUN = "its id, the first characters of that, or its name"


def add_run_commands(commands: Commands) -> None:
    """Add them."""
    parser = commands.add(
        "show",
        "show:run",
        "show what a run was trained on, what differs from it here now, and what can be had again",
        ["reprod show run:0a1b2c3d", "reprod show run:swift-crane-12", "reprod show run:0a1b2c3d --json | jq .here"],
    )
    parser.add_argument("run_ref", metavar="run:ID", help=_RUN)
    json_flag(parser)
    parser = commands.add(
        "who",
        "who:run",
        "list the runs whose data held a file, by its content and by its name; exit 4 if none did",
        [
            "reprod who imagenet train/n01/n01_77.JPEG",
            "reprod who imagenet /data/imagenet/train/n01/n01_77.JPEG --json | jq -r '.runs[].run_id'",
            "reprod who imagenet sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        ],
    )
    parser.add_argument("name", metavar="NAME", help="a dataset, or NAME/SUB")
    parser.add_argument("path", metavar="PATH", help="a file here, a path inside the dataset, or sha256:HEX")
    json_flag(parser)
    parser = commands.add(
        "report",
        "report:run",
        "write the report page of a run, one HTML file that needs nothing else",
        ["reprod report run:0a1b2c3d", "reprod report run:0a1b2c3d --output /tmp/report.html"],
    )
    parser.add_argument("run_ref", metavar="run:ID", help=_RUN)
    parser.add_argument("--output", metavar="F", help="write it there, '-': to standard output; ./report-ID.html")
    json_flag(parser)
