"""The verbs of a job: submit, status, logs, result, cancel, drop."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import (
    GatewayError,
    InvalidJobSpecError,
    JobAlreadyExistsError,
    JobNotFoundError,
    LoginRefusedError,
    MLJobError,
    NotFoundOrNotAuthorizedError,
    SnowflakeUnavailableError,
    UnreadableError,
)
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.gateway.connection import Connection
from airflow_provider_mljobs.gateway.descriptions import directory_of
from airflow_provider_mljobs.gateway.downloads import artifacts, read_instances, read_result
from airflow_provider_mljobs.gateway.joblogs import LogStore, Source, read_log, read_logs, read_rest, sources
from airflow_provider_mljobs.gateway.payloads import DEFAULT_GRACE_SECONDS, Payloads, job_of
from airflow_provider_mljobs.gateway.runtimes import Runtimes
from airflow_provider_mljobs.gateway.submission import Submission, explain
from airflow_provider_mljobs.gateway.usage import Usage, read_usage
from airflow_provider_mljobs.jobs.names import ANYWHERE, Identifier, Namespace, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.outcome.failures import past_containers
from airflow_provider_mljobs.jobs.outcome.results import DEFAULT_MAX_XCOM_BYTES
from airflow_provider_mljobs.jobs.outcome.sightings import MAX_UNSEEN_SECONDS, Sighting, in_history, pauses
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.spec.description import Description
from airflow_provider_mljobs.jobs.spec.job import CONTAINER
from airflow_provider_mljobs.jobs.spec.rendering import given_environment, result_directory
from airflow_provider_mljobs.launcher.contract import INPUT_FILES, OWN_FILES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from snowflake.connector import SnowflakeConnection

    from airflow_provider_mljobs.gateway.joblogs import Printed, WholeLog
    from airflow_provider_mljobs.jobs.outcome.failures import ContainerEnd
    from airflow_provider_mljobs.jobs.outcome.results import InstanceResult, JobResult
    from airflow_provider_mljobs.jobs.payload.archive import Payload
    from airflow_provider_mljobs.jobs.payload.sources import StageCopy
    from airflow_provider_mljobs.jobs.spec.job import JobSpec
    from airflow_provider_mljobs.jobs.spec.rendering import SpecificationSource
    from airflow_provider_mljobs.jobs.values.arguments import Arguments

logger = logging.getLogger(__name__)
_ENDING = frozenset({JobStatus.CANCELLING, JobStatus.DELETING})
# Instead of one, Snowflake writes that provisioning is in progress.
_HOST = re.compile(r"[\w.-]+\.[\w.-]+(?::\d+)?(?:/\S*)?")


@dataclass(frozen=True, kw_only=True)
class Container:
    """One container of one instance, as SHOW SERVICE CONTAINERS tells.

    :param started: since when it runs, or ran, in seconds since the epoch.
    """

    instance_id: str
    name: str
    status: str
    message: str
    last_exit_code: str
    started: float | None = None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a job consists of, as its specification says.

    :param containers: pairs of instance and container.
    :param environment: the variables of its containers; empty if the role may not read the specification.
    :param is_specified: whether the specification was to be read; otherwise these are the containers that there are.
    """

    containers: tuple[tuple[int, str], ...]
    environment: dict[str, str]
    is_specified: bool


