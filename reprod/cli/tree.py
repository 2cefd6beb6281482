"""The tree of commands: names, flags, one-line descriptions and examples, a module for each family.

Building all of it takes about a millisecond; the module that runs a command is named by text and loaded only when that
command is called. Names and flags are public (the contract's "Command line").
"""

import argparse

from reprod import __version__
from reprod.cli.answers_tree import add_run_commands
from reprod.cli.commands import Commands, Parser, json_flag
from reprod.cli.dataset_tree import add_dataset, add_history, add_scan
from reprod.cli.env_tree import add_env
from reprod.cli.files_tree import add_export, add_manifest, add_verify
from reprod.cli.run_tree import add_run, add_runs
from reprod.cli.service_tree import add_service


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
        add_dataset,
        add_scan,
        add_run,
        add_runs,
        add_history,
        add_run_commands,
        add_verify,
        add_manifest,
        add_export,
        add_env,
        _add_demo,
        _add_completion,
        add_service,
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


def _add_demo(commands: Commands) -> None:
    parser = commands.add("demo", "demo:run", "show all of it on a real model and real files", ["reprod demo --keep"])
    parser.add_argument("--keep", action="store_true", help="leave the server and the daemon up at the end")
    parser.add_argument("--port", metavar="N", type=int, default=None, help="port of the demo's MLflow server")


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
