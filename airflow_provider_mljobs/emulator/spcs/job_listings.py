"""SHOW and DESCRIBE of job services, their instances, containers and endpoints."""

from __future__ import annotations

import base64
import hashlib
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.access.grants import Securable
from airflow_provider_mljobs.emulator.access.needs import located, of
from airflow_provider_mljobs.emulator.identity import LOCATOR, ORGANIZATION, REGION
from airflow_provider_mljobs.emulator.listing import Listing, like, parse_listing
from airflow_provider_mljobs.emulator.registry import Extension, Statement
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.spcs.jobs import MANAGED_OWNER, TERMINAL
from airflow_provider_mljobs.emulator.spcs.pool import moment
from airflow_provider_mljobs.emulator.spcs.pool_statements import pool_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_mljobs.emulator.access.rights import Rights
    from airflow_provider_mljobs.emulator.parsing import Parser
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.spcs.compute_pools import ComputePools
    from airflow_provider_mljobs.emulator.spcs.job_runs import Planner
    from airflow_provider_mljobs.emulator.spcs.jobs import InstanceRun, Job, JobRequest
    from airflow_provider_mljobs.emulator.spcs.service import Services
    from airflow_provider_mljobs.emulator.sql.catalog import Catalog

_MOST_ROWS = 10_000
SHOW_COLUMNS = (
    Column("name"),
    Column("status"),
    Column("database_name"),
    Column("schema_name"),
    Column("owner"),
    Column("compute_pool"),
    Column("dns_name"),
    Column("current_instances", "fixed"),
    Column("target_instances", "fixed"),
    Column("min_ready_instances", "fixed"),
    Column("min_instances", "fixed"),
    Column("max_instances", "fixed"),
    Column("auto_resume", "boolean"),
    Column("external_access_integrations"),
    Column("created_on", "timestamp_ltz"),
    Column("updated_on", "timestamp_ltz"),
    Column("resumed_on", "timestamp_ltz"),
    Column("suspended_on", "timestamp_ltz"),
    Column("auto_suspend_secs", "fixed"),
    Column("comment"),
    Column("owner_role_type"),
    Column("query_warehouse"),
    Column("is_job", "boolean"),
    Column("is_async_job", "boolean"),
    Column("spec_digest"),
    Column("is_upgrading", "boolean"),
    Column("managing_object_domain"),
    Column("managing_object_name"),
)
_JOB_COLUMNS = tuple(column for column in SHOW_COLUMNS if column.name != "is_job")
_BEFORE_SPEC = 6
DESCRIBE_COLUMNS = (*SHOW_COLUMNS[:_BEFORE_SPEC], Column("spec"), *SHOW_COLUMNS[_BEFORE_SPEC:])
_INSTANCE_COLUMNS = tuple(
    Column(name)
    for name in (
        "database_name", "schema_name", "service_name", "service_status", "instance_id", "status", "spec_digest",
        "creation_time", "start_time", "ip_address",
    )
)  # fmt: skip
_NUMBERS = {"restart_count", "last_exit_code"}
_CONTAINER_COLUMNS = tuple(
    Column(name, "fixed" if name in _NUMBERS else "text")
    for name in (
        "database_name", "schema_name", "service_name", "service_status", "instance_id", "instance_status",
        "container_name", "status", "message", "image_name", "image_digest", "restart_count", "start_time",
        "last_exit_code", "last_restart_time",
    )
)  # fmt: skip
_ENDPOINT_COLUMNS = (
    Column("name"),
    Column("port", "fixed"),
    Column("port_range"),
    Column("protocol"),
    Column("is_public", "boolean"),
    Column("ingress_url"),
)
_ROLE_COLUMNS = (Column("created_on", "timestamp_ltz"), Column("name"), Column("comment"))
_SHOW_SYNTAX = (
    "SHOW [JOB] SERVICES [EXCLUDE JOBS] [LIKE '<pattern>'] "
    "[IN {ACCOUNT | DATABASE [<db>] | [SCHEMA] [<schema>] | COMPUTE POOL <pool>}] "
    "[STARTS WITH '…'] [LIMIT <n> [FROM '…']] [OF TYPE …]"
)
_DESCRIBE_SYNTAX = "{DESC | DESCRIBE} SERVICE <name>"
# https://docs.snowflake.com/en/sql-reference/sql/desc-service, …/show-service-containers-in-service
_ANY = of("SERVICE", "USAGE", "MONITOR", "OPERATE")
_RUNTIME = of("SERVICE", "MONITOR")
_PROVISIONING = "Endpoints provisioning in progress... check back in a few minutes"
_INGRESS_PREFIX = 7


