"""What the containers of a job have printed, from the nodes or from the event table."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_mljobs.exceptions import GatewayError, SnowflakeUnavailableError
from airflow_provider_mljobs.gateway import statements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_mljobs.gateway.connection import Connection
    from airflow_provider_mljobs.jobs.identifiers import QualifiedName

logger = logging.getLogger(__name__)

# The platform cuts a log at 100 KB; what comes back this long may have lost its beginning.
_FULL_LOG = 99_000


def read_log(connection: Connection, job: QualifiedName, instance: int, container: str) -> str:
    """Return the log of one container, as much as is to be had; a missing beginning is announced."""
    try:
        (row,) = connection.rows(statements.get_service_logs(job, instance, container))
        tail = str(next(iter(row.values())) or "")
    except SnowflakeUnavailableError:
        raise
    except GatewayError as error:
        # Too early, or the node is gone: the event table may have what the node hasn't.
        logger.debug("No log on the node of %s: %s", job, error)
        return _kept_log(connection, job, instance, container)
    if len(tail.encode()) < _FULL_LOG:
        return tail
    kept = _kept_log(connection, job, instance, container)
    if len(kept) > len(tail) and kept.rstrip().endswith(tail.rstrip().rpartition("\n")[2]):
        return kept
    return f"[the log is longer than the 100 KB that Snowflake keeps on the node; its beginning is cut off]\n{tail}"


def read_logs(connection: Connection, job: QualifiedName, containers: Sequence[tuple[int, str]]) -> str:
    """Return the logs of several containers as one text; each line says whose it is, if there are several.

    :param containers: pairs of instance and container.
    """
    if len(containers) == 1:
        return read_log(connection, job, *containers[0])
    several = len({container for _, container in containers}) > 1
    lines: list[str] = []
    for instance, container in containers:
        label = f"[instance {instance}, {container}] " if several else f"[instance {instance}] "
        lines += [label + line for line in read_log(connection, job, instance, container).splitlines()]
    return "\n".join(lines)


def _kept_log(connection: Connection, job: QualifiedName, instance: int, container: str) -> str:
    try:
        rows = connection.rows(statements.spcs_get_logs(job, instance, container))
    except SnowflakeUnavailableError:
        raise
    except GatewayError as error:
        logger.debug("No log of %s in an event table: %s", job, error)
        return ""
    return "\n".join(str(row["log"]) for row in rows)
