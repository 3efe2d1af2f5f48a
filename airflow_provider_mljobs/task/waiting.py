"""A task's wait for its job: deferred to the triggerer, or in the worker."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import timedelta
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_mljobs.jobs.outcome.wait_plan import WaitPlan
from airflow_provider_mljobs.jobs.outcome.watch import Verdict
from airflow_provider_mljobs.task.settings import max_unreachable_seconds, max_unseen_seconds

if TYPE_CHECKING:
    from airflow_provider_mljobs.hooks import MLJobHook

# Airflow's own timeout of a deferral is for the case that no trigger reports the deadline.
_DEFER_GRACE_SECONDS = 60.0


def plan_wait(job_id: str, **arguments: Any) -> WaitPlan:
    """Return a plan with the patience that the deployment is configured for.

    :param arguments: see :class:`~airflow_provider_mljobs.jobs.outcome.wait_plan.WaitPlan`.
    """
    return WaitPlan(
        job_id=job_id, patience=max_unreachable_seconds(), unseen_patience=max_unseen_seconds(), **arguments
    )


def defer(plan: WaitPlan, snowflake_conn_id: str) -> NoReturn:
    """Defer a task until its job is over; ``execute_complete`` resumes it."""
    # Imported here: DAG files don't need it.
    from airflow_provider_mljobs.triggers import MLJobTrigger

    trigger, timeout = MLJobTrigger(snowflake_conn_id=snowflake_conn_id, **asdict(plan)), None
    if plan.deadline is not None:
        timeout = timedelta(seconds=plan.deadline - time.time() + plan.poll_interval + _DEFER_GRACE_SECONDS)
    raise TaskDeferred(trigger=trigger, method_name="execute_complete", timeout=timeout)


class WorkerWait:
    """A wait in this process, by the same watcher as the trigger's.

    :param ti: the task instance whose XComs get the job's progress; ``None`` for no XComs.
    """

    def __init__(self, hook: MLJobHook, plan: WaitPlan, log: Any, ti: Any = None) -> None:
        from airflow_provider_mljobs.task.joblog import TaskLog, Watched

        self._events: SimpleQueue[dict[str, Any]] = SimpleQueue()
        task_log = TaskLog(log, plan.job, self._events.put, None if ti is None else Watched(ti, plan.job))
        self._wait = hook.follow(plan, task_log, mask=task_log.mask)

    def event(self) -> dict[str, Any]:
        """Wait for the end, and return its event."""
        try:
            return self._events.get()
        finally:
            # No other wait in this process uses the session.
            self._wait.close()

    def timeout_event(self) -> dict[str, Any]:
        """Return the event of a wait that Airflow's ``execution_timeout`` has interrupted."""
        return self._wait.follower.event(Verdict.TIMED_OUT, time.time())
