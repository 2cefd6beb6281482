"""The LEAK fixture: a secret of its own in every channel that a capture comes near, and the search for them afterwards.

``plant(base)`` makes the place of a user whose every tool knows a secret: variables, credential files, an environment
with conda's state file and hostile ``direct_url.json``, a repository with remotes of every form, arguments, and files
that are not committed. ``assert_no_leak`` then looks into files and blobs for each canary: as it is, quoted for a URL,
in base64 at each of its three places, and as JSON escapes it. ``cloud_stub`` answers a metadata service's questions
with canaries and keeps what was asked. Nothing here needs reprod.
"""

import base64
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

HOST = "corp.example"
#: A canary is compared by this many characters of it as well: what is cut in half is out all the same.
STRETCH = 14
MINOR = f"python{sys.version_info[0]}.{sys.version_info[1]}"
#: Variables whose value is the secret itself.
SECRET_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_SECRET",
    "HF_TOKEN",
    "WANDB_API_KEY",
    "OPENAI_API_KEY",
    "SLURM_JWT",
    "MLFLOW_TRACKING_PASSWORD",
    "DB_PASSWORD",
    "NCCL_API_KEY",
)
URL_VARIABLES = ("PIP_INDEX_URL", "UV_INDEX_URL", "PIP_EXTRA_INDEX_URL", "DATABASE_URL", "TORCH_HOME", "HTTPS_PROXY_X")


@dataclass
class Leak:
    """Where the secrets lie, and which: ``canaries`` is channel -> secret."""

    base: Path
    canaries: dict[str, str] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    argv: list[str] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.base / "home"

    @property
    def prefix(self) -> Path:
        return self.base / "venv"

    @property
    def repository(self) -> Path:
        return self.base / "repository"

    def canary(self, channel: str) -> str:
        """Return the secret of a channel: letters and digits with a mark that no other text has."""
        digest = hashlib.sha256(f"{self.base}{channel}".encode()).hexdigest()
        return self.canaries.setdefault(channel, f"CNRY{digest[:20]}")


def plant(base: Path, *, site_packages: Iterable[str] = ()) -> Leak:
    """Make the place; ``site_packages`` are folders that its Python imports from besides its own."""
    leak = Leak(base)
    _plant_variables(leak)
    _plant_home(leak)
    _plant_prefix(leak, site_packages)
    _plant_repository(leak)
    c = leak.canary
    leak.argv = [
        f"--api-key={c('argv =')}", "--hub_token", c("argv space"), "-H", f"Authorization: Bearer {c('argv header')}",
        f"model.token={c('argv dotted')}", "--db", f"postgres://u:{c('argv url')}@{HOST}/db",
        "--innocent", leak.environ["OPENAI_API_KEY"], f"--also={quote(leak.environ['DB_PASSWORD'], safe='')}",
        "--login", base64.b64encode(f"user:{leak.environ['HF_TOKEN']}".encode()).decode(),
        "--json", json.dumps({"client_secret": c("argv json")}), "--epochs", "3",
    ]  # fmt: skip
    return leak


def _plant_variables(leak: Leak) -> None:
    c = leak.canary
    environ = {name: c(f"variable {name}") for name in SECRET_VARIABLES}
    environ |= {name: f"https://bob:{c(f'variable {name}')}@{HOST}/simple" for name in URL_VARIABLES}
    environ["DB_PASSWORD"] = f'{c("variable DB_PASSWORD")}/"\\=é'
    environ["GOOGLE_CREDENTIALS"] = json.dumps({"private_key": c("variable GOOGLE_CREDENTIALS"), "type": "x"})
    environ["GIT_CONFIG_COUNT"], environ["GIT_CONFIG_KEY_0"] = "1", "http.extraHeader"
    environ["GIT_CONFIG_VALUE_0"] = f"Authorization: Basic {c('variable GIT_CONFIG')}"
    environ["XLA_FLAGS"] = f"--xla_dump_to=/tmp/{environ['HF_TOKEN']}"
    leak.environ = environ | {"HOME": str(leak.home), "XDG_CONFIG_HOME": str(leak.home / ".config")}


