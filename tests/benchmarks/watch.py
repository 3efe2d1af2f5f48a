"""The cost of watching many jobs, and the delay until an end is noticed, next to Airflow's own trigger."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tests.benchmarks.apart import Load, Meter, Snowflake, loop_aside, percentile

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from pathlib import Path

JOBS = (10, 100, 1000, 5000)
INTERVAL = 10.0
LATENCY = 0.05
MOST_ENDS = 200
_DAY = 86400
_START = """EXECUTE JOB SERVICE IN COMPUTE POOL ML_POOL NAME = {name} ASYNC = TRUE
FROM SPECIFICATION $$
spec:
  containers:
  - name: main
    image: /snowflake/images/snowflake_images/x:1
$$"""
_HISTORY = "SELECT NAME, COMPLETED_TIME FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY(RESULT_LIMIT => 10000))"
_COLUMNS = {
    "who": "who", "jobs": "jobs", "statements_per_s": "statements/s", "logins": "logins", "detect_p50_s": "p50 s",
    "detect_p99_s": "p99 s", "cpu_percent": "CPU %", "rss_mb": "RSS +MB", "loop_lag_p99_ms": "lag p99 ms",
    "threads": "threads", "sockets": "sockets",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement.

    :param jobs: how many are watched.
    :param interval_s: seconds between two looks at one.
    :param logins: those since the start.
    :param detect_p50_s: seconds from the end of a job until its coroutine resumes.
    """

    who: str
    jobs: int
    interval_s: float
    statements_per_s: float
    logins: int
    detect_p50_s: float
    detect_p99_s: float
    cpu_percent: float
    rss_mb: float
    loop_lag_p99_ms: float
    threads: int
    sockets: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to measure.

    :param who: the owner of the trigger.
    :param jobs: how many to watch.
    :param ends: how many of them end while it is measured.
    :param warmup: seconds before the measurement.
    :param window: seconds of the measurement.
    :param patience: seconds after the window in which an end may still be noticed.
    """

    who: str
    jobs: int
    ends: int
    warmup: float
    window: float
    patience: float = INTERVAL + 5

    @classmethod
    def of(cls, who: str, jobs: int) -> Plan:
        """Plan the measurement of a trigger.

        Ours looks at young jobs more often than at those that run for half a minute.
        """
        window = 30.0 if jobs >= JOBS[2] else 20.0
        warmup = INTERVAL if who == "official" else 3 * INTERVAL
        return cls(who=who, jobs=jobs, ends=min(MOST_ENDS, jobs // 2), warmup=warmup, window=window)

    @property
    def names(self) -> list[str]:
        """The jobs' names; those that end come last."""
        running = [f"MLJOB_RUNS_{number}" for number in range(self.jobs - self.ends)]
        return running + [f"MLJOB_ENDS_{number}" for number in range(self.ends)]


def measure(jobs: tuple[int, ...] = JOBS) -> list[Row]:
    """Measure ours and the official trigger in turn, and print the progress."""
    with Snowflake() as snowflake:
        idle: Load = loop_aside(_idle, snowflake).hear()
    print(
        f"watching: {INTERVAL:g} s between looks, {1000 * LATENCY:g} ms for each statement, Snowflake in another "
        f"process; in the steady state: young jobs are looked at more often by us. Waits begin at random moments. "
        f"RSS, threads and sockets are what comes on top of an idle loop, which has with its probe "
        f"{idle.cpu_percent} % CPU and a lag of {idle.loop_lag_p99_ms} ms (p99) here and now.",
        flush=True,
    )
    rows: list[Row] = []
    for count in jobs:
        rows += [_measure(Plan.of("ours", count)), _measure(Plan.of("official", count))]
        if count == JOBS[2]:
            rows.append(_measure(Plan.of("ours, with logs", count)))
    return rows


def show(rows: list[Row]) -> None:
    """Print the rows as a table, and the ratios."""
    print(f"{'who':15} " + " ".join(f"{title:>12}" for title in list(_COLUMNS.values())[1:]))
    for row in rows:
        print(f"{row.who:15} " + " ".join(f"{getattr(row, name):12}" for name in list(_COLUMNS)[1:]))
    ours = {row.jobs: row for row in rows if row.who == "ours"}
    for row in rows:
        if row.who == "official":
            other = ours[row.jobs]
            print(
                f"{row.jobs} jobs: {_ratio(row.statements_per_s, other.statements_per_s)}x fewer statements, "
                f"{_ratio(row.logins, other.logins)}x fewer logins, {_ratio(row.cpu_percent, other.cpu_percent)}x less "
                f"CPU, p99 {_ratio(row.detect_p99_s, other.detect_p99_s)}x sooner than the official trigger"
            )


def save(rows: list[Row], directory: Path) -> None:
    """Write the rows as JSON, to compare runs."""
    directory.mkdir(parents=True, exist_ok=True)
    ours_and_official = [asdict(row) for row in rows if row.who in {"ours", "official"}]
    (directory / "watch.json").write_text(json.dumps(ours_and_official, indent=1) + "\n")


def _ratio(theirs: float, ours: float) -> str:
    return f"{theirs / ours:.1f}" if ours else "?"


