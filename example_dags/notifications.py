"""Notify the team in charge of a failed job, by the class of its failure.

A message has the failure, the team and the next step. It is posted as JSON to the address in the Airflow variable
``mljobs_webhook`` (e.g. of Slack or Teams), or logged if the variable is not set.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

from airflow.sdk import BaseNotifier, dag, task

from airflow_provider_mljobs.exceptions import MLJobFailedError
from airflow_provider_mljobs.types import Failure

if TYPE_CHECKING:
    from airflow.sdk import Context

# The team for each failure; the authors of the DAG handle all others.
ON_CALL = {
    Failure.CAPACITY: "platform team",
    Failure.IMAGE_PULL: "platform team",
    Failure.PLATFORM: "platform team",
    Failure.CANCELLED: "nobody, the job was cancelled",
}


class JobFailureNotifier(BaseNotifier):
    """An ``on_failure_callback`` that reports why a job failed.

    :param webhook: the address for the message; empty for the log. (templated)
    """

    template_fields = ("webhook",)

    def __init__(self, webhook: str = "{{ var.value.get('mljobs_webhook', '') }}") -> None:
        super().__init__()
        self.webhook = webhook

    def notify(self, context: Context) -> None:
        """Send the message. Airflow calls this after the last try, and on_retry_callback after the others."""
        message = describe(context)
        if not self.webhook:
            self.log.error("%s", message["text"])
            return
        body = json.dumps(message).encode()
        request = Request(self.webhook, body, {"Content-Type": "application/json"})  # noqa: S310 (an admin's variable)
        with urlopen(request, timeout=10):  # noqa: S310 (as above)
            pass


def describe(context: Context) -> dict[str, Any]:
    """Return the message."""
    # Without an exception Airflow itself failed the task, e.g. because its worker was lost.
    ti, error = context["ti"], context.get("exception")
    # A task that fail_on_exit_code has failed has the job's error as its cause.
    job_error = error if isinstance(error, MLJobFailedError) else getattr(error, "__cause__", None)
    if not isinstance(job_error, MLJobFailedError):
        # Not a failure of the job: invalid arguments, missing grants, or Snowflake or Airflow unreachable.
        why = f": {error}" if error else " without an exception: its worker or triggerer may be lost."
        return {"text": f"{ti.dag_id}.{ti.task_id} failed{why}", "failure": None, "run_id": ti.run_id}
    failure = job_error.failure or Failure.UNKNOWN
    advice = f" Next step: {job_error.advice}" if job_error.advice else ""
    team = ON_CALL.get(failure, "the authors of the DAG")
    return {
        "text": f"{ti.dag_id}.{ti.task_id} failed ({failure}): {job_error.message}{advice} In charge: {team}.",
        "failure": failure,
        "job_id": job_error.job_id,
        "run_id": ti.run_id,
        "log": ti.log_url,
    }


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1),
    params={"rows": 3},
    default_args={"on_failure_callback": JobFailureNotifier()},
    render_template_as_native_obj=True,
    tags=["example", "mljobs"],
)
def notifications():
    @task.mljob(compute_pool="ML_POOL", stage_name="@ML_PAYLOADS", deferrable=True)
    def train(rows: int) -> float:
        """Fail without rows."""
        if not rows:
            raise ValueError("There are no rows this week.")
        return 1 / rows

    train("{{ params.rows }}")


notifications()
