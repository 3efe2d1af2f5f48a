"""All SQL of the provider, as functions of typed values.

Names come as :class:`~airflow_provider_mljobs.jobs.names.Identifier`,
:class:`~airflow_provider_mljobs.jobs.names.QualifiedName` or
:class:`~airflow_provider_mljobs.jobs.names.StagePath`, which quote themselves; text goes through
:func:`~airflow_provider_mljobs.jobs.names.literal`.
"""

from __future__ import annotations

import glob
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_mljobs.jobs.names import literal, quoted
from airflow_provider_mljobs.jobs.spec.description import SIDECAR_PREFIX

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from airflow_provider_mljobs.jobs.names import Identifier, Namespace, QualifiedName, StagePath
    from airflow_provider_mljobs.jobs.spec.job import JobSpec
    from airflow_provider_mljobs.jobs.spec.rendering import SpecificationSource

# The limit of rows in the answer to a SHOW.
MAX_ROWS = 10_000
# Accounts differ in the name of the instance in an event table.
_INSTANCE_ATTRIBUTES = ("snow.service.container.instance", "snow.service.instance", "snow.container.instance")
# The number of lines is limited by their size only.
_ALL_LINES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much of a log is read: lines, characters of all lines together, and characters of each line."""

    lines: int
    characters: int
    line_characters: int

    def shared(self, count: int) -> Extent:
        """Return the part of one of several logs that are read together."""
        return replace(self, lines=max(1, self.lines // count), characters=max(1, self.characters // count))


def show_compute_pools(pool: Identifier) -> str:
    """List pools; LIKE takes ``_`` for any character, so the caller picks the row of the very name."""
    return f"SHOW COMPUTE POOLS LIKE {literal(pool.value)}"


def show_instance_families() -> str:
    """List the CPU, memory and GPUs of each instance family."""
    return "SHOW COMPUTE POOL INSTANCE FAMILIES"


def show_nodes(pool: Identifier) -> str:
    """List the nodes of a pool, each with its instance family, which may be a backup of the pool's."""
    return f"SHOW NODES IN COMPUTE POOL {pool}"


def pending_maintenance() -> str:
    """Ask when Snowflake next replaces the nodes of compute pools; every role may."""
    return "SELECT SYSTEM$GET_COMPUTE_POOL_PENDING_MAINTENANCE()"


def get_ml_job_runtime(pool: Identifier, runtime_environment: str | None, python: str | None) -> str:
    """Ask for the ML runtime image that fits a pool, a Python if there is one, and a version if there is one.

    Without a Python in the form of ``snowflake.ml.jobs`` before 1.30, where only the version was asked for.
    """
    wanted = runtime_environment or ""
    if python is not None:
        named = {} if runtime_environment is None else {"runtimeEnvironment": runtime_environment}
        wanted = json.dumps({"pythonVersion": python, **named})
    return f"CALL SYSTEM$GET_ML_JOB_RUNTIME({literal(str(pool))}, {literal(wanted)})"


def _url(path: Path) -> str:
    """Write a local path as the connector reads it: as a URL, but without percent-encoding."""
    return f"file://{path.absolute()}"


def put(file: Path, directory: StagePath) -> str:
    """Upload one file as it is."""
    # The connector expands wildcards and brackets in the path, as a shell does.
    source, target = literal(_url(Path(glob.escape(str(file.absolute()))))), literal(str(directory))
    return f"PUT {source} {target} AUTO_COMPRESS = FALSE SOURCE_COMPRESSION = NONE OVERWRITE = TRUE"


def get_matching(path: StagePath, directory: Path, pattern: str) -> str:
    """Download the files whose path begins with a path and, as a whole, fits a pattern."""
    return f"GET {literal(str(path))} {literal(_url(directory) + '/')} PATTERN = {literal(pattern)}"


def list_files(path: StagePath, pattern: str | None = None) -> str:
    """List the files whose path begins with a path and, as a whole, fits a pattern."""
    chosen = "" if pattern is None else f" PATTERN = {literal(pattern)}"
    return f"LIST {literal(str(path))}{chosen}"


def remove(path: StagePath, pattern: str | None = None) -> str:
    """Remove the files whose path begins with a path and, as a whole, fits a pattern."""
    chosen = "" if pattern is None else f" PATTERN = {literal(pattern)}"
    return f"REMOVE {literal(str(path))}{chosen}"


def copy_files(source: str, directory: StagePath) -> str:
    """Copy files from a stage, or another location in Snowflake, into a directory of a stage."""
    return f"COPY FILES INTO {literal(f'{directory}/')} FROM {literal(source)}"


