"""The hardware benchmark, and the programs that it times."""
