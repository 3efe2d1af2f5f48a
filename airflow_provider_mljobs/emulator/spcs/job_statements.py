"""EXECUTE JOB SERVICE, DROP SERVICE, and the statements that jobs refuse."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.access.grants import Securable
from airflow_provider_mljobs.emulator.access.needs import of, owned
from airflow_provider_mljobs.emulator.errors import (
    does_not_exist,
    invalid_property,
    invalid_spec,
    not_supported,
)
from airflow_provider_mljobs.emulator.parsing import QualifiedName, quote_identifier, unescape
from airflow_provider_mljobs.emulator.registry import Extension, Statement
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.spcs.errors import (
    has_block_volumes,
    not_for_jobs,
    quoted_name,
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
    from airflow_provider_mljobs.emulator.spcs.compute_pools import ComputePools
    from airflow_provider_mljobs.emulator.spcs.service import Services
    from airflow_provider_mljobs.emulator.sql.catalog import Catalog
    from airflow_provider_mljobs.emulator.stages.store import Stages

_STATUS = (Column("status"),)
_MOST_REPLICAS = 10_000
_EXECUTE_SYNTAX = (
    "EXECUTE JOB SERVICE IN COMPUTE POOL <pool> "
    "FROM {SPECIFICATION[_TEMPLATE] <text> | @<stage> SPECIFICATION[_TEMPLATE]_FILE = '<path>'} "
    "[USING (<key> => <value>, …)] [NAME = <name>] [ASYNC = <bool>] [REPLICAS = <n>] [QUERY_WAREHOUSE = <name>] "
    "[COMMENT = '…'] [EXTERNAL_ACCESS_INTEGRATIONS = (…)] [TAG (…)]"
)
# The keywords for a specification in a file; the value says whether the file is a template.
_FILES = {
    "SPECIFICATION_FILE": False,
    "SPEC": False,
    "SPECIFICATION_TEMPLATE_FILE": True,
}


@dataclass
class _Clauses:
    """The clauses of an EXECUTE JOB SERVICE."""

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
        # Keys of templates are case-sensitive, unlike identifiers.
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


def new_service_name(catalog: Catalog, context: Context, name: QualifiedName) -> QualifiedName:
    """Complete the name of a service to be created; raises 2003 for a schema that doesn't exist."""
    full = context.session.resolve(name, "EXECUTE JOB SERVICE")
    for part in (full.name, full.schema or "", full.database or ""):
        if quote_identifier(part) != part:
            raise quoted_name("job services", part)
    if not catalog.database_exists(full.database or ""):
        raise does_not_exist("Database", full.database or "")
    catalog.check_schema(full.database, full.schema)
    schema = Securable("SCHEMA", (full.database or "", full.schema or ""))
    context.session.rights.require(schema, "CREATE SERVICE", creating=True)
    return full


