"""EXECUTE JOB SERVICE, DROP SERVICE, and the statements that jobs refuse."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.errors import (
    cancelled,
    does_not_exist,
    invalid_property,
    invalid_spec,
    not_supported,
)
from airflow_provider_mljobs.emulator.parsing import QualifiedName, quote_identifier, unescape
from airflow_provider_mljobs.emulator.registry import Statement
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.spcs.errors import (
    has_block_volumes,
    job_failed,
    not_for_jobs,
    quoted_name,
    statement_timeout,
    system_pool,
)
from airflow_provider_mljobs.emulator.spcs.jobs import JobRequest
from airflow_provider_mljobs.emulator.spcs.pool_statements import pool_name
from airflow_provider_mljobs.emulator.spcs.specification import parse_specification
from airflow_provider_mljobs.emulator.spcs.specification_template import render

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_mljobs.emulator.parsing import Parser, StageReference
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.spcs.jobs import Job

_STATUS = (Column("status"),)
_STATEMENT_TIMEOUT = "STATEMENT_TIMEOUT_IN_SECONDS"
_DEFAULT_TIMEOUT = 172800.0
_MOST_REPLICAS = 10_000
# What may stand before the equals sign of a specification in a file; the value tells whether it is a template.
_FILES = {
    "SPECIFICATION_FILE": False,
    "SPEC": False,
    "SPECIFICATION_TEMPLATE_FILE": True,
}


@dataclass
class _Clauses:
    """What an EXECUTE JOB SERVICE says, clause by clause."""

    pool: str | None = None
    text: str | None = None
    stage: StageReference | None = None
    template: bool = False
    values: dict[str, str] = field(default_factory=dict)
    name: QualifiedName | None = None
    asynchronous: bool = False
    replicas: int | None = None
    query_warehouse: str | None = None
    comment: str | None = None
    integrations: tuple[str, ...] = ()
    seen: set[str] = field(default_factory=set)


def _parse_clauses(parser: Parser) -> _Clauses:
    clauses = _Clauses()
    while not parser.at_end():
        parser.accept("WITH")
        word = parser.current.keyword
        if word in clauses.seen:
            raise parser.error()
        clauses.seen.add(word)
        if word not in _CLAUSES:
            if word and parser.peek(1).text == "=":
                raise invalid_property(word, "JOB SERVICE")
            raise parser.error()
        parser.next()
        _CLAUSES[word](parser, clauses)
    if clauses.pool is None or not clauses.seen & {"FROM"}:
        raise parser.error()
    return clauses


def _parse_pool(parser: Parser, clauses: _Clauses) -> None:
    parser.expect("COMPUTE", "POOL")
    clauses.pool = pool_name(parser)


def _parse_source(parser: Parser, clauses: _Clauses) -> None:
    if parser.accept("SPECIFICATION"):
        clauses.text = parser.string()
    elif parser.looking_at("SPECIFICATION_TEMPLATE") and parser.peek(1).text != "=":
        parser.next()
        clauses.template = True
        clauses.text = parser.string()
    elif parser.current.keyword in _FILES:
        raise not_supported("A specification file of a native app")
    else:
        _parse_file(parser, clauses)
    if parser.accept("USING"):
        _parse_values(parser, clauses)


def _parse_file(parser: Parser, clauses: _Clauses) -> None:
    stage = parser.stage()
    kind = parser.current.keyword
    if kind not in _FILES:
        raise parser.error()
    parser.expect(kind, "=")
    clauses.template = _FILES[kind]
    path = "/".join(part for part in (stage.path.strip("/"), parser.string().lstrip("/")) if part)
    clauses.stage = type(stage)(stage.stage, path)


def _parse_values(parser: Parser, clauses: _Clauses) -> None:
    parser.expect("(")
    while not parser.accept(")"):
        if clauses.values:
            parser.expect(",")
        token = parser.next()
        # Keys of templates are case-sensitive, so they are no identifiers.
        key = token.text[1:-1].replace('""', '"') if token.kind == "quoted" else token.text
        parser.expect("=>")
        clauses.values[key] = parser.string() if parser.current.kind in {"string", "bind"} else _bare_value(parser)


def _bare_value(parser: Parser) -> str:
    begin = parser.current.start
    while not (parser.looking_at(",") or parser.looking_at(")")):
        parser.next()
    return parser.text[begin : parser.peek(-1).end]


def _parse_name(parser: Parser, clauses: _Clauses) -> None:
    parser.expect("=")
    clauses.name = parser.qualified_name(literal=True)


def _parse_asynchronous(parser: Parser, clauses: _Clauses) -> None:
    parser.expect("=")
    clauses.asynchronous = parser.boolean()


def _parse_replicas(parser: Parser, clauses: _Clauses) -> None:
    parser.expect("=")
    parser.accept("=")
    token = parser.current
    clauses.replicas = parser.integer()
    if not 1 <= clauses.replicas <= _MOST_REPLICAS:
        raise invalid_spec(f"invalid value {token.text} for 'REPLICAS'.")


def _parse_warehouse(parser: Parser, clauses: _Clauses) -> None:
    parser.expect("=")
    clauses.query_warehouse = str(parser.qualified_name(literal=True))


def _parse_comment(parser: Parser, clauses: _Clauses) -> None:
    parser.expect("=")
    clauses.comment = parser.string()


def _parse_integrations(parser: Parser, clauses: _Clauses) -> None:
    parser.expect("=")
    clauses.integrations = tuple(parser.name_list())


def _parse_tag(parser: Parser, _: _Clauses) -> None:
    parser.expect("(")
    while not parser.accept(")"):
        parser.qualified_name()
        parser.expect("=")
        unescape(parser.next().text)
        parser.accept(",")


_CLAUSES: dict[str, Callable[[Parser, _Clauses], None]] = {
    "IN": _parse_pool,
    "FROM": _parse_source,
    "NAME": _parse_name,
    "ASYNC": _parse_asynchronous,
    "REPLICAS": _parse_replicas,
    "QUERY_WAREHOUSE": _parse_warehouse,
    "COMMENT": _parse_comment,
    "EXTERNAL_ACCESS_INTEGRATIONS": _parse_integrations,
    "TAG": _parse_tag,
}


def service_name(context: Context, name: QualifiedName, command: str) -> QualifiedName:
    """Complete the name of a service from the session."""
    return context.session.resolve(name, command)


def new_service_name(context: Context, name: QualifiedName) -> QualifiedName:
    """Complete the name of a service to be made; raises 2003 for a schema that doesn't exist."""
    full = service_name(context, name, "EXECUTE JOB SERVICE")
    for part in (full.name, full.schema or "", full.database or ""):
        if quote_identifier(part) != part:
            raise quoted_name("job services", part)
    engine = context.account.engine
    if engine.schema_exists(full.database or "", full.schema or ""):
        return full
    if not engine.database_exists(full.database or ""):
        raise does_not_exist("Database", full.database or "")
    raise does_not_exist("Schema", f"{full.database}.{full.schema}")


