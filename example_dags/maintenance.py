"""Drop orphaned jobs and remove their files once a week."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import dag, task


@dag(
    schedule="@weekly",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    params={"days": 7, "dry_run": False},
    tags=["example", "mljobs"],
)
def maintenance():
    @task
    def collect(params: dict[str, Any] | None = None) -> str:
        from airflow_provider_mljobs.hooks import MLJobHook

        # Needs [mljobs] deployment: only jobs of this Airflow's tasks are dropped.
        with MLJobHook() as hook:
            collection = hook.collect(
                timedelta(days=params["days"]), stages=["@ML_PAYLOADS"], dry_run=params["dry_run"]
            )
        for item in collection.items:
            print(item)
        if collection.errors:
            raise RuntimeError(collection.summary)
        return collection.summary

    collect()


maintenance()
