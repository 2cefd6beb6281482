"""Amounts of bytes as text for people: one form, one system of units, on a screen, in a message and in a finding.

Units are powers of 1024, and are called so (KiB). What a document of the seed's holds has the seed's form
(``core.manifest.human_size``); programs get bytes.
"""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(count: float) -> str:
    """Return a number of bytes: ``812 B``, ``4.5 GiB``."""
    value = float(count)
    for unit in _UNITS:
        # 1023.95 would be shown as 1024.0: it belongs to the next unit.
        if abs(value) < 1023.95 or unit == _UNITS[-1]:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("the last unit always returns")
