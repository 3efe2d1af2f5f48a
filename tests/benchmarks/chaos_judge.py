"""Violations in a run: two jobs for one task, a lost result, a state that its jobs do not explain."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from tests.benchmarks.chaos_script import Boundary, Hit, LateEffect, Plan
    from tests.benchmarks.chaos_tries import Case

# The tolerance for a job that appears while a process looks for it.
_MOMENT_SECONDS = 1.0
_ENDED_FROM_OUTSIDE = frozenset({"CANCELLING", "CANCELLED", "DELETED"})
# Only a task and its successors drop its jobs here, so these errors are violations.
_LOST = ("MLJobLostError", "JobNotFoundError")


@dataclass(frozen=True)
class Chaos:
    """One run: a task and its accidents.

    :param run: its unique name.
    :param seconds: for how long the job sleeps.
    :param plans: the accidents, in order.
    :param clear: the moment of a clear of the task: ``after a crash``, ``after each crash``, or ``at the end``.
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
    :param seen_from: the time since which answers show it, in seconds since the epoch.
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
        """The sort key: a newer job has a larger one."""
        return self.epoch, int(self.name.rsplit("_", 1)[1])

    @property
    def began(self) -> float:
        """The time of its creation, in seconds since the epoch."""
        return self.created.timestamp()

    @property
    def ended(self) -> float:
        """The time of its end, in seconds since the epoch; infinity if it lives."""
        return float("inf") if self.completed is None else self.completed.timestamp()

    def __str__(self) -> str:
        return f"{self.name}{' (late)' if self.is_late else ''}"


@dataclass
class Course:
    """How a run went, as Airflow sees it.

    :param clears: the times at which the task was cleared, by the epoch that ended with it.
    :param waits: begin and end of each wait for a job.
    :param errors: the errors of the task's processes.
    :param processes: the number of its processes.
    :param buried: the number of those killed since the last clear, without triggers.
    :param ended: the end of the last one.
    """

    clears: dict[int, float] = field(default_factory=dict)
    waits: list[tuple[float, float]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    processes: int = 0
    buried: int = 0
    ended: float = 0.0


@dataclass
class Report:
    """The outcome of a run.

    :param expected: the state that the task should have.
    :param epoch: the last epoch of the task.
    :param jobs: all started jobs.
    :param hits: the accidents that happened.
    :param seen: the statements and messages, in order.
    :param odd: the number of odd answers.
    :param late: the planned late effects.
    :param blind: begin and end of each time without jobs in the answers.
    :param trace: all statements and answers, for people.
    :param hung: the phase in which a process hung.
    :param wrong: the violations: kind and description.
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
    """Yield the violations: kind and description.

    :param value: the return value of the task.
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
    # A late effect may come long after the end of the task; the collector handles it then.
    if not twins and earlier.epoch == job.epoch and had_effect and not job.is_late:
        yield "duplicate", f"{job} was started though {earlier} was {'alive' if is_beside else 'done'}"
        yield "lost result", f"that of {earlier}"


def _of_twins(report: Report, older: Job, newer: Job) -> Iterator[tuple[str, str]]:
    """Judge two jobs that lived at once: a waiting task has one, unless another one appears later.

    A job that appears while the task waits is detected at its end. The older one is the violation.
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
    """Check whether a job was ended though its task needed it: without a clear, and without another job."""
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
