"""The house rules that a machine can check: cheap imports, a closed list of events, documented exit codes."""

import re
import subprocess
import sys
from pathlib import Path

import reprod
from reprod import errors
from reprod.daemon.events import EVENTS

PACKAGE = Path(reprod.__file__).parent
HEAVY = ("mlflow", "asyncio", "anyio", "structlog", "rich", "watchfiles", "psutil", "sqlite3")


def test_importing_reprod_costs_a_training_process_nothing():
    """``import reprod`` and its public names bring none of the daemon's libraries along."""
    code = f"import reprod, sys; reprod.tag_dataset; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)

    assert done.stdout.strip() == "[]"


def test_the_log_knows_no_event_outside_its_list():
    """Each event that the source logs is in the closed list, and each in the list is logged somewhere."""
    pattern = re.compile(
        r"\b_?log\.(?:info|warning|error)\(\s*\"([a-z_]+\.[a-z_]+)\"|event = \"([a-z_.]+)\"|\"(watch\.[a-z_]+)\""
    )
    logged = {
        name
        for path in (PACKAGE / "daemon").glob("*.py")
        if path.name != "events.py"
        for match in pattern.finditer(path.read_text(encoding="utf-8"))
        for name in match.groups()
        if name
    }

    assert logged - EVENTS == set()
    assert EVENTS - logged == {"library_log"}


def test_every_error_says_what_it_means_and_has_a_documented_exit_code():
    """Error classes have a docstring, a code of their own, and that code stands in docs/cli.md."""
    text = (PACKAGE.parent / "docs" / "cli.md").read_text(encoding="utf-8")
    codes = [cls.exit_code for cls in errors.ALL]

    assert len(set(codes)) == len(codes)
    assert [cls.__name__ for cls in errors.ALL if not (cls.__doc__ or "").startswith("Raised ")] == []
    assert [code for code in codes if not re.search(rf"\b{code}\b", text)] == []


def test_an_exit_code_comes_back_as_its_error():
    """What the socket sends as a code is the same class again on the client's side."""
    for cls in errors.ALL:
        again = errors.from_code(cls.exit_code, "what", "do")

        assert (type(again), again.message, again.hint) == (cls, "what", "do")


def test_no_line_tells_to_install_what_is_another_projects():
    """The package ``reprod`` of the public index is not this one: no message names it after ``pip install``."""
    wrong = re.compile(r"pip install [^\n]{0,30}\breprod\b(?!\.|-)")
    places = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "examples").glob("*.py")]
    assert [path.name for path in places if wrong.search(path.read_text(encoding="utf-8"))] == []


def test_every_test_that_the_table_of_hazards_names_exists():
    """docs/reliability.md names a test for each hazard; a renamed or removed one is noticed here."""
    tests = {path.stem: path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("test_*.py")}
    table = (PACKAGE.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
    missing = []
    for line in table.splitlines():
        module = ""
        for name, function in re.findall(r"`(test_\w+)(?:::([\w*]+))?`", line):
            module = tests.get(name, module)
            # A name that is no module's is another function of the one before it.
            wanted = function or ("" if name in tests else name)
            if not module or (wanted and not re.search(rf"def {wanted.rstrip('*')}", module)):
                missing.append(f"{name}::{function}")
    assert missing == []
