"""The root directory of one server: private, locked while the server runs, with its password."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_LOCK = "lock"
_PASSWORD = "password"  # noqa: S105  # the name of a file


class RootInUseError(RuntimeError):
    """Raised when another server runs on the same root."""


class Root:
    """The claim of one server on its root; made by :meth:`claim`.

    :param path: the directory.
    :param password: the password of this start, also kept in ``<root>/password``.
    """

    def __init__(self, path: Path, password: str, lock: int) -> None:
        self.path = path
        self.password = password
        self._lock = lock

    @classmethod
    def claim(cls, path: Path) -> Root:
        """Create the directory if it is missing and lock it; raises :class:`RootInUseError`."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read_holder(lock)
            os.close(lock)
            raise RootInUseError(
                f"Another embedded Snowflake is using {path} ({holder}). Stop it, or choose another root."
            ) from None
        return cls(path, _new_password(path / _PASSWORD), lock)

    def announce(self, port: int) -> None:
        """Record the holder of the lock, for the error of a second start."""
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, json.dumps({"pid": os.getpid(), "port": port}).encode(), 0)

    def release(self) -> None:
        """Unlock the directory."""
        os.close(self._lock)


def _read_holder(lock: int) -> str:
    try:
        holder = json.loads(os.pread(lock, 1024, 0))
    except ValueError:
        return "it is starting"
    return f"process {holder['pid']}, port {holder['port']}"


def _new_password(path: Path) -> str:
    password = secrets.token_urlsafe(24)
    path.unlink(missing_ok=True)
    # Created with these rights: after a later chmod, others could have read it.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(password)
    return password
