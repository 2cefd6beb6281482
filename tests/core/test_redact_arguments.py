"""Redaction of commands and of trees: research, section 7, tests 1, 2, 3 and 5 at the level of functions."""

import base64
import json
import re
from urllib.parse import quote

import pytest

from reprod.core.redact import (
    MASK,
    Redactor,
    allowed_variables,
    execution_variables,
    other_variables,
    redact_arguments,
    redact_text,
    redact_url,
)

CANARY = "CANARY7f3a"
HARMLESS = [
    "train.py", "--use_cls_token", "True", "--num-memory-tokens=4", "--max_tokens", "512", "--key-dim=64",
    "--tokenizer", "bert", "--sort-key", "loss", "--pad_token", "<pad>", "user@host:/data",
]  # fmt: skip


@pytest.mark.parametrize(
    "argv",
    [
        [f"--api-key={CANARY}"],
        ["--api-key", CANARY],
        ["--hub_token", CANARY],
        ["-H", f"Authorization: Bearer {CANARY}"],
        [f"model.token={CANARY}"],
        ["--db", f"postgres://u:{CANARY}@h"],
        ["--api-keys", CANARY, f"{CANARY}b"],
        ["-e", f"HF_TOKEN={CANARY}"],
        ["--config", json.dumps({"client_secret": CANARY})],
        ["+env.wandb_api_key=" + CANARY],
        ["--password", f"-{CANARY}"],
    ],
)
def test_5_a_secret_argument_goes(argv):
    """Research 5: whatever the form, the secret of an argument is replaced, and the number of arguments stays."""
    clean = redact_arguments(["python", *argv, "--lr", "0.1"])
    assert CANARY not in " ".join(clean)
    assert len(clean) == len(argv) + 3
    assert (clean[0], clean[-2:]) == ("python", ("--lr", "0.1"))
    assert redact_arguments(clean) == clean
    assert argv[0] == "--api-keys" or CANARY not in redact_text(" ".join(argv)), (
        "a line does not tell where a list ends"
    )


def test_5_a_secret_behind_an_innocent_option_goes_by_its_value():
    """Research 5: the value of a secret variable is replaced though its option says nothing."""
    argv = ["train.py", "--innocent", CANARY, f"--x={CANARY}", "--seed", "1"]
    assert Redactor([CANARY]).arguments(argv) == ("train.py", "--innocent", MASK, f"--x={MASK}", "--seed", "1")


def test_5_arguments_of_machine_learning_stay():
    """Research 5: options that only sound like secrets keep their values."""
    assert redact_arguments(HARMLESS) == tuple(HARMLESS)
    assert redact_arguments(["--token", "--verbose", "--keys", "a", "b"]) == (
        "--token",
        "--verbose",
        "--keys",
        "a",
        "b",
    )


@pytest.mark.parametrize("variable", ["PIP_INDEX_URL", "UV_INDEX_URL", "PIP_EXTRA_INDEX_URL", "MLFLOW_TRACKING_URI"])
def test_1_an_index_keeps_its_host(variable):
    """Research 1: of an index with a password only the password goes, in a variable's text and in a file."""
    for text in (
        f"{variable}=https://bob:{CANARY}@pypi.corp/simple",
        f"index-url = https://bob:{CANARY}@pypi.corp/simple",
    ):
        assert CANARY not in redact_text(text)
        assert "https://pypi.corp/simple" in redact_text(text)


@pytest.mark.parametrize(
    ("remote", "clean"),
    [
        (f"https://{CANARY}@h/o/r", "https://h/o/r"),
        (f"https://u:{CANARY}@h", "https://h"),
        (f"https://{CANARY}:x-oauth-basic@h", "https://h"),
        (f"https://u:p/{CANARY}@h", "https://h"),
        (f"u:{CANARY}@h:o/r", "h:o/r"),
        (f"https://h/r?private_token={CANARY}", f"https://h/r?private_token={MASK}"),
        (f"https://u:{CANARY}@[::1]:8443/r", "https://[::1]:8443/r"),
        ("git@github.com:o/r.git", "git@github.com:o/r.git"),
        ("ssh://git@github.com/o/r.git", "ssh://git@github.com/o/r.git"),
        ("https://host:8443/a@b", "https://host:8443/a@b"),
    ],
)
def test_2_remotes(remote, clean):
    """Research 2: each form of a remote loses its secret and nothing else, alone and in git's configuration."""
    assert redact_url(remote) == clean
    config = f'[remote "origin"]\n\turl = {remote}\n\tpushurl = {remote}\n[url "{remote}"]\n\tinsteadOf = gh:\n'
    assert redact_text(config) == config.replace(remote, clean)


