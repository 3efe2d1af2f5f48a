"""Run code from a git repository: the job clones it, with a Snowflake secret where it is private."""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import dag, task

from airflow_provider_mljobs.operators import MLJobOperator
from airflow_provider_mljobs.types import GitSource


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1),
    params={"repository": "https://github.com/example/models.git", "ref": "main"},
    tags=["example", "mljobs"],
)
def git_source():
    train = MLJobOperator(
        task_id="train",
        source=GitSource(
            url="{{ params.repository }}",
            ref="{{ params.ref }}",
            path="training",
            secret="MLJOBS_DB.PUBLIC.GIT_TOKEN",  # noqa: S106 (the name of a Snowflake secret)
        ),
        entrypoint="train.py",
        args=["--rounds", "3"],
        compute_pool="ML_POOL",
        stage_name="@ML_PAYLOADS",
        external_access_integrations=["GIT_HOST"],
        deferrable=True,
    )

    @task
    def record(commit: str, metrics: dict[str, float]) -> str:
        return f"{commit[:7]} reached {metrics['auc']}"

    record(train.output["git_commit"], train.output)


git_source()
