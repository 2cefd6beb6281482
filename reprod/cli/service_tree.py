"""The commands that put reprod to work on a machine: service, doctor; for ``reprod.cli.tree``."""

from reprod.cli.commands import Commands, json_flag


def add_service(commands: Commands) -> None:
    """Add ``service`` and ``doctor``."""
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
