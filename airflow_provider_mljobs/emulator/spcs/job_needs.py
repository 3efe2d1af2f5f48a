"""The privileges that a job needs: on its pool, its schema, and every object that its specification names.

Source: "Access control requirements" in https://docs.snowflake.com/en/sql-reference/sql/execute-job-service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.access.grants import ACCOUNT, Securable
from airflow_provider_mljobs.emulator.access.needs import located
from airflow_provider_mljobs.emulator.parsing import QualifiedName, parse_name, parse_stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_mljobs.emulator.spcs.jobs import JobRequest

_BUILT_IN = "/snowflake/images/"
_IMAGE_PARTS = 4


def job_needs(request: JobRequest) -> Iterator[tuple[Securable, str]]:
    """Yield the objects that a job needs, each with the privilege."""
    home = request.name
    yield Securable("SCHEMA", (home.database or "", home.schema or "")), "CREATE SERVICE"
    yield Securable("COMPUTE POOL", (request.pool,)), "USAGE"
    if request.query_warehouse is not None:
        yield Securable("WAREHOUSE", (parse_name(request.query_warehouse).name,)), "USAGE"
    for integration in request.integrations:
        yield Securable("INTEGRATION", (integration,)), "USAGE"
    for image in _images(request):
        yield image, "READ"
    for stage in stages_of(request):
        yield located("STAGE", stage), "READ"
    for secret in _secrets(request):
        yield located("SECRET", secret), "READ"
    # A managed job's own endpoint for the dashboard of Ray needs no such privilege, as far as is known.
    if request.workload == "USER" and any(endpoint.get("public") for endpoint in request.specification.endpoints):
        yield ACCOUNT, "BIND SERVICE ENDPOINT"


def _images(request: JobRequest) -> Iterator[Securable]:
    """Yield the repositories of images that aren't Snowflake's own."""
    for container in request.specification.containers:
        parts = container.image_path.strip("/").split("/")
        if not container.image_path.startswith(_BUILT_IN) and len(parts) >= _IMAGE_PARTS:
            yield Securable("IMAGE REPOSITORY", tuple(part.upper() for part in parts[:3]))


def stages_of(request: JobRequest) -> Iterator[QualifiedName]:
    """Yield the full names of the stages that a job mounts."""
    for volume in request.specification.volumes:
        source = volume["stageConfig"]["name"] if volume["source"] == "stage" else volume["source"]
        if source.startswith("@"):
            yield _completed(parse_stage(source).stage, request)


def _secrets(request: JobRequest) -> Iterator[QualifiedName]:
    for container in request.specification.containers:
        for entry in container.secrets:
            name = entry["snowflakeSecret"].get("objectName")
            if name is not None:
                yield _completed(parse_name(name), request)


def _completed(name: QualifiedName, request: JobRequest) -> QualifiedName:
    home = request.name
    return QualifiedName(name.name, name.schema or home.schema, name.database or home.database)
