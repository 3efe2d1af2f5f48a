"""An HTTP request, decoded, and its reply."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Request:
    """A request, decoded.

    :param path: without the query.
    :param query: the query's parameters.
    :param token: the token of ``Authorization: Snowflake Token="…"``.
    :param body: the JSON object that was posted.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    token: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply, encoded."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, answer: Any, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> Reply:
        """Encode an answer."""
        return cls(json.dumps(answer, separators=(",", ":")).encode(), status, headers or {})
