"""The formats in which issuers publish their secrets, drawn from a random generator; none stands in this file.

``SHAPED`` tells by itself what it is, ``NAMED`` only through the name of the variable that its issuer documents.
"""

import base64
import json
import random
import string
from collections.abc import Callable

UPPER, LOWER, DIGITS = string.ascii_uppercase, string.ascii_lowercase, string.digits
ALNUM = UPPER + LOWER + DIGITS
URLSAFE = ALNUM + "-_"
BASE64 = ALNUM + "+/"
HEX = "0123456789abcdef"
BASE36 = LOWER + DIGITS
PASSWORD = ALNUM + "!$%^*_-+.~"


def draw(r: random.Random, alphabet: str, size: int) -> str:
    return "".join(r.choices(alphabet, k=size))


def token(prefix: str, alphabet: str, size: int, suffix: str = "") -> Callable[[random.Random], str]:
    return lambda r: prefix + draw(r, alphabet, size) + suffix


def padded(size: int) -> Callable[[random.Random], str]:
    """Return a maker of standard base64 of ``size`` random bytes."""
    return lambda r: base64.b64encode(r.randbytes(size)).decode()


def _jwt(r: random.Random) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part({'sub': r.randrange(10**9)})}.{draw(r, URLSAFE, 43)}"


def _neptune(r: random.Random) -> str:
    value = {"api_address": "https://app.neptune.ai", "api_url": "https://app.neptune.ai", "api_key": str(_uuid(r))}
    return base64.b64encode(json.dumps(value).encode()).decode()


def _uuid(r: random.Random) -> str:
    h = draw(r, HEX, 32)
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"


def pem(kind: str) -> Callable[[random.Random], str]:
    def make(r: random.Random) -> str:
        lines = "\n".join(draw(r, BASE64, 64) for _ in range(r.randint(5, 26)))
        return f"-----BEGIN {kind}PRIVATE KEY-----\n{lines}\n-----END {kind}PRIVATE KEY-----"

    return make


