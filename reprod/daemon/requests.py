"""What comes over the control socket, read within bounds: a line as a request, or the head of an HTTP request.

Nothing here knows what a method means. A line is at most 64 KiB long, a handover's 8 MiB; of those no objects are made
here. What is no request is a ValueError or a RecursionError, never more. Sizes are bytes.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

import anyio
import msgspec
from anyio.streams.buffered import BufferedByteReceiveStream

#: 64 KiB of the worst JSON hold the loop for 8 ms (measured, as a handover); 1 MiB held it for 127 ms, 8 MiB for 1.5 s
#: with 320 MiB. A path and a list of datasets have 8 KB each.
MAX_LINE = 1 << 16
MAX_HANDOVER = 8 << 20  # an environment of some 10,000 packages; its text is passed on, and read in a thread
MAX_HEADERS, MAX_HEADER = 100, 8192

_MEMBERS = ("method", "params", "id")
_HTTP = re.compile(rb"[A-Z]{3,10} ")
_LOCALHOST = re.compile(rb"localhost(:\d{1,5})?\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Request:
    """One line. ``environment`` in the parameters of a handover is the text that it was."""

    method: str
    id: int | str | None
    params: dict[str, Any]


class _HandoverParams(msgspec.Struct):
    """What a handover brings; whatever else is in it is passed over unread."""

    context: msgspec.Raw = msgspec.Raw(b"null")
    environment: msgspec.Raw = msgspec.Raw(b"null")


class _Handover(msgspec.Struct):
    """A line longer than others may be: no object is made of it, which for 8 MiB of ``[],[],`` takes 320 MiB."""

    method: Literal["handover"]
    params: _HandoverParams
    id: int | str | None = None


def parse(line: bytes) -> Request:
    """Return the request in a line; ``environment`` in a handover stays text. Raises ValueError, RecursionError."""
    if len(line) > MAX_LINE:
        try:
            long = msgspec.json.decode(line, type=_Handover)
        except msgspec.MsgspecError as error:
            raise ValueError(f"over {MAX_LINE} bytes and no handover: {error}") from error
        if len(long.params.context) > MAX_LINE:
            raise ValueError("the context is too long")
        given = {"context": json.loads(bytes(long.params.context)), "environment": bytes(long.params.environment)}
        return Request(long.method, long.id, given)
    request = json.loads(line)
    method, params, identity = (request.get(key) if isinstance(request, dict) else None for key in _MEMBERS)
    if not isinstance(method, str) or not isinstance(params or {}, dict):
        raise ValueError("a request is an object with method and params")
    if not (identity is None or type(identity) is int or isinstance(identity, str)):
        raise ValueError("an id is a number or a text")
    if method == "handover":
        params = {**(params or {}), "environment": json.dumps((params or {}).get("environment")).encode()}
    return Request(method, identity, params or {})


def is_http(line: bytes) -> bool:
    """Return whether a line begins a request of HTTP: no JSON begins with a word in capitals."""
    return _HTTP.match(line) is not None


async def read_headers(lines: BufferedByteReceiveStream, first: bytes) -> dict[bytes, bytes]:
    """Return the headers of an HTTP request by their names in lower case; none follow a line without a version.

    Raises DelimiterNotFound for one that is too long, or too many.
    """
    found: dict[bytes, bytes] = {}
    if b" HTTP/" not in first:
        return found
    for _ in range(MAX_HEADERS):
        header = (await lines.receive_until(b"\n", MAX_HEADER)).strip()
        if not header:
            return found
        name, _colon, value = header.partition(b":")
        found[name.strip().lower()] = value.strip()
    raise anyio.DelimiterNotFound(MAX_HEADERS)


def is_local(headers: dict[bytes, bytes]) -> bool:
    """Return whether a program of this machine asks: a page in a browser names its origin, or another host."""
    return b"origin" not in headers and _LOCALHOST.match(headers.get(b"host", b"localhost")) is not None


def response(status: str, body: dict[str, Any], *more: str) -> bytes:
    """Return an HTTP answer with a JSON body; ``more`` are further header lines."""
    content = json.dumps(body).encode()
    kind, length = "Content-Type: application/json", f"Content-Length: {len(content)}"
    lines = (f"HTTP/1.1 {status}", kind, length, "Connection: close", *more)
    return "\r\n".join((*lines, "", "")).encode() + content
