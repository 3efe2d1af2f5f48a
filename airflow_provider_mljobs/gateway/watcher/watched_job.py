"""A job on a watcher's list: its follower, and when to look at it next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_mljobs.gateway.watcher.follower import Message
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.outcome.watch import pause

if TYPE_CHECKING:
    from airflow_provider_mljobs.gateway.watcher.follower import Follower

# Several jobs that begin together are looked at together.
SPACING_SECONDS = 0.5
_MAX_SINGLE_PAUSE = 60.0
# A log that grows fast is read again when about so much is new: long before the 100 KB that a node keeps are full.
_CHATTY_CHARACTERS = 30_000
_MIN_LOG_INTERVAL = 0.5


@dataclass(eq=False)
class WatchedJob:
    """A job on a watcher's list; all its moments are monotonic.

    :param single_at: when to ask for it singly, if that is needed.
    :param final_since: since when its last lines wait to be read.
    :param set_aside: statements that are reserved for that.
    :param needs_end: whether it was DONE after its deadline, so that the time of its end decides.
    :param late_since: since when it is out of time and to be cancelled.
    :param cancel_trouble: the last error of a cancel.
    """

    follower: Follower
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
    cancel_trouble: str = ""

    def log_pause(self, characters: int, now: float) -> float:
        """Return the seconds to the next look at a log in which so much was new since the last one."""
        since, self.read_at = max(0.0, now - self.read_at), now
        log_interval = self.follower.plan.log_interval
        if characters <= _CHATTY_CHARACTERS:
            return log_interval
        return min(log_interval, max(_MIN_LOG_INTERVAL, since * _CHATTY_CHARACTERS / characters))

    def asked_singly(self, now: float) -> None:
        """Record a single question; each is followed by a longer pause."""
        self.single_at = now + self.single_pause
        self.single_pause = min(2 * self.single_pause, _MAX_SINGLE_PAUSE)

    def became_late(self, now: float) -> float:
        """Record that the job is out of time, and ask for it at once; returns since when it is."""
        if self.late_since is None:
            self.late_since, self.single_at, self.single_pause = now, 0.0, 1.0
        return self.late_since

    def could_not_cancel(self, why: str) -> None:
        """Report a cancel that failed, once for each reason; it is tried again."""
        if why != self.cancel_trouble:
            self.cancel_trouble = why
            text = f"Could not cancel job {self.follower.job}; trying again: {why}"
            self.follower.report(Message(text, is_warning=True))

    @property
    def has_question(self) -> bool:
        """Whether a listing is not enough: to find the job, to cancel it, or for the time of its start or end.

        ``timeout`` counts from the start; counted from the first look, it would begin again after a restart.
        """
        is_running = self.follower.watch.status is JobStatus.RUNNING
        needs_start = self.follower.plan.timeout is not None and is_running and not self.is_start_known
        return not self.is_listed or needs_start or self.needs_end or self.is_to_be_cancelled

    @property
    def is_to_be_cancelled(self) -> bool:
        """Whether the job is out of time and may still live."""
        watch = self.follower.watch
        is_over = watch.is_cancelled or watch.is_gone or watch.status.is_terminal
        return self.late_since is not None and not is_over

    def next_look(self, looked_at: float) -> float:
        """Return the seconds from the last look to the next one."""
        poll_interval = self.follower.plan.poll_interval
        if self.is_new:
            return min(SPACING_SECONDS, poll_interval)
        usual = pause(looked_at - self.began, poll_interval)
        is_in_doubt = self.is_to_be_cancelled or self.follower.watch.unseen_since is not None
        return min(usual, max(SPACING_SECONDS, self.single_at - looked_at)) if is_in_doubt else usual
