"""Snowflake secrets in a job, as environment variables or files. Only references: secret values never reach Airflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.names import PLACEHOLDER, Namespace, QualifiedName
from airflow_provider_mljobs.jobs.spec.documents import excerpt, plain
from airflow_provider_mljobs.jobs.spec.job import validate_env_name
from airflow_provider_mljobs.jobs.spec.mounts import directory
from airflow_provider_mljobs.jobs.spec.refusals import check
from airflow_provider_mljobs.jobs.spec.schema import MAX_SECRETS, TaskSecret

_DEFAULT_KEY = "secret_string"


def parse_secrets(secrets: object, namespace: Namespace = PLACEHOLDER) -> list[dict[str, Any]]:
    """Turn secrets by their place in the container into entries of its ``secrets``.

    :param secrets: names of environment variables or absolute paths of directories, each with the name of a secret;
        or with ``{"snowflakeSecret": …, "secretKeyRef": …}``, for another key of the secret than ``secret_string``. A
        directory gets a file for each key.
    :param namespace: database and schema of secrets that are named without; while a DAG is parsed, they are unknown.
    """
    if not isinstance(secrets, Mapping):
        raise InvalidJobSpecError(
            f"secrets must map variables or directories to secrets, e.g. {{'API_KEY': 'db.schema.secret'}}; got "
            f"{excerpt(secrets)}."
        )
    if len(secrets) > MAX_SECRETS:
        raise InvalidJobSpecError(f"secrets has {len(secrets)} entries; Snowflake takes {MAX_SECRETS}.")
    entries: dict[str, dict[str, Any]] = {}
    for place, given in secrets.items():
        entry = _entry(place, given, namespace)
        if entries.setdefault(str(entry.get("directoryPath", place)), entry) is not entry:
            raise InvalidJobSpecError(f"{place!r} is in secrets twice; put one secret there.")
    return list(entries.values())


def _entry(place: Any, given: Any, namespace: Namespace) -> dict[str, Any]:

    path = f"secrets[{place!r}]"
    if not isinstance(given, str | Mapping):
        raise InvalidJobSpecError(
            f"{path} must be the name of a secret, or a dict with snowflakeSecret and secretKeyRef; got "
            f"{excerpt(given)}."
        )
    entry: dict[str, Any] = plain({"snowflakeSecret": given} if isinstance(given, str) else given, path)
    check(entry, "secrets", TaskSecret, path)
    secret = entry["snowflakeSecret"]
    if name := secret if isinstance(secret, str) else secret.get("objectName"):
        secret = str(QualifiedName.parse(name, path, namespace))
    if not isinstance(place, str) or not place.startswith("/"):
        validate_env_name(place, "secrets")
        key = entry.get("secretKeyRef", _DEFAULT_KEY)
        return {"snowflakeSecret": secret, "envVarName": place, "secretKeyRef": key}
    if "secretKeyRef" in entry:
        raise InvalidJobSpecError(f"{path} can't have secretKeyRef: the directory gets a file for each key.")
    return {"snowflakeSecret": secret, "directoryPath": directory(place, "secrets")}
