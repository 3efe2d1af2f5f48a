"""Metrics of containers, in the groups that a specification selects."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.containers.usage import Sample
from airflow_provider_mljobs.emulator.moments import to_nanoseconds
from airflow_provider_mljobs.emulator.spcs.specification_schema import cpu_cores, memory_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airflow_provider_mljobs.emulator.spcs.job_runs import JobFiles
    from airflow_provider_mljobs.emulator.spcs.jobs import Job
    from airflow_provider_mljobs.emulator.spcs.pool import Pool
    from airflow_provider_mljobs.emulator.spcs.specification import Container

_GPU = "nvidia.com/gpu"
_GIB = 2**30
# A virtual job uses half of its limits.
_VIRTUAL_SAMPLES = 10
_VIRTUAL_SHARE = 0.5


@dataclass(frozen=True)
class _Measured:
    """A sample with its container.

    :param gpu_share: the usage of each GPU; only virtual jobs simulate one.
    :param gpu_memory: bytes of each GPU.
    """

    container: Container
    sample: Sample
    gpu_share: float
    gpu_memory: int

    @property
    def gpus(self) -> int:
        """How many GPUs the container has."""
        return int(self.container.fields["resources"]["limits"].get(_GPU, 0))

    def cpu(self, which: str) -> float:
        """Return its requested cores, or its limit."""
        return cpu_cores(self.container.fields["resources"][which]["cpu"])

    def memory(self, which: str) -> int:
        """Return its requested bytes, or its limit."""
        return int(memory_bytes(self.container.fields["resources"][which]["memory"]))


@dataclass(frozen=True)
class Metric:
    """A metric of the platform.

    :param group: its group in the specification.
    :param of_gpu: whether it has one value for each GPU.
    """

    name: str
    unit: str
    group: str
    value: Callable[[_Measured], float]
    of_gpu: bool = False


_METRICS = (
    Metric("container.cpu.usage", "cpu cores", "system", lambda of: of.sample.cpu),
    Metric("container.memory.usage", "bytes", "system", lambda of: of.sample.memory),
    Metric("container.gpu.utilization", "ratio", "system", lambda of: of.gpu_share, of_gpu=True),
    Metric(
        "container.gpu.memory.usage", "bytes", "system", lambda of: round(of.gpu_share * of.gpu_memory), of_gpu=True
    ),
    Metric("container.cpu.limit", "cpu cores", "system_limits", lambda of: of.cpu("limits")),
    Metric("container.cpu.requested", "cpu cores", "system_limits", lambda of: of.cpu("requests")),
    Metric("container.memory.limit", "bytes", "system_limits", lambda of: of.memory("limits")),
    Metric("container.memory.requested", "bytes", "system_limits", lambda of: of.memory("requests")),
    Metric("container.gpu.limit", "gpus", "system_limits", lambda of: of.gpus, of_gpu=True),
    Metric("container.gpu.requested", "gpus", "system_limits", lambda of: of.gpus, of_gpu=True),
    Metric("container.gpu.memory.capacity", "bytes", "system_limits", lambda of: of.gpu_memory, of_gpu=True),
    Metric("container.restarts", "restarts", "status", lambda _: 0),
    Metric("container.state.started", "boolean", "status", lambda _: 1),
    Metric("container.state.running", "boolean", "status", lambda _: 1),
)


@dataclass(frozen=True)
class Measurement:
    """One value of a metric.

    :param at: when it was measured, in nanoseconds since the epoch.
    :param gpu: the index of its GPU.
    """

    at: int
    metric: Metric
    value: float
    instance: int
    container: str
    gpu: int | None = None


class Metrics:
    """The measurements of jobs.

    :param pools: the compute pools that they run on.
    :param files: the files of jobs, with the usage of their containers.
    """

    def __init__(self, pools: Mapping[str, Pool], files: JobFiles) -> None:
        self._pools = pools
        self._files = files

    def of(self, job: Job, begin: int, end: int) -> list[Measurement]:
        """Return the measurements of a job between two times, oldest first."""
        wanted = [metric for metric in _METRICS if metric.group in job.request.specification.metric_groups]
        measurements = [
            measurement
            for instance in range(job.request.instance_count if wanted else 0)
            for container, sample in self._samples_of(job, instance)
            if begin <= sample.at <= end
            for measurement in self._of_sample(job, instance, container, sample, wanted)
        ]
        return sorted(measurements, key=lambda measurement: measurement.at)

    def _of_sample(
        self, job: Job, instance: int, container: Container, sample: Sample, wanted: Sequence[Metric]
    ) -> Iterator[Measurement]:
        pool = self._pools.get(job.request.pool)
        memory = 0 if pool is None else pool.family.gpu_memory_gib * _GIB
        measured = _Measured(container, sample, 0.0 if job.virtual is None else _VIRTUAL_SHARE, memory)
        for metric in wanted:
            for gpu in range(measured.gpus) if metric.of_gpu else (None,):
                yield Measurement(sample.at, metric, metric.value(measured), instance, container.name, gpu)

    def _samples_of(self, job: Job, instance: int) -> Iterator[tuple[Container, Sample]]:
        """Yield the samples of an instance's containers. Sidecars have no process: they are idle beside the first."""
        specification = job.request.specification
        for container in specification.containers:
            for sample in self._samples(job, instance, container):
                yield container, sample
        for sidecar in specification.sidecars:
            for sample in self._samples(job, instance, specification.containers[0]):
                yield sidecar, Sample(sample.at, 0.0, 0)

    def _samples(self, job: Job, instance: int, container: Container) -> Sequence[Sample]:
        if job.virtual is None:
            return self._files.usage(job.request.id, instance, container.name).read()
        if job.started is None:
            return ()
        until = to_nanoseconds(time.time() if job.completed is None else job.completed)
        limits = container.fields["resources"]["limits"]
        cpu, memory = cpu_cores(limits["cpu"]) * _VIRTUAL_SHARE, int(memory_bytes(limits["memory"]) * _VIRTUAL_SHARE)
        moments = (job.done_on(part, _VIRTUAL_SAMPLES) for part in range(1, _VIRTUAL_SAMPLES + 1))
        return [Sample(at, cpu, memory) for at in moments if at <= until]
