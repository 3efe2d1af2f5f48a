"""How and where a job runs, and the service specification that says so."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.payload import ARCHIVE
from airflow_provider_mljobs.jobs.transport import is_plain, to_ascii, validate_text

if TYPE_CHECKING:
    from airflow_provider_mljobs.jobs.identifiers import Identifier, QualifiedName, StagePath
    from airflow_provider_mljobs.jobs.payload import Payload

CONTAINER = "main"
STAGE_VOLUME = "stage-volume"
MOUNT_PATH = "/mnt/job_stage"
RESULT_PATH = "output/mljob_result"
# The ML runtime image sets up its Python environment in here and then runs the arguments.
IMAGE_ENTRYPOINT = "/usr/local/bin/_entrypoint.sh"
_SHARED_MEMORY_SHARE = 0.3
# The specification is a part of one SQL statement, which Snowflake takes up to 1 MB.
_MAX_ENV_BYTES = 500_000
# JSON writes what is beyond these as two halves, which YAML doesn't join again.
_SPECIFIABLE = re.compile("[\x00-\ud7ff\ue000-\uffff]*")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_RESERVED_ENV = re.compile(
    r"MLRS_.*|MLJOBS_.*|SNOWFLAKE_(HOST|ACCOUNT|DATABASE|SCHEMA|SERVICE_NAME|JOBS_COUNT|JOB_INDEX)"
)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a node of an instance family gives to containers.

    :param cpu: cores.
    :param memory_gib: memory, in GiB.
    :param gpu: GPUs.
    """

    cpu: int
    memory_gib: int
    gpu: int = 0


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What Snowflake resolves for a pool before a job can be described.

    :param image: the image of the ML runtime.
    :param resources: the node's resources: an ML job takes the whole node.
    """

    image: str
    resources: Resources

    def __post_init__(self) -> None:
        """Refuse a reference that only Snowflake's own way of submitting can resolve (``snowflake.ml.jobs`` 2.6)."""
        if self.image.lower().startswith("cre@"):
            raise InvalidJobSpecError(
                f"Snowflake runs ML jobs of this compute pool in {self.image!r}, which is no image: a plain job "
                "service, as this version submits it, can't use that. Choose another compute pool."
            )


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """How and where to run a payload: everything that is known before Snowflake is asked.

    :param name: fully qualified name of the job.
    :param compute_pool: the pool that runs it.
    :param directory: the job's own directory on the stage: payload, result and what the payload saves.
    :param query_warehouse: warehouse of the session inside the job, if the payload runs queries.
    :param external_access_integrations: what the job may reach outside Snowflake.
    :param env_vars: environment of the payload; any text but NUL.
    :param target_instances: number of instances.
    :param comment: who submitted the job, for people and for finding it again.
    """

    name: QualifiedName
    compute_pool: Identifier
    directory: StagePath
    query_warehouse: Identifier | None = None
    external_access_integrations: tuple[Identifier, ...] = ()
    env_vars: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    target_instances: int = 1
    comment: str = ""

    def __post_init__(self) -> None:
        """Refuse what Snowflake would refuse later, or would run wrongly."""
        if not all(part.is_bare for part in (self.name.database, self.name.schema, self.name.name)):
            raise InvalidJobSpecError(
                f"A job can't be called {self.name}: Snowflake takes no quoted names, neither for a job "
                "nor for its database and schema. Choose a database and schema with upper-case names."
            )
        if not self.compute_pool.is_bare:
            raise InvalidJobSpecError(f"compute_pool {self.compute_pool} can't be a pool: pools have no quoted names.")
        if not _SPECIFIABLE.fullmatch(str(self.directory)):
            raise InvalidJobSpecError(
                f"{self.directory} can't be written into a specification: no emoji in stage paths."
            )
        validate_instances(self.target_instances)
        validate_env_vars(self.env_vars)

    def specification(self, payload: Payload, runtime: Runtime) -> dict[str, Any]:
        """Build the service specification: one container of the ML runtime that starts the payload's archive."""
        request: dict[str, Any] = {
            "cpu": f"{runtime.resources.cpu * 1000}m",
            "memory": f"{runtime.resources.memory_gib}Gi",
        }
        if runtime.resources.gpu:
            request["nvidia.com/gpu"] = runtime.resources.gpu
        shared_memory = math.ceil(runtime.resources.memory_gib * _SHARED_MEMORY_SHARE)
        container = {
            "name": CONTAINER,
            "image": runtime.image,
            "command": [IMAGE_ENTRYPOINT],
            "args": ["python", f"{MOUNT_PATH}/{ARCHIVE}"],
            "env": self._environment(payload),
            "resources": {"requests": request, "limits": request},
            "volumeMounts": [
                {"name": "dshm", "mountPath": "/dev/shm"},  # noqa: S108 (a path in the container)
                {"name": STAGE_VOLUME, "mountPath": MOUNT_PATH},
            ],
        }
        volumes = [
            {"name": "dshm", "source": "memory", "size": f"{shared_memory}Gi"},
            {"name": STAGE_VOLUME, "source": "stage", "stageConfig": {"name": str(self.directory)}},
        ]
        return {"spec": {"containers": [container], "volumes": volumes}}

    def _environment(self, payload: Payload) -> dict[str, str]:
        contract = {
            "MLRS_STAGE_MOUNT_PATH": MOUNT_PATH,
            "MLRS_STAGE_RESULT_PATH": MOUNT_PATH,
            "MLRS_RESULT_PATH": RESULT_PATH,
        }
        if payload.arguments is not None:
            contract["MLJOBS_ARGS"] = payload.arguments
        encoded = _encoded(self.env_vars)
        plain = {name: value for name, value in self.env_vars.items() if name not in encoded}
        if encoded:
            contract["MLJOBS_ENV"] = to_ascii(encoded)
        return {**plain, **contract}


