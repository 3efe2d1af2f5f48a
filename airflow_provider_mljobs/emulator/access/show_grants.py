"""SHOW GRANTS and SHOW FUTURE GRANTS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.access.clauses import object_of, parse_kind, parse_object, parse_principal
from airflow_provider_mljobs.emulator.access.grants import ACCOUNT, Grant, Principal, role_object
from airflow_provider_mljobs.emulator.access.needs import securable
from airflow_provider_mljobs.emulator.access.privileges import OWNERSHIP
from airflow_provider_mljobs.emulator.identity import LOCATOR
from airflow_provider_mljobs.emulator.registry import Extension, Statement
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.spcs.pool import moment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_mljobs.emulator.access.rights import Access, Rights
    from airflow_provider_mljobs.emulator.parsing import Parser
    from airflow_provider_mljobs.emulator.registry import Context


def _columns(*names: str) -> tuple[Column, ...]:
    return (Column("created_on", "timestamp_ltz"), *(Column(name) for name in names))


_TO_ROLE = _columns("privilege", "granted_on", "name", "granted_to", "grantee_name", "grant_option", "granted_by")
_ON = _columns(
    "privilege", "granted_on", "name", "granted_to", "grantee_name", "grant_option", "granted_by_role_type",
    "granted_by",
)  # fmt: skip
_OF_ROLE = _columns("role", "granted_to", "grantee_name", "granted_by")
_FUTURE = _columns("privilege", "grant_on", "name", "grant_to", "grantee_name", "grant_option")
_SYNTAX = (
    "SHOW GRANTS [ ON { ACCOUNT | <kind> <name> } | TO { [ DATABASE | APPLICATION ] ROLE | USER } <name> "
    "| OF [ DATABASE | APPLICATION ] ROLE <name> ] [ LIMIT <n> ]"
)
_FUTURE_SYNTAX = "SHOW FUTURE GRANTS { IN { SCHEMA | DATABASE } | TO ROLE } <name> [ LIMIT <n> ]"


class ShowGrants:
    """SHOW GRANTS.

    :param access: the account's grants.
    """

    def __init__(self, access: Access) -> None:
        self._access = access

    @property
    def extension(self) -> Extension:
        """The statements."""
        return Extension(
            statements=(
                Statement(("SHOW", "GRANTS"), self.show, _TO_ROLE, _SYNTAX),
                Statement(("SHOW", "GRANTS", "ON"), self.show_on, _ON, _SYNTAX),
                Statement(("SHOW", "GRANTS", "OF"), self.show_of, _OF_ROLE, _SYNTAX),
                Statement(("SHOW", "FUTURE", "GRANTS"), self.show_future, _FUTURE, _FUTURE_SYNTAX),
            )
        )

    def show(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW GRANTS [ TO … ]``; without TO the roles of the user."""
        rights = context.session.rights
        if not parser.accept("TO"):
            return _limited(_OF_ROLE, self._roles_of_user(Principal("USER", rights.user)), parser)
        to = parse_principal(context.session, parser, self._access)
        self._check(rights, to)
        if to.kind == "USER":
            return _limited(_OF_ROLE, self._roles_of_user(to), parser)
        grants = [grant for grant in self._access.grants.to(to) if not grant.future]
        return _limited(_TO_ROLE, (_row(grant) for grant in _ordered(grants)), parser)

    def _roles_of_user(self, user: Principal) -> list[tuple[Any, ...]]:
        grants = [grant for grant in self._access.grants.to(user) if grant.on.kind.endswith("ROLE")]
        return [(moment(grant.at or None), str(grant.on), "USER", user.name, grant.by) for grant in _ordered(grants)]

    def _check(self, rights: Rights, to: Principal) -> None:
        """Raise 2003 for a role or user that the session doesn't see."""
        own = to in rights.available or to in rights.active or to == Principal("USER", rights.user)
        if not (own or rights.sees(object_of(to))):
            raise rights.hidden(object_of(to))

    def show_on(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW GRANTS ON …``."""
        on = parse_object(context.session, parser, self._access)
        rights = context.session.rights
        if not rights.sees(on):
            raise rights.hidden(on)
        grants = self._access.grants.on(on)
        owner = self._access.owner(on)
        if owner is not None and on != ACCOUNT and not any(grant.privilege == OWNERSHIP for grant in grants):
            grants.append(Grant(OWNERSHIP, on, owner, owner.name, option=True))
        rows = ((*_row(grant)[:-1], "ROLE" if grant.by else "", grant.by) for grant in _ordered(grants))
        return _limited(_ON, rows, parser)

    def show_of(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW GRANTS OF ROLE …``."""
        role = parse_principal(context.session, parser, self._access)
        self._check(context.session.rights, role)
        holders = [grant for grant in self._access.grants.on(role_object(role)) if grant.privilege == "USAGE"]
        rows = (
            (moment(grant.at or None), role.name, grant.to.kind, grant.to.name, grant.by) for grant in _ordered(holders)
        )
        return _limited(_OF_ROLE, rows, parser)

    def show_future(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW FUTURE GRANTS``."""
        session = context.session
        if parser.accept("TO"):
            to = parse_principal(session, parser, self._access)
            self._check(session.rights, to)
            grants = [grant for grant in self._access.grants.to(to) if grant.future]
        else:
            parser.expect("IN")
            kind = parse_kind(parser, ("SCHEMA", "DATABASE"))
            on = securable(session, kind, parser.qualified_name(), "SHOW FUTURE GRANTS")
            if not session.rights.sees(on):
                raise session.rights.hidden(on)
            grants = self._access.grants.future(on)
        rows = (
            (
                moment(grant.at or None), grant.privilege, _kind(grant.future), f"{grant.on}.<{grant.future}>",
                _kind(grant.to.kind), grant.to.name, _written(grant.option),
            )
            for grant in _ordered(grants)
        )  # fmt: skip
        return _limited(_FUTURE, rows, parser)


def _ordered(grants: Iterable[Grant]) -> list[Grant]:
    return sorted(grants, key=lambda grant: (grant.on.kind, grant.on.path, grant.privilege, grant.to))


def _row(grant: Grant) -> tuple[Any, ...]:
    return (
        moment(grant.at or None), grant.privilege, _kind(grant.on.kind), str(grant.on) or LOCATOR, _kind(grant.to.kind),
        grant.to.name, _written(grant.option), grant.by,
    )  # fmt: skip


def _kind(kind: str) -> str:
    return kind.replace(" ", "_")


def _written(value: bool) -> str:  # noqa: FBT001 - a value, not a switch
    return str(value).lower()


def _limited(columns: tuple[Column, ...], rows: Iterable[tuple[Any, ...]], parser: Parser) -> Result:
    limit = parser.integer() if parser.accept("LIMIT") else None
    parser.expect_end()
    return Result(columns, list(rows)[:limit], statement="show")
