"""Rows of statements as the JSON of the REST API."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.errors import does_not_exist
from airflow_provider_mljobs.emulator.parsing import parse_name, quote_identifier
from airflow_provider_mljobs.emulator.server.encoding import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_mljobs.emulator.results import Result
    from airflow_provider_mljobs.emulator.server.rest.statements import Call

    # Builds the JSON of an answer.
    Answering = Callable[[Call, Result], Any]

Row = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """The properties of a kind of object, which have the names of the columns.

    :param label: the kind, for the error that an object doesn't exist.
    :param properties: their names, separated by spaces.
    :param conversions: those whose value is not that of the column.
    :param names: those that are identifiers, which the API writes as SQL does.
    """

    label: str
    properties: str
    conversions: Mapping[str, Callable[[Row], Any]] = field(default_factory=dict)
    names: tuple[str, ...] = ("name", "database_name", "schema_name", "service_name")

    def of(self, row: Row) -> Row:
        """Return the object of a row."""
        values = {
            name: self.conversions[name](row) if name in self.conversions else row.get(name)
            for name in self.properties.split()
        }
        return {
            name: quote_identifier(value) if name in self.names else _plain(value)
            for name, value in values.items()
            if value is not None
        }


def rows(result: Result) -> list[Row]:
    """Return the rows of a SHOW or DESCRIBE by column."""
    names = [column.name for column in result.columns]
    return [dict(zip(names, row, strict=True)) for row in rows_of(result)]


def status(call: Call, result: Result) -> Any:
    """Answer a statement that changes something."""
    del call
    return {"status": str(rows_of(result)[0][0])}


def many(shape: Shape) -> Answering:
    """Answer with an array."""
    return lambda _, result: [shape.of(row) for row in rows(result)]


def one(shape: Shape) -> Answering:
    """Answer with the object that the path names; raises 2003 if no row has its name."""

    def answer(call: Call, result: Result) -> Any:
        name = parse_name(call.path["name"]).name
        for row in rows(result):
            if row["name"] == name:
                return shape.of(row)
        raise does_not_exist(shape.label, name)

    return answer


def cell(name: str) -> Answering:
    """Answer with the one value of a function."""
    return lambda _, result: {name: rows_of(result)[0][0]}


def truth(name: str) -> Callable[[Row], bool]:
    """Read a column that is a text such as ``Y`` or ``true``."""
    return lambda row: str(row[name]).upper() in {"Y", "TRUE"}


def integer(name: str) -> Callable[[Row], int | None]:
    """Read a column that is a number in a text."""
    return lambda row: int(row[name]) if str(row[name] or "").isdecimal() else None


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
