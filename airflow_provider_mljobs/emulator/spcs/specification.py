"""The specification of a job service: read, checked, filled in, and written back as DESCRIBE SERVICE shows it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import yaml

from airflow_provider_mljobs.emulator.errors import invalid_spec
from airflow_provider_mljobs.emulator.spcs.specification_schema import (
    cpu_cores,
    memory_bytes,
    normalise,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_mljobs.emulator.spcs.instance_families import InstanceFamily

REGISTRY = "mljobs-local.registry.snowflakecomputing.com"
_GIB = 2**30
_DEFAULT_CPU, _DEFAULT_MEMORY = "0.5", "0.5Gi"
_GPU = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources that an instance requests from a node, summed over its containers."""

    cpu: float
    memory: float
    gpu: int

    @classmethod
    def of(cls, family: InstanceFamily) -> Resources:
        """Return the resources of one node, as Snowflake shows them."""
        return cls(family.vcpu, family.memory_gib * _GIB, family.gpu_count)

    @classmethod
    def room_of(cls, family: InstanceFamily) -> Resources:
        """Return the resources of an empty node for instances."""
        return cls(family.vcpu, (family.room_gib or family.memory_gib) * _GIB, family.gpu_count)

    def __sub__(self, other: Resources) -> Resources:
        return Resources(self.cpu - other.cpu, self.memory - other.memory, self.gpu - other.gpu)

    def __add__(self, other: Resources) -> Resources:
        return Resources(self.cpu + other.cpu, self.memory + other.memory, self.gpu + other.gpu)

    def lacking(self, node: Resources) -> dict[str, str]:
        """Return the resources that ``node`` has too little of, each with its requested amount."""
        requested = {
            "GPU": (self.gpu, node.gpu, f"{self.gpu} gpu"),
            "memory": (self.memory, node.memory, f"{self.memory / _GIB:g}Gi memory"),
            "CPU": (self.cpu, node.cpu, f"{self.cpu:g} cpu"),
        }
        return {name: text for name, (wanted, present, text) in requested.items() if wanted > present}


@dataclass(frozen=True)
class Container:
    """A container as the specification describes it."""

    fields: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its name, by which logs are asked for."""
        return str(self.fields["name"])

    @property
    def image(self) -> str:
        """The image with its registry."""
        return str(self.fields["image"])

    @property
    def sha256(self) -> str:
        """The digest of the image, ``@sha256:…``."""
        return str(self.fields["sha256"])

    @property
    def image_path(self) -> str:
        """The image without its registry: ``/db/schema/repo/name:tag``."""
        return self.image.removeprefix(REGISTRY)

    @property
    def command(self) -> tuple[str, ...]:
        """The command that replaces the image's entrypoint."""
        return tuple(self.fields.get("command", ()))

    @property
    def args(self) -> tuple[str, ...]:
        """The arguments that replace those of the image."""
        return tuple(self.fields.get("args", ()))

    @property
    def env(self) -> dict[str, str]:
        """The environment that the submitter gave."""
        return dict(self.fields.get("env", {}))

    @property
    def mounts(self) -> list[tuple[str, str]]:
        """Pairs of volume and mount path."""
        return [(mount["name"], mount["mountPath"]) for mount in self.fields.get("volumeMounts", ())]

    @property
    def secrets(self) -> list[dict[str, Any]]:
        """The secrets to hand over."""
        return list(self.fields.get("secrets", ()))


@dataclass(frozen=True)
class Specification:
    """A valid specification.

    :param document: the normalised document.
    """

    document: Mapping[str, Any]

    @cached_property
    def containers(self) -> tuple[Container, ...]:
        """The containers of each instance."""
        return tuple(Container(fields) for fields in self.document["spec"]["containers"])

    @property
    def volumes(self) -> list[dict[str, Any]]:
        """The volumes that containers may mount."""
        return list(self.document["spec"].get("volumes", ()))

    @cached_property
    def sidecars(self) -> tuple[Container, ...]:
        """The containers that Snowflake adds to each instance, one for each stage volume."""
        return tuple(_sidecar(volume) for volume in self.volumes if volume["source"] == "stage")

    @property
    def endpoints(self) -> list[dict[str, Any]]:
        """The declared endpoints."""
        return list(self.document["spec"].get("endpoints", ()))

    @property
    def service_roles(self) -> list[str]:
        """The names of the declared service roles."""
        return [role["name"] for role in self.document.get("serviceRoles", ())]

    @property
    def has_block_volumes(self) -> bool:
        """Whether a drop needs FORCE."""
        return any(volume["source"] == "block" for volume in self.volumes)

    @property
    def log_level(self) -> str:
        """Which streams persist in the event table: INFO both, ERROR stderr, NONE."""
        exporters = self.document["spec"].get("logExporters", {})
        return str(exporters.get("eventTableConfig", {}).get("logLevel", "INFO"))

    @property
    def metric_groups(self) -> frozenset[str]:
        """Which of the platform's metrics persist in the event table."""
        monitor = self.document["spec"].get("platformMonitor", {})
        return frozenset(monitor.get("metricConfig", {}).get("groups", ()))

    @property
    def starts_first_instance_first(self) -> bool:
        """Whether the other instances wait for the start of the first one."""
        policy = self.document["spec"].get("resourceManagement", {}).get("controlPolicy", {})
        return bool(policy.get("startupOrder", {}).get("type") == "FirstInstance")

    @cached_property
    def digest(self) -> str:
        """The digest that DESCRIBE shows."""
        return hashlib.sha256(json.dumps(self.document, sort_keys=True).encode()).hexdigest()

    @cached_property
    def text(self) -> str:
        """The normalised YAML that DESCRIBE shows."""
        return yaml.dump(_quoted(self.document), Dumper=_Dumper, explicit_start=True, sort_keys=False, width=2**16)

    def container_requests(self) -> Resources:
        """Return the resources that the containers of one instance request from a node."""
        return _sum(self.containers)

    def requests(self) -> Resources:
        """Return the resources that one instance requests from a node, with those of its stage volumes."""
        return _sum((*self.containers, *self.sidecars))