def _measure(plan: Plan) -> Row:
    from airflow_provider_mljobs.emulator.settings import VirtualJob

    # All print a line a second.
    virtual_jobs = (
        VirtualJob(
            name="MLJOB_ENDS_%",
            seconds=plan.warmup + 1,
            spread=plan.window - 1,
            log_lines=int(plan.warmup + plan.window),
        ),
        VirtualJob(name="MLJOB_RUNS_%", seconds=_DAY, log_lines=_DAY),
    )
    with Snowflake(virtual_jobs=virtual_jobs) as snowflake:
        loop = loop_aside(_watch, snowflake, plan)
        loop.hear()
        snowflake.start(_START, plan.names)
        snowflake.delay(LATENCY)
        _, logins = snowflake.counts()
        loop.tell("go")
        loop.hear()
        before, _ = snowflake.counts()
        began = time.perf_counter()
        load = loop.hear()
        (after, last), seconds = snowflake.counts(), time.perf_counter() - began
        noticed, ended, remains = loop.hear()
        loop.end()
        moments = {name: at.timestamp() for name, at in snowflake.rows(_HISTORY) if at is not None}
    if plan.who != "official" and remains:
        sys.exit(f"Left behind by our triggers: {remains}")
    over = {name: at for name, at in moments.items() if at < ended}
    delays = [noticed.get(name, ended) - at for name, at in over.items()]
    unnoticed = len(over.keys() - noticed.keys())
    print(
        f"{plan.jobs} jobs, {plan.who}: {len(over)} ended; {unnoticed} of them not noticed when we stopped to wait for "
        f"that, which counts as their delay",
        flush=True,
    )
    return _row(plan, load, (after - before) / seconds, last - logins, delays)


def _row(plan: Plan, load: Load, statements_per_s: float, logins: int, delays: list[float]) -> Row:
    return Row(
        who=plan.who,
        jobs=plan.jobs,
        interval_s=INTERVAL,
        statements_per_s=round(statements_per_s, 3),
        logins=logins,
        detect_p50_s=round(percentile(delays, 50), 2),
        detect_p99_s=round(percentile(delays, 99), 2),
        **asdict(load),
    )


# The functions below run in the process of the loop.


def _watch(pipe: Connection, plan: Plan) -> None:
    import structlog

    from airflow_provider_mljobs.hooks import MLJobHook

    make = _MAKERS[plan.who]()
    # The first connection of a process loads a hundred megabytes of modules.
    MLJobHook().get_conn().close()
    # As the triggerer does, but into nothing.
    with open("/dev/null", "w") as nowhere:  # noqa: PTH123
        structlog.configure(
            processors=[structlog.processors.JSONRenderer()],
            logger_factory=structlog.WriteLoggerFactory(file=nowhere),
            wrapper_class=structlog.make_filtering_bound_logger("info"),
        )
        asyncio.run(_observe(pipe, plan, make))


def _idle(pipe: Connection) -> None:
    pipe.send(asyncio.run(Meter().measure(5.0)))


async def _observe(pipe: Connection, plan: Plan, make: Callable[[str], Any]) -> None:
    meter = Meter()
    noticed: dict[str, float] = {}
    pipe.send("ready")
    pipe.recv()

    async def wait(name: str) -> None:
        # Tasks start at different moments of the interval.
        await asyncio.sleep(random.random() * INTERVAL)  # noqa: S311 (no secret)
        event = await anext(aiter(make(name).run()))
        assert "DONE" in json.dumps(event.payload), event
        noticed[name] = time.time()

    waits = [asyncio.create_task(wait(name)) for name in plan.names]
    await asyncio.sleep(plan.warmup)
    pipe.send("begun")
    pipe.send(await meter.measure(plan.window))
    await asyncio.wait(waits[plan.jobs - plan.ends :], timeout=plan.patience)
    ended = time.time()
    for task in waits:
        task.cancel()
    for result in await asyncio.gather(*waits, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    pipe.send((noticed, ended, await meter.remains()))


def _ours(log_interval: float = 0.0) -> Callable[[str], Any]:
    from airflow_provider_mljobs.triggers import MLJobTrigger

    def make(name: str) -> MLJobTrigger:
        return MLJobTrigger(
            f"MLJOBS_DB.PUBLIC.{name}", "snowflake_default", poll_interval=INTERVAL, log_interval=log_interval
        )

    return make


def _official() -> Callable[[str], Any]:
    from airflow.providers.snowflake.triggers import snowpark_containers as official

    class Hook(official.SnowflakeHook):  # type: ignore[misc, name-defined]
        """Airflow's own hook can't pass "protocol" on, so it can't reach a server without TLS."""

        def _get_conn_params(self) -> dict[str, Any]:
            return {**super()._get_conn_params(), "protocol": "http"}

    official.SnowflakeHook = Hook

    def make(name: str) -> Any:
        return official.SnowparkContainerJobTrigger(
            job_name=name,
            snowflake_conn_id="snowflake_default",
            poll_interval=INTERVAL,
            end_time=time.time() + 3600,
        )

    return make


_MAKERS: dict[str, Callable[[], Callable[[str], Any]]] = {
    "ours": _ours,
    "ours, with logs": lambda: _ours(INTERVAL),
    "official": _official,
}
