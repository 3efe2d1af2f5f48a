"""Documents of mappings, lists and scalars: read from YAML, and copied from whatever Python holds them in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, UnreadableError
from airflow_provider_mljobs.jobs.spec.rules import below, shown
from airflow_provider_mljobs.jobs.untrusted import MAX_DEPTH, read_yaml

_MOST_BYTES = 500_000


def plain(value: Any, path: str, above: tuple[int, ...] = ()) -> Any:
    """Copy a document into dicts, lists and scalars of its own.

    :param path: where the value stands; empty for a whole specification.
    :param above: the ids of what the value is in.
    :raises InvalidJobSpecError: for what is none of these, keys that are no text, or documents without an end.
    """
    where = path or "The specification"
    if id(value) in above:
        raise InvalidJobSpecError(f"{where} holds itself.")
    if len(above) > MAX_DEPTH:
        raise InvalidJobSpecError(f"{where} is more than {MAX_DEPTH} levels deep.")
    within = (*above, id(value))
    if isinstance(value, Mapping):
        if others := [key for key in value if not isinstance(key, str)]:
            raise InvalidJobSpecError(f"{where} has the key {shown(others[0])}; keys are texts.")
        return {key: plain(item, below(path, key), within) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{path}[{index}]", within) for index, item in enumerate(value)]
    if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
        raise InvalidJobSpecError(
            f"{where} is {shown(value)}, of type {type(value).__name__}, which no specification can hold; "
            "write it as text."
        )
    return value


def load_yaml(text: str, what: str) -> Any:
    """Read what an author has written as YAML, or as JSON; see :mod:`airflow_provider_mljobs.jobs.untrusted`.

    :param what: names the text in the message.
    :raises InvalidJobSpecError: with line and column.
    """
    if len(text.encode(errors="replace")) > _MOST_BYTES:
        raise InvalidJobSpecError(f"{what} has more than {_MOST_BYTES} bytes; Snowflake takes it within one statement.")
    try:
        return read_yaml(text, what, limit=_MOST_BYTES)
    except UnreadableError as error:
        raise InvalidJobSpecError(str(error)) from error
