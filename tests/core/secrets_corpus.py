"""Generates secrets in the formats that their issuers publish, in many surroundings, and harmless text beside them.

Nothing here is a real credential, and none stands in this file: everything is drawn from a seed. A planted secret is
judged by ``survives``: it leaks if any stretch of it comes through, not only the whole. A combination of format and
surroundings belongs to one of two halves (``TUNE``, ``HELD_OUT``) for ever, so that rules written while looking at the
first can be judged on the second.
"""

import base64
import json
import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from secrets_formats import ALNUM, HEX, NAMED, PASSWORD, SHAPED, draw, padded, pem

TUNE, HELD_OUT = 0, 1


@dataclass(frozen=True, slots=True)
class Planted:
    """``text`` holds ``secret``; ``label`` is ``format|surroundings``."""

    label: str
    text: str
    secret: str

    @property
    def half(self) -> int:
        return half_of(self.label)


def half_of(label: str) -> int:
    return zlib.crc32(label.encode()) & 1


def survives(secret: str, text: str) -> bool:
    """Return whether a stretch of ``secret`` that narrows it down is left in ``text``."""
    size = min(len(secret), 12)
    return any(secret[i : i + size] in text for i in range(len(secret) - size + 1))


#: ``S`` is the secret, ``N`` its variable, ``n`` the same as an option, ``_n`` in snake case, ``cN`` in camel case.
ANYWHERE = r"""
used @S@ yesterday, it was fine|see (@S@) for more|`@S@`|2026-11-23T10:02:03Z INFO worker-3 got @S@ from peer
ValueError: invalid literal: '@S@'|https://host.example/x/@S@/y?page=2|python train.py --innocent @S@ --epochs 3
python train.py --tag=@S@|["train.py", "-x", "@S@"]|- @S@|a,@S@,b|<value>@S@</value>|echo @S@ > out.txt
https://@S@@host.example/o/r.git|https://oauth2:@S@@host.example/o/r.git|Authorization: Bearer @S@|{\"x\": \"@S@\"}
“@S@”|logged in\t@S@|KeyError: "@S@"|cat <<EOF\n@S@\nEOF|{"headers": {"Authorization": "token @S@"}}
""".strip()
BY_NAME = r"""
@N@=@S@|export @N@='@S@'|python train.py --@n@=@S@ --lr 1e-4|python train.py --@n@ @S@ --lr 1e-4
python train.py --@_n@ "@S@"|python train.py +env.@_n@=@S@ seed=1|{"@_n@": "@S@", "lr": 0.1}|{"x": 1, "@cN@": "@S@"}
lr: 0.1\n@_n@: @S@\nseed: 1|  @_n@: "@S@"|{\"@_n@\": \"@S@\", \"x\": 1}|{'@_n@': '@S@', 'x': 1}|[x]\n@_n@ = @S@\ny = 1
  File "a.py", line 3, in f\n    client = Client(@_n@="@S@")|level=info @_n@=@S@ msg="retry"|docker run -e @N@=@S@ image
- name: @N@\n  value: @S@|{"name": "@N@", "value": "@S@"}|["train.py", "--@n@", "@S@"]|ENV @N@ @S@
https://host.example/p?a=1&@_n@=@Q@&x=1|x-@n@: @S@|Command '['x', '--@n@', '@S@']' returned 1|a=1&@_n@=@Q@&b=2
environ({'HOME': '/root', '@N@': '@S@', 'LANG': 'C'})|<@_n@>@S@</@_n@>|args:\n  - --@n@\n  - @S@|set @N@=@S@
RuntimeError: bad @_n@: @S@|@_n@=@S@, retries=3|os.environ["@N@"] = "@S@"|sudo env @N@=@S@ python t.py|@_n@ := "@S@"
""".strip()


