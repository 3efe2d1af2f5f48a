"""The specification of a job as pydantic models: Snowflake's reference for services, less the parts jobs can't use.

Import this module inside functions: a DAG file without a specification shouldn't pay for its models.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from airflow_provider_mljobs.jobs.payload.requirements import settings_with_credentials
from airflow_provider_mljobs.jobs.spec.documents import excerpt
from airflow_provider_mljobs.jobs.spec.forms import (
    Cpu,
    Directory,
    Gpus,
    Id,
    Image,
    InvalidValueError,
    Memory,
    Name,
    ObjectName,
    Port,
    Role,
    Seconds,
    Text,
    Variable,
    amount,
    distinct,
    scalar,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


MAX_VOLUMES = 20
_MAX_BLOCK_VOLUMES = 3
MAX_SECRETS = 50
# A key that may be missing. Pydantic doesn't validate defaults, so null is still refused.
_ABSENT: Any = None


class _Part(BaseModel):
    """A mapping of a specification: these keys, in exactly these types."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True)
    # Keys that belong elsewhere, each with the reason.
    misplaced: ClassVar[dict[str, str]] = {}

    def _problems(self) -> Iterator[str]:
        """Yield the problems between the keys."""
        yield from ()

    def _one_of(self, *names: str) -> Iterator[str]:
        """Yield a problem unless exactly one of these keys is given."""
        number = len(self.model_fields_set.intersection(names))
        if number != 1:
            keys = " or ".join(map(to_camel, names))
            yield f"needs either {keys}; it has {'both' if number else 'neither'}."

    @model_validator(mode="after")
    def _check(self) -> Self:
        if problems := list(self._problems()):
            raise InvalidValueError(*problems)
        return self


class _Named(_Part):
    name: Name


def _names(key: str, items: Iterable[_Named | _ServiceRole]) -> Iterator[tuple[str, str]]:
    for index, item in enumerate(items):
        yield f".{key}[{index}].name", item.name


class _Probe(_Part):
    port: Port
    path: Annotated[str, text("a path that begins with /", r"/\S*")]
    period_seconds: Seconds = _ABSENT
    failure_threshold: Seconds = _ABSENT


class _Share(_Part):
    memory: Memory = _ABSENT
    cpu: Cpu = _ABSENT


class _NodeShare(_Share):
    gpu: Gpus = Field(_ABSENT, alias="nvidia.com/gpu")


class _StageResources(_Part):
    requests: _Share = _ABSENT
    limits: _Share = _ABSENT

    def _problems(self) -> Iterator[str]:
        for key in ("memory", "cpu"):
            request, limit = getattr(self.requests, key, None), getattr(self.limits, key, None)
            if request is not None and limit is not None and amount(request) > amount(limit):
                yield f".requests.{key} {excerpt(request)} is more than the limit of {limit}."


class _Resources(_StageResources):
    requests: _NodeShare = _ABSENT
    limits: _NodeShare = _ABSENT

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        request, limit = getattr(self.requests, "gpu", None), getattr(self.limits, "gpu", None)
        if str(request) != str(limit):
            yield "must have the same number of nvidia.com/gpu in requests and limits."


class _SecretObject(_Part):
    object_name: ObjectName = _ABSENT
    object_reference: ObjectName = _ABSENT

    def _problems(self) -> Iterator[str]:
        yield from self._one_of("object_name", "object_reference")


class TaskSecret(_Part):
    """A secret whose place in the container is known already."""

    misplaced = dict.fromkeys(("envVarName", "directoryPath"), "the key of the secret is its place")
    snowflake_secret: Annotated[
        _SecretObject, BeforeValidator(lambda value: {"objectName": value} if isinstance(value, str) else value)
    ]
    secret_key_ref: Literal["username", "password", "secret_string", "access_token"] = _ABSENT


class _Secret(TaskSecret):
    misplaced = {}
    directory_path: Directory = _ABSENT
    env_var_name: Variable = _ABSENT

    def _problems(self) -> Iterator[str]:
        yield from self._one_of("directory_path", "env_var_name")
        if {"secret_key_ref", "directory_path"} <= self.model_fields_set:
            yield "can't have secretKeyRef with directoryPath: the directory gets a file for each key of the secret."


class _Token(_Part):
    path: Annotated[
        str,
        text("an absolute path of letters, digits, '-', '_' and '.'", r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9_.-]+)+"),
    ] = _ABSENT
    permission: Annotated[str, text("a file mode from '0400' to '0644', e.g. '0600'", r"0[46][04][04]")] = _ABSENT
    mount_connection_config: bool = _ABSENT

    def _problems(self) -> Iterator[str]:
        if not self.model_fields_set:
            yield "is empty; give it a path or mountConnectionConfig, or leave it out."
        if "permission" in self.model_fields_set and "path" not in self.model_fields_set:
            yield "has a permission, which needs a path."


class _Mount(_Named):
    mount_path: Directory


