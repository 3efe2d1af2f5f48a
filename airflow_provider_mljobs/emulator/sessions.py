"""Sessions: logins with their current database, schema and parameters, and their tokens."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator import errors
from airflow_provider_mljobs.emulator.errors import SnowflakeError
from airflow_provider_mljobs.emulator.parsing import QualifiedName

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from airflow_provider_mljobs.emulator.access.rights import Rights
    from airflow_provider_mljobs.emulator.sql.connection import EngineSession
    from airflow_provider_mljobs.emulator.tokens import Tokens

# A master token outlives four session tokens, as on a real account (four hours and one).
_MASTER_LIFETIMES = 4


@dataclass(eq=False)
class Session:
    """One login. A copy shares its engine, and has a current database, schema and warehouse of its own.

    :param id: the number that clients see.
    :param job_token: the token of the job that logged in; ``None`` for the account's user.
    :param service: database and schema of that job.
    :param rights: the user, the active roles, and what these may do.
    :param engine: the session's connection to the SQL engine.
    :param last_query_id: the id of the latest statement, for ``LAST_QUERY_ID()``.
    :param active_query_id: the statement that the SQL engine runs now.
    :param lock: held while the SQL engine runs a statement: one at a time, since a session has one cursor. Waiting for
        a job doesn't hold it.
    """

    id: int
    rights: Rights
    engine: EngineSession
    database: str | None = None
    schema: str | None = None
    warehouse: str | None = None
    job_token: str | None = None
    service: tuple[str, str] | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    last_query_id: str | None = None
    active_query_id: str | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)
    _switching: threading.Lock = field(default_factory=threading.Lock)

    @property
    def user(self) -> str:
        """The user who logged in."""
        return self.rights.user

    @property
    def role(self) -> str:
        """The primary role."""
        return self.rights.role

    @contextmanager
    def running(self, query_id: str, cancelled: threading.Event) -> Iterator[None]:
        """Hold the session's SQL engine while a statement runs, after waiting for earlier statements."""
        with self.lock:
            outer = self._switch(query_id)
            try:
                # Checked only now: a statement that is cancelled later is interrupted.
                if cancelled.is_set():
                    raise errors.cancelled()
                yield
            finally:
                self._switch(outer)

    def _switch(self, query_id: str | None) -> str | None:
        with self._switching:
            earlier, self.active_query_id = self.active_query_id, query_id
            self.engine.resume()
        return earlier

    def interrupt(self, query_ids: Collection[str]) -> None:
        """Stop the SQL engine if it runs one of these statements, but no other statement of the session."""
        with self._switching:
            if self.active_query_id in query_ids:
                self.engine.interrupt()

    def check_warehouse(self) -> None:
        """Raise 606 where a statement computes and the session has no warehouse."""
        if self.warehouse is None:
            raise errors.no_warehouse()

    def resolve(self, name: QualifiedName, command: str) -> QualifiedName:
        """Fill in the current database and schema; raises 90105 or 90106 where the session has none."""
        database = name.database or self.database
        if database is None:
            raise errors.no_current_database(command)
        schema = name.schema or self.schema
        if schema is None:
            raise errors.no_current_schema(command)
        return QualifiedName(name.name, schema, database)

    def database_of(self, schema: QualifiedName, command: str) -> str:
        """Return the database of a schema, ``[db.]schema``; raises 90105 where the session has none."""
        database = schema.schema or self.database
        if database is None:
            raise errors.no_current_database(command)
        return database


@dataclass(frozen=True, slots=True)
class Grant:
    """The two tokens of a session: one for requests, one to get the next of those."""

    token: str
    master: str
    lifetime: float
    master_lifetime: float


@dataclass(slots=True)
class _Held:
    session: Session
    expires: float


