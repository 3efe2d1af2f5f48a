"""The moment at which files that containers write are on their stage."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_MOST_UPLOADS = 100_000


class Arrivals:
    """Tells which files statements see: those that statements wrote at once, those of containers after a while.

    Containers write through mounts, which the server doesn't see; so each file that no statement wrote counts as one of
    theirs. Until a new version of a file arrives, statements see none instead of the old one.

    :param lag: seconds from a container's last write until statements see the file.
    """

    def __init__(self, lag: float) -> None:
        self._lag = lag
        self._lock = threading.Lock()
        self._uploads: dict[Path, None] = {}

    def uploaded(self, files: Iterable[Path]) -> None:
        """Note files that a statement writes, or is about to."""
        if not self._lag:
            return
        with self._lock:
            self._uploads.update(dict.fromkeys(files))
            while len(self._uploads) > _MOST_UPLOADS:
                del self._uploads[next(iter(self._uploads))]

    def has(self, file: Path) -> bool:
        """Return whether statements see a file."""
        if not self._lag or file in self._uploads:
            return True
        try:
            return file.stat().st_mtime + self._lag <= time.time()
        except FileNotFoundError:
            return False
