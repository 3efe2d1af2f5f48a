"""The row of DESCRIBE SERVICE: a job's specification, its directory on the stage, and the task instance it is of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, ResultError
from airflow_provider_mljobs.jobs.identifiers import StagePath
from airflow_provider_mljobs.jobs.origin import Origin
from airflow_provider_mljobs.jobs.rendering import RESULT_VOLUME, STAGE_VOLUME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_mljobs.jobs.identifiers import QualifiedName


def specification_of(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a job's specification; ``None`` if the role doesn't own the job, and so isn't shown it."""
    import yaml

    document: dict[str, Any] | None = yaml.safe_load(str(row["spec"] or ""))
    return document


def directory_of(job: QualifiedName, row: Mapping[str, Any]) -> StagePath:
    """Return a job's own directory on the stage, as its specification says; also for a job of Snowflake's client.

    For reading only: whoever submitted the job has written the specification, and what it names may not be theirs to
    have removed.

    :raises ResultError: if the job has no such directory, or the role isn't shown the specification.
    """
    document = specification_of(row)
    if document is None:
        raise ResultError(f"The specification of job {job} is shown to its owner only, role {row['owner']}.")
    volumes = {volume["name"]: volume for volume in document["spec"].get("volumes", ())}
    volume = volumes.get(RESULT_VOLUME) or volumes.get(STAGE_VOLUME)
    if volume is None:
        raise ResultError(f"Job {job} has no volume for a result: it runs a specification of somebody's own.")
    place = volume["stageConfig"]["name"] if volume["source"] == "stage" else volume["source"]
    return StagePath.parse(place, "stage", job.database, job.schema)


def origin_of(row: Mapping[str, Any], job: QualifiedName, airflow: str) -> Origin | None:
    """Return the task instance that a job is of, by its COMMENT; where that is lost, by its name and specification.

    A job's name ends with a digest of the task instance. The names of DAG, run and task stand in its environment.

    :param airflow: the Airflow whose task it may be; it doesn't stand in the environment.
    """
    origin = Origin.parse(row["comment"])
    if origin is not None:
        return origin
    try:
        document = specification_of(row)
        payload = directory_of(job, row).parent.name
    except (ResultError, InvalidJobSpecError):
        return None
    containers = [] if document is None else document["spec"]["containers"]
    environments = (container.get("env") or {} for container in containers)
    found = (Origin.from_environment(each, airflow, job.name.value, payload) for each in environments)
    return next((each for each in found if each is not None), None)


def is_in(directory: StagePath, job: QualifiedName, row: Mapping[str, Any]) -> bool:
    """Check whether a job has a directory for its own, as its specification says."""
    try:
        return directory_of(job, row) == directory
    except (ResultError, InvalidJobSpecError):
        return False
