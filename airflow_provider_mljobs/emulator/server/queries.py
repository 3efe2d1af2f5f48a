"""Statements that clients sent: one execution per request, the outcome by query id, cancelling."""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator import errors
from airflow_provider_mljobs.emulator.errors import SnowflakeError
from airflow_provider_mljobs.emulator.server.parameters import value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_mljobs.emulator.results import Result
    from airflow_provider_mljobs.emulator.sessions import Session

MOST_QUERIES = 10_000
# The history keeps so many characters of a statement's text.
LONGEST_TEXT = 100_000
MOST_BYTES = 512 * 1024 * 1024
# A rough size of a Python value in a row; measuring exact sizes would be too slow.
_CELL_BYTES = 64


@dataclass(frozen=True, slots=True)
class Origin:
    """The session state with which a statement arrived.

    :param service: database and schema of the job that sent it.
    :param tag: the session's QUERY_TAG, or the statement's own.
    """

    session: int
    user: str
    service: tuple[str, str] | None
    role: str
    database: str | None
    schema: str | None
    warehouse: str | None
    tag: str

    @classmethod
    def of(cls, session: Session, tag: str | None) -> Origin:
        """Return the origin of a statement that arrives now."""
        return cls(
            session.id, session.user, session.service, session.role, session.database, session.schema,
            session.warehouse, str(value_of(session.parameters, "QUERY_TAG")) if tag is None else tag,
        )  # fmt: skip


@dataclass(slots=True, eq=False)
class Record:
    """A statement in the history.

    :param text: the beginning of its text.
    :param rows: how many rows its answer has.
    """

    id: str
    text: str
    origin: Origin
    started: float
    ended: float | None = None
    error: SnowflakeError | None = None
    rows: int = 0


@dataclass(eq=False)
class Query:
    """One execution of a statement.

    :param id: the query id.
    :param origin: the session state with which it arrived.
    :param request_id: the id of the client's request, ``None`` for a part of a multi-statement request.
    :param children: the queries of a multi-statement request; they share its ``cancelled``.
    :param key: a secret in the addresses of the parts of a long answer.
    """

    id: str
    sql: str
    session: Session
    origin: Origin
    request_id: str | None = None
    describe_only: bool = False
    started: float = field(default_factory=time.time)
    ended: float | None = None
    result: Result | None = None
    error: SnowflakeError | None = None
    children: list[Query] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    key: str = field(default_factory=partial(secrets.token_hex, 16))

    @property
    def status(self) -> str:
        """The state as the monitoring endpoint names it."""
        if not self.done.is_set():
            return "RUNNING"
        return "SUCCESS" if self.error is None else "FAILED_WITH_ERROR"

    @property
    def size(self) -> int:
        """The approximate size of the outcome in bytes."""
        if self.result is None:
            return len(self.sql)
        rows = len(self.result.rows) * len(self.result.columns) * _CELL_BYTES
        return len(self.sql) + rows + (self.result.arrow.nbytes if self.result.arrow is not None else 0)

    @cached_property
    def record(self) -> Record:
        """Its entry in the history."""
        return Record(self.id, self.sql[:LONGEST_TEXT], self.origin, self.started)

    def finish(self, outcome: Result | SnowflakeError) -> None:
        """Record the outcome and wake the threads that wait for it."""
        self.ended = time.time()
        if not self.describe_only:
            self.session.last_query_id = self.id
        if isinstance(outcome, SnowflakeError):
            self.error = errors.cancelled() if self.cancelled.is_set() else outcome
        else:
            self.result = outcome
            self.record.rows = len(outcome.rows) if outcome.arrow is None else outcome.arrow.num_rows
        self.record.error = self.error
        self.record.ended = self.ended
        self.done.set()

    def outcome(self) -> Result:
        """Return the result of a finished query or raise its error."""
        if self.error is not None:
            raise self.error
        if self.result is None:
            raise SnowflakeError(709, "02000", f"Statement {self.id} has not finished.")
        return self.result


def interrupt(query: Query) -> None:
    """Stop the SQL engine if it runs a query or one of its parts."""
    query.session.interrupt({query.id, *(child.id for child in query.children)})


class Queries:
    """The queries of a server: those that run and the latest finished ones.

    :param interrupt: stops the SQL engine in the middle of a query.
    :param most: the limit of stored queries, and of the history.
    :param most_bytes: the limit of their results in bytes; the newest result is always kept.
    """

    def __init__(
        self, interrupt: Callable[[Query], None], *, most: int = MOST_QUERIES, most_bytes: int = MOST_BYTES
    ) -> None:
        self._interrupt = interrupt
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._by_id: OrderedDict[str, Query] = OrderedDict()
        self._by_request: dict[tuple[int, str], Query] = {}
        self._running: dict[str, Query] = {}
        self._history: deque[Record] = deque(maxlen=most)

    def begin(
        self,
        session: Session,
        sql: str,
        request_id: str | None = None,
        *,
        describe_only: bool = False,
        tag: str | None = None,
    ) -> tuple[Query, bool]:
        """Register a query; return the earlier one and ``False`` if the client repeats a request.

        :param tag: its query tag, if it isn't the session's.
        """
        query = Query(str(uuid.uuid4()), sql, session, Origin.of(session, tag), request_id, describe_only)
        with self._lock:
            if request_id is not None:
                earlier = self._by_request.setdefault((session.id, request_id), query)
                if earlier is not query:
                    return earlier, False
            self._by_id[query.id] = self._running[query.id] = query
            if not describe_only:
                self._history.append(query.record)
        return query, True

    @property
    def history(self) -> list[Record]:
        """The latest statements, oldest first; descriptions don't count."""
        with self._lock:
            return list(self._history)

    def requested(self, session: Session, request_id: str) -> Query | None:
        """Return the query that this request has already started, if any."""
        with self._lock:
            return self._by_request.get((session.id, request_id))

    def finish(self, query: Query, outcome: Result | SnowflakeError) -> None:
        """Record a query's outcome and drop the oldest outcomes beyond the limits."""
        query.finish(outcome)
        with self._lock:
            self._running.pop(query.id, None)
            self._bytes += query.size
            self._by_id.move_to_end(query.id)
            for old in list(self._superfluous(query)):
                self._forget(old)

    def _superfluous(self, newest: Query) -> Iterator[Query]:
        count, size = len(self._by_id), self._bytes
        for old in self._by_id.values():
            if count <= self._most and size <= self._most_bytes:
                return
            if old is not newest and old.done.is_set():
                count, size = count - 1, size - old.size
                yield old

    def _forget(self, query: Query) -> None:
        del self._by_id[query.id]
        self._bytes -= query.size
        if query.request_id is not None:
            self._by_request.pop((query.session.id, query.request_id), None)

    def find(self, query_id: str) -> Query:
        """Return a query of any session by its id; raises 709 if it is unknown or forgotten."""
        with self._lock:
            query = self._by_id.get(query_id)
        if query is None:
            raise SnowflakeError(709, "02000", f"Statement {query_id} not found")
        return query

    def running(self, session: Session | None = None) -> list[Query]:
        """Return the running queries of one session or of all."""
        with self._lock:
            return [query for query in self._running.values() if session is None or query.session is session]

    def cancel(self, query: Query) -> None:
        """Cancel a query; its client gets error 604."""
        query.cancelled.set()
        if not query.done.is_set():
            self._interrupt(query)
