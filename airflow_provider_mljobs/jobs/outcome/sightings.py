"""One look at a job: where it stands, or that Snowflake doesn't show it, which alone doesn't mean that it is gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.jobs.outcome.status import JobStatus

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# A negative answer may be wrong: Snowflake says the same of a job that is gone, of one that it doesn't show yet (up to
# 30 s after its submit), and of one that the role may not see while somebody changes grants.
MAX_UNSEEN_SECONDS = 120.0
# So many looks are the least that can find a job missing, however short the patience.
MIN_UNSEEN_LOOKS = 3
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """The answer to one look at a job.

    :param status: where the job stands, by DESCRIBE SERVICE or else by the job history; ``None`` if neither shows it.
    :param row: the row of DESCRIBE SERVICE, with ``comment`` and ``created_on``; ``None`` if it shows no such job.
    :param why: what Snowflake said instead of showing the job.
    """

    status: JobStatus | None = None
    row: Mapping[str, Any] | None = None
    why: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether the job was seen to be over: its service says so, or the job history."""
        return self.status is not None and self.status.is_terminal

    @property
    def lives(self) -> bool:
        """Whether the job was seen to be there and not over, be it by the job history alone."""
        return self.status is not None and not self.status.is_terminal

    @property
    def is_unseen(self) -> bool:
        """Whether nothing shows the job. It may live: look again, and neither drop it nor submit another for that."""
        return self.status is None


def in_history(row: Mapping[str, Any]) -> JobStatus:
    """Return where a job stands by its row of GET_JOB_HISTORY, which has jobs that run and jobs that were dropped."""
    status = JobStatus(row["status"])
    return JobStatus.DELETED if row["deleted_time"] is not None and not status.is_terminal else status


def pauses(patience: float) -> Iterator[float]:
    """Return for how many seconds to look away after each look that doesn't show a job, until the patience ends."""
    pause, waited, looks = _FIRST_PAUSE, 0.0, 1
    while waited < patience or looks < MIN_UNSEEN_LOOKS:
        yield pause
        waited, looks = waited + pause, looks + 1
        pause = min(2 * pause, _LONGEST_PAUSE)