def copy_named_files(source: StagePath, names: Sequence[str], directory: StagePath) -> str:
    """Copy some files of a directory into another one; missing files are skipped."""
    listed = ", ".join(literal(name) for name in names)
    return f"{copy_files(f'{source}/', directory)} FILES = ({listed})"


def execute_job_service(spec: JobSpec, source: SpecificationSource) -> str:
    """Start a job without waiting for it. The specification comes last, because some accounts require that."""
    clauses = [
        "EXECUTE JOB SERVICE",
        f"IN COMPUTE POOL {spec.compute_pool}",
        f"NAME = {spec.name}",
        "ASYNC = TRUE",
    ]
    if spec.target_instances > 1:
        clauses.append(f"REPLICAS = {spec.target_instances:d}")
    if spec.query_warehouse is not None:
        clauses.append(f"QUERY_WAREHOUSE = {spec.query_warehouse}")
    if spec.comment:
        clauses.append(f"COMMENT = {literal(spec.comment)}")
    if spec.external_access_integrations:
        integrations = ", ".join(str(integration) for integration in spec.external_access_integrations)
        clauses.append(f"EXTERNAL_ACCESS_INTEGRATIONS = ({integrations})")
    clauses.append(_from_specification(source))
    return "\n".join(clauses)


def _from_specification(source: SpecificationSource) -> str:
    kind = "SPECIFICATION" if source.using is None else "SPECIFICATION_TEMPLATE"
    if source.file is not None:
        clause = f"FROM @{source.file.stage} {kind}_FILE = {literal(source.file.path)}"
    else:
        text = source.text or ""
        # Between dollar signs a text needs no escapes and stays readable in the query history.
        clause = f"FROM {kind} " + (literal(text) if "$$" in text or text.endswith("$") else f"$${text}$$")
    if source.using is None:
        return clause
    values = ", ".join(f"{quoted(name)} => {literal(value)}" for name, value in source.using.items())
    return f"{clause}\nUSING ({values})"


def execute_ml_job(job_id: str, pool: Identifier, options: str, job_options: str) -> str:
    """Start a managed job: Snowflake writes its specification. The last two are JSON."""
    args = ", ".join(literal(arg) for arg in (job_id, str(pool), options, job_options))
    return f"CALL SYSTEM$EXECUTE_ML_JOB({args})"


def describe_service(job: QualifiedName) -> str:
    """Describe a job that isn't dropped."""
    return f"DESCRIBE SERVICE {job}"


def show_job_services(schema: Namespace, prefix: str, *, limit: int | None = None, after: str | None = None) -> str:
    """List jobs by the beginning of their names, up to a limit, and only after the job with a name."""
    page = "" if limit is None else f" LIMIT {limit:d}"
    start = "" if after is None else f" FROM {literal(after)}"
    return f"SHOW JOB SERVICES LIKE {literal(prefix + '%')} IN {_scope(schema)}{page}{start}"


def show_jobs_called(schema: Namespace, beginning: str, most: int) -> str:
    """List jobs by the beginning of their names, without wildcards, up to a limit."""
    return f"SHOW JOB SERVICES IN {_scope(schema)} STARTS WITH {literal(beginning)} LIMIT {most:d}"


def _scope(schema: Namespace) -> str:
    return "ACCOUNT" if schema.schema is None else f"SCHEMA {schema}"


def show_service_containers(job: QualifiedName) -> str:
    """List the containers of a job with their messages and exit codes."""
    return f"SHOW SERVICE CONTAINERS IN SERVICE {job}"


def current_timestamp() -> str:
    """Ask for Snowflake's current time."""
    return "SELECT CURRENT_TIMESTAMP() AS MOMENT"


def show_endpoints(job: QualifiedName) -> str:
    """List the endpoints of a job with the addresses of the public ones."""
    return f"SHOW ENDPOINTS IN SERVICE {job}"


def get_job_history(job: QualifiedName) -> str:
    """Look up a job in the history, which also has dropped jobs."""
    return _from_history("STATUS, CREATED_TIME, COMPLETED_TIME, DELETED_TIME", job)


def get_job_instances(job: QualifiedName) -> str:
    """Look up how the instances of a job ended. It is a separate query, so that a status never depends on it."""
    return _from_history("INSTANCE_STATUSES", job)


def get_jobs_called(schema: Namespace, beginning: str) -> str:
    """Look up the jobs of a schema by the beginning of their names, dropped jobs included."""
    return _history_of("NAME, STATUS, DELETED_TIME", schema, f"STARTSWITH(NAME, {literal(beginning)})")


def get_living_jobs() -> str:
    """Look up all jobs that are waiting or running."""
    return (
        "SELECT NAME, SCHEMA_NAME, DATABASE_NAME FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY(RESULT_LIMIT => 10000)) "
        "WHERE COMPLETED_TIME IS NULL AND DELETED_TIME IS NULL"
    )


