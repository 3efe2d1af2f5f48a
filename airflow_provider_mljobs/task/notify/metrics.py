"""Airflow metrics of jobs: their number by status, their queue and run times."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.observability import stats

from airflow_provider_mljobs.jobs.outcome.status import Phase
from airflow_provider_mljobs.jobs.outcome.watch import TimelineEntry
from airflow_provider_mljobs.task.xcoms import progress_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_mljobs.gateway.outcome import Outcome

logger = logging.getLogger(__name__)


def count(outcome: Outcome, ti: Any) -> None:
    """Count a job that has ended. Errors are logged, and never fail the task.

    ``mljobs.jobs`` is a counter, ``mljobs.queue_duration`` and ``mljobs.run_duration`` are timings of jobs that have
    run; Airflow sends timings in milliseconds.
    Where the backend has tags, they have ``state`` (the job's last status), ``pool``, ``dag_id`` and ``task_id``.
    """
    status, pool = progress_of(outcome).get("status"), outcome.facts.get("compute_pool")
    try:
        tags = {"state": status, "pool": pool, "dag_id": ti.dag_id, "task_id": ti.task_id}
        stats.incr("mljobs.jobs", tags=tags)
        queued, ran = durations(outcome)
        if queued is not None:
            stats.timing("mljobs.queue_duration", queued, tags=tags)
        if ran is not None:
            stats.timing("mljobs.run_duration", ran, tags=tags)
    except Exception:
        logger.warning("Could not send the metrics of job %s.", outcome.facts.get("job_id"), exc_info=True)


def durations(outcome: Outcome) -> tuple[timedelta | None, timedelta | None]:
    """Return the queue and run time of a job; ``None`` for an unknown one."""
    steps = [TimelineEntry.from_xcom(step) for step in progress_of(outcome).get("timeline", ())]
    started = _first(steps, Phase.RUNNING)
    if started is None:
        return None, None
    submitted = outcome.facts.get("submitted_at")
    began = steps[0].at if submitted is None else datetime.fromisoformat(submitted).timestamp()
    ended = _first(steps, Phase.FINISHING)
    return (
        # The two times are from different clocks.
        timedelta(seconds=max(0.0, started - began)),
        None if ended is None else timedelta(seconds=max(0.0, ended - started)),
    )


def _first(steps: Sequence[TimelineEntry], phase: Phase) -> float | None:
    return next((step.at for step in steps if step.phase is phase), None)
