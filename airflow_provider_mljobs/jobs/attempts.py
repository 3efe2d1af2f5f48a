"""What a task remembers of its job from try to try, and what the next try makes of it."""

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
# A task that is cleared this often while none of its submits is seen to take effect forgets the oldest.
_MAX_UNSEEN = 20
# A job in one of these goes on to its end by itself.
_GOES_ON = frozenset({JobStatus.PENDING, JobStatus.RUNNING, JobStatus.UNKNOWN})

# The types of a record's fields, as JSON has them.
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
    """How far a task has come with its job."""

    INTENDED = "intended"
    SUBMITTED = "submitted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class NextStep(StrEnum):
    """What a try begins with."""

    SUBMIT = "submit"
    SUBMIT_ANOTHER = "submit another"
    ATTACH = "attach"
    RETURN = "return"


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What changes when somebody clears the task, and not when Airflow tries it again.

    :param max_tries: the task instance's, which a clear sets to its tries so far and the task's ``retries``.
    :param clear_number: how often something of the DAG run was cleared. It tells that a task that has succeeded was
        cleared after its ``retries`` had been lowered; a job that isn't over shall not end because of another task.
    """

    max_tries: int
    clear_number: int = 0


@dataclass(frozen=True, kw_only=True)
class Record:
    """A task's job.

    :param job_id: its fully qualified name, chosen before it was submitted.
    :param snowflake_conn_id: the Airflow connection by which it is submitted.
    :param epoch: that in which it was.
    :param run_started: when the DAG run had started by then, which its COMMENT says as well.
    :param attempt: which of the task's jobs it is: not less than the number of the try that has chosen the name.
    :param progress: how far the task has come.
    :param stage_path: the job's own directory on the stage; ``None`` if it has none.
    :param intended_at: when the task was about to submit it, in seconds since the epoch; 0 if that isn't recorded.
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
        """Decide what a try begins with.

        :param epoch: the try's.
        :param status: where the job stands; ``None`` if there is no such job.
        :param waits: whether the task waits for its jobs; otherwise it has done its part when there is one.
        :param takes_failures: whether a job that ended badly may be the last one: its exit code may say so.
        """
        if self.epoch.max_tries != epoch.max_tries or self.progress is Progress.FAILED:
            return NextStep.SUBMIT_ANOTHER
        if self.progress is Progress.SUCCEEDED:
            return NextStep.RETURN if self.epoch == epoch else NextStep.SUBMIT_ANOTHER
        if status is None:
            # One that is gone may have left something in its place.
            return NextStep.SUBMIT if self.progress is Progress.INTENDED else NextStep.SUBMIT_ANOTHER
        is_worth_it = status in _GOES_ON or status is JobStatus.DONE or (takes_failures and status is JobStatus.FAILED)
        return NextStep.ATTACH if is_worth_it or not waits else NextStep.SUBMIT_ANOTHER

    def after(self, earlier: Record, *, has_ended: bool) -> Self:
        """Take over the unseen jobs of an earlier attempt.

        :param has_ended: whether that attempt's own job was seen to end, or is this one; otherwise it is unseen, too.
        """
        last = () if has_ended else (replace(earlier, unseen=()),)
        return replace(self, unseen=(*earlier.unseen, *last)[-_MAX_UNSEEN:])

    def submitted(self) -> Self:
        """Note that there is such a job."""
        return replace(self, progress=Progress.SUBMITTED)

    def succeeded(self) -> Self:
        """Note that the job has ended well, and that what it has left is remembered, too."""
        return replace(self, progress=Progress.SUCCEEDED)

    def failed(self) -> Self:
        """Note that the job has ended badly, and the task has said so."""
        return replace(self, progress=Progress.FAILED)

    def to_json(self) -> dict[str, Any]:
        """Write it for Airflow's task state store."""
        return {"version": _VERSION, **_fields_of(self), "unseen": [_fields_of(each) for each in self.unseen]}

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """Read it again.

        :raises UnreadableError: if it is another version's, or nobody's.
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
