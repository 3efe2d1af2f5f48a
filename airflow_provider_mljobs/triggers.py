"""The wait for a job, deferred."""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.gateway.completion import abandon
from airflow_provider_mljobs.gateway.watching import look, tell
from airflow_provider_mljobs.jobs.identifiers import QualifiedName
from airflow_provider_mljobs.jobs.status import JobStatus
from airflow_provider_mljobs.jobs.watch import JobWatch, pause, to_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import Future

    from airflow_provider_mljobs.gateway.watching import Sight
    from airflow_provider_mljobs.hooks import MLJobHook

T = TypeVar("T")

# The loop's default pool has a handful of threads for all triggers of the process; a slow Snowflake must not take them.
_THREADS = ThreadPoolExecutor(max_workers=8, thread_name_prefix="mljobs")
# A task that nobody refers to may be collected before it is done.
_CANCELLATIONS: set[asyncio.Task[None]] = set()
_JITTER = 0.1
_RETRY_SECONDS = 5.0
# Workers were seen to report their exit up to 5.2 s late (Airflow 3.3.2, LocalExecutor).
_SETTLE_SECONDS = 8.0


class MLJobTrigger(BaseTrigger):
    """Waits until a job is over, on one kept-open connection, and survives what is transient.

    It always ends with one event that resumes the task; the task decides what the end means. The arguments hold no
    secret: Airflow stores them as they are.

    :param job_id: fully qualified name of the job.
    :param snowflake_conn_id: the Airflow connection.
    :param poll_interval: most seconds between two looks at the job; a young job is looked at more often.
    :param deadline: when the job has to be over, in seconds since the epoch: it means the same after a restart.
    :param patience: for how many seconds Snowflake may be unreachable before the wait is given up.
    :param cancel_on_kill: whether the job is cancelled when a user ends the task.
    :param drop_on_kill: whether a job that was cancelled is dropped, too.
    :param stage_path: the job's directory on the stage; ``None`` if it has none.
    """

    def __init__(  # noqa: PLR0913 (Airflow stores them one by one)
        self,
        job_id: str,
        snowflake_conn_id: str,
        *,
        poll_interval: float = 10.0,
        deadline: float | None = None,
        patience: float = 600.0,
        cancel_on_kill: bool = True,
        drop_on_kill: bool = False,
        stage_path: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.job_id = job_id
        self.snowflake_conn_id = snowflake_conn_id
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.patience = patience
        self.cancel_on_kill = cancel_on_kill
        self.drop_on_kill = drop_on_kill
        self.stage_path = stage_path

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, from which any triggerer builds the trigger again."""
        return (
            "airflow_provider_mljobs.triggers.MLJobTrigger",
            {
                "job_id": self.job_id,
                "snowflake_conn_id": self.snowflake_conn_id,
                "poll_interval": self.poll_interval,
                "deadline": self.deadline,
                "patience": self.patience,
                "cancel_on_kill": self.cancel_on_kill,
                "drop_on_kill": self.drop_on_kill,
                "stage_path": self.stage_path,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the job until it is over, then fire one event."""
        hook = await _in_thread(self._hook)
        watch = JobWatch(deadline=self.deadline, patience=self.patience)
        status, started = JobStatus.UNKNOWN, time.time()
        looking: Future[tuple[JobWatch, Sight]] | None = None
        try:
            while True:
                looking = _submit(partial(look, hook.client, self._job, watch, time.time()))
                watch, seen = await asyncio.wrap_future(looking)
                tell(self.log, self._job, status, seen)
                status = seen.status
                if seen.verdict.is_final:
                    await self._settle(started)
                    yield TriggerEvent(
                        to_event(self.job_id, seen.verdict, seen.status, seen.message, stage_path=self.stage_path)
                    )
                    return
                # After a restart all triggers begin at the same moment; they should not ask at the same moment.
                seconds = pause(time.time() - started, self.poll_interval)
                await asyncio.sleep(seconds * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311
        finally:
            # Not awaited: this also runs when the trigger is cancelled, maybe in the middle of a look.
            _submit(partial(_close, hook, looking))

    async def on_kill(self) -> None:
        """Cancel the job because a user ended the task.

        Airflow cancels this method after about a second, whatever its settings say, so the work is a task of its own.
        """
        if not self.cancel_on_kill:
            return
        task = asyncio.create_task(self._end_job())
        _CANCELLATIONS.add(task)
        task.add_done_callback(_CANCELLATIONS.discard)
        await asyncio.shield(task)

    async def _settle(self, started: float) -> None:
        """Wait until the worker that deferred the task is surely done with it.

        It may report its exit some seconds after the deferral. A task that was queued again by then looks to the
        scheduler as if it had ended without a word, and is failed. In ``dag.test()`` there is no such worker.
        """
        if self.task_instance is not None:
            await asyncio.sleep(max(0.0, started + _SETTLE_SECONDS - time.time()))

    async def _end_job(self) -> None:
        """Cancel the job, patiently: nobody else will."""
        give_up = time.time() + self.patience
        while True:
            try:
                return await _in_thread(self._cancel_if_killed)
            except Exception:  # Airflow's API or Snowflake, both tried again and told
                if time.time() >= give_up:
                    command = statements.cancel_job(self._job)
                    self.log.exception("Job %s may still be running; stop it with: %s", self.job_id, command)
                    return None
                self.log.warning("Could not cancel job %s yet.", self.job_id, exc_info=True)
            await asyncio.sleep(min(_RETRY_SECONDS, self.patience))

    def _cancel_if_killed(self) -> None:
        if self._is_still_deferred():
            self.log.info("Another triggerer has taken job %s over; it goes on.", self.job_id)
            return
        self.log.info("The task was ended; cancelling job %s.", self.job_id)
        with self._hook() as hook:
            directory = hook.stage(self.stage_path) if self.stage_path else None
            abandon(hook.client, self._job, directory, self.log, drop=self.drop_on_kill)

    def _is_still_deferred(self) -> bool:
        """Tell a rebalance between triggerers from a kill: Airflow calls ``on_kill`` for both.

        After a clear the new try may be deferred already, with another job: both the state and the job have to match.
        """
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
        from airflow.sdk.execution_time.xcom import XCom

        ti = self.task_instance
        if ti is None:
            return False
        states = RuntimeTaskInstance.get_task_states(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
        )
        key = ti.task_id if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
        if states.get(ti.run_id, {}).get(key) != "deferred":
            return False
        current = XCom.get_one(
            key="job_id", dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index
        )
        return bool(current == self.job_id)

    @property
    def _job(self) -> QualifiedName:
        return QualifiedName.parse(self.job_id, "job", None, None)

    def _hook(self) -> MLJobHook:
        # Imported here: Airflow imports trigger modules on the event loop.
        from airflow_provider_mljobs.hooks import MLJobHook

        return MLJobHook(self.snowflake_conn_id)


def _submit(function: Callable[[], T]) -> Future[T]:
    """Run blocking work off the loop, with the caller's context: Airflow's connection look-up needs it."""
    return _THREADS.submit(contextvars.copy_context().run, function)


async def _in_thread(function: Callable[[], T]) -> T:
    return await asyncio.wrap_future(_submit(function))


def _close(hook: MLJobHook, looking: Future[Any] | None) -> None:
    """Close a connection once nobody uses it: what still runs on it would open it again."""
    if looking is not None:
        wait([looking])
    hook.close()
