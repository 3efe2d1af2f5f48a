"""SYSTEM$EXECUTE_ML_JOB and SYSTEM$GET_ML_JOB_RUNTIME: the functions that ``snowflake.ml.jobs`` calls."""

from __future__ import annotations

import math
import secrets
import string
import time
import uuid
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.access.needs import of
from airflow_provider_mljobs.emulator.containers.images import image_of
from airflow_provider_mljobs.emulator.parsing import QualifiedName, parse_name
from airflow_provider_mljobs.emulator.registry import Extension, Function
from airflow_provider_mljobs.emulator.spcs.job_statements import new_service_name
from airflow_provider_mljobs.emulator.spcs.jobs import JobRequest
from airflow_provider_mljobs.emulator.spcs.ml_job_options import (
    FUNCTION,
    MLJobOptions,
    invalid_argument,
    read_object,
)
from airflow_provider_mljobs.emulator.spcs.runtimes import runtime_image
from airflow_provider_mljobs.emulator.spcs.specification import build_specification

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_mljobs.emulator.containers.images import Image
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.spcs.compute_pools import ComputePools
    from airflow_provider_mljobs.emulator.spcs.instance_families import InstanceFamily
    from airflow_provider_mljobs.emulator.spcs.pool import Pool
    from airflow_provider_mljobs.emulator.spcs.service import Services
    from airflow_provider_mljobs.emulator.sql.catalog import Catalog

_STAGE_VOLUME, _RESULT_VOLUME, _SHARED_MEMORY = "stage-volume", "result-volume", "dshm"
_STAGE_PATH, _RESULT_PATH = "/mnt/job_stage", "/mnt/job_result"
_LOG_VOLUMES = {
    "system-logs": "/var/log/managedservices/system/mlrs",
    "user-logs": "/var/log/managedservices/user/mlrs",
}
_SHARED_MEMORY_SHARE = 0.3
_METRICS = ["system", "status", "network", "storage"]
_RAY_PORTS = {
    "ray-client-server": 10001,
    "ray-gcs": 12001,
    "ray-dashboard-grpc": 12002,
    "ray-object-manager": 12011,
    "ray-node-manager": 12012,
    "ray-runtime-agent": 12013,
    "ray-dashboard-agent-grpc": 12014,
}
_RAY_RANGES = {"ephemeral-port-range": "32768-60999", "ray-worker-ports": "12031-13000"}
_RAY_DASHBOARD = {"name": "ray-dashboard-endpoint", "port": 12003, "protocol": "HTTP", "public": True}
_NO_DASHBOARD = "CPU_X64_XS"
_RAY_ENVIRONMENT = {
    "HEAD_CLIENT_SERVER_PORT": "10001",
    "HEAD_GCS_PORT": "12001",
    "HEAD_DASHBOARD_GRPC_PORT": "12002",
    "HEAD_DASHBOARD_PORT": "12003",
    "OBJECT_MANAGER_PORT": "12011",
    "NODE_MANAGER_PORT": "12012",
    "RUNTIME_ENV_AGENT_PORT": "12013",
    "DASHBOARD_AGENT_GRPC_PORT": "12014",
    "DASHBOARD_AGENT_LISTEN_PORT": "12015",
    "MIN_WORKER_PORT": "12031",
    "MAX_WORKER_PORT": "13000",
    "ENABLE_HEALTH_CHECKS": "false",
}
_EXECUTE_SYNTAX = "CALL SYSTEM$EXECUTE_ML_JOB('<job id>', '<pool>', '<specification as JSON>', '<options as JSON>')"
_SUFFIX = string.ascii_uppercase + string.digits
_SUFFIX_LENGTH = 12


