"""The users and roles of the account, and who a login is."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.access.grants import Principal, Securable
from airflow_provider_mljobs.emulator.access.rights import SYSTEM_ROLES
from airflow_provider_mljobs.emulator.identity import LOCATOR, ROLE, USER

if TYPE_CHECKING:
    from airflow_provider_mljobs.emulator.access.grants import Store
    from airflow_provider_mljobs.emulator.access.rights import Access

_USERS, _ROLES = "User", "Role"
_ROUNDS = 10_000


@dataclass(frozen=True, kw_only=True)
class Role:
    """A role that isn't a system role."""

    name: str
    owner: str = ""
    comment: str = ""
    created_on: float = 0.0


@dataclass(frozen=True, kw_only=True)
class User:
    """A user.

    :param secondary: whether all roles of the user are active in a session, as ``DEFAULT_SECONDARY_ROLES = ('ALL')``.
    :param password: salt and hash of the password; empty if the user can't log in with one.
    :param public_key: RSA_PUBLIC_KEY: base64, with or without the lines that begin and end a PEM file.
    """

    name: str
    default_role: str = "PUBLIC"
    default_warehouse: str = ""
    default_namespace: str = ""
    secondary: bool = True
    password: str = ""
    public_key: str = ""
    type: str = "PERSON"
    disabled: bool = False
    owner: str = ""
    comment: str = ""
    created_on: float = 0.0

    def with_password(self, password: str) -> User:
        """Return the user with another password."""
        salt = secrets.token_hex(8)
        return replace(self, password=f"{salt}:{_hashed(password, salt)}")

    def accepts(self, password: str) -> bool:
        """Return whether the user may log in with a password."""
        salt, _, digest = self.password.partition(":")
        return bool(digest) and not self.disabled and secrets.compare_digest(_hashed(password, salt), digest)

    def signed(self, token: str) -> bool:
        """Return whether a JSON web token comes from the holder of the user's private key."""
        import jwt
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.hazmat.primitives.serialization import load_der_public_key

        body = "".join(line for line in self.public_key.splitlines() if not line.startswith("---"))
        try:
            key = load_der_public_key(base64.b64decode(body, validate=True))
            if self.disabled or not isinstance(key, RSAPublicKey):
                return False
            claims = jwt.decode(token, key, algorithms=["RS256"], options={"require": ["exp", "sub"]})
        except (ValueError, jwt.InvalidTokenError):
            return False
        return bool(claims["sub"] == f"{LOCATOR}.{self.name}")


def _hashed(password: str, salt: str) -> str:
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), _ROUNDS).hex()


class Users:
    """The users and roles of the account.

    :param access: their rights.
    :param store: where they survive a restart.
    """

    def __init__(self, access: Access, store: Store) -> None:
        self._grants = access.grants
        self._store = store
        # The user of the server's own password; without secondary roles, so that a role can be tried on its own.
        self._users = {USER: User(name=USER, default_role=ROLE, secondary=False)}
        self._users |= {name: User(**json.loads(record)) for name, record in store.objects(_USERS)}
        self._roles = {role.name: Role(name=role.name) for role in SYSTEM_ROLES}
        self._roles |= {name: Role(**json.loads(record)) for name, record in store.objects(_ROLES)}
        access.register("USER", lambda path: self._owner(self._users, path))
        access.register("ROLE", lambda path: self._owner(self._roles, path))

    @staticmethod
    def _owner(objects: dict[str, Any], path: tuple[str, ...]) -> str | None:
        named = objects.get(path[0])
        return None if named is None else named.owner or ROLE

    @property
    def roles(self) -> dict[str, Role]:
        """The account's roles by name."""
        return dict(self._roles)

    @property
    def all(self) -> dict[str, User]:
        """The users by name."""
        return dict(self._users)

    def save_role(self, role: Role) -> None:
        """Add or replace a role."""
        role = replace(role, created_on=role.created_on or time.time())
        self._roles[role.name] = role
        self._store.save_object(_ROLES, role.name, json.dumps(asdict(role)))

    def drop_role(self, name: str) -> None:
        """Drop a role: all that it had is gone, and so are the grants of it."""
        del self._roles[name]
        self._store.delete_object(_ROLES, name)
        self._forget("ROLE", name)

    def save_user(self, user: User) -> None:
        """Add or replace a user."""
        user = replace(user, created_on=user.created_on or time.time())
        self._users[user.name] = user
        self._store.save_object(_USERS, user.name, json.dumps(asdict(user)))

    def drop_user(self, name: str) -> None:
        """Drop a user."""
        del self._users[name]
        self._store.delete_object(_USERS, name)
        self._forget("USER", name)

    def _forget(self, kind: str, name: str) -> None:
        self._grants.forget_principal(Principal(kind, name))
        self._grants.forget(Securable(kind, (name,)))
