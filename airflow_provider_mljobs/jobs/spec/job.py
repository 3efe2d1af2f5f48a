"""How and where a job runs, as far as it is decided before the first request to Snowflake."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.payload.requirements import validate_settings
from airflow_provider_mljobs.jobs.values.escaping import is_plain, to_ascii, validate_text

if TYPE_CHECKING:
    from airflow_provider_mljobs.jobs.names import Identifier, QualifiedName, StagePath

CONTAINER = "main"
# Pools that Snowflake keeps for managed jobs; they take no plain job services.
SYSTEM_POOL_PREFIX = "SYSTEM_COMPUTE_POOL_"
LOG_LEVELS = ("INFO", "ERROR", "NONE")
# Snowflake's sources differ: 27 or 28 GiB for GPU_NV_S, 54 or 58 for CPU_X64_SL. A job that requests more than its node
# has never starts, and one that requests a little less loses nothing.
NODE_MEMORY_MARGIN = 0.1
# The specification is a part of one SQL statement, which Snowflake takes up to 1 MB.
_MAX_ENV_BYTES = 500_000
_MAX_QUERY_TAG = 2000
# JSON writes a character beyond 16 bits as two surrogates, and YAML doesn't join them again.
_UNSPECIFIABLE = re.compile("[\ud800-\udfff\U00010000-\U0010ffff]")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_RESERVED_ENV = re.compile(
    # Except for the time that instances wait for each other: authors may set it.
    r"MLRS_(?!INSTANCES_(TIMEOUT|MIN_WAIT|CHECK_INTERVAL)$).*|MLJOBS_.*|SNOWFLAKE_(HOST|ACCOUNT|DATABASE|SCHEMA|SERVICE_NAME|JOBS_COUNT|JOB_INDEX)"
)
_RUNTIME = re.compile(r"/?[A-Za-z0-9][A-Za-z0-9._:/@-]*")
# The tags of Snowflake's own images; those of others may mean anything.
_PYTHON_SUFFIX = re.compile(r"/snowflake/images/.*:[^/]*-py(\d)(\d+)")
# A reference to a custom runtime environment, which Snowflake resolves for managed jobs only.
CUSTOM_RUNTIME_PREFIX = "cre@"


@dataclass(frozen=True, kw_only=True)
class Resources:
    """The resources of a node that containers can use.

    :param family: the instance family, or several, for messages.
    """

    cpu: int
    memory_gib: int
    gpu: int = 0
    family: str = ""


@dataclass(frozen=True, kw_only=True)
class RuntimeImage:
    """The image of a job.

    :param path: its path, or a reference ``cre@…``.
    :param refusal: Snowflake's refusal of an image for the worker's Python; empty if there was none.
    """

    path: str
    refusal: str = ""

    @property
    def python(self) -> str | None:
        """The Python that the image's tag names, e.g. ``3.11`` for ``2.9.0-py311``; ``None`` if it names none."""
        suffix = _PYTHON_SUFFIX.fullmatch(self.path)
        return None if suffix is None else f"{suffix[1]}.{suffix[2]}"

    def __str__(self) -> str:
        with_python = f", with Python {self.python}" if self.python else ""
        other = ". Snowflake has none with the Python of this worker" if self.refusal else ""
        return f"{self.path}{with_python}{other}"


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """The runtime that Snowflake resolves for a pool.

    :param image: the image of the ML runtime; a reference ``cre@…`` only runs as a managed job.
    :param resources: of a node of the pool's instance family, because an ML job takes the whole node.
    :param smallest: the least of each resource that a node may have, where the pool has backup instance families.
    """

    image: str
    resources: Resources
    smallest: Resources | None = None

    @property
    def node(self) -> Resources:
        """The resources that any node has on which the job may run."""
        return self.smallest or self.resources


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """How and where to run a payload or the author's own service specification.

    :param stage: for payloads and results; ``None`` for the author's own specification.
    :param env_vars: environment of the payload; any text but NUL.
    :param min_instances: the number of instances to start with; all by default.
    :param parallel: whether each instance runs the entrypoint; otherwise the first does, and the others serve Ray.
    :param ray: whether the only instance starts Ray; the payload's imports decide by default.
    :param runtime_environment: tag or image of the runtime; Snowflake's choice by default.
    :param secrets: entries of the container's ``secrets``.
    :param spec_overrides: changes to the specification, merged by names of containers and volumes.
    :param log_level: which streams an event table keeps: one of ``LOG_LEVELS``; the account's default if ``None``.
    :param managed: whether SYSTEM$EXECUTE_ML_JOB starts it instead of EXECUTE JOB SERVICE.
    :param node_memory_margin: the share of a node's memory that its container doesn't request; its limit is all of it.
    :param query_tag: QUERY_TAG of the sessions inside the job.
    :param comment: the task that submitted the job, so that a later try finds it.
    """

    name: QualifiedName
    compute_pool: Identifier
    stage: StagePath | None = None
    query_warehouse: Identifier | None = None
    external_access_integrations: tuple[Identifier, ...] = ()
    env_vars: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    target_instances: int = 1
    min_instances: int | None = None
    parallel: bool = False
    ray: bool | None = None
    runtime_environment: str | None = None
    secrets: Sequence[Mapping[str, Any]] = ()
    volumes: Sequence[Mapping[str, Any]] = ()
    volume_mounts: Sequence[Mapping[str, Any]] = ()
    endpoints: Sequence[Mapping[str, Any]] = ()
    spec_overrides: Mapping[str, Any] | None = None
    enable_metrics: bool = True
    log_level: str | None = None
    artifact_repositories: Sequence[str] = ()
    managed: bool = False
    node_memory_margin: float = NODE_MEMORY_MARGIN
    query_tag: str = ""
    comment: str = ""

    def __post_init__(self) -> None:
        """Refuse jobs that Snowflake would refuse later, or would run wrongly."""
        if not all(part.is_bare for part in (self.name.database, self.name.schema, self.name.name)):
            raise InvalidJobSpecError(
                f"A job can't have the name {self.name}: Snowflake accepts no quoted names for a job or for its "
                "database and schema. Choose a database and schema with upper-case names."
            )
        if not self.compute_pool.is_bare:
            raise InvalidJobSpecError(f"compute_pool {self.compute_pool} isn't valid: names of pools can't be quoted.")
        if self.stage is not None and _UNSPECIFIABLE.search(str(self.stage)):
            raise InvalidJobSpecError(f"{self.stage} can't be written into a specification; use a path without emoji.")
        validate_instances(self.target_instances, self.min_instances, ray=self.ray, parallel=self.parallel)
        validate_env_vars(self.env_vars)
        validate_text(self.comment, "comment")
        if not 0 <= self.node_memory_margin < 1:
            raise InvalidJobSpecError(
                f"[mljobs] node_memory_margin must be from 0 to less than 1, e.g. {NODE_MEMORY_MARGIN}; got "
                f"{self.node_memory_margin:g}."
            )
        validate_query_tag(self.query_tag)
        self._validate_managed()

    def _validate_managed(self) -> None:
        is_system_pool = self.compute_pool.value.startswith(SYSTEM_POOL_PREFIX)
        if is_system_pool and not self.managed:
            raise InvalidJobSpecError(
                f"compute_pool {self.compute_pool} is a system pool, which runs only managed ML jobs: leave managed "
                "out, or choose another pool. A task with spec needs another pool, too."
            )
        if self.artifact_repositories and not self.managed:
            raise InvalidJobSpecError(
                "artifact_repositories needs a managed job: leave managed out, or set it to True."
            )
        if self.managed:
            given = {"volumes": self.volumes, "endpoints": self.endpoints, "log_level": self.log_level}
            if refused := [name for name, value in given.items() if value]:
                raise InvalidJobSpecError(
                    f"{' and '.join(refused)} can't be given to a managed job: Snowflake writes its specification. "
                    "Set managed=False and choose a compute pool of your own."
                )


