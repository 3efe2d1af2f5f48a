"""The settings of an embedded Snowflake: its data, its timing, its faults."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from airflow_provider_mljobs.emulator.timing import Ready, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_mljobs.emulator.containers.images import Image
    from airflow_provider_mljobs.emulator.results import Result
__all__ = ["EVENT_TABLE", "UNFIT", "Fault", "Ready", "Settings", "Timing", "VirtualJob"]

Effect = Literal[
    "reset", "reset_after", "http_503", "session_expired", "master_expired", "error", "delay", "empty", "reversed",
    "rewrite", "answer",
]  # fmt: skip
RequestKind = Literal["statement", "login"]

# The table that an account's containers log to by default.
EVENT_TABLE = "SNOWFLAKE.TELEMETRY.EVENTS"
# Its view, for roles without rights on the table.
EVENT_VIEW = f"{EVENT_TABLE}_VIEW"
# DuckDB reads the rest of such a path as parameters or as a folder.
UNFIT = frozenset("?\\")


@dataclass(frozen=True, kw_only=True)
class VirtualJob:
    """Simulates the jobs whose name matches ``name`` (SQL LIKE, any case): they run no process.

    :param seconds: the shortest time that a job is RUNNING.
    :param spread: up to so many seconds more, spread evenly over the names of jobs and the same at each run.
    :param status: how it ends.
    :param log_lines: how many lines it prints, spread evenly over its run.
    """

    name: str
    seconds: float = 1.0
    spread: float = 0.0
    status: Literal["DONE", "FAILED", "INTERNAL_ERROR"] = "DONE"
    log_lines: int = 0

    def duration(self, job: str) -> float:
        """Return for how long a job of this name is RUNNING."""
        if not self.spread:
            return self.seconds
        digest = hashlib.blake2b(job.encode(), digest_size=8).digest()
        return self.seconds + self.spread * int.from_bytes(digest) / 2**64


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault that hits matching statements or logins.

    :param matching: regular expression, searched in the statement's text, or in the user's name at a login; any case.
    :param request: whether it hits statements or logins; session faults hit statements only.
    :param effect: ``reset`` cuts the connection before the statement ran, ``reset_after`` after it took effect;
        ``http_503``; ``session_expired`` answers 390112, ``master_expired`` 390114 also on renewal; ``error`` fails
        with ``errno``, ``sqlstate`` and ``message``; ``delay`` delays the answer by ``seconds``; ``empty`` removes the
        rows of the answer, or a GET's files; ``reversed`` reverses their order; ``rewrite`` writes ``value`` into
        their ``column``; ``answer`` answers with ``answer``, e.g. one recorded on an account, and runs nothing.
    :param nth: only the n-th matching request, counted from 1; by default every one, unless ``share`` is set.
    :param times: how many consecutive matching requests, beginning with ``nth``.
    :param share: the share of matching requests, 0 to 1, drawn from a generator seeded with ``seed``.
    """

    matching: str = ""
    effect: Effect
    request: RequestKind = "statement"
    nth: int | None = None
    times: int = 1
    share: float | None = None
    seed: int = 0
    seconds: float = 0.0
    errno: int = 1
    sqlstate: str = "XX000"
    message: str = "SQL execution internal error: injected fault"
    column: str = ""
    value: str | None = None
    answer: Result | None = None

    def __post_init__(self) -> None:
        """Refuse faults of sessions at a login, and an answer without one."""
        of_statements = {"session_expired", "master_expired", "empty", "reversed", "rewrite", "answer"}
        if (self.effect == "answer") != (self.answer is not None):
            msg = "The effect 'answer' needs an answer, and no other effect takes one"
            raise ValueError(msg)
        if self.request == "login" and self.effect in of_statements:
            msg = f"The effect {self.effect!r} hits statements only, not logins; remove request='login'"
            raise ValueError(msg)


@dataclass(frozen=True, kw_only=True)
class Settings(Timing):
    """The settings of one server: these, and the times of :class:`.Timing`. By default nothing takes time or fails.

    :param root: directory of all state; created if missing. Tables, stages, pools, jobs and history survive a restart.
    :param port: TCP port on 127.0.0.1; 0 takes a free one.
    :param database: database that exists from the start and that sessions get by default.
    :param schema: schema that exists from the start.
    :param warehouse: warehouse that exists from the start. Sessions have none by default: connections name it.
    :param virtual_jobs: jobs without a process, for scale tests.
    :param max_services: the limit of job services, finished ones included; by default none.
    :param scarce_families: instance families without capacity: pools use their backup families, or wait.
    :param faults: the faults to inject.
    :param python: the interpreter that runs the Python of jobs: its path, or its name on PATH, also as text.
    :param images: images of your own, by patterns of their paths, e.g. ``"/db/schema/repository/mine:*"``.
    :param termination_grace: seconds between SIGTERM and SIGKILL when a job is cancelled or dropped.
    :param event_table: whether the account has one: without it SPCS_GET_LOGS, _EVENTS and _METRICS are unknown (2143).
    :param log_event_level: LOG_EVENT_LEVEL of the account: which platform events the event table gets.
    :param session_lifetime: seconds until a session token expires and the client has to renew it.
    :param clock: the clock by which sessions expire; tests pass their own.
    :param long_statement: seconds after which a statement is answered "in progress" with a URL to ask again.
    """

    root: Path
    port: int = 0
    database: str = "MLJOBS_DB"
    schema: str = "PUBLIC"
    warehouse: str = "MLJOBS_WH"
    virtual_jobs: tuple[VirtualJob, ...] = ()
    max_services: int | None = None
    scarce_families: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    python: Path = field(default_factory=lambda: Path(sys.executable))
    images: Mapping[str, Image] = field(default_factory=dict)
    termination_grace: float = 30.0
    event_table: bool = True
    log_event_level: Literal["OFF", "ERROR", "INFO"] = "OFF"
    session_lifetime: float = 3600.0
    clock: Callable[[], float] = time.monotonic
    long_statement: float = 40.0

    def __post_init__(self) -> None:
        """Refuse a root that can't hold databases, a limit or a time below zero, and a Python that can't run."""
        super().__post_init__()
        python = shutil.which(os.fspath(self.python))
        if python is None:
            msg = f"python must be the path of an interpreter, or its name on PATH; got {str(self.python)!r}"
            raise ValueError(msg)
        object.__setattr__(self, "python", Path(python).absolute())
        if UNFIT & set(str(self.root)):
            msg = f"DuckDB can't open files in {str(self.root)!r}: choose a root without a question mark or a backslash"
            raise ValueError(msg)
        if self.max_services is not None and self.max_services < 0:
            msg = f"max_services must be 0 or more, or None for no limit; got {self.max_services}"
            raise ValueError(msg)
