"""The report of the collector: each thing that it found, and the totals."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any


class Kind(StrEnum):
    """The kinds of leftovers."""

    JOB = "job"
    PAYLOAD = "payload"
    INPUT = "input"
    RESULT = "result"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One leftover and its fate.

    :param name: the job, or the directory on the stage.
    :param action: ``dropped``, ``removed``, ``would drop``, ``would remove`` or ``left``.
    :param task_state: the task's state in Airflow; ``gone`` if Airflow has no such task instance.
    :param created: when the job, or the newest of the files, was created.
    :param credits_per_hour: the price of the job's nodes; ``None`` if it is unknown.
    """

    kind: Kind
    name: str
    action: str
    task: str = ""
    task_state: str = ""
    job_status: str = ""
    created: datetime | None = None
    credits_per_hour: float | None = 0.0
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the item as JSON, with the time in ISO 8601."""
        created = None if self.created is None else self.created.isoformat(timespec="seconds")
        return {**asdict(self), "kind": self.kind.value, "created": created}

    def __str__(self) -> str:
        words = [self.action, self.kind, self.name]
        if self.task:
            words.append(f"({self.job_status}) of {self.task} ({self.task_state})")
        return " ".join(words) + (f": {self.error}" if self.error else "")


@dataclass(frozen=True, kw_only=True)
class Collection:
    """The result of one run of the collector.

    :param items: the leftovers, in the order of their removal.
    :param kept_jobs: the number of this Airflow's jobs that stay: they are too young, or their task isn't finished.
    :param not_ours: the number of jobs of other Airflows, or of no task.
    :param is_complete: whether the listing had all jobs; if not, files without a job stay.
    """

    items: tuple[Item, ...]
    kept_jobs: int
    not_ours: int
    is_complete: bool = True

    @property
    def errors(self) -> tuple[Item, ...]:
        """The leftovers that could not be collected."""
        return tuple(item for item in self.items if item.error)

    @property
    def credits_per_hour(self) -> float:
        """The known price of the nodes of dropped jobs."""
        return sum(item.credits_per_hour or 0.0 for item in self.items if not item.error)

    @property
    def summary(self) -> str:
        """The totals in one line."""
        done = Counter((item.action, item.kind) for item in self.items)
        counts = [f"{action} {_counted(number, kind)}" for (action, kind), number in done.items()]
        unknown = sum(item.credits_per_hour is None for item in self.items if not item.error)
        parts = [
            ", ".join(counts) or "nothing to collect",
            f"{_counted(self.kept_jobs, 'job')} kept",
            f"{_counted(self.not_ours, 'job')} not of this Airflow",
        ]
        if self.credits_per_hour or unknown:
            more = f", without {_counted(unknown, 'job')} whose rate is unknown" if unknown else ""
            costs = f"their nodes cost {self.credits_per_hour:.2f} credits an hour{more}"
            parts.append(f"{costs} (an estimate, if no other job uses them)")
        if not self.is_complete:
            parts.append("not all jobs can be listed, so files without a job are left alone")
        return "; ".join(parts) + "."


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
