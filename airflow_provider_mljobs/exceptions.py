"""All errors of the provider.

::

    MLJobError
    ├─ InvalidJobSpecError (ValueError)      before anything is sent
    ├─ PayloadError                          unreadable source, missing entrypoint, unserialisable argument
    ├─ GatewayError                          Snowflake said no; errno, sqlstate, query_id
    │  ├─ JobAlreadyExistsError              the name is taken
    │  ├─ LoginRefusedError                  wrong credentials, or nobody may log in from here
    │  ├─ NotFoundOrNotAuthorizedError (LookupError)
    │  │  └─ JobNotFoundError
    │  ├─ ServicesLimitError                 so many services as the account may have are there already
    │  └─ SnowflakeUnavailableError          transient: a watch survives these
    ├─ MLJobFailedError                      ran, did not end DONE; failure, exit code, container, advice, last lines
    │  ├─ MLJobCancelledError                somebody cancelled it
    │  ├─ MLJobCapacityError                 no node for it
    │  ├─ MLJobExitCodeError                 a container ended with an exit code, and left no result
    │  │  └─ MLJobKilledError                … with that of a signal
    │  ├─ MLJobImagePullError                an image that can't be pulled
    │  ├─ MLJobLostError                     dropped, or never there
    │  ├─ MLJobOutOfMemoryError              killed for the memory that it used
    │  ├─ MLJobPlatformError                 Snowflake failed: internal error, lost node, maintenance
    │  ├─ MLJobTimeoutError (TimeoutError)   did not end in time
    │  │  └─ MLJobQueueTimeoutError          did not begin in time; failure says why
    │  └─ RemoteError                        the payload raised: type, message, remote traceback
    ├─ ResultError                           DONE, but its result can't be read
    │  └─ MissingFileError                   a file of it is not on the stage, perhaps not yet
    └─ UnreadableError (ValueError)          text from outside: malformed, too large, too deep or of another shape
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_mljobs.jobs.outcome.failures import Failure


class MLJobError(Exception):
    """Root of the tree: catch this to catch all errors of the provider."""


class InvalidJobSpecError(MLJobError, ValueError):
    """Raised when what the task asks for can't be a job, before anything is sent."""


class PayloadError(MLJobError):
    """Raised when the code or the arguments of a job can't be packed."""


class GatewayError(MLJobError):
    """Raised when Snowflake refuses a statement.

    :param message: what was refused and what to do next.
    :param errno: Snowflake's error number, if there is one.
    :param sqlstate: the SQLSTATE, if there is one.
    :param query_id: the id of the refused statement, if there is one.
    """

    def __init__(
        self, message: str, errno: int | None = None, sqlstate: str | None = None, query_id: str | None = None
    ) -> None:
        super().__init__(message, errno, sqlstate, query_id)
        self.message = message
        self.errno = errno
        self.sqlstate = sqlstate
        self.query_id = query_id

    def __str__(self) -> str:
        known = [("errno", self.errno), ("sqlstate", self.sqlstate), ("query id", self.query_id)]
        details = ", ".join(f"{label} {value}" for label, value in known if value is not None)
        return f"{self.message} [{details}]" if details else self.message


class JobAlreadyExistsError(GatewayError):
    """Raised when a job of that name exists, running or finished."""


class LoginRefusedError(GatewayError):
    """Raised when Snowflake doesn't let the connection's user in; the message has its reason."""


class NotFoundOrNotAuthorizedError(GatewayError, LookupError):
    """Raised when an object isn't there or the role may not use it: Snowflake doesn't tell which."""


class JobNotFoundError(NotFoundOrNotAuthorizedError):
    """Raised when a job isn't there any more, or never was."""


class ServicesLimitError(GatewayError):
    """Raised when the account has as many services as it may have; finished jobs count until they are dropped."""


class SnowflakeUnavailableError(GatewayError):
    """Raised when Snowflake can't be reached or can't answer now; asking again may help."""


class MLJobFailedError(MLJobError):
    """Raised when a job ended otherwise than DONE, and it isn't known to be one of the subclasses.

    :param message: what happened and where to look.
    :param job_id: the fully qualified name of the job.
    :param status: its last status.
    :param log_tail: the last lines that it printed.
    :ivar failure: the class of the failure; of a timeout in the queue, why the job didn't begin.
    :ivar exit_code: what the container that the job failed by ended with; ``None`` if that isn't known.
    :ivar container_message: what Snowflake says of that container.
    :ivar instance: the instance that it belongs to.
    :ivar advice: what to do next.
    """

    failure: Failure | None = None
    exit_code: int | None = None
    container_message: str = ""
    instance: int | None = None
    advice: str = ""

    def __init__(self, message: str, job_id: str, status: str, log_tail: str = "") -> None:
        super().__init__(message, job_id, status, log_tail)
        self.message = message
        self.job_id = job_id
        self.status = status
        self.log_tail = log_tail

    def __str__(self) -> str:
        advice = f"\nWhat to do: {self.advice}" if self.advice else ""
        tail = f"\n--- last log lines ---\n{self.log_tail}" if self.log_tail else ""
        return f"{self.message}{advice}{tail}"


class MLJobCancelledError(MLJobFailedError):
    """Raised when a job was cancelled."""


class MLJobCapacityError(MLJobFailedError):
    """Raised when a job failed because its compute pool had no node for it."""


class MLJobExitCodeError(MLJobFailedError):
    """Raised when a container of a job ended with an exit code other than 0, and left no result that says why."""


class MLJobKilledError(MLJobExitCodeError):
    """Raised when a container was killed (137) or stopped (143) by something that nobody names."""


class MLJobImagePullError(MLJobFailedError):
    """Raised when a job failed because an image can't be pulled."""


class MLJobLostError(MLJobFailedError):
    """Raised when a job is gone: somebody has dropped it, or it never was there."""


class MLJobOutOfMemoryError(MLJobFailedError):
    """Raised when a container was killed because it used more memory than it may."""


class MLJobPlatformError(MLJobFailedError):
    """Raised when Snowflake failed, not the job."""


class MLJobTimeoutError(MLJobFailedError, TimeoutError):
    """Raised when a job did not end in time; it has been cancelled."""


class MLJobQueueTimeoutError(MLJobTimeoutError):
    """Raised when a job was still PENDING after its ``queue_timeout``; it has been cancelled.

    Or it could not even be submitted, because the account has as many services as it may have. ``failure`` is
    ``capacity``, or ``image pull`` if that is what it waited for.
    """


class RemoteError(MLJobFailedError):
    """Raised when the payload itself raised inside the job.

    :param message: type and message of the remote exception.
    :param remote_type: the qualified name of the exception's class in the job, e.g. ``builtins.ValueError``.
    :param remote_traceback: the formatted traceback from the payload's first frame on.
    """

    def __init__(
        self,
        message: str,
        job_id: str,
        status: str,
        log_tail: str = "",
        remote_type: str = "",
        remote_traceback: str = "",
    ) -> None:
        super().__init__(message, job_id, status, log_tail)
        self.args = (message, job_id, status, log_tail, remote_type, remote_traceback)
        self.remote_type = remote_type
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        if not self.remote_traceback:
            return super().__str__()
        return f"{super().__str__()}\n--- remote traceback ---\n{self.remote_traceback}"


class ResultError(MLJobError):
    """Raised when a job is DONE but its result is missing, too new to read, or damaged."""


class MissingFileError(ResultError):
    """Raised when a file of a job is not on its stage, perhaps not yet."""


class UnreadableError(MLJobError, ValueError):
    """Raised when text that others wrote, e.g. a COMMENT, is malformed, too large, too deep or of another shape."""
