"""SHOW and DESCRIBE of databases, schemas, tables, views and columns."""

# ruff: noqa: S608 statements of our own for DuckDB; names are quoted and values are bound
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.access.grants import Securable
from airflow_provider_mljobs.emulator.access.needs import relation_of
from airflow_provider_mljobs.emulator.errors import does_not_exist
from airflow_provider_mljobs.emulator.listing import parse_listing
from airflow_provider_mljobs.emulator.parsing import QualifiedName
from airflow_provider_mljobs.emulator.registry import Extension, Statement
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.sql.catalog import OBJECTS
from airflow_provider_mljobs.emulator.sql.columns import data_type, declared

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_mljobs.emulator.access.rights import Rights
    from airflow_provider_mljobs.emulator.listing import Listing
    from airflow_provider_mljobs.emulator.parsing import Parser
    from airflow_provider_mljobs.emulator.registry import Context, Handler
    from airflow_provider_mljobs.emulator.sql.catalog import Catalog

Row = dict[str, Any]

_NUMBERS = {"rows", "bytes"}
_HIDDEN = ("main", "information_schema", "pg_catalog", "_fs_information_schema")
TEMP = "temp"


def _columns(names: str) -> tuple[Column, ...]:
    return tuple(
        Column(name, "timestamp_ltz") if name == "created_on"
        else Column(name, "fixed", precision=38, scale=0) if name in _NUMBERS
        else Column(name)
        for name in names.split()
    )  # fmt: skip


_DATABASES = _columns(
    "created_on name is_default is_current origin owner comment options retention_time kind budget owner_role_type "
    "object_visibility"
)
_SCHEMAS = _columns(
    "created_on name is_default is_current database_name owner comment options retention_time owner_role_type budget "
    "classification_profile_database classification_profile_schema classification_profile object_visibility"
)
_TABLES = _columns(
    "created_on name database_name schema_name kind comment cluster_by rows bytes owner retention_time "
    "automatic_clustering change_tracking search_optimization search_optimization_progress search_optimization_bytes "
    "is_external enable_schema_evolution owner_role_type is_event budget is_hybrid is_iceberg is_dynamic is_immutable"
)
_VIEWS = _columns(
    "created_on name reserved database_name schema_name owner comment text is_secure is_materialized owner_role_type "
    "change_tracking"
)
_OBJECTS = _columns(
    "created_on name database_name schema_name kind comment cluster_by rows bytes owner retention_time owner_role_type "
    "budget is_hybrid is_dynamic is_iceberg"
)
_SHOWN_COLUMNS = _columns(
    "table_name schema_name column_name data_type null? default kind expression comment database_name autoincrement "
    "schema_evolution_record"
)
_DESCRIBED = tuple(
    Column(name)
    for name in (
        "name", "type", "kind", "null?", "default", "primary key", "unique key", "check", "expression", "comment",
        "policy name", "privacy domain",
    )
)  # fmt: skip
_DEFAULTS = {
    "get_current_timestamp()": "CURRENT_TIMESTAMP()",
    "current_date()": "CURRENT_DATE()",
    "true": "TRUE",
    "false": "FALSE",
}
_SINCE = f"LEFT JOIN {OBJECTS} o ON o.database_name = x.database_name AND o.kind = "
_TABLE_ROWS = f"""
    SELECT o.created_on, x.table_name, x.database_name, x.schema_name,
           coalesce(x.comment, c.comment, ''), x.estimated_size, x.kind, x.text
    FROM (SELECT database_name, schema_name, table_name, comment, estimated_size, 'TABLE' AS kind, NULL AS text
            FROM duckdb_tables() WHERE NOT internal
          UNION ALL
          SELECT database_name, schema_name, view_name, comment, NULL, 'VIEW', sql FROM duckdb_views()
          WHERE NOT internal) x
    {_SINCE} 'TABLE' AND o.schema_name = x.schema_name AND o.name = x.table_name
    LEFT JOIN _fs_global._fs_information_schema._fs_tables_ext c ON c.ext_table_catalog = x.database_name
      AND c.ext_table_schema = x.schema_name AND c.ext_table_name = x.table_name
    WHERE x.database_name NOT IN ('_fs_global', 'memory', 'system')
      AND x.schema_name NOT IN ('information_schema', 'pg_catalog', '_fs_information_schema')
"""
_KEY = """
    EXISTS (SELECT 1 FROM duckdb_constraints() k WHERE k.table_oid = x.table_oid AND k.database_oid = x.database_oid
              AND k.constraint_type = '{}' AND list_contains(k.constraint_column_names, x.column_name))
"""
_COLUMN_ROWS = f"""
    SELECT x.table_name, x.schema_name, x.column_name, x.data_type, x.is_nullable, x.column_default,
           coalesce(x.comment, ''), x.database_name, e.ext_character_maximum_length,
           {_KEY.format("PRIMARY KEY")}, {_KEY.format("UNIQUE")},
           'IDENTITY START ' || s.start_value || ' INCREMENT ' || s.increment_by || ' NOORDER'
    FROM duckdb_columns() x
    LEFT JOIN duckdb_sequences() s ON s.database_name = x.database_name AND s.schema_name = x.schema_name
      AND lower(x.column_default) = concat('nextval(''', lower(s.sequence_name), ''')')
    LEFT JOIN _fs_global._fs_information_schema._fs_columns_ext e ON e.ext_table_catalog = {{owner_database}}
      AND e.ext_table_schema = {{owner_schema}} AND e.ext_table_name = x.table_name
      AND e.ext_column_name = x.column_name
    WHERE NOT x.internal AND x.schema_name NOT IN ('information_schema', 'pg_catalog', '_fs_information_schema')
      AND x.database_name <> '_fs_global'
    ORDER BY x.database_name, x.schema_name, x.table_name, x.column_index
"""


