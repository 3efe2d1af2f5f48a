"""A job as Snowflake shows it: containers, start and end, endpoints, environment, logs."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import NotFoundOrNotAuthorizedError, UnreadableError
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.gateway.joblogs import read_log, read_logs, read_rest, sources as labelled
from airflow_provider_mljobs.gateway.late_logs import LogPatience
from airflow_provider_mljobs.gateway.log_store import Source
from airflow_provider_mljobs.jobs.outcome.failures import ContainerEnd, past_containers
from airflow_provider_mljobs.jobs.spec.description import Description, volume_of_sidecar
from airflow_provider_mljobs.jobs.spec.job import CONTAINER
from airflow_provider_mljobs.jobs.spec.rendering import given_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_mljobs.gateway.client import MLJobClient
    from airflow_provider_mljobs.gateway.joblogs import Printed, WholeLog
    from airflow_provider_mljobs.jobs.names import QualifiedName

logger = logging.getLogger(__name__)
_MAX_EVENTS = 1000
# While an endpoint is being provisioned, Snowflake writes a sentence in place of its address.
_ADDRESS = re.compile(r"[\w.-]+\.[\w.-]+(?::\d+)?(?:/\S*)?")


@dataclass(frozen=True, kw_only=True)
class Container:
    """One container of one instance, as SHOW SERVICE CONTAINERS lists it."""

    instance_id: str
    name: str
    status: str
    message: str
    last_exit_code: str
    started: float | None = None

    @property
    def is_sidecar(self) -> bool:
        """Whether Snowflake has added it to the job, to mount a stage volume."""
        return bool(volume_of_sidecar(self.name))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The containers of a job and their environment.

    :param environment: the variables of its containers; empty if the role may not read the specification.
    :param is_specified: whether this comes from the specification; otherwise it lists the containers that exist so far.
    """

    containers: tuple[tuple[int, str], ...]
    environment: dict[str, str] = field(default_factory=dict)
    is_specified: bool = True


def containers(client: MLJobClient, job: QualifiedName) -> list[Container]:
    """List a job's containers with their states, those of its stage volumes included."""
    return [
        Container(
            instance_id=str(_whole(row.get("instance_id")) or 0),
            name=str(row["container_name"]),
            status=str(row.get("status") or ""),
            message=str(row.get("message") or ""),
            last_exit_code="" if (code := _whole(row.get("last_exit_code"))) is None else str(code),
            started=_moment(row.get("start_time")),
        )
        for row in client.connection.rows(statements.show_service_containers(job))
        # A job without instances has one row of nulls.
        if row["container_name"]
    ]


def _own_containers(client: MLJobClient, job: QualifiedName) -> list[Container]:
    """List the containers that a job's specification has: those of stage volumes have neither log nor payload."""
    return [container for container in containers(client, job) if not container.is_sidecar]


def ends(client: MLJobClient, job: QualifiedName) -> list[ContainerEnd]:
    """Return how each container of a job ended: from its service, or from the job history once that is dropped."""
    try:
        listed = containers(client, job)
    except NotFoundOrNotAuthorizedError:
        rows, _ = client.history(statements.get_job_instances(job))
        try:
            past = past_containers(rows[0]["instance_statuses"]) if rows else []
        except UnreadableError as error:
            logger.warning("Could not read the containers of job %s from the job history: %s", job, error)
            past = []
        if not past:
            raise
        return past
    return [
        ContainerEnd(
            instance=int(container.instance_id),
            name=container.name,
            status=container.status,
            message=container.message,
            exit_code=int(container.last_exit_code) if container.last_exit_code else None,
        )
        for container in listed
    ]


def last_events(client: MLJobClient, job: QualifiedName) -> list[ContainerEnd] | None:
    """Return the last platform event of each container of a job, for where its containers are not listed.

    The query needs a warehouse, and platform events are recorded only where LOG_EVENT_LEVEL says so.

    :returns: ``None`` if Snowflake refuses to show the events.
    """
    store = client.log_store
    statement = statements.spcs_get_events(job, start=store.begin_of(job), most=_MAX_EVENTS)
    rows, refusal = client.connection.rows_or_refusal(statement)
    if refusal:
        return None
    latest: dict[tuple[int, str], ContainerEnd] = {}
    for row in rows:
        instance, name = _whole(row["instance_id"]) or 0, str(row["container_name"])
        status, message = str(row["status"] or ""), str(row["message"] or "")
        latest.setdefault((instance, name), ContainerEnd(instance=instance, name=name, status=status, message=message))
    return [latest[key] for key in sorted(latest)]


def started(client: MLJobClient, job: QualifiedName, clock: Callable[[], float]) -> float | None:
    """Return when a running job started, by the caller's clock; ``None`` if Snowflake doesn't say.

    Snowflake gives the time by its own clock, or by a node's, so the difference to the caller's clock is measured. A
    start before the job's creation doesn't count.
    """
    starts = [container.started for container in _own_containers(client, job) if container.started]
    if not starts:
        return None
    created = _moment(client.describe(job).get("created_on"))
    return _by_the_clock(client, clock, max(min(starts), created or 0.0))


