"""Decides what observations of a job mean. No clock, no sleep, no I/O: who watches tells it what was seen, and when."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.jobs.results import jsonb_safe
from airflow_provider_mljobs.jobs.status import JobStatus, Phase, phase_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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


@dataclass(frozen=True)
class Step:
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
    def from_xcom(cls, step: Mapping[str, str]) -> Step:
        """Read a step again."""
        return cls(Phase(step["phase"]), datetime.fromisoformat(step["at"]).timestamp(), step["message"])


@dataclass(frozen=True, kw_only=True)
class JobWatch:
    """The watch over one job: what is known of it, and until when it is waited for.

    All moments are in seconds since the epoch, so that they mean the same after a restart.

    :param deadline: when the task has to be over; ``None`` means never.
    :param queue_deadline: when the job has to have left PENDING; ``None`` means never.
    :param timeout: for how many seconds the job may run, from its start; ``None`` for any time.
    :param patience: for how long Snowflake may be unreachable before the watch is given up, in seconds.
    :param status: where the job was when it was last seen.
    :param reason: what its containers last said while it was PENDING.
    :param running_since: when it started to run.
    :param unreachable_since: since when no question was answered.
    :param trouble: why not, or why the job is gone.
    :param is_gone: whether Snowflake doesn't know the job.
    :param timeline: what it was doing so far.
    """

    deadline: float | None = None
    queue_deadline: float | None = None
    timeout: float | None = None
    patience: float = 600.0
    status: JobStatus = JobStatus.UNKNOWN
    reason: str = ""
    running_since: float | None = None
    unreachable_since: float | None = None
    trouble: str = ""
    is_gone: bool = False
    timeline: tuple[Step, ...] = ()

    def resumed(self, timeline: tuple[Step, ...]) -> JobWatch:
        """Go on with a watch that another process has begun."""
        running = [step.at for step in timeline if step.phase is Phase.RUNNING]
        return replace(self, timeline=timeline, running_since=running[0] if running else None)

    def observed(self, status: JobStatus, now: float) -> JobWatch:
        """Take note of a status."""
        watch = replace(self, status=status, unreachable_since=None, trouble="")
        if status is JobStatus.RUNNING and self.running_since is None:
            watch = replace(watch, running_since=now)
        phase = phase_of(status, self.reason)
        message = status.value if phase is Phase.FINISHING else self.reason if status is JobStatus.PENDING else ""
        return watch if phase is None else watch.entered(Step(phase, now, message))

    def explained(self, reason: str, now: float) -> JobWatch:
        """Take note of what the containers of a job say that is PENDING."""
        watch = replace(self, reason=reason)
        return watch.observed(self.status, now) if self.status is JobStatus.PENDING else watch

    def started(self, at: float) -> JobWatch:
        """Take note of when the job started to run, which is earlier than when that was seen."""
        return replace(self, running_since=at)

    def missing(self, why: str, now: float) -> JobWatch:
        """Take note that Snowflake doesn't know the job (any more)."""
        gone = replace(self, status=JobStatus.DELETED, is_gone=True, trouble=why, unreachable_since=None)
        return gone.entered(Step(Phase.FINISHING, now, JobStatus.DELETED.value))

    def failed_to_ask(self, why: str, now: float) -> JobWatch:
        """Take note that Snowflake could not be asked: the job is not to blame and goes on."""
        since = self.unreachable_since if self.unreachable_since is not None else now
        return replace(self, unreachable_since=since, trouble=why)

    def verdict(self, now: float) -> Verdict:
        """Decide what all that means."""
        if self.is_gone:
            return Verdict.GONE
        if self.status.is_terminal:
            return Verdict.FINISHED
        if _passed(self._end_of_patience, now):
            return Verdict.UNREACHABLE
        if _passed(self.deadline, now) or _passed(self._run_deadline, now):
            return Verdict.TIMED_OUT
        return Verdict.QUEUE_TIMED_OUT if _passed(self._binding_queue_deadline, now) else Verdict.WAIT

    def next_deadline(self) -> float | None:
        """Return when the verdict changes if nothing more is seen."""
        moments = (self.deadline, self._run_deadline, self._binding_queue_deadline, self._end_of_patience)
        return min((moment for moment in moments if moment is not None), default=None)

    def why(self, now: float) -> str:
        """Say what there is to say about the verdict."""
        if self.verdict(now) is Verdict.QUEUE_TIMED_OUT:
            return self.reason
        if self.verdict(now) is Verdict.TIMED_OUT:
            return "execution_timeout" if _passed(self.deadline, now) else "timeout"
        return self.trouble

    @property
    def _end_of_patience(self) -> float | None:
        return None if self.unreachable_since is None else self.unreachable_since + self.patience

    @property
    def _run_deadline(self) -> float | None:
        return None if self.timeout is None or self.running_since is None else self.running_since + self.timeout

    @property
    def _binding_queue_deadline(self) -> float | None:
        """When to give up a job that waits; not if it may have started while nobody could see it."""
        is_waiting = self.status is JobStatus.PENDING and self.unreachable_since is None
        return self.queue_deadline if is_waiting else None

    def entered(self, step: Step) -> JobWatch:
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
    timeline: Iterable[Step] = (),
    printed: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Build what a trigger tells its task: small and of fixed shape, since Airflow logs and stores it.

    :param stage_path: the job's directory on the stage, where the task finds the result.
    :param timeline: what the job was doing, and since when.
    :param printed: how far its log is in the task's log already.
    """
    return {
        "job_id": job_id,
        "verdict": verdict.value,
        "status": status.value,
        "message": jsonb_safe(message[:_MESSAGE_CHARACTERS]),
        "stage_path": stage_path,
        "timeline": [step.to_xcom() for step in timeline],
        "printed": dict(printed or {}),
    }
