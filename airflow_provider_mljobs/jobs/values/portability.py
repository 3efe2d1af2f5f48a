"""Values in Airflow's database: JSON that a later task gets back unchanged, and its keys.

Airflow serialises XComs and the events of triggers. Some keys are reserved: the reading process loads an object that
has them as an instance of another class.
"""

from __future__ import annotations

import math
import re
from typing import Any

from airflow_provider_mljobs.exceptions import UnreadableError
from airflow_provider_mljobs.jobs.untrusted import read_json

# The key of a reference to files on a stage; its value is the version of the form.
REFERENCE = "__mljob_ref__"
# The keys of Airflow's present and former format, as in its module `serialization`.
_RESERVED = frozenset(
    {"__classname__", "__version__", "__data__", "__id__", "__cache__", "__type", "__source", "__var", REFERENCE}
)
# Airflow's API returns no XCom of more than 200 levels, and its serialiser calls itself twice for each.
MAX_LEVELS = 100
# Airflow's processes exchange integers of 64 bits. PostgreSQL writes floats of that size as integers.
_MIN_NUMBER, _MAX_NUMBER = -(2**63), 2**64 - 1
# Unpaired surrogates and NUL break PostgreSQL's JSON, and with it whole Airflow components.
_UNSAFE = re.compile("[\x00\ud800-\udfff]")
# The column of Airflow's database.
_MAX_KEY_CHARACTERS = 512
# XComs of this provider, which its pages read.
OWN_KEYS = frozenset({"mljob", "mljob_watched"})
# A key is part of a URL, which these characters would end or change.
_IN_NO_URL = re.compile(r"[\x00-\x1f\x7f?#%\\\ud800-\udfff]|(?:^|/)\.\.?(?:/|$)")


def misfit(value: Any) -> str:
    """Return why a later task would not get a value back from XCom, as part of a sentence; empty if it would.

    NaN, infinities, NUL and halves of surrogate pairs are fine except in a key: :func:`jsonb_safe` replaces them.
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
        return "it is a text that Airflow would read as an object" if _is_airflows(value) else ""
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    if isinstance(value, int | float) and not fits(value):
        return "it holds a number of more than 64 bits"
    return ""


def fits(number: float) -> bool:
    """Return whether a number survives Airflow's processes and database."""
    return _MIN_NUMBER <= number <= _MAX_NUMBER


def _misfit_key(key: Any) -> str:
    if not isinstance(key, str):
        return "it has a key that is no text"
    if key in _RESERVED:
        return f"its key {key!r} is reserved"
    return f"its key {key[:100]!a} is no valid text" if _UNSAFE.search(key) else ""


def _is_airflows(text: str) -> bool:
    """Return whether Airflow's API, which parses texts of JSON, would make an object of a text."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        document = read_json(text, "The text", limit=len(text), depth=len(text))
    except UnreadableError as error:
        # JSON that is too deep breaks the API as well.
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
    """Return a text in a form that Airflow doesn't parse: see :func:`misfit`."""
    return f"…\n{text}" if _is_airflows(text) else text


def misfit_outputs(value: Any) -> str:
    """Return why a value can't be one XCom for each of its keys, as part of a sentence; empty if it can."""
    if not isinstance(value, dict):
        return f"it is of type {type(value).__name__}, not a dict"
    for key in value:
        if not key or len(key) > _MAX_KEY_CHARACTERS or _IN_NO_URL.search(key):
            return f"{key[:100]!a} can't be the key of an XCom"
        if key in OWN_KEYS:
            return f"XCom {key!r} is reserved by this provider"
    return ""


def jsonb_safe(value: Any) -> Any:
    """Return a value for Airflow's database: text keys, without NaN, infinities, NUL and half surrogates."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _UNSAFE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {str(jsonb_safe(str(key))): jsonb_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonb_safe(item) for item in value]
    return value
