"""Code as users write it, checked by mypy and never run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_provider_mljobs.exceptions import MLJobError, RemoteError
from airflow_provider_mljobs.hooks import MLJobHook
from airflow_provider_mljobs.jobs.names import Identifier, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.outcome.results import JobResult
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.payload.archive import Payload
from airflow_provider_mljobs.jobs.spec.job import JobSpec
from airflow_provider_mljobs.jobs.values.arguments import Arguments
from airflow_provider_mljobs.operators import MLJobOperator


def train(table: str, depth: int = 3) -> dict[str, float]:
    """Stand for a payload."""
    return {table: depth}


MLJobOperator(task_id="file", source="report.py", compute_pool="ML_POOL", stage_name="@ml.payloads")
MLJobOperator(task_id="path", source=Path("report.py"), compute_pool="ML_POOL", stage_name="@ml.payloads")
MLJobOperator(task_id="function", source=train, args=["T"], compute_pool="ML_POOL", stage_name="@ml.payloads")
MLJobOperator(
    task_id="directory",
    source="loan_default/",
    entrypoint="train.py",
    args=["--table", "{{ params.table }}", "--depth", 3],
    compute_pool="ML_POOL",
    stage_name="@ml.payloads",
    env_vars={"MODE": "fast"},
    pip_requirements=["lightgbm==4.*"],
    target_instances=1,
    database="DB",
    schema="ML",
    query_warehouse="WH",
    external_access_integrations=("PYPI",),
    snowflake_conn_id="snowflake_default",
    wait_for_completion=True,
    deferrable=True,
    poll_interval=5,
    on_finish="drop_on_success",
    cancel_on_kill=False,
    retries=2,
)
MLJobOperator(  # type: ignore[call-arg]
    task_id="no_pool", source="report.py", stage_name="@ml.payloads"
)
MLJobOperator(
    task_id="typo",
    source="report.py",
    compute_pool="ML_POOL",
    stage_name="@ml.payloads",
    on_finish="delete",  # type: ignore[arg-type]
)

with MLJobHook("snowflake_default", database="DB", schema="ML", visibility_lag=1.0) as hook:
    job: QualifiedName = hook.job("MLJOB_TRAIN_1A2B3C4D5E6F_0_1")
    directory: StagePath = hook.stage("@payloads/models") / "MLJOB_TRAIN_1A2B3C4D5E6F_0_1"
    payload: Payload = Payload.of_function(train, pip_requirements=["lightgbm"])
    arguments: Arguments = Arguments.of_function(train, ["T"], {"depth": 4})
    spec = JobSpec(name=job, compute_pool=Identifier.parse("ml_pool", "compute_pool"), stage=hook.stage("@payloads"))
    job_id: str = hook.submit(spec, payload, arguments)
    status: JobStatus = hook.status(job)
    over: bool = status.is_terminal
    log: str = hook.logs(job, instance=0)
    try:
        result: JobResult | None = hook.result(job, directory)
    except RemoteError as error:
        where: tuple[str, str, str] = (error.job_id, error.remote_type, error.remote_traceback)
    except MLJobError:
        hook.cancel(job)
    rows: list[dict[str, Any]] = hook.list("MLJOB_TRAIN")
    hook.drop(job)
