"""Grants: which role has which privilege on which object, and which role contains which. Pure but for its store."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from airflow_provider_mljobs.emulator.access.privileges import OWNERSHIP
from airflow_provider_mljobs.emulator.parsing import quote_identifier

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_RECORDS = "Grant"


@dataclass(frozen=True, slots=True, order=True)
class Principal:
    """A role or a user.

    :param kind: ROLE, DATABASE ROLE, APPLICATION ROLE or USER.
    :param name: as stored; a database or application role has its database's or application's name before it.
    """

    kind: str
    name: str


@dataclass(frozen=True, slots=True, order=True)
class Securable:
    """An object that privileges are granted on.

    :param kind: e.g. ``COMPUTE POOL``; ``ACCOUNT`` has an empty path.
    :param path: the names that lead to it, e.g. database, schema, name.
    """

    kind: str
    path: tuple[str, ...] = ()

    @property
    def parents(self) -> tuple[Securable, ...]:
        """The database and schema that it lies in, outermost first."""
        if self.kind in {"DATABASE ROLE", "APPLICATION ROLE"}:
            return ()
        return tuple(
            Securable(kind, self.path[:depth])
            for depth, kind in ((1, "DATABASE"), (2, "SCHEMA"))
            if depth < len(self.path)
        )

    def __str__(self) -> str:
        return ".".join(quote_identifier(part) for part in self.path)


ACCOUNT = Securable("ACCOUNT")


@dataclass(frozen=True, slots=True)
class Grant:
    """A privilege on an object that a role or user has. A role in another one is USAGE on the role.

    :param by: the role that granted it; empty for Snowflake itself.
    :param at: when it was granted, in seconds since 1970; 0 if it was there from the start.
    :param option: whether the role may grant it further.
    :param future: for a grant on future objects their kind; ``on`` is then their database or schema.
    """

    privilege: str
    on: Securable
    to: Principal
    by: str = ""
    at: float = 0.0
    option: bool = False
    future: str = ""

    @property
    def key(self) -> tuple[str, Securable, Principal, str]:
        """Its identity: a grant with the same key replaces it."""
        return (self.privilege, self.on, self.to, self.future)


class Store(Protocol):
    """Where records survive a restart."""

    def objects(self, kind: str) -> Iterator[tuple[str, str]]:
        """Iterate over the names and records of a kind."""

    def save_object(self, kind: str, name: str, record: str) -> None:
        """Store an object."""

    def delete_object(self, kind: str, name: str) -> None:
        """Delete an object."""

    def flush(self) -> None:
        """Wait until all earlier changes are stored."""


class Grants:
    """All grants of an account.

    :param store: where they survive a restart.
    :param initial: the grants of a new account.
    """

    def __init__(self, store: Store, initial: Iterable[Grant] = ()) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._all: dict[tuple[str, Securable, Principal, str], Grant] = {}
        self._on: defaultdict[Securable, set[Grant]] = defaultdict(set)
        self._to: defaultdict[Principal, set[Grant]] = defaultdict(set)
        self._closures: dict[Principal, frozenset[Principal]] = {}
        records = [_restored(record) for _, record in store.objects(_RECORDS)]
        for grant in records:
            self._keep(grant)
        if not records:
            for grant in initial:
                self.add(grant)

    def _keep(self, grant: Grant) -> None:
        self._discard(self._all.get(grant.key))
        self._all[grant.key] = grant
        self._on[grant.on].add(grant)
        self._to[grant.to].add(grant)
        self._closures.clear()

    def _discard(self, grant: Grant | None) -> None:
        if grant is not None:
            del self._all[grant.key]
            self._on[grant.on].discard(grant)
            self._to[grant.to].discard(grant)
            self._closures.clear()

    def add(self, grant: Grant) -> None:
        """Add a grant, in place of an equal one."""
        with self._lock:
            earlier = self._all.get(grant.key)
            if earlier is not None:
                grant = dataclasses.replace(grant, at=earlier.at, option=grant.option or earlier.option)
            self._keep(grant)
            self._store.save_object(_RECORDS, _name(grant), _record(grant))

    def remove(self, grant: Grant) -> None:
        """Remove a grant; nothing happens if it isn't there."""
        with self._lock:
            self._discard(self._all.get(grant.key))
            self._store.delete_object(_RECORDS, _name(grant))

    def own(self, on: Securable, role: Principal, *, by: str, at: float) -> None:
        """Make a role the one owner of an object."""
        with self._lock:
            for grant in [grant for grant in self.on(on) if grant.privilege == OWNERSHIP]:
                self.remove(grant)
            self.add(Grant(OWNERSHIP, on, role, by, at, option=True))

    def move(self, on: Securable, renamed: Securable) -> None:
        """Keep the grants on an object that gets another name."""
        with self._lock:
            for grant in self.on(on):
                self.remove(grant)
                self.add(dataclasses.replace(grant, on=renamed))

    def forget(self, on: Securable) -> None:
        """Remove all grants on an object that was dropped, and on everything in it."""
        with self._lock:
            inner = [other for other in self._on if on in other.parents] if on.kind in {"DATABASE", "SCHEMA"} else []
            for grant in [grant for dropped in (on, *inner) for grant in self._on.get(dropped, ())]:
                self.remove(grant)

    def forget_principal(self, principal: Principal) -> None:
        """Remove all that a dropped role or user had."""
        with self._lock:
            for grant in self.to(principal):
                self.remove(grant)

    def flush(self) -> None:
        """Wait until all changes are stored."""
        self._store.flush()

    def on(self, on: Securable) -> list[Grant]:
        """Return the grants on an object, future ones apart."""
        with self._lock:
            return [grant for grant in self._on.get(on, ()) if not grant.future]

    def future(self, within: Securable) -> list[Grant]:
        """Return the grants on future objects of a database or schema."""
        with self._lock:
            return [grant for grant in self._on.get(within, ()) if grant.future]

    def to(self, principal: Principal) -> list[Grant]:
        """Return the grants that a role or user has, future ones too."""
        with self._lock:
            return list(self._to.get(principal, ()))

    def owner(self, on: Securable) -> Principal | None:
        """Return the recorded owner of an object."""
        return next((grant.to for grant in self.on(on) if grant.privilege == OWNERSHIP), None)

    def roles_of(self, principal: Principal) -> frozenset[Principal]:
        """Return a role and all roles granted to it, also through others; of a user the roles it may use."""
        with self._lock:
            closure = self._closures.get(principal)
            if closure is None:
                closure = self._closures[principal] = self._closure(principal)
            return closure

    def _closure(self, principal: Principal) -> frozenset[Principal]:
        reached: set[Principal] = set()
        waiting = [principal]
        while waiting:
            current = waiting.pop()
            if current not in reached:
                reached.add(current)
                waiting.extend(self.granted_roles(current))
        return frozenset(reached)

    def granted_roles(self, principal: Principal) -> list[Principal]:
        """Return the roles that a role or user was granted directly."""
        return [
            Principal(grant.on.kind, ".".join(grant.on.path))
            for grant in self.to(principal)
            if grant.privilege == "USAGE" and grant.on.kind.endswith("ROLE")
        ]


def role_object(role: Principal) -> Securable:
    """Return a role as the object that GRANT ROLE grants."""
    return Securable(role.kind, (role.name,) if role.kind == "ROLE" else tuple(role.name.split(".")))


def _name(grant: Grant) -> str:
    privilege, on, to, future = grant.key
    return json.dumps([privilege, on.kind, on.path, to.kind, to.name, future])


def _record(grant: Grant) -> str:
    return json.dumps(dataclasses.asdict(grant))


def _restored(record: str) -> Grant:
    values = json.loads(record)
    on, to = values["on"], values["to"]
    return Grant(**{**values, "on": Securable(on["kind"], tuple(on["path"])), "to": Principal(**to)})
