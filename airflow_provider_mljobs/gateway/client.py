"""The verbs of a job: submit, status, logs, result, cancel, drop."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import (
    GatewayError,
    InvalidJobSpecError,
    JobNotFoundError,
    LoginRefusedError,
    NotFoundOrNotAuthorizedError,
    SnowflakeUnavailableError,
)
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.gateway.connection import Connection
from airflow_provider_mljobs.gateway.descriptions import directory_of
from airflow_provider_mljobs.gateway.joblogs import LogStore
from airflow_provider_mljobs.gateway.payloads import DEFAULT_GRACE_SECONDS, Payloads, job_of
from airflow_provider_mljobs.gateway.runtimes import Runtimes
from airflow_provider_mljobs.gateway.submission import Submission
from airflow_provider_mljobs.jobs.names import ANYWHERE, Identifier, Namespace, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.outcome.sightings import MAX_UNSEEN_SECONDS, Sighting, in_history, pauses
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.launcher.contract import INPUT_FILES, OWN_FILES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from snowflake.connector import SnowflakeConnection

    from airflow_provider_mljobs.jobs.payload.archive import Payload
    from airflow_provider_mljobs.jobs.payload.sources import StageCopy
    from airflow_provider_mljobs.jobs.spec.job import JobSpec
    from airflow_provider_mljobs.jobs.spec.rendering import SpecificationSource
    from airflow_provider_mljobs.jobs.values.arguments import Arguments

logger = logging.getLogger(__name__)
_ENDING = frozenset({JobStatus.CANCELLING, JobStatus.DELETING})
# Instead of one, Snowflake writes that provisioning is in progress.
_HOST = re.compile(r"[\w.-]+\.[\w.-]+(?::\d+)?(?:/\S*)?")


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
        self.runtimes = Runtimes(self.connection)
        self.log_store = LogStore(self.connection)
        self.visibility_lag = visibility_lag

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
        # A job that can't run should not leave a payload behind.
        if spec.managed:
            self.runtimes.image(spec)
        else:
            self.runtimes.of(spec)
        return self.payloads.upload(stage, payload, spec.name.name, patience=patience)

    def keep(self, spec: JobSpec, payload: Payload) -> StagePath:
        """Upload a payload that stays on the stage until someone removes it; returns its directory."""
        return self.payloads.keep(_stage_of(spec), payload)

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
        return self._submission(spec).run_payload(payload, arguments, copies)

    def submit_specification(self, spec: JobSpec, source: SpecificationSource) -> None:
        """Start a job that a specification of the user's own describes; as :meth:`submit`."""
        self._submission(spec).run_specification(source)

    def _submission(self, spec: JobSpec) -> Submission:
        return Submission(
            connection=self.connection,
            payloads=self.payloads,
            runtimes=self.runtimes,
            spec=spec,
            describe=lambda job: self.look_for(job, needs_row=True).row,
        )

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
        rows, refusal = self.history(statements.get_job_history(job))
        if not rows:
            return Sighting(why=f"{why} {refusal}" if refusal else f"{why} The job history doesn't have it.")
        return Sighting(status=in_history(rows[0]), why=why)

    def history(self, statement: str) -> tuple[list[dict[str, Any]], str]:
        """Query the job history; returns its rows, or none and the reason why it can't be read.

        Accounts that haven't enabled it refuse the query, and so do sessions without a warehouse.
        """
        try:
            return self.connection.rows(statement), ""
        except (SnowflakeUnavailableError, LoginRefusedError):
            raise
        except GatewayError as error:
            logger.debug("Could not read the job history: %s", error)
            return [], f"The job history can't be read: {error.message}"

    def describe(self, job: QualifiedName) -> dict[str, Any]:
        """Return what DESCRIBE SERVICE says of a job.

        :raises NotFoundOrNotAuthorizedError: if there is no such job, or not any more.
        """
        rows = self.connection.rows(statements.describe_service(job))
        if not rows:
            raise NotFoundOrNotAuthorizedError(f"Snowflake has described no job {job}.")
        return rows[0]

    def directory(self, job: QualifiedName) -> StagePath:
        """Return a job's own directory on the stage, as its specification says; also for a job of Snowflake's client.

        See :func:`~airflow_provider_mljobs.gateway.descriptions.directory_of`.

        :raises ResultError: if the job has no such directory.
        """
        return directory_of(job, self.describe(job))

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
        self.payloads.remove_own(directory.parent)

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
        rows, _ = self.history(statements.get_jobs_called(schema, beginning))
        names = (str(Identifier(row["name"])) for row in rows if not in_history(row).is_terminal)
        return tuple(QualifiedName.parse(name, "job", schema) for name in names)

    def newest(self, schema: Namespace, pattern: str) -> QualifiedName | None:
        """Return the job that was made last of those whose names fit a pattern of LIKE; ``None`` if none does.

        :param schema: as for :meth:`list`.
        """
        fits = re.compile(re.sub(r"\\.|.", _as_regular_expression, pattern, flags=re.DOTALL), re.IGNORECASE | re.DOTALL)
        rows = [row for row in self.list(schema, pattern) if fits.fullmatch(row["name"])]
        return job_of(max(rows, key=lambda row: row["created_on"])) if rows else None


def _stage_of(spec: JobSpec) -> StagePath:
    """Return where a job's payload goes."""
    if spec.stage is None:
        raise InvalidJobSpecError(f"Job {spec.name} has a payload but no stage_name to put it on.")
    return spec.stage


def _as_regular_expression(match: re.Match[str]) -> str:
    """Translate one character of a pattern of LIKE, or an escaped one."""
    return {"%": ".*", "_": "."}.get(match[0]) or re.escape(match[0][-1])
