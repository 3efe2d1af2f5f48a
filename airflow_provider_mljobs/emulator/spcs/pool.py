"""A compute pool: its state, and the free room on its nodes."""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_mljobs.emulator.results import Column
from airflow_provider_mljobs.emulator.settings import Ready
from airflow_provider_mljobs.emulator.spcs.instance_families import FAMILIES, InstanceFamily
from airflow_provider_mljobs.emulator.spcs.specification import Resources

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

PoolState = Literal["STARTING", "ACTIVE", "IDLE", "STOPPING", "SUSPENDED"]

SHOW_COLUMNS = (
    Column("name"),
    Column("state"),
    Column("min_nodes", "fixed"),
    Column("max_nodes", "fixed"),
    Column("instance_family"),
    Column("num_services", "fixed"),
    Column("num_jobs", "fixed"),
    Column("auto_suspend_secs", "fixed"),
    Column("auto_resume", "boolean"),
    Column("active_nodes", "fixed"),
    Column("idle_nodes", "fixed"),
    Column("target_nodes", "fixed"),
    Column("created_on", "timestamp_ltz"),
    Column("resumed_on", "timestamp_ltz"),
    Column("updated_on", "timestamp_ltz"),
    Column("owner"),
    Column("comment"),
    Column("is_exclusive", "boolean"),
    Column("application"),
    Column("placement_group"),
    Column("backup_instance_families"),
)
NODE_COLUMNS = (
    Column("node_id"),
    Column("instance_family"),
    Column("created_on", "timestamp_ltz"),
    Column("placement_group"),
    Column("vcpu", "fixed"),
    Column("memory_gib", "fixed"),
    Column("storage_gib", "fixed"),
    Column("gpu"),
    Column("gpu_count", "fixed"),
    Column("gpu_memory_gib", "fixed"),
)
DESCRIBE_COLUMNS = (*SHOW_COLUMNS, Column("error_code"), Column("status_message"))
_MESSAGES: Mapping[PoolState, str] = {
    "STARTING": "Compute pool is starting for last {minutes} minutes",
    "ACTIVE": "Compute pool is active",
    "IDLE": "Compute pool is idle",
    "STOPPING": "Compute pool is stopping",
    "SUSPENDED": "Compute pool is suspended",
}


