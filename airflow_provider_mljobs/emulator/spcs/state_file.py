"""The state of compute pools, jobs and their objects, in one SQLite file that survives the server."""

from __future__ import annotations

import queue
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS objects (kind TEXT, name TEXT, record TEXT, PRIMARY KEY (kind, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, request TEXT, state TEXT) WITHOUT ROWID;
"""
_SAVE_OBJECT = "INSERT OR REPLACE INTO objects VALUES (?, ?, ?)"
_DELETE_OBJECT = "DELETE FROM objects WHERE kind = ? AND name = ?"
_ADD_JOB = "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?)"
_UPDATE_JOB = "UPDATE jobs SET state = ? WHERE id = ?"
_DELETE_JOB = "DELETE FROM jobs WHERE id = ?"

Change = tuple[str, tuple[str, ...]]


class StateFile:
    """The file and its one writing thread, so that callers with a lock never wait for the disk.

    :param file: the file, created if missing.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file)) as connection:
            connection.executescript(_SCHEMA)
        self._changes: queue.SimpleQueue[Change | threading.Event | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="snowflake-history", daemon=True)
        self._writer.start()

    def objects(self, kind: str) -> Iterator[tuple[str, str]]:
        """Iterate over the names and records of a kind."""
        yield from self._rows("SELECT name, record FROM objects WHERE kind = ? ORDER BY name", (kind,))

    def jobs(self) -> Iterator[tuple[str, str]]:
        """Iterate over the requests and states of jobs."""
        yield from self._rows("SELECT request, state FROM jobs", ())

    def _rows(self, query: str, parameters: tuple[str, ...]) -> list[tuple[str, str]]:
        with closing(sqlite3.connect(self._file)) as connection:
            return connection.execute(query, parameters).fetchall()

    def save_object(self, kind: str, name: str, record: str) -> None:
        """Store an object."""
        self._changes.put((_SAVE_OBJECT, (kind, name, record)))

    def delete_object(self, kind: str, name: str) -> None:
        """Delete an object."""
        self._changes.put((_DELETE_OBJECT, (kind, name)))

    def add_job(self, job: str, request: str, state: str) -> None:
        """Store a job."""
        self._changes.put((_ADD_JOB, (job, request, state)))

    def update_job(self, job: str, state: str) -> None:
        """Store the new state of a job."""
        self._changes.put((_UPDATE_JOB, (state, job)))

    def delete_job(self, job: str) -> None:
        """Delete a job."""
        self._changes.put((_DELETE_JOB, (job,)))

    def flush(self) -> None:
        """Wait until all earlier changes are in the file."""
        written = threading.Event()
        self._changes.put(written)
        while not written.wait(1.0):
            if not self._writer.is_alive():
                return

    def close(self) -> None:
        """Write the remaining changes and end the thread."""
        self._changes.put(None)
        self._writer.join()

    def _write(self) -> None:
        with closing(sqlite3.connect(self._file, isolation_level=None)) as connection:
            # The journal mode belongs to the file, this setting to the connection.
            connection.execute("PRAGMA synchronous = NORMAL")
            while self._write_batch(connection):
                pass

    def _write_batch(self, connection: sqlite3.Connection) -> bool:
        """Write the queued changes in one transaction; return whether more may follow."""
        written: list[threading.Event] = []
        change = self._changes.get()
        connection.execute("BEGIN")
        while change is not None:
            if isinstance(change, threading.Event):
                written.append(change)
            else:
                connection.execute(*change)
            if self._changes.empty():
                break
            change = self._changes.get()
        connection.execute("COMMIT")
        for event in written:
            event.set()
        return change is not None
