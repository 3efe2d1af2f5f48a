"""What a watcher tells of a job, in the log of the task that waits for it."""

from __future__ import annotations

import contextvars
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow.sdk.log import mask_secret

from airflow_provider_mljobs.alarms import held_back
from airflow_provider_mljobs.exceptions import NotFoundOrNotAuthorizedError
from airflow_provider_mljobs.gateway.following import Ended, Note, Output, Secrets
from airflow_provider_mljobs.jobs.logs import blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_mljobs.gateway.client import MLJobClient
    from airflow_provider_mljobs.gateway.following import Report
    from airflow_provider_mljobs.jobs.identifiers import QualifiedName

# XCom of a task: how far a triggerer has watched its job, for the next one.
WATCHED = "mljob_watched"
# Words and numbers that no secret is made of.
_EVERYDAY = re.compile(
    r"true|false|yes|no|on|off|none|null|auto|default|[-+]?[0-9.]{0,7}(e[-+]?[0-9]+)?", re.IGNORECASE
)


class TaskLog:
    """Takes the reports on a job, in the threads of a watcher: what they write there blocks no event loop.

    :param log: the task's log.
    :param job: the job.
    :param end: takes the event that ends the wait.
    :param keep: takes what the next triggerer has to know, should this one die.
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
        # Airflow tells the tasks of a triggerer apart by the context that a record is written in.
        self._context = contextvars.copy_context()

    def __call__(self, report: Report) -> None:
        """Take a report."""
        self._context.copy().run(self._take, report)

    def _take(self, report: Report) -> None:
        match report:
            case Note(text, is_warning=True):
                self._log.warning("%s", text)
            case Note(text):
                self._log.info("%s", text)
            case Secrets(environment):
                mask_environment(environment)
            case Output(lines, state):
                write_output(self._log, self._job, lines)
                if self._keep is not None:
                    self._keep(state)
            case Ended(event):
                self._end(event)


def mask_environment(environment: Mapping[str, str]) -> None:
    """Have Airflow mask the values of variables that are secret by their names, in all that this process logs.

    ``MAX_TOKENS`` is secret by its name, too. What it may hold would be masked in everybody's words.
    """
    with held_back():
        mask_secret({name: value for name, value in environment.items() if not _EVERYDAY.fullmatch(value)})


def mask_job(client: MLJobClient, job: QualifiedName) -> None:
    """Have masked what is secret in a job's environment, as its specification has it; a job that is gone has none."""
    with suppress(NotFoundOrNotAuthorizedError):
        mask_environment(client.layout(job).environment)


def write_output(log: Any, job: QualifiedName, lines: Sequence[str]) -> None:
    """Write what a job has printed: a record for each 64 KB, since a record for each line would cost far more."""
    for block in blocks(lines):
        log.info("Log of job %s:\n%s", job.name, block)
