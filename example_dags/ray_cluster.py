"""Spread work over the instances of one job: the first runs the function, the others are a Ray cluster for it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.sdk import dag, task


@dag(schedule=None, start_date=datetime(2026, 1, 1), tags=["example", "mljobs"])
def ray_cluster():
    @task.mljob(compute_pool="ML_POOL", stage_name="@ML_PAYLOADS", target_instances=3, min_instances=2, deferrable=True)
    def search(candidates: list[float]) -> dict[str, Any]:
        import ray

        @ray.remote(scheduling_strategy="SPREAD")
        def score(candidate: float) -> float:
            return (candidate - 0.3) ** 2

        ray.init()
        scores = ray.get([score.remote(candidate) for candidate in candidates])
        best = min(range(len(candidates)), key=scores.__getitem__)
        return {"best": candidates[best], "instances": sum(node["Alive"] for node in ray.nodes())}

    search([number / 20 for number in range(20)])


ray_cluster()
