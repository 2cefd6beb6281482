"""The states that releases left behind (tests/fixtures), and formats that reprod does not have yet.

``later`` stands for releases to come: formats 2 and 3 on top of the present ones, as a migration could be: columns,
rows that are written again, a table that is made anew.
"""

import shutil
from pathlib import Path

from reprod.store import migrate
from reprod.store.migrate import Schema

FIXTURES = Path(__file__).parent / "fixtures"
RELEASES = sorted(path.name.removeprefix("state-") for path in FIXTURES.glob("state-*"))

#: What the dataset of every released state held, by version: written down here again, as the oracle.
CONTENT: dict[int, dict[str, str]] = {
    1: {"a.csv": "x,y\n1,2\n", "sub/b.csv": "1\n", "old.csv": "gone soon\n"},
    2: {"a.csv": "x,y\n1,2\n", "sub/b.csv": "1\n2\n", "old.csv": "gone soon\n"},
    3: {"a.csv": "x,y\n1,2\n3,4\n", "sub/b.csv": "1\n2\n", "new.csv": "new\n"},
}
DELIVERED, WAITING = "9ff0142b" + "0" * 24, "01dca9b2" + "0" * 24

_LATER: dict[Schema, tuple[str, str]] = {
    "dataset": (
        """-- format 2; a comment with a semicolon
        ALTER TABLE version ADD COLUMN note TEXT;
        UPDATE version SET note = 'seq; ' || seq;
        CREATE INDEX file_kind ON file (kind);
        """,
        """CREATE TABLE later (file INTEGER PRIMARY KEY, text BLOB) STRICT;
        INSERT INTO later SELECT id, name FROM file;
        CREATE TRIGGER later_gone AFTER DELETE ON later BEGIN SELECT 1; SELECT 2; END;
        DROP INDEX file_kind;
        """,
    ),
    "registry": (
        """ALTER TABLE delivery ADD COLUMN note TEXT;
        UPDATE delivery SET note = run_id;
        """,
        """CREATE TABLE later (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
        INSERT INTO later SELECT name FROM dataset;
        """,
    ),
}
_released = migrate.scripts


def later(schema: Schema, number: int = 3) -> tuple[str, ...]:
    """Return the scripts of a release that knows formats up to ``number``."""
    return (*_released(schema), *_LATER[schema])[:number]


def copy_state(release: str, to: Path) -> Path:
    """Put the state of a release somewhere, as its own daemon would have left it."""
    shutil.copytree(FIXTURES / f"state-{release}", to)
    for path in to.rglob("*.sqlite"):
        path.chmod(0o640)
    to.chmod(0o700)
    return to


def write_data(root: Path, version: int = 3) -> Path:
    """Write the files of a version."""
    for name, text in CONTENT[version].items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root
