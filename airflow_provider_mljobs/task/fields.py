"""The fields of a task: the operator's attributes, and the checks that run while the DAG is parsed."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from importlib import import_module
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from airflow.sdk import XComArg

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.names import PLACEHOLDER, Identifier, StagePath
from airflow_provider_mljobs.jobs.values.escaping import validate_text
from airflow_provider_mljobs.task.airflow_internals import LazyXComSequence

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import BaseOperator

    from airflow_provider_mljobs.jobs.payload.functions import Serializer
    from airflow_provider_mljobs.jobs.values.arguments import Arguments

OnFinish = Literal["drop", "drop_on_success", "keep"]
OnKillAction = Literal["cancel", "drop", "none"]

# Fields that a service specification of the user's own replaces.
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
    "ray",
    "volumes",
    "endpoints",
    "spec_overrides",
    "log_level",
    "managed",
    "query_tag",
)
_SPECIFICATION_FILES = (".yaml", ".yml", ".json")
_MAX_EXIT_CODE = 255


@dataclass(frozen=True, kw_only=True)
class JobFields:
    """The fields of a task.

    Most are the parameters of :class:`~airflow_provider_mljobs.operators.MLJobOperator`, in which Airflow may not have
    rendered the templates yet. The others are:

    :param folder: the folder in which relative paths start: that of the DAG file.
    :param is_in_dag: whether the task belongs to a DAG, so that its files lie in ``folder``.
    """

    task_id: str
    dag_id: str
    folder: Path
    is_in_dag: bool
    outlets: Collection[Any]
    do_xcom_push: bool
    multiple_outputs: bool
    execution_timeout: timedelta | None
    function: Callable[..., Any] | None
    source: Any
    spec: Any
    using: Mapping[str, Any] | None
    entrypoint: Any
    args: Any
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    imports: Sequence[Any]
    serializer: Serializer
    compute_pool: str
    stage_name: str | None
    env_vars: Mapping[str, str] | None
    secrets: Mapping[str, Any] | None
    pip_requirements: Sequence[str]
    artifact_repositories: Sequence[str]
    runtime_environment: str | None
    target_instances: int
    min_instances: int | None
    parallel: bool
    ray: bool | None
    volumes: Mapping[str, Any] | None
    endpoints: Sequence[Mapping[str, Any]]
    spec_overrides: Mapping[str, Any] | None
    enable_metrics: bool
    log_level: str | None
    managed: bool | None
    comment: str | None
    query_tag: str | None
    database: str | None
    schema: str | None
    query_warehouse: str | None
    external_access_integrations: Sequence[str]
    snowflake_conn_id: str
    wait_for_completion: bool
    deferrable: bool
    poll_interval: float
    log_interval: float
    queue_timeout: float | timedelta | None
    timeout: float | timedelta | None
    on_finish: OnFinish
    skip_on_exit_code: int | Collection[int] | None
    fail_on_exit_code: int | Collection[int] | None
    cancel_on_kill: bool
    on_kill_action: OnKillAction | None
    durable: bool

    @classmethod
    def of(cls, operator: BaseOperator) -> Self:
        """Read the attributes of an operator."""
        dag = operator.get_dag()
        values: dict[str, Any] = {each.name: getattr(operator, each.name, None) for each in dataclasses.fields(cls)}
        folder = Path(dag.fileloc).parent if dag is not None and dag.fileloc else Path()
        return cls(**{**values, "folder": folder, "is_in_dag": dag is not None, "kwargs": {}})

    @property
    def kill_action(self) -> OnKillAction:
        """The fate of the job when a user ends the task."""
        if not self.cancel_on_kill:
            return "none"
        # A user's kill is no success, so "drop_on_success" keeps the job.
        return self.on_kill_action or ("drop" if self.on_finish == "drop" else "cancel")

    @property
    def takes_failures(self) -> bool:
        """Whether the exit code of a failed job may decide how the task ends."""
        return self.skip_on_exit_code is not None or self.fail_on_exit_code is not None

    @property
    def importable(self) -> tuple[str, ...]:
        """The names under which a function imports the modules that travel with it."""
        return tuple(name or PurePath(path).stem for path, name in templatable_imports(self.imports))

    def drops(self, *, is_success: bool, is_killed: bool = False) -> bool:
        """Return whether the task drops a job that is over."""
        if is_killed:
            return self.kill_action == "drop"
        return self.on_finish == "drop" or (self.on_finish == "drop_on_success" and is_success)

    def pack_arguments(self) -> Arguments:
        """Pack the payload's arguments."""
        # Imported here, as all code for a kind of payload: a DAG file loads only the code for its own payloads.
        from airflow_provider_mljobs.jobs.values.arguments import Arguments

        if self.function is None:
            return Arguments.of_script(self.args, to_process=self._is_command)
        return Arguments.of_function(
            self.function,
            resolved(self.args),
            resolved(self.kwargs),
            serializer=self.serializer,
            importable=self.importable,
        )

    def with_specification(self, render: Callable[[str], Any] = str) -> Self:
        """Return the fields with the text of a specification's file in place of the file's name."""
        if not is_specification_file(self.spec):
            return self
        path = self.folder / str(self.spec)
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidJobSpecError(f"spec {str(self.spec)!r} can't be read from {path}: {error}.") from error
        return dataclasses.replace(self, spec=render(text))

    def validate(self) -> None:
        """Check the fields while the DAG is parsed; fields with templates wait until these are rendered."""
        for name, check in _CHECKS.items():
            if is_known(value := getattr(self, name)):
                check(value)
        if self.min_instances is not None or self.ray is not None:
            from airflow_provider_mljobs.jobs.spec.job import validate_instances

            validate_instances(self.target_instances, self.min_instances, ray=self.ray, parallel=self.parallel)
        if not self.cancel_on_kill and self.on_kill_action not in {None, "none"}:
            raise InvalidJobSpecError(
                f"on_kill_action={self.on_kill_action!r} ends the job, cancel_on_kill=False doesn't; leave one of them."
            )
        self._refuse_contradictions()
        if self.is_in_dag and self.imports and is_known(self.imports):
            from airflow_provider_mljobs.jobs.payload.imports import validate_imports
            from airflow_provider_mljobs.jobs.payload.sources import Place

            validate_imports(self.imports, Place(folder=self.folder))
        if self.function is not None:
            self._validate_function(self.function)
        elif self.spec is None and is_known(self.source) and is_known(self.entrypoint):
            self._validate_source()

    @property
    def _is_command(self) -> bool:
        return isinstance(self.entrypoint, list | tuple)

    def _refuse_contradictions(self) -> None:
        if (self.spec is None) == (self.source is None):
            raise InvalidJobSpecError(
                "A task runs either a source (a function, a file, a directory, a stage path, a GitSource) or a spec, a "
                f"service specification of your own; this one has {'neither' if self.spec is None else 'both'}."
            )
        if self.spec is not None:
            # default_args may name a stage for other tasks.
            refused = [name for name in _FOR_SOURCES if getattr(self, name)]
            refused += [] if self.enable_metrics else ["enable_metrics"]
            if refused:
                raise InvalidJobSpecError(
                    f"{', '.join(refused)} can't be given with spec: write what you mean into the specification."
                )
        elif self.stage_name is None:
            raise InvalidJobSpecError("stage_name is missing: a source needs a stage for its payload and its result.")
        if self.using is not None and self.spec is None:
            raise InvalidJobSpecError("using is for the variables of a spec; a source takes args.")
        if self.function is not None and self.entrypoint is not None:
            raise InvalidJobSpecError(f"entrypoint {self.entrypoint!r} is for a directory; source is a callable.")
        if self.function is None and self.serializer != "auto":
            raise InvalidJobSpecError(f"serializer={self.serializer!r} is for a callable; source is none.")

    def _validate_function(self, function: Callable[..., Any]) -> None:
        from airflow_provider_mljobs.jobs.payload.functions import pack, refuse_empty

        refuse_empty(function)
        # The imports decide which names the function and its arguments may use.
        if not is_known(self.imports):
            return
        if self.serializer == "source":
            pack(function, "source", self.importable)
        if is_known(self.args) and is_known(self.kwargs):
            self.pack_arguments()

    def _validate_source(self) -> None:
        from airflow_provider_mljobs.jobs.payload.git import GitSource
        from airflow_provider_mljobs.jobs.payload.sources import is_on_stage, locate, validate_source

        if self.args != () and is_known(self.args):
            from airflow_provider_mljobs.jobs.values.arguments import script_arguments

            script_arguments(self.args, to_process=self._is_command)
        source = GitSource(**self.source) if isinstance(self.source, dict) else self.source
        validate_source(source, self.entrypoint)
        # A task without a DAG says nothing about where it will run.
        if self.is_in_dag and not isinstance(source, GitSource) and not is_on_stage(source):
            locate(self.folder / source, self.entrypoint)


