"""All errors of the provider.

::

    MLJobError
    ├─ InvalidJobSpecError (ValueError)      an invalid argument, before the job is submitted
    ├─ PayloadError                          unreadable source, missing entrypoint, unserialisable argument
    ├─ GatewayError                          Snowflake refused a statement; errno, sqlstate, query_id
    │  ├─ JobAlreadyExistsError              the name is taken
    │  ├─ LoginRefusedError                  wrong credentials, or a network policy
    │  ├─ NoWarehouseError                   a query needs a warehouse, and the session has none
    │  ├─ NotFoundOrNotAuthorizedError (LookupError)
    │  │  └─ JobNotFoundError
    │  ├─ ServicesLimitError                 the account has reached its limit of services
    │  └─ SnowflakeUnavailableError          transient: a wait survives it
    ├─ MLJobFailedError                      didn't end DONE; failure, exit code, container, advice, last lines
    │  ├─ MLJobCancelledError                cancelled, by a user or by the provider
    │  ├─ MLJobCapacityError                 the compute pool had no node for it
    │  ├─ MLJobExitCodeError                 a container ended with an exit code, without a result
    │  │  └─ MLJobKilledError                … with the exit code of a signal
    │  ├─ MLJobImagePullError                an image that can't be pulled
    │  ├─ MLJobLostError                     dropped, or never created
    │  ├─ MLJobOutOfMemoryError              killed for using too much memory
    │  ├─ MLJobPlatformError                 Snowflake failed: internal error, lost node, maintenance
    │  ├─ MLJobTimeoutError (TimeoutError)   didn't end in time
    │  │  └─ MLJobQueueTimeoutError          didn't start in time; failure has the reason
    │  └─ RemoteError                        the payload raised: type, message, remote traceback
    ├─ ResultError                           the job is DONE, but its result can't be read
    │  └─ MissingFileError                   a file isn't on the stage, perhaps not yet
    └─ UnreadableError (ValueError)          text from outside is malformed, too large, too deep or of another shape
"""

from __future__ import annotations

from enum import StrEnum


class Failure(StrEnum):
    """The classes of failures."""

    USER_ERROR = "user error"
    OUT_OF_MEMORY = "out of memory"
    EXIT_CODE = "exit code"
    KILLED = "killed"
    IMAGE_PULL = "image pull"
    CAPACITY = "capacity"
    PLATFORM = "platform"
    CANCELLED = "cancelled"
    LOST = "lost"
    TIMEOUT = "timeout"
    UNKNOWN = "unknown"


class MLJobError(Exception):
    """Root of the tree: catch this to catch all errors of the provider."""


class InvalidJobSpecError(MLJobError, ValueError):
    """Raised for arguments that can't make a job, before it is submitted."""


class PayloadError(MLJobError):
    """Raised when the code or the arguments of a job can't be packed."""


class GatewayError(MLJobError):
    """Raised when Snowflake refuses a statement.

    :param message: the refusal, and advice.
    :param errno: Snowflake's error number, if it has one.
    :param sqlstate: the SQLSTATE, if it has one.
    :param query_id: the id of the refused statement, if it has one.
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
        fields = [("errno", self.errno), ("sqlstate", self.sqlstate), ("query id", self.query_id)]
        details = ", ".join(f"{label} {value}" for label, value in fields if value is not None)
        return f"{self.message} [{details}]" if details else self.message


class JobAlreadyExistsError(GatewayError):
    """Raised when a job of that name exists, running or finished."""


class LoginRefusedError(GatewayError):
    """Raised when Snowflake refuses the login; the message has its reason."""


class NoWarehouseError(GatewayError):
    """Raised when a query needs a warehouse and the session has none: name one in the connection."""


class NotFoundOrNotAuthorizedError(GatewayError, LookupError):
    """Raised when an object doesn't exist or the role may not use it: Snowflake doesn't distinguish the two."""


class JobNotFoundError(NotFoundOrNotAuthorizedError):
    """Raised when a job doesn't exist, or no longer."""


class ServicesLimitError(GatewayError):
    """Raised when the account has reached its limit of services; finished jobs count until they are dropped."""


class SnowflakeUnavailableError(GatewayError):
    """Raised when Snowflake can't be reached or can't answer now; a retry may help."""


class MLJobFailedError(MLJobError):
    """Raised when a job didn't end DONE; a subclass has the cause where it is clear.

    :param message: the failure, and where to look.
    :param job_id: the fully qualified name of the job.
    :param status: its last status.
    :param log_tail: the last lines of its log.
    :ivar failure: the class of the failure; of a queue timeout, the reason why the job didn't start.
    :ivar exit_code: the exit code of the container that failed; ``None`` if it is unknown.
    :ivar container_message: Snowflake's message about that container.
    :ivar instance: the instance of that container.
    :ivar advice: the next step.
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
    """Raised when a container of a job ended with an exit code other than 0, and without a result."""


class MLJobKilledError(MLJobExitCodeError):
    """Raised when a container was killed (137) or stopped (143) for an unknown reason."""


class MLJobImagePullError(MLJobFailedError):
    """Raised when a job failed because an image can't be pulled."""


class MLJobLostError(MLJobFailedError):
    """Raised when a job was dropped, or never created."""


class MLJobOutOfMemoryError(MLJobFailedError):
    """Raised when a container was killed because it used more memory than its limit."""


class MLJobPlatformError(MLJobFailedError):
    """Raised when Snowflake failed, not the job."""


class MLJobTimeoutError(MLJobFailedError, TimeoutError):
    """Raised when a job did not end in time; it has been cancelled."""


class MLJobQueueTimeoutError(MLJobTimeoutError):
    """Raised when a job was still PENDING after its ``queue_timeout``; it has been cancelled.

    Also raised when the account's limit of services prevents the submit. ``failure`` is ``capacity``, or
    ``image pull`` if the job waited for its image.
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
