"""Templates of service specifications: ``{{ name }}`` and ``{{ name | default('x') }}``."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.spcs.errors import template_failed

if TYPE_CHECKING:
    from collections.abc import Mapping

_EXPRESSION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_VARIABLE = re.compile(
    r"""\s*(?P<name>[A-Za-z_][A-Za-z0-9_]*)
        (?:\s*\|\s*default\(\s*(?P<default>'[^']*'|"[^"]*"|[\w.-]+)\s*(?:,\s*(?P<empty>true|false)\s*)?\))?\s*""",
    re.VERBOSE,
)
_ALPHANUMERIC = re.compile(r"[A-Za-z0-9_./:@-]*")


def render(template: str, values: Mapping[str, str]) -> str:
    """Fill in a template; raises 395069 for a variable without value and for a value that isn't allowed.

    :param values: values by name; names are case-sensitive.
    """
    for name, value in values.items():
        _check_value(name, value)
    return _EXPRESSION.sub(lambda match: _value_of(match[1], values), template)


def _check_value(name: str, value: str) -> None:
    if _ALPHANUMERIC.fullmatch(value):
        return
    try:
        json.loads(value)
    except ValueError:
        raise template_failed(f"value of '{name}' is neither alphanumeric nor valid JSON.") from None


def _value_of(expression: str, values: Mapping[str, str]) -> str:
    match = _VARIABLE.fullmatch(expression)
    if match is None:
        raise template_failed(f"invalid expression '{expression.strip()}'.")
    name, default = match["name"], match["default"]
    if name in values and (values[name] or match["empty"] != "true"):
        return values[name]
    if default is None:
        raise template_failed(f"'{name}' is undefined.")
    return default[1:-1] if default[0] in "'\"" else default
