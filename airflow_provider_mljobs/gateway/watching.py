"""One look at a job: asks Snowflake and lets the watch decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_mljobs.exceptions import GatewayError, JobNotFoundError
from airflow_provider_mljobs.jobs.status import JobStatus

if TYPE_CHECKING:
    from typing import Any

    from airflow_provider_mljobs.gateway.client import MLJobClient
    from airflow_provider_mljobs.jobs.identifiers import QualifiedName
    from airflow_provider_mljobs.jobs.watch import JobWatch, Verdict


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a look at a job gave.

    :param verdict: what to do next.
    :param status: where the job stands; UNKNOWN if it could not be asked for.
    :param message: what is worth telling.
    """

    verdict: Verdict
    status: JobStatus
    message: str = ""


def look(client: MLJobClient, job: QualifiedName, watch: JobWatch, now: float) -> tuple[JobWatch, Sight]:
    """Ask for the status once; returns the watch with what it has learnt."""
    try:
        status = client.status(job)
    except JobNotFoundError as error:
        watch, verdict = watch.missing()
        return watch, Sight(verdict=verdict, status=JobStatus.DELETED, message=str(error))
    except GatewayError as error:
        # Whatever stands between us and Snowflake, the job is not to blame: it goes on, and so does the watch.
        watch, verdict = watch.failed_to_ask(now)
        return watch, Sight(verdict=verdict, status=JobStatus.UNKNOWN, message=f"Can't ask for job {job}: {error}")
    watch, verdict = watch.observed(status, now)
    return watch, Sight(verdict=verdict, status=status)


def tell(log: Any, job: QualifiedName, before: JobStatus, seen: Sight) -> None:
    """Write to a log what a look has shown that was not known before."""
    if seen.message:
        log.warning("%s", seen.message)
    elif seen.status is not before:
        log.info("Job %s is %s.", job, seen.status)
