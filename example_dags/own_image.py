"""Run your own service specification in your own image."""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import dag

from airflow_provider_mljobs.operators import MLJobOperator


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1),
    params={"table": "LOAN_APPLICATIONS", "rows": 10},
    tags=["example", "mljobs"],
)
def own_image():
    MLJobOperator(task_id="score", spec="specs/own_image.yaml", compute_pool="ML_POOL", deferrable=True)


own_image()
