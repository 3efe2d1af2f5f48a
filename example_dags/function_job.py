"""A function as an ML Job: its return value goes to the next task."""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import dag, task


@dag(schedule=None, start_date=datetime(2026, 1, 1), tags=["example", "mljobs"])
def function_job():
    @task.mljob(compute_pool="ML_POOL", stage_name="@ML_PAYLOADS", deferrable=True)
    def describe(numbers: list[float], session) -> dict[str, float]:
        """Runs inside Snowflake; the job passes its Snowpark session."""
        import statistics

        print(f"running as {session.get_current_user()}")
        return {"mean": statistics.mean(numbers), "stdev": statistics.stdev(numbers)}

    @task
    def report(summary: dict[str, float]) -> None:
        print(f"mean {summary['mean']:.2f}, standard deviation {summary['stdev']:.2f}")

    report(describe([3.0, 5.0, 8.0, 13.0]))


function_job()
