"""``reprod.context`` of every version: what is understood stays so, what is not is no context and never an error."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from reprod.core.process import ProcessContext

FIXTURES = Path(__file__).parents[1] / "fixtures" / "contexts"
UNDERSTOOD = {path.stem: path for path in sorted((FIXTURES / "understood").iterdir())}
NOT_UNDERSTOOD = {path.stem: path for path in sorted((FIXTURES / "not-understood").iterdir())}
BOOT = "39aa8962-07c0-47cc-bbed-ea6469f36a84"


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_a_version_that_is_understood(name: str) -> None:
    """Every version with the fields of the first is taken as what it says, by tag and by socket; more is left out."""
    text = UNDERSTOOD[name].read_text(encoding="utf-8")
    said = json.loads(text)
    context = ProcessContext.parse(text)
    assert context == ProcessContext(said["v"], "trainer-1", BOOT, 4242, 81234, "/venv", said.get("pid_ns"))
    assert ProcessContext.from_object(said) == context
    assert context is not None
    assert ProcessContext.parse(context.to_json()) == context


@pytest.mark.parametrize("name", NOT_UNDERSTOOD)
def test_a_version_that_is_not_understood(name: str) -> None:
    """It is no context: the run then does not say which process it is."""
    assert ProcessContext.parse(NOT_UNDERSTOOD[name].read_text(encoding="utf-8")) is None


def test_the_key_tells_containers_apart() -> None:
    """Containers that start together have the same boot id, pid and start: their pid namespaces differ, else, where
    those are not known, their hosts' names."""
    one = ProcessContext(1, "a", BOOT, 1, 81234, "/venv", 4026531836)
    assert one.key != replace(one, pid_ns=4026531837).key
    assert one.key == replace(one, host="renamed meanwhile", v=2, prefix="/other").key
    bare = replace(one, pid_ns=None)
    assert len({one.key, bare.key, replace(bare, host="b").key}) == 3


def test_the_namespace_is_a_number() -> None:
    """Nothing else is taken for one: a key must not be somebody else's."""
    good = json.loads(UNDERSTOOD["v1-0.1.0"].read_text(encoding="utf-8"))
    for wrong in ("4026531836", 0, -1, 1.5, True, [4026531836], 2**70):
        assert ProcessContext.from_object({**good, "pid_ns": wrong}) is None