def _sum(containers: Iterable[Container]) -> Resources:
    requests = [container.fields["resources"]["requests"] for container in containers]
    parts = [Resources(cpu_cores(each["cpu"]), memory_bytes(each["memory"]), each.get(_GPU, 0)) for each in requests]
    return sum(parts, Resources(0.0, 0.0, 0))


# The defaults of the page "Snowflake stage volume", which also has the name. The image is invented.
_SIDECAR_RESOURCES = {"requests": {"cpu": "0", "memory": "0.5Gi"}, "limits": {"cpu": "0.5", "memory": "1Gi"}}
_SIDECAR_IMAGE = f"{REGISTRY}/snowflake/images/snowflake_images/stage-mount-v2-sidecar:latest"


def _sidecar(volume: Mapping[str, Any]) -> Container:
    stated = volume["stageConfig"].get("resources", {})
    return Container(
        {
            "name": f"stage-mount-v2-sidecar-{volume['name']}",
            "image": _SIDECAR_IMAGE,
            "sha256": f"@sha256:{hashlib.sha256(_SIDECAR_IMAGE.encode()).hexdigest()}",
            "resources": {kind: {**amounts, **stated.get(kind, {})} for kind, amounts in _SIDECAR_RESOURCES.items()},
        }
    )


# The parser in C, where PyYAML has it, is ten times faster. In YAML 1.2, which the reference names, "yes" and
# "2026-01-01" are texts.
_PARSER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVERS = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":bool"))]
    for first, resolvers in _PARSER.yaml_implicit_resolvers.items()
}
_Loader: type[yaml.SafeLoader] = type("_Loader", (_PARSER,), {"yaml_implicit_resolvers": _RESOLVERS})
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("(?i:true|false)\\Z"), list("tTfF"))


def parse_specification(text: str, family: InstanceFamily) -> Specification:
    """Read a specification in YAML (or JSON, which is YAML too); raises 395018 with the place of the fault.

    :param family: machine type of the pool; limits default to the resources of its nodes.
    """
    try:
        document = yaml.load(text, _Loader)  # noqa: S506 (a safe loader)
    except yaml.YAMLError as error:
        detail = " ".join(str(error).split())
        raise invalid_spec(f"unable to parse YAML: {detail}.") from None
    return build_specification(document, family)


def build_specification(document: Any, family: InstanceFamily) -> Specification:
    """Check a document and fill in the defaults."""
    normalised = normalise(document)
    for container in normalised["spec"]["containers"]:
        container["image"] = image = _full_image(container["image"])
        container["sha256"] = f"@sha256:{hashlib.sha256(image.encode()).hexdigest()}"
        container["resources"] = _complete_resources(container.get("resources", {}), family)
    return Specification(normalised)


def _full_image(image: str) -> str:
    # The registry may name another account; images always come from this one.
    return image if image.startswith("cre@") else f"{REGISTRY}/{image.partition('/')[2]}"


def _complete_resources(resources: Mapping[str, Any], family: InstanceFamily) -> dict[str, Any]:
    limits, requests = dict(resources.get("limits", {})), dict(resources.get("requests", {}))
    for key, node, default, amount in (
        ("memory", f"{family.memory_gib}Gi", _DEFAULT_MEMORY, memory_bytes),
        ("cpu", str(family.vcpu), _DEFAULT_CPU, cpu_cores),
    ):
        limit = limits.get(key, node)
        # A limit beyond the node means the node.
        capped = min(limit, node, key=amount)
        requests.setdefault(key, capped if key in limits else default)
        if amount(requests[key]) > amount(limit):
            raise invalid_spec(f"invalid value {requests[key]} for 'requests.{key}'. The request exceeds the limit.")
        limits[key] = capped
    return {"limits": limits, "requests": requests}


class _QuotedText(str):
    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


_Dumper.add_representer(
    _QuotedText, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style='"')
)


def _quoted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _quoted(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_quoted(entry) for entry in value]
    return _QuotedText(value) if isinstance(value, str) else value
