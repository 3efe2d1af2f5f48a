"""What must not have happened in a run: two jobs for one task, a result lost, a state that its jobs don't explain."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from tests.benchmarks.chaos_script import Boundary, Hit, LateEffect, Plan
    from tests.benchmarks.chaos_tries import Case

# A process that has just looked for a job, and one that comes to be in the same moment.
_MOMENT_SECONDS = 1.0
_ENDED_FROM_OUTSIDE = frozenset({"CANCELLING", "CANCELLED", "DELETED"})
# Nobody drops a job here but the task itself and its successors.
_LOST = ("MLJobLostError", "JobNotFoundError")


@dataclass(frozen=True)
class Chaos:
    """One run: a task, and what happens to it.

    :param run: what tells it from the others.
    :param seconds: for how long the job sleeps.
    :param plans: the accidents, in order.
    :param clear: when somebody clears the task: ``after a crash``, ``after each crash``, or ``at the end``.
    """

    run: str
    case: Case
    seconds: float = 0.0
    plans: tuple[Plan, ...] = ()
    clear: str = ""


@dataclass(frozen=True)
class Job:
    """A job that a run has started.

    :param is_late: whether its submit took effect late.
    :param seen_from: since when it was to be seen, in seconds since the epoch.
    """

    name: str
    status: str
    created: datetime
    completed: datetime | None
    is_late: bool = False
    seen_from: float = 0.0

    @property
    def epoch(self) -> int:
        """The task's ``max_tries`` when its name was chosen."""
        return int(self.name.rsplit("_", 2)[1])

    @property
    def order(self) -> tuple[int, int]:
        """What tells a newer one from an older one."""
        return self.epoch, int(self.name.rsplit("_", 1)[1])

    @property
    def began(self) -> float:
        """When it was made, in seconds since the epoch."""
        return self.created.timestamp()

    @property
    def ended(self) -> float:
        """When it ended, likewise; never if it lives."""
        return float("inf") if self.completed is None else self.completed.timestamp()

    def __str__(self) -> str:
        return f"{self.name}{' (late)' if self.is_late else ''}"


@dataclass
class Course:
    """How a run went, as Airflow sees it.

    :param clears: when somebody has cleared the task, by the epoch that ended with it.
    :param waits: from when until when processes waited for a job.
    :param errors: what processes of the task ended with.
    :param processes: how many it took.
    :param buried: how many of these were killed since the last clear, and were no trigger's.
    :param ended: when the last one had ended.
    """

    clears: dict[int, float] = field(default_factory=dict)
    waits: list[tuple[float, float]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    processes: int = 0
    buried: int = 0
    ended: float = 0.0


@dataclass
class Report:
    """What came of a run.

    :param expected: the state that the task should have.
    :param epoch: the task's last one.
    :param jobs: those that were started.
    :param hits: the accidents that have happened.
    :param seen: the statements and messages, in order.
    :param odd: how many answers were odd.
    :param late: what was to take effect late.
    :param blind: from when until when no answer knew of jobs.
    :param trace: what was sent and what came of it, for people.
    :param hung: where a process did not end.
    :param wrong: what should not be: its kind, and what exactly.
    """

    chaos: Chaos
    course: Course
    state: str
    expected: str
    epoch: int
    jobs: list[Job]
    hits: list[Hit]
    seen: list[Boundary]
    odd: int
    late: list[LateEffect]
    blind: list[tuple[float, float]]
    trace: list[str]
    hung: str = ""
    wrong: list[tuple[str, str]] = field(default_factory=list)


def judge(report: Report, value: Any, text: int) -> Iterator[tuple[str, str]]:
    """Yield what is wrong: its kind, and what exactly.

    :param value: what the task has returned.
    :param text: how long the text was that its job was given.
    """
    for older, newer in combinations(report.jobs, 2):
        yield from _of_pair(report, older, newer)
    for job in report.jobs:
        if _is_ended_in_health(report, job):
            yield "wrong state", f"{job} was well, and was ended: {job.status}"
    for error in report.course.errors:
        if error.startswith(_LOST):
            yield "wrong state", f"a try failed with {error[:100]}"
    if report.hung or report.state != report.expected:
        yield "wrong state", report.hung or f"{report.state} instead of {report.expected}"
    elif report.state == "success":
        yield from _of_value(report, value, text)


def _of_pair(report: Report, earlier: Job, job: Job) -> Iterator[tuple[str, str]]:
    is_beside = job.began < earlier.ended
    twins = list(_of_twins(report, *sorted((earlier, job), key=lambda each: each.order))) if is_beside else []
    yield from twins
    had_effect = earlier.status == "DONE" and (job.status == "DONE" or not is_beside)
    # What takes effect late may do so when the task is long over; then it is the collector's.
    if not twins and earlier.epoch == job.epoch and had_effect and not job.is_late:
        yield "duplicate", f"{job} was started though {earlier} was {'alive' if is_beside else 'done'}"
        yield "lost result", f"that of {earlier}"


def _of_twins(report: Report, older: Job, newer: Job) -> Iterator[tuple[str, str]]:
    """Judge two jobs that lived at once: from the wait on there is one, unless another one comes to be later.

    What comes to be while the task waits is found at its end. It is the older one that has no business to be there.
    """
    first, last = max(older.began, newer.began), min(older.ended, newer.ended)
    since = older.seen_from
    for began, ended in report.course.waits:
        is_blind = any(start <= began and began - _MOMENT_SECONDS < end for start, end in report.blind)
        if max(first, began) < min(last, ended) and since < began - _MOMENT_SECONDS and not is_blind:
            yield "duplicate", f"{older} and {newer} were alive in a wait"
            return
    is_newest = newer.order == max(job.order for job in report.jobs)
    if is_newest and older.ended > report.course.ended + _MOMENT_SECONDS and since < newer.ended:
        yield "duplicate", f"{older} was left behind beside {newer}"


def _is_ended_in_health(report: Report, job: Job) -> bool:
    """Tell whether a job was ended though its task needed it: it wasn't cleared, and there was no other job."""
    if job.status not in _ENDED_FROM_OUTSIDE or job.ended >= report.course.clears.get(job.epoch, float("inf")):
        return False
    others = (other for other in report.jobs if other is not job)
    return not any(other.began < job.ended <= other.ended for other in others)


def _of_value(report: Report, value: Any, text: int) -> Iterator[tuple[str, str]]:
    case, run = report.chaos.case, report.chaos.run
    is_reference = case.outcome == "reference" and isinstance(value, dict) and "stage_paths" in value
    if is_reference:
        name = value["stage_paths"][0].rpartition("/output/")[0].rpartition("/")[2]
    elif isinstance(value, dict) and {**value, "job": ""} == {"run": run, "text": text, "job": ""}:
        name = value["job"]
    else:
        yield "lost result", f"the task returned {str(value)[:200]}"
        return
    if int(name.rsplit("_", 2)[1]) != report.epoch:
        yield "lost result", f"the task returned what {name} has left, which was cleared"