def _composites(r: random.Random) -> Iterator[tuple[str, str, str]]:
    """Yield ``(label, text, secret)`` of what is a secret by the shape of what stands around it."""
    pw, long, signature = draw(r, PASSWORD, 14), draw(r, ALNUM, 32), draw(r, HEX, 64)
    key, basic = padded(64)(r), base64.b64encode(f"svc:{draw(r, ALNUM, 16)}".encode()).decode()
    for scheme in ("postgresql", "mysql+pymysql", "mongodb+srv", "redis", "amqp", "https", "ftp", "clickhouse"):
        yield f"{scheme}|url", f"--db {scheme}://svc:{pw}@db.example:5432/prod?ssl=1", pw
        yield f"{scheme}|config", f"tracking_uri = '{scheme}://svc:{quote(pw, safe='')}@db.example/prod'", quote(pw, "")
        yield f"{scheme}|log", f"could not connect to {scheme}://:{pw}@db.example/0: timeout", pw
    yield "slash|url", f"https://u:p/{long}@host.example/o/r", long
    yield "scp|remote", f"git clone u:{pw}@host.example:o/r.git", pw
    yield "scp|user", f"git clone {long}@host.example:o/r.git", long
    yield "jdbc|url", f"jdbc:postgresql://h.example:5432/db?user=u&password={quote(pw, '')}", quote(pw, "")
    yield "odbc|dsn", f"Driver={{ODBC Driver 18}};Server=tcp:h;Uid=u;Pwd={pw};Encrypt=yes;", pw
    yield "dsn|libpq", f"host=db user=u password={pw} dbname=x", pw
    connection = f"DefaultEndpointsProtocol=https;AccountName=x;AccountKey={key};EndpointSuffix=core.windows.net"
    yield "azure|connection", connection, key
    shared = padded(32)(r)
    yield "azure|service-bus", f"Endpoint=sb://x.net/;SharedAccessKeyName=Root;SharedAccessKey={shared}", shared
    sas = quote(padded(32)(r), safe="")
    yield "azure|sas", f"https://x.blob.core.windows.net/c/f?sv=2024-05-04&se=2027-01-01&sr=b&sp=r&sig={sas}", sas
    yield "azure|sas-bare", f"?sv=2024-05-04&ss=b&srt=sco&sp=rl&se=2027-01-01T00:00:00Z&sig={sas}", sas
    when = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20261123T000000Z&X-Amz-Expires=900"
    yield "s3|presigned", f"wget 'https://b.s3.amazonaws.com/k?{when}&X-Amz-Signature={signature}'", signature
    v2 = quote(padded(20)(r), safe="")
    yield "s3|presigned-v2", f"https://b.s3.amazonaws.com/k?AWSAccessKeyId=A&Expires=1&Signature={v2}", v2
    yield "gcs|signed", f"https://storage.googleapis.com/b/k?X-Goog-Signature={signature * 4}&X-Goog-Date=1", signature
    yield "cloudfront|signed", f"https://d1.cloudfront.net/x?Expires=1&Signature={long}__&Key-Pair-Id=K2{long}", long
    yield "basic|header", f"Authorization: Basic {basic}", basic
    yield "basic|curl-header", f"curl -sH 'authorization: Basic {basic}' https://host.example", basic
    yield "basic|proxy", f"Proxy-Authorization: Basic {basic}", basic
    yield "basic|curl", f"curl -u svc:{long} https://host.example/api", long
    yield "bearer|header", f'-H "Authorization: Bearer {long}"', long
    yield "bearer|dict", str({"Authorization": f"Bearer {long}"}), long
    yield "bearer|log", f"send: 'GET / HTTP/1.1\\r\\nAuthorization: Bearer {long}\\r\\n'", long
    yield "cookie|header", f"Cookie: session={long}; theme=dark", long
    yield "docker|config", json.dumps({"auths": {"https://index.docker.io/v1/": {"auth": basic}}}), basic
    yield "kaggle|json", json.dumps({"username": "me", "key": draw(r, HEX, 32)}), ""
    yield "netrc|line", f"machine api.wandb.ai login user password {draw(r, HEX, 40)}", ""
    yield "netrc|lines", f"machine h.example\n  login me\n  password {pw}\n", pw
    yield "pypirc|file", f"[pypi]\nusername = __token__\npassword = {pw}\n", pw
    yield "pip|conf", f"[global]\nindex-url = https://bob:{pw}@pypi.corp.example/simple\n", pw
    yield "pip|argv", f"pip install -i https://bob:{pw}@pypi.corp.example/simple torch", pw
    yield "uv|environment", f"UV_INDEX_CORP_PASSWORD={pw}", pw
    yield "git|credentials", f"https://me:{long}@github.com", long
    yield "git|header", f"http.https://h.example/.extraheader=AUTHORIZATION: basic {basic}", basic
    private = json.dumps({"type": "service_account", "private_key": pem("")(r), "client_email": "a@b.example"})
    yield "google|service-account", private, json.loads(private)["private_key"].splitlines()[2]
    yield "google|key-id", json.dumps({"private_key_id": draw(r, HEX, 40)}), ""
    yield (
        "slack|webhook",
        f"https://hooks.slack.com/services/T{long[:8].upper()}/B{long[:8].upper()}/{long[:24]}",
        long[:24],
    )
    yield "discord|webhook", f"https://discord.com/api/webhooks/123456789012345678/{long}{long}", long
    yield "telegram|url", f"https://api.telegram.org/bot1234567890:AA{long}x/sendMessage", long
    yield "sentry|dsn", f"SENTRY_DSN=https://{draw(r, HEX, 32)}@o1.ingest.sentry.io/2", ""
    yield "repr|sqlalchemy", f"create_engine('postgresql://svc:{pw}@h/db')  # {pw[:0]}", pw
    yield "snowflake|url", f"snowflake://u:{pw}@acct/db?warehouse=w", pw
    yield "ssh|option", f"sshpass -p {long} ssh user@host.example", long


def planted(seed: int) -> list[Planted]:
    """Return some thousand planted secrets, each in one combination of format and surroundings."""
    r = random.Random(seed)
    found = []
    for name, make in SHAPED.items():
        for at, template in enumerate(_templates(ANYWHERE)):
            if _fits(name, template):
                secret = make(r)
                found.append(Planted(f"{name}|any{at}", _filled(template, secret, ""), secret))
    for name, (variable, make) in NAMED.items():
        for at, template in enumerate(_templates(BY_NAME)):
            secret = make(r)
            hidden = quote(secret, safe="") if "@Q@" in template else secret
            found.append(Planted(f"{name}|name{at}", _filled(template, secret, variable), hidden))
    for label, text, secret in _composites(r):
        found.append(Planted(label, text, secret or max(re.findall(r"[A-Za-z0-9+/=_-]{24,}", text), key=len)))
    return found


def _templates(text: str) -> list[str]:
    return [each.replace(r"\n", "\n").replace(r"\t", "\t") for each in re.split(r"[|\n]", text)]


def _fits(name: str, template: str) -> bool:
    """A key of many lines or with a slash is in no URL."""
    inside = "://" in template
    return not (
        inside and (name.startswith("pem") or name in {"azure-storage", "aws-session", "aws-bedrock", "google-refresh"})
    )


def _filled(template: str, secret: str, variable: str) -> str:
    snake = variable.lower()
    first, *rest = snake.split("_")
    camel = first + "".join(word.capitalize() for word in rest)
    values = {
        "S": secret,
        "Q": quote(secret, safe=""),
        "N": variable,
        "n": snake.replace("_", "-"),
        "_n": snake,
        "cN": camel,
    }
    return re.sub(r"@(S|Q|N|n|_n|cN)@", lambda match: values[match.group(1)], template)
