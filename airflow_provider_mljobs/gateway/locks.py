"""Locks between the processes of one user on one machine. They save work; nothing fails without them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)
# A fixed number of files never has to be removed, which would be unsafe for a lock.
_LOCKS = 64
_LOOK_AGAIN_SECONDS = 0.25


@contextlib.contextmanager
def locked(name: str, what: str, limit: float) -> Iterator[None]:
    """Hold the lock of a name, unless this machine has no safe place for it or another process holds it too long.

    :param what: the locked action in log messages, e.g. ``"the upload of …"``.
    """
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % _LOCKS
    directory = Path(tempfile.gettempdir(), f"mljobs-{os.geteuid()}")
    with contextlib.ExitStack() as held:
        try:
            file = _open(directory, f"{number}.lock")
            held.callback(os.close, file)
            _wait(file, what, directory / f"{number}.lock", limit)
        except OSError as error:
            logger.warning("Continuing without a lock for %s: %s", what, error)
        yield


def _open(directory: Path, name: str) -> int:
    """Open a lock's file in a directory that only this user can write to, without following links."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(folder)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise PermissionError(
                f"{directory} belongs to user {status.st_uid} with mode {stat.S_IMODE(status.st_mode):04o}, not to "
                f"this user alone (0700). Remove it, or set TMPDIR to a directory of this user."
            )
        return os.open(
            name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600, dir_fd=folder
        )
    finally:
        os.close(folder)


def _wait(file: int, what: str, path: Path, limit: float) -> None:
    """Wait for the lock, with a line in the log; continue without it after the limit."""
    give_up = time.monotonic() + limit
    has_logged = False
    while True:
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.monotonic() >= give_up:
            logger.warning(
                "Another process of this machine still holds %s, after %g s; continuing without the lock.", path, limit
            )
            return None
        if not has_logged:
            logger.info(
                "Waiting for %s by another process of this machine, at most %g s (lock: %s).", what, limit, path
            )
            has_logged = True
        time.sleep(_LOOK_AGAIN_SECONDS)
