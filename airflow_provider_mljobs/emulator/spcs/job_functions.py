"""Functions about job services: status, logs, waiting, cancelling, history."""

from __future__ import annotations

import json
import time
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.access.needs import of
from airflow_provider_mljobs.emulator.containers.joblog import LogLine, clipped
from airflow_provider_mljobs.emulator.errors import SnowflakeError, cancelled
from airflow_provider_mljobs.emulator.moments import read_time, to_nanoseconds, window
from airflow_provider_mljobs.emulator.parsing import QualifiedName, parse_name
from airflow_provider_mljobs.emulator.registry import Extension, Function, Method, TableFunction
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.spcs.errors import (
    container_not_started,
    no_such_container,
    no_such_instance,
    wait_failed,
)
from airflow_provider_mljobs.emulator.spcs.job_listings import iso
from airflow_provider_mljobs.emulator.spcs.jobs import JOB_MESSAGES
from airflow_provider_mljobs.emulator.spcs.pool import moment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.spcs.jobs import InstanceRun, Job
    from airflow_provider_mljobs.emulator.spcs.service import Services

_LOG_BYTES = 100 * 1024
_DEFAULT_HISTORY = 100
_MOST_HISTORY = 10_000
_DAYS_OF_HISTORY = 30
_HISTORY_COLUMNS = (
    Column("QUERY_ID"),
    Column("ID"),
    Column("NAME"),
    Column("DATABASE_NAME"),
    Column("SCHEMA_NAME"),
    Column("CREATED_TIME", "timestamp_ltz"),
    Column("COMPLETED_TIME", "timestamp_ltz"),
    Column("DELETED_TIME", "timestamp_ltz"),
    Column("STATUS"),
    Column("MESSAGE"),
    Column("INSTANCE_STATUSES", "object"),
    Column("COMPUTE_POOL_NAME"),
    Column("OWNER"),
    Column("OWNER_ROLE_TYPE"),
    Column("PARAMETERS", "object"),
    Column("MANAGING_OBJECT", "object"),
)
_LOGS_SYNTAX = (
    "SYSTEM$GET_SERVICE_LOGS(<service>, <instance>, <container> [, <lines> [, <previous> [, <since> "
    "[, <timestamps>]]]])"
)
_HISTORY_SYNTAX = (
    "TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY([CREATED_TIME_START => <time>] [, CREATED_TIME_END => <time>] "
    "[, RESULT_LIMIT => <n>]))"
)
_COUNTED = {"pendingInstances": "PENDING", "runningInstances": "READY", "succeededInstances": "SUCCEEDED"}


def _wrong_arguments(function: str) -> SnowflakeError:
    return SnowflakeError(939, "22023", f"SQL compilation error:\ninvalid number or type of arguments for {function}")


