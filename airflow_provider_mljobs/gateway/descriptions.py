"""The row of DESCRIBE SERVICE: a job's own directory on the stage, and the task instance it is of."""

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
    """Return a job's own directory on the stage, as its specification says; also for a job of Snowflake's client.

    For reading only: whoever submitted the job has written the specification, and what it names may not be theirs to
    have removed.

    :raises ResultError: if the job has no such directory, or the role isn't shown the specification.
    """
    return _directory_in(_described(job, row), job)


def _described(job: QualifiedName, row: Mapping[str, Any]) -> Description:
    try:
        description = Description.parse(row["spec"])
    except UnreadableError as error:
        raise ResultError(f"The directory of job {job} is unknown. {error}") from error
    if description is None:
        raise ResultError(f"The specification of job {job} is shown to its owner only, role {row['owner']}.")
    return description


def _directory_in(description: Description, job: QualifiedName) -> StagePath:
    place = description.volumes.get(RESULT_VOLUME) or description.volumes.get(STAGE_VOLUME)
    if place is None:
        raise ResultError(f"Job {job} has no volume for a result: its specification is not this provider's.")
    return StagePath.parse(place, "stage", job.namespace)


def origin_of(row: Mapping[str, Any], job: QualifiedName, airflow: str) -> Origin | None:
    """Return the task instance that a job is of, by its COMMENT; where that is lost, by its name and specification.

    A job's name ends with a digest of the task instance. The names of DAG, run and task stand in its environment.

    :param airflow: the Airflow whose task it may be; it doesn't stand in the environment.
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
    """Check whether a job has a directory for its own, as its specification says."""
    try:
        return directory_of(job, row) == directory
    except (ResultError, InvalidJobSpecError):
        return False
