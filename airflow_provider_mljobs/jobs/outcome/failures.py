"""The diagnosis of a failed job, from the states of its containers and the launcher's result."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_provider_mljobs.exceptions import (
    Failure,
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
from airflow_provider_mljobs.jobs.outcome.status import NO_ROOM, JobStatus
from airflow_provider_mljobs.jobs.spec.description import volume_of_sidecar
from airflow_provider_mljobs.jobs.untrusted import read_json, reading
from airflow_provider_mljobs.launcher.contract import STOPPED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from airflow_provider_mljobs.jobs.outcome.results import JobResult


class Retry(StrEnum):
    """The rule for retries."""

    LATER = "later"
    NEVER = "never"
    AS_THE_TASK_SAYS = "as the task says"


@dataclass(frozen=True)
class Kind:
    """The consequences of a failure: its error, the rule for retries, and the next step for the user."""

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
        "See the program's last lines. For an intended exit code, skip_on_exit_code skips the task, and "
        "fail_on_exit_code ends its retries.",
    ),
    Failure.KILLED: Kind(
        MLJobKilledError,
        Retry.AS_THE_TASK_SAYS,
        "Exit code 137 is most often a lack of memory: choose a larger instance family. 143 is a stop from outside, as "
        "in the weekly maintenance or when a pool shrinks: run the task again.",
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
        "Run the task again later. If it fails again, give Snowflake's support the job's name and the time.",
    ),
    Failure.CANCELLED: Kind(
        MLJobCancelledError,
        Retry.NEVER,
        "Look in the query history for the user who cancelled it in Airflow or Snowsight, or by STOP ALL on its pool.",
    ),
    Failure.LOST: Kind(
        MLJobLostError,
        Retry.AS_THE_TASK_SAYS,
        "Look in the query history for the DROP, or for STOP ALL on the compute pool; then run the task again.",
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
        "See the container's message and the job's log; run it with on_finish='keep' to inspect it afterwards.",
    ),
}

# Patterns of containers' messages ("monitoring services"), in any case. Other messages add nothing to the exit code.
_WORDS: Mapping[str, Failure] = {
    r"oomkilled": Failure.OUT_OF_MEMORY,
    r"failed to pull image": Failure.IMAGE_PULL,
    r"image name uses an invalid format": Failure.IMAGE_PULL,
    NO_ROOM: Failure.CAPACITY,
    r"node\(s\) are being provisioned": Failure.CAPACITY,
    r"node was lost": Failure.PLATFORM,
    r"maintenance": Failure.PLATFORM,
}
_STATUSES: Mapping[JobStatus, Failure] = {
    JobStatus.CANCELLED: Failure.CANCELLED,
    JobStatus.DELETED: Failure.LOST,
    JobStatus.INTERNAL_ERROR: Failure.PLATFORM,
}
# These statuses decide, no matter which containers failed before.
ENDED_FROM_OUTSIDE = {JobStatus.CANCELLED, JobStatus.DELETED}
_SIGNALS = {137, STOPPED}
_OF_ITS_RESOURCES = {Failure.OUT_OF_MEMORY, Failure.KILLED, Failure.EXIT_CODE, Failure.UNKNOWN}
_SIDECAR = (
    "Snowflake mounts volume {volume!r} with a container of its own, and that one failed. Give it more memory and CPU: "
    "set stageConfig.resources of the volume (limits.memory, limits.cpu), in volumes or in the specification."
)
# By the name of the exception's class, from any module.
_NO_NETWORK = "A job reaches only hosts that its external_access_integrations allow: pass one for the host."
_NO_PRIVILEGE = "The job's session has the role of the connection: grant it the privileges that the statement needs."
_NO_MEMORY = "Choose a compute pool of a larger instance family, or load less at once."
_USER_ERRORS: Mapping[str, str] = {
    "ModuleNotFoundError": "Add the package to pip_requirements, or pass the module in imports.",
    "ImportError": "Add the package to pip_requirements, in a version that fits.",
    "FileNotFoundError": "Relative paths start at the source's directory in the job. Pass other files as an argument, "
    "or mount their stage with volumes.",
    "PermissionError": "Write to the working directory, /tmp or $MLRS_STAGE_RESULT_PATH; for a stage in volumes grant "
    "the role WRITE.",
    "SnowparkSQLException": _NO_PRIVILEGE,
    "ProgrammingError": _NO_PRIVILEGE,
    "MemoryError": _NO_MEMORY,
    "OutOfMemoryError": _NO_MEMORY,
    "ConnectionError": _NO_NETWORK,
    "ConnectTimeout": _NO_NETWORK,
    "ConnectTimeoutError": _NO_NETWORK,
    "ConnectError": _NO_NETWORK,
    "gaierror": _NO_NETWORK,
    "URLError": _NO_NETWORK,
}
# Words of an exception's message that say more than its class, in any case.
_USER_MESSAGES: Mapping[str, str] = {
    "attempted relative import": "A file that is started has no package: import by the full name from the source's "
    'directory, or start it as a module of its package, e.g. entrypoint=["python", "-m", "package.train"].',
    "cannot import name": "The module was found without this name: its version differs, or two modules import each "
    "other.",
    "does not exist or not authorized": "Check the name, with its database and schema. If the object exists, grant the "
    "role of the connection the privilege: the job's session has that role.",
    "sql compilation error": "Correct the statement.",
}
# Signals that end a process from within; a shell and Snowflake add 128.
_CRASHES: Mapping[int, str] = {132: "SIGILL", 134: "SIGABRT", 135: "SIGBUS", 136: "SIGFPE", 139: "SIGSEGV"}
_CRASH = (
    "Exit code {code} is {signal}: native code crashed, such as a compiled package that doesn't fit another one or the "
    "node. With PYTHONFAULTHANDLER=1 in env_vars the log has the line of Python that called it."
)


@dataclass(frozen=True, kw_only=True)
class ContainerEnd:
    """The state of a container in Snowflake.

    :param status: PENDING, READY, DONE, FAILED, TERMINATING or UNKNOWN.
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
    def volume(self) -> str:
        """The stage volume that it mounts, if it is a container of Snowflake's; else empty."""
        return volume_of_sidecar(self.name)

    @property
    def is_failed(self) -> bool:
        """Whether it can be the reason of a failure: not if it is waiting, running, or succeeded."""
        return self.status in {"FAILED", "UNKNOWN"} or self.exit_code not in {None, 0}


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The reason of a job's failure, and its container.

    :param advice: the next step for the user; by default that of the failure.
    """

    failure: Failure
    exit_code: int | None = None
    container_message: str = ""
    instance: int | None = None
    advice: str = ""

    @property
    def may_be_maintenance(self) -> bool:
        """Whether Snowflake may have stopped the job to replace its node."""
        is_stop = self.failure is Failure.KILLED and self.exit_code == STOPPED
        return is_stop or self.failure in {Failure.CANCELLED, Failure.PLATFORM}

    def put_into(self, error: MLJobFailedError) -> MLJobFailedError:
        """Add the diagnosis to an error."""
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
    """Return why a job failed.

    A cancel or a drop decides. Then comes a container's message with a known reason, then the payload's exception: a
    head whose worker ran out of memory fails with another exception.

    :param stopped: the instances that were stopped because another failed.
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
        # When the platform fails, the exit codes of containers are arbitrary.
        exit_code=None if failure is Failure.PLATFORM else culprit.exit_code,
        container_message=culprit.message,
        instance=culprit.instance,
        advice=_advice_about(culprit, failure),
    )