def is_managed(
    compute_pool: Identifier,
    *,
    managed: bool | None,
    artifact_repositories: Sequence[str],
    runtime_environment: str | None = None,
) -> bool:
    """Decide whether to submit a managed job: as the caller chooses, or as pool and features require."""
    if managed is not None:
        return managed
    is_custom = (runtime_environment or "").lower().startswith(CUSTOM_RUNTIME_PREFIX)
    return compute_pool.value.startswith(SYSTEM_POOL_PREFIX) or bool(artifact_repositories) or is_custom


def validate_instances(
    target_instances: object, min_instances: object = None, *, ray: bool | None = None, parallel: bool = False
) -> None:
    """Refuse instance counts that no job can have, and a choice of Ray that contradicts them."""
    _whole_number(target_instances, "target_instances")
    if ray and parallel:
        raise InvalidJobSpecError(
            "ray=True is for one entrypoint, parallel=True runs the entrypoint on every instance: remove one of them."
        )
    if ray is False and target_instances != 1 and not parallel:
        raise InvalidJobSpecError(
            f"ray=False, but Ray connects the instances of target_instances={target_instances}: remove it, or set "
            "parallel=True to run the entrypoint on every instance."
        )
    if min_instances is None:
        return
    _whole_number(min_instances, "min_instances")
    if isinstance(target_instances, int) and isinstance(min_instances, int) and min_instances > target_instances:
        raise InvalidJobSpecError(
            f"min_instances={min_instances} is more than target_instances={target_instances}: the job starts when "
            "min_instances of the target_instances are there."
        )


