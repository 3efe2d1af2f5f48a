"""DAGs to look at: each kind of task that the pages have to show."""

import os

from airflow.sdk import DAG, task

from airflow_provider_mljobs.operators import MLJobOperator

OPTIONS = {
    "source": "job.py",
    "args": [os.environ["JOBS_PORT"], "{{ run_id }}", "{{ ti.map_index }}"],
    "compute_pool": "ML_POOL",
    "stage_name": "@ML_PAYLOADS",
    "deferrable": True,
    "poll_interval": 1,
    "log_interval": 1,
}

with DAG("churn", schedule=None, description="Learns weekly who is about to leave."):
    MLJobOperator(task_id="train", **OPTIONS)

with DAG("regions", schedule=None):
    MLJobOperator.partial(task_id="train", map_index_template="{{ task.env_vars['REGION'] }}", **OPTIONS).expand(
        env_vars=[{"REGION": region} for region in ("emea", "apac", "americas")]
    )

with DAG("cluster", schedule=None):
    MLJobOperator(task_id="train", target_instances=2, parallel=True, **OPTIONS)

with DAG("plain", schedule=None):

    @task
    def greet():
        """Do nothing that is a job."""
        return "hello"

    greet()
