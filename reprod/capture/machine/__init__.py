"""The machine, and how much of it a process may use."""
