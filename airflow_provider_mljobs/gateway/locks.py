"""Locks among the processes of one user on one machine: they save work, and nothing fails by them."""

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
# A fixed number of files, so that none has to be removed, which a lock can't be safely.
_LOCKS = 64
_LOOK_AGAIN_SECONDS = 0.25


@contextlib.contextmanager
def locked(name: str, what: str, limit: float) -> Iterator[None]:
    """Hold the lock of a name, unless this machine has no safe place for it or another process holds it for too long.

    :param name: what is locked.
    :param what: says in the log what the holder of the lock does, e.g. ``"the upload of …"``.
    :param limit: for how many seconds to wait for it.
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
    """Open a lock's file in a directory that only this user can write to. No link is followed.

    :raises OSError: if there can't be one, or somebody else has made it.
    """
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
    """Wait for the lock and log that; continue without it after the limit."""
    give_up = time.monotonic() + limit
    has_told = False
    while True:
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.monotonic() >= give_up:
            logger.warning(
                "Another process of this machine still holds %s, after %g s; continuing without the lock.", path, limit
            )
            return None
        if not has_told:
            logger.info(
                "Waiting for %s by another process of this machine, at most %g s (lock: %s).", what, limit, path
            )
            has_told = True
        time.sleep(_LOOK_AGAIN_SECONDS)
