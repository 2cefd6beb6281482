"""The taint set: what a process is known to hold, from its variables and from the files that tools keep secrets in."""

import json
import os
import pickle
import stat
from pathlib import Path

import pytest

from reprod.capture.taint import TaintSet, read_taint
from reprod.core.redact import Redactor

C = "CANARY{}x7f3a9"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def put(place: Path, text: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def test_variables():
    """The values of secret names, user information and secret query values of any variable; nothing harmless."""
    environ = {
        "WANDB_API_KEY": C.format(1),
        "PIP_INDEX_URL": f"https://bob:{C.format(2)}@pypi.corp/simple",
        "MLFLOW_TRACKING_URI": f"https://u:a%2F{C.format(3)}@h",
        "ODD": f"x https://h/y?private_token={C.format(4)}&n=1",
        "GIT_CONFIG_VALUE_0": f"AUTHORIZATION: basic {C.format(5)}",
        "SERVICE_JSON": json.dumps({"client_secret": C.format(6)}),
        "HOME": "/home/somebody-long",
        "PIP_EXTRA_INDEX_URL": "https://somebody-long@pypi.corp/simple https://registry.corp/@scope/name",
        "SSH_AUTH_SOCK": "/tmp/ssh-abcdefgh/agent.1",
        "GOOGLE_APPLICATION_CREDENTIALS": "/home/somebody-long/key.json",
        "TOKENIZERS_PARALLELISM": "false",
        "MAX_TOKENS": "123456789",
        "HF_TOKEN": "disabled",
    }
    found = set(read_taint(environ))
    assert found == {*(C.format(n) for n in (1, 2, 4, 5, 6)), f"a%2F{C.format(3)}", f"a/{C.format(3)}"}


FILES = {
    ".netrc": "machine h login me password {}\nmachine b login me\n\tpassword hunter-two-words\n",
    ".pypirc": "[pypi]\nusername = __token__\npassword = {}\n",
    ".config/pip/pip.conf": "[global]\nextra-index-url =\n    https://bob:{}@h/simple\n",
    ".config/uv/uv.toml": '[[index]]\nname = "corp"\nurl = "https://u:{}@h/simple"\n',
    ".git-credentials": "https://me:{}@github.com\n",
    ".gitconfig": '[url "https://x-access-token:{}@github.com/"]\n\tinsteadOf = https://github.com/\n',
    ".aws/credentials": "[default]\naws_access_key_id = AKIA\naws_secret_access_key = {}\n",
    ".docker/config.json": '{{"auths": {{"h": {{"auth": "{}=="}}}}}}',
    ".kaggle/kaggle.json": '{{"username": "me", "key": "{}b4c5d6e7f8"}}',
    ".cache/huggingface/token": "{}\n",
    ".config/gh/hosts.yml": "github.com:\n    user: me\n    oauth_token: {}\n",
    ".pgpass": "db.example:5432:*:svc:{}\n",
    ".npmrc": "//registry.npmjs.org/:_authToken={}\n",
    ".databrickscfg": "[DEFAULT]\nhost = https://h\ntoken = {}\n",
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_the_home_folder(home, name):
    """Each file that a tool keeps a secret in gives it, and a text that holds it comes out clean."""
    put(home / name, FILES[name].format(C.format(1)))
    found = read_taint({}, home=str(home))
    assert any(C.format(1) in value for value in found), len(found)
    assert "CANARY" not in Redactor(found).text(f"seen: {max((v for v in found if 'CANARY' in v), key=len)}")
    assert len(read_taint({})) == 0, "without a home folder none of a user's files is read"


def test_files_of_a_prefix_and_of_variables(tmp_path):
    """pip.conf and conda's state file of the prefix, and files that a variable names, count too."""
    put(tmp_path / "p/pip.conf", f"[global]\nindex-url = https://u:{C.format(1)}@h\n")
    put(tmp_path / "p/conda-meta/state", json.dumps({"env_vars": {"TOKEN": C.format(2), "DATA": "/data/imagenet"}}))
    put(tmp_path / "corp.conf", f"[global]\nindex-url = https://u:{C.format(3)}@h\n")
    put(tmp_path / "root/etc/pip.conf", f"[global]\nindex-url = https://u:{C.format(4)}@h\n")
    found = read_taint(
        {"PIP_CONFIG_FILE": str(tmp_path / "corp.conf"), "NETRC": "relative"},
        prefix=str(tmp_path / "p"),
        texts=[f'[remote "origin"]\n\turl = https://{C.format(5)}:x-oauth-basic@h/o/r\n', f"u:{C.format(6)}@h:o/r"],
        root=str(tmp_path / "root"),
    )
    assert set(found) == {C.format(n) for n in range(1, 7)}


def test_hostile_files(home):
    """A FIFO, a folder, a device, a broken link, bytes and a file of a gigabyte neither block nor raise."""
    os.mkfifo(home / ".netrc")
    (home / ".pypirc").mkdir()
    (home / ".npmrc").symlink_to("/dev/zero")
    (home / ".boto").symlink_to(home / "nothing")
    (home / ".s3cfg").write_bytes(os.urandom(4096))
    put(home / ".docker/config.json", '{"a":' * 20_000)
    with (home / ".my.cnf").open("wb") as file:
        file.write(f"password={C.format(1)}\n".encode())
        file.truncate(1 << 30)
    elsewhere = home / "dotfiles"
    elsewhere.write_text(f"//h/:_authToken={C.format(2)}\n")
    (home / ".condarc").symlink_to(elsewhere)
    assert {C.format(1), C.format(2)} <= set(read_taint({}, home=str(home)))


def test_the_set_shows_nothing():
    """Neither repr, str nor a pickle of the set has a value; it cannot be serialised at all."""
    found = TaintSet([C.format(1), C.format(1), "short", "true"])
    assert len(found) == 1
    assert C.format(1) in found
    for shown in (repr(found), str(found), f"{found}", repr(Redactor(found)), repr([found])):
        assert "CANARY" not in shown
    with pytest.raises(TypeError, match="not serialised"):
        pickle.dumps(found)


@pytest.mark.root
def test_files_of_another_user_are_read_only_with_the_right(home):
    """A file that may not be opened adds nothing and raises nothing."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    put(home / ".netrc", f"machine h login me password {C.format(1)}\n")
    (home / ".netrc").chmod(stat.S_IRUSR)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - the child
        os.setuid(65534)
        os.write(writer, b"%d" % len(read_taint({}, home=str(home))))
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 10) == b"0"
    os.close(reader)
    os.close(writer)
