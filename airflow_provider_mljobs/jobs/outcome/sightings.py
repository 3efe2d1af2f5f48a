"""One look at a job: its status, or that Snowflake doesn't show it, which alone doesn't mean that it is gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.jobs.outcome.status import JobStatus

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# A negative answer may be wrong: Snowflake says the same of a job that is gone, of one that it doesn't show yet (up to
# 30 s after its submit), and of one that the role may not see while grants change.
MAX_UNSEEN_SECONDS = 120.0
# However short the patience, a job is only missing after this many looks.
MIN_UNSEEN_LOOKS = 3
_FIRST_PAUSE, _MAX_PAUSE = 1.0, 60.0


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """The answer to one look at a job.

    :param status: the status by DESCRIBE SERVICE or else by the job history; ``None`` if neither shows it.
    :param row: the row of DESCRIBE SERVICE, with ``comment`` and ``created_on``; ``None`` if it shows no such job.
    """

    status: JobStatus | None = None
    row: Mapping[str, Any] | None = None
    why: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether the job is over, by its service or by the job history."""
        return self.status is not None and self.status.is_terminal

    @property
    def lives(self) -> bool:
        """Whether the job exists and is not over, if only by the job history."""
        return self.status is not None and not self.status.is_terminal

    @property
    def is_unseen(self) -> bool:
        """Whether nothing shows the job. It may live: look again, and neither drop it nor submit another one."""
        return self.status is None


def in_history(row: Mapping[str, Any]) -> JobStatus:
    """Return a job's status by its row of GET_JOB_HISTORY, which has running jobs and dropped ones."""
    status = JobStatus(row["status"])
    return JobStatus.DELETED if row["deleted_time"] is not None and not status.is_terminal else status


def pauses(patience: float) -> Iterator[float]:
    """Yield the pauses between looks that don't show a job, in seconds, until the patience ends."""
    pause, waited, looks = _FIRST_PAUSE, 0.0, 1
    while waited < patience or looks < MIN_UNSEEN_LOOKS:
        yield pause
        waited, looks = waited + pause, looks + 1
        pause = min(2 * pause, _MAX_PAUSE)
