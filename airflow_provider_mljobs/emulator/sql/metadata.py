"""SHOW of keys, sequences, user functions and regions, from which clients read a schema."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.access.grants import Securable
from airflow_provider_mljobs.emulator.identity import CLOUD, REGION, ROLE
from airflow_provider_mljobs.emulator.listing import Listing, like, parse_listing
from airflow_provider_mljobs.emulator.parsing import QualifiedName
from airflow_provider_mljobs.emulator.registry import Extension, Statement
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.sql.catalog import OBJECTS
from airflow_provider_mljobs.emulator.sql.objects import TEMP, table_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_mljobs.emulator.parsing import Parser
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.sql.catalog import Catalog

_TYPES = {"created_on": "timestamp_ltz", "key_sequence": "fixed", "next_value": "fixed", "interval": "fixed"}


def _columns(names: str) -> tuple[Column, ...]:
    return tuple(Column(name, _TYPES.get(name, "text")) for name in names.split())  # type: ignore[arg-type]


_KEYS = _columns(
    "created_on database_name schema_name table_name column_name key_sequence constraint_name rely comment"
)
_FOREIGN_KEYS = _columns(
    "created_on pk_database_name pk_schema_name pk_table_name pk_column_name fk_database_name fk_schema_name "
    "fk_table_name fk_column_name key_sequence update_rule delete_rule fk_name pk_name deferrability rely comment"
)
_SEQUENCES = _columns(
    "name database_name schema_name next_value interval created_on owner comment owner_role_type ordered"
)
_FUNCTIONS = _columns(
    "created_on name schema_name is_builtin is_aggregate is_ansi min_num_arguments max_num_arguments arguments "
    "description catalog_name is_table_function valid_for_clustering is_secure secrets external_access_integrations "
    "is_external_function language is_memoizable is_data_metric"
)
_REGIONS = _columns("snowflake_region cloud region display_name")
_IN = "[ IN { ACCOUNT | DATABASE [ <db> ] | SCHEMA [ <schema> ] | [ TABLE ] <name> } ]"
# Those of AUTOINCREMENT columns have names that begin with _FS_SEQ_.
_SEQUENCE_ROWS = f"""
    SELECT s.sequence_name, s.database_name, s.schema_name, coalesce(s.last_value + s.increment_by, s.start_value),
           s.increment_by, o.created_on, coalesce(s.comment, '')
    FROM duckdb_sequences() s LEFT JOIN {OBJECTS} o ON o.kind = 'SEQUENCE' AND o.database_name = s.database_name
      AND o.schema_name = s.schema_name AND o.name = s.sequence_name
    WHERE NOT starts_with(upper(s.sequence_name), '_FS_SEQ_') AND s.database_name NOT IN ('system', 'temp')
    ORDER BY 2, 3, 1
"""  # noqa: S608 - a statement of our own
_CONSTRAINT_ROWS = f"""
    SELECT c.database_name, c.schema_name, c.table_name, c.constraint_type, c.constraint_name,
           c.constraint_column_names, c.referenced_table, c.referenced_column_names, o.created_on
    FROM duckdb_constraints() c LEFT JOIN {OBJECTS} o ON o.kind = 'TABLE' AND o.database_name = c.database_name
      AND o.schema_name = c.schema_name AND o.name = c.table_name
    WHERE c.constraint_type IN ('PRIMARY KEY', 'UNIQUE', 'FOREIGN KEY') AND c.database_name <> '_fs_global'
    ORDER BY c.database_name, c.schema_name, c.table_name, c.constraint_name
