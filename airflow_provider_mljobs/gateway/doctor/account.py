"""The facts of an account that several checks need: the session, the grants of its role, the pool."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import GatewayError, LoginRefusedError, SnowflakeUnavailableError
from airflow_provider_mljobs.gateway import statements as jobs_statements
from airflow_provider_mljobs.gateway.doctor import statements
from airflow_provider_mljobs.jobs.grants import Grant, Grants, database_roles, inherited
from airflow_provider_mljobs.jobs.names import ANYWHERE, Identifier
from airflow_provider_mljobs.jobs.spec.job import is_managed

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_mljobs.gateway.client import MLJobClient
    from airflow_provider_mljobs.jobs.grants import Name
    from airflow_provider_mljobs.jobs.names import Namespace, StagePath

# Every role inherits it, which no listing says.
_PUBLIC = Identifier("PUBLIC")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The connection and the arguments of the task that the checks are for.

    :param connection: the id of the Airflow connection.
    :param user: the user of the connection; empty if it names none.
    :param role: the role of the connection; ``None`` for the user's default.
    :param warehouse: the warehouse of the connection.
    :param image: tag or image of the runtime, as in ``runtime_environment``.
    """

    connection: str
    user: str = ""
    role: Identifier | None = None
    warehouse: Identifier | None = None
    namespace: Namespace = ANYWHERE
    compute_pool: Identifier | None = None
    stage: StagePath | None = None
    external_access_integrations: tuple[Identifier, ...] = ()
    image: str | None = None

    @property
    def is_managed(self) -> bool:
        """Whether Snowflake manages the jobs of the pool."""
        pool = self.compute_pool
        return pool is not None and is_managed(pool, managed=None, artifact_repositories=())


@dataclass(frozen=True, kw_only=True)
class Session:
    """The session of the login."""

    user: Identifier
    role: Identifier
    warehouse: Identifier | None
    version: str


class Account:
    """The answers of Snowflake, each asked for once, when the first check needs it.

    :param client: runs the statements.
    :param clock: the clock of this machine, in seconds since the epoch.
    """

    def __init__(self, client: MLJobClient, subject: Subject, *, clock: Callable[[], float] = time.time) -> None:
        self.client = client
        self.subject = subject
        self.clock = clock

    def rows(self, statement: str) -> list[dict[str, Any]]:
        """Run a statement that changes nothing."""
        return self.client.connection.rows(statement)

    @cached_property
    def session(self) -> Session:
        """The session; logs in."""
        (row,) = self.rows(statements.current_session())
        warehouse = row["warehouse_name"]
        return Session(
            user=Identifier(str(row["user_name"])),
            role=Identifier(str(row["role_name"] or _PUBLIC.value)),
            warehouse=Identifier(str(warehouse)) if warehouse else None,
            version=str(row["version"]),
        )

    @cached_property
    def grants(self) -> Grants:
        """The privileges of the session's role, with those of the roles that it inherits.

        Secondary roles of the session don't count: a job runs with the role that owns it, and no other.
        """
        waiting = [self.session.role, _PUBLIC]
        read: dict[Identifier, set[Grant]] = {}
        unread: list[str] = []
        while waiting:
            role = waiting.pop(0)
            if role not in read:
                read[role] = self._granted(statements.show_grants_to_role(role), f"role {role}", unread)
                waiting += inherited(read[role])
        # The database roles of PUBLIC are Snowflake's own, and concern no object of the account.
        names = {name for role, grants in read.items() if role != _PUBLIC for name in database_roles(grants)}
        of_database = [
            self._granted(statements.show_grants_to_database_role(name), f"database role {name}", unread)
            for name in sorted(names)
        ]
        return Grants(frozenset().union(*read.values(), *of_database), tuple(read), tuple(unread))

    def privileges_on(self, kind: str, name: Name) -> frozenset[str]:
        """Return the privileges of the role by the grants on an object, which only its users can list."""
        try:
            return self.grants.among(self.rows(statements.show_grants_on(kind, name)))
        except (SnowflakeUnavailableError, LoginRefusedError):
            raise
        except GatewayError:
            return frozenset()

    def _granted(self, statement: str, whose: str, unread: list[str]) -> set[Grant]:
        """Return the grants of one role; note the reason if they can't be read."""
        try:
            return set(map(Grant.of_row, self.rows(statement)))
        except (SnowflakeUnavailableError, LoginRefusedError):
            raise
        except GatewayError as error:
            unread.append(f"The grants of {whose} can't be read: {error.message}")
            return set()

    @cached_property
    def pool(self) -> dict[str, Any] | None:
        """The row of the pool in SHOW COMPUTE POOLS; ``None`` if the role can't see it."""
        pool = self.subject.compute_pool
        if pool is None:
            return None
        rows = self.rows(jobs_statements.show_compute_pools(pool))
        return next((row for row in rows if row["name"] == pool.value), None)

    @cached_property
    def parameters(self) -> dict[str, str]:
        """The parameters of the account about kinds of services."""
        return {str(row["key"]): str(row["value"] or "") for row in self.rows(statements.show_workload_types())}
