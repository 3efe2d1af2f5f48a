"""Train a loan-default model on a table; save model and metrics beside the job's result."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import xgboost
from features import FEATURES, TARGET, training_rows
from sklearn.metrics import roc_auc_score
from snowflake.snowpark import Session

from airflow_provider_mljobs import report

parser = argparse.ArgumentParser()
parser.add_argument("--table", required=True)
parser.add_argument("--rounds", type=int, default=100)
arguments = parser.parse_args()

# Inside a job this is the job's own session; nothing has to be configured.
session = Session.builder.getOrCreate()
frame = training_rows(session.table(arguments.table)).to_pandas()
print(f"training on {len(frame)} rows of {arguments.table}")


class Report(xgboost.callback.TrainingCallback):
    """Reports each boosting round."""

    def after_iteration(self, model, epoch, evals_log):  # noqa: ARG002 (as XGBoost calls it)
        """Report the finished round, and continue."""
        done = epoch + 1
        report.progress(done / arguments.rounds, f"round {done}/{arguments.rounds}")
        report.metrics(step=done, train_auc=evals_log["validation_0"]["auc"][-1])
        return False


model = xgboost.XGBClassifier(
    n_estimators=arguments.rounds, max_depth=4, learning_rate=0.1, eval_metric="auc", callbacks=[Report()]
)
model.fit(frame[FEATURES], frame[TARGET], eval_set=[(frame[FEATURES], frame[TARGET])], verbose=False)
metrics = {"train_auc": roc_auc_score(frame[TARGET], model.predict_proba(frame[FEATURES])[:, 1]), "rows": len(frame)}
print(f"metrics: {metrics}")

# Files saved here stay on the stage: XCom "stage_path" names the place.
output = Path(os.environ["MLRS_STAGE_RESULT_PATH"])
model.save_model(output / "model.json")
report.artifact(output / "model.json")
(output / "metrics.json").write_text(json.dumps(metrics))

# The global of this name is the task's return value.
__return__ = metrics
