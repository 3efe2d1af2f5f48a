"""A job spec in the two forms that Snowflake accepts: a service specification, and the options of a managed job.

Both start the same archive with the same environment, and so the same launcher with the same result. The container is
like that of ``snowflake.ml.jobs``, so that Snowflake's client and Snowsight understand it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, UnreadableError
from airflow_provider_mljobs.jobs.payload.archive import ARCHIVE
from airflow_provider_mljobs.jobs.spec.job import CONTAINER, CUSTOM_RUNTIME_PREFIX, encoded
from airflow_provider_mljobs.jobs.spec.specification import merge
from airflow_provider_mljobs.jobs.untrusted import read_json
from airflow_provider_mljobs.jobs.values.escaping import to_ascii
from airflow_provider_mljobs.launcher.contract import (
    MLJOBS_ARGS,
    MLJOBS_ENV,
    MLJOBS_PARALLEL,
    MLJOBS_QUERY_TAG,
    MLJOBS_RAY,
    MLRS_MIN_INSTANCES,
    MLRS_RESULT_PATH,
    MLRS_STAGE_MOUNT_PATH,
    MLRS_STAGE_RESULT_PATH,
    PORTS,
    RESULT_FILE,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_mljobs.jobs.names import StagePath
    from airflow_provider_mljobs.jobs.spec.job import JobSpec, Resources, Runtime
    from airflow_provider_mljobs.jobs.values.arguments import Arguments

STAGE_VOLUME, RESULT_VOLUME, SHARED_MEMORY = "stage-volume", "result-volume", "dshm"
# An override that points these elsewhere could make the task delete other files with its own rights.
PROTECTED_VOLUMES = (STAGE_VOLUME, RESULT_VOLUME, SHARED_MEMORY)
_merge = partial(merge, protected=PROTECTED_VOLUMES, required_containers=(CONTAINER,))
STAGE_MOUNT, RESULT_MOUNT = "/mnt/job_stage", "/mnt/job_result"
# The beginning of the archive is a shell script, which finds the entrypoint and the Python of any image. The command
# replaces the image's own entrypoint, which may do anything with arguments.
_COMMAND, _ARGS = ("/bin/sh",), (f"{STAGE_MOUNT}/{ARCHIVE}",)
# Snowflake itself names the entrypoint of a managed job's image.
_MANAGED_ARGS = ("python", *_ARGS)
_SHARED_MEMORY_SHARE = 0.3
_METRICS = ("system", "system_limits", "status", "network", "storage")
# The others connect to the first instance. Snowflake's own client asks for this order; the reference doesn't have it.
START_ORDER = {"controlPolicy": {"startupOrder": {"type": "FirstInstance"}}}
# Instances reach each other only on declared ports. The names are those of the ML runtime.
_RAY_ENDPOINTS = {
    "ray-client-server": "HEAD_CLIENT_SERVER_PORT",
    "ray-gcs": "HEAD_GCS_PORT",
    "ray-dashboard-grpc": "HEAD_DASHBOARD_GRPC_PORT",
    "ray-object-manager": "OBJECT_MANAGER_PORT",
    "ray-node-manager": "NODE_MANAGER_PORT",
    "ray-runtime-agent": "RUNTIME_ENV_AGENT_PORT",
    "ray-dashboard-agent-grpc": "DASHBOARD_AGENT_GRPC_PORT",
}
_RAY_RANGES = {
    "ephemeral-port-range": "32768-60999",
    "ray-worker-ports": f"{PORTS['MIN_WORKER_PORT']}-{PORTS['MAX_WORKER_PORT']}",
}
_RAY_ENVIRONMENT = {**{variable: str(port) for variable, port in PORTS.items()}, "ENABLE_HEALTH_CHECKS": "false"}


@dataclass(frozen=True, kw_only=True)
class SpecificationSource:
    """The place of a specification for EXECUTE JOB SERVICE: in the statement, or in a file on a stage.

    :param using: the values of a template's variables; ``None`` if it is no template.
    :param document: the specification, where the worker can read it.
    """

    text: str | None = None
    file: StagePath | None = None
    using: Mapping[str, str] | None = None
    document: Mapping[str, Any] | None = None


def specification(spec: JobSpec, payload: StagePath, arguments: Arguments, runtime: Runtime) -> dict[str, Any]:
    """Build the service specification: one container of the ML runtime that starts the payload's archive."""
    from airflow_provider_mljobs.jobs.spec.node import request_rest
    from airflow_provider_mljobs.jobs.spec.refusals import check

    if runtime.image.lower().startswith(CUSTOM_RUNTIME_PREFIX):
        raise InvalidJobSpecError(
            f"Compute pool {spec.compute_pool} has no image for jobs that aren't managed, only {runtime.image!r}: set "
            "managed=True, or choose an image with runtime_environment."
        )
    document: dict[str, Any] = {
        "containers": [_container(spec, arguments, runtime)],
        "volumes": [
            _shared_memory(runtime.node),
            _stage_volume(STAGE_VOLUME, payload),
            _stage_volume(RESULT_VOLUME, result_directory(spec, payload)),
            *spec.volumes,
        ],
    }
    if spec.target_instances > 1:
        document["resourceManagement"] = START_ORDER
    if endpoints := [*_ray_endpoints(spec), *spec.endpoints]:
        document["endpoints"] = endpoints
    if spec.log_level is not None:
        document["logExporters"] = {"eventTableConfig": {"logLevel": spec.log_level}}
    if spec.enable_metrics:
        document["platformMonitor"] = {"metricConfig": {"groups": list(_METRICS)}}
    merged = _merge({"spec": document}, spec.spec_overrides or {})
    check(merged, "The specification, with the additions of the task,")
    request_rest(merged, CONTAINER, runtime.node, spec.node_memory_margin)
    return merged


