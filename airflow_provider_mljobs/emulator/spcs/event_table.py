"""The event table of the account: logs, events and metrics of jobs, and the functions that read them."""

from __future__ import annotations

import json
import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.access.needs import of
from airflow_provider_mljobs.emulator.errors import does_not_exist
from airflow_provider_mljobs.emulator.identity import LOCATOR
from airflow_provider_mljobs.emulator.moments import to_nanoseconds, window, without_zone
from airflow_provider_mljobs.emulator.parsing import QualifiedName
from airflow_provider_mljobs.emulator.registry import Extension, TableFunction
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.settings import EVENT_TABLE, EVENT_VIEW
from airflow_provider_mljobs.emulator.spcs.job_functions import virtual_line, virtual_lines
from airflow_provider_mljobs.emulator.spcs.platform_events import Event, events_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_provider_mljobs.emulator.containers.joblog import LogLine
    from airflow_provider_mljobs.emulator.registry import Context, TableHandler
    from airflow_provider_mljobs.emulator.spcs.jobs import Job
    from airflow_provider_mljobs.emulator.spcs.metrics import Measurement, Metrics
    from airflow_provider_mljobs.emulator.spcs.service import Services

_LOG_COLUMNS = (
    Column("TIMESTAMP", "timestamp_ntz"),
    Column("INSTANCE_ID", "fixed"),
    Column("CONTAINER_NAME"),
    Column("LOG"),
    Column("RECORD_ATTRIBUTES", "object"),
)
_EVENT_COLUMNS = (
    Column("TIMESTAMP", "timestamp_ntz"),
    Column("SEVERITY"),
    Column("EVENT_NAME"),
    Column("EVENT_DETAILS", "object"),
    Column("INSTANCE_ID", "fixed"),
    Column("CONTAINER_NAME"),
    Column("RECORD", "object"),
    Column("RECORD_ATTRIBUTES", "object"),
)
_EVENT_TABLE_COLUMNS = (
    Column("TIMESTAMP", "timestamp_ntz"),
    Column("START_TIMESTAMP", "timestamp_ntz"),
    Column("OBSERVED_TIMESTAMP", "timestamp_ntz"),
    Column("TRACE", "object"),
    Column("RESOURCE", "object"),
    Column("RESOURCE_ATTRIBUTES", "object"),
    Column("SCOPE", "object"),
    Column("SCOPE_ATTRIBUTES", "object"),
    Column("RECORD_TYPE"),
    Column("RECORD", "object"),
    Column("RECORD_ATTRIBUTES", "object"),
    Column("VALUE", "variant"),
    Column("EXEMPLARS", "array"),
)
_METRIC_COLUMNS = (
    Column("TIMESTAMP", "timestamp_ntz"),
    Column("METRIC_NAME"),
    Column("VALUE"),
    Column("UNIT"),
    Column("INSTANCE_ID", "fixed"),
    Column("CONTAINER_NAME"),
    Column("RESOURCE"),
    Column("RECORD", "object"),
    Column("RECORD_ATTRIBUTES", "object"),
)
_PLATFORM = json.dumps({"name": "snow.spcs.platform"})
_ATTRIBUTES = {stream: json.dumps({"log.iostream": stream}) for stream in ("stdout", "stderr")}


