"""Turns observations of a job into a verdict. No clock, no sleep, no I/O: the watcher passes observation and time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.jobs.outcome.sightings import MIN_UNSEEN_LOOKS
from airflow_provider_mljobs.jobs.outcome.status import WAITING_PHASES, JobStatus, Phase, phase_of
from airflow_provider_mljobs.jobs.values.portability import jsonb_safe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_mljobs.jobs.outcome.sightings import Sighting
    from airflow_provider_mljobs.jobs.outcome.wait_plan import WaitPlan

# A pool that flips between two states for days must not make an event that Airflow can't store.
_MAX_ENTRIES = 40
_MESSAGE_CHARACTERS = 1000
_ENTRY_CHARACTERS = 200


class Verdict(StrEnum):
    """The next action."""

    WAIT = "wait"
    FINISHED = "finished"
    TIMED_OUT = "timed_out"
    QUEUE_TIMED_OUT = "queue_timed_out"
    GONE = "gone"
    UNREACHABLE = "unreachable"

    @property
    def is_out_of_time(self) -> bool:
        """Whether the job has not ended, or not begun, in time."""
        return self in {Verdict.TIMED_OUT, Verdict.QUEUE_TIMED_OUT}


@dataclass(frozen=True)
class Overdue:
    """The final decision that a job is out of time, also for a process that continues the wait.

    :param verdict: by the deadline that has passed: the job's, or the queue's.
    """

    verdict: Verdict
    limit: str

    def to_json(self) -> dict[str, str]:
        """Write the decision as JSON."""
        return {"verdict": self.verdict.value, "limit": self.limit}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Overdue:
        """Read a decision."""
        verdict = Verdict(value["verdict"])
        if not verdict.is_out_of_time:
            msg = f"{verdict} is no deadline that has passed"
            raise ValueError(msg)
        return cls(verdict, str(value["limit"])[:_ENTRY_CHARACTERS])


@dataclass(frozen=True)
class TimelineEntry:
    """A job's entry into a phase."""

    phase: Phase
    at: float
    message: str = ""

    def __str__(self) -> str:
        return f"{self.phase.value}: {self.message}" if self.message else self.phase.value

    def to_xcom(self) -> dict[str, str]:
        """Write the entry as JSON; the time as ISO 8601 in UTC."""
        at = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds")
        return {"phase": self.phase.value, "at": at, "message": jsonb_safe(self.message)}

    @classmethod
    def from_xcom(cls, entry: Mapping[str, str]) -> TimelineEntry:
        """Read an entry."""
        at = datetime.fromisoformat(entry["at"]).astimezone(UTC).timestamp()
        return cls(Phase(entry["phase"]), at, str(entry["message"])[:_ENTRY_CHARACTERS])


