"""The SQL engine: ordinary SQL, translated by fakesnow and run by DuckDB, with Snowflake's errors and results."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

from airflow_provider_mljobs.emulator.access.needs import container_of, located, relation_of
from airflow_provider_mljobs.emulator.errors import DOES_NOT_EXIST, SnowflakeError, cancelled
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.sql.columns import cell, column, plain
from airflow_provider_mljobs.emulator.sql.connection import EngineSession
from airflow_provider_mljobs.emulator.sql.error_translation import translate
from airflow_provider_mljobs.emulator.sql.preparation import prepare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.sessions import Session
    from airflow_provider_mljobs.emulator.sql.bridge import Answer, Link
    from airflow_provider_mljobs.emulator.sql.catalog import Catalog
    from airflow_provider_mljobs.emulator.sql.plans import Plan
    from airflow_provider_mljobs.emulator.sql.table_needs import TableNeed
    from airflow_provider_mljobs.emulator.stages.store import Stages


class Engine:
    """Runs SQL on the databases of the account.

    :param catalog: the databases.
    :param stages: the stages, which hold the files of tables.
    """

    def __init__(self, catalog: Catalog, stages: Stages) -> None:
        self._catalog = catalog
        self._stages = stages
        # Sessions may outlive the engine; their temporary objects must not.
        self._sessions: WeakSet[EngineSession] = WeakSet()

    def open(self, database: str | None, schema: str | None) -> EngineSession:
        """Open a connection for a session, in a database and schema that exist."""
        session = EngineSession(self._catalog.databases.link())
        self._sessions.add(session)
        session.use(database, schema)
        return session

    def close(self) -> None:
        """Drop the temporary objects of all sessions."""
        for session in list(self._sessions):
            session.end()

    def execute(
        self, context: Context, sql: str, binds: Sequence[object] | None, *, describe_only: bool = False
    ) -> Result:
        """Run a statement.

        :param binds: values for ``?`` and ``:n``; optional for a description.
        :param describe_only: return the columns of its answer without running it.
        """
        from airflow_provider_mljobs.emulator.sql.plans import plan

        prepared = prepare(context, sql, (binds or None) if describe_only else binds)
        context.session.engine.follow(context.session.database, context.session.schema)
        try:
            planned = plan(context, prepared)
            absent = _check(context.session, planned)
            if absent is not None:
                return absent
            if planned.computes and not describe_only:
                context.session.check_warehouse()
            return self._describe(context, planned) if describe_only else self._run(context, planned)
        except SnowflakeError:
            raise
        except Exception as problem:
            # Exceptions of sqlglot, fakesnow and DuckDB are errors of the statement, not of the server.
            raise translate(problem) from problem

    def _describe(self, context: Context, planned: Plan) -> Result:
        if planned.columns is not None:
            return Result(planned.columns, statement=planned.kind)
        answer = context.session.engine.link.describe(planned.expression, planned.binds)
        return Result(_columns(answer), statement=planned.kind)

    def _run(self, context: Context, planned: Plan) -> Result:
        # DuckDB can be interrupted only once it runs; a statement cancelled before that must not begin.
        if context.cancelled.is_set():
            raise cancelled()
        session = context.session.engine
        if planned.kind == "other":
            return self._transaction(session, planned)
        if planned.if_exists and planned.target is not None and not session.sees(planned.target):
            return Result.status(f"Drop statement executed successfully ({planned.target.name} already dropped).")
        existed = planned.if_not_exists and planned.target is not None and session.sees(planned.target)
        self._begin_or_commit(context, planned)
        if planned.writes and not session.in_transaction:
            with self._catalog.writing:
                result = _answered(session.link, planned, atomic=planned.kind != "ddl")
        else:
            result = _answered(session.link, planned, atomic=False)
        if not existed:
            self._remember(context, planned)
        return result

    def _transaction(self, session: EngineSession, planned: Plan) -> Result:
        """Run BEGIN, COMMIT or ROLLBACK; a second BEGIN, or a COMMIT outside of a transaction, does nothing."""
        if planned.action == "begin" and not session.in_transaction:
            session.link.begin()
        elif planned.action != "begin":
            session.link.commit(keep=planned.action == "commit")
        session.in_transaction = planned.action == "begin"
        return Result.status("Statement executed successfully.", "other")

    def _begin_or_commit(self, context: Context, planned: Plan) -> None:
        """Commit before DDL; begin a transaction before DML if AUTOCOMMIT is off."""
        session = context.session.engine
        if planned.kind == "ddl" and session.in_transaction:
            session.link.commit()
            session.in_transaction = False
        manual = str(context.session.parameters.get("AUTOCOMMIT", True)).upper() == "FALSE"
        if manual and planned.writes and planned.kind != "ddl" and not session.in_transaction:
            session.link.begin()
            session.in_transaction = True

    def _remember(self, context: Context, planned: Plan) -> None:
        """Store the state that DuckDB lacks: creation times, owners and temporary tables."""
        if planned.renamed is not None:
            old, new = (located(planned.target_kind, name) for name in planned.renamed)
            context.session.rights.access.grants.move(old, new)
        target = planned.target
        if target is None or target.database is None or target.schema is None:
            return
        temporary = context.session.engine.temporary
        if planned.action == "create temporary":
            temporary[target.name] = (target.database, target.schema)
        elif planned.action == "create":
            self._catalog.remember("TABLE", target.database, target.schema, target.name, again=True)
            context.session.rights.created(located(planned.target_kind, target))
        elif planned.action == "drop":
            owner = temporary.pop(target.name, None)
            if owner is None:
                self._catalog.forget("TABLE", target.database, target.schema, target.name)
                context.session.rights.dropped(located(planned.target_kind, target))
                self._stages.drop_table_stage(target)


def _check(session: Session, planned: Plan) -> Result | None:
    """Raise unless the session has the privileges that a statement needs.

    With DROP IF EXISTS, an object that the role doesn't see is one that doesn't exist: the answer says so.
    """
    try:
        for need in planned.needs:
            _require(session, need)
    except SnowflakeError as error:
        if not planned.if_exists or planned.target is None or error.errno != DOES_NOT_EXIST:
            raise
        return Result.status(f"Drop statement executed successfully ({planned.target.name} already dropped).")
    return None


def _require(session: Session, need: TableNeed) -> None:
    table = need.table
    place = (table.database, table.schema)
    if None in place or table.schema == "INFORMATION_SCHEMA" or session.engine.temporary.get(table.name) == place:
        return
    if need.creates:
        session.rights.require(container_of(located("TABLE", table)), need.privilege, creating=True)
    else:
        on = relation_of(session, table)
        session.rights.require(on, *([need.privilege] if need.privilege else []))


def _columns(answer: Answer) -> list[Column]:
    return [column(name, kind) for name, kind in zip(answer.names, answer.types, strict=True)]


def _answered(link: Link, planned: Plan, *, atomic: bool) -> Result:
    if planned.kind != "merge":
        return _result(link.run(planned.expression, planned.binds, atomic=atomic), planned)
    counts = link.merge(planned.expression, planned.binds)
    columns = planned.columns or ()
    verbs = {"inserted": "INSERT", "updated": "UPDATE", "deleted": "DELETE"}
    row = tuple(counts[verbs[column.name.rpartition(" ")[2]]] for column in columns)
    return Result(columns, [row], statement="merge")


def _result(answer: Answer, planned: Plan) -> Result:
    columns = _columns(answer)
    if not columns:
        return Result.status("Statement executed successfully.", planned.kind)
    if planned.kind == "select":
        return Result(columns, arrow=plain(answer.table, columns), statement="select")
    rows = zip(*(values.to_pylist() for values in answer.table.columns), strict=True)
    values = [tuple(cell(value, column) for value, column in zip(row, columns, strict=True)) for row in rows]
    return Result(columns, values, statement=planned.kind)
