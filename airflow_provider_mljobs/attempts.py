"""Which job a try of a task works with: a new one, or one that an earlier try has left."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from airflow.sdk.execution_time.context import NEVER_EXPIRE

from airflow_provider_mljobs import assembly
from airflow_provider_mljobs.exceptions import NotFoundOrNotAuthorizedError
from airflow_provider_mljobs.jobs.identifiers import Identifier, QualifiedName
from airflow_provider_mljobs.jobs.origin import Origin
from airflow_provider_mljobs.jobs.record import Progress, Record, Step
from airflow_provider_mljobs.jobs.status import JobStatus

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from airflow.sdk import Context

    from airflow_provider_mljobs.jobs.identifiers import StagePath
    from airflow_provider_mljobs.operators import MLJobOperator

# In the task state store, which survives retries and clears of the task, and goes with its DAG run.
KEY = "mljob"
# Of a DAG run that was deleted and repeated.
_NO_EPOCH = -1
# Containers have 30 seconds to end; then they are killed.
_END_SECONDS = 90.0
_LOOK_AGAIN_SECONDS = 1.0
# Airflow kills a process for good five seconds after it has asked it to end.
_ANSWER_SECONDS = 2.0


@dataclass(frozen=True)
class Beginning:
    """How a try begins.

    :param step: what it does.
    :param record: its job, which may not have been submitted yet.
    :param status: where the job stands, if it is there.
    """

    step: Step
    record: Record
    status: JobStatus | None = None


class Attempts:
    """The jobs of a task instance, over all of its tries.

    :param task: the task.
    :param context: its try's.
    """

    def __init__(self, task: MLJobOperator, context: Context) -> None:
        self._task = task
        self.origin = assembly.origin_of(task, context)
        self._store = context.get("task_state_store") if task.durable else None

    def begin(self) -> Beginning:
        """Decide which job this try works with, and end the one that must not go on beside it."""
        if not self._task.durable:
            return Beginning(Step.SUBMIT_ANOTHER, self._new(self.origin.try_number))
        record = self.recorded()
        if record is None and (self._store is None or self.origin.try_number > 1):
            record = self._look_up()
        if record is None:
            return Beginning(Step.SUBMIT_ANOTHER, self._new(self.origin.try_number))
        status = None if record.progress is Progress.SUCCEEDED else self._status(record)
        step = record.next_step(self.origin.epoch, status, waits=self._task.wait_for_completion)
        match step:
            case Step.START_OVER:
                self._end(record, status)
                return Beginning(step, self._new(self.origin.try_number))
            case Step.SUBMIT_ANOTHER:
                self._end(record, status)
                return Beginning(step, self._new(max(self.origin.try_number, record.attempt + 1)))
        return Beginning(step, record, status)

    def after(self, record: Record) -> Record | None:
        """Return what to submit instead of a job whose name is taken; ``None`` if the name should be this task's own.

        A DAG run that was deleted and repeated finds the names of its first life taken.
        """
        comment = self._task.hook.client.describe(self._job(record))["comment"]
        origin = Origin.parse(comment)
        if origin is None or origin.task != self.origin.task:
            return None
        return self._new(record.attempt + 1)

    def remember(self, record: Record) -> None:
        """Note how far the task has come, for the try after this one."""
        if self._store is not None:
            self._store.set(KEY, record.to_json(), retention=NEVER_EXPIRE)

    def recorded(self) -> Record | None:
        """Return what an earlier try, or an earlier phase of this one, has noted."""
        document = self._store.get(KEY) if self._store is not None else None
        if document is None:
            return None
        try:
            return Record.from_json(document)
        except ValueError as error:
            self._task.log.warning("Looking for the job by its name: what the task state store has is %s", error)
            return self._look_up()

    def is_superseded(self) -> bool:
        """Tell whether Airflow has given this try up, and begun another: a worker that was away is killed, too.

        To ask may take longer than a process has that is killed, or never end where the signal came in the middle of
        another question; then it is no answer.
        """
        store = self._store
        if store is None:
            return False
        answers: SimpleQueue[bool] = SimpleQueue()
        # Airflow finds nothing for the id of a try that isn't the last one.
        Thread(target=lambda: answers.put(store.get(KEY) is None), daemon=True).start()
        with suppress(Empty):
            return answers.get(timeout=_ANSWER_SECONDS)
        return False

    def _new(self, attempt: int) -> Record:
        name = self.origin.task.job_name(self.origin.epoch, attempt)
        return Record(job_id=str(self._task.hook.job(str(name))), epoch=self.origin.epoch, attempt=attempt)

    def _look_up(self) -> Record | None:
        """Return the newest job of the task instance, by names and COMMENTs."""
        task, job = self.origin.task, self._job(self._new(self.origin.try_number))
        beginning = task.job_name(0, 0).value.removesuffix("0_0")
        rows = self._task.hook.client.list(job, beginning)
        found = [record for row in rows if (record := self._read(job, row)) is not None]
        return max(found, key=lambda record: (record.epoch, record.attempt), default=None)

    def _read(self, job: QualifiedName, row: Mapping[str, Any]) -> Record | None:
        """Read a row of a listing of jobs; ``None`` if it isn't this task instance's job."""
        origin, name = Origin.parse(row["comment"]), str(row["name"])
        number = name.rpartition("_")[2]
        if origin is None or origin.task != self.origin.task or not number.isdecimal():
            return None
        if name != origin.task.job_name(origin.epoch, int(number)).value:
            return None
        return Record(
            job_id=str(replace(job, name=Identifier(name))),
            epoch=origin.epoch if origin.run_started == self.origin.run_started else _NO_EPOCH,
            attempt=int(number),
            progress=Progress.SUBMITTED,
            stage_path=self._place(origin.payload, name),
        )

    def _place(self, payload: str, name: str) -> str | None:
        """Return a job's own directory, by what its COMMENT says of its payload."""
        if not payload or self._task.stage_name is None:
            return None
        return str(self._task.hook.stage(self._task.stage_name) / payload / name)

    def _job(self, record: Record) -> QualifiedName:
        return self._task.hook.job(record.job_id)

    def _status(self, record: Record) -> JobStatus | None:
        """Return where a job stands; ``None`` if it isn't there, whatever became of it."""
        try:
            return JobStatus(self._task.hook.client.describe(self._job(record))["status"])
        except NotFoundOrNotAuthorizedError:
            return None

    def _end(self, record: Record, status: JobStatus | None) -> None:
        """End a job that this try doesn't go on with, and wait until it has ended: there is one live job at a time."""
        from airflow_provider_mljobs.gateway.completion import abandon

        task, job = self._task, self._job(record)
        if status is None or (status.is_terminal and not task.wait_for_completion):
            return
        client = task.hook.client
        if not status.is_terminal:
            task.log.info(
                "Cancelling job %s of an earlier try, which is %s, before another one is submitted.", job, status
            )
            client.cancel(job)
            if not self._has_ended(record):
                task.log.warning("Job %s doesn't end; it is dropped.", job)
                client.drop(job)
                return
        if task.on_finish == "drop":
            directory: StagePath | None = task.hook.stage(record.stage_path) if record.stage_path else None
            task.mask(job)
            abandon(client, job, directory, task.log, drop=True)

    def _has_ended(self, record: Record) -> bool:
        give_up = time.time() + _END_SECONDS
        while time.time() < give_up:
            status = self._status(record)
            if status is None or status.is_terminal:
                return True
            time.sleep(_LOOK_AGAIN_SECONDS)
        return False
