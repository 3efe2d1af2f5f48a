"""Properties of a JSON object as clauses of a SQL statement: each is checked and quoted here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_mljobs.emulator.errors import SnowflakeError, not_supported
from airflow_provider_mljobs.emulator.parsing import parse_name

# Writes the clause of a property, given its name and value.
Property = Callable[[str, Any], str]
Properties = Mapping[str, Property]

_WORDS = re.compile(r"[A-Za-z]+(?:[ _-][A-Za-z]+)*")


def invalid(problem: str) -> SnowflakeError:
    """Build the error for a request that lacks a value or has one of the wrong type."""
    # The number is made up; account answers name none.
    return SnowflakeError(391917, "22023", f"Invalid request: {problem}")


def literal(value: str) -> str:
    """Write a text as a SQL literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Check a name, which may be qualified, and write it for SQL."""
    return str(parse_name(name))


def words(text: str) -> str:
    """Check words such as a privilege or a kind of object, and write them for SQL."""
    if not _WORDS.fullmatch(text):
        raise invalid(f"{text!r} is neither a privilege nor a kind of object.")
    return re.sub("[_-]", " ", text).upper()


def checked(name: str, value: Any, kind: type) -> Any:
    """Return a value of the expected type; raises for any other."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise invalid(f"{name} must be of type {kind.__name__}, not {value!r}.")
    return value


def text(name: str, value: Any) -> str:
    """Write a property that is a text."""
    return f"{name.upper()} = {literal(checked(name, value, str))}"


def number(name: str, value: Any) -> str:
    """Write a property that is a whole number."""
    return f"{name.upper()} = {checked(name, value, int)}"


def flag(name: str, value: Any) -> str:
    """Write a property that is true or false; Snowflake's specification has some of them as texts."""
    if str(value).lower() not in {"true", "false"}:
        raise invalid(f"{name} must be true or false, not {value!r}.")
    return f"{name.upper()} = {str(value).upper()}"


def name(key: str, value: Any) -> str:
    """Write a property that is the name of an object."""
    return f"{key.upper()} = {identifier(checked(key, value, str))}"


def names(key: str, value: Any) -> str:
    """Write a property that lists names of objects."""
    listed = [identifier(checked(key, item, str)) for item in checked(key, value, list)]
    return f"{key.upper()} = ({', '.join(listed)})"


def nested(keyword: str, properties: Properties) -> Property:
    """Write a property that is an object, such as ``DIRECTORY = (ENABLE = TRUE)``."""
    return lambda name, value: f"{keyword} = ({clauses(properties, checked(name, value, dict))})"


def keyword(sql: str) -> Property:
    """Write a flag that is a keyword when it is true."""
    return lambda name, value: sql if checked(name, value, bool) else ""


def unset(name: str, value: Any) -> str:
    """Write no clause for a property that is off; raises for one that is on."""
    if value:
        raise not_supported(f"The property {name!r}, here {value!r},")
    return ""


def ignored(name: str, value: Any) -> str:
    """Write no clause: another part of the statement has the property."""
    del name, value
    return ""


def clauses(properties: Properties, values: Mapping[str, Any]) -> str:
    """Write the properties of an object; raises for one that can't be set."""
    for key, value in values.items():
        if value is not None and key not in properties:
            raise not_supported(f"The property {key!r}, here {value!r},")
    written = (properties[key](key, value) for key, value in values.items() if value is not None)
    return " ".join(filter(None, written))
