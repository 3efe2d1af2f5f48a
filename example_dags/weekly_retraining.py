"""Retrain a loan-default model every week, and promote it if it is good enough.

prepare a table → train XGBoost on it → evaluate the model → promote it, or keep the one in use. The first three run
inside Snowflake as ML Jobs; see setup.sql for the pool and the stage that they need.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.sdk import Asset, dag, task

from airflow_provider_mljobs.operators import MLJobOperator

MODEL = Asset("loan_default_model")


@dag(
    schedule="@weekly",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    params={"table": "LOAN_APPLICATIONS", "rows": 100_000, "min_auc": 0.7},
    default_args={"compute_pool": "ML_POOL", "stage_name": "@ML_PAYLOADS", "deferrable": True},
    render_template_as_native_obj=True,
    tags=["example", "mljobs"],
)
def weekly_retraining():
    @task.mljob
    def prepare(table: str, rows: int, session) -> str:
        """Write this week's applications; in real life they are there already."""
        import numpy as np
        import pandas as pd

        random = np.random.default_rng(seed=7)
        income = random.lognormal(10.8, 0.5, rows)
        amount = random.lognormal(9.5, 0.7, rows)
        score = random.normal(650, 80, rows).clip(300, 850)
        risk = -1.5 + 1.2 * np.log(amount / income + 0.1) - 0.012 * (score - 650) + random.normal(0, 0.8, rows)
        frame = pd.DataFrame(
            {
                "APPLICATION_ID": np.arange(rows),
                "ANNUAL_INCOME": income.round(2),
                "LOAN_AMOUNT": amount.round(2),
                "CREDIT_SCORE": score.round().astype("int64"),
                "AGE": random.integers(18, 80, rows),
                "DEFAULTED": (random.random(rows) < 1 / (1 + np.exp(-risk))).astype("int64"),
            }
        )
        session.create_dataframe(frame).write.save_as_table(table, mode="overwrite")
        print(f"{rows} applications in {table}, {frame.DEFAULTED.mean():.1%} of them defaulted")
        return table

    table = prepare("{{ params.table }}", "{{ params.rows }}")

    train = MLJobOperator(
        task_id="train",
        source="loan_default/",
        entrypoint="train.py",
        args=["--table", table, "--rounds", "60"],
    )

    @task.mljob
    def evaluate(model_directory: str, table: str, session) -> dict[str, Any]:
        """Score the applications that the training has not seen."""
        import xgboost
        from sklearn.metrics import log_loss, roc_auc_score

        from airflow_provider_mljobs import report

        session.file.get(f"{model_directory}/model.json", ".")
        model = xgboost.XGBClassifier()
        model.load_model("model.json")
        held_out = session.table(table).filter("MOD(APPLICATION_ID, 5) = 0").to_pandas()
        predicted = model.predict_proba(held_out[model.get_booster().feature_names])[:, 1]
        metrics = {
            "auc": roc_auc_score(held_out.DEFAULTED, predicted),
            "log_loss": log_loss(held_out.DEFAULTED, predicted),
            "rows": len(held_out),
        }
        # Airflow's page of the task shows them week by week.
        report.metrics(**metrics)
        return metrics

    metrics = evaluate(train.output["stage_path"], table)

    @task.branch
    def good_enough(metrics: dict[str, Any], params: dict[str, Any]) -> str:
        return "promote" if metrics["auc"] >= params["min_auc"] else "keep_current"

    @task(outlets=[MODEL])
    def promote(model_directory: str, metrics: dict[str, Any], *, outlet_events) -> None:
        """Copy the model to its serving stage; the asset event has its metrics."""
        from airflow_provider_mljobs.hooks import MLJobHook

        MLJobHook().run(f"COPY FILES INTO @ML_PAYLOADS/models/current/ FROM {model_directory}/ FILES = ('model.json')")
        outlet_events[MODEL].extra = metrics

    @task
    def keep_current(metrics: dict[str, Any]) -> None:
        print(f"Not promoted: {metrics}")

    good_enough(metrics) >> [promote(train.output["stage_path"], metrics), keep_current(metrics)]


weekly_retraining()
