"""The sensor: waits for a job that it has not submitted, and never ends it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowSensorTimeout, AirflowSkipException

from airflow_provider_mljobs.exceptions import (
    GatewayError,
    InvalidJobSpecError,
    JobNotFoundError,
    MLJobError,
    MLJobFailedError,
    ResultError,
    SnowflakeUnavailableError,
)
from airflow_provider_mljobs.jobs.outcome.status import JobStatus, Phase
from airflow_provider_mljobs.jobs.outcome.watch import TimelineEntry, Verdict, to_event
from airflow_provider_mljobs.jobs.values.portability import jsonb_safe
from airflow_provider_mljobs.links import SnowsightLink
from airflow_provider_mljobs.task.query_tags import query_tag
from airflow_provider_mljobs.task.settings import (
    max_finish_seconds,
    max_log_lag_seconds,
    max_unseen_seconds,
    max_xcom_bytes,
)
from airflow_provider_mljobs.task.waiting import WorkerWait, defer, plan_wait
from airflow_provider_mljobs.task.xcoms import push_xcom, snowsight_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow.sdk import Context

    from airflow_provider_mljobs.hooks import MLJobHook
    from airflow_provider_mljobs.jobs.names import QualifiedName, StagePath

# A worker may report its exit some seconds after a deferral; a task that is queued again by then is failed.
_MIN_DEFERRAL_SECONDS = 10.0


class MLJobSensor(BaseSensorOperator):
    """Wait until a job is DONE that another task, another program or a person has submitted.

    The job is given by its id, or is the newest whose name fits a pattern. The sensor never cancels or drops it. Its
    log is in the task log; XCom has ``return_value`` (the job's id, or with ``result`` the job's return value),
    ``job_id``, ``status`` and ``timeline``. A job that doesn't end DONE fails the task with
    :class:`~airflow_provider_mljobs.exceptions.MLJobFailedError` or one of its subclasses, as it fails the task of an
    :class:`~airflow_provider_mljobs.operators.MLJobOperator`; with ``soft_fail`` the task is skipped instead.
    Example::

        MLJobSensor(task_id="nightly", name_pattern="NIGHTLY_{{ ds_nodash }}%", schema="ml", deferrable=True)

    :param job_id: the job: ``[[db.]schema.]name``. It must have been submitted before. (templated)
    :param name_pattern: instead, a pattern of SQL's LIKE for its name: ``%`` stands for any text, ``_`` for one
        character; case doesn't matter. The task waits until such a job exists; of several it takes the newest, which
        may have ended. (templated)
    :param database: database of the job; the connection's by default. (templated)
    :param schema: schema of the job; the connection's by default. Without either, a pattern is searched in the whole
        account. (templated)
    :param result: read the job's result; the task fails if there is none.
    :param snowflake_conn_id: the Airflow connection. (templated)
    :param deferrable: wait in the triggerer instead of holding a worker.
    :param poll_interval: maximum seconds between two looks at the job; a young job is looked at more often.
    :param log_interval: seconds between two looks at the log of a running job; 0 shows the log at the end.

    Of the parameters of Airflow's sensors, ``timeout`` bounds the whole wait, for the job to appear and to end;
    ``poke_interval`` is the pause between two looks for a job that doesn't exist yet. ``mode="reschedule"`` looks every
    ``poke_interval`` seconds and shows the log at the end; a deferrable sensor doesn't need it.

    :raises InvalidJobSpecError: when the arguments name no job, or two.
    """

    template_fields: Sequence[str] = ("job_id", "name_pattern", "database", "schema", "snowflake_conn_id")
    operator_extra_links = (SnowsightLink(),)
    ui_color = "#d5f0fa"

    # For the link: the address of the job's page.
    snowsight = ""

    def __init__(  # noqa: PLR0913 (the parameters of a wait)
        self,
        *,
        job_id: str | None = None,
        name_pattern: str | None = None,
        database: str | None = None,
        schema: str | None = None,
        result: bool = False,
        snowflake_conn_id: str = "snowflake_default",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 10.0,
        log_interval: float = 10.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (job_id is None) == (name_pattern is None):
            raise InvalidJobSpecError("Pass either job_id or name_pattern.")
        if not poll_interval > 0 or not log_interval >= 0:
            raise InvalidJobSpecError(
                "poll_interval must be more than 0 seconds, and log_interval a number of seconds, or 0 for none; "
                f"got {poll_interval!r} and {log_interval!r}."
            )
        self.job_id = job_id
        self.name_pattern = name_pattern
        self.database = database
        self.schema = schema
        self.result = result
        self.snowflake_conn_id = snowflake_conn_id
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.log_interval = log_interval

    @cached_property
    def hook(self) -> MLJobHook:
        """The connection that the task uses."""
        # Imported here: it loads a database toolkit that no DAG file needs.
        from airflow_provider_mljobs.hooks import MLJobHook

        return MLJobHook(self.snowflake_conn_id, database=self.database, schema=self.schema)

    def execute(self, context: Context) -> Any:
        """Find the job and wait for it, or defer."""
        if self.mode == "reschedule" and not self.deferrable:
            return super().execute(context)
        return self.look(context, deadline=time.time() + self.timeout)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once, for Airflow's own loop."""
        with self._ending(context):
            job = self._find()
            status = JobStatus.UNKNOWN if job is None else self._status(job)
            if job is None or not status.is_terminal:
                return PokeReturnValue(is_done=False)
            return PokeReturnValue(is_done=True, xcom_value=self._finish(context, _ended(job, status)))

    def look(self, context: Context, event: Mapping[str, Any] | None = None, *, deadline: float) -> Any:  # noqa: ARG002 (Airflow passes it)
        """Find the job and wait for it.

        :param event: of the trigger after which to look again.
        :param deadline: until when to wait, in seconds since the epoch.
        """
        with self._ending(context):
            while (job := self._find()) is None:
                self._pause(deadline)
            self.log.info("Waiting for job %s.", job)
            self._show_link(job)
            status = self._status(job)
            if status.is_terminal:
                return self._finish(context, _ended(job, status))
            plan = plan_wait(
                str(job),
                poll_interval=self.poll_interval,
                log_interval=self.log_interval,
                deadline=deadline,
                cancel_on_kill=False,
            )
            if self.deferrable:
                defer(plan, self.snowflake_conn_id)
            return self._finish(context, WorkerWait(self.hook, plan, self.log).event())

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Resume the task at the end of the job."""
        with self._ending(context):
            return self._finish(context, event)

    @contextmanager
    def _ending(self, context: Context) -> Iterator[None]:
        """Tag the session, close it at the end, and skip the task after a failure as its parameters say."""
        self.hook.query_tag = query_tag(context["ti"])
        failures = (MLJobError,) if self.never_fail else (MLJobFailedError,)
        try:
            yield
        except (AirflowSensorTimeout, *failures) as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(str(error)) from error
            raise
        finally:
            self.hook.close()

    def _find(self) -> QualifiedName | None:
        """Return the job; ``None`` if it doesn't exist yet."""
        if self.name_pattern is None:
            if not self.job_id:
                raise InvalidJobSpecError("job_id is empty.")
            return self.hook.job(self.job_id)
        try:
            job = self.hook.newest(self.name_pattern)
        except SnowflakeUnavailableError as error:
            self.log.warning("Could not look for jobs like %s; trying again: %s", self.name_pattern, error)
            return None
        if job is None:
            self.log.info("No job like %s exists yet.", self.name_pattern)
        return job

    def _pause(self, deadline: float) -> None:
        """Wait before the next look for a job."""
        remaining = deadline - time.time()
        if remaining <= 0:
            raise AirflowSensorTimeout(f"Found no job like {self.name_pattern} within {self.timeout:g} s.")
        pause = min(self.poke_interval, remaining)
        if not self.deferrable:
            time.sleep(pause)
            return
        from airflow.providers.standard.triggers.temporal import DateTimeTrigger

        at = datetime.now(UTC) + timedelta(seconds=max(pause, _MIN_DEFERRAL_SECONDS))
        self.defer(trigger=DateTimeTrigger(at), method_name="look", kwargs={"deadline": deadline})

    def _status(self, job: QualifiedName) -> JobStatus:
        try:
            sighting = self.hook.client.look_for(job, patience=max_unseen_seconds())
        except SnowflakeUnavailableError as error:
            self.log.warning("Could not check job %s; it keeps running: %s", job, error)
            return JobStatus.UNKNOWN
        if sighting.status is None:
            raise JobNotFoundError(
                f"Job {job} does not exist, or the role of connection {self.snowflake_conn_id} may not see it. Use "
                f"name_pattern instead of job_id to wait for a job that is submitted later. {sighting.why}"
            )
        return sighting.status

    def _finish(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Show the log, push XComs, and return the value or raise the job's failure."""
        from airflow_provider_mljobs.gateway.joblogs import Printed
        from airflow_provider_mljobs.gateway.outcome import Outcome, complete
        from airflow_provider_mljobs.task.completion import out_of_time
        from airflow_provider_mljobs.task.joblog import mask_job, write_output
        from airflow_provider_mljobs.task.masking import star
        from airflow_provider_mljobs.task.timeout_signals import limited

        job, status, verdict = self.hook.job(event["job_id"]), JobStatus(event["status"]), Verdict(event["verdict"])
        self._show_link(job)
        if verdict is Verdict.TIMED_OUT:
            # The sensor has not submitted the job, so it does not end it.
            raise AirflowSensorTimeout(
                f"Job {job} is still {status} after the sensor's timeout of {self.timeout:g} s; it keeps running."
            )
        seconds = max_finish_seconds()
        with limited(seconds, lambda: out_of_time(job, seconds)):
            if verdict is not Verdict.UNREACHABLE:
                # Before anything of the job is shown.
                mask_job(self.hook.client, job)
            printed = Printed.restored(event["printed"], self.log, star)
            outcome = Outcome.of_event(event, job, self._directory(job, status), printed)
            outcome = complete(
                self.hook.client, outcome, max_bytes=max_xcom_bytes(), log_patience=max_log_lag_seconds()
            )
        write_output(self.log, job, outcome.unseen)
        self.log.info("Job %s ended %s.", job, outcome.status)
        if self.do_xcom_push:
            xcoms = {"job_id": str(job), "status": outcome.status.value, "timeline": outcome.timeline}
            for key, value in xcoms.items():
                push_xcom(context["ti"], key, jsonb_safe(value))
        if outcome.error is not None:
            raise outcome.error
        return outcome.result.xcom if self.result and outcome.result is not None else str(job)

    def _show_link(self, job: QualifiedName) -> None:
        self.snowsight = snowsight_url(self.hook.account_name, job)

    def _directory(self, job: QualifiedName, status: JobStatus) -> StagePath | None:
        """Return the directory of the job's result, if the sensor's value or the payload's exception needs it."""
        is_wanted = self.result and status is JobStatus.DONE
        if not is_wanted and status is not JobStatus.FAILED:
            return None
        try:
            return self.hook.client.directory(job)
        except (ResultError, GatewayError) as error:
            if is_wanted:
                raise ResultError(f"Job {job} is DONE, but the place of its result is unknown: {error}") from error
            return None


def _ended(job: QualifiedName, status: JobStatus) -> dict[str, Any]:
    """Build the event of a job that was over before the wait."""
    timeline = [TimelineEntry(Phase.FINISHING, time.time(), status.value)]
    return to_event(str(job), Verdict.FINISHED, status, timeline=timeline)
