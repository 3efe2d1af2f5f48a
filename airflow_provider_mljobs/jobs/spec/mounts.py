"""What a job mounts beside its own volumes, by where it is mounted; and the ports that it opens."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.names import ANYWHERE, PLACEHOLDER, Namespace, StagePath
from airflow_provider_mljobs.jobs.spec.documents import plain
from airflow_provider_mljobs.jobs.spec.laws import Different
from airflow_provider_mljobs.jobs.spec.rules import Fields, Rule, refuse, shown
from airflow_provider_mljobs.jobs.spec.schema import (
    DIRECTORY,
    ENDPOINTS,
    MOST_BLOCKS,
    MOST_STAGES,
    MOST_VOLUMES,
    is_block,
    is_on_stage,
    volume,
)

# What a job's container has in these, the job can't run without.
PLATFORM_PATHS = ("/mnt/job_stage", "/mnt/job_result", "/dev/shm", "/snowflake", "/opt/env")  # noqa: S108 (in containers)
# The job's own: payload, result and shared memory.
_OWN_VOLUMES = 3
_OWN_STAGES = 2
_VOLUME: Rule = volume({}, {"name": "it is made from the mount path"})
_ENDPOINTS = Fields(optional={"endpoints": ENDPOINTS}, laws=(Different("endpoints[].name"),))
_MOST_SLUG = 40


def parse_volumes(value: object, namespace: Namespace = ANYWHERE) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Read volumes by mount path as ``volumes`` of a specification and ``volumeMounts`` of its container.

    :param value: maps absolute paths to what is mounted there: a stage path that begins with ``@``, or a volume in the
        words of a service specification, without its name.
    :param namespace: database and schema of stages that are named without.
    :raises InvalidJobSpecError: naming the mount path.

    Example::

        parse_volumes({"/data": "@ml.public.data/in", "/cache": {"source": "memory", "size": "2Gi"}})
    """
    if not isinstance(value, Mapping):
        raise InvalidJobSpecError(
            f"volumes must map mount paths to volumes, e.g. {{'/data': '@db.schema.stage/path'}}; got {shown(value)}."
        )
    mounted: dict[str, dict[str, Any]] = {}
    for path, given in value.items():
        place = directory(path, "volumes")
        if place in mounted:
            raise InvalidJobSpecError(f"{path!r} stands twice in volumes; mount one volume there.")
        mounted[place] = {"name": _name(place), **_volume(given, f"volumes[{path!r}]", namespace)}
    _refuse_too_many(list(mounted.values()))
    mounts = [{"name": each["name"], "mountPath": place} for place, each in mounted.items()]
    return list(mounted.values()), mounts


def validate_volumes(value: object) -> None:
    """Refuse volumes that no job can have, as far as this is known without a connection's database and schema.

    :raises InvalidJobSpecError: naming the mount path.
    """
    parse_volumes(value, PLACEHOLDER)


def parse_endpoints(value: object) -> list[dict[str, Any]]:
    """Read endpoints in the words of a service specification.

    :param value: a list of them, or ``None``.
    :raises InvalidJobSpecError: with the path in the list, e.g. ``endpoints[0].port``.

    Example::

        parse_endpoints([{"name": "dashboard", "port": 8080}])
    """
    endpoints: list[dict[str, Any]] = plain([] if value is None else value, "endpoints")
    refuse(_ENDPOINTS.problems({"endpoints": endpoints}, ""), "endpoints")
    return endpoints


def directory(path: Any, what: str) -> str:
    """Return the path of a directory in a container in which there is nothing of the platform's.

    :param what: names the argument in the message.
    :raises InvalidJobSpecError: if it is no absolute path, or one of the platform's.
    """
    refuse(DIRECTORY.problems(path, "the path"), what)
    text: str = re.sub("/+", "/", path).rstrip("/")
    for taken in PLATFORM_PATHS:
        if f"{text}/".startswith(f"{taken}/") or taken.startswith(f"{text}/"):
            raise InvalidJobSpecError(
                f"{path!r} in {what} can't be mounted: {taken} is the platform's. Choose another path, e.g. /data."
            )
    return text


def _volume(given: Any, path: str, namespace: Namespace) -> dict[str, Any]:
    if isinstance(given, str) and given.startswith("@"):
        given = {"source": "stage", "stageConfig": {"name": given}}
    if not isinstance(given, Mapping):
        raise InvalidJobSpecError(
            f"{path} must be a path on a stage, e.g. '@db.schema.stage/path', or a volume, e.g. {{'source': 'local'}} "
            f"or {{'source': 'memory', 'size': '2Gi'}}; got {shown(given)}."
        )
    found: dict[str, Any] = plain(given, path)
    refuse(_VOLUME.problems(found, path), "volumes")
    if found["source"].startswith("@"):
        found["source"] = str(StagePath.parse(found["source"], f"{path}.source", namespace))
    elif found["source"] == "stage" and found["stageConfig"]["name"].startswith("@"):
        config = found["stageConfig"]
        config["name"] = str(StagePath.parse(config["name"], path, namespace))
    return found


def _name(path: str) -> str:
    slug = re.sub("[^a-z0-9]+", "-", path.lower()).strip("-")[:_MOST_SLUG].strip("-")
    return "-".join(filter(None, ("volume", slug, hashlib.sha256(path.encode()).hexdigest()[:8])))


def _refuse_too_many(volumes: list[dict[str, Any]]) -> None:
    for number, most, own, kind in (
        (len(volumes), MOST_VOLUMES, _OWN_VOLUMES, "volumes"),
        (sum(map(is_on_stage, volumes)), MOST_STAGES, _OWN_STAGES, "volumes on stages"),
        (sum(map(is_block, volumes)), MOST_BLOCKS, 0, "block volumes"),
    ):
        if number > most - own:
            beside = f" beside its own {own}" if own else ""
            raise InvalidJobSpecError(
                f"volumes has {number} {kind}, more than the {most - own} that a job can have{beside}; mount a "
                "directory that holds several."
            )