class _Container(_Named):
    image: Image
    command: list[Text] = _ABSENT
    args: list[Text] = _ABSENT
    env: dict[Variable, Annotated[str | bool | int | float, BeforeValidator(scalar)]] = _ABSENT
    readiness_probe: _Probe = _ABSENT
    liveness_probe: _Probe = _ABSENT
    volume_mounts: list[_Mount] = Field([])
    resources: _Resources = _ABSENT
    mount_session_token: bool = True
    session_token_config: _Token = _ABSENT
    secrets: list[_Secret] = Field([])

    def _problems(self) -> Iterator[str]:
        if settings_with_credentials(self.env or {}):
            yield "has credentials of a package index in its env: put the value into a Snowflake secret, see secrets."
        if "session_token_config" in self.model_fields_set and not self.mount_session_token:
            yield "has a sessionTokenConfig, which needs the session token: leave mountSessionToken out."
        yield from distinct(self._directories())
        variables = ((f".secrets[{index}].envVarName", each.env_var_name) for index, each in enumerate(self.secrets))
        yield from distinct((place, variable) for place, variable in variables if variable)

    def _directories(self) -> Iterator[tuple[str, str]]:
        for index, mount in enumerate(self.volume_mounts):
            yield f".volumeMounts[{index}].mountPath", mount.mount_path.rstrip("/")
        for index, secret in enumerate(self.secrets):
            if secret.directory_path:
                yield f".secrets[{index}].directoryPath", secret.directory_path.rstrip("/")
        if "session_token_config" in self.model_fields_set and self.session_token_config.path:
            yield ".sessionTokenConfig.path", self.session_token_config.path


class _Cors(_Part):
    allow_origin: list[
        Annotated[str, text("a URL without a path, e.g. https://example.com", r"https?://[^/\s*?#]+/?")]
    ] = Field(alias="Access-Control-Allow-Origin", min_length=1)
    allow_methods: list[Text] = Field(_ABSENT, alias="Access-Control-Allow-Methods")
    allow_headers: list[Text] = Field(_ABSENT, alias="Access-Control-Allow-Headers")
    expose_headers: list[Text] = Field(_ABSENT, alias="Access-Control-Expose-Headers")


class _Endpoint(_Named):
    port: Port = _ABSENT
    port_range: Annotated[str, text("two port numbers, e.g. '8000-8010'", r"\d{1,5}-\d{1,5}")] = _ABSENT
    public: bool = False
    protocol: Literal["HTTP", "TCP"] = "HTTP"
    cors_settings: _Cors = _ABSENT

    def _problems(self) -> Iterator[str]:
        yield from self._one_of("port", "port_range")
        if self.public and self.protocol == "TCP":
            yield "is public, which needs protocol: HTTP."
        if not self.port_range:
            return
        first, last = map(int, self.port_range.split("-"))
        if not 1 <= first <= last <= 2**16 - 1:
            yield f".portRange must go from a smaller to a larger port, from 1 to 65535; got {self.port_range!r}."
        if self.protocol != "TCP":
            yield "has a portRange, which needs protocol: TCP."
        if self.public:
            yield "has a portRange, which can't be public."


class _InitialContents(_Part):
    from_snapshot: Annotated[str, text("the name of a snapshot", r"(?s:.+)")] = _ABSENT


class _BlockConfig(_Part):
    # The widest ranges of the clouds: the cloud of the account isn't known here.
    initial_contents: _InitialContents = _ABSENT
    iops: Annotated[int, Field(ge=2000, le=160_000)] = _ABSENT
    throughput: Annotated[int, Field(ge=125, le=1_200_000)] = _ABSENT
    encryption: Literal["SNOWFLAKE_SSE", "SNOWFLAKE_FULL"] = _ABSENT
    snapshot_on_delete: bool = _ABSENT
    snapshot_delete_after: Annotated[str, text("hours or days, e.g. 12h or 7d", r"[1-9][0-9]*[hd]")] = _ABSENT


class _StageConfig(_Part):
    name: Annotated[str, text("a path on a stage, which begins with @", r"(?s:@.+)")]
    metadata_cache: Annotated[str, text("a time such as 90s or 1h30m", r"(?:[0-9]+[hms])+")] = _ABSENT
    resources: _StageResources = _ABSENT


def _refuse_first_form(source: Any) -> Any:
    """Refuse a stage as the source of a volume (BCR-2449)."""
    if isinstance(source, str) and re.match("@.", source):
        raise InvalidValueError(
            f"{excerpt(source)} is the first form of a stage volume, which Snowflake no longer accepts; write "
            f"source: stage, stageConfig: {{name: {json.dumps(source, ensure_ascii=False)}}}. Files on such a volume "
            "are written from start to end, without changes in between."
        )
    return source


