"""The settings of an embedded Snowflake: where it keeps its data, how time passes, what goes wrong."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

Effect = Literal["reset", "reset_after", "http_503", "session_expired", "master_expired", "error", "delay"]


@dataclass(frozen=True, kw_only=True)
class Ready:
    """When something becomes ready: at once (default), after ``polls`` looks at it, or after ``seconds``."""

    polls: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Refuse negative and contradictory values."""
        if self.polls < 0 or self.seconds < 0 or (self.polls and self.seconds):
            msg = f"Ready takes polls or seconds, not both, and none below zero; got {self}"
            raise ValueError(msg)


@dataclass(frozen=True, kw_only=True)
class VirtualJob:
    """Jobs whose name matches ``name`` (SQL LIKE, any case) get no process: they only pretend to run.

    :param seconds: how long the job is RUNNING.
    :param status: how it ends.
    :param log_lines: how many lines it prints, spread evenly over its run.
    """

    name: str
    seconds: float = 1.0
    status: Literal["DONE", "FAILED", "INTERNAL_ERROR"] = "DONE"
    log_lines: int = 0


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with statements that match.

    :param matching: regular expression, searched in the statement's text, any case.
    :param effect: ``reset`` cuts the connection before the statement ran, ``reset_after`` after it took effect;
        ``http_503``; ``session_expired`` answers 390112, ``master_expired`` 390114 also on renewal; ``error`` fails
        with ``errno``, ``sqlstate`` and ``message``; ``delay`` holds the answer back for ``seconds``.
    :param nth: only the n-th matching statement, counted from 1. Without it and without ``share``: every one.
    :param times: how many consecutive matching statements from ``nth`` on.
    :param share: the share of matching statements, 0 to 1, drawn from a generator seeded with ``seed``.
    """

    matching: str
    effect: Effect
    nth: int | None = None
    times: int = 1
    share: float | None = None
    seed: int = 0
    seconds: float = 0.0
    errno: int = 1
    sqlstate: str = "XX000"
    message: str = "SQL execution internal error: injected fault"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one server; all have a default that makes jobs run at once and nothing fail.

    :param root: directory of all state; made if missing. Tables, stages, pools, jobs and history survive a restart.
    :param port: TCP port on 127.0.0.1; 0 takes a free one.
    :param database: database that exists from the start and that sessions get by default.
    :param schema: schema that exists from the start.
    :param warehouse: warehouse that sessions report.
    :param pool_ready: when a compute pool is up after it was created or resumed.
    :param job_ready: when a job goes from PENDING to RUNNING.
    :param virtual_jobs: jobs without a process, for scale tests.
    :param faults: what goes wrong.
    :param python: interpreter that the ML runtime images offer to jobs.
    :param termination_grace: seconds between SIGTERM and SIGKILL when a job is cancelled or dropped.
    :param session_lifetime: seconds until a session token expires and the client has to renew it.
    :param clock: the seconds by which sessions expire; tests give their own.
    :param long_statement: seconds after which a statement is answered "in progress" with a URL to ask again.
    """

    root: Path
    port: int = 0
    database: str = "MLJOBS_DB"
    schema: str = "PUBLIC"
    warehouse: str = "MLJOBS_WH"
    pool_ready: Ready = field(default_factory=Ready)
    job_ready: Ready = field(default_factory=Ready)
    virtual_jobs: tuple[VirtualJob, ...] = ()
    faults: tuple[Fault, ...] = ()
    python: Path = field(default_factory=lambda: Path(sys.executable))
    termination_grace: float = 30.0
    session_lifetime: float = 3600.0
    clock: Callable[[], float] = time.monotonic
    long_statement: float = 40.0
