"""Staged files as DuckDB reads them: CSV, JSON and Parquet under Snowflake's options."""

# ruff: noqa: S608 statements of our own for DuckDB; names are quoted and values are bound
from __future__ import annotations

import glob
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.errors import SnowflakeError, not_supported
from airflow_provider_mljobs.emulator.options import Options, flag, texts
from airflow_provider_mljobs.emulator.sql.catalog import quoted
from airflow_provider_mljobs.emulator.sql.error_translation import translate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from airflow_provider_mljobs.emulator.sql.bridge import Link

# Options that match DuckDB's behaviour; with another value they are refused.
_EXPECTED: dict[str, set[str]] = {
    "RECORD_DELIMITER": {"\n", "\\n", "\r\n", "\\r\\n", "NONE"},
    "ENCODING": {"UTF8", "UTF-8"},
    "DATE_FORMAT": {"AUTO"},
    "TIME_FORMAT": {"AUTO"},
    "TIMESTAMP_FORMAT": {"AUTO"},
    "BINARY_FORMAT": {"HEX", "UTF8"},
    "ESCAPE": {"NONE", "\\", "\\\\"},
    "ESCAPE_UNENCLOSED_FIELD": {"NONE", "\\", "\\\\"},
    "TRIM_SPACE": {"FALSE"},
    "ERROR_ON_COLUMN_COUNT_MISMATCH": {"TRUE"},
    "REPLACE_INVALID_CHARACTERS": {"FALSE"},
    "SKIP_BYTE_ORDER_MARK": {"TRUE"},
    "SKIP_BLANK_LINES": {"TRUE", "FALSE"},
    "VALIDATE_UTF8": {"TRUE"},
    "MULTI_LINE": {"TRUE"},
    "ENABLE_OCTAL": {"FALSE"},
    "ALLOW_DUPLICATE": {"FALSE"},
    "STRIP_NULL_VALUES": {"FALSE"},
    "IGNORE_UTF8_ERRORS": {"FALSE"},
}
_HARMLESS = {
    "TYPE",
    "BINARY_AS_TEXT",
    "USE_LOGICAL_TYPE",
    "USE_VECTORIZED_SCANNER",
    "SNAPPY_COMPRESSION",
    "FILE_EXTENSION",
}
_READ = {
    "CSV": {
        "SKIP_HEADER", "PARSE_HEADER", "FIELD_DELIMITER", "FIELD_OPTIONALLY_ENCLOSED_BY", "NULL_IF", "COMPRESSION",
        "EMPTY_FIELD_AS_NULL",
    },
    "JSON": {"STRIP_OUTER_ARRAY", "COMPRESSION"},
    "PARQUET": {"COMPRESSION"},
}  # fmt: skip
_ESCAPES = {"\\t": "\t", "\\n": "\n", "\\\\": "\\"}


def string(value: str) -> str:
    """Write a text for DuckDB, whose literals have no backslash escapes."""
    return "'" + value.replace("'", "''") + "'"


@dataclass(frozen=True)
class Reader:
    """How to read files of one format.

    :param kind: CSV, JSON or PARQUET.
    :param options: the file format's options; an unknown one is refused.
    """

    kind: str
    options: Options

    @classmethod
    def of(cls, options: Options) -> Reader:
        """Build the reader for a file format."""
        kind = str(options.get("TYPE", "CSV")).upper()
        if kind not in _READ:
            raise not_supported(f"the file format {kind}")
        for key, value in options.items():
            if key in _HARMLESS or key in _READ[kind]:
                continue
            if str(value).upper() not in _EXPECTED.get(key, set()):
                raise not_supported(f"the file format option {key} = {value!r}")
        return cls(kind, options)

    def source(self, file: Path, *, typed: bool = False) -> str:
        """Return the table function that reads a file.

        :param typed: let DuckDB guess the types of CSV, which otherwise stays text until it is stored.
        """
        # A glob's special characters may be part of a staged file's name.
        path = string(glob.escape(str(file)))
        if self.kind == "PARQUET":
            return f"read_parquet({path})"
        if self.kind == "JSON":
            form = "array" if flag(self.options, "STRIP_OUTER_ARRAY", default=False) else "unstructured"
            return f"read_json_objects({path}, format = '{form}'{self._compression()})"
        return f"read_csv({path}, {', '.join(self._csv(typed=typed))}{self._compression()})"

    def _csv(self, *, typed: bool) -> list[str]:
        header = flag(self.options, "PARSE_HEADER", default=False)
        enclosed = str(self.options.get("FIELD_OPTIONALLY_ENCLOSED_BY", "NONE"))
        delimiter = str(self.options.get("FIELD_DELIMITER", ","))
        quote = "" if enclosed.upper() == "NONE" else enclosed
        return [
            f"header = {str(header).lower()}",
            f"all_varchar = {str(not typed).lower()}",
            f"skip = {int(str(self.options.get('SKIP_HEADER', 0)))}",
            f"delim = {string(_ESCAPES.get(delimiter, delimiter))}",
            f"quote = {string(quote)}",
            f"escape = {string(quote)}",
            f"nullstr = [{', '.join(string(text) for text in self._nulls())}]",
        ]

    def _nulls(self) -> list[str]:
        nulls = texts(self.options.get("NULL_IF")) if "NULL_IF" in self.options else ["\\N"]
        if flag(self.options, "EMPTY_FIELD_AS_NULL", default=True):
            return ["", *(text for text in nulls if text)]
        return nulls

    def _compression(self) -> str:
        name = str(self.options.get("COMPRESSION", "AUTO")).upper()
        codecs = {"AUTO": "", "AUTO_DETECT": "", "NONE": "none", "GZIP": "gzip", "ZSTD": "zstd"}
        if name not in codecs:
            raise not_supported(f"the compression {name}")
        return f", compression = '{codecs[name]}'" if codecs[name] else ""

    def columns(self, link: Link, file: Path, *, typed: bool = False) -> list[tuple[str, str]]:
        """Return names and DuckDB's types of the columns of a file; raises if it isn't of this format."""
        try:
            rows = link.query(f"DESCRIBE SELECT * FROM {self.source(file, typed=typed)}")
        except Exception as problem:
            # DuckDB's complaint about a file is the error of the statement.
            raise translate(problem) from problem
        return [(str(row[0]), str(row[1])) for row in rows]


def matched(columns: Sequence[tuple[str, str]], targets: Sequence[str], mode: str) -> dict[str, str]:
    """Return which column of a file belongs to which column of the table, by name."""
    if mode not in {"CASE_SENSITIVE", "CASE_INSENSITIVE"}:
        raise SnowflakeError(
            1008, "22023", f"SQL compilation error:\nInvalid value '{mode}' for parameter MATCH_BY_COLUMN_NAME"
        )
    exact = mode == "CASE_SENSITIVE"
    by_name = {name if exact else name.upper(): name for name, _ in columns}
    return {
        target: quoted(by_name[key]) for target in targets if (key := target if exact else target.upper()) in by_name
    }  # fmt: skip
