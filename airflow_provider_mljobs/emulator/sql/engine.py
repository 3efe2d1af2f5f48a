"""The SQL engine: ordinary SQL, translated by fakesnow and run by DuckDB, with Snowflake's errors and results."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from weakref import WeakSet

from airflow_provider_mljobs.emulator.errors import SnowflakeError, does_not_exist
from airflow_provider_mljobs.emulator.registry import Extension
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.sql import catalog, file_formats, loading, namespaces, no_ops, objects, variables
from airflow_provider_mljobs.emulator.sql.columns import cell, column, plain
from airflow_provider_mljobs.emulator.sql.errors import translate
from airflow_provider_mljobs.emulator.sql.preparation import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pyarrow as pa

    from airflow_provider_mljobs.emulator.parsing import QualifiedName
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.settings import Settings
    from airflow_provider_mljobs.emulator.sql.bridge import Answer, Databases, Link
    from airflow_provider_mljobs.emulator.sql.statements import Plan
    from airflow_provider_mljobs.emulator.stages.store import Stages

_NAMED = """
    SELECT 1 FROM (
        SELECT database_name, schema_name, table_name AS name FROM duckdb_tables()
        UNION ALL SELECT database_name, schema_name, view_name FROM duckdb_views()
        UNION ALL SELECT database_name, schema_name, sequence_name FROM duckdb_sequences()
    ) WHERE database_name = ? AND schema_name = ? AND name = ?
"""


class EngineSession:
    """One session's connection to the engine. Its statements run one at a time: the caller holds the session's lock.

    :param link: the connection to DuckDB.
    """

    def __init__(self, link: Link) -> None:
        self._cleanups: list[Callable[[], object]] = []
        self._current: tuple[str | None, str | None] = (None, None)
        self.link = link
        # Temporary tables and views by name; DuckDB keeps them outside of any schema.
        self.temporary: dict[str, tuple[str, str]] = {}
        self.in_transaction = False

    def register(self, name: str, table: pa.Table) -> None:
        """Make a table readable under a name, which SQL must quote unless it is upper case."""
        self.link.register(name, table)

    def unregister(self, name: str) -> None:
        """Forget what ``register`` made readable."""
        self.link.unregister(name)

    def use(self, database: str | None, schema: str | None) -> None:
        """Set the current database and schema."""
        self.link.use(database, schema)
        self._current = (database, schema)

    def follow(self, database: str | None, schema: str | None) -> None:
        """Set the current database and schema if they aren't yet."""
        if (database, schema) != self._current:
            self.use(database, schema)

    def interrupt(self) -> None:
        """Stop the running statement from another thread; it fails with 604."""
        self.link.interrupt()

    def at_close(self, action: Callable[[], object]) -> None:
        """Have something done when the session ends."""
        self._cleanups.append(action)

    def end(self) -> None:
        """Let the session's temporary objects go."""
        while self._cleanups:
            self._cleanups.pop()()

    def close(self) -> None:
        """End the session: temporary objects go, an open transaction is rolled back."""
        self.end()
        self.link.close()


