"""The commands about files and their manifests: verify, manifest, export; for ``reprod.cli.tree``."""

from reprod.cli.commands import Commands, json_flag
from reprod.cli.flags import Values, depth_flags


def add_verify(commands: Commands) -> None:
    """Add ``verify``."""
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


def add_manifest(commands: Commands) -> None:
    """Add ``manifest``."""
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


def add_export(commands: Commands) -> None:
    """Add ``export``."""
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
