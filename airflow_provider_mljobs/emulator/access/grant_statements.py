"""GRANT and REVOKE of privileges, ownership and roles."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.access.clauses import (
    ROLES,
    existing_principal,
    parse_kind,
    parse_object,
    parse_principal,
    parse_privileges,
)
from airflow_provider_mljobs.emulator.access.grants import ACCOUNT, Grant, Principal, Securable, role_object
from airflow_provider_mljobs.emulator.access.needs import securable
from airflow_provider_mljobs.emulator.access.privileges import NO_FUTURE_GRANTS, OWNERSHIP, PLURALS, PRIVILEGES
from airflow_provider_mljobs.emulator.errors import SnowflakeError, not_supported
from airflow_provider_mljobs.emulator.registry import Extension, Statement
from airflow_provider_mljobs.emulator.results import Column, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from airflow_provider_mljobs.emulator.access.rights import Access, Rights
    from airflow_provider_mljobs.emulator.parsing import Parser
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.sessions import Session

_STATUS = (Column("status"),)
_DONE = "Statement executed successfully."
_OBJECT = "{ ACCOUNT | <kind> <name> | { ALL | FUTURE } <kinds> IN { DATABASE | SCHEMA } <name> }"
_GRANTEE = "{ [ ROLE ] | DATABASE ROLE | USER } <name>"
_PRIVILEGES = "{ <privilege>, … | ALL [ PRIVILEGES ] }"


def _not_granted(detail: str) -> SnowflakeError:
    """Build the error for a grant that Snowflake doesn't have; its number is chosen."""
    return SnowflakeError(3008, "42501", f"SQL compilation error:\n{detail}")


@dataclass(frozen=True)
class Targets:
    """The objects of a GRANT or REVOKE.

    :param kind: their kind.
    :param objects: the objects; for future ones their database or schema.
    :param future: whether they don't exist yet.
    """

    kind: str
    objects: tuple[Securable, ...]
    future: bool = False


