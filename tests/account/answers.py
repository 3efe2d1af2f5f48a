"""Answers of a Snowflake: columns, rows or a refusal, and the seconds that they took; as JSON and back."""

import json
import re
import time
from dataclasses import dataclass, replace
from datetime import date, datetime, time as clock_time
from decimal import Decimal

# An answer is evidence, not a copy: the rest of a long one is counted.
MAX_ROWS = 100
MAX_CHARACTERS = 10_000


@dataclass(frozen=True)
class Column:
    """A column, with the connector's name of its type; documentation doesn't state types."""

    name: str
    type: str | None = None


@dataclass(frozen=True)
class Refusal:
    """An error of Snowflake's: its number and SQLSTATE, which documentation rarely states, and its text."""

    errno: int | None
    sqlstate: str | None
    text: str

    def as_vendor_error(self):
        """Return the error as the connector raises it."""
        from snowflake.connector.errors import ProgrammingError

        return ProgrammingError(self.text, errno=self.errno, sqlstate=self.sqlstate, done_format_msg=True)


@dataclass(frozen=True)
class Answer:
    """The answer to one statement, or one observation of a check.

    :param statement: the statement; empty for an observation.
    :param rows: the first rows; ``count`` has the number of all.
    """

    statement: str = ""
    columns: tuple[Column, ...] = ()
    rows: tuple[tuple, ...] = ()
    count: int = 0
    refusal: Refusal | None = None
    seconds: float | None = None

    @property
    def names(self):
        """The names of the columns in order."""
        return [column.name for column in self.columns]

    @property
    def records(self):
        """The rows by lower-case column name, as the provider reads them."""
        return [dict(zip(map(str.lower, self.names), row, strict=True)) for row in self.rows]

    def cells(self, column):
        """Return the values of a column in any case; none if there is no such column."""
        return [record[column.lower()] for record in self.records if column.lower() in record]

    @property
    def value(self):
        """The first cell; ``None`` without one."""
        return self.rows[0][0] if self.rows else None

    def without_rows(self):
        """Return the answer without its rows, which may name objects of other people."""
        return replace(self, rows=())

    @classmethod
    def observed(cls, value, name="value"):
        """Return an observation that isn't the answer to a statement."""
        return cls(columns=(Column(name),), rows=((value,),), count=1)

    def unmasked(self):
        """Return the answer with a word in place of each mask, so that names and addresses can be read again."""
        rows = tuple(tuple(_word(cell) if isinstance(cell, str) else cell for cell in row) for row in self.rows)
        refusal = None if self.refusal is None else replace(self.refusal, text=_word(self.refusal.text))
        return replace(self, rows=rows, refusal=refusal)

    def to_json(self, mask):
        """Return the answer as JSON, with each text masked and shortened."""
        document = {
            "statement": shortened(mask(self.statement)),
            "columns": [[column.name, column.type] for column in self.columns],
            "rows": [
                [_cell(value, name, mask) for name, value in zip(self.names, row, strict=True)] for row in self.rows
            ],
            "count": self.count,
            "seconds": None if self.seconds is None else round(self.seconds, 2),
        }
        if self.refusal is not None:
            text = shortened(mask(self.refusal.text))
            document["error"] = {"errno": self.refusal.errno, "sqlstate": self.refusal.sqlstate, "text": text}
        return document

    @classmethod
    def from_json(cls, document):
        """Read an answer; its times are those of their columns' types."""
        columns = tuple(Column(*pair) for pair in document.get("columns", ()))
        rows = tuple(
            tuple(_read(value, column.type) for value, column in zip(row, columns, strict=True))
            for row in document.get("rows", ())
        )
        error = document.get("error")
        return cls(
            statement=document.get("statement", ""),
            columns=columns,
            rows=rows,
            count=document.get("count", len(rows)),
            refusal=None if error is None else Refusal(error.get("errno"), error.get("sqlstate"), error["text"]),
            seconds=document.get("seconds"),
        )


def _word(text):
    return re.sub(r"<([A-Z_]+)>", r"\1", text)


def ask(cursor, statement):
    """Run a statement and return its answer; an error of Snowflake's is an answer, too."""
    from snowflake.connector.constants import FIELD_ID_TO_NAME
    from snowflake.connector.errors import Error

    began = time.monotonic()
    try:
        cursor.execute(statement)
        columns = tuple(Column(each.name, FIELD_ID_TO_NAME[each.type_code]) for each in cursor.description or ())
        rows = cursor.fetchall()
    except Error as error:
        text = str(error.raw_msg or error.msg or error).strip()
        refusal = Refusal(error.errno, error.sqlstate, without_number(text))
        return Answer(statement, refusal=refusal, seconds=time.monotonic() - began)
    first = tuple(map(tuple, rows[:MAX_ROWS]))
    return Answer(statement, columns, first, len(rows), seconds=time.monotonic() - began)


def without_number(text):
    """Return the text of an error without the number, SQLSTATE and query id that the connector puts before it."""
    return re.sub(r"^\d{6} \(\w{5}\): (?:[0-9a-f-]{36}: )?", "", text)


def shortened(text):
    """Cut a long text, and say how long it is."""
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}… ({len(text)} characters)"


def _cell(value, name, mask):
    match value:
        case None | bool() | int() | float():
            return value
        case Decimal():
            return str(value)
        case datetime() | date() | clock_time():
            return value.isoformat()
        case bytes():
            return f"({len(value)} bytes)"
        case str():
            return shortened(mask.cell(name, value))
        case _:
            return shortened(mask.cell(name, json.dumps(value, default=str)))


def _read(value, kind):
    if isinstance(value, str) and (kind or "").startswith("TIMESTAMP"):
        return datetime.fromisoformat(value)
    return value