def _plant_home(leak: Leak) -> None:
    c = leak.canary
    files = {
        ".netrc": f"machine {HOST} login me password {c('.netrc')}\n",
        ".pypirc": f"[pypi]\nusername = __token__\npassword = {c('.pypirc')}\n",
        ".config/pip/pip.conf": f"[global]\nindex-url = https://bob:{c('pip.conf')}@{HOST}/simple\n",
        ".config/uv/uv.toml": f'[[index]]\nurl = "https://bob:{c("uv.toml")}@{HOST}/simple"\n',
        ".git-credentials": f"https://me:{c('.git-credentials')}@{HOST}\n",
        ".gitconfig": f'[url "https://x:{c("insteadOf")}@{HOST}/"]\n\tinsteadOf = https://{HOST}/\n'
        "[user]\n\tname = e2e\n\temail = e2e@example.org\n",
        ".cache/huggingface/token": c("huggingface/token"),
        ".aws/credentials": f"[default]\naws_secret_access_key = {c('.aws/credentials')}\n",
        ".kaggle/kaggle.json": json.dumps({"username": "me", "key": c("kaggle.json")}),
    }
    for name, text in files.items():
        _put(leak.home / name, text)


def _plant_prefix(leak: Leak, site_packages: Iterable[str]) -> None:
    c = leak.canary
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", leak.prefix], check=True, timeout=60)
    site = leak.prefix / "lib" / MINOR / "site-packages"
    _put(leak.prefix / "pip.conf", f"[global]\nindex-url = https://bob:{c('venv pip.conf')}@{HOST}/simple\n")
    _put(leak.prefix / "conda-meta/state", json.dumps({"env_vars": {"TOKEN": c("conda state"), "A": "1"}}))
    _put(leak.prefix / "conda-meta/history", "==> 2026-11-23 10:00:00 <==\n")
    (site / "others.pth").write_text("".join(f"{path}\n" for path in site_packages))
    commit = hashlib.sha1(b"leak", usedforsecurity=False).hexdigest()
    urls = {
        "vcs": {"url": f"https://{c('direct_url vcs')}@{HOST}/x.git", "vcs_info": {"vcs": "git", "commit_id": commit}},
        "archive": {
            "url": f"https://u:{c('direct_url archive')}@{HOST}/x.whl?X-Amz-Signature={c('direct_url query')}",
            "archive_info": {"hash": f"sha256={'0' * 64}"},
        },
        "editable": {"url": leak.repository.as_uri(), "dir_info": {"editable": True}},
    }
    for name, url in urls.items():
        record = site / f"leak_{name}-1.0.dist-info"
        _put(record / "METADATA", f"Metadata-Version: 2.1\nName: leak-{name}\nVersion: 1.0\n")
        _put(record / "direct_url.json", json.dumps(url))
        _put(record / "RECORD", f"leak_{name}-1.0.dist-info/METADATA,,\n")


