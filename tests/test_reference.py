"""docs/reference.md names what is there and nothing else; docs/troubleshooting.md has the reasons that people read.

The page is read as tables, the product as what it exports and as the text in its source.
"""

import argparse
import ast
import dataclasses
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import reprod
from reprod import errors
from reprod.capture.environment import capture_self
from reprod.cli import codes, main, run_command
from reprod.cli.tree import build_parser
from reprod.config import keys as config_keys
from reprod.config import values
from reprod.core.environment_files import artifacts
from reprod.core.repository import Git
from reprod.core.snapshot import BoundDataset, Snapshot
from reprod.daemon import http
from reprod.daemon.events import EVENTS
from reprod.daemon.methods import METHODS
from reprod.daemon.metrics import FAMILIES
from reprod.ops import payload

PACKAGE = Path(reprod.__file__).parent
DOCS = PACKAGE.parent / "docs"
REFERENCE = (DOCS / "reference.md").read_text(encoding="utf-8")
TROUBLE = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
SECTIONS = {
    "mlflow": values.MlflowConfig,
    "environment": values.EnvironmentConfig,
    "upload": values.UploadConfig,
    "watch": values.WatchConfig,
    "scan": values.ScanConfig,
    "store": values.StoreConfig,
    "daemon": values.DaemonConfig,
}


def rows(heading: str) -> list[list[str]]:
    """Return the cells of all tables below ``## heading``, without their heads."""
    found = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", REFERENCE, re.DOTALL | re.MULTILINE)
    assert found is not None, f"docs/reference.md has no section {heading}"
    lines = [line for line in found[1].splitlines() if line.startswith("|")]
    heads = {i - 1 for i, line in enumerate(lines) if line.startswith("| ---")}
    table = [line for i, line in enumerate(lines) if i not in heads and not line.startswith("| ---")]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


def named(heading: str, column: int = 0) -> list[str]:
    """Return what stands in code spans in one column of a section's tables."""
    return [name for row in rows(heading) for name in re.findall(r"`([^`]+)`", row[column])]


def differences(page: list[str], product: set[str]) -> dict[str, list[str]]:
    """Return what only one of the two names, and what the page names twice."""
    return {
        "missing on the page": sorted(product - set(page)),
        "not in the product": sorted(set(page) - product),
        "twice on the page": sorted({name for name in page if page.count(name) > 1}),
    }


NONE: dict[str, list[str]] = {"missing on the page": [], "not in the product": [], "twice on the page": []}


@cache
def source() -> dict[Path, ast.Module]:
    """Return the parsed source of the package by its path in it."""
    return {
        path.relative_to(PACKAGE): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))
    }


