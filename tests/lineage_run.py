"""Runs a DAG in an Airflow that tells OpenLineage of it; `tests/task/notify/test_lineage.py` reads what it has told."""

import json
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

from airflow.sdk import DAG, Asset

from airflow_provider_mljobs.operators import MLJobOperator
from tests.lab import POOL, STAGE, Airflow

SETTINGS = {"compute_pool": POOL, "stage_name": STAGE, "poll_interval": 0.05}
MODEL = Asset(name="model", uri="snowflake://acc/DB/SCHEMA/MODEL")


def train():
    """Save a model, tell of it, and return the run that is this one's parent."""
    import os
    from pathlib import Path

    from airflow_provider_mljobs import report

    model = Path(os.environ["MLRS_STAGE_RESULT_PATH"], "model.bin")
    model.write_bytes(b"m")
    report.artifact(model)
    # The first can't be an asset, and must not cost the others.
    for uri in ("http://[", "snowflake://acc", "s3://features/daily/2026"):
        report.asset(uri)
    report.asset("snowflake://acc/DB/SCHEMA/TABLE")
    return os.environ["OPENLINEAGE_PARENT_ID"]


def frame():
    """Return what stays on the stage."""
    import pandas as pd

    return pd.DataFrame({"a": [1]})


def fail():
    """Raise."""
    raise ValueError("no such table")


if __name__ == "__main__":
    with DAG("lineage", schedule=None, start_date=datetime(2026, 1, 1)) as dag:
        MLJobOperator(task_id="train", source=train, deferrable=True, outlets=[MODEL], **SETTINGS)
        MLJobOperator(task_id="frame", source=frame, **SETTINGS)
        MLJobOperator(task_id="fail", source=fail, **SETTINGS)
        MLJobOperator(task_id="leave", source=frame, wait_for_completion=False, **SETTINGS)
        MLJobOperator(task_id="refused", source=frame, **{**SETTINGS, "compute_pool": "NO_POOL"})
    run = Airflow(SimpleNamespace(connection_kwargs=json.loads(sys.argv[1]))).run(dag)
    facts = {task_id: {key: run.xcom(task_id, key) for key in ("mljob", "return_value")} for task_id in run.tasks}
    Path(sys.argv[2]).write_text(json.dumps(facts))
