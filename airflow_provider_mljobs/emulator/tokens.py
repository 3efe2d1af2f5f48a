"""The tokens that jobs log in with; a token ends with its job."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class JobIdentity:
    """The identity of a login: for a job its service user, in the job's database and schema."""

    user: str
    role: str
    database: str
    schema: str
    warehouse: str | None


class Tokens:
    """The OAuth tokens of running jobs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._identities: dict[str, JobIdentity] = {}

    def issue(self, identity: JobIdentity) -> str:
        """Create a token for a job."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._identities[token] = identity
        return token

    def revoke(self, token: str) -> None:
        """Revoke a token; sessions that it opened end with their next statement."""
        with self._lock:
            self._identities.pop(token, None)

    def identity(self, token: str) -> JobIdentity | None:
        """Return the identity of a token, or ``None`` if it is unknown or revoked."""
        with self._lock:
            return self._identities.get(token)
