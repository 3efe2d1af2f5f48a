"""The room on a node: the requests of a specification's containers and stage volumes, compared with the node's size.

Snowflake sums up the requests of an instance and starts it on a node that has as much ("specification reference",
containers.resources). A job that fits no node is refused at best, and at worst waits for ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.spec.forms import amount

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_mljobs.jobs.spec.job import Resources

_GIB, _MIB = 2**30, 2**20
_GPU = "nvidia.com/gpu"
# A container without a request and without a lower limit ("specification reference"), and the container that serves a
# stage volume ("using stage volumes"). Memory volumes have none: a whole node was requested beside one.
_CONTAINER = {"cpu": "0.5", "memory": "0.5Gi"}
_STAGE_VOLUME = {"cpu": "0", "memory": "0.5Gi"}
_MAX_PARTS = 5


@dataclass(frozen=True, kw_only=True)
class _Request:
    """The request of one container or stage volume: cores, bytes, GPUs."""

    name: str
    cpu: float
    memory: float
    gpu: float = 0.0


def request_rest(document: Mapping[str, Any], container: str, node: Resources, margin: float) -> None:
    """Let a container request what the others leave of a node, unless its author has decided.

    CPUs and GPUs are requested whole, so that no other service starts on the node. Less memory than there is costs
    nothing, since the limit stays; it keeps a job startable on nodes that have less room than Snowflake says.

    :param document: the specification; changed in place.
    :param node: the smallest node that the job may get.
    :param margin: the share of the node's memory to leave.
    """
    fields = next(each for each in document["spec"]["containers"] if each["name"] == container)
    if "resources" not in fields:
        return
    others = [each for each in _requests(document) if each.name != container]
    resources = fields["resources"]
    requests, limits = resources.setdefault("requests", {}), resources.get("limits", {})
    if "memory" not in requests:
        rest = node.memory_gib * (1 - margin) * _GIB - sum(each.memory for each in others)
        rest = min(max(rest, amount(_CONTAINER["memory"])), amount(limits.get("memory", f"{node.memory_gib}Gi")))
        requests["memory"] = f"{math.floor(rest / _MIB)}Mi"
    if "cpu" not in requests:
        rest = max(0.0, node.cpu - sum(each.cpu for each in others))
        requests["cpu"] = f"{math.floor(min(rest, amount(limits.get('cpu', node.cpu))) * 1000 + 1e-6)}m"


def check_fit(document: Mapping[str, Any], pool: str, node: Resources) -> None:
    """Refuse a specification whose requests exceed a node of its compute pool.

    :param node: the smallest node that the job may get.
    :raises InvalidJobSpecError: with the requests that don't fit.
    """
    requests = list(_requests(document))
    for key, unit, scale, most in (
        ("memory", " GiB of memory", _GIB, node.memory_gib),
        ("cpu", " CPUs", 1, node.cpu),
        ("gpu", " GPUs", 1, node.gpu),
    ):
        amounts = {each.name: getattr(each, key) / scale for each in requests if getattr(each, key)}
        total = sum(amounts.values())
        # Sums of fractions drift.
        if total > most + 1e-9:
            largest = sorted(amounts.items(), key=lambda part: -part[1])
            parts = [f"{name} {number:g}" for name, number in largest[:_MAX_PARTS]]
            if len(largest) > _MAX_PARTS:
                parts.append(f"{len(largest) - _MAX_PARTS} more {sum(number for _, number in largest[_MAX_PARTS:]):g}")
            raise InvalidJobSpecError(
                f"The job requests {total:g}{unit} ({', '.join(parts)}), but a node of compute pool {pool} "
                f"({node.family}) has {most:g}. Lower resources.requests of containers, or of stage volumes in "
                "stageConfig; or choose a pool of a larger instance family."
            )


def requests_gpus(document: Mapping[str, Any]) -> bool:
    """Return whether any container of a specification requests GPUs."""
    return any(each.gpu for each in _requests(document))


def _requests(document: Mapping[str, Any]) -> Iterator[_Request]:
    spec = document["spec"]
    for container in spec["containers"]:
        yield _request(container["name"], container.get("resources") or {}, _CONTAINER)
    for volume in spec.get("volumes") or ():
        if volume["source"] == "stage":
            resources = volume["stageConfig"].get("resources") or {}
            yield _request(f"stage volume {volume['name']}", resources, _STAGE_VOLUME)


def _request(name: str, resources: Mapping[str, Any], default: Mapping[str, str]) -> _Request:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    # Snowflake's pages contradict each other about a limit without a request; the smaller value refuses no good job.
    cpu, memory = (
        amount(requests[key]) if key in requests else min(amount(default[key]), amount(limits.get(key, default[key])))
        for key in ("cpu", "memory")
    )
    return _Request(name=name, cpu=cpu, memory=memory, gpu=amount(requests.get(_GPU, 0)))
