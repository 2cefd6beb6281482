"""Two ways to write the address of one server."""

import pytest

from reprod.core.address import same_server


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://localhost:5000", "http://127.0.0.1:5000/", True),
        ("http://127.0.0.1:5000", "http://localhost:5000/", True),
        ("http://0.0.0.0:5000", "http://[::1]:5000", True),
        ("https://h", "https://h:443/", True),
        ("https://mlflow.example", "https://mlflow.example:443", True),
        ("http://HOST/path/", "http://host/path", True),
        ("http://somebody:secret@h", "http://h", True),
        ("http://host:5000", "https://host:5000", False),
        ("http://h:5000", "http://h:5001", False),
        ("http://h:5000/a", "http://h:5000/b", False),
        ("http://h:99999", "http://h:5000", False),
        ("sqlite:////a.db", "sqlite:////a.db", True),
        ("sqlite:////a.db", "sqlite:////b.db", False),
        ("", "http://h", False),
    ],
)
def test_same_server(one: str, other: str, same: bool) -> None:
    """Two spellings of one address are one server; anything else is another."""
    assert same_server(one, other) is same
