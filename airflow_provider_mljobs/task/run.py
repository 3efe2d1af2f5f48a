"""One try of a task: submits a job or attaches to one, waits for it, and completes or ends it."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, AirflowTaskTimeout, TaskDeferralTimeout

from airflow_provider_mljobs.exceptions import (
    Failure,
    JobAlreadyExistsError,
    MLJobCancelledError,
    MLJobFailedError,
    MLJobQueueTimeoutError,
    ServicesLimitError,
    SnowflakeUnavailableError,
)
from airflow_provider_mljobs.hooks import MLJobHook
from airflow_provider_mljobs.jobs.attempts import NextStep, Record
from airflow_provider_mljobs.jobs.outcome.failures import Diagnosis
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.outcome.watch import Verdict, to_event
from airflow_provider_mljobs.jobs.spec.rendering import result_directory
from airflow_provider_mljobs.task import build
from airflow_provider_mljobs.task.completion import Completion, ReturnValue
from airflow_provider_mljobs.task.ending import JobEnding
from airflow_provider_mljobs.task.fields import seconds
from airflow_provider_mljobs.task.joblog import mask_environment
from airflow_provider_mljobs.task.query_tags import query_tag
from airflow_provider_mljobs.task.recovery import JobRecovery
from airflow_provider_mljobs.task.timeout_signals import disarm
from airflow_provider_mljobs.task.waiting import WorkerWait, defer, plan_wait
from airflow_provider_mljobs.task.xcoms import JOB_XCOM, job_facts, pull_xcom, push_page_xcom, push_xcom

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.sdk import Context
    from airflow.sdk.exceptions import TaskDeferralError

    from airflow_provider_mljobs.jobs.names import QualifiedName
    from airflow_provider_mljobs.jobs.outcome.wait_plan import WaitPlan
    from airflow_provider_mljobs.jobs.payload.archive import Payload
    from airflow_provider_mljobs.jobs.spec.job import JobSpec
    from airflow_provider_mljobs.task.fields import JobFields

# Covers the upload of a payload that the first of several mapped tasks has begun.
_UPLOAD_PATIENCE_SECONDS = 5.0
# Airflow kills a process for good five seconds after it has asked the process to end.
_KILL_SECONDS = 4.0
# The interval at which the log repeats that the account is full.
_REPEAT_SECONDS = 300.0


class Try:
    """One try of a task, or one of the processes of a try that was deferred.

    :param render: renders the templates in the file of a specification.
    :param show_links: writes the task's links, which Airflow would write at the end of the task only.
    :param is_killed: whether a user ended the task before the try began.
    """

    def __init__(  # noqa: PLR0913 (the parts of an operator)
        self,
        fields: JobFields,
        context: Context,
        hook: MLJobHook,
        log: Any,
        *,
        render: Callable[[str], Any] = str,
        show_links: Callable[[], None] = lambda: None,
        is_killed: bool = False,
    ) -> None:
        hook.query_tag = query_tag(context["ti"])
        self._fields = fields
        self._context = context
        self._ti = context["ti"]
        self._hook = hook
        self._log = log
        self._render = render
        self._show_links = show_links
        self._is_killed = is_killed
        self._recovery = JobRecovery(fields, context, hook, log)
        self.completion = Completion(fields, context, hook, log, self._recovery)
        self._job_id: str | None = None
        self._has_job = False
        self._is_ending = False
        self._worker_wait: WorkerWait | None = None

    def run(self) -> ReturnValue:
        """Submit a job, or attach to that of an earlier try; then wait, defer or return the job's id."""
        try:
            return self._run()
        except AirflowTaskTimeout:
            # In the worker Airflow enforces execution_timeout itself, at any point, also while this try decides about
            # the job of an earlier one.
            if self._job_id is None and self._recovery.open is not None:
                self._job_id = self._recovery.open.job_id
            if self._job_id is None:
                raise
            # The timeout may have interrupted a statement.
            self._hook.close()
            return self._complete(self._timed_out(self._job_id))
        except KeyboardInterrupt:
            # Ctrl-C of a process without a supervisor: ``airflow dags test``. No other try will come.
            self._end_interrupted()
            raise
        except (MLJobFailedError, SnowflakeUnavailableError, AirflowSkipException, AirflowFailException):
            # The job is over, or keeps running for the next try or the collector.
            raise
        except Exception:
            self._end_with_the_last_try()
            raise
        finally:
            self._hook.close()

    def complete(self, event: Mapping[str, Any] | None) -> ReturnValue:
        """Complete the task with the event of its trigger."""
        if event is None or "job_id" not in event:
            raise MLJobFailedError(
                f"The trigger's event names no job: {event!r}.", self._job_id or "?", JobStatus.UNKNOWN
            )
        try:
            return self._complete(event)
        finally:
            self._hook.close()

    def event_after(self, error: TaskDeferralError | TaskDeferralTimeout) -> dict[str, Any]:
        """Return the event of a job that has ended although its trigger failed.

        A job that still runs is for the next try; without a next try, or out of time, it is ended.

        :raises TaskDeferralError: the same error, if the job has not ended.
        """
        try:
            job_id, stage_path = pull_xcom(self._ti, "job_id"), pull_xcom(self._ti, "stage_path")
            if job_id is None:
                raise error
            status = self.completion.status(job_id)
            if status is None or not status.is_terminal:
                if isinstance(error, TaskDeferralTimeout) or not self._recovery.has_next_try:
                    self.completion.give_up(job_id, stage_path, is_killed=self._is_killed)
                raise error
            self._log.warning(
                "The deferral failed: %s. Job %s has ended %s; reading its result.", error, job_id, status
            )
            return _ended(job_id, status, stage_path)
        finally:
            self._hook.close()

    def kill(self) -> None:
        """Cancel the job because a user ended the task while a worker holds it; ``run`` continues and cleans up."""
        if self._fields.kill_action == "none" or self._is_ending:
            # Only the end of the job is missing, for this process or for the next try.
            return
        if not self._has_job:
            # The submit, or the attach, checks this.
            self._is_killed = True
            return
        # The signal may have interrupted a request to Airflow, for which a second request waits: it needs a thread.
        killing = Thread(target=self._kill, name="mljobs-kill", daemon=True)
        killing.start()
        killing.join(_KILL_SECONDS)

    def _run(self) -> ReturnValue:
        decision = self._recovery.decide()
        queue_seconds = seconds(self._fields.queue_timeout)
        queue_deadline = None if queue_seconds is None else time.time() + queue_seconds
        record, status = decision.record, decision.status
        if decision.next_step is NextStep.RETURN:
            disarm()
            self._announce(record)
            return self.completion.return_saved(record)
        if decision.next_step is NextStep.ATTACH:
            self._log.info("Found job %s (%s) from an earlier try; attaching to it.", record.job_id, status)
            self._has_job = True
            self._announce(record, submitted_at=decision.submitted_at)
            if self._is_ended():
                # The kill came before the job was found.
                self._cancel(self._hook, self._hook.job(record.job_id))
        else:
            record = self._submit_patiently(record, queue_deadline)
        if not self._fields.wait_for_completion:
            # One text, also where the function's value would be a dict.
            return ReturnValue(record.job_id, is_single=True)
        if status is not None and status.is_terminal:
            return self._complete(_ended(record.job_id, status, record.stage_path))
        plan = self._plan(record, queue_deadline)
        # After a kill, this process waits for the end of the job to clean up.
        if self._fields.deferrable and not self._is_killed:
            defer(plan, self._fields.snowflake_conn_id)
        return self._complete(self._wait(plan))

    def _announce(self, record: Record, *, submitted_at: str | None = None) -> None:
        """Push the name and place of the job, for people and for this try's next process."""
        self._job_id = record.job_id
        push_xcom(self._ti, "job_id", record.job_id)
        if record.stage_path is not None:
            push_xcom(self._ti, "stage_path", record.stage_path)
        self._push_facts(record, submitted_at=submitted_at)

    def _push_facts(self, record: Record, **submit: str | None) -> None:
        self.completion.facts = job_facts(self._fields, self._hook, record, **submit)
        push_page_xcom(self._ti, JOB_XCOM, self.completion.facts)

    def _submit_patiently(self, record: Record, deadline: float | None) -> Record:
        """Submit a job; while the account has its maximum of services, wait for one to end."""
        logged_at = 0.0
        while True:
            try:
                return self._submit(record)
            except JobAlreadyExistsError:
                # A kill must not end the job of another task.
                self._job_id = None
                other = self._recovery.renamed(record)
                if other is None:
                    raise
                record = other
            except ServicesLimitError as error:
                # A timeout has no job to end.
                self._job_id = None
                if deadline is not None and time.time() >= deadline:
                    timeout = MLJobQueueTimeoutError(
                        f"Job {record.job_id} could not be submitted within the task's queue_timeout. {error.message} "
                        "Drop jobs that are over, e.g. with: airflow mljobs gc",
                        record.job_id,
                        JobStatus.UNKNOWN,
                    )
                    raise Diagnosis(failure=Failure.CAPACITY).put_into(timeout) from error
                if time.time() - logged_at >= _REPEAT_SECONDS:
                    self._log.info("Waiting to submit job %s: %s", record.job_id, error.message)
                    logged_at = time.time()
                self._hook.close()
                time.sleep(self._fields.poll_interval)

    def _submit(self, record: Record) -> Record:
        """Start the job. The record has its name before, in case this process dies in the submit."""
        spec = self._spec(record)
        # Variables with secret names are masked, also where a statement or the job's log contains them.
        mask_environment(spec.env_vars)
        client = self._hook.client
        if self._fields.spec is not None:
            # Airflow reads the files of tasks that aren't mapped itself, in prepare_template.
            self._fields = self._fields.with_specification(self._render)
            source = build.specification_source(self._fields, self._hook.namespace)
            start: Callable[[], object] = partial(client.submit_specification, spec, source)
        else:
            payload, arguments = self._payload(), self._fields.pack_arguments()
            # The first of several mapped tasks uploads the payload of all.
            patience = _UPLOAD_PATIENCE_SECONDS if (self._ti.map_index or 0) > 0 else 0.0
            place = client.upload(spec, payload, pickled=arguments.pickled, patience=patience)
            self._log.info("Image of job %s: %s", record.job_id, client.runtimes.image(spec))
            record = replace(record, stage_path=str(result_directory(spec, place)))
            start = partial(client.submit, spec, place, arguments, payload.copies)
        record = replace(record, intended_at=time.time())
        self._recovery.memory.save(record)
        self._announce(record)
        if self._is_ended():
            raise MLJobCancelledError(
                f"The task was ended before its job {record.job_id} was submitted.", record.job_id, JobStatus.UNKNOWN
            )
        start()
        self._has_job = True
        record = record.submitted()
        self._recovery.memory.save(record)
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._push_facts(record, submitted_at=now, query_id=client.connection.query_id)
        self._log.info("Submitted job %s on compute pool %s.", record.job_id, spec.compute_pool)
        self._warn_without_warehouse()
        if self._is_ended():
            # The kill came during the submit.
            self._cancel(self._hook, spec.name)
        return self._recovery.settle(record)

    def _warn_without_warehouse(self) -> None:
        if self._hook.client.connection.warehouse is not None:
            return
        named = self._hook.default_warehouse
        reason = "names none" if named is None else f"names {named}, which doesn't exist or the role may not use"
        self._log.warning(
            "The session has no warehouse: connection %s %s. The job runs, but neither the job history nor the event "
            "table (logs that have left their node, metrics, events) can be read. Set warehouse in the connection.",
            self._fields.snowflake_conn_id, reason,
        )  # fmt: skip

    def _payload(self) -> Payload:
        return build.payload_of(self._fields, self._hook.namespace)

    def _spec(self, record: Record) -> JobSpec:
        return build.job_spec(
            self._fields,
            self._hook.job(record.job_id).name,
            comment=self._recovery.origin.to_comment(),
            query_tag=query_tag(self._ti),
            environment=build.environment_of(self._context),
            namespace=self._hook.namespace,
            warehouse=self._hook.default_warehouse,
        )

    def _plan(self, record: Record, queue_deadline: float | None) -> WaitPlan:
        limit, kill_action = self._fields.execution_timeout, self._fields.kill_action
        return plan_wait(
            record.job_id,
            poll_interval=self._fields.poll_interval,
            log_interval=self._fields.log_interval,
            # Airflow doesn't enforce execution_timeout while a task is deferred.
            deadline=None if limit is None else self._ti.start_date.timestamp() + limit.total_seconds(),
            queue_deadline=queue_deadline,
            timeout=seconds(self._fields.timeout),
            cancel_on_timeout=True,
            cancel_on_kill=kill_action != "none",
            drop_on_kill=kill_action == "drop",
            stage_path=record.stage_path,
        )

    def _wait(self, plan: WaitPlan) -> dict[str, Any]:
        self._show_links()
        self._worker_wait = WorkerWait(self._hook, plan, self._log, self._ti)
        return self._worker_wait.event()

    def _timed_out(self, job_id: str) -> dict[str, Any]:
        """Return the event of a wait that Airflow has ended."""
        if self._worker_wait is not None:
            return self._worker_wait.timeout_event()
        return to_event(job_id, Verdict.TIMED_OUT, JobStatus.UNKNOWN, stage_path=pull_xcom(self._ti, "stage_path"))

    def _complete(self, event: Mapping[str, Any]) -> ReturnValue:
        # The job is over, and max_finish_seconds limits the rest.
        disarm()
        self._is_ending = True
        self._has_job = False
        self._job_id = str(event["job_id"])
        return self.completion.finish(event, is_killed=self._is_killed)

    def _kill(self) -> None:
        if self._recovery.is_for_next_try():
            self._log.info(
                "Worker is shutting down; job %s keeps running and the next try will attach to it.", self._job_id
            )
            return
        self._is_killed = True
        self._log.info("The task was ended; cancelling job %s.", self._job_id)
        # A connection of its own: the signal may have interrupted a statement on the task's.
        with MLJobHook(self._fields.snowflake_conn_id, query_tag=self._hook.query_tag) as hook:
            self._cancel(hook, hook.job(str(self._job_id)))

    def _cancel(self, hook: MLJobHook, job: QualifiedName) -> None:
        JobEnding(client=hook.client, job=job, log=self._log).cancel()

    def _is_ended(self) -> bool:
        """Return whether a user has ended the task, after a kill that may have another cause."""
        self._is_killed = self._is_killed and not self._recovery.is_for_next_try()
        return self._is_killed

    def _end_interrupted(self) -> None:
        """End the job as a user's kill does, also one whose submit was interrupted."""
        if self._job_id is None or self._fields.kill_action == "none" or self._is_ending:
            return
        self._is_killed = True
        self._hook.close()
        self._log.info("Interrupted; cancelling job %s. Interrupt again to leave it running.", self._job_id)
        self.completion.give_up(self._job_id, pull_xcom(self._ti, "stage_path"), is_killed=True)

    def _end_with_the_last_try(self) -> None:
        """End the job of a try that has failed for another reason, unless a later try will attach to it."""
        if self._recovery.has_next_try:
            return
        if self._has_job and self._job_id is not None:
            self.completion.give_up(self._job_id, pull_xcom(self._ti, "stage_path"), is_killed=self._is_killed)
        elif (record := self._recovery.open) is not None:
            self.completion.give_up(record.job_id, record.stage_path, is_killed=self._is_killed)


def _ended(job_id: str, status: JobStatus, stage_path: str | None) -> dict[str, Any]:
    """Return the event of a job that was over before the wait began."""
    return to_event(job_id, Verdict.FINISHED, status, stage_path=stage_path)
