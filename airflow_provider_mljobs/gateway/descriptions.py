"""Readings of a row of DESCRIBE SERVICE: the job's directory on the stage, and its task instance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, ResultError, UnreadableError
from airflow_provider_mljobs.jobs.comment import Origin
from airflow_provider_mljobs.jobs.names import StagePath
from airflow_provider_mljobs.jobs.spec.description import Description
from airflow_provider_mljobs.jobs.spec.rendering import RESULT_VOLUME, STAGE_VOLUME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_mljobs.jobs.names import QualifiedName


def directory_of(job: QualifiedName, row: Mapping[str, Any]) -> StagePath:
    """Return a job's directory on the stage, from its specification; also for a job of Snowflake's client.

    Only read from it. The specification is untrusted: it may name a directory that belongs to another job.

    :raises ResultError: if the job has no such directory, or the role may not see the specification.
    """
    return _directory_in(_described(job, row), job)


def _described(job: QualifiedName, row: Mapping[str, Any]) -> Description:
    try:
        description = Description.parse(row.get("spec"))
    except UnreadableError as error:
        raise ResultError(f"Could not find the directory of job {job}. {error}") from error
    if description is None:
        raise ResultError(f"Only role {row['owner']}, the owner of job {job}, can see its specification.")
    return description


def _directory_in(description: Description, job: QualifiedName) -> StagePath:
    place = description.volumes.get(RESULT_VOLUME) or description.volumes.get(STAGE_VOLUME)
    if place is None:
        raise ResultError(
            f"Job {job} has no volume for a result: it comes neither from this provider nor from Snowflake's client."
        )
    return StagePath.parse(place, "stage", job.namespace)


def origin_of(row: Mapping[str, Any], job: QualifiedName, airflow: str) -> Origin | None:
    """Return a job's task instance from its COMMENT; if that is lost, from its name and specification.

    A job's name ends with a digest of the task instance. Its environment has the names of DAG, run and task.
    """
    origin = Origin.parse(row["comment"])
    if origin is not None:
        return origin
    try:
        description = _described(job, row)
        payload = _directory_in(description, job).parent.name
    except (ResultError, InvalidJobSpecError):
        return None
    return Origin.from_environment(description.environment, airflow, job.name.value, payload)


def is_in(directory: StagePath, job: QualifiedName, row: Mapping[str, Any]) -> bool:
    """Check whether a job's specification names this directory."""
    try:
        return directory_of(job, row) == directory
    except (ResultError, InvalidJobSpecError):
        return False
