"""Service specifications as pydantic models, in the order of Snowflake's specification reference.

A valid document comes back normalised: texts where Snowflake keeps texts, keys in the order of the reference. The first
fault raises 395018 with its place as Snowflake writes it, relative to ``spec``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from airflow_provider_mljobs.emulator.errors import invalid_spec

if TYPE_CHECKING:
    from collections.abc import Iterable

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)(k|M|G|T|Ki|Mi|Gi|Ti)")
_BYTES = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
# The text of BCR-2449.
_FIRST_FORM = "stage mount v1 not supported, please use v2 instead"
# Pydantic doesn't validate defaults: an option may be missing, but not null.
_MISSING: Any = None


def memory_bytes(text: str) -> float:
    """Return how many bytes ``2Gi`` are."""
    match = _MEMORY.fullmatch(text)
    return float(match[1]) * _BYTES[match[2]] if match else 0.0


def cpu_cores(text: str) -> float:
    """Return how many cores ``500m`` or ``0.5`` are."""
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


class _FaultError(ValueError):
    """A fault, as the text before and after its place; ``option`` is below the place that pydantic reports."""

    def __init__(self, before: str, option: str = "", after: str = ".") -> None:
        super().__init__(before)
        self.before, self.option, self.after = before, option, after


def _text_of(value: Any) -> Any:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else value


def _scalar(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _number(value: Any) -> Any:
    return value if isinstance(value, bool) else _scalar(value)


def _gpus(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else value


def _memory(value: Any) -> Any:
    if not isinstance(value, str) or not re.fullmatch(r"\d+(\.\d+)?[MGT]i?", value):
        missing = " Missing unit." if re.fullmatch(r"\d+(\.\d+)?", str(value)) else ""
        hint = f".{missing} Supported units are [G, Gi, M, Mi, T, Ti]."
        raise _FaultError(f"invalid value {_text_of(value)} for", after=hint)
    return value


def _size(value: Any) -> Any:
    return value if re.fullmatch(r"\d+(\.\d+)?(k|Ki)", str(value)) else _memory(value)


def _pattern(form: str) -> StringConstraints:
    return StringConstraints(pattern=rf"(?as)\A(?:{form})\Z")


def _unique(group: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise _FaultError(f"duplicate name '{name}' for", group)
        seen.add(name)


_Scalar = Annotated[str, BeforeValidator(_scalar)]
_Name = Annotated[str, _pattern(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")]
_Path = Annotated[str, _pattern(r"/(?!/)(?!(.*/)?\.\.?(/|\Z))[^:\x00-\x1f]+")]
_Variable = Annotated[str, _pattern(r"[-._a-zA-Z][-._a-zA-Z0-9]*")]
_Port = Annotated[int, Field(ge=1, le=65535)]
_Seconds = Annotated[int, Field(ge=1, le=2**63 - 1)]
_Owner = Annotated[int, Field(ge=0, le=2**32 - 2)]
_Memory = Annotated[str, BeforeValidator(_memory)]
_Size = Annotated[str, BeforeValidator(_size)]
_Cpu = Annotated[str, _pattern(r"\d+(\.\d+)?|\d+m"), BeforeValidator(_number)]
_Gpus = Annotated[int, Field(ge=0), BeforeValidator(_gpus)]


class _Options(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True, regex_engine="python-re")

    def _check(self) -> None:
        """Raise a fault for options that don't go together."""

    def _exactly_one(self, *names: str) -> None:
        if len(self.model_fields_set.intersection(names)) != 1:
            options = " and ".join(f"'{to_camel(name)}'" for name in names)
            raise _FaultError(f"exactly one of {options} must be given for")

    @model_validator(mode="after")
    def _checked(self) -> Self:
        self._check()
        return self


class _Probe(_Options):
    port: _Port
    path: Annotated[str, _pattern(r"/\S*")]
    period_seconds: _Seconds = _MISSING
    failure_threshold: _Seconds = _MISSING


class _Mount(_Options):
    name: _Name
    mount_path: _Path


class _StageResource(_Options):
    memory: _Memory = _MISSING
    cpu: _Cpu = _MISSING


