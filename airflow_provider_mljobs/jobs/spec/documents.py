"""Plain documents: dicts, lists and scalars, and the paths that messages use to point into them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.untrusted import MAX_DEPTH

if TYPE_CHECKING:
    from collections.abc import Iterator

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_./-]+")
_MAX_EXCERPT = 80


def plain(value: Any, path: str, above: tuple[int, ...] = ()) -> Any:
    """Copy a document into new dicts, lists and scalars.

    :param path: where the value stands; empty for a whole specification.
    """
    where = path or "The specification"
    if id(value) in above:
        raise InvalidJobSpecError(f"{where} contains itself.")
    if len(above) > MAX_DEPTH:
        raise InvalidJobSpecError(f"{where} is more than {MAX_DEPTH} levels deep.")
    within = (*above, id(value))
    if isinstance(value, Mapping):
        if others := [key for key in value if not isinstance(key, str)]:
            raise InvalidJobSpecError(f"{where} has the key {excerpt(others[0])}; keys must be strings.")
        return {key: plain(item, below(path, key), within) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, below(path, index), within) for index, item in enumerate(value)]
    if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
        raise InvalidJobSpecError(
            f"{where} is {excerpt(value)}, of type {type(value).__name__}, and a specification can't hold that; "
            "write it as a string."
        )
    return value


def select(value: Any, pattern: str, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values that a pattern matches, each with its path; values of other types are skipped.

    :param pattern: keys, with ``[]`` after those of lists, e.g. ``containers[].volumeMounts[].name``.
    """
    key, _, rest = pattern.partition(".")
    name = key.removesuffix("[]")
    if not isinstance(value, Mapping) or name not in value:
        return
    where = below(path, name)
    matches = [(where, value[name])]
    if name != key:
        items = value[name] if isinstance(value[name], list) else []
        matches = [(below(where, index), item) for index, item in enumerate(items)]
    for place, item in matches:
        if rest:
            yield from select(item, rest, place)
        else:
            yield place, item


def below(path: str, key: Any) -> str:
    """Return the path of a key or an index."""
    if not isinstance(key, str) or not _PLAIN_KEY.fullmatch(key):
        return f"{path}[{key!r}]"
    return f"{path}.{key}" if path else key


def excerpt(value: Any) -> str:
    """Describe a value in a message, in at most a line."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "nothing (null)"
    text = repr(value)
    return text if len(text) <= _MAX_EXCERPT else f"{text[:_MAX_EXCERPT]}…"
