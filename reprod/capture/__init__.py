"""One collector per file; ``environment`` puts them together. No interpreter, pip or conda is ever executed here."""
