"""INFORMATION_SCHEMA.COLUMNS with the identity of AUTOINCREMENT columns, which fakesnow's view lacks."""

from __future__ import annotations

from typing import Any

_VIEW = "_fs_information_schema._fs_columns"
_IS_PLAIN = "SELECT 1 FROM duckdb_views() WHERE database_name = '_fs_global' AND view_name = '_fs_columns_plain'"
# In fakesnow an AUTOINCREMENT is a default that reads a sequence.
_COLUMNS = f"""
    CREATE OR REPLACE VIEW _fs_global.{_VIEW} AS
    SELECT p.* REPLACE (
        CASE WHEN s.start_value IS NOT NULL THEN NULL
             WHEN p.column_default = 'get_current_timestamp()' THEN 'CURRENT_TIMESTAMP()'
             ELSE p.column_default END AS column_default,
        CASE WHEN s.start_value IS NULL THEN 'NO' ELSE 'YES' END AS is_identity,
        CASE WHEN s.start_value IS NOT NULL THEN 'BY DEFAULT' END AS identity_generation,
        CASE WHEN s.start_value IS NOT NULL THEN 'NO' END AS identity_cycle,
        CAST(s.start_value AS VARCHAR) AS identity_start,
        CAST(s.increment_by AS VARCHAR) AS identity_increment,
        CASE WHEN s.start_value IS NOT NULL THEN 'NO' END AS identity_ordered
    )
    FROM _fs_global.{_VIEW}_plain p
    LEFT JOIN duckdb_sequences() s ON s.database_name = p.table_catalog AND s.schema_name = p.table_schema
      AND lower(p.column_default) = concat('nextval(''', lower(s.sequence_name), ''')')
"""  # noqa: S608 - a statement of our own


def complete(connection: Any) -> None:
    """Put the complete view in front of fakesnow's, of all databases."""
    if connection.execute(_IS_PLAIN).fetchone() is None:
        connection.execute(f"ALTER VIEW _fs_global.{_VIEW} RENAME TO _fs_columns_plain")
    connection.execute(_COLUMNS)


def complete_database(connection: Any, name: str) -> None:
    """Let a database's view read the complete one, whose types are others."""
    source = f"SELECT * FROM _fs_global.{_VIEW} WHERE table_catalog = '{name}'"  # noqa: S608 - a checked name
    connection.execute(f"CREATE OR REPLACE VIEW {name}.{_VIEW} AS {source}")
