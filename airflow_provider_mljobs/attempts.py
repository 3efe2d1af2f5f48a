"""Which job a try of a task works with: a new one, or one that an earlier try has left."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowException
from airflow.sdk.execution_time.context import NEVER_EXPIRE

from airflow_provider_mljobs import assembly, taskstates
from airflow_provider_mljobs.alarms import held_back
from airflow_provider_mljobs.exceptions import GatewayError, NotFoundOrNotAuthorizedError
from airflow_provider_mljobs.jobs.identifiers import Identifier
from airflow_provider_mljobs.jobs.origin import Origin
from airflow_provider_mljobs.jobs.record import Epoch, Left, Progress, Record, Step
from airflow_provider_mljobs.jobs.status import JobStatus

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from airflow.sdk import Context
    from pydantic import JsonValue

    from airflow_provider_mljobs.hooks import MLJobHook
    from airflow_provider_mljobs.jobs.identifiers import QualifiedName
    from airflow_provider_mljobs.operators import MLJobOperator

# In the task state store, which survives retries and clears of the task, and goes with its DAG run.
KEY = "mljob"
# What a job has left stands in pieces beside the record: Airflow warns of values of more than 64 KB.
_PIECE_KEY, _PIECE_CHARACTERS = "mljob_left_{number}", 60_000
# For a crash between the end of a job and that of its task.
_LEFT_RETENTION = timedelta(days=7)
# Containers have 30 seconds to end; then they are killed.
_END_SECONDS = 90.0
_LOOK_AGAIN_SECONDS = 1.0
# The states of a task that nobody has ended; that of one that somebody has cleared is "restarting" until this process
# has ended.
_GOING_ON = frozenset({"up_for_retry", "scheduled", "queued", "running", "deferred"})


@dataclass(frozen=True)
class Beginning:
    """How a try begins.

    :param step: what it does.
    :param record: its job, which may not have been submitted yet.
    :param status: where the job stands, if it is there.
    :param submitted_at: when it was submitted, if it is there, as ISO 8601.
    """

    step: Step
    record: Record
    status: JobStatus | None = None
    submitted_at: str | None = None


class Attempts:
    """The jobs of a task instance, over all of its tries.

    :param task: the task.
    :param context: its try's.
    """

    def __init__(self, task: MLJobOperator, context: Context) -> None:
        self._task = task
        self.origin = assembly.origin_of(task, context)
        self._epoch = Epoch(max_tries=self.origin.epoch, clear_number=getattr(context["dag_run"], "clear_number", 0))
        self._store = context.get("task_state_store") if task.durable else None
        # The live job of an earlier try, as long as this one has not decided about it.
        self.open: Record | None = None
        self._other: MLJobHook | None = None

    @property
    def remembers(self) -> bool:
        """Whether a retry will know how far this try has come."""
        return self._store is not None

    @property
    def is_lost(self) -> bool:
        """Whether a retry would look for the job, and find nothing but that."""
        return self._task.durable and self._store is None

    @property
    def may_go_on(self) -> bool:
        """Whether there may be a try that goes on with this one's job."""
        return self._task.durable and self.origin.try_number <= self.origin.epoch

    def begin(self) -> Beginning:
        """Decide which job this try works with, and end the one that must not go on beside it."""
        record = self._found() if self._task.durable else None
        if record is None:
            return Beginning(Step.SUBMIT, self._new(self.origin.try_number))
        task = self._task
        # One by another connection can't be waited for by this one.
        is_here = record.snowflake_conn_id == task.snowflake_conn_id or record.progress is Progress.SUCCEEDED
        row = None if record.progress is Progress.SUCCEEDED else self._own_row(record)
        status = _status_in(row)
        self.open = record if is_here and record.is_open and status is not None else None
        step = record.next_step(
            self._epoch,
            status,
            waits=task.wait_for_completion,
            takes_failures=task.skip_on_exit_code is not None or task.fail_on_exit_code is not None,
        )
        if step is Step.SUBMIT and is_here:
            # Anew: what the task says of schema and stage may have changed meanwhile.
            record = self._new(record.attempt)
        elif step is Step.SUBMIT_ANOTHER or not is_here:
            self._end(record, status)
            step, record, status = Step.SUBMIT_ANOTHER, self._new(max(self.origin.try_number, record.attempt + 1)), None
        self._leave_others()
        self.open = None
        submitted_at = None if status is None or row is None else row["created_on"].isoformat(timespec="milliseconds")
        return Beginning(step, record, status, submitted_at)

    def renamed(self, record: Record) -> Record | None:
        """Return what to submit instead of a job whose name is taken; ``None`` if nobody but its owner can help.

        A DAG run that was deleted and repeated finds the names of its first life taken.
        """
        row = self._row(record)
        origin = None if row is None else Origin.parse(row["comment"])
        if origin is None or origin.task != self.origin.task:
            return None
        return self._new(record.attempt + 1)

    def remember(self, record: Record) -> None:
        """Note how far the task has come, for the try after this one."""
        if self._store is not None:
            with held_back():
                self._store.set(KEY, record.to_json(), retention=NEVER_EXPIRE)

    def remember_left(self, record: Record, left: Left) -> None:
        """Note what a job has left, and then that it has ended well."""
        if self._store is None:
            return
        text = json.dumps(left.to_json())
        starts = range(0, len(text), _PIECE_CHARACTERS)
        for number, start in enumerate(starts):
            piece: JsonValue = {"of": len(starts), "text": text[start : start + _PIECE_CHARACTERS]}
            self._store.set(_PIECE_KEY.format(number=number), piece, retention=_LEFT_RETENTION)
        self.remember(record.succeeded())

    def recall_left(self) -> Left | None:
        """Return what the job of a record that says so has left; ``None`` if it is remembered no more."""
        texts: list[str] = []
        while self._store is not None:
            piece = self._store.get(_PIECE_KEY.format(number=len(texts)))
            if not isinstance(piece, dict):
                return None
            texts.append(str(piece["text"]))
            if len(texts) == piece["of"]:
                return Left(**json.loads("".join(texts)))
        return None

    def recorded(self) -> Record | None:
        """Return what an earlier try, or an earlier phase of this one, has noted."""
        if self._store is None:
            return None
        with held_back():
            document = self._store.get(KEY)
        if document is None:
            return None
        try:
            return Record.from_json(document)
        except ValueError as error:
            self._task.log.warning("The task state store has %s. Looking for the job by its name.", error)
            return self._look_up()

    def is_for_another_try(self) -> bool:
        """Tell whether this process is killed though nobody has ended the task: its job is for the next try.

        A worker that is shut down is killed, and one that was away for so long that Airflow has given it up.
        """
        if self._store is None or not self.may_go_on:
            return False
        try:
            with held_back():
                state = taskstates.of_api([self.origin.task]).get(self.origin.task)
        except Exception:  # whatever Airflow has to say
            # A worker that Airflow doesn't hear is killed, too. If somebody has ended the task, the collector will see.
            self._task.log.warning("Airflow doesn't tell whether the task goes on; its job does.", exc_info=True)
            return True
        return state in _GOING_ON

    def _found(self) -> Record | None:
        """Return what is known of the jobs of earlier tries."""
        record = self.recorded()
        if record is None and (self._store is None or self.origin.try_number > 1):
            return self._look_up()
        return record

    def _new(self, attempt: int) -> Record:
        name = self.origin.task.job_name(self._epoch.max_tries, attempt)
        return Record(
            job_id=str(self._task.hook.job(str(name))),
            snowflake_conn_id=self._task.snowflake_conn_id,
            epoch=self._epoch,
            run_started=self.origin.run_started,
            attempt=attempt,
        )

    def _look_up(self) -> Record | None:
        """Return the newest job of the task instance, by names and COMMENTs."""
        task, job = self.origin.task, self._task.hook.job(self._new(self.origin.try_number).job_id)
        beginning = task.job_name(0, 0).value.removesuffix("0_0")
        rows = self._task.hook.client.list(job, beginning)
        found = [record for row in rows if (record := self._read(job, row)) is not None]
        return max(found, key=lambda record: (record.epoch.max_tries, record.attempt), default=None)

    def _read(self, job: QualifiedName, row: Mapping[str, Any]) -> Record | None:
        """Read a row of a listing of jobs; ``None`` if it isn't this task instance's job."""
        origin, name = Origin.parse(row["comment"]), str(row["name"])
        if origin is None or origin.task != self.origin.task or not origin.is_called(name):
            return None
        max_tries, attempt = (int(part) for part in name.rsplit("_", 2)[1:])
        if max_tries == self._epoch.max_tries and origin.run_started != self.origin.run_started:
            # Of a DAG run that was deleted and repeated.
            return None
        return Record(
            job_id=str(replace(job, name=Identifier(name))),
            snowflake_conn_id=self._task.snowflake_conn_id,
            epoch=replace(self._epoch, max_tries=max_tries),
            run_started=origin.run_started,
            attempt=attempt,
            progress=Progress.SUBMITTED,
            stage_path=self._place(origin.payload, name),
        )

    def _place(self, payload: str, name: str) -> str | None:
        """Return a job's own directory, by what its COMMENT says of its payload."""
        if not payload or self._task.stage_name is None:
            return None
        return str(self._task.hook.stage(self._task.stage_name) / payload / name)

    def _hook(self, record: Record) -> MLJobHook:
        """Return the connection by which a job was submitted."""
        if record.snowflake_conn_id == self._task.snowflake_conn_id:
            return self._task.hook
        if self._other is None:
            from airflow_provider_mljobs.hooks import MLJobHook

            self._other = MLJobHook(record.snowflake_conn_id, query_tag=self._task.hook.query_tag)
        return self._other

    def _leave_others(self) -> None:
        if self._other is not None:
            self._other.close()
            self._other = None

    def _row(self, record: Record) -> dict[str, Any] | None:
        """Describe a job; ``None`` if there is none of that name."""
        hook = self._hook(record)
        try:
            return hook.client.describe(hook.job(record.job_id))
        except NotFoundOrNotAuthorizedError:
            return None

    def _own_row(self, record: Record) -> dict[str, Any] | None:
        """Describe a job of the task; ``None`` if it isn't there, whatever became of it.

        A job of that name that somebody else has made, or an earlier life of the DAG run, isn't it.
        """
        try:
            row = self._row(record)
        except (GatewayError, AirflowException) as error:
            if record.snowflake_conn_id == self._task.snowflake_conn_id:
                raise
            # That one may be gone for good.
            self._task.log.warning(
                "Job %s may still run; connection %s can't be asked: %s", record.job_id, record.snowflake_conn_id, error
            )
            return None
        if row is None:
            return None
        ours = replace(self.origin, epoch=record.epoch.max_tries, run_started=record.run_started)
        return row if ours.is_same_attempt(Origin.parse(row["comment"])) else None

    def _end(self, record: Record, status: JobStatus | None) -> None:
        """End a job that this try doesn't go on with, and wait until it has ended: there is one live job at a time."""
        from airflow_provider_mljobs.gateway.completion import discard
        from airflow_provider_mljobs.tasklog import mask_job

        task = self._task
        if status is None or (status.is_terminal and not task.wait_for_completion):
            return
        hook = self._hook(record)
        client, job = hook.client, hook.job(record.job_id)
        if not status.is_terminal:
            task.log.info("Cancelling job %s of an earlier try, which is %s, before another is submitted.", job, status)
            client.cancel(job)
            if not self._has_ended(record):
                task.log.warning("Job %s doesn't end; it is dropped.", job)
                client.drop(job)
                return
        if task.on_finish == "drop":
            mask_job(client, job)
            discard(client, job, hook.stage(record.stage_path) if record.stage_path else None, task.log)

    def _has_ended(self, record: Record) -> bool:
        give_up = time.time() + _END_SECONDS
        while time.time() < give_up:
            status = _status_in(self._own_row(record))
            if status is None or status.is_terminal:
                return True
            time.sleep(_LOOK_AGAIN_SECONDS)
        return False


def _status_in(row: Mapping[str, Any] | None) -> JobStatus | None:
    return None if row is None else JobStatus(row["status"])
