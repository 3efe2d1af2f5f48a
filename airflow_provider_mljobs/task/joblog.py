"""Writes a watcher's reports on a job to the log and the XComs of the task that waits for it."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any

from airflow.sdk.log import mask_secret

from airflow_provider_mljobs.gateway import inspection
from airflow_provider_mljobs.gateway.watcher.follower import JobEnvironment, LogOutput, Message, Report, WaitEnded
from airflow_provider_mljobs.jobs.logs.text import blocks, printable
from airflow_provider_mljobs.links import RayDashboardLink, dashboard
from airflow_provider_mljobs.task.masking import Mask, secrets, star
from airflow_provider_mljobs.task.timeout_signals import held_back
from airflow_provider_mljobs.task.xcoms import PROGRESS_XCOM, push_page_xcom

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_mljobs.gateway.client import MLJobClient
    from airflow_provider_mljobs.jobs.names import QualifiedName

# Parts of a job's state that the job itself has written.
_BY_THE_JOB = ("logs", "progress", "metrics", "series", "artifacts", "assets")


class TaskLog:
    """Takes the reports on a job, in the threads of a watcher, where writing blocks no event loop.

    :param keep: saves the job's state, from which the next triggerer continues, should this one die.
    """

    def __init__(
        self,
        log: Any,
        job: QualifiedName,
        end: Callable[[dict[str, Any]], None],
        keep: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._log = log
        self._job = job
        self._end = end
        self._keep = keep
        # Stars the secrets of this job. In the triggerer, other tasks have masks of their own.
        self.mask = Mask()
        # Whether the last state was saved.
        self.is_kept = False
        self._has_warned = False
        # Airflow finds the task of a log record by the context that the record is written in.
        self._context = contextvars.copy_context()

    def __call__(self, report: Report) -> None:
        """Take a report."""
        self._context.copy().run(self._take, report)

    def _take(self, report: Report) -> None:
        match report:
            case Message(text, is_warning=True):
                self._log.warning("%s", printable(self.mask(text)))
            case Message(text):
                self._log.info("%s", printable(self.mask(text)))
            case JobEnvironment(environment):
                self.mask.learn(environment)
            case LogOutput(lines, state):
                write_output(self._log, self._job, lines, self.mask)
                self._try_to_keep(state)
            case WaitEnded(event):
                self._end({**event, "printed": redacted(event["printed"], self.mask)})

    def _try_to_keep(self, state: Mapping[str, Any]) -> None:
        """Save the job's state. A failure doesn't undo the report: its lines are in the log already."""
        if self._keep is None:
            return
        try:
            self._keep(redacted(state, self.mask))
        except Exception as error:  # noqa: BLE001 (of Airflow: the lines are written)
            self.is_kept = False
            if not self._has_warned:
                self._log.warning("Could not save the progress of job %s to XCom: %s", self._job, error)
            self._has_warned = True
        else:
            self.is_kept, self._has_warned = True, False


class Watched:
    """Saves the state of a running job to XCom, for people and for the next triggerer."""

    def __init__(self, ti: Any, job: QualifiedName) -> None:
        self._ti = ti
        self._job = job
        self._dashboard = ""

    def __call__(self, state: Mapping[str, Any]) -> None:
        """Save the state."""
        push_page_xcom(self._ti, PROGRESS_XCOM, {**state, "job_id": str(self._job)})
        address = dashboard(state)
        if address != self._dashboard:
            push_page_xcom(self._ti, RayDashboardLink().xcom_key, address)
            self._dashboard = address


def redacted(state: Mapping[str, Any], mask: Callable[[str], str] = star) -> dict[str, Any]:
    """Return a job's state with secrets masked in the parts that the job has written."""
    return {key: _redacted(value, mask) if key in _BY_THE_JOB else value for key, value in state.items()}


def _redacted(value: Any, mask: Callable[[str], str]) -> Any:
    """Mask secrets in texts. Airflow would also mask the values of keys like ``tokens``, which may be a metric."""
    match value:
        case str():
            return mask(value)
        case dict():
            return {mask(key): _redacted(item, mask) for key, item in value.items()}
        case list():
            return [_redacted(item, mask) for item in value]
    return value


def mask_environment(environment: Mapping[str, str]) -> None:
    """Have Airflow mask the secrets of a job's environment in all log records of this process.

    Only in a task's process, which ends with the task: see :class:`~airflow_provider_mljobs.task.masking.Mask`.
    """
    by_name, others = secrets(environment)
    with held_back():
        mask_secret(by_name)
        mask_secret(others)


def mask_job(client: MLJobClient, job: QualifiedName) -> None:
    """Have Airflow mask the secrets in a job's specification; a job that is gone has none."""
    mask_environment(inspection.environment(client, job))


def mask_of(client: MLJobClient, job: QualifiedName) -> Mask:
    """Return a mask for the secrets in a job's specification."""
    mask = Mask()
    mask.learn(inspection.environment(client, job))
    return mask


def write_output(log: Any, job: QualifiedName, lines: Sequence[str], mask: Callable[[str], str] = star) -> None:
    """Write a job's output, in records of up to 64 KB: a record for each line would cost far more.

    It is masked first, since a secret on the border of two records would be found in neither.
    """
    for block in blocks(mask("\n".join(lines)).split("\n") if lines else ()):
        log.info("Log of job %s:\n%s", job.name, block)
