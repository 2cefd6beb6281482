"""Exit codes that a command finds out by itself; errors carry theirs (reprod.errors).

0 fine or no difference, 1 differs or not valid or needs a person, 5 incomplete, 6 unavailable, 65 damaged.
"""

FINE = 0
DIFFERS = 1
INCOMPLETE = 5
UNAVAILABLE = 6
DAMAGED = 65
MISCONFIGURED = 78
NO_DAEMON = 3

# The contract's order where several hold: what is certain and worst first.
_ORDER = (DAMAGED, DIFFERS, UNAVAILABLE, INCOMPLETE, FINE)


def worst(*found: int) -> int:
    """Return the code that counts where several hold: 65, 1, 6, 5, 0."""
    return next((code for code in _ORDER if code in found), FINE)