class JobStatements:
    """The statements about job services.

    :param services: the job services of the account.
    :param pools: the pools that they run on.
    :param catalog: the databases of the account.
    :param stages: its stages, which hold specification files.
    """

    def __init__(self, services: Services, pools: ComputePools, catalog: Catalog, stages: Stages) -> None:
        self._services = services
        self._pools = pools
        self._catalog = catalog
        self._stages = stages

    @property
    def extension(self) -> Extension:
        """The statements."""
        return Extension(
            statements=(
                Statement(("EXECUTE", "JOB", "SERVICE"), self.execute, _STATUS, _EXECUTE_SYNTAX),
                Statement(
                    ("DROP", "SERVICE"),
                    self.drop,
                    _STATUS,
                    "DROP SERVICE [IF EXISTS] <name> [FORCE]",
                    of("SERVICE", "DROP"),
                ),
                Statement(
                    ("ALTER", "SERVICE"),
                    self.alter,
                    _STATUS,
                    "ALTER SERVICE … (refused: not for jobs)",
                    of("SERVICE", "OPERATE"),
                ),
                Statement(
                    ("COMMENT", "ON", "SERVICE"),
                    self.comment,
                    _STATUS,
                    "COMMENT ON SERVICE <name> IS '…'",
                    owned("SERVICE"),
                ),
                Statement(
                    ("COMMENT", "IF", "EXISTS", "ON", "SERVICE"),
                    partial(self.comment, if_exists=True),
                    _STATUS,
                    "COMMENT IF EXISTS ON SERVICE <name> IS '…'",
                    owned("SERVICE"),
                ),
                Statement(
                    ("CREATE", "SERVICE"), _create, _STATUS, "CREATE SERVICE … (refused: only jobs are emulated)"
                ),
            )
        )

    def _specification_text(self, context: Context, clauses: _Clauses) -> str:
        text = clauses.text
        if text is None and clauses.stage is not None:
            text = self._read_stage(context, clauses.stage)
        text = text or ""
        return render(text, clauses.values) if clauses.template else text

    def _read_stage(self, context: Context, reference: StageReference) -> str:
        location = self._stages.locate(context, reference, "READ")
        file = location.directory / location.path
        if not (file.resolve().is_relative_to(location.directory.resolve()) and file.is_file()):
            raise does_not_exist("File", f"@{reference.stage}/{reference.path}")
        return file.read_text(encoding="utf-8")

    def execute(self, context: Context, parser: Parser) -> Result:
        """Run ``EXECUTE JOB SERVICE``."""
        clauses = _parse_clauses(parser)
        pool = self._pools.get(clauses.pool or "")
        context.session.rights.require(Securable("COMPUTE POOL", (pool.name,)), "USAGE")
        if pool.system:
            raise system_pool(pool.name)
        job_id = str(uuid.uuid4())
        default = QualifiedName(f"JOB_{context.query_id.replace('-', '_').upper()}")
        name = new_service_name(self._catalog, context, clauses.name or default)
        text = self._specification_text(context, clauses)
        request = JobRequest(
            id=job_id,
            query_id=context.query_id,
            name=name,
            pool=pool.name,
            specification=parse_specification(text, pool.family),
            created=time.time(),
            owner=context.session.role,
            replicas=clauses.replicas,
            asynchronous=clauses.asynchronous,
            query_warehouse=clauses.query_warehouse,
            comment=clauses.comment,
            integrations=clauses.integrations,
        )
        job = self._services.submit(request, context.session.rights)
        self._services.flush()
        if clauses.asynchronous:
            return Result.status(f"Started Snowpark Container Services Job '{name.name}'.", "other")
        self._services.wait_for_end(context, job)
        return Result.status(f"Job {name.name} completed successfully with status: DONE.", "other")

    def drop(self, context: Context, parser: Parser) -> Result:
        """Run ``DROP SERVICE``."""
        if_exists = parser.accept("IF", "EXISTS")
        name = context.session.resolve(parser.qualified_name(), "DROP SERVICE")
        force = parser.accept("FORCE")
        parser.expect_end()
        job = self._services.find(name)
        if job is None:
            if if_exists:
                return Result.status(f"Drop statement executed successfully ({name.name} already dropped).")
            raise does_not_exist("Service", str(name))
        if job.request.specification.has_block_volumes and not force:
            raise has_block_volumes(name.name)
        self._services.drop([job])
        self._services.flush()
        return Result.status(f"{name.name} successfully dropped.")

    def alter(self, context: Context, parser: Parser) -> Result:
        """Refuse ``ALTER SERVICE``, which jobs don't have."""
        if_exists = parser.accept("IF", "EXISTS")
        name = context.session.resolve(parser.qualified_name(), "ALTER SERVICE")
        if if_exists and self._services.find(name) is None:
            return Result.status("Statement executed successfully.")
        self._services.job(name)
        raise not_for_jobs("ALTER SERVICE", name.name)

    def comment(self, context: Context, parser: Parser, *, if_exists: bool = False) -> Result:
        """Run ``COMMENT [IF EXISTS] ON SERVICE``."""
        name = context.session.resolve(parser.qualified_name(), "COMMENT ON SERVICE")
        parser.expect("IS")
        comment = parser.string()
        parser.expect_end()
        if not if_exists or self._services.find(name) is not None:
            self._services.set_comment(self._services.job(name), comment)
            self._services.flush()
        return Result.status("Statement executed successfully.")


def _create(_: Context, __: Parser) -> Result:
    raise not_supported("CREATE SERVICE (a service that runs until it is suspended)")
