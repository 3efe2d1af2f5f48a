"""Refusals for a missing privilege: the GRANT that would mend one, from the object that Snowflake names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_mljobs.exceptions import GatewayError

# "Stage 'DB.SCHEMA.NAME' does not exist or not authorized.": the role can't see it, or it doesn't exist.
_UNSEEN = re.compile(r"(?P<kind>[A-Za-z]+(?: [A-Za-z]+)?) '(?P<name>[^'\n]+)' does not exist or not authorized")
# The role sees it, but lacks the privilege that the statement needs; Snowflake names it without database and schema.
_LACKING = re.compile(r"nsufficient privileges to operate on (?P<kind>[a-z ]+?) '(?P<name>[^'\n]+)'")
# What the provider needs on each kind of object: docs/account-setup.sql grants all of it.
_PRIVILEGES = {
    "DATABASE": "USAGE",
    "SCHEMA": "USAGE",
    "WAREHOUSE": "USAGE",
    "COMPUTE POOL": "USAGE",
    "INTEGRATION": "USAGE",
    "STAGE": "READ, WRITE",
    "SECRET": "READ",
    "IMAGE REPOSITORY": "READ",
    "SERVICE": "MONITOR",
}
# A role that sees a schema lacks the privilege to create; one that sees the account, that for a public endpoint.
_LACKED = {"SCHEMA": "CREATE SERVICE", "ACCOUNT": "BIND SERVICE ENDPOINT", "SERVICE": "OPERATE"}


def missing_grant(refusal: str, role: str, names: Iterable[object] = ()) -> str | None:
    """Return the GRANT that a refusal asks for; ``None`` if it names no object that the provider needs a right on.

    :param refusal: Snowflake's text.
    :param role: the role of the session.
    :param names: the full names of the objects in the statement; a refusal may name only their last part.
    """
    lacking = _LACKING.search(refusal)
    named = lacking or _UNSEEN.search(refusal)
    if named is None:
        return None
    kind = named["kind"].upper()
    privilege = (_LACKED if lacking else {}).get(kind) or _PRIVILEGES.get(kind)
    if privilege is None:
        return None
    place = kind if kind == "ACCOUNT" else f"{kind} {_completed(named['name'], names)}"
    return f"GRANT {privilege} ON {place} TO ROLE {role}"


def _completed(name: str, names: Iterable[object]) -> str:
    """Return the full name that ends like a name of Snowflake's."""
    plain = name.replace('"', "")
    full = (str(candidate) for candidate in names)
    ends = (candidate for candidate in full if f".{candidate}".replace('"', "").endswith(f".{plain}"))
    return next(ends, name)


def with_grant(error: GatewayError, role: str, name: object) -> str:
    """Return the text of a refusal; with the GRANT if Snowflake says that the role lacks a privilege.

    :param name: the full name of the object in the statement.
    """
    grant = missing_grant(error.message, role, (name,)) if _LACKING.search(error.message) else None
    return error.message if grant is None else f"{error.message} {grant};"


def refused(error: GatewayError, happened: str, role: str, names: Iterable[object] = ()) -> GatewayError:
    """Return an error of the same kind with the action that failed, and the grant that is missing.

    :param names: see :func:`missing_grant`.
    """
    grant = missing_grant(error.message, role, names)
    if grant is None:
        advice = ""
    elif _LACKING.search(error.message):
        advice = f"\nRole {role} lacks a privilege:\n  {grant};"
    else:
        advice = f"\nIf it exists, role {role} lacks a privilege:\n  {grant};"
    message = f"{happened} Snowflake says: {error.message}{advice}"
    return type(error)(message, error.errno, error.sqlstate, error.query_id)
