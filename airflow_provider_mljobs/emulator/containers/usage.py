"""CPU and memory of containers: measured by one thread, stored in one file for each container."""

from __future__ import annotations

import logging
import os
import struct
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from airflow_provider_mljobs.emulator.containers.instance import Instance

_RECORD = struct.Struct("<qdq")
_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
# Fields of /proc/<pid>/stat, counted from the one behind the command's name.
_PARENT, _OWN, _WAITED, _RESIDENT = 1, slice(11, 13), slice(13, 15), 21
# The pause between measurements is so many times their cost: at most two percent of a core.
_REST = 50
_log = logging.getLogger(__name__)


class Sample(NamedTuple):
    """The usage of a container.

    :param at: when it was measured, in nanoseconds since the epoch.
    :param cpu: cores, on average since the previous sample.
    :param memory: bytes.
    """

    at: int
    cpu: float
    memory: int


@dataclass(frozen=True)
class UsageLog:
    """The samples of one container, oldest first, in a file that survives the server.

    :param path: the file, in an existing directory.
    """

    path: Path

    def append(self, sample: Sample) -> None:
        """Add a sample."""
        with self.path.open("ab") as file:
            file.write(_RECORD.pack(*sample))

    def read(self) -> list[Sample]:
        """Return all samples; none if nothing was measured."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        # After a kill of the server the last record may be incomplete.
        return [Sample(*record) for record in _RECORD.iter_unpack(data[: len(data) // _RECORD.size * _RECORD.size])]


class Process(NamedTuple):
    """A process of this machine.

    :param ticks: its CPU time, in clock ticks.
    :param waited: the CPU time of its children that ended and that it waited for.
    :param memory: its bytes in memory, shared ones included.
    """

    pid: int
    parent: int
    ticks: int
    waited: int
    memory: int


def processes() -> Mapping[int, list[Process]]:
    """Return the processes of this machine by their parent."""
    children: defaultdict[int, list[Process]] = defaultdict(list)
    for name in os.listdir("/proc"):  # noqa: PTH208 (a tenth of the time)
        process = _process(name) if name.isdigit() else None
        if process is not None:
            children[process.parent].append(process)
    return children


def _process(pid: str) -> Process | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 (half the time)
            # The command's name, in parentheses, may hold anything.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        # The process has ended.
        return None
    own, waited = (sum(map(int, fields[part])) for part in (_OWN, _WAITED))
    return Process(int(pid), int(fields[_PARENT]), own, waited, int(fields[_RESIDENT]) * _PAGE)


def used(children: Mapping[int, list[Process]], supervisor: int, supervisors: int) -> tuple[int, int]:
    """Return how many ticks of CPU time a container has used until now, and how many bytes of memory it uses.

    :param children: the result of :func:`processes`.
    :param supervisor: the outermost supervisor of the container.
    :param supervisors: the number of supervisors, each the child of the one before.
    """
    generation = [process for process in children.get(os.getpid(), ()) if process.pid == supervisor]
    ticks = memory = depth = 0
    while generation:
        # A supervisor waits for processes that outlive their parent.
        ticks += sum(process.waited for process in generation)
        if depth >= supervisors:
            ticks += sum(process.ticks for process in generation)
            memory += sum(process.memory for process in generation)
        generation = [child for process in generation for child in children.get(process.pid, ())]
        depth += 1
    return ticks, memory


@dataclass
class _Metered:
    """A container that is measured.

    :param moment: the monotonic time of its last sample, or of its start.
    :param ticks: its CPU time at that moment.
    """

    container: Instance
    log: UsageLog
    moment: float
    ticks: int = 0

    def measure(self, children: Mapping[int, list[Process]]) -> None:
        """Take a sample."""
        ticks, memory = used(children, self.container.pid, self.container.supervisors)
        now = time.monotonic()
        # The CPU time of children without a waiting parent is lost, so the sum may decrease.
        cpu = max(0, ticks - self.ticks) / _TICKS / (now - self.moment)
        self.moment, self.ticks = now, ticks
        # Event tables have microseconds only.
        self.log.append(Sample(time.time_ns() // 1000 * 1000, cpu, memory))


class Meter:
    """Measures containers while they run.

    :param interval: seconds between two samples of a container.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._changed = threading.Condition()
        self._metered: list[_Metered] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, container: Instance, log: UsageLog) -> None:
        """Measure a container until it ends.

        :param log: where its samples go.
        """
        with self._changed:
            self._metered.append(_Metered(container, log, time.monotonic()))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="snowflake-meter", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Stop measuring."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        cost = 0.0
        while self._wait(max(self._interval, cost * _REST)):
            began = time.thread_time()
            self._measure()
            cost = time.thread_time() - began

    def _wait(self, seconds: float) -> bool:
        """Wait until a container is due; return whether the meter is open."""
        with self._changed:
            self._changed.wait_for(lambda: self._metered or self._closed)
            self._changed.wait_for(lambda: self._closed, seconds)
            return not self._closed

    def _measure(self) -> None:
        with self._changed:
            self._metered = [metered for metered in self._metered if metered.container.poll() is None]
            # Shorter averages are meaningless, because the kernel counts in hundredths of a second.
            youngest = time.monotonic() - self._interval / 2
            due = [metered for metered in self._metered if metered.moment <= youngest]
        children = processes() if due else {}
        for metered in due:
            try:
                metered.measure(children)
            except OSError as error:
                # A full disk must not stop the thread.
                _log.warning("Could not store a usage sample in %s: %s", metered.log.path, error)
