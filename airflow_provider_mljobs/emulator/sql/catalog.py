"""Databases and schemas, and what Snowflake knows of objects that DuckDB doesn't: since when they exist."""

# ruff: noqa: S608 statements of our own for DuckDB; names are quoted and values are bound
from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.errors import already_exists, does_not_exist, not_supported

if TYPE_CHECKING:
    from airflow_provider_mljobs.emulator.sql.engine import Engine

OBJECTS = "_fs_global.main.objects"


def quoted(name: str) -> str:
    """Write a name for DuckDB."""
    return '"' + name.replace('"', '""') + '"'


class Catalog:
    """The databases, schemas and warehouses of the account.

    :param engine: the engine that holds them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create_database(self, name: str, *, if_not_exists: bool = False, or_replace: bool = False) -> bool:
        """Make a database with a schema PUBLIC; tell whether it was new."""
        if self._engine.database_exists(name):
            if not or_replace:
                return self._taken(name, if_not_exists=if_not_exists)
            self.drop_database(name)
        with self._engine.writing:
            self._engine.databases.create(name)
        self.remember("DATABASE", name, "", "")
        return self.create_schema(name, "PUBLIC")

    def create_schema(self, database: str, name: str, *, if_not_exists: bool = False, or_replace: bool = False) -> bool:
        """Make a schema; tell whether it was new."""
        if not self._engine.database_exists(database):
            raise does_not_exist("Database", database)
        if self._engine.schema_exists(database, name):
            if not or_replace:
                return self._taken(name, if_not_exists=if_not_exists)
            self.drop_schema(database, name)
        _refuse_internal(name)
        self._engine.change(f"CREATE SCHEMA {quoted(database)}.{quoted(name)}")
        self.remember("SCHEMA", database, name, "")
        return True

    @staticmethod
    def _taken(name: str, *, if_not_exists: bool) -> bool:
        if not if_not_exists:
            raise already_exists(name)
        return False

    def drop_database(self, name: str) -> None:
        """Drop a database with all that lives in it."""
        with self._engine.writing:
            self._engine.databases.drop(name)
        self._engine.change(f"DELETE FROM {OBJECTS} WHERE database_name = ?", name)
        self._engine.forget(name, None)

    def drop_schema(self, database: str, name: str) -> None:
        """Drop a schema with all that lives in it."""
        _refuse_internal(name)
        self._engine.change(f"DROP SCHEMA {quoted(database)}.{quoted(name)} CASCADE")
        self._engine.change(f"DELETE FROM {OBJECTS} WHERE database_name = ? AND schema_name = ?", database, name)
        self._engine.forget(database, name)

    def remember(self, kind: str, database: str, schema: str, name: str, *, again: bool = False) -> None:
        """Keep that an object exists since now; what was known stays unless it was made again."""
        conflict = "DO UPDATE SET created_on = excluded.created_on" if again else "DO NOTHING"
        self._engine.change(
            f"INSERT INTO {OBJECTS} VALUES (?, ?, ?, ?, now(), '') ON CONFLICT {conflict}", kind, database, schema, name
        )

    def forget(self, kind: str, database: str, schema: str, name: str) -> None:
        """Forget an object that was dropped."""
        self._engine.change(
            f"DELETE FROM {OBJECTS} WHERE kind = ? AND database_name = ? AND schema_name = ? AND name = ?",
            kind, database, schema, name,
        )  # fmt: skip

    def warehouses(self) -> list[tuple[object, ...]]:
        """Return name, creation time and comment of each warehouse."""
        return self._engine.query(
            f"SELECT name, created_on, comment FROM {OBJECTS} WHERE kind = 'WAREHOUSE' ORDER BY 1"
        )


def _refuse_internal(schema: str) -> None:
    """Raise for a schema that DuckDB or fakesnow has in each database."""
    if schema.upper() in {"INFORMATION_SCHEMA", "MAIN", "PG_CATALOG"} or schema.upper().startswith("_FS_"):
        raise not_supported(f"making or dropping the schema {schema!r}")
