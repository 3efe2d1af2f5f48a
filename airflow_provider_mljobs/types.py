"""Types that DAG files use beside the operators: sources, references and kinds of failures."""

from airflow_provider_mljobs.exceptions import Failure
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.payload.git import GitSource
from airflow_provider_mljobs.jobs.values.references import StageRef

__all__ = ["Failure", "GitSource", "JobStatus", "StageRef"]
