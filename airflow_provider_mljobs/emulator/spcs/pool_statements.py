"""CREATE, ALTER, SHOW, DESCRIBE and DROP COMPUTE POOL."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.access.grants import Securable
from airflow_provider_mljobs.emulator.access.needs import creates, of, owned
from airflow_provider_mljobs.emulator.errors import does_not_exist, invalid_property
from airflow_provider_mljobs.emulator.listing import parse_listing
from airflow_provider_mljobs.emulator.options import Options, flag, parse_options, texts
from airflow_provider_mljobs.emulator.parsing import Parser
from airflow_provider_mljobs.emulator.registry import Extension, Function, Statement
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.spcs.errors import invalid_pool, quoted_name, system_pool
from airflow_provider_mljobs.emulator.spcs.instance_families import FAMILIES
from airflow_provider_mljobs.emulator.spcs.ml_job_options import invalid_argument
from airflow_provider_mljobs.emulator.spcs.pool import (
    DESCRIBE_COLUMNS,
    NODE_COLUMNS,
    SHOW_COLUMNS,
    Pool,
    PoolOptions,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.spcs.compute_pools import ComputePools
    from airflow_provider_mljobs.emulator.spcs.service import Services
    from airflow_provider_mljobs.emulator.sql.catalog import Catalog

EXECUTED = "Statement executed successfully."
_STATUS = (Column("status"),)
_KIND = "COMPUTE POOL"
_MAINTENANCE = "SYSTEM$GET_COMPUTE_POOL_PENDING_MAINTENANCE"
_ALTERABLE = frozenset({
    "MIN_NODES", "MAX_NODES", "AUTO_RESUME", "AUTO_SUSPEND_SECS", "COMMENT", "BACKUP_INSTANCE_FAMILIES",
})  # fmt: skip
_PROPERTIES = _ALTERABLE | {"INSTANCE_FAMILY", "INITIALLY_SUSPENDED", "PLACEMENT_GROUP", "TAG"}
_REQUIRED = ("MIN_NODES", "MAX_NODES", "INSTANCE_FAMILY")
_DEFAULTS = {field.name: field.default for field in fields(PoolOptions)}
_FAMILY_COLUMNS = (
    Column("name"),
    Column("description"),
    Column("vcpu", "fixed"),
    Column("memory_gib", "fixed"),
    Column("storage_gib", "fixed"),
    Column("gpu"),
    Column("gpu_count", "fixed"),
    Column("gpu_memory_gib", "fixed"),
    Column("current_node_usage", "fixed"),
    Column("message"),
)


def pool_name(parser: Parser) -> str:
    """Parse the name of a pool; raises if the name needs quotes."""
    name = parser.qualified_name(literal=True)
    if name.schema is not None:
        raise parser.error()
    if str(name) != name.name:
        raise quoted_name("compute pools", name.name)
    return name.name


class PoolStatements:
    """The statements about compute pools.

    :param pools: the compute pools of the account.
    :param services: its job services, which STOP ALL and DROP cancel.
    :param catalog: its databases.
    """

    def __init__(self, pools: ComputePools, services: Services, catalog: Catalog) -> None:
        self._pools = pools
        self._services = services
        self._catalog = catalog

    @property
    def extension(self) -> Extension:
        """The statements."""
        return Extension(
            statements=(
                Statement(("CREATE", "COMPUTE", "POOL"), self.create, _STATUS, _CREATE_SYNTAX, creates(_KIND)),
                Statement(("ALTER", "COMPUTE", "POOL"), self.alter, _STATUS, _ALTER_SYNTAX, of(_KIND)),
                Statement(
                    ("DROP", "COMPUTE", "POOL"),
                    self.drop,
                    _STATUS,
                    "DROP COMPUTE POOL [IF EXISTS] <name>",
                    owned(_KIND),
                ),
                Statement(
                    ("SHOW", "COMPUTE", "POOLS"),
                    self.show,
                    SHOW_COLUMNS,
                    "SHOW COMPUTE POOLS [LIKE '<pattern>'] [STARTS WITH '…'] [LIMIT <n> [FROM '…']]",
                ),
                Statement(
                    ("SHOW", "COMPUTE", "POOL", "INSTANCE", "FAMILIES"),
                    self.show_families,
                    _FAMILY_COLUMNS,
                    "SHOW COMPUTE POOL INSTANCE FAMILIES [LIKE '<pattern>']",
                ),
                *(
                    Statement(
                        (verb, "COMPUTE", "POOL"),
                        self.describe,
                        DESCRIBE_COLUMNS,
                        _DESCRIBE_SYNTAX,
                        of(_KIND, "USAGE", "MONITOR", "OPERATE"),
                    )
                    for verb in ("DESCRIBE", "DESC")
                ),
                Statement(
                    ("SHOW", "NODES", "IN", "COMPUTE", "POOL"),
                    self.show_nodes,
                    NODE_COLUMNS,
                    "SHOW NODES IN COMPUTE POOL <name> [LIKE '<pattern>'] [LIMIT <n>]",
                    of(_KIND, "USAGE", "MONITOR", "OPERATE"),
                ),
            ),
            functions=(
                Function(_MAINTENANCE, self.pending_maintenance, f"{_MAINTENANCE}()"),
                Function(
                    "SYSTEM$GET_COMPUTE_POOL_STATUS",
                    self.status,
                    "SYSTEM$GET_COMPUTE_POOL_STATUS('<pool>')",
                    of(_KIND, "USAGE", "MONITOR", "OPERATE"),
                ),
            ),
        )

    def create(self, context: Context, parser: Parser) -> Result:
        """Run ``CREATE COMPUTE POOL``."""
        if_not_exists = parser.accept("IF", "NOT", "EXISTS")
        name = pool_name(parser)
        application = parser.identifier() if parser.accept("FOR", "APPLICATION") else None
        options = _properties(parser, _PROPERTIES)
        parser.expect_end()
        for key in _REQUIRED:
            if key not in options:
                raise invalid_pool(f"missing property {key}")
        if if_not_exists and name in self._pools.by_name:
            return Result.status(f"{name} already exists, statement succeeded.")
        pool_options = _changed(PoolOptions(application=application), options)
        suspended = flag(options, "INITIALLY_SUSPENDED", default=False)
        self._pools.create(name, pool_options, context.session.role, suspended=suspended)
        context.session.rights.created(_pool(name))
        self._pools.flush()
        return Result.status(f"Compute pool {name} successfully created.")

    def alter(self, context: Context, parser: Parser) -> Result:
        """Run ``ALTER COMPUTE POOL``."""
        if_exists = parser.accept("IF", "EXISTS")
        name = pool_name(parser)
        if if_exists and name not in self._pools.by_name:
            return Result.status(EXECUTED)
        pool = self._pools.get(name)
        privilege = "MODIFY" if parser.current.keyword in {"SET", "UNSET"} else "OPERATE"
        context.session.rights.require(_pool(name), privilege)
        if parser.accept("SUSPEND"):
            self._pools.change(pool, Pool.suspend)
        elif parser.accept("RESUME"):
            self._pools.change(pool, Pool.resume)
        elif parser.accept("STOP", "ALL"):
            self._stop_all(parser, pool)
        elif parser.accept("SET"):
            self._set(parser, pool)
        elif parser.accept("UNSET"):
            self._unset(parser, pool)
        else:
            raise parser.error()
        parser.expect_end()
        self._pools.flush()
        return Result.status(EXECUTED)

    def _stop_all(self, parser: Parser, pool: Pool) -> None:
        self._cancel_jobs(pool.name, _workloads(parser))

    def _cancel_jobs(self, pool: str, workloads: Collection[str] = ()) -> None:
        for job in self._services.jobs():
            if job.request.pool == pool and (not workloads or job.request.workload in workloads):
                self._services.scheduler.cancel(job)

    def _set(self, parser: Parser, pool: Pool) -> None:
        changes = _properties(parser, _ALTERABLE | {"TAG"})
        options = _changed(pool.options, changes)
        self._update(pool, options)

    def _unset(self, parser: Parser, pool: Pool) -> None:
        defaults: dict[str, Any] = {}
        while not parser.at_end():
            key = parser.identifier()
            if key not in _ALTERABLE - {"MIN_NODES", "MAX_NODES"}:
                raise invalid_property(key, _KIND)
            defaults[key.lower()] = _DEFAULTS[key.lower()]
            parser.accept(",")
        self._update(pool, replace(pool.options, **defaults))

    def _update(self, pool: Pool, options: PoolOptions) -> None:
        def update(pool: Pool, now: float) -> None:
            pool.options = options
            pool.updated_on = now

        self._pools.change(pool, update)

    def drop(self, context: Context, parser: Parser) -> Result:
        """Run ``DROP COMPUTE POOL``."""
        if_exists = parser.accept("IF", "EXISTS")
        name = pool_name(parser)
        parser.expect_end()
        if name not in self._pools.by_name:
            if if_exists:
                return Result.status(f"Drop statement executed successfully ({name} already dropped).")
            raise does_not_exist("Compute pool", name)
        pool = self._pools.get(name)
        if pool.system:
            raise system_pool(name)
        self._pools.drop(pool)
        # The pool takes no jobs by now.
        self._cancel_jobs(name)
        context.session.rights.dropped(_pool(name))
        self._pools.flush()
        return Result.status(f"{name} successfully dropped.")

    def show(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW COMPUTE POOLS``."""
        listing = parse_listing(context, parser, self._catalog, levels=0)
        rights = context.session.rights
        with self._services.scheduler.lock:
            visible = [name for name in self._pools.by_name if rights.sees(_pool(name))]
            pools = [self._pools.by_name[name] for name in listing.names(visible)]
            rows = [self._looked_at(pool).row(time.time(), rights.owner_of(_pool(pool.name))) for pool in pools]
        return Result(SHOW_COLUMNS, rows, statement="show")

    def _looked_at(self, pool: Pool) -> Pool:
        pool.look()
        self._services.scheduler.schedule(pool.name)
        return pool

    def describe(self, context: Context, parser: Parser) -> Result:
        """Run ``DESCRIBE COMPUTE POOL``."""
        name = pool_name(parser)
        parser.expect_end()
        with self._services.scheduler.lock:
            pool = self._looked_at(self._pools.get(name))
            return Result(
                DESCRIBE_COLUMNS,
                [pool.description(time.time(), context.session.rights.owner_of(_pool(name)))],
                statement="show",
            )

    def show_nodes(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW NODES IN COMPUTE POOL``."""
        pool = self._pools.get(pool_name(parser))
        listing = parse_listing(context, parser, self._catalog, levels=0)
        with self._services.scheduler.lock:
            rows = {row[0]: row for row in pool.nodes(time.time())}
        return Result(NODE_COLUMNS, [rows[name] for name in listing.names(rows)], statement="show")

    def pending_maintenance(self, _: Context, args: Sequence[Any]) -> str:
        """Answer ``SYSTEM$GET_COMPUTE_POOL_PENDING_MAINTENANCE``."""
        if args:
            raise invalid_argument(_MAINTENANCE, "expected no arguments")
        with self._services.scheduler.lock:
            if all(pool.state(time.time()) == "SUSPENDED" for pool in self._pools.by_name.values()):
                return "No running Snowpark Container Services found."
        window = self._pools.maintenance
        if window is None:
            return "No pending maintenance actions."
        start, end = (datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M") for seconds in window)
        return json.dumps({"maintenanceRequired": True, "maintenanceWindow": {"start": start, "end": end}})

    def status(self, context: Context, args: Sequence[Any]) -> str:
        """Answer ``SYSTEM$GET_COMPUTE_POOL_STATUS``: what DESCRIBE shows, as JSON."""
        (name,) = args
        described = self.describe(context, Parser(str(name)))
        row = dict(zip((column.name for column in DESCRIBE_COLUMNS), described.rows[0], strict=True))
        return json.dumps({"status": row["state"], "message": row["status_message"], "errorCode": row["error_code"]})

    def show_families(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW COMPUTE POOL INSTANCE FAMILIES``."""
        listing = parse_listing(context, parser, self._catalog, levels=0)
        with self._services.scheduler.lock:
            usage = Counter[str]()
            for pool in self._pools.by_name.values():
                usage.update(pool.active_families)
        rows = [
            (
                family.name, family.description, family.vcpu, family.memory_gib, family.storage_gib, family.gpu,
                family.gpu_count, family.gpu_memory_gib, usage[family.name], "",
            )
            for family in map(FAMILIES.__getitem__, listing.names(FAMILIES))
        ]  # fmt: skip
        return Result(_FAMILY_COLUMNS, rows, statement="show")


def _pool(name: str) -> Securable:
    return Securable(_KIND, (name,))


def _properties(parser: Parser, allowed: frozenset[str]) -> Options:
    options: Options = {}
    while not parser.at_end():
        parser.accept("WITH")
        before = parser.position
        options |= parse_options(parser, allowed, _KIND)
        if parser.position == before and not _skip_tag(parser):
            raise parser.error()
    return options


def _skip_tag(parser: Parser) -> bool:
    """Step over ``TAG (a = 'b')``: tags are accepted and ignored."""
    if not parser.accept("TAG", "("):
        return False
    while not parser.accept(")"):
        parser.next()
    return True


def _changed(options: PoolOptions, changes: Options) -> PoolOptions:
    values: dict[str, Any] = {}
    for key, value in changes.items():
        field = key.lower()
        if field == "backup_instance_families":
            values[field] = tuple(name.upper() for name in texts(value))
        elif field in _DEFAULTS:
            values[field] = _typed(field, value)
    changed = replace(options, **values)
    _check(changed)
    return changed


def _typed(field: str, value: Any) -> Any:
    default = _DEFAULTS[field]
    if isinstance(default, bool):
        return str(value).upper() == "TRUE"
    if isinstance(default, int):
        if not str(value).isdigit():
            raise invalid_pool(f"invalid value '{value}' for {field.upper()}")
        return int(value)
    return str(value).upper() if field == "instance_family" else value


def _check(options: PoolOptions) -> None:
    family = FAMILIES.get(options.instance_family)
    if family is None:
        raise invalid_pool(f"invalid instance family '{options.instance_family}'")
    for name in options.backup_instance_families:
        if name not in FAMILIES:
            raise invalid_pool(f"invalid instance family '{name}' in BACKUP_INSTANCE_FAMILIES")
    names = (options.instance_family, *options.backup_instance_families)
    if len(set(names)) < len(names):
        raise invalid_pool("BACKUP_INSTANCE_FAMILIES must not repeat a family, nor name the pool's own")
    if not 1 <= options.min_nodes <= options.max_nodes:
        raise invalid_pool(f"MIN_NODES {options.min_nodes} must be from 1 to MAX_NODES {options.max_nodes}")
    if options.max_nodes > family.node_limit > 0:
        raise invalid_pool(f"MAX_NODES {options.max_nodes} exceeds the limit of {family.node_limit} for {family.name}")


def _workloads(parser: Parser) -> set[str]:
    if not parser.accept("OF", "TYPE"):
        return set()
    words = {parser.identifier()}
    while parser.accept(","):
        words.add(parser.identifier())
    return words


_CREATE_SYNTAX = (
    "CREATE COMPUTE POOL [IF NOT EXISTS] <name> MIN_NODES = <n> MAX_NODES = <n> INSTANCE_FAMILY = <family> "
    "[AUTO_RESUME = <bool>] [INITIALLY_SUSPENDED = <bool>] [AUTO_SUSPEND_SECS = <n>] [COMMENT = '…'] …"
)
_ALTER_SYNTAX = "ALTER COMPUTE POOL [IF EXISTS] <name> {RESUME | SUSPEND | STOP ALL [OF TYPE …] | SET … | UNSET …}"
_DESCRIBE_SYNTAX = "{DESC | DESCRIBE} COMPUTE POOL <name>"
