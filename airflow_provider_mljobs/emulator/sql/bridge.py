"""The only code that knows fakesnow and DuckDB: databases in files, and one connection per session.

fakesnow translates Snowflake's SQL to DuckDB's and runs it. We use its transformations without its server, and replace
its Arrow output (whose warning is an error under pytest), its cache of results, which it never empties, and its
bookkeeping database, which we store in a file.
"""

from __future__ import annotations

import glob
import logging
import re
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlglot import ErrorLevel, exp, parse_one
from sqlglot.errors import ParseError, UnsupportedError

from airflow_provider_mljobs.emulator.errors import not_supported, syntax_error
from airflow_provider_mljobs.emulator.sql import information_schema
from airflow_provider_mljobs.emulator.sql.rewrites import MACROS, after_translation
from airflow_provider_mljobs.emulator.sql.table_expressions import as_tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Self

    import duckdb
    import pyarrow as pa

BOOKKEEPING = "_fs_global"
_INTERNAL = {"MEMORY", "SYSTEM", "TEMP", "_FS_GLOBAL"}
_DATABASE_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
_BIND_TYPES: dict[type, str] = {
    bool: "BOOLEAN", int: "HUGEINT", float: "DOUBLE", Decimal: "DECIMAL(38, 10)", bytes: "BLOB",
    date: "DATE", time: "TIME", datetime: "TIMESTAMP",
}  # fmt: skip
_NO_TRANSACTION = "no transaction is active"
_OBJECTS = f"""
    CREATE TABLE IF NOT EXISTS {BOOKKEEPING}.main.objects (
        kind VARCHAR, database_name VARCHAR, schema_name VARCHAR, name VARCHAR, created_on TIMESTAMPTZ, comment VARCHAR,
        PRIMARY KEY (kind, database_name, schema_name, name)
    )
"""


def parse(sql: str) -> exp.Expr:
    """Parse Snowflake's SQL; raises 1003 with the place that doesn't fit."""
    try:
        return parse_one(sql, read="snowflake")
    except ParseError as problem:
        error = problem.errors[0] if problem.errors else {}
        lines = sql.splitlines(keepends=True)
        line = int(error.get("line") or 1)
        highlight = str(error.get("highlight") or "")
        start = sum(len(text) for text in lines[: line - 1])
        position = sql.find(highlight, start) if highlight else len(sql)
        raise syntax_error(sql, max(position, 0)) from problem
    except Exception as problem:
        # sqlglot's tokenizer raises various errors for text that isn't SQL.
        raise syntax_error(sql, 0) from problem


@dataclass(frozen=True)
class Answer:
    """An answer of DuckDB: column names, its types, rows, and the number of rows that a DML statement changed."""

    names: Sequence[str]
    types: Sequence[str]
    table: pa.Table
    affected: int | None = None


class _Closed:
    """Replaces a closed connection, so that a reference to the session doesn't keep DuckDB's objects alive."""

    def __getattr__(self, name: str) -> Any:
        import duckdb

        raise duckdb.ConnectionException("Connection already closed")


