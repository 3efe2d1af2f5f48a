"""The volumes that a task mounts, by mount path, and the endpoints that its job opens."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.names import PLACEHOLDER, Namespace, StagePath
from airflow_provider_mljobs.jobs.spec.documents import excerpt, plain
from airflow_provider_mljobs.jobs.spec.forms import Directory
from airflow_provider_mljobs.jobs.spec.refusals import check
from airflow_provider_mljobs.jobs.spec.schema import MAX_VOLUMES, TaskEndpoints, TaskVolume, TaskVolumes

# The job can't run without these; a volume over them would hide them.
PLATFORM_PATHS = ("/mnt/job_stage", "/mnt/job_result", "/dev/shm", "/snowflake", "/opt/env")  # noqa: S108 (in containers)
# Payload, result and shared memory.
_OWN_VOLUMES = 3
_MAX_SLUG = 40


def parse_volumes(
    value: object, namespace: Namespace = PLACEHOLDER
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Turn volumes by mount path into ``volumes`` of a specification and ``volumeMounts`` of its container.

    :param value: absolute paths, each with a stage path that begins with ``@``, or with a volume as in a service
        specification, without its name.
    :param namespace: database and schema of stages that are named without; while a DAG is parsed, they are unknown.
    """
    if not isinstance(value, Mapping):
        raise InvalidJobSpecError(
            f"volumes must map mount paths to volumes, e.g. {{'/data': '@db.schema.stage/path'}}; got {excerpt(value)}."
        )
    volumes: dict[str, dict[str, Any]] = {}
    for path, given in value.items():
        place = directory(path, "volumes")
        if place in volumes:
            raise InvalidJobSpecError(f"{path!r} is in volumes twice; mount one volume there.")
        volumes[place] = {"name": _name(place), **_volume(given, f"volumes[{path!r}]", namespace)}
    if len(volumes) > MAX_VOLUMES - _OWN_VOLUMES:
        raise InvalidJobSpecError(
            f"volumes has {len(volumes)} volumes; a job can have {MAX_VOLUMES - _OWN_VOLUMES} beside its own "
            f"{_OWN_VOLUMES}. Mount a directory that holds several."
        )
    check({"volumes": list(volumes.values())}, "volumes", TaskVolumes)
    mounts = [{"name": volume["name"], "mountPath": place} for place, volume in volumes.items()]
    return list(volumes.values()), mounts


def parse_endpoints(value: object) -> list[dict[str, Any]]:
    """Check endpoints, which are written as in a service specification."""
    endpoints: list[dict[str, Any]] = plain([] if value is None else value, "endpoints")
    check({"endpoints": endpoints}, "endpoints", TaskEndpoints)
    return endpoints


def directory(path: Any, argument: str) -> str:
    """Return the path of a directory in a container, checked against the platform's own."""
    check(path, argument, Directory, "the path")
    text: str = re.sub("/+", "/", path).rstrip("/")
    for platform_path in PLATFORM_PATHS:
        if f"{text}/".startswith(f"{platform_path}/") or platform_path.startswith(f"{text}/"):
            raise InvalidJobSpecError(
                f"{path!r} in {argument} can't be mounted: the platform uses {platform_path}. Choose another path, "
                "e.g. /data."
            )
    return text


def _volume(given: Any, path: str, namespace: Namespace) -> dict[str, Any]:
    if isinstance(given, str) and given.startswith("@"):
        given = {"source": "stage", "stageConfig": {"name": given}}
    if not isinstance(given, Mapping):
        raise InvalidJobSpecError(
            f"{path} must be a path on a stage, e.g. '@db.schema.stage/path', or a volume, e.g. {{'source': 'local'}} "
            f"or {{'source': 'memory', 'size': '2Gi'}}; got {excerpt(given)}."
        )
    volume: dict[str, Any] = plain(given, path)
    check(volume, "volumes", TaskVolume, path)
    if volume["source"] == "stage":
        config = volume["stageConfig"]
        config["name"] = str(StagePath.parse(config["name"], path, namespace))
    return volume


def _name(path: str) -> str:
    slug = re.sub("[^a-z0-9]+", "-", path.lower()).strip("-")[:_MAX_SLUG].strip("-")
    return "-".join(filter(None, ("volume", slug, hashlib.sha256(path.encode()).hexdigest()[:8])))
