"""Rights: an account's roles, users and grants, and the part of them that a session has."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.access.grants import ACCOUNT, Grant, Grants, Principal, Securable, role_object
from airflow_provider_mljobs.emulator.access.privileges import PRIVILEGES
from airflow_provider_mljobs.emulator.errors import (
    SnowflakeError,
    does_not_exist,
    insufficient_privileges,
    nothing_to_use,
    role_not_assigned,
)
from airflow_provider_mljobs.emulator.identity import LOCATOR, ROLE, USER

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from airflow_provider_mljobs.emulator.access.grants import Store

PUBLIC = Principal("ROLE", "PUBLIC")
ADMIN = Principal("ROLE", ROLE)
SYSADMIN, SECURITYADMIN, USERADMIN = (Principal("ROLE", name) for name in ("SYSADMIN", "SECURITYADMIN", "USERADMIN"))
SYSTEM_ROLES = (ADMIN, SECURITYADMIN, SYSADMIN, USERADMIN, PUBLIC)
EVENTS_ADMIN = Principal("APPLICATION ROLE", "SNOWFLAKE.EVENTS_ADMIN")
EVENTS_VIEWER = Principal("APPLICATION ROLE", "SNOWFLAKE.EVENTS_VIEWER")
EVENTS = Securable("EVENT TABLE", ("SNOWFLAKE", "TELEMETRY", "EVENTS"))
EVENTS_VIEW = Securable("VIEW", ("SNOWFLAKE", "TELEMETRY", "EVENTS_VIEW"))
_HIERARCHY = ((ADMIN, SYSADMIN), (ADMIN, SECURITYADMIN), (SECURITYADMIN, USERADMIN))
_SYSTEM_POOLS = ("SYSTEM_COMPUTE_POOL_CPU", "SYSTEM_COMPUTE_POOL_GPU")
_SNOWFLAKE = "SNOWFLAKE"
_INFORMATION_SCHEMA = "INFORMATION_SCHEMA"
_APPLICATION_ROLES = {EVENTS_ADMIN.name, EVENTS_VIEWER.name}
_LABELS = {"TABLE": "Object", "VIEW": "Object", "EVENT TABLE": "Object", "SEQUENCE": "Object"}


# The grants of a new account: the privilege, the object, and the role that has it.
_INITIAL = (
    *(("USAGE", role_object(member), role) for role, member in _HIERARCHY),
    *(("USAGE", role_object(role), ADMIN) for role in (EVENTS_ADMIN, EVENTS_VIEWER)),
    ("USAGE", role_object(ADMIN), Principal("USER", USER)),
    *((privilege, ACCOUNT, ADMIN) for privilege in PRIVILEGES["ACCOUNT"]),
    *((privilege, ACCOUNT, SYSADMIN) for privilege in ("CREATE DATABASE", "CREATE WAREHOUSE")),
    ("MANAGE GRANTS", ACCOUNT, SECURITYADMIN),
    *((privilege, ACCOUNT, USERADMIN) for privilege in ("CREATE ROLE", "CREATE USER")),
    # https://docs.snowflake.com/en/developer-guide/logging-tracing/event-table-setting-up
    *((privilege, EVENTS, EVENTS_ADMIN) for privilege in ("SELECT", "TRUNCATE", "DELETE")),
    *(("SELECT", EVENTS_VIEW, role) for role in (EVENTS_ADMIN, EVENTS_VIEWER)),
    # Every role may use the pools that Snowflake manages, unless an administrator revokes that.
    *(("USAGE", Securable("COMPUTE POOL", (pool,)), PUBLIC) for pool in _SYSTEM_POOLS),
)


def account_role(name: str) -> Principal:
    """Return an account role by its name."""
    return Principal("ROLE", name)


class Access:
    """The rights in an account: grants, and the owners of objects.

    The parts of the emulator that hold objects register a function that returns an object's owner, or ``None`` if the
    object doesn't exist. A recorded owner, of GRANT OWNERSHIP for one, counts before that.

    :param store: where grants survive a restart.
    """

    def __init__(self, store: Store) -> None:
        initial = (Grant(privilege, on, to, option=on == ACCOUNT) for privilege, on, to in _INITIAL)
        self.grants = Grants(store, initial)
        self._owners: dict[str, Callable[[tuple[str, ...]], str | None]] = {
            # Those of the database SNOWFLAKE, which every account has.
            "APPLICATION ROLE": lambda path: _SNOWFLAKE if ".".join(path) in _APPLICATION_ROLES else None,
            "DATABASE ROLE": lambda path: _SNOWFLAKE if path[0] == _SNOWFLAKE else None,
        }

    def register(self, kind: str, owner: Callable[[tuple[str, ...]], str | None]) -> None:
        """Register the function that returns the owner of a kind's objects."""
        self._owners[kind] = owner

    def owner(self, on: Securable) -> Principal | None:
        """Return the owner of an object; ``None`` if it doesn't exist."""
        recorded = self.grants.owner(on)
        if recorded is not None:
            return recorded
        if on == ACCOUNT:
            return ADMIN
        find = self._owners.get(on.kind)
        name = find(on.path) if find is not None else None
        return None if name is None else account_role(name)

    def exists(self, on: Securable) -> bool:
        """Return whether an object exists."""
        return on in {EVENTS, EVENTS_VIEW} or self.owner(on) is not None

    def created(self, on: Securable, role: str) -> None:
        """Record the owner of a new object, and give it what was granted on future objects of its kind."""
        self.grants.forget(on)
        now = time.time()
        self.grants.own(on, account_role(role), by=role, at=now)
        self._materialize(on, role, now)

    def arrived(self, on: Securable, role: str) -> None:
        """Give a new object, whose own record names its owner, what was granted on future objects of its kind."""
        self.grants.forget(on)
        self._materialize(on, role, time.time())

    def inherit(self, role: Principal, heir: str) -> None:
        """Give what a role owns to another role."""
        for grant in self.grants.to(role):
            if grant.privilege == "OWNERSHIP" and not grant.future:
                self.grants.own(grant.on, account_role(heir), by=heir, at=time.time())

    def _materialize(self, on: Securable, role: str, now: float) -> None:
        # Future grants of the schema put those of the database out of force.
        for container in reversed(on.parents):
            grants = [grant for grant in self.grants.future(container) if grant.future == on.kind]
            for grant in grants:
                if grant.privilege == "OWNERSHIP":
                    self.grants.own(on, grant.to, by=role, at=now)
                else:
                    self.grants.add(Grant(grant.privilege, on, grant.to, role, now, grant.option))
            if grants:
                return

    def rights(self, user: str, role: str, *, secondary: bool = False) -> Rights:
        """Return the rights of a session.

        :param secondary: whether the user's other roles count as well.
        """
        return Rights(self, user, role, secondary=secondary)