class Sessions:
    """The sessions that are logged in.

    :param tokens: the job tokens, which end the sessions that they opened.
    :param lifetime: seconds until a session token expires.
    :param clock: returns the time in seconds.
    """

    def __init__(self, tokens: Tokens, lifetime: float, clock: Callable[[], float]) -> None:
        self._tokens = tokens
        self._lifetime = lifetime
        self._clock = clock
        self._lock = threading.Lock()
        self._by_token: dict[str, _Held] = {}
        self._by_master: dict[str, _Held] = {}
        self._ids = itertools.count(int(time.time() * 1000))

    def next_id(self) -> int:
        """Return a number for a new session, unused since the first start."""
        return next(self._ids)

    def add(self, session: Session) -> Grant:
        """Log a session in."""
        return self._grant(session, secrets.token_urlsafe(32))

    def _grant(self, session: Session, master: str) -> Grant:
        grant = Grant(secrets.token_urlsafe(32), master, self._lifetime, self._lifetime * _MASTER_LIFETIMES)
        now = self._clock()
        with self._lock:
            self._by_token[grant.token] = _Held(session, now + grant.lifetime)
            # Threads that share a connection may renew at once, so renewal keeps the master token.
            self._by_master[master] = _Held(session, now + grant.master_lifetime)
        return grant

    def knows(self, token: str) -> bool:
        """Return whether a token belongs to a session that is logged in, even if the token has expired."""
        with self._lock:
            return token in self._by_token

    def authenticate(self, token: str) -> Session:
        """Return the session of a token; raises the error on which the client renews the token or logs in again."""
        with self._lock:
            held = self._by_token.get(token)
        if held is None:
            raise session_gone()
        self._check_job(held.session)
        if held.expires < self._clock():
            raise session_expired()
        return held.session

    def _check_job(self, session: Session) -> None:
        if session.job_token is not None and self._tokens.identity(session.job_token) is None:
            raise invalid_oauth_token()

    def renew(self, master: str) -> tuple[Session, Grant]:
        """Exchange a master token for a new session token; raises 390114 if it is unknown or expired."""
        now = self._clock()
        with self._lock:
            held = self._by_master.get(master)
        # Expired tokens are kept, so that a thread that still sends one renews it instead of logging in.
        if held is None or held.expires < now:
            raise master_expired()
        self._check_job(held.session)
        return held.session, self._grant(held.session, master)

    def extend(self, session: Session) -> None:
        """Extend the tokens of a session whose client is alive."""
        now = self._clock()
        with self._lock:
            for tokens, lifetime in ((self._by_token, 1), (self._by_master, _MASTER_LIFETIMES)):
                for held in tokens.values():
                    if held.session is session:
                        held.expires = now + self._lifetime * lifetime

    def expire_master(self, *sessions: Session) -> None:
        """Expire the tokens of sessions, master tokens included."""
        with self._lock:
            for held in (*self._by_token.values(), *self._by_master.values()):
                if held.session in sessions:
                    held.expires = float("-inf")

    def remove(self, session: Session) -> None:
        """Log a session out."""
        with self._lock:
            self._remove({session})

    def remove_expired(self) -> list[Session]:
        """Log out the sessions that no client can renew any more, and return them."""
        now = self._clock()
        with self._lock:
            dead = {held.session for held in self._by_master.values() if held.expires < now}
            self._remove(dead)
        return list(dead)

    def _remove(self, sessions: set[Session]) -> None:
        for tokens in (self._by_token, self._by_master):
            for token in [token for token, held in tokens.items() if held.session in sessions]:
                del tokens[token]

    def all(self) -> list[Session]:
        """Return the sessions that are logged in."""
        with self._lock:
            return [held.session for held in self._by_master.values()]


def session_expired() -> SnowflakeError:
    """Build the answer that makes a client renew its session token and repeat the request."""
    return SnowflakeError(390112, "08001", "Your session has expired. Please login again.")


def master_expired() -> SnowflakeError:
    """Build the answer that makes a client log in again or give up."""
    return SnowflakeError(390114, "08001", "Authentication token has expired. The user must authenticate again.")


def session_gone() -> SnowflakeError:
    """Build the answer for a session that was closed or that this server never had."""
    return SnowflakeError(390111, "08001", "Session no longer exists. New login required to access the service.")


def invalid_oauth_token() -> SnowflakeError:
    """Build the answer for the token of a job that has ended."""
    return SnowflakeError(390303, "08001", "Invalid OAuth access token.")


def wrong_password() -> SnowflakeError:
    """Build the answer for a wrong user or password."""
    return SnowflakeError(390100, "08001", "Incorrect username or password was specified.")


def invalid_key() -> SnowflakeError:
    """Build the answer for a login that isn't signed with the user's key."""
    return SnowflakeError(390144, "08001", "JWT token is invalid.")


def role_not_granted(role: str) -> SnowflakeError:
    """Build the answer for a login with a role that isn't granted to the user."""
    text = (
        f"Role '{role}' specified in the connect string is not granted to this user. Contact your local system "
        "administrator, or attempt to login with another role, e.g. PUBLIC."
    )
    return SnowflakeError(390189, "08001", text)
