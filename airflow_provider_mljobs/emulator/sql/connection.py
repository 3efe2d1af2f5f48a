"""A session's connection to the SQL engine, with the state that DuckDB doesn't hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from airflow_provider_mljobs.emulator.parsing import QualifiedName
    from airflow_provider_mljobs.emulator.sql.bridge import Link

_NAMED = """
    SELECT 1 FROM (
        SELECT database_name, schema_name, table_name AS name FROM duckdb_tables()
        UNION ALL SELECT database_name, schema_name, view_name FROM duckdb_views()
        UNION ALL SELECT database_name, schema_name, sequence_name FROM duckdb_sequences()
    ) WHERE database_name = ? AND schema_name = ? AND name = ?
"""


class EngineSession:
    """The connection of one session. Its statements run one at a time: the caller holds the session's lock.

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
        """Undo ``register``."""
        self.link.unregister(name)

    def use(self, database: str | None, schema: str | None) -> None:
        """Set the current database and schema."""
        self.link.use(database, schema)
        self._current = (database, schema)

    def follow(self, database: str | None, schema: str | None) -> None:
        """Set the current database and schema unless they are current already."""
        if (database, schema) != self._current:
            self.use(database, schema)

    def sees(self, name: QualifiedName) -> bool:
        """Return whether this session sees a table, view or sequence of this name."""
        if self.temporary.get(name.name) == (name.database, name.schema):
            return True
        return bool(self.link.query(_NAMED, [name.database, name.schema, name.name]))

    def interrupt(self) -> None:
        """Stop the running statement from another thread; it fails with 604."""
        self.link.interrupt()

    def resume(self) -> None:
        """Begin another statement, also after one that was stopped."""
        self.link.resume()

    def at_close(self, action: Callable[[], object]) -> None:
        """Register an action for the end of the session."""
        self._cleanups.append(action)

    def end(self) -> None:
        """Drop the session's temporary objects."""
        while self._cleanups:
            self._cleanups.pop()()

    def close(self) -> None:
        """End the session: drop its temporary objects and roll back an open transaction."""
        self.end()
        self.link.close()
