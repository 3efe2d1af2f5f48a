"""Values of pandas, numpy and pyarrow as files without pickle: Parquet and npy, which any version of them reads."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

# What Parquet gives back of columns of Python objects; of anything else in them it may make something similar.
_OBJECTS = {"string", "bytes", "date", "time", "decimal", "boolean", "empty"}
# Numbers that are as exact in JSON.
_NUMBERS, _MAX_NUMBER_BYTES = "biuf", 8
# The column of a file for what has no column of its own.
_COLUMN = "0"


class UnfitError(Exception):
    """Raised when a table or array can't be written without change; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What reads a value again.

    :param kind: what it is.
    :param suffix: that of its file; ``None`` if nothing was written to it.
    :param details: what the file doesn't hold.
    """

    kind: str
    suffix: str | None
    details: dict[str, Any] = field(default_factory=dict)


def write(value: Any, file: BinaryIO) -> Written | None:
    """Write a value of pandas, numpy or pyarrow to a file.

    The frequency of an index of dates isn't kept: Parquet doesn't know it.

    :return: what reads it again; ``None`` if the value is none of these.
    :raises UnfitError: if its file would hold something else.
    """
    # Whoever has such a value has imported its package.
    numpy, pyarrow = sys.modules.get("numpy"), sys.modules.get("pyarrow")
    if numpy is not None and (type(value) is numpy.ndarray or isinstance(value, numpy.generic)):
        return _array(value, file)
    if pyarrow is not None and type(value) is pyarrow.Table:
        written = _parquet(value, file, "table")
        _refuse_other_types(value, file)
        return written
    return _pandas(value, file) if "pandas" in sys.modules else None


def _pandas(value: Any, file: BinaryIO) -> Written | None:
    import pandas as pd

    if type(value) is pd.DataFrame:
        return _frame(value, file, "frame")
    if type(value) is pd.Series:
        return replace(_frame(value.to_frame(_COLUMN), file, "series"), details={"name": value.name})
    if isinstance(value, pd.Index):
        return _frame(pd.DataFrame({_COLUMN: [True] * len(value)}, index=value), file, "index")
    return None


def _array(value: Any, file: BinaryIO) -> Written:
    import numpy as np

    is_scalar = isinstance(value, np.generic)
    if is_scalar and value.dtype.kind in _NUMBERS and value.dtype.itemsize <= _MAX_NUMBER_BYTES:
        return Written(kind="number", suffix=None, details={"dtype": value.dtype.str, "value": value.item()})
    if value.dtype.hasobject:
        raise UnfitError("an array of Python objects can only be pickled")
    np.save(file, value, allow_pickle=False)
    return Written(kind="item" if is_scalar else "array", suffix="npy")


def _frame(frame: Any, file: BinaryIO, kind: str) -> Written:
    try:
        import pyarrow as pa
    except ImportError:
        raise UnfitError("Parquet needs pyarrow, which isn't installed here") from None
    for name, column in _objects(frame):
        held = _held(column)
        if held not in _OBJECTS:
            raise UnfitError(f"{name} holds Python objects ({held})")
    if not frame.columns.size and len(frame):
        raise UnfitError("a DataFrame without columns has no rows in Parquet")
    try:
        table = pa.Table.from_pandas(frame)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise UnfitError(f"Parquet can't hold it: {error}") from error
    _refuse_changes(frame, table)
    return _parquet(table, file, kind)


def _parquet(table: Any, file: BinaryIO, kind: str) -> Written:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Other names within lists are Parquet's own.
        pq.write_table(table, file, use_compliant_nested_type=False)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise UnfitError(f"Parquet can't hold it: {error}") from error
    return Written(kind=kind, suffix="parquet")


def _refuse_other_types(table: Any, file: BinaryIO) -> None:
    import pyarrow.parquet as pq

    file.seek(0)
    for column, read in zip(table.schema, pq.read_schema(file), strict=True):
        if not column.equals(read):
            raise UnfitError(f"Parquet would make {read.type} of the {column.type} in column {column.name!r}")


def _refuse_changes(frame: Any, table: Any) -> None:
    """Refuse types that come back as others; one row tells them."""
    import pandas as pd
    import pyarrow.parquet as pq
    from pandas.testing import assert_frame_equal

    start, buffer = frame.iloc[:1], io.BytesIO()
    _parquet(table.slice(0, len(start)), buffer, "start")
    read = pq.read_table(buffer).to_pandas()
    if isinstance(frame.index, pd.RangeIndex):
        # Of which one row is another range.
        start, read = start.reset_index(drop=True), read.reset_index(drop=True)
    try:
        assert_frame_equal(start, read, check_freq=False)
    except AssertionError as error:
        raise UnfitError(f"Parquet would change it: {' '.join(str(error).split())}") from error


def _objects(frame: Any) -> Iterator[tuple[str, Any]]:
    """Yield the columns and the levels of the index that hold Python objects, with what to call them."""
    from pandas.api.types import is_object_dtype

    for position, name in enumerate(frame.columns):
        column = frame.iloc[:, position]
        if is_object_dtype(column):
            yield f"column {name!r}", column
    for level in range(frame.index.nlevels):
        values = frame.index.get_level_values(level)
        if is_object_dtype(values):
            yield "its index", values


def _held(column: Any) -> str:
    from pandas.api.types import infer_dtype

    return str(infer_dtype(column, skipna=True))
