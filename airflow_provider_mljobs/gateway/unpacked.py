"""The size of a value in memory, measured before it is loaded: a few compressed kilobytes can fill any memory."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
_MAX_ROWS = 65_536
_OFFSET_BYTES = 4


def unpacked_bytes(protocol: str, files: Sequence[Path], limit: int) -> int:
    """Return the bytes that a value needs in memory, or any number above the limit if it needs more.

    Files may claim less than they hold. So only a claim above the limit is trusted; otherwise Parquet is read once in
    small parts, with repeated texts left in their dictionary.
    """
    total = 0
    for file in files:
        if protocol in {"pandas", "pyarrow"}:
            total += _of_parquet(file, limit - total)
        elif protocol == "numpy" and zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                # numpy reads no more of a member than the archive's directory claims.
                total += sum(member.file_size for member in archive.infolist())
        else:
            total += file.stat().st_size
        if total > limit:
            break
    return total


def _of_parquet(file: Path, limit: int) -> int:
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(file)
    schema = metadata.schema
    columns = [schema.column(index) for index in range(metadata.num_columns)]
    widths = [_WIDTHS.get(column.physical_type, max(0, column.length or 0)) for column in columns]
    total = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for index, width in enumerate(widths):
            chunk = group.column(index)
            # Texts have no fixed width.
            total += chunk.num_values * width or chunk.total_uncompressed_size
    if total > limit:
        return total
    texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    rows = max(1, min(_MAX_ROWS, limit // max(1, sum(widths))))
    total = 0
    with pq.ParquetFile(file, read_dictionary=texts) as parquet, pq.ParquetFile(file) as plain:
        types = plain.schema_arrow.types
        for batch in parquet.iter_batches(batch_size=rows):
            total += sum(_bytes(column, kind) for column, kind in zip(batch.columns, types, strict=True))
            if total > limit:
                break
    return total


def _bytes(array: Any, kind: Any) -> int:
    """Return the bytes of an array when it is read as a type, with each repeated text written out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if array.type == kind or pa.types.is_dictionary(kind):
        return int(array.nbytes)
    if pa.types.is_dictionary(array.type):
        lengths = pc.take(pc.binary_length(array.dictionary), array.indices)
        return len(array) * _OFFSET_BYTES + int(pc.sum(lengths).as_py() or 0)
    offsets = len(array) * _OFFSET_BYTES
    if pa.types.is_struct(kind):
        parts = zip(array.flatten(), (field.type for field in kind), strict=True)
    elif pa.types.is_map(kind):
        parts = zip((array.keys, array.items), (kind.key_type, kind.item_type), strict=True)
    else:
        parts = zip((array.flatten(),), (kind.value_type,), strict=True)
    return offsets + sum(_bytes(part, part_kind) for part, part_kind in parts)