def _whole_number(value: object, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidJobSpecError(f"{what} must be a whole number of at least 1, got {value!r}.")


def validate_runtime_environment(value: object) -> None:
    """Refuse a runtime environment that is neither a tag nor an image."""
    if value is not None and (not isinstance(value, str) or not _RUNTIME.fullmatch(value)):
        raise InvalidJobSpecError(
            f"runtime_environment {value!r} is neither a version, e.g. '2.9.0' or '2.9.0-py311', nor an image, "
            "e.g. '/db/schema/repository/image:tag', nor a custom runtime environment, e.g. 'cre@name'."
        )


def validate_query_tag(value: str) -> None:
    """Refuse a text that can't be the QUERY_TAG of a session."""
    validate_text(value, "query_tag")
    if len(value) > _MAX_QUERY_TAG:
        raise InvalidJobSpecError(
            f"query_tag has {len(value)} characters; Snowflake accepts {_MAX_QUERY_TAG}. Shorten it."
        )


def validate_log_level(value: object) -> None:
    """Refuse anything but a log level of an event table."""
    if value is not None and value not in LOG_LEVELS:
        raise InvalidJobSpecError(f"log_level must be one of {', '.join(LOG_LEVELS)}; got {value!r}.")


def validate_artifact_repositories(value: object) -> None:
    """Refuse anything but a list of names."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
        raise InvalidJobSpecError(
            f"artifact_repositories must be a list of names, e.g. ['snowflake.snowpark.pypi_shared_repository']; "
            f"got {value!r}."
        )


def validate_env_vars(env_vars: object) -> None:
    """Refuse variables that no process can have, and those that the job needs to find its payload and its result."""
    if not isinstance(env_vars, Mapping):
        # Without the value, which may hold secrets.
        raise InvalidJobSpecError(f"env_vars must map names to text, got a value of type {type(env_vars).__name__}.")
    for name, value in env_vars.items():
        validate_env_name(name, "env_vars")
        if not isinstance(value, str):
            raise InvalidJobSpecError(f"env_vars[{name!r}] is of type {type(value).__name__}; write it as a string.")
        validate_text(value, f"env_vars[{name!r}]")
    validate_settings(env_vars, "env_vars")
    size = sum(len(f"{name}={value}".encode()) for name, value in env_vars.items())
    if size > _MAX_ENV_BYTES:
        raise InvalidJobSpecError(
            f"env_vars have {size} bytes together, more than the {_MAX_ENV_BYTES} that fit into a specification; "
            "put them into a file of the source or on a stage."
        )
    # Together they are one variable of the container.
    validate_text(to_ascii(encoded(env_vars)), "env_vars, with what isn't plain ASCII in it written as JSON,")


def validate_env_name(name: object, what: str) -> None:
    """Refuse a name that no variable can have, or that the job needs itself."""
    if not isinstance(name, str) or not _ENV_NAME.fullmatch(name):
        raise InvalidJobSpecError(f"{name!r} in {what} can't be the name of an environment variable.")
    if _RESERVED_ENV.fullmatch(name):
        raise InvalidJobSpecError(f"{name!r} in {what} is set by Snowflake or by the provider; remove it.")


def encoded(env_vars: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a specification can't carry as they are."""
    return {name: value for name, value in env_vars.items() if not is_plain(value)}
