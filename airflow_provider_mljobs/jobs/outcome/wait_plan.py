"""The arguments of a wait for a job, wherever it takes place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from airflow_provider_mljobs.jobs.names import QualifiedName
from airflow_provider_mljobs.jobs.outcome.sightings import MAX_UNSEEN_SECONDS


@dataclass(frozen=True, kw_only=True)
class WaitPlan:
    """The arguments of a wait for one job.

    Triggers store them as they are: they hold no secret, and a new one needs a default, since triggers that an earlier
    version has stored lack it. Moments are in seconds since the epoch, so that they mean the same after a restart.

    :param job_id: fully qualified name of the job.
    :param poll_interval: maximum seconds between two looks at the job; a young job is looked at more often.
    :param log_interval: seconds between two looks at the job's log; 0 leaves the log to the end of the task.
    :param deadline: when the task has to be over; ``None`` for no limit.
    :param queue_deadline: when the job has to have left PENDING; ``None`` for no limit.
    :param timeout: how many seconds the job may run, from its start; ``None`` for no limit.
    :param patience: how many seconds Snowflake may be unreachable before the wait ends.
    :param unseen_patience: how many seconds nothing may show the job before it counts as gone.
    :param cancel_on_timeout: cancel a job that is out of time, before the wait ends.
    :param cancel_on_kill: cancel the job when a user ends the task.
    :param drop_on_kill: also drop a job that was cancelled for that.
    :param stage_path: the job's directory on the stage; ``None`` if it has none.
    """

    job_id: str
    poll_interval: float = 10.0
    log_interval: float = 10.0
    deadline: float | None = None
    queue_deadline: float | None = None
    timeout: float | None = None
    patience: float = 600.0
    unseen_patience: float = MAX_UNSEEN_SECONDS
    cancel_on_timeout: bool = False
    cancel_on_kill: bool = True
    drop_on_kill: bool = False
    stage_path: str | None = None

    @cached_property
    def job(self) -> QualifiedName:
        """The job."""
        return QualifiedName.parse(self.job_id, "job")
