"""Threads that run statements, so that a request can be answered "in progress" while its statement runs."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Workers:
    """A pool of threads: started when all others are busy, and kept for the next task.

    Unlike those of ``concurrent.futures`` they don't keep the process from ending.
    """

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._threads: list[threading.Thread] = []
        self._closed = False

    def run(self, task: Callable[[], None]) -> bool:
        """Run a task, which must not raise, in one of the threads; return whether it was accepted."""
        with self._lock:
            if self._closed:
                return False
            self._tasks.put(task)
            if self._idle:
                self._idle -= 1
                return True
            thread = threading.Thread(target=self._work, name="snowflake-statement", daemon=True)
            self._threads.append(thread)
        thread.start()
        return True

    def close(self) -> None:
        """Accept no more tasks; the threads end once they are idle."""
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._tasks.put(None)

    def join(self, seconds: float) -> None:
        """Wait until all threads have ended, but not longer than so many seconds."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            if thread.ident is None:  # not started yet
                continue
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
            with self._lock:
                self._idle += 1
