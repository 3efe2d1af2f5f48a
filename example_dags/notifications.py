"""Tell those who can do something about it that a job has failed: by the class of its failure.

Each message says what has happened, whose turn it is and what to do next. It is posted as JSON to the address in the
Airflow variable ``mljobs_webhook`` (Slack, Teams and most pagers take one), and stands in the task's log where there is
no such variable.
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

# Whose turn it is; all else is for whoever wrote the code.
ON_CALL = {
    Failure.CAPACITY: "platform team",
    Failure.IMAGE_PULL: "platform team",
    Failure.PLATFORM: "platform team",
    Failure.CANCELLED: "nobody: somebody has cancelled it",
}


class TellOfJob(BaseNotifier):
    """An ``on_failure_callback`` that knows why a job has failed.

    :param webhook: where to post; the log if it is empty. (templated)
    """

    template_fields = ("webhook",)

    def __init__(self, webhook: str = "{{ var.value.get('mljobs_webhook', '') }}") -> None:
        super().__init__()
        self.webhook = webhook

    def notify(self, context: Context) -> None:
        """Tell of the failure; Airflow calls this after the last try, and on_retry_callback after the others."""
        message = describe(context)
        if not self.webhook:
            self.log.error("%s", message["text"])
            return
        body = json.dumps(message).encode()
        request = Request(self.webhook, body, {"Content-Type": "application/json"})  # noqa: S310 (an admin's variable)
        with urlopen(request, timeout=10):  # noqa: S310 (as above)
            pass


def describe(context: Context) -> dict[str, Any]:
    """Say what has failed, and whose turn it is."""
    # There is no exception where a worker was lost, and Airflow itself calls.
    ti, error = context["ti"], context.get("exception")
    # A task that fail_on_exit_code has failed has the job's error as its cause.
    job_error = error if isinstance(error, MLJobFailedError) else getattr(error, "__cause__", None)
    if not isinstance(job_error, MLJobFailedError):
        # Its job is not to blame: wrong arguments, missing rights, Snowflake or Airflow out of reach.
        why = f": {error}" if error else ", and Airflow doesn't say why: its worker or triggerer may be lost."
        return {"text": f"{ti.dag_id}.{ti.task_id} has failed{why}", "failure": None, "run_id": ti.run_id}
    failure = job_error.failure or Failure.UNKNOWN
    advice = f" What to do: {job_error.advice}" if job_error.advice else ""
    turn = ON_CALL.get(failure, "whoever wrote the code")
    return {
        "text": f"{ti.dag_id}.{ti.task_id} has failed, {failure}: {job_error.message}{advice} Whose turn: {turn}.",
        "failure": failure,
        "job_id": job_error.job_id,
        "run_id": ti.run_id,
        "log": ti.log_url,
    }


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1),
    params={"rows": 3},
    default_args={"on_failure_callback": TellOfJob()},
    render_template_as_native_obj=True,
    tags=["example", "mljobs"],
)
def notifications():
    @task.mljob(compute_pool="ML_POOL", stage_name="@ML_PAYLOADS", deferrable=True)
    def train(rows: int) -> float:
        """Fail where there is nothing to learn from."""
        if not rows:
            raise ValueError("There are no rows this week.")
        return 1 / rows

    train("{{ params.rows }}")


notifications()