class _Resource(_StageResource):
    gpu: _Gpus = Field(_MISSING, alias="nvidia.com/gpu")


class _StageResources(_Options):
    requests: _StageResource = _MISSING
    limits: _StageResource = _MISSING


class _Resources(_Options):
    requests: _Resource = _MISSING
    limits: _Resource = _MISSING

    def _check(self) -> None:
        request, limit = getattr(self.requests, "gpu", None), getattr(self.limits, "gpu", None)
        if request != limit:
            raise _FaultError(
                f"invalid value {request} for", "requests.nvidia.com/gpu", ". The request of GPUs must equal the limit."
            )


class _Token(_Options):
    path: Annotated[str, _pattern(r"(/(?!\.\.?(/|\Z))[A-Za-z0-9_.-]+)+")] = _MISSING
    permission: Annotated[str, _pattern(r"0[46][04][04]")] = _MISSING
    mount_connection_config: bool = _MISSING

    def _check(self) -> None:
        if not self.model_fields_set:
            raise _FaultError("at least one option must be given for")
        if "permission" in self.model_fields_set and "path" not in self.model_fields_set:
            raise _FaultError("'permission' requires 'path' for")


class _SecretObject(_Options):
    object_name: Annotated[str, _pattern(r".+")] = _MISSING
    object_reference: Annotated[str, _pattern(r".+")] = _MISSING

    def _check(self) -> None:
        self._exactly_one("object_name", "object_reference")


class _Secret(_Options):
    snowflake_secret: Annotated[
        _SecretObject, BeforeValidator(lambda value: {"objectName": value} if isinstance(value, str) else value)
    ]
    directory_path: _Path = _MISSING
    env_var_name: _Variable = _MISSING
    secret_key_ref: Literal["username", "password", "secret_string", "access_token"] = _MISSING

    def _check(self) -> None:
        self._exactly_one("directory_path", "env_var_name")
        if {"secret_key_ref", "directory_path"} <= self.model_fields_set:
            raise _FaultError("'secretKeyRef' may only be given with 'envVarName' for")


class _Container(_Options):
    name: _Name
    image: Annotated[str, _pattern(r"([\w.-]+(:\d+)?)?(/[^\s/:@]+){4,}(:[\w.-]+)?(@sha256:[0-9a-f]{64})?|cre@\S+")]
    command: list[str] = _MISSING
    args: list[str] = _MISSING
    env: dict[_Variable, _Scalar] = _MISSING
    readiness_probe: _Probe = _MISSING
    liveness_probe: _Probe = _MISSING
    volume_mounts: list[_Mount] = _MISSING
    resources: _Resources = _MISSING
    mount_session_token: bool = _MISSING
    session_token_config: _Token = _MISSING
    secrets: list[_Secret] = _MISSING

    def _check(self) -> None:
        if "session_token_config" in self.model_fields_set and self.mount_session_token is False:
            raise _FaultError("'sessionTokenConfig' can't be given when 'mountSessionToken' is false for")
        mounts, secrets = self.volume_mounts or [], self.secrets or []
        directories = [mount.mount_path.rstrip("/") for mount in mounts]
        directories += [secret.directory_path.rstrip("/") for secret in secrets if secret.directory_path]
        if token_path := getattr(self.session_token_config, "path", None):
            directories.append(token_path)
        for names, what in (
            (directories, "path"),
            ([secret.env_var_name for secret in secrets if secret.env_var_name], "environment variable"),
        ):
            if repeated := next((name for name in names if names.count(name) > 1), None):
                raise _FaultError(f"{what} '{repeated}' is used twice for")


class _Cors(_Options):
    origins: list[Annotated[str, _pattern(r"https?://[^/\s*?#]+/?")]] = Field(
        alias="Access-Control-Allow-Origin", min_length=1
    )
    methods: list[str] = Field(_MISSING, alias="Access-Control-Allow-Methods")
    headers: list[str] = Field(_MISSING, alias="Access-Control-Allow-Headers")
    exposed: list[str] = Field(_MISSING, alias="Access-Control-Expose-Headers")