class GrantStatements:
    """GRANT and REVOKE.

    :param access: the account's grants.
    :param listing: by kind, a function that returns the paths of all objects, for ``ON ALL``.
    """

    def __init__(self, access: Access, listing: Mapping[str, Callable[[], Iterable[tuple[str, ...]]]]) -> None:
        self._access = access
        self._listing = listing

    @property
    def extension(self) -> Extension:
        """The statements."""
        grant = f"GRANT {_PRIVILEGES} ON {_OBJECT} TO {_GRANTEE} [ WITH GRANT OPTION ]"
        revoke = f"REVOKE [ GRANT OPTION FOR ] {_PRIVILEGES} ON {_OBJECT} FROM {_GRANTEE} [ CASCADE | RESTRICT ]"
        ownership = f"GRANT OWNERSHIP ON {_OBJECT} TO {_GRANTEE} [ {{ REVOKE | COPY }} CURRENT GRANTS ]"
        return Extension(
            statements=(
                Statement(("GRANT",), self.grant, _STATUS, grant),
                Statement(("GRANT", "OWNERSHIP"), self.grant_ownership, _STATUS, ownership),
                Statement(("REVOKE",), self.revoke, _STATUS, revoke),
                *(
                    Statement((verb, *kind.split()), handler, _STATUS, f"{verb} {kind} <name> {word} {_GRANTEE}")
                    for verb, word, handler in (("GRANT", "TO", self.grant_role), ("REVOKE", "FROM", self.revoke_role))
                    for kind in ROLES
                ),
            )
        )

    def grant(self, context: Context, parser: Parser) -> Result:
        """Run ``GRANT <privileges> ON … TO …``."""
        privileges = parse_privileges(parser)
        targets = self._targets(context.session, parser)
        parser.expect("TO")
        to = parse_principal(context.session, parser, self._access)
        option = parser.accept("WITH", "GRANT", "OPTION")
        parser.expect_end()
        rights = context.session.rights
        chosen = _checked(privileges, targets.kind)
        future, now = targets.kind if targets.future else "", time.time()
        for on in targets.objects:
            self._check_read(on, to, chosen)
            for privilege in self._grantable(rights, on, targets, chosen, every=not privileges):
                self._access.grants.add(Grant(privilege, on, to, rights.role, now, option, future))
        return self._done()

    def _done(self) -> Result:
        self._access.grants.flush()
        return Result.status(_DONE)

    def _check_read(self, on: Securable, to: Principal, privileges: Sequence[str]) -> None:
        """Refuse WRITE on a stage without READ, as documented."""
        if on.kind != "STAGE" or "WRITE" not in privileges or "READ" in privileges:
            return
        if not any(grant.to == to and grant.privilege == "READ" for grant in self._access.grants.on(on)):
            raise _not_granted(f"READ must be granted on stage '{on}' before WRITE.")

    def _grantable(
        self, rights: Rights, on: Securable, targets: Targets, privileges: Sequence[str], *, every: bool
    ) -> Sequence[str]:
        """Return the privileges that the session may grant; raises unless these are all, or ALL was asked for."""
        if targets.future:
            rights.require(ACCOUNT, "MANAGE GRANTS")
            return privileges
        allowed = [privilege for privilege in privileges if rights.may_grant(on, privilege)]
        if allowed and (every or len(allowed) == len(privileges)):
            return allowed
        raise rights.refusal(on)

    def revoke(self, context: Context, parser: Parser) -> Result:
        """Run ``REVOKE <privileges> ON … FROM …``."""
        option_only = parser.accept("GRANT", "OPTION", "FOR")
        privileges = parse_privileges(parser)
        targets = self._targets(context.session, parser)
        parser.expect("FROM")
        to = parse_principal(context.session, parser, self._access)
        _ = parser.accept("CASCADE") or parser.accept("RESTRICT")
        parser.expect_end()
        chosen = _checked(privileges, targets.kind)
        for on in targets.objects:
            revocable = self._grantable(context.session.rights, on, targets, chosen, every=not privileges)
            for grant in self._present(on, targets):
                if grant.to == to and grant.privilege in revocable:
                    self._access.grants.remove(grant)
                    if option_only:
                        self._access.grants.add(replace(grant, option=False))
        return self._done()

    def _present(self, on: Securable, targets: Targets) -> list[Grant]:
        grants = self._access.grants
        return (
            [grant for grant in grants.future(on) if grant.future == targets.kind] if targets.future else grants.on(on)
        )

    def grant_ownership(self, context: Context, parser: Parser) -> Result:
        """Run ``GRANT OWNERSHIP ON … TO …``."""
        targets = self._targets(context.session, parser)
        parser.expect("TO")
        to = parse_principal(context.session, parser, self._access)
        current = next((word for word in ("COPY", "REVOKE") if parser.accept(word, "CURRENT", "GRANTS")), "")
        parser.expect_end()
        rights, now = context.session.rights, time.time()
        for on in targets.objects:
            self._grantable(rights, on, targets, [OWNERSHIP], every=False)
            if targets.future:
                future = Grant(OWNERSHIP, on, to, rights.role, now, option=True, future=targets.kind)
                self._access.grants.add(future)
            else:
                self._transfer(on, current)
                self._access.grants.own(on, to, by=rights.role, at=now)
        return self._done()

    def _transfer(self, on: Securable, current: str) -> None:
        """Revoke the other privileges on an object that changes its owner, or refuse the change because of them."""
        others = [grant for grant in self._access.grants.on(on) if grant.privilege != OWNERSHIP]
        if others and not current:
            first = others[0]
            raise _not_granted(
                f"Dependent grant of privilege '{first.privilege}' on securable '{on}' to role '{first.to.name}' "
                "exists. It must be revoked first. More than one dependent grant may exist."
            )
        if current == "REVOKE":
            for grant in others:
                self._access.grants.remove(grant)

    def grant_role(self, context: Context, parser: Parser) -> Result:
        """Run ``GRANT ROLE … TO …``."""
        role, to = self._membership(context.session, parser, "TO")
        if to in self._access.grants.roles_of(role):
            raise _not_granted(f"Granting role '{role.name}' to '{to.name}' would create a cycle of roles.")
        self._access.grants.add(Grant("USAGE", role_object(role), to, context.session.role, time.time()))
        return self._done()

    def revoke_role(self, context: Context, parser: Parser) -> Result:
        """Run ``REVOKE ROLE … FROM …``."""
        role, to = self._membership(context.session, parser, "FROM")
        self._access.grants.remove(Grant("USAGE", role_object(role), to))
        return self._done()

    def _membership(self, session: Session, parser: Parser, word: str) -> tuple[Principal, Principal]:
        kind = " ".join(token.keyword for token in parser.tokens[1 : parser.position])
        role = existing_principal(session, kind, parser.qualified_name(), self._access)
        parser.expect(word)
        to = parse_principal(session, parser, self._access)
        parser.expect_end()
        if kind == "APPLICATION ROLE" and to.kind == "USER":
            raise _not_granted("An application role is granted to roles, not to users.")
        if not session.rights.may_grant(role_object(role), "USAGE"):
            raise session.rights.refusal(role_object(role))
        return role, to

    def _targets(self, session: Session, parser: Parser) -> Targets:
        """Parse what stands between ON and TO."""
        parser.expect("ON")
        if parser.accept("ALL"):
            return self._all(session, parser)
        if parser.accept("FUTURE"):
            return self._future(session, parser)
        on = parse_object(session, parser, self._access)
        return Targets(on.kind, (on,))

    def _all(self, session: Session, parser: Parser) -> Targets:
        kind, container = self._container(session, parser)
        if kind not in self._listing:
            raise not_supported(f"GRANT … ON ALL objects of kind {kind}")
        objects = (Securable(kind, path) for path in self._listing[kind]())
        return Targets(kind, tuple(on for on in objects if container in on.parents))

    def _future(self, session: Session, parser: Parser) -> Targets:
        kind, container = self._container(session, parser)
        if kind in NO_FUTURE_GRANTS:
            raise _not_granted(f"Future grants on objects of kind {kind} are not supported.")
        return Targets(kind, (container,), future=True)

    def _container(self, session: Session, parser: Parser) -> tuple[str, Securable]:
        """Parse ``<kinds> IN { DATABASE | SCHEMA } <name>``."""
        kind = PLURALS[parse_kind(parser, PLURALS)]
        parser.expect("IN")
        level = parse_kind(parser, ("DATABASE", "SCHEMA"))
        container = securable(session, level, parser.qualified_name(), "GRANT")
        if not self._access.exists(container):
            raise session.rights.hidden(container)
        return kind, container


def _checked(privileges: tuple[str, ...], kind: str) -> Sequence[str]:
    """Return the privileges, or all of the kind; raises for one that the kind doesn't have."""
    for privilege in privileges:
        # The list of what can be created is Snowflake's, and longer.
        creates = privilege.startswith("CREATE ") and kind in {"ACCOUNT", "SCHEMA"}
        if privilege not in PRIVILEGES[kind] and not creates:
            raise _not_granted(f"Invalid privilege '{privilege}' for object type '{kind}'.")
    return privileges or PRIVILEGES[kind]
