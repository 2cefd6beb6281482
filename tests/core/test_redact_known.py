"""Secrets that are known because a variable of the process says so: no door tells an unexpected exception with one."""

import pytest
from leak import find_leaks

from reprod.cli import main
from reprod.core.redact_taint import Taint
from reprod.daemon.unexpected import bug
from reprod.sinks.failures import classify

PASSWORD = "correct horse battery staple"


def _command(error: Exception, capsys: pytest.CaptureFixture[str]) -> str:
    assert main._bug(error) == main.BUG
    return capsys.readouterr().err


def _daemon(error: Exception, _capsys: pytest.CaptureFixture[str]) -> str:
    return bug(error).message


def _sink(error: Exception, _capsys: pytest.CaptureFixture[str]) -> str:
    failure = classify(error)
    return f"{failure.message}\n{failure.detail}"


@pytest.mark.parametrize("tell", [_command, _daemon, _sink])
def test_an_unexpected_exception_is_told_without_the_values_of_secret_variables(
    tell: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A library puts the password that it took from a variable into its exception, in words that no rule recognises: a
    command with its traceback, the daemon and the process that talks to the server mask it and tell the rest."""
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    monkeypatch.setenv("HTTPS_PROXY", "http://me:open%20sesame%20now@proxy.example:3128")
    monkeypatch.setenv("REPROD_DEBUG", "1")
    assert callable(tell)
    try:
        raise KeyError(f"tried {PASSWORD}, then open sesame now")
    except KeyError as error:
        told = tell(error, capsys)
    assert find_leaks({"variable": PASSWORD, "proxy": "open sesame now"}, blobs={"": told}) == []
    assert "KeyError: 'tried ***, then ***'" in told


def test_many_secrets_are_found_in_short_texts_too() -> None:
    """Where there are more forms to look for than places to look at, each is found at the start, middle and end."""
    values = [f"{number:03}Secret of a process" for number in range(300)]
    taint = Taint(values)
    for value in (values[0], values[157], values[299]):
        for text in (value, f"x{value}", f"{value}x", f"({value})"):
            assert [text[start:end] for start, end, _ in taint.spans(text)] == [value]
    assert list(taint.spans("dataset.refreshed")) == list(taint.spans("short")) == []
