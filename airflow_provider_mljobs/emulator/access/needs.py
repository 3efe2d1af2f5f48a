"""The privileges that statements need, declared beside their syntax and checked before their handlers run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from airflow_provider_mljobs.emulator.access.grants import ACCOUNT, Securable
from airflow_provider_mljobs.emulator.access.privileges import level

if TYPE_CHECKING:
    from airflow_provider_mljobs.emulator.parsing import Parser, QualifiedName
    from airflow_provider_mljobs.emulator.sessions import Session

Place = Literal["named", "container", "account"]


@dataclass(frozen=True)
class Need:
    """The privileges on one object, of which a statement needs any.

    :param kind: the kind of the object that the statement names.
    :param privileges: any of these is enough, and so is OWNERSHIP; without any, every privilege on the object.
    :param place: whether they are needed on the object named, on the schema or database that it is created in, or on
        the account.
    """

    kind: str
    privileges: tuple[str, ...] = ()
    place: Place = "named"

    @property
    def text(self) -> str:
        """The need in words, for the documentation."""
        words = " or ".join(self.privileges or ("any privilege",))
        if self.place == "account":
            return f"{words} on the account"
        container = {1: "account", 2: "database"}.get(level(self.kind), "schema")
        return f"{words} on the {container if self.place == 'container' else self.kind.lower()}"

    def securable(self, session: Session, name: QualifiedName, command: str) -> Securable:
        """Return the object on which the privileges are needed."""
        if self.place == "account":
            return ACCOUNT
        named = securable(session, self.kind, name, command)
        return named if self.place == "named" else container_of(named)

    def check(self, session: Session, name: QualifiedName, command: str) -> None:
        """Raise 2003 or 3001 unless the session has one of the privileges."""
        on = self.securable(session, name, command)
        session.rights.require(on, *self.privileges, creating=self.place != "named")


def of(kind: str, *privileges: str) -> tuple[Need, ...]:
    """Need one of the privileges on the object that a statement names, or any at all if none is given."""
    return (Need(kind, privileges),)


def owned(kind: str) -> tuple[Need, ...]:
    """Need the OWNERSHIP of the object that a statement names."""
    return (Need(kind, ("OWNERSHIP",)),)


def creates(kind: str, *replacing: str) -> tuple[Need, ...]:
    """Need CREATE … on the schema, the database or the account.

    :param replacing: the words OR REPLACE, if the statement has them: then the existing object must be owned.
    """
    create = Need(kind, (f"CREATE {kind}",), "account" if level(kind) == 1 else "container")
    return (create, *owned(kind)) if replacing else (create,)


def container_of(on: Securable) -> Securable:
    """Return the schema or database that an object is created in."""
    return on.parents[-1] if on.parents else ACCOUNT


def securable(session: Session, kind: str, name: QualifiedName, command: str) -> Securable:
    """Return the object that a name in a statement means: database and schema are the session's unless written."""
    depth = level(kind)
    if depth == 1:
        return Securable(kind, (name.name,))
    if depth == 2:  # noqa: PLR2004
        return Securable(kind, (session.database_of(name, command), name.name))
    return located(kind, session.resolve(name, command))


def located(kind: str, name: QualifiedName) -> Securable:
    """Return the object that a full name means."""
    return Securable(kind, (name.database or "", name.schema or "", name.name))


def relation_of(session: Session, name: QualifiedName) -> Securable:
    """Return the table or view of a full name: a view where one has it, else a table."""
    access, table, view = session.rights.access, located("TABLE", name), located("VIEW", name)
    # A recorded owner saves the question to the SQL engine.
    recorded = next((on for on in (table, view) if access.grants.owner(on) is not None), None)
    return recorded or (view if access.exists(view) else table)


def named(parser: Parser) -> tuple[QualifiedName, bool]:
    """Read the name behind a statement's keywords, and whether IF EXISTS stands before it; the cursor stays."""
    position = parser.position
    try:
        parser.accept("IN", "SERVICE")
        parser.accept("IF", "NOT", "EXISTS")
        if_exists = parser.accept("IF", "EXISTS")
        return parser.qualified_name(literal=True), if_exists
    finally:
        parser.position = position
