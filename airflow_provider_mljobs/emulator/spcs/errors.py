"""Errors of job services and compute pools.

No public source names Snowflake's numbers for those marked *chosen*, so clients can't rely on them.
"""

from __future__ import annotations

from airflow_provider_mljobs.emulator.errors import SnowflakeError

_TEMPLATE = 395069
# Chosen.
_JOB_FAILED = 395082
_UNSCHEDULABLE = 395083
_WAIT_FAILED = 395084
_LOGS = 395085
_SYSTEM_POOL = 395087
_QUOTED_NAME = 395088
_NOT_FOR_JOBS = 395089
_BLOCK_VOLUMES = 395090
_RUNTIME = 395091
_POOL_FAMILY = 395092
_SERVICES_LIMIT = 395093
_NO_IMAGE = 395094
_WORKLOAD = 395095


def template_failed(detail: str) -> SnowflakeError:
    """Build the error for a specification template that doesn't render."""
    return SnowflakeError(_TEMPLATE, "23001", f"Unable to render service spec from given template: {detail}")


def job_failed(name: str, status: str, message: str) -> SnowflakeError:
    """Build the error of a synchronous job that didn't end DONE."""
    return SnowflakeError(_JOB_FAILED, "22000", f"Job {name} failed with status: {status}. {message}".strip())


def statement_timeout(seconds: float) -> SnowflakeError:
    """Build the error of a statement that reached STATEMENT_TIMEOUT_IN_SECONDS."""
    text = f"Statement reached its statement or warehouse timeout of {seconds:g} second(s) and was canceled."
    return SnowflakeError(630, "57014", text)


def unschedulable(pool: str, family: str, detail: str) -> SnowflakeError:
    """Build the error for a job that exceeds every node of the pool."""
    text = f"Unschedulable: requested {detail} exceeds the capacity of a {family} node of compute pool '{pool}'."
    return SnowflakeError(_UNSCHEDULABLE, "22023", text)


def wait_failed(name: str, wanted: str, status: str, reason: str) -> SnowflakeError:
    """Build the error of an SPCS_WAIT_FOR whose status was not reached."""
    text = f"Service {name} did not reach status {wanted}: {reason}. Current status: {status}."
    return SnowflakeError(_WAIT_FAILED, "22000", text)


def container_not_started(status: str) -> SnowflakeError:
    """Build the error for logs before a container's start; clients search for ``Container Status: PENDING``."""
    return SnowflakeError(_LOGS, "22000", f"Waiting to start, Container Status: {status}")


def no_such_instance(instance: int, available: str) -> SnowflakeError:
    """Build the error for an instance that a service doesn't have."""
    text = f"Unable to get container status for instance id: {instance}. Available instances: {available}"
    return SnowflakeError(_LOGS, "22000", text)


def no_such_container(container: str, available: str) -> SnowflakeError:
    """Build the error for a container that a service doesn't have."""
    text = f"Container '{container}' does not exist in the service. Available containers: {available}"
    return SnowflakeError(_LOGS, "22000", text)


def system_pool(pool: str) -> SnowflakeError:
    """Build the error for a plain job service on a pool that Snowflake manages."""
    text = f"Compute pool '{pool}' is managed by Snowflake and doesn't run services of workload type USER."
    return SnowflakeError(_SYSTEM_POOL, "0A000", text)


def quoted_name(kind: str, name: str) -> SnowflakeError:
    """Build the error for a name that needs quotes."""
    return SnowflakeError(_QUOTED_NAME, "42601", f"Quoted or case-sensitive name '{name}' is not supported for {kind}.")


def not_for_jobs(operation: str, name: str) -> SnowflakeError:
    """Build the error for an operation of services that jobs don't have."""
    return SnowflakeError(_NOT_FOR_JOBS, "0A000", f"{operation} is not supported for job service '{name}'.")


def has_block_volumes(name: str) -> SnowflakeError:
    """Build the error for the drop of a service with block volumes without FORCE."""
    text = f"Service '{name}' has block storage volumes. Use DROP SERVICE {name} FORCE to drop it with its volumes."
    return SnowflakeError(_BLOCK_VOLUMES, "22000", text)


def no_runtime(detail: str) -> SnowflakeError:
    """Build the error for a runtime of ML jobs that doesn't exist."""
    return SnowflakeError(_RUNTIME, "22023", f"No ML job runtime available: {detail}")


def invalid_pool(detail: str) -> SnowflakeError:
    """Build the error for a compute pool with invalid properties."""
    return SnowflakeError(_POOL_FAMILY, "22023", f"Invalid compute pool: {detail}")


def too_many_services() -> SnowflakeError:
    """Build the error for a job service beyond the account's limit."""
    return SnowflakeError(_SERVICES_LIMIT, "54000", "Number of services limit exceeded for the account")


def image_not_found(image: str) -> SnowflakeError:
    """Build the error for a job whose image Snowflake doesn't publish."""
    return SnowflakeError(_NO_IMAGE, "22023", f"Image {image} not found.")


def disallowed_workload(kind: str) -> SnowflakeError:
    """Build the error for a service of a kind that may not run in the account; the text is believed."""
    return SnowflakeError(_WORKLOAD, "0A000", f"Services of workload type {kind} are not allowed in this account.")