def render(specification: Mapping[str, Any]) -> str:
    """Write a specification as JSON, which is YAML too; the text holds no ``$``, so it fits into ``$$ … $$``."""
    return to_ascii(specification)


def validate_instances(target_instances: object) -> None:
    """Refuse an instance count that no job can have."""
    if isinstance(target_instances, bool) or not isinstance(target_instances, int) or target_instances < 1:
        raise InvalidJobSpecError(f"target_instances must be a whole number from 1 on, got {target_instances!r}.")
    if target_instances > 1:
        raise InvalidJobSpecError(
            f"target_instances={target_instances} is not supported yet: this version runs each job on one instance."
        )


def validate_env_vars(env_vars: object) -> None:
    """Refuse variables that no process can have, and those by which the job finds its payload and its result."""
    if not isinstance(env_vars, Mapping):
        raise InvalidJobSpecError(f"env_vars must map names to text, got {env_vars!r}.")
    for name, value in env_vars.items():
        if not isinstance(name, str) or not _ENV_NAME.fullmatch(name):
            raise InvalidJobSpecError(f"{name!r} in env_vars can't be the name of an environment variable.")
        if _RESERVED_ENV.fullmatch(name):
            raise InvalidJobSpecError(f"{name!r} in env_vars is set by the platform or by this provider; take it out.")
        if not isinstance(value, str):
            raise InvalidJobSpecError(f"env_vars[{name!r}] is of type {type(value).__name__}; write it as a string.")
        validate_text(value, f"env_vars[{name!r}]")
    size = sum(len(f"{name}={value}".encode()) for name, value in env_vars.items())
    if size > _MAX_ENV_BYTES:
        raise InvalidJobSpecError(
            f"env_vars have {size} bytes together, more than the {_MAX_ENV_BYTES} that fit into a specification; "
            "put them into a file of the source or on a stage."
        )
    # Together they are one variable of the container.
    validate_text(to_ascii(_encoded(env_vars)), "env_vars, with what isn't plain ASCII in it written as JSON,")


def _encoded(env_vars: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env_vars.items() if not is_plain(value)}
