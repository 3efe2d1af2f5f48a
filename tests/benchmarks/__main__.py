"""Measure the numbers of docs/performance.md, next to Airflow's own operator: ``make bench``.

``python -m tests.benchmarks watch logs`` measures only these parts.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests import lab
from tests.benchmarks import logs, submit, ui, watch

if TYPE_CHECKING:
    from collections.abc import Sequence

BUILD = Path(__file__).parents[2] / "build" / "bench"
BASE = "import airflow.sdk"
OURS = "import airflow_provider_mljobs.operators, airflow_provider_mljobs.decorators"
THEIRS = "import airflow.providers.snowflake.operators.snowpark_containers"


def main(asked: Sequence[str]) -> None:
    """Print the measurements.

    :param asked: the parts to measure; all of them if it is empty.
    """
    unknown = ", ".join(set(asked) - PARTS.keys())
    if unknown:
        sys.exit(f"Unknown part: {unknown}. Choose from: {', '.join(PARTS)}.")
    print(f"machine: {os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"AIRFLOW_HOME": home, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}
        for name, measure in PARTS.items():
            if not asked or name in asked:
                measure()


def measure_imports(runs: int = 7) -> None:
    """Time fresh interpreters in turn, so that a drift of the machine affects all alike."""
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


def measure_submits() -> None:
    """Time the steps up to a job, and the whole way of one function."""
    from airflow.utils.db import initdb

    from airflow_provider_mljobs.emulator.settings import VirtualJob

    # Snowflake's client names jobs after the file that they run.
    virtual_jobs = (VirtualJob(name="MLJOB_BENCH_%"), VirtualJob(name="MAIN_%"))
    with lab.served(virtual_jobs=virtual_jobs) as snowflake:
        os.environ |= snowflake.environment
        initdb()
        measure_job()
        rows = submit.measure(snowflake)
    submit.show(rows)
    submit.save(rows, BUILD)


def measure_watch() -> None:
    """Watch many jobs, by our trigger and by Airflow's."""
    rows = watch.measure()
    watch.show(rows)
    watch.save(rows, BUILD)


def measure_logs() -> None:
    """Follow a job that prints more than its nodes keep."""
    measurements = logs.measure()
    logs.show(measurements)
    logs.save(measurements, BUILD)


def measure_ui() -> None:
    """Look at many jobs in a browser."""
    measurements = ui.measure()
    ui.show(measurements)
    ui.save(measurements, BUILD)


def measure_job() -> None:
    """Time one function from its call to its result."""
    from airflow_provider_mljobs.hooks import MLJobHook
    from airflow_provider_mljobs.jobs.names import Identifier
    from airflow_provider_mljobs.jobs.payload.archive import Payload
    from airflow_provider_mljobs.jobs.spec.job import JobSpec
    from airflow_provider_mljobs.jobs.values.arguments import Arguments

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


def _function(number):
    return number + 1


PARTS = {
    "imports": measure_imports,
    "submit": measure_submits,
    "watch": measure_watch,
    "logs": measure_logs,
    "ui": measure_ui,
}

if __name__ == "__main__":
    main(sys.argv[1:])