class MLJobClient:
    """Submits jobs and looks after them, over one kept-open connection.

    :param connect: opens a connection.
    :param visibility_lag: for how many seconds a result may be missing after its job has ended: stage volumes upload
        in the background.
    :param payload_grace: for how many seconds a payload may be taken to be in use; 0 shares none. See
        :class:`~airflow_provider_mljobs.gateway.payloads.Payloads`.
    """

    def __init__(
        self,
        connect: Callable[[], SnowflakeConnection],
        *,
        visibility_lag: float = 10.0,
        payload_grace: float = DEFAULT_GRACE_SECONDS,
    ) -> None:
        self.connection = Connection(connect)
        self.payloads = Payloads(self.connection, grace=payload_grace)
        self._runtimes = Runtimes(self.connection)
        self.log_store = LogStore(self.connection)
        self._visibility_lag = visibility_lag

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def upload(self, spec: JobSpec, payload: Payload, *, patience: float = 0.0) -> StagePath:
        """Return the directory on the stage in which a job's payload lies; upload it unless it is there.

        :param patience: for how many seconds to leave the upload to a task of the same code that may have begun it.
        :raises NotFoundOrNotAuthorizedError: naming the pool or stage, and the GRANT that may be missing.
        :raises InvalidJobSpecError: if the job has no stage, or its pool is too small for it.
        """
        stage = _stage_of(spec)
        # What can be known to be wrong should not leave a payload behind.
        if spec.managed:
            self._runtimes.image(spec)
        else:
            self._runtimes.of(spec)
        with self._explaining(stage):
            return self.payloads.upload(stage, payload, spec.name.name, patience=patience)

    def keep(self, spec: JobSpec, payload: Payload) -> StagePath:
        """Upload a payload that stays on the stage until somebody removes it; returns its directory."""
        stage = _stage_of(spec)
        with self._explaining(stage):
            return self.payloads.keep(stage, payload)

    def image(self, spec: JobSpec) -> str:
        """Return the image that runs a job."""
        return self._runtimes.image(spec)

    def submit(
        self, spec: JobSpec, payload: StagePath, arguments: Arguments, copies: Sequence[StageCopy] = ()
    ) -> StagePath:
        """Start a job without waiting for it, and return its own directory on the stage.

        If a job of that very name and comment exists already, an earlier call of this submit has made it, and all is
        well. What Snowflake refuses leaves nothing on the stage but the payload, which others may share.

        :param payload: the directory in which the payload lies: see :meth:`upload`.
        :param copies: what Snowflake copies into the job's own directory first.
        :raises NotFoundOrNotAuthorizedError: naming what isn't there, and the GRANT that may be missing.
        :raises JobAlreadyExistsError: if somebody else's job has the name.
        :raises SnowflakeUnavailableError: if the job may have started, or not; the message says how to find out.
        """
        try:
            self._submission(spec).run_payload(payload, arguments, copies)
        except (SnowflakeUnavailableError, JobAlreadyExistsError):
            # The job may have started, or the files may be another job's: they stay.
            raise
        except MLJobError:
            try:
                self._remove_payload(payload)
            except GatewayError as error:
                # What went wrong before is the error to tell.
                logger.warning("Could not remove the payload of %s; left: %s. Reason: %s", spec.name, payload, error)
            raise
        return result_directory(spec, payload)

    def submit_specification(self, spec: JobSpec, source: SpecificationSource) -> None:
        """Start a job that a specification of the user's own describes; as :meth:`submit`."""
        self._submission(spec).run_specification(source)

    def _submission(self, spec: JobSpec) -> Submission:
        return Submission(
            connection=self.connection, runtimes=self._runtimes, spec=spec, describe=self._describe_patiently
        )

    def _describe_patiently(self, job: QualifiedName) -> Mapping[str, Any] | None:
        """Describe a job whose name is taken, so there is one, whatever a single look shows."""
        return self.look_for(job, needs_row=True).row

    def look(self, job: QualifiedName) -> Sighting:
        """Look once at a job: at its service, and if that isn't shown, at the job history.

        A job that neither shows may live. Before anything is done about that, look again: :meth:`look_for`.

        :raises SnowflakeUnavailableError: if Snowflake can't be asked; then nothing is known.
        """
        try:
            row = self.describe(job)
        except NotFoundOrNotAuthorizedError as error:
            return self._look_in_history(job, error.message)
        return Sighting(status=JobStatus(str(row.get("status"))), row=row)

    def look_for(
        self, job: QualifiedName, *, patience: float = MAX_UNSEEN_SECONDS, needs_row: bool = False
    ) -> Sighting:
        """Look at a job until something shows it, at most for so many seconds.

        Blocks. What comes back unseen was not to be seen by repeated looks over all that time.

        :param needs_row: whether only DESCRIBE SERVICE counts, because the job is known to be there.
        """
        sighting = self.look(job)
        for pause in pauses(patience):
            if sighting.row is not None or (not sighting.is_unseen and not needs_row):
                break
            time.sleep(pause)
            sighting = self.look(job)
        return sighting

    def status(self, job: QualifiedName) -> JobStatus:
        """Return where the job stands.

        :raises JobNotFoundError: if neither the service nor the job history shows it now.
        """
        sighting = self.look(job)
        if sighting.status is None:
            raise JobNotFoundError(f"Job {job} does not exist or not authorized. {sighting.why}")
        return sighting.status

    def _look_in_history(self, job: QualifiedName, why: str) -> Sighting:
        try:
            rows = self.connection.rows(statements.get_job_history(job))
        except (SnowflakeUnavailableError, LoginRefusedError):
            raise
        except GatewayError as error:
            # E.g. it isn't enabled for this account, or the session has no warehouse.
            return Sighting(why=f"{why} The job history can't be asked: {error.message}")
        if not rows:
            return Sighting(why=f"{why} The job history doesn't have it.")
        return Sighting(status=in_history(rows[0]), why=why)

    def _history(self, statement: str) -> list[dict[str, Any]]:
        """Ask the job history; no rows if it can't be asked, as in :meth:`_look_in_history`."""
        try:
            return self.connection.rows(statement)
        except (SnowflakeUnavailableError, LoginRefusedError):
            raise
        except GatewayError as error:
            logger.debug("The job history can't be asked: %s", error)
            return []

    def containers(self, job: QualifiedName) -> list[Container]:
        """Return what the platform says of each container."""
        return [
            Container(
                instance_id=str(_whole(row.get("instance_id")) or 0),
                name=str(row["container_name"]),
                status=str(row.get("status") or ""),
                message=str(row.get("message") or ""),
                last_exit_code="" if (code := _whole(row.get("last_exit_code"))) is None else str(code),
                started=_moment(row.get("start_time")),
            )
            for row in self.connection.rows(statements.show_service_containers(job))
            # Without instances there is one row of nothing.
            if row["container_name"]
        ]

    def started(self, job: QualifiedName, clock: Callable[[], float]) -> float | None:
        """Return when a running job started, by the caller's clock; ``None`` if Snowflake doesn't say it.

        The time that Snowflake gives is by its clock, or by a node's: the difference to the caller's is measured, and a
        start before the job was made is none.

        :param clock: returns seconds since the epoch.
        """
        starts = [container.started for container in self.containers(job) if container.started]
        if not starts:
            return None
        created = _moment(self.describe(job).get("created_on"))
        return self._by_the_clock(clock, max(min(starts), created or 0.0))

    def ended(self, job: QualifiedName, clock: Callable[[], float]) -> float | None:
        """Return when a job has ended, by the caller's clock; ``None`` if the job history doesn't say it.

        :param clock: as for :meth:`started`.
        """
        rows = self._history(statements.get_job_history(job))
        ended = _moment(rows[0]["completed_time"]) if rows else None
        return None if ended is None else self._by_the_clock(clock, ended)

    def _by_the_clock(self, clock: Callable[[], float], moment: float) -> float | None:
        """Return a time of Snowflake's by another clock; ``None`` if they can't be compared."""
        before = clock()
        rows = self.connection.rows(statements.current_timestamp())
        ours, theirs = (before + clock()) / 2, _moment(rows[0]["moment"]) if rows else None
        return None if theirs is None else moment - theirs + ours

    def endpoints(self, job: QualifiedName) -> dict[str, str]:
        """Return the addresses of a running job's public endpoints, by name; empty while one is being provisioned."""
        return {
            str(row["name"]): f"https://{row['ingress_url']}" if _HOST.fullmatch(str(row["ingress_url"])) else ""
            for row in self.connection.rows(statements.show_endpoints(job))
            if str(row["is_public"]).lower() == "true"
        }

    def past_containers(self, job: QualifiedName) -> list[ContainerEnd]:
        """Return what the job history says of each container of a job that may have been dropped; maybe nothing."""
        rows = self._history(statements.get_job_instances(job))
        try:
            return past_containers(rows[0]["instance_statuses"]) if rows else []
        except UnreadableError as error:
            logger.warning("What the job history says of the containers of %s can't be read: %s", job, error)
            return []

    def layout(self, job: QualifiedName) -> Layout:
        """Return what a job consists of."""
        row = self.describe(job)
        description = _description(job, row)
        if description is None:
            found = ((int(container.instance_id), container.name) for container in self.containers(job))
            return Layout(containers=tuple(found), environment={}, is_specified=False)
        instances = range(int(row["target_instances"] or 1))
        return Layout(
            containers=tuple((instance, name) for instance in instances for name in description.containers),
            environment=given_environment(description.environment),
            is_specified=True,
        )

    def environment(self, job: QualifiedName) -> dict[str, str]:
        """Return the variables of a job's containers; none if the job is gone, or its specification can't be read.

        One look that doesn't show the job is followed by others: whether its secrets are masked depends on this.
        """
        row = self.look_for(job, patience=0.0, needs_row=True).row
        description = None if row is None else _description(job, row)
        return {} if description is None else given_environment(description.environment)

    def describe(self, job: QualifiedName) -> dict[str, Any]:
        """Return what DESCRIBE SERVICE says of a job.

        :raises NotFoundOrNotAuthorizedError: if there is no such job, or not any more.
        """
        rows = self.connection.rows(statements.describe_service(job))
        if not rows:
            raise NotFoundOrNotAuthorizedError(f"Snowflake has described no job {job}.")
        return rows[0]

    def sources(self, job: QualifiedName, instance: int | None = None, container: str | None = None) -> list[Source]:
        """Return where a job prints, with what the lines of each begin with if there are several.

        :param instance: only this instance.
        :param container: only containers of this name.
        """
        try:
            found = sources(job, self.layout(job).containers)
        except NotFoundOrNotAuthorizedError:
            found = self._sources(job)
        return [each for each in found if instance in {None, each.instance} and container in {None, each.container}]

    def read(self, chosen: Sequence[Source]) -> str:
        """Return the logs of some containers."""
        return read_logs(self.log_store, chosen)

    def logs(self, job: QualifiedName, instance: int | None = 0, container: str = CONTAINER) -> str:
        """Return the log of one container, or of all; as much as is to be had, a missing beginning is announced.

        :param instance: which instance; ``None`` for all containers of all instances, each line with its origin.
        """
        if instance is not None:
            return read_log(self.log_store, Source(job, instance, container))
        return read_logs(self.log_store, self._sources(job))

    def rest_of_log(self, job: QualifiedName, printed: Printed) -> WholeLog:
        """Return the log of a job that is over, and of it what the task's log doesn't have yet."""
        return read_rest(self.log_store, self._sources(job), printed)

    def _sources(self, job: QualifiedName) -> list[Source]:
        try:
            found = self.containers(job)
        except NotFoundOrNotAuthorizedError:
            # Dropped: the event table may know what its first container printed.
            return [Source(job, 0, CONTAINER)]
        return sources(job, [(int(each.instance_id), each.name) for each in found])

    def usage(self, job: QualifiedName, since: datetime | None = None) -> Usage:
        """Return what the containers of a job use, or have used; or why Snowflake doesn't tell.

        :param since: not before the job was submitted, if that is known: it saves Snowflake reading.
        """
        found = read_usage(self.connection, job, since)
        if found.series or found.reason:
            return found
        try:
            return found.explained(Description.parse(self.describe(job)["spec"]))
        except (NotFoundOrNotAuthorizedError, UnreadableError):
            return found.explained(None)

    def directory(self, job: QualifiedName) -> StagePath:
        """Return a job's own directory on the stage, as its specification says; also for a job of Snowflake's client.

        See :func:`~airflow_provider_mljobs.gateway.descriptions.directory_of`.

        :raises ResultError: if the job has no such directory.
        """
        return directory_of(job, self.describe(job))

    def result(
        self,
        job: QualifiedName,
        directory: StagePath | None = None,
        *,
        patient: bool = True,
        max_bytes: int = DEFAULT_MAX_XCOM_BYTES,
    ) -> JobResult | None:
        """Return what the launcher wrote about the run, or ``None`` if it wrote nothing.

        :param directory: the job's own directory on the stage; by default the job is asked for it.
        :param patient: wait for a result that may still be on its way to the stage.
        :param max_bytes: a larger value stays on the stage, and the result has a reference to it.
        :raises ResultError: if the file is no result.
        """
        place = directory or self.directory(job)
        patience = self._visibility_lag if patient else 0.0
        return read_result(self.connection, place, max_bytes=max_bytes, patience=patience)

    def instances(
        self, directory: StagePath, count: int, *, patient: bool = True, max_bytes: int = DEFAULT_MAX_XCOM_BYTES
    ) -> tuple[InstanceResult, ...]:
        """Return how each instance of a job of several ended.

        :param patient: as for :meth:`result`.
        :param max_bytes: as for :meth:`result`, of each instance.
        """
        patience = self._visibility_lag if patient else 0.0
        return read_instances(self.connection, directory, count, patience=patience, max_bytes=max_bytes)

    def artifacts(self, directory: StagePath, result: JobResult | None) -> list[dict[str, Any]]:
        """Return path, bytes and md5 of what a job has saved in its own directory.

        :param result: says what the job itself has seen there, which may still be on its way to the stage.
        """
        expected = () if result is None else result.artifacts
        return artifacts(self.connection, directory, expected, patience=self._visibility_lag)

    def cancel(self, job: QualifiedName) -> Sighting:
        """Stop the job unless it was seen to be over, or to be ending.

        :returns: what was seen of it before that. A job that was not seen, and that Snowflake doesn't cancel, may live.
        """
        sighting = self.look(job)
        if sighting.has_ended or sighting.status in _ENDING:
            return sighting
        try:
            self.connection.rows(statements.cancel_job(job))
        except NotFoundOrNotAuthorizedError as error:
            return Sighting(why=error.message)
        return sighting if sighting.lives else Sighting(status=JobStatus.CANCELLING, why=sighting.why)

    def drop(self, job: QualifiedName) -> None:
        """Drop the job's service; its logs go with it, except what an event table keeps."""
        self.connection.rows(statements.drop_service(job))

    def remove(self, path: StagePath) -> None:
        """Remove a directory of the stage."""
        self.connection.rows(statements.remove(path / ""), most=0)

    def clean_up(self, job: QualifiedName, directory: StagePath | None, *, result: bool = True) -> None:
        """Remove what a job doesn't need any more, and drop it; what the payload itself has saved stays.

        :param directory: the job's own directory on the stage; ``None`` if it has none.
        :param result: also remove the result file, because it has been taken.
        """
        # The job last: as long as it is there, its COMMENT tells the collector what is left.
        try:
            if directory is not None:
                self._remove_own_files(job, directory, OWN_FILES if result else INPUT_FILES)
        except NotFoundOrNotAuthorizedError:
            # A stage that is gone: the collector couldn't remove them, either.
            self.drop(job)
            raise
        self.drop(job)

    def _remove_own_files(self, job: QualifiedName, directory: StagePath, names: Collection[str]) -> None:
        own = f".*/{re.escape(job.name.value)}/({'|'.join(names)}).*"
        self.connection.rows(statements.remove(directory / "", own), most=0)
        self._remove_payload(directory.parent)

    def statuses(self, schema: Namespace, prefix: str, *, most: int = statements.MOST_ROWS) -> dict[str, JobStatus]:
        """Return where the jobs of a schema stand, by name.

        :param prefix: how the names begin.
        :param most: how many rows to ask for at once.
        """
        statuses: dict[str, JobStatus] = {}
        after: str | None = None
        while True:
            statement = statements.show_job_services(schema, prefix, limit=most, after=after)
            page = self.connection.columns(statement, "name", "status")
            statuses.update((str(name), JobStatus(status)) for name, status in page)
            last = str(page[-1][0]) if page else after
            if len(page) < most or last == after:
                return statuses
            after = last

    def list(self, schema: Namespace = ANYWHERE, prefix: str = "MLJOB_") -> list[dict[str, Any]]:
        """Return the rows of SHOW JOB SERVICES.

        :param schema: the schema to look in; the whole account by default.
        :param prefix: how the names begin.
        """
        return self.connection.rows(statements.show_job_services(schema, prefix))

    def living(self, schema: Namespace, beginning: str) -> tuple[QualifiedName, ...]:
        """Return the jobs of a schema that the job history shows running or waiting; none if it can't be asked.

        :param beginning: how their names begin.
        """
        rows = self._history(statements.get_jobs_called(schema, beginning))
        names = (str(Identifier(row["name"])) for row in rows if not in_history(row).is_terminal)
        return tuple(QualifiedName.parse(name, "job", schema) for name in names)

    def newest(self, schema: Namespace, pattern: str) -> QualifiedName | None:
        """Return the job that was made last of those whose names fit a pattern of LIKE; ``None`` if none does.

        :param schema: as for :meth:`list`.
        """
        fits = re.compile(re.sub(r"\\.|.", _as_regular_expression, pattern, flags=re.DOTALL), re.IGNORECASE | re.DOTALL)
        rows = [row for row in self.list(schema, pattern) if fits.fullmatch(row["name"])]
        return job_of(max(rows, key=lambda row: row["created_on"])) if rows else None

    @contextlib.contextmanager
    def _explaining(self, path: StagePath) -> Iterator[None]:
        """Say what to do about a stage that isn't there."""
        try:
            yield
        except NotFoundOrNotAuthorizedError as error:
            stage, role = path.stage, self.connection.role
            raise explain(
                error,
                f"Stage {stage} does not exist or is not authorized for role {role}. Create it with "
                f"CREATE STAGE {stage} ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE').",
                f"GRANT READ, WRITE ON STAGE {stage} TO ROLE {role}",
                f"GRANT USAGE ON SCHEMA {stage.namespace} TO ROLE {role}",
            ) from error

    def _remove_payload(self, payload: StagePath) -> None:
        """Remove a payload that is one job's alone; shared ones go by their age."""
        if not self.payloads.is_shared(payload):
            self.payloads.remove(payload)


def _description(job: QualifiedName, row: Mapping[str, Any]) -> Description | None:
    """Read a job's specification; ``None`` if the role isn't shown it, or if it can't be read."""
    try:
        return Description.parse(row["spec"])
    except UnreadableError as error:
        logger.debug("The specification of job %s can't be read: %s", job, error)
        return None


def _stage_of(spec: JobSpec) -> StagePath:
    """Return where a job's payload goes."""
    if spec.stage is None:
        raise InvalidJobSpecError(f"Job {spec.name} has a payload but no stage_name to put it on.")
    return spec.stage


def _whole(value: object) -> int | None:
    """Read a number that Snowflake writes as text; ``None`` for anything else."""
    try:
        return int(str(value))
    except ValueError:
        return None


def _moment(value: object) -> float | None:
    """Read a time as seconds since the epoch, UTC where it doesn't say its zone; ``None`` for anything else."""
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _as_regular_expression(match: re.Match[str]) -> str:
    """Translate one character of a pattern of LIKE, or an escaped one."""
    return {"%": ".*", "_": "."}.get(match[0]) or re.escape(match[0][-1])
