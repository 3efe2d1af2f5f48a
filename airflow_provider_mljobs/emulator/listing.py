"""The clauses that ``SHOW …`` statements share: LIKE, IN, STARTS WITH and LIMIT."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.errors import nothing_to_use

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_mljobs.emulator.parsing import Parser, QualifiedName
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.sessions import Session
    from airflow_provider_mljobs.emulator.sql.catalog import Catalog


def like(pattern: str) -> re.Pattern[str]:
    """Translate a LIKE pattern of SHOW into a regular expression that ignores case; a backslash escapes."""
    parts = []
    for match in re.finditer(r"\\(.)|(%)|(_)|(.)", pattern, re.DOTALL):
        escaped, percent, underscore, plain = match.groups()
        parts.append(".*" if percent else "." if underscore else re.escape(escaped or plain))
    return re.compile("".join(parts), re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Listing:
    """The clauses of one SHOW statement.

    :param database: only objects of this database; ``None`` for the whole account.
    :param schema: only objects of this schema.
    :param table: only columns of this table; only SHOW COLUMNS has it.
    :param after: the name in LIMIT's FROM: only names after it.
    """

    pattern: str | None = None
    database: str | None = None
    schema: str | None = None
    table: str | None = None
    starts_with: str = ""
    limit: int | None = None
    after: str = ""

    def names(self, names: Iterable[str]) -> list[str]:
        """Return the names that match LIKE, STARTS WITH and LIMIT, sorted."""
        wanted = like(self.pattern) if self.pattern is not None else None
        matching = [
            name
            for name in sorted(names)
            if (wanted is None or wanted.fullmatch(name)) and name.startswith(self.starts_with) and name >= self.after
        ]
        return matching[: self.limit]

    def covers(self, database: str, schema: str) -> bool:
        """Return whether the IN clause covers a schema."""
        return self.database in {None, database} and self.schema in {None, schema}


def parse_listing(context: Context, parser: Parser, catalog: Catalog, *, levels: int = 2) -> Listing:
    """Parse the clauses behind ``SHOW <objects>``.

    :param catalog: the databases that IN may name.
    :param levels: how deep the objects live: 0 in the account, 1 in a database, 2 in a schema, 3 in a table.
    """
    parser.accept("HISTORY")
    pattern = parser.string() if parser.accept("LIKE") else None
    if parser.accept("IN"):
        database, schema, table = _scope(context, parser, catalog, levels)
    else:
        database, schema, table = _current(context.session, levels)
    starts_with = parser.string() if parser.accept("STARTS", "WITH") else ""
    limit = parser.integer() if parser.accept("LIMIT") else None
    after = parser.string() if limit is not None and parser.accept("FROM") else ""
    parser.expect_end()
    return Listing(pattern, database, schema, table, starts_with, limit, after)


Scope = tuple["str | None", "str | None", "str | None"]


def _current(session: Session, levels: int) -> Scope:
    if levels == 0:
        return (None, None, None)
    return (session.database, session.schema if levels > 1 else None, None)


def _scope(context: Context, parser: Parser, catalog: Catalog, levels: int) -> Scope:
    session = context.session
    if parser.accept("ACCOUNT"):
        return (None, None, None)
    if parser.accept("DATABASE"):
        return (_existing_database(context, catalog, _optional_name(parser)), None, None)
    if parser.accept("SCHEMA"):
        name = _optional_name(parser)
        database = name.schema or session.database if name else session.database
        return (*_existing_schema(catalog, database, name.name if name else session.schema), None)
    if levels > 2 and (parser.accept("TABLE") or parser.accept("VIEW")):  # noqa: PLR2004
        return _table(session, parser.qualified_name())
    name = parser.qualified_name()
    if levels > 2:  # noqa: PLR2004
        return _table(session, name)
    return _bare(context, name, catalog, levels)


def _bare(context: Context, name: QualifiedName, catalog: Catalog, levels: int) -> Scope:
    """Read ``IN x``: a schema where one has that name, else a database."""
    if levels < 2:  # noqa: PLR2004
        return (_existing_database(context, catalog, name), None, None)
    database = name.schema or context.session.database
    is_schema = name.schema is not None or (database and catalog.schema_exists(database, name.name))
    if not is_schema and catalog.database_exists(name.name):
        return (name.name, None, None)
    return (*_existing_schema(catalog, database, name.name), None)


def _table(session: Session, name: QualifiedName) -> Scope:
    full = session.resolve(name, "SHOW COLUMNS")
    return (full.database, full.schema, full.name)


def _optional_name(parser: Parser) -> QualifiedName | None:
    if parser.current.kind == "end" or parser.looking_at("STARTS") or parser.looking_at("LIMIT"):
        return None
    return parser.qualified_name()


def _existing_database(context: Context, catalog: Catalog, name: QualifiedName | None) -> str | None:
    database = name.name if name else context.session.database
    if database is not None and not catalog.database_exists(database):
        raise nothing_to_use()
    return database


def _existing_schema(catalog: Catalog, database: str | None, schema: str | None) -> tuple[str | None, str | None]:
    if database and schema and not catalog.schema_exists(database, schema):
        raise nothing_to_use()
    return (database, schema)
