"""The tracking server: whether it answers from here and to the daemon, and whether this shell means the same one.

Asked by plain HTTP, without MLflow, without this user's credentials for more than the store runs, and never through a
redirect. Whatever it is: a question ends after some seconds. Seconds.
"""

import base64
import json
import os
import re
import shlex
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing
from typing import Any

from reprod.core.address import LOOPBACK, same_server
from reprod.core.redact import redact_text, redact_url
from reprod.errors import ReprodError
from reprod.ops.doctor_finding import NO_DAEMON, Finding, Situation, sudo
from reprod.sinks.server import remembered_url
from reprod.store import files, health

ASK_S = 2.5

#: Store runs that are asked for: those that nobody has looked at for longest.
ASKED_RUNS = 20
ASK_RUNS_S = 2.0

#: An answer is a line, or the description of one run.
_MOST_BYTES = 1 << 20
_NAMED = 3


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer, and where it leads is nobody's business here."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""
        return


def check_reachable(situation: Situation) -> list[Finding]:
    """Ask the server itself, and compare with what the daemon says."""
    uri = situation.uri
    if situation.status is None and uri == "local":
        uri = remembered_url(situation.state) or "local"
    if not uri and situation.refused:
        return [Finding("unknown", "tracking", "which tracking server the daemon asks", "it says so to its group only")]
    if not uri and situation.status is None and situation.config is None:
        return [Finding("unknown", "tracking", "which tracking server the daemon asks", "its configuration is wrong")]
    if not uri:
        lines = _configure_lines(situation)
        return [Finding("bad", "tracking", "no tracking server is configured", "tagged runs are not noticed", lines)]
    if uri == "local":
        means = "the daemon starts it"
        return [Finding("unknown", "tracking", "the local server runs with the daemon", means, needs_daemon=True)]
    shown = redact_url(uri)
    if uri.startswith("sqlite:"):
        return _check_file(situation, uri)
    refusal = ask(uri)
    theirs = _as_daemon_says(situation)
    if refusal is None and not theirs:
        return [Finding("ok", "tracking", f"{shown} answers" + _polled(situation))]
    if refusal is None:
        means = "it answers here: a proxy, a name or a password that the daemon's own environment lacks"
        lines = situation.start_lines
        denied = ((situation.status or {}).get("tracking") or {}).get("denied")
        does = "refuses the daemon" if denied else "does not answer the daemon"
        return [Finding("bad", "tracking", f"{shown} {does}: {theirs}", means, lines)]
    state = ((situation.status or {}).get("tracking") or {}).get("state")
    means = "runs wait, and are recorded when it is back"
    if state == "reachable":
        means = "the daemon reaches it, and this shell does not: its scripts will not either"
    what = f"{shown} does not answer here: {refusal}"
    return [Finding("bad" if theirs else "warn", "tracking", what, means, (_start_line(situation, shown),))]


def _start_line(situation: Situation, uri: str) -> str:
    """Return what starts a server on this machine; of another one, what shows whether it is back."""
    parts = urllib.parse.urlsplit(uri)
    if parts.hostname in LOOPBACK and parts.scheme == "http":
        port = parts.port or 80
        line = f"mlflow server --host {parts.hostname} --port {port} --backend-store-uri sqlite:///mlflow.db"
        return f"{line}    # with the store that it had: another one is an empty server"
    return f"curl -sS {shlex.quote(uri.rstrip('/'))}/health    # or another tracking_uri in {_config_file(situation)}"


def _as_daemon_says(situation: Situation) -> str:
    """Return the daemon's trouble with the server, empty if it has none or does not run."""
    tracking = (situation.status or {}).get("tracking") or {}
    return redact_text(str(tracking.get("error") or "no answer")) if tracking.get("state") == "unreachable" else ""


def _polled(situation: Situation) -> str:
    return " here and to the daemon" if situation.status is not None else f" ({NO_DAEMON} to say what it sees)"


def _check_file(situation: Situation, uri: str) -> list[Finding]:
    """A database file is no server: whoever has the file reaches it."""
    path = "/" + uri.removeprefix("sqlite:").lstrip("/")
    theirs = _as_daemon_says(situation)
    if theirs:
        return [Finding("bad", "tracking", f"{path}: {theirs}", "runs wait until it can be read", (f"ls -l {path}",))]
    if not os.path.exists(path):
        means = "MLflow makes it with the first run"
        return [Finding("ok", "tracking", f"{path} is not there yet ({means})")]
    return [Finding("ok", "tracking", f"{path} is there")]


def check_shell(situation: Situation) -> list[Finding]:
    """Whether a script started from this shell goes to the server that the daemon asks."""
    uri, mine = situation.uri, situation.shell_uri
    if not uri or uri == "local" or situation.chosen:
        return []
    line = f"export MLFLOW_TRACKING_URI={shlex.quote(redact_url(uri))}"
    if not mine:
        if os.geteuid() == 0:
            return [Finding("ok", "shell", "MLFLOW_TRACKING_URI is not set in this shell of root's")]
        means = f"a script that sets none itself writes to a local file, and not to {redact_url(uri)}"
        return [Finding("warn", "shell", "MLFLOW_TRACKING_URI is not set in this shell", means, (line,))]
    if same_server(uri, mine):
        return [Finding("ok", "shell", "MLFLOW_TRACKING_URI is the daemon's")]
    what = f"MLFLOW_TRACKING_URI is {redact_url(mine)}, the daemon asks {redact_url(uri)}"
    means = "runs of scripts that are started here are not noticed"
    return [Finding("bad", "shell", what, means, (line,))]