def ended(client: MLJobClient, job: QualifiedName, clock: Callable[[], float]) -> float | None:
    """Return when a job ended, by the caller's clock; ``None`` if the job history doesn't say."""
    rows, _ = client.history(statements.get_job_history(job))
    moment = _moment(rows[0]["completed_time"]) if rows else None
    return None if moment is None else _by_the_clock(client, clock, moment)


def _by_the_clock(client: MLJobClient, clock: Callable[[], float], moment: float) -> float | None:
    """Convert a time of Snowflake's to another clock; ``None`` if the two can't be compared."""
    before = clock()
    rows = client.connection.rows(statements.current_timestamp())
    ours, theirs = (before + clock()) / 2, _moment(rows[0]["moment"]) if rows else None
    return None if theirs is None else moment - theirs + ours


def endpoints(client: MLJobClient, job: QualifiedName) -> dict[str, str]:
    """Return the URLs of a running job's public endpoints, by name; empty while one is being provisioned."""
    return {
        str(row["name"]): f"https://{row['ingress_url']}" if _ADDRESS.fullmatch(str(row["ingress_url"])) else ""
        for row in client.connection.rows(statements.show_endpoints(job))
        if str(row["is_public"]).lower() == "true"
    }


def layout(client: MLJobClient, job: QualifiedName) -> Layout:
    """Return a job's containers and environment, from its specification if the role may read it."""
    row = client.describe(job)
    description = _description(job, row)
    if description is None:
        listed = ((int(container.instance_id), container.name) for container in _own_containers(client, job))
        return Layout(containers=tuple(listed), is_specified=False)
    instances = range(int(row["target_instances"] or 1))
    return Layout(
        containers=tuple((instance, name) for instance in instances for name in description.containers),
        environment=given_environment(description.environment),
    )


def environment(client: MLJobClient, job: QualifiedName) -> dict[str, str]:
    """Return the variables of a job's containers; none if the job is gone, or its specification can't be read.

    A job that isn't shown at first is looked for again: the masking of its secrets depends on this.
    """
    row = client.look_for(job, patience=0.0, needs_row=True).row
    description = None if row is None else _description(job, row)
    return {} if description is None else given_environment(description.environment)


def sources(
    client: MLJobClient, job: QualifiedName, instance: int | None = None, container: str | None = None
) -> list[Source]:
    """Return the logs of a job, of one instance or of containers of one name, labelled if there are several."""
    try:
        logs = labelled(job, layout(client, job).containers)
    except NotFoundOrNotAuthorizedError:
        logs, _ = _listed_sources(client, job)
    return [each for each in logs if instance in {None, each.instance} and container in {None, each.container}]


def log(client: MLJobClient, job: QualifiedName, instance: int | None = 0) -> str:
    """Return the log of the main container of one instance; of a log that is cut, a line at the top says so.

    :param instance: ``None`` for all containers of all instances, each line with its origin.
    """
    if instance is not None:
        return read_log(client.log_store, Source(job, instance, CONTAINER))
    return read_logs(client.log_store, _listed_sources(client, job)[0])


def rest_of_log(client: MLJobClient, job: QualifiedName, printed: Printed, *, patience: float = 0.0) -> WholeLog:
    """Return the log of a job that is over, with the lines that the task's log still lacks.

    :param patience: how many seconds to wait for lines that have left the nodes and aren't in the event table yet.
    """
    logs, started = _listed_sources(client, job)
    wait = LogPatience(seconds=patience, started=started, exports=lambda: _exports_log(client, job))
    return read_rest(client.log_store, logs, printed, wait)


def _exports_log(client: MLJobClient, job: QualifiedName) -> bool:
    """Return whether the specification lets the event table have all of a log; true if it can't be read."""
    try:
        description = _description(job, client.describe(job))
    except NotFoundOrNotAuthorizedError:
        return True
    return description is None or description.log_level in {"", "INFO"}


def _listed_sources(client: MLJobClient, job: QualifiedName) -> tuple[list[Source], frozenset[tuple[int, str]]]:
    """Return the logs of a job's containers, and which of these have started."""
    try:
        listed = _own_containers(client, job)
    except NotFoundOrNotAuthorizedError:
        # The job is dropped, but the event table may still have the log of its main container.
        return [Source(job, 0, CONTAINER)], frozenset()
    started = frozenset((int(each.instance_id), each.name) for each in listed if each.started)
    return labelled(job, [(int(each.instance_id), each.name) for each in listed]), started


def _description(job: QualifiedName, row: Mapping[str, Any]) -> Description | None:
    """Read a job's specification; ``None`` if the role may not see it, or if it can't be read."""
    try:
        return Description.parse(row.get("spec"))
    except UnreadableError as error:
        logger.debug("Could not read the specification of job %s: %s", job, error)
        return None


def _whole(value: object) -> int | None:
    """Read a whole number that Snowflake writes as text; ``None`` for anything else."""
    try:
        return int(str(value))
    except ValueError:
        return None


def _moment(value: object) -> float | None:
    """Read a time as seconds since the epoch, UTC unless it has a zone; ``None`` for anything else."""
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
