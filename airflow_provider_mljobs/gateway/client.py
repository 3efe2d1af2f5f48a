"""The verbs of a job: submit, status, logs, result, cancel, drop."""

from __future__ import annotations

import logging
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import (
    GatewayError,
    JobAlreadyExistsError,
    JobNotFoundError,
    NotFoundOrNotAuthorizedError,
    ResultError,
    SnowflakeUnavailableError,
)
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.gateway.connection import Connection
from airflow_provider_mljobs.jobs.payload import ARCHIVE
from airflow_provider_mljobs.jobs.results import JobResult
from airflow_provider_mljobs.jobs.spec import CONTAINER, RESULT_PATH, Resources, Runtime, render
from airflow_provider_mljobs.jobs.status import JobStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from snowflake.connector import SnowflakeConnection

    from airflow_provider_mljobs.jobs.identifiers import Identifier, QualifiedName, StagePath
    from airflow_provider_mljobs.jobs.payload import Payload
    from airflow_provider_mljobs.jobs.spec import JobSpec

logger = logging.getLogger(__name__)

# The platform cuts a log at 100 KB; what comes back this long may have lost its beginning.
_FULL_LOG = 99_000
_FILE_NOT_FOUND = 253006


@dataclass(frozen=True, kw_only=True)
class Container:
    """One container of one instance, as SHOW SERVICE CONTAINERS tells."""

    instance_id: str
    name: str
    status: str
    message: str
    last_exit_code: str


