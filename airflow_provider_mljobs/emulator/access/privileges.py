"""The kinds of objects and their privileges.

Source: https://docs.snowflake.com/en/user-guide/security-access-control-privileges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

OWNERSHIP = "OWNERSHIP"
_CREATED_IN_SCHEMA = (
    "CODE BUNDLE", "DATASET", "DYNAMIC TABLE", "EVENT TABLE", "EXPERIMENT", "EXTERNAL TABLE", "FILE FORMAT", "FUNCTION",
    "GIT REPOSITORY", "IMAGE REPOSITORY", "MATERIALIZED VIEW", "MODEL", "NETWORK RULE", "NOTEBOOK", "PIPE", "PROCEDURE",
    "SECRET", "SEQUENCE", "SERVICE", "SNAPSHOT", "STAGE", "STREAM", "STREAMLIT", "TABLE", "TAG", "TASK", "VIEW",
)  # fmt: skip
_OF_TABLE = ("DELETE", "INSERT", "REFERENCES", "SELECT", "TRUNCATE", "UPDATE", "EVOLVE SCHEMA", "APPLYBUDGET")
# By kind, without OWNERSHIP, which every kind has.
PRIVILEGES: Mapping[str, tuple[str, ...]] = {
    "ACCOUNT": (
        "BIND SERVICE ENDPOINT", "CREATE COMPUTE POOL", "CREATE DATABASE", "CREATE EXTERNAL VOLUME",
        "CREATE INTEGRATION", "CREATE NETWORK POLICY", "CREATE ROLE", "CREATE SHARE", "CREATE USER", "CREATE WAREHOUSE",
        "EXECUTE MANAGED TASK", "EXECUTE TASK", "IMPORT SHARE", "MANAGE GRANTS", "MANAGE WAREHOUSES",
        "MODIFY LOG LEVEL", "MODIFY METRIC LEVEL", "MODIFY TRACE LEVEL", "MONITOR EXECUTION", "MONITOR USAGE",
        "READ SESSION", "RESOLVE ALL", "VIEW LINEAGE",
    ),
    "DATABASE": (
        "APPLYBUDGET", "CREATE DATABASE ROLE", "CREATE SCHEMA", "IMPORTED PRIVILEGES", "MODIFY", "MONITOR", "USAGE",
    ),
    "SCHEMA": ("APPLYBUDGET", *(f"CREATE {kind}" for kind in _CREATED_IN_SCHEMA), "MODIFY", "MONITOR", "USAGE"),
    "WAREHOUSE": ("APPLYBUDGET", "MODIFY", "MONITOR", "OPERATE", "USAGE"),
    "COMPUTE POOL": ("MODIFY", "MONITOR", "OPERATE", "USAGE"),
    "INTEGRATION": ("USAGE", "USE_ANY_ROLE"),
    "USER": ("IMPERSONATE", "MONITOR"),
    "ROLE": ("USAGE",),
    "DATABASE ROLE": ("USAGE",),
    "APPLICATION ROLE": ("USAGE",),
    "TABLE": _OF_TABLE,
    "EVENT TABLE": ("APPLYBUDGET", "DELETE", "INSERT", "REFERENCES", "SELECT", "TRUNCATE"),
    "VIEW": ("REFERENCES", "SELECT"),
    "STAGE": ("READ", "USAGE", "WRITE"),
    "SERVICE": ("DROP", "MONITOR", "OPERATE", "USAGE"),
    "SECRET": ("MODIFY", "READ", "USAGE"),
    "IMAGE REPOSITORY": ("READ", "WRITE"),
    "NETWORK RULE": (),
    "FILE FORMAT": ("USAGE",),
    "SEQUENCE": ("USAGE",),
    "GIT REPOSITORY": ("READ", "WRITE"),
    "MODEL": ("READ", "USAGE"),
    "FUNCTION": ("USAGE",),
    "PROCEDURE": ("USAGE",),
}  # fmt: skip
# How many names in a path lead to an object of the kind; three unless it stands here.
LEVELS: Mapping[str, int] = {
    "ACCOUNT": 0,
    **dict.fromkeys(("DATABASE", "WAREHOUSE", "COMPUTE POOL", "INTEGRATION", "USER", "ROLE"), 1),
    **dict.fromkeys(("SCHEMA", "DATABASE ROLE", "APPLICATION ROLE"), 2),
}
IN_SCHEMA = 3
PLURALS: Mapping[str, str] = {
    kind.removesuffix("Y") + "IES" if kind.endswith("Y") else f"{kind}S": kind for kind in PRIVILEGES
}
# Documented for GRANT … ON FUTURE: other kinds, such as services, are allowed.
NO_FUTURE_GRANTS = frozenset({"COMPUTE POOL", "IMAGE REPOSITORY", "SNAPSHOT", "TAG"})


def level(kind: str) -> int:
    """Return how many names lead to an object of a kind: 0 for the account, 3 for an object in a schema."""
    return LEVELS.get(kind, IN_SCHEMA)
