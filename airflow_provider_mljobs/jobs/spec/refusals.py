"""The errors of pydantic as the author of a document reads them: the path, the value, and the correction."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, get_args

from pydantic import TypeAdapter, ValidationError

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.spec.documents import below, excerpt
from airflow_provider_mljobs.jobs.spec.schema import Document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic_core import ErrorDetails

_MAX_PROBLEMS = 20
_OTHER = "is not valid, got {got}."
_MAPPING = "must be a mapping, got {got}."
_TEXTS = {
    "missing": "is missing.",
    "model_type": _MAPPING,
    "dict_type": _MAPPING,
    "list_type": "must be a list, got {got}.",
    "bool_type": "must be true or false, got {got}.",
    "int_type": "must be a whole number, got {got}.",
    "greater_than_equal": "must be at least {ge}, got {got}.",
    "less_than_equal": "must be at most {le}, got {got}.",
    "literal_error": "must be {expected}; got {got}.",
    "string_unicode": "holds half a surrogate pair, which is no valid text.",
    "too_short": "is empty; it needs at least {min_length}.",
    "too_long": "has {actual_length} items; Snowflake takes {max_length}.",
}


def check(value: Any, argument: str = "spec", kind: Any = Document, path: str = "") -> None:
    """Validate a document, or a part of one."""
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        details = error.errors(include_url=False)
    else:
        return
    problems = [text for detail in details for text in _problems(detail, kind, path)]
    if len(problems) == 1:
        raise InvalidJobSpecError(f"{argument} is not valid: {problems[0]}")
    lines = [f"- {problem}" for problem in problems[:_MAX_PROBLEMS]]
    if more := len(problems) - len(lines):
        lines.append(f"- … and {more} more")
    raise InvalidJobSpecError("\n".join((f"{argument} is not valid:", *lines)))


def _problems(detail: ErrorDetails, kind: Any, path: str) -> Iterator[str]:
    location = list(detail["loc"])
    if detail["type"] != "extra_forbidden" and location[-1:] == ["[key]"]:
        # Pydantic's mark for the key of a mapping, instead of its value.
        location.pop()
    where = path
    for part in location:
        where = below(where, part)
    if detail["type"] == "extra_forbidden":
        yield f"{where} {_unknown(kind, location)}"
    elif detail["type"] == "value_error":
        for text in detail["ctx"]["error"].args:
            yield f"{where}{text}".lstrip(".") if text[0] in ".[" else f"{where} {text}".strip()
    else:
        text = _TEXTS.get(detail["type"], _OTHER).format(got=excerpt(detail["input"]), **detail.get("ctx", {}))
        yield f"{where or 'The specification'} {text}"


def _unknown(kind: Any, location: list[int | str]) -> str:
    *parents, key = location
    model = model_in(kind)
    for part in parents:
        fields = {field.alias: field.annotation for field in model.model_fields.values()}
        model = model_in(fields[part]) if part in fields else model
    if key in model.misplaced:
        return f"can't stand here: {model.misplaced[key]}."
    keys = [str(field.alias) for field in model.model_fields.values()]
    if similar := difflib.get_close_matches(str(key), keys, n=1):
        return f"is unknown; did you mean {similar[0]}?"
    return f"is unknown; use {', '.join(keys)}."


def model_in(kind: Any) -> Any:
    """Return the model within an annotation such as ``list[Container]``."""
    if hasattr(kind, "model_fields"):
        return kind
    return next(filter(None, map(model_in, get_args(kind))), None)
