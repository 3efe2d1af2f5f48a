"""Watches any number of jobs for the price of one: one listing at a time, on one session, for all jobs of a schema.

Each wait for a job has a follower. One thread looks where the jobs stand; another one reads their logs, on a session of
its own, so that a slow log delays no verdict. Both end with the last job.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from contextlib import suppress
from functools import partial
from os.path import commonprefix
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from airflow_provider_mljobs.exceptions import GatewayError, NotFoundOrNotAuthorizedError
from airflow_provider_mljobs.gateway import inspection
from airflow_provider_mljobs.gateway.client import MLJobClient
from airflow_provider_mljobs.gateway.watcher.follower import Follower
from airflow_provider_mljobs.gateway.watcher.log_loop import FINAL_SECONDS, LogLoop
from airflow_provider_mljobs.gateway.watcher.loop import Backoff, Clock, LoopThread, connection_trouble
from airflow_provider_mljobs.gateway.watcher.watched_job import SPACING_SECONDS, WatchedJob
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.outcome.watch import JobWatch, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from snowflake.connector import SnowflakeConnection

    from airflow_provider_mljobs.gateway.watcher.follower import Report
    from airflow_provider_mljobs.jobs.outcome.wait_plan import WaitPlan

logger = logging.getLogger(__name__)

DEFAULT_LOG_STATEMENTS_PER_MINUTE = 300.0
# After a restart the watchers of all triggerers begin at the same moment, and would keep asking together.
_JITTER = 0.1
# Jobs that the listing lacks are asked for singly, for no longer than this at a time.
_SINGLE_SECONDS = 5.0


class Watcher:
    """Watches the jobs that one login can see, for all that follow one of them.

    :param log_statements_per_minute: how many statements all logs together may cost; 0 reads none.
    """

    def __init__(
        self,
        connect: Callable[[], SnowflakeConnection],
        *,
        log_statements_per_minute: float = DEFAULT_LOG_STATEMENTS_PER_MINUTE,
        clock: Clock | None = None,
    ) -> None:
        self._connect = connect
        self._clock = clock or Clock()
        # Guards all state below; never held while a statement runs or a report is made.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._jobs: dict[Follower, WatchedJob] = {}
        self._has_new = self._has_more = False
        self._backoff = Backoff()
        self._thread = LoopThread(self._run)
        self._logs = LogLoop(
            connect,
            per_minute=log_statements_per_minute,
            lock=self._lock,
            backoff=self._backoff,
            clock=self._clock,
            end=partial(self._end, verdict=Verdict.FINISHED),
        )

    def follow(self, plan: WaitPlan, report: Callable[[Report], None], **earlier: Any) -> Follower:
        """Begin to wait for a job. Doesn't block.

        :param report: takes the reports. It is called from threads of this watcher, and must not block for long.
        :param earlier: ``state`` and ``mask``, as :class:`.follower.Follower` takes them.
        """
        follower = Follower(plan, report, self._clock.now(), **earlier)
        now = self._clock.monotonic()
        job = WatchedJob(follower, began=now, read_at=now)
        with self._lock:
            self._jobs[follower] = job
            self._thread.start()
            if not self._has_new:
                # One notice for all that come before the next look.
                self._has_new = True
                self._changed.notify()
            self._logs.add(job)
        return follower

    def stop(self, follower: Follower) -> None:
        """Stop waiting. Doesn't block: a report that is under way may still come."""
        follower.stop()
        with self._lock:
            self._remove(follower)

    def join(self, timeout: float) -> bool:
        """Wait until the threads have ended, which they do after the last job; returns whether they have."""
        have_ended = [thread.join(timeout) for thread in (self._thread, self._logs.thread)]
        return all(have_ended)

    def _remove(self, follower: Follower) -> None:
        job = self._jobs.pop(follower, None)
        if job is not None:
            self._logs.remove(job)
        if not self._jobs:
            self._changed.notify()

    def _run(self) -> None:
        client = MLJobClient(self._connect)
        looked_at = rested_at = 0.0
        try:
            while (jobs := self._next_look(looked_at, rested_at)) is not None:
                if jobs:
                    looked_at = self._clock.monotonic()
                    trouble = self._look(client, jobs)
                    ended_at = self._clock.monotonic()
                    with self._lock:
                        self._backoff.note(trouble, ended_at)
                        self._logs.wake()
                    # A listing that takes long is followed by a rest as long.
                    rested_at = ended_at + (ended_at - looked_at)
                self._judge()
        except Exception as error:
            # Without a report, tasks would stay deferred for ever.
            logger.exception("The watcher failed. Its jobs keep running; their tasks are resumed.")
            self._give_up(error)
        finally:
            client.close()

    def _give_up(self, error: Exception) -> None:
        with self._lock:
            self._thread.is_running = False
            jobs = list(self._jobs.values())
        self._could_not_ask(jobs, error)
        for job in jobs:
            self._end(job, Verdict.UNREACHABLE)

    def _next_look(self, looked_at: float, rested_at: float) -> list[WatchedJob] | None:
        """Wait until it is time to look at the jobs; no jobs for a deadline, ``None`` if none is left."""
        with self._lock:
            while self._jobs:
                jobs, now = list(self._jobs.values()), self._clock.monotonic()
                until_look = SPACING_SECONDS if self._has_more else _until_look(jobs, looked_at)
                look_at = max(looked_at + until_look, rested_at, self._backoff.until)
                if look_at <= now:
                    self._has_new = self._has_more = False
                    return jobs
                until_wake = min(look_at - now, *(self._until_deadline(job) for job in jobs))
                if until_wake <= 0:
                    return []
                self._clock.wait(self._changed, until_wake)
            self._thread.is_running = False
            return None

    def _until_deadline(self, job: WatchedJob) -> float:
        """Return the seconds after which the verdict on a job may change without a look at it."""
        if job.final_since is not None:
            return job.final_since + FINAL_SECONDS - self._clock.monotonic()
        if job.late_since is not None:
            return job.late_since + job.follower.plan.patience - self._clock.monotonic()
        deadline = job.follower.watch.next_deadline()
        return math.inf if deadline is None else deadline - self._clock.now()

    def _look(self, client: MLJobClient, jobs: Iterable[WatchedJob]) -> Exception | None:
        """Ask where jobs stand; returns the trouble with the connection, if there is any."""
        schemas: dict[str, list[WatchedJob]] = {}
        for job in jobs:
            job.is_new = False
            schemas.setdefault(str(job.follower.job.namespace), []).append(job)
        trouble: Exception | None = None
        for group in schemas.values():
            if trouble is not None:
                self._could_not_ask(group, trouble)
                continue
            try:
                missing = self._list(client, group)
            except Exception as error:  # noqa: BLE001 (no error is the jobs' fault; their patience ends the wait)
                trouble = connection_trouble(error)
                self._could_not_ask(group, error)
            else:
                trouble = self._ask_for_each(client, missing)
        return trouble

    def _list(self, client: MLJobClient, group: Sequence[WatchedJob]) -> list[WatchedJob]:
        """Take the statuses of a schema's jobs from one listing; returns those that have to be asked for singly."""
        names = [job.follower.job for job in group]
        # LIKE would take a backslash for an escape.
        prefix = commonprefix([name.name.value for name in names]).partition("\\")[0]  # noqa: RUF071 (no paths)
        try:
            statuses = client.statuses(names[0].namespace, prefix)
        except NotFoundOrNotAuthorizedError:
            # Single questions find out whether jobs are left where the schema is not listed.
            statuses = {}
        except (ValueError, TypeError, LookupError) as error:
            # An unreadable listing says nothing about a job, either.
            logger.warning("Could not read the listing of jobs in schema %s: %r", names[0].namespace, error)
            statuses = {}
        now = self._clock.now()
        for job in group:
            follower, watch = job.follower, job.follower.watch
            status = statuses.get(follower.job.name.value)
            job.is_listed = status is not None
            if status is not None:
                job.single_pause = 1.0 if watch.unseen_since is not None else job.single_pause
                if status is not watch.status or status is JobStatus.PENDING or watch.trouble:
                    follower.update(partial(JobWatch.observed, status=status, now=now), now)
                cancels = follower.plan.cancel_on_timeout
                job.needs_end = status is JobStatus.DONE and cancels and watch.late(now) is not None
        return [job for job in group if job.has_question]

    def _ask_for_each(self, client: MLJobClient, jobs: Iterable[WatchedJob]) -> Exception | None:
        """Ask singly for jobs, first for those that the listing lacks, but not so long that all others wait."""
        began = self._clock.monotonic()
        due = sorted(
            (job for job in jobs if job.single_at <= began),
            key=lambda each: (not each.is_to_be_cancelled, each.is_listed, each.single_at),
        )
        for job in due:
            now = self._clock.monotonic()
            if now > began + _SINGLE_SECONDS:
                self._has_more = True
                break
            job.asked_singly(now)
            try:
                self._ask_for(client, job)
            except Exception as error:  # noqa: BLE001 (as above)
                trouble = connection_trouble(error)
                if trouble is None and job.is_listed and job.is_to_be_cancelled:
                    job.could_not_cancel(_why(error))
                elif trouble is not None or not job.is_listed:
                    self._could_not_ask([job], error)
                if trouble is not None:
                    return trouble
        return None

    def _ask_for(self, client: MLJobClient, job: WatchedJob) -> None:
        follower = job.follower
        if not job.is_listed:
            sighting = client.look(follower.job)
            now = self._clock.now()
            follower.update(partial(JobWatch.sighted, sighting=sighting, now=now), now)
        if job.is_to_be_cancelled:
            self._cancel(client, job)
        elif job.needs_end:
            ended = inspection.ended(client, follower.job, self._clock.now)
            if ended is not None:
                follower.update(partial(JobWatch.out_of_time, now=ended), self._clock.now())
        elif job.is_listed:
            started = inspection.started(client, follower.job, self._clock.now)
            job.is_start_known = started is not None
            if started is not None:
                follower.update(partial(JobWatch.started, at=started), self._clock.now())

    def _cancel(self, client: MLJobClient, job: WatchedJob) -> None:
        """Cancel a job unless a look after its deadline shows that it is over, or has begun in time."""
        follower = job.follower
        if follower.watch.status is JobStatus.PENDING and not follower.watch.reason:
            # Once it is cancelled, its containers no longer say why they wait.
            with suppress(GatewayError):
                follower.learn_why(client, self._clock.now())
        if not follower.out_of_time(self._clock.now()):
            job.late_since = None
            return
        sighting = client.cancel(follower.job)
        now = self._clock.now()
        change = (
            partial(JobWatch.cancelled, now=now)
            if sighting.lives
            else partial(JobWatch.sighted, sighting=sighting, now=now)
        )
        follower.update(change, now)

    def _could_not_ask(self, group: Iterable[WatchedJob], error: Exception) -> None:
        now = self._clock.now()
        for job in group:
            job.follower.update(partial(JobWatch.failed_to_ask, why=_why(error), now=now), now)

    def _judge(self) -> None:
        """End the waits that are over."""
        with self._lock:
            jobs = list(self._jobs.values())
        now = self._clock.now()
        for job in jobs:
            verdict = job.follower.watch.verdict(now)
            if verdict is Verdict.WAIT or self._awaits_cancel(job, verdict):
                continue
            if verdict is not Verdict.FINISHED or not self._logs.reads_last_lines(job):
                self._end(job, verdict)

    def _awaits_cancel(self, job: WatchedJob, verdict: Verdict) -> bool:
        """Return whether a job that is out of time is still to be looked at once more, and cancelled.

        Not for longer than Snowflake may be unreachable: then the task cancels it.
        """
        if not verdict.is_out_of_time or not job.follower.plan.cancel_on_timeout:
            return False
        now = self._clock.monotonic()
        late_since = job.became_late(now)
        return job.is_to_be_cancelled and now < late_since + job.follower.plan.patience

    def _end(self, job: WatchedJob, verdict: Verdict) -> None:
        with self._lock:
            self._remove(job.follower)
        job.follower.end(verdict, self._clock.now())


def _why(error: Exception) -> str:
    """Return an error without the part that differs from statement to statement, so that the log has it once."""
    return error.message if isinstance(error, GatewayError) else f"{type(error).__name__}: {error}"


def _until_look(jobs: Iterable[WatchedJob], looked_at: float) -> float:
    """Return the seconds from the last look at all these jobs to the next one."""
    shortest = min(job.next_look(looked_at) for job in jobs)
    return shortest if any(job.is_new for job in jobs) else shortest * random.uniform(1 - _JITTER, 1)  # noqa: S311 (no secret)


_SHARED: WeakValueDictionary[str, Watcher] = WeakValueDictionary()
_SHARED_LOCK = threading.Lock()


def shared_watcher(identity: str, make: Callable[[], Watcher]) -> Watcher:
    """Return this process's watcher for a login; it lives as long as a job is followed.

    :param identity: distinguishes logins, and the jobs that they can see.
    """
    with _SHARED_LOCK:
        watcher = _SHARED.get(identity)
        if watcher is None:
            watcher = _SHARED[identity] = make()
        return watcher
