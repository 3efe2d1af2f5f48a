"""The arguments of a task: which are known while the DAG is parsed, what they can be, and as what they travel."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from importlib import import_module
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow.sdk import XComArg
from airflow.sdk.execution_time.lazy_sequence import LazyXComSequence

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.names import PLACEHOLDER, Identifier, StagePath
from airflow_provider_mljobs.jobs.payload.functions import validate_serializer
from airflow_provider_mljobs.jobs.payload.git import GitSource
from airflow_provider_mljobs.jobs.payload.imports import plain, validate_imports
from airflow_provider_mljobs.jobs.payload.requirements import validate_requirements
from airflow_provider_mljobs.jobs.payload.sources import Place, is_on_stage, locate, validate_source
from airflow_provider_mljobs.jobs.spec.job import (
    validate_artifact_repositories,
    validate_env_vars,
    validate_instances,
    validate_log_level,
    validate_runtime_environment,
)
from airflow_provider_mljobs.jobs.values.escaping import validate_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_mljobs.operators import MLJobOperator

OnFinish = Literal["drop", "drop_on_success", "keep"]
OnKillAction = Literal["cancel", "drop", "none"]

# What a specification of the user's own says itself.
_FOR_SOURCES = (
    "entrypoint",
    "args",
    "imports",
    "env_vars",
    "secrets",
    "pip_requirements",
    "artifact_repositories",
    "runtime_environment",
    "min_instances",
    "parallel",
    "volumes",
    "endpoints",
    "spec_overrides",
    "log_level",
    "managed",
    "query_tag",
)
# A text that is no file's name: a specification has several lines, or braces.
_SPECIFICATION_FILES = (".yaml", ".yml", ".json")
_LARGEST_EXIT_CODE = 255


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


def exit_codes(value: Any, field: str) -> tuple[int, ...]:
    """Read an exit code, or several; ``None`` is none.

    :raises InvalidJobSpecError: if one can't be that of a job that failed.
    """
    codes = () if value is None else tuple(value) if isinstance(value, Collection) else (value,)
    wrong = [code for code in codes if type(code) is not int or not 1 <= code <= _LARGEST_EXIT_CODE]
    if isinstance(value, str | bytes | Mapping) or wrong:
        raise InvalidJobSpecError(
            f"{field} takes exit codes from 1 to {_LARGEST_EXIT_CODE}, one or a list; got {value!r}."
        )
    return codes


def folder_of(task: MLJobOperator) -> Path:
    """Return the folder that a task's relative paths start at: its DAG file's."""
    dag = task.get_dag()
    return Path(dag.fileloc).parent if dag is not None and dag.fileloc else Path()


def importable(task: MLJobOperator) -> tuple[str, ...]:
    """Return the names by which a task's function imports what travels with it."""
    return tuple(name or PurePath(path).stem for path, name in plain(task.imports))


def is_specification_file(spec: object) -> bool:
    """Tell whether a task's spec names a local file."""
    return isinstance(spec, str) and spec.endswith(_SPECIFICATION_FILES) and "\n" not in spec and spec[:1] != "@"


def read_specification(task: MLJobOperator) -> str:
    """Return the text of the file that a task's spec names.

    :raises InvalidJobSpecError: if it can't be read.
    """
    path = folder_of(task) / str(task.spec)
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidJobSpecError(f"spec {str(task.spec)!r} can't be read from {path}: {error}.") from error


def refuse_contradictions(task: MLJobOperator) -> None:
    """Refuse arguments that don't go together.

    :raises InvalidJobSpecError: naming them, and what to do.
    """
    _refuse_contradicting_kill(task)
    if (task.spec is None) == (task.source is None):
        raise InvalidJobSpecError(
            "A task runs either a source (a function, a file, a directory, a stage path, a GitSource) or a spec, a "
            f"service specification of your own; this one has {'neither' if task.spec is None else 'both'}."
        )
    if task.spec is not None:
        # A stage, which default_args may name for other tasks, does no harm.
        given = [name for name in _FOR_SOURCES if getattr(task, name)]
        given += [] if task.enable_metrics else ["enable_metrics"]
        if given:
            raise InvalidJobSpecError(
                f"{', '.join(given)} can't be given with spec: write what you mean into the specification."
            )
    elif task.stage_name is None:
        raise InvalidJobSpecError("stage_name is missing: a source needs a stage for its payload and its result.")
    if task.using is not None and task.spec is None:
        raise InvalidJobSpecError("using is for the variables of a spec; a source takes args.")
    if task.function is not None and task.entrypoint is not None:
        raise InvalidJobSpecError(f"entrypoint {task.entrypoint!r} is for a directory; source is a callable.")
    if task.function is None and task.serializer != "auto":
        raise InvalidJobSpecError(f"serializer={task.serializer!r} is for a callable; source is none.")


def _refuse_contradicting_kill(task: MLJobOperator) -> None:
    if not task.cancel_on_kill and task.on_kill_action not in {None, "none"}:
        raise InvalidJobSpecError(
            f"on_kill_action={task.on_kill_action!r} ends the job, cancel_on_kill=False doesn't; leave one of them."
        )


