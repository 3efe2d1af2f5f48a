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
    """What is collected."""

    JOB = "job"
    PAYLOAD = "payload"
    INPUT = "input"
    RESULT = "result"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing that was found, and what became of it.

    :param name: the job, or the directory on the stage.
    :param action: ``dropped``, ``removed``, ``would drop``, ``would remove`` or ``left``.
    :param task: of a job: the task instance.
    :param task_state: its state in Airflow; ``gone`` if Airflow doesn't know it.
    :param job_status: where the job stood.
    :param created: when the job was made, or the newest of the files.
    :param credits_per_hour: what the job's nodes cost; ``None`` if nobody knows.
    :param error: why it is left.
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
        """Write it as JSON; the time as ISO 8601."""
        created = None if self.created is None else self.created.isoformat(timespec="seconds")
        return {**asdict(self), "kind": self.kind.value, "created": created}

    def __str__(self) -> str:
        words = [self.action, self.kind, self.name]
        if self.task:
            words.append(f"({self.job_status}) of {self.task} ({self.task_state})")
        return " ".join(words) + (f": {self.error}" if self.error else "")


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What a collection has found and done.

    :param items: what was to be collected, in the order in which it was.
    :param kept: how many jobs of this Airflow stay: too young, or their task isn't finished.
    :param not_ours: how many other jobs there are: of other Airflows, of no task, or of somebody's making.
    :param is_complete: whether all jobs could be seen; if not, files without a job are left alone.
    """

    items: tuple[Item, ...]
    kept: int
    not_ours: int
    is_complete: bool = True

    @property
    def errors(self) -> tuple[Item, ...]:
        """What could not be collected."""
        return tuple(item for item in self.items if item.error)

    @property
    def credits_per_hour(self) -> float:
        """What the nodes of jobs that were dropped cost, as far as it is known."""
        return sum(item.credits_per_hour or 0.0 for item in self.items if not item.error)

    @property
    def summary(self) -> str:
        """One line for people."""
        done = Counter((item.action, item.kind) for item in self.items)
        counts = [f"{action} {_counted(number, kind)}" for (action, kind), number in done.items()]
        unknown = sum(item.credits_per_hour is None for item in self.items if not item.error)
        parts = [
            ", ".join(counts) or "nothing to collect",
            f"{_counted(self.kept, 'job')} kept",
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
