"""Arrow tables: from Python rows to the SQL engine's types, and from those to the clients' types.

pyarrow comes with the ``[local]`` extra, so it is imported in the functions.
"""

from __future__ import annotations

import json
from datetime import UTC
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.server.row_types import OFFSET_BIAS, offset_minutes, row_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pyarrow as pa

    from airflow_provider_mljobs.emulator.results import Column, Result

# Batches this long keep the converter's intermediate columns in the processor's cache.
_BATCH_ROWS = 65_536
_JSON_TYPES = frozenset({"variant", "object", "array"})
_UTC_NAMES = frozenset({"UTC", "Etc/UTC", "GMT", "+00:00"})
_TICKS_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def engine_table(result: Result) -> pa.Table:
    """Return the rows in the SQL engine's types, so that a statement can select from them."""
    import pyarrow as pa

    if result.arrow is not None:
        return result.arrow
    fields = [_engine_field(column) for column in result.columns]
    columns = [
        pa.array([_engine_cell(cell, column) for cell in cells], field.type)
        for cells, column, field in zip(_cells(result), result.columns, fields, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _cells(result: Result) -> Iterator[list[Any]]:
    """Turn rows into columns, also where there are no rows."""
    for index in range(len(result.columns)):
        yield [row[index] for row in result.rows]


def _engine_field(column: Column) -> pa.Field:
    import pyarrow as pa

    if column.type in _JSON_TYPES:
        # DuckDB's type for VARIANT; without it the value would be a plain string.
        extension = {"ARROW:extension:name": "arrow.json", "ARROW:extension:metadata": ""}
        return pa.field(column.name, pa.string(), metadata=extension)
    scale = column.scale or 0
    types: Mapping[str, pa.DataType] = {
        "fixed": pa.decimal128(38, scale) if scale or (column.precision or 0) > 18 else pa.int64(),  # noqa: PLR2004
        "real": pa.float64(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "time": pa.time64("us"),
        "timestamp_ntz": pa.timestamp("us"),
        "timestamp_ltz": pa.timestamp("us", "UTC"),
        "timestamp_tz": pa.timestamp("us", "UTC"),
        "binary": pa.binary(),
    }
    return pa.field(column.name, types.get(column.type, pa.string()))


def _engine_cell(cell: Any, column: Column) -> Any:
    if cell is None:
        return None
    if column.type in _JSON_TYPES and not isinstance(cell, str):
        return json.dumps(cell, default=str, ensure_ascii=False)
    if column.type in {"timestamp_ltz", "timestamp_tz"}:
        return cell.replace(tzinfo=UTC) if cell.tzinfo is None else cell
    return str(cell) if column.type == "text" and not isinstance(cell, str) else cell


def to_stream(result: Result) -> memoryview:
    """Write the rows of a result as the Arrow stream that the connector reads."""
    import pyarrow as pa

    table = engine_table(result)
    offsets = _known_offsets(result)
    sink = pa.BufferOutputStream()
    writer = None
    done = 0
    for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
        arrays = [
            _client_array(array, column, offsets.get(index, [])[done : done + len(array)])
            for index, (array, column) in enumerate(zip(batch.columns, result.columns, strict=True))
        ]
        done += len(batch)
        schema = pa.schema([_client_field(*pair) for pair in zip(result.columns, arrays, strict=True)])
        writer = writer or pa.ipc.new_stream(sink, schema)
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    if writer is not None:
        writer.close()
    return memoryview(sink.getvalue())


def _known_offsets(result: Result) -> dict[int, list[int]]:
    """Return the UTC offsets of the TIMESTAMP_TZ columns, as clients count them; Arrow tables have none."""
    if result.arrow is not None:
        return {}
    return {
        index: [OFFSET_BIAS + (0 if row[index] is None else offset_minutes(row[index])) for row in result.rows]
        for index, column in enumerate(result.columns)
        if column.type == "timestamp_tz"
    }


def _client_field(column: Column, array: pa.Array) -> pa.Field:
    import pyarrow as pa

    (described,) = row_type([column])
    metadata = {
        "logicalType": column.type.upper(),
        "precision": str(described["precision"] or 38),
        "scale": str(described["scale"] or 0),
        "charLength": str(described["length"] or 0),
        # By this length clients see that a TIMESTAMP_TZ has a fraction.
        "byteLength": "16" if column.type == "timestamp_tz" else str(described["byteLength"] or 0),
    }
    return pa.field(column.name, array.type, metadata=metadata)


def _client_array(array: pa.Array, column: Column, offsets: list[int]) -> pa.Array:
    if column.type == "timestamp_tz":
        return _zoned(array, offsets)
    convert = _CLIENT_ARRAYS.get(column.type, _text)
    return convert(array)


def _fixed(array: pa.Array) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_decimal256(array.type):
        return array.cast(pa.decimal128(38, array.type.scale))
    if pa.types.is_uint64(array.type):
        return array.cast(pa.decimal128(38, 0))
    if pa.types.is_integer(array.type):
        return array.cast(pa.int64())
    return array if pa.types.is_decimal128(array.type) else array.cast(pa.decimal128(38, 0))


def _text(array: pa.Array) -> pa.Array:
    import pyarrow as pa

    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_nested(array.type):
        cells = (None if cell is None else json.dumps(cell, default=str) for cell in array.to_pylist())
        return pa.array(cells, pa.string())
    return array if pa.types.is_string(array.type) else array.cast(pa.string())


def _cast(name: str) -> Callable[[pa.Array], pa.Array]:
    def convert(array: pa.Array) -> pa.Array:
        import pyarrow as pa

        kind = getattr(pa, name)()
        return array if array.type == kind else array.cast(kind)

    return convert


def _time(array: pa.Array) -> pa.Array:
    import pyarrow as pa

    return array.cast(pa.time64("ns")).cast(pa.int64())


def _timestamp(array: pa.Array) -> pa.Array:
    import pyarrow as pa

    return _structs(array, {"epoch": pa.int64(), "fraction": pa.int32()})


def _zoned(array: pa.Array, offsets: list[int]) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if offsets:
        zones = pa.array(offsets, pa.int32())
    elif getattr(array.type, "tz", None) in (None, *_UTC_NAMES):
        zones = pa.repeat(pa.scalar(OFFSET_BIAS, pa.int32()), len(array))
    else:
        instants = array.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
        local = pc.local_timestamp(array).cast(pa.timestamp("us")).cast(pa.int64())
        minutes = pc.divide(pc.subtract(local, instants), 60_000_000)
        zones = pc.fill_null(pc.add(minutes, OFFSET_BIAS), OFFSET_BIAS).cast(pa.int32())
    return _structs(array, {"epoch": pa.int64(), "fraction": pa.int32(), "timezone": pa.int32()}, zones)


def _structs(array: pa.Array, types: Mapping[str, pa.DataType], *more: pa.Array) -> pa.Array:
    """Build the structs that represent timestamps; NULL stays NULL."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_timestamp(array.type):
        array = array.cast(pa.timestamp("us"))
    ticks = pc.fill_null(array.cast(pa.int64()), 0)
    per_second = _TICKS_PER_SECOND[array.type.unit]
    epoch = pc.divide(ticks, per_second)
    rest = pc.subtract(ticks, pc.multiply(epoch, per_second))
    # Integer division truncates; before 1970 the fraction would be negative.
    early = pc.less(rest, 0)
    epoch = pc.subtract(epoch, early.cast(pa.int64()))
    rest = pc.add(rest, pc.multiply(early.cast(pa.int64()), per_second))
    fraction = pc.multiply(rest, 1_000_000_000 // per_second).cast(pa.int32())
    fields = [pa.field(name, kind) for name, kind in types.items()]
    mask = array.is_null() if array.null_count else None
    return pa.StructArray.from_arrays([epoch, fraction, *more], fields=fields, mask=mask)


_CLIENT_ARRAYS: Mapping[str, Callable[[pa.Array], pa.Array]] = {
    "fixed": _fixed,
    "real": _cast("float64"),
    "boolean": _cast("bool_"),
    "date": _cast("date32"),
    "binary": _cast("binary"),
    "time": _time,
    "timestamp_ntz": _timestamp,
    "timestamp_ltz": _timestamp,
}
