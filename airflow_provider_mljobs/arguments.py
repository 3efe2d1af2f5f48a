"""The arguments of a task: which are known while the DAG is parsed, what they can be, and as what they travel."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import XComArg
from airflow.sdk.execution_time.lazy_sequence import LazyXComSequence

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.identifiers import Identifier, StagePath
from airflow_provider_mljobs.jobs.payload import validate_requirements
from airflow_provider_mljobs.jobs.spec import validate_env_vars, validate_instances

if TYPE_CHECKING:
    from collections.abc import Callable

# Stands for the connection's database and schema while they aren't known.
_ANY = Identifier("ANY")


def is_known(value: Any) -> bool:
    """Tell whether a templated field already holds its final value."""
    if isinstance(value, str):
        return "{{" not in value and "{%" not in value
    if isinstance(value, Mapping):
        return all(is_known(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(is_known(item) for item in value)
    # An XComArg is another task's result, which Airflow resolves before this task runs.
    return not isinstance(value, XComArg)


def resolved(value: Any) -> Any:
    """Return an argument without what only Airflow can read.

    A mapped task's output is read from Airflow's database item by item, and Airflow's dates are pendulum's.
    """
    if isinstance(value, LazyXComSequence) or type(value) is list:
        return [resolved(item) for item in value]
    if type(value) is tuple:
        return tuple(resolved(item) for item in value)
    if type(value) is dict:
        return {key: resolved(item) for key, item in value.items()}
    if isinstance(value, datetime):
        return datetime.fromisoformat(value.isoformat())
    return value


def text(value: Any, field: str) -> Any:
    """Refuse a field without a text, or path, in it."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value).strip():
        raise InvalidJobSpecError(f"{field} is missing: got {value!r}.")
    return value


def identifier(value: Any, field: str) -> Identifier:
    """Read a name that has to be there."""
    return Identifier.parse(text(value, field), field)


def optional_identifier(value: Any, field: str) -> Identifier | None:
    """Read a name that has a default."""
    return identifier(value, field) if value else None


def integrations(value: Any, field: str = "external_access_integrations") -> tuple[Identifier, ...]:
    """Read a list of names: one text isn't taken for a list of its characters."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidJobSpecError(f"{field} must be a list of names, got {value!r}.")
    return tuple(identifier(name, field) for name in value)


def validate(fields: Mapping[str, Any]) -> None:
    """Refuse what can be known to be wrong while the DAG is parsed; the rest waits for its templates.

    :raises InvalidJobSpecError: naming the field.
    """
    for field, check in _CHECKS.items():
        if is_known(fields[field]):
            check(fields[field])


def _validate_interval(value: Any) -> None:
    if not isinstance(value, int | float) or not value > 0:
        raise InvalidJobSpecError(f"poll_interval must be more than 0 seconds, got {value!r}.")


def _validate_stage(value: Any) -> None:
    StagePath.parse(text(value, "stage_name"), "stage_name", _ANY, _ANY)


_CHECKS: Mapping[str, Callable[[Any], object]] = {
    "compute_pool": partial(identifier, field="compute_pool"),
    "stage_name": _validate_stage,
    "database": partial(optional_identifier, field="database"),
    "schema": partial(optional_identifier, field="schema"),
    "query_warehouse": partial(optional_identifier, field="query_warehouse"),
    "external_access_integrations": integrations,
    "env_vars": lambda value: validate_env_vars(value or {}),
    "pip_requirements": validate_requirements,
    "target_instances": validate_instances,
    "poll_interval": _validate_interval,
}