#: What tells by itself what it is. Sources: the issuers' documentation and secret scanning pages.
SHAPED: dict[str, Callable[[random.Random], str]] = {
    "aws-id": token("AKIA", UPPER + "234567", 16),
    "aws-temporary-id": token("ASIA", UPPER + "234567", 16),
    "aws-session": token("IQoJb3JpZ2luX2Vj", BASE64, 300),
    "aws-bedrock": token("ABSK", BASE64, 128),
    "github-classic": token("ghp_", ALNUM, 36),
    "github-oauth": token("gho_", ALNUM, 36),
    "github-app": token("ghs_", ALNUM, 36),
    "github-user": token("ghu_", ALNUM, 36),
    "github-fine": lambda r: f"github_pat_{draw(r, ALNUM, 22)}_{draw(r, ALNUM, 59)}",
    "gitlab": token("glpat-", URLSAFE, 20),
    "gitlab-routable": lambda r: f"glpat-{draw(r, URLSAFE, 27)}.01.{draw(r, BASE36, 9)}",
    "gitlab-trigger": token("glptt-", HEX, 40),
    "gitlab-runner": token("glrt-", URLSAFE, 20),
    "gitlab-deploy": token("gldt-", URLSAFE, 20),
    "huggingface": token("hf_", UPPER + LOWER, 34),
    "huggingface-org": token("api_org_", UPPER + LOWER, 34),
    "openai-old": lambda r: f"sk-{draw(r, ALNUM, 20)}T3BlbkFJ{draw(r, ALNUM, 20)}",
    "openai-project": lambda r: f"sk-proj-{draw(r, URLSAFE, 74)}T3BlbkFJ{draw(r, URLSAFE, 74)}",
    "openai-service": lambda r: f"sk-svcacct-{draw(r, URLSAFE, 58)}T3BlbkFJ{draw(r, URLSAFE, 58)}",
    "openrouter": token("sk-or-v1-", HEX, 64),
    "anthropic": token("sk-ant-api03-", URLSAFE, 93, "AA"),
    "anthropic-admin": token("sk-ant-admin01-", URLSAFE, 93, "AA"),
    "groq": token("gsk_", ALNUM, 52),
    "replicate": token("r8_", ALNUM, 37),
    "perplexity": token("pplx-", ALNUM, 48),
    "xai": token("xai-", ALNUM, 80),
    "nvidia": token("nvapi-", URLSAFE, 64),
    "langsmith": lambda r: f"lsv2_pt_{draw(r, HEX, 32)}_{draw(r, HEX, 10)}",
    "pinecone": lambda r: f"pcsk_{draw(r, ALNUM, 6)}_{draw(r, ALNUM, 63)}",
    "slack-bot": lambda r: f"xoxb-{draw(r, DIGITS, 12)}-{draw(r, DIGITS, 13)}-{draw(r, ALNUM, 24)}",
    "slack-user": lambda r: "xoxp-" + "-".join(draw(r, DIGITS, 12) for _ in range(3)) + "-" + draw(r, HEX, 32),
    "slack-app": lambda r: f"xapp-1-A{draw(r, UPPER + DIGITS, 10)}-{draw(r, DIGITS, 13)}-{draw(r, HEX, 64)}",
    "google-api": token("AIza", URLSAFE, 35),
    "google-oauth": token("ya29.a0A", URLSAFE, 150),
    "google-client-secret": token("GOCSPX-", URLSAFE, 28),
    "google-refresh": token("1//0", URLSAFE, 98),
    "azure-storage": padded(64),
    "azure-client-secret": lambda r: f"{draw(r, ALNUM, 3)}8Q~{draw(r, ALNUM + '_~.', 34)}",
    "npm": token("npm_", ALNUM, 36),
    "pypi": token("pypi-AgEIcHlwaS5vcmc", URLSAFE, 130),
    "databricks": token("dapi", HEX, 32),
    "databricks-second": token("dapi", HEX, 32, "-2"),
    "stripe": token("sk_live_", ALNUM, 24),
    "stripe-restricted": token("rk_live_", ALNUM, 99),
    "stripe-webhook": token("whsec_", ALNUM, 32),
    "twilio": token("SK", HEX, 32),
    "sendgrid": lambda r: f"SG.{draw(r, URLSAFE, 22)}.{draw(r, URLSAFE, 43)}",
    "digitalocean": token("dop_v1_", HEX, 64),
    "dockerhub": token("dckr_pat_", URLSAFE, 27),
    "dockerhub-org": token("dckr_oat_", URLSAFE, 32),
    "vault": token("hvs.", URLSAFE, 95),
    "vault-batch": token("hvb.", URLSAFE, 160),
    "terraform": lambda r: f"{draw(r, ALNUM, 14)}.atlasv1.{draw(r, URLSAFE, 67)}",
    "neptune": _neptune,
    "jwt": _jwt,
    "pem-rsa": pem("RSA "),
    "pem-pkcs8": pem(""),
    "pem-openssh": pem("OPENSSH "),
    "grafana": lambda r: f"glsa_{draw(r, ALNUM, 32)}_{draw(r, HEX, 8)}",
    "sentry": token("sntryu_", HEX, 64),
    "newrelic": token("NRAK-", UPPER + DIGITS, 27),
    "postman": lambda r: f"PMAK-{draw(r, HEX, 24)}-{draw(r, HEX, 34)}",
    "pulumi": token("pul-", HEX, 40),
    "linear": token("lin_api_", ALNUM, 40),
    "notion": token("ntn_", ALNUM, 46),
    "shopify": token("shpat_", HEX, 32),
    "telegram": lambda r: f"{draw(r, '123456789', 10)}:AA{draw(r, URLSAFE, 33)}",
    "tailscale": lambda r: f"tskey-auth-{draw(r, ALNUM, 16)}-{draw(r, ALNUM, 32)}",
    "supabase": token("sbp_", HEX, 40),
    "rubygems": token("rubygems_", HEX, 48),
    "prefect": token("pnu_", ALNUM, 36),
    "dynatrace": lambda r: f"dt0c01.{draw(r, UPPER + DIGITS, 24)}.{draw(r, UPPER + DIGITS, 64)}",
    "atlassian": token("ATATT3xFfGF0", URLSAFE, 180),
    "alibaba": token("LTAI5t", ALNUM, 18),
    "age": token("AGE-SECRET-KEY-1", "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58),
    "wandb-new": lambda r: f"wandb_v1_{draw(r, ALNUM, 20)}_{draw(r, ALNUM, 57)}",
}

#: What only its name tells: the variable that its issuer documents.
NAMED: dict[str, tuple[str, Callable[[random.Random], str]]] = {
    "wandb": ("WANDB_API_KEY", token("", HEX, 40)),
    "comet": ("COMET_API_KEY", token("", ALNUM, 25)),
    "clearml": ("CLEARML_API_SECRET_KEY", token("", ALNUM, 50)),
    "kaggle": ("KAGGLE_KEY", token("", HEX, 32)),
    "aws-secret": ("AWS_SECRET_ACCESS_KEY", token("", BASE64, 40)),
    "azure-openai": ("AZURE_OPENAI_API_KEY", token("", HEX, 32)),
    "azure-devops": ("AZURE_DEVOPS_EXT_PAT", token("", LOWER + "234567", 52)),
    "azure-secret": ("AZURE_CLIENT_SECRET", token("", PASSWORD, 34)),
    "twilio-auth": ("TWILIO_AUTH_TOKEN", token("", HEX, 32)),
    "cohere": ("COHERE_API_KEY", token("", ALNUM, 40)),
    "mistral": ("MISTRAL_API_KEY", token("", ALNUM, 32)),
    "datadog": ("DD_API_KEY", token("", HEX, 32)),
    "heroku": ("HEROKU_API_KEY", _uuid),
    "cloudflare": ("CLOUDFLARE_API_TOKEN", token("", URLSAFE, 40)),
    "bearer": ("SLURM_JWT", _jwt),
    "mlflow": ("MLFLOW_TRACKING_PASSWORD", token("", PASSWORD, 12)),
    "postgres": ("PGPASSWORD", token("", PASSWORD, 16)),
    "mysql": ("MYSQL_PWD", token("", ALNUM, 10)),
    "hub": ("HUB_TOKEN", token("", ALNUM, 20)),
    "django": ("DJANGO_SECRET_KEY", token("", LOWER + DIGITS + "!@#$%^*(-_=+)", 50)),
}
