"""The job services of the account: submitted, found and dropped, also after a restart."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.access.needs import located
from airflow_provider_mljobs.emulator.errors import already_exists, cancelled, does_not_exist
from airflow_provider_mljobs.emulator.listing import like
from airflow_provider_mljobs.emulator.parsing import QualifiedName
from airflow_provider_mljobs.emulator.spcs.errors import job_failed, statement_timeout, too_many_services, unschedulable
from airflow_provider_mljobs.emulator.spcs.job_needs import job_needs
from airflow_provider_mljobs.emulator.spcs.jobs import Job, JobRequest
from airflow_provider_mljobs.emulator.spcs.runtimes import check_image
from airflow_provider_mljobs.emulator.spcs.specification import Resources

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_mljobs.emulator.access.rights import Rights
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.settings import VirtualJob
    from airflow_provider_mljobs.emulator.spcs.compute_pools import ComputePools
    from airflow_provider_mljobs.emulator.spcs.integrations import Integrations
    from airflow_provider_mljobs.emulator.spcs.job_runs import Planner
    from airflow_provider_mljobs.emulator.spcs.pool import Pool
    from airflow_provider_mljobs.emulator.spcs.scheduler import Scheduler
    from airflow_provider_mljobs.emulator.spcs.state_file import StateFile
    from airflow_provider_mljobs.emulator.spcs.workloads import Workloads

_RETENTION = 30 * 24 * 3600.0
_STATEMENT_TIMEOUT = "STATEMENT_TIMEOUT_IN_SECONDS"
_DEFAULT_TIMEOUT = 172800.0


class Services:
    """The job services of the account.

    :param scheduler: runs them.
    :param planner: checks the stages and secrets that they name.
    :param pools: the pools that they run on.
    :param integrations: the external access integrations that they may name.
    :param state: where they survive a restart.
    :param workloads: the kinds of services that may run.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        planner: Planner,
        pools: ComputePools,
        integrations: Integrations,
        state: StateFile,
        workloads: Workloads,
    ) -> None:
        self._planner = planner
        self._workloads = workloads
        self._pools = pools
        self._integrations = integrations
        self._state = state
        self._settings = planner.settings
        self.files = planner.files
        self.scheduler = scheduler
        self._jobs: dict[QualifiedName, Job] = {}
        self._past: dict[str, Job] = {}
        self._virtual = [(like(virtual.name), virtual) for virtual in self._settings.virtual_jobs]
        self._restore()

    def flush(self) -> None:
        """Wait until all changes are on disk."""
        self._state.flush()

    def close(self) -> None:
        """Kill the jobs and write the last changes."""
        self.scheduler.close()
        self._state.close()

    def submit(self, request: JobRequest, rights: Rights) -> Job:
        """Add a job; raises the errors with which EXECUTE JOB SERVICE fails at once.

        :param rights: those of the session that starts it.
        """
        for on, privilege in job_needs(request):
            rights.require(on, privilege, creating=privilege == "CREATE SERVICE")
        self._workloads.check(request.workload)
        name, pool = request.name, self._pools.get(request.pool)
        for container in request.specification.containers:
            check_image(container.image_path)
        # A job that its volumes' sidecars make too large is accepted and never starts.
        lacking = request.specification.container_requests().lacking(Resources.of(pool.family))
        if lacking:
            raise unschedulable(pool.name, pool.options.instance_family, ", ".join(lacking.values()))
        self._planner.check_stages(request)
        for integration in request.integrations:
            self._integrations.get(QualifiedName(integration))
        self._planner.check_secrets(request)
        job = self._new(request)
        job.updated = request.created
        most = self._settings.max_services
        with self.scheduler.lock:
            # It may have been dropped since.
            self._pools.get(request.pool)
            self._forget_dropped()
            if name in self._jobs:
                raise already_exists(name.name)
            if most is not None and len(self._jobs) >= most:
                raise too_many_services()
            self._jobs[name] = self._past[request.id] = job
            self._state.add_job(request.id, request.record(), job.record())
            self.scheduler.add(job)
        rights.access.arrived(located("SERVICE", name), request.owner)
        return job

    def owner(self, path: tuple[str, ...]) -> str | None:
        """Return the role that started a job; ``None`` if no job has that name."""
        job = self._jobs.get(QualifiedName(*reversed(path)))
        return None if job is None else job.request.owner

    def find(self, name: QualifiedName) -> Job | None:
        """Return the job of that name, or ``None`` if it doesn't exist or was dropped."""
        with self.scheduler.lock:
            self._forget_dropped()
            return self._jobs.get(name)

    def job(self, name: QualifiedName) -> Job:
        """Return a job; raises 2003 if no job has that name."""
        job = self.find(name)
        if job is None:
            raise does_not_exist("Service", str(name))
        return job

    def jobs(self) -> list[Job]:
        """Return all jobs that haven't been dropped."""
        with self.scheduler.lock:
            self._forget_dropped()
            return list(self._jobs.values())

    def past(self) -> list[Job]:
        """Return all jobs, dropped ones too, newest first."""
        with self.scheduler.lock:
            return list(reversed(self._past.values()))

    def latest(self, name: QualifiedName) -> Job:
        """Return the latest job of a name, dropped or not; raises 2003 if there was none."""
        job = self.find(name) or next((job for job in self.past() if job.name == name), None)
        if job is None:
            raise does_not_exist("Service", str(name))
        return job

    def looked_at(self, name: QualifiedName) -> Job:
        """Return a job and count the look; raises 2003 if no job has that name."""
        job = self.job(name)
        self.scheduler.look([job])
        return job

    def wait_for_end(self, context: Context, job: Job) -> None:
        """Block until a job has ended; raises unless it is DONE. Cancelling the statement cancels the job."""
        timeout = float(context.session.parameters.get(_STATEMENT_TIMEOUT) or _DEFAULT_TIMEOUT)
        if not self.scheduler.wait(job, lambda: job.terminal, timeout, context.cancelled):
            self.scheduler.cancel(job)
            raise cancelled() if context.cancelled.is_set() else statement_timeout(timeout)
        if job.status != "DONE":
            raise job_failed(job.name.name, job.status, job.message)

    def set_comment(self, job: Job, comment: str) -> None:
        """Replace a job's COMMENT; an empty one removes it."""
        with self.scheduler.lock:
            job.request = dataclasses.replace(job.request, comment=comment or None)
            self._state.add_job(job.request.id, job.request.record(), job.record())

    def interrupt(self, pool: Pool) -> None:
        """Cancel the running jobs of a pool, as Snowflake may to replace their nodes."""
        for job in self.jobs():
            if job.request.pool == pool.name and job.status == "RUNNING":
                self.scheduler.cancel(job)
        with self.scheduler.lock:
            pool.renew()

    def drop(self, jobs: Iterable[Job]) -> None:
        """Drop jobs: their processes end; the history keeps them, and the listings for ``drop_seconds``."""
        for job in jobs:
            with self.scheduler.lock:
                if job.dropped or self._jobs.get(job.name) is not job:
                    continue
                if not self._settings.drop_seconds:
                    del self._jobs[job.name]
            self.scheduler.delete(job)

    def drop_all(self, database: str, schema: str | None) -> None:
        """Delete the jobs of a database or schema that was dropped."""
        inside = [job for job in self.jobs() if job.name.database == database and schema in {None, job.name.schema}]
        self.drop(inside)
        with self.scheduler.lock:
            for job in inside:
                self._jobs.pop(job.name, None)

    def _forget_dropped(self) -> None:
        """Free the names of services that were dropped long enough ago; the caller holds the lock."""
        if self._settings.drop_seconds:
            since = time.time() - self._settings.drop_seconds
            for job in [job for job in self._jobs.values() if job.deleted is not None and job.deleted <= since]:
                del self._jobs[job.name]

    def _new(self, request: JobRequest) -> Job:
        settings = self._settings
        return Job(request, settings.job_ready, self._virtual_of(request.name.name), settings.status_lag)

    def _virtual_of(self, name: str) -> VirtualJob | None:
        return next((virtual for pattern, virtual in self._virtual if pattern.fullmatch(name)), None)

    def _restore(self) -> None:
        oldest = time.time() - _RETENTION
        records = [(JobRequest.restore(request), state) for request, state in self._state.jobs()]
        for request, state in sorted(records, key=lambda entry: entry[0].created):
            job = self._new(request)
            job.restore(state)
            if (job.deleted or job.completed or time.time()) < oldest:
                self._state.delete_job(request.id)
                self.files.forget(request.id)
                continue
            self._past[request.id] = job
            if not job.dropped:
                self._jobs[request.name] = job
            if not job.terminal:
                self._take_up(job)

    def _take_up(self, job: Job) -> None:
        """Continue a virtual or a pending job; processes of other jobs ended with the server."""
        if job.request.pool in self._pools.by_name and (job.virtual is not None or job.status == "PENDING"):
            self.scheduler.adopt(job)
            return
        job.lose(time.time())
        self._state.update_job(job.request.id, job.record())
        for run in job.instances:
            self.files.clear(job.request.id, run.index)
