"""Clock, thread and back-off that the two loops of a watcher share."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from airflow_provider_mljobs.exceptions import GatewayError, LoginRefusedError, SnowflakeUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)
_PAUSE, _MAX_PAUSE = 1.0, 30.0
# An account locks a user after a few wrong passwords. A connection that is corrected is used soon enough.
_REFUSED_PAUSE, _MAX_REFUSED_PAUSE = 30.0, 300.0


class Clock:
    """The watcher's time: wall-clock moments for jobs, a monotonic count for its own pauses, as clocks are set back."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds since an arbitrary moment; setting the clock doesn't change them."""
        return time.monotonic()

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Wait until the condition is notified, or the seconds are over."""
        condition.wait(seconds)


class LoopThread:
    """A thread that runs while there is work. Its user holds a lock around :meth:`start` and ``is_running``.

    :param work: clears ``is_running`` when it ends, in the same block in which it sees that there is no more work.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._threads: list[threading.Thread] = []
        self.is_running = False

    def start(self) -> None:
        """Start a thread unless one runs.

        A daemon, so that a process can end while Snowflake doesn't answer. A thread starts with an empty context, so
        its log records don't go to the log of the task that happened to come first.
        """
        if self.is_running:
            return
        self.is_running = True
        thread = threading.Thread(target=self._work, name="mljobs-watcher", daemon=True)
        self._threads = [*(other for other in self._threads if other.is_alive()), thread]
        thread.start()

    def join(self, timeout: float) -> bool:
        """Wait until the thread has ended; returns whether it has."""
        threads = list(self._threads)
        for thread in threads:
            thread.join(timeout)
        return not any(thread.is_alive() for thread in threads)


class Backoff:
    """Holds both loops back after a failure, since both use the same credentials. Not thread-safe."""

    def __init__(self) -> None:
        self.until = 0.0
        self._failures = 0

    def note(self, trouble: Exception | None, now: float) -> None:
        """Record an attempt; ``trouble`` is the reason for its failure."""
        if trouble is None:
            self.until, self._failures = 0.0, 0
            return
        is_refused = isinstance(trouble, LoginRefusedError)
        pause, maximum = (_REFUSED_PAUSE, _MAX_REFUSED_PAUSE) if is_refused else (_PAUSE, _MAX_PAUSE)
        self.until = now + min(maximum, pause * 2 ** min(self._failures, 10))
        self._failures += 1


def connection_trouble(error: Exception) -> Exception | None:
    """Return an error that any other statement would meet, too; ``None`` for an answer that concerns one job."""
    if isinstance(error, SnowflakeUnavailableError | LoginRefusedError):
        return error
    if not isinstance(error, GatewayError):
        logger.warning("Unexpected answer from Snowflake.", exc_info=error)
    return None
