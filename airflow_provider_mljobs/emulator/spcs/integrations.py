"""Network rules and external access integrations: a job without one reaches no other machine; hosts don't matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.errors import SnowflakeError
from airflow_provider_mljobs.emulator.parsing import parse_name
from airflow_provider_mljobs.emulator.results import Column
from airflow_provider_mljobs.emulator.spcs.account_objects import Kind, Objects
from airflow_provider_mljobs.emulator.spcs.pool import moment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_mljobs.emulator.parsing import QualifiedName
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.spcs.state_file import StateFile
    from airflow_provider_mljobs.emulator.sql.catalog import Catalog

_TYPES = {"IPV4", "IPV6", "AWSVPCEID", "AZURELINKID", "GCPPSCID", "HOST_PORT", "PRIVATE_HOST_PORT", "COMPUTE_POOL"}
_MODES = {"INGRESS", "INTERNAL_STAGE", "SNOWFLAKE_MANAGED_STORAGE_VOLUME", "EGRESS"}
_OUT_ONLY = {"HOST_PORT", "PRIVATE_HOST_PORT"}


def _invalid(value: object, name: str) -> SnowflakeError:
    """Build the error for an invalid value of a property; the number is from memory."""
    return SnowflakeError(1008, "22023", f"SQL compilation error:\ninvalid value [{value}] for parameter '{name}'")


class NetworkRules(Objects):
    """The network rules of the account."""

    kind = Kind(
        words=("NETWORK", "RULE"),
        plural="RULES",
        label="Network rule",
        properties=frozenset({"TYPE", "VALUE_LIST", "MODE", "COMMENT"}),
        columns=(
            Column("created_on", "timestamp_ltz"),
            Column("name"),
            Column("database_name"),
            Column("schema_name"),
            Column("owner"),
            Column("comment"),
            Column("type"),
            Column("mode"),
            Column("entries_in_valuelist", "fixed"),
            Column("owner_role_type"),
        ),
        required=("TYPE", "VALUE_LIST"),
        optional=False,
    )

    def check(self, context: Context, record: dict[str, Any]) -> None:
        """Refuse unknown types and modes, and modes that don't fit the type."""
        super().check(context, record)
        record.setdefault("MODE", "INGRESS")
        if record["TYPE"] not in _TYPES:
            raise _invalid(record["TYPE"], "TYPE")
        if record["MODE"] not in _MODES or (record["TYPE"] in _OUT_ONLY and record["MODE"] != "EGRESS"):
            raise _invalid(record["MODE"], "MODE")
        if not isinstance(record["VALUE_LIST"], list):
            raise _invalid(record["VALUE_LIST"], "VALUE_LIST")

    def row(self, name: QualifiedName, record: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return a rule's row of SHOW."""
        created, owner, comment = moment(record["created_on"]), record["owner"], record.get("COMMENT", "")
        kind, mode, entries = record["TYPE"], record["MODE"], len(record["VALUE_LIST"])
        return (created, name.name, name.database, name.schema, owner, comment, kind, mode, entries, "ROLE")


class Integrations(Objects):
    """The external access integrations of the account.

    :param rules: the network rules of the account.
    """

    kind = Kind(
        words=("EXTERNAL", "ACCESS", "INTEGRATION"),
        plural="INTEGRATIONS",
        label="Integration",
        properties=frozenset(
            {
                "ALLOWED_NETWORK_RULES", "ALLOWED_API_AUTHENTICATION_INTEGRATIONS", "ALLOWED_AUTHENTICATION_SECRETS",
                "ENABLED", "COMMENT",
            }
        ),
        columns=(
            Column("name"),
            Column("type"),
            Column("category"),
            Column("enabled"),
            Column("comment"),
            Column("created_on", "timestamp_ltz"),
        ),
        required=("ALLOWED_NETWORK_RULES", "ENABLED"),
        in_schema=False,
        optional=False,
    )  # fmt: skip

    def __init__(self, state: StateFile, catalog: Catalog, rules: NetworkRules) -> None:
        super().__init__(state, catalog)
        self._rules = rules

    def check(self, context: Context, record: dict[str, Any]) -> None:
        """Refuse rules that don't exist or aren't for egress."""
        super().check(context, record)
        names = record["ALLOWED_NETWORK_RULES"]
        if not isinstance(names, list):
            raise _invalid(names, "ALLOWED_NETWORK_RULES")
        for text in names:
            name = context.session.resolve(parse_name(text), "CREATE EXTERNAL ACCESS INTEGRATION")
            if self._rules.get(name)["MODE"] != "EGRESS":
                raise _invalid(name, "ALLOWED_NETWORK_RULES")

    def row(self, name: QualifiedName, record: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return an integration's row of SHOW."""
        kind = "EXTERNAL_ACCESS"
        enabled = str(record["ENABLED"]).lower()
        return (name.name, kind, kind, enabled, record.get("COMMENT"), moment(record["created_on"]))
