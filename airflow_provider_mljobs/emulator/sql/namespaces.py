"""CREATE, DROP and ALTER of databases and schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator import errors
from airflow_provider_mljobs.emulator.access.grants import Securable
from airflow_provider_mljobs.emulator.access.needs import creates, of, owned
from airflow_provider_mljobs.emulator.options import parse_options
from airflow_provider_mljobs.emulator.registry import Extension, Statement
from airflow_provider_mljobs.emulator.results import Column, Result

if TYPE_CHECKING:
    from airflow_provider_mljobs.emulator.parsing import Parser
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.sql.catalog import Catalog

_STATUS = (Column("status"),)
_DONE = "Statement executed successfully."
_CREATE = "CREATE [ OR REPLACE ] [ TRANSIENT ] {} [ IF NOT EXISTS ] <name> [ COMMENT = '…' ]"
_PROPERTIES = {
    "COMMENT", "DATA_RETENTION_TIME_IN_DAYS", "MAX_DATA_EXTENSION_TIME_IN_DAYS", "DEFAULT_DDL_COLLATION",
    "LOG_EVENT_LEVEL",
}  # fmt: skip


def _replacing(parser: Parser) -> bool:
    return parser.tokens[1].keyword == "OR"


def _finish(parser: Parser, kind: str) -> None:
    """Parse the properties, which have no effect here; clauses that would have one are refused."""
    if parser.looking_at("CLONE") or parser.looking_at("FROM", "SHARE"):
        raise errors.not_supported(f"CREATE {kind} … {parser.current.keyword}")
    parser.accept("WITH", "MANAGED", "ACCESS")
    parse_options(parser, _PROPERTIES, kind)
    parser.expect_end()


class NamespaceStatements:
    """CREATE, DROP and ALTER of databases and schemas.

    :param catalog: the databases of the account.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    @property
    def extension(self) -> Extension:
        """The statements."""
        return Extension(
            statements=(
                *(
                    Statement(
                        ("CREATE", *replace, *transient, kind),
                        handler,
                        _STATUS,
                        _CREATE.format(kind),
                        creates(kind, *replace),
                    )
                    for kind, handler in (("DATABASE", self.create_database), ("SCHEMA", self.create_schema))
                    for replace in ((), ("OR", "REPLACE"))
                    for transient in ((), ("TRANSIENT",))
                ),
                Statement(
                    ("DROP", "DATABASE"),
                    self.drop_database,
                    _STATUS,
                    "DROP DATABASE [ IF EXISTS ] <name>",
                    owned("DATABASE"),
                ),
                Statement(
                    ("DROP", "SCHEMA"), self.drop_schema, _STATUS, "DROP SCHEMA [ IF EXISTS ] <name>", owned("SCHEMA")
                ),
                Statement(
                    ("ALTER", "DATABASE"),
                    self.alter,
                    _STATUS,
                    "ALTER DATABASE <name> SET <property> = <value>",
                    of("DATABASE", "MODIFY"),
                ),
                Statement(
                    ("ALTER", "SCHEMA"),
                    self.alter,
                    _STATUS,
                    "ALTER SCHEMA <name> SET <property> = <value>",
                    of("SCHEMA", "MODIFY"),
                ),
            )
        )

    def create_database(self, context: Context, parser: Parser) -> Result:
        """Run ``CREATE DATABASE``; the session moves into it, as in Snowflake."""
        or_replace = _replacing(parser)
        if_not_exists = parser.accept("IF", "NOT", "EXISTS")
        name = parser.qualified_name().name
        _finish(parser, "DATABASE")
        if or_replace:
            _leave(context, name, None)
        created = self._catalog.create_database(name, if_not_exists=if_not_exists, or_replace=or_replace)
        if not created:
            return Result.status(f"{name} already exists, statement succeeded.")
        rights = context.session.rights
        rights.created(Securable("DATABASE", (name,)))
        rights.created(Securable("SCHEMA", (name, "PUBLIC")))
        _enter(context, name, "PUBLIC")
        return Result.status(f"Database {name} successfully created.")

    def create_schema(self, context: Context, parser: Parser) -> Result:
        """Run ``CREATE SCHEMA``; the session moves into it, as in Snowflake."""
        or_replace = _replacing(parser)
        if_not_exists = parser.accept("IF", "NOT", "EXISTS")
        database, name = _schema_name(context, parser, "CREATE SCHEMA")
        _finish(parser, "SCHEMA")
        created = self._catalog.create_schema(database, name, if_not_exists=if_not_exists, or_replace=or_replace)
        if not created:
            return Result.status(f"{name} already exists, statement succeeded.")
        context.session.rights.created(Securable("SCHEMA", (database, name)))
        _enter(context, database, name)
        return Result.status(f"Schema {name} successfully created.")

    def drop_database(self, context: Context, parser: Parser) -> Result:
        """Run ``DROP DATABASE``."""
        if_exists = parser.accept("IF", "EXISTS")
        name = parser.qualified_name().name
        _finish_drop(parser)
        if not self._catalog.database_exists(name):
            return _absent("Database", name, if_exists=if_exists)
        _leave(context, name, None)
        self._catalog.drop_database(name)
        return Result.status(f"{name} successfully dropped.")

    def drop_schema(self, context: Context, parser: Parser) -> Result:
        """Run ``DROP SCHEMA``."""
        if_exists = parser.accept("IF", "EXISTS")
        database, name = _schema_name(context, parser, "DROP SCHEMA")
        _finish_drop(parser)
        if not self._catalog.schema_exists(database, name):
            return _absent("Schema", f"{database}.{name}", if_exists=if_exists)
        _leave(context, database, name)
        self._catalog.drop_schema(database, name)
        return Result.status(f"{name} successfully dropped.")

    def alter(self, context: Context, parser: Parser) -> Result:
        """Run ``ALTER DATABASE | SCHEMA … SET | UNSET`` of properties, which have no effect here."""
        kind = parser.tokens[1].keyword
        if_exists = parser.accept("IF", "EXISTS")
        if kind == "DATABASE":
            name = parser.qualified_name().name
            exists = self._catalog.database_exists(name)
        else:
            database, schema = _schema_name(context, parser, "ALTER SCHEMA")
            name, exists = f"{database}.{schema}", self._catalog.schema_exists(database, schema)
        if not exists and not if_exists:
            raise errors.does_not_exist(kind.capitalize(), name)
        if not parser.accept("SET"):
            raise errors.not_supported(f"ALTER {kind} other than SET")
        parse_options(parser, _PROPERTIES, kind)
        parser.expect_end()
        return Result.status(_DONE)


def _finish_drop(parser: Parser) -> None:
    if not parser.accept("CASCADE"):
        parser.accept("RESTRICT")
    parser.expect_end()


def _absent(kind: str, name: str, *, if_exists: bool) -> Result:
    if not if_exists:
        raise errors.does_not_exist(kind, name)
    return Result.status(f"Drop statement executed successfully ({name} already dropped).")


def _schema_name(context: Context, parser: Parser, command: str) -> tuple[str, str]:
    name = parser.qualified_name()
    database = name.schema or context.session.database
    if database is None:
        raise errors.no_current_database(command)
    return database, name.name


def _enter(context: Context, database: str, schema: str) -> None:
    context.session.database, context.session.schema = database, schema


def _leave(context: Context, database: str, schema: str | None) -> None:
    """Move the session out of a database or schema that is about to be dropped."""
    session = context.session
    if session.database == database and schema in {None, session.schema}:
        session.database, session.schema = (None if schema is None else database), None
        session.engine.use(session.database, None)
