"""What the end of a job amounts to: its log, its result, and the error that the task fails with."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_mljobs.exceptions import (
    GatewayError,
    JobNotFoundError,
    MLJobCancelledError,
    MLJobError,
    MLJobFailedError,
    MLJobTimeoutError,
    ResultError,
    SnowflakeUnavailableError,
)
from airflow_provider_mljobs.jobs import logs
from airflow_provider_mljobs.jobs.status import JobStatus
from airflow_provider_mljobs.jobs.watch import Verdict

if TYPE_CHECKING:
    from typing import Any

    from airflow_provider_mljobs.gateway.client import MLJobClient
    from airflow_provider_mljobs.jobs.identifiers import QualifiedName, StagePath
    from airflow_provider_mljobs.jobs.results import JobResult

logger = logging.getLogger(__name__)
_LAST_LINES = 20


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of a job.

    :param status: its last status.
    :param log: everything that the job printed; ``None`` if that could not be read, so it isn't safe yet.
    :param result: what the launcher wrote; ``None`` if it wrote nothing that can be read.
    :param error: what the task fails with; ``None`` if the job succeeded.
    :param is_taken: whether nobody needs the result's file any more.
    """

    status: JobStatus
    log: str | None
    result: JobResult | None = None
    error: MLJobError | None = None
    is_taken: bool = True


def complete(
    client: MLJobClient, job: QualifiedName, directory: StagePath, *, verdict: Verdict, status: JobStatus
) -> Outcome:
    """Read what a job has left, before anything of it is dropped. A job out of time is cancelled first.

    :raises SnowflakeUnavailableError: if Snowflake was, or is, out of reach: then nothing is known of the job.
    """
    if verdict is Verdict.UNREACHABLE:
        raise SnowflakeUnavailableError(
            f"Snowflake could not be asked for job {job} for too long; the job may still be running. "
            "See [mljobs] max_unreachable_seconds."
        )
    if verdict is Verdict.TIMED_OUT:
        client.cancel(job)
        status = _status(client, job)
    try:
        log: str | None = client.logs(job)
    except SnowflakeUnavailableError as error:
        logger.warning("The log of job %s can't be read now: %s", job, error)
        log = None
    result, unreadable = None, None
    try:
        result = client.result(job, directory, patient=status is JobStatus.DONE)
    except (ResultError, GatewayError) as error:
        unreadable = ResultError(f"The result of job {job} can't be read; it stays in {directory}. {error}")
        unreadable.__cause__ = error
    printed = logs.between_banners(log or "")
    if result is not None and result.traceback:
        # The error has the traceback already; its tail is what the payload printed before.
        printed = printed.replace(result.traceback.strip(), "")
    tail = "\n".join(printed.strip().splitlines()[-_LAST_LINES:])
    return Outcome(
        status=status,
        log=log,
        result=result,
        error=_error(client, job, verdict, status, result, tail) or unreadable,
        is_taken=unreadable is None and (result is None or result.reference is None),
    )


def abandon(client: MLJobClient, job: QualifiedName, directory: StagePath | None, log: Any) -> None:
    """End a job that no task waits for any more.

    :param directory: the job's directory on the stage, if the job is to be dropped and its payload removed, too.
    :param log: where the job's log goes before it is dropped.
    """
    client.cancel(job)
    if directory is not None:
        log.info("Log of job %s:\n%s", job.name, logs.tail(logs.without_banners(client.logs(job))))
        client.clean_up(job, directory)
    log.info("Cancelled job %s.", job)


def _error(
    client: MLJobClient, job: QualifiedName, verdict: Verdict, status: JobStatus, result: JobResult | None, tail: str
) -> MLJobError | None:
    job_id = str(job)
    if verdict is Verdict.TIMED_OUT:
        message = f"Job {job} did not end within the task's execution_timeout; it was cancelled."
        return MLJobTimeoutError(message, job_id, status, tail)
    if verdict is Verdict.GONE or status is JobStatus.DELETED:
        message = f"Job {job} is gone: somebody dropped it, or it never was there."
        return MLJobFailedError(message, job_id, status, tail)
    if status is JobStatus.CANCELLED:
        return MLJobCancelledError(f"Job {job} was cancelled.", job_id, status, tail)
    if result is not None and not result.success:
        return result.remote_error(job_id, status, tail)
    if status is not JobStatus.DONE:
        return MLJobFailedError(f"Job {job} ended {status}. {_containers(client, job)}", job_id, status, tail)
    return ResultError(f"Job {job} is DONE but left no result at its place on the stage.") if result is None else None


def _status(client: MLJobClient, job: QualifiedName) -> JobStatus:
    try:
        return client.status(job)
    except JobNotFoundError:
        return JobStatus.DELETED


def _containers(client: MLJobClient, job: QualifiedName) -> str:
    """Say what the platform says of each container."""
    try:
        containers = client.containers(job)
    except GatewayError as error:
        return f"Its containers can't be asked for: {error.message}"
    return " ".join(
        f"Instance {container.instance_id}, container {container.name}: {container.message or container.status}"
        + (f" (exit code {container.last_exit_code})." if container.last_exit_code else ".")
        for container in containers
    )
