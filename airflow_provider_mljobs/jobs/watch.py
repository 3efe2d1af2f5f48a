"""Decides what an observation of a job means. No clock, no sleep, no I/O: the loops that wait ask it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.jobs.results import jsonb_safe

if TYPE_CHECKING:
    from airflow_provider_mljobs.jobs.status import JobStatus


class Verdict(StrEnum):
    """What to do next."""

    WAIT = "wait"
    FINISHED = "finished"
    TIMED_OUT = "timed_out"
    GONE = "gone"
    UNREACHABLE = "unreachable"

    @property
    def is_final(self) -> bool:
        """Whether the watch is over."""
        return self is not Verdict.WAIT


@dataclass(frozen=True, kw_only=True)
class JobWatch:
    """The watch over one job; times are seconds since the epoch, so that they survive restarts.

    :param deadline: when the job has to be over; ``None`` means never.
    :param patience: for how long Snowflake may be unreachable before the watch is given up, in seconds.
    :param unreachable_since: since when no question was answered.
    """

    deadline: float | None = None
    patience: float = 600.0
    unreachable_since: float | None = None

    def observed(self, status: JobStatus, now: float) -> tuple[JobWatch, Verdict]:
        """Take note of a status."""
        watch = replace(self, unreachable_since=None)
        if status.is_terminal:
            return watch, Verdict.FINISHED
        return watch, self._in_time(now)

    def missing(self) -> tuple[JobWatch, Verdict]:
        """Take note that Snowflake doesn't know the job (any more)."""
        return self, Verdict.GONE

    def failed_to_ask(self, now: float) -> tuple[JobWatch, Verdict]:
        """Take note that Snowflake could not be asked: the job is not to blame and goes on."""
        since = self.unreachable_since if self.unreachable_since is not None else now
        watch = replace(self, unreachable_since=since)
        return watch, Verdict.UNREACHABLE if now - since > self.patience else self._in_time(now)

    def _in_time(self, now: float) -> Verdict:
        return Verdict.TIMED_OUT if self.deadline is not None and now >= self.deadline else Verdict.WAIT


def pause(age: float, poll_interval: float) -> float:
    """Return for how many seconds to look away from a job that has been watched for ``age`` seconds.

    A young job is looked at often, since many are short; an old one at most every ``poll_interval`` seconds.
    """
    return min(poll_interval, max(0.5, age / 3))


def to_event(
    job_id: str, verdict: Verdict, status: JobStatus, message: str = "", *, stage_path: str | None = None
) -> dict[str, Any]:
    """Build what a trigger tells its task: small and of fixed shape, since Airflow logs and stores it.

    :param stage_path: the job's directory on the stage, where the task finds the result.
    """
    return {
        "job_id": job_id,
        "verdict": verdict.value,
        "status": status.value,
        "message": jsonb_safe(message[:1000]),
        "stage_path": stage_path,
    }
