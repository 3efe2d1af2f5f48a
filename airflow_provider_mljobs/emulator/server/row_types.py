"""The description of a result's columns, as clients read it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from airflow_provider_mljobs.emulator.results import Column

# Clients add this to the offset in minutes so that it is never negative.
OFFSET_BIAS = 1440
_LONGEST_TEXT = 16_777_216
_LONGEST_BINARY = 8_388_608
_SCALE_OF_TIME = 9

_SIZES: Mapping[str, tuple[int | None, int | None, int | None]] = {
    # type: precision, scale, length
    "fixed": (38, 0, None),
    "text": (None, None, _LONGEST_TEXT),
    "binary": (None, None, _LONGEST_BINARY),
    "time": (0, _SCALE_OF_TIME, None),
    "timestamp_ntz": (0, _SCALE_OF_TIME, None),
    "timestamp_ltz": (0, _SCALE_OF_TIME, None),
    "timestamp_tz": (0, _SCALE_OF_TIME, None),
}


def row_type(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Describe columns with all the keys that clients read."""
    return [_column_type(column) for column in columns]


def _column_type(column: Column) -> dict[str, Any]:
    precision, scale, length = _SIZES.get(column.type, (None, None, None))
    if column.type == "fixed":
        # Times always have nine digits here, because the rows are written with nine.
        precision = precision if column.precision is None else column.precision
        scale = scale if column.scale is None else column.scale
    length = length if column.length is None else column.length
    return {
        "name": column.name,
        "database": "",
        "schema": "",
        "table": "",
        "nullable": column.nullable,
        "type": column.type,
        "byteLength": length,
        "length": length,
        "precision": precision,
        "scale": scale,
        "collation": None,
    }


def offset_minutes(value: datetime) -> int:
    """Return the UTC offset of a timestamp in minutes; a naive one is taken as UTC."""
    return (value.utcoffset() or timedelta()) // timedelta(minutes=1)