class MLJobs:
    """The functions of ML jobs.

    :param services: the job services of the account.
    :param pools: the pools that they run on.
    :param catalog: the databases of the account.
    :param images: images of the user's, by patterns of paths.
    """

    def __init__(self, services: Services, pools: ComputePools, catalog: Catalog, images: Mapping[str, Image]) -> None:
        self._services = services
        self._pools = pools
        self._catalog = catalog
        self._images = images

    @property
    def extension(self) -> Extension:
        """The functions."""
        runtime = "SYSTEM$GET_ML_JOB_RUNTIME"
        return Extension(
            functions=(
                Function(FUNCTION, self.execute, _EXECUTE_SYNTAX),
                Function(
                    runtime, self.get_runtime, f"CALL {runtime}('<pool>' [, '<runtime>'])", of("COMPUTE POOL", "USAGE")
                ),
            )
        )

    def get_runtime(self, _: Context, args: Sequence[Any]) -> str:
        """Answer ``SYSTEM$GET_ML_JOB_RUNTIME``."""
        function = "SYSTEM$GET_ML_JOB_RUNTIME"
        if not 1 <= len(args) <= 2:  # noqa: PLR2004
            raise invalid_argument(function, "expected a compute pool and an optional runtime")
        pool = self._pools.get(parse_name(str(args[0])).name)
        wanted = str(args[1] or "") if len(args) > 1 else ""
        if not wanted.startswith("{"):
            return runtime_image(pool, wanted or None, None)
        options = read_object(function, wanted)
        return runtime_image(pool, options.get("runtimeEnvironment"), options.get("pythonVersion"))

    def execute(self, context: Context, args: Sequence[Any]) -> str:
        """Answer ``SYSTEM$EXECUTE_ML_JOB``."""
        if len(args) != 4:  # noqa: PLR2004
            raise invalid_argument(FUNCTION, "expected job id, compute pool, specification and options")
        options = MLJobOptions.read(args[2], args[3])
        pool = self._pools.get(parse_name(str(args[1])).name)
        name = new_service_name(self._catalog, context, _job_name(str(args[0]), options))
        document = self._document(context, name, pool, options)
        asynchronous = options.job.get("ASYNC", True)
        job = self._services.submit(
            JobRequest(
                id=str(uuid.uuid4()),
                query_id=context.query_id,
                name=name,
                pool=pool.name,
                specification=build_specification(document, pool.family),
                created=time.time(),
                owner=context.session.role,
                replicas=options.instances if options.instances > 1 else None,
                asynchronous=asynchronous,
                query_warehouse=options.query_warehouse,
                comment=options.job.get("COMMENT"),
                integrations=options.integrations,
                artifact_repositories=tuple(options.spec.get("ARTIFACT_REPOSITORIES", ())),
                workload="ML_JOB",
            ),
            context.session.rights,
        )
        self._services.flush()
        if not asynchronous:
            self._services.wait_for_end(context, job)
        return str(name)

    def _document(self, context: Context, name: QualifiedName, pool: Pool, options: MLJobOptions) -> dict[str, Any]:
        """Build the specification of a job."""
        spec: dict[str, Any] = {
            "containers": [self._container(pool, options)],
            "volumes": _volumes(context, name, pool.family, options),
            "endpoints": _endpoints(pool, options),
        }
        if options.instances > 1:
            spec["resourceManagement"] = {"controlPolicy": {"startupOrder": {"type": "FirstInstance"}}}
        if options.spec.get("ENABLE_METRICS"):
            spec["platformMonitor"] = {"metricConfig": {"groups": _METRICS}}
        document: dict[str, Any] = merge({"spec": spec}, options.spec.get("SPEC_OVERRIDES", {}))
        return document

    def _container(self, pool: Pool, options: MLJobOptions) -> dict[str, Any]:
        mounts = {
            **_LOG_VOLUMES,
            _SHARED_MEMORY: "/dev/shm",  # noqa: S108 - a path of the container
            _STAGE_VOLUME: _STAGE_PATH,
            _RESULT_VOLUME: _RESULT_PATH,
        }
        resources = _whole_node(pool.family)
        image = runtime_image(pool, options.spec.get("RUNTIME"), None)
        return {
            "name": "main",
            "image": image,
            "command": list(image_of(image, self._images).entrypoint),
            "args": [str(argument) for argument in options.spec.get("ARGS", ())],
            "env": _environment(options),
            "volumeMounts": [{"name": volume, "mountPath": path} for volume, path in mounts.items()],
            "resources": {"requests": resources, "limits": resources},
        }