def iso(seconds: float | None) -> str:
    """Write a time as in SHOW SERVICE CONTAINERS; empty if there is none yet."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _dns_name(request: JobRequest) -> str:
    return f"{request.name.name.lower().replace('_', '-')}.{request.id[:4]}.svc.spcs.internal"


def _row(job: Job, owner: str) -> tuple[Any, ...]:
    request, status = job.request, job.shown_status(time.time())
    owner = MANAGED_OWNER if request.is_managed else owner
    name, count = request.name, request.instance_count
    integrations = f"[{', '.join(request.integrations)}]" if request.integrations else None
    current = 0 if status == "PENDING" or status in TERMINAL else count
    return (
        name.name, status, name.database, name.schema, owner, request.pool, _dns_name(request),
        current, count, count, count, count, True, integrations, moment(request.created),
        moment(job.updated), None, None, 0, request.comment, "ROLE", request.query_warehouse, True,
        request.asynchronous, request.specification.digest, False, None, None,
    )  # fmt: skip


class JobListings:
    """SHOW and DESCRIBE of job services.

    :param services: the job services of the account.
    :param pools: the pools that they run on.
    :param planner: writes their specifications for DESCRIBE.
    :param catalog: the databases of the account.
    """

    def __init__(self, services: Services, pools: ComputePools, planner: Planner, catalog: Catalog) -> None:
        self._services = services
        self._pools = pools
        self._planner = planner
        self._catalog = catalog

    @property
    def extension(self) -> Extension:
        """The statements."""
        return Extension(
            statements=(
                Statement(("SHOW", "SERVICES"), self.show_services, SHOW_COLUMNS, _SHOW_SYNTAX),
                Statement(("SHOW", "JOB", "SERVICES"), self.show_jobs, _JOB_COLUMNS, _SHOW_SYNTAX),
                Statement(("DESCRIBE", "SERVICE"), self.describe, DESCRIBE_COLUMNS, _DESCRIBE_SYNTAX, _ANY),
                Statement(("DESC", "SERVICE"), self.describe, DESCRIBE_COLUMNS, _DESCRIBE_SYNTAX, _ANY),
                Statement(
                    ("SHOW", "SERVICE", "INSTANCES"),
                    self.show_instances,
                    _INSTANCE_COLUMNS,
                    "SHOW SERVICE INSTANCES IN SERVICE <name>",
                    _RUNTIME,
                ),
                Statement(
                    ("SHOW", "SERVICE", "CONTAINERS"),
                    self.show_containers,
                    _CONTAINER_COLUMNS,
                    "SHOW SERVICE CONTAINERS IN SERVICE <name>",
                    _RUNTIME,
                ),
                Statement(
                    ("SHOW", "ENDPOINTS"),
                    self.show_endpoints,
                    _ENDPOINT_COLUMNS,
                    "SHOW ENDPOINTS IN SERVICE <name>",
                    _ANY,
                ),
                Statement(
                    ("SHOW", "ROLES", "IN", "SERVICE"),
                    self.show_roles,
                    _ROLE_COLUMNS,
                    "SHOW ROLES IN SERVICE <name>",
                    of("SERVICE", "USAGE"),
                ),
            )
        )

    def show_jobs(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW JOB SERVICES``, which doesn't repeat that each service is a job."""
        return _without(self.show_services(context, parser), "is_job")

    def show_services(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW SERVICES``."""
        without_jobs = parser.accept("EXCLUDE", "JOBS")
        workloads = _take_workloads(parser)
        pool, listing = self._parse_filter(context, parser)
        if pool is not None:
            self._pools.get(pool)
            context.session.rights.require(Securable("COMPUTE POOL", (pool,)))
        if without_jobs:
            # The emulator has jobs only, no long-running services.
            return _without(Result(SHOW_COLUMNS, [], statement="show"), "is_job", "is_async_job")
        rights = context.session.rights
        selected = [
            job
            for job in _filtered(_visible(self._services.jobs(), rights), listing, pool)
            if not workloads or job.request.workload in workloads
        ][: min(_MOST_ROWS, listing.limit or _MOST_ROWS)]
        self._services.scheduler.look(selected)
        with self._services.scheduler.lock:
            return Result(SHOW_COLUMNS, [_row(job, rights.owner_of(_on(job))) for job in selected], statement="show")

    def _parse_filter(self, context: Context, parser: Parser) -> tuple[str | None, Listing]:
        begin = parser.position
        pattern = parser.string() if parser.accept("LIKE") else None
        if not parser.accept("IN", "COMPUTE", "POOL"):
            parser.position = begin
            return None, parse_listing(context, parser, self._catalog)
        pool = pool_name(parser)
        rest = parse_listing(context, parser, self._catalog, levels=0)
        return pool, Listing(pattern, None, None, None, rest.starts_with, rest.limit, rest.after)

    def describe(self, context: Context, parser: Parser) -> Result:
        """Run ``DESCRIBE SERVICE``."""
        job = self._services.looked_at(context.session.resolve(parser.qualified_name(), "DESCRIBE SERVICE"))
        parser.expect_end()
        rights = context.session.rights
        with self._services.scheduler.lock:
            row = _row(job, rights.owner_of(_on(job)))
        if not rights.owns(_on(job)):
            # Only the owner sees the specification.
            return Result(SHOW_COLUMNS, [row], statement="show")
        spec = self._planner.shown_specification(job.request)
        return Result(DESCRIBE_COLUMNS, [(*row[:_BEFORE_SPEC], spec, *row[_BEFORE_SPEC:])], statement="show")

    def _in_service(self, context: Context, parser: Parser, command: str) -> Job:
        parser.expect("IN", "SERVICE")
        job = self._services.looked_at(context.session.resolve(parser.qualified_name(), command))
        while not parser.at_end():
            # LIKE, STARTS WITH and LIMIT are ignored: a job has few rows.
            parser.next()
        return job

    def show_instances(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW SERVICE INSTANCES``."""
        job = self._in_service(context, parser, "SHOW SERVICE INSTANCES")
        with self._services.scheduler.lock:
            rows = [(*_head(job), *_instance_row(job, run)) for run in job.view()]
        return Result(_INSTANCE_COLUMNS, rows, statement="show")

    def show_containers(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW SERVICE CONTAINERS``."""
        job = self._in_service(context, parser, "SHOW SERVICE CONTAINERS")
        with self._services.scheduler.lock:
            rows = [(*_head(job), *row) for run in job.view() for row in _container_rows(job, run)]
            if not self._lists_containers(job):
                rows = [(*_head(job), *[None] * len(_CONTAINER_COLUMNS))[: len(_CONTAINER_COLUMNS)]]
        return Result(_CONTAINER_COLUMNS, rows, statement="show")

    def _lists_containers(self, job: Job) -> bool:
        """Return whether a job has instances to list, or has ended."""
        pool = self._pools.by_name.get(job.request.pool)
        is_resting = job.status == "PENDING" and pool is not None and pool.suspended
        return not is_resting and job.lists_containers(self._planner.settings.containers_listed, time.time())

    def show_endpoints(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW ENDPOINTS``."""
        job = self._in_service(context, parser, "SHOW ENDPOINTS")
        with self._services.scheduler.lock:
            job.endpoint_looks += 1
            is_ready = job.endpoints_are_ready(self._planner.settings.endpoint_ready, time.time())
        rows = [
            (
                endpoint["name"], endpoint.get("port"), endpoint.get("portRange"), endpoint.get("protocol", "HTTP"),
                endpoint.get("public", False), _ingress_url(job, endpoint, is_ready=is_ready),
            )
            for endpoint in job.request.specification.endpoints
        ]  # fmt: skip
        return Result(_ENDPOINT_COLUMNS, rows, statement="show")

    def show_roles(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW ROLES IN SERVICE``: the role that every service has, and those of its specification."""
        name = context.session.resolve(parser.qualified_name(), "SHOW ROLES")
        parser.expect_end()
        request = self._services.looked_at(name).request
        roles = ["ALL_ENDPOINTS_USAGE", *(role.upper() for role in request.specification.service_roles)]
        rows = [(moment(request.created), role, None) for role in roles]
        return Result(_ROLE_COLUMNS, rows, statement="show")


def _on(job: Job) -> Securable:
    return located("SERVICE", job.name)


def _visible(jobs: list[Job], rights: Rights) -> list[Job]:
    return jobs if rights.sees_all else [job for job in jobs if rights.sees(_on(job))]


def _without(result: Result, *names: str) -> Result:
    """Return a result without some columns."""
    places = [place for place, column in enumerate(result.columns) if column.name not in names]
    columns = [result.columns[place] for place in places]
    return replace(result, columns=columns, rows=[tuple(row[place] for place in places) for row in result.rows])


def _take_workloads(parser: Parser) -> set[str]:
    """Cut ``OF TYPE a, b`` off the end of the statement."""
    texts = [token.keyword for token in parser.tokens]
    for index in range(parser.position, len(texts) - 1):
        if texts[index : index + 2] == ["OF", "TYPE"]:
            words = {text for text in texts[index + 2 :] if text}
            del parser.tokens[index:]
            return words
    return set()


def _filtered(jobs: list[Job], listing: Listing, pool: str | None) -> list[Job]:
    wanted = like(listing.pattern) if listing.pattern is not None else None
    matching = [
        (name.database, name.schema, name.name, job)
        for job in jobs
        for name in (job.request.name,)
        if listing.covers(name.database or "", name.schema or "")
        and pool in {None, job.request.pool}
        and (wanted is None or wanted.fullmatch(name.name))
        and name.name.startswith(listing.starts_with)
        and name.name > listing.after
    ]
    return [job for *_, job in sorted(matching)]


def _head(job: Job) -> tuple[Any, ...]:
    return (job.name.database, job.name.schema, job.name.name, job.shown_status(time.time()))


def _instance_row(job: Job, run: InstanceRun) -> tuple[Any, ...]:
    digest, created = job.request.specification.digest, iso(job.request.created)
    return (str(run.index), run.status, digest, created, iso(run.started), run.address)


def _container_rows(job: Job, run: InstanceRun) -> Iterator[tuple[Any, ...]]:
    specification = job.request.specification
    containers = [*run.containers, *job.sidecars(run)]
    for container, described in zip(containers, [*specification.containers, *specification.sidecars], strict=True):
        yield (
            str(run.index), run.status, container.name, container.status, container.message, described.image,
            described.sha256.removeprefix("@"), 0, iso(container.started), container.exit_code, "",
        )  # fmt: skip


def _ingress_url(job: Job, endpoint: Mapping[str, Any], *, is_ready: bool) -> str | None:
    if not endpoint.get("public"):
        return None
    if not is_ready:
        return _PROVISIONING
    name = hashlib.sha256(f"{job.request.id} {endpoint['name']}".encode()).digest()
    prefix = base64.b32encode(name).decode().lower()[:_INGRESS_PREFIX]
    cloud, _, region = REGION.partition("_")
    return f"{prefix}-spcs.{ORGANIZATION}-{LOCATOR}.{region}.{cloud}.snowflake.app".lower()
