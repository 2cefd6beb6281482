"""The commands about datasets and their versions: dataset, scan, snapshot, log, diff, prune; for ``cli.tree``."""

from reprod.cli.commands import Commands, json_flag


def add_dataset(commands: Commands) -> None:
    """Add the group ``dataset``."""
    inner = commands.add_group(
        "dataset", "register, list, move, rename and remove datasets", ["reprod dataset add imagenet /data/imagenet"]
    )
    parser = inner.add(
        "add",
        "dataset:add",
        "register a folder (or one file) under a name and begin to watch it",
        ["reprod dataset add imagenet /data/imagenet", "reprod dataset add tables ./csv --include '*.csv' '*.json'"],
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("path", metavar="PATH")
    parser.add_argument("--include", metavar="P", nargs="+", action="extend", default=[], help="gitignore patterns")
    parser.add_argument("--exclude", metavar="P", nargs="+", action="extend", default=[], help="they win over include")
    parser.add_argument(
        "--algorithm",
        metavar="A",
        nargs="+",
        action="extend",
        default=[],
        help="hashes besides sha256: md5, blake2b, ...",
    )
    parser = inner.add(
        "remove", "dataset:remove", "stop watching a dataset; its history is kept", ["reprod dataset remove x"]
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "--purge", action="store_true", help="delete its history too: no run's version can be shown any more"
    )
    parser = inner.add(
        "move",
        "dataset:move",
        "say that a dataset's data is at another place now; its history goes on there",
        ["reprod dataset move imagenet /mnt/new/imagenet"],
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("path", metavar="NEWPATH", help="where the same files are now")
    parser = inner.add(
        "rename",
        "dataset:rename",
        "give a dataset another name; its history and its runs go with it",
        ["reprod dataset rename imagenet imagenet-2012"],
    )
    parser.add_argument("old", metavar="OLD")
    parser.add_argument("new", metavar="NEW")
    parser = inner.add("list", "dataset:list_all", "list the registered datasets", ["reprod dataset list --json"])
    json_flag(parser)


def add_scan(commands: Commands) -> None:
    """Add ``scan`` and ``snapshot``."""
    parser = commands.add(
        "scan",
        "scan:run",
        "make the index equal to the files now, and wait for it",
        ["reprod scan", "reprod scan imagenet --full"],
    )
    parser.add_argument("name", metavar="NAME", nargs="?")
    parser.add_argument("--full", action="store_true", help="read every file again, whatever its times say")
    parser.add_argument(
        "--accept-root", action="store_true", help="the root is on another file system, and that is right"
    )
    json_flag(parser)
    parser = commands.add(
        "snapshot",
        "snapshot:run",
        "record what a dataset holds now, for a run if one is named",
        ["reprod snapshot imagenet", "reprod snapshot imagenet --run 0a1b2c3d4e5f"],
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--run", metavar="RUN_ID", dest="run_id", help="deliver it to this MLflow run")
    json_flag(parser)


def add_history(commands: Commands) -> None:
    """Add ``log``, ``diff`` and ``prune``."""
    parser = commands.add(
        "log", "history:log", "list the versions of a dataset, the newest first", ["reprod log imagenet"]
    )
    parser.add_argument("name", metavar="NAME")
    json_flag(parser)
    parser = commands.add(
        "diff",
        "diff:run",
        "compare two states; exit 1 if they differ",
        [
            "reprod diff imagenet",
            "reprod diff imagenet@40 imagenet@41",
            "reprod diff run:0a1b2c run:4d5e6f",
            "reprod diff ./SHA256SUMS imagenet",
        ],
    )
    parser.add_argument(
        "a", metavar="A", help="NAME (the last version that a run used), NAME@N, run:ID or a manifest file"
    )
    parser.add_argument("b", metavar="B", nargs="?", help="the same forms; left out or NAME: the files now")
    json_flag(parser)
    parser = commands.add(
        "prune",
        "prune:run",
        "forget old versions that no run used; the daemon does so once a day",
        ["reprod prune --dry-run", "reprod prune imagenet"],
    )
    parser.add_argument("name", metavar="NAME", nargs="?")
    parser.add_argument("--dry-run", action="store_true", help="say what would be forgotten, and forget nothing")
    json_flag(parser)
