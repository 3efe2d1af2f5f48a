"""The statements that the server received, for tests and benchmarks that count them."""

from __future__ import annotations

import re
import threading
from collections import deque

MOST_TEXTS = 10_000


class Recorder:
    """The statements and logins since the start or since :meth:`clear`.

    A repeated request counts once; a request for a description doesn't count.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: deque[str] = deque(maxlen=MOST_TEXTS)
        self.total = 0
        self.logins = 0

    @property
    def texts(self) -> list[str]:
        """The latest statements, oldest first."""
        with self._lock:
            return list(self._texts)

    def matching(self, pattern: str) -> list[str]:
        """Return the latest statements that match a regular expression, ignoring case."""
        search = re.compile(pattern, re.IGNORECASE).search
        return [text for text in self.texts if search(text)]

    def add(self, sql: str) -> None:
        """Count a statement."""
        with self._lock:
            self.total += 1
            self._texts.append(sql)

    def add_login(self) -> None:
        """Count a login."""
        with self._lock:
            self.logins += 1

    def clear(self) -> None:
        """Reset the counts."""
        with self._lock:
            self._texts.clear()
            self.total = self.logins = 0