def ml_job_options(
    spec: JobSpec, payload: StagePath, arguments: Arguments, image: str | None, *, generate_suffix: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build the two options of SYSTEM$EXECUTE_ML_JOB; Snowflake builds the same specification from them.

    :param image: the runtime's image, or a reference to it; ``None`` for Snowflake's choice.
    :param generate_suffix: whether Snowflake completes the job's name, so that the statement can be repeated.
    """
    overrides: Mapping[str, Any] = spec.spec_overrides or {}
    if spec.secrets:
        secrets = {"spec": {"containers": [{"name": CONTAINER, "secrets": list(spec.secrets)}]}}
        overrides = _merge(secrets, overrides)
    options = {
        "STAGE_PATH": str(payload),
        "ARGS": list(_MANAGED_ARGS),
        "ENV_VARS": _environment(spec, arguments),
        "ENABLE_METRICS": spec.enable_metrics,
        "SPEC_OVERRIDES": dict(overrides),
        "RUNTIME": image,
        "ENABLE_STAGE_MOUNT_V2": True,
        "ARTIFACT_REPOSITORIES": list(spec.artifact_repositories) or None,
    }
    job = {
        "EXTERNAL_ACCESS_INTEGRATIONS": [str(name) for name in spec.external_access_integrations],
        "QUERY_WAREHOUSE": None if spec.query_warehouse is None else str(spec.query_warehouse),
        "TARGET_INSTANCES": spec.target_instances,
        "MIN_INSTANCES": spec.min_instances or spec.target_instances,
        "COMMENT": spec.comment or None,
        "GENERATE_SUFFIX": generate_suffix,
        "ASYNC": True,
    }
    return options, job


def unsupported_overrides(overrides: Mapping[str, Any]) -> list[str]:
    """Return the overrides that Snowflake promises nothing about for managed jobs: all but secrets of containers.

    Its own client warns of the same ones (snowflake-ml-python 2.6, ``job_definition.py``).
    """
    spec = overrides.get("spec") or {}
    keys = {f"spec.{key}" for key in spec.keys() - {"containers"}}
    for container in spec.get("containers") or ():
        keys |= {f"spec.containers[].{key}" for key in container.keys() - {"name", "secrets"}}
    return sorted({*(key for key in overrides if key != "spec"), *keys})


def validate_overrides(overrides: object) -> None:
    """Refuse overrides that no specification can take."""
    if not isinstance(overrides, dict):
        raise InvalidJobSpecError(f"spec_overrides must be a dict in the shape of a specification, got {overrides!r}.")
    containers = {"containers": [{"name": CONTAINER}], "volumes": [{"name": name} for name in PROTECTED_VOLUMES]}
    _merge({"spec": containers}, overrides)


def result_directory(spec: JobSpec, payload: StagePath) -> StagePath:
    """Return the job's directory for its result, its arguments and the files of the payload.

    It lies below the payload's directory, where Snowflake writes the results of managed jobs.
    """
    return payload / spec.name.name.value


def render(document: Mapping[str, Any]) -> str:
    """Write a document as JSON, which is YAML too; the text holds no ``$``, so it fits into ``$$ … $$``."""
    return to_ascii(document)


def _container(spec: JobSpec, arguments: Arguments, runtime: Runtime) -> dict[str, Any]:
    node = runtime.resources
    limits: dict[str, Any] = {"cpu": f"{node.cpu * 1000}m", "memory": f"{node.memory_gib}Gi"}
    # The other requests depend on the rest of the specification.
    requests = {"nvidia.com/gpu": runtime.node.gpu} if runtime.node.gpu else {}
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": runtime.image,
        "command": list(_COMMAND),
        "args": list(_ARGS),
        "env": _environment(spec, arguments),
        "resources": {"requests": requests, "limits": limits | requests},
        "volumeMounts": [
            {"name": SHARED_MEMORY, "mountPath": "/dev/shm"},  # noqa: S108 (a path in the container)
            {"name": STAGE_VOLUME, "mountPath": STAGE_MOUNT},
            {"name": RESULT_VOLUME, "mountPath": RESULT_MOUNT},
            *spec.volume_mounts,
        ],
    }
    if spec.secrets:
        container["secrets"] = list(spec.secrets)
    return container


def _environment(spec: JobSpec, arguments: Arguments) -> dict[str, str]:
    contract = {
        MLRS_STAGE_MOUNT_PATH: STAGE_MOUNT,
        MLRS_STAGE_RESULT_PATH: RESULT_MOUNT,
        MLRS_RESULT_PATH: RESULT_FILE,
    }
    if spec.target_instances > 1:
        least = spec.min_instances or spec.target_instances
        if ports := sorted(_RAY_ENVIRONMENT.keys() & spec.env_vars.keys()):
            raise InvalidJobSpecError(
                f"{', '.join(ports)} in env_vars sets the ports of the instances of a job; remove it."
            )
        contract |= _RAY_ENVIRONMENT | {MLRS_MIN_INSTANCES: str(least)}
    if spec.parallel:
        # By the first two, Snowflake's client recognises that each instance has its own result.
        contract |= {
            "MLRS_LAUNCH_BACKEND": "passthrough",
            "MLRS_SUBMITTED_TARGET_INSTANCES": str(spec.target_instances),
            MLJOBS_PARALLEL: "1",
        }
    if spec.ray is not None:
        contract[MLJOBS_RAY] = str(int(spec.ray))
    if spec.query_tag:
        contract[MLJOBS_QUERY_TAG] = to_ascii(spec.query_tag)
    if arguments.inline is not None:
        contract[MLJOBS_ARGS] = arguments.inline
    hidden = encoded(spec.env_vars)
    plain = {name: value for name, value in spec.env_vars.items() if name not in hidden}
    if hidden:
        contract[MLJOBS_ENV] = to_ascii(hidden)
    return {**plain, **contract}


def _shared_memory(resources: Resources) -> dict[str, Any]:
    size = math.ceil(resources.memory_gib * _SHARED_MEMORY_SHARE)
    return {"name": SHARED_MEMORY, "source": "memory", "size": f"{size}Gi"}


def _stage_volume(name: str, directory: StagePath) -> dict[str, Any]:
    # Snowflake serves a stage volume from a container of its own, which requests 0.5Gi unless it states otherwise. With
    # the whole node requested beside it, the job could never start.
    resources = {"requests": {"memory": "0Gi", "cpu": "0"}}
    return {"name": name, "source": "stage", "stageConfig": {"name": str(directory), "resources": resources}}


def _ray_endpoints(spec: JobSpec) -> list[dict[str, Any]]:
    if spec.target_instances == 1:
        return []
    ports = [{"name": name, "port": PORTS[variable], "protocol": "TCP"} for name, variable in _RAY_ENDPOINTS.items()]
    ranges = [{"name": name, "portRange": text, "protocol": "TCP"} for name, text in _RAY_RANGES.items()]
    return [*ports, *ranges]


def given_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return a container's variables as its code sees them, including those that travel encoded."""
    variables = dict(environment)
    try:
        hidden = read_json(variables.pop(MLJOBS_ENV, "{}"), MLJOBS_ENV)
    except UnreadableError:
        # Another program has a variable of that name.
        return dict(environment)
    if not isinstance(hidden, dict):
        return dict(environment)
    return {**variables, **{name: str(value) for name, value in hidden.items()}}
