"""Values of pandas, numpy and pyarrow as Parquet and npy, which any version of them reads without a pickle."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

# Python objects that Parquet restores in a column; others may come back as another type.
_OBJECTS = {"string", "bytes", "date", "time", "decimal", "boolean", "empty"}
# Numbers that are exact in JSON.
_NUMBERS, _MAX_NUMBER_BYTES = "biuf", 8
# The column in the file of a Series or an Index.
_COLUMN = "0"


class UnfitError(Exception):
    """Raised when a table or array can't be written without change; the text has the reason."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A written value: its tag, the suffix of its file if it has one, and its data outside the file."""

    kind: str
    suffix: str | None
    details: dict[str, Any] = field(default_factory=dict)


def write(value: Any, file: BinaryIO) -> Written | None:
    """Write a value of pandas, numpy or pyarrow to a file.

    The frequency of an index of dates is lost, because Parquet has none.

    :return: its description; ``None`` for a value of another type.
    """
    # A value of a package exists only if that is imported.
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
        raise UnfitError("an array of Python objects must be pickled")
    np.save(file, value, allow_pickle=False)
    return Written(kind="item" if is_scalar else "array", suffix="npy")


def _frame(frame: Any, file: BinaryIO, kind: str) -> Written:
    try:
        import pyarrow as pa
    except ImportError:
        raise UnfitError("Parquet needs pyarrow, which isn't installed on this worker") from None
    for name, content in _objects(frame):
        if content not in _OBJECTS:
            raise UnfitError(f"{name} holds Python objects ({content})")
    if not frame.columns.size and len(frame):
        raise UnfitError("Parquet drops the rows of a DataFrame without columns")
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
        # The compliant type renames the fields of lists.
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
    """Refuse types that come back as others; one row shows them all."""
    import pandas as pd
    import pyarrow.parquet as pq
    from pandas.testing import assert_frame_equal

    start, buffer = frame.iloc[:1], io.BytesIO()
    _parquet(table.slice(0, len(start)), buffer, "start")
    read = pq.read_table(buffer).to_pandas()
    if isinstance(frame.index, pd.RangeIndex):
        # One row of a range is another range.
        start, read = start.reset_index(drop=True), read.reset_index(drop=True)
    try:
        assert_frame_equal(start, read, check_freq=False)
    except AssertionError as error:
        raise UnfitError(f"Parquet would change it: {' '.join(str(error).split())}") from error


def _objects(frame: Any) -> Iterator[tuple[str, str]]:
    """Yield the names of the columns and index levels of Python objects, for messages, and their content."""
    from pandas.api.types import infer_dtype, is_object_dtype

    for position, name in enumerate(frame.columns):
        column = frame.iloc[:, position]
        if is_object_dtype(column):
            yield f"column {name!r}", infer_dtype(column, skipna=True)
    for level in range(frame.index.nlevels):
        values = frame.index.get_level_values(level)
        if is_object_dtype(values):
            yield "its index", infer_dtype(values, skipna=True)
