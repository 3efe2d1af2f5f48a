"""What a service specification may say, as data, and the walk that holds a document against it.

A check is a function ``(value, where) -> normalised value``. ``where`` is the place as Snowflake's messages name it:
relative to ``spec``, e.g. ``containers[0].env``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_mljobs.emulator.errors import SnowflakeError, invalid_spec

Check = Callable[[Any, str], Any]

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_ROLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)(k|K|M|G|T|Ki|Mi|Gi|Ti)")
_CPU = re.compile(r"\d+(?:\.\d+)?|\d+m")
_IMAGE = re.compile(r"[^\s/:@]*(/[^\s/:@]+)+(:[\w.-]+)?(@sha256:[0-9a-f]{64})?|cre@\S+")
_DURATION = re.compile(r"(\d+(d|h|m|s|ms))+")
_PERMISSION = re.compile(r"0?[0-7]{3}")
_LAST_PORT = 65535
_BYTES = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def invalid_value(value: object, where: str, hint: str = "") -> SnowflakeError:
    """Build the error for a value that an option can't have."""
    shown = str(value).lower() if isinstance(value, bool) else value
    return invalid_spec(f"invalid value {shown} for '{where}'.{' ' + hint if hint else ''}")


def missing(option: str, where: str) -> SnowflakeError:
    """Build the error for an option that must be there."""
    return invalid_spec(f"missing required option '{option}' for '{where}'.")


def memory_bytes(text: str) -> float:
    """Return how many bytes ``2Gi`` are."""
    match = _MEMORY.fullmatch(text)
    return float(match[1]) * _BYTES[match[2]] if match else 0.0


def cpu_cores(text: str) -> float:
    """Return how many cores ``500m`` or ``0.5`` are."""
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _join(where: str, option: str) -> str:
    return option if where in {"", "spec"} else f"{where}.{option}"


@dataclass(frozen=True)
class Options:
    """A mapping with these options and no others.

    :param checks: the check of each option.
    :param required: options that must be there.
    :param place: how messages name the place, where that isn't the path to it.
    """

    checks: Mapping[str, Check]
    required: tuple[str, ...] = ()
    place: str | None = None

    def __call__(self, value: Any, where: str) -> dict[str, Any]:
        """Check a mapping and return it normalised; options without a value are left out."""
        where = self.place or where
        if not isinstance(value, dict):
            raise invalid_value(value, where, "Expected a mapping.")
        for option in value:
            if option not in self.checks:
                raise invalid_spec(f"unknown option '{option}' for '{where}'.")
        for option in self.required:
            if value.get(option) is None:
                raise missing(option, where)
        # In the order of the reference, whatever the submitter's.
        return {
            option: check(value[option], _join(where, option))
            for option, check in self.checks.items()
            if value.get(option) is not None
        }


@dataclass(frozen=True)
class Items:
    """A list of things.

    :param most: the longest it may be.
    """

    check: Check
    least: int = 0
    most: int | None = None

    def __call__(self, value: Any, where: str) -> list[Any]:
        """Check a list and return it normalised."""
        if not isinstance(value, list):
            raise invalid_value(value, where, "Expected a list.")
        if len(value) < self.least:
            raise invalid_spec(f"'{where}' must have at least {self.least} item(s).")
        if self.most is not None and len(value) > self.most:
            raise invalid_spec(f"'{where}' has {len(value)} items, the limit is {self.most}.")
        return [self.check(item, f"{where}[{index}]") for index, item in enumerate(value)]


@dataclass(frozen=True)
class Pattern:
    """A text that matches as a whole."""

    pattern: re.Pattern[str]
    hint: str

    def __call__(self, value: Any, where: str) -> str:
        """Check a text; numbers are taken as text."""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise invalid_value(value, where, self.hint)
        if self.pattern.fullmatch(str(value)) is None:
            raise invalid_value(value, where, self.hint)
        return str(value)


@dataclass(frozen=True)
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]

    def __call__(self, value: Any, where: str) -> str:
        """Check a word."""
        if value not in self.words:
            raise invalid_value(value, where, f"Supported values are [{', '.join(self.words)}].")
        return str(value)


@dataclass(frozen=True)
class Whole:
    """A whole number within bounds."""

    least: int
    most: int

    def __call__(self, value: Any, where: str) -> int:
        """Check a number."""
        if isinstance(value, bool) or not isinstance(value, int) or not self.least <= value <= self.most:
            raise invalid_value(value, where, f"Expected a whole number from {self.least} to {self.most}.")
        return value


