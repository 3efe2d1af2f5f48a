"""The outcome of a job: its log, its result, and the error of its task."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_mljobs.exceptions import (
    Failure,
    GatewayError,
    MissingFileError,
    MLJobError,
    MLJobFailedError,
    MLJobQueueTimeoutError,
    MLJobTimeoutError,
    ResultError,
    SnowflakeUnavailableError,
)
from airflow_provider_mljobs.gateway import inspection, statements
from airflow_provider_mljobs.gateway.downloads import artifacts, read_instances, read_result
from airflow_provider_mljobs.gateway.joblogs import Printed
from airflow_provider_mljobs.jobs.logs import text
from airflow_provider_mljobs.jobs.outcome.failures import (
    ENDED_FROM_OUTSIDE,
    KINDS,
    ContainerEnd,
    Diagnosis,
    described,
    diagnose,
    diagnose_wait,
)
from airflow_provider_mljobs.jobs.outcome.maintenance import Maintenance
from airflow_provider_mljobs.jobs.outcome.reports import Reported
from airflow_provider_mljobs.jobs.outcome.results import DEFAULT_MAX_XCOM_BYTES, MAX_VALUE_DEPTH, earliest_failure
from airflow_provider_mljobs.jobs.outcome.sightings import MAX_UNSEEN_SECONDS
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.outcome.watch import Verdict
from airflow_provider_mljobs.jobs.untrusted import read_json, reading
from airflow_provider_mljobs.launcher.contract import STOPPED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Self

    from airflow_provider_mljobs.gateway.client import MLJobClient
    from airflow_provider_mljobs.jobs.names import QualifiedName, StagePath
    from airflow_provider_mljobs.jobs.outcome.results import InstanceResult, JobResult

logger = logging.getLogger(__name__)
_LAST_LINES = 20
# For a result that exists: without it the job would have run in vain.
_RESULT_SECONDS = 60.0
# The fields that the task state store has, and with them all versions of the provider.
_SAVED = ("xcoms", "return_value", "is_reference", "is_taken")
# The values of instances are nested in lists and objects of ours.
_MAX_SAVED_DEPTH = MAX_VALUE_DEPTH + 10
_CANCELLED = frozenset({JobStatus.CANCELLING, JobStatus.CANCELLED, JobStatus.DELETING, JobStatus.DELETED})
_MESSAGES = {
    Failure.LOST: "Job {job} is gone: it was dropped, or never existed.",
    Failure.CANCELLED: "Job {job} was cancelled.",
}
_UNSEEN = (
    "Job {job} is not shown any more, neither by its service nor by the job history: it was dropped, or never was "
    "there, or the role may not see it. {what}"
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a job, from the event that ends the wait for it to the XComs of its task.

    The event has these fields:

    :param directory: its own directory on the stage; ``None`` for a job without our launcher.
    :param message: the watcher's explanation of the verdict.
    :param printed: the part of its log that the task's log already has.
    :param is_overdue: whether a deadline decided for good that the job is out of time, however it ended.

    :func:`complete` reads these from Snowflake:

    :param log: the output of the job, of a long log the end; ``None`` if it could not be read, so it isn't safe yet.
    :param unseen: the lines of the log that aren't in the task's log yet.
    :param has_end: whether the log has the launcher's last line, which it prints after it has written the result.
    :param artifacts: path, bytes and md5 of each file that the job saved on the stage; ``None`` without a directory.
    :param is_over: whether the job was seen to be over, or was cancelled; otherwise it may live and stays.

    The task pushes and returns these, and saves them for a retry:

    :param is_reference: whether the value is a reference to the stage.
    :param is_taken: whether the result's files are no longer needed.
    :param facts: the XCom of the job, which the task pushed at its submit.
    :param account: the account of the job, as its connection has it.
    """

    job: QualifiedName
    status: JobStatus
    directory: StagePath | None = None
    verdict: Verdict = Verdict.FINISHED
    message: str = ""
    timeline: Sequence[Mapping[str, str]] = ()
    printed: Printed = field(default_factory=Printed)
    is_overdue: bool = False
    log: str | None = None
    unseen: tuple[str, ...] = ()
    has_end: bool = False
    result: JobResult | None = None
    error: MLJobError | None = None
    instances: tuple[InstanceResult, ...] = ()
    artifacts: list[dict[str, Any]] | None = None
    reported: Reported = field(default_factory=Reported)
    is_over: bool = True
    xcoms: Mapping[str, Any] = field(default_factory=dict)
    return_value: Any = None
    is_reference: bool = False
    is_taken: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)
    account: str = ""

    @classmethod
    def of_event(
        cls, event: Mapping[str, Any], job: QualifiedName, directory: StagePath | None, printed: Printed
    ) -> Self:
        """Read the event that ends a wait."""
        return cls(
            job=job,
            status=JobStatus(event["status"]),
            directory=directory,
            verdict=Verdict(event["verdict"]),
            message=event["message"],
            timeline=event.get("timeline") or [],
            printed=printed,
            is_overdue=event.get("is_overdue") is True,
        )

    @classmethod
    def from_json(cls, text: str, job: QualifiedName) -> Self:
        """Read the saved outcome of a job that succeeded.

        :raises UnreadableError: if the text is no saved outcome.
        """
        document = read_json(text, "The saved result", limit=len(text), depth=_MAX_SAVED_DEPTH)
        with reading("The saved result"):
            return cls(job=job, status=JobStatus.DONE, **{name: document[name] for name in _SAVED})

    def to_json(self) -> dict[str, Any]:
        """Return the fields that a retry needs, as JSON."""
        return {name: getattr(self, name) for name in _SAVED}

    @property
    def is_unread(self) -> bool:
        """Whether the job's result exists, but Snowflake could not deliver it."""
        return isinstance(self.error, ResultError) and isinstance(self.error.__cause__, GatewayError | MissingFileError)

    @property
    def is_cut_short(self) -> bool:
        """Whether Snowflake was out of reach before everything was read."""
        return self.log is None or isinstance(getattr(self.error, "__cause__", None), SnowflakeUnavailableError)


