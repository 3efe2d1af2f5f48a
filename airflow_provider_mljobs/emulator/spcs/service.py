"""Job services and compute pools: what Snowpark Container Services is to the rest of the account."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.errors import already_exists, does_not_exist
from airflow_provider_mljobs.emulator.listing import like
from airflow_provider_mljobs.emulator.parsing import QualifiedName
from airflow_provider_mljobs.emulator.registry import Extension
from airflow_provider_mljobs.emulator.settings import Ready, VirtualJob
from airflow_provider_mljobs.emulator.spcs import (
    event_table,
    job_statements as service_statements,
    listings as service_listings,
    ml_jobs,
    pool_statements,
)
from airflow_provider_mljobs.emulator.spcs.errors import pool_in_use, too_many_services, unschedulable
from airflow_provider_mljobs.emulator.spcs.functions import FUNCTIONS, METHODS, TABLE_FUNCTIONS
from airflow_provider_mljobs.emulator.spcs.history import History
from airflow_provider_mljobs.emulator.spcs.integrations import Integrations, NetworkRules
from airflow_provider_mljobs.emulator.spcs.job_runs import JobFiles, Planner, check_stages
from airflow_provider_mljobs.emulator.spcs.jobs import Job, JobRequest
from airflow_provider_mljobs.emulator.spcs.pools import Pool, PoolOptions
from airflow_provider_mljobs.emulator.spcs.repositories import Repositories
from airflow_provider_mljobs.emulator.spcs.scheduler import Scheduler
from airflow_provider_mljobs.emulator.spcs.secrets import Secrets
from airflow_provider_mljobs.emulator.spcs.specification import Resources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_mljobs.emulator.account import Account

_POOL = "Compute pool"
_RETENTION = 30 * 24 * 3600.0
_SYSTEM_POOLS = {
    "SYSTEM_COMPUTE_POOL_CPU": PoolOptions(1, 150, "CPU_X64_S", auto_suspend_secs=259200),
    "SYSTEM_COMPUTE_POOL_GPU": PoolOptions(1, 50, "GPU_NV_S", auto_suspend_secs=600),
}


class Services:
    """The job services and compute pools of the account, and the objects that they refer to.

    :param account: the account; its engine and stages must be there already.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        root = account.settings.root
        self._history = History(root / "spcs.db")
        self.files = JobFiles(root / "jobs")
        self.repositories = Repositories(self._history)
        self.secrets = Secrets(self._history)
        self.rules = NetworkRules(self._history)
        self.integrations = Integrations(self._history, self.rules)
        planner = Planner(account, self.files, self.secrets)
        self.scheduler = Scheduler(account, self._history, planner, self.repositories.knows)
        self.pools = self.scheduler.pools
        self._jobs: dict[QualifiedName, Job] = {}
        self._past: dict[str, Job] = {}
        self._virtual = [(like(virtual.name), virtual) for virtual in account.settings.virtual_jobs]
        self._restore_pools()
        self._restore_jobs()
        account.engine.on_drop(self._drop_all)

    @property
    def extension(self) -> Extension:
        """What services add to SQL."""
        parts = (self.repositories, self.secrets, self.rules, self.integrations)
        return Extension(
            statements=(
                *pool_statements.STATEMENTS,
                *service_statements.STATEMENTS,
                *service_listings.STATEMENTS,
                *(statement for part in parts for statement in part.extension.statements),
            ),
            functions=(*FUNCTIONS, *ml_jobs.FUNCTIONS),
            methods=METHODS,
            table_functions=(
                *TABLE_FUNCTIONS,
                *(event_table.TABLE_FUNCTIONS if self._account.settings.event_table else ()),
            ),
        )

    def flush(self) -> None:
        """Wait until what was changed is on disk."""
        self._history.flush()

    def close(self) -> None:
        """Kill the jobs and write the last changes."""
        self.scheduler.close()
        self._history.close()

    # Pools.

    def pool(self, name: str) -> Pool:
        """Return a pool; raises 2003 if there is none of that name."""
        pool = self.pools.get(name)
        if pool is None:
            raise does_not_exist(_POOL, name)
        return pool

    def create_pool(self, name: str, options: PoolOptions, owner: str, *, suspended: bool) -> Pool:
        """Make a pool; raises 2002 if the name is taken."""
        with self.scheduler.lock:
            if name in self.pools:
                raise already_exists(name)
            now = self._account.now()
            pool = Pool(name, options, owner, now, self._account.settings.pool_ready, suspended=suspended)
            pool.idle_since = now
            self.pools[name] = pool
            self.save_pool(pool)
        return pool

    def change_pool(self, pool: Pool, change: Callable[[Pool, float], None]) -> None:
        """Change a pool and start what has become possible."""
        with self.scheduler.lock:
            change(pool, self._account.now())
            self.save_pool(pool)
            self.scheduler.schedule(pool.name)

    def drop_pool(self, pool: Pool) -> None:
        """Delete a pool; fails while jobs are on it."""
        with self.scheduler.lock:
            if pool.live_jobs:
                raise pool_in_use(pool.name)
            self.pools.pop(pool.name, None)
            self._history.delete_object(_POOL, pool.name)

    def save_pool(self, pool: Pool) -> None:
        """Let a pool survive a restart as it is."""
        self._history.save_object(_POOL, pool.name, json.dumps(pool.record()))

    # Jobs.

    def submit(self, request: JobRequest) -> Job:
        """Take a job in; raises what EXECUTE JOB SERVICE fails with at once."""
        name, pool = request.name, self.pool(request.pool)
        resources = request.specification.requests()
        lacking = resources.exceeding(Resources.of(pool.family))
        if lacking:
            raise unschedulable(pool.name, pool.options.instance_family, lacking)
        check_stages(self._account, request)
        for integration in request.integrations:
            self.integrations.get(QualifiedName(integration))
        for container in request.specification.containers:
            for secret in container.secrets:
                self.secrets.values(secret, name)
        settings = self._account.settings
        job = Job(request, settings.job_ready, self._virtual_of(name.name), updated=request.created)
        most = settings.max_services
        with self.scheduler.lock:
            if name in self._jobs:
                raise already_exists(name.name)
            if most is not None and len(self._jobs) >= most:
                raise too_many_services()
            self._jobs[name] = self._past[request.id] = job
            self._history.add_job(request.id, request.record(), job.record())
            self.scheduler.add(job)
        return job

    def find(self, name: QualifiedName) -> Job | None:
        """Return the job of that name, unless it was dropped."""
        return self._jobs.get(name)

    def job(self, name: QualifiedName) -> Job:
        """Return a job; raises 2003 if there is none of that name."""
        job = self._jobs.get(name)
        if job is None:
            raise does_not_exist("Service", str(name))
        return job

    def jobs(self) -> list[Job]:
        """Return all jobs that haven't been dropped."""
        with self.scheduler.lock:
            return list(self._jobs.values())

    def past(self) -> list[Job]:
        """Return all jobs, dropped ones too, newest first."""
        with self.scheduler.lock:
            return list(reversed(self._past.values()))

    def latest(self, name: QualifiedName) -> Job:
        """Return the last job that had a name, dropped or not; raises 2003 if there was none."""
        job = self._jobs.get(name) or next((job for job in self.past() if job.name == name), None)
        if job is None:
            raise does_not_exist("Service", str(name))
        return job

    def set_comment(self, job: Job, comment: str) -> None:
        """Replace a job's COMMENT; an empty one is none."""
        with self.scheduler.lock:
            job.request = dataclasses.replace(job.request, comment=comment or None)
            self._history.add_job(job.request.id, job.request.record(), job.record())

    def drop(self, jobs: Iterable[Job]) -> None:
        """Delete jobs: their processes end, the history remembers them."""
        for job in jobs:
            with self.scheduler.lock:
                if self._jobs.get(job.name) is not job:
                    continue
                del self._jobs[job.name]
            self.scheduler.delete(job)

    def _drop_all(self, database: str, schema: str | None) -> None:
        self.drop([job for job in self.jobs() if job.name.database == database and schema in {None, job.name.schema}])
        for objects in (self.repositories, self.secrets, self.rules):
            objects.drop_all(database, schema)

    def _virtual_of(self, name: str) -> VirtualJob | None:
        return next((virtual for pattern, virtual in self._virtual if pattern.fullmatch(name)), None)

    # Restart.

    def _restore_pools(self) -> None:
        now = self._account.now()
        for name, record in self._history.objects(_POOL):
            self.pools[name] = Pool.restore(json.loads(record), now)
        for name, options in _SYSTEM_POOLS.items():
            if name not in self.pools:
                self.pools[name] = Pool(name, options, "", now, Ready(), system=True, idle_since=now)

    def _restore_jobs(self) -> None:
        oldest = self._account.now() - _RETENTION
        found = [(JobRequest.restore(request), state) for request, state in self._history.jobs()]
        for request, state in sorted(found, key=lambda entry: entry[0].created):
            job = Job(request, self._account.settings.job_ready, self._virtual_of(request.name.name))
            job.restore(state)
            if (job.deleted or job.completed or self._account.now()) < oldest:
                self._history.delete_job(request.id)
                self.files.forget(request.id)
                continue
            self._past[request.id] = job
            if not job.dropped:
                self._jobs[request.name] = job
            if not job.terminal:
                self._take_up(job)

    def _take_up(self, job: Job) -> None:
        """Go on with a virtual or a pending job; what ran as a process died with the server."""
        if job.request.pool in self.pools and (job.virtual is not None or job.status == "PENDING"):
            self.scheduler.adopt(job)
            return
        job.lose(self._account.now())
        self._history.update_job(job.request.id, job.record())
        for run in job.instances:
            self.files.clear(job.request.id, run.index)
