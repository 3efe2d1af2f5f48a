"""A retry policy for tasks that run jobs: transient failures are retried later, permanent ones never."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.sdk import RetryDecision, RetryPolicy

from airflow_provider_mljobs.exceptions import (
    InvalidJobSpecError,
    MLJobFailedError,
    NotFoundOrNotAuthorizedError,
    PayloadError,
    ServicesLimitError,
    SnowflakeUnavailableError,
)
from airflow_provider_mljobs.jobs.outcome.failures import KINDS, Retry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

DEFAULT_DELAY = timedelta(minutes=15)
# Errors without a failed job.
_OTHERS: Mapping[type[Exception], Retry] = {
    InvalidJobSpecError: Retry.NEVER,
    PayloadError: Retry.NEVER,
    NotFoundOrNotAuthorizedError: Retry.NEVER,
    ServicesLimitError: Retry.LATER,
    SnowflakeUnavailableError: Retry.LATER,
}


def mljob_retry_policy(delay: timedelta = DEFAULT_DELAY) -> RetryPolicy:
    """Return a policy for a task's ``retry_policy``, within the task's ``retries``.

    Missing capacity, too many services and failures of the platform are retried after a long delay. Failures that would
    repeat are not retried: an exception of the payload, an exit code, too little memory, an image that can't be pulled,
    a missing grant, a cancelled job. For all others the task's own ``retry_delay`` holds. Example::

        MLJobOperator(task_id="train", retries=3, retry_policy=mljob_retry_policy(), ...)

    :param delay: how long to wait for capacity or the platform.
    :raises ValueError: if the delay isn't positive.
    """
    if delay <= timedelta():
        msg = f"delay must be more than 0 seconds, got {delay!r}"
        raise ValueError(msg)
    return _JobRetryPolicy(delay)


@dataclass(frozen=True)
class _JobRetryPolicy(RetryPolicy):
    """Decides by the class of the failure."""

    delay: timedelta

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002 (Airflow's)
        max_tries: int,  # noqa: ARG002 (Airflow's)
        context: Context | None = None,  # noqa: ARG002 (Airflow's)
    ) -> RetryDecision:
        """Decide whether and when to try again."""
        retry, failure = _retry(exception)
        if retry is Retry.LATER:
            return RetryDecision.retry(self.delay, f"{failure} may be transient; retrying in {self.delay}.")
        if retry is Retry.NEVER:
            return RetryDecision.fail(f"{failure} would fail again; not retrying.")
        return RetryDecision.default()


def _retry(exception: BaseException) -> tuple[Retry, str]:
    name = type(exception).__name__
    if isinstance(exception, MLJobFailedError) and exception.failure is not None:
        return KINDS[exception.failure].retry, f"{name} ({exception.failure})"
    matching = (retry for kind, retry in _OTHERS.items() if isinstance(exception, kind))
    return next(matching, Retry.AS_THE_TASK_SAYS), name