class _Connection:
    """A DuckDB connection whose queries stay relations, which convert to Arrow without a copy and a warning.

    DuckDB forgets an interrupt that comes between two of its calls, so it is kept until the statement has ended.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection: Any = connection
        self._rows: list[Any] = []
        self._is_interrupted = False
        self.relation: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, parameters: Any = None) -> Self:
        """Run a statement; a query runs only when its rows are fetched.

        DuckDB decides which statements are queries. An open result would block the connection.
        """
        import duckdb

        self._check()
        self.relation, self._rows = None, []
        *first, last = self._connection.extract_statements(sql)
        for statement in first:
            self._connection.execute(statement).fetchall()
        self._check()
        if last.expected_result_type == [duckdb.ExpectedResultType.QUERY_RESULT]:
            self.relation = self._connection.sql(last, params=parameters)
        else:
            self._rows = self._connection.execute(last, parameters).fetchall()
        return self

    def interrupt(self) -> None:
        """Interrupt the calls until ``resume``; from another thread."""
        self._is_interrupted = True
        self._connection.interrupt()

    def resume(self) -> None:
        """Run calls again."""
        self._is_interrupted = False

    def _check(self) -> None:
        if self._is_interrupted:
            import duckdb

            raise duckdb.InterruptException("INTERRUPT Error: Interrupted!")

    def fetchall(self) -> list[Any]:
        self._check()
        return list(self._rows if self.relation is None else self.relation.fetchall())

    def fetchone(self) -> Any:
        return next(iter(self.fetchall()), None)

    def to_arrow_table(self) -> pa.Table:
        import pyarrow as pa

        self._check()
        return self.relation.to_arrow_table() if self.relation is not None else pa.table({})

    def close(self) -> None:
        connection, self._connection, self.relation = self._connection, _Closed(), None
        connection.close()


class Link:
    """One session's connection to DuckDB through fakesnow."""

    def __init__(self, fakesnow: Any) -> None:
        self._fake = fakesnow.connect()
        self._duck = _Connection(self._fake._duck_conn)  # noqa: SLF001 fakesnow has no public way to replace it
        self._fake._duck_conn = self._duck  # noqa: SLF001
        self._fake.table_stages._duck_conn = self._duck  # noqa: SLF001
        self._results = fakesnow.results_cache
        for macro in MACROS:
            self._duck.execute(macro)

    def use(self, database: str | None, schema: str | None) -> None:
        """Set the current database and schema."""
        fake = self._fake
        place = f'"{database}"."{schema or "main"}"'.replace("'", "''") if database else "memory.main"
        self._duck.execute(f"SET schema = '{place}'")
        fake.database, fake._schema = database, schema  # noqa: SLF001
        fake.database_set, fake.schema_set = database is not None, schema is not None

    def interrupt(self) -> None:
        """Interrupt the running statement."""
        self._duck.interrupt()

    def resume(self) -> None:
        """Begin another statement, also after an interrupt."""
        self._duck.resume()

    def query(self, sql: str, parameters: Sequence[object] | None = None) -> list[tuple[Any, ...]]:
        """Run DuckDB's SQL, ours and not the user's, and return its rows."""
        self._duck.execute(sql, list(parameters) if parameters else None)
        return [tuple(row) for row in self._duck.fetchall()]

    def table(self, sql: str) -> Answer:
        """Run a query in DuckDB's SQL, ours and not the user's, and return typed rows."""
        self._duck.execute(sql)
        return self._answer()

    def register(self, name: str, table: pa.Table) -> None:
        """Make a table in memory readable under a name."""
        self._duck.register(name, table)

    def unregister(self, name: str) -> None:
        """Undo ``register``."""
        self._duck.unregister(name)

    def translate(self, expression: exp.Expr) -> list[exp.Expr]:
        """Return DuckDB's statements for one of Snowflake's; raises if the translation would be incomplete."""
        cursor = self._fake.cursor()
        cursor.check_db_and_schema(expression)
        as_tables(expression)
        statements = []
        # DuckDB has MERGE; fakesnow's form of it loses columns without the source's name.
        whole = isinstance(expression, exp.Merge)
        for part in [expression] if whole else cursor._transform_explode(expression):  # noqa: SLF001
            translated = after_translation(cursor._transform(part, None))  # noqa: SLF001
            try:
                translated.sql(dialect="duckdb", unsupported_level=ErrorLevel.RAISE)
            except UnsupportedError as problem:
                raise not_supported(" ".join(str(problem).split())) from problem
            statements.append(translated)
        return statements

    def run(self, expression: exp.Expr, binds: Mapping[str, object], *, atomic: bool = False) -> Answer:
        """Translate a statement and run it.

        :param atomic: run all or none of the statements that one becomes, such as those of INSERT OVERWRITE.
        """
        cursor = self._fake.cursor()
        statements = self.translate(expression)
        with self.transaction() if atomic and len(statements) > 1 else nullcontext():
            for statement in statements:
                names = {placeholder.name for placeholder in statement.find_all(exp.Placeholder)}
                cursor._execute(statement, {name: binds[name] for name in names} or None)  # noqa: SLF001
                self._results.clear()
        return self._answer(cursor._arrow_table, cursor.rowcount)  # noqa: SLF001

    def merge(self, expression: exp.Expr, binds: Mapping[str, object]) -> Counter[str]:
        """Run a MERGE; returns how many rows it did INSERT, UPDATE and DELETE."""
        cursor = self._fake.cursor()
        cursor.check_db_and_schema(expression)
        translated = self.translate(expression)[0]
        names = {placeholder.name for placeholder in translated.find_all(exp.Placeholder)}
        used = {name: binds[name] for name in names}
        self._duck.execute(f"{translated.sql(dialect='duckdb')} RETURNING merge_action", used or None)
        return Counter(str(row[0]) for row in self._duck.fetchall())

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all changes, or roll them back if one fails."""
        self.begin()
        try:
            yield
        except BaseException:
            self.commit(keep=False)
            raise
        # An open result would block the connection.
        relation, self._duck.relation = self._duck.relation, None
        self.commit()
        self._duck.relation = relation

    def describe(self, expression: exp.Expr, binds: Mapping[str, object]) -> Answer:
        """Return the columns of a query without running it, as DuckDB would do for one with parameters."""
        translated = self.translate(expression)[-1].transform(_typed_null, binds)
        relation = self._duck.sql(translated.sql(dialect="duckdb"))
        return Answer(list(relation.columns), [str(kind) for kind in relation.types], None)

    def begin(self) -> None:
        """Open a transaction."""
        self._duck.execute("BEGIN")

    def commit(self, *, keep: bool = True) -> None:
        """End a transaction, if one is open."""
        import duckdb

        if not keep:
            # An interrupted statement is rolled back.
            self.resume()
        try:
            self._duck.execute("COMMIT" if keep else "ROLLBACK")
        except duckdb.TransactionException as problem:
            if _NO_TRANSACTION not in str(problem):
                raise

    def close(self) -> None:
        """Close the connection; an open transaction is rolled back."""
        self._fake.close()

    def _answer(self, table: pa.Table | None = None, affected: int | None = None) -> Answer:
        relation = self._duck.relation
        if relation is None:
            return Answer([], [], table, affected)
        rows = self._duck.to_arrow_table() if table is None else table
        return Answer(list(relation.columns), [str(kind) for kind in relation.types], rows, affected)


def _typed_null(node: exp.Expr, binds: Mapping[str, object]) -> exp.Expr:
    """Replace a placeholder by a NULL of the bind's type, or by an empty text: DuckDB casts literals like binds."""
    if not isinstance(node, exp.Placeholder):
        return node
    if isinstance(binds[node.name], str):
        return exp.Literal.string("")
    kind = _BIND_TYPES.get(type(binds[node.name]))
    return exp.cast(exp.Null(), kind, dialect="duckdb") if kind else exp.Null()


