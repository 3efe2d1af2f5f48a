"""The wait for the end of a log that has left its node and isn't in the event table yet.

A node discards a log soon after its container has ended; the event table has a line some minutes after it was printed
(the tests of ``snowflake.ml.jobs`` wait up to 300 s). In between there is no place to read the last lines from.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from airflow_provider_mljobs.jobs.logs.cursor import behind
from airflow_provider_mljobs.launcher.contract import END

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_mljobs.gateway.log_store import StoredLog
    from airflow_provider_mljobs.jobs.logs.cursor import LogCursor

logger = logging.getLogger(__name__)
# Looks at the event table, each of which needs a warehouse.
_LOOKS = 12
# Lines come in batches. A log that doesn't say where it ends is complete if nothing came in so many looks.
_SILENT_LOOKS = 3


@dataclass(frozen=True, kw_only=True)
class LogPatience:
    """How long to wait for the logs of one job.

    :param seconds: for all its containers together; 0 looks once.
    :param started: the containers that have started, by instance and name: the others have no log to wait for.
    :param exports: returns whether the specification lets the event table have stdout; asked once, if that matters.
    :param pause: sleeps.
    """

    seconds: float = 0.0
    started: frozenset[tuple[int, str]] = frozenset()
    exports: Callable[[], bool] = lambda: True
    pause: Callable[[float], None] = time.sleep
    _began: float = field(default_factory=time.monotonic)

    @cached_property
    def _has_export(self) -> bool:
        return self.exports()

    def expects(self, container: tuple[int, str]) -> bool:
        """Return whether lines of a container may still arrive."""
        return container in self.started and self._has_export

    @property
    def is_over(self) -> bool:
        """Whether to stop waiting."""
        return time.monotonic() >= self._began + self.seconds

    def rest(self) -> None:
        """Sleep until the next look."""
        self.pause(self.seconds / _LOOKS)


def is_behind(
    look: Callable[[], StoredLog], cursor: LogCursor, container: tuple[int, str], patience: LogPatience
) -> bool:
    """Wait until the event table has the end of a container's log; returns whether lines may still be missing.

    :param look: reads the lines from the cursor on.
    """
    count, silent = 0, 0
    while True:
        stored = look()
        # Without a table, nothing will come.
        if not stored.is_available or any(line == END for _, line in reversed(stored.lines)):
            return False
        before, count = count, len(behind(cursor, stored.lines))
        silent = silent + 1 if count and count == before else 0
        if silent >= _SILENT_LOOKS:
            return False
        if not patience.expects(container):
            return False
        if patience.is_over:
            return True
        logger.info(
            "The log of instance %d, container %s has left its node; waiting for its end in the event table.",
            *container,
        )
        patience.rest()


def later(query: str, after: str) -> str:
    """Write the line that stands for the end of a log that hasn't come in time.

    :param query: finds the missing lines later.
    :param after: the time of the last line that has come.
    """
    since = f" after {after}" if after else ""
    return (
        f"[… the log{since} has left its node and is not in the event table yet, where lines arrive some minutes after "
        f"they were printed. Read it later with: {query}]"
    )
