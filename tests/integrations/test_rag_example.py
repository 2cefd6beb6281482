"""The example answers from the right documents, and after a change embeds that one document."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("duckdb", reason="DuckDB is not installed (extra rag)")

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "rag_docs.py"


def test_the_example_answers_from_the_document_that_was_changed(tmp_path: Path) -> None:
    """Three answers from the right documents; then one document is embedded, and the answer's digest is its file's."""
    done = subprocess.run(
        [sys.executable, EXAMPLE, "--hashing"],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    documents = len(list((ROOT / "docs").rglob("*.md")))
    counts = re.findall(r"^(\d+) documents, (\d+) embedded, (\d+) unchanged", done.stdout, re.MULTILINE)
    assert counts == [(f"{documents}", f"{documents}", "0"), (f"{documents}", "1", f"{documents - 1}")]
    (changed,) = re.findall(r"^(\S+) was changed$", done.stdout, re.MULTILINE)
    answers = re.findall(r"^  (\S+\.md) sha256:[0-9a-f]{12} bytes \d+-\d+ ", done.stdout, re.MULTILINE)
    assert answers == ["history.md", "digest.md", "upgrade.md", changed]
    assert "lighthouse keeper's cellar" in done.stdout
    assert done.stdout.endswith("sha256sum says the same\n")
    assert list(tmp_path.iterdir()) == []