class Engine:
    """All databases and what runs SQL on them.

    :param settings: where the data lives, and which database and schema exist from the start.
    :param stages: the stages that COPY INTO reads.
    """

    def __init__(self, settings: Settings, stages: Stages) -> None:
        # sqlglot, DuckDB and fakesnow load here, 2 s, and only where an engine is really opened.
        from airflow_provider_mljobs.emulator.sql.bridge import Databases

        self._stages = stages
        # Sessions may be closed after the engine; their temporary objects must go before.
        self._sessions: WeakSet[EngineSession] = WeakSet()
        self._dropped: list[Callable[[str, str | None], None]] = []
        self.settings = settings
        # DuckDB aborts one of two statements that write to the same table at once.
        self.writing = threading.RLock()
        self._reading = threading.RLock()
        self.databases: Databases = Databases(settings.root)
        self._own = self.databases.link()
        self.catalog = catalog.Catalog(self)
        self.extension = Extension(
            statements=(
                *namespaces.STATEMENTS,
                *objects.STATEMENTS,
                *loading.STATEMENTS,
                *file_formats.STATEMENTS,
                *no_ops.STATEMENTS,
                *variables.STATEMENTS,
            ),
            table_functions=loading.TABLE_FUNCTIONS,
        )
        self.catalog.create_database(settings.database, if_not_exists=True)
        self.catalog.create_schema(settings.database, settings.schema, if_not_exists=True)
        self.catalog.remember("WAREHOUSE", "", "", settings.warehouse)

    def open(self, database: str | None, schema: str | None) -> EngineSession:
        """Open a connection for a session."""
        session = EngineSession(self.databases.link())
        self._sessions.add(session)
        known = database if database and self.database_exists(database) else None
        session.use(known, schema if known and schema and self.schema_exists(known, schema) else None)
        return session

    def query(self, sql: str, *parameters: object) -> list[tuple[object, ...]]:
        """Run a query in DuckDB's SQL, ours and not a user's, outside of any session."""
        with self._reading:
            return self._own.query(sql, parameters)

    def change(self, sql: str, *parameters: object) -> None:
        """Run a statement that writes, in DuckDB's SQL, ours and not a user's, outside of any session."""
        with self.writing, self._reading:
            self._own.query(sql, parameters)

    def database_exists(self, database: str) -> bool:
        """Tell whether there is a database of this name."""
        return bool(self.query("SELECT 1 FROM duckdb_databases() WHERE database_name = ? AND NOT internal", database))

    def schema_exists(self, database: str, schema: str) -> bool:
        """Tell whether a database has a schema of this name."""
        if schema == "INFORMATION_SCHEMA":
            return self.database_exists(database)
        found = self.query(
            "SELECT 1 FROM duckdb_schemas() WHERE database_name = ? AND schema_name = ?", database, schema
        )
        return bool(found) and schema != "main"

    def check_table(self, context: Context, table: QualifiedName) -> None:
        """Raise 2003 unless there is a table of this name; the session may be busy with another statement."""
        with context.session.running(context.query_id, context.cancelled):
            exists = self._exists(context, table)
        if not exists:
            raise does_not_exist("Table", str(table))

    @staticmethod
    def _exists(context: Context, name: QualifiedName) -> bool:
        """Tell whether this session sees a table, view or sequence of this name."""
        session = context.session.engine
        return session.temporary.get(name.name) == (name.database, name.schema) or bool(
            session.link.query(_NAMED, [name.database, name.schema, name.name])
        )

    def on_drop(self, callback: Callable[[str, str | None], None]) -> None:
        """Have a callback called with database and schema, or ``None`` for all of them, once they are dropped."""
        self._dropped.append(callback)

    def forget(self, database: str, schema: str | None) -> None:
        """Drop what else lived in a database or schema that was dropped."""
        self._stages.drop_all(database, schema)
        file_formats.drop_all(self, database, schema)
        for callback in self._dropped:
            callback(database, schema)

    def execute(
        self, context: Context, sql: str, binds: Sequence[object] | None, *, describe_only: bool = False
    ) -> Result:
        """Run a statement.

        :param binds: values for ``?`` and ``:n``; a description can do without.
        :param describe_only: only tell the columns of its answer; nothing is run.
        """
        from airflow_provider_mljobs.emulator.sql.statements import plan

        prepared = prepare(context, sql, (binds or None) if describe_only else binds)
        context.session.engine.follow(context.session.database, context.session.schema)
        try:
            planned = plan(context, prepared)
            return self._describe(context, planned) if describe_only else self._run(context, planned)
        except SnowflakeError:
            raise
        except Exception as problem:
            # Whatever sqlglot, fakesnow and DuckDB raise is the statement's error, not the server's.
            raise translate(problem) from problem

    def _describe(self, context: Context, planned: Plan) -> Result:
        if planned.columns is not None:
            return Result(planned.columns, statement=planned.kind)
        answer = context.session.engine.link.describe(planned.expression, planned.binds)
        return Result(_columns(answer), statement=planned.kind)

    def _run(self, context: Context, planned: Plan) -> Result:
        session = context.session.engine
        if planned.kind == "other":
            return self._transaction(session, planned)
        if planned.if_exists and planned.target is not None and not self._exists(context, planned.target):
            return Result.status(f"Drop statement executed successfully ({planned.target.name} already dropped).")
        self._begin_or_commit(context, planned)
        if planned.writes and not session.in_transaction:
            with self.writing:
                result = _answered(session.link, planned, atomic=planned.kind != "ddl")
        else:
            result = _answered(session.link, planned, atomic=False)
        self._remember(context, planned)
        return result

    def _transaction(self, session: EngineSession, planned: Plan) -> Result:
        """Run BEGIN, COMMIT or ROLLBACK; a second BEGIN and a COMMIT outside of a transaction do nothing."""
        if planned.action == "begin" and not session.in_transaction:
            session.link.begin()
        elif planned.action != "begin":
            session.link.commit(keep=planned.action == "commit")
        session.in_transaction = planned.action == "begin"
        return Result.status("Statement executed successfully.", "other")

    def _begin_or_commit(self, context: Context, planned: Plan) -> None:
        """DDL ends an open transaction; DML opens one where the session has AUTOCOMMIT off."""
        session = context.session.engine
        if planned.kind == "ddl" and session.in_transaction:
            session.link.commit()
            session.in_transaction = False
        manual = str(context.session.parameters.get("AUTOCOMMIT", True)).upper() == "FALSE"
        if manual and planned.writes and planned.kind != "ddl" and not session.in_transaction:
            session.link.begin()
            session.in_transaction = True

    def _remember(self, context: Context, planned: Plan) -> None:
        """Keep what DuckDB doesn't: creation times, and which tables are temporary."""
        target = planned.target
        if target is None or target.database is None or target.schema is None:
            return
        temporary = context.session.engine.temporary
        if planned.action == "create temporary":
            temporary[target.name] = (target.database, target.schema)
        elif planned.action == "create":
            self.catalog.remember("TABLE", target.database, target.schema, target.name, again=True)
        elif planned.action == "drop":
            owner = temporary.pop(target.name, None)
            if owner is None:
                self.catalog.forget("TABLE", target.database, target.schema, target.name)
                self._stages.drop_table_stage(target)

    def close(self) -> None:
        """Write everything out and close the databases."""
        for session in list(self._sessions):
            session.end()
        with self.writing, self._reading:
            self._own.close()
            self.databases.close()


def _columns(answer: Answer) -> list[Column]:
    return [column(name, kind) for name, kind in zip(answer.names, answer.types, strict=True)]


def _answered(link: Link, planned: Plan, *, atomic: bool) -> Result:
    if planned.kind != "merge":
        return _result(link.run(planned.expression, planned.binds, atomic=atomic), planned)
    counts = link.merge(planned.expression, planned.binds)
    columns = planned.columns or ()
    verbs = {"inserted": "INSERT", "updated": "UPDATE", "deleted": "DELETE"}
    row = tuple(counts[verbs[found.name.rpartition(" ")[2]]] for found in columns)
    return Result(columns, [row], statement="merge")


def _result(answer: Answer, planned: Plan) -> Result:
    columns = _columns(answer)
    if not columns:
        return Result.status("Statement executed successfully.", planned.kind)
    if planned.kind == "select":
        return Result(columns, arrow=plain(answer.table, columns), statement="select")
    rows = zip(*(values.to_pylist() for values in answer.table.columns), strict=True)
    values = [tuple(cell(value, found) for value, found in zip(row, columns, strict=True)) for row in rows]
    return Result(columns, values, statement=planned.kind)
