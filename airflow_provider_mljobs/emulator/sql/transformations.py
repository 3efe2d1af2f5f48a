"""The SELECT of ``COPY INTO t FROM (SELECT $1:a, … FROM @stage)`` as DuckDB's query over a staged file."""

# ruff: noqa: S608 statements of our own for DuckDB; names are quoted and values are bound
from __future__ import annotations

from typing import TYPE_CHECKING

from sqlglot import exp

from airflow_provider_mljobs.emulator.errors import not_supported
from airflow_provider_mljobs.emulator.sql.bridge import parse
from airflow_provider_mljobs.emulator.sql.refusals import refuse
from airflow_provider_mljobs.emulator.sql.rewrites import before_translation, call

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from airflow_provider_mljobs.emulator.sql.bridge import Link
    from airflow_provider_mljobs.emulator.sql.staged_data import Reader

_STAGED = '"MLJ"."MLJ"."staged"'


def transformed(link: Link, items: str, reader: Reader, file: Path, targets: Sequence[tuple[str, str]]) -> str:
    """Return DuckDB's query for the items of a transformation.

    :param targets: names and DuckDB's types of the columns to fill, in the order of the items.
    """
    text = f"SELECT {items} FROM {_STAGED}"
    select = parse(text)
    refuse(select, text)
    columns = [name for name, _ in reader.columns(link, file)]
    for parameter in list(select.find_all(exp.Parameter)):
        _replace(parameter, reader.kind, columns)
    translated = link.translate(before_translation(select, []))[-1]
    for item, (_, kind) in zip(list(translated.expressions), targets, strict=False):
        if kind == "JSON":
            value = item.this if isinstance(item, exp.Alias) else item
            item.replace(call("to_json", value.copy()))
    sql = translated.sql(dialect="duckdb")
    return sql.replace(_STAGED, f"{reader.source(file)} AS staged")


def _replace(parameter: exp.Parameter, kind: str, columns: Sequence[str]) -> None:
    """Put the column for ``$n`` or, in Parquet, for ``$1:name``."""
    number = int(parameter.this.name)
    if kind == "CSV":
        if number > len(columns):
            parameter.replace(exp.Null())
        else:
            parameter.replace(exp.column(columns[number - 1], quoted=True))
    elif number != 1:
        parameter.replace(exp.Null())
    elif kind == "JSON":
        parameter.replace(exp.column("json", quoted=True))
    else:
        _replace_field(parameter, columns)


def _replace_field(parameter: exp.Parameter, columns: Sequence[str]) -> None:
    extract = parameter.parent
    if not isinstance(extract, (exp.JSONExtract, exp.JSONExtractScalar)):
        parameter.replace(call("to_json", exp.column("staged")))
        return
    keys = [key.this for key in extract.expression.find_all(exp.JSONPathKey)]
    if len(keys) != 1:
        raise not_supported("a path into a nested Parquet column")
    name = next((column for column in columns if column == keys[0]), None)
    extract.replace(exp.column(name, quoted=True) if name is not None else exp.Null())
