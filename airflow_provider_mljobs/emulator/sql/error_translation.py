"""DuckDB's and fakesnow's errors in Snowflake's words and numbers."""

from __future__ import annotations

import re

from airflow_provider_mljobs.emulator.errors import (
    NOT_SUPPORTED,
    SnowflakeError,
    already_exists,
    cancelled,
    unknown_function,
    unknown_table_function,
)

DIVISION_BY_ZERO = "Division by zero"


def _missing(name: str) -> SnowflakeError:
    return SnowflakeError(
        2003, "42S02", f"SQL compilation error:\nObject '{name}' does not exist or not authorized."
    )  # fmt: skip


def invalid_identifier(name: str) -> SnowflakeError:
    """Build the error for a column that doesn't exist."""
    return SnowflakeError(
        904, "42000", f"SQL compilation error: error line 1 at position 0\ninvalid identifier '{name}'"
    )


def _ambiguous(name: str) -> SnowflakeError:
    # The number is from memory.
    return SnowflakeError(2028, "42601", f"SQL compilation error:\nambiguous column name '{name}'")


def _not_grouped(name: str) -> SnowflakeError:
    # The number is from memory.
    return SnowflakeError(979, "42601", f"SQL compilation error:\n[{name}] is not a valid group by expression")


def _value(text: str) -> SnowflakeError:
    return SnowflakeError(100038, "22018", f"Numeric value '{text}' is not recognized")


def _date(text: str) -> SnowflakeError:
    return SnowflakeError(100040, "22007", f"Date '{text}' is not recognized")


def _timestamp(text: str) -> SnowflakeError:
    return SnowflakeError(100035, "22007", f"Timestamp '{text}' is not recognized")


def _null(column: str) -> SnowflakeError:
    return SnowflakeError(100072, "22000", f"NULL result in a non-nullable column '{column.rpartition('.')[2]}'")


def _division(_: str) -> SnowflakeError:
    return SnowflakeError(100051, "22012", DIVISION_BY_ZERO)


def _conflict(_: str) -> SnowflakeError:
    # The number is from memory; a real transaction would wait for the lock.
    return SnowflakeError(625, "57014", "Statement aborted: it conflicts with another transaction on the same rows.")


def _out_of_range(text: str) -> SnowflakeError:
    return SnowflakeError(100039, "22003", f"Numeric value is out of range: {text}")


def _json(text: str) -> SnowflakeError:
    return SnowflakeError(100069, "22P02", f"Error parsing JSON: {text}")


def _column_count(_: str) -> SnowflakeError:
    # The number is from memory.
    return SnowflakeError(
        2020, "21S01", "SQL compilation error:\nInsert value list does not match column list"
    )  # fmt: skip


# DuckDB's messages, each with the function that builds Snowflake's error; the first match wins.
_TRANSLATIONS = tuple(
    (re.compile(pattern, re.DOTALL), build)
    for pattern, build in (
        (rf"{DIVISION_BY_ZERO}()", _division),
        (r"(?:Transaction conflict|Conflict on|write-write conflict)(.*)", _conflict),
        (r'(?:Table|View|Sequence|Schema) with name "?([^"\n]+?)"? already exists', already_exists),
        (r'already exists.*?"([^"]+)"', already_exists),
        (r"Existing object (\S+) is of type", already_exists),
        (r"Table Function with name \"?(\w+)\"? does not exist", lambda name: unknown_table_function(name.upper())),
        (r"(?:Scalar|Aggregate)?\s*Function with name \"?([\w$]+)\"? does not exist",
         lambda name: unknown_function(name.upper())),
        (r'(?:Table|View|Sequence|Schema|Catalog)(?: with name)? "?([^"\n!]+?)"? does not exist', _missing),
        (r'Catalog "?([^"\n]+?)"? does not exist', _missing),
        (r'Referenced (?:column|table) "([^"]+)" (?:was )?not found', invalid_identifier),
        (r'does not have a column (?:named|with name) "?([^"\n]+?)"?[\n!.]', invalid_identifier),
        (r'column "?([^"\s]+?)"? (?:not found|does not exist)', invalid_identifier),
        (r'column "([^"]+)" must appear in the GROUP BY clause', _not_grouped),
        (r'Ambiguous reference to column name "([^"]+)"', _ambiguous),
        (r"NOT NULL constraint failed: (\S+)", _null),
        (r"invalid date field format: \"([^\"]*)\"", _date),
        (r"date field value out of range: \"([^\"]*)\"", _date),
        (r"invalid timestamp field format: \"([^\"]*)\"", _timestamp),
        (r"timestamp field value out of range: \"([^\"]*)\"", _timestamp),
        (r"Could not convert string ['\"]([^'\"]*)['\"] to", _value),
        (r"Could not cast value (\S+)", _out_of_range),
        (r"Malformed JSON(.*?)(?:\n|$)", _json),
        (r"(?:Overflow|out of range)(.*?)(?:\n|$)", _out_of_range),
        (r"table .*? has (\d+) columns but \d+ values were supplied", _column_count),
    )
)  # fmt: skip
_PREFIX = re.compile(r"^[\w ]+ Error: ")
_SYNTAX = re.compile(r'syntax error at or near "([^"]*)"')


def translate(problem: Exception) -> SnowflakeError:
    """Return Snowflake's error for one of DuckDB's or fakesnow's; 9999 for one without a translation."""
    if type(problem).__name__ == "InterruptException":
        return cancelled()
    cause = problem.__cause__ if problem.__cause__ is not None else problem
    text = _PREFIX.sub("", str(cause.args[0]) if cause.args else str(cause))
    for pattern, build in _TRANSLATIONS:
        match = pattern.search(text)
        if match:
            return build(match[1])
    ready = _numbered(problem)
    if ready is not None and cause is problem:
        return ready
    return _unexpected(cause, text)


def _numbered(problem: Exception) -> SnowflakeError | None:
    """Return fakesnow's own error, whose numbers are Snowflake's."""
    errno, state = getattr(problem, "errno", None), getattr(problem, "sqlstate", None)
    if not isinstance(errno, int) or not isinstance(state, str) or errno in {-1, 9999}:
        return None
    text = str(getattr(problem, "raw_msg", None) or problem)
    return SnowflakeError(errno, state, re.sub(r"^\d{6} \(\w{5}\): ", "", text))


def _unexpected(cause: BaseException, text: str) -> SnowflakeError:
    syntax = _SYNTAX.search(text)
    if syntax:
        return SnowflakeError(
            1003, "42000", f"SQL compilation error:\nsyntax error unexpected '{syntax[1]}', or {NOT_SUPPORTED}."
        )
    first = text.strip().split("\n\n")[0]
    return SnowflakeError(9999, "99999", f"This statement is {NOT_SUPPORTED}: {type(cause).__name__}: {first}")
