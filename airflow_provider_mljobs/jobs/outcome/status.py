"""The statuses of jobs and their phases, as data."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class JobStatus(StrEnum):
    """The status of a job service (SPCS, "working with services")."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"
    SUSPENDING = "SUSPENDING"
    SUSPENDED = "SUSPENDED"
    DELETING = "DELETING"
    DELETED = "DELETED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    UNKNOWN = "UNKNOWN"

    @classmethod
    def _missing_(cls, value: object) -> JobStatus:  # noqa: ARG003 (any value is unknown)
        """Return UNKNOWN for a status that Snowflake adds one day, so that the job is still watched."""
        return cls.UNKNOWN

    @property
    def is_terminal(self) -> bool:
        """Whether the status is final."""
        return PHASES.get(self) is Phase.FINISHING


class Phase(StrEnum):
    """The phase of a job, as the task's log and XCom ``timeline`` name it."""

    QUEUED = "queued"
    POOL_STARTING = "pool starting"
    NO_CAPACITY = "no capacity"
    IMAGE_PULLING = "image pulling"
    IMAGE_PULL_FAILING = "image pull failing"
    RUNNING = "running"
    CANCELLING = "cancelling"
    DELETING = "deleting"
    SUSPENDED = "suspended"
    FINISHING = "finishing"


# The phases before a job runs.
WAITING_PHASES = frozenset(
    {Phase.QUEUED, Phase.POOL_STARTING, Phase.NO_CAPACITY, Phase.IMAGE_PULLING, Phase.IMAGE_PULL_FAILING}
)

# UNKNOWN has none: the job stays in the phase before. By the documentation, jobs can't be suspended; a job that is
# suspended after all isn't over, and the task's deadlines bound the wait for it.
PHASES: Mapping[JobStatus, Phase] = {
    JobStatus.PENDING: Phase.QUEUED,
    JobStatus.RUNNING: Phase.RUNNING,
    JobStatus.CANCELLING: Phase.CANCELLING,
    JobStatus.DELETING: Phase.DELETING,
    JobStatus.SUSPENDING: Phase.SUSPENDED,
    JobStatus.SUSPENDED: Phase.SUSPENDED,
    JobStatus.DONE: Phase.FINISHING,
    JobStatus.FAILED: Phase.FINISHING,
    JobStatus.CANCELLED: Phase.FINISHING,
    JobStatus.INTERNAL_ERROR: Phase.FINISHING,
    JobStatus.DELETED: Phase.FINISHING,
}

# Accounts name the resource that no node has, or none: "insufficient memory resources", "insufficient resources".
NO_ROOM = r"unschedulable due to insufficient (?:\S+ )*resources"

# Patterns of containers' messages while their job is PENDING ("monitoring services"), in any case. An image is pulled
# as soon as the job has a node, and then the container waits to start. The longer form says nothing about a node.
_WAITING: Mapping[str, Phase] = {
    r"compute pool node\(s\) are being provisioned": Phase.POOL_STARTING,
    NO_ROOM: Phase.NO_CAPACITY,
    r"failed to pull image": Phase.IMAGE_PULL_FAILING,
    r"waiting to start(?!, container status)": Phase.IMAGE_PULLING,
}


def phase_of(status: JobStatus, reason: str = "") -> Phase | None:
    """Return the phase of a job; ``None`` if its status gives none."""
    if status is JobStatus.PENDING:
        waits = (phase for words, phase in _WAITING.items() if re.search(words, reason, re.IGNORECASE))
        return next(waits, Phase.QUEUED)
    return PHASES.get(status)