def test_3_no_variable_of_an_account_is_recorded():
    """Research 3: none of the variables that hold credentials enters by value; their names may be told."""
    names = [
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_CLIENT_SECRET", "HF_TOKEN",
        "AZURE_STORAGE_CONNECTION_STRING", "GOOGLE_APPLICATION_CREDENTIALS", "WANDB_API_KEY", "DATABASE_URL",
        "SLURM_JWT", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN", "OPENAI_API_KEY",
        "CUDA_API_KEY", "PIP_INDEX_URL", "SLURM_JOB_ID_TOKEN", "TORCH_TOKEN", "XLA_PASSWORD", "LC_SECRET",
    ]  # fmt: skip
    environ = dict.fromkeys(names, CANARY) | {
        "OMP_NUM_THREADS": "4",
        "RANK": "3",
        "SLURM_JOB_ID": "7",
        "PYTHONPATH": "/a",
    }
    assert CANARY not in json.dumps([allowed_variables(environ), execution_variables(environ)])
    assert allowed_variables(environ)["OMP_NUM_THREADS"] == "4"
    assert execution_variables(environ) == {"RANK": "3", "SLURM_JOB_ID": "7"}
    assert not {"RANK", "SLURM_JOB_ID"} & set(allowed_variables(environ)), "equal environments differ in these"
    others = other_variables(
        environ | {"TF_ODD": "1", "MY_SEED": "1", "HOME": "/root", "PATH": "/bin", "Łódź_SEED": "1"}
    )
    assert {"HF_TOKEN", "SLURM_JWT", "MLFLOW_TRACKING_PASSWORD", "TF_ODD", "MY_SEED"} <= set(others)
    assert not {"OMP_NUM_THREADS", "RANK", "HOME", "PATH", "DATABASE_URL"} & set(others)


FORMS = {
    "raw": lambda s: s,
    "quoted": lambda s: quote(s, safe=""),
    "quoted small": lambda s: re.sub("%..", lambda m: m.group().lower(), quote(s, safe="")),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64 of a login": lambda s: base64.b64encode(f"user:{s}".encode()).decode(),
    "base64 in more": lambda s: base64.urlsafe_b64encode(f"ab:{s} and more".encode()).decode(),
    "JSON": lambda s: json.dumps({"x": s}),
    "JSON in JSON": lambda s: json.dumps(json.dumps({"x": s})),
    "repr": lambda s: repr({"x": s}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", ["plain-but-known", 'a"b\\c/d=é\nf', "with blank and +/=", "Zäh?&#%20x"])
def test_known_values_go_in_every_form(form, secret):
    """A value that a process is known to hold goes wherever it stands, however it was written."""
    text = f"see {FORMS[form](secret)}!"
    redactor = Redactor([secret])
    clean = redactor.text(text)
    core = base64.b64encode(f"user:{secret}".encode()).decode()[8:-6]
    for shown in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], core):
        assert shown not in clean
    assert clean.startswith("see ")
    assert clean.endswith("!")
    assert redactor.text(clean) == clean
    assert not redactor.is_clean(text)
    assert redactor.is_clean(clean)


def test_values_that_would_blank_everything_are_no_taint():
    """Short and common values are left: taking them out would leave no text; a redactor never shows what it holds."""
    redactor = Redactor(["1234", "true", "password", "aaaaaaaaaa", "", "12345678", MASK * 4, CANARY])
    text = "password: none, 1234 true 12345678 aaaaaaaaaa"
    assert redactor.text(text) == text
    assert CANARY not in repr(redactor)
    assert "1 values" in repr(redactor)


def test_a_tree_keeps_its_shape():
    """Every string of a tree is cleaned, keys too; what stands below a secret name goes whole; other values stay."""
    tree = {
        "argv": ["x", "--hub_token", "hunter22x", f"--y={CANARY}"],
        "password": "short",
        "secrets": ["one", "two"],
        "pad_token": "<pad>",
        f"key {CANARY}": None,
        "n": (1, 2.5, True, f"https://u:{CANARY}@h"),
        "patch": b"\xff\x00 " + CANARY.encode(),
        "bundle": b"\xff\xfe\x00PACK",
    }
    clean = Redactor([CANARY]).value(tree)
    assert CANARY not in repr(clean)
    assert clean["argv"] == ["x", "--hub_token", MASK, f"--y={MASK}"]
    assert clean["password"] == MASK
    assert clean["secrets"] == [MASK, MASK]
    assert (clean["pad_token"], clean[f"key {MASK}"], clean["n"]) == ("<pad>", None, (1, 2.5, True, "https://h"))
    assert (clean["patch"], clean["bundle"]) == (b"\xff\x00 ***", b"\xff\xfe\x00PACK")
    assert Redactor([CANARY]).value(clean) == clean


def test_a_tree_without_end_is_hidden():
    """A tree deeper than any record comes back, with its depth hidden, and raises nothing."""
    tree: list[object] = ["x"]
    for _ in range(5000):
        tree = [tree]
    assert MASK in repr(Redactor().value(tree))
