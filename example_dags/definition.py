"""Declare once how a payload runs, and run it many times: one upload for all of these tasks."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.sdk import dag, task

from airflow_provider_mljobs.definitions import MLJobDefinition

TRAIN = MLJobDefinition(
    "tune_model",
    source="tuning/",
    entrypoint="train.py",
    compute_pool="ML_POOL",
    stage_name="@ML_PAYLOADS",
    deferrable=True,
)


@dag(schedule=None, start_date=datetime(2026, 1, 1), tags=["example", "mljobs"])
def definition():
    baseline = TRAIN.task(task_id="baseline", args=["--depth", "2"])
    sweep = TRAIN.partial(task_id="sweep").expand(
        args=[["--depth", "3"], ["--depth", "4", "--rate", "0.05"], ["--depth", "6"]]
    )

    @task
    def best(baseline: dict[str, Any], candidates: list[dict[str, Any]]) -> dict[str, Any]:
        return min([baseline, *candidates], key=lambda candidate: candidate["loss"])

    best(baseline.output, sweep.output)


definition()
