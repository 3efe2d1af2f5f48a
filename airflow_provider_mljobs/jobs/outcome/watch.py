"""Decides what observations of a job mean. No clock, no sleep, no I/O: who watches tells it what was seen, and when."""

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
_MOST_STEPS = 40
_MESSAGE_CHARACTERS = 1000
_STEP_CHARACTERS = 200


class Verdict(StrEnum):
    """What to do next."""

    WAIT = "wait"
    FINISHED = "finished"
    TIMED_OUT = "timed_out"
    QUEUE_TIMED_OUT = "queue_timed_out"
    GONE = "gone"
    UNREACHABLE = "unreachable"

    @property
    def is_final(self) -> bool:
        """Whether the watch is over."""
        return self is not Verdict.WAIT

    @property
    def is_out_of_time(self) -> bool:
        """Whether the job didn't end, or begin, in time."""
        return self in {Verdict.TIMED_OUT, Verdict.QUEUE_TIMED_OUT}


@dataclass(frozen=True)
class Overdue:
    """The decision that a job is out of time. It stays, whatever becomes of the job: also for the next process.

    :param verdict: which deadline has passed: that of the job, or that of the queue.
    :param limit: what the task calls it, e.g. ``timeout``.
    """

    verdict: Verdict
    limit: str

    def to_json(self) -> dict[str, str]:
        """Write the decision as JSON."""
        return {"verdict": self.verdict.value, "limit": self.limit}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Overdue:
        """Read a decision again.

        :raises ValueError: if it is none.
        """
        verdict = Verdict(value["verdict"])
        if not verdict.is_out_of_time:
            msg = f"{verdict} is no deadline that has passed"
            raise ValueError(msg)
        return cls(verdict, str(value["limit"])[:_STEP_CHARACTERS])


@dataclass(frozen=True)
class TimelineEntry:
    """A job's entry into a phase.

    :param phase: what it is doing from then on.
    :param at: since when, in seconds since the epoch.
    :param message: what its containers say about it, or its status.
    """

    phase: Phase
    at: float
    message: str = ""

    def __str__(self) -> str:
        return f"{self.phase.value}: {self.message}" if self.message else self.phase.value

    def to_xcom(self) -> dict[str, str]:
        """Write the step as JSON; the time as ISO 8601 in UTC."""
        at = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds")
        return {"phase": self.phase.value, "at": at, "message": jsonb_safe(self.message)}

    @classmethod
    def from_xcom(cls, step: Mapping[str, str]) -> TimelineEntry:
        """Read a step again.

        :raises ValueError: if it is none; or TypeError, or LookupError.
        """
        at = datetime.fromisoformat(step["at"]).astimezone(UTC).timestamp()
        return cls(Phase(step["phase"]), at, str(step["message"])[:_STEP_CHARACTERS])


