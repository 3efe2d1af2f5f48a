"""Cancels and drops the jobs of tasks, and records it in the task's log and XCom: no other module of the shell does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import GatewayError, SnowflakeUnavailableError
from airflow_provider_mljobs.gateway import inspection
from airflow_provider_mljobs.gateway.joblogs import Printed
from airflow_provider_mljobs.jobs.logs import text
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.task.joblog import mask_of
from airflow_provider_mljobs.task.settings import max_unseen_seconds
from airflow_provider_mljobs.task.timeout_signals import limited
from airflow_provider_mljobs.task.xcoms import push_end

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from airflow_provider_mljobs.gateway.client import MLJobClient
    from airflow_provider_mljobs.jobs.names import QualifiedName, StagePath
    from airflow_provider_mljobs.jobs.outcome.sightings import Sighting

# For each step that comes after the result is safe.
_CLEAN_UP_SECONDS = 300.0
# Containers have 30 seconds to end; then they are killed.
_END_SECONDS = 90.0


@dataclass(frozen=True, kw_only=True)
class JobEnding:
    """Ends one job of a task.

    A job is dropped only if it was seen to end, or to be cancelled, and if its log is safe in the task's log.

    :param directory: its own directory on the stage; ``None`` for a job without our launcher.
    :param patience: how many seconds to try to cancel a job that nothing shows.
    """

    client: MLJobClient
    job: QualifiedName
    directory: StagePath | None = None
    log: Any
    patience: float = field(default_factory=max_unseen_seconds)

    def cancel(self) -> Sighting:
        """Cancel the job unless it is over."""
        sighting = self.client.cancel_unseen(self.job, patience=self.patience)
        if sighting.is_unseen:
            self.leave(sighting.why)
        return sighting

    def abandon(self, *, drop: bool, ti: Any = None) -> None:
        """Cancel a job that no task waits for any more. The result of one that has ended by itself stays.

        :param drop: also drop a job that was cancelled, with its input.
        :param ti: the task instance, as a task or a trigger has it, whose XCom gets the job's last status.
        """
        sighting = self.cancel()
        status = sighting.status
        if status is None:
            return
        if sighting.has_ended and status is not JobStatus.CANCELLED:
            self.log.info("Job %s had already ended %s; nothing to cancel.", self.job, status)
        else:
            self.log.info("Cancelled job %s.", self.job)
            status = JobStatus.CANCELLED
            if drop:
                self.discard()
        if ti is not None:
            push_end(ti, str(self.job), status, self.log)

    def replace(self, sighting: Sighting, *, drop: bool) -> bool:
        """End a job beside which the task is about to submit another one.

        :param drop: also drop a job that has ended, with its input. One that doesn't end is dropped in any case.
        :returns: whether the job is known to have ended.
        """
        if sighting.lives:
            self.log.info("Cancelling job %s (%s) of an earlier try.", self.job, sighting.status)
            sighting = self.client.cancel_and_wait(self.job, seconds=_END_SECONDS)
            if not sighting.has_ended:
                if sighting.row is None:
                    self.log.warning(
                        "Cancelled job %s, but Snowflake doesn't show its end; looking again later.", self.job
                    )
                    return False
                self.log.warning("Job %s did not end within %g s of its cancel; dropping it.", self.job, _END_SECONDS)
                self.client.drop(self.job)
                return True
        if drop and sighting.row is not None:
            self.discard()
        return True

    def discard(self) -> None:
        """Drop a job that is over and whose result no task needs, with its files; first write its log."""
        try:
            mask = mask_of(self.client, self.job)
            printed = inspection.rest_of_log(self.client, self.job, Printed(mask=mask)).text
        except SnowflakeUnavailableError as error:
            self.log.warning("Could not read the log of job %s, so the job and its files stay: %s", self.job, error)
            return
        if tail := text.tail(mask(text.without_banners(printed))):
            self.log.info("Log of job %s:\n%s", self.job.name, tail)
        self.client.clean_up(self.job, self.directory)
        self.log.info("Dropped job %s and removed its input.", self.job)

    def clean_up(self, *, is_taken: bool) -> None:
        """Drop a job whose log and result the task has, and remove its input; a failure here fails no task.

        :param is_taken: whether the result's file can go, too.
        """
        try:
            with limited_clean_up():
                self.client.clean_up(self.job, self.directory, result=is_taken)
        except GatewayError as error:
            self.log.warning(
                "Could not clean up job %s; the job or files in %s are still there: %s",
                self.job,
                self.directory,
                error,
            )
        else:
            self.log.info("Dropped job %s and removed its input.", self.job)

    def leave(self, why: str = "") -> None:
        """Say that a job stays because it may still run."""
        files = f" and its files in {self.directory}" if self.directory is not None else ""
        message = (
            f"Job {self.job} was not seen to end, so it may still run: it is not dropped. The collector (airflow "
            f"mljobs gc) will remove it{files}. {why}"
        )
        self.log.warning("%s", message.strip())


def limited_clean_up() -> AbstractContextManager[None]:
    """Bound a step that comes after the result is safe."""
    return limited(_CLEAN_UP_SECONDS, lambda: SnowflakeUnavailableError("Snowflake takes too long to answer."))
