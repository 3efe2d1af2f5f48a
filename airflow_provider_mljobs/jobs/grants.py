"""The privileges of a role, from the rows of SHOW GRANTS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.jobs.names import Identifier, quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from airflow_provider_mljobs.jobs.names import Namespace, QualifiedName

    Name = Identifier | Namespace | QualifiedName

OWNERSHIP = "OWNERSHIP"


@dataclass(frozen=True)
class Grant:
    """One privilege on one object.

    :param kind: the kind of the object in words, e.g. ``COMPUTE POOL``.
    :param name: its name as Snowflake writes it: with dots, and in double quotes where they are needed.
    """

    privilege: str
    kind: str
    name: str

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Grant:
        """Read a row of SHOW GRANTS, which writes kinds with underscores (``DATABASE_ROLE``)."""
        kind = str(row["granted_on"]).replace("_", " ").upper()
        return cls(str(row["privilege"]).upper(), kind, str(row["name"]))


@dataclass(frozen=True)
class Grants:
    """All privileges of a role, those of the roles that it inherits included.

    :param roles: the role, and the roles that it inherits.
    :param unread: the reasons why the grants of some role can't be read; without one an absent grant is proven absent.
    """

    grants: frozenset[Grant] = frozenset()
    roles: tuple[Identifier, ...] = ()
    unread: tuple[str, ...] = ()

    def privileges(self, kind: str, name: Name) -> frozenset[str]:
        """Return the privileges of the role on an object."""
        names = _forms(name)
        return frozenset(grant.privilege for grant in self.grants if grant.kind == kind and grant.name in names)

    def among(self, rows: Iterable[Mapping[str, Any]]) -> frozenset[str]:
        """Return the privileges of the role in the rows of SHOW GRANTS ON an object."""
        names = {form for role in self.roles for form in _forms(role)}
        return frozenset(
            str(row["privilege"]).upper()
            for row in rows
            if str(row["granted_to"]).upper() == "ROLE" and row["grantee_name"] in names
        )


def lacking(owned: Collection[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the wanted privileges on an object that a role doesn't have; its owner has all.

    :param owned: the privileges of the role on the object.
    :param wanted: without any, one privilege will do, whichever it is; USAGE gives it.
    """
    if OWNERSHIP in owned or (owned and not wanted):
        return ()
    return tuple(privilege for privilege in wanted or ("USAGE",) if privilege not in owned)


def inherited(grants: Iterable[Grant]) -> list[Identifier]:
    """Return the roles whose privileges come with these grants; a listing writes their names without quotes."""
    return sorted(
        {Identifier(grant.name) for grant in grants if (grant.privilege, grant.kind) == ("USAGE", "ROLE")}, key=str
    )


def database_roles(grants: Iterable[Grant]) -> set[str]:
    """Return the database roles whose privileges come with these grants, as the listing writes them."""
    return _usable(grants, "DATABASE ROLE")


def _usable(grants: Iterable[Grant], kind: str) -> set[str]:
    return {grant.name for grant in grants if (grant.privilege, grant.kind) == ("USAGE", kind)}


def _forms(name: Name) -> frozenset[str]:
    """Return the forms in which a listing may write a name: with quotes where they are needed, always, or never."""
    parts = [value for attribute in ("database", "schema", "name") if (value := getattr(name, attribute, None))]
    values = [part.value for part in parts] or [str(getattr(name, "value", ""))]
    return frozenset({str(name), ".".join(values), ".".join(map(quoted, values))})