def is_known(value: Any) -> bool:
    """Return whether a templated field already holds its final value."""
    if isinstance(value, str):
        return "{{" not in value and "{%" not in value
    if isinstance(value, Mapping):
        return all(is_known(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(is_known(item) for item in value)
    # An XComArg is another task's result, which Airflow resolves before this task runs.
    return not isinstance(value, XComArg)


def resolved(value: Any) -> Any:
    """Return an argument without the types that only Airflow can read.

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
    """Refuse a field that holds no text and no path."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value).strip():
        raise InvalidJobSpecError(f"{field} is missing: got {value!r}.")
    return value


def identifier(value: Any, field: str) -> Identifier:
    """Read a required name."""
    return Identifier.parse(text(value, field), field)


def optional_identifier(value: Any, field: str) -> Identifier | None:
    """Read a name that has a default."""
    return identifier(value, field) if value else None


def integrations(value: Any, field: str = "external_access_integrations") -> tuple[Identifier, ...]:
    """Read a list of names, and refuse one text, which would be a list of its characters."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidJobSpecError(f"{field} must be a list of names, got {value!r}.")
    return tuple(identifier(name, field) for name in value)


def exit_codes(value: Any, field: str) -> tuple[int, ...]:
    """Read an exit code, several, or ``None``.

    :raises InvalidJobSpecError: if no failed job can have it.
    """
    codes = () if value is None else tuple(value) if isinstance(value, Collection) else (value,)
    wrong = [code for code in codes if type(code) is not int or not 1 <= code <= _MAX_EXIT_CODE]
    if isinstance(value, str | bytes | Mapping) or wrong:
        raise InvalidJobSpecError(f"{field} takes exit codes from 1 to {_MAX_EXIT_CODE}, one or a list; got {value!r}.")
    return codes


def templatable(source: Any) -> Any:
    """Return a source as a template field can hold it; Airflow would call a callable as a template."""
    if callable(source):
        from airflow_provider_mljobs.jobs.payload.functions import called

        return called(source)
    if source is None or isinstance(source, str):
        return source
    from airflow_provider_mljobs.jobs.payload.git import GitSource

    return dataclasses.asdict(source) if isinstance(source, GitSource) else source


def templatable_imports(imports: Sequence[Any]) -> Sequence[Any]:
    """Return imports as a template field can hold them: the files of modules instead of the modules."""
    if imports == () or not is_known(imports):
        return imports
    from airflow_provider_mljobs.jobs.payload.imports import plain

    return plain(imports)


def seconds(limit: float | timedelta | None) -> float | None:
    """Return a limit in seconds."""
    return limit.total_seconds() if isinstance(limit, timedelta) else limit


def is_specification_file(spec: object) -> bool:
    """Return whether a task's spec names a local file."""
    return isinstance(spec, str) and spec.endswith(_SPECIFICATION_FILES) and "\n" not in spec and spec[:1] != "@"


def _validate_interval(value: Any) -> None:
    if not _is_number(value) or not value > 0:
        raise InvalidJobSpecError(f"poll_interval must be more than 0 seconds, got {value!r}.")


def _validate_log_interval(value: Any) -> None:
    if not _is_number(value) or not 0 <= value < math.inf:
        raise InvalidJobSpecError(f"log_interval must be a number of seconds, or 0 for none, got {value!r}.")


def _validate_limit(value: Any, *, field: str) -> None:
    limit = seconds(value)
    if limit is not None and (not _is_number(limit) or not 0 < limit < math.inf):
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
        from airflow_provider_mljobs.jobs.spec.refusals import check
        from airflow_provider_mljobs.jobs.spec.specification import parse

        check(parse(value))
    elif value is not None:
        text(value, "spec")


def _if_given(value: Any, *, module: str, check: str, default: Any = None) -> None:
    """Check a rare field with a module that only its DAG files load."""
    if value is not default:
        getattr(import_module(f"airflow_provider_mljobs.jobs.{module}"), check)(value)


_CHECKS: Mapping[str, Callable[[Any], object]] = {
    "compute_pool": partial(identifier, field="compute_pool"),
    "stage_name": _validate_stage,
    "spec": _validate_spec,
    "using": partial(_if_given, module="spec.specification", check="validate_using"),
    "imports": partial(_if_given, module="payload.imports", check="validate_imports", default=()),
    "database": partial(optional_identifier, field="database"),
    "schema": partial(optional_identifier, field="schema"),
    "query_warehouse": partial(optional_identifier, field="query_warehouse"),
    "external_access_integrations": integrations,
    "env_vars": lambda value: _if_given(value or None, module="spec.job", check="validate_env_vars"),
    "secrets": partial(_if_given, module="spec.secrets", check="parse_secrets"),
    "volumes": partial(_if_given, module="spec.mounts", check="parse_volumes"),
    "endpoints": partial(_if_given, module="spec.mounts", check="parse_endpoints", default=()),
    "spec_overrides": partial(_if_given, module="spec.rendering", check="validate_overrides"),
    "pip_requirements": partial(_if_given, module="payload.requirements", check="validate_requirements", default=()),
    "runtime_environment": partial(_if_given, module="spec.job", check="validate_runtime_environment"),
    "log_level": partial(_if_given, module="spec.job", check="validate_log_level"),
    "artifact_repositories": partial(_if_given, module="spec.job", check="validate_artifact_repositories", default=()),
    "serializer": partial(_if_given, module="payload.functions", check="validate_serializer", default="auto"),
    "comment": partial(_validate_text, field="comment"),
    "query_tag": partial(_validate_text, field="query_tag"),
    **{
        name: partial(_validate_flag, field=name)
        for name in ("enable_metrics", "parallel", "cancel_on_kill", "durable")
    },
    **{name: partial(_validate_flag, field=name, allowed=(True, False, None)) for name in ("managed", "ray")},
    "target_instances": partial(_if_given, module="spec.job", check="validate_instances", default=1),
    "poll_interval": _validate_interval,
    "log_interval": _validate_log_interval,
    **{name: partial(_validate_limit, field=name) for name in ("queue_timeout", "timeout")},
    "on_finish": partial(_validate_choice, field="on_finish", allowed=get_args(OnFinish)),
    "on_kill_action": partial(_validate_choice, field="on_kill_action", allowed=(*get_args(OnKillAction), None)),
    "skip_on_exit_code": partial(exit_codes, field="skip_on_exit_code"),
    "fail_on_exit_code": partial(exit_codes, field="fail_on_exit_code"),
}
