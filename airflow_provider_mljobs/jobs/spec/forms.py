"""The forms of single values in a specification, each with the words that a message describes it with."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.spec.documents import excerpt
from airflow_provider_mljobs.jobs.values.escaping import validate_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


_AMOUNT = re.compile(r"([0-9.]+)(\D*)")
_UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12} | {
    f"{unit}i": 2 ** (10 * power) for power, unit in enumerate("KMGT", 1)
}


class InvalidValueError(ValueError):
    """Everything that is wrong with one value; each text continues the path of the value."""


def _validate_str(value: str) -> None:
    try:
        validate_text(value, "")
    except InvalidJobSpecError as error:
        raise InvalidValueError(str(error).strip()) from None
    if max(value, default="") > "\uffff":
        raise InvalidValueError(
            f"holds {max(value)!r}, which can't be written into a specification; leave it out or encode it."
        )


def text(form: str = "a string", pattern: str = r"(?s:.*)", *, numbers: bool = False) -> BeforeValidator:
    """Build the check of a string: its form in words, and as a regular expression."""

    def check(value: Any) -> Any:
        if isinstance(value, str):
            _validate_str(value)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        text = str(value) if isinstance(value, str) or (numbers and is_number) else None
        if text is None or not re.fullmatch(pattern, text, re.ASCII):
            hint = "; put it in quotes" if isinstance(value, int | float) and not numbers else ""
            raise InvalidValueError(f"must be {form}, got {excerpt(value)}{hint}.")
        return value

    return BeforeValidator(check)


def scalar(value: Any) -> Any:
    """Check a value that reaches the container as text."""
    if isinstance(value, str):
        _validate_str(value)
    elif not isinstance(value, bool | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise InvalidValueError(f"must be a string, a number, true or false; got {excerpt(value)}.")
    return value


def distinct(items: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """Yield a problem for each value that an earlier place has already."""
    places: dict[Any, str] = {}
    for place, value in items:
        if value in places:
            yield f"{place} {value!r} is already in {places[value].lstrip('.')}; choose another one."
        places.setdefault(value, place)


def amount(value: str | float) -> float:
    """Return the number that an amount stands for: 0.5 for ``500m``, 1024 for ``1Ki``."""
    match = _AMOUNT.fullmatch(str(value))
    return float(match[1]) * _UNITS[match[2]] if match else 0.0


Text = Annotated[str, text()]
Name = Annotated[
    str,
    text(
        "1 to 63 lower-case letters, digits and '-', from a letter to a letter or digit",
        r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?",
    ),
]
Role = Annotated[
    str,
    text("letters, digits and '_', from a letter to a letter or digit", r"[A-Za-z](?:[A-Za-z0-9_]*[A-Za-z0-9])?"),
]
Directory = Annotated[
    str, text("an absolute path without '.' and '..', e.g. /data", r"/(?!/)(?!(?:.*/)?\.\.?(?:/|$))[^:\x00-\x1f]+")
]
Variable = Annotated[str, text("the name of an environment variable", r"[A-Za-z_.-][A-Za-z0-9_.-]*")]
Image = Annotated[
    str,
    text(
        "an image such as /db/schema/repository/image:tag",
        r"(?:[\w.-]+(?::\d+)?)?(?:/[^\s/:@]+){4,}(?::[\w.-]+)?(?:@sha256:[0-9a-f]{64})?",
    ),
]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[int, Field(ge=1)]
Id = Annotated[int, Field(ge=0, le=2**32 - 2)]
Memory = Annotated[str, text("a number with one of the units M, Mi, G, Gi, T, Ti, e.g. 16Gi", r"\d+(?:\.\d+)?[MGT]i?")]
Cpu = Annotated[str | int | float, text("a number of cores, e.g. 0.5 or 500m", r"\d+(?:\.\d+)?|\d+m", numbers=True)]
Gpus = Annotated[str | int, text("a whole number of GPUs", r"\d+", numbers=True)]
ObjectName = Annotated[str, text("the name of a secret", r"(?s:.+)")]
