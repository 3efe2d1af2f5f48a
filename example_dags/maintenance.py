"""Once a week, drop the jobs and remove the files that accidents have left behind."""

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
            found = hook.collect(timedelta(days=params["days"]), stages=["@ML_PAYLOADS"], dry_run=params["dry_run"])
        for item in found.items:
            print(item)
        if found.errors:
            raise RuntimeError(found.summary)
        return found.summary

    collect()


maintenance()