def complete(
    client: MLJobClient,
    outcome: Outcome,
    *,
    instances: int = 1,
    max_bytes: int = DEFAULT_MAX_XCOM_BYTES,
    unseen_patience: float = MAX_UNSEEN_SECONDS,
    log_patience: float = 0.0,
) -> Outcome:
    """Read log, result and files of a job before any of them is dropped; cancel a job that is out of time first.

    :param log_patience: how many seconds to wait for the end of the log of a job that has ended by itself, if it has
        left the nodes and isn't in the event table yet.

    :raises SnowflakeUnavailableError: if Snowflake was, or is, out of reach: then nothing is known of the job.
    """
    job = outcome.job
    if outcome.verdict is Verdict.UNREACHABLE:
        raise SnowflakeUnavailableError(
            f"Snowflake could not be asked for job {job} for too long; the job may still be running. "
            f"Reason: {outcome.message or 'unknown'}. See [mljobs] max_unreachable_seconds."
        )
    if outcome.verdict.is_out_of_time:
        outcome = _cancelled(client, outcome, unseen_patience)
    elif outcome.verdict is Verdict.GONE:
        outcome = _looked_for_again(client, outcome)
    has_ended = outcome.verdict is Verdict.FINISHED and outcome.status not in ENDED_FROM_OUTSIDE
    outcome = _read_log(client, outcome, log_patience if has_ended else 0.0)
    outcome = _read(client, outcome, instances, max_bytes)
    result = outcome.result
    printed = text.between_banners(outcome.log or "")
    if result is not None and result.traceback:
        # The error has the traceback already; its tail is the output before it.
        printed = printed.replace(result.traceback.strip(), "")
    tail = "\n".join(printed.strip().splitlines()[-_LAST_LINES:])
    failure: MLJobError | None = _error(client, outcome, tail)
    if failure is None and outcome.directory is not None and result is None and outcome.error is None:
        failure = ResultError(f"Job {job} is DONE but left no result at its place on the stage.")
    error = failure or outcome.error
    return replace(outcome, error=error and _masked(error, outcome.printed.mask))


