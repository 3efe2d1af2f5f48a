"""Why a job failed, as data: from what Snowflake says of its containers, and what the launcher has left, to an error.

Pure: who asks Snowflake hands in what it said.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_provider_mljobs.exceptions import (
    MLJobCancelledError,
    MLJobCapacityError,
    MLJobExitCodeError,
    MLJobFailedError,
    MLJobImagePullError,
    MLJobKilledError,
    MLJobLostError,
    MLJobOutOfMemoryError,
    MLJobPlatformError,
    MLJobTimeoutError,
    RemoteError,
)
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.untrusted import read_json, reading
from airflow_provider_mljobs.launcher.contract import STOPPED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import Any

    from airflow_provider_mljobs.jobs.outcome.results import JobResult


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


class Retry(StrEnum):
    """Whether to try again."""

    LATER = "later"
    NEVER = "never"
    AS_THE_TASK_SAYS = "as the task says"


@dataclass(frozen=True)
class Kind:
    """What a class of failures means.

    :param error: what the task fails with.
    :param retry: whether the same job may go well another time.
    :param advice: what to do next.
    """

    error: type[MLJobFailedError]
    retry: Retry
    advice: str


KINDS: Mapping[Failure, Kind] = {
    # Its advice depends on the exception.
    Failure.USER_ERROR: Kind(RemoteError, Retry.NEVER, ""),
    Failure.OUT_OF_MEMORY: Kind(
        MLJobOutOfMemoryError,
        Retry.NEVER,
        "Choose a compute pool of a larger instance family, raise the container's resources.limits.memory if you have "
        "set it, or load less at once.",
    ),
    Failure.EXIT_CODE: Kind(
        MLJobExitCodeError,
        Retry.NEVER,
        "The program's last lines say why. An exit code that is meant can skip the task or end its retries: "
        "skip_on_exit_code, fail_on_exit_code.",
    ),
    Failure.KILLED: Kind(
        MLJobKilledError,
        Retry.AS_THE_TASK_SAYS,
        "137 is most often a lack of memory: choose a larger instance family. 143 is a stop from outside, as in the "
        "weekly maintenance or when a pool shrinks: run it again.",
    ),
    Failure.IMAGE_PULL: Kind(
        MLJobImagePullError,
        Retry.NEVER,
        "Check the image's name and tag (runtime_environment, or image in the spec), and grant the role READ on its "
        "image repository.",
    ),
    Failure.CAPACITY: Kind(
        MLJobCapacityError,
        Retry.LATER,
        "Raise the compute pool's MAX_NODES, start fewer jobs at once, or allow a longer queue_timeout: an ML job "
        "takes a whole node, and a suspended pool some minutes to start.",
    ),
    Failure.PLATFORM: Kind(
        MLJobPlatformError,
        Retry.LATER,
        "Run it again later. If that doesn't help, Snowflake's support needs the job's name and the time.",
    ),
    Failure.CANCELLED: Kind(
        MLJobCancelledError,
        Retry.NEVER,
        "Ask who ended it, in Airflow, in Snowsight or by STOP ALL on the compute pool: the query history tells.",
    ),
    Failure.LOST: Kind(
        MLJobLostError,
        Retry.AS_THE_TASK_SAYS,
        "Look in the query history for who dropped it, or said STOP ALL on the compute pool; then run it again.",
    ),
    Failure.TIMEOUT: Kind(
        MLJobTimeoutError,
        Retry.AS_THE_TASK_SAYS,
        "Allow more time (timeout counts from the job's start, execution_timeout from the task's), or use a larger "
        "instance family.",
    ),
    Failure.UNKNOWN: Kind(
        MLJobFailedError,
        Retry.AS_THE_TASK_SAYS,
        "The container's message and the job's log say more; run it with on_finish='keep' to look around.",
    ),
}

# What Snowflake says of containers ("monitoring services"), in any case. Other messages say no more than the exit code.
_WORDS: Mapping[str, Failure] = {
    "oomkilled": Failure.OUT_OF_MEMORY,
    "failed to pull image": Failure.IMAGE_PULL,
    "image name uses an invalid format": Failure.IMAGE_PULL,
    "unschedulable due to insufficient resources": Failure.CAPACITY,
    "node(s) are being provisioned": Failure.CAPACITY,
    "node was lost": Failure.PLATFORM,
    "maintenance": Failure.PLATFORM,
}
_STATUSES: Mapping[JobStatus, Failure] = {
    JobStatus.CANCELLED: Failure.CANCELLED,
    JobStatus.DELETED: Failure.LOST,
    JobStatus.INTERNAL_ERROR: Failure.PLATFORM,
}
# Whatever has happened in a job before, that is its end.
ENDED_FROM_OUTSIDE = {JobStatus.CANCELLED, JobStatus.DELETED}
_SIGNALS = {137, STOPPED}
# By the name of the exception's class, wherever it is from.
_NO_NETWORK = "The job reaches only what external_access_integrations allow: pass one for the host."
_USER_ERRORS: Mapping[str, str] = {
    "ModuleNotFoundError": "Name the package in pip_requirements, or pass the module with imports.",
    "ImportError": "Name the package, with a version that fits, in pip_requirements.",
    "FileNotFoundError": "Relative paths start at the source's directory in the job; other files come by a stage path "
    "in volumes, or as an argument.",
    "PermissionError": "Write to the working directory, /tmp or $MLRS_STAGE_RESULT_PATH; for a stage in volumes grant "
    "the role WRITE.",
    "SnowparkSQLException": "The job's session has the role of the connection: grant it what the statement needs.",
    "ProgrammingError": "The job's session has the role of the connection: grant it what the statement needs.",
    "MemoryError": "Choose a compute pool of a larger instance family, or load less at once.",
    "OutOfMemoryError": "Choose a compute pool of a larger instance family, or load less at once.",
    "ConnectionError": _NO_NETWORK,
    "ConnectTimeout": _NO_NETWORK,
    "ConnectTimeoutError": _NO_NETWORK,
    "ConnectError": _NO_NETWORK,
    "gaierror": _NO_NETWORK,
    "URLError": _NO_NETWORK,
}


@dataclass(frozen=True, kw_only=True)
class ContainerEnd:
    """What Snowflake says of a container.

    :param instance: the number of the instance that it belongs to.
    :param name: its name in the specification.
    :param status: PENDING, READY, DONE, FAILED, TERMINATING or UNKNOWN.
    :param message: why.
    :param exit_code: ``None`` if it didn't end by itself.
    """

    instance: int
    name: str
    status: str
    message: str = ""
    exit_code: int | None = None

    def __str__(self) -> str:
        code = f" (exit code {self.exit_code})" if self.exit_code is not None else ""
        return f"Instance {self.instance}, container {self.name}: {self.message or self.status}{code}."

    @property
    def is_failed(self) -> bool:
        """Whether a job can have failed by it: not if it waits, works, or ended well."""
        return self.status in {"FAILED", "UNKNOWN"} or self.exit_code not in {None, 0}


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Why a job failed, and by which of its containers.

    :param advice: what to do next.
    """

    failure: Failure
    exit_code: int | None = None
    container_message: str = ""
    instance: int | None = None
    advice: str = ""

    def put_into(self, error: MLJobFailedError) -> MLJobFailedError:
        """Let an error tell of the failure."""
        error.failure = self.failure
        error.exit_code = self.exit_code
        error.container_message = self.container_message
        error.instance = self.instance
        error.advice = self.advice or KINDS[self.failure].advice
        return error


