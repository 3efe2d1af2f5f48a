"""The trigger: a deferred wait for a job."""

from __future__ import annotations

import asyncio
import contextvars
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.jobs.comment import TaskKey
from airflow_provider_mljobs.jobs.outcome.wait_plan import WaitPlan
from airflow_provider_mljobs.task import task_states
from airflow_provider_mljobs.task.airflow_internals import is_inline
from airflow_provider_mljobs.task.ending import JobEnding
from airflow_provider_mljobs.task.joblog import TaskLog, Watched
from airflow_provider_mljobs.task.xcoms import PROGRESS_XCOM, pull_job_id, pull_page_xcom

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from concurrent.futures import Future

    from airflow_provider_mljobs.hooks import MLJobHook, Wait

T = TypeVar("T")

# The loop's default pool has a handful of threads for all triggers of the process; a slow Snowflake must not take them.
_THREADS = ThreadPoolExecutor(max_workers=8, thread_name_prefix="mljobs")
# A kill may wait for a connection for minutes; that must not keep other triggers from beginning.
_KILLS = ThreadPoolExecutor(max_workers=8, thread_name_prefix="mljobs-kill")
# asyncio only holds weak references: without these, a running task may be garbage-collected.
_CANCELLATIONS: set[asyncio.Task[None]] = set()
_RETRY_SECONDS = 5.0
# Workers were seen to report their exit up to 5.2 s late (Airflow 3.3.2, LocalExecutor).
_SETTLE_SECONDS = 8.0
# Task states with a wait for the job, now or later. A task that is scheduled or queued may have been cleared.
_WAITED_FOR = frozenset({"deferred", "running", "up_for_retry"})