class Rights:
    """The rights of a session: those of its role, of the roles granted to that, and of its secondary roles.

    :param access: the account's.
    :param user: the user who logged in.
    :param role: the primary role.
    :param secondary: whether all other roles of the user are active as well.
    """

    def __init__(self, access: Access, user: str, role: str, *, secondary: bool) -> None:
        self._access = access
        self.user = user
        self.role = role
        self.secondary = secondary

    @property
    def access(self) -> Access:
        """The account's roles and grants."""
        return self._access

    @property
    def primary(self) -> frozenset[Principal]:
        """The primary role and all roles in it; only these count when an object is created."""
        return self._access.grants.roles_of(account_role(self.role)) | {PUBLIC}

    @property
    def active(self) -> frozenset[Principal]:
        """All roles that are active, with the roles in them."""
        return self.primary | self.available if self.secondary else self.primary

    @property
    def available(self) -> frozenset[Principal]:
        """The roles that the user may use, with the roles in them."""
        user = Principal("USER", self.user)
        return (self._access.grants.roles_of(user) - {user}) | {PUBLIC}

    @property
    def sees_all(self) -> bool:
        """Whether the session sees every object: MANAGE GRANTS implies that."""
        return self.has(ACCOUNT, "MANAGE GRANTS")

    def use(self, role: str) -> None:
        """Change the primary role; raises 3013 if it isn't granted to the user."""
        if account_role(role) not in self.available:
            raise role_not_assigned(role)
        self.role = role

    def has(self, on: Securable, *privileges: str, creating: bool = False) -> bool:
        """Return whether the session has one of these privileges, or any if none is named; an owner has all.

        :param creating: count the primary role only.
        """
        if on.kind == "SCHEMA" and on.path[-1] == _INFORMATION_SCHEMA:
            on = on.parents[0]
        roles = self.primary if creating else self.active
        return self._owns(on, roles) or any(
            grant.to in roles and (not privileges or grant.privilege in privileges)
            for grant in self._access.grants.on(on)
        )

    def owns(self, on: Securable) -> bool:
        """Return whether an active role owns an object."""
        return self._owns(on, self.active)

    def _owns(self, on: Securable, roles: Collection[Principal]) -> bool:
        return self._access.owner(on) in roles

    def sees(self, on: Securable) -> bool:
        """Return whether SHOW lists an object: any privilege on it and on the schema and database that it lies in."""
        return self.sees_all or (self._unreachable(on) is None and self.has(on))

    def seen(self, kind: str, paths: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """Return the objects of a kind that SHOW lists."""
        paths = list(paths)
        return paths if self.sees_all else [path for path in paths if self.sees(Securable(kind, path))]

    def may_grant(self, on: Securable, privilege: str) -> bool:
        """Return whether the session may grant or revoke a privilege on an object, or grant a role."""
        active = self.active
        return (
            self.sees_all
            or self._owns(on, active)
            or any(
                grant.to in active and grant.option and grant.privilege == privilege
                for grant in self._access.grants.on(on)
            )
        )

    def created(self, on: Securable) -> None:
        """Make the primary role the owner of a new object."""
        self._access.created(on, self.role)

    def dropped(self, on: Securable) -> None:
        """Forget the grants on an object that was dropped."""
        self._access.grants.forget(on)

    def require_use(self, on: Securable) -> None:
        """Raise 2043 if USE can't see a database, schema or warehouse, 3001 without USAGE on it."""
        if self.has(on, "USAGE") or not self._access.exists(on):
            return
        raise insufficient_privileges(on.kind.lower(), on.path[-1]) if self.sees(on) else nothing_to_use()

    def owner_of(self, on: Securable) -> str:
        """Return the role that owns an object, for SHOW."""
        owner = self._access.owner(on)
        return "" if owner is None else owner.name

    def require(self, on: Securable, *privileges: str, creating: bool = False) -> None:
        """Raise 2003 if the session doesn't see an object, 3001 if it has none of the privileges.

        An object that doesn't exist raises nothing: its statement says so itself.
        """
        if self._unreachable(on) is None and self.has(on, *privileges, creating=creating):
            return
        if self._access.exists(on):
            raise self.refusal(on)

    def refusal(self, on: Securable) -> SnowflakeError:
        """Build the error for an object that the session may not use: 3001 if it sees the object, else 2003."""
        unreachable = self._unreachable(on)
        if on == ACCOUNT or self.sees_all or (unreachable is None and self.has(on)):
            return insufficient_privileges(on.kind.lower(), on.path[-1] if on.path else LOCATOR)
        return self.hidden(on if unreachable is None else unreachable)

    def hidden(self, on: Securable) -> SnowflakeError:
        """Build the error for an object that the session doesn't see, or that doesn't exist."""
        return does_not_exist(_LABELS.get(on.kind, on.kind.capitalize()), str(on))

    def _unreachable(self, on: Securable) -> Securable | None:
        """Return the database or schema on which the session has no privilege at all."""
        return next((parent for parent in on.parents if parent.path[0] != _SNOWFLAKE and not self.has(parent)), None)
