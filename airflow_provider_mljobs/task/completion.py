"""Completes a task whose job is over: reads log and result, saves them, and only then cleans up."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_provider_mljobs.exceptions import (
    GatewayError,
    MLJobFailedError,
    ResultError,
    SnowflakeUnavailableError,
)
from airflow_provider_mljobs.gateway.joblogs import Printed
from airflow_provider_mljobs.gateway.outcome import Ending, complete
from airflow_provider_mljobs.jobs.attempts import Left
from airflow_provider_mljobs.jobs.logs import text
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.outcome.watch import Verdict
from airflow_provider_mljobs.jobs.values.portability import jsonb_safe, shielded
from airflow_provider_mljobs.task import outputs
from airflow_provider_mljobs.task.ending import JobEnding, limited_clean_up
from airflow_provider_mljobs.task.fields import exit_codes
from airflow_provider_mljobs.task.joblog import mask_environment, mask_job, redacted, write_output
from airflow_provider_mljobs.task.masking import star
from airflow_provider_mljobs.task.notify import assets, metrics
from airflow_provider_mljobs.task.settings import (
    max_finish_seconds,
    max_unreachable_seconds,
    max_unseen_seconds,
    max_xcom_bytes,
)
from airflow_provider_mljobs.task.timeout_signals import limited
from airflow_provider_mljobs.task.xcoms import (
    FACTS,
    WATCHED,
    JobEnd,
    keep,
    kept,
    watched_at_the_end,
    with_reported,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

    from airflow_provider_mljobs.exceptions import MLJobError
    from airflow_provider_mljobs.gateway.outcome import Outcome
    from airflow_provider_mljobs.hooks import MLJobHook
    from airflow_provider_mljobs.jobs.attempts import Record
    from airflow_provider_mljobs.jobs.names import QualifiedName, StagePath
    from airflow_provider_mljobs.task.fields import JobFields
    from airflow_provider_mljobs.task.recovery import JobRecovery

_RETRY_SECONDS = 5.0


@dataclass(frozen=True)
class ReturnValue:
    """The value that a task returns.

    :param is_single: whether it is one XCom, although it may be a dict.
    """

    value: Any
    is_single: bool = False


class Completion:
    """Completes a task whose job is over.

    The order matters, because each step may be the last one of this process: log and XComs, the record for a retry,
    the job's files, the job itself. While the job exists, its COMMENT names the files.

    :param fields: the fields of the task.
    :param context: the context of the try.
    :param hook: the task's connection.
    :param log: the task's log.
    :param recovery: the jobs of the task.
    """

    def __init__(self, fields: JobFields, context: Context, hook: MLJobHook, log: Any, recovery: JobRecovery) -> None:
        self._fields = fields
        self._context = context
        self._ti = context["ti"]
        self._hook = hook
        self._log = log
        self._recovery = recovery
        # For links and lineage, which Airflow asks for when the task is over.
        self.facts: Mapping[str, Any] = {}
        self._end: JobEnd | None = None

    @property
    def end(self) -> JobEnd:
        """The end of the job, as far as there is one."""
        return self._end or JobEnd(facts=self.facts, account=self._hook.account_name)

    def finish(self, event: Mapping[str, Any], *, is_killed: bool = False) -> ReturnValue:
        """Return the job's value, or raise its error.

        :param event: the event that ended the wait.
        :param is_killed: whether a user has ended the task.
        """
        job = self._hook.job(str(event["job_id"]))
        directory = self._directory(event.get("stage_path"))
        ending = Ending(
            job=job,
            directory=directory,
            verdict=Verdict(event["verdict"]),
            status=JobStatus(event["status"]),
            message=event["message"],
            printed=Printed.restored(self._printed(str(job), event), self._log, star),
            instances=self._fields.target_instances,
            max_bytes=max_xcom_bytes(),
            is_overdue=event.get("is_overdue") is True,
            unseen_patience=max_unseen_seconds(),
        )
        try:
            outcome = self._complete(ending)
        except GatewayError:
            self._log.warning("Skipped clean-up: job %s and its files in %s are still there.", job, directory)
            raise
        self._show(job, outcome)
        outcome, left = self._pushable(outcome, _left(event, outcome), directory)
        self._push(left.xcoms)
        end = self._tell(str(job), left, outcome.error)
        metrics.count(end, self._ti)
        is_ours = self._remember(job, outcome, left)
        drops = self._fields.drops(is_success=outcome.error is None, is_killed=is_killed)
        if not outcome.is_over:
            self._ending(job, directory).leave()
        elif is_ours and drops and outcome.log is not None and not outcome.is_unread:
            self._ending(job, directory).clean_up(is_taken=left.is_taken and not self._recovery.is_lost)
        else:
            self._log.info("Kept job %s, and its files in %s.", job, directory)
        if outcome.error is not None:
            raise_as(self._fields, outcome.error)
        return ReturnValue(left.return_value, left.is_reference)

    def return_saved(self, record: Record) -> ReturnValue:
        """Return the saved value of a job that an earlier try completed, before Airflow noted the task's success."""
        job, left = self._hook.job(record.job_id), self._recovery.memory.load_result()
        if left is None:
            # A retry would find the same.
            raise AirflowFailException(
                f"The saved result of job {job} has expired or can't be read. Clear the task to run it again."
            )
        self._log.info("Job %s ended DONE in an earlier try, which was lost before it could report success.", job)
        self._push(left.xcoms)
        self._tell(str(job), left)
        if self._fields.drops(is_success=True):
            self._ending(job, self._directory(record.stage_path)).clean_up(is_taken=left.is_taken)
        return ReturnValue(left.return_value, left.is_reference)

    def status(self, job_id: str) -> JobStatus | None:
        """Return the status of a job; ``None`` if Snowflake doesn't answer."""
        try:
            return self._hook.status(self._hook.job(job_id))
        except GatewayError as error:
            self._log.warning("Could not check the status of job %s: %s", job_id, error)
            return None

    def give_up(self, job_id: str, stage_path: str | None, *, is_killed: bool = False) -> None:
        """End a job that no try will wait for any more, and note its end in XCom."""
        job, directory = self._hook.job(job_id), self._directory(stage_path)
        drop = self._fields.drops(is_success=False, is_killed=is_killed)
        try:
            self._ending(job, directory).abandon(drop=drop, ti=self._ti)
        except GatewayError as error:
            self._log.warning("Job %s may still run, with files in %s. Reason: %s", job, directory, error)

    def _ending(self, job: QualifiedName, directory: StagePath | None) -> JobEnding:
        return JobEnding(client=self._hook.client, job=job, directory=directory, log=self._log)

    def _mask(self, job: QualifiedName) -> None:
        """Mask the secrets in the job's environment; an earlier phase of the try may have been another process."""
        mask_environment(self._fields.env_vars or {})
        if self._fields.spec is not None or self._fields.spec_overrides:
            mask_job(self._hook.client, job)

    def _directory(self, place: str | None) -> StagePath | None:
        return self._hook.stage(place) if place else None

    def _complete(self, ending: Ending) -> Outcome:
        """Read what the job has left, as patiently as it was waited for: nobody else will."""
        seconds = max_finish_seconds()
        with limited(seconds, lambda: out_of_time(ending.job, seconds)):
            return self._read(ending)

    def _read(self, ending: Ending) -> Outcome:
        give_up = time.time() + max_unreachable_seconds()
        while True:
            is_late = ending.verdict is Verdict.UNREACHABLE or time.time() >= give_up
            try:
                self._mask(ending.job)
                outcome = complete(self._hook.client, ending)
                if is_late or not outcome.is_cut_short:
                    return outcome
            except SnowflakeUnavailableError as error:
                if is_late:
                    raise
                self._log.warning("Could not read the end of job %s yet; trying again: %s", ending.job, error)
            self._hook.close()
            time.sleep(min(_RETRY_SECONDS, max(0.0, give_up - time.time())))

    def _show(self, job: QualifiedName, outcome: Outcome) -> None:
        """Write the rest of the job's log to the task log."""
        write_output(self._log, job, outcome.unseen)
        if not outcome.unseen and outcome.log is not None and not text.without_banners(outcome.log):
            self._log.info("Job %s has printed nothing.", job.name)
        self._log.info("Job %s ended %s.", job, outcome.status)

    def _printed(self, job_id: str, event: Mapping[str, Any]) -> Any:
        """Return how far the job has been watched, with the curves that are too large for an event."""
        printed = event.get("printed") or {}
        if not printed or not isinstance(printed, dict) or "series" in printed:
            return printed
        return {**printed, "series": self._kept(WATCHED, job_id).get("series")}

    def _kept(self, key: str, job_id: str) -> Mapping[str, Any]:
        """Return what an earlier process of this try has kept of its job; nothing, should Airflow not tell it."""
        try:
            known = kept(self._ti, key)
        except Exception:  # noqa: BLE001 (whatever Airflow has to say: the job's end counts more)
            self._log.warning("XCom %s can't be read; what it says of job %s is missing.", key, job_id, exc_info=True)
            return {}
        return known if known.get("job_id") == job_id else {}

    def _pushable(self, outcome: Outcome, left: Left, directory: StagePath | None) -> tuple[Outcome, Left]:
        """Return what Airflow keeps; if it would not keep what the job returned, that is what the task fails with."""
        if not self._fields.do_xcom_push:
            return outcome, left
        refusal = outputs.refused(left, multiple_outputs=self._fields.multiple_outputs)
        if refusal is None:
            return outcome, left
        key, reason = refusal
        error = outcome.error or ResultError(
            f"The job is DONE, but Airflow can't keep its XCom {key!r}: {reason}. What the job returned stays in "
            f"{directory}. Return other keys, or a DataFrame, an array or a file instead."
        )
        xcoms = {name: value for name, value in left.xcoms.items() if name != key}
        return replace(outcome, error=error), Left(xcoms=xcoms, is_taken=False)

    def _push(self, xcoms: Mapping[str, Any]) -> None:
        """Push what XCom gets besides the return value."""
        for key, value in xcoms.items():
            # What Airflow's pages show of the job is no output of the task.
            if key == WATCHED:
                keep(self._ti, key, value)
            elif self._fields.do_xcom_push:
                self._ti.xcom_push(key=key, value=value)

    def _tell(self, job_id: str, left: Left, error: MLJobError | None = None) -> JobEnd:
        """Give those their due who want to hear of the job's end: lineage and the events of assets."""
        self.facts = self.facts or self._kept(FACTS, job_id)
        end = JobEnd(
            facts=self.facts or {"job_id": job_id},
            account=self._hook.account_name,
            watched=left.xcoms.get(WATCHED, {}),
            xcoms=left.xcoms,
            values=left.return_value["stage_paths"] if left.is_reference else (),
            error=error,
        )
        self._end = end
        if error is None:
            assets.announce(end, self._fields.outlets, self._context.get("outlet_events"), self._log)
        return end

    def _remember(self, job: QualifiedName, outcome: Outcome, left: Left) -> bool:
        """Note for a retry how the job has ended, before anything of it is gone.

        :returns: whether the job is this try's to clean up. A later try may have taken it over meanwhile.
        """
        if not self._recovery.memory:
            return True
        record = self._recovery.recorded()
        if record is None or record.job_id != str(job):
            self._log.warning("Airflow has no record of job %s for this try: another one may go on with it.", job)
            return False
        if outcome.error is None:
            if not self._fields.do_xcom_push:
                # What the task doesn't push is nowhere to be found.
                left = Left(xcoms={WATCHED: left.xcoms[WATCHED]}, is_taken=left.is_taken)
            record = self._recovery.memory.save_result(record, left)
        elif outcome.is_over and not outcome.is_unread:
            record = record.failed()
            self._recovery.memory.save(record)
        self._settle(record)
        return True

    def _settle(self, record: Record) -> None:
        """End the jobs of earlier attempts that have appeared since."""
        try:
            with limited_clean_up():
                self._recovery.settle(record)
        except SnowflakeUnavailableError as error:
            jobs = ", ".join(earlier.job_id for earlier in record.unseen)
            self._log.warning("Could not end jobs of earlier tries; they may still run: %s. Reason: %s", jobs, error)


