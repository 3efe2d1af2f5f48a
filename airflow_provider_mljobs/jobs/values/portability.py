"""Values as Airflow keeps them: which JSON a later task gets back unchanged, and by which keys it may be kept.

Airflow serialises XComs, events of triggers and their copies in its database. It gives some keys a meaning of its own:
an object that has them is loaded as another class, in the process that reads it.
"""

from __future__ import annotations

import math
import re
from typing import Any

from airflow_provider_mljobs.exceptions import UnreadableError
from airflow_provider_mljobs.jobs.untrusted import read_json

# By this key, with the version of its form, a reference to files on a stage is recognised.
REFERENCE = "__mljob_ref__"
# Airflow's own, of its present and of its former format, as in its module `serialization`.
_RESERVED = frozenset(
    {"__classname__", "__version__", "__data__", "__id__", "__cache__", "__type", "__source", "__var", REFERENCE}
)
# Airflow's API returns no XCom of more than 200 levels, and its serialiser calls itself twice for each.
MAX_LEVELS = 100
# Airflow's processes send integers to each other in 64 bits. PostgreSQL writes floats of that size as integers.
_MIN_NUMBER, _MAX_NUMBER = -(2**63), 2**64 - 1
# Unpaired surrogates and NUL break PostgreSQL's JSON, and with it whole Airflow components.
_UNSAFE = re.compile("[\x00\ud800-\udfff]")
# The column of Airflow's database.
_MAX_KEY_CHARACTERS = 512
# XComs that Airflow's pages read, and that are ours.
OWN_KEYS = frozenset({"mljob", "mljob_watched"})
# A key is a part of a URL, which these would end, or make another one.
_IN_NO_URL = re.compile(r"[\x00-\x1f\x7f?#%\\\ud800-\udfff]|(?:^|/)\.\.?(?:/|$)")


def misfit(value: Any) -> str:
    """Say why a later task would not get a value back from XCom, as a part of a sentence; empty if it would.

    NaN, infinities, NUL and halves of surrogate pairs are no reason, unless in a key: :func:`jsonb_safe` replaces them.

    :param value: JSON.
    """
    level = [value]
    for _ in range(MAX_LEVELS + 1):
        inner: list[Any] = []
        for item in level:
            if reason := _misfit_alone(item):
                return reason
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list | tuple):
                inner += item
        if not inner:
            return ""
        level = inner
    return f"it is more than {MAX_LEVELS} levels deep"


def _misfit_alone(value: Any) -> str:
    if isinstance(value, dict):
        return next(filter(None, map(_misfit_key, value)), "")
    if isinstance(value, str):
        return "it is a text that Airflow reads as an object of its own" if _is_airflows(value) else ""
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    if isinstance(value, int | float) and not fits(value):
        return "it holds a number of more than 64 bits"
    return ""


def fits(number: float) -> bool:
    """Tell whether Airflow's processes and its database give a number back."""
    return _MIN_NUMBER <= number <= _MAX_NUMBER


def _misfit_key(key: Any) -> str:
    if not isinstance(key, str):
        return "it has a key that is no text"
    if key in _RESERVED:
        return f"its key {key!r} is reserved"
    return f"its key {key[:100]!a} is no valid text" if _UNSAFE.search(key) else ""


def _is_airflows(text: str) -> bool:
    """Tell whether a text is JSON that Airflow's API, which reads such texts, would make an object of."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        document = read_json(text, "The text", limit=len(text), depth=len(text))
    except UnreadableError as error:
        # One that is too deep would stop the API, too.
        return isinstance(error.__cause__, RecursionError)
    pending = [document]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if not _RESERVED.isdisjoint(item):
                return True
            pending += item.values()
        elif isinstance(item, list):
            pending += item
    return False


def shielded(text: str) -> str:
    """Return a text that Airflow reads as nothing but text: see :func:`misfit`."""
    return f"…\n{text}" if _is_airflows(text) else text


def misfit_outputs(value: Any) -> str:
    """Say why a value can't be one XCom for each of its keys, as a part of a sentence; empty if it can."""
    if not isinstance(value, dict):
        return f"it is no dict but of type {type(value).__name__}"
    for key in value:
        if not key or len(key) > _MAX_KEY_CHARACTERS or _IN_NO_URL.search(key):
            return f"{key[:100]!a} can't be the key of an XCom"
        if key in OWN_KEYS:
            return f"XCom {key!r} is this provider's own"
    return ""


def jsonb_safe(value: Any) -> Any:
    """Return a value that Airflow's database takes: no NaN, no infinity, no NUL, no half surrogates, string keys."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _UNSAFE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {str(jsonb_safe(str(key))): jsonb_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonb_safe(item) for item in value]
    return value
