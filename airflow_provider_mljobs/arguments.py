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
from airflow_provider_mljobs.jobs.functions import validate_serializer
from airflow_provider_mljobs.jobs.identifiers import Identifier, StagePath
from airflow_provider_mljobs.jobs.imports import validate_imports
from airflow_provider_mljobs.jobs.payload import validate_requirements
from airflow_provider_mljobs.jobs.rendering import validate_overrides
from airflow_provider_mljobs.jobs.secrets import validate_secrets
from airflow_provider_mljobs.jobs.spec import (
    validate_artifact_repositories,
    validate_env_vars,
    validate_instances,
    validate_log_level,
    validate_runtime_environment,
)
from airflow_provider_mljobs.jobs.specification import parse, validate as validate_specification, validate_using
from airflow_provider_mljobs.jobs.transport import validate_text
from airflow_provider_mljobs.jobs.volumes import parse_endpoints, validate_volumes

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
    if value is not None:
        StagePath.parse(text(value, "stage_name"), "stage_name", _ANY, _ANY)


def _validate_flag(value: Any, *, field: str, allowed: tuple[Any, ...] = (True, False)) -> None:
    if not any(value is choice for choice in allowed):
        choices = ", ".join(repr(choice) for choice in allowed)
        raise InvalidJobSpecError(f"{field} must be one of {choices}; got {value!r}.")


def _validate_text(value: Any, *, field: str) -> None:
    if value is not None and not isinstance(value, str):
        raise InvalidJobSpecError(f"{field} must be a text, got {value!r}.")
    validate_text(value or "", field)


def _validate_spec(value: Any) -> None:
    """Check a specification that stands in the DAG file; files and stages are read later."""
    if isinstance(value, Mapping):
        validate_specification(parse(value, "spec"), "spec")
    elif value is not None:
        text(value, "spec")


_CHECKS: Mapping[str, Callable[[Any], object]] = {
    "compute_pool": partial(identifier, field="compute_pool"),
    "stage_name": _validate_stage,
    "spec": _validate_spec,
    "using": lambda value: None if value is None else validate_using(value),
    "imports": validate_imports,
    "database": partial(optional_identifier, field="database"),
    "schema": partial(optional_identifier, field="schema"),
    "query_warehouse": partial(optional_identifier, field="query_warehouse"),
    "external_access_integrations": integrations,
    "env_vars": lambda value: validate_env_vars(value or {}),
    "secrets": lambda value: validate_secrets(value or {}),
    "volumes": lambda value: validate_volumes(value or {}),
    "endpoints": parse_endpoints,
    "spec_overrides": validate_overrides,
    "pip_requirements": validate_requirements,
    "runtime_environment": validate_runtime_environment,
    "log_level": validate_log_level,
    "artifact_repositories": validate_artifact_repositories,
    "serializer": validate_serializer,
    "comment": partial(_validate_text, field="comment"),
    "query_tag": partial(_validate_text, field="query_tag"),
    "enable_metrics": partial(_validate_flag, field="enable_metrics"),
    "parallel": partial(_validate_flag, field="parallel"),
    "managed": partial(_validate_flag, field="managed", allowed=(True, False, None)),
    "target_instances": validate_instances,
    "poll_interval": _validate_interval,
}
