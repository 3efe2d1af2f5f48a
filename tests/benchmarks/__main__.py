"""Measure what docs/performance.md says, next to Airflow's own operator: ``make bench``."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks import submit

ROOT = Path(__file__).parents[2]
BASE = "import airflow.sdk"
OURS = "import airflow_provider_mljobs.operators, airflow_provider_mljobs.decorators"
THEIRS = "import airflow.providers.snowflake.operators.snowpark_containers"
JOBS = 20
SPEC = """
spec:
  containers:
  - name: main
    image: /snowflake/images/x/y:1
    command: ["true"]
"""


def main() -> None:
    """Print one line per measurement."""
    print(f"machine: {os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}")
    measure_imports()
    from airflow_provider_mljobs import emulator
    from airflow_provider_mljobs.emulator.settings import VirtualJob

    with (
        tempfile.TemporaryDirectory() as home,
        emulator.serve(
            virtual_jobs=(
                VirtualJob(name="SLOW_%", seconds=6),
                VirtualJob(name="MLJOB_BENCH_%"),
                # Those of Snowflake's client are called after the file that they run.
                VirtualJob(name="MAIN_%"),
            )
        ) as snowflake,
    ):
        os.environ |= {"AIRFLOW_HOME": home, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR", **snowflake.environment}
        from airflow.utils.db import initdb

        initdb()
        set_up(snowflake)
        measure_job(snowflake)
        rows = submit.measure(snowflake)
        submit.show(rows)
        submit.save(rows, ROOT / "build" / "bench")
        measure_watch(snowflake)


def measure_imports(runs: int = 7) -> None:
    """Time fresh interpreters, in turn, so that a drift of the machine meets all of them."""
    times: dict[str, list[float]] = {BASE: [], OURS: [], THEIRS: []}
    for _ in range(runs):
        for statement, seen in times.items():
            code = (
                f"import time; import airflow.sdk, airflow.sdk.bases.operator, airflow.sdk.bases.decorator; "
                f"from airflow.sdk import BaseOperator; t = time.perf_counter(); {statement}; "
                f"print(time.perf_counter() - t)"
            )
            seen.append(float(subprocess.check_output([sys.executable, "-c", code], text=True).split()[-1]))
    ours, theirs = (1000 * statistics.median(times[name]) for name in (OURS, THEIRS))
    print(f"import over airflow.sdk: ours {ours:.0f} ms, Airflow's SnowparkContainerJobOperator {theirs:.0f} ms")


def set_up(snowflake) -> None:
    """Make the pool and the stage."""
    from snowflake import connector

    with connector.connect(**snowflake.connection_kwargs) as connection:
        connection.execute_string((ROOT / "example_dags/setup.sql").read_text())


def measure_job(snowflake) -> None:
    """Time one function from its call to its result."""
    from airflow_provider_mljobs.hooks import MLJobHook
    from airflow_provider_mljobs.jobs.arguments import Arguments
    from airflow_provider_mljobs.jobs.identifiers import Identifier
    from airflow_provider_mljobs.jobs.payload import Payload
    from airflow_provider_mljobs.jobs.spec import JobSpec

    with MLJobHook() as hook:
        job = hook.job("MLJOB_RESULT")
        spec = JobSpec(name=job, compute_pool=Identifier("ML_POOL"), stage=hook.stage("@ML_PAYLOADS"), comment="bench")
        started = time.perf_counter()
        payload = Payload.of_function(_function)
        built = time.perf_counter()
        hook.submit(spec, payload, Arguments.of_function(_function, [1]))
        submitted = time.perf_counter()
        hook.run(f"CALL {job}!SPCS_WAIT_FOR('DONE', 60)")
        hook.result(job)
        ended = time.perf_counter()
        hook.drop(job)
    print(
        f"a function: payload of {len(payload.archive)} bytes built in {1000 * (built - started):.0f} ms, "
        f"submitted in {1000 * (submitted - built):.0f} ms; result after {ended - started:.2f} s"
    )


def measure_watch(snowflake) -> None:
    """Watch jobs to their end, by our trigger and by Airflow's, one second between looks."""
    from airflow.providers.snowflake.triggers import snowpark_containers as official

    from airflow_provider_mljobs.hooks import MLJobHook
    from airflow_provider_mljobs.triggers import MLJobTrigger

    # Airflow's own hook can't pass "protocol" on, so it can't reach a server without TLS.
    official.SnowflakeHook = MLJobHook
    for label, make in (
        ("ours", lambda name: MLJobTrigger(f"MLJOBS_DB.PUBLIC.{name}", "snowflake_default", poll_interval=1.0)),
        (
            "Airflow's",
            lambda name: official.SnowparkContainerJobTrigger(
                job_name=name,
                snowflake_conn_id="snowflake_default",
                poll_interval=1,
                end_time=time.time() + 600,
            ),
        ),
    ):
        names = start(JOBS, label[0].upper())
        snowflake.statements.clear()
        used, started = time.process_time(), time.perf_counter()
        asyncio.run(watch([make(name) for name in names]))
        seconds, cpu = time.perf_counter() - started, time.process_time() - used
        print(
            f"watch {JOBS} jobs of 6 s, {label}: {snowflake.statements.total / seconds:.1f} statements/s, "
            f"{snowflake.statements.logins} logins, {cpu:.1f} s CPU (server included), over after {seconds:.1f} s"
        )


def start(count: int, prefix: str) -> list[str]:
    """Start virtual jobs, which take no process."""
    from airflow_provider_mljobs.hooks import MLJobHook

    names = [f"SLOW_{prefix}{number}" for number in range(count)]
    with MLJobHook() as hook:
        for name in names:
            hook.client.connection.rows(
                f"EXECUTE JOB SERVICE IN COMPUTE POOL ML_POOL NAME = {name} ASYNC = TRUE FROM SPECIFICATION $${SPEC}$$"
            )
    return names


async def watch(triggers) -> None:
    """Run triggers until each has fired."""

    async def fired(trigger):
        return await anext(aiter(trigger.run()))

    events = await asyncio.gather(*(fired(trigger) for trigger in triggers))
    unfinished = [event.payload for event in events if "DONE" not in json.dumps(event.payload)]
    if unfinished:
        sys.exit(f"not DONE: {unfinished}")


def _function(number):
    return number + 1


if __name__ == "__main__":
    main()
