"""Platform events of jobs: the changes of status of a job, its instances and containers ("monitoring services")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.spcs import jobs as words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_mljobs.emulator.spcs.jobs import ContainerRun, InstanceRun, Job, JobStatus

_OF_JOB: Mapping[JobStatus, str] = {
    "DONE": "Job is completed",
    "FAILED": "Job has failed",
    "CANCELLED": "Job has been canceled",
    "INTERNAL_ERROR": "Job has encountered an error",
    "DELETED": "Job has been deleted",
}
_BAD = frozenset({"FAILED", "INTERNAL_ERROR"})


@dataclass(frozen=True)
class Event:
    """One change of status.

    :param at: when, in seconds since the epoch.
    :param subject: SERVICE, SERVICE_INSTANCE or CONTAINER.
    """

    at: float
    subject: str
    status: str
    message: str
    instance: int | None = None
    container: str | None = None

    @property
    def name(self) -> str:
        """The name of the event."""
        return f"{self.subject}.STATUS_CHANGE"

    @property
    def severity(self) -> str:
        """INFO or ERROR."""
        return "ERROR" if self.status in _BAD or self.message == words.NO_IMAGE else "INFO"


def events_of(job: Job) -> list[Event]:
    """Return the events of a job, newest first, as the function lists them."""
    return sorted(_events(job), key=lambda event: event.at, reverse=True)


def _events(job: Job) -> Iterator[Event]:
    yield Event(job.request.created, "SERVICE", "PENDING", "Job is pending")
    if job.started is not None:
        yield Event(job.started, "SERVICE", "RUNNING", "Job is running")
    if job.completed is not None:
        yield Event(job.completed, "SERVICE", job.status, _OF_JOB.get(job.status, job.message))
    for run in job.view():
        yield from _events_of_instance(job, run)


def _events_of_instance(job: Job, run: InstanceRun) -> Iterator[Event]:
    yield Event(job.request.created, "SERVICE_INSTANCE", "PENDING", "Job instance is pending", run.index)
    if run.started is not None:
        yield Event(run.started, "SERVICE_INSTANCE", "READY", "Job instance is running", run.index)
    ends = [container.finished for container in run.containers if container.finished is not None]
    if run.ended and ends:
        message = "Job instance failed" if run.status == "FAILED" else "Job instance has completed"
        yield Event(max(ends), "SERVICE_INSTANCE", run.status, message, run.index)
    for container in run.containers:
        yield from _events_of_container(job, run.index, container)


def _events_of_container(job: Job, instance: int, container: ContainerRun) -> Iterator[Event]:
    changes = [(job.request.created, "PENDING", words.WAITING), *((at, "PENDING", reason) for at, reason in job.waits)]
    if container.started is not None:
        changes.append((container.started, "READY", words.RUNNING))
    if container.finished is not None:
        changes.append((container.finished, container.status, container.message))
    for at, status, message in changes:
        yield Event(at, "CONTAINER", status, message, instance, container.name)