@cache
def texts(*folders: str) -> frozenset[str]:
    """Return every text constant of the package, or of these folders and files of it."""
    return frozenset(
        node.value
        for path, tree in source().items()
        if not folders or path.parts[0] in folders or str(path) in folders
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def commands(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[str, list[str]]]:
    """Yield each command that can be called, with its flags and the names of its arguments."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in inner:
        for name, child in action.choices.items():
            yield from commands(child, (*words, name))
    if inner:
        return
    taken: list[str] = []
    for action in parser._actions:
        if action.option_strings:
            taken += [flag for flag in action.option_strings if flag.startswith("--")]
        else:
            taken.append(str(action.metavar or "|".join(map(str, action.choices or ()))))
    yield " ".join(words), sorted(set(taken) - {"--help", "--config", "--color"})


def test_every_command_with_its_flags_and_arguments():
    """The table of commands has each command, with all its flags and arguments, and no other."""
    shown = {}
    for usage in named("Commands"):
        words = usage.removeprefix("reprod ").split()
        name = " ".join(word for word in words if re.fullmatch(r"[a-z]+", word) and words.index(word) < 2)
        flags = re.findall(r"--[a-z][a-z-]*", usage)
        rest = re.sub(r"\[[^\]]*--[^\]]*\]|--[a-z-]+ \S+", " ", usage).split()[1 + len(name.split()) :]
        assert name not in shown, f"{name} is there twice"
        shown[name] = sorted({*flags, *(word.strip("[]").removesuffix("...") for word in rest if word != "--")})

    assert shown == dict(commands(build_parser()))


def test_every_name_of_the_library():
    """The table has what can be imported from reprod, and nothing else."""
    assert sorted(row[0].strip("`").partition("(")[0] for row in rows("Library")) == sorted(reprod.__all__)


def test_every_key_with_its_default():
    """The tables of keys have each key of reprod.toml, of a rule and of datasets.d, with the default that holds."""
    shown = {f"{row[0]} {row[1]}".replace("`", ""): row[2].strip("`") for row in rows("Configuration")}
    known = {
        f"[{section}] {key}": toml(getattr(SECTIONS[section](), key))
        for section, keys in config_keys.SECTIONS.items()
        for key in keys
    }
    blank = values.DatasetConfig(name="x", path="/x")
    known |= {f"[[rule]] {key}": "(needed)" for key in config_keys.RULE}
    known |= {
        f"NAME.toml {key}": "(needed)" if key == "path" else toml(getattr(blank, key)) for key in config_keys.DATASET
    }

    assert set(SECTIONS) == set(config_keys.SECTIONS)
    assert shown == known


def toml(value: object) -> str:
    """Return a default as reprod.toml would have it; what is judged by the files themselves has none."""
    if value is None:
        return "(none)"
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"


def test_every_tag():
    """The table of tags has each that the source writes or reads, on runs and on store runs, and no other."""
    listed = named("Tags")
    shown = sorted({tag.removesuffix(".NAME") for tag in listed})
    written = {
        text.rstrip(".")
        for text in texts("core/hosts.py", "sinks", "ops", "daemon", "integrations", "api.py")
        if re.fullmatch(r"reprod(\.[a-z_]+)+\.?", text) and not is_module(text) and not text.endswith(FILES)
    }

    assert differences(shown, written - {"reprod.name"}) == NONE  # a key in the metadata of a Parquet file
    assert [tag for tag in listed if listed.count(tag) > 1] == []


FILES = (".toml", ".service", ".conf")


def is_module(name: str) -> bool:
    """Return whether a dotted name is a module of the package."""
    path = PACKAGE.joinpath(*name.split(".")[1:])
    return path.is_dir() or path.with_suffix(".py").is_file()


@pytest.fixture(scope="module")
def record():
    """Return a record of which everything is known."""
    found = capture_self(git=False)
    git = Git("c", "b", True, "/code")
    return dataclasses.replace(found, environment=dataclasses.replace(found.environment, git=git))


@pytest.fixture(scope="module")
def snapshot():
    """Return a snapshot of two datasets, one of which has no digest."""
    known = BoundDataset("a", "/a", "start", "walk", 1, "dt1:0", 1, 1, 1, "0", ("sha256",), 1.0)
    unknown = dataclasses.replace(known, name="b", digest=None, error="why", candidates=((1, None),))
    return Snapshot(1, "host", (known, unknown), None, None, None)


def test_every_parameter_metric_and_artifact(snapshot, record):
    """The tables of parameters, metrics and artifacts have each that a run is given."""
    parameters = {re.sub(r"\.a$", ".NAME", key) for key in payload.params(snapshot, record.environment)}
    metrics = {re.sub(r"\.a$", ".NAME", key) for key in payload.metrics(snapshot)}
    files = {f"environment/{name}" for name in artifacts(record)}
    written = texts("ops/run_files.py", "ops/deliver_end.py")
    others = {name for text in written for name in re.findall(r"\w+\.json\b", text)}
    shown = named("Artifacts")

    assert differences(named("Parameters"), parameters) == NONE
    assert differences(named("Metrics on a run"), metrics) == NONE
    assert files - set(shown) == set()
    assert others - {name.rpartition("/")[2] for name in shown} == set()
    assert [name for name in shown if not any(name.rpartition("/")[2] in text for text in texts())] == []


def test_every_tag_of_a_snapshot_is_in_the_table(snapshot, record):
    """What a snapshot becomes on a run is in the table, with its form for one of several datasets."""
    written = {re.sub(r"\.[ab]$", ".NAME", key) for key in payload.tags(snapshot, "a,b", record.environment)}

    assert written - set(named("Tags")) == set()


@pytest.mark.parametrize(
    ("heading", "product"),
    [
        ("Log events", set(EVENTS)),
        ("Prometheus metrics", set(FAMILIES)),
        ("Socket methods", set(METHODS)),
        ("HTTP", set(http.PATHS)),
    ],
)
def test_every_name_of_a_closed_list(heading, product):
    """Events, metrics, methods and pages are those that the code has."""
    assert differences(named(heading), product) == NONE


def test_who_may_call_a_method():
    """The table of methods says of each what one needs for it."""
    shown = {name: row[1] for row in rows("Socket methods") for name in re.findall(r"`(\w+)`", row[0])}

    assert shown == {name: needs for name, (needs, _) in METHODS.items()}


def test_kinds_of_metrics():
    """The table of metrics says of each whether it is a counter or a gauge."""
    shown = {row[0].strip("`"): row[1] for row in rows("Prometheus metrics")}

    assert shown == {name: family.kind for name, family in FAMILIES.items()}


def test_every_exit_code():
    """The table of exit codes has those of the errors, those that commands find out, and those of signals."""
    found = {cls.exit_code for cls in errors.ALL} | {main.INTERRUPTED, main.BROKEN_PIPE}
    found |= {run_command.OURS, run_command.NOT_EXECUTABLE, run_command.NOT_FOUND}
    found |= {value for name, value in vars(codes).items() if name.isupper() and isinstance(value, int)}
    signals = {128 + 1, 128 + 15}  # SIGHUP, SIGTERM: reprod manifest

    assert differences(named("Exit codes"), {str(code) for code in found | signals}) == NONE
    assert [str(cls.exit_code) for cls in errors.ALL if f"({cls.exit_code})" not in TROUBLE] == []


def test_every_environment_variable():
    """Each variable that the source reads of its own environment is in the table, and each in the table is read."""
    read = set()
    for tree in source().values():
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Attribute(value=place, attr="get"), args=[ast.Constant(value=str(name)), *_]):
                    read |= {name} if is_environ(place) else set()
                case ast.Subscript(value=place, slice=ast.Constant(value=str(name))):
                    read |= {name} if is_environ(place) else set()
    read |= {text for text in texts() if re.fullmatch(r"REPROD_[A-Z_]+", text)} - journal_fields()
    shown = named("Environment variables")

    assert read - set(shown) == set()
    assert [name for name in shown if not any(name in text for text in texts())] == []


def is_environ(node: ast.expr) -> bool:
    """Return whether an expression is this process's environment."""
    return ast.unparse(node) == "os.environ"


def journal_fields() -> set[str]:
    """Return the names beginning with ``REPROD_`` that are of the journal."""
    return {name for name in named("Log fields") if name.startswith("REPROD_")}


def test_log_fields():
    """Each field of the table is one that the log writes; those that every record has are in it."""
    always = {text for text in texts("log.py") if re.fullmatch(r"MESSAGE|PRIORITY|SYSLOG_IDENTIFIER", text)}
    values = {
        keyword.arg or ""
        for tree in source().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in {"info", "warning", "error"}
        for keyword in node.keywords
    }
    known = always | {f"REPROD_{name.upper()}" for name in {*values, "event", "dataset", "lines_lost"}}
    shown = set(named("Log fields"))

    assert shown - known == set()
    assert {*always, "REPROD_EVENT", "REPROD_DATASET", "REPROD_RUN_ID", "REPROD_ERROR", "REPROD_HINT"} - shown == set()


def test_every_schema():
    """The table of JSON documents has each schema that the source writes."""
    whole = {name for text in texts() for name in re.findall(r"\breprod\.[a-z_-]+/\d+\b", text)}
    made = {
        f"reprod.{node.args[0].value}/1"
        for tree in source().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "to_json"
        if node.args and isinstance(node.args[0], ast.Constant)
    }

    assert differences(named("JSON documents"), whole | made) == NONE


#: What is raised with these reaches a person as it is.
SAID = {name for name, cls in vars(errors).items() if isinstance(cls, type) and issubclass(cls, errors.ReprodError)}
SAID |= {"_need", "_unbound", "_verdict"}
SAID -= {"ReprodError", "UsageError", "NotFoundError"}  # they say what was typed, and the hint says the rest
#: Explained in pages of their own (exports, manifests), in system_info.json, or by the demo itself.
ELSEWHERE = re.compile(
    r"ops/(export|generate|stored)|core/(bagit|claims|croissant|stored|import_names)|capture/|cli/demo"
)
LEAST = 12  # characters: less is no sentence that can be searched for


def sentences() -> Iterator[tuple[str, str]]:
    """Yield each source line that tells a person of something, and the longest literal part of what it says."""
    for path, tree in source().items():
        if ELSEWHERE.match(str(path)):
            continue
        for node in ast.walk(tree):
            found: list[ast.expr] = []
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in SAID:
                found = node.args
            elif isinstance(node, ast.FunctionDef) and node.name == "_why_late":
                found = [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return) and inner.value]
            for said in found[: 1 if getattr(getattr(node, "func", None), "id", "") == "_need" else None]:
                parts = [p.value for p in ast.walk(said) if isinstance(p, ast.Constant) and isinstance(p.value, str)]
                longest = max(parts, key=len, default="").strip()
                if len(longest) >= LEAST:
                    yield f"{path}:{said.lineno}", longest


def test_every_error_is_explained():
    """What reprod says to a person when something is wrong stands in docs/troubleshooting.md, in its own words."""
    page = " ".join(TROUBLE.replace("\\|", "|").replace("`", "").split())
    missing = [(where, text) for where, text in sentences() if " ".join(text.replace("`", "").split()) not in page]

    assert missing == []


def test_links_lead_somewhere():
    """Every link from one page to another, to a heading of it, and to a picture or a folder, exists."""
    broken = []
    for page in [*DOCS.glob("*.md"), PACKAGE.parent / "README.md"]:
        for target, anchor in re.findall(r"\]\(([\w./-]*)(#[\w-]+)?\)", page.read_text(encoding="utf-8")):
            place = (page.parent / target) if target else page
            if not place.exists() or (anchor and anchor not in slugs(place)):
                broken.append(f"{page.name}: {target}{anchor}")
    assert broken == []


def slugs(page: Path) -> set[str]:
    """Return what can follow ``#`` in a link to a page; nothing where it is no page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE) if page.suffix == ".md" else []
    return {"#" + re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