def described(containers: Iterable[ContainerEnd]) -> str:
    """Describe how containers ended; Snowflake's own only if they may be the reason of a failure."""
    ends = list(containers)
    are_own_fine = not any(each.is_failed for each in ends if not each.volume)

    def says_something(end: ContainerEnd) -> bool:
        return not end.volume or (end.is_failed and (are_own_fine or failure_of(end.message) is not None))

    return " ".join(str(end) for end in ends if says_something(end))


def past_containers(statuses: str | None) -> list[ContainerEnd]:
    """Return the containers of a job in the job history.

    :param statuses: its INSTANCE_STATUSES, a JSON object; ``None`` if it has none.
    """
    if statuses is None:
        return []
    subject = f"INSTANCE_STATUSES {statuses!r:.500}"
    document = read_json(statuses, subject)
    with reading(subject):
        return [
            ContainerEnd(
                instance=int(instance["instanceId"]),
                name=str(container["containerName"]),
                status=str(container["status"]),
                message=str(container.get("message") or ""),
                exit_code=None if container.get("lastExitCode") in {None, ""} else int(container["lastExitCode"]),
            )
            for instance in document["instances"]
            for container in instance["containers"]
        ]


def diagnose_wait(reason: str) -> Diagnosis:
    """Return why a job did not start."""
    return Diagnosis(failure=failure_of(reason) or Failure.CAPACITY, container_message=reason)


def failure_of(message: str) -> Failure | None:
    """Return the failure in a container's message; ``None`` if it has none."""
    return next((failure for words, failure in _WORDS.items() if re.search(words, message, re.IGNORECASE)), None)


def _advice_about(culprit: ContainerEnd, failure: Failure) -> str:
    """Return what to do about a container that failed; empty if its failure says it."""
    if culprit.volume and failure in _OF_ITS_RESOURCES:
        return _SIDECAR.format(volume=culprit.volume)
    crash = _CRASHES.get(culprit.exit_code or 0) if failure is Failure.EXIT_CODE else None
    return _CRASH.format(code=culprit.exit_code, signal=crash) if crash else ""


def _failure_by_code(code: int | None) -> Failure:
    if not code:
        return Failure.UNKNOWN
    return Failure.KILLED if code in _SIGNALS else Failure.EXIT_CODE


def _innocence(container: ContainerEnd, stopped: Collection[int]) -> tuple[bool, bool, bool, bool, bool, bool, int]:
    """Order containers: the likely reason of the failure first, those that were stopped because of it last.

    A stage volume's container ends with the job's own, so that it is the reason only if it says so, or if it is alone.
    """
    code = container.exit_code
    return (
        failure_of(container.message) is None,
        bool(container.volume),
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
    message = result.message.lower()
    by_message = next((advice for words, advice in _USER_MESSAGES.items() if words in message), None)
    return Diagnosis(
        failure=Failure.USER_ERROR,
        exit_code=ended_with if result.exit_code is None else result.exit_code,
        container_message=container.message if container is not None else "",
        instance=instance,
        advice=by_message or _USER_ERRORS.get(result.remote_type.rpartition(".")[2], ""),
    )
