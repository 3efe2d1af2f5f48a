"""Run the weekly retraining DAG once and print a one-line summary. ``make demo`` calls this.

It uses the Snowflake of ``AIRFLOW_CONN_SNOWFLAKE_DEFAULT`` and a temporary Airflow.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

FOLDER = Path(__file__).resolve().parent


def main() -> int:
    """Set up Snowflake and Airflow, run the DAG, and count leftover services and files."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mljobs-demo-") as home:
        # Before Airflow is imported: it reads its configuration then.
        os.environ |= {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__DAGS_FOLDER": str(FOLDER),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            # The connection has "http" in it: without this Airflow warns that it is too short to mask.
            "AIRFLOW__LOGGING__MIN_LENGTH_MASKED_SECRET": "4",
            # Log the tasks, not Airflow and its libraries.
            "AIRFLOW__LOGGING__NAMESPACE_LEVELS": (
                "airflow.task.operators.airflow_provider_mljobs=INFO py.warnings=ERROR airflow.models.crypto=ERROR "
                "airflow.sdk._shared.secrets_masker=ERROR"
            ),
            # No other task shares these payloads: each is removed with its job.
            "AIRFLOW__MLJOBS__PAYLOAD_GRACE_SECONDS": "0",
            "SNOWFLAKE_DISABLE_PLATFORM_DETECTION": "true",
        }
        from airflow.utils.db import initdb

        from airflow_provider_mljobs.hooks import MLJobHook

        initdb()
        with MLJobHook() as hook:
            hook.run((FOLDER / "setup.sql").read_text(), split_statements=True)
            state, metrics = run()
            services, files = left_behind(hook)
        jobs = metrics.pop("jobs", 0)
    print(
        f"demo: state={state} auc={metrics.get('auc', float('nan')):.3f} jobs={jobs} services_left={services} "
        f"payload_files_left={files} seconds={time.monotonic() - started:.0f}"
    )
    return 0 if (state, services, files) == ("success", 0, 0) else 1


def run() -> tuple[str, dict[str, Any]]:
    """Run the DAG and return its state and the metrics of the evaluation."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(FOLDER / "weekly_retraining.py")
    if bag.import_errors:
        sys.exit("\n".join(bag.import_errors.values()))
    dag_run = bag.dags["weekly_retraining"].test()
    tasks = {ti.task_id: ti for ti in dag_run.get_task_instances()}
    for ti in sorted(tasks.values(), key=lambda ti: ti.start_date.timestamp() if ti.start_date else 0):
        print(f"  {ti.task_id:<14}{ti.state}")
    job_ids = [ti.xcom_pull(task_ids=task_id, key="job_id") for task_id, ti in tasks.items()]
    metrics = tasks["evaluate"].xcom_pull(task_ids="evaluate") or {}
    return str(dag_run.state), {**metrics, "jobs": sum(job_id is not None for job_id in job_ids)}


def left_behind(hook: Any) -> tuple[int, int]:
    """Count the job services that still exist, and the files on the stage that no job saved on purpose."""
    # Snowflake may list a dropped service for a while.
    services = [row for row in hook.list() if row["status"] != "DELETING"]
    files = [str(name) for name, *_ in hook.get_records("LIST @ML_PAYLOADS")]
    return len(services), sum(name.endswith(("payload.pyz", "mljob_result")) for name in files)


if __name__ == "__main__":
    sys.exit(main())
