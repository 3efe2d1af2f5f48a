"""Statements and functions about the session: USE, ALTER SESSION, SHOW PARAMETERS, results of earlier queries."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator import errors
from airflow_provider_mljobs.emulator.access.grants import Securable
from airflow_provider_mljobs.emulator.errors import SnowflakeError
from airflow_provider_mljobs.emulator.listing import like
from airflow_provider_mljobs.emulator.registry import Context, Extension, Function, Statement, TableFunction
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.server import parameters, query_history
from airflow_provider_mljobs.emulator.settings import EVENT_TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from airflow_provider_mljobs.emulator.parsing import Parser, QualifiedName
    from airflow_provider_mljobs.emulator.server.queries import Queries
    from airflow_provider_mljobs.emulator.sql.catalog import Catalog

_STATUS = (Column("status"),)
_PARAMETER_COLUMNS = tuple(Column(name) for name in ("key", "value", "default", "level", "description", "type"))
_SECONDS = {"SECONDS": 1.0, "MILLISECONDS": 0.001, "MINUTES": 60.0, "HOURS": 3600.0}
_DONE = "Statement executed successfully."


def _last_query_id(context: Context, args: Sequence[Any]) -> str | None:
    if args and int(args[0]) != -1:
        raise errors.not_supported("LAST_QUERY_ID of an earlier query")
    return context.session.last_query_id


def _client_versions(context: Context, args: Sequence[Any]) -> str:
    """Run ``SYSTEM$CLIENT_VERSION_INFO()``."""
    del context, args
    return "[]"


def _wait(context: Context, args: Sequence[Any]) -> str:
    unit = str(args[1]).upper() if len(args) > 1 else "SECONDS"
    if unit not in _SECONDS:
        raise SnowflakeError(100037, "22018", f"Invalid time unit '{unit}' for SYSTEM$WAIT.")
    if context.cancelled.wait(float(args[0]) * _SECONDS[unit]):
        raise errors.cancelled()
    return f"waited {args[0]} {unit.lower()}"


class SessionStatements:
    """Statements and functions about a session, and those about its queries.

    :param queries: the queries of the server, for results by id and for cancelling.
    :param catalog: the databases of the account.
    :param of_account: yields name, value, default and level of each parameter that only the account has.
    :param event_table: whether the account has one.
    """

    def __init__(
        self,
        queries: Queries,
        catalog: Catalog,
        of_account: Callable[[], Iterable[tuple[str, str, str, str]]],
        *,
        event_table: bool,
    ) -> None:
        self._of_account = of_account
        self._queries = queries
        self._catalog = catalog
        self._event_table = event_table

    @property
    def extension(self) -> Extension:
        """The statements and functions."""
        return Extension(
            statements=(
                Statement(("USE",), self.use_database, _STATUS, "USE [DATABASE] name"),
                Statement(("USE", "DATABASE"), self.use_database, _STATUS, "USE DATABASE name"),
                Statement(("USE", "SCHEMA"), self.use_schema, _STATUS, "USE SCHEMA [db.]name"),
                Statement(("USE", "WAREHOUSE"), self.use_warehouse, _STATUS, "USE WAREHOUSE name"),
                Statement(("ALTER", "SESSION", "SET"), _alter_set, _STATUS, "ALTER SESSION SET name = value [...]"),
                Statement(("ALTER", "SESSION", "UNSET"), _alter_unset, _STATUS, "ALTER SESSION UNSET name [, ...]"),
                Statement(
                    ("SHOW", "PARAMETERS"),
                    self.show_parameters,
                    _PARAMETER_COLUMNS,
                    "SHOW PARAMETERS [LIKE 'pattern'] [{IN | FOR} {SESSION | ACCOUNT | USER}]",
                ),
            ),
            functions=(
                Function("SYSTEM$CANCEL_ALL_QUERIES", self.cancel_all, "SYSTEM$CANCEL_ALL_QUERIES(session_id)"),
                Function("SYSTEM$CANCEL_QUERY", self.cancel, "SYSTEM$CANCEL_QUERY('query_id')"),
                Function(
                    "SYSTEM$WAIT", _wait, "SYSTEM$WAIT(amount [, 'SECONDS' | 'MILLISECONDS' | 'MINUTES' | 'HOURS'])"
                ),
                Function(
                    "SYSTEM$CLIENT_VERSION_INFO",
                    _client_versions,
                    "SYSTEM$CLIENT_VERSION_INFO()  (an empty list: every version is supported)",
                ),
                Function("LAST_QUERY_ID", _last_query_id, "LAST_QUERY_ID()"),
            ),
            table_functions=(
                TableFunction("RESULT_SCAN", self.result_scan, (), "RESULT_SCAN({'query_id' | LAST_QUERY_ID()})"),
                *query_history.table_functions(self._queries),
            ),
        )

    def cancel_all(self, context: Context, args: Sequence[Any]) -> str:
        """Cancel the other queries of a session."""
        wanted = int(args[0]) if args else context.session.id
        others = [
            query
            for query in self._queries.running()
            if query.session.id == wanted and query.id != context.query_id and not query.describe_only
        ]
        for query in others:
            self._queries.cancel(query)
        return f"{len(others)} queries cancelled."

    def cancel(self, context: Context, args: Sequence[Any]) -> str:
        """Cancel one query."""
        del context
        query = self._queries.find(str(args[0]))
        if query.done.is_set():
            return "Identified SQL statement is not currently executing."
        self._queries.cancel(query)
        return f"query [{query.id}] terminated."

    def result_scan(
        self, context: Context, service: QualifiedName | None, args: Sequence[Any], named: Mapping[str, Any]
    ) -> Result:
        """Return the result of an earlier query."""
        del service, named
        query_id = str(args[0]) if args else context.session.last_query_id
        if query_id is None:
            raise SnowflakeError(709, "02000", "Statement not found")
        return replace(self._queries.find(query_id).outcome(), statement="select", extra={})

    def use_database(self, context: Context, parser: Parser) -> Result:
        """Run ``USE [DATABASE]``."""
        name = parser.qualified_name()
        parser.expect_end()
        if name.schema is not None:
            return self._enter_schema(context, name)
        if not self._catalog.database_exists(name.name):
            raise errors.nothing_to_use()
        context.session.rights.require_use(Securable("DATABASE", (name.name,)))
        return _enter(context, name.name, "PUBLIC" if self._catalog.schema_exists(name.name, "PUBLIC") else None)

    def use_schema(self, context: Context, parser: Parser) -> Result:
        """Run ``USE SCHEMA``."""
        name = parser.qualified_name()
        parser.expect_end()
        return self._enter_schema(context, name)

    def _enter_schema(self, context: Context, name: QualifiedName) -> Result:
        session = context.session
        database = name.schema or session.database
        if database is None:
            raise errors.no_current_database("USE SCHEMA")
        if not self._catalog.schema_exists(database, name.name):
            raise errors.nothing_to_use()
        rights = context.session.rights
        rights.require_use(Securable("DATABASE", (database,)))
        if name.name != "INFORMATION_SCHEMA":
            rights.require_use(Securable("SCHEMA", (database, name.name)))
        return _enter(context, database, name.name)

    def use_warehouse(self, context: Context, parser: Parser) -> Result:
        """Run ``USE WAREHOUSE``."""
        name = parser.qualified_name().name
        parser.expect_end()
        if name not in self._catalog.warehouses():
            raise errors.nothing_to_use()
        context.session.rights.require_use(Securable("WAREHOUSE", (name,)))
        context.session.warehouse = name
        return Result.status(_DONE)

    def show_parameters(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW PARAMETERS``."""
        pattern = like(parser.string() if parser.accept("LIKE") else "%")
        of_account = False
        if parser.accept("IN") or parser.accept("FOR"):
            of_account = parser.current.keyword == "ACCOUNT"
            if not any(parser.accept(scope) for scope in ("SESSION", "ACCOUNT", "USER")):
                raise parser.error()
            if not parser.at_end():
                parser.qualified_name()
        parser.expect_end()
        changed = context.session.parameters
        matching = {name: parameter for name, parameter in parameters.PARAMETERS.items() if pattern.fullmatch(name)}
        rows = [
            (
                name,
                _written(parameters.value_of(changed, name)),
                _written(parameter.default),
                "SESSION" if name in changed else "",
                parameter.description,
                parameter.kind,
            )
            for name, parameter in matching.items()
        ]
        if of_account and self._event_table and pattern.fullmatch("EVENT_TABLE"):
            rows.append(("EVENT_TABLE", EVENT_TABLE, EVENT_TABLE, "", "The table that containers log to", "STRING"))
        if of_account:
            own = [row for row in self._of_account() if pattern.fullmatch(row[0])]
            rows += [(*row, "The kinds of services that may run, or may not", "STRING") for row in own]
        return Result(_PARAMETER_COLUMNS, rows, statement="show")


def _enter(context: Context, database: str, schema: str | None) -> Result:
    session = context.session
    with session.running(context.query_id, context.cancelled):
        session.engine.use(database, schema)
        session.database, session.schema = database, schema
    return Result.status(_DONE)


def _alter_set(context: Context, parser: Parser) -> Result:
    changes: dict[str, parameters.Value] = {}
    while not parser.at_end():
        name = parser.identifier()
        parser.expect("=")
        changes[name] = parameters.parse_value(name, _setting(parser))
        parser.accept(",")
    if not changes:
        raise parser.error()
    context.session.parameters.update(changes)
    return Result.status(_DONE)


def _setting(parser: Parser) -> object:
    if parser.current.kind in {"string", "bind"}:
        return parser.string()
    sign = "-" if parser.accept("-") else ""
    return sign + parser.next().text


def _alter_unset(context: Context, parser: Parser) -> Result:
    names = [parser.identifier()]
    while parser.accept(","):
        names.append(parser.identifier())
    parser.expect_end()
    for name in names:
        parameters.parse_value(name, parameters.PARAMETERS[name].default if name in parameters.PARAMETERS else "")
        context.session.parameters.pop(name, None)
    return Result.status(_DONE)


def _written(value: parameters.Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