@dataclass(frozen=True, kw_only=True)
class JobWatch:
    """The watch over one job: what is known of it, and until when it is waited for.

    All moments are in seconds since the epoch, so that they mean the same after a restart.

    :param plan: until when to wait, and how patiently.
    :param status: where the job was when it was last seen.
    :param reason: what its containers last said while it was PENDING.
    :param pending_at: when it was last seen to be PENDING.
    :param running_since: when it started to run, by our clock.
    :param unreachable_since: since when no question was answered.
    :param unseen_since: since when nothing has shown the job.
    :param unseen_looks: how many looks in a row haven't shown it.
    :param trouble: what Snowflake said instead of showing the job.
    :param is_gone: whether nothing has shown the job for so long that it counts as gone.
    :param overdue: that it is out of time, once that was decided.
    :param is_cancelled: whether it was cancelled for that.
    :param timeline: what it was doing so far.
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
        """Continue a watch that another process has begun."""
        running = [step.at for step in timeline if step.phase is Phase.RUNNING]
        waiting = [
            step.at for step in timeline if step.phase in WAITING_PHASES and step.at <= min(running, default=step.at)
        ]
        return replace(
            self,
            timeline=timeline,
            running_since=running[0] if running else None,
            pending_at=max(waiting, default=None),
            overdue=overdue,
        )

    def sighted(self, sighting: Sighting, now: float) -> JobWatch:
        """Take note of one look at the job."""
        if sighting.status is None:
            return self.unseen(sighting.why, now)
        watch = self.observed(sighting.status, now)
        # A job that only its history shows is there all the same.
        return replace(watch, trouble=sighting.why) if sighting.lives else watch

    def observed(self, status: JobStatus, now: float) -> JobWatch:
        """Take note of a status."""
        watch = replace(self, status=status, unreachable_since=None, unseen_since=None, unseen_looks=0, trouble="")
        if status is JobStatus.PENDING:
            watch = replace(watch, pending_at=now)
        if status is JobStatus.RUNNING and self.running_since is None:
            watch = replace(watch, running_since=now)
        phase = phase_of(status, self.reason)
        message = status.value if phase is Phase.FINISHING else self.reason if status is JobStatus.PENDING else ""
        return watch if phase is None else watch.entered(TimelineEntry(phase, now, message))

    def explained(self, reason: str, now: float) -> JobWatch:
        """Take note of what the containers of a job say that is PENDING."""
        watch = replace(self, reason=reason)
        return watch.observed(self.status, now) if self.status is JobStatus.PENDING else watch

    def started(self, at: float) -> JobWatch:
        """Take note of when the job started to run, which may be earlier than when that was seen.

        Other clocks may say anything: a job doesn't start before it was last seen to wait, nor after it was seen to
        run.
        """
        earliest = at if self.pending_at is None else max(at, self.pending_at)
        return replace(
            self, running_since=earliest if self.running_since is None else min(earliest, self.running_since)
        )

    def unseen(self, why: str, now: float) -> JobWatch:
        """Take note of a look that didn't show the job; it is gone if none has for long enough."""
        since = self.unseen_since if self.unseen_since is not None else now
        looks = self.unseen_looks + 1
        watch = replace(self, unseen_since=since, unseen_looks=looks, trouble=why, unreachable_since=None)
        if looks < MIN_UNSEEN_LOOKS or now < since + self.plan.unseen_patience:
            return watch
        gone = replace(watch, status=JobStatus.DELETED, is_gone=True)
        return gone.entered(TimelineEntry(Phase.FINISHING, now, JobStatus.DELETED.value))

    def out_of_time(self, now: float) -> JobWatch:
        """Decide that the job is out of time, by the deadline that has passed; for good."""
        late = self._late(now)
        return self if late is None or self.overdue is not None else replace(self, overdue=late)

    def ended(self, at: float) -> JobWatch:
        """Take note of when a job that is over has ended: behind its deadline, it was out of time."""
        return self.out_of_time(at)

    def is_late(self, now: float) -> bool:
        """Tell whether a deadline has passed, whatever was seen of the job."""
        return self._late(now) is not None

    def cancelled(self, now: float) -> JobWatch:
        """Take note that the job was cancelled because it is out of time."""
        return replace(self.observed(JobStatus.CANCELLING, now), is_cancelled=True)

    def failed_to_ask(self, why: str, now: float) -> JobWatch:
        """Take note that Snowflake could not be asked: the job is not to blame and goes on."""
        since = self.unreachable_since if self.unreachable_since is not None else now
        return replace(self, unreachable_since=since, trouble=why)

    def verdict(self, now: float) -> Verdict:
        """Decide what all that means."""
        if self.overdue is not None:
            return self.overdue.verdict
        if self.is_gone:
            return Verdict.GONE
        if self.status.is_terminal:
            return Verdict.FINISHED
        late = self._late(now)
        if late is not None:
            return late.verdict
        return Verdict.UNREACHABLE if _passed(self._end_of_patience, now) else Verdict.WAIT

    def _late(self, now: float) -> Overdue | None:
        """Return which deadline has passed; the task's own comes first."""
        if _passed(self.plan.deadline, now):
            return Overdue(Verdict.TIMED_OUT, "execution_timeout")
        if _passed(self._run_deadline, now):
            return Overdue(Verdict.TIMED_OUT, "timeout")
        if _passed(self._binding_queue_deadline, now):
            return Overdue(Verdict.QUEUE_TIMED_OUT, "queue_timeout")
        return None

    def next_deadline(self) -> float | None:
        """Return when the verdict changes if nothing more is seen."""
        moments = (self.plan.deadline, self._run_deadline, self._binding_queue_deadline, self._end_of_patience)
        return min((moment for moment in moments if moment is not None), default=None)

    def why(self, now: float) -> str:
        """Say what there is to say about the verdict."""
        verdict = self.verdict(now)
        if verdict is Verdict.QUEUE_TIMED_OUT:
            return self.reason
        late = self.overdue or self._late(now)
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
        """When to give up a job that waits; not if it may have started while nobody could see it."""
        is_seen = self.unreachable_since is None and self.unseen_since is None
        is_waiting = self.status is JobStatus.PENDING and is_seen
        return self.plan.queue_deadline if is_waiting else None

    def entered(self, step: TimelineEntry) -> JobWatch:
        """Note a step in the timeline, unless it says nothing new."""
        step = replace(step, message=step.message[:_STEP_CHARACTERS])
        last = self.timeline[-1] if self.timeline else None
        if last is not None and (last.phase, last.message) == (step.phase, step.message):
            return self
        first, rest = self.timeline[:1], self.timeline[1:]
        return replace(self, timeline=(*first, *rest[-(_MOST_STEPS - 2) :], step))


def _passed(moment: float | None, now: float) -> bool:
    return moment is not None and now >= moment


def pause(age: float, poll_interval: float) -> float:
    """Return for how many seconds to look away from a job that has been watched for ``age`` seconds.

    A young job is looked at often, since many are short; an old one at most every ``poll_interval`` seconds.
    """
    return min(poll_interval, max(0.5, age / 3))


def to_event(  # noqa: PLR0913 (what an event has)
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
    """Build what a trigger tells its task: small and of fixed shape, since Airflow logs and stores it.

    :param stage_path: the job's directory on the stage, where the task finds the result.
    :param timeline: what the job was doing, and since when.
    :param printed: how far its log is in the task's log already.
    :param is_overdue: whether it was decided for good that the job is out of time: its end doesn't count any more.
    """
    return {
        "job_id": job_id,
        "verdict": verdict.value,
        "status": status.value,
        "message": jsonb_safe(message[:_MESSAGE_CHARACTERS]),
        "stage_path": stage_path,
        "timeline": [step.to_xcom() for step in timeline],
        "printed": dict(printed or {}),
        **({"is_overdue": True} if is_overdue else {}),
    }
