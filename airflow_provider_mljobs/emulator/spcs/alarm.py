"""An alarm clock: one thread for all times at which jobs become due."""

from __future__ import annotations

import heapq
import math
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds: closer times ring once.
_GRAIN = 0.02


class Alarm:
    """Calls ``ring`` soon after each time that was set.

    :param now: the clock, in seconds since the epoch.
    :param ring: called in the alarm's thread, which starts when the first time is set.
    """

    def __init__(self, now: Callable[[], float], ring: Callable[[], None]) -> None:
        self._now = now
        self._ring = ring
        self._changed = threading.Condition()
        self._times: list[float] = []
        self._pending: set[float] = set()
        self._thread: threading.Thread | None = None
        self._closed = False

    def set(self, when: float) -> None:
        """Ring at this time."""
        when = math.ceil(when / _GRAIN) * _GRAIN
        with self._changed:
            if when in self._pending or self._closed:
                return
            self._pending.add(when)
            heapq.heappush(self._times, when)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="snowflake-alarm", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Stop ringing."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        while self._wait():
            self._ring()

    def _wait(self) -> bool:
        with self._changed:
            while not self._closed:
                if self._times and self._times[0] <= self._now():
                    self._pending.discard(heapq.heappop(self._times))
                    return True
                self._changed.wait(self._times[0] - self._now() if self._times else None)
            return False
