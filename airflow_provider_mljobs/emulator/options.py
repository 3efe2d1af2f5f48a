"""Properties of statements such as COPY INTO, PUT and CREATE STAGE: ``KEY = value KEY = value``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.errors import invalid_property
from airflow_provider_mljobs.emulator.parsing import unescape

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_mljobs.emulator.parsing import Parser

Value = str | bool | int | list[str] | dict[str, "Value"]
Options = dict[str, Value]

_WORDS: dict[str, Value] = {"TRUE": True, "FALSE": False}


def parse_options(parser: Parser, allowed: Collection[str] | None = None, statement: str = "") -> Options:
    """Parse the ``KEY = value`` pairs that follow; commas between them are allowed.

    :param allowed: the keys that exist; any other raises 1420.
    """
    options: Options = {}
    while parser.current.kind == "word" and parser.peek(1).text in {"=", "=>"}:
        key = parser.identifier()
        if allowed is not None and key not in allowed:
            raise invalid_property(key, statement)
        parser.next()
        options[key] = _value(parser)
        parser.accept(",")
    return options


def _value(parser: Parser) -> Value:
    token = parser.current
    if parser.accept("("):
        return _parenthesized(parser)
    if token.kind in {"string", "bind"}:
        return parser.string()
    if token.kind == "number" or token.text == "-":
        sign = -1 if parser.accept("-") else 1
        return sign * parser.integer()
    if token.kind == "stage":
        return parser.next().text
    if token.kind in {"word", "quoted"} and parser.peek(1).text == ".":
        return str(parser.qualified_name())
    text = parser.identifier()
    return _WORDS.get(text, text)


def _parenthesized(parser: Parser) -> Value:
    if parser.current.kind == "word" and parser.peek(1).text == "=":
        nested = parse_options(parser)
        parser.expect(")")
        return nested
    values = []
    while not parser.accept(")"):
        token = parser.next()
        text = unescape(token.text) if token.kind == "string" else token.text
        while parser.accept("."):
            text += f".{parser.next().text}"
        values.append(text)
        parser.accept(",")
    return values


def flag(options: Options, key: str, *, default: bool) -> bool:
    """Return a property that is TRUE or FALSE, as a word or a string."""
    value = options.get(key, default)
    return value if isinstance(value, bool) else str(value).upper() == "TRUE"


def texts(value: Value | None) -> list[str]:
    """Return a property that is one string or a list of strings."""
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]