def _job_name(text: str, options: MLJobOptions) -> QualifiedName:
    name = parse_name(text)
    if not options.job.get("GENERATE_SUFFIX"):
        return name
    suffix = "".join(secrets.choice(_SUFFIX) for _ in range(_SUFFIX_LENGTH))
    return QualifiedName(name.name + suffix, name.schema, name.database)


def _environment(options: MLJobOptions) -> dict[str, Any]:
    environment = {
        "MLRS_STAGE_MOUNT_PATH": _STAGE_PATH,
        "MLRS_RESULT_PATH": "output/mljob_result",
        "MLRS_STAGE_RESULT_PATH": _RESULT_PATH,
        **options.spec.get("ENV_VARS", {}),
    }
    if options.instances > 1:
        environment |= _RAY_ENVIRONMENT | {"MLRS_MIN_INSTANCES": str(options.min_instances)}
    return environment


def _whole_node(family: InstanceFamily) -> dict[str, Any]:
    resources: dict[str, Any] = {"cpu": f"{family.vcpu * 1000}m", "memory": f"{family.room_gib or family.memory_gib}Gi"}
    if family.gpu_count:
        resources["nvidia.com/gpu"] = family.gpu_count
    return resources


def _volumes(
    context: Context, name: QualifiedName, family: InstanceFamily, options: MLJobOptions
) -> list[dict[str, Any]]:
    stage = str(options.spec["STAGE_PATH"]).rstrip("/")
    sources = {_STAGE_VOLUME: stage, _RESULT_VOLUME: f"{stage}/{name.name}"}
    shared = math.ceil(family.memory_gib * _SHARED_MEMORY_SHARE)
    return [
        *({"name": volume, "source": "local"} for volume in _LOG_VOLUMES),
        {"name": _SHARED_MEMORY, "source": "memory", "size": f"{shared}Gi"},
        *(_stage_volume(context, volume, source) for volume, source in sources.items()),
    ]


def _stage_volume(context: Context, volume: str, source: str) -> dict[str, Any]:
    # Whatever ENABLE_STAGE_MOUNT_V2 says: Snowflake accepts no volume of the first form any more.
    # The requests are those of the last client that wrote its own specification; with more, no node would have room.
    resources = {"requests": {"memory": "0Gi", "cpu": "0"}}
    config = {"name": qualified_stage(context, source), "resources": resources}
    return {"name": volume, "source": "stage", "stageConfig": config}


def qualified_stage(context: Context, text: str) -> str:
    """Write a stage path with database and schema, because the specification outlives the session."""
    head, _, path = text.removeprefix("@").partition("/")
    stage = context.session.resolve(parse_name(head), FUNCTION)
    return f"@{stage}/{path}" if path else f"@{stage}"


def _endpoints(pool: Pool, options: MLJobOptions) -> list[dict[str, Any]]:
    endpoints = [] if pool.options.instance_family == _NO_DASHBOARD else [_RAY_DASHBOARD]
    if options.instances == 1:
        return endpoints
    ports = [{"name": name, "port": port, "protocol": "TCP"} for name, port in _RAY_PORTS.items()]
    ranges = [{"name": name, "portRange": ports, "protocol": "TCP"} for name, ports in _RAY_RANGES.items()]
    return [*endpoints, *ports, *ranges]


def merge(base: Any, patch: Any) -> Any:
    """Merge overrides into a specification: mappings by key, lists of named items by name; ``None`` removes."""
    if isinstance(base, dict) and isinstance(patch, dict):
        merged = {**base, **{key: merge(base.get(key), value) for key, value in patch.items()}}
        return {key: value for key, value in merged.items() if value is not None}
    if _named(base) and _named(patch):
        changes = {item["name"]: item for item in patch}
        base_items = [merge(item, changes.pop(item["name"], {})) for item in base]
        return [*base_items, *changes.values()]
    return patch


def _named(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) and "name" in item for item in value)
