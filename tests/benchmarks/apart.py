"""An embedded Snowflake and a triggerer's event loop, each in a fresh process, and each on a core of its own."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from tests import lab

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

_SERVER_CORE, _LOOP_CORE = 1, 0
_PROBE_SECONDS = 0.05
_SAMPLE_SECONDS = 0.5
# The names that ThreadPoolExecutor gives its threads.
_POOLED = re.compile(r".+_\d+")
_MEGABYTE = 1024 * 1024


class Aside:
    """Work in a fresh process on one core, and the pipe to it.

    :param work: a function of a module; gets its end of the pipe and the arguments.
    :param core: the number of the core, where the machine has that many.
    """

    def __init__(self, work: Callable[..., None], *args: Any, core: int) -> None:
        context = get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_run, args=(core, work, other, *args), daemon=True)
        self._process.start()
        other.close()

    def tell(self, *message: Any) -> None:
        """Send a message."""
        self._pipe.send(message)

    def hear(self) -> Any:
        """Return the next message; raises :class:`EOFError` if the process has ended."""
        return self._pipe.recv()

    def end(self) -> None:
        """End the process by closing the pipe, and wait for it."""
        self._pipe.close()
        self._process.join(20)
        self._process.kill()


def _run(core: int, work: Callable[..., None], pipe: Connection, *args: Any) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core % len(cores)]})
    work(pipe, *args)


class Snowflake:
    """An embedded Snowflake in its own process; a context manager that stops it.

    :param settings: its settings.
    """

    def __init__(self, **settings: Any) -> None:
        self._server = Aside(_serve, settings, core=_SERVER_CORE)
        self.environment: dict[str, str] = self._server.hear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.end()

    def start(self, statement: str, names: Sequence[str]) -> None:
        """Start jobs that differ by their names only.

        :param statement: starts one that is called ``{name}``.
        """
        self._ask("start", statement, names)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement, from now on without any delay, and return its rows."""
        return self._ask("rows", statement)

    def delay(self, seconds: float) -> None:
        """Hold every answer to a statement back from now on."""
        self._ask("delay", seconds)

    def counts(self) -> tuple[int, int]:
        """Return how many statements and logins there were."""
        return self._ask("counts")

    def _ask(self, *question: Any) -> Any:
        self._server.tell(*question)
        return self._server.hear()


def _serve(pipe: Connection, settings: dict[str, Any]) -> None:
    from snowflake.connector import connect

    with lab.served(**settings) as server, connect(**server.connection_kwargs) as connection:
        answers = _Answers(server, connection.cursor())
        pipe.send(server.environment)
        while True:
            try:
                what, *args = pipe.recv()
            except EOFError:
                return
            pipe.send(getattr(answers, what)(*args))


class _Answers:
    """The answers of a server to the messages of its pipe: see :class:`Snowflake`."""

    def __init__(self, server: Any, cursor: Any) -> None:
        self._server = server
        self._cursor = cursor

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        self._server.faults.clear()
        return self._cursor.execute(statement).fetchall()

    def start(self, statement: str, names: Sequence[str]) -> None:
        self._cursor.execute(statement.replace("{name}", names[0]))
        services = self._server.account.services
        (first,) = [job.request for job in services.jobs() if job.name.name == names[0]]
        # Thousands of statements would take a minute.
        for name in names[1:]:
            copy = replace(first, id=str(uuid4()), name=replace(first.name, name=name), created=time.time())
            services.submit(copy)
        services.flush()

    def delay(self, seconds: float) -> None:
        from airflow_provider_mljobs.emulator.settings import Fault

        self._server.faults.add(Fault(matching=".", effect="delay", seconds=seconds))

    def counts(self) -> tuple[int, int]:
        return self._server.statements.total, self._server.statements.logins


@dataclass(frozen=True, kw_only=True)
class Load:
    """The cost of watching for its process, beyond an idle loop.

    :param cpu_percent: of a core; the probe of the loop's lag is part of it.
    :param rss_mb: more memory than before.
    :param loop_lag_p99_ms: by how much the loop was late.
    :param threads: at most so many more threads than before.
    :param sockets: at most so many more sockets than before.
    """

    cpu_percent: float
    rss_mb: float
    loop_lag_p99_ms: float
    threads: int
    sockets: int


class Meter:
    """Measures the process that it is in, and the loop in which it runs. Make it when everything is imported."""

    def __init__(self) -> None:
        self._rss = _rss()
        self._threads = set(threading.enumerate())
        self._sockets = _sockets()

    async def measure(self, seconds: float) -> Load:
        """Measure for some seconds, from now on."""
        lags: list[float] = []
        threads = sockets = 0
        used, began = time.process_time(), time.perf_counter()
        sample_at = began
        while (now := time.perf_counter()) < began + seconds:
            if now >= sample_at:
                sample_at = now + _SAMPLE_SECONDS
                threads = max(threads, len(self._new_threads()))
                sockets = max(sockets, _sockets())
            before = time.perf_counter()
            await asyncio.sleep(_PROBE_SECONDS)
            lags.append(time.perf_counter() - before - _PROBE_SECONDS)
        share = (time.process_time() - used) / (time.perf_counter() - began)
        return Load(
            cpu_percent=round(100 * share, 2),
            rss_mb=round((_rss() - self._rss) / _MEGABYTE, 1),
            loop_lag_p99_ms=round(1000 * percentile(lags, 99), 2),
            threads=threads,
            sockets=sockets - self._sockets,
        )

    async def remains(self, seconds: float = 10.0) -> list[str]:
        """Return the sockets, and the threads outside pools, that remain some seconds after the end."""
        deadline = time.perf_counter() + seconds
        while True:
            remains = [thread.name for thread in self._new_threads() if not _POOLED.fullmatch(thread.name)]
            remains += ["a socket"] * (_sockets() - self._sockets)
            if not remains or time.perf_counter() > deadline:
                return remains
            await asyncio.sleep(0.1)

    def _new_threads(self) -> set[threading.Thread]:
        return set(threading.enumerate()) - self._threads


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile; the largest value if there are few."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else float("nan")


def loop_aside(work: Callable[..., None], snowflake: Snowflake, *args: Any) -> Aside:
    """Start a process with an event loop and the address of a Snowflake."""
    return Aside(_work_with, snowflake.environment, work, *args, core=_LOOP_CORE)


def _work_with(pipe: Connection, environment: dict[str, str], work: Callable[..., None], *args: Any) -> None:
    os.environ |= environment
    work(pipe, *args)


def _rss() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _sockets() -> int:
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        # A descriptor may be closed since it was listed.
        with suppress(OSError):
            count += str(descriptor.readlink()).startswith("socket:")
    return count
