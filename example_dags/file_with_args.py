"""A script as an ML Job: arguments, environment, and a value for the next task."""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import dag

from airflow_provider_mljobs.operators import MLJobOperator


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1),
    params={"name": "week 47"},
    tags=["example", "mljobs"],
)
def file_with_args():
    MLJobOperator(
        task_id="report",
        source="scripts/report.py",
        args=["--title", "Report for {{ params.name }}", "--lines", "3"],
        env_vars={"GREETING": "Hello from $(anywhere), nothing is expanded"},
        compute_pool="ML_POOL",
        stage_name="@ML_PAYLOADS",
        deferrable=True,
    )


file_with_args()
