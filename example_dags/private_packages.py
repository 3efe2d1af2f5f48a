"""Install packages from a private feed: its address, with the token in it, is a Snowflake secret."""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import dag, task


@dag(schedule=None, start_date=datetime(2026, 1, 1), tags=["example", "mljobs"])
def private_packages():
    @task.mljob(
        compute_pool="ML_POOL",
        stage_name="@ML_PAYLOADS",
        pip_requirements=["mljobs-example-features==1.0"],
        # pip reads its index from the environment; the secret is a GENERIC_STRING like
        # https://user:token@feed.example.com/simple and reaches neither Airflow nor the specification.
        secrets={"PIP_INDEX_URL": "MLJOBS_DB.PUBLIC.PRIVATE_FEED_URL"},
        external_access_integrations=["PRIVATE_FEED"],
        deferrable=True,
    )
    def features(values: list[float]) -> list[float]:
        import mljobs_example_features

        return mljobs_example_features.scale(values)

    features([1.0, 2.0, 4.0])


private_packages()
