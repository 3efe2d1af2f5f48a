"""What the end of a job amounts to: its log, its result, and the error that the task fails with."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from airflow_provider_mljobs.exceptions import (
    GatewayError,
    MissingFileError,
    MLJobError,
    MLJobFailedError,
    MLJobQueueTimeoutError,
    MLJobTimeoutError,
    ResultError,
    SnowflakeUnavailableError,
)
from airflow_provider_mljobs.gateway import inspection
from airflow_provider_mljobs.gateway.downloads import artifacts, read_instances, read_result
from airflow_provider_mljobs.gateway.ending import cancel
from airflow_provider_mljobs.gateway.joblogs import Printed
from airflow_provider_mljobs.jobs.logs import text
from airflow_provider_mljobs.jobs.outcome.failures import (
    ENDED_FROM_OUTSIDE,
    KINDS,
    ContainerEnd,
    Diagnosis,
    Failure,
    diagnose,
    diagnose_wait,
)
from airflow_provider_mljobs.jobs.outcome.reports import Reported
from airflow_provider_mljobs.jobs.outcome.results import DEFAULT_MAX_XCOM_BYTES, earliest_failure
from airflow_provider_mljobs.jobs.outcome.sightings import MAX_UNSEEN_SECONDS
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.outcome.watch import Verdict
from airflow_provider_mljobs.launcher.contract import STOPPED

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from airflow_provider_mljobs.gateway.client import MLJobClient
    from airflow_provider_mljobs.jobs.names import QualifiedName, StagePath
    from airflow_provider_mljobs.jobs.outcome.results import InstanceResult, JobResult

logger = logging.getLogger(__name__)
_LAST_LINES = 20
_CANCELLED = frozenset({JobStatus.CANCELLING, JobStatus.CANCELLED, JobStatus.DELETING, JobStatus.DELETED})
_MESSAGES = {
    Failure.LOST: "Job {job} is gone: somebody dropped it, or it never was there.",
    Failure.CANCELLED: "Job {job} was cancelled.",
}
_UNSEEN = (
    "Job {job} is not shown any more, neither by its service nor by the job history: it was dropped, or never was "
    "there, or the role may not see it. {what}"
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of a job.

    :param status: its last status.
    :param log: what the job printed, of a long log the end; ``None`` if that could not be read, so it isn't safe yet.
    :param unseen: the lines of the log that aren't in the task's log yet.
    :param result: what the launcher wrote; ``None`` if it wrote nothing that can be read.
    :param error: what the task fails with; ``None`` if the job succeeded.
    :param instances: how each instance of a job of several ended.
    :param artifacts: what the job has saved on the stage: path, bytes, md5; ``None`` if it has no directory there.
    :param is_taken: whether nobody needs the result's file any more.
    :param reported: what the job has reported up to its end, as far as its log could be read.
    :param is_over: whether the job was seen to be over, or was cancelled; otherwise it may live and stays.
    """

    status: JobStatus
    log: str | None
    unseen: tuple[str, ...] = ()
    result: JobResult | None = None
    error: MLJobError | None = None
    instances: tuple[InstanceResult, ...] = ()
    artifacts: list[dict[str, Any]] | None = None
    is_taken: bool = True
    reported: Reported = field(default_factory=Reported)
    is_over: bool = True

    @property
    def is_unread(self) -> bool:
        """Whether the job's result is there, but Snowflake doesn't give it."""
        return isinstance(self.error, ResultError) and isinstance(self.error.__cause__, GatewayError | MissingFileError)

    @property
    def is_cut_short(self) -> bool:
        """Whether Snowflake was out of reach before all was read."""
        return self.log is None or isinstance(getattr(self.error, "__cause__", None), SnowflakeUnavailableError)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What is known of a job's end before anything of it is read.

    :param job: the job.
    :param directory: its own directory on the stage; ``None`` for a job without our launcher.
    :param verdict: why the watch is over.
    :param status: the last status that was seen.
    :param message: what the watch has to say about it.
    :param printed: what of its log is in the task's log already.
    :param instances: how many instances the job has.
    :param max_bytes: a larger result stays on the stage.
    :param is_overdue: whether it was decided for good that the job is out of time, so that its end doesn't count.
    :param unseen_patience: for how many seconds to look for a job that nothing shows.
    """

    job: QualifiedName
    directory: StagePath | None
    verdict: Verdict
    status: JobStatus
    message: str = ""
    printed: Printed = field(default_factory=Printed)
    instances: int = 1
    max_bytes: int = DEFAULT_MAX_XCOM_BYTES
    is_overdue: bool = False
    unseen_patience: float = MAX_UNSEEN_SECONDS


def complete(client: MLJobClient, ending: Ending) -> Outcome:
    """Read what a job has left, before anything of it is dropped. A job out of time is cancelled first.

    :raises SnowflakeUnavailableError: if Snowflake was, or is, out of reach: then nothing is known of the job.
    """
    job = ending.job
    if ending.verdict is Verdict.UNREACHABLE:
        raise SnowflakeUnavailableError(
            f"Snowflake could not be asked for job {job} for too long; the job may still be running. "
            f"Reason: {ending.message or 'unknown'}. See [mljobs] max_unreachable_seconds."
        )
    is_over = True
    if ending.verdict.is_out_of_time:
        ending, is_over = _cancelled(client, ending)
    elif ending.verdict is Verdict.GONE:
        ending, is_over = _looked_for_again(client, ending)
    outcome = replace(_left_by(client, ending), is_over=is_over)
    result = outcome.result
    printed = text.between_banners(outcome.log or "")
    if result is not None and result.traceback:
        # The error has the traceback already; its tail is what the payload printed before.
        printed = printed.replace(result.traceback.strip(), "")
    tail = "\n".join(printed.strip().splitlines()[-_LAST_LINES:])
    failure: MLJobError | None = _error(client, ending, outcome, tail)
    if failure is None and ending.directory is not None and result is None and outcome.error is None:
        failure = ResultError(f"Job {job} is DONE but left no result at its place on the stage.")
    error = failure or outcome.error
    return replace(outcome, error=error and _masked(error, ending.printed.mask))


def _masked(error: MLJobError, mask: Callable[[str], str]) -> MLJobError:
    """Star secrets in all that an error says, and write out what a terminal would obey: it has the payload's words.

    Its cause stands in the task's log, too.
    """
    error.args = tuple(text.printable(mask(value)) if type(value) is str else value for value in error.args)
    for name, value in vars(error).items():
        if type(value) is str:
            setattr(error, name, text.printable(mask(value)))
    if isinstance(error.__cause__, MLJobError):
        _masked(error.__cause__, mask)
    return error


def _cancelled(client: MLJobClient, ending: Ending) -> tuple[Ending, bool]:
    """Cancel a job that is out of time; returns how it has ended, and whether it is known to have."""
    job = ending.job
    if ending.verdict is Verdict.QUEUE_TIMED_OUT and not ending.message:
        ending = replace(ending, message=_containers(client, job)[1])
    sighting = cancel(client, job, patience=ending.unseen_patience)
    if sighting.status is JobStatus.DONE and not ending.is_overdue:
        # In the last moment.
        return replace(ending, verdict=Verdict.FINISHED, status=JobStatus.DONE), True
    status = sighting.status if sighting.has_ended else client.look(job).status
    return replace(ending, status=status or ending.status), not sighting.is_unseen


def _looked_for_again(client: MLJobClient, ending: Ending) -> tuple[Ending, bool]:
    """Look for a job that has counted as gone; returns how it has ended, and whether it is known to have.

    :raises SnowflakeUnavailableError: if it is there again.
    """
    sighting = client.look(ending.job)
    if sighting.lives:
        raise SnowflakeUnavailableError(
            f"Job {ending.job} was not shown for too long, and is {sighting.status} now. "
            "See [mljobs] max_unseen_seconds."
        )
    if sighting.status is None:
        return ending, False
    return replace(ending, verdict=Verdict.FINISHED, status=sighting.status), True


def _left_by(client: MLJobClient, ending: Ending) -> Outcome:
    """Read log, result and files; an error in it says that these can't be read."""
    job, directory, status = ending.job, ending.directory, ending.status
    before = ending.printed
    outcome = _with_log(client, job, before, Outcome(status=status, log=None, reported=before.reported))
    if directory is None:
        return outcome
    is_done = status is JobStatus.DONE
    try:
        result = read_result(
            client.connection, directory, max_bytes=ending.max_bytes, patience=client.visibility_lag if is_done else 0.0
        )
        saved = artifacts(
            client.connection, directory, result.artifacts if result else (), patience=client.visibility_lag
        )
        # Which instance has failed is in a record that may still be on its way.
        is_over = is_done or status is JobStatus.FAILED
        each = (
            read_instances(
                client.connection,
                directory,
                ending.instances,
                max_bytes=ending.max_bytes,
                patience=client.visibility_lag if is_over else 0.0,
            )
            if ending.instances > 1
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


def _with_log(client: MLJobClient, job: QualifiedName, printed: Printed, outcome: Outcome) -> Outcome:
    try:
        log = inspection.rest_of_log(client, job, printed)
    except SnowflakeUnavailableError as error:
        logger.warning("The log of job %s can't be read now: %s", job, error)
        return outcome
    return replace(outcome, log=log.text, unseen=log.unseen, reported=log.reported)


def _error(client: MLJobClient, ending: Ending, outcome: Outcome, tail: str) -> MLJobFailedError | None:
    """Build what the task fails with; ``None`` if the job ended well."""
    status, result = outcome.status, outcome.result
    job, job_id = ending.job, str(ending.job)
    if ending.verdict.is_out_of_time:
        return _timeout_error(ending, outcome, tail)
    if ending.verdict is Verdict.GONE:
        status = JobStatus.DELETED
    is_user_error = result is not None and not result.success
    if status is JobStatus.DONE and not is_user_error:
        return None
    containers, what = ([], "") if status in ENDED_FROM_OUTSIDE else _containers(client, job)
    stopped = {each.instance for each in outcome.instances if each.exit_code == STOPPED}
    diagnosis = diagnose(status, containers, result, stopped)
    remote = result.remote_error(job_id, status, tail) if result is not None and is_user_error else None
    if remote is not None and diagnosis.failure is Failure.USER_ERROR:
        return diagnosis.put_into(remote)
    message = _MESSAGES.get(diagnosis.failure, "Job {job} ended {status}. {what}") if outcome.is_over else _UNSEEN
    kind = KINDS[diagnosis.failure].error
    what = what if outcome.is_over else ending.message
    error = kind(message.format(job=job, status=status, what=what).strip(), job_id, outcome.status, tail)
    # What the payload saw of it.
    error.__cause__ = remote
    return diagnosis.put_into(error)


def _timeout_error(ending: Ending, outcome: Outcome, tail: str) -> MLJobFailedError:
    job, status = ending.job, outcome.status
    if not outcome.is_over:
        then = "nothing shows it, so it could not be cancelled and may still run"
    elif status in _CANCELLED or not status.is_terminal:
        then = "it was cancelled"
    else:
        then = f"it ended {status} after that"
    if ending.verdict is Verdict.QUEUE_TIMED_OUT:
        message = f"Job {job} was still PENDING after the task's queue_timeout; {then}. {ending.message}"
        error = MLJobQueueTimeoutError(message.strip(), str(job), status, tail)
        return diagnose_wait(ending.message).put_into(error)
    limit = ending.message or "execution_timeout"
    message = f"Job {job} did not end within the task's {limit}; {then}."
    return Diagnosis(failure=Failure.TIMEOUT).put_into(MLJobTimeoutError(message, str(job), status, tail))


def _containers(client: MLJobClient, job: QualifiedName) -> tuple[list[ContainerEnd], str]:
    """Return what the platform says of each container, for us and for people."""
    try:
        ends = inspection.ends(client, job)
    except GatewayError as error:
        return [], f"Its containers can't be asked for: {error.message}"
    return ends, " ".join(map(str, ends))
