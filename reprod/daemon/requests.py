"""What comes over the control socket, read within bounds: a line as a request, or the head of an HTTP request.

Nothing here knows what a method means. How long a line may be says ``core.protocol``; of what is longer than others may
be no objects are made here. What is no request is a ValueError or a RecursionError, never more. Sizes are bytes.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

import anyio
import msgspec
from anyio.streams.buffered import BufferedByteReceiveStream

from reprod.core.described import described
from reprod.core.protocol import MAX_LINE

MAX_HEADERS, MAX_HEADER = 100, 8192

_MEMBERS = ("method", "params", "id")
_TEXTS = ("record", "execution")
_HTTP = re.compile(rb"[A-Z]{3,10} ")


@dataclass(frozen=True, slots=True)
class Request:
    """One line. ``record`` and ``execution`` in the parameters of a handover are the texts that they were."""

    method: str
    id: int | str | None
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an HTTP request: ``path`` without its query, ``headers`` by their names in lower case."""

    method: bytes
    path: bytes
    headers: dict[bytes, bytes]


class _HandoverParams(msgspec.Struct):
    """What a handover brings; whatever else is in it is passed over unread."""

    context: msgspec.Raw = msgspec.Raw(b"null")
    record: msgspec.Raw = msgspec.Raw(b"null")
    execution: msgspec.Raw = msgspec.Raw(b"null")


class _Handover(msgspec.Struct):
    """A line longer than others may be: no object is made of it, which for 8 MiB of ``[],[],`` takes 320 MiB."""

    method: Literal["handover"]
    params: _HandoverParams
    id: int | str | None = None


def parse(line: bytes) -> Request:
    """Return the request in a line; what a handover brings stays text. Raises ValueError, RecursionError."""
    if len(line) > MAX_LINE:
        try:
            long = msgspec.json.decode(line, type=described(_Handover))
        except msgspec.MsgspecError as error:
            raise ValueError(f"over {MAX_LINE} bytes and no handover: {error}") from error
        if len(long.params.context) > MAX_LINE:
            raise ValueError("the context is too long")
        texts = {name: bytes(getattr(long.params, name)) for name in _TEXTS}
        return Request(long.method, long.id, {"context": json.loads(bytes(long.params.context)), **texts})
    request = json.loads(line)
    method, params, identity = (request.get(key) if isinstance(request, dict) else None for key in _MEMBERS)
    if not isinstance(method, str) or not isinstance(params or {}, dict):
        raise ValueError("a request is an object with method and params")
    if not (identity is None or type(identity) is int or isinstance(identity, str)):
        raise ValueError("an id is a number or a text")
    if method == "handover":
        params = {**(params or {}), **{name: json.dumps((params or {}).get(name)).encode() for name in _TEXTS}}
    return Request(method, identity, params or {})


def is_http(line: bytes) -> bool:
    """Return whether a line begins a request of HTTP: no JSON begins with a word in capitals."""
    return _HTTP.match(line) is not None


async def read_head(lines: BufferedByteReceiveStream, first: bytes) -> Head:
    """Return the head of an HTTP request that begins with the line ``first``; a line without a version has no more.

    Raises DelimiterNotFound for a header that is too long, or too many.
    """
    method, target, *_ = [*first.split(b" "), b""]
    found: dict[bytes, bytes] = {}
    head = Head(method, target.strip().partition(b"?")[0], found)
    if b" HTTP/" not in first:
        return head
    for _ in range(MAX_HEADERS):
        header = (await lines.receive_until(b"\n", MAX_HEADER)).strip()
        if not header:
            return head
        name, _colon, value = header.partition(b":")
        found[name.strip().lower()] = value.strip()
    raise anyio.DelimiterNotFound(MAX_HEADERS)
