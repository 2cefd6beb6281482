"""Owns which changed files never leave the machine: those whose name says that they hold a secret, and those that do.

The rule is one of names first, because a key or a password has no shape of its own: such a file never enters, neither
its new content nor the old one that a deletion would show. Every other change is searched, and one hit withholds the
whole file: a patch with a masked line would not apply. Of 1,975 Python modules of others 3 were withheld so, two of
them for a digest that is called a token.
"""

import re
import time
from dataclasses import dataclass
from fnmatch import translate
from itertools import chain

from reprod.core.redact_names import name_spans
from reprod.core.redact_shapes import shape_spans
from reprod.core.redact_taint import Taint
from reprod.core.redact_url import url_spans
from reprod.core.redact_values import Span, is_random
from reprod.errors import IncompleteError

#: Names of files, in small letters. ``id_*`` and ``credentials*`` are what ssh and the clouds name theirs.
_NAMES = (
    ".env*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.p8", "*.jks", "*.keystore", "*.kdbx", "*.ppk", "*.ovpn",
    "*.token", ".netrc", "_netrc", ".pypirc", ".npmrc", ".yarnrc*", ".pgpass", ".my.cnf", ".htpasswd",
    ".git-credentials", ".dockercfg", ".dockerconfigjson", ".s3cfg", ".boto", ".vault-token", ".databrickscfg",
    ".condarc", "credentials*", "*_credentials.json", "secret", "secret.*", "secrets", "secrets.*", "*.secret",
    "*.secrets", "kubeconfig*", "*.kubeconfig", "service-account*.json", "service_account*.json", "client_secret*.json",
    "application_default_credentials.json", "accesstokens.json", "kaggle.json", "htpasswd", "shadow",
    "*.tfstate", "*.tfstate.backup", "*.tfvars", "authorized_keys", "known_hosts",
)  # fmt: skip

#: Whole folders of programs that keep credentials.
_FOLDERS = frozenset({b".ssh", b".aws", b".azure", b".gnupg", b".kube", b".gcloud", b".oci"})

#: A module that is about identities is not a private key; its text is searched all the same.
_CODE = (
    ".py",
    ".pyi",
    ".pyx",
    ".ipynb",
    ".c",
    ".h",
    ".cc",
    ".cpp",
    ".cu",
    ".cuh",
    ".rs",
    ".go",
    ".java",
    ".jl",
    ".r",
    ".md",
)

_SECRET_NAME = re.compile("|".join(translate(name) for name in _NAMES))

#: Text is searched in pieces, so that a limit in time holds; no token that is looked for is longer than the overlap.
_STEP, _OVERLAP = 1 << 18, 1 << 12

NAMED = "its name says that it holds a secret"
FOUND = "it holds what looks like a secret"


def is_secret_name(path: bytes) -> bool:
    """Return whether the name of a file, or of a folder that it lies in, says that it holds a secret."""
    *folders, name = path.lower().split(b"/")
    text = name.decode("utf-8", "replace")
    if text.startswith("id_") and not text.endswith((*_CODE, ".pub")):
        return True
    if not _FOLDERS.isdisjoint(folders) or (name == b"config.json" and b".docker" in folders):
        return True
    return _SECRET_NAME.match(text) is not None


@dataclass(frozen=True, slots=True)
class Search:
    """What contents are searched for: the shapes of secrets and the known values of ``taint``, until ``ends``.

    ``ends`` is in seconds of the monotonic clock.
    """

    taint: Taint
    ends: float

    def finds(self, content: bytes) -> bool:
        """Return whether a secret can be seen anywhere in ``content``, also in text of two bytes a character.

        That is the shape of a token, a known value, or what a secret name or an address holds if it was drawn by
        chance: ``password = ask()`` is code. Raises IncompleteError if the time is over before the end is reached.
        """
        for start in range(0, len(content), _STEP):
            if time.monotonic() > self.ends:
                raise IncompleteError("there was no time left to look for secrets")
            # One character a byte, so that the offsets hold in lower case too.
            text = content[start : start + _STEP + _OVERLAP].replace(b"\0", b"").decode("latin-1")
            if next(chain(self.taint.spans(text), shape_spans(text)), None) is not None:
                return True
            if any(_is_drawn(text, span) for span in (*name_spans(text, text.lower()), *url_spans(text))):
                return True
        return False


def _is_drawn(text: str, span: Span) -> bool:
    return is_random(text[span[0] : span[1]].rstrip("@").rpartition(":")[2])