def _masked(error: MLJobError, mask: Callable[[str], str]) -> MLJobError:
    """Star the secrets in an error, and escape control characters for terminals: its text comes from the payload.

    Its cause stands in the task's log, too.
    """
    error.args = tuple(text.printable(mask(value)) if type(value) is str else value for value in error.args)
    for name, value in vars(error).items():
        if type(value) is str:
            setattr(error, name, text.printable(mask(value)))
    if isinstance(error.__cause__, MLJobError):
        _masked(error.__cause__, mask)
    return error


def _cancelled(client: MLJobClient, outcome: Outcome, patience: float) -> Outcome:
    """Cancel a job that is out of time."""
    job = outcome.job
    if outcome.verdict is Verdict.QUEUE_TIMED_OUT and not outcome.message:
        outcome = replace(outcome, message=_containers(client, job)[1])
    sighting = client.cancel_unseen(job, patience=patience)
    if sighting.status is JobStatus.DONE and not outcome.is_overdue:
        # In the last moment.
        return replace(outcome, verdict=Verdict.FINISHED, status=JobStatus.DONE)
    status = sighting.status if sighting.has_ended else client.look(job).status
    return replace(outcome, status=status or outcome.status, is_over=not sighting.is_unseen)


def _looked_for_again(client: MLJobClient, outcome: Outcome) -> Outcome:
    """Look once more for a job that counts as gone.

    :raises SnowflakeUnavailableError: if it has reappeared.
    """
    sighting = client.look(outcome.job)
    if sighting.lives:
        raise SnowflakeUnavailableError(
            f"Job {outcome.job} was not shown for too long, and is {sighting.status} now. "
            "See [mljobs] max_unseen_seconds."
        )
    if sighting.status is None:
        return replace(outcome, is_over=False)
    return replace(outcome, verdict=Verdict.FINISHED, status=sighting.status)


def _read_log(client: MLJobClient, outcome: Outcome, patience: float) -> Outcome:
    try:
        log = inspection.rest_of_log(client, outcome.job, outcome.printed, patience=patience)
    except SnowflakeUnavailableError as error:
        logger.warning("The log of job %s can't be read now: %s", outcome.job, error)
        return replace(outcome, reported=outcome.printed.reported)
    return replace(outcome, log=log.text, unseen=log.unseen, reported=log.reported, has_end=log.has_end)


def _read(client: MLJobClient, outcome: Outcome, instances: int, max_bytes: int) -> Outcome:
    """Read result and files; an error in the outcome says that they can't be read."""
    job, directory, status = outcome.job, outcome.directory, outcome.status
    if directory is None:
        return outcome
    is_done = status is JobStatus.DONE
    # Also a job that failed has a result, with its exception, unless it was killed.
    has_result = is_done or outcome.has_end
    patience = max(client.visibility_lag, _RESULT_SECONDS) if has_result else 0.0
    try:
        result = read_result(client.connection, directory, max_bytes=max_bytes, patience=patience)
        saved = artifacts(
            client.connection, directory, result.artifacts if result else (), patience=client.visibility_lag
        )
        # The record of the instance that failed may still be on its way.
        is_over = is_done or status is JobStatus.FAILED
        each = (
            read_instances(
                client.connection,
                directory,
                instances,
                max_bytes=max_bytes,
                patience=client.visibility_lag if is_over else 0.0,
            )
            if instances > 1
            else ()
        )
    except (ResultError, GatewayError) as error:
        unreadable = ResultError(f"The result of job {job} can't be read; it stays in {directory}. {error}")
        unreadable.__cause__ = error
        return replace(outcome, error=unreadable, is_taken=False)
    first = None if is_done else earliest_failure(each)
    if first is not None and first.failure is not None:
        # The first instance may have ended well, or have been stopped because another one had failed.
        result = first.failure
    values = [value for value in (result, *(instance.result for instance in each)) if value is not None]
    is_taken = all(value.reference is None for value in values)
    for value in values:
        if value.misfit and value.reference is not None:
            places = ", ".join(value.reference.stage_paths)
            logger.info("The value of job %s stays in %s; XCom has a reference to it: %s.", job, places, value.misfit)
    return replace(outcome, result=result, artifacts=saved, instances=each, is_taken=is_taken)