def _from_history(columns: str, job: QualifiedName) -> str:
    of_job = _history_of(columns, job.namespace, f"NAME = {literal(job.name.value)}")
    return f"{of_job} ORDER BY CREATED_TIME DESC LIMIT 1"


def _history_of(columns: str, schema: Namespace, condition: str) -> str:
    parts = (("SCHEMA_NAME", schema.schema), ("DATABASE_NAME", schema.database))
    conditions = [condition, *(f"{column} = {literal(name.value)}" for column, name in parts if name is not None)]
    return (
        f"SELECT {columns} FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY(RESULT_LIMIT => 10000)) "
        f"WHERE {' AND '.join(conditions)}"
    )


def get_service_logs(job: QualifiedName, instance: int, container: str) -> str:
    """Read the last 100 KB of a container's log."""
    return f"SELECT SYSTEM$GET_SERVICE_LOGS({literal(str(job))}, {instance:d}, {literal(container)})"


def get_stamped_service_logs(job: QualifiedName, instance: int, container: str, since: str) -> str:
    """Read a container's log from a time on, with a time before each line, as Snowflake's CLI does."""
    source = f"{literal(str(job))}, {instance:d}, {literal(container)}"
    return f"SELECT SYSTEM$GET_SERVICE_LOGS({source}, {_ALL_LINES:d}, FALSE, {literal(since)}, TRUE)"


def spcs_get_logs(
    job: QualifiedName, instance: int, container: str, *, start: str, end: str | None = None, most: Extent | None = None
) -> str:
    """Read a container's log from the event table, which keeps it longer and whole.

    :param start: the earliest time; Snowflake's default is a day ago.
    :param most: read only the end of the log, the last line first. Without it, read all, the first line first.
    """
    window = f"START_TIME => TO_TIMESTAMP_LTZ({literal(start)})"
    if end is not None:
        window += f", END_TIME => TO_TIMESTAMP_LTZ({literal(end)})"
    lines = (
        f"SELECT TIMESTAMP, LOG FROM TABLE({job}!SPCS_GET_LOGS({window})) "
        f"WHERE INSTANCE_ID = {instance:d} AND CONTAINER_NAME = {literal(container)}"
    )
    return f"{lines} ORDER BY TIMESTAMP ASC" if most is None else _last_lines(lines, most)


def _last_lines(lines: str, most: Extent) -> str:
    """Read the end of a log, cut by Snowflake, with the number of all lines, from a query for times and lines."""
    line = f"LEFT(LOG, {most.line_characters:d})"
    up_to_here = "OVER (ORDER BY TIMESTAMP DESC ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
    cut = (
        f"SELECT TIMESTAMP, {line} AS LINE, COUNT(*) OVER () AS LINES, SUM(LENGTH({line})) {up_to_here} AS CHARACTERS "
        f"FROM ({lines})"
    )
    return (
        f"SELECT TIMESTAMP, LINE, LINES FROM ({cut}) WHERE CHARACTERS <= {most.characters:d} "
        f"ORDER BY TIMESTAMP DESC LIMIT {most.lines:d}"
    )


def spcs_get_events(job: QualifiedName, *, start: str, most: int) -> str:
    """Read the platform's events about a job's containers, the last one first.

    :param start: the earliest time; Snowflake's default is a day ago.
    """
    details = ", ".join(f"EVENT_DETAILS['{name}']::STRING AS {name.upper()}" for name in ("status", "message"))
    return (
        f"SELECT INSTANCE_ID, CONTAINER_NAME, {details} "
        f"FROM TABLE({job}!SPCS_GET_EVENTS(START_TIME => TO_TIMESTAMP_LTZ({literal(start)}))) "
        f"WHERE EVENT_NAME = 'CONTAINER.STATUS_CHANGE' ORDER BY TIMESTAMP DESC LIMIT {most:d}"
    )


def show_event_table() -> str:
    """Ask which event table the account has."""
    return "SHOW PARAMETERS LIKE 'event_table' IN ACCOUNT"