def _specification_text(context: Context, clauses: _Clauses) -> str:
    text = clauses.text
    if text is None and clauses.stage is not None:
        text = _read_stage(context, clauses.stage)
    text = text or ""
    return render(text, clauses.values) if clauses.template else text


def _read_stage(context: Context, reference: StageReference) -> str:
    location = context.account.stages.locate(context, reference)
    file = location.directory / location.path
    if not (file.resolve().is_relative_to(location.directory.resolve()) and file.is_file()):
        raise does_not_exist("File", f"@{reference.stage}/{reference.path}")
    return file.read_text(encoding="utf-8")


def _execute(context: Context, parser: Parser) -> Result:
    clauses = _parse_clauses(parser)
    services = context.account.services
    pool = services.pool(clauses.pool or "")
    if pool.system:
        raise system_pool(pool.name)
    job_id = str(uuid.uuid4())
    default = QualifiedName(f"JOB_{context.query_id.replace('-', '_').upper()}")
    name = new_service_name(context, clauses.name or default)
    text = _specification_text(context, clauses)
    request = JobRequest(
        id=job_id,
        query_id=context.query_id,
        name=name,
        pool=pool.name,
        specification=parse_specification(text, pool.family),
        created=context.account.now(),
        owner=context.session.role,
        replicas=clauses.replicas,
        asynchronous=clauses.asynchronous,
        query_warehouse=clauses.query_warehouse,
        comment=clauses.comment,
        integrations=clauses.integrations,
    )
    job = services.submit(request)
    services.flush()
    if clauses.asynchronous:
        return Result.status(f"Started Snowpark Container Services Job '{name.name}'.", "other")
    wait_for_end(context, job)
    return Result.status(f"Job {name.name} completed successfully with status: DONE.", "other")


