"""Bodies of HTTP requests, read and decoded within limits."""

from __future__ import annotations

import gzip
import io
import json
import time
import zlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from email.message import Message
    from io import BufferedIOBase

# Enough for the binds of a large executemany; a real account's limit is far lower.
MAX_BODY = 1 << 30
# Without a session, clients send only the login.
MAX_ANONYMOUS_BODY = 1 << 20
# Seconds for the headers or the body of a request, and the pace of a long body.
PATIENCE = 30.0
_BYTES_PER_SECOND = 1 << 20
_PART = 1 << 16
_LINGER_SECONDS = 2.0
_GZIP = {"gzip", "x-gzip"}


class RefusedRequestError(Exception):
    """Raised for a request that gets an HTTP status instead of the protocol's answer."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def read(
    stream: BufferedIOBase, connection: socket.socket, headers: Message, most: int, patience: float = PATIENCE
) -> bytes:
    """Read the body of a request.

    :param most: how many bytes it may have.
    :param patience: seconds that it may take; a long body gets more.

    Raises :class:`RefusedRequestError`; where the next request begins is unknown then.
    """
    remaining = _length(headers, most)
    deadline = time.monotonic() + patience + remaining / _BYTES_PER_SECOND
    parts: list[bytes] = []
    try:
        while remaining:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            part = stream.read1(min(remaining, _PART))
            if not part:
                raise RefusedRequestError(HTTPStatus.BAD_REQUEST, "The body is shorter than its Content-Length")
            parts.append(part)
            remaining -= len(part)
    except TimeoutError:
        raise RefusedRequestError(HTTPStatus.REQUEST_TIMEOUT, "The body came too slowly") from None
    finally:
        connection.settimeout(None)
    return b"".join(parts)


def _length(headers: Message, most: int) -> int:
    if headers.get("Transfer-Encoding") is not None:
        raise RefusedRequestError(HTTPStatus.NOT_IMPLEMENTED, "Transfer-Encoding is not supported")
    lengths = headers.get_all("Content-Length") or ["0"]
    text = lengths[0].strip()
    if len(lengths) > 1 or not (text.isascii() and text.isdigit()):
        raise RefusedRequestError(HTTPStatus.BAD_REQUEST, f"Invalid Content-Length: {', '.join(lengths)[:100]}")
    # int() refuses a number of very many digits.
    if len(text.lstrip("0")) > len(str(most)) or int(text) > most:
        raise too_large(most)
    return int(text)


def too_large(most: int) -> RefusedRequestError:
    """Build the refusal of a body that is too large, as sent or after decompression."""
    return RefusedRequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body has more than {most} bytes")


def decode(body: bytes, headers: Message, most: int) -> Mapping[str, Any]:
    """Return the JSON object that a body holds; an empty body and other JSON count as an empty object.

    :param most: how many bytes it may have when it is decompressed.
    """
    encoding = str(headers.get("Content-Encoding") or "identity").strip().lower()
    if encoding != "identity" and encoding not in _GZIP:
        raise RefusedRequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Unsupported Content-Encoding: {encoding[:100]}")
    plain = _decompressed(body, most) if encoding in _GZIP else body
    try:
        decoded = json.loads(plain) if plain else {}
    except (ValueError, RecursionError) as problem:
        text = f"The body is not valid JSON: {type(problem).__name__}"
        raise RefusedRequestError(HTTPStatus.BAD_REQUEST, text) from None
    return decoded if isinstance(decoded, dict) else {}


def _decompressed(body: bytes, most: int) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as stream:
            plain = stream.read(most + 1)
    except (EOFError, OSError, zlib.error) as problem:
        raise RefusedRequestError(HTTPStatus.BAD_REQUEST, f"The body can't be decompressed: {problem}") from None
    if len(plain) > most:
        raise too_large(most)
    return plain


def drain(connection: socket.socket) -> None:
    """Discard unread data for a moment: closing a connection with unread data would drop the answer."""
    deadline = time.monotonic() + _LINGER_SECONDS
    try:
        while (seconds := deadline - time.monotonic()) > 0:
            connection.settimeout(seconds)
            if not connection.recv(_PART):
                return
    except OSError:
        # The client is gone or silent; the connection is closed anyway.
        return
