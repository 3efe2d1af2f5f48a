"""The specification of a job service: read, checked, filled in, and written back as DESCRIBE SERVICE shows it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import yaml

from airflow_provider_mljobs.emulator.errors import invalid_spec
from airflow_provider_mljobs.emulator.spcs.specification_schema import (
    DOCUMENT,
    cpu_cores,
    invalid_value,
    memory_bytes,
    missing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from airflow_provider_mljobs.emulator.spcs.instance_families import InstanceFamily

REGISTRY = "mljobs-local.registry.snowflakecomputing.com"
_GIB = 2**30
_DEFAULT_CPU, _DEFAULT_MEMORY = "0.5", "0.5Gi"
_GPU = "nvidia.com/gpu"
_MOST_BLOCK_VOLUMES = 3


@dataclass(frozen=True, slots=True)
class Resources:
    """What an instance asks of a node, summed over its containers."""

    cpu: float
    memory: float
    gpu: int

    @classmethod
    def of(cls, family: InstanceFamily) -> Resources:
        """Return what one node has."""
        return cls(family.vcpu, family.memory_gib * _GIB, family.gpu_count)

    def __sub__(self, other: Resources) -> Resources:
        return Resources(self.cpu - other.cpu, self.memory - other.memory, self.gpu - other.gpu)

    def exceeding(self, node: Resources) -> str:
        """Return in words what ``node`` has too little of; empty if it fits."""
        lacks = []
        if self.cpu > node.cpu:
            lacks.append(f"{self.cpu:g} cpu")
        if self.memory > node.memory:
            lacks.append(f"{self.memory / _GIB:g}Gi memory")
        if self.gpu > node.gpu:
            lacks.append(f"{self.gpu} gpu")
        return ", ".join(lacks)


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
        """What replaces the image's entrypoint."""
        return tuple(self.fields.get("command", ()))

    @property
    def args(self) -> tuple[str, ...]:
        """What replaces the image's arguments."""
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

    @property
    def endpoints(self) -> list[dict[str, Any]]:
        """The declared endpoints."""
        return list(self.document["spec"].get("endpoints", ()))

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

    @cached_property
    def digest(self) -> str:
        """The digest that DESCRIBE shows."""
        return hashlib.sha256(json.dumps(self.document, sort_keys=True).encode()).hexdigest()

    @cached_property
    def text(self) -> str:
        """The normalised YAML that DESCRIBE shows."""
        return yaml.dump(_quoted(self.document), Dumper=_Dumper, explicit_start=True, sort_keys=False, width=2**16)

    def requests(self) -> Resources:
        """Return what one instance asks of a node."""
        requests = [container.fields["resources"]["requests"] for container in self.containers]
        return Resources(
            sum(cpu_cores(request["cpu"]) for request in requests),
            sum(memory_bytes(request["memory"]) for request in requests),
            sum(request.get(_GPU, 0) for request in requests),
        )


