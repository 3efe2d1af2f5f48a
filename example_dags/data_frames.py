"""Hand a DataFrame from job to job: it stays on the stage as Parquet, XCom holds a reference to it."""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import dag, task


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1),
    default_args={"compute_pool": "ML_POOL", "stage_name": "@ML_PAYLOADS", "deferrable": True},
    tags=["example", "mljobs"],
)
def data_frames():
    @task.mljob
    def load(rows: int):
        import pandas as pd

        return pd.DataFrame({"id": range(rows), "amount": [number * 1.5 for number in range(rows)]})

    @task.mljob
    def total(frame) -> float:
        # A reference in, a DataFrame here: Snowflake has copied the file from stage to stage.
        return float(frame["amount"].sum())

    @task
    def first_rows(reference) -> list[dict[str, float]]:
        # A plain task opens the reference through the connection.
        from airflow_provider_mljobs.hooks import MLJobHook

        with MLJobHook() as hook:
            return hook.open(reference).head(2).to_dict("records")

    frame = load(100)
    total(frame)
    first_rows(frame)


data_frames()
