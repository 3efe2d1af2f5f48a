"""A hyper-parameter sweep: one ML Job per candidate, and a task that takes the best."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.sdk import dag, task


@dag(schedule=None, start_date=datetime(2026, 1, 1), tags=["example", "mljobs"])
def sweep():
    @task.mljob(
        compute_pool="ML_POOL",
        stage_name="@ML_PAYLOADS",
        deferrable=True,
        map_index_template="depth {{ task.op_kwargs['depth'] }}",
    )
    def score(depth: int, rounds: int) -> dict[str, Any]:
        from sklearn.datasets import load_breast_cancer
        from sklearn.model_selection import cross_val_score
        from xgboost import XGBClassifier

        features, target = load_breast_cancer(return_X_y=True)
        model = XGBClassifier(max_depth=depth, n_estimators=rounds)
        return {"depth": depth, "accuracy": cross_val_score(model, features, target, cv=3).mean()}

    @task
    def best(candidates: list[dict[str, Any]]) -> dict[str, Any]:
        winner = max(candidates, key=lambda candidate: candidate["accuracy"])
        print(f"best of {len(candidates)}: {winner}")
        return winner

    best(score.partial(rounds=20).expand(depth=[2, 3, 4]))


sweep()
