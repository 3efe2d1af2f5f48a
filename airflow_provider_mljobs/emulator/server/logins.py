"""Logins: who a client is, with which role, and where its session begins."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator import sessions as auth
from airflow_provider_mljobs.emulator.access.grants import Securable
from airflow_provider_mljobs.emulator.access.rights import account_role
from airflow_provider_mljobs.emulator.errors import SnowflakeError
from airflow_provider_mljobs.emulator.identity import USER
from airflow_provider_mljobs.emulator.parsing import parse_name
from airflow_provider_mljobs.emulator.sessions import Session
from airflow_provider_mljobs.emulator.tokens import JobIdentity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_mljobs.emulator.access.rights import Rights
    from airflow_provider_mljobs.emulator.account import Account
    from airflow_provider_mljobs.emulator.settings import Settings


class Logins:
    """Identifies clients and opens their sessions.

    :param settings: where sessions begin by default.
    :param account: the account.
    :param password: the password of the account's first user.
    """

    def __init__(self, settings: Settings, account: Account, password: str) -> None:
        self._settings = settings
        self._engine = account.engine
        self._catalog = account.catalog
        self._tokens = account.tokens
        self._access = account.access
        self._users = account.users
        self._password = password

    def identify(self, data: Mapping[str, Any]) -> tuple[JobIdentity, str | None]:
        """Return the identity of a login request, and the token if it is a job's; raises 390100 or 390303."""
        settings = self._settings
        authenticator = str(data.get("AUTHENTICATOR") or "SNOWFLAKE").upper()
        if authenticator == "OAUTH":
            token = str(data.get("TOKEN") or "")
            identity = self._tokens.identity(token)
            if identity is None:
                raise auth.invalid_oauth_token()
            return identity, token
        name = str(data.get("LOGIN_NAME") or "").upper()
        user = self._users.all.get(name)
        if authenticator == "SNOWFLAKE_JWT":
            if user is None or not user.signed(str(data.get("TOKEN") or "")):
                raise auth.invalid_key()
        elif authenticator != "SNOWFLAKE":
            raise SnowflakeError(
                390190, "08001", f"Authenticator {authenticator} is not supported by the embedded Snowflake."
            )
        elif user is None or not self._is_password(name, str(data.get("PASSWORD") or "")):
            raise auth.wrong_password()
        warehouse = user.default_warehouse or None
        return JobIdentity(name, user.default_role, settings.database, settings.schema, warehouse), None

    def _is_password(self, name: str, password: str) -> bool:
        if name == USER:
            return secrets.compare_digest(password.encode(), self._password.encode())
        return self._users.all[name].accepts(password)

    def open(self, number: int, query: Mapping[str, str], identity: JobIdentity, job_token: str | None) -> Session:
        """Open a session where the client wants it, without a database or schema that its role can't use.

        :param number: the id of the session.
        :param query: the parameters of the login request's address.
        """
        rights = self._rights(_stored(query.get("roleName")) or identity.role, identity, job_token)
        database: str | None = _stored(query.get("databaseName")) or identity.database
        schema: str | None = _stored(query.get("schemaName"))
        if schema is None:
            schema = identity.schema if database == identity.database else "PUBLIC"
        if database is not None and not self._can_use(rights, "DATABASE", database):
            database = None
        if database is None or not self._can_use(rights, "SCHEMA", database, schema or ""):
            schema = None
        return Session(
            id=number,
            rights=rights,
            engine=self._engine.open(database, schema),
            database=database,
            schema=schema,
            warehouse=self._warehouse(rights, _stored(query.get("warehouse")) or identity.warehouse),
            job_token=job_token,
            service=None if job_token is None else (identity.database, identity.schema),
        )

    def _rights(self, role: str, identity: JobIdentity, job_token: str | None) -> Rights:
        """Return the rights of a login; raises 390189 for a role that the user doesn't have."""
        user = self._users.all.get(identity.user) if job_token is None else None
        rights = self._access.rights(identity.user, role, secondary=user is not None and user.secondary)
        if role != identity.role if job_token is not None else account_role(role) not in rights.available:
            raise auth.role_not_granted(role)
        return rights

    def _can_use(self, rights: Rights, kind: str, *path: str) -> bool:
        on = Securable(kind, path)
        return self._access.exists(on) and rights.has(on, "USAGE")

    def _warehouse(self, rights: Rights, name: str | None) -> str | None:
        """Return the warehouse of a session; one that is missing, or that the role can't use, is none."""
        is_usable = name in self._catalog.warehouses() and rights.has(Securable("WAREHOUSE", (name,)), "USAGE")
        return name if is_usable else None


def _stored(name: str | None) -> str | None:
    """Return the stored spelling of a name that a client gives at login."""
    return parse_name(name).name if name else None
