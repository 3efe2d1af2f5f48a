"""The verbs of a job: upload, submit, look, list, cancel, drop."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import (
    InvalidJobSpecError,
    JobNotFoundError,
    NotFoundOrNotAuthorizedError,
)
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.gateway.connection import Connection
from airflow_provider_mljobs.gateway.descriptions import directory_of
from airflow_provider_mljobs.gateway.log_store import LogStore
from airflow_provider_mljobs.gateway.payloads import DEFAULT_GRACE_SECONDS, Payloads, job_of
from airflow_provider_mljobs.gateway.refusals import refused, with_grant
from airflow_provider_mljobs.gateway.runtimes import Runtimes
from airflow_provider_mljobs.gateway.submission import Submission
from airflow_provider_mljobs.jobs.names import ANYWHERE, Identifier, Namespace, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.outcome.sightings import MAX_UNSEEN_SECONDS, Sighting, in_history, pauses
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.spec.rendering import specification
from airflow_provider_mljobs.jobs.values.arguments import Arguments
from airflow_provider_mljobs.launcher.contract import INPUT_FILES, OWN_FILES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from snowflake.connector import SnowflakeConnection

    from airflow_provider_mljobs.jobs.payload.archive import Payload
    from airflow_provider_mljobs.jobs.payload.sources import StageCopy
    from airflow_provider_mljobs.jobs.spec.job import JobSpec
    from airflow_provider_mljobs.jobs.spec.rendering import SpecificationSource

_ENDING = frozenset({JobStatus.CANCELLING, JobStatus.DELETING})
_CANCEL_LOOK_SECONDS = 1.0


class MLJobClient:
    """Submits, watches and ends jobs over one connection, which stays open.

    :param connect: opens a connection.
    :param visibility_lag: seconds to wait for a result after its job has ended: stage volumes upload in the background.
    :param payload_grace: seconds during which a payload counts as in use; 0 shares none. See
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

    def upload(
        self, spec: JobSpec, payload: Payload, *, pickled: Sequence[str] = (), patience: float = 0.0
    ) -> StagePath:
        """Upload a job's payload unless the stage has it; returns its directory.

        :param pickled: the arguments that are pickled: see :attr:`.Arguments.pickled`.
        :param patience: seconds to leave the upload to another task with the same code.
        :raises NotFoundOrNotAuthorizedError: with the pool or stage, and the GRANT that may be missing.
        :raises InvalidJobSpecError: if the job has no stage, or its pool or a node is too small for it.
        """
        stage = _stage_of(spec)
        # A job that can't run must not leave a payload behind.
        try:
            if spec.managed:
                self.runtimes.image(spec)
            else:
                plan = specification(spec, stage, Arguments.of_script(()), self.runtimes.of(spec))
                self.runtimes.check_fit(spec, plan)
        except NotFoundOrNotAuthorizedError as error:
            if error.errno is None:
                raise
            happened = f"Could not find the image for job {spec.name}."
            raise refused(error, happened, self.connection.role, (spec.compute_pool,)) from error
        self.runtimes.check_python(spec, [*payload.pickled, *pickled])
        return self.payloads.upload(stage, payload, spec.name.name, patience=patience)

    def keep(self, spec: JobSpec, payload: Payload) -> StagePath:
        """Upload a payload that no clean-up removes; returns its directory."""
        return self.payloads.keep(_stage_of(spec), payload)

    def submit(
        self, spec: JobSpec, payload: StagePath, arguments: Arguments, copies: Sequence[StageCopy] = ()
    ) -> StagePath:
        """Start a job without waiting for it; returns the job's directory on the stage.

        A job that exists already under this name and COMMENT counts as submitted: an earlier call has started it. A
        refused submit leaves nothing on the stage except a shared payload.

        :param payload: the payload's directory: see :meth:`upload`.
        :param copies: files that Snowflake first copies into the job's directory.
        :raises NotFoundOrNotAuthorizedError: with the missing object, and the GRANT that may be missing.
        :raises JobAlreadyExistsError: if another job has the name.
        :raises SnowflakeUnavailableError: if the job may have started; the message says how to check.
        """
        return self._submission(spec).run_payload(payload, arguments, copies)

    def submit_specification(self, spec: JobSpec, source: SpecificationSource) -> None:
        """Start a job from a user's service specification; see :meth:`submit`.

        :raises InvalidJobSpecError: if no node of the pool has as much as the specification requests.
        """
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
        """Look once at a job: at its service, then at the job history.

        A job that neither shows may still run. Look again with :meth:`look_for` before you act on that.

        :raises SnowflakeUnavailableError: if Snowflake can't be reached, which says nothing about the job.
        """
        try:
            row = self.describe(job)
        except NotFoundOrNotAuthorizedError as error:
            rows, refusal = self.history(statements.get_job_history(job))
            if not rows:
                why = refusal or "The job history doesn't have it."
                return Sighting(why=f"{error.message} {why}")
            return Sighting(status=in_history(rows[0]), why=error.message)
        return Sighting(status=JobStatus(str(row.get("status"))), row=row)

    def look_for(
        self, job: QualifiedName, *, patience: float = MAX_UNSEEN_SECONDS, needs_row: bool = False
    ) -> Sighting:
        """Look at a job until its service or the job history shows it. Blocks.

        :param patience: seconds after which the job is returned as unseen.
        :param needs_row: accept only DESCRIBE SERVICE, because the job is sure to exist.
        """
        return _repeated(
            lambda: self.look(job),
            patience,
            lambda sighting: sighting.row is not None or (not sighting.is_unseen and not needs_row),
        )

    def status(self, job: QualifiedName) -> JobStatus:
        """Return the status of a job.

        :raises JobNotFoundError: if neither its service nor the job history shows it.
        """
        sighting = self.look(job)
        if sighting.status is None:
            raise JobNotFoundError(f"Job {job} does not exist or not authorized. {sighting.why} {self._monitor(job)}")
        return sighting.status

    def _monitor(self, job: QualifiedName) -> str:
        """Say how this role comes to see a job of another role."""
        role = self.connection.role
        return f"If it belongs to a role other than {role}: GRANT MONITOR ON SERVICE {job} TO ROLE {role};"

    def history(self, statement: str) -> tuple[list[dict[str, Any]], str]:
        """Query the job history; returns its rows, or none and the reason why it can't be read.

        Accounts that haven't enabled it refuse the query, and so do sessions without a warehouse.
        """
        rows, refusal = self.connection.rows_or_refusal(statement)
        return rows, refusal and f"The job history can't be read: {refusal}"

    def describe(self, job: QualifiedName) -> dict[str, Any]:
        """Return the row of DESCRIBE SERVICE.

        :raises NotFoundOrNotAuthorizedError: if the job doesn't exist, or was dropped.
        """
        rows = self.connection.rows(statements.describe_service(job))
        if not rows:
            raise NotFoundOrNotAuthorizedError(f"Snowflake returned an empty description of job {job}.")
        return rows[0]

    def described(self, job: QualifiedName) -> dict[str, Any]:
        """Return the row of DESCRIBE SERVICE of a job that may belong to another role.

        :raises NotFoundOrNotAuthorizedError: with the grant that shows another role's job.
        """
        try:
            return self.describe(job)
        except NotFoundOrNotAuthorizedError as error:
            raise type(error)(f"{error.message} {self._monitor(job)}", error.errno, error.sqlstate) from error

    def directory(self, job: QualifiedName) -> StagePath:
        """Return a job's directory on the stage, from its specification; also for a job of Snowflake's client.

        :raises ResultError: if the job has no such directory.
        """
        return directory_of(job, self.describe(job))

    def cancel(self, job: QualifiedName) -> Sighting:
        """Stop a job unless it has ended, or is about to.

        :returns: the look before the cancel. A job that is unseen, and that Snowflake doesn't cancel, may still run.
        """
        sighting = self.look(job)
        if sighting.has_ended or sighting.status in _ENDING:
            return sighting
        try:
            self.connection.rows(statements.cancel_job(job))
        except NotFoundOrNotAuthorizedError as error:
            return Sighting(why=with_grant(error, self.connection.role, job))
        return sighting if sighting.lives else Sighting(status=JobStatus.CANCELLING, why=sighting.why)

    def cancel_unseen(self, job: QualifiedName, *, patience: float) -> Sighting:
        """Cancel a job unless it is over; try again while nothing shows it, since it may live nevertheless.

        :returns: the last look before the cancel. A job that is still unseen may live on.
        """
        return _repeated(lambda: self.cancel(job), patience, lambda sighting: not sighting.is_unseen)

    def cancel_and_wait(self, job: QualifiedName, *, seconds: float) -> Sighting:
        """Cancel a job and wait for its end, for a limited time; returns the last look."""
        self.cancel_unseen(job, patience=seconds)
        give_up = time.time() + seconds
        while True:
            sighting = self.look(job)
            if sighting.has_ended or time.time() >= give_up:
                return sighting
            time.sleep(_CANCEL_LOOK_SECONDS)

    def drop(self, job: QualifiedName) -> None:
        """Drop a job's service, and with it the logs that no event table keeps.

        :raises NotFoundOrNotAuthorizedError: with the owner, if that is a role that isn't granted to this one.
        """
        try:
            self.connection.rows(statements.drop_service(job))
        except NotFoundOrNotAuthorizedError as error:
            owner, role = self.describe(job)["owner"], self.connection.role
            raise type(error)(
                f"Could not drop job {job} as role {role}, because role {owner} owns it. Use a connection with role "
                f"{owner}, or: GRANT ROLE {owner} TO ROLE {role}; Snowflake says: {error.message}",
                error.errno, error.sqlstate, error.query_id,
            ) from error  # fmt: skip

    def clean_up(self, job: QualifiedName, directory: StagePath | None, *, result: bool = True) -> None:
        """Remove a job's input and drop the job; files that the payload saved stay.

        :param result: also remove the result file.
        """
        # The job comes last: its COMMENT leads the collector to any files that remain.
        try:
            if directory is not None:
                own = f".*/{re.escape(job.name.value)}/({'|'.join(OWN_FILES if result else INPUT_FILES)}).*"
                self.connection.rows(statements.remove(directory / "", own), most=0)
                self.payloads.remove_own(directory.parent)
        except NotFoundOrNotAuthorizedError:
            # The stage is gone, and its files with it.
            self.drop(job)
            raise
        self.drop(job)

    def statuses(self, schema: Namespace, prefix: str, *, most: int = statements.MAX_ROWS) -> dict[str, JobStatus]:
        """Return the statuses of a schema's jobs by name."""
        statuses: dict[str, JobStatus] = {}
        after: str | None = None
        while True:
            statement = statements.show_job_services(schema, prefix, limit=most, after=after)
            page = self.connection.fold(statement, lambda rows: [(row["name"], row["status"]) for row in rows])
            statuses.update((str(name), JobStatus(status)) for name, status in page)
            last = str(page[-1][0]) if page else after
            if len(page) < most or last == after:
                return statuses
            after = last

    def list(self, schema: Namespace = ANYWHERE, prefix: str = "MLJOB_") -> list[dict[str, Any]]:
        """Return the rows of SHOW JOB SERVICES.

        :param schema: the schema to look in; the whole account by default.
        """
        return self.connection.rows(statements.show_job_services(schema, prefix))

    def living(self, schema: Namespace, beginning: str) -> tuple[QualifiedName, ...]:
        """Return the jobs of a schema that the job history shows running or waiting; none if it can't be read."""
        rows, _ = self.history(statements.get_jobs_called(schema, beginning))
        names = (str(Identifier(row["name"])) for row in rows if not in_history(row).is_terminal)
        return tuple(QualifiedName.parse(name, "job", schema) for name in names)

    def newest(self, schema: Namespace, pattern: str) -> QualifiedName | None:
        """Return the newest job whose name fits a pattern of LIKE; ``None`` if none does."""
        fits = re.compile(re.sub(r"\\.|.", _as_regular_expression, pattern, flags=re.DOTALL), re.IGNORECASE | re.DOTALL)
        rows = [row for row in self.list(schema, pattern) if fits.fullmatch(row["name"])]
        return job_of(max(rows, key=lambda row: row["created_on"])) if rows else None


def _repeated(look: Callable[[], Sighting], patience: float, is_enough: Callable[[Sighting], bool]) -> Sighting:
    sighting = look()
    for pause in pauses(patience):
        if is_enough(sighting):
            break
        time.sleep(pause)
        sighting = look()
    return sighting


def _stage_of(spec: JobSpec) -> StagePath:
    """Return the stage for a job's payload."""
    if spec.stage is None:
        raise InvalidJobSpecError(f"Job {spec.name} has a payload but no stage for it: set stage_name.")
    return spec.stage


def _as_regular_expression(match: re.Match[str]) -> str:
    """Translate one character of a LIKE pattern, or an escaped one."""
    return {"%": ".*", "_": "."}.get(match[0]) or re.escape(match[0][-1])
