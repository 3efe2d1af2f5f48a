"""Snowflake secrets in a job: as variables of its environment, or as files. Their values never come this way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.names import ANYWHERE, PLACEHOLDER, Namespace, QualifiedName
from airflow_provider_mljobs.jobs.spec.documents import plain
from airflow_provider_mljobs.jobs.spec.job import validate_env_name
from airflow_provider_mljobs.jobs.spec.mounts import directory
from airflow_provider_mljobs.jobs.spec.rules import Fields, refuse, shown
from airflow_provider_mljobs.jobs.spec.schema import SECRET

_MOST = 50
_DEFAULT_KEY = "secret_string"
_WORDS = Fields(
    required={"snowflakeSecret": SECRET.required["snowflakeSecret"]},
    optional={"secretKeyRef": SECRET.optional["secretKeyRef"]},
    refused=dict.fromkeys(("envVarName", "directoryPath"), "it is what the secret stands under"),
)


def parse_secrets(secrets: object, namespace: Namespace = ANYWHERE) -> list[dict[str, Any]]:
    """Read secrets by where they go as entries of ``secrets`` of a container.

    :param secrets: maps the name of an environment variable, or the absolute path of a directory, to the name of a
        secret; or to ``{"snowflakeSecret": …, "secretKeyRef": …}``, for another key of the secret than
        ``secret_string``. A directory gets a file for each key.
    :param namespace: database and schema of secrets that are named without.
    :raises InvalidJobSpecError: naming the variable or directory.

    Example::

        parse_secrets({
            "WANDB_API_KEY": "ml.secrets.wandb",
            "DB_PASSWORD": {"snowflakeSecret": "ml.secrets.db", "secretKeyRef": "password"},
            "/secrets/feed": "ml.secrets.feed",
        })
    """
    if not isinstance(secrets, Mapping):
        raise InvalidJobSpecError(
            f"secrets must map variables or directories to secrets, e.g. {{'API_KEY': 'db.schema.secret'}}; got "
            f"{shown(secrets)}."
        )
    if len(secrets) > _MOST:
        raise InvalidJobSpecError(f"secrets has {len(secrets)} entries, more than the {_MOST} that Snowflake takes.")
    entries: dict[str, dict[str, Any]] = {}
    for place, given in secrets.items():
        entry = _entry(place, given, namespace)
        if entries.setdefault(str(entry.get("directoryPath", place)), entry) is not entry:
            raise InvalidJobSpecError(f"{place!r} stands twice in secrets; one secret can be there.")
    return list(entries.values())


def validate_secrets(value: object) -> None:
    """Refuse secrets that no job can have, as far as this is known without a connection's database and schema.

    :raises InvalidJobSpecError: naming the variable or directory.
    """
    parse_secrets(value, PLACEHOLDER)


def _entry(place: Any, given: Any, namespace: Namespace) -> dict[str, Any]:
    path = f"secrets[{place!r}]"
    if not isinstance(given, str | Mapping):
        raise InvalidJobSpecError(
            f"{path} must be the name of a secret, or a dict with snowflakeSecret and secretKeyRef; got {shown(given)}."
        )
    found: dict[str, Any] = plain({"snowflakeSecret": given} if isinstance(given, str) else given, path)
    refuse(_WORDS.problems(found, path), "secrets")
    secret = found["snowflakeSecret"]
    if name := secret if isinstance(secret, str) else secret.get("objectName"):
        secret = str(QualifiedName.parse(name, path, namespace))
    if not isinstance(place, str) or not place.startswith("/"):
        validate_env_name(place, "secrets")
        key = found.get("secretKeyRef", _DEFAULT_KEY)
        return {"snowflakeSecret": secret, "envVarName": place, "secretKeyRef": key}
    if "secretKeyRef" in found:
        raise InvalidJobSpecError(f"{path} can't have secretKeyRef: the directory gets a file for each key.")
    return {"snowflakeSecret": secret, "directoryPath": directory(place, "secrets")}