def moment(seconds: float | None) -> datetime | None:
    """Return a time as a value of a result."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True)
class PoolOptions:
    """The properties of CREATE and ALTER COMPUTE POOL."""

    min_nodes: int = 1
    max_nodes: int = 1
    instance_family: str = "CPU_X64_XS"
    auto_resume: bool = True
    auto_suspend_secs: int = 3600
    comment: str | None = None
    application: str | None = None
    placement_group: str | None = None
    backup_instance_families: tuple[str, ...] = ()


@dataclass
class _Node:
    """A machine: the resources that it has left, and how many instances run on it.

    :param up_on: when it is up; the minimum of nodes comes with the pool.
    """

    family: InstanceFamily
    created: float
    free: Resources
    instances: int = 0
    up_on: float = 0.0
    id: str = field(default_factory=lambda: f"node-{secrets.token_hex(4)}")

    @classmethod
    def of(cls, family: InstanceFamily) -> _Node:
        return cls(family, time.time(), Resources.room_of(family))

    def row(self, placement_group: str | None) -> tuple[Any, ...]:
        """Return the row of SHOW NODES."""
        family = self.family
        return (
            self.id, family.name, moment(self.created), placement_group, family.vcpu, family.memory_gib,
            family.storage_gib, family.gpu or "", family.gpu_count, family.gpu_memory_gib * family.gpu_count,
        )  # fmt: skip


@dataclass(eq=False)
class Pool:
    """A compute pool. Not thread-safe: the scheduler's lock guards it.

    :param system: whether Snowflake manages it, as SYSTEM_COMPUTE_POOL_CPU.
    :param suspended: whether it was suspended, by a statement or after AUTO_SUSPEND_SECS.
    :param looks: how often clients read its state since it began to start.
    :param live_jobs: ids of the jobs that haven't ended.
    :param scarce: instance families without capacity.
    """

    name: str
    options: PoolOptions
    owner: str
    created_on: float
    ready: Ready
    system: bool = False
    suspended: bool = False
    resumed_on: float | None = None
    updated_on: float = 0.0
    idle_since: float = 0.0
    looks: int = 0
    live_jobs: set[str] = field(default_factory=set)
    scarce: Collection[str] = ()
    _nodes: list[_Node] = field(default_factory=list)

    @property
    def family(self) -> InstanceFamily:
        """The machine type of its nodes, where there is capacity."""
        return FAMILIES[self.options.instance_family]

    def _available(self) -> InstanceFamily | None:
        """Return the machine type of the next node: the pool's own, or the first backup with capacity."""
        names = (self.options.instance_family, *self.options.backup_instance_families)
        return next((FAMILIES[name] for name in names if name not in self.scarce), None)

    @property
    def active_families(self) -> list[str]:
        """The instance family of each node that runs instances."""
        return [node.family.name for node in self._nodes if node.instances]

    @property
    def active_nodes(self) -> int:
        """How many nodes run instances."""
        return len(self.active_families)

    def state(self, now: float) -> PoolState:
        """Return the state; an idle pool suspends itself after AUTO_SUSPEND_SECS."""
        idle = now - max(self.idle_since, self.started_on)
        if not self.suspended and not self.live_jobs and 0 < self.options.auto_suspend_secs <= idle:
            self.suspended = True
        if self.suspended:
            return "STOPPING" if self.live_jobs else "SUSPENDED"
        if not self.is_ready(now):
            return "STARTING"
        return "ACTIVE" if self.live_jobs else "IDLE"

    @property
    def started_on(self) -> float:
        """When it last began to start."""
        return self.resumed_on if self.resumed_on is not None else self.created_on

    @property
    def ready_on(self) -> float:
        """When it is up by the clock."""
        return self.started_on + self.ready.seconds

    def is_ready(self, now: float) -> bool:
        """Return whether it has started, for a pool that isn't suspended."""
        return self.looks > self.ready.polls if self.ready.polls else now >= self.ready_on

    def look(self) -> None:
        """Count a look at it."""
        if not self.suspended:
            self.looks += 1

    def resume(self, now: float) -> None:
        """Resume it if it is suspended."""
        if self.suspended:
            self.suspended = False
            self.resumed_on = self.updated_on = now
            self.looks = 0

    def suspend(self, now: float) -> None:
        """Suspend it; running jobs continue to their end."""
        self.suspended = True
        self.updated_on = now

    def place(self, request: Resources, now: float) -> int | None:
        """Reserve room for an instance; return the node, which may not be up yet, or ``None`` if all are full."""
        for index, node in enumerate(self._nodes[: self.options.max_nodes]):
            if not request.lacking(node.free):
                return self._take(index, request)
        family = self._available()
        if len(self._nodes) >= self.options.max_nodes or family is None or request.lacking(Resources.room_of(family)):
            return None
        node = _Node.of(family)
        if len(self._nodes) >= self.options.min_nodes:
            node.up_on = now + self.ready.seconds
        self._nodes.append(node)
        return self._take(len(self._nodes) - 1, request)

    def up_on(self, node: int) -> float:
        """Return when a node is up."""
        return self._nodes[node].up_on

    def lacking(self, request: Resources) -> str:
        """Return the resource that an instance without room lacks, on the node with the most free memory.

        It is empty while the pool waits for another node.
        """
        free = [node.free for node in self._nodes[: self.options.max_nodes]]
        if len(free) < self.options.max_nodes:
            family = self._available()
            if family is None:
                return ""
            free.append(Resources.room_of(family))
        return next(iter(request.lacking(max(free, key=lambda resources: resources.memory))))

    def _take(self, index: int, request: Resources) -> int:
        node = self._nodes[index]
        node.free -= request
        node.instances += 1
        return index

    def release(self, index: int, request: Resources) -> None:
        """Release the room of an instance."""
        node = self._nodes[index]
        node.instances -= 1
        node.free += request
        if node.instances == 0:
            # Reset, because sums of fractions drift.
            node.free = Resources.room_of(node.family)

    def renew(self) -> None:
        """Replace the idle nodes, where there is capacity in the pool's own family or a backup."""
        family = self._available()
        if family is not None:
            self._nodes = [node if node.instances else _Node.of(family) for node in self._nodes]

    def nodes(self, now: float) -> list[tuple[Any, ...]]:
        """Return the rows of SHOW NODES: the active nodes, and idle ones up to the minimum."""
        state = self.state(now)
        if state in {"SUSPENDED", "STARTING"}:
            return []
        family = self._available()
        while state != "STOPPING" and family is not None and len(self._nodes) < self.options.min_nodes:
            self._nodes.append(_Node.of(family))
        idle = 0 if state == "STOPPING" else max(0, self.options.min_nodes - self.active_nodes)
        listed = [node for node in self._nodes if node.instances]
        listed += [node for node in self._nodes if not node.instances][:idle]
        return [node.row(self.options.placement_group) for node in listed]

    def finish(self, job: str, now: float) -> None:
        """Note that a job has ended."""
        self.live_jobs.discard(job)
        self.idle_since = now

    def row(self, now: float, owner: str) -> tuple[Any, ...]:
        """Return the row of SHOW COMPUTE POOLS."""
        options, state = self.options, self.state(now)
        active = sum(node.instances > 0 and node.up_on <= now for node in self._nodes)
        stopped = state in {"SUSPENDED", "STOPPING"}
        target = active if stopped else max(self.active_nodes, options.min_nodes)
        idle = max(0, options.min_nodes - active) if state in {"ACTIVE", "IDLE"} else 0
        return (
            self.name, state, options.min_nodes, options.max_nodes, options.instance_family, 0, len(self.live_jobs),
            options.auto_suspend_secs, options.auto_resume, active, idle, target, moment(self.created_on),
            moment(self.resumed_on), moment(self.updated_on or self.created_on), owner, options.comment,
            options.application is not None, options.application, options.placement_group,
            f"[{', '.join(options.backup_instance_families)}]" if options.backup_instance_families else None,
        )  # fmt: skip

    def description(self, now: float, owner: str) -> tuple[Any, ...]:
        """Return the row of DESCRIBE COMPUTE POOL."""
        minutes = int(now - self.started_on) // 60
        return (*self.row(now, owner), "", _MESSAGES[self.state(now)].format(minutes=minutes))

    def record(self) -> dict[str, Any]:
        """Return the state for the next start."""
        names = ("name", "owner", "created_on", "system", "suspended", "resumed_on", "updated_on")
        return {"options": asdict(self.options), **{name: getattr(self, name) for name in names}}

    @classmethod
    def restore(cls, record: Mapping[str, Any], now: float) -> Pool:
        """Build a pool from its record. After a restart it is up, as real pools don't depend on this server."""
        options = dict(record["options"])
        options["backup_instance_families"] = tuple(options["backup_instance_families"])
        rest = {name: value for name, value in record.items() if name != "options"}
        return cls(options=PoolOptions(**options), ready=Ready(), idle_since=now, **rest)
