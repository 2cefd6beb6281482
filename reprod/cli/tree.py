"""The tree of commands: names, flags, one-line descriptions and examples.

Building all of it takes about a millisecond; the module that runs a command is named by text and loaded only when that
command is called. Names and flags are public (the contract's "Command line").
"""

import argparse

from reprod import __version__
from reprod.cli.answers_tree import add_run_commands
from reprod.cli.commands import Commands, Parser, json_flag
from reprod.cli.env_tree import add_env
from reprod.cli.flags import Values, depth_flags
from reprod.cli.run_tree import add_run


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
    for add in (
        _add_daemon,
        _add_dataset,
        _add_scan,
        add_run,
        _add_runs,
        _add_history,
        add_run_commands,
        _add_verify,
        _add_manifest,
        _add_export,
        add_env,
        _add_demo,
        _add_completion,
        _add_service,
    ):
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
            "reprod status --watch",
            "reprod status --check || mail -s reprod me",
            "reprod status --json",
        ],
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="one dataset, in detail")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="exit 1, 5 or 6 if anything is not fine")
    mode.add_argument("--watch", action="store_true", help="go on showing it as it changes, until Ctrl-C")
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


def _add_runs(commands: Commands) -> None:
    parser = commands.add(
        "runs",
        "runs:run",
        "list the runs that name a dataset here: recorded, waiting or failed, and why",
        ["reprod runs", "reprod runs --failed", "reprod runs --waiting --json"],
    )
    which = parser.add_mutually_exclusive_group()
    for name, text in (
        ("waiting", "only those that wait for a walk or for the tracking server"),
        ("incomplete", "only those that were recorded without a digest"),
        ("failed", "only those that could not be recorded: a person must act"),
    ):
        which.add_argument(f"--{name}", action="store_const", const=name, dest="which", help=text)
    parser.add_argument("--limit", metavar="N", type=_count, default=50, help="the newest N, at most 1000 (50)")
    json_flag(parser)
    parser = commands.add(
        "retry",
        "runs:retry",
        "try a run that failed, waits or is incomplete again now",
        ["reprod retry run:0a1b2c3d"],
    )
    parser.add_argument("run_ref", metavar="run:ID", help="its id, the first characters of that, or its name")
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
    parser.add_argument("--dataset", metavar="NAME", help="which one, of a run that used several")
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


def _add_service(commands: Commands) -> None:
    inner = commands.add_group(
        "service", "put the daemon under systemd's care, or take it out again", ["reprod service install --now"]
    )
    install = inner.add(
        "install",
        "service:install",
        "write the unit with this interpreter, and enable it",
        [
            "reprod service install --now",
            "sudo /opt/reprod/bin/reprod service install --system --now",
            "reprod service install --print",
        ],
    )
    uninstall = inner.add(
        "uninstall",
        "service:uninstall",
        "stop and disable it, and remove the files that install wrote",
        ["reprod service uninstall", "sudo reprod service uninstall --system --purge"],
    )
    for parser in (install, uninstall):
        scope = parser.add_mutually_exclusive_group()
        for name, text in (("user", "for this user, the default"), ("system", "for the machine, as the user reprod")):
            scope.add_argument(f"--{name}", dest="scope", action="store_const", const=name, default="user", help=text)
        parser.add_argument("--force", action="store_true", help="also where a person changed the file")
    install.add_argument("--now", action="store_true", help="start it too, and wait until it answers")
    install.add_argument("--print", action="store_true", help="print what would be written, and write nothing")
    uninstall.add_argument("--purge", action="store_true", help="also configuration, state and history, after asking")
    uninstall.add_argument("--yes", action="store_true", help="do not ask")
    parser = commands.add(
        "doctor",
        "doctor:run",
        "look for what keeps reprod from its work, and say the line that mends it; exit 1 if there is anything",
        ["reprod doctor", "sudo reprod doctor --as reprod", "reprod doctor --json | jq '.findings[].mend'"],
    )
    parser.add_argument("--as", metavar="USER", dest="as_user", help="check permissions as this user (root only)")
    json_flag(parser)


def _add_completion(commands: Commands) -> None:
    parser = commands.add(
        "completion",
        "completion:run",
        "print what makes a shell complete reprod's commands, flags, datasets, versions and runs",
        [
            'eval "$(reprod completion bash)"             # now; in ~/.bashrc for good',
            "source <(reprod completion zsh)              # now; in ~/.zshrc, after compinit, for good",
            "reprod completion fish > ~/.config/fish/completions/reprod.fish",
            "reprod completion bash > ~/.local/share/bash-completion/completions/reprod",
        ],
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    parser.add_argument(
        "words", metavar="WORD", nargs=argparse.REMAINDER, help="what the shell asks with: print what may follow"
    )


def _count(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 9 or int(text) > 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1000")
    return int(text)