"""  # noqa: S608 - a statement of our own


@dataclass(frozen=True)
class _Constraint:
    """A key of a table.

    :param referenced: the table that a foreign key references, in the same schema, and its columns there.
    """

    table: QualifiedName
    kind: str
    label: str
    columns: Sequence[str]
    referenced: tuple[QualifiedName, Sequence[str]]
    created: Any

    @property
    def name(self) -> str:
        """A name as Snowflake makes one up; the engine forgets the name that a statement gives."""
        key = uuid.uuid5(uuid.NAMESPACE_OID, f"{self.table} {self.label}")
        return f"SYS_CONSTRAINT_{key}"

    def covered(self, listing: Listing, table: QualifiedName) -> bool:
        """Return whether SHOW covers the key, listed by this table."""
        return listing.covers(table.database or "", table.schema or "") and listing.table in {None, table.name}


class MetadataStatements:
    """SHOW of keys, sequences, user functions and regions.

    :param catalog: the databases of the account.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    @property
    def extension(self) -> Extension:
        """The statements."""
        functions = "SHOW USER FUNCTIONS [ LIKE '…' ] [ IN … ]  (none: functions are not supported)"
        return Extension(
            statements=(
                Statement(("SHOW", "PRIMARY", "KEYS"), self.show_keys, _KEYS, f"SHOW PRIMARY KEYS {_IN}"),
                Statement(("SHOW", "UNIQUE", "KEYS"), self.show_keys, _KEYS, f"SHOW UNIQUE KEYS {_IN}"),
                Statement(
                    ("SHOW", "IMPORTED", "KEYS"), self.show_foreign_keys, _FOREIGN_KEYS, f"SHOW IMPORTED KEYS {_IN}"
                ),
                Statement(
                    ("SHOW", "EXPORTED", "KEYS"), self.show_foreign_keys, _FOREIGN_KEYS, f"SHOW EXPORTED KEYS {_IN}"
                ),
                Statement(
                    ("SHOW", "SEQUENCES"), self.show_sequences, _SEQUENCES, "SHOW SEQUENCES [ LIKE '…' ] [ IN … ]"
                ),
                Statement(("SHOW", "USER", "FUNCTIONS"), self.show_functions, _FUNCTIONS, functions),
                Statement(("SHOW", "REGIONS"), show_regions, _REGIONS, "SHOW REGIONS [ LIKE '…' ]"),
            )
        )

    def show_keys(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW PRIMARY KEYS`` and ``SHOW UNIQUE KEYS``."""
        kind = "PRIMARY KEY" if parser.tokens[1].keyword == "PRIMARY" else "UNIQUE"
        listing = self._listing(context, parser)
        rows = [
            (key.created, key.table.database, key.table.schema, key.table.name, column, number, key.name, "false", None)
            for key in _constraints(context)
            if key.kind == kind and key.covered(listing, key.table)
            for number, column in enumerate(key.columns, 1)
        ]
        return Result(_KEYS, rows, statement="show")

    def show_foreign_keys(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW IMPORTED KEYS`` by the tables that have them, ``SHOW EXPORTED KEYS`` by those they reference."""
        imported = parser.tokens[1].keyword == "IMPORTED"
        listing = self._listing(context, parser)
        constraints = list(_constraints(context))
        names = {(key.table, tuple(key.columns)): key.name for key in constraints if key.kind != "FOREIGN KEY"}
        rows = []
        for key in constraints:
            table, columns = key.referenced
            if key.kind != "FOREIGN KEY" or not key.covered(listing, key.table if imported else table):
                continue
            rows += [
                (
                    key.created, table.database, table.schema, table.name, theirs, key.table.database,
                    key.table.schema, key.table.name, ours, number, "NO ACTION", "NO ACTION", key.name,
                    names.get((table, tuple(columns))), "NOT DEFERRABLE", "false", None,
                )
                for number, (ours, theirs) in enumerate(zip(key.columns, columns, strict=True), 1)
            ]  # fmt: skip
        return Result(_FOREIGN_KEYS, rows, statement="show")

    def show_sequences(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW SEQUENCES``."""
        listing = parse_listing(context, parser, self._catalog)
        sequences = [row for row in context.session.engine.link.query(_SEQUENCE_ROWS) if listing.covers(row[1], row[2])]
        names = set(listing.names(row[0] for row in sequences))
        rows = [(*row[:6], ROLE, row[6], "ROLE", "N") for row in sequences if row[0] in names]
        return Result(_SEQUENCES, rows, statement="show")

    def show_functions(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW USER FUNCTIONS``: no session can create one."""
        parse_listing(context, parser, self._catalog)
        return Result(_FUNCTIONS, statement="show")

    def _listing(self, context: Context, parser: Parser) -> Listing:
        listing = parse_listing(context, parser, self._catalog, levels=3)
        if listing.table is not None:
            table_columns(context, QualifiedName(listing.table, listing.schema, listing.database))
        return listing


def _constraints(context: Context) -> Iterator[_Constraint]:
    """Yield the keys of all tables, those of temporary ones in the schema of their creation."""
    session, rights = context.session.engine, context.session.rights
    for database, schema, table, kind, label, columns, referenced, theirs, created in session.link.query(
        _CONSTRAINT_ROWS
    ):
        owner = session.temporary.get(table) if database == TEMP else (database, schema)
        if owner is not None and (database == TEMP or rights.sees(Securable("TABLE", (*owner, table)))):
            name, other = (QualifiedName(text or "", owner[1], owner[0]) for text in (table, referenced))
            yield _Constraint(name, kind, label, columns, (other, theirs), created)


def show_regions(_: Context, parser: Parser) -> Result:
    """Run ``SHOW REGIONS``: the one that CURRENT_REGION returns."""
    pattern = parser.string() if parser.accept("LIKE") else "%"
    parser.expect_end()
    rows = [(REGION, CLOUD.lower(), "local", "This machine")] if like(pattern).fullmatch(REGION) else []
    return Result(_REGIONS, rows, statement="show")
