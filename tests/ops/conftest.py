"""The fixture of a dataset with its database."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from ops_place import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A place of the test's own."""
    here = Place(tmp_path)
    yield here
    here.close()
