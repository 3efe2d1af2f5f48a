"""The image and the node resources of jobs, read from Snowflake once for each connection."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import (
    GatewayError,
    InvalidJobSpecError,
    LoginRefusedError,
    NotFoundOrNotAuthorizedError,
    PayloadError,
    SnowflakeUnavailableError,
)
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.jobs.payload.pickles import python_version
from airflow_provider_mljobs.jobs.spec.job import Resources, Runtime, RuntimeImage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_mljobs.gateway.connection import Connection
    from airflow_provider_mljobs.jobs.names import Identifier
    from airflow_provider_mljobs.jobs.spec.job import JobSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Pool:
    """A compute pool.

    :param node: a node of its instance family.
    :param smallest: the least of each resource among its instance family and the backups.
    """

    node: Resources
    smallest: Resources
    max_nodes: int


class Runtimes:
    """The runtimes of compute pools."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pools: dict[Identifier, _Pool] = {}
        self._images: dict[tuple[Identifier, str | None], RuntimeImage] = {}

    def forget(self) -> None:
        """Forget all answers, because a pool may have been replaced."""
        self._pools.clear()
        self._images.clear()

    def of(self, spec: JobSpec) -> Runtime:
        """Resolve image and resources for a job.

        :raises NotFoundOrNotAuthorizedError: if the role can't see the pool.
        :raises InvalidJobSpecError: if the job has more instances than the pool can have nodes.
        """
        pool = self._pool(spec.compute_pool)
        if spec.target_instances > pool.max_nodes:
            raise InvalidJobSpecError(
                f"target_instances={spec.target_instances}, but compute pool {spec.compute_pool} has at most "
                f"{pool.max_nodes} nodes, and each instance takes one. Ask for fewer, or: ALTER COMPUTE POOL "
                f"{spec.compute_pool} SET MAX_NODES = {spec.target_instances}"
            )
        return Runtime(image=self.image(spec).path, resources=pool.node, smallest=pool.smallest)

    def check_fit(self, spec: JobSpec, document: Mapping[str, Any]) -> None:
        """Refuse a specification that no node of its compute pool has room for, if the role can see the pool.

        :raises InvalidJobSpecError: with the requests that don't fit.
        """
        from airflow_provider_mljobs.jobs.spec.node import check_fit, requests_gpus

        try:
            node = self._pool(spec.compute_pool).smallest
        except GatewayError as error:
            # Snowflake refuses the submit, or knows better.
            logger.debug("The resources of job %s were not compared with a node: %s", spec.name, error)
            return
        check_fit(document, str(spec.compute_pool), node)
        if node.gpu and not requests_gpus(document):
            logger.warning(
                "No container of job %s requests nvidia.com/gpu, so the job can't use the GPUs of compute pool %s, and "
                "may stay PENDING: add it to resources.requests and resources.limits, or choose a pool without GPUs.",
                spec.name, spec.compute_pool,
            )  # fmt: skip

    def image(self, spec: JobSpec) -> RuntimeImage:
        """Return a job's image: the one it names, or Snowflake's choice for its version and this worker's Python.

        :raises GatewayError: if Snowflake has no image for the version, whatever the Python.
        """
        wanted = spec.runtime_environment
        if wanted is not None and "/" in wanted:
            return RuntimeImage(path=wanted)
        key = (spec.compute_pool, wanted)
        if key not in self._images:
            self._images[key] = self._ask_for_image(*key)
        return self._images[key]

    def check_python(self, spec: JobSpec, pickled: Sequence[str]) -> None:
        """Refuse pickles for an image that can't have this worker's Python.

        Where the tag says nothing, the job compares the versions before it unpickles anything.

        :param pickled: the parts of the job that this worker has pickled.
        :raises PayloadError: with the versions and the ways out.
        """
        image, own = self.image(spec), python_version()
        if not pickled or image.python == own:
            return
        if image.python is not None:
            reason = f"image {image.path} has Python {image.python}."
        elif "python" in image.refusal.lower():
            reason = f"Snowflake has no image for it: {image.refusal}"
        else:
            return
        raise PayloadError(
            f"{' and '.join(pickled)} can only travel as a pickle, which needs Python {own} of this worker in the job, "
            f"and {reason}\nLet a function stand alone (imports inside, nothing of its module), and pass JSON, dates, "
            "paths, dataclasses, DataFrames or arrays: these need no pickle. Or run the worker with the image's "
            f"Python, or choose an image with Python {own} by runtime_environment."
        )

    def _ask_for_image(self, pool: Identifier, wanted: str | None) -> RuntimeImage:
        """Ask with this worker's Python, and if Snowflake refuses without."""
        own = python_version()
        path, refusal = self._runtime(statements.get_ml_job_runtime(pool, wanted, own))
        if path:
            return RuntimeImage(path=path)
        path, _ = self._runtime(statements.get_ml_job_runtime(pool, wanted, None))
        if path:
            return RuntimeImage(path=path, refusal=refusal)
        raise GatewayError(
            f"Snowflake has no runtime image for compute pool {pool} and runtime_environment={wanted!r}, with Python "
            f"{own} or any other: {refusal} Choose another runtime_environment, or an image of your own."
        )

    def _runtime(self, statement: str) -> tuple[str, str]:
        """Return the answer to a question for an image, or an empty one and the refusal."""
        try:
            rows = self._connection.rows(statement)
        except (LoginRefusedError, NotFoundOrNotAuthorizedError, SnowflakeUnavailableError):
            raise
        except GatewayError as error:
            return "", error.message
        answer = next(iter(rows[0].values())) if rows else None
        return (str(answer), "") if answer else ("", "The answer is empty.")

    def _pool(self, pool: Identifier) -> _Pool:
        if pool not in self._pools:
            self._pools[pool] = self._ask_for_pool(pool)
        return self._pools[pool]

    def _ask_for_pool(self, pool: Identifier) -> _Pool:
        rows = self._connection.rows(statements.show_compute_pools(pool))
        row = next((row for row in rows if row["name"] == pool.value), None)
        if row is None:
            raise NotFoundOrNotAuthorizedError(
                f"Compute pool {pool} does not exist or is not authorized for role {self._connection.role}. "
                f"Create it, or: GRANT USAGE, MONITOR ON COMPUTE POOL {pool} TO ROLE {self._connection.role}"
            )
        families = {str(each["name"]): each for each in self._connection.rows(statements.show_instance_families())}
        family = str(row["instance_family"])
        if family not in families:
            raise GatewayError(f"Snowflake does not list instance family {family}, which compute pool {pool} uses.")
        node = _resources(families[family])
        backups = [_resources(families[name]) for name in _backups(row) if name in families]
        # A node without GPUs can't run a job that requests some.
        possible = [node, *(backup for backup in backups if backup.gpu or not node.gpu)]
        return _Pool(node=node, smallest=_least(possible), max_nodes=int(row["max_nodes"]))


def _backups(row: Mapping[str, Any]) -> list[str]:
    # A list as text; accounts without the feature have no such column.
    return re.findall(r"\w+", str(row.get("backup_instance_families") or ""))


def _resources(family: Mapping[str, Any]) -> Resources:
    return Resources(
        cpu=int(float(family["vcpu"])),
        memory_gib=int(float(family["memory_gib"])),
        gpu=int(float(family["gpu_count"] or 0)),
        family=str(family["name"]),
    )


def _least(nodes: Sequence[Resources]) -> Resources:
    return Resources(
        cpu=min(node.cpu for node in nodes),
        memory_gib=min(node.memory_gib for node in nodes),
        gpu=min(node.gpu for node in nodes),
        family=" or ".join(node.family for node in nodes),
    )