def _text(value: Any, where: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise invalid_value(value, where, "Expected a string.")
    return str(value)


def _boolean(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise invalid_value(value, where, "Expected true or false.")
    return value


def _absolute(value: Any, where: str) -> str:
    text = _text(value, where)
    if not text.startswith("/") or ".." in text.split("/"):
        raise invalid_value(value, where, "Expected an absolute path.")
    return text


def _memory(value: Any, where: str) -> str:
    units = "Supported units are [G, Gi, M, Mi, T, Ti]."
    if _MEMORY.fullmatch(str(value)):
        return str(value)
    unit = "Missing unit. " if re.fullmatch(r"\d+(\.\d+)?", str(value)) else ""
    raise invalid_value(value, where, unit + units)


def _anything(value: Any, where: str) -> Any:
    if not isinstance(value, dict | list):
        raise invalid_value(value, where, "Expected a mapping or a list.")
    return value


def _environment(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise invalid_value(value, where, "Expected a mapping.")
    return {_text(key, where): _text(entry, f"{where}.{key}") for key, entry in value.items() if entry is not None}


def _secret_object(value: Any, where: str) -> dict[str, str]:
    if isinstance(value, str):
        return {"objectName": value}
    fields: dict[str, str] = Options({"objectName": _text, "objectReference": _text})(value, where)
    if len(fields) != 1:
        raise invalid_spec(f"exactly one of 'objectName' and 'objectReference' must be given for '{where}'.")
    return fields


def _resource_set(kind: str) -> Options:
    gpus = Whole(1, 64)
    cpu = Pattern(_CPU, "Expected a number of cores, e.g. 0.5 or 500m.")
    return Options({"memory": _memory, "cpu": cpu, "nvidia.com/gpu": gpus, "amd.com/gpu": gpus}, place=kind)


NAME = Pattern(
    _NAME, "A name has at most 63 characters of a-z, 0-9 and '-', begins with a letter and ends with neither."
)
_PORT = Whole(1, _LAST_PORT)
_RESOURCES = Options({"requests": _resource_set("requests"), "limits": _resource_set("limits")})
_PROBE = Options(
    {"port": _PORT, "path": _absolute, "periodSeconds": Whole(1, 3600), "failureThreshold": Whole(1, 1000)},
    ("port", "path"),
)
_SECRET = Options(
    {
        "snowflakeSecret": _secret_object,
        "directoryPath": _absolute,
        "envVarName": _text,
        "secretKeyRef": OneOf(("username", "password", "secret_string", "access_token")),
    },
    ("snowflakeSecret",),
)
_CONTAINER = Options(
    {
        "name": NAME,
        "image": Pattern(_IMAGE, "Expected /database/schema/repository/image:tag."),
        "sha256": _text,
        "command": Items(_text),
        "args": Items(_text),
        "env": _environment,
        "readinessProbe": _PROBE,
        "livenessProbe": _PROBE,
        "volumeMounts": Items(Options({"name": NAME, "mountPath": _absolute}, ("name", "mountPath"))),
        "resources": _RESOURCES,
        "mountSessionToken": _boolean,
        "sessionTokenConfig": Options(
            {
                "path": _absolute,
                "permission": Pattern(_PERMISSION, "Expected an octal mode."),
                "mountConnectionConfig": _boolean,
            }
        ),
        "secrets": Items(_SECRET, most=50),
    },
    ("name", "image"),
)
_ENDPOINT = Options(
    {
        "name": NAME,
        "port": _PORT,
        "portRange": Pattern(re.compile(r"\d{1,5}-\d{1,5}"), "Expected a range, e.g. 8000-8010."),
        "public": _boolean,
        "protocol": OneOf(("HTTP", "TCP")),
        "corsSettings": _anything,
    },
    ("name",),
)
_STAGE_CONFIG = Options(
    {
        "name": Pattern(re.compile(r"@.+", re.DOTALL), "Expected a stage, e.g. @db.schema.stage/path."),
        "metadataCache": Pattern(_DURATION, "Expected a duration, e.g. 1h30m."),
        "resources": _RESOURCES,
    },
    ("name",),
)
_BLOCK_CONFIG = Options(
    {
        "initialContents": Options({"fromSnapshot": _text}),
        "iops": Whole(3000, 80000),
        "throughput": Whole(125, 2000),
        "encryption": OneOf(("SNOWFLAKE_SSE", "SNOWFLAKE_FULL")),
        "snapshotOnDelete": _boolean,
        "snapshotDeleteAfter": Pattern(_DURATION, "Expected a duration, e.g. 7d."),
    }
)
_VOLUME = Options(
    {
        "name": NAME,
        "source": Pattern(
            re.compile(r"local|memory|block|stage|@.+", re.DOTALL), "Expected local, memory, block or stage."
        ),
        "size": _memory,
        "stageConfig": _STAGE_CONFIG,
        "blockConfig": _BLOCK_CONFIG,
        "uid": Whole(0, 2**31),
        "gid": Whole(0, 2**31),
    },
    ("name", "source"),
)
_GROUPS = ("system", "system_limits", "status", "network", "storage")
_SPEC = Options(
    {
        "containers": Items(_CONTAINER, least=1, most=20),
        "endpoints": Items(_ENDPOINT, most=100),
        "volumes": Items(_VOLUME, most=20),
        "logExporters": Options(
            {"eventTableConfig": Options({"logLevel": OneOf(("INFO", "ERROR", "NONE"))}, ("logLevel",))}
        ),
        "platformMonitor": Options({"metricConfig": Options({"groups": Items(OneOf(_GROUPS))})}),
        "resourceManagement": Options({"autoScalingPolicies": _anything}),
    },
    ("containers",),
    place="spec",
)
_CAPABILITIES = Options(
    {"securityContext": Options({"executeAsCaller": _boolean, "enableCustomCredentials": _boolean})}
)
_SERVICE_ROLE = Options(
    {"name": Pattern(_ROLE, "Expected letters, digits and '_'."), "endpoints": Items(_text)}, ("name",)
)

DOCUMENT = Options(
    {"spec": _SPEC, "capabilities": _CAPABILITIES, "serviceRoles": Items(_SERVICE_ROLE)},
    ("spec",),
    place="service specification",
)