def _answer(columns: Sequence[Column], rows: Sequence[Row]) -> Result:
    return Result(columns, [tuple(row.get(column.name) for column in columns) for row in rows], statement="show")


def _default(text: str | None) -> str | None:
    """Write a column's default as Snowflake does."""
    return _DEFAULTS.get(text or "", text)


def _flag(value: object) -> str:
    return "Y" if value else "N"


class ObjectStatements:
    """SHOW and DESCRIBE of databases, schemas, tables, views and columns.

    :param catalog: the databases of the account.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    @property
    def extension(self) -> Extension:
        """The statements."""
        return Extension(
            statements=(
                *_shows("DATABASES", self.show_databases, _DATABASES, ""),
                *_shows("SCHEMAS", self.show_schemas, _SCHEMAS, "[ IN { ACCOUNT | DATABASE [ <db> ] } ]"),
                *_shows("TABLES", self.show_tables, _TABLES, _IN),
                *_shows("VIEWS", self.show_views, _VIEWS, _IN),
                *_shows("OBJECTS", self.show_objects, _OBJECTS, _IN),
                Statement(
                    ("SHOW", "COLUMNS"),
                    self.show_columns,
                    _SHOWN_COLUMNS,
                    "SHOW COLUMNS [ LIKE '…' ] "
                    "[ IN { ACCOUNT | DATABASE [ <db> ] | SCHEMA [ <schema> ] | TABLE | VIEW <name> } ]",
                ),
                *(
                    Statement((verb, kind), describe_table, _DESCRIBED, f"{{ DESCRIBE | DESC }} {kind} <name>")
                    for verb in ("DESCRIBE", "DESC")
                    for kind in ("TABLE", "VIEW")
                ),
            )
        )

    def show_databases(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW DATABASES``."""
        rights = context.session.rights
        listing = parse_listing(context, parser, self._catalog, levels=0)
        databases = dict(
            context.session.engine.link.query(
                f"SELECT x.database_name, o.created_on FROM duckdb_databases() x {_SINCE} 'DATABASE' "
                "WHERE NOT x.internal AND x.database_name NOT IN ('memory', '_fs_global')"
            )
        )
        rows = [
            {
                "created_on": databases[name], "name": name, "is_default": "N", "origin": "",
                "owner": rights.owner_of(Securable("DATABASE", (name,))),
                "is_current": _flag(name == context.session.database), "comment": "", "options": "",
                "retention_time": "1", "kind": "STANDARD", "owner_role_type": "ROLE",
            }
            for name in listing.names(databases)
            if rights.sees(Securable("DATABASE", (name,)))
        ]  # fmt: skip
        return _answer(_DATABASES, rows)

    def show_schemas(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW SCHEMAS``."""
        listing = parse_listing(context, parser, self._catalog, levels=1)
        schemas = context.session.engine.link.query(
            f"SELECT o.created_on, x.schema_name, x.database_name FROM duckdb_schemas() x {_SINCE} 'SCHEMA' "
            "AND o.schema_name = x.schema_name WHERE x.database_name NOT IN ('memory', '_fs_global', 'system', 'temp') "
            f"AND x.schema_name NOT IN {_HIDDEN} ORDER BY 3, 2"
        )
        since = {database: created for created, _, database in schemas}
        schemas += [(since[database], "INFORMATION_SCHEMA", database) for database in since]
        wanted = set(listing.names({name for _, name, database in schemas if listing.database in {None, database}}))
        session = context.session
        rows = [
            {
                "created_on": created, "name": name, "is_default": "N", "database_name": database,
                "is_current": _flag((database, name) == (session.database, session.schema)),
                "owner": session.rights.owner_of(Securable("SCHEMA", (database, name))),
                "comment": "", "options": "", "retention_time": "1", "owner_role_type": "ROLE",
            }
            for created, name, database in sorted(schemas, key=lambda row: (row[2], row[1]))
            if name in wanted and listing.database in {None, database} and _sees_schema(session.rights, database, name)
        ]  # fmt: skip
        return _answer(_SCHEMAS, rows)

    def _tables(self, context: Context, parser: Parser, kinds: set[str]) -> list[Row]:
        """Return the tables and views that SHOW covers, temporary ones in the schema of their creation."""
        listing = parse_listing(context, parser, self._catalog)
        session, rights = context.session.engine, context.session.rights
        temporary = session.temporary
        rows = []
        for created, name, database, schema, comment, size, kind, text in session.link.query(_TABLE_ROWS):
            owner = temporary.get(name) if database == TEMP else (database, schema)
            if owner is not None and kind in kinds and listing.covers(*owner):
                label = "TEMPORARY" if database == TEMP and kind == "TABLE" else kind
                on = Securable(kind, (*owner, name))
                if database == TEMP or rights.sees(on):
                    owning = rights.role if database == TEMP else rights.owner_of(on)
                    rows.append(_table((created, name, *owner), label, comment, size, text) | {"owner": owning})
        wanted = listing.names({row["name"] for row in rows})
        ordered = sorted(rows, key=lambda row: (row["database_name"], row["schema_name"], row["name"]))
        return [row for row in ordered if row["name"] in wanted]

    def show_tables(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW TABLES``."""
        rows = self._tables(context, parser, {"TABLE"})
        return _answer(_TABLES, rows)

    def show_views(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW VIEWS``."""
        return _answer(_VIEWS, self._tables(context, parser, {"VIEW"}))

    def show_objects(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW OBJECTS``."""
        return _answer(_OBJECTS, self._tables(context, parser, {"TABLE", "VIEW"}))

    def show_columns(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW COLUMNS``."""
        listing = parse_listing(context, parser, self._catalog, levels=3)
        rows = [
            {
                "table_name": row[0], "schema_name": row[1], "column_name": row[2], "kind": "COLUMN", "expression": "",
                "data_type": data_type(row[3], row[8], nullable=row[4]), "null?": "true" if row[4] else "false",
                "default": "" if row[11] else _default(row[5]) or "", "comment": row[6], "database_name": row[7],
                "autoincrement": row[11] or "",
            }
            for row in _covered_columns(context, listing)
        ]  # fmt: skip
        return _answer(_SHOWN_COLUMNS, rows)


def _sees_schema(rights: Rights, database: str, schema: str) -> bool:
    kind, path = ("DATABASE", (database,)) if schema == "INFORMATION_SCHEMA" else ("SCHEMA", (database, schema))
    return rights.sees(Securable(kind, path))


def _table(identity: tuple[Any, ...], kind: str, comment: str, size: int | None, text: str | None) -> Row:
    created, name, database, schema = identity
    switches = ("automatic_clustering", "change_tracking", "search_optimization")
    flags = ("is_external", "enable_schema_evolution", "is_event", "is_hybrid", "is_iceberg", "is_dynamic")
    return {
        **dict.fromkeys(switches, "OFF"), **dict.fromkeys(flags, "N"), "is_immutable": "N", "created_on": created,
        "name": name, "database_name": database, "schema_name": schema, "kind": kind, "comment": comment,
        "cluster_by": "", "rows": size, "bytes": 0 if size is not None else None,
        "retention_time": "1", "owner_role_type": "ROLE", "reserved": "", "text": text, "is_secure": "false",
        "is_materialized": "false",
    }  # fmt: skip


def table_columns(context: Context, name: QualifiedName) -> list[tuple[Any, ...]]:
    """Return the columns of one table or view of this session; raises 2003 if it doesn't exist."""
    session = context.session.engine
    owner = (name.database, name.schema)
    if session.temporary.get(name.name) != owner:
        context.session.rights.require(relation_of(context.session, name))
    place = (TEMP, "main") if session.temporary.get(name.name) == owner else owner
    rows = [row for row in _column_rows(context, owner) if (row[7], row[1], row[0]) == (*place, name.name)]
    if not rows:
        raise does_not_exist("Table", str(name))
    return rows


def _column_rows(context: Context, owner: tuple[str | None, str | None] | None = None) -> list[tuple[Any, ...]]:
    """Return all columns; text lengths of a temporary table are stored under the schema of its creation."""
    database, schema = (
        ("'" + str(part).replace("'", "''") + "'" for part in owner) if owner else ("x.database_name", "x.schema_name")
    )
    return context.session.engine.link.query(_COLUMN_ROWS.format(owner_database=database, owner_schema=schema))


def _covered_columns(context: Context, listing: Listing) -> list[tuple[Any, ...]]:
    if listing.table is not None:
        name = QualifiedName(listing.table, listing.schema, listing.database)
        rows = [(row[0], name.schema, *row[2:7], name.database, *row[8:]) for row in table_columns(context, name)]
    else:
        rows = [row for row in _column_rows(context) if row[7] != TEMP and listing.covers(row[7], row[1])]
        relations = {QualifiedName(row[0], row[1], row[7]) for row in rows}
        visible = {name for name in relations if context.session.rights.sees(relation_of(context.session, name))}
        rows = [row for row in rows if QualifiedName(row[0], row[1], row[7]) in visible]
    wanted = set(listing.names({row[2] for row in rows}))
    return [row for row in rows if row[2] in wanted]


def describe_table(context: Context, parser: Parser) -> Result:
    """Run ``DESCRIBE TABLE | VIEW``."""
    name = context.session.resolve(parser.qualified_name(), "DESCRIBE TABLE")
    parser.accept("TYPE", "=", "COLUMNS")
    parser.expect_end()
    rows = [
        {
            "name": row[2], "type": declared(row[3], row[8]), "kind": "COLUMN", "null?": _flag(row[4]),
            "default": row[11] or _default(row[5]), "primary key": _flag(row[9]), "unique key": _flag(row[10]),
            "comment": row[6] or None,
        }
        for row in table_columns(context, name)
    ]  # fmt: skip
    return _answer(_DESCRIBED, rows)


_IN = "[ IN { ACCOUNT | DATABASE [ <db> ] | SCHEMA [ <schema> ] | <name> } ]"
_REST = "[ STARTS WITH '…' ] [ LIMIT <n> [ FROM '…' ] ]"


def _shows(what: str, handler: Handler, columns: tuple[Column, ...], scope: str) -> list[Statement]:
    syntax = " ".join(part for part in (f"SHOW [ TERSE ] {what} [ LIKE '…' ]", scope, _REST) if part)
    return [
        Statement(("SHOW", what), handler, columns, syntax),
        Statement(("SHOW", "TERSE", what), _terse(handler, "VIEW" if what == "VIEWS" else None), _TERSE, syntax),
    ]


_TERSE = _columns("created_on name kind database_name schema_name")


def _terse(handler: Callable[[Context, Parser], Result], kind: str | None) -> Handler:
    def run(context: Context, parser: Parser) -> Result:
        full = handler(context, parser)
        names = [column.name for column in full.columns]
        return _answer(_TERSE, [{"kind": kind, **dict(zip(names, row, strict=True))} for row in full.rows])

    return run