def ask(uri: str) -> str | None:
    """Return why a server does not answer, None if it does. What asks for a password answers."""
    try:
        with _open(uri, "/health", ASK_S) as answer:
            answer.read(_MOST_BYTES)
            return None
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code} {error.reason}" if error.code >= 500 else None
    except urllib.error.URLError as error:
        reason = error.reason
        return str(getattr(reason, "strerror", None) or reason)
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__


def check_store_runs(situation: Situation) -> list[Finding]:
    """Ask for some of the runs on which manifests of large datasets lie."""
    uri = situation.uri
    if not uri.startswith("http"):
        return []
    key = "local" if ((situation.status or {}).get("tracking") or {}).get("local") else uri
    try:
        with closing(files.open_registry_readonly(situation.state)) as records:
            count, runs = records.read(lambda c: health.store_runs(c, key, ASKED_RUNS))
    except ReprodError:
        return []
    if not runs:
        return []
    until_s, gone, asked = time.monotonic() + ASK_RUNS_S, [], 0
    for run in runs:
        there = run_exists(uri, run.run_id, until_s)
        if there is None:
            break
        asked += 1
        gone += [] if there else [run]
    if not asked:
        return [
            Finding("unknown", "references", "store runs could not be asked for", "the server does not answer that")
        ]
    told = f"{asked} of {count} store runs of reprod-datasets were asked for"
    if not gone:
        return [Finding("ok", "references", f"{told}, and are there")]
    named = ", ".join(run.run_id for run in gone[:_NAMED])
    means = "the manifests on them cannot be read from the server; they are uploaded again with the next run on them"
    lines = tuple(_restore_line(run.run_id) for run in gone[:_NAMED])
    return [
        Finding("warn", "references", f"{len(gone)} store runs are gone from the server: {named}; {told}", means, lines)
    ]


def _restore_line(run_id: str) -> str:
    return f"mlflow runs restore --run-id {run_id}"


def run_exists(uri: str, run_id: str, until_s: float) -> bool | None:
    """Return whether a run is on the server and not deleted, None if it did not say so in time."""
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        return None
    query = urllib.parse.urlencode({"run_id": run_id})
    try:
        with _open(uri, f"/api/2.0/mlflow/runs/get?{query}", left_s, credentials=True) as answer:
            found = json.loads(answer.read(_MOST_BYTES))
        return bool(found["run"]["info"].get("lifecycle_stage") == "active")
    except urllib.error.HTTPError as error:
        if error.code != 404:
            return None
        try:
            return None if json.loads(error.read(_MOST_BYTES))["error_code"] != "RESOURCE_DOES_NOT_EXIST" else False
        except (OSError, ValueError, KeyError, TypeError):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _open(uri: str, path: str, timeout_s: float, *, credentials: bool = False) -> Any:
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("neither http nor https")
    address = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(  # noqa: S310 - the scheme was checked
        urllib.parse.urlunsplit(
            (parts.scheme, address, parts.path.rstrip("/") + path.partition("?")[0], path.partition("?")[2], "")
        )
    )
    authorization = _authorization(parts) if credentials else None
    if authorization:
        request.add_header("Authorization", authorization)
    # No proxy can reach a loopback server, whatever the environment says.
    proxies = urllib.request.ProxyHandler({} if parts.hostname in LOOPBACK else None)
    return urllib.request.build_opener(proxies, _NoRedirect()).open(request, timeout=timeout_s)


def _authorization(parts: urllib.parse.SplitResult) -> str | None:
    """Return what MLflow's own client would send: the token or password of this shell, or of the URI."""
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if token:
        return f"Bearer {token}"
    user = os.environ.get("MLFLOW_TRACKING_USERNAME") or urllib.parse.unquote(parts.username or "")
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD") or urllib.parse.unquote(parts.password or "")
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}" if user else None


def _config_file(situation: Situation) -> str:
    told = (situation.status or {}).get("config") or (situation.config.file if situation.config else None)
    return str(told or "reprod.toml")


def _configure_lines(situation: Situation) -> tuple[str, ...]:
    """Return the line that names a server in reprod.toml: this shell's if it has one, else the daemon's own."""
    path = _config_file(situation)
    file, asked = shlex.quote(path), sudo() if path.startswith("/etc/") else ""
    mine = situation.shell_uri  # not one with a password: what is printed is masked, and would be written so
    uri = mine if mine.startswith("http") and redact_url(mine) == mine else "local"
    setting = f'tracking_uri = "{uri}"'
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            text = stream.read(_MOST_BYTES)
    except OSError:
        text = ""
    # A second [mlflow] would be no TOML.
    if re.search(r"(?m)^\s*tracking_uri\s*=", text):
        write = f"{asked}sed -i {shlex.quote(f's|^ *tracking_uri *=.*|{setting}|')} {file}"
    elif re.search(r"(?m)^\s*\[mlflow\]", text):
        write = f"{asked}sed -i {shlex.quote('/^ *[[]mlflow[]]/a ' + setting)} {file}"
    else:
        write = f"printf '%s\\n' '[mlflow]' {shlex.quote(setting)} | {asked}tee -a {file}"
    return (write if situation.status is None else f"{write} && {situation.start_lines[0]}",)