def diagnose(
    status: JobStatus,
    containers: Iterable[ContainerEnd] = (),
    result: JobResult | None = None,
    stopped: Collection[int] = (),
) -> Diagnosis:
    """Say why a job failed.

    Somebody's cancel or drop ends any job. Else what Snowflake says outright of a container goes before what the
    payload saw of it, since a head whose worker ran out of memory fails with an exception of its own.

    Example: ``diagnose(JobStatus.FAILED, [ContainerEnd(instance=0, name="main", status="FAILED", exit_code=3)])``

    :param status: the job's last status.
    :param containers: its containers.
    :param result: what the launcher has left.
    :param stopped: the instances that were stopped because another one had failed.
    """
    if status in ENDED_FROM_OUTSIDE:
        return Diagnosis(failure=_STATUSES[status])
    failed = sorted((each for each in containers if each.is_failed), key=lambda each: _innocence(each, stopped))
    culprit = failed[0] if failed else None
    outright = failure_of(culprit.message) if culprit is not None else None
    if outright is None and result is not None and not result.success:
        return _user_error(result, failed)
    if culprit is None:
        return Diagnosis(failure=_STATUSES.get(status, Failure.UNKNOWN))
    failure = outright or _STATUSES.get(status) or _failure_by_code(culprit.exit_code)
    return Diagnosis(
        failure=failure,
        # With what containers end when the platform fails says nothing of them.
        exit_code=None if failure is Failure.PLATFORM else culprit.exit_code,
        container_message=culprit.message,
        instance=culprit.instance,
    )


