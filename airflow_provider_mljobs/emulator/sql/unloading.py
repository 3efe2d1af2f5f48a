"""COPY INTO a stage: the rows of a table or a query as one CSV or Parquet file."""

# ruff: noqa: S608 statements of our own for DuckDB; names are quoted and values are bound
from __future__ import annotations

import gzip
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.errors import SnowflakeError, not_supported
from airflow_provider_mljobs.emulator.options import Options, flag, parse_options, texts
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.stages.files import inside

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from airflow_provider_mljobs.emulator.parsing import Parser
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.sql.engine import Engine
    from airflow_provider_mljobs.emulator.sql.file_formats import FileFormats
    from airflow_provider_mljobs.emulator.stages.files import Location
    from airflow_provider_mljobs.emulator.stages.store import Stages

_COLUMNS = tuple(
    Column(name, "fixed", precision=38, scale=0) for name in ("rows_unloaded", "input_bytes", "output_bytes")
)
_KNOWN = {"FILE_FORMAT", "HEADER", "SINGLE", "OVERWRITE", "MAX_FILE_SIZE", "INCLUDE_QUERY_ID", "DETAILED_OUTPUT"}
_CSV = {
    "TYPE", "COMPRESSION", "FIELD_DELIMITER", "RECORD_DELIMITER", "FIELD_OPTIONALLY_ENCLOSED_BY", "NULL_IF",
    "FILE_EXTENSION", "EMPTY_FIELD_AS_NULL", "ESCAPE_UNENCLOSED_FIELD",
}  # fmt: skip
_ESCAPES = {"\\t": "\t", "\\n": "\n"}


class Unloading:
    """COPY INTO a stage.

    :param engine: runs the query whose rows are written.
    :param stages: the stages of the account.
    :param formats: its file formats.
    """

    def __init__(self, engine: Engine, stages: Stages, formats: FileFormats) -> None:
        self._engine = engine
        self._stages = stages
        self._formats = formats

    def run(self, context: Context, parser: Parser) -> Result:
        """Run ``COPY INTO @stage FROM …``."""
        location = self._stages.locate(context, parser.stage(), "WRITE")
        parser.expect("FROM")
        query = _query(parser)
        options = parse_options(parser, _KNOWN, "COPY")
        parser.expect_end()
        if flag(options, "INCLUDE_QUERY_ID", default=False):
            raise not_supported("COPY INTO @stage … INCLUDE_QUERY_ID")
        value = options.get("FILE_FORMAT", dict(location.stage.file_format or {}))
        form = self._formats.resolve(context, value if isinstance(value, dict) else {"FORMAT_NAME": value})
        table = self._engine.execute(context, query, parser.binds).arrow
        if table is None:
            raise parser.error()
        return _write(location, options, form, table)


def _query(parser: Parser) -> str:
    """Return the query of ``FROM table`` or ``FROM ( query )``."""
    if not parser.looking_at("("):
        return f"SELECT * FROM {parser.qualified_name()}"
    start, depth = parser.current.start, 0
    while True:
        token = parser.next()
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0:
            return parser.text[start + 1 : token.start]


def _write(location: Location, options: Options, form: Options, table: pa.Table) -> Result:
    kind = str(form.get("TYPE", "CSV")).upper()
    if kind not in {"CSV", "PARQUET"}:
        raise not_supported(f"COPY INTO @stage as {kind}")
    target = inside(location.directory, _name(location.path, options, form, kind))
    if location.files() and not flag(options, "OVERWRITE", default=False) and target.exists():
        # The number is from memory.
        raise SnowflakeError(
            1030, "22000", "Files already existing at the unload destination: use overwrite option to force unloading."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    location.arrivals.uploaded([target])
    if kind == "PARQUET":
        _parquet(target, form, table)
    else:
        _csv(target, options, form, table)
    return Result(_COLUMNS, [(table.num_rows, table.nbytes, target.stat().st_size)], statement="copy")


def _name(path: str, options: Options, form: Options, kind: str) -> str:
    if flag(options, "SINGLE", default=False):
        return path if path and not path.endswith("/") else f"{path}data"
    extension = str(form.get("FILE_EXTENSION", kind.lower()))
    suffix = f"{extension}.gz" if kind == "CSV" and _gzipped(form) else extension
    if kind == "PARQUET" and _codec(form) == "snappy":
        suffix = f"snappy.{extension}"
    stem = f"{path}data" if not path or path.endswith("/") else path
    return f"{stem}_0_0_0.{suffix}"


def _gzipped(form: Options) -> bool:
    compression = str(form.get("COMPRESSION", "AUTO")).upper()
    if compression not in {"AUTO", "GZIP", "NONE"}:
        raise not_supported(f"COPY INTO @stage with the compression {compression}")
    return compression != "NONE"


def _codec(form: Options) -> str:
    compression = str(form.get("COMPRESSION", "AUTO")).upper()
    if compression not in {"AUTO", "SNAPPY", "NONE"}:
        raise not_supported(f"COPY INTO @stage with the compression {compression}")
    return "none" if compression == "NONE" else "snappy"


def _parquet(target: Path, form: Options, table: pa.Table) -> None:
    from pyarrow import parquet

    parquet.write_table(table, target, compression=_codec(form))


def _csv(target: Path, options: Options, form: Options, table: pa.Table) -> None:
    unknown = form.keys() - _CSV
    if unknown:
        raise not_supported(f"COPY INTO @stage with the file format option {min(unknown)}")
    delimiter = str(form.get("FIELD_DELIMITER", ","))
    delimiter = _ESCAPES.get(delimiter, delimiter)
    enclosed = str(form.get("FIELD_OPTIONALLY_ENCLOSED_BY", "NONE"))
    quote = "" if enclosed.upper() == "NONE" else enclosed
    nulls = texts(form.get("NULL_IF")) or ["\\N"]
    lines = (
        [[_field(name, delimiter, quote, "") for name in table.column_names]]
        if flag(options, "HEADER", default=False)
        else []
    )
    columns = [column.to_pylist() for column in table.columns]
    lines += [[_field(value, delimiter, quote, nulls[0]) for value in row] for row in zip(*columns, strict=True)]
    text = "".join(delimiter.join(line) + "\n" for line in lines).encode()
    target.write_bytes(gzip.compress(text) if _gzipped(form) else text)


def _field(value: Any, delimiter: str, quote: str, null: str) -> str:
    """Write a value; without an enclosing character, a delimiter in it is escaped as Snowflake does."""
    if value is None:
        return null
    if isinstance(value, (bool, int, float)):
        return str(value).lower()
    text = value.hex().upper() if isinstance(value, bytes) else _moment(value)
    if quote:
        return quote + text.replace(quote, quote * 2) + quote
    return text.replace("\\", "\\\\").replace(delimiter, f"\\{delimiter}").replace("\n", "\\\n")


def _moment(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="milliseconds")
    return value.isoformat() if isinstance(value, date) else str(value)