def _whole(value: Any, function: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise _wrong_arguments(function) from None


@dataclass(frozen=True)
class _LogRequest:
    """The arguments of SYSTEM$GET_SERVICE_LOGS."""

    service: QualifiedName
    instance: int
    container: str
    lines: int | None
    since: int | None
    timestamps: bool

    @classmethod
    def of(cls, args: Sequence[Any]) -> _LogRequest:
        """Read three to seven arguments. The fifth asks for an earlier run of the container, which jobs never have."""
        function = "SYSTEM$GET_SERVICE_LOGS"
        least, most = 3, 7
        if not least <= len(args) <= most:
            raise _wrong_arguments(function)
        padded = [*args, *[None] * (most - len(args))]
        service, instance, container, lines, _, since, timestamps = padded
        return cls(
            parse_name(str(service)),
            _whole(instance, function),
            str(container),
            None if lines is None else _whole(lines, function),
            read_time(since),
            str(timestamps).upper() == "TRUE",
        )


class JobFunctions:
    """The functions and methods of job services.

    :param services: the job services of the account.
    :param log_retention: seconds for which the logs of a container are kept after its end.
    """

    def __init__(self, services: Services, log_retention: float | None) -> None:
        self._services = services
        self._log_retention = log_retention

    @property
    def extension(self) -> Extension:
        """The functions and methods."""
        return Extension(
            functions=(
                Function("SYSTEM$GET_SERVICE_LOGS", self.get_logs, _LOGS_SYNTAX, of("SERVICE", "MONITOR")),
                Function(
                    "SYSTEM$GET_SERVICE_STATUS",
                    self.get_status,
                    "SYSTEM$GET_SERVICE_STATUS(<service> [, <timeout>])",
                    of("SERVICE", "MONITOR"),
                ),
            ),
            methods=(
                Method(
                    "SPCS_WAIT_FOR",
                    self.wait_for,
                    "CALL <service>!SPCS_WAIT_FOR('<status>', <seconds>)",
                    of("SERVICE", "MONITOR"),
                ),
                Method("SPCS_CANCEL_JOB", self.cancel, "CALL <service>!SPCS_CANCEL_JOB()", of("SERVICE", "OPERATE")),
            ),
            table_functions=(
                TableFunction("SNOWFLAKE.SPCS.GET_JOB_HISTORY", self.history, _HISTORY_COLUMNS, _HISTORY_SYNTAX),
            ),
        )

    def get_logs(self, context: Context, args: Sequence[Any]) -> str:
        """Answer ``SYSTEM$GET_SERVICE_LOGS``."""
        request = _LogRequest.of(args)
        job = self._services.job(context.session.resolve(request.service, "SYSTEM$GET_SERVICE_LOGS"))
        self._services.scheduler.pass_time([job])
        with self._services.scheduler.lock:
            self._check_container(job, request)
        if job.virtual is not None:
            return _virtual_tail(job, request)
        log = self._services.files.log(job.request.id, request.instance, request.container)
        return log.tail(request.lines, _LOG_BYTES, since=request.since, timestamps=request.timestamps)

    def _check_container(self, job: Job, request: _LogRequest) -> None:
        names = [container.name for container in job.request.specification.containers]
        if request.container not in names:
            raise no_such_container(request.container, ", ".join(names))
        index = names.index(request.container)
        runs = {run.index: run.containers[index] for run in job.view()}
        retention = self._log_retention
        if retention is not None:
            oldest = time.time() - retention
            # Once the node has removed the container, the service has no such instance.
            runs = {key: run for key, run in runs.items() if run.finished is None or run.finished > oldest}
        if request.instance not in runs:
            raise no_such_instance(request.instance, ", ".join(map(str, runs)))
        if runs[request.instance].started is None:
            raise container_not_started(runs[request.instance].status)

    def get_status(self, context: Context, args: Sequence[Any]) -> str:
        """Answer ``SYSTEM$GET_SERVICE_STATUS``."""
        if not 1 <= len(args) <= 2:  # noqa: PLR2004
            raise _wrong_arguments("SYSTEM$GET_SERVICE_STATUS")
        job = self._services.looked_at(context.session.resolve(parse_name(str(args[0])), "SYSTEM$GET_SERVICE_STATUS"))
        scheduler = self._services.scheduler
        timeout = float(args[1] or 0) if len(args) > 1 else 0.0
        if timeout > 0:
            moving = {"PENDING", "CANCELLING"}
            scheduler.wait(job, lambda: job.shown_status(time.time()) not in moving, timeout, context.cancelled)
        with scheduler.lock:
            images = [container.image for container in job.request.specification.containers]
            statuses = [
                {
                    "status": container.status,
                    "message": container.message,
                    "containerName": container.name,
                    "instanceId": str(run.index),
                    "serviceName": job.name.name,
                    "image": image,
                    "restartCount": 0,
                    "startTime": iso(container.started),
                }
                for run in job.view()
                for container, image in zip(run.containers, images, strict=True)
            ]
        return json.dumps(statuses)

    def wait_for(self, context: Context, name: QualifiedName, args: Sequence[Any]) -> str:
        """Answer ``SPCS_WAIT_FOR``."""
        if len(args) != 2:  # noqa: PLR2004
            raise _wrong_arguments("SPCS_WAIT_FOR")
        wanted, timeout = str(args[0]).upper(), float(args[1])
        if wanted not in JOB_MESSAGES:
            raise _wrong_arguments("SPCS_WAIT_FOR")
        job = self._services.looked_at(context.session.resolve(name, "SPCS_WAIT_FOR"))
        scheduler = self._services.scheduler

        def is_reached() -> bool:
            return job.shown_status(time.time()) == wanted

        reached = scheduler.wait(job, lambda: is_reached() or job.terminal, timeout, context.cancelled)
        if context.cancelled.is_set():
            raise cancelled()
        if is_reached():
            return f"Service {job.name.name} reached status {wanted}."
        reason = "the status can't be reached any more" if reached else f"timed out after {timeout:g} seconds"
        raise wait_failed(job.name.name, wanted, job.shown_status(time.time()), reason)

    def cancel(self, context: Context, name: QualifiedName, args: Sequence[Any]) -> str:
        """Answer ``SPCS_CANCEL_JOB``."""
        if args:
            raise _wrong_arguments("SPCS_CANCEL_JOB")
        job = self._services.job(context.session.resolve(name, "SPCS_CANCEL_JOB"))
        self._services.scheduler.cancel(job)
        self._services.flush()
        return f"Job {job.name.name} is being cancelled. Current status: {job.status}."

    def history(self, context: Context, _: QualifiedName | None, __: Sequence[Any], named: Mapping[str, Any]) -> Result:
        """Answer ``GET_JOB_HISTORY``: the jobs of the current role; of those that Snowflake owns, only what exists."""
        begin, end = window(time.time(), named, ("CREATED_TIME_START", "CREATED_TIME_END"), _DAYS_OF_HISTORY)
        limit = _whole(named.get("RESULT_LIMIT", _DEFAULT_HISTORY), "GET_JOB_HISTORY")
        if not 1 <= limit <= _MOST_HISTORY:
            raise _wrong_arguments("GET_JOB_HISTORY")
        jobs = [
            job
            for job in self._services.past()
            if not (job.request.is_managed and job.dropped)
            and begin <= to_nanoseconds(job.request.created) <= end
            and job.request.owner == context.session.role
        ][:limit]
        self._services.scheduler.pass_time(jobs)
        with self._services.scheduler.lock:
            return Result(_HISTORY_COLUMNS, [_history_row(job) for job in jobs], statement="select")


def _virtual_tail(job: Job, request: _LogRequest) -> str:
    lines = virtual_lines(job)
    if request.since is not None:
        lines = lines[bisect_left(lines, request.since, key=job.line_logged_on) :]
    if request.lines is not None:
        lines = lines[max(0, len(lines) - max(0, request.lines)) :]
    # No line is shorter than two bytes.
    tail = map(partial(virtual_line, job), lines[-_LOG_BYTES // 2 :])
    return clipped("".join(f"{line.stamped if request.timestamps else line.line}\n" for line in tail), _LOG_BYTES)


def virtual_lines(job: Job) -> range:
    """Return the numbers of the lines that a virtual job has printed so far."""
    if job.virtual is None or job.started is None:
        return range(0)
    until = job.completed if job.completed is not None else time.time()
    numbers = range(1, job.virtual.log_lines + 1)
    return numbers[: bisect_right(numbers, to_nanoseconds(until), key=job.line_logged_on)]


def virtual_line(job: Job, number: int) -> LogLine:
    """Return a line of a virtual job, by its number."""
    count = 0 if job.virtual is None else job.virtual.log_lines
    return LogLine(job.line_logged_on(number), "stdout", f"line {number} of {count}")


def _history_row(job: Job) -> tuple[Any, ...]:
    request = job.request
    status = job.status if job.dropped else job.shown_status(time.time())
    message = job.message if status == job.status else JOB_MESSAGES[status]
    parameters: dict[str, Any] = {"ASYNC": request.asynchronous}
    if request.replicas is not None:
        parameters["REPLICAS"] = request.replicas
    return (
        request.query_id, request.id, job.name.name, job.name.database, job.name.schema, moment(request.created),
        moment(job.completed), moment(job.deleted), status, message, json.dumps(_instance_statuses(job)),
        request.pool, request.owner, "ROLE", json.dumps(parameters), None,
    )  # fmt: skip


def _instance_statuses(job: Job) -> dict[str, Any]:
    runs = job.view()
    counts = {key: sum(run.status == status for run in runs) for key, status in _COUNTED.items()}
    failed = sum(run.status == "FAILED" for run in runs)
    instances = [{"instanceId": run.index, "containers": _container_statuses(job, run)} for run in runs]
    return {"totalInstances": len(runs), **counts, "failedInstances": failed, "instances": instances}


def _container_statuses(job: Job, run: InstanceRun) -> list[dict[str, Any]]:
    return [
        {
            "containerName": container.name,
            "status": container.status,
            "message": container.message,
            "image": described.image,
            "imageSha256": described.sha256.removeprefix("@"),
            "lastExitCode": container.exit_code,
            "restartCount": 0,
            "startTime": iso(container.started),
        }
        for container, described in zip(run.containers, job.request.specification.containers, strict=True)
    ]
