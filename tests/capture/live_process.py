"""Constants of the tests that look at real processes and environments."""

import sys

MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"

#: A program that says when it runs and then waits until its stdin closes.
WAIT = "import sys; print('ready', flush=True); sys.stdin.read()"
