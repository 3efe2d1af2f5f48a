"""A job's specification as DESCRIBE SERVICE shows it, which another client than this provider may have written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_mljobs.jobs.untrusted import read_yaml, reading

if TYPE_CHECKING:
    from collections.abc import Mapping

_WHAT = "The specification"
# Snowflake adds such a container to a service for each stage volume: "Snowflake stage volume", resources.
SIDECAR_PREFIX = "stage-mount-v2-sidecar-"


def volume_of_sidecar(container: str) -> str:
    """Return the stage volume that a container of Snowflake's mounts; empty for a container of the specification."""
    return container.removeprefix(SIDECAR_PREFIX) if container.startswith(SIDECAR_PREFIX) else ""


@dataclass(frozen=True, kw_only=True)
class Description:
    """The parts of a specification that matter after the submit.

    :param environment: the variables of all of them.
    :param log_level: the streams that the event table stores; empty for Snowflake's default.
    :param volumes: a path on a stage or a kind such as ``block``, by the name of the volume.
    """

    containers: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    metric_groups: tuple[str, ...] = ()
    log_level: str = ""

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        """Read a specification; ``None`` without one: only the owner's role sees it."""
        if not text:
            return None
        document = read_yaml(text, _WHAT)
        with reading(_WHAT):
            spec = document["spec"]
            containers, monitor = spec["containers"], spec.get("platformMonitor") or {}
            exporter = (spec.get("logExporters") or {}).get("eventTableConfig") or {}
            return cls(
                containers=tuple(str(container["name"]) for container in containers),
                environment={
                    str(name): str(value)
                    for container in containers
                    for name, value in (container.get("env") or {}).items()
                },
                volumes={str(volume["name"]): _place(volume) for volume in spec.get("volumes") or ()},
                metric_groups=tuple(map(str, (monitor.get("metricConfig") or {}).get("groups") or ())),
                log_level=str(exporter.get("logLevel") or ""),
            )


def _place(volume: Mapping[str, Any]) -> str:
    return str(volume["stageConfig"]["name"] if volume["source"] == "stage" else volume["source"])
