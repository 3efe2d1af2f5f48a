"""Completes a task whose job is over: reads log and result, saves them, and only then cleans up."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_provider_mljobs.exceptions import (
    GatewayError,
    MLJobError,
    MLJobFailedError,
    ResultError,
    SnowflakeUnavailableError,
)
from airflow_provider_mljobs.gateway.joblogs import Printed
from airflow_provider_mljobs.gateway.outcome import Outcome, complete
from airflow_provider_mljobs.jobs.logs import text
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.outcome.watch import Verdict
from airflow_provider_mljobs.jobs.values.portability import jsonb_safe, shielded
from airflow_provider_mljobs.task.ending import JobEnding, limited_clean_up
from airflow_provider_mljobs.task.fields import exit_codes
from airflow_provider_mljobs.task.joblog import mask_environment, mask_job, redacted, write_output
from airflow_provider_mljobs.task.masking import star
from airflow_provider_mljobs.task.notify import assets, metrics
from airflow_provider_mljobs.task.settings import (
    max_finish_seconds,
    max_log_lag_seconds,
    max_unreachable_seconds,
    max_unseen_seconds,
    max_xcom_bytes,
)
from airflow_provider_mljobs.task.timeout_signals import limited
from airflow_provider_mljobs.task.xcoms import (
    JOB_XCOM,
    PROGRESS_XCOM,
    final_progress,
    progress_of,
    pull_page_xcom,
    push_page_xcom,
    push_xcom,
    refused,
    with_reported,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

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
        self._outcome: Outcome | None = None

    @property
    def outcome(self) -> Outcome | None:
        """The outcome of the job, or the facts about one that has not ended; ``None`` without a job."""
        if self._outcome is not None or not self.facts:
            return self._outcome
        job = self._hook.job(self.facts["job_id"])
        return Outcome(job=job, status=JobStatus.UNKNOWN, facts=self.facts, account=self._hook.account_name)

    def finish(self, event: Mapping[str, Any], *, is_killed: bool = False) -> ReturnValue:
        """Return the job's value, or raise its error."""
        job = self._hook.job(str(event["job_id"]))
        directory = self._directory(event.get("stage_path"))
        printed = Printed.restored(self._printed(str(job), event), self._log, star)
        try:
            outcome = self._read(Outcome.of_event(event, job, directory, printed))
        except GatewayError:
            self._log.warning("Skipped clean-up: job %s and its files in %s are still there.", job, directory)
            raise
        self._show(outcome)
        outcome = self._announced(self._pushable(_with_xcoms(outcome)))
        metrics.count(outcome, self._ti)
        is_ours = self._remember(outcome)
        drops = self._fields.drops(is_success=outcome.error is None, is_killed=is_killed)
        if not outcome.is_over:
            self._ending(job, directory).leave()
        elif is_ours and drops and outcome.log is not None and not outcome.is_unread:
            self._ending(job, directory).clean_up(is_taken=outcome.is_taken and not self._recovery.is_lost)
        else:
            self._log.info("Kept job %s, and its files in %s.", job, directory)
        if outcome.error is not None:
            raise_as(self._fields, outcome.error)
        return ReturnValue(outcome.return_value, outcome.is_reference)

    def return_saved(self, record: Record) -> ReturnValue:
        """Return the saved value of a job that an earlier try completed, before Airflow noted the task's success."""
        job = self._hook.job(record.job_id)
        outcome = self._recovery.memory.load_outcome(job)
        if outcome is None:
            # A retry would find the same.
            raise AirflowFailException(
                f"The saved result of job {job} has expired or can't be read. Clear the task to run it again."
            )
        self._log.info("Job %s ended DONE in an earlier try, which was lost before it could report success.", job)
        outcome = self._announced(outcome)
        if self._fields.drops(is_success=True):
            self._ending(job, self._directory(record.stage_path)).clean_up(is_taken=outcome.is_taken)
        return ReturnValue(outcome.return_value, outcome.is_reference)

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

    def _read(self, outcome: Outcome) -> Outcome:
        """Read the job's log, result and files, as patiently as the task waited for the job: no other process will."""
        seconds, job = max_finish_seconds(), outcome.job
        give_up = time.time() + max_unreachable_seconds()
        with limited(seconds, lambda: out_of_time(job, seconds)):
            while True:
                is_late = outcome.verdict is Verdict.UNREACHABLE or time.time() >= give_up
                try:
                    self._mask(job)
                    end = complete(
                        self._hook.client,
                        outcome,
                        instances=self._fields.target_instances,
                        max_bytes=max_xcom_bytes(),
                        unseen_patience=max_unseen_seconds(),
                        log_patience=max_log_lag_seconds(),
                    )
                    if is_late or not end.is_cut_short:
                        return end
                except SnowflakeUnavailableError as error:
                    if is_late:
                        raise
                    self._log.warning("Could not read the end of job %s yet; trying again: %s", job, error)
                self._hook.close()
                time.sleep(min(_RETRY_SECONDS, max(0.0, give_up - time.time())))

    def _show(self, outcome: Outcome) -> None:
        """Write the rest of the job's log to the task log."""
        write_output(self._log, outcome.job, outcome.unseen)
        if not outcome.unseen and outcome.log is not None and not text.without_banners(outcome.log):
            self._log.info("Job %s has printed nothing.", outcome.job.name)
        self._log.info("Job %s ended %s.", outcome.job, outcome.status)

    def _printed(self, job_id: str, event: Mapping[str, Any]) -> Any:
        """Return the printed part of the log, with the metrics' curves, which are too large for an event."""
        printed = event.get("printed") or {}
        if not printed or not isinstance(printed, dict) or "series" in printed:
            return printed
        return {**printed, "series": self._pulled(PROGRESS_XCOM, job_id).get("series")}

    def _pulled(self, key: str, job_id: str) -> Mapping[str, Any]:
        """Return an XCom about the job that an earlier process of this try pushed; empty if Airflow fails to."""
        try:
            value = pull_page_xcom(self._ti, key)
        except Exception:  # noqa: BLE001 (any error of Airflow's: the job's end counts more)
            self._log.warning("Could not read XCom %s with facts about job %s.", key, job_id, exc_info=True)
            return {}
        return value if value.get("job_id") == job_id else {}

    def _pushable(self, outcome: Outcome) -> Outcome:
        """Return the outcome that Airflow can store; if it can't store the job's XComs, that is the task's error."""
        if not self._fields.do_xcom_push:
            return outcome
        refusal = refused(outcome, multiple_outputs=self._fields.multiple_outputs)
        if refusal is None:
            return outcome
        key, reason = refusal
        error = outcome.error or ResultError(
            f"The job is DONE, but Airflow can't store its XCom {key!r}: {reason}. The value stays in "
            f"{outcome.directory}. Return other keys, or a DataFrame, an array or a file instead."
        )
        xcoms = {name: value for name, value in outcome.xcoms.items() if name != key}
        return replace(outcome, error=error, xcoms=xcoms, return_value=None, is_reference=False, is_taken=False)

    def _announced(self, outcome: Outcome) -> Outcome:
        """Push the XComs and the assets' events; returns the outcome with the facts for lineage and metrics."""
        for key, value in outcome.xcoms.items():
            # The progress is for Airflow's pages, and no output of the task.
            if key == PROGRESS_XCOM:
                push_page_xcom(self._ti, key, value)
            elif self._fields.do_xcom_push:
                push_xcom(self._ti, key, value)
        job_id = str(outcome.job)
        self.facts = self.facts or self._pulled(JOB_XCOM, job_id)
        outcome = replace(outcome, facts=self.facts or {"job_id": job_id}, account=self._hook.account_name)
        self._outcome = outcome
        if outcome.error is None:
            assets.announce(outcome, self._fields.outlets, self._context.get("outlet_events"), self._log)
        return outcome

    def _remember(self, outcome: Outcome) -> bool:
        """Save the outcome for a retry, before anything of the job is removed.

        :returns: whether this try has to clean up the job. A later try may have attached to it meanwhile.
        """
        if not self._recovery.memory:
            return True
        record = self._recovery.recorded()
        if record is None or record.job_id != str(outcome.job):
            self._log.warning(
                "Airflow's record for this try names another job than %s; leaving the job to a later try.", outcome.job
            )
            return False
        if outcome.error is None:
            if not self._fields.do_xcom_push:
                # Values that the task doesn't push must not be stored elsewhere.
                outcome = replace(
                    outcome, xcoms={PROGRESS_XCOM: progress_of(outcome)}, return_value=None, is_reference=False
                )
            record = self._recovery.memory.save_outcome(record, outcome)
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


def _with_xcoms(outcome: Outcome) -> Outcome:
    """Return the outcome with the task's XComs and value."""
    result, tail = outcome.result, text.tail(star(text.between_banners(outcome.log or "")))
    reported = redacted(outcome.reported.to_json())
    status, timeline, artifacts = outcome.status.value, outcome.timeline, outcome.artifacts
    xcoms: dict[str, Any] = {
        "status": status,
        "timeline": timeline,
        "logs": tail,
        "metrics": reported["metrics"] or None,
        "artifacts": None if artifacts is None else with_reported(artifacts, reported["artifacts"]),
        "instances": [instance.xcom for instance in outcome.instances] or None,
        "git_commit": result.git_commit if result is not None else None,
        PROGRESS_XCOM: final_progress(str(outcome.job), status, timeline, reported),
    }
    return replace(
        outcome,
        xcoms={key: _plain(value) for key, value in xcoms.items() if value is not None},
        return_value=result.xcom if result is not None else None,
        is_reference=result is not None and result.reference is not None,
    )


def _plain(value: Any) -> Any:
    """Return a value that Airflow's database can store, and of which its API makes no object."""
    safe = jsonb_safe(value)
    return shielded(safe) if isinstance(safe, str) else safe