def event_table_logs(  # noqa: PLR0913 (the table, and the arguments of spcs_get_logs)
    table: QualifiedName,
    job: QualifiedName,
    instance: int,
    container: str,
    *,
    start: str,
    end: str | None,
    most: Extent,
) -> str:
    """Read a container's log from the event table itself, for accounts without the function; the last line first."""
    instances = " OR ".join(f"{_attribute(name)} = '{instance:d}'" for name in _INSTANCE_ATTRIBUTES)
    conditions = [
        *_of_service(job),
        f"{_attribute('snow.service.container.name')} = {literal(container)}",
        f"({instances})",
        f"TIMESTAMP >= TO_TIMESTAMP_NTZ({literal(start.removesuffix('Z'))})",
    ]
    if end is not None:
        conditions.append(f"TIMESTAMP <= TO_TIMESTAMP_NTZ({literal(end.removesuffix('Z'))})")
    lines = (
        f"SELECT TIMESTAMP, VALUE::STRING AS LOG FROM {table} WHERE RECORD_TYPE = 'LOG' AND {' AND '.join(conditions)}"
    )
    return _last_lines(lines, most)


def _attribute(name: str) -> str:
    return f"RESOURCE_ATTRIBUTES[{literal(name)}]::STRING"


def _of_service(job: QualifiedName) -> list[str]:
    """Return the conditions that select a job's rows in an event table."""
    names = {"database": job.database, "schema": job.schema, "service": job.name}
    return [f"{_attribute(f'snow.{kind}.name')} = {literal(name.value)}" for kind, name in names.items()]


def spcs_get_metrics(job: QualifiedName, metrics: Collection[str], *, start: str, points: int, most: int) -> str:
    """Read the platform's measurements of a job's containers, thinned.

    :param start: the earliest time; Snowflake's default is a day ago.
    :param points: the limit of values for a metric of a container; each covers the time since the last.
    """
    return _thinned(
        "SELECT METRIC_NAME AS METRIC, INSTANCE_ID AS INSTANCE, CONTAINER_NAME AS CONTAINER, TIMESTAMP, "
        f"VALUE::STRING AS AMOUNT FROM TABLE({job}!SPCS_GET_METRICS(START_TIME => TO_TIMESTAMP_LTZ({literal(start)})))",
        metrics,
        points,
        most,
    )


def event_table_metrics(
    table: QualifiedName, job: QualifiedName, metrics: Collection[str], *, start: str, points: int, most: int
) -> str:
    """Read the measurements from the event table itself, for accounts without the function and for dropped jobs.

    Newer tables keep the name of a metric in another place, and values under their type.
    """
    values = ", ".join(f"VALUE{place}::STRING" for place in ("['double_value']", "['int_value']", ""))
    moment = f"TO_TIMESTAMP_NTZ({literal(start.removesuffix('Z'))})"
    return _thinned(
        "SELECT COALESCE(RECORD['metric']['name']::STRING, RECORD['name']::STRING) AS METRIC, "
        f"COALESCE({', '.join(map(_attribute, _INSTANCE_ATTRIBUTES))}, '0')::INT AS INSTANCE, "
        f"{_attribute('snow.service.container.name')} AS CONTAINER, TIMESTAMP, COALESCE({values}) AS AMOUNT "
        f"FROM {table} WHERE RECORD_TYPE = 'METRIC' AND {' AND '.join(_of_service(job))} AND TIMESTAMP >= {moment}",
        metrics,
        points,
        most,
    )


def _thinned(samples: str, metrics: Collection[str], points: int, most: int) -> str:
    """Thin samples to series of at most so many points; several GPUs become one series."""
    names = ", ".join(literal(name) for name in metrics)
    # Snowflake's own containers would take up most of the rows.
    chosen = f"METRIC IN ({names}) AND NOT STARTSWITH(COALESCE(CONTAINER, ''), {literal(SIDECAR_PREFIX)})"
    series = "INSTANCE, CONTAINER, METRIC"
    at_a_time = (
        f"SELECT {series}, DATE_PART(EPOCH_SECOND, TIMESTAMP) AS AT_SECOND, AVG(TRY_TO_DOUBLE(AMOUNT)) AS AVERAGE, "
        f"MAX(TRY_TO_DOUBLE(AMOUNT)) AS HIGHEST FROM ({samples}) WHERE {chosen} GROUP BY {series}, AT_SECOND"
    )
    in_parts = f"SELECT *, NTILE({points:d}) OVER (PARTITION BY {series} ORDER BY AT_SECOND) AS PART FROM ({at_a_time})"
    return (
        f"SELECT {series}, MAX(AT_SECOND) AS SECONDS, AVG(AVERAGE) AS MEAN, MAX(HIGHEST) AS PEAK FROM ({in_parts}) "
        f"GROUP BY {series}, PART ORDER BY {series}, SECONDS LIMIT {most:d}"
    )


def cancel_job(job: QualifiedName) -> str:
    """Stop a job and keep its service."""
    return f"CALL {job}!SPCS_CANCEL_JOB()"


def drop_service(job: QualifiedName) -> str:
    """Drop a job; FORCE is needed for block volumes and harmless otherwise."""
    return f"DROP SERVICE IF EXISTS {job} FORCE"
