"""Runs jobs from PENDING to their end. One lock guards all state and is never held during slow work."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.containers.instance import Instance, RunnerError
from airflow_provider_mljobs.emulator.containers.usage import Meter
from airflow_provider_mljobs.emulator.errors import SnowflakeError
from airflow_provider_mljobs.emulator.spcs import jobs as words
from airflow_provider_mljobs.emulator.spcs.addresses import Addresses
from airflow_provider_mljobs.emulator.spcs.alarm import Alarm
from airflow_provider_mljobs.emulator.spcs.job_runs import identity_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_mljobs.emulator.containers.instance import InstancePlan
    from airflow_provider_mljobs.emulator.containers.joblog import JobLog
    from airflow_provider_mljobs.emulator.spcs.job_runs import Planner
    from airflow_provider_mljobs.emulator.spcs.jobs import ContainerRun, InstanceRun, Job
    from airflow_provider_mljobs.emulator.spcs.pool import Pool
    from airflow_provider_mljobs.emulator.spcs.specification import Resources
    from airflow_provider_mljobs.emulator.spcs.state_file import StateFile
    from airflow_provider_mljobs.emulator.tokens import Tokens

_STARTERS = 8
# Seconds until a waiting statement notices its cancellation; changes of the job wake it at once.
_ATTENTION = 0.25
_SHUTDOWN = 5.0

_Key = tuple[str, int, str]


class Scheduler:
    """The pools, with the jobs that wait for them or run on them.

    :param planner: makes the plans of containers.
    :param tokens: the tokens that jobs log in with.
    :param state: where jobs survive a restart.
    :param can_pull: returns whether the repository of an image exists.
    """

    def __init__(self, planner: Planner, tokens: Tokens, state: StateFile, can_pull: Callable[[str], bool]) -> None:
        self.lock = threading.RLock()
        self.pools: dict[str, Pool] = {}
        self._planner = planner
        self._settings = planner.settings
        self._login_tokens = tokens
        self._state = state
        self._can_pull = can_pull
        self._pending: defaultdict[str, dict[str, Job]] = defaultdict(dict)
        self._running: dict[_Key, Instance] = {}
        self._tokens: dict[str, str] = {}
        self._addresses = Addresses()
        self._conditions: dict[str, threading.Condition] = {}
        self._starters = ThreadPoolExecutor(_STARTERS, "snowflake-job-start")
        self._alarm = Alarm(time.time, self._ring)
        self._meter = Meter(self._settings.metric_interval)
        self._closing = False

    # Called by statements; these methods take the lock.

    def add(self, job: Job) -> None:
        """Add a job, resume its pool if necessary, and start the job if a node has room."""
        with self.lock:
            pool = self.pools[job.request.pool]
            if pool.options.auto_resume and pool.state(time.time()) in {"SUSPENDED", "STOPPING"}:
                pool.resume(time.time())
            pool.live_jobs.add(job.request.id)
            if not job.request.asynchronous:
                # Its statement polls it all the time.
                job.looks, pool.looks = job.ready.polls + 1, max(pool.looks, pool.ready.polls + 1)
            if job.virtual is not None:
                self._advance(job, time.time())
                return
            self._pending[pool.name][job.request.id] = job
            self.schedule(pool.name)

    def adopt(self, job: Job) -> None:
        """Add a job of an earlier start; it starts when a client next reads its status."""
        self.pools[job.request.pool].live_jobs.add(job.request.id)
        if job.status == "PENDING" and job.virtual is None:
            job.instances.clear()
            self._pending[job.request.pool][job.request.id] = job

    def look(self, jobs: Iterable[Job]) -> None:
        """Count a client's look at each job, and advance virtual jobs."""
        with self.lock:
            seen = [job for job in jobs if not job.terminal]
            for job in seen:
                job.looks += 1
            # A look at several jobs counts once for their pool.
            for name in {job.request.pool for job in seen if job.status == "PENDING"} & self.pools.keys():
                self.pools[name].look()
                self.schedule(name)
            self.pass_time(seen)

    def pass_time(self, jobs: Iterable[Job]) -> None:
        """Advance virtual jobs by the clock."""
        with self.lock:
            now = time.time()
            for job in jobs:
                self._advance(job, now)

    def wait(self, job: Job, done: Callable[[], bool], timeout: float, cancelled: threading.Event) -> bool:
        """Block until ``done``, the timeout or the cancellation of the statement; return whether it is done."""
        deadline = time.monotonic() + timeout
        with self.lock:
            condition = self._conditions.setdefault(job.request.id, threading.Condition(self.lock))
            while True:
                self._advance(job, time.time())
                remaining = deadline - time.monotonic()
                if done():
                    return True
                if remaining <= 0 or cancelled.is_set() or self._closing:
                    return False
                condition.wait(min(remaining, _ATTENTION, self._until_end(job)))

    def cancel(self, job: Job) -> None:
        """Cancel a job unless it has ended."""
        with self.lock:
            if job.terminal or job.status == "CANCELLING":
                return
            job.move("CANCELLING", time.time())
            processes = self._stop(job)
        self._terminate(processes)

    def kill(self, job: Job, index: int) -> bool:
        """Kill the processes of an instance, as the loss of its node does; return whether any ran."""
        with self.lock:
            processes = [process for key, process in self._running.items() if key[:2] == (job.request.id, index)]
        for process in processes:
            process.kill()
        return bool(processes)

    def delete(self, job: Job) -> None:
        """Stop a job that was dropped; it stays in the history."""
        with self.lock:
            job.deleted = time.time()
            if not job.terminal:
                job.move("DELETED", job.deleted)
            processes = self._stop(job)
        self._terminate(processes)

    def schedule(self, pool_name: str) -> None:
        """Start the pending jobs of a pool that have room, in their order."""
        with self.lock:
            pool = self.pools.get(pool_name)
            if pool is None or self._closing:
                return
            full: dict[Resources, str] = {}
            for job in list(self._pending[pool_name].values()):
                self._try(job, pool, full)

    # Starting. The lock is held.

    def _try(self, job: Job, pool: Pool, full: dict[Resources, str]) -> None:
        now = time.time()
        obstacle = self._obstacle(job, pool, now)
        if obstacle is not None:
            job.wait_for(obstacle, now)
            return
        if job.virtual is not None:
            job.begin(now if job.ready.polls else job.due_on(_ready_on(pool)))
        else:
            self._place(job, pool, full)
            if all(run.address or run.ended for run in job.instances):
                self._pending[pool.name].pop(job.request.id, None)
        if job.status != "PENDING":
            self._changed(job)

    def _obstacle(self, job: Job, pool: Pool, now: float) -> str | None:
        ready_on = _ready_on(pool)
        if pool.suspended or not pool.is_ready(now):
            self._wake(job, ready_on)
            return words.PROVISIONING
        if not all(self._can_pull(container.image_path) for container in job.request.specification.containers):
            return words.NO_IMAGE
        if not job.is_due(now, ready_on):
            self._wake(job, job.due_on(ready_on))
            return words.WAITING
        return None

    def _wake(self, job: Job, when: float) -> None:
        # Virtual jobs advance only when a client reads them.
        if job.virtual is None and when > time.time():
            self._alarm.set(when)

    def _place(self, job: Job, pool: Pool, full: dict[Resources, str]) -> None:
        request = job.request.specification.requests()
        for run in _in_start_order(job):
            if run.address or run.ended:
                continue
            if run.index and job.is_waiting_for_first():
                job.wait_for(words.WAITING, time.time())
                return
            now = time.time()
            if run.node is None and request not in full:
                run.node = pool.place(request, now)
            if run.node is None:
                full.setdefault(request, pool.lacking(request))
                resource = full[request]
                reason = words.NO_ROOM.format(resource=resource) if resource else words.PROVISIONING
                job.wait_for(reason, time.time())
                return
            starts_on = pool.up_on(run.node) + job.ready.seconds
            if now < starts_on:
                job.wait_for(words.PROVISIONING if now < pool.up_on(run.node) else words.WAITING, now)
                self._wake(job, starts_on)
                continue
            run.address = self._addresses.take(self._planner.port)
            job.begin(now)
            self._starters.submit(self._start, job, run)

    def _ring(self) -> None:
        for name in list(self.pools):
            self.schedule(name)

    # Running. The lock is taken where state is touched.

    def _start(self, job: Job, run: InstanceRun) -> None:
        token = self._token(job)
        if token is None:
            self._fail(job, run, run.containers, "Canceled")
            return
        try:
            plans = dict(self._planner.plans(job.request, run.index, run.address, token))
        except (SnowflakeError, OSError) as error:
            self._fail(job, run, run.containers, f"{RunnerError.message}: {error}")
            return
        for container in run.containers:
            self._start_container(job, run, container, plans[container.name])

    def _token(self, job: Job) -> str | None:
        with self.lock:
            if self._closing or job.terminal or job.status == "CANCELLING":
                return None
            if job.request.id not in self._tokens:
                self._tokens[job.request.id] = self._login_tokens.issue(identity_of(job.request))
            return self._tokens[job.request.id]

    def _start_container(self, job: Job, run: InstanceRun, container: ContainerRun, plan: InstancePlan) -> None:
        log = self._planner.files.log(job.request.id, run.index, container.name)
        with self.lock:
            container.started = time.time()
        try:
            process = Instance.start(plan, log, partial(self._exited, job, run, container, log))
        except RunnerError as error:
            log.append(f"{error}\n", "stderr")
            log.close()
            self._fail(job, run, [container], error.message)
            return
        with self.lock:
            if container.ended:
                return
            container.status, container.message = "READY", words.RUNNING
            self._running[job.request.id, run.index, container.name] = process
            pool = self.pools.get(job.request.pool)
            if pool is not None and job.request.id in self._pending[pool.name]:
                # The first instance runs; others may have waited for it.
                self._schedule_later(pool)
            unwanted = self._closing or job.terminal or job.status == "CANCELLING"
            self._changed(job)
        if self._settings.event_table and job.request.specification.metric_groups:
            self._meter.add(process, self._planner.files.usage(job.request.id, run.index, container.name))
        if unwanted:
            self._terminate([process])

    def _exited(self, job: Job, run: InstanceRun, container: ContainerRun, log: JobLog, code: int) -> None:
        log.close()
        with self.lock:
            if self._closing:
                # Killed by close(): the next start reports the job as lost.
                return
            self._running.pop((job.request.id, run.index, container.name), None)
            container.exit_code, container.finished = code, time.time()
            container.status = "FAILED" if code else "DONE"
            container.message = words.FATAL if code else words.COMPLETED
            processes = self._settle(job, run)
        self._terminate(processes)
        self._clear(job, run)

    def _fail(self, job: Job, run: InstanceRun, containers: Iterable[ContainerRun], message: str) -> None:
        with self.lock:
            for container in containers:
                container.status, container.message, container.finished = "FAILED", message, time.time()
            processes = self._settle(job, run)
        self._terminate(processes)
        self._clear(job, run)

    def _clear(self, job: Job, run: InstanceRun) -> None:
        if run.ended:
            self._planner.files.clear(job.request.id, run.index)

    # Ending. The lock is held.

    def _settle(self, job: Job, run: InstanceRun) -> list[Instance]:
        """Update job and pool after the end of a container; return the processes to end."""
        processes: list[Instance] = []
        if run.ended and run.node is not None:
            self._leave(job, run)
            self._addresses.give_back(run.address)
        if not job.terminal and job.status != "CANCELLING":
            status = words.roll_up(job.instances)
            if status == "DONE":
                job.move(status, time.time())
            if status == "FAILED":
                cause = next(container.message for container in run.containers if container.status == "FAILED")
                job.move(status, time.time(), f"Job has failed: {cause}.")
                processes = self._stop(job)
        self._conclude(job)
        return processes

    def _leave(self, job: Job, run: InstanceRun) -> None:
        """Free the room of an instance on its node."""
        pool = self._pool_of(job)
        if pool is not None and run.node is not None:
            pool.release(run.node, job.request.specification.requests())
            self._schedule_later(pool)
        run.node = None

    def _stop(self, job: Job) -> list[Instance]:
        """Fail the containers that haven't started; return the processes of the others."""
        self._pending[job.request.pool].pop(job.request.id, None)
        for run in [] if job.virtual is not None else job.open_instances():
            if run.node is not None and not run.address:
                self._leave(job, run)
            for container in run.containers:
                if not run.address and not container.ended:
                    container.status, container.message = "FAILED", "Canceled"
                elif container.status == "READY":
                    container.status = "TERMINATING"
        self._conclude(job)
        return [process for key, process in self._running.items() if key[0] == job.request.id]

    def _conclude(self, job: Job) -> None:
        """Release the token and the pool of a job once all its containers have ended."""
        if job.virtual is not None or all(run.ended for run in job.instances):
            now = time.time()
            if job.status == "CANCELLING":
                job.move("CANCELLED", now)
            token = self._tokens.pop(job.request.id, None)
            if token is not None:
                self._login_tokens.revoke(token)
            pool = self._pool_of(job)
            if pool is not None:
                pool.finish(job.request.id, now)
                self._schedule_later(pool)
        self._changed(job)

    def _pool_of(self, job: Job) -> Pool | None:
        """Return the pool of a job; ``None`` if it was dropped, even if another one has its name now."""
        pool = self.pools.get(job.request.pool)
        is_its = pool is not None and (pool.system or pool.created_on <= job.request.created)
        return pool if is_its else None

    def _schedule_later(self, pool: Pool) -> None:
        if self._pending[pool.name] and not self._closing:
            self._starters.submit(self.schedule, pool.name)

    def _advance(self, job: Job, now: float) -> None:
        """Start and end a virtual job by the clock: it has no processes that report."""
        if job.virtual is None or job.terminal:
            return
        if job.status == "PENDING" and job.request.pool in self.pools:
            self._try(job, self.pools[job.request.pool], {})
        if job.advance(now):
            self._conclude(job)

    def _until_end(self, job: Job) -> float:
        """Return the seconds until a virtual job changes."""
        pool = self.pools.get(job.request.pool)
        if job.virtual is None or pool is None:
            return _ATTENTION
        ends = job.ends_on()
        when = job.due_on(_ready_on(pool)) if ends is None else ends
        return max(0.001, when - time.time()) if when > time.time() else _ATTENTION

    def _changed(self, job: Job) -> None:
        self._state.update_job(job.request.id, job.record())
        condition = self._conditions.get(job.request.id)
        if condition is not None:
            condition.notify_all()
            if job.terminal:
                del self._conditions[job.request.id]

    # Without the lock.

    def _terminate(self, processes: Iterable[Instance]) -> None:
        for process in processes:
            process.terminate(self._settings.termination_grace)

    def close(self) -> None:
        """Kill all processes; pending jobs continue after the next start."""
        with self.lock:
            self._closing = True
            for token in self._tokens.values():
                self._login_tokens.revoke(token)
            for condition in self._conditions.values():
                condition.notify_all()
        self._alarm.close()
        self._meter.close()
        self._starters.shutdown(cancel_futures=True)
        with self.lock:
            processes = list(self._running.values())
        for process in processes:
            process.kill()
        deadline = time.monotonic() + _SHUTDOWN
        for process in processes:
            process.wait(max(0.0, deadline - time.monotonic()))


def _in_start_order(job: Job) -> list[InstanceRun]:
    """Return the instances in the order of their start; without a policy the first one is last, as it may be."""
    runs = job.open_instances()
    return runs if job.request.specification.starts_first_instance_first else runs[::-1]


def _ready_on(pool: Pool) -> float:
    """Return when a pool is up by the clock; 0 if it depends on looks."""
    return 0.0 if pool.ready.polls else pool.ready_on
