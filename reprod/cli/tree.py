"""The tree of commands: names, flags, one-line descriptions and examples.

Building all of it takes about a millisecond; the module that runs a command is named by text and loaded only when that
command is called. Names and flags are public (the contract's "Command line").
"""

import argparse

from reprod import __version__
from reprod.cli.commands import Commands, Parser, json_flag
from reprod.cli.flags import Values, depth_flags


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    shared = Parser(add_help=False)
    shared.add_argument("--config", metavar="F", default=argparse.SUPPRESS, help="read this reprod.toml")
    parser = Parser(
        prog="reprod",
        description="Know which bytes and which environment every MLflow run was trained on.",
        epilog="example:\n  reprod dataset add imagenet /data/imagenet && reprod daemon\n  reprod status",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"reprod {__version__}")
    parser.add_argument("--config", metavar="F", default=None, help="read this reprod.toml instead of the usual one")
    commands = Commands(parser, shared)
    for add in (_add_daemon, _add_dataset, _add_scan, _add_history, _add_verify, _add_manifest, _add_export, _add_demo):
        add(commands)
    return parser


def _add_daemon(commands: Commands) -> None:
    commands.add("daemon", "daemon_:run", "watch the datasets and record tagged runs, until SIGTERM", ["reprod daemon"])
    parser = commands.add("reload", "daemon_:reload", "make the daemon read its configuration again", ["reprod reload"])
    json_flag(parser)
    parser = commands.add(
        "status",
        "status:run",
        "show what the daemon knows now, or what was last known",
        [
            "reprod status",
            "reprod status imagenet",
            "reprod status --check || mail -s reprod me",
            "reprod status --json",
        ],
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="one dataset, in detail")
    parser.add_argument("--check", action="store_true", help="exit 1, 5 or 6 if anything is not fine")
    json_flag(parser)


def _add_dataset(commands: Commands) -> None:
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


def _add_scan(commands: Commands) -> None:
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


def _add_history(commands: Commands) -> None:
    parser = commands.add(
        "log", "history:log", "list the versions of a dataset, the newest first", ["reprod log imagenet"]
    )
    parser.add_argument("name", metavar="NAME")
    json_flag(parser)
    parser = commands.add(
        "diff",
        "history:diff",
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


def _add_verify(commands: Commands) -> None:
    parser = commands.add(
        "verify",
        "verify:run",
        "check the files against a version or a manifest; reads every byte unless told otherwise",
        [
            "reprod verify imagenet",
            "reprod verify run:0a1b2c --sample 1%",
            "reprod verify imagenet@41 train/n01 --quick",
            "reprod verify ./SHA256SUMS ./data",
        ],
    )
    parser.add_argument("ref", metavar="REF", help="NAME (the newest version), NAME@N, run:ID or a manifest file")
    parser.add_argument(
        "path", metavar="PATH", nargs="?",
        help="only this file or folder, relative to the root; for a manifest file: where its files are",
    )  # fmt: skip
    depth_flags(parser)
    parser.add_argument("--root", metavar="DIR", help="for a manifest file: where its files are")
    parser.add_argument("--chain", action="store_true", help="check the chain of versions; with --full their digests")
    json_flag(parser)


def _add_export(commands: Commands) -> None:
    parser = commands.add(
        "export",
        "export:run",
        "write a version for other tools",
        [
            "reprod export imagenet --format sha256sums --output SHA256SUMS",
            "reprod export imagenet@41 --format bagit --output /archive/imagenet-41",
            "reprod export run:0a1b2c --format json | jq .summary",
        ],
    )
    parser.add_argument("ref", metavar="REF", help="NAME (the newest version), NAME@N, run:ID or a manifest file")
    parser.add_argument("--format", required=True, choices=("sha256sums", "json", "bagit", "croissant", "parquet"))
    parser.add_argument("--output", metavar="PATH", help="a file, for bagit a new folder; else standard output")
    parser.add_argument("--dataset", metavar="NAME", help="which one, for a run that used several")
    parser.add_argument("--data", metavar="PATH", help="where the files of a bag are, if not at the dataset's root")
    parser.add_argument("--link", action="store_true", help="hard-link the files of a bag instead of copying them")
    json_flag(parser)


def _add_manifest(commands: Commands) -> None:
    parser = commands.add(
        "manifest",
        "manifest:run",
        "describe a folder or a file as it is now, or check it against such a description",
        [
            "reprod manifest ./data --output data_manifest.json",
            "reprod manifest ./data --include '*.csv' '*.json' --exclude '*.tmp' --algorithm md5 sha256",
            "reprod manifest ./data --validate data_manifest.json",
        ],
    )
    parser.add_argument("path", metavar="PATH", nargs="?", help="the folder or file")
    parser.add_argument("--output", metavar="F", help="write it there; left out, or '-': to standard output")
    for flag, metavar, text in (
        ("--include", "P", "gitignore patterns"),
        ("--exclude", "P", "they win over include"),
        ("--algorithm", "A", "md5, sha1, sha256, sha512, blake2b, blake3; sha256 is always there"),
        ("--metadata", "KEY=VALUE", "kept in the manifest"),
    ):
        parser.add_argument(flag, metavar=metavar, nargs="+", action=Values, default=[], help=text)
    parser.add_argument("--max-files", metavar="N", type=int, help="only the first N files in the order of their paths")
    parser.add_argument("--validate", metavar="F", help="compare the files with this manifest; exit 0, 1, 5 or 65")
    depth_flags(parser)
    json_flag(parser)
    parser.set_defaults(last_values=("", 0))


def _add_demo(commands: Commands) -> None:
    parser = commands.add("demo", "demo:run", "show all of it on a real model and real files", ["reprod demo --keep"])
    parser.add_argument("--keep", action="store_true", help="leave the server and the daemon up at the end")
    parser.add_argument("--port", metavar="N", type=int, default=None, help="port of the demo's MLflow server")
