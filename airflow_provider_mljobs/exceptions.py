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
    │  └─ SnowflakeUnavailableError          transient: a watch survives these
    ├─ MLJobFailedError                      ran, did not end DONE; status, last log lines
    │  ├─ MLJobCancelledError
    │  ├─ MLJobTimeoutError (TimeoutError)   did not end in time
    │  │  └─ MLJobQueueTimeoutError          did not begin in time
    │  └─ RemoteError                        the payload raised: type, message, remote traceback
    └─ ResultError                           DONE, but its result can't be read
"""

from __future__ import annotations


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


class SnowflakeUnavailableError(GatewayError):
    """Raised when Snowflake can't be reached or can't answer now; asking again may help."""


class MLJobFailedError(MLJobError):
    """Raised when a job ended otherwise than DONE.

    :param message: what happened and where to look.
    :param job_id: the fully qualified name of the job.
    :param status: its last status.
    :param log_tail: the last lines that it printed.
    """

    def __init__(self, message: str, job_id: str, status: str, log_tail: str = "") -> None:
        super().__init__(message, job_id, status, log_tail)
        self.message = message
        self.job_id = job_id
        self.status = status
        self.log_tail = log_tail

    def __str__(self) -> str:
        return f"{self.message}\n--- last log lines ---\n{self.log_tail}" if self.log_tail else self.message


class MLJobCancelledError(MLJobFailedError):
    """Raised when a job was cancelled."""


class MLJobTimeoutError(MLJobFailedError, TimeoutError):
    """Raised when a job did not end in time; it has been cancelled."""


class MLJobQueueTimeoutError(MLJobTimeoutError):
    """Raised when a job was still PENDING after its ``queue_timeout``; it has been cancelled."""


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
