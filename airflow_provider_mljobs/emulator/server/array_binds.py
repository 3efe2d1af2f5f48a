"""Array binds: an INSERT with one list of values per placeholder, as ``executemany`` sends it.

The lists become a table and the VALUES clause a SELECT from it, so that any number of rows is one statement.
"""

from __future__ import annotations

import secrets
from datetime import date, datetime, time
from decimal import Decimal
from itertools import accumulate
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.errors import SnowflakeError, not_supported
from airflow_provider_mljobs.emulator.parsing import Parser, Token

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

_LARGEST_INTEGER = 2**63


def has_arrays(binds: Sequence[object]) -> bool:
    """Return whether any bind is an array."""
    return any(isinstance(bind, list) for bind in binds)


def select_from_arrays(sql: str, binds: Sequence[object]) -> tuple[str, str, pa.Table]:
    """Return the statement that selects from a table instead, the table's name, and the table."""
    parser = Parser(sql)
    name = f"ARRAY_BINDS_{secrets.token_hex(8)}".upper()
    if not parser.accept("INSERT"):
        raise not_supported("an array bind outside of INSERT")
    pieces: list[str] = []
    position = used = 0
    for start, end, text in _changes(parser, name):
        pieces += [sql[position:start], text.format(used)]
        used += text.startswith('"')
        position = end
    pieces.append(sql[position:])
    return "".join(pieces), name, _table(binds, used)


def _changes(parser: Parser, name: str) -> list[tuple[int, int, str]]:
    """List the replacements in order: each placeholder, VALUES and its parentheses, or the end."""
    changes = [(token.start, token.end, '"BIND_{}"') for token in parser.tokens if token.kind == "bind"]
    outer = _outermost(parser.tokens)
    index = next((index for index in outer if parser.tokens[index].keyword in {"VALUES", "SELECT"}), None)
    if index is None:
        raise not_supported("an array bind without VALUES or SELECT")
    if parser.tokens[index].keyword == "SELECT":
        if any(parser.tokens[later].keyword == "FROM" for later in outer if later > index):
            raise not_supported("an array bind in a SELECT with FROM")
        changes.append((len(parser.text), len(parser.text), f" FROM {name}"))
    else:
        closing = parser.tokens[-1]
        if [later for later in outer if later > index] != [len(parser.tokens) - 1]:
            raise not_supported("an array bind with several rows of VALUES")
        changes.append((parser.tokens[index].start, parser.tokens[index + 1].end, "SELECT "))
        changes.append((closing.start, closing.end, f" FROM {name}"))
    return sorted(changes)


def _outermost(tokens: Sequence[Token]) -> list[int]:
    """Return the places of the tokens outside of all parentheses, and of the closing ones of the outermost pairs."""
    depths = accumulate({"(": 1, ")": -1}.get(token.text, 0) for token in tokens)
    return [index for index, depth in enumerate(depths) if not depth]


def _table(binds: Sequence[object], places: int) -> pa.Table:
    import pyarrow as pa

    lengths = {len(bind) for bind in binds if isinstance(bind, list)}
    if places != len(binds) or len(lengths) != 1:
        raise SnowflakeError(100037, "22018", f"Array binds of different lengths, or {len(binds)} for {places} places.")
    (length,) = lengths
    columns = [_column(bind if isinstance(bind, list) else [bind] * length) for bind in binds]
    return pa.table(columns, [f"BIND_{index}" for index in range(places)])


def _column(values: list[object]) -> pa.Array:
    import pyarrow as pa

    first = next((value for value in values if value is not None), None)
    if isinstance(first, int | Decimal) and not isinstance(first, bool):
        return _numbers(values)
    if isinstance(first, datetime):
        zone = "UTC" if first.tzinfo is not None else None
        return pa.array(values, pa.timestamp("us", zone))
    if isinstance(first, bool | float | bytes | date | time):
        return pa.array(values)
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _numbers(values: list[object]) -> pa.Array:
    import pyarrow as pa

    if all(value is None or (isinstance(value, int) and abs(value) < _LARGEST_INTEGER) for value in values):
        return pa.array(values, pa.int64())
    numbers = [None if value is None else Decimal(str(value)) for value in values]
    exponents = [number.as_tuple().exponent for number in numbers if number is not None]
    scale = max(0, *(-exponent for exponent in exponents if isinstance(exponent, int)))
    return pa.array(numbers, pa.decimal128(38, scale))
