"""What a task remembers of its job from try to try, and what the next try makes of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_mljobs.jobs.status import JobStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

_VERSION = 1
# Airflow warns of values of more than 64 KB in its state store.
_MOST_BYTES = 60_000


class Progress(StrEnum):
    """How far a task has come with its job."""

    INTENDED = "intended"
    SUBMITTED = "submitted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Step(StrEnum):
    """What a try does about the job of an earlier one."""

    ATTACH = "attach"
    REPEAT = "repeat"
    SUBMIT_ANOTHER = "submit another"
    START_OVER = "start over"
    RETURN = "return"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A task's job.

    :param job_id: its fully qualified name, chosen before it was submitted.
    :param epoch: the task instance's ``max_tries``, which Airflow raises when somebody clears the task, and only then.
    :param attempt: which of the epoch's jobs it is: the number of the try that has chosen the name.
    :param progress: how far the task has come.
    :param stage_path: the job's own directory on the stage; ``None`` if it has none.
    :param values: what the task has pushed to XCom by the job's end, which a retry has to push again.
    :param is_whole: whether the values are all; otherwise the result has stayed on the stage.
    """

    job_id: str
    epoch: int
    attempt: int
    progress: Progress = Progress.INTENDED
    stage_path: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    is_whole: bool = True

    def next_step(self, epoch: int, status: JobStatus | None, *, waits: bool = True) -> Step:
        """Decide what a try does.

        :param epoch: the try's.
        :param status: where the job stands; ``None`` if there is no such job.
        :param waits: whether the task waits for its jobs; otherwise it has done its part when there is one.
        """
        if self.epoch != epoch:
            return Step.START_OVER
        if self.progress is Progress.SUCCEEDED:
            return Step.RETURN
        if self.progress is Progress.FAILED:
            return Step.SUBMIT_ANOTHER
        if status is None:
            return Step.REPEAT
        is_lost = waits and status.is_terminal and status is not JobStatus.DONE
        return Step.SUBMIT_ANOTHER if is_lost else Step.ATTACH

    def submitted(self) -> Self:
        """Note that there is such a job."""
        return replace(self, progress=Progress.SUBMITTED)

    def failed(self) -> Self:
        """Note that the job has ended badly, and the task has said so."""
        return replace(self, progress=Progress.FAILED)

    def succeeded(self, values: Mapping[str, Any]) -> Self:
        """Note that the job has ended well, and what is to be pushed; as far as there is room for it."""
        whole = replace(self, progress=Progress.SUCCEEDED, values=dict(values), is_whole=True)
        if len(json.dumps(whole.to_json())) <= _MOST_BYTES:
            return whole
        return replace(whole, values={}, is_whole=False)

    def to_json(self) -> dict[str, Any]:
        """Write it for Airflow's task state store."""
        return {"version": _VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """Read it again.

        :raises ValueError: if it is another version's, or nobody's.
        """
        if not isinstance(document, dict) or document.get("version") != _VERSION:
            msg = f"not a record of version {_VERSION}: {str(document)[:200]}"
            raise ValueError(msg)
        try:
            record = cls(**{name: value for name, value in document.items() if name != "version"})
            return replace(record, progress=Progress(record.progress))
        except TypeError as error:
            msg = f"not a record: {error}"
            raise ValueError(msg) from error
