"""A job service: its request and the state of its instances."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from airflow_provider_mljobs.emulator.parsing import QualifiedName
from airflow_provider_mljobs.emulator.spcs.specification import Specification

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_mljobs.emulator.settings import Ready, VirtualJob

JobStatus = Literal[
    "PENDING", "RUNNING", "DONE", "FAILED", "CANCELLING", "CANCELLED", "INTERNAL_ERROR", "DELETING", "DELETED"
]  # fmt: skip
ContainerStatus = Literal["PENDING", "READY", "DONE", "FAILED", "TERMINATING", "UNKNOWN"]
InstanceStatus = Literal["PENDING", "READY", "SUCCEEDED", "FAILED", "TERMINATING"]

# The owner of the services of managed jobs, in place of the role that started them.
MANAGED_OWNER = "SYSTEM$MANAGED"
TERMINAL: frozenset[JobStatus] = frozenset({"DONE", "FAILED", "CANCELLED", "INTERNAL_ERROR", "DELETED"})
JOB_MESSAGES: Mapping[JobStatus, str] = {
    "PENDING": "Job is pending.",
    "RUNNING": "Job is running.",
    "DONE": "Job completed successfully.",
    "FAILED": "Job has failed.",
    "CANCELLING": "Job is being canceled.",
    "CANCELLED": "Job has been canceled.",
    "INTERNAL_ERROR": "Job has encountered an error.",
    "DELETING": "Job is being deleted.",
    "DELETED": "Job has been deleted.",
}
WAITING = "Waiting to start"
PROVISIONING = "Compute pool node(s) are being provisioned"
NO_ROOM = "Unschedulable due to insufficient {resource} resources"
NO_IMAGE = "Failed to pull image"
RUNNING = "Running"
COMPLETED = "Completed successfully"
FATAL = "Encountered fatal error while running, check container logs"
LOST = "The node was lost"

_OF_CONTAINERS: tuple[tuple[ContainerStatus, InstanceStatus], ...] = (
    ("FAILED", "FAILED"),
    ("TERMINATING", "TERMINATING"),
    ("UNKNOWN", "FAILED"),
    ("PENDING", "PENDING"),
    ("READY", "READY"),
)


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """The request of an EXECUTE JOB SERVICE.

    :param replicas: as written; ``None`` without the clause, and then the job has no index.
    :param artifact_repositories: from which a managed job installs packages.
    :param workload: its type: USER, or ML_JOB for SYSTEM$EXECUTE_ML_JOB.
    """

    id: str
    query_id: str
    name: QualifiedName
    pool: str
    specification: Specification
    created: float
    owner: str
    replicas: int | None = None
    asynchronous: bool = False
    query_warehouse: str | None = None
    comment: str | None = None
    integrations: tuple[str, ...] = ()
    artifact_repositories: tuple[str, ...] = ()
    workload: str = "USER"

    @property
    def is_managed(self) -> bool:
        """Whether SYSTEM$EXECUTE_ML_JOB has started it, so that Snowflake owns the service."""
        return self.workload == "ML_JOB"

    @property
    def has_egress(self) -> bool:
        """Whether its containers reach more than Snowflake and each other."""
        return bool(self.integrations or self.artifact_repositories)

    @property
    def instance_count(self) -> int:
        """How many instances run."""
        return self.replicas or 1

    def record(self) -> str:
        """Return the request as JSON, for the next start."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        name = self.name
        values["name"] = [name.name, name.schema, name.database]
        return json.dumps(values | {"specification": self.specification.document})

    @classmethod
    def restore(cls, record: str) -> JobRequest:
        """Build a request from its record."""
        values = json.loads(record)
        values["name"] = QualifiedName(*values["name"])
        values["specification"] = Specification(values["specification"])
        for name in ("integrations", "artifact_repositories"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)


@dataclass
class ContainerRun:
    """A container of an instance, as SHOW SERVICE CONTAINERS shows it.

    :param finished: when it ended.
    """

    name: str
    status: ContainerStatus = "PENDING"
    message: str = WAITING
    started: float | None = None
    exit_code: int | None = None
    finished: float | None = None

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.status in {"DONE", "FAILED"}


