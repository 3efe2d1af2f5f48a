"""Watches any number of jobs for the price of one: one listing at a time, on one session, for all jobs of a schema.

Who waits for a job follows it. Two threads do the work, whoever waits and however: one asks where the jobs stand, the
other reads what they print, on a session of its own, so that a slow log delays no verdict. Both end with the last job.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from airflow_provider_mljobs.exceptions import (
    GatewayError,
    LoginRefusedError,
    NotFoundOrNotAuthorizedError,
    SnowflakeUnavailableError,
)
from airflow_provider_mljobs.gateway.client import MLJobClient
from airflow_provider_mljobs.gateway.watcher.budget import Turns
from airflow_provider_mljobs.gateway.watcher.follower import Following
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.outcome.watch import JobWatch, Verdict, pause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from snowflake.connector import SnowflakeConnection

    from airflow_provider_mljobs.gateway.watcher.follower import Report
    from airflow_provider_mljobs.jobs.outcome.wait_plan import WaitPlan

logger = logging.getLogger(__name__)

DEFAULT_LOG_STATEMENTS_PER_MINUTE = 300.0
# Several jobs that begin together are looked at together.
_SPACING_SECONDS = 0.5
# After a restart the watchers of all triggerers begin at the same moment; they should not go on asking together.
_JITTER = 0.1
# Jobs that the listing lacks are asked for singly: not for longer than this at a time, and each ever more rarely.
_SINGLE_SECONDS = 5.0
_LONGEST_SINGLE_PAUSE = 60.0
# An account locks a user after a few wrong passwords. A connection that somebody mends is tried soon enough.
_BACKOFF, _LONGEST_BACKOFF = 1.0, 30.0
_REFUSED_BACKOFF, _LONGEST_REFUSED_BACKOFF = 30.0, 300.0
# A job's last lines are read before its end is told, unless that would keep too many waiting, or too long.
_MOST_FINAL = 20
_FINAL_SECONDS = 30.0
_FIRST_LOG_SECONDS = 1.0
# Who prints a lot is read again when about so much is new: well before the 100 KB that a node keeps are full.
_CHATTY_CHARACTERS = 30_000
_SHORTEST_LOG_INTERVAL = 0.5


class Clock:
    """Time as a watcher sees it: jobs' moments are those of the day, its own are counted, since a clock may be set."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def count(self) -> float:
        """Return seconds since some moment, whatever happens to clocks."""
        return time.monotonic()

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Wait until the condition is notified, but only for so long."""
        condition.wait(seconds)


@dataclass(eq=False)
class _Entry:
    """A job on a watcher's list; all its moments are counted ones.

    :param following: the wait for it.
    :param began: since when it is on the list.
    :param is_new: whether it hasn't been looked for yet.
    :param is_listed: whether the last listing had it.
    :param single_at: when to ask for it singly, if that is needed.
    :param single_pause: for how long not to do so again.
    :param is_start_known: whether it was asked since when it runs.
    :param final_since: since when its last lines wait to be read.
    :param set_aside: how many statements are set aside for that.
    :param read_at: when its log was last read.
    :param needs_end: whether it was seen to be DONE behind its deadline, so that it has to be asked when it ended.
    :param late_since: since when it is out of time, and to be cancelled.
    """

    following: Following
    began: float
    is_new: bool = True
    is_listed: bool = False
    single_at: float = 0.0
    single_pause: float = 1.0
    is_start_known: bool = False
    final_since: float | None = None
    set_aside: int = 0
    read_at: float = 0.0
    needs_end: bool = False
    late_since: float | None = None

    def log_pause(self, characters: int, now: float) -> float:
        """Return after how many seconds to read on in a log of which so much has come since it was last read."""
        since, self.read_at = max(0.0, now - self.read_at), now
        log_interval = self.following.plan.log_interval
        if characters <= _CHATTY_CHARACTERS:
            return log_interval
        return min(log_interval, max(_SHORTEST_LOG_INTERVAL, since * _CHATTY_CHARACTERS / characters))

    @property
    def has_question(self) -> bool:
        """Whether a listing doesn't tell all: where the job is, or since when it runs, if it has a timeout for that.

        Seen from here, it runs since it was first seen to; after a restart its timeout would begin anew. A job that is
        out of time is to be cancelled.
        """
        watch = self.following.watch
        needs_start = watch.plan.timeout is not None and watch.status is JobStatus.RUNNING and not self.is_start_known
        return not self.is_listed or needs_start or self.needs_end or self.is_to_be_cancelled

    @property
    def is_to_be_cancelled(self) -> bool:
        """Whether the job is out of time and may still live."""
        watch = self.following.watch
        is_over = watch.is_cancelled or watch.is_gone or watch.status.is_terminal
        return self.late_since is not None and not is_over

    def next_look(self, looked_at: float) -> float:
        """Return for how many seconds to look away from the job after a look."""
        poll_interval = self.following.plan.poll_interval
        if self.is_new:
            return min(_SPACING_SECONDS, poll_interval)
        usual = pause(looked_at - self.began, poll_interval)
        is_in_doubt = self.is_to_be_cancelled or self.following.watch.unseen_since is not None
        return min(usual, max(_SPACING_SECONDS, self.single_at - looked_at)) if is_in_doubt else usual


class Watcher:
    """Watches the jobs that one login can see, for everybody who follows one of them.

    :param connect: opens a connection.
    :param log_statements_per_minute: how many statements all logs together may cost; 0 reads none.
    :param clock: the time.
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
        self._reads_logs = log_statements_per_minute > 0
        # Guards all that follows; nobody holds it while a statement runs or a report is told.
        self._lock = threading.Lock()
        self._for_looks = threading.Condition(self._lock)
        self._for_turns = threading.Condition(self._lock)
        self._entries: dict[Following, _Entry] = {}
        self._has_new = self._has_more = False
        # Both threads log in with the same credentials, so both hold back when one can't.
        self._not_before = 0.0
        self._failures = 0
        self._turns: Turns[_Entry] = Turns(log_statements_per_minute or 1.0, self._clock.count())
        self._finals: deque[_Entry] = deque()
        self._is_watching = self._is_reading = False
        self._threads: list[threading.Thread] = []

    def follow(self, plan: WaitPlan, tell: Callable[[Report], None], **earlier: Any) -> Following:
        """Begin to wait for a job. Doesn't block.

        :param plan: the job, and until when to wait for it.
        :param tell: takes the reports. It is called from threads of this watcher, and must not block for long.
        :param earlier: ``state`` and ``mask``, as :class:`.follower.Following` takes them.
        """
        following = Following(plan, tell, self._clock.now(), **earlier)
        now = self._clock.count()
        entry = _Entry(following, began=now, read_at=now)
        with self._lock:
            self._entries[following] = entry
            self._is_watching = self._is_watching or self._start(self._watch)
            if not self._has_new:
                # One notice for all that come before the next look.
                self._has_new = True
                self._for_looks.notify()
            if self._shows_log(entry):
                self._turns.add(entry, now + min(plan.log_interval, _FIRST_LOG_SECONDS))
                self._is_reading = self._is_reading or self._start(self._read)
                self._for_turns.notify()
        return following

    def stop(self, following: Following) -> None:
        """Wait no more. Doesn't block: a report that is on its way may still come."""
        following.stop()
        with self._lock:
            self._remove(following)

    def join(self, timeout: float) -> bool:
        """Wait until the threads have ended, which they do once nobody follows a job; tell whether they have."""
        for thread in list(self._threads):
            thread.join(timeout)
        return not any(thread.is_alive() for thread in self._threads)

    def _start(self, work: Callable[[], None]) -> bool:
        # Daemons: a process that wants to end must not wait for a network. A thread begins with an empty context, so
        # what it logs isn't taken for the log of the task that happened to come first.
        thread = threading.Thread(target=work, name="mljobs-watcher", daemon=True)
        self._threads = [*(other for other in self._threads if other.is_alive()), thread]
        thread.start()
        return True

    def _remove(self, following: Following) -> None:
        entry = self._entries.pop(following, None)
        if entry is not None:
            self._turns.remove(entry)
            if entry in self._finals:
                self._finals.remove(entry)
                self._turns.spend(-entry.set_aside)
        if not self._entries:
            self._for_looks.notify()
            self._for_turns.notify()

    def _shows_log(self, entry: _Entry) -> bool:
        return self._reads_logs and entry.following.plan.log_interval > 0

    # The thread that asks where the jobs stand.

    def _watch(self) -> None:
        client = MLJobClient(self._connect)
        looked_at = rested_at = 0.0
        try:
            while (entries := self._next_look(looked_at, rested_at)) is not None:
                if entries:
                    looked_at = self._clock.count()
                    self._note(self._look(client, entries))
                    # A listing that takes long is followed by a rest as long.
                    ended_at = self._clock.count()
                    rested_at = ended_at + (ended_at - looked_at)
                self._judge()
        except Exception as error:
            # Tasks would stay deferred for ever if nobody told them that nobody watches any more.
            logger.exception("The watcher has failed; its jobs go on.")
            self._give_up(error)
        finally:
            client.close()

    def _note(self, trouble: Exception | None) -> None:
        """Take note of whether the connection works, for both threads."""
        with self._lock:
            self._failures = 0 if trouble is None else self._failures + 1
            self._not_before = 0.0 if trouble is None else self._clock.count() + _backoff(trouble, self._failures)
            self._for_turns.notify()

    def _give_up(self, error: Exception) -> None:
        with self._lock:
            self._is_watching = False
            entries = list(self._entries.values())
        self._could_not_ask(entries, error)
        for entry in entries:
            self._end(entry, Verdict.UNREACHABLE)

    def _next_look(self, looked_at: float, rested_at: float) -> list[_Entry] | None:
        """Wait until there are jobs to look for, or none for a deadline; ``None`` if nobody follows one any more."""
        with self._lock:
            while self._entries:
                entries, now = list(self._entries.values()), self._clock.count()
                until_look = _SPACING_SECONDS if self._has_more else _until_look(entries, looked_at)
                look_at = max(looked_at + until_look, rested_at, self._not_before)
                if look_at <= now:
                    self._has_new = self._has_more = False
                    return entries
                until_wake = min(look_at - now, *(self._until_deadline(entry) for entry in entries))
                if until_wake <= 0:
                    return []
                self._clock.wait(self._for_looks, until_wake)
            self._is_watching = False
            return None

    def _until_deadline(self, entry: _Entry) -> float:
        """Return for how many seconds nothing becomes of a job without a look at it."""
        if entry.final_since is not None:
            return entry.final_since + _FINAL_SECONDS - self._clock.count()
        if entry.late_since is not None:
            return entry.late_since + entry.following.plan.patience - self._clock.count()
        deadline = entry.following.watch.next_deadline()
        return math.inf if deadline is None else deadline - self._clock.now()

    def _look(self, client: MLJobClient, entries: Iterable[_Entry]) -> Exception | None:
        """Ask where jobs stand; returns what is wrong with the connection, if something is."""
        schemas: dict[str, list[_Entry]] = {}
        for entry in entries:
            entry.is_new = False
            job = entry.following.job
            schemas.setdefault(str(job.namespace), []).append(entry)
        trouble: Exception | None = None
        for group in schemas.values():
            if trouble is not None:
                self._could_not_ask(group, trouble)
                continue
            try:
                missing = self._list(client, group)
            except Exception as error:  # noqa: BLE001 (whatever it is, jobs are not to blame; their patience ends it)
                trouble = _of_connection(error)
                self._could_not_ask(group, error)
            else:
                trouble = self._ask_for_each(client, missing)
        return trouble

    def _list(self, client: MLJobClient, group: Sequence[_Entry]) -> list[_Entry]:
        """Take the statuses of a schema's jobs from one listing; returns those that have to be asked for singly."""
        jobs = [entry.following.job for entry in group]
        try:
            statuses = client.statuses(jobs[0].namespace, _common_prefix([job.name.value for job in jobs]))
        except NotFoundOrNotAuthorizedError:
            # What is left of the schema, if anything, is for the single questions to find out.
            statuses = {}
        except (ValueError, TypeError, LookupError) as error:
            # Nor does a listing that can't be read say anything of a job.
            logger.warning("The listing of jobs in %s can't be read: %r", jobs[0].namespace, error)
            statuses = {}
        now = self._clock.now()
        for entry in group:
            watch = entry.following.watch
            status = statuses.get(entry.following.job.name.value)
            entry.is_listed = status is not None
            if status is not None:
                entry.single_pause = 1.0 if watch.unseen_since is not None else entry.single_pause
                if status is not watch.status or status is JobStatus.PENDING or watch.trouble:
                    entry.following.update(partial(JobWatch.observed, status=status, now=now), now)
                cancels = entry.following.plan.cancel_on_timeout
                entry.needs_end = status is JobStatus.DONE and cancels and watch.is_late(now)
        return [entry for entry in group if entry.has_question]

    def _ask_for_each(self, client: MLJobClient, entries: Iterable[_Entry]) -> Exception | None:
        """Ask singly for jobs, those first that the listing lacks, but not for so long that all others wait."""
        began = self._clock.count()
        due = sorted(
            (entry for entry in entries if entry.single_at <= began),
            key=lambda each: (not each.is_to_be_cancelled, each.is_listed, each.single_at),
        )
        for entry in due:
            now = self._clock.count()
            if now > began + _SINGLE_SECONDS:
                self._has_more = True
                break
            entry.single_at = now + entry.single_pause
            entry.single_pause = min(2 * entry.single_pause, _LONGEST_SINGLE_PAUSE)
            try:
                self._ask_for(client, entry)
            except Exception as error:  # noqa: BLE001 (as above)
                trouble = _of_connection(error)
                if trouble is not None or not entry.is_listed or entry.is_to_be_cancelled:
                    self._could_not_ask([entry], error)
                if trouble is not None:
                    return trouble
        return None

    def _ask_for(self, client: MLJobClient, entry: _Entry) -> None:
        following = entry.following
        if not entry.is_listed:
            sighting = client.look(following.job)
            now = self._clock.now()
            following.update(partial(JobWatch.sighted, sighting=sighting, now=now), now)
        if entry.is_to_be_cancelled:
            self._cancel(client, entry)
        elif entry.needs_end:
            ended = client.ended(following.job, self._clock.now)
            if ended is not None:
                following.update(partial(JobWatch.ended, at=ended), self._clock.now())
        elif entry.is_listed:
            started = client.started(following.job, self._clock.now)
            entry.is_start_known = started is not None
            if started is not None:
                following.update(partial(JobWatch.started, at=started), self._clock.now())

    def _cancel(self, client: MLJobClient, entry: _Entry) -> None:
        """Cancel a job that a look after its deadline has not shown to be over, nor to have begun in time."""
        following = entry.following
        if following.watch.status is JobStatus.PENDING and not following.watch.reason:
            # Its containers say no more why once it is cancelled.
            with suppress(GatewayError):
                following.learn_why(client, self._clock.now())
        if not following.out_of_time(self._clock.now()):
            entry.late_since = None
            return
        sighting = client.cancel(following.job)
        now = self._clock.now()
        change = (
            partial(JobWatch.cancelled, now=now)
            if sighting.lives
            else partial(JobWatch.sighted, sighting=sighting, now=now)
        )
        following.update(change, now)

    def _could_not_ask(self, group: Iterable[_Entry], error: Exception) -> None:
        now = self._clock.now()
        # Without what differs from statement to statement, so that people are told once.
        why = error.message if isinstance(error, GatewayError) else f"{type(error).__name__}: {error}"
        for entry in group:
            entry.following.update(partial(JobWatch.failed_to_ask, why=why, now=now), now)

    def _judge(self) -> None:
        """End the waits that are over."""
        with self._lock:
            entries = list(self._entries.values())
        now = self._clock.now()
        for entry in entries:
            verdict = entry.following.watch.verdict(now)
            if not verdict.is_final or self._awaits_cancel(entry, verdict) or self._awaits_last_lines(entry, verdict):
                continue
            self._end(entry, verdict)

    def _awaits_cancel(self, entry: _Entry, verdict: Verdict) -> bool:
        """Tell whether a job that is out of time is yet to be looked at once more, and cancelled.

        Not for longer than Snowflake may be out of reach: then the task has to see to it.
        """
        if not verdict.is_out_of_time or not entry.following.plan.cancel_on_timeout:
            return False
        now = self._clock.count()
        if entry.late_since is None:
            entry.late_since, entry.single_at, entry.single_pause = now, 0.0, 1.0
        return entry.is_to_be_cancelled and now < entry.late_since + entry.following.plan.patience

    def _awaits_last_lines(self, entry: _Entry, verdict: Verdict) -> bool:
        """Tell whether what a finished job has printed last is yet to be read; it is gone from the node soon.

        Who ends while many others do doesn't wait: whoever takes the result reads the log.
        """
        if verdict is not Verdict.FINISHED or not self._shows_log(entry):
            return False
        with self._lock:
            now = self._clock.count()
            is_cheap = len(self._finals) < _MOST_FINAL and self._turns.has_allowance(now)
            if entry.final_since is None and is_cheap:
                entry.final_since = now
                # Otherwise all that end together would count on the same statements.
                entry.set_aside = entry.following.cost
                self._turns.spend(entry.set_aside)
                self._turns.remove(entry)
                self._finals.append(entry)
                self._for_turns.notify()
        return entry.final_since is not None and now < entry.final_since + _FINAL_SECONDS

    def _end(self, entry: _Entry, verdict: Verdict) -> None:
        with self._lock:
            self._remove(entry.following)
        entry.following.end(verdict, self._clock.now())

    # The thread that reads logs.

    def _read(self) -> None:
        client = MLJobClient(self._connect)
        try:
            while (entry := self._next_turn()) is not None:
                before = client.connection.statements
                characters = self._take_turn(client, entry)
                with self._lock:
                    self._turns.spend(client.connection.statements - before)
                    if entry.final_since is None and entry.following in self._entries:
                        now = self._clock.count()
                        self._turns.add(entry, now + entry.log_pause(characters, now))
        finally:
            client.close()

    def _next_turn(self) -> _Entry | None:
        with self._lock:
            while self._entries:
                now = self._clock.count()
                held_back = self._not_before - now
                if held_back <= 0:
                    if self._finals:
                        final = self._finals.popleft()
                        self._turns.spend(-final.set_aside)
                        return final
                    entry = self._turns.take(now)
                    if entry is not None:
                        return entry
                self._clock.wait(self._for_turns, held_back if held_back > 0 else self._turns.wait(now))
            self._is_reading = False
            return None

    def _take_turn(self, client: MLJobClient, entry: _Entry) -> int:
        """Read what is new of a job's log, or why it is waiting; returns how many characters that were."""
        is_final = entry.final_since is not None
        try:
            if not is_final and entry.following.watch.status is JobStatus.PENDING:
                entry.following.explain(client, self._clock.now())
                return 0
            return entry.following.read(client, self._clock.now(), is_final=is_final)
        except Exception as error:  # a log that can't be read now ends no job; it is read later
            logger.debug("The log of job %s can't be read now: %s", entry.following.job, error, exc_info=True)
            trouble = _of_connection(error)
            if trouble is not None:
                self._note(trouble)
            return 0
        finally:
            if is_final:
                self._end(entry, Verdict.FINISHED)


