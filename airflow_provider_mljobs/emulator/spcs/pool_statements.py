"""CREATE, ALTER, SHOW, DESCRIBE and DROP COMPUTE POOL."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.errors import does_not_exist, invalid_property
from airflow_provider_mljobs.emulator.listing import parse_listing
from airflow_provider_mljobs.emulator.options import Options, flag, parse_options, texts
from airflow_provider_mljobs.emulator.registry import Statement
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.spcs.errors import invalid_pool, quoted_name, system_pool
from airflow_provider_mljobs.emulator.spcs.instance_families import FAMILIES
from airflow_provider_mljobs.emulator.spcs.pools import DESCRIBE_COLUMNS, SHOW_COLUMNS, Pool, PoolOptions

if TYPE_CHECKING:
    from airflow_provider_mljobs.emulator.parsing import Parser
    from airflow_provider_mljobs.emulator.registry import Context

EXECUTED = "Statement executed successfully."
_STATUS = (Column("status"),)
_KIND = "COMPUTE POOL"
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
    """Parse the name of a pool; raises where only quotes could write it."""
    name = parser.qualified_name(literal=True)
    if name.schema is not None:
        raise parser.error()
    if str(name) != name.name:
        raise quoted_name("compute pools", name.name)
    return name.name


def _create(context: Context, parser: Parser) -> Result:
    if_not_exists = parser.accept("IF", "NOT", "EXISTS")
    name = pool_name(parser)
    application = parser.identifier() if parser.accept("FOR", "APPLICATION") else None
    options = _properties(parser, _PROPERTIES)
    parser.expect_end()
    for key in _REQUIRED:
        if key not in options:
            raise invalid_pool(f"missing property {key}")
    services = context.account.services
    if if_not_exists and name in services.pools:
        return Result.status(f"{name} already exists, statement succeeded.")
    pool_options = _changed(PoolOptions(application=application), options)
    suspended = flag(options, "INITIALLY_SUSPENDED", default=False)
    services.create_pool(name, pool_options, context.session.role, suspended=suspended)
    services.flush()
    return Result.status(f"Compute pool {name} successfully created.")


def _properties(parser: Parser, known: frozenset[str]) -> Options:
    options: Options = {}
    while not parser.at_end():
        parser.accept("WITH")
        before = parser.position
        options |= parse_options(parser, known, _KIND)
        if parser.position == before and not _skip_tag(parser):
            raise parser.error()
    return options


def _skip_tag(parser: Parser) -> bool:
    """Step over ``TAG (a = 'b')``: tags are accepted and forgotten."""
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
            values[field] = tuple(texts(value))
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
    if not 1 <= options.min_nodes <= options.max_nodes:
        raise invalid_pool(f"MIN_NODES {options.min_nodes} must be from 1 to MAX_NODES {options.max_nodes}")
    if options.max_nodes > family.node_limit > 0:
        raise invalid_pool(f"MAX_NODES {options.max_nodes} exceeds the limit of {family.node_limit} for {family.name}")


def _alter(context: Context, parser: Parser) -> Result:
    if_exists = parser.accept("IF", "EXISTS")
    name = pool_name(parser)
    services = context.account.services
    if if_exists and name not in services.pools:
        return Result.status(EXECUTED)
    pool = services.pool(name)
    if parser.accept("SUSPEND"):
        services.change_pool(pool, Pool.suspend)
    elif parser.accept("RESUME"):
        services.change_pool(pool, Pool.resume)
    elif parser.accept("STOP", "ALL"):
        _stop_all(context, parser, pool)
    elif parser.accept("SET"):
        _set(context, parser, pool)
    elif parser.accept("UNSET"):
        _unset(context, parser, pool)
    else:
        raise parser.error()
    parser.expect_end()
    services.flush()
    return Result.status(EXECUTED)


def _stop_all(context: Context, parser: Parser, pool: Pool) -> None:
    services = context.account.services
    wanted = _workloads(parser)
    on_pool = [job for job in services.jobs() if job.request.pool == pool.name and not job.terminal]
    for job in on_pool:
        if not wanted or job.request.workload in wanted:
            services.scheduler.cancel(job)


def _workloads(parser: Parser) -> set[str]:
    if not parser.accept("OF", "TYPE"):
        return set()
    words = {parser.identifier()}
    while parser.accept(","):
        words.add(parser.identifier())
    return words


def _set(context: Context, parser: Parser, pool: Pool) -> None:
    changes = _properties(parser, _ALTERABLE | {"TAG"})
    options = _changed(pool.options, changes)
    _update(context, pool, options)


def _unset(context: Context, parser: Parser, pool: Pool) -> None:
    defaults: dict[str, Any] = {}
    while not parser.at_end():
        key = parser.identifier()
        if key not in _ALTERABLE - {"MIN_NODES", "MAX_NODES"}:
            raise invalid_property(key, _KIND)
        defaults[key.lower()] = _DEFAULTS[key.lower()]
        parser.accept(",")
    _update(context, pool, replace(pool.options, **defaults))


def _update(context: Context, pool: Pool, options: PoolOptions) -> None:
    def update(pool: Pool, now: float) -> None:
        pool.options = options
        pool.updated_on = now

    context.account.services.change_pool(pool, update)


def _drop(context: Context, parser: Parser) -> Result:
    if_exists = parser.accept("IF", "EXISTS")
    name = pool_name(parser)
    parser.expect_end()
    services = context.account.services
    if name not in services.pools:
        if if_exists:
            return Result.status(f"Drop statement executed successfully ({name} already dropped).")
        raise does_not_exist("Compute pool", name)
    pool = services.pool(name)
    if pool.system:
        raise system_pool(name)
    services.drop_pool(pool)
    services.flush()
    return Result.status(f"{name} successfully dropped.")


def _show(context: Context, parser: Parser) -> Result:
    services = context.account.services
    listing = parse_listing(context, parser, levels=0)
    with services.scheduler.lock:
        pools = [services.pools[name] for name in listing.names(services.pools)]
        rows = [_looked_at(context, pool).row(context.account.now()) for pool in pools]
    return Result(SHOW_COLUMNS, rows, statement="show")


def _looked_at(context: Context, pool: Pool) -> Pool:
    pool.look()
    context.account.services.scheduler.schedule(pool.name)
    return pool


def _describe(context: Context, parser: Parser) -> Result:
    services = context.account.services
    name = pool_name(parser)
    parser.expect_end()
    with services.scheduler.lock:
        pool = _looked_at(context, services.pool(name))
        return Result(DESCRIBE_COLUMNS, [pool.description(context.account.now())], statement="show")


def _show_families(context: Context, parser: Parser) -> Result:
    listing = parse_listing(context, parser, levels=0)
    services = context.account.services
    with services.scheduler.lock:
        usage = Counter[str]()
        for pool in services.pools.values():
            usage[pool.options.instance_family] += pool.active_nodes
    rows = [
        (
            family.name, family.description, family.vcpu, family.memory_gib, family.storage_gib, family.gpu,
            family.gpu_count, family.gpu_memory_gib, usage[family.name], "",
        )
        for family in map(FAMILIES.__getitem__, listing.names(FAMILIES))
    ]  # fmt: skip
    return Result(_FAMILY_COLUMNS, rows, statement="show")


_DESCRIBE_SYNTAX = "{DESC | DESCRIBE} COMPUTE POOL <name>"
STATEMENTS: tuple[Statement, ...] = (
    Statement(
        ("CREATE", "COMPUTE", "POOL"),
        _create,
        _STATUS,
        "CREATE COMPUTE POOL [IF NOT EXISTS] <name> MIN_NODES = <n> MAX_NODES = <n> INSTANCE_FAMILY = <family> "
        "[AUTO_RESUME = <bool>] [INITIALLY_SUSPENDED = <bool>] [AUTO_SUSPEND_SECS = <n>] [COMMENT = '…'] …",
    ),
    Statement(
        ("ALTER", "COMPUTE", "POOL"),
        _alter,
        _STATUS,
        "ALTER COMPUTE POOL [IF EXISTS] <name> {RESUME | SUSPEND | STOP ALL [OF TYPE …] | SET … | UNSET …}",
    ),
    Statement(("DROP", "COMPUTE", "POOL"), _drop, _STATUS, "DROP COMPUTE POOL [IF EXISTS] <name>"),
    Statement(
        ("SHOW", "COMPUTE", "POOLS"),
        _show,
        SHOW_COLUMNS,
        "SHOW COMPUTE POOLS [LIKE '<pattern>'] [STARTS WITH '…'] [LIMIT <n> [FROM '…']]",
    ),
    Statement(
        ("SHOW", "COMPUTE", "POOL", "INSTANCE", "FAMILIES"),
        _show_families,
        _FAMILY_COLUMNS,
        "SHOW COMPUTE POOL INSTANCE FAMILIES [LIKE '<pattern>']",
    ),
    Statement(("DESCRIBE", "COMPUTE", "POOL"), _describe, DESCRIBE_COLUMNS, _DESCRIBE_SYNTAX),
    Statement(("DESC", "COMPUTE", "POOL"), _describe, DESCRIBE_COLUMNS, _DESCRIBE_SYNTAX),
)