class TaskVolume(_Part):
    """A volume that is named after its mount path."""

    misplaced = {"name": "it is made from the mount path"}
    source: Annotated[
        str,
        text("one of local, memory, block, stage", "local|memory|block|stage"),
        BeforeValidator(_refuse_first_form),
    ]
    size: Annotated[
        str,
        text("a number with one of the units k, Ki, M, Mi, G, Gi, T, Ti, e.g. 2Gi", r"\d+(?:\.\d+)?(?:k|Ki|[MGT]i?)"),
    ] = _ABSENT
    stage_config: _StageConfig = _ABSENT
    block_config: _BlockConfig = _ABSENT
    uid: Id = _ABSENT
    gid: Id = _ABSENT

    # The kinds of volumes that each key is for, and whether they need it.
    _kinds: ClassVar[dict[str, tuple[str, ...]]] = {
        "size": ("memory", "block"),
        "stage_config": ("stage",),
        "block_config": ("block",),
        "uid": ("stage",),
        "gid": ("stage",),
    }

    def _problems(self) -> Iterator[str]:
        for name, kinds in self._kinds.items():
            key = to_camel(name)
            if name in self.model_fields_set and self.source not in kinds:
                yield f".{key} can't be given for source {self.source}; it is for {' and '.join(kinds)}."
            elif name in {"size", "stage_config"} and name not in self.model_fields_set and self.source in kinds:
                yield f".{key} is missing."
        if (
            self.source == "block"
            and self.size
            and not (re.fullmatch(r"[1-9]\d*Gi", self.size) and amount(self.size) <= amount("65536Gi"))
        ):
            yield f".size must be a whole number of Gi from 1Gi to 65536Gi, got {self.size!r}."


class _Volume(TaskVolume, _Named):
    misplaced = {}


class TaskVolumes(_Part):
    """The volumes of a job."""

    volumes: list[_Volume] = Field([], max_length=MAX_VOLUMES)

    def _problems(self) -> Iterator[str]:
        yield from distinct(_names("volumes", self.volumes))
        if (number := sum(volume.source == "block" for volume in self.volumes)) > _MAX_BLOCK_VOLUMES:
            yield f".volumes has {number} block volumes; Snowflake takes {_MAX_BLOCK_VOLUMES}."


class _EventTableConfig(_Part):
    log_level: Literal["INFO", "ERROR", "NONE"] = "INFO"


class _LogExporters(_Part):
    event_table_config: _EventTableConfig = _ABSENT


class _MetricConfig(_Part):
    groups: list[Literal["system", "system_limits", "status", "network", "storage"]]


class _PlatformMonitor(_Part):
    metric_config: _MetricConfig


class _StartupOrder(_Part):
    type: Literal["FirstInstance"]


class _ControlPolicy(_Part):
    startup_order: _StartupOrder


class _ResourceManagement(_Part):
    # The start order is not in the reference: Snowflake's own client writes it (snowflake-ml-python 1.20).
    misplaced = {"autoScalingPolicies": "it scales services, and this is a job; choose target_instances instead"}
    control_policy: _ControlPolicy


class _SecurityContext(_Part):
    execute_as_caller: bool = False
    enable_custom_credentials: bool = False


class _Capabilities(_Part):
    security_context: _SecurityContext = _ABSENT


class _ServiceRole(_Part):
    name: Role
    endpoints: list[Text]


class TaskEndpoints(_Part):
    """The endpoints of a job."""

    endpoints: list[_Endpoint] = Field([], max_length=100)

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        yield from distinct(_names("endpoints", self.endpoints))


class _Spec(TaskEndpoints, TaskVolumes):
    misplaced = {
        "serviceRoles": "it belongs beside spec, at the top",
        "capabilities": "it belongs beside spec, at the top",
    }
    containers: list[_Container] = Field(min_length=1, max_length=20)
    log_exporters: _LogExporters = _ABSENT
    platform_monitor: _PlatformMonitor = _ABSENT
    resource_management: _ResourceManagement = _ABSENT

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        yield from distinct(_names("containers", self.containers))
        names = [volume.name for volume in self.volumes]
        for number, container in enumerate(self.containers):
            for index, mount in enumerate(container.volume_mounts):
                if mount.name not in names:
                    yield (
                        f".containers[{number}].volumeMounts[{index}].name {mount.name!r} is not in spec.volumes, "
                        f"which has {', '.join(names) or 'nothing'}."
                    )
        if (secrets := sum(len(container.secrets) for container in self.containers)) > MAX_SECRETS:
            yield f"has {secrets} secrets; Snowflake takes {MAX_SECRETS}."


class Document(_Part):
    """A whole specification."""

    misplaced = dict.fromkeys(
        ("containers", "endpoints", "volumes", "logExporters", "platformMonitor"), "it belongs below spec"
    )
    spec: _Spec
    capabilities: _Capabilities = _ABSENT
    service_roles: list[_ServiceRole] = Field([])

    def _problems(self) -> Iterator[str]:
        yield from distinct(_names("serviceRoles", self.service_roles))
        names = [endpoint.name for endpoint in self.spec.endpoints]
        for number, role in enumerate(self.service_roles):
            for index, name in enumerate(role.endpoints):
                if name not in names:
                    yield (
                        f".serviceRoles[{number}].endpoints[{index}] {name!r} is not in spec.endpoints, which has "
                        f"{', '.join(names) or 'nothing'}."
                    )
