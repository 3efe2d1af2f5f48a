"""Reads the logs of watched jobs, on a session of its own and within a budget of statements."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING

from airflow_provider_mljobs.gateway.client import MLJobClient
from airflow_provider_mljobs.gateway.watcher.budget import StatementBudget
from airflow_provider_mljobs.gateway.watcher.loop import LoopThread, connection_trouble
from airflow_provider_mljobs.jobs.outcome.status import JobStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from snowflake.connector import SnowflakeConnection

    from airflow_provider_mljobs.gateway.watcher.loop import Backoff, Clock
    from airflow_provider_mljobs.gateway.watcher.watched_job import WatchedJob

logger = logging.getLogger(__name__)

# A job's last lines are read before its end is reported, unless too many others wait for that, or it takes too long.
_MAX_FINALS = 20
FINAL_SECONDS = 30.0
_FIRST_LOG_SECONDS = 1.0


class LogLoop:
    """Reads the logs of a watcher's jobs in turn. The caller holds the lock where a docstring says so.

    :param per_minute: how many statements all logs together may cost; 0 reads none.
    """

    def __init__(
        self,
        connect: Callable[[], SnowflakeConnection],
        *,
        per_minute: float,
        lock: threading.Lock,
        backoff: Backoff,
        clock: Clock,
        end: Callable[[WatchedJob], None],
    ) -> None:
        self._connect = connect
        self._is_enabled = per_minute > 0
        self._lock = lock
        self._changed = threading.Condition(lock)
        self._backoff = backoff
        self._clock = clock
        self._end = end
        self._budget: StatementBudget[WatchedJob] = StatementBudget(per_minute or 1.0, clock.monotonic())
        self._jobs: set[WatchedJob] = set()
        self._finals: deque[WatchedJob] = deque()
        self.thread = LoopThread(self._run)

    def add(self, job: WatchedJob) -> None:
        """Begin to read a job's log; the caller holds the lock."""
        log_interval = job.follower.plan.log_interval
        if not self._is_enabled or log_interval <= 0:
            return
        self._jobs.add(job)
        self._budget.add(job, self._clock.monotonic() + min(log_interval, _FIRST_LOG_SECONDS))
        self.thread.start()
        self._changed.notify()

    def remove(self, job: WatchedJob) -> None:
        """Stop reading a job's log; the caller holds the lock."""
        self._jobs.discard(job)
        self._budget.remove(job)
        if job in self._finals:
            self._finals.remove(job)
            self._budget.refund(job.set_aside)
        self.wake()

    def wake(self) -> None:
        """Check the back-off and the jobs again; the caller holds the lock."""
        self._changed.notify()

    def reads_last_lines(self, job: WatchedJob) -> bool:
        """Read the last lines of a finished job, which leave its node soon; returns whether that is still to come.

        Where many jobs end at once, some don't wait: the task reads their logs with their results.
        """
        with self._lock:
            now = self._clock.monotonic()
            if job not in self._jobs:
                return False
            is_cheap = len(self._finals) < _MAX_FINALS and self._budget.has_allowance(now)
            if job.final_since is None and is_cheap:
                job.final_since = now
                # Otherwise all that end together would count on the same statements.
                job.set_aside = job.follower.cost
                self._budget.spend(job.set_aside)
                self._budget.remove(job)
                self._finals.append(job)
                self._changed.notify()
        return job.final_since is not None and now < job.final_since + FINAL_SECONDS

    def _run(self) -> None:
        client = MLJobClient(self._connect)
        try:
            while (job := self._next()) is not None:
                before = client.connection.statements
                characters = self._read(client, job)
                with self._lock:
                    self._budget.spend(client.connection.statements - before)
                    if job.final_since is None and job in self._jobs:
                        now = self._clock.monotonic()
                        self._budget.add(job, now + job.log_pause(characters, now))
        finally:
            client.close()

    def _next(self) -> WatchedJob | None:
        """Wait for a job whose turn it is; ``None`` if no job is left."""
        with self._lock:
            while self._jobs:
                now = self._clock.monotonic()
                held_back = self._backoff.until - now
                if held_back <= 0:
                    if self._finals:
                        final = self._finals.popleft()
                        self._budget.refund(final.set_aside)
                        return final
                    job = self._budget.take(now)
                    if job is not None:
                        return job
                self._clock.wait(self._changed, held_back if held_back > 0 else self._budget.wait(now))
            self.thread.is_running = False
            return None

    def _read(self, client: MLJobClient, job: WatchedJob) -> int:
        """Read the news of a job's log, or why the job is waiting; returns how many characters that were."""
        is_final, follower = job.final_since is not None, job.follower
        try:
            is_pending = not is_final and follower.watch.status is JobStatus.PENDING
            if is_pending and not follower.explain(client, self._clock.now()):
                return 0
            return follower.read(client, self._clock.now(), is_final=is_final)
        except Exception as error:  # a log that can't be read now ends no job; it is read later
            logger.debug("Could not read the log of job %s; trying again later: %s", follower.job, error, exc_info=True)
            trouble = connection_trouble(error)
            if trouble is not None:
                with self._lock:
                    self._backoff.note(trouble, self._clock.monotonic())
            return 0
        finally:
            if is_final:
                self._end(job)
