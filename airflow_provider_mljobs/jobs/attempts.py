"""The record of a task's job, which its tries share, and the first step of the next try."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_mljobs.exceptions import UnreadableError
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.untrusted import reading

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import UnionType

_VERSION = 1
# A task that is cleared more often, while none of its submits takes effect, forgets the oldest.
_MAX_UNSEEN = 20
# A job in one of these reaches its end by itself.
_ACTIVE = frozenset({JobStatus.PENDING, JobStatus.RUNNING, JobStatus.UNKNOWN})

# The JSON types of a record's fields.
_TYPES: Mapping[str, type | UnionType] = {
    "job_id": str,
    "snowflake_conn_id": str,
    "max_tries": int,
    "clear_number": int,
    "run_started": str,
    "attempt": int,
    "stage_path": str | None,
    "intended_at": float | int,
}


class Progress(StrEnum):
    """The progress of a task with its job."""

    INTENDED = "intended"
    SUBMITTED = "submitted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class NextStep(StrEnum):
    """The first step of a try."""

    SUBMIT = "submit"
    SUBMIT_ANOTHER = "submit another"
    ATTACH = "attach"
    RETURN = "return"


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """The part of a task instance that changes when a user clears the task, and not when Airflow retries it.

    :param max_tries: the task instance's, which a clear sets to its tries so far and the task's ``retries``.
    :param clear_number: how often tasks of the DAG run were cleared. It reveals that a task that has succeeded was
        cleared after its ``retries`` were lowered; a running job must not end because of another task.
    """

    max_tries: int
    clear_number: int = 0


@dataclass(frozen=True, kw_only=True)
class Record:
    """A task's job.

    :param job_id: its fully qualified name, chosen before it was submitted.
    :param attempt: which of the task's jobs it is: at least the number of the try that chose the name.
    :param intended_at: the time just before its submit, in seconds since the epoch; 0 for unknown.
    :param unseen: jobs of earlier attempts that were not seen to end. Their submit may still take effect.
    """

    job_id: str
    snowflake_conn_id: str
    epoch: Epoch
    run_started: str
    attempt: int
    progress: Progress = Progress.INTENDED
    stage_path: str | None = None
    intended_at: float = 0.0
    unseen: tuple[Record, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether the job's end is still to be taken."""
        return self.progress in {Progress.INTENDED, Progress.SUBMITTED}

    def next_step(
        self, epoch: Epoch, status: JobStatus | None, *, waits: bool = True, takes_failures: bool = False
    ) -> NextStep:
        """Decide the first step of a try.

        :param waits: whether the task waits for its job; otherwise the task is done once it has one.
        :param takes_failures: whether the exit code of a failed job may end the task.
        """
        if self.epoch.max_tries != epoch.max_tries or self.progress is Progress.FAILED:
            return NextStep.SUBMIT_ANOTHER
        if self.progress is Progress.SUCCEEDED:
            return NextStep.RETURN if self.epoch == epoch else NextStep.SUBMIT_ANOTHER
        if status is None:
            # One that is gone may have left something in its place.
            return NextStep.SUBMIT if self.progress is Progress.INTENDED else NextStep.SUBMIT_ANOTHER
        is_worth_it = status in _ACTIVE or status is JobStatus.DONE or (takes_failures and status is JobStatus.FAILED)
        return NextStep.ATTACH if is_worth_it or not waits else NextStep.SUBMIT_ANOTHER

    def after(self, earlier: Record, *, has_ended: bool) -> Self:
        """Take over the unseen jobs of an earlier attempt, and its own job unless that has ended."""
        last = () if has_ended else (replace(earlier, unseen=()),)
        return replace(self, unseen=(*earlier.unseen, *last)[-_MAX_UNSEEN:])

    def submitted(self) -> Self:
        """Note that the job exists."""
        return replace(self, progress=Progress.SUBMITTED)

    def succeeded(self) -> Self:
        """Note that the job has ended well, and that its result is saved."""
        return replace(self, progress=Progress.SUCCEEDED)

    def failed(self) -> Self:
        """Note that the job has failed, and its task with it."""
        return replace(self, progress=Progress.FAILED)

    def to_json(self) -> dict[str, Any]:
        """Write it for Airflow's task state store."""
        return {"version": _VERSION, **_fields_of(self), "unseen": [_fields_of(each) for each in self.unseen]}

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """Read it again.

        :raises UnreadableError: if another version wrote it, or it is no record.
        """
        version = document.get("version") if isinstance(document, dict) else None
        if version != _VERSION:
            raise UnreadableError(f"a record of version {version!s:.20}, not {_VERSION}")
        values = {name: value for name, value in document.items() if name not in {"version", "unseen"}}
        with reading("no record: it"):
            return replace(cls._from_fields(values), unseen=tuple(map(cls._from_fields, document.get("unseen", ()))))

    @classmethod
    def _from_fields(cls, values: Mapping[str, Any]) -> Self:
        epoch, progress = Epoch(**values["epoch"]), Progress(values["progress"])
        for name, value in [*values.items(), *asdict(epoch).items()]:
            if not isinstance(value, _TYPES.get(name, object)) or isinstance(value, bool):
                msg = f"{name} is {value!r}"
                raise TypeError(msg)
        return cls(**{**values, "epoch": epoch, "progress": progress})


def _fields_of(record: Record) -> dict[str, Any]:
    """Return the fields of a record without its unseen jobs."""
    values = asdict(replace(record, unseen=()))
    del values["unseen"]
    return values