def _error(client: MLJobClient, outcome: Outcome, tail: str) -> MLJobFailedError | None:
    """Build the error of the task; ``None`` if the job succeeded."""
    status, result = outcome.status, outcome.result
    job, job_id = outcome.job, str(outcome.job)
    if outcome.verdict.is_out_of_time:
        return _timeout_error(outcome, tail)
    if outcome.verdict is Verdict.GONE:
        status = JobStatus.DELETED
    is_user_error = result is not None and not result.success
    if status is JobStatus.DONE and not is_user_error:
        return None
    containers, what = (
        ([], "") if status in ENDED_FROM_OUTSIDE else _containers(client, job, needs_reason=not is_user_error)
    )
    stopped = {each.instance for each in outcome.instances if each.exit_code == STOPPED}
    diagnosis = diagnose(status, containers, result, stopped)
    if diagnosis.may_be_maintenance:
        diagnosis = _in_maintenance(client, diagnosis)
    remote = result.remote_error(job_id, status, tail) if result is not None and is_user_error else None
    if remote is not None and diagnosis.failure is Failure.USER_ERROR:
        return diagnosis.put_into(remote)
    message = _MESSAGES.get(diagnosis.failure, "Job {job} ended {status}. {what}") if outcome.is_over else _UNSEEN
    kind = KINDS[diagnosis.failure].error
    what = what if outcome.is_over else outcome.message
    error = kind(message.format(job=job, status=status, what=what).strip(), job_id, outcome.status, tail)
    # The payload's own exception.
    error.__cause__ = remote
    return diagnosis.put_into(error)


def _in_maintenance(client: MLJobClient, diagnosis: Diagnosis) -> Diagnosis:
    """Blame the platform if Snowflake has announced that it replaces nodes about now."""
    try:
        rows = client.connection.rows(statements.pending_maintenance())
    except GatewayError as error:
        logger.debug("The maintenance of compute pools can't be asked for: %s", error)
        return diagnosis
    maintenance = Maintenance.parse(str(next(iter(rows[0].values())))) if rows else None
    if maintenance is None or not maintenance.may_be_on(datetime.now(UTC)):
        return diagnosis
    advice = (
        f"Snowflake replaces nodes of compute pools {maintenance}, and may cancel running jobs then. Unless a user "
        "cancelled the job, run the task again; schedule long jobs at another time."
    )
    return replace(diagnosis, failure=Failure.PLATFORM, advice=advice)


def _timeout_error(outcome: Outcome, tail: str) -> MLJobFailedError:
    job, status = outcome.job, outcome.status
    if not outcome.is_over:
        then = "nothing shows it, so it could not be cancelled and may still run"
    elif status in _CANCELLED or not status.is_terminal:
        then = "it was cancelled"
    else:
        then = f"it ended {status} after that"
    if outcome.verdict is Verdict.QUEUE_TIMED_OUT:
        message = f"Job {job} was still PENDING after the task's queue_timeout; {then}. {outcome.message}"
        error = MLJobQueueTimeoutError(message.strip(), str(job), status, tail)
        return diagnose_wait(outcome.message).put_into(error)
    limit = outcome.message or "execution_timeout"
    message = f"Job {job} did not end within the task's {limit}; {then}."
    return Diagnosis(failure=Failure.TIMEOUT).put_into(MLJobTimeoutError(message, str(job), status, tail))


def _containers(
    client: MLJobClient, job: QualifiedName, *, needs_reason: bool = True
) -> tuple[list[ContainerEnd], str]:
    """Return the end of each container as the platform reports it, and the same as text.

    :param needs_reason: whether to ask the platform's events if no container says why the job failed, or waited. The
        payload's own exception needs no other reason.
    """
    try:
        ends = inspection.ends(client, job)
        text = described(ends)
    except GatewayError as error:
        ends, text = [], f"Its containers can't be asked for: {error.message}"
    if needs_reason and not any(end.is_failed or end.status == "PENDING" for end in ends):
        with suppress(GatewayError):
            events = inspection.last_events(client, job) or []
            if any(event.is_failed or event.status == "PENDING" for event in events):
                return events, described(events)
    return ends, text
