"""The addresses of the pages."""

import re
from urllib.parse import urlencode

LIST = "plugin/mljobs"
SNOWSIGHT = re.compile(r"^https://app\.snowflake\.com/.*MLJOB_TRAIN_")
CLEAN_UP = f"{LIST}?view=clean-up"


def job(run_id, dag_id="churn", map_index=-1):
    """The path of a job's view."""
    key = {"dag_id": dag_id, "run_id": run_id, "task_id": "train", "map_index": map_index}
    return f"{LIST}?{urlencode(key)}"


def model(dag_id="churn"):
    """The path of a task's view."""
    return f"{LIST}?{urlencode({'view': 'model', 'dag_id': dag_id, 'task_id': 'train'})}"


def task_instance(run_id, dag_id="churn", task_id="train", map_index=-1):
    """The path of Airflow's own page of a task instance."""
    mapped = "" if map_index < 0 else f"/mapped/{map_index}"
    return f"dags/{dag_id}/runs/{run_id}/tasks/{task_id}{mapped}"
