"""How many cases a test draws. ``make test`` draws the same ones each time, so that more of them find nothing more than
they did when they were new: a quarter keeps what was found from coming back. ``make torture`` draws all, and anew."""

import os

#: Of what a test names as its whole number.
PART = 1 if "REPROD_TORTURE" in os.environ else 4


def examples(whole: int) -> int:
    """Return how many of ``whole`` cases to draw here."""
    return max(1, whole // PART)