def wait_for_end(context: Context, job: Job) -> None:
    """Block until a job has ended; raises unless it is DONE. Giving up the statement cancels the job."""
    scheduler = context.account.services.scheduler
    timeout = float(context.session.parameters.get(_STATEMENT_TIMEOUT) or _DEFAULT_TIMEOUT)
    if not scheduler.wait(job, lambda: job.terminal, timeout, context.cancelled):
        scheduler.cancel(job)
        raise cancelled() if context.cancelled.is_set() else statement_timeout(timeout)
    if job.status != "DONE":
        raise job_failed(job.name.name, job.status, job.message)


def _drop(context: Context, parser: Parser) -> Result:
    if_exists = parser.accept("IF", "EXISTS")
    name = service_name(context, parser.qualified_name(), "DROP SERVICE")
    force = parser.accept("FORCE")
    parser.expect_end()
    services = context.account.services
    job = services.find(name)
    if job is None:
        if if_exists:
            return Result.status(f"Drop statement executed successfully ({name.name} already dropped).")
        raise does_not_exist("Service", str(name))
    if job.request.specification.has_block_volumes and not force:
        raise has_block_volumes(name.name)
    services.drop([job])
    services.flush()
    return Result.status(f"{name.name} successfully dropped.")


def _alter(context: Context, parser: Parser) -> Result:
    if_exists = parser.accept("IF", "EXISTS")
    name = service_name(context, parser.qualified_name(), "ALTER SERVICE")
    if if_exists and context.account.services.find(name) is None:
        return Result.status("Statement executed successfully.")
    context.account.services.job(name)
    raise not_for_jobs("ALTER SERVICE", name.name)


def _comment(context: Context, parser: Parser, *, if_exists: bool = False) -> Result:
    name = service_name(context, parser.qualified_name(), "COMMENT ON SERVICE")
    parser.expect("IS")
    comment = parser.string()
    parser.expect_end()
    services = context.account.services
    if not if_exists or services.find(name) is not None:
        services.set_comment(services.job(name), comment)
        services.flush()
    return Result.status("Statement executed successfully.")


def _comment_if_exists(context: Context, parser: Parser) -> Result:
    return _comment(context, parser, if_exists=True)


def _create(_: Context, __: Parser) -> Result:
    raise not_supported("CREATE SERVICE")


_EXECUTE_SYNTAX = (
    "EXECUTE JOB SERVICE IN COMPUTE POOL <pool> "
    "FROM {SPECIFICATION[_TEMPLATE] <text> | @<stage> SPECIFICATION[_TEMPLATE]_FILE = '<path>'} "
    "[USING (<key> => <value>, …)] [NAME = <name>] [ASYNC = <bool>] [REPLICAS = <n>] [QUERY_WAREHOUSE = <name>] "
    "[COMMENT = '…'] [EXTERNAL_ACCESS_INTEGRATIONS = (…)] [TAG (…)]"
)
STATEMENTS: tuple[Statement, ...] = (
    Statement(("EXECUTE", "JOB", "SERVICE"), _execute, _STATUS, _EXECUTE_SYNTAX),
    Statement(("DROP", "SERVICE"), _drop, _STATUS, "DROP SERVICE [IF EXISTS] <name> [FORCE]"),
    Statement(("ALTER", "SERVICE"), _alter, _STATUS, "ALTER SERVICE … (refused: not for jobs)"),
    Statement(("COMMENT", "ON", "SERVICE"), _comment, _STATUS, "COMMENT ON SERVICE <name> IS '…'"),
    Statement(
        ("COMMENT", "IF", "EXISTS", "ON", "SERVICE"),
        _comment_if_exists,
        _STATUS,
        "COMMENT IF EXISTS ON SERVICE <name> IS '…'",
    ),
    Statement(("CREATE", "SERVICE"), _create, _STATUS, "CREATE SERVICE … (refused: only jobs are emulated)"),
)