def _plant_repository(leak: Leak) -> None:
    c, root = leak.canary, leak.repository
    _put(root / "model.py", "a = 1\n")
    modules = f'[submodule "x"]\n\tpath = x\n\turl = https://{c("submodule")}@{HOST}/x.git\n'
    _put(root / ".gitmodules", modules)
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    identity = ["-c", "user.name=e2e", "-c", "user.email=e2e@example.org"]
    for arguments in (["init", "-q", "-b", "paper"], ["add", "model.py"], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *arguments], cwd=root, check=True, env=environ, timeout=30)
    remotes = {
        "origin": f"https://{c('remote user')}@{HOST}/o/r",
        "password": f"https://u:{c('remote password')}@{HOST}/o/r",
        "basic": f"https://{c('remote basic')}:x-oauth-basic@{HOST}/o/r",
        "slash": f"https://u:p/{c('remote slash')}@{HOST}/o/r",
        "scp": f"u:{c('remote scp')}@{HOST}:o/r",
        "query": f"https://{HOST}/o/r?private_token={c('remote query')}",
    }
    lines = [f'[remote "{name}"]\n\turl = {url}\n' for name, url in remotes.items()]
    lines.append(f'[remote "origin"]\n\tpushurl = https://u:{c("remote push")}@{HOST}/o/r\n')
    with (root / ".git" / "config").open("a") as config:
        config.write("".join(lines))
    _put(root / "model.py", f'a = 2\nkey = "AKIA{c("tracked AKIA")[4:20].upper()}"\nhub = "hf_{c("tracked hf") * 2}"\n')
    leak.canaries["tracked AKIA"] = f"AKIA{leak.canaries['tracked AKIA'][4:20].upper()}"
    _put(root / ".env", f"SECRET={c('untracked .env')}\n")
    _put(
        root / "id_rsa",
        f"-----BEGIN OPENSSH PRIVATE KEY-----\n{c('untracked id_rsa') * 3}\n-----END OPENSSH PRIVATE KEY-----\n",
    )
    cell = {"cells": [{"outputs": [{"text": f"ghp_{c('notebook') * 2}"}]}]}
    _put(root / "notes.ipynb", json.dumps(cell))


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def forms(canary: str) -> dict[str, bytes]:
    """Return every form in which a canary counts as out, by its name."""
    data = canary.encode()
    found = {
        "raw": data,
        "start": data[:STRETCH],
        "end": data[-STRETCH:],
        "quoted": quote(canary, safe="").encode(),
        "JSON": json.dumps(canary)[1:-1].encode(),
        "hex": data.hex().encode(),
    }
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data)
        core = encoded[(0, 2, 3)[before] : (len(data) + before) // 3 * 4]
        found[f"base64+{before}"] = core
        found[f"base64url+{before}"] = core.replace(b"+", b"-").replace(b"/", b"_")
    return found


def find_leaks(
    canaries: Mapping[str, str], paths: Iterable[Path] = (), blobs: Mapping[str, bytes | str] | None = None
) -> list[str]:
    """Return where which canary is, in which form: ``FILE: CHANNEL (FORM)``. Folders are searched whole."""
    wanted = {channel: forms(canary) for channel, canary in canaries.items()}
    found = []
    for place, data in _contents(paths, blobs or {}):
        for channel, shown in wanted.items():
            hit = next((form for form, needle in shown.items() if needle in data), None)
            if hit is not None:
                found.append(f"{place}: {channel} ({hit})")
    return sorted(found)


def assert_no_leak(
    canaries: Mapping[str, str], paths: Iterable[Path] = (), blobs: Mapping[str, bytes | str] | None = None
) -> None:
    """Fail, naming every place, if a canary is in one of the files, folders or blobs; also if there are none."""
    paths = list(paths)
    missing = [str(path) for path in paths if not path.exists()]
    assert not missing, f"nothing to look into: {missing}"
    leaks = find_leaks(canaries, paths, blobs)
    assert not leaks, "\n".join(leaks)


def _contents(paths: Iterable[Path], blobs: Mapping[str, bytes | str]) -> Iterator[tuple[str, bytes]]:
    for name, blob in blobs.items():
        yield name, blob.encode("utf-8", "surrogateescape") if isinstance(blob, str) else blob
    for path in paths:
        files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        for file in files:
            try:
                data = file.read_bytes()
            except FileNotFoundError:  # a journal that its database has just taken in
                continue
            yield str(file), str(file).encode("utf-8", "surrogateescape") + b"\n" + data
            unpacked = _unpacked(data)
            if unpacked:
                yield f"{file} (unpacked)", unpacked


def _unpacked(data: bytes) -> bytes:
    try:
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else b""
    except (OSError, EOFError, zlib.error):
        return b""


def watched_commands(log: Path) -> list[str]:
    """Return the command that notes in ``log`` every program that the command behind it, or a child, starts."""
    return ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=execve", "-v", "-s", "200000", "-o", str(log)]


def started_programs(log: Path) -> list[tuple[str, str]]:
    """Return arguments and variables of each program that was started, in order, as strace writes them."""
    lines = log.read_text(errors="surrogateescape").splitlines()
    calls = (re.search(r"execve\(\"(?:[^\"\\]|\\.)*\", (\[.*?\]), (\[.*?\])(?:\)| <unf)", line) for line in lines)
    return [(call[1], call[2]) for call in calls if call is not None]


@contextmanager
def cloud_stub(leak: Leak) -> Iterator[tuple[str, list[str]]]:
    """Yield the URL of a metadata service that answers every question with a canary, and the list of what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            body = leak.canary(f"cloud {self.path}").encode()
            self.send_response(200)
            self.send_header("Metadata-Flavor", "Google")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_GET  # noqa: N815 - the names of http.server

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