def locate_source(task: MLJobOperator, *, is_here: bool) -> None:
    """Refuse a source, entrypoint or import that can't be, without reading anything.

    :param is_here: whether files can be looked for: they lie beside the DAG file.
    :raises PayloadError: if one isn't there.
    :raises InvalidJobSpecError: if one can't be run.
    """
    source = GitSource(**task.source) if isinstance(task.source, dict) else task.source
    validate_source(source, task.entrypoint)
    if is_here and not isinstance(source, GitSource) and not is_on_stage(source):
        locate(folder_of(task) / source, task.entrypoint)


def locate_imports(task: MLJobOperator) -> None:
    """Refuse imports that aren't there, without reading them.

    :raises PayloadError: if one isn't there.
    """
    validate_imports(task.imports, Place(folder=folder_of(task)))


def validate(fields: Mapping[str, Any]) -> None:
    """Refuse what can be known to be wrong while the DAG is parsed; the rest waits for its templates.

    :raises InvalidJobSpecError: naming the field.
    """
    for field, check in _CHECKS.items():
        if is_known(fields[field]):
            check(fields[field])


def _validate_interval(value: Any) -> None:
    if not _is_number(value) or not value > 0:
        raise InvalidJobSpecError(f"poll_interval must be more than 0 seconds, got {value!r}.")


def _validate_log_interval(value: Any) -> None:
    if not _is_number(value) or not 0 <= value < math.inf:
        raise InvalidJobSpecError(f"log_interval must be a number of seconds, or 0 for none, got {value!r}.")


def _validate_limit(value: Any, *, field: str) -> None:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if seconds is not None and (not _is_number(seconds) or not 0 < seconds < math.inf):
        raise InvalidJobSpecError(f"{field} must be more than 0 seconds, a timedelta, or None; got {value!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _validate_stage(value: Any) -> None:
    if value is not None:
        StagePath.parse(text(value, "stage_name"), "stage_name", PLACEHOLDER)


def _validate_flag(value: Any, *, field: str, allowed: tuple[Any, ...] = (True, False)) -> None:
    if not any(value is choice for choice in allowed):
        choices = ", ".join(repr(choice) for choice in allowed)
        raise InvalidJobSpecError(f"{field} must be one of {choices}; got {value!r}.")


def _validate_choice(value: Any, *, field: str, allowed: tuple[str | None, ...]) -> None:
    if value not in allowed:
        choices = ", ".join(choice for choice in allowed if choice is not None)
        raise InvalidJobSpecError(f"{field} must be one of {choices}; got {value!r}.")


def _validate_text(value: Any, *, field: str) -> None:
    if value is not None and not isinstance(value, str):
        raise InvalidJobSpecError(f"{field} must be a text, got {value!r}.")
    validate_text(value or "", field)


def _validate_spec(value: Any) -> None:
    """Check a specification that stands in the DAG file; files and stages are read later."""
    if isinstance(value, Mapping):
        from airflow_provider_mljobs.jobs.spec.specification import parse, validate

        validate(parse(value, "spec"), "spec")
    elif value is not None:
        text(value, "spec")


def _if_given(value: Any, *, module: str, check: str) -> None:
    """Check what few tasks have, by a module that only their DAG files have to load."""
    if value is not None and value != ():
        getattr(import_module(f"airflow_provider_mljobs.jobs.{module}"), check)(value)


_CHECKS: Mapping[str, Callable[[Any], object]] = {
    "compute_pool": partial(identifier, field="compute_pool"),
    "stage_name": _validate_stage,
    "spec": _validate_spec,
    "using": partial(_if_given, module="spec.specification", check="validate_using"),
    "imports": validate_imports,
    "database": partial(optional_identifier, field="database"),
    "schema": partial(optional_identifier, field="schema"),
    "query_warehouse": partial(optional_identifier, field="query_warehouse"),
    "external_access_integrations": integrations,
    "env_vars": lambda value: validate_env_vars(value or {}),
    "secrets": partial(_if_given, module="spec.secrets", check="validate_secrets"),
    "volumes": partial(_if_given, module="spec.mounts", check="validate_volumes"),
    "endpoints": partial(_if_given, module="spec.mounts", check="parse_endpoints"),
    "spec_overrides": partial(_if_given, module="spec.rendering", check="validate_overrides"),
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
    "log_interval": _validate_log_interval,
    "queue_timeout": partial(_validate_limit, field="queue_timeout"),
    "timeout": partial(_validate_limit, field="timeout"),
    "on_finish": partial(_validate_choice, field="on_finish", allowed=get_args(OnFinish)),
    "on_kill_action": partial(_validate_choice, field="on_kill_action", allowed=(*get_args(OnKillAction), None)),
    "cancel_on_kill": partial(_validate_flag, field="cancel_on_kill"),
    "durable": partial(_validate_flag, field="durable"),
    "skip_on_exit_code": partial(exit_codes, field="skip_on_exit_code"),
    "fail_on_exit_code": partial(exit_codes, field="fail_on_exit_code"),
}