class MLJobTrigger(BaseTrigger):
    """Wait until a job is over, and survive transient failures.

    All triggers of a process that log in alike share one watcher: one listing of jobs at a time, on one session, for
    any number of jobs. The job's output goes to the task's log while it runs.

    It always ends with one event, which resumes the task; the task decides about success or failure. The arguments hold
    no secret, since Airflow stores them as they are.

    :param job_id: fully qualified name of the job.
    :param snowflake_conn_id: the Airflow connection.
    :param arguments: the others of :class:`~airflow_provider_mljobs.jobs.outcome.wait_plan.WaitPlan`, by name: until
        when to wait, and how.
    """

    def __init__(self, job_id: str, snowflake_conn_id: str, **arguments: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.plan = WaitPlan(job_id=job_id, **arguments)
        self.snowflake_conn_id = snowflake_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, from which any triggerer builds the trigger again."""
        arguments = {"snowflake_conn_id": self.snowflake_conn_id, **asdict(self.plan)}
        return "airflow_provider_mljobs.triggers.MLJobTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait until the job is over, then fire one event."""
        loop, began = asyncio.get_running_loop(), time.time()
        ended: asyncio.Future[dict[str, Any]] = loop.create_future()
        keep = None if self.task_instance is None else Watched(self.task_instance, self.plan.job)
        task_log = TaskLog(self.log, self.plan.job, partial(_hand_over, loop, ended), keep)
        beginning = _submit(_THREADS, partial(self._begin, task_log))
        try:
            await asyncio.wrap_future(beginning)
            event = await ended
        except asyncio.CancelledError:
            if is_inline():
                # Ctrl-C ends this process, and Airflow won't call on_kill.
                await self.on_kill()
            raise
        finally:
            # The trigger may be cancelled while a thread is still beginning the wait.
            beginning.add_done_callback(_stop)
        if self.task_instance is not None:
            # The worker that deferred the task may report its exit some seconds later. A task that is queued again by
            # then looks to the scheduler as if its worker had died, and is failed. dag.test() has no such worker.
            await asyncio.sleep(max(0.0, began + _SETTLE_SECONDS - time.time()))
        if task_log.is_kept:
            # Airflow writes the whole event to the task's log; the curves, which are most of it, are in XCom.
            event["printed"].pop("series", None)
        yield TriggerEvent(event)

    async def on_kill(self) -> None:
        """Cancel the job because a user ended the task.

        Airflow cancels this method after about a second, regardless of its settings, so the work is a task of its own.
        """
        if not self.plan.cancel_on_kill:
            return
        task = asyncio.create_task(self._end_job())
        _CANCELLATIONS.add(task)
        task.add_done_callback(_CANCELLATIONS.discard)
        await asyncio.shield(task)

    def _begin(self, task_log: TaskLog) -> Wait:
        state = self._earlier_state()
        if state:
            self.log.info(
                "Another triggerer watched job %s until %.40s; log lines since then may appear twice.",
                self.plan.job_id,
                state["shown_until"],
            )
        return self._hook().follow(self.plan, task_log, state=state, mask=task_log.mask)

    def _earlier_state(self) -> Mapping[str, Any]:
        """Return the state of an earlier triggerer, from XCom: a trigger can't write its own arguments."""
        if self.task_instance is None:
            return {}
        try:
            state = pull_page_xcom(self.task_instance, PROGRESS_XCOM)
        except Exception:  # noqa: BLE001 (a trigger that fails would end a healthy job)
            self.log.warning(
                "Could not read XCom %s; log lines of job %s may appear twice.", PROGRESS_XCOM, self.plan.job_id
            )
            return {}
        # The end of a task leaves a state without a place in the log.
        is_ours = state.get("job_id") == self.plan.job_id and "shown_until" in state
        return state if is_ours else {}

    async def _end_job(self) -> None:
        """Cancel the job, and retry for as long as the wait is patient: no other process will."""
        give_up = time.time() + self.plan.patience
        while True:
            try:
                return await asyncio.wrap_future(_submit(_KILLS, self._cancel_if_killed))
            except Exception:  # of Airflow's API or Snowflake
                if time.time() >= give_up:
                    command = statements.cancel_job(self.plan.job)
                    self.log.exception("Could not cancel job %s; it may still run. Run: %s", self.plan.job_id, command)
                    return None
                self.log.warning("Could not cancel job %s; trying again.", self.plan.job_id, exc_info=True)
            await asyncio.sleep(min(_RETRY_SECONDS, self.plan.patience))

    def _cancel_if_killed(self) -> None:
        if self._is_waited_for():
            self.log.info("Another triggerer has taken over job %s; it keeps running.", self.plan.job_id)
            return
        self.log.info("The task was ended; cancelling job %s.", self.plan.job_id)
        with self._hook() as hook:
            ending = JobEnding(
                client=hook.client,
                job=self.plan.job,
                directory=hook.stage(self.plan.stage_path) if self.plan.stage_path else None,
                log=self.log,
                patience=self.plan.unseen_patience,
            )
            ending.abandon(drop=self.plan.drop_on_kill, ti=self.task_instance)

    def _is_waited_for(self) -> bool:
        """Return whether the task still waits for the job: Airflow also calls ``on_kill`` to move a trigger.

        After a clear the new try may be deferred already, with another job: both the state and the job have to match.
        """
        ti = self.task_instance
        if ti is None:
            return False
        task = TaskKey(airflow="", dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=ti.map_index)
        if task_states.of_api([task]).get(task) not in _WAITED_FOR:
            return False
        return bool(pull_job_id(ti) == self.plan.job_id)

    def _hook(self) -> MLJobHook:
        # Imported here: Airflow imports trigger modules on the event loop.
        from airflow_provider_mljobs.hooks import MLJobHook
        from airflow_provider_mljobs.task.query_tags import query_tag

        hook = MLJobHook(self.snowflake_conn_id)
        if self.task_instance is not None:
            hook.query_tag = query_tag(self.task_instance)
        return hook


def _submit(threads: ThreadPoolExecutor, function: Callable[[], T]) -> Future[T]:
    """Run blocking work off the loop, in the caller's context, which selects the task's log."""
    return threads.submit(contextvars.copy_context().run, function)


def _stop(beginning: Future[Wait]) -> None:
    if not beginning.cancelled() and beginning.exception() is None:
        beginning.result().stop()


def _hand_over(loop: asyncio.AbstractEventLoop, ended: asyncio.Future[dict[str, Any]], event: dict[str, Any]) -> None:
    """Pass an event from a thread to the coroutine that waits for it."""

    def set_event() -> None:
        if not ended.done():
            ended.set_result(event)

    # On a loop that is closed, no coroutine waits.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(set_event)