@dataclass
class InstanceRun:
    """An instance of a job: its containers run on one node.

    :param node: the node of the pool, once there is room.
    :param address: its IP address, once its node is up, and also after its end.
    """

    index: int
    containers: list[ContainerRun]
    node: int | None = None
    address: str = ""

    @property
    def status(self) -> InstanceStatus:
        """The status that follows from its containers."""
        present = {container.status for container in self.containers}
        return next((status for container, status in _OF_CONTAINERS if container in present), "SUCCEEDED")

    @property
    def started(self) -> float | None:
        """When its first container started."""
        return min((container.started for container in self.containers if container.started is not None), default=None)

    @property
    def ended(self) -> bool:
        """Whether all its containers have ended."""
        return all(container.ended for container in self.containers)


def roll_up(instances: list[InstanceRun]) -> JobStatus:
    """Return the status of a job that follows from its instances."""
    present = {instance.status for instance in instances}
    if "FAILED" in present:
        return "FAILED"
    if present == {"SUCCEEDED"}:
        return "DONE"
    return "RUNNING" if present & {"READY", "TERMINATING", "SUCCEEDED"} else "PENDING"


@dataclass(eq=False)
class Job:
    """A job service. Not thread-safe: the scheduler's lock guards it.

    :param virtual: the settings of a virtual job, which has no processes.
    :param status_lag: how many seconds after its start clients see that it is RUNNING.
    :param waits: the reasons why it was pending, as its containers' messages, each with the time since when.
    :param looks: how often clients read its status.
    :param endpoint_looks: how often they read its endpoints.
    """

    request: JobRequest
    ready: Ready
    virtual: VirtualJob | None = None
    status_lag: float = 0.0
    status: JobStatus = "PENDING"
    message: str = JOB_MESSAGES["PENDING"]
    waits: list[tuple[float, str]] = field(default_factory=list)
    started: float | None = None
    completed: float | None = None
    deleted: float | None = None
    updated: float = 0.0
    looks: int = 0
    endpoint_looks: int = 0
    instances: list[InstanceRun] = field(default_factory=list)

    @property
    def name(self) -> QualifiedName:
        """The fully qualified name."""
        return self.request.name

    @property
    def terminal(self) -> bool:
        """Whether the status is final."""
        return self.status in TERMINAL

    @property
    def dropped(self) -> bool:
        """Whether it was dropped, so that only the history lists it."""
        return self.deleted is not None

    @property
    def waits_for(self) -> str:
        """Why it is pending."""
        return self.waits[-1][1] if self.waits else WAITING

    def wait_for(self, reason: str, now: float) -> None:
        """Record why it is pending."""
        if reason != self.waits_for:
            self.waits.append((now, reason))

    def lists_containers(self, ready: Ready, now: float) -> bool:
        """Return whether its containers are listed, also before they start."""
        if self.status != "PENDING":
            return True
        return self.looks > ready.polls if ready.polls else now >= self.request.created + ready.seconds

    def shown_status(self, now: float) -> JobStatus:
        """Return the status that clients see."""
        if self.dropped:
            return "DELETING"
        is_early = self.status == "RUNNING" and self.started is not None and now < self.started + self.status_lag
        return "PENDING" if is_early else self.status

    @cached_property
    def _duration(self) -> float:
        return 0.0 if self.virtual is None else self.virtual.duration(self.name.name)

    def is_due(self, now: float, pool_ready_on: float) -> bool:
        """Return whether the settings let it start now."""
        return self.looks > self.ready.polls if self.ready.polls else now >= self.due_on(pool_ready_on)

    def due_on(self, pool_ready_on: float) -> float:
        """Return when it may start by the clock."""
        return max(self.request.created, pool_ready_on) + self.ready.seconds

    def endpoints_are_ready(self, ready: Ready, now: float) -> bool:
        """Return whether its public endpoints have an address."""
        if self.started is None:
            return False
        return self.endpoint_looks > ready.polls if ready.polls else now >= self.started + ready.seconds

    def ends_on(self) -> float | None:
        """Return when a virtual job that has started will end."""
        if self.virtual is None or self.started is None:
            return None
        return self.started + self._duration

    def line_logged_on(self, number: int) -> int:
        """Return when a virtual job that has started prints a line, in nanoseconds since the epoch.

        :param number: the line's, from 1 to the last one, which comes at the end of the job.
        """
        return 0 if self.virtual is None else self.done_on(number, self.virtual.log_lines)

    def done_on(self, part: int, parts: int) -> int:
        """Return when a virtual job that has started completes a part of its run, in nanoseconds since the epoch."""
        if self.started is None:
            return 0
        start, end = round(self.started * 1e9), round((self.started + self._duration) * 1e9)
        return start + (end - start) * part // parts

    def begin(self, now: float) -> None:
        """Leave PENDING."""
        if self.started is None:
            self.started = now
            self.move("RUNNING", now)

    def move(self, status: JobStatus, now: float, message: str | None = None) -> None:
        """Change the status."""
        self.status = status
        self.message = message or JOB_MESSAGES[status]
        self.updated = now
        if self.terminal and self.completed is None:
            self.completed = now

    def advance(self, now: float) -> bool:
        """End a virtual job by the clock; return whether it ended."""
        ends = self.ends_on()
        if ends is None or self.virtual is None or self.status != "RUNNING" or now < ends:
            return False
        self.move(self.virtual.status, ends)
        return True

    def open_instances(self) -> list[InstanceRun]:
        """Return the instances, created on first use."""
        if not self.instances:
            names = [container.name for container in self.request.specification.containers]
            self.instances = [
                InstanceRun(index, [ContainerRun(name) for name in names])
                for index in range(self.request.instance_count)
            ]
        return self.instances

    def is_waiting_for_first(self) -> bool:
        """Return whether instances may not start yet because the first one hasn't."""
        first = self.open_instances()[0]
        has_order = self.request.specification.starts_first_instance_first
        return has_order and not first.ended and first.status != "READY"

    def view(self) -> list[InstanceRun]:
        """Return the instances for SHOW."""
        if self.virtual is not None:
            return [self._virtual_instance(index) for index in range(self.request.instance_count)]
        instances = self.open_instances()
        for instance in instances:
            for container in instance.containers:
                if container.status == "PENDING" and not instance.address:
                    container.message = self.waits_for
        return instances

    def sidecars(self, run: InstanceRun) -> list[ContainerRun]:
        """Return the containers that Snowflake adds to an instance: they start and end with its own."""
        first = run.containers[0]
        if run.started is None:
            state = first
        elif run.ended:
            ended = max((container.finished or 0.0 for container in run.containers), default=None)
            state = ContainerRun(first.name, "DONE", COMPLETED, run.started, 0, ended)
        else:
            state = ContainerRun(first.name, "READY", RUNNING, run.started)
        return [dataclasses.replace(state, name=sidecar.name) for sidecar in self.request.specification.sidecars]

    def _virtual_instance(self, index: int) -> InstanceRun:
        status, message, code = _VIRTUAL[self.status]
        names = [container.name for container in self.request.specification.containers]
        if status == "PENDING":
            message = self.waits_for
        containers = [ContainerRun(name, status, message, self.started, code, self.completed) for name in names]
        return InstanceRun(index, containers, address="" if self.started is None else "127.0.0.1")

    def record(self) -> str:
        """Return the state as JSON, for the next start."""
        names = ("status", "message", "waits", "started", "completed", "deleted", "updated")
        values = {name: getattr(self, name) for name in names}
        return json.dumps(values | {"instances": [dataclasses.asdict(instance) for instance in self.instances]})

    def restore(self, record: str) -> None:
        """Restore the state from its record."""
        values = json.loads(record)
        self.instances = [
            InstanceRun(
                entry["index"],
                [ContainerRun(**container) for container in entry["containers"]],
                address=entry.get("address", ""),
            )
            for entry in values.pop("instances")
        ]
        self.waits = [(at, reason) for at, reason in values.pop("waits", ())]
        # Of an earlier version.
        values.pop("waits_for", None)
        for name, value in values.items():
            setattr(self, name, value)

    def lose(self, now: float) -> None:
        """Fail a job whose processes ended with an earlier server."""
        for instance in self.instances:
            for container in instance.containers:
                if not container.ended:
                    container.status, container.message, container.finished = "FAILED", LOST, now
        self.move("INTERNAL_ERROR", now)


_VIRTUAL: Mapping[JobStatus, tuple[ContainerStatus, str, int | None]] = {
    "PENDING": ("PENDING", WAITING, None),
    "RUNNING": ("READY", RUNNING, None),
    "DONE": ("DONE", COMPLETED, 0),
    "FAILED": ("FAILED", FATAL, 1),
    "CANCELLING": ("TERMINATING", RUNNING, None),
    "CANCELLED": ("FAILED", FATAL, 143),
    "DELETING": ("FAILED", FATAL, 143),
    "INTERNAL_ERROR": ("FAILED", LOST, None),
    "DELETED": ("FAILED", FATAL, 143),
}
