"""DuckDB's types as Snowflake's, in results and in SHOW and DESCRIBE."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.results import Column

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from airflow_provider_mljobs.emulator.results import Type

TEXT_LENGTH = 16777216
BINARY_LENGTH = 8388608
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
_WHOLE = {
    "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT",
}  # fmt: skip
_TYPES: dict[str, Type] = {
    "BOOLEAN": "boolean",
    "DATE": "date",
    "TIME": "time",
    "TIMESTAMP": "timestamp_ntz",
    "TIMESTAMP_NS": "timestamp_ntz",
    "TIMESTAMP_MS": "timestamp_ntz",
    "TIMESTAMP_S": "timestamp_ntz",
    # DuckDB stores the instant without an offset, like Snowflake's LTZ.
    "TIMESTAMP WITH TIME ZONE": "timestamp_ltz",
    "TIMESTAMPTZ_NS": "timestamp_ltz",
    "DOUBLE": "real",
    "FLOAT": "real",
    "JSON": "variant",
    "BLOB": "binary",
}
_DECLARED = {
    "BOOLEAN": "BOOLEAN",
    "DATE": "DATE",
    "TIME": "TIME(9)",
    "TIMESTAMP": "TIMESTAMP_NTZ(9)",
    "TIMESTAMP_NS": "TIMESTAMP_NTZ(9)",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP_LTZ(9)",
    "TIMESTAMPTZ_NS": "TIMESTAMP_LTZ(9)",
    "DOUBLE": "FLOAT",
    "FLOAT": "FLOAT",
    "JSON": "VARIANT",
    "BLOB": f"BINARY({BINARY_LENGTH})",
}


def column(name: str, kind: str) -> Column:
    """Build the column of a result from DuckDB's type."""
    decimal = _DECIMAL.fullmatch(kind)
    if decimal or kind in _WHOLE:
        precision, scale = (int(decimal[1]), int(decimal[2])) if decimal else (38, 0)
        return Column(name, "fixed", precision=precision, scale=scale)
    if kind == "TIME" or kind.startswith("TIMESTAMP"):
        return Column(name, _TYPES[kind], precision=0, scale=9)
    nested: Type = "array" if kind.endswith("]") else "object" if kind.startswith(("STRUCT", "MAP")) else "text"
    wire_type = _TYPES.get(kind, nested)
    return Column(name, wire_type, length={"binary": BINARY_LENGTH, "text": TEXT_LENGTH}.get(wire_type))


def declared(kind: str, length: int | None = None) -> str:
    """Write a column's type as SHOW and DESCRIBE do."""
    decimal = _DECIMAL.fullmatch(kind)
    if decimal:
        return f"NUMBER({decimal[1]},{decimal[2]})"
    if kind in _WHOLE:
        return "NUMBER(38,0)"
    return _DECLARED.get(kind, f"VARCHAR({length or TEXT_LENGTH})")


def data_type(kind: str, length: int | None, *, nullable: bool) -> str:
    """Write a column's type as SHOW COLUMNS does: as JSON."""
    described_column = column("", kind)
    described: dict[str, object] = {"type": described_column.type.upper()}
    if described_column.type == "text":
        size = length or TEXT_LENGTH
        described |= {"length": size, "byteLength": min(size * 4, TEXT_LENGTH)}
    elif described_column.precision is not None:
        described |= {"precision": described_column.precision, "scale": described_column.scale}
    elif described_column.type == "binary":
        described |= {"length": BINARY_LENGTH, "byteLength": BINARY_LENGTH}
    described["nullable"] = nullable
    if described_column.type in {"text", "binary"}:
        described["fixed"] = False
    return json.dumps(described, separators=(",", ":"))


def plain(table: pa.Table, columns: Sequence[Column]) -> pa.Table:
    """Return an Arrow table whose nested and exotic columns are text: JSON as Snowflake sends it."""
    import pyarrow as pa

    for index, column in enumerate(columns):
        field = table.field(index)
        if _is_plain(field.type, column.type):
            continue
        values = table.column(index)
        if isinstance(field.type, pa.BaseExtensionType) and pa.types.is_string(field.type.storage_type):
            values = values.cast(field.type.storage_type)
        else:
            values = pa.array([_text(value, column.type) for value in values.to_pylist()], pa.string())
        table = table.set_column(index, field.name, values)
    return table


def _is_plain(arrow: pa.DataType, kind: Type) -> bool:
    from pyarrow import types

    if kind in {"text", "variant", "array", "object"}:
        return bool(types.is_string(arrow) or types.is_large_string(arrow) or types.is_null(arrow))
    return True


def _text(value: Any, kind: Type) -> str | None:
    if value is None:
        return None
    if kind in {"array", "object"}:
        return json.dumps(dict(value) if isinstance(value, list) and kind == "object" else value, default=_json)
    return str(value)


def _json(value: object) -> object:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value.total_seconds() if isinstance(value, timedelta) else str(value)


def cell(value: Any, column: Column) -> Any:
    """Return a value for a row of a DML or SHOW result."""
    return int(value) if isinstance(value, Decimal) and column.scale == 0 else value
