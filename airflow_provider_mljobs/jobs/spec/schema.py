"""What the specification of a job may say, as data: what that of a service may say, less what jobs can't do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.jobs.payload.requirements import settings_with_credentials
from airflow_provider_mljobs.jobs.spec.job import LOG_LEVELS
from airflow_provider_mljobs.jobs.spec.laws import AtMost, Different, ExactlyOne, Named, Never
from airflow_provider_mljobs.jobs.spec.rules import (
    Amount,
    Cases,
    Choice,
    Entries,
    Fields,
    Flag,
    Items,
    Scalar,
    Span,
    Text,
    TextOr,
    Whole,
)

if TYPE_CHECKING:
    from airflow_provider_mljobs.jobs.spec.rules import Rule

MOST_VOLUMES = 20
MOST_STAGES = 8
MOST_BLOCKS = 3
_MOST_SECONDS = 2**31 - 1
_MOST_IDS = 2**32 - 2
_GPU = "nvidia.com/gpu"

NAME = Text(
    "1 to 63 lower-case letters, digits and '-', from a letter to a letter or digit",
    r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?",
)
_ROLE = Text("letters, digits and '_', from a letter to a letter or digit", r"[A-Za-z](?:[A-Za-z0-9_]*[A-Za-z0-9])?")
_IMAGE = Text("an image such as /db/schema/repository/image:tag", r"[^\s]+")
_PORT = Whole(1, 65535)
_WORDS = Items(Text())
DIRECTORY = Text("an absolute path without '.' and '..', e.g. /data", r"/(?!/)(?!(?:.*/)?\.\.?(?:/|$))[^:\x00-\x1f]+")

_MEMORY = Amount(
    "a number with one of the units k, M, G, T, Ki, Mi, Gi, Ti, e.g. 16Gi", r"(\d+(?:\.\d+)?)(?:[kMGT]|[KMGT]i)"
)
_CPU = Amount("a number of cores, e.g. 0.5 or 500m", r"(\d+(?:\.\d+)?)m?", is_number=True)
_GPUS = Amount("a whole number of GPUs", r"(\d+)", is_number=True)


def _gpus(resources: Mapping[str, Any], kind: str) -> str | None:
    found = resources.get(kind)
    return str(found[_GPU]) if isinstance(found, dict) and _GPU in found else None


_NODE_SHARE = Fields(optional={"memory": _MEMORY, "cpu": _CPU, _GPU: _GPUS})
_RESOURCES = Fields(
    optional={"requests": _NODE_SHARE, "limits": _NODE_SHARE},
    laws=(
        Never(
            lambda resources: _gpus(resources, "requests") != _gpus(resources, "limits"),
            f"must have the same number of {_GPU} in requests and limits",
        ),
    ),
)

_PROBE = Fields(
    required={"port": _PORT, "path": Text("a path that begins with /", r"/\S*")},
    optional={"periodSeconds": Whole(1, _MOST_SECONDS), "failureThreshold": Whole(1, _MOST_SECONDS)},
)

SECRET = Fields(
    required={
        "snowflakeSecret": TextOr(
            Text("the name of a secret", r"(?s:.+)"),
            Fields(
                optional={"objectName": Text("the name of a secret", r"(?s:.+)"), "objectReference": Text()},
                laws=(ExactlyOne(("objectName", "objectReference")),),
            ),
        )
    },
    optional={
        "directoryPath": DIRECTORY,
        "envVarName": Text("the name of an environment variable", r"[A-Za-z_.-][A-Za-z0-9_.-]*"),
        "secretKeyRef": Choice(("username", "password", "secret_string", "access_token")),
    },
    laws=(
        ExactlyOne(("directoryPath", "envVarName")),
        Never(
            lambda secret: "secretKeyRef" in secret and "directoryPath" in secret,
            "can't have secretKeyRef with directoryPath: the directory gets a file for each key of the secret",
        ),
    ),
)

_TOKEN = Fields(
    optional={
        "path": Text("an absolute path of letters, digits, '-', '_' and '.'", r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9_.-]+)+"),
        "permission": Text("a file mode from '0400' to '0644', e.g. '0600'", r"0[46][04][04]"),
        "mountConnectionConfig": Flag(),
    },
    laws=(
        Never(lambda token: not token, "is empty; give it a path or mountConnectionConfig, or leave it out"),
        Never(lambda token: "permission" in token and "path" not in token, "has a permission, which needs a path"),
    ),
)

_CONTAINER = Fields(
    required={"name": NAME, "image": _IMAGE},
    optional={
        "command": _WORDS,
        "args": _WORDS,
        "env": Entries(Text("the name of an environment variable", r"[A-Za-z_.-][A-Za-z0-9_.-]*"), Scalar()),
        "readinessProbe": _PROBE,
        "livenessProbe": _PROBE,
        "volumeMounts": Items(Fields(required={"name": NAME, "mountPath": DIRECTORY})),
        "resources": _RESOURCES,
        "mountSessionToken": Flag(),
        "sessionTokenConfig": _TOKEN,
        "secrets": Items(SECRET),
    },
    laws=(
        Never(
            lambda container: bool(
                isinstance(container.get("env"), Mapping) and settings_with_credentials(container["env"])
            ),
            "has credentials of a package index in its env: put the value into a Snowflake secret, named in secrets",
        ),
        Different("volumeMounts[].mountPath"),
        Different("secrets[].envVarName"),
        Different("secrets[].directoryPath"),
        Never(
            lambda container: container.get("mountSessionToken") is False and "sessionTokenConfig" in container,
            "has a sessionTokenConfig, which needs the session token: leave mountSessionToken out",
        ),
    ),
)

_CORS = Fields(
    required={
        "Access-Control-Allow-Origin": Items(
            Text("a URL without a path, e.g. https://example.com", r"https?://[^/\s*?#]+/?"), least=1
        )
    },
    optional={f"Access-Control-{name}": _WORDS for name in ("Allow-Methods", "Allow-Headers", "Expose-Headers")},
)
ENDPOINTS = Items(
    Fields(
        required={"name": NAME},
        optional={
            "port": _PORT,
            "portRange": Span(1, 65535),
            "public": Flag(),
            "protocol": Choice(("HTTP", "TCP")),
            "corsSettings": _CORS,
        },
        laws=(
            ExactlyOne(("port", "portRange")),
            Never(
                lambda endpoint: "portRange" in endpoint and endpoint.get("protocol") != "TCP",
                "has a portRange, which needs protocol: TCP",
            ),
            Never(
                lambda endpoint: "portRange" in endpoint and endpoint.get("public") is True,
                "has a portRange, which can't be public",
            ),
            Never(
                lambda endpoint: endpoint.get("public") is True and endpoint.get("protocol") == "TCP",
                "is public, which needs protocol: HTTP",
            ),
        ),
    ),
    most=100,
)

_BLOCK = Fields(
    optional={
        "initialContents": Fields(required={"fromSnapshot": Text("the name of a snapshot", r"(?s:.+)")}),
        "iops": Whole(3000, 80000),
        "throughput": Whole(125, 2000),
        "encryption": Choice(("SNOWFLAKE_SSE", "SNOWFLAKE_FULL")),
        "snapshotOnDelete": Flag(),
        "snapshotDeleteAfter": Text("hours or days, e.g. 12h or 7d", r"[1-9][0-9]*[hd]"),
    }
)
_SIDECAR_SHARE = Fields(optional={"memory": _MEMORY, "cpu": _CPU})
_STAGE = Fields(
    required={"name": Text("a path that begins with @ or snow://", r"(?s:(?:@|snow://).+)")},
    optional={
        "metadataCache": Text("a time such as 30s or 1h30m", r"(?:[0-9]+(?:ms|[smhd]))+"),
        "resources": Fields(optional={"requests": _SIDECAR_SHARE, "limits": _SIDECAR_SHARE}),
    },
)
_FOR_STAGES = "it is for volumes on a stage"
_ELSEWHERE = {
    "size": "only memory and block volumes have a size",
    "blockConfig": "it is for block volumes",
    "stageConfig": "it is for source: stage",
    "uid": _FOR_STAGES,
    "gid": _FOR_STAGES,
}
_OWNER: Mapping[str, Rule] = {"uid": Whole(0, _MOST_IDS), "gid": Whole(0, _MOST_IDS)}
_GIBIBYTES = Amount("a whole number of Gi from 1Gi to 65536Gi", r"([1-9]\d*)Gi", most=65536)


def volume(common: Mapping[str, Rule], refused: Mapping[str, str]) -> Cases:
    """Return the rule of a volume.

    :param common: the keys that each volume has beside those of its source.
    :param refused: keys that can't be given, and why.
    """

    def of(required: Mapping[str, Rule], optional: Mapping[str, Rule]) -> Fields:
        return Fields({**common, "source": Text(), **required}, optional, {**_ELSEWHERE, **refused})

    return Cases(
        "source",
        {
            "local": of({}, {}),
            "memory": of({"size": _MEMORY}, {}),
            "block": of({"size": _GIBIBYTES}, {"blockConfig": _BLOCK}),
            "stage": of({"stageConfig": _STAGE}, _OWNER),
        },
        {"@": of({}, _OWNER)},
    )


def is_block(value: Any) -> bool:
    """Tell whether a volume is a block volume."""
    return isinstance(value, dict) and value.get("source") == "block"


def is_on_stage(value: Any) -> bool:
    """Tell whether a volume lies on a stage."""
    return isinstance(value, dict) and str(value.get("source")).startswith(("stage", "@"))


_SPEC = Fields(
    required={"containers": Items(_CONTAINER, least=1, most=20)},
    optional={
        "endpoints": ENDPOINTS,
        "volumes": Items(volume({"name": NAME}, {}), most=MOST_VOLUMES),
        "logExporters": Fields(required={"eventTableConfig": Fields(required={"logLevel": Choice(LOG_LEVELS)})}),
        "platformMonitor": Fields(
            required={
                "metricConfig": Fields(
                    required={
                        "groups": Items(Choice(("system", "system_limits", "status", "network", "storage")), least=1)
                    }
                )
            }
        ),
    },
    refused={
        "resourceManagement": "it scales services, and this is a job; choose target_instances instead",
        "serviceRoles": "it belongs beside spec, at the top",
        "capabilities": "it belongs beside spec, at the top",
    },
    laws=(
        Different("containers[].name"),
        Different("endpoints[].name"),
        Different("volumes[].name"),
        Named("containers[].volumeMounts[].name", among="volumes[].name"),
        AtMost(50, "containers[].secrets[]", "secrets"),
        AtMost(MOST_BLOCKS, "volumes[]", "block volumes", is_block),
        AtMost(MOST_STAGES, "volumes[]", "volumes on stages", is_on_stage),
    ),
)

DOCUMENT = Fields(
    required={"spec": _SPEC},
    optional={
        "capabilities": Fields(
            optional={
                "securityContext": Fields(optional={"executeAsCaller": Flag(), "enableCustomCredentials": Flag()})
            }
        ),
        "serviceRoles": Items(Fields(required={"name": _ROLE, "endpoints": Items(Text(), least=1)})),
    },
    refused=dict.fromkeys(
        ("containers", "endpoints", "volumes", "logExporters", "platformMonitor"), "it belongs below spec"
    ),
    laws=(
        Different("serviceRoles[].name"),
        Named("serviceRoles[].endpoints[]", among="spec.endpoints[].name"),
    ),
)