class _Endpoint(_Options):
    name: _Name
    port: _Port = _MISSING
    port_range: Annotated[str, _pattern(r"\d{1,5}-\d{1,5}")] = _MISSING
    public: bool = _MISSING
    protocol: Literal["HTTP", "TCP"] = _MISSING
    cors_settings: _Cors = _MISSING

    def _check(self) -> None:
        self._exactly_one("port", "port_range")
        if self.public and self.protocol == "TCP":
            raise _FaultError("a public endpoint requires protocol HTTP for")
        if not self.port_range:
            return
        if self.protocol != "TCP" or self.public:
            raise _FaultError("'portRange' requires protocol TCP and a non-public endpoint for")
        first, last = map(int, self.port_range.split("-"))
        if not 0 < first <= last < 2**16:
            raise _FaultError(f"invalid value {self.port_range} for", "portRange")


class _StageConfig(_Options):
    name: Annotated[str, _pattern(r"@.+")]
    metadata_cache: Annotated[str, _pattern(r"(\d+[hms])+")] = _MISSING
    resources: _StageResources = _MISSING


class _Snapshot(_Options):
    from_snapshot: Annotated[str, _pattern(r".+")] = _MISSING


class _BlockConfig(_Options):
    # The widest ranges: the clouds differ.
    initial_contents: _Snapshot = _MISSING
    iops: Annotated[int, Field(ge=2000, le=160_000)] = _MISSING
    throughput: Annotated[int, Field(ge=125, le=1_200_000)] = _MISSING
    encryption: Literal["SNOWFLAKE_SSE", "SNOWFLAKE_FULL"] = _MISSING
    snapshot_on_delete: bool = _MISSING
    snapshot_delete_after: Annotated[str, _pattern(r"[1-9]\d*[hd]")] = _MISSING


class _Volume(_Options):
    name: _Name
    source: Annotated[str, _pattern(r"local|memory|block|stage|@.+")]
    size: _Size = _MISSING
    stage_config: _StageConfig = _MISSING
    block_config: _BlockConfig = _MISSING
    uid: _Owner = _MISSING
    gid: _Owner = _MISSING

    _required: ClassVar[dict[str, tuple[str, ...]]] = {"size": ("memory", "block"), "stageConfig": ("stage",)}
    _sources: ClassVar[dict[str, tuple[str, ...]]] = {
        **_required,
        "blockConfig": ("block",),
        "uid": ("stage",),
        "gid": ("stage",),
    }

    def _check(self) -> None:
        options = self.model_dump(by_alias=True, exclude_none=True)
        if self.source.startswith("@"):
            raise _FaultError(_FIRST_FORM)
        for option, sources in self._sources.items():
            if option in options and self.source not in sources:
                raise _FaultError(f"option '{option}' is not supported for source '{self.source}' of")
            if option not in options and self.source in self._required.get(option, ()):
                raise _FaultError(f"missing required option '{option}' for")
        if self.source == "block" and not (
            re.fullmatch(r"[1-9]\d*Gi", self.size) and memory_bytes(self.size) <= memory_bytes("65536Gi")
        ):
            raise _FaultError(
                f"invalid value {self.size} for", "size", ". Expected a whole number of Gi from 1Gi to 65536Gi."
            )


class _EventTable(_Options):
    log_level: Literal["INFO", "ERROR", "NONE"] = _MISSING


class _LogExporters(_Options):
    event_table_config: _EventTable = _MISSING


class _MetricConfig(_Options):
    groups: list[Literal["system", "system_limits", "status", "network", "storage"]]


class _PlatformMonitor(_Options):
    metric_config: _MetricConfig


class _StartupOrder(_Options):
    type: Literal["FirstInstance"]


class _ControlPolicy(_Options):
    startup_order: _StartupOrder


class _ResourceManagement(_Options):
    auto_scaling_policies: dict[str, Any] = _MISSING
    # Not in the reference; snowflake-ml-python 1.20 writes it for jobs of several instances.
    control_policy: _ControlPolicy = _MISSING


