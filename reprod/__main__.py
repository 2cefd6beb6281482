"""The ``reprod`` command; everything is loaded on demand, because a short answer should cost milliseconds."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line with ``argv`` (default: this process's arguments) and return its exit code."""
    from reprod.cli.main import main as run

    return run(sys.argv[1:] if argv is None else list(argv))


if __name__ == "__main__":
    sys.exit(main())