@dataclass(frozen=True, kw_only=True)
class JobWatch:
    """The state of a wait for one job.

    All moments are in seconds since the epoch, so that they mean the same after a restart.

    :param is_gone: whether nothing has shown the job for so long that it counts as gone.
    :param overdue: the decision that it is out of time, once made.
    """

    plan: WaitPlan
    status: JobStatus = JobStatus.UNKNOWN
    reason: str = ""
    pending_at: float | None = None
    running_since: float | None = None
    unreachable_since: float | None = None
    unseen_since: float | None = None
    unseen_looks: int = 0
    trouble: str = ""
    is_gone: bool = False
    overdue: Overdue | None = None
    is_cancelled: bool = False
    timeline: tuple[TimelineEntry, ...] = ()

    def resumed(self, timeline: tuple[TimelineEntry, ...], overdue: Overdue | None = None) -> JobWatch:
        """Continue the wait of another process."""
        running = [entry.at for entry in timeline if entry.phase is Phase.RUNNING]
        waiting = [
            entry.at
            for entry in timeline
            if entry.phase in WAITING_PHASES and entry.at <= min(running, default=entry.at)
        ]
        return replace(
            self,
            timeline=timeline,
            running_since=running[0] if running else None,
            pending_at=max(waiting, default=None),
            overdue=overdue,
        )

    def sighted(self, sighting: Sighting, now: float) -> JobWatch:
        """Record one look at the job."""
        if sighting.status is None:
            return self.unseen(sighting.why, now)
        watch = self.observed(sighting.status, now)
        # A job that only the job history shows still exists.
        return replace(watch, trouble=sighting.why) if sighting.lives else watch

    def observed(self, status: JobStatus, now: float) -> JobWatch:
        """Record a status."""
        watch = replace(self, status=status, unreachable_since=None, unseen_since=None, unseen_looks=0, trouble="")
        if status is JobStatus.PENDING:
            watch = replace(watch, pending_at=now)
        if status is JobStatus.RUNNING and self.running_since is None:
            watch = replace(watch, running_since=now)
        phase = phase_of(status, self.reason)
        message = status.value if phase is Phase.FINISHING else self.reason if status is JobStatus.PENDING else ""
        return watch if phase is None else watch.entered(TimelineEntry(phase, now, message))

    def explained(self, reason: str, now: float) -> JobWatch:
        """Record the reason that the containers of a PENDING job give."""
        watch = replace(self, reason=reason)
        return watch.observed(self.status, now) if self.status is JobStatus.PENDING else watch

    def started(self, at: float) -> JobWatch:
        """Record when the job started to run, which may be before the first look that showed it running.

        Other clocks can't be trusted: a job starts after the last look that showed it waiting, and before the first one
        that showed it running.
        """
        earliest = at if self.pending_at is None else max(at, self.pending_at)
        return replace(
            self, running_since=earliest if self.running_since is None else min(earliest, self.running_since)
        )

    def unseen(self, why: str, now: float) -> JobWatch:
        """Record a look that has not shown the job. After enough of these, over enough time, the job is gone."""
        since = self.unseen_since if self.unseen_since is not None else now
        looks = self.unseen_looks + 1
        watch = replace(self, unseen_since=since, unseen_looks=looks, trouble=why, unreachable_since=None)
        if looks < MIN_UNSEEN_LOOKS or now < since + self.plan.unseen_patience:
            return watch
        gone = replace(watch, status=JobStatus.DELETED, is_gone=True)
        return gone.entered(TimelineEntry(Phase.FINISHING, now, JobStatus.DELETED.value))

    def out_of_time(self, now: float) -> JobWatch:
        """Decide once and for all that the job is out of time, if a deadline had passed by then, or by its end."""
        late = self.late(now)
        return self if late is None or self.overdue is not None else replace(self, overdue=late)

    def cancelled(self, now: float) -> JobWatch:
        """Record that the job was cancelled because it is out of time."""
        return replace(self.observed(JobStatus.CANCELLING, now), is_cancelled=True)

    def failed_to_ask(self, why: str, now: float) -> JobWatch:
        """Record that Snowflake could not be asked, which says nothing about the job."""
        since = self.unreachable_since if self.unreachable_since is not None else now
        return replace(self, unreachable_since=since, trouble=why)

    def verdict(self, now: float) -> Verdict:
        """Return the verdict."""
        if self.overdue is not None:
            return self.overdue.verdict
        if self.is_gone:
            return Verdict.GONE
        if self.status.is_terminal:
            return Verdict.FINISHED
        late = self.late(now)
        if late is not None:
            return late.verdict
        return Verdict.UNREACHABLE if _passed(self._end_of_patience, now) else Verdict.WAIT

    def late(self, now: float) -> Overdue | None:
        """Return the deadline that has passed, regardless of the status; the task's own comes first."""
        if _passed(self.plan.deadline, now):
            return Overdue(Verdict.TIMED_OUT, "execution_timeout")
        if _passed(self._run_deadline, now):
            return Overdue(Verdict.TIMED_OUT, "timeout")
        if _passed(self._binding_queue_deadline, now):
            return Overdue(Verdict.QUEUE_TIMED_OUT, "queue_timeout")
        return None

    def next_deadline(self) -> float | None:
        """Return when the verdict changes without another observation."""
        moments = (self.plan.deadline, self._run_deadline, self._binding_queue_deadline, self._end_of_patience)
        return min((moment for moment in moments if moment is not None), default=None)

    def why(self, now: float) -> str:
        """Return the reason of the verdict."""
        verdict = self.verdict(now)
        if verdict is Verdict.QUEUE_TIMED_OUT:
            return self.reason
        late = self.overdue or self.late(now)
        return late.limit if late is not None and verdict is Verdict.TIMED_OUT else self.trouble

    @property
    def _end_of_patience(self) -> float | None:
        return None if self.unreachable_since is None else self.unreachable_since + self.plan.patience

    @property
    def _run_deadline(self) -> float | None:
        return (
            None if self.plan.timeout is None or self.running_since is None else self.running_since + self.plan.timeout
        )

    @property
    def _binding_queue_deadline(self) -> float | None:
        """When to give up a waiting job; not if it may have started unseen."""
        is_seen = self.unreachable_since is None and self.unseen_since is None
        is_waiting = self.status is JobStatus.PENDING and is_seen
        return self.plan.queue_deadline if is_waiting else None

    def entered(self, entry: TimelineEntry) -> JobWatch:
        """Add an entry to the timeline, unless it repeats the last one."""
        entry = replace(entry, message=entry.message[:_ENTRY_CHARACTERS])
        last = self.timeline[-1] if self.timeline else None
        if last is not None and (last.phase, last.message) == (entry.phase, entry.message):
            return self
        first, rest = self.timeline[:1], self.timeline[1:]
        return replace(self, timeline=(*first, *rest[-(_MAX_ENTRIES - 2) :], entry))


def _passed(moment: float | None, now: float) -> bool:
    return moment is not None and now >= moment


def pause(age: float, poll_interval: float) -> float:
    """Return the seconds between two looks at a job that has been watched for ``age`` seconds.

    A young job is looked at often, since many jobs are short; an old one every ``poll_interval`` seconds.
    """
    return min(poll_interval, max(0.5, age / 3))


def to_event(  # noqa: PLR0913 (the fields of an event)
    job_id: str,
    verdict: Verdict,
    status: JobStatus,
    message: str = "",
    *,
    stage_path: str | None = None,
    timeline: Iterable[TimelineEntry] = (),
    printed: Mapping[str, Any] | None = None,
    is_overdue: bool = False,
) -> dict[str, Any]:
    """Build the event that ends a wait: small and of fixed shape, since Airflow logs and stores it."""
    return {
        "job_id": job_id,
        "verdict": verdict.value,
        "status": status.value,
        "message": jsonb_safe(message[:_MESSAGE_CHARACTERS]),
        "stage_path": stage_path,
        "timeline": [entry.to_xcom() for entry in timeline],
        "printed": dict(printed or {}),
        **({"is_overdue": True} if is_overdue else {}),
    }
