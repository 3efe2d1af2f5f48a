"""Secrets and their values for containers. They are stored unencrypted in the emulator's files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.errors import invalid_spec, not_supported
from airflow_provider_mljobs.emulator.parsing import QualifiedName, parse_name
from airflow_provider_mljobs.emulator.results import Column
from airflow_provider_mljobs.emulator.spcs.account_objects import Kind, Objects
from airflow_provider_mljobs.emulator.spcs.pool import moment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_mljobs.emulator.registry import Context

# By type: the keys that containers may ask for, each with the property of CREATE that holds its value.
_TYPES: Mapping[str, Mapping[str, str]] = {
    "GENERIC_STRING": {"secret_string": "SECRET_STRING"},
    "PASSWORD": {"username": "USERNAME", "password": "PASSWORD"},
    # The emulator issues no access tokens, so containers get the refresh token instead.
    "OAUTH2": {"access_token": "OAUTH_REFRESH_TOKEN"},
}


class Secrets(Objects):
    """The secrets of the account."""

    kind = Kind(
        words=("SECRET",),
        plural="SECRETS",
        label="Secret",
        properties=frozenset(
            {
                "COMMENT", "TYPE", "SECRET_STRING", "USERNAME", "PASSWORD", "API_AUTHENTICATION", "OAUTH_SCOPES",
                "OAUTH_REFRESH_TOKEN", "OAUTH_REFRESH_TOKEN_EXPIRY_TIME",
            }
        ),
        columns=(
            Column("created_on", "timestamp_ltz"),
            Column("name"),
            Column("schema_name"),
            Column("database_name"),
            Column("owner"),
            Column("comment"),
            Column("secret_type"),
            Column("oauth_scopes"),
        ),
        required=("TYPE",),
    )  # fmt: skip

    def check(self, context: Context, record: dict[str, Any]) -> None:
        """Refuse types that no container can use, and secrets without the properties of their type."""
        super().check(context, record)
        if record["TYPE"] not in _TYPES:
            raise not_supported(f"A secret of type {record['TYPE']}")
        for name in _TYPES[record["TYPE"]].values():
            if name not in record:
                raise not_supported(f"A secret of type {record['TYPE']} without {name}")

    def row(self, name: QualifiedName, record: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return a secret's row of SHOW."""
        created, owner, comment = moment(record["created_on"]), record["owner"], record.get("COMMENT")
        scopes = record.get("OAUTH_SCOPES")
        listed = f"[{', '.join(scopes)}]" if scopes else None
        return (created, name.name, name.schema, name.database, owner, comment, record["TYPE"], listed)

    def values(self, entry: Mapping[str, Any], home: QualifiedName) -> dict[str, str]:
        """Return the values of a secret that a container gets, by key.

        :param entry: the container's entry in its specification.
        :param home: the job, whose schema completes the name.

        Raises 2003 if the secret doesn't exist, 395018 if it has no such key.
        """
        reference = entry["snowflakeSecret"]
        if "objectName" not in reference:
            raise not_supported("A secret by objectReference")
        name = parse_name(reference["objectName"])
        full = QualifiedName(name.name, name.schema or home.schema, name.database or home.database)
        record = self.get(full)
        values = {key: str(record[source]) for key, source in _TYPES[record["TYPE"]].items()}
        if "envVarName" not in entry:
            return values
        key = entry.get("secretKeyRef", "")
        if key not in values:
            allowed = f"Supported values for secret '{full}' of type {record['TYPE']} are [{', '.join(values)}]."
            fault = f"invalid value {key} for" if key else "missing required option"
            raise invalid_spec(f"{fault} 'secretKeyRef' of environment variable '{entry['envVarName']}'. {allowed}")
        return {key: values[key]}
