"""The wire form of rows and binds, as the clients' converters read and write it.

SELECT travels as Arrow, everything else as JSON text, as from a real account.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.errors import SnowflakeError
from airflow_provider_mljobs.emulator.server.arrow import to_stream
from airflow_provider_mljobs.emulator.server.row_types import OFFSET_BIAS, offset_minutes, row_type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_mljobs.emulator.results import Result, StatementKind

STATEMENT_TYPES: Mapping[StatementKind, int] = {
    "select": 0x1000,
    "insert": 0x3100,
    "update": 0x3200,
    "delete": 0x3300,
    "merge": 0x3400,
    "multi_insert": 0x3500,
    "copy": 0x3600,
    "show": 0x4400,
    "other": 0x4000,
    "ddl": 0x6000,
}
MULTI_STATEMENT = 0xA000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # the epoch of TIMESTAMP_NTZ
_EPOCH_DATE = date(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_DAY = timedelta(days=1)
# Snowflake splits by bytes, and splits SELECTs as well.
PART_ROWS = 10_000


def rows_of(result: Result) -> Sequence[tuple[Any, ...]]:
    """Return the rows as Python values, from Arrow or not."""
    if result.arrow is None:
        return result.rows
    return list(zip(*(column.to_pylist() for column in result.arrow.columns), strict=True))


def row_count(result: Result) -> int:
    """Return how many rows the result has."""
    return len(result.rows) if result.arrow is None else int(result.arrow.num_rows)


def encode(result: Result) -> dict[str, Any]:
    """Write the rows: the keys of an answer's ``data`` that depend on the format."""
    total = row_count(result)
    data: dict[str, Any] = {
        "rowtype": row_type(result.columns),
        "total": total,
        "returned": total,
        "statementTypeId": STATEMENT_TYPES[result.statement],
    }
    if result.statement == "select":
        data["queryResultFormat"] = "arrow"
        data["rowsetBase64"] = _arrow_rows(result) if total else ""
    else:
        data["queryResultFormat"] = "json"
        writers = [_CELLS.get(column.type, _json_text) for column in result.columns]
        # By columns, because that is faster for long results.
        texts = [
            [None if cell is None else write(cell) for cell in column]
            for write, column in zip(writers, zip(*rows_of(result), strict=True), strict=bool(total))
        ]
        data["rowset"] = list(map(list, zip(*texts, strict=True)))
    return data


def parts(result: Result) -> list[Result]:
    """Return the parts in which a client fetches a long answer that travels as JSON; most answers have one.

    The first part comes with the answer; clients fetch the others, which have their own addresses, only when they read
    that far.
    """
    total = row_count(result)
    if result.statement == "select" or result.extra or total <= PART_ROWS:
        return [result]
    rows = rows_of(result)
    return [replace(result, rows=rows[start : start + PART_ROWS], arrow=None) for start in range(0, total, PART_ROWS)]


def encode_part(result: Result) -> bytes:
    """Write a part that isn't the first: its rows, without the brackets around them."""
    return json.dumps(encode(result)["rowset"], separators=(",", ":"))[1:-1].encode()


def _arrow_rows(result: Result) -> str:
    return base64.b64encode(to_stream(result)).decode("ascii")


def _json_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _fixed(value: object) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _boolean(value: object) -> str:
    return "1" if value else "0"


def _date(value: date) -> str:
    return str((value - _EPOCH_DATE).days)


def _seconds(microseconds: int) -> str:
    sign = "-" if microseconds < 0 else ""
    seconds, fraction = divmod(abs(microseconds), 1_000_000)
    return f"{sign}{seconds}.{fraction:06d}000"


def _time(value: time) -> str:
    return _seconds(((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond)


def _timestamp(value: datetime) -> str:
    epoch = _NAIVE_EPOCH if value.tzinfo is None else _EPOCH
    return _seconds((value - epoch) // _MICROSECOND)


def _timestamp_tz(value: datetime) -> str:
    return f"{_timestamp(value)} {offset_minutes(value) + OFFSET_BIAS}"


_CELLS: Mapping[str, Callable[[Any], str]] = {
    "fixed": _fixed,
    "real": repr,
    "text": str,
    "boolean": _boolean,
    "date": _date,
    "time": _time,
    "timestamp_ntz": _timestamp,
    "timestamp_ltz": _timestamp,
    "timestamp_tz": _timestamp_tz,
    "binary": lambda value: value.hex().upper(),
}


def decode_binds(bindings: Mapping[str, Mapping[str, Any]] | None) -> list[Any]:
    """Read a request's binds, in order; an array bind becomes a list with one value per row.

    :param bindings: ``{"1": {"type": "FIXED", "value": "7"}, …}``.
    """
    if not bindings:
        return []
    if not all(key.isdigit() for key in bindings):
        raise SnowflakeError(2, "0A000", "Unsupported feature: named binds.")
    return [_bind(bindings[key]) for key in sorted(bindings, key=int)]


def _bind(binding: Mapping[str, Any]) -> Any:
    kind = str(binding.get("type") or "TEXT").upper()
    value = binding.get("value")
    read = _BINDS.get(kind, str)
    try:
        if isinstance(value, list):
            return [None if cell is None else read(cell) for cell in value]
        return None if value is None else read(value)
    except (ValueError, ArithmeticError):
        raise SnowflakeError(100037, "22018", f"Invalid bind value '{value}' for type {kind}.") from None


def _read_fixed(text: str) -> int | Decimal:
    return int(text) if text.lstrip("+-").isdigit() else Decimal(text)


def _from_nanoseconds(text: str) -> timedelta:
    return timedelta(microseconds=int(text) // 1000)


def _read_date(text: str) -> date:
    return _EPOCH_DATE + timedelta(milliseconds=int(text)) // _DAY * _DAY


def _read_timestamp_tz(text: str) -> datetime:
    instant, _, offset = text.partition(" ")
    moment = _EPOCH + _from_nanoseconds(instant)
    return moment.astimezone(timezone(timedelta(minutes=int(offset) - OFFSET_BIAS))) if offset else moment


_BINDS: Mapping[str, Callable[[str], Any]] = {
    "FIXED": _read_fixed,
    "REAL": float,
    "BOOLEAN": lambda text: text.lower() in {"true", "1"},
    "DATE": _read_date,
    "TIME": lambda text: (_NAIVE_EPOCH + _from_nanoseconds(text)).time(),
    "TIMESTAMP_NTZ": lambda text: _NAIVE_EPOCH + _from_nanoseconds(text),
    "TIMESTAMP_LTZ": lambda text: _EPOCH + _from_nanoseconds(text),
    "TIMESTAMP_TZ": _read_timestamp_tz,
    "BINARY": bytes.fromhex,
}