def _of_connection(error: Exception) -> Exception | None:
    """Return an error that any other question would meet, too. What Snowflake says of one job is that job's."""
    if isinstance(error, SnowflakeUnavailableError | LoginRefusedError):
        return error
    if not isinstance(error, GatewayError):
        logger.warning("Unexpected answer from Snowflake.", exc_info=error)
    return None


def _until_look(entries: Iterable[_Entry], looked_at: float) -> float:
    """Return for how many seconds to look away from all these jobs."""
    shortest = min(entry.next_look(looked_at) for entry in entries)
    return shortest if any(entry.is_new for entry in entries) else shortest * random.uniform(1 - _JITTER, 1)  # noqa: S311 (no secret)


def _backoff(trouble: Exception, failures: int) -> float:
    """Return for how many seconds not to ask after so many failures in a row."""
    if isinstance(trouble, LoginRefusedError):
        return float(min(_LONGEST_REFUSED_BACKOFF, _REFUSED_BACKOFF * 2 ** min(failures - 1, 10)))
    return float(min(_LONGEST_BACKOFF, _BACKOFF * 2 ** min(failures - 1, 10)))


def _common_prefix(names: Sequence[str]) -> str:
    """Return how all names begin, up to what LIKE would take for an escape."""
    first, last = min(names), max(names)
    length = next((at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), None)
    return first[:length].partition("\\")[0]


_SHARED: WeakValueDictionary[str, Watcher] = WeakValueDictionary()
_SHARED_LOCK = threading.Lock()


def shared_watcher(identity: str, make: Callable[[], Watcher]) -> Watcher:
    """Return the watcher of this process for a login; it lives as long as somebody follows a job.

    :param identity: what tells the login, and what it may see, from others.
    :param make: makes one if there is none.
    """
    with _SHARED_LOCK:
        watcher = _SHARED.get(identity)
        if watcher is None:
            watcher = _SHARED[identity] = make()
        return watcher
