"""Which job a try of a task works with: a new one, or one that an earlier try has left."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowException
from airflow.sdk.execution_time.context import NEVER_EXPIRE

from airflow_provider_mljobs.exceptions import GatewayError, JobNotFoundError, UnreadableError
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.gateway.descriptions import is_in
from airflow_provider_mljobs.jobs.attempts import Epoch, Left, Progress, Record, Step
from airflow_provider_mljobs.jobs.comment import TASKS_JOB, Origin
from airflow_provider_mljobs.jobs.names import Identifier, QualifiedName
from airflow_provider_mljobs.jobs.outcome.sightings import Sighting
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.untrusted import reading
from airflow_provider_mljobs.task import build, task_states
from airflow_provider_mljobs.task.settings import max_unseen_seconds
from airflow_provider_mljobs.task.timeout_signals import held_back

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from airflow.sdk import Context
    from pydantic import JsonValue

    from airflow_provider_mljobs.hooks import MLJobHook
    from airflow_provider_mljobs.operators import MLJobOperator

# In the task state store, which survives retries and clears of the task, and goes with its DAG run.
KEY = "mljob"
# What a job has left stands in pieces beside the record: Airflow warns of values of more than 64 KB.
_PIECE_KEY, _PIECE_CHARACTERS = "mljob_left_{number}", 60_000
# For a crash between the end of a job and that of its task.
_LEFT_RETENTION = timedelta(days=7)
# A submit may take effect after the process that has sent it is gone.
_SUBMIT_SECONDS = 30.0
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
        self.origin = build.origin_of(task, context)
        self._epoch = Epoch(max_tries=self.origin.epoch, clear_number=getattr(context["dag_run"], "clear_number", 0))
        self._store = context.get("task_state_store") if task.durable else None
        # The live job of an earlier try, as long as this one has not decided about it.
        self.open: Record | None = None
        # By other connections than the task's, with which earlier tries have submitted.
        self._others: dict[str, MLJobHook] = {}

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
        # From the first look on: that may take long, and end with this try.
        self.open = record if is_here and record.progress is Progress.SUBMITTED else None
        sighting = None if record.progress is Progress.SUCCEEDED else self._look_for(record)
        status = None if sighting is None else _status_of_job(record, sighting)
        self.open = record if is_here and record.is_open and status is not None else None
        step = record.next_step(
            self._epoch,
            status,
            waits=task.wait_for_completion,
            takes_failures=task.skip_on_exit_code is not None or task.fail_on_exit_code is not None,
        )
        if step is Step.SUBMIT and is_here:
            # Schema and stage of the task may have changed since the last try.
            new = self._new(record.attempt)
            record = new.after(record, has_ended=new.job_id == record.job_id)
        elif step is Step.SUBMIT_ANOTHER or not is_here:
            new = self._new(max(self.origin.try_number, record.attempt + 1))
            has_ended = self._end(record, sighting)
            step, record, status = Step.SUBMIT_ANOTHER, new.after(record, has_ended=has_ended), None
        else:
            record = self.settle(record)
        self._leave_others()
        self.open = None
        row = None if status is None or sighting is None else sighting.row
        submitted_at = None if row is None else row["created_on"].isoformat(timespec="milliseconds")
        return Beginning(step, record, status, submitted_at)

    def settle(self, record: Record) -> Record:
        """End the jobs of earlier attempts that have appeared since, and return the record without them.

        A submit may take effect after its worker is gone, and after the task has submitted another job. An error here
        concerns those jobs only: they stay in the record.
        """
        unseen = tuple(earlier for earlier in record.unseen if not self._has_settled(earlier))
        if unseen != record.unseen:
            record = replace(record, unseen=unseen)
            self.remember(record)
        self._leave_others()
        return record

    def _has_settled(self, earlier: Record) -> bool:
        try:
            sighting = self._look(earlier)
            return self._end(earlier, sighting)
        except (GatewayError, AirflowException) as error:
            self._task.log.warning("Could not check job %s of an earlier try: %s", earlier.job_id, error)
            return False

    def renamed(self, record: Record) -> Record | None:
        """Return what to submit instead of a job whose name is taken; ``None`` if nobody but its owner can help.

        A DAG run that was deleted and repeated finds the names of its first life taken.
        """
        job = self._task.hook.job(record.job_id)
        row = self._task.hook.client.look_for(job, needs_row=True).row
        origin = None if row is None else Origin.parse(row["comment"])
        if origin is None or origin.task != self.origin.task:
            return None
        return replace(self._new(record.attempt + 1), unseen=record.unseen)

    def remember(self, record: Record) -> None:
        """Note how far the task has come, for the try after this one."""
        if self._store is not None:
            with held_back():
                self._store.set(KEY, record.to_json(), retention=NEVER_EXPIRE)

    def remember_left(self, record: Record, left: Left) -> Record:
        """Note what a job has left, and then that it has ended well; returns the record that says so."""
        record = record.succeeded()
        if self._store is None:
            return record
        text = json.dumps(left.to_json())
        starts = range(0, len(text), _PIECE_CHARACTERS)
        for number, start in enumerate(starts):
            piece: JsonValue = {"of": len(starts), "text": text[start : start + _PIECE_CHARACTERS]}
            self._store.set(_PIECE_KEY.format(number=number), piece, retention=_LEFT_RETENTION)
        self.remember(record)
        return record

    def recall_left(self) -> Left | None:
        """Return what the job of a record that says so has left; ``None`` if it is remembered no more."""
        texts: list[str] = []
        try:
            while self._store is not None:
                piece = self._store.get(_PIECE_KEY.format(number=len(texts)))
                if not isinstance(piece, dict):
                    return None
                with reading("The saved result"):
                    texts.append(str(piece["text"]))
                    is_last = len(texts) == piece["of"]
                if is_last:
                    return Left.parse("".join(texts))
        except UnreadableError as error:
            self._task.log.warning("%s", error)
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
                state = task_states.of_api([self.origin.task]).get(self.origin.task)
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
        """Return the newest job of the task instance, by names and COMMENTs; with its other live jobs as unseen."""
        client = self._task.hook.client
        job = self._task.hook.job(self._new(self.origin.try_number).job_id)
        beginning = self.origin.task.job_name(0, 0).value.removesuffix("0_0")
        rows = client.list(job.namespace, beginning)
        if self.origin.try_number > 1:
            listed = {row["name"] for row in rows}
            rows += [
                self._described(each)
                for each in client.living(job.namespace, beginning)
                if each.name.value not in listed
            ]
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
        row = self._task.hook.client.look_for(job, patience=max_unseen_seconds(), needs_row=True).row
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
            # The name says whose job it is, but not whether it is of an earlier life of the DAG run: it is ended.
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
            snowflake_conn_id=self._task.snowflake_conn_id,
            epoch=replace(self._epoch, max_tries=max_tries),
            run_started=run_started,
            attempt=attempt,
            progress=Progress.SUBMITTED,
            stage_path=self._place(payload, name),
        )

    def _place(self, payload: str, name: str) -> str | None:
        """Return a job's own directory, by what its COMMENT says of its payload."""
        if not payload or self._task.stage_name is None:
            return None
        return str(self._task.hook.stage(self._task.stage_name) / payload / name)

    def _hook(self, record: Record) -> MLJobHook:
        """Return the connection by which a job was submitted."""
        conn_id = record.snowflake_conn_id
        if conn_id == self._task.snowflake_conn_id:
            return self._task.hook
        if conn_id not in self._others:
            from airflow_provider_mljobs.hooks import MLJobHook

            self._others[conn_id] = MLJobHook(conn_id, query_tag=self._task.hook.query_tag)
        return self._others[conn_id]

    def _leave_others(self) -> None:
        while self._others:
            self._others.popitem()[1].close()

    def _look_for(self, record: Record) -> Sighting | None:
        """Look at a job until it is seen, for as long as it may take to be seen; as :meth:`_look`."""
        sighting = self._look(record)
        if sighting is None or sighting.row is not None:
            return sighting
        # The history shows a job of that name; only its description says whether it is the task's.
        needs_row = sighting.lives and record.progress is Progress.INTENDED
        patience = max_unseen_seconds() if needs_row else self._patience(record)
        if not patience or not (needs_row or sighting.is_unseen):
            return sighting
        self._task.log.info("Waiting up to %.0f s for job %s of an earlier try to appear.", patience, record.job_id)
        return self._look(record, patience=patience, needs_row=needs_row)

    def _patience(self, record: Record) -> float:
        """Return for how many seconds a job that isn't seen may still appear."""
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
            client = self._hook(record).client
            sighting = client.look_for(job, patience=patience, needs_row=needs_row) if patience else client.look(job)
        except (GatewayError, AirflowException) as error:
            if record.snowflake_conn_id == self._task.snowflake_conn_id:
                raise
            # That connection may have been removed for good.
            self._task.log.warning(
                "Job %s may still run; connection %s can't be asked: %s", record.job_id, record.snowflake_conn_id, error
            )
            return Sighting(why=str(error))
        return sighting if sighting.row is None or self._is_ours(record, job, sighting.row) else None

    def _is_ours(self, record: Record, job: QualifiedName, row: Mapping[str, Any]) -> bool:
        """Check whether a job of a record's name is the one that the record means.

        Once it was submitted, name and record are enough: anybody with the right to do so can change a COMMENT. Before
        that, the name may be an earlier life's of the DAG run, or another task's.
        """
        if record.progress is not Progress.INTENDED:
            return True
        origin = Origin.parse(row["comment"])
        if origin is None:
            return record.stage_path is not None and is_in(self._hook(record).stage(record.stage_path), job, row)
        ours = replace(self.origin, epoch=record.epoch.max_tries, run_started=record.run_started)
        return ours.is_same_attempt(origin)

    def _end(self, record: Record, sighting: Sighting | None) -> bool:
        """End a job that this try doesn't wait for: there is one live job at a time.

        :returns: whether the job is known to have ended. One that was never seen may still appear.
        """
        from airflow_provider_mljobs.task.ending import JobEnding

        task = self._task
        if sighting is None or (sighting.has_ended and not task.wait_for_completion):
            return True
        if _status_of_job(record, sighting) is None:
            return not record.is_open or (sighting.has_ended and record.progress is Progress.SUBMITTED)
        hook = self._hook(record)
        directory = hook.stage(record.stage_path) if record.stage_path else None
        ending = JobEnding(client=hook.client, job=hook.job(record.job_id), directory=directory, log=task.log)
        return ending.replace(sighting, drop=task.on_finish == "drop")


def _status_of_job(record: Record, sighting: Sighting) -> JobStatus | None:
    """Return where a try finds the job of a record; ``None`` if there is none to go on with."""
    if sighting.row is None and (sighting.has_ended or record.progress is Progress.INTENDED):
        # A job that was dropped, or a job of that name in an earlier life of the DAG run.
        return None
    return sighting.status