class _Spec(_Options):
    containers: list[_Container] = Field(min_length=1, max_length=20)
    endpoints: list[_Endpoint] = Field(_MISSING, max_length=100)
    volumes: list[_Volume] = Field(_MISSING, max_length=20)
    log_exporters: _LogExporters = _MISSING
    platform_monitor: _PlatformMonitor = _MISSING
    resource_management: _ResourceManagement = _MISSING

    def _check(self) -> None:
        volumes = self.volumes or []
        _unique("containers", (container.name for container in self.containers))
        _unique("endpoints", (endpoint.name for endpoint in self.endpoints or ()))
        _unique("volumes", (volume.name for volume in volumes))
        for number, container in enumerate(self.containers):
            for index, mount in enumerate(container.volume_mounts or ()):
                if mount.name not in {volume.name for volume in volumes}:
                    place = f"containers[{number}].volumeMounts[{index}].name"
                    raise _FaultError(f"invalid value {mount.name} for", place, ". No such volume.")
        for option, number, most, what in (
            ("containers", sum(len(container.secrets or ()) for container in self.containers), 50, "secrets"),
            ("volumes", sum(volume.source == "block" for volume in volumes), 3, "block volumes"),
        ):
            if number > most:
                raise _FaultError("", option, f" has {number} {what}, the limit is {most}.")


class _SecurityContext(_Options):
    execute_as_caller: bool = _MISSING
    enable_custom_credentials: bool = _MISSING


class _Capabilities(_Options):
    security_context: _SecurityContext = _MISSING


class _ServiceRole(_Options):
    name: Annotated[str, _pattern(r"[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?")]
    endpoints: list[str]


class _Document(_Options):
    spec: _Spec
    capabilities: _Capabilities = _MISSING
    service_roles: list[_ServiceRole] = _MISSING

    def _check(self) -> None:
        _unique("serviceRoles", (role.name for role in self.service_roles or ()))
        endpoints = {endpoint.name for endpoint in self.spec.endpoints or ()}
        for index, role in enumerate(self.service_roles or ()):
            for name in role.endpoints:
                if name not in endpoints:
                    raise _FaultError(
                        f"invalid value {name} for", f"serviceRoles[{index}].endpoints", ". No such endpoint."
                    )


_HINTS = {
    "model_type": " Expected a mapping.",
    "dict_type": " Expected a mapping.",
    "list_type": " Expected a list.",
    "bool_type": " Expected true or false.",
    "string_type": " Expected a string.",
    "literal_error": " Supported values are {expected}.",
}
_TEXTS = {
    "extra_forbidden": "unknown option '{option}' for '{parent}'.",
    "missing": "missing required option '{option}' for '{parent}'.",
    "too_short": "'{where}' must have at least {min_length} item(s).",
    "too_long": "'{where}' has {actual_length} items, the limit is {max_length}.",
}


def normalise(document: Any) -> dict[str, Any]:
    """Check a document and return it normalised; raises 395018 for its first fault."""
    try:
        return _Document.model_validate(document).model_dump(by_alias=True, exclude_none=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
    place = list(fault["loc"])
    if fault["type"] != "extra_forbidden" and place[-1:] == ["[key]"]:
        # Pydantic's mark for the key of a mapping, instead of its value.
        place.pop()
    context = fault.get("ctx", {})
    if isinstance(problem := context.get("error"), _FaultError):
        if problem.before == _FIRST_FORM:
            raise invalid_spec(f"{_FIRST_FORM}.")
        where = _where([*place, problem.option] if problem.option else place)
        raise invalid_spec(f"{problem.before} '{where}'{problem.after}".strip())
    text = _TEXTS.get(fault["type"], "invalid value {value} for '{where}'." + _HINTS.get(fault["type"], ""))
    raise invalid_spec(
        text.format(
            **context,
            value=_text_of(fault["input"]),
            where=_where(place),
            parent=_where(place[:-1]),
            option=place[-1] if place else "",
        )
    )


def _where(place: list[int | str]) -> str:
    """Write a place as Snowflake does: relative to ``spec``, and of resources only their kind."""
    if not place:
        return "service specification"
    if place == ["spec"]:
        return "spec"
    if "resources" in place[:-1]:
        place = place[place.index("resources") + 1 :]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return path.removeprefix(".spec").lstrip(".")
