"""The image and the node resources of jobs, read from Snowflake once for each connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_mljobs.exceptions import GatewayError, InvalidJobSpecError, NotFoundOrNotAuthorizedError
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.jobs.payload.pickles import python_version
from airflow_provider_mljobs.jobs.spec.job import Resources, Runtime

if TYPE_CHECKING:
    from airflow_provider_mljobs.gateway.connection import Connection
    from airflow_provider_mljobs.jobs.names import Identifier
    from airflow_provider_mljobs.jobs.spec.job import JobSpec


class Runtimes:
    """The runtimes of compute pools."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pools: dict[Identifier, tuple[Resources, int]] = {}
        self._images: dict[tuple[Identifier, str | None], str] = {}

    def forget(self) -> None:
        """Forget all answers, because a pool may have been replaced."""
        self._pools.clear()
        self._images.clear()

    def of(self, spec: JobSpec) -> Runtime:
        """Resolve image and resources for a job.

        :raises NotFoundOrNotAuthorizedError: if the role can't see the pool.
        :raises InvalidJobSpecError: if the job has more instances than the pool can have nodes.
        """
        pool = spec.compute_pool
        if pool not in self._pools:
            self._pools[pool] = self._ask_for_pool(pool)
        resources, most = self._pools[pool]
        if spec.target_instances > most:
            raise InvalidJobSpecError(
                f"target_instances={spec.target_instances}, but compute pool {pool} has at most {most} nodes, and each "
                f"instance takes one. Ask for fewer, or: ALTER COMPUTE POOL {pool} SET MAX_NODES = "
                f"{spec.target_instances}"
            )
        return Runtime(image=self.image(spec), resources=resources)

    def image(self, spec: JobSpec) -> str:
        """Return a job's image: the one it names, or Snowflake's choice for its tag and this Python version."""
        wanted = spec.runtime_environment
        if wanted is not None and "/" in wanted:
            return wanted
        key = (spec.compute_pool, wanted)
        if key not in self._images:
            (answer,) = self._connection.rows(
                statements.get_ml_job_runtime(spec.compute_pool, wanted, python_version())
            )
            self._images[key] = str(next(iter(answer.values())))
        return self._images[key]

    def _ask_for_pool(self, pool: Identifier) -> tuple[Resources, int]:
        rows = self._connection.rows(statements.show_compute_pools(pool))
        row = next((row for row in rows if row["name"] == pool.value), None)
        if row is None:
            raise NotFoundOrNotAuthorizedError(
                f"Compute pool {pool} does not exist or is not authorized for role {self._connection.role}. "
                f"Create it, or: GRANT USAGE, MONITOR ON COMPUTE POOL {pool} TO ROLE {self._connection.role}"
            )
        families = self._connection.rows(statements.show_instance_families())
        family = row["instance_family"]
        node = next((each for each in families if each["name"] == family), None)
        if node is None:
            raise GatewayError(f"Snowflake does not list instance family {family}, which compute pool {pool} uses.")
        resources = Resources(
            cpu=int(float(node["vcpu"])),
            memory_gib=int(float(node["memory_gib"])),
            gpu=int(float(node["gpu_count"] or 0)),
        )
        return resources, int(row["max_nodes"])