def raise_as(fields: JobFields, error: MLJobError) -> NoReturn:
    """Raise the error of a job: by its exit code, a failed job may skip its task, or fail it without retries."""
    if isinstance(error, MLJobFailedError):
        message = f"{error.message} [exit code {error.exit_code} is in"
        if error.exit_code in exit_codes(fields.skip_on_exit_code, "skip_on_exit_code"):
            raise AirflowSkipException(f"{message} skip_on_exit_code]") from error
        if error.exit_code in exit_codes(fields.fail_on_exit_code, "fail_on_exit_code"):
            raise AirflowFailException(f"{message} fail_on_exit_code]") from error
    raise error


def out_of_time(job: QualifiedName, seconds: float) -> SnowflakeUnavailableError:
    """Make the error of a task that could not read the end of its job in time."""
    return SnowflakeUnavailableError(
        f"Could not read the log and result of job {job} within {seconds:g} s; job and files are kept. A retry reads "
        "them again. See [mljobs] max_finish_seconds."
    )


def _left(event: Mapping[str, Any], outcome: Outcome) -> Left:
    result, tail = outcome.result, text.tail(star(text.between_banners(outcome.log or "")))
    reported = redacted(outcome.reported.to_json())
    status, timeline, artifacts = outcome.status.value, event.get("timeline") or [], outcome.artifacts
    found: dict[str, Any] = {
        "status": status,
        "timeline": timeline,
        "logs": tail,
        "metrics": reported["metrics"] or None,
        "artifacts": None if artifacts is None else with_reported(artifacts, reported["artifacts"]),
        "instances": [instance.xcom for instance in outcome.instances] or None,
        "git_commit": result.git_commit if result is not None else None,
        WATCHED: watched_at_the_end(str(event["job_id"]), status, timeline, reported),
    }
    return Left(
        xcoms={key: _plain(value) for key, value in found.items() if value is not None},
        return_value=result.xcom if result is not None else None,
        is_reference=result is not None and result.reference is not None,
        is_taken=outcome.is_taken,
    )


def _plain(value: Any) -> Any:
    """Return what is no more to Airflow than it is to us: its database takes it, and its API makes no object of it."""
    safe = jsonb_safe(value)
    return shielded(safe) if isinstance(safe, str) else safe
