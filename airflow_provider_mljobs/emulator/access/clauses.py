"""The clauses that GRANT, REVOKE and SHOW GRANTS share: privileges, objects, roles and users."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.access.grants import ACCOUNT, Principal, Securable, role_object
from airflow_provider_mljobs.emulator.access.needs import securable
from airflow_provider_mljobs.emulator.access.privileges import PRIVILEGES
from airflow_provider_mljobs.emulator.errors import not_supported

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_mljobs.emulator.access.rights import Access
    from airflow_provider_mljobs.emulator.parsing import Parser, QualifiedName
    from airflow_provider_mljobs.emulator.sessions import Session

ROLES = ("DATABASE ROLE", "APPLICATION ROLE", "ROLE")
_MOST_WORDS = 3


def parse_privileges(parser: Parser) -> tuple[str, ...]:
    """Parse the privileges before ON; none means ALL."""
    if parser.accept("ALL"):
        parser.accept("PRIVILEGES")
        return ()
    privileges = [_privilege(parser)]
    while parser.accept(","):
        privileges.append(_privilege(parser))
    return tuple(privileges)


def _privilege(parser: Parser) -> str:
    words = [parser.identifier()]
    while not (parser.looking_at(",") or parser.looking_at("ON")):
        # CREATE SNOWFLAKE.ML.FORECAST
        words.append(f"{words.pop()}.{parser.identifier()}" if parser.accept(".") else parser.identifier())
    return " ".join(words)


def parse_kind(parser: Parser, kinds: Collection[str]) -> str:
    """Step over the words of a kind, the longest that fits."""
    for count in range(_MOST_WORDS, 0, -1):
        words = [parser.peek(ahead).keyword for ahead in range(count)]
        if all(words) and " ".join(words) in kinds:
            parser.expect(*words)
            return " ".join(words)
    raise parser.error()


def parse_object(session: Session, parser: Parser, access: Access) -> Securable:
    """Parse ``ACCOUNT`` or ``<kind> <name>``; raises 2003 if no such object exists."""
    if parser.accept("ACCOUNT"):
        return ACCOUNT
    on = securable(session, parse_kind(parser, PRIVILEGES), parser.qualified_name(), "GRANT")
    if parser.accept("("):
        # The argument types of a function.
        while not parser.accept(")"):
            parser.next()
    # A view may be called a table here.
    candidates = [on, replace(on, kind="VIEW"), replace(on, kind="EVENT TABLE")] if on.kind == "TABLE" else [on]
    existing = next((candidate for candidate in candidates if access.exists(candidate)), None)
    if existing is None:
        raise session.rights.hidden(on)
    return existing


def parse_principal(session: Session, parser: Parser, access: Access) -> Principal:
    """Parse ``[ [ DATABASE | APPLICATION ] ROLE | USER ] <name>``; raises 2003 if it doesn't exist."""
    if parser.looking_at("SHARE"):
        raise not_supported("a share")
    kind = next((kind for kind in (*ROLES, "USER") if parser.accept(*kind.split())), "ROLE")
    return existing_principal(session, kind, parser.qualified_name(), access)


def existing_principal(session: Session, kind: str, name: QualifiedName, access: Access) -> Principal:
    """Return a role or user; raises 2003 if it doesn't exist."""
    if kind in {"ROLE", "USER"}:
        principal = Principal(kind, name.name)
    else:
        container = name.schema or (session.database if kind == "DATABASE ROLE" else None) or ""
        principal = Principal(kind, f"{container}.{name.name}")
    if not access.exists(object_of(principal)):
        raise session.rights.hidden(object_of(principal))
    return principal


def object_of(principal: Principal) -> Securable:
    """Return a role or user as an object."""
    return Securable("USER", (principal.name,)) if principal.kind == "USER" else role_object(principal)
