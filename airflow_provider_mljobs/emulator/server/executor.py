"""Runs statements, each once and in its own thread; a request with several statements runs in parts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_mljobs.emulator.errors import SnowflakeError, cancelled
from airflow_provider_mljobs.emulator.parsing import split_statements, tokenize
from airflow_provider_mljobs.emulator.registry import Context
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.server import encoding as wire
from airflow_provider_mljobs.emulator.server.faults import InjectedError, altered
from airflow_provider_mljobs.emulator.server.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_mljobs.emulator.server.queries import Queries, Query
    from airflow_provider_mljobs.emulator.server.router import Router
    from airflow_provider_mljobs.emulator.sessions import Session
    from airflow_provider_mljobs.emulator.settings import Fault

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Seconds for running statements to stop when the server stops.
_PATIENCE = 5.0
_MULTIPLE = Column("multiple statement execution")


def attempt(action: Callable[[], T], subject: str) -> T | SnowflakeError:
    """Run an action and return its result, or its exception as an error that the client can show.

    :param subject: the statement or the path, for the log.
    """
    try:
        return action()
    except InjectedError:
        raise
    except SnowflakeError as error:
        return error
    except Exception as error:  # the boundary: clients would repeat a request that fails in any other way
        logger.exception("Internal error in: %s", subject)
        return SnowflakeError(603, "XX000", f"SQL execution internal error: {type(error).__name__}: {error}")


class Executor:
    """Runs statements.

    :param queries: the queries of the server.
    :param router: runs one statement.
    """

    def __init__(self, queries: Queries, router: Router) -> None:
        self._workers = Workers()
        self._router = router
        self.queries = queries

    def start(self, query: Query, binds: Sequence[object], statements: int, fault: Fault | None) -> None:
        """Run a query in another thread.

        :param statements: how many statements its text must hold; 0 for any number.
        :param fault: a fault of effect ``error`` replaces the statement; others change its answer.
        """

        def run() -> Result:
            if fault is not None and fault.effect == "error":
                raise SnowflakeError(fault.errno, fault.sqlstate, fault.message)
            if fault is not None and fault.answer is not None:
                return fault.answer
            result = self._run(query, binds, statements)
            return result if fault is None else altered(result, fault)

        if not self._workers.run(lambda: self.queries.finish(query, attempt(run, query.sql))):
            self.queries.finish(query, cancelled())

    def end(self, session: Session) -> None:
        """Cancel the statements of a session and close its connection to the SQL engine, without waiting."""
        for query in self.queries.running(session):
            self.queries.cancel(query)

        def close() -> None:
            with session.lock:
                attempt(session.engine.close, f"closing session {session.id}")

        self._workers.run(close)

    def close(self) -> None:
        """Cancel all statements and wait a moment: the SQL engine must not close under a running statement."""
        self._workers.close()
        for query in self.queries.running():
            self.queries.cancel(query)
        self._workers.join(_PATIENCE)

    def _run(self, query: Query, binds: Sequence[object], count: int) -> Result:
        statements = split_statements(query.sql) if ";" in query.sql else [query.sql]
        if count not in {0, max(1, len(statements))}:
            raise SnowflakeError(
                8,
                "0A000",
                f"Actual statement count {len(statements)} did not match the desired statement count {count}.",
            )
        if len(statements) > 1:
            return self._run_all(query, statements, binds)
        return self._run_one(query, statements[0] if statements else "", binds)

    def _run_one(self, query: Query, sql: str, binds: Sequence[object]) -> Result:
        context = Context(query.session, query.id, query.cancelled)
        return self._router.run(context, sql, binds, describe_only=query.describe_only)

    def _run_all(self, query: Query, statements: Sequence[str], binds: Sequence[object]) -> Result:
        if query.describe_only:
            return Result((_MULTIPLE,))
        used = 0
        for sql in statements:
            child, _ = self.queries.begin(query.session, sql, tag=query.origin.tag)
            child.cancelled = query.cancelled
            query.children.append(child)
            marks = sum(token.kind == "bind" and token.text == "?" for token in tokenize(sql)) if binds else 0
            self._run_child(child, binds[used : used + marks])
            used += marks
        types = [wire.STATEMENT_TYPES[child.outcome().statement] for child in query.children]
        extra = {
            "resultIds": ",".join(child.id for child in query.children),
            "resultTypes": ",".join(map(str, types)),
            "statementTypeId": wire.MULTI_STATEMENT,
        }
        return Result((_MULTIPLE,), [("Multiple statements executed successfully.",)], extra=extra)

    def _run_child(self, child: Query, binds: Sequence[object]) -> None:
        outcome = attempt(lambda: self._run_one(child, child.sql, binds), child.sql)
        self.queries.finish(child, outcome)
        child.outcome()