class EventTable:
    """The event table of the account.

    :param services: the job services of the account.
    :param metrics: their metrics.
    :param lag: seconds until rows arrive.
    :param event_level: which platform events are recorded: OFF, ERROR or INFO.
    """

    def __init__(self, services: Services, metrics: Metrics, lag: float, event_level: str) -> None:
        self._services = services
        self._metrics = metrics
        self._lag = lag
        self._event_level = event_level

    @property
    def extension(self) -> Extension:
        """The table functions, and the table itself."""

        def of_service(name: str, handler: TableHandler, columns: tuple[Column, ...]) -> TableFunction:
            window = "[START_TIME => <time>] [, END_TIME => <time>]"
            syntax = f"TABLE(<service>!{name}({window}))"
            return TableFunction(name, handler, columns, syntax, of_service=True, needs=of("SERVICE", "MONITOR"))

        return Extension(
            table_functions=(
                of_service("SPCS_GET_LOGS", self.log_rows, _LOG_COLUMNS),
                of_service("SPCS_GET_EVENTS", self.event_rows, _EVENT_COLUMNS),
                of_service("SPCS_GET_METRICS", self.metric_rows, _METRIC_COLUMNS),
                *(
                    TableFunction(
                        name, self.rows, _EVENT_TABLE_COLUMNS, f"FROM {name}", view=True, needs=of(kind, "SELECT")
                    )
                    for kind, name in (("EVENT TABLE", EVENT_TABLE), ("VIEW", EVENT_VIEW))
                ),
            )
        )

    def _window(self, named: Mapping[str, Any]) -> tuple[int, int]:
        """Return the window of a function, up to the rows that have arrived."""
        begin, end = window(time.time(), named, ("START_TIME", "END_TIME"), 1)
        return begin, min(end, to_nanoseconds(time.time() - self._lag)) if self._lag else end

    def log_rows(
        self, context: Context, name: QualifiedName | None, _: Sequence[Any], named: Mapping[str, Any]
    ) -> Result:
        """Answer ``SPCS_GET_LOGS``."""
        begin, end = self._window(named)
        rows = [
            (without_zone(line.at), instance, container, line.line, _ATTRIBUTES[line.stream])
            for line, instance, container in self._recorded(self._past_job(context, name), begin, end)
        ]
        return Result(_LOG_COLUMNS, rows, statement="select")

    def _recorded(self, job: Job, begin: int, end: int) -> list[tuple[LogLine, int, str]]:
        """Return the recorded lines of a job, each with instance and container."""
        level = job.request.specification.log_level
        streams = {"INFO": {"stdout", "stderr"}, "ERROR": {"stderr"}}.get(level, set())
        recorded = [
            (line, instance, container.name)
            for instance in range(job.request.instance_count)
            for container in job.request.specification.containers
            for line in self._lines(job, instance, container.name, begin)
            if line.stream in streams and line.at <= end
        ]
        return sorted(recorded, key=lambda row: row[0].at)

    def _lines(self, job: Job, instance: int, container: str, since: int) -> Iterator[LogLine]:
        """Yield the lines that a container printed since a time."""
        if job.virtual is None:
            yield from self._services.files.log(job.request.id, instance, container).records(since)
            return
        numbers = virtual_lines(job)
        for number in numbers[bisect_left(numbers, since, key=job.line_logged_on) :]:
            yield virtual_line(job, number)

    def rows(self, *_: Any) -> Result:
        """Return the event table: of the records of a real one, the logs, metrics and events of jobs."""
        end = self._window({})[1]
        rows = [row for job in self._services.past() for row in self._rows_of(job, end)]
        return Result(_EVENT_TABLE_COLUMNS, rows, statement="select")

    def _rows_of(self, job: Job, end: int) -> Iterator[tuple[Any, ...]]:
        service = {
            "snow.account.name": LOCATOR,
            "snow.database.name": job.name.database,
            "snow.schema.name": job.name.schema,
            "snow.service.name": job.name.name,
            "snow.service.type": "Job",
            "snow.compute_pool.name": job.request.pool,
            "snow.query.id": job.request.query_id,
        }

        def row(  # noqa: PLR0913, PLR0917 (so many columns differ)
            at: int,
            instance: int | None,
            container: str | None,
            kind: str,
            record: str | None,
            attributes: str | None,
            value: str,
        ) -> tuple[Any, ...]:
            place = {} if container is None else {"snow.service.container.name": container}
            place |= {} if instance is None else {"snow.service.container.instance": str(instance)}
            scope = _PLATFORM if kind == "EVENT" else None
            when, resource = without_zone(at), json.dumps(service | place)
            return (when, None, when, None, None, resource, scope, None, kind, record, attributes, value, None)

        for line, instance, container in self._recorded(job, 0, end):
            yield row(line.at, instance, container, "LOG", None, _ATTRIBUTES[line.stream], json.dumps(line.line))
        for measured in self._metrics.of(job, 0, end):
            record, attributes = _metric_record(measured), _metric_attributes(measured)
            value = json.dumps(measured.value)
            yield row(measured.at, measured.instance, measured.container, "METRIC", record, attributes, value)
        for event in self._events(job):
            if (at := to_nanoseconds(event.at)) <= end:
                record, value = _event_record(event), _event_details(event)
                yield row(at, event.instance, event.container, "EVENT", record, None, value)

    def metric_rows(
        self, context: Context, name: QualifiedName | None, _: Sequence[Any], named: Mapping[str, Any]
    ) -> Result:
        """Answer ``SPCS_GET_METRICS``."""
        begin, end = self._window(named)
        measurements = self._metrics.of(self._past_job(context, name), begin, end)
        rows = [
            (
                without_zone(measured.at), measured.metric.name, str(measured.value), measured.metric.unit,
                measured.instance, measured.container, None, _metric_record(measured), _metric_attributes(measured),
            )
            for measured in measurements
        ]  # fmt: skip
        return Result(_METRIC_COLUMNS, rows, statement="select")

    def event_rows(
        self, context: Context, name: QualifiedName | None, _: Sequence[Any], named: Mapping[str, Any]
    ) -> Result:
        """Answer ``SPCS_GET_EVENTS``."""
        job = self._past_job(context, name)
        begin, end = self._window(named)
        rows = [
            (
                without_zone(to_nanoseconds(event.at)), event.severity, event.name, _event_details(event),
                event.instance, event.container, _event_record(event), None,
            )
            for event in self._events(job)
            if begin <= to_nanoseconds(event.at) <= end
        ]  # fmt: skip
        return Result(_EVENT_COLUMNS, rows, statement="select")

    def _events(self, job: Job) -> list[Event]:
        """Return the events of a job that are recorded, newest first."""
        with self._services.scheduler.lock:
            events = events_of(job)
        recorded = {"INFO": {"INFO", "ERROR"}, "ERROR": {"ERROR"}}.get(self._event_level, set())
        return [event for event in events if event.severity in recorded]

    def _past_job(self, context: Context, name: QualifiedName | None) -> Job:
        full = context.session.resolve(name or QualifiedName(""), "SPCS_GET_LOGS")
        job = self._services.latest(full)
        if not job.dropped:
            self._services.scheduler.look([job])
        elif job.request.owner not in {role.name for role in context.session.rights.active}:
            raise does_not_exist("Service", str(full))
        return job


def _event_details(event: Event) -> str:
    return json.dumps({"message": event.message, "status": event.status})


def _event_record(event: Event) -> str:
    return json.dumps({"name": event.name, "severity_text": event.severity})


def _metric_record(measured: Measurement) -> str:
    kind = "INT" if isinstance(measured.value, int) else "DOUBLE"
    metric = {"name": measured.metric.name, "unit": measured.metric.unit}
    return json.dumps({"metric": metric, "metric_type": "gauge", "value_type": kind})


def _metric_attributes(measured: Measurement) -> str:
    return json.dumps({} if measured.gpu is None else {"gpu": str(measured.gpu)})
