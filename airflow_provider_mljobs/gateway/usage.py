"""CPU, memory and GPU usage of a job's containers, as series for charts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import (
    GatewayError,
    NotFoundOrNotAuthorizedError,
    SnowflakeUnavailableError,
    UnreadableError,
)
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.gateway.log_store import begin_after, event_table
from airflow_provider_mljobs.jobs.spec.description import Description

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from airflow_provider_mljobs.gateway.client import MLJobClient
    from airflow_provider_mljobs.gateway.connection import Connection
    from airflow_provider_mljobs.jobs.names import QualifiedName

_CORES, _BYTES, _RATIO = "cores", "bytes", "ratio"
# Accounts use different names for the same units.
UNITS = {
    "container.cpu.usage": _CORES,
    "container.cpu.limit": _CORES,
    "container.memory.usage": _BYTES,
    "container.memory.limit": _BYTES,
    "container.gpu.utilization": _RATIO,
    "container.gpu.memory.usage": _BYTES,
    "container.gpu.memory.capacity": _BYTES,
}
_GROUP = "system"
MAX_POINTS = 300
MAX_ROWS = 20_000


@dataclass(frozen=True)
class Series:
    """A metric of one container.

    :param metric: its name; for several GPUs the mean, for memory that of the fullest one.
    :param points: pairs of seconds since the epoch and the value up to then: the peak for memory, the mean otherwise.
    """

    metric: str
    unit: str
    instance: int
    container: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Usage:
    """The measured usage of a job's containers, and the reason why series are missing, empty if none are."""

    job: QualifiedName
    series: tuple[Series, ...] = ()
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the usage as JSON."""
        return {"job_id": str(self.job), "usage": [asdict(series) for series in self.series], "reason": self.reason}


def read_usage(
    client: MLJobClient, job: QualifiedName, since: datetime | None = None, *, max_rows: int = MAX_ROWS
) -> Usage:
    """Read the usage of a job's containers from Snowflake's function, or else from the event table.

    :param since: the time of the job's submit, which saves Snowflake reading.
    :raises SnowflakeUnavailableError: if a repetition may help.
    """
    try:
        rows = _rows(client.connection, job, begin_after(since), max_rows)
    except SnowflakeUnavailableError:
        raise
    except GatewayError as error:
        return Usage(job, reason=f"Snowflake refuses to show the usage of job {job}: {error}")
    if rows is None:
        return Usage(job, reason="The account has no event table, so Snowflake keeps no metrics of jobs.")
    if not rows:
        return Usage(job, reason=_reason(client, job))
    if len(rows) < max_rows:
        return Usage(job, _series(rows))
    # The last series may be cut.
    *whole, cut = _series(rows)
    return Usage(job, tuple(whole), f"There is too much to show; series are missing from instance {cut.instance} on.")


def _reason(client: MLJobClient, job: QualifiedName) -> str:
    """Explain why Snowflake has no metrics of a job."""
    try:
        description = Description.parse(client.describe(job).get("spec"))
    except (NotFoundOrNotAuthorizedError, UnreadableError):
        description = None
    if description is not None and _GROUP not in description.metric_groups:
        return (
            f"Snowflake doesn't measure job {job}: it was started with enable_metrics = False, or its "
            f"specification has no group {_GROUP!r} in platformMonitor.metricConfig.groups."
        )
    return (
        f"Snowflake has no metrics of job {job} yet. It measures about every 30 seconds, and the event table gets "
        "the values some minutes later. A job of less than a minute may have none."
    )


def _rows(connection: Connection, job: QualifiedName, begin: str, most: int) -> list[dict[str, Any]] | None:
    """Return rows by series and time; ``None`` if there is no event table."""
    # Refused if not enabled (2143), if the job is dropped, or if the role may not.
    rows, refusal = connection.rows_or_refusal(
        statements.spcs_get_metrics(job, UNITS, start=begin, points=MAX_POINTS, most=most)
    )
    if not refusal:
        return rows
    table = event_table(connection.rows(statements.show_event_table()))
    if table is None:
        return None
    return connection.rows(statements.event_table_metrics(table, job, UNITS, start=begin, points=MAX_POINTS, most=most))


def _series(rows: list[dict[str, Any]]) -> tuple[Series, ...]:
    groups = groupby(rows, lambda row: (row["instance"], row["container"], row["metric"]))
    return tuple(
        Series(metric, UNITS[metric], int(instance), str(container), tuple(_points(UNITS[metric], rows_of_one)))
        for (instance, container, metric), rows_of_one in groups
    )


def _points(unit: str, rows: Iterable[dict[str, Any]]) -> Iterator[tuple[float, float]]:
    # Memory shows its peak, because a container above its limit is killed.
    column = "peak" if unit == _BYTES else "mean"
    for row in rows:
        if row[column] is not None:
            yield float(row["seconds"]), float(row[column])
