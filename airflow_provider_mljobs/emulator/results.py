"""Results of statements: typed columns and rows of Python values. The server encodes them for the wire."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

Type = Literal[
    "fixed", "real", "text", "boolean", "date", "time", "timestamp_ntz", "timestamp_ltz", "timestamp_tz",
    "variant", "object", "array", "binary",
]  # fmt: skip
StatementKind = Literal["select", "insert", "update", "delete", "merge", "multi_insert", "copy", "ddl", "show", "other"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a result, as the client sees it.

    :param name: its name; SHOW and DESCRIBE have lower-case names.
    :param type: Snowflake's wire type.
    """

    name: str
    type: Type = "text"
    nullable: bool = True
    precision: int | None = None
    scale: int | None = None
    length: int | None = None


@dataclass(frozen=True)
class Result:
    """The answer of one statement.

    :param columns: the columns in order.
    :param rows: tuples of Python values (``str``, ``int``, ``float``, ``bool``, ``Decimal``, ``date``, ``time``,
        timezone-aware or naive ``datetime``, ``bytes``, ``None``). Empty when ``arrow`` is given.
    :param arrow: the rows of a SELECT as a table in DuckDB's types, when the SQL engine made them.
    :param statement: the kind of statement; decides ``statementTypeId`` and whether rows travel as JSON or Arrow.
    :param extra: further keys of the answer's ``data``, e.g. a PUT's instructions for the client.
    """

    columns: Sequence[Column]
    rows: Sequence[tuple[Any, ...]] = ()
    arrow: pa.Table | None = None
    statement: StatementKind = "other"
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def status(cls, text: str, statement: StatementKind = "ddl") -> Result:
        """Build the one-row answer of a statement that returns a status."""
        return cls((Column("status"),), [(text,)], statement=statement)