class MLJobClient:
    """Submits jobs and looks after them, over one kept-open connection.

    :param connect: opens a connection.
    :param visibility_lag: for how many seconds a result may be missing after its job has ended: stage volumes upload
        in the background.
    """

    def __init__(self, connect: Callable[[], SnowflakeConnection], *, visibility_lag: float = 10.0) -> None:
        self.connection = Connection(connect)
        self._visibility_lag = visibility_lag

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def submit(self, spec: JobSpec, payload: Payload) -> None:
        """Upload the payload and start the job, without waiting for it.

        If a job of that very name and comment exists already, an earlier call of this submit has made it, and all is
        well. What Snowflake refuses leaves nothing on the stage.

        :raises NotFoundOrNotAuthorizedError: naming the pool, stage or schema and the GRANT that may be missing.
        :raises JobAlreadyExistsError: if somebody else's job has the name.
        :raises SnowflakeUnavailableError: if the job may have started, or not; the message says how to find out.
        """
        runtime = self.runtime(spec.compute_pool)
        self._check_stage(spec.directory)
        specification = render(spec.specification(payload, runtime))
        try:
            self._upload(payload.archive, spec.directory)
            self.connection.rows(statements.execute_job_service(spec, specification))
        except JobAlreadyExistsError as error:
            if self._comment(spec.name) != spec.comment:
                raise JobAlreadyExistsError(
                    f"Job {spec.name} exists and was not submitted by this task. Drop it, or rename the task.",
                    error.errno,
                    error.sqlstate,
                    error.query_id,
                ) from error
            logger.info("Job %s was submitted before; going on with it.", spec.name)
        except NotFoundOrNotAuthorizedError as error:
            self._undo(spec)
            role = self.connection.role
            raise _explain(
                error,
                f"Job {spec.name} can't be submitted.",
                f"GRANT CREATE SERVICE ON SCHEMA {spec.name.database}.{spec.name.schema} TO ROLE {role}",
                *([f"GRANT USAGE ON WAREHOUSE {spec.query_warehouse} TO ROLE {role}"] if spec.query_warehouse else []),
                *(f"GRANT USAGE ON INTEGRATION {name} TO ROLE {role}" for name in spec.external_access_integrations),
            ) from error
        except SnowflakeUnavailableError as error:
            # The job may have started, so its payload stays.
            raise SnowflakeUnavailableError(
                f"Snowflake was lost while job {spec.name} was submitted; it may run, and its files are in "
                f"{spec.directory}. Look with: {statements.describe_service(spec.name)}; end it with: "
                f"{statements.drop_service(spec.name)}. Snowflake says: {error.message}",
                error.errno,
                error.sqlstate,
                error.query_id,
            ) from error
        except GatewayError:
            self._undo(spec)
            raise

    def runtime(self, pool: Identifier) -> Runtime:
        """Resolve image and resources for a pool.

        :raises NotFoundOrNotAuthorizedError: if the pool isn't there for this role.
        """
        rows = self.connection.rows(statements.show_compute_pools(pool))
        family = next((str(row["instance_family"]) for row in rows if row["name"] == pool.value), None)
        if family is None:
            raise NotFoundOrNotAuthorizedError(
                f"Compute pool {pool} does not exist or is not authorized for role {self.connection.role}. "
                f"Create it, or: GRANT USAGE, MONITOR ON COMPUTE POOL {pool} TO ROLE {self.connection.role}"
            )
        families = self.connection.rows(statements.show_instance_families())
        node = next((row for row in families if row["name"] == family), None)
        if node is None:
            raise GatewayError(f"Snowflake doesn't list instance family {family} of compute pool {pool}.")
        major, minor, _ = platform.python_version_tuple()
        (answer,) = self.connection.rows(statements.get_ml_job_runtime(pool, f"{major}.{minor}"))
        resources = Resources(
            cpu=int(float(node["vcpu"])),
            memory_gib=int(float(node["memory_gib"])),
            gpu=int(float(node["gpu_count"] or 0)),
        )
        return Runtime(image=str(next(iter(answer.values()))), resources=resources)

    def status(self, job: QualifiedName) -> JobStatus:
        """Return where the job stands.

        :raises JobNotFoundError: if neither the service nor the job history knows it.
        """
        try:
            (row,) = self.connection.rows(statements.describe_service(job))
        except NotFoundOrNotAuthorizedError as error:
            rows = self.connection.rows(statements.get_job_history(job))
            if not rows or not JobStatus(rows[0]["status"]).is_terminal:
                raise JobNotFoundError(
                    f"Job {job} does not exist or not authorized.", error.errno, error.sqlstate, error.query_id
                ) from error
            (row,) = rows
        return JobStatus(row["status"])

    def containers(self, job: QualifiedName) -> list[Container]:
        """Return what the platform says of each container."""
        return [
            Container(
                instance_id=str(row["instance_id"] or "0"),
                name=str(row["container_name"]),
                status=str(row["status"]),
                message=str(row["message"] or ""),
                last_exit_code="" if row["last_exit_code"] is None else str(row["last_exit_code"]),
            )
            for row in self.connection.rows(statements.show_service_containers(job))
        ]

    def logs(self, job: QualifiedName, instance: int = 0) -> str:
        """Return the log of an instance, as much as is to be had; a missing beginning is announced."""
        try:
            (row,) = self.connection.rows(statements.get_service_logs(job, instance, CONTAINER))
            tail = str(next(iter(row.values())) or "")
        except SnowflakeUnavailableError:
            raise
        except GatewayError as error:
            # Too early, or the node is gone: the event table may have what the node hasn't.
            logger.debug("No log on the node of %s: %s", job, error)
            return self._kept_log(job, instance)
        if len(tail.encode()) < _FULL_LOG:
            return tail
        kept = self._kept_log(job, instance)
        if len(kept) > len(tail) and kept.rstrip().endswith(tail.rstrip().rpartition("\n")[2]):
            return kept
        return f"[the log is longer than the 100 KB that Snowflake keeps on the node; its beginning is cut off]\n{tail}"

    def result(self, job: QualifiedName, directory: StagePath, *, patient: bool = True) -> JobResult | None:
        """Return what the launcher wrote about the run, or ``None`` if it wrote nothing.

        :param patient: wait for a result that may still be on its way to the stage.
        :raises ResultError: if the file is no result.
        """
        file = directory / RESULT_PATH
        give_up = time.monotonic() + (self._visibility_lag if patient else 0)
        while (text := self._download(file)) is None:
            if time.monotonic() >= give_up:
                return None
            logger.info("The result of %s is not on the stage yet; looking again.", job)
            time.sleep(1)
        return JobResult.parse(text, type(file)(file.stage, file.path.rpartition("/")[0]))

    def cancel(self, job: QualifiedName) -> None:
        """Stop the job; a job that is over or gone is fine."""
        try:
            if not self.status(job).is_terminal:
                self.connection.rows(statements.cancel_job(job))
        except NotFoundOrNotAuthorizedError:
            logger.info("Job %s is gone; nothing to cancel.", job)

    def drop(self, job: QualifiedName) -> None:
        """Drop the job's service; its logs go with it, except what an event table keeps."""
        self.connection.rows(statements.drop_service(job))

    def remove(self, path: StagePath) -> None:
        """Remove a directory of the stage."""
        self.connection.rows(statements.remove(path / ""))

    def clean_up(self, job: QualifiedName, directory: StagePath, *, result: bool = True) -> None:
        """Drop a job and remove what it doesn't need any more; what the payload itself has saved stays.

        :param result: also remove the result file, because it has been taken.
        """
        self.drop(job)
        self.connection.rows(statements.remove(directory / ARCHIVE))
        if result:
            self.connection.rows(statements.remove(directory / RESULT_PATH))

    def list(self, schema: QualifiedName | None = None, prefix: str = "MLJOB_") -> list[dict[str, Any]]:
        """Return the rows of SHOW JOB SERVICES.

        :param schema: any object of the schema to look in; ``None`` for the whole account.
        :param prefix: how the names begin.
        """
        return self.connection.rows(statements.show_job_services(schema, prefix))

    def _check_stage(self, directory: StagePath) -> None:
        try:
            self.connection.rows(statements.describe_stage(directory.stage))
        except NotFoundOrNotAuthorizedError as error:
            stage, role = directory.stage, self.connection.role
            raise _explain(
                error,
                f"Stage {stage} does not exist or is not authorized for role {role}. Create it with "
                f"CREATE STAGE {stage} ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE').",
                f"GRANT READ, WRITE ON STAGE {stage} TO ROLE {role}",
                f"GRANT USAGE ON SCHEMA {stage.database}.{stage.schema} TO ROLE {role}",
            ) from error

    def _undo(self, spec: JobSpec) -> None:
        """Remove what a refused submit has uploaded; what went wrong before is the error to tell."""
        try:
            self.remove(spec.directory)
        except GatewayError as error:
            logger.warning("Could not remove the payload of %s; left: %s. Reason: %s", spec.name, spec.directory, error)

    def _upload(self, archive: bytes, directory: StagePath) -> None:
        with tempfile.TemporaryDirectory(prefix="mljob-") as local:
            file = Path(local, ARCHIVE)
            file.write_bytes(archive)
            self.connection.rows(statements.put(file, directory))

    def _download(self, file: StagePath) -> str | None:
        with tempfile.TemporaryDirectory(prefix="mljob-") as local:
            try:
                self.connection.rows(statements.get(file, Path(local)))
            except GatewayError as error:
                if error.errno != _FILE_NOT_FOUND:
                    raise
            path = Path(local, file.path.rpartition("/")[2])
            try:
                return path.read_text("utf-8") if path.exists() else None
            except UnicodeDecodeError as error:
                raise ResultError(f"The result at {file} is no text; was it written by another launcher?") from error

    def _kept_log(self, job: QualifiedName, instance: int) -> str:
        try:
            rows = self.connection.rows(statements.spcs_get_logs(job, instance, CONTAINER))
        except SnowflakeUnavailableError:
            raise
        except GatewayError as error:
            logger.debug("No log of %s in an event table: %s", job, error)
            return ""
        return "\n".join(str(row["log"]) for row in rows)

    def _comment(self, job: QualifiedName) -> str:
        (row,) = self.connection.rows(statements.describe_service(job))
        return str(row["comment"] or "")


def _explain(error: GatewayError, happened: str, *grants: str) -> NotFoundOrNotAuthorizedError:
    advice = "".join(f"\n  {grant};" for grant in grants)
    return NotFoundOrNotAuthorizedError(
        f"{happened} Snowflake says: {error.message}\nIf something is missing for the role:{advice}",
        error.errno,
        error.sqlstate,
        error.query_id,
    )