def past_containers(statuses: str | None) -> list[ContainerEnd]:
    """Return the containers of a job that the job history tells of.

    :param statuses: its INSTANCE_STATUSES, a JSON object; ``None`` if it has none.
    :raises UnreadableError: if these aren't in the shape that Snowflake documents.
    """
    if statuses is None:
        return []
    what = f"INSTANCE_STATUSES {statuses!r:.500}"
    document = read_json(statuses, what)
    with reading(what):
        return [
            _past_container(instance, container)
            for instance in document["instances"]
            for container in instance["containers"]
        ]


def _past_container(instance: Mapping[str, Any], container: Mapping[str, Any]) -> ContainerEnd:
    code = container.get("lastExitCode")
    return ContainerEnd(
        instance=int(instance["instanceId"]),
        name=str(container["containerName"]),
        status=str(container["status"]),
        message=str(container.get("message") or ""),
        exit_code=None if code in {None, ""} else int(code),
    )


def diagnose_wait(reason: str) -> Diagnosis:
    """Say why a job did not begin.

    :param reason: what its containers say.
    """
    return Diagnosis(failure=failure_of(reason) or Failure.CAPACITY, container_message=reason)


def failure_of(message: str) -> Failure | None:
    """Return the failure that a container's message names; ``None`` if it names none."""
    return next((failure for words, failure in _WORDS.items() if words in message.lower()), None)


def _failure_by_code(code: int | None) -> Failure:
    if not code:
        return Failure.UNKNOWN
    return Failure.KILLED if code in _SIGNALS else Failure.EXIT_CODE


def _innocence(container: ContainerEnd, stopped: Collection[int]) -> tuple[bool, bool, bool, bool, bool, int]:
    """Order containers: first those that a job fails by, last those that were stopped because of them."""
    code = container.exit_code
    return (
        failure_of(container.message) is None,
        container.instance in stopped,
        not code,
        code in _SIGNALS,
        code == STOPPED,
        container.instance,
    )


def _user_error(result: JobResult, failed: Iterable[ContainerEnd]) -> Diagnosis:
    instance = result.instance or 0
    container = next((each for each in failed if each.instance == instance), None)
    ended_with = container.exit_code if container is not None else None
    return Diagnosis(
        failure=Failure.USER_ERROR,
        exit_code=ended_with if result.exit_code is None else result.exit_code,
        container_message=container.message if container is not None else "",
        instance=instance,
        advice=_USER_ERRORS.get(result.remote_type.rpartition(".")[2], ""),
    )