class Databases:
    """The databases of the account: one DuckDB file each, all attached to one DuckDB process.

    :param root: the only directory that DuckDB may read and write.
    """

    def __init__(self, root: Path) -> None:
        from fakesnow import info_schema, macros
        from fakesnow.instance import FakeSnow
        from fakesnow.transforms import show

        # We raise errors for untranslatable SQL; sqlglot's warnings would repeat them on stderr.
        logging.getLogger("sqlglot").setLevel(logging.ERROR)
        self._directory = root / "databases"
        self._directory.mkdir(parents=True, exist_ok=True)
        self._fake: Any = FakeSnow(create_database_on_connect=False, create_schema_on_connect=False)
        self._main: Any = self._fake.duck_conn
        self._main.execute("SET python_enable_replacements = false")
        file = str(self._directory / "_bookkeeping.duckdb").replace("'", "''")
        self._main.execute(f"DETACH {BOOKKEEPING}; ATTACH '{file}' AS {BOOKKEEPING}")
        self._main.execute(info_schema.fs_global_creation_sql())
        information_schema.complete(self._main)
        self._main.execute(show.fs_global_creation_sql())
        self._main.execute(_OBJECTS)
        # For sessions without a current database.
        self._main.execute(macros.creation_sql("memory"))
        for database in sorted(self._directory.glob("*.db")):
            self._attach(database.stem)
        self._lock_down(root)

    def _lock_down(self, root: Path) -> None:
        """Keep SQL away from the machine: from files outside the root, extensions and other databases."""
        # DuckDB compares the path that a statement names, in which a wildcard's characters are escaped; see Reader.
        allowed = [path.replace("'", "''") for path in (str(root), glob.escape(str(root)))]
        self._main.execute(f"SET GLOBAL allowed_directories = ['{allowed[0]}', '{allowed[1]}']")
        self._main.execute("SET GLOBAL autoinstall_known_extensions = false")
        self._main.execute("SET GLOBAL enable_external_access = false")
        self._main.execute("SET GLOBAL lock_configuration = true")

    def link(self) -> Link:
        """Open a connection for a session."""
        return Link(self._fake)

    def create(self, name: str) -> None:
        """Create a database and attach it."""
        if not _DATABASE_NAME.fullmatch(name) or name in _INTERNAL or self._is_reserved(name):
            raise not_supported(f"a database with the name {name!r}: letters, digits and underscores only; it")
        self._attach(name)

    def _is_reserved(self, name: str) -> bool:
        """Return whether a name is a reserved word of DuckDB, because fakesnow doesn't quote it."""
        sql = "SELECT 1 FROM duckdb_keywords() WHERE keyword_name = ? AND keyword_category <> 'unreserved'"
        with self._main.cursor() as connection:
            return connection.execute(sql, [name.lower()]).fetchone() is not None

    def _attach(self, name: str) -> None:
        from fakesnow import info_schema, macros

        file = str(self._directory / f"{name}.db").replace("'", "''")
        with self._main.cursor() as connection:
            connection.execute(f"ATTACH '{file}' AS {name}")
            connection.execute(info_schema.per_db_creation_sql(name))
            information_schema.complete_database(connection, name)
            connection.execute(macros.creation_sql(name))

    def drop(self, name: str) -> None:
        """Detach a database and delete its file."""
        with self._main.cursor() as connection:
            connection.execute(f'DETACH "{name}"')
        for file in self._directory.glob(f"{name}.db*"):
            file.unlink(missing_ok=True)

    def close(self) -> None:
        """Write everything out and close."""
        self._main.close()
        self._main = self._fake = _Closed()