# The parser in C, where PyYAML has it, is ten times faster.
_LOADER: type[yaml.SafeLoader | yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_specification(text: str, family: InstanceFamily) -> Specification:
    """Read a specification in YAML (or JSON, which is YAML too); raises 395018 with the place of the fault.

    :param family: machine type of the pool; limits default to what its nodes have.
    """
    try:
        document = yaml.load(text, _LOADER)  # noqa: S506 (it is a safe one)
    except yaml.YAMLError as error:
        detail = " ".join(str(error).split())
        raise invalid_spec(f"unable to parse YAML: {detail}.") from None
    return build_specification(document, family)


def build_specification(document: Any, family: InstanceFamily) -> Specification:
    """Check a document and fill in what it leaves open."""
    normalised = DOCUMENT(document, "")
    spec = normalised["spec"]
    _check_names(spec)
    for index, volume in enumerate(spec.get("volumes", ())):
        _check_volume(volume, f"volumes[{index}]")
    for index, endpoint in enumerate(spec.get("endpoints", ())):
        _check_endpoint(endpoint, f"endpoints[{index}]")
    _check_service_roles(normalised)
    volumes = {volume["name"] for volume in spec.get("volumes", ())}
    spec["containers"] = [
        _complete_container(container, f"containers[{index}]", volumes, family)
        for index, container in enumerate(spec["containers"])
    ]
    return Specification(normalised)


def _check_names(spec: Mapping[str, Any]) -> None:
    for group in ("containers", "volumes", "endpoints"):
        _check_unique((item["name"] for item in spec.get(group, ())), group)
    blocks = sum(volume["source"] == "block" for volume in spec.get("volumes", ()))
    if blocks > _MOST_BLOCK_VOLUMES:
        raise invalid_spec(f"'volumes' has {blocks} block volumes, the limit is {_MOST_BLOCK_VOLUMES}.")


def _check_unique(names: Iterable[str], group: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise invalid_spec(f"duplicate name '{name}' for '{group}'.")
        seen.add(name)


def _check_memory_volume(volume: Mapping[str, Any], where: str) -> None:
    if "size" not in volume:
        raise missing("size", where)


def _check_block_volume(volume: Mapping[str, Any], where: str) -> None:
    _check_memory_volume(volume, where)
    if not (volume["size"].endswith("Gi") and volume["size"][:-2].isdigit()):
        raise invalid_value(volume["size"], f"{where}.size", "Expected a whole number of Gi.")


def _check_stage_volume(volume: Mapping[str, Any], where: str) -> None:
    if "stageConfig" not in volume:
        raise missing("stageConfig", where)


_VOLUME_CHECKS: dict[str, Callable[[Mapping[str, Any], str], None]] = {
    "memory": _check_memory_volume,
    "block": _check_block_volume,
    "stage": _check_stage_volume,
}
_OPTIONS_OF_VOLUMES = {
    "stageConfig": ("stage",),
    "blockConfig": ("block",),
    "size": ("memory", "block"),
    "uid": ("stage", "@"),
    "gid": ("stage", "@"),
}


def _check_volume(volume: Mapping[str, Any], where: str) -> None:
    source = "@" if volume["source"].startswith("@") else volume["source"]
    for option, sources in _OPTIONS_OF_VOLUMES.items():
        if option in volume and source not in sources:
            raise invalid_spec(f"option '{option}' is not supported for source '{volume['source']}' of '{where}'.")
    if source in _VOLUME_CHECKS:
        _VOLUME_CHECKS[source](volume, where)


def _check_endpoint(endpoint: Mapping[str, Any], where: str) -> None:
    if ("port" in endpoint) == ("portRange" in endpoint):
        raise invalid_spec(f"exactly one of 'port' and 'portRange' must be given for '{where}'.")
    if "portRange" not in endpoint:
        return
    if endpoint.get("protocol") != "TCP" or endpoint.get("public"):
        raise invalid_spec(f"'portRange' requires protocol TCP and a non-public endpoint for '{where}'.")
    first, last = (int(port) for port in endpoint["portRange"].split("-"))
    if not 0 < first <= last < 2**16:
        raise invalid_value(endpoint["portRange"], f"{where}.portRange")


def _check_service_roles(document: Mapping[str, Any]) -> None:
    endpoints = {endpoint["name"] for endpoint in document["spec"].get("endpoints", ())}
    for index, role in enumerate(document.get("serviceRoles", ())):
        for endpoint in role.get("endpoints", ()):
            if endpoint not in endpoints:
                raise invalid_value(endpoint, f"serviceRoles[{index}].endpoints", "No such endpoint.")


def _complete_container(
    container: dict[str, Any], where: str, volumes: set[str], family: InstanceFamily
) -> dict[str, Any]:
    for index, mount in enumerate(container.get("volumeMounts", ())):
        if mount["name"] not in volumes:
            raise invalid_value(mount["name"], f"{where}.volumeMounts[{index}].name", "No such volume.")
    for index, secret in enumerate(container.get("secrets", ())):
        if ("directoryPath" in secret) == ("envVarName" in secret):
            place = f"{where}.secrets[{index}]"
            raise invalid_spec(f"exactly one of 'directoryPath' and 'envVarName' must be given for '{place}'.")
        if "secretKeyRef" in secret and "envVarName" not in secret:
            raise invalid_spec(f"'secretKeyRef' may only be given with 'envVarName' for '{where}.secrets[{index}]'.")
    image = _full_image(container["image"])
    digest = f"@sha256:{hashlib.sha256(image.encode()).hexdigest()}"
    return {
        **container,
        "image": image,
        "sha256": digest,
        "resources": _complete_resources(container.get("resources", {}), family),
    }


def _full_image(image: str) -> str:
    # Whatever account the registry names, it is this one.
    return image if image.startswith("cre@") else f"{REGISTRY}/{image.partition('/')[2]}"


def _complete_resources(resources: Mapping[str, Any], family: InstanceFamily) -> dict[str, Any]:
    limits, requests = dict(resources.get("limits", {})), dict(resources.get("requests", {}))
    if limits.get(_GPU) != requests.get(_GPU):
        raise invalid_value(requests.get(_GPU), f"requests.{_GPU}", "The request of GPUs must equal the limit.")
    requests.setdefault("memory", limits.get("memory", _DEFAULT_MEMORY))
    requests.setdefault("cpu", limits.get("cpu", _DEFAULT_CPU))
    limits.setdefault("memory", f"{family.memory_gib}Gi")
    limits.setdefault("cpu", str(family.vcpu))
    if memory_bytes(requests["memory"]) > memory_bytes(limits["memory"]):
        raise invalid_value(requests["memory"], "requests.memory", "The request exceeds the limit.")
    if cpu_cores(requests["cpu"]) > cpu_cores(limits["cpu"]):
        raise invalid_value(requests["cpu"], "requests.cpu", "The request exceeds the limit.")
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
