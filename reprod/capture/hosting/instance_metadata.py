"""Owns how a cloud's metadata service is asked: one connection, listed paths only, one deadline for everything.

The address is a number, so no name is looked up; ``http.client`` knows no proxy and follows no redirection. A server
that sends a byte now and then cannot outlast the deadline: it is looked at before every read. Times are seconds.
"""

import http.client
import re
import socket
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

#: The link-local address of AWS, Azure and Google alike.
ENDPOINT = "http://169.254.169.254"

#: On such a machine the service is the hypervisor and answers in 1 to 3 ms.
CONNECT_SECONDS = 0.1

#: The longest answer that is asked for, AWS's identity document, has 600 bytes.
_MOST_BYTES = 1 << 14

#: What is recorded is one name; anything else is not an answer, a portal's page for example.
_NAME = re.compile(r"[\w.:/@+-]{1,256}")

#: All that is ever asked for. User data, attributes, tags, keys and identities are not among it.
PATHS = frozenset(
    {
        "/latest/api/token",
        "/latest/dynamic/instance-identity/document",
        "/latest/meta-data/instance-life-cycle",
        "/computeMetadata/v1/instance/machine-type",
        "/computeMetadata/v1/instance/zone",
        "/computeMetadata/v1/instance/image",
        "/computeMetadata/v1/instance/scheduling/preemptible",
        "/metadata/instance/compute/vmSize",
        "/metadata/instance/compute/location",
        "/metadata/instance/compute/zone",
        "/metadata/instance/compute/priority",
        "/metadata/instance/compute/storageProfile/imageReference",
    }
)


class _TimedSocket(socket.socket):
    """A socket whose every wait ends at ``deadline`` (monotonic seconds)."""

    deadline = 0.0

    def wait_at_most(self, most: float) -> None:
        """Set the timeout of the next call; raises TimeoutError once the deadline has passed."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(min(left, most))

    def recv_into(self, *args: object, **kwargs: object) -> int:
        """Read what is there, or until the deadline."""
        self.wait_at_most(CONNECT_SECONDS * 10)
        return super().recv_into(*args, **kwargs)  # type: ignore[arg-type]


class MetadataService(http.client.HTTPConnection):
    """A connection to the service at ``endpoint`` that is of use for ``budget_s`` seconds from now."""

    def __init__(self, endpoint: str, budget_s: float) -> None:
        parts = urlsplit(endpoint)
        super().__init__(parts.hostname or "", parts.port or 80)
        self._deadline = time.monotonic() + budget_s

    def connect(self) -> None:
        """Open the one socket; raises OSError, TimeoutError too."""
        sock = _TimedSocket(socket.AF_INET, socket.SOCK_STREAM)
        sock.deadline = self._deadline
        try:
            sock.wait_at_most(CONNECT_SECONDS)
            sock.connect((self.host, self.port))
        except OSError:
            sock.close()
            raise
        self.sock = sock

    def ask(
        self, path: str, headers: Mapping[str, str], *, method: str = "GET", query: str = ""
    ) -> tuple[str | None, http.client.HTTPMessage]:
        """Return the text of an answer (None if there is no such value) and its headers.

        Raises OSError (TimeoutError after the deadline), http.client.HTTPException, and ValueError for an answer that
        is none: another status, too long, not UTF-8.
        """
        if path not in PATHS:
            raise ValueError(f"{path} is not among the paths that may be asked for")
        self.request(method, path + query, headers=dict(headers))
        response = self.getresponse()
        body = response.read(_MOST_BYTES)
        if not response.isclosed() and response.read(1):
            raise ValueError("the answer is too long")
        if response.status == http.client.NOT_FOUND:
            return None, response.headers
        if response.status != http.client.OK:
            raise ValueError(f"it answers with status {response.status}")
        return body.decode("utf-8").strip(), response.headers


def name_of(value: object) -> str | None:
    """Return a value if it is one name as a provider gives them, else None."""
    return value if isinstance(value, str) and _NAME.fullmatch(value) else None
