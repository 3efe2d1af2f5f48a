"""The databases and schemas of the account, and the creation times of objects, which DuckDB doesn't store."""

# ruff: noqa: S608 statements of our own for DuckDB; names are quoted and values are bound
from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.access.grants import Securable
from airflow_provider_mljobs.emulator.errors import already_exists, does_not_exist, not_supported
from airflow_provider_mljobs.emulator.identity import ROLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_mljobs.emulator.access.rights import Access
    from airflow_provider_mljobs.emulator.settings import Settings
    from airflow_provider_mljobs.emulator.sql.bridge import Databases

_RELATIONS = {
    "TABLE": ("duckdb_tables()", "table_name"),
    "VIEW": ("duckdb_views()", "view_name"),
    "SEQUENCE": ("duckdb_sequences()", "sequence_name"),
}
OBJECTS = "_fs_global.main.objects"


def quoted(name: str) -> str:
    """Write a name for DuckDB."""
    return '"' + name.replace('"', '""') + '"'


class Catalog:
    """The databases, schemas and warehouses of the account.

    :param settings: the root directory, and the database, schema and warehouse that exist from the start.
    """

    def __init__(self, settings: Settings) -> None:
        # Loads sqlglot, DuckDB and fakesnow, which takes 2 s, so only where a server starts.
        from airflow_provider_mljobs.emulator.sql.bridge import Databases

        # DuckDB aborts one of two statements that write to the same table at once.
        self.writing = threading.RLock()
        self._reading = threading.RLock()
        self._on_drop: list[Callable[[str, str | None], None]] = []
        self.databases: Databases = Databases(settings.root)
        self._link = self.databases.link()
        self.create_database(settings.database, if_not_exists=True)
        self.create_schema(settings.database, settings.schema, if_not_exists=True)
        self.remember("WAREHOUSE", "", "", settings.warehouse)

    def close(self) -> None:
        """Write everything out and close the databases."""
        with self.writing, self._reading:
            self._link.close()
            self.databases.close()

    def query(self, sql: str, *parameters: object) -> list[tuple[object, ...]]:
        """Run a query in DuckDB's SQL, ours and not a user's, outside of any session."""
        with self._reading:
            return self._link.query(sql, parameters)

    def change(self, sql: str, *parameters: object) -> None:
        """Run a statement that writes, in DuckDB's SQL, ours and not a user's, outside of any session."""
        with self.writing, self._reading:
            self._link.query(sql, parameters)

    def database_exists(self, database: str) -> bool:
        """Return whether a database of this name exists."""
        return bool(self.query("SELECT 1 FROM duckdb_databases() WHERE database_name = ? AND NOT internal", database))

    def schema_exists(self, database: str, schema: str) -> bool:
        """Return whether a database has a schema of this name."""
        if schema == "INFORMATION_SCHEMA":
            return self.database_exists(database)
        rows = self.query(
            "SELECT 1 FROM duckdb_schemas() WHERE database_name = ? AND schema_name = ?", database, schema
        )
        return bool(rows) and schema != "main"

    def check_schema(self, database: str | None, schema: str | None) -> None:
        """Raise 2003 unless the schema exists."""
        if not self.schema_exists(database or "", schema or ""):
            raise does_not_exist("Schema", f"{database}.{schema}")

    def create_database(self, name: str, *, if_not_exists: bool = False, or_replace: bool = False) -> bool:
        """Create a database with a schema PUBLIC; return whether it is new."""
        if self.database_exists(name):
            if not or_replace:
                return self._existing(name, if_not_exists=if_not_exists)
            self.drop_database(name)
        with self.writing:
            self.databases.create(name)
        self.remember("DATABASE", name, "", "")
        return self.create_schema(name, "PUBLIC")

    def create_schema(self, database: str, name: str, *, if_not_exists: bool = False, or_replace: bool = False) -> bool:
        """Create a schema; return whether it is new."""
        if not self.database_exists(database):
            raise does_not_exist("Database", database)
        if self.schema_exists(database, name):
            if not or_replace:
                return self._existing(name, if_not_exists=if_not_exists)
            self.drop_schema(database, name)
        _refuse_internal(name)
        self.change(f"CREATE SCHEMA {quoted(database)}.{quoted(name)}")
        self.remember("SCHEMA", database, name, "")
        return True

    @staticmethod
    def _existing(name: str, *, if_not_exists: bool) -> bool:
        if not if_not_exists:
            raise already_exists(name)
        return False

    def drop_database(self, name: str) -> None:
        """Drop a database and everything in it."""
        with self.writing:
            self.databases.drop(name)
        self.change(f"DELETE FROM {OBJECTS} WHERE database_name = ?", name)
        self._dropped(name, None)

    def drop_schema(self, database: str, name: str) -> None:
        """Drop a schema and everything in it."""
        _refuse_internal(name)
        self.change(f"DROP SCHEMA {quoted(database)}.{quoted(name)} CASCADE")
        self.change(f"DELETE FROM {OBJECTS} WHERE database_name = ? AND schema_name = ?", database, name)
        self._dropped(database, name)

    def register(self, access: Access) -> None:
        """Make databases, schemas, tables and warehouses known to the account's rights, and end these with them."""
        access.register("DATABASE", lambda path: ROLE if self.database_exists(*path) else None)
        access.register("SCHEMA", lambda path: ROLE if self.schema_exists(*path) else None)
        access.register("WAREHOUSE", lambda path: ROLE if path[0] in self.warehouses() else None)
        for kind in _RELATIONS:
            access.register(kind, partial(self._relation_owner, kind))
        self.on_drop(
            lambda database, schema: access.grants.forget(
                Securable("DATABASE", (database,)) if schema is None else Securable("SCHEMA", (database, schema))
            )
        )

    def _relation_owner(self, kind: str, path: tuple[str, ...]) -> str | None:
        table, column = _RELATIONS[kind]
        where = f"database_name = ? AND schema_name = ? AND {column} = ?"
        return ROLE if self.query(f"SELECT 1 FROM {table} WHERE {where}", *path) else None

    def paths(self, kind: str) -> list[tuple[str, ...]]:
        """Return the paths of all schemas, tables or views."""
        if kind == "SCHEMA":
            rows = self.query("SELECT database_name, schema_name FROM duckdb_schemas() WHERE NOT internal")
            return [(str(database), str(schema)) for database, schema in rows]
        table, column = _RELATIONS[kind]
        rows = self.query(f"SELECT database_name, schema_name, {column} FROM {table} WHERE NOT internal")
        return [tuple(map(str, row)) for row in rows]

    def on_drop(self, callback: Callable[[str, str | None], None]) -> None:
        """Register a callback for dropped schemas: it gets database and schema, or ``None`` for a whole database."""
        self._on_drop.append(callback)

    def _dropped(self, database: str, schema: str | None) -> None:
        for callback in self._on_drop:
            callback(database, schema)

    def remember(self, kind: str, database: str, schema: str, name: str, *, again: bool = False) -> None:
        """Store that an object exists from now on; an earlier time stays unless the object was created again."""
        conflict = "DO UPDATE SET created_on = excluded.created_on" if again else "DO NOTHING"
        self.change(
            f"INSERT INTO {OBJECTS} VALUES (?, ?, ?, ?, now(), '') ON CONFLICT {conflict}", kind, database, schema, name
        )

    def forget(self, kind: str, database: str, schema: str, name: str) -> None:
        """Delete the record of an object that was dropped."""
        self.change(
            f"DELETE FROM {OBJECTS} WHERE kind = ? AND database_name = ? AND schema_name = ? AND name = ?",
            kind, database, schema, name,
        )  # fmt: skip

    def warehouses(self) -> dict[str, tuple[object, object]]:
        """Return creation time and comment of each warehouse."""
        rows = self.query(f"SELECT name, created_on, comment FROM {OBJECTS} WHERE kind = 'WAREHOUSE' ORDER BY 1")
        return {str(name): (created, comment) for name, created, comment in rows}


def _refuse_internal(schema: str) -> None:
    """Raise for a schema that DuckDB or fakesnow has in each database."""
    if schema.upper() in {"INFORMATION_SCHEMA", "MAIN", "PG_CATALOG"} or schema.upper().startswith("_FS_"):
        raise not_supported(f"making or dropping the schema {schema!r}")
