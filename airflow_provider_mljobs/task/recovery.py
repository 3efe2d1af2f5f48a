"""Decides which job a try of a task works with: a new one, or that of an earlier try."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowException

from airflow_provider_mljobs.exceptions import GatewayError, JobNotFoundError, UnreadableError
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.gateway.descriptions import is_in
from airflow_provider_mljobs.jobs.attempts import Epoch, NextStep, Progress, Record
from airflow_provider_mljobs.jobs.comment import TASKS_JOB, Origin
from airflow_provider_mljobs.jobs.names import Identifier, QualifiedName
from airflow_provider_mljobs.jobs.outcome.sightings import Sighting
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.task import build, task_states
from airflow_provider_mljobs.task.ending import JobEnding
from airflow_provider_mljobs.task.memory import JobMemory
from airflow_provider_mljobs.task.settings import max_unseen_seconds
from airflow_provider_mljobs.task.timeout_signals import held_back

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from airflow.sdk import Context

    from airflow_provider_mljobs.hooks import MLJobHook
    from airflow_provider_mljobs.task.fields import JobFields

# A submit may take effect after its process is gone.
_SUBMIT_SECONDS = 30.0
# The states of a task that no user has ended. A cleared task is "restarting" until this process has ended.
_ACTIVE_STATES = frozenset({"up_for_retry", "scheduled", "queued", "running", "deferred"})


@dataclass(frozen=True)
class Decision:
    """The job that a try works with, and the first step.

    :param record: the job, which may not have been submitted yet.
    :param status: its status; ``None`` if there is no such job.
    :param submitted_at: the time of its submit as ISO 8601; ``None`` if there is no such job.
    """

    next_step: NextStep
    record: Record
    status: JobStatus | None = None
    submitted_at: str | None = None


class JobRecovery:
    """The jobs of a task instance, over all of its tries."""

    def __init__(self, fields: JobFields, context: Context, hook: MLJobHook, log: Any) -> None:
        self._fields = fields
        self._hook = hook
        self._log = log
        self.origin = build.origin_of(fields, context)
        self._epoch = Epoch(max_tries=self.origin.epoch, clear_number=getattr(context["dag_run"], "clear_number", 0))
        self.memory = JobMemory(context.get("task_state_store") if fields.durable else None, log)
        # The live job of an earlier try, while this try decides about it.
        self.open: Record | None = None
        # Connections of earlier tries that differ from the task's.
        self._others: dict[str, MLJobHook] = {}

    @property
    def is_lost(self) -> bool:
        """Whether a retry would look for the job, with nothing but its name."""
        return self._fields.durable and not self.memory

    @property
    def has_next_try(self) -> bool:
        """Whether a later try may attach to the job of this one."""
        return self._fields.durable and self.origin.try_number <= self.origin.epoch

    def decide(self) -> Decision:
        """Decide which job this try works with, and end any other live job of the task."""
        record = self._earlier() if self._fields.durable else None
        if record is None:
            return Decision(NextStep.SUBMIT, self._new(self.origin.try_number))
        # This connection can't wait for a job of another one.
        is_here = self._is_here(record) or record.progress is Progress.SUCCEEDED
        # Set before the first look, which may take long and end with this try.
        self.open = record if is_here and record.progress is Progress.SUBMITTED else None
        sighting = None if record.progress is Progress.SUCCEEDED else self._look_for(record)
        status = None if sighting is None else _status_of_job(record, sighting)
        self.open = record if is_here and record.is_open and status is not None else None
        step = record.next_step(
            self._epoch,
            status,
            waits=self._fields.wait_for_completion,
            takes_failures=self._fields.takes_failures,
        )
        if step is NextStep.SUBMIT and is_here:
            # Schema and stage of the task may have changed since the last try.
            new = self._new(record.attempt)
            record = new.after(record, has_ended=new.job_id == record.job_id)
        elif step is NextStep.SUBMIT_ANOTHER or not is_here:
            new = self._new(max(self.origin.try_number, record.attempt + 1))
            has_ended = self._end(record, sighting)
            step, record, status = NextStep.SUBMIT_ANOTHER, new.after(record, has_ended=has_ended), None
        else:
            record = self.settle(record)
        self._close_others()
        self.open = None
        row = None if status is None or sighting is None else sighting.row
        submitted_at = None if row is None else row["created_on"].isoformat(timespec="milliseconds")
        return Decision(step, record, status, submitted_at)

    def settle(self, record: Record) -> Record:
        """End the jobs of earlier attempts that have appeared since, and return the record without them.

        A submit may take effect after its worker is gone, and after the task has submitted another job. An error here
        concerns those jobs only: they stay in the record.
        """
        unseen = tuple(earlier for earlier in record.unseen if not self._has_settled(earlier))
        if unseen != record.unseen:
            record = replace(record, unseen=unseen)
            self.memory.save(record)
        self._close_others()
        return record

    def _has_settled(self, earlier: Record) -> bool:
        try:
            sighting = self._look(earlier)
            return self._end(earlier, sighting)
        except (GatewayError, AirflowException) as error:
            self._log.warning("Could not check job %s of an earlier try: %s", earlier.job_id, error)
            return False

    def renamed(self, record: Record) -> Record | None:
        """Return the job to submit instead of one whose name is taken; ``None`` if the name's owner has to act.

        A DAG run that was deleted and repeated finds the names of its first life taken.
        """
        job = self._hook.job(record.job_id)
        row = self._hook.client.look_for(job, needs_row=True).row
        origin = None if row is None else Origin.parse(row["comment"])
        if origin is None or origin.task != self.origin.task:
            return None
        return replace(self._new(record.attempt + 1), unseen=record.unseen)

    def recorded(self) -> Record | None:
        """Return the record of an earlier try, or of an earlier phase of this one."""
        try:
            return self.memory.load()
        except UnreadableError as error:
            self._log.warning("The task state store has %s. Looking up the job by its name instead.", error)
            return self._look_up()

    def is_for_next_try(self) -> bool:
        """Return whether the job is for the next try: this process is killed, but no user has ended the task.

        Airflow kills a worker that shuts down, and one that it could not reach for too long.
        """
        if not self.memory or not self.has_next_try:
            return False
        try:
            with held_back():
                state = task_states.of_api([self.origin.task]).get(self.origin.task)
        except Exception:  # noqa: BLE001 (any error of Airflow's)
            # A worker that can't reach Airflow is killed, too. If a user has ended the task, the collector cleans up.
            self._log.warning(
                "Could not reach the Airflow API to check the task state; leaving its job running.", exc_info=True
            )
            return True
        return state in _ACTIVE_STATES

    def _earlier(self) -> Record | None:
        record = self.recorded()
        if record is None and (not self.memory or self.origin.try_number > 1):
            return self._look_up()
        return record

    def _is_here(self, record: Record) -> bool:
        return record.snowflake_conn_id == self._fields.snowflake_conn_id

    def _new(self, attempt: int) -> Record:
        name = self.origin.task.job_name(self._epoch.max_tries, attempt)
        return Record(
            job_id=str(self._hook.job(str(name))),
            snowflake_conn_id=self._fields.snowflake_conn_id,
            epoch=self._epoch,
            run_started=self.origin.run_started,
            attempt=attempt,
        )

    def _look_up(self) -> Record | None:
        """Return the newest job of the task instance, by names and COMMENTs; with its other live jobs as unseen."""
        client = self._hook.client
        job = self._hook.job(self._new(self.origin.try_number).job_id)
        beginning = self.origin.task.job_name(0, 0).value.removesuffix("0_0")
        rows = client.list(job.namespace, beginning)
        if self.origin.try_number > 1:
            listed = {row["name"] for row in rows}
            living = client.living(job.namespace, beginning)
            rows += [self._described(each) for each in living if each.name.value not in listed]
        jobs = [(record, JobStatus(row["status"])) for row in rows if (record := self._read(job, row)) is not None]
        if not jobs:
            return None
        newest, _ = max(jobs, key=lambda each: (each[0].epoch.max_tries, each[0].attempt))
        others = (record for record, status in jobs if record is not newest and not status.is_terminal)
        return replace(newest, unseen=tuple(others))

    def _described(self, job: QualifiedName) -> dict[str, Any]:
        """Describe a job that the job history shows alive.

        :raises JobNotFoundError: if it can't be described: submitting another one would make two.
        """
        row = self._hook.client.look_for(job, patience=max_unseen_seconds(), needs_row=True).row
        if row is None:
            raise JobNotFoundError(
                f"The job history shows job {job} of an earlier try running, but this role can't describe the job. "
                f"Grant the role MONITOR on the job, or end the job with: {statements.drop_service(job)}"
            )
        return dict(row)

    def _read(self, job: QualifiedName, row: Mapping[str, Any]) -> Record | None:
        """Read a row of a listing of jobs; ``None`` if it isn't this task instance's job."""
        name = str(row["name"])
        origin, parts = Origin.parse(row["comment"]), TASKS_JOB.fullmatch(name) and name.rsplit("_", 2)[1:]
        if not parts:
            return None
        max_tries, attempt = (int(part) for part in parts)
        run_started, payload = "", ""
        if origin is None:
            # The name identifies the task, but not the life of the DAG run: such a job is ended.
            max_tries = -1
        elif origin.task != self.origin.task or not origin.is_called(name):
            return None
        elif max_tries == self._epoch.max_tries and origin.run_started != self.origin.run_started:
            # Of a DAG run that was deleted and repeated.
            return None
        else:
            run_started, payload = origin.run_started, origin.payload
        return Record(
            job_id=str(replace(job, name=Identifier(name))),
            snowflake_conn_id=self._fields.snowflake_conn_id,
            epoch=replace(self._epoch, max_tries=max_tries),
            run_started=run_started,
            attempt=attempt,
            progress=Progress.SUBMITTED,
            stage_path=self._place(payload, name),
        )

    def _place(self, payload: str, name: str) -> str | None:
        """Return a job's own directory, from the payload that its COMMENT names."""
        if not payload or self._fields.stage_name is None:
            return None
        return str(self._hook.stage(self._fields.stage_name) / payload / name)

    def _hook_of(self, record: Record) -> MLJobHook:
        """Return the connection that submitted a job."""
        conn_id = record.snowflake_conn_id
        if self._is_here(record):
            return self._hook
        if conn_id not in self._others:
            from airflow_provider_mljobs.hooks import MLJobHook

            self._others[conn_id] = MLJobHook(conn_id, query_tag=self._hook.query_tag)
        return self._others[conn_id]

    def _close_others(self) -> None:
        while self._others:
            self._others.popitem()[1].close()

    def _look_for(self, record: Record) -> Sighting | None:
        """Look at a job until it is seen, for as long as it may take to appear; see :meth:`_look`."""
        sighting = self._look(record)
        if sighting is None or sighting.row is not None:
            return sighting
        # The history shows a job of that name; only its description says whether it is the task's.
        needs_row = sighting.lives and record.progress is Progress.INTENDED
        patience = max_unseen_seconds() if needs_row else self._patience(record)
        if not patience or not (needs_row or sighting.is_unseen):
            return sighting
        self._log.info("Waiting up to %.0f s for job %s of an earlier try to appear.", patience, record.job_id)
        return self._look(record, patience=patience, needs_row=needs_row)

    def _patience(self, record: Record) -> float:
        """Return how many seconds an unseen job may take to appear."""
        if record.progress is Progress.SUBMITTED:
            return max_unseen_seconds()
        new = self._new(record.attempt)
        is_same_name = (new.job_id, new.snowflake_conn_id) == (record.job_id, record.snowflake_conn_id)
        if record.progress is Progress.INTENDED and not is_same_name:
            # One name can't be submitted twice; a job of another name must not begin beside this one.
            return min(_SUBMIT_SECONDS, max(0.0, record.intended_at + _SUBMIT_SECONDS - time.time()))
        return 0.0

    def _look(self, record: Record, *, patience: float = 0.0, needs_row: bool = False) -> Sighting | None:
        """Look at a job of the task; ``None`` if the job of that name is another task's."""
        job = QualifiedName.parse(record.job_id, "job")
        try:
            client = self._hook_of(record).client
            sighting = client.look_for(job, patience=patience, needs_row=needs_row) if patience else client.look(job)
        except (GatewayError, AirflowException) as error:
            if self._is_here(record):
                raise
            # That connection may have been removed for good.
            self._log.warning(
                "Job %s may still run; connection %s failed: %s", record.job_id, record.snowflake_conn_id, error
            )
            return Sighting(why=str(error))
        return sighting if sighting.row is None or self._is_ours(record, job, sighting.row) else None

    def _is_ours(self, record: Record, job: QualifiedName, row: Mapping[str, Any]) -> bool:
        """Return whether a job with the name of a record is the job of the record.

        Once it was submitted, name and record are enough: every role with the privilege can change a COMMENT.
        Before, the name may belong to an earlier life of the DAG run, or to another task.
        """
        if record.progress is not Progress.INTENDED:
            return True
        origin = Origin.parse(row["comment"])
        if origin is None:
            return record.stage_path is not None and is_in(self._hook_of(record).stage(record.stage_path), job, row)
        ours = replace(self.origin, epoch=record.epoch.max_tries, run_started=record.run_started)
        return ours.is_same_attempt(origin)

    def _end(self, record: Record, sighting: Sighting | None) -> bool:
        """End a job that this try doesn't wait for: there is one live job at a time.

        :returns: whether the job is known to have ended. One that was never seen may still appear.
        """
        if sighting is None or (sighting.has_ended and not self._fields.wait_for_completion):
            return True
        if _status_of_job(record, sighting) is None:
            return not record.is_open or (sighting.has_ended and record.progress is Progress.SUBMITTED)
        hook = self._hook_of(record)
        directory = hook.stage(record.stage_path) if record.stage_path else None
        ending = JobEnding(client=hook.client, job=hook.job(record.job_id), directory=directory, log=self._log)
        return ending.replace(sighting, drop=self._fields.on_finish == "drop")


def _status_of_job(record: Record, sighting: Sighting) -> JobStatus | None:
    """Return the status of a record's job; ``None`` if there is no job to attach to."""
    if sighting.row is None and (sighting.has_ended or record.progress is Progress.INTENDED):
        # A job that was dropped, or a job of that name in an earlier life of the DAG run.
        return None
    return sighting.status
