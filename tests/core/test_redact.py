"""Redaction: secrets go, what only looks like one stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprod.core.redact import MASK, allowed_variables, is_secret, plain, redact_text, redact_url

CANARY = "CANARY7f3a"


@pytest.mark.parametrize(
    "text",
    [
        f"https://{CANARY}@host/o/r",
        f"https://u:{CANARY}@host/o/r.git",
        f"https://{CANARY}:x-oauth-basic@host/o/r",
        f"https://u:p/{CANARY}@host/o/r",
        f"https://a@u:{CANARY}/b@host/o/r",
        f"u:{CANARY}@host:o/r",
        f"https://host/r?private_token={CANARY}",
        f"https://host/r?a=1&X-Amz-Signature={CANARY}#x",
        f"git+https://{CANARY}@host/o/r@abc#egg=x",
        f"https://u:{CANARY}@[::1]:8443/r",
        f"postgres://u:{CANARY}@host/db",
        f"http//u:{CANARY}@host:5000",
        f"https:/u:{CANARY}@host.example/x",
    ],
)
def test_urls_lose_their_secrets(text):
    """A URL's user information and secret query values do not survive; its host does."""
    for redact in (redact_url, redact_text):
        result = redact(text)
        assert CANARY not in result
        assert "host" in result or "[::1]:8443" in result
        assert redact(result) == result


@pytest.mark.parametrize(
    "text",
    [
        f"--api-key={CANARY}",
        f"--api-key {CANARY}",
        f"model.api_key={CANARY}",
        f"password: {CANARY}",
        f'-H "Authorization: Bearer {CANARY}"',
        f"AWS_SECRET_ACCESS_KEY={CANARY}",
        f"see https://u:{CANARY}@host/x for more",
    ],
)
def test_text_loses_its_secrets(text):
    """A value with a secret name does not survive, in whatever form an argument is written."""
    assert CANARY not in redact_text(text)


@pytest.mark.parametrize(
    "token",
    [
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "a1" * 18,
        "github_pat_" + "A1" * 20,
        "glpat-" + "x1" * 10,
        "hf_" + "aB" * 17,
        "sk-proj-" + "a1" * 20,
        "xoxb-" + "123456789012-abc",
        "AIza" + "a" * 35,
        "ya29." + "a" * 30,
        "npm_" + "a" * 36,
        "pypi-" + "A" * 50,
        "dapi" + "0a" * 16,
        "eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl",
        "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_token_shapes(token):
    """A token of a known shape goes wherever it stands."""
    assert redact_text(f"run {token} now") == f"run {MASK} now"


@pytest.mark.parametrize(
    "text",
    [
        "--use_cls_token True --num-memory-tokens=4 --max_tokens 512 --key-dim=64 --tokenizer bert --sort-key loss",
        '--pad_token "<pad>" user@host:/data',
        "git@github.com:o/r.git",
        "ssh://git@github.com/o/r.git",
        "https://host:8080/path@2?page=3",
        "git+https://github.com/o/r@0123456789abcdef",
        "file:///srv/keys/data@1",
        "/usr/lib:/opt/secrets:/home/me",
        "sk-learn hf_home ghp_short",
    ],
)
def test_harmless_text_stays(text):
    """What machine learning writes every day is not touched."""
    assert redact_text(text) == text


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("PGPASSWORD", "hunter2", True),
        ("db.password", "true", False),
        ("password_file", "/run/x", False),
        ("credentials", "/home/me/key.json", False),
        ("client_secret", "word", True),
        ("API_KEY_OF_TEAM_2", "a1b2c3d4e5f6a7b8c9", True),
        ("API_KEY_OF_TEAM_2", "team-two", False),
        ("aws_access_key_id", "anything1", True),
        ("hubToken", "Zebra7f3a", True),
        ("token", "bert", False),
        ("max_tokens", "512", False),
        ("initializer_token", "a1b2c3d4e5f6a7b8c9", False),
        ("tokenizer", "a1b2c3d4e5f6a7b8c9", False),
        ("sort_key", "a1b2c3d4e5f6a7b8c9", False),
        ("key", "a1b2c3d4e5f6a7b8c9", True),
        ("key", "question_with_context_v2", False),
        ("key", "openwebtext2048tokens", False),
        ("password_hint", "q7w8e9r0t1q7w8", False),
        ("auth", "basic", False),
        ("GH_PAT", "q7w8e9r0t1", True),
        ("path", "q7w8e9r0t1", False),
        ("PWD", "q7w8e9r0t1", False),
        ("MYSQL_PWD", "plain", True),
        ("monkey", "q7w8e9r0t1q7w8e9r0t1", False),
    ],
)
def test_names_are_judged_by_their_words(name, value, secret):
    """A hard word makes any value secret, a soft one only a value that looks like it; data structures have none."""
    assert is_secret(name, value) is secret
    assert (MASK in redact_text(f"x {name}={value} y")) is secret


def test_variables_outside_the_list_never_enter():
    """Only allowed names are kept, and a secret behind an allowed prefix is masked."""
    kept = allowed_variables(
        {
            "OMP_NUM_THREADS": "4",
            "AWS_SECRET_ACCESS_KEY": CANARY,
            "HF_TOKEN": CANARY,
            "SLURM_JWT": CANARY,
            "SLURM_JOB_ID": "7",
            "MLFLOW_TRACKING_URI": f"https://u:{CANARY}@h",
            "PIP_INDEX_URL": f"https://u:{CANARY}@h",
            "NCCL_API_KEY": CANARY,
            "TORCH_HOME": f"https://u:{CANARY}@h/x",
            "CUDA_VISIBLE_DEVICES": "",
        }
    )
    assert kept == {
        "CUDA_VISIBLE_DEVICES": "",
        "NCCL_API_KEY": MASK,
        "OMP_NUM_THREADS": "4",
        "TORCH_HOME": "https://h/x",
    }


def test_long_values_are_cut_and_say_so():
    """A variable longer than the cap is cut, visibly."""
    value = allowed_variables({"LD_LIBRARY_PATH": "/a" * 50_000})["LD_LIBRARY_PATH"]
    assert len(value) < 5000
    assert value.endswith("(100000 characters)")


@given(
    st.text() | st.from_regex(r"(--?[a-z_]{1,8}(=| )|https?://|[a-z]{1,4}:|@|/|[?&]key=|token ){1,12}", fullmatch=True)
)
def test_redaction_is_total_and_idempotent(text):
    """Redaction never fails, gives valid UTF-8, and a second pass changes nothing."""
    for redact in (redact_text, redact_url):
        once = redact(text)
        once.encode()
        assert redact(once) == once


def test_undecodable_bytes_get_a_display_form():
    """Names that are not UTF-8 come out as escapes, other text as it was."""
    assert plain(b"caf\xe9-\xc3\xa9".decode("utf-8", "surrogateescape")) == "caf\\xe9-é"
    assert plain("\ud800x") == "?x"
