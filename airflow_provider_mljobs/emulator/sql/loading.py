"""COPY INTO a table from a stage, and INFER_SCHEMA."""

# ruff: noqa: S608 statements of our own for DuckDB; names are quoted and values are bound
from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.access.needs import located
from airflow_provider_mljobs.emulator.errors import SnowflakeError, not_supported
from airflow_provider_mljobs.emulator.options import Options, flag, parse_options, texts
from airflow_provider_mljobs.emulator.parsing import parse_stage
from airflow_provider_mljobs.emulator.registry import Extension, Statement, TableFunction
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.sql.catalog import quoted
from airflow_provider_mljobs.emulator.sql.error_translation import translate
from airflow_provider_mljobs.emulator.sql.objects import table_columns
from airflow_provider_mljobs.emulator.sql.staged_data import Reader, matched
from airflow_provider_mljobs.emulator.stages.files import remove

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_provider_mljobs.emulator.parsing import Parser, QualifiedName, StageReference
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.sql.catalog import Catalog
    from airflow_provider_mljobs.emulator.sql.file_formats import FileFormats
    from airflow_provider_mljobs.emulator.sql.unloading import Unloading
    from airflow_provider_mljobs.emulator.stages.files import Location, StageFile
    from airflow_provider_mljobs.emulator.stages.store import Stages


def _number(name: str) -> Column:
    return Column(name, "fixed", precision=38, scale=0)


_COPY = (
    Column("file"),
    Column("status"),
    *(_number(name) for name in ("rows_parsed", "rows_loaded", "error_limit", "errors_seen")),
    Column("first_error"),
    *(_number(name) for name in ("first_error_line", "first_error_character")),
    Column("first_error_column_name"),
)
_INFERRED = (
    Column("COLUMN_NAME"),
    Column("TYPE"),
    Column("NULLABLE", "boolean"),
    Column("EXPRESSION"),
    Column("FILENAMES"),
    _number("ORDER_ID"),
)
_KNOWN = {
    "FILES", "PATTERN", "FILE_FORMAT", "ON_ERROR", "PURGE", "FORCE", "MATCH_BY_COLUMN_NAME", "RETURN_FAILED_ONLY",
    "LOAD_UNCERTAIN_FILES", "ENFORCE_LENGTH", "TRUNCATECOLUMNS", "SIZE_LIMIT", "VALIDATION_MODE",
    "CLUSTER_AT_INGEST_TIME",
}  # fmt: skip
_COPY_SYNTAX = (
    "COPY INTO <table> [ ( <column>, … ) ] FROM { @<stage>[/<path>] | ( SELECT … FROM @<stage>[/<path>] ) } "
    "[ FILES = ( '…' ) ] [ PATTERN = '…' ] [ FILE_FORMAT = ( … ) ] [ MATCH_BY_COLUMN_NAME = … ] [ PURGE = … ] "
    "[ FORCE = … ] | COPY INTO @<stage>[/<path>] FROM { <table> | ( <query> ) } "
    "[ FILE_FORMAT = ( TYPE = { CSV | PARQUET } … ) ] [ HEADER = … ] [ SINGLE = … ] [ OVERWRITE = … ]"
)
_INFER_SYNTAX = "TABLE(INFER_SCHEMA(LOCATION => '@<stage>[/<path>]', FILE_FORMAT => '<name>' [, IGNORE_CASE => … ]))"
_REFUSED = ("VALIDATION_MODE", "SIZE_LIMIT")


@dataclass(frozen=True)
class _Load:
    """One COPY INTO: its table, its source and its options."""

    table: QualifiedName
    columns: Sequence[tuple[str, str]]
    location: Location
    select: str | None
    options: Options
    reader: Reader


class Loading:
    """COPY INTO a table, and INFER_SCHEMA.

    :param catalog: the databases of the account.
    :param stages: its stages.
    :param formats: its file formats.
    :param unloading: runs COPY INTO a stage, which begins with the same words.
    """

    def __init__(self, catalog: Catalog, stages: Stages, formats: FileFormats, unloading: Unloading) -> None:
        self._catalog = catalog
        self._stages = stages
        self._formats = formats
        self._unloading = unloading

    @property
    def extension(self) -> Extension:
        """The statement and the table function."""
        return Extension(
            statements=(Statement(("COPY", "INTO"), self.copy_into, _COPY, _COPY_SYNTAX),),
            table_functions=(TableFunction("INFER_SCHEMA", self.infer_schema, _INFERRED, _INFER_SYNTAX),),
        )

    def copy_into(self, context: Context, parser: Parser) -> Result:
        """Run ``COPY INTO``: load a table, or unload into a stage."""
        context.session.check_warehouse()
        if parser.current.kind == "stage" or (parser.current.kind == "string" and parser.current.text.startswith("'@")):
            return self._unloading.run(context, parser)
        load = self._parse(context, parser)
        staged = _chosen(load)
        if not staged:
            return Result.status("Copy executed with 0 files processed.", "copy")
        try:
            with self._catalog.writing, _transaction(context):
                rows = [_load_file(context, load, file) for file in staged]
        except SnowflakeError:
            raise
        except Exception as problem:
            # DuckDB's complaint about a file is the error of the statement.
            raise translate(problem) from problem
        if flag(load.options, "PURGE", default=False):
            for file in staged:
                remove(load.location.directory, file)
        return Result(_COPY, rows, statement="copy")

    def _parse(self, context: Context, parser: Parser) -> _Load:
        table = context.session.resolve(parser.qualified_name(), "COPY INTO")
        described = [(str(row[2]), str(row[3])) for row in table_columns(context, table)]
        if context.session.engine.temporary.get(table.name) != (table.database, table.schema):
            context.session.rights.require(located("TABLE", table), "INSERT")
        named = parser.name_list() if parser.looking_at("(") else [name for name, _ in described]
        types = dict(described)
        missing = next((name for name in named if name not in types), None)
        if missing is not None:
            raise SnowflakeError(904, "42000", f"SQL compilation error:\ninvalid identifier '{missing}'")
        parser.expect("FROM")
        select, reference = _source(parser)
        options = parse_options(parser, _KNOWN, "COPY")
        parser.expect_end()
        _refuse(options)
        location = self._stages.locate(context, reference, "READ")
        own: Options = dict(location.stage.file_format or {})
        reader = Reader.of(self._formats.resolve(context, _format(options) or own))
        return _Load(table, [(name, types[name]) for name in named], location, select, options, reader)

    def infer_schema(
        self, context: Context, service: QualifiedName | None, args: Sequence[Any], named: Mapping[str, Any]
    ) -> Result:
        """Answer ``TABLE(INFER_SCHEMA(LOCATION => '@stage', FILE_FORMAT => 'name'))``."""
        del service, args
        values = {key.upper(): value for key, value in named.items()}
        if not {"LOCATION", "FILE_FORMAT"} <= set(values):
            raise not_supported("INFER_SCHEMA without LOCATION or FILE_FORMAT")
        location = self._stages.locate(context, parse_stage(str(values["LOCATION"])), "READ")
        reader = Reader.of(self._formats.resolve(context, {"FORMAT_NAME": str(values["FILE_FORMAT"])}))
        staged = location.files()
        upper = str(values.get("IGNORE_CASE", "FALSE")).upper() == "TRUE"
        rows = []
        if staged:
            with context.session.running(context.query_id, context.cancelled):
                columns = reader.columns(context.session.engine.link, staged[0].file, typed=True)
            for index, (name, kind) in enumerate(columns):
                title = name.upper() if upper else name
                expression = (
                    f"$1:{name}::{_inferred(kind)}" if reader.kind == "PARQUET" else f"${index + 1}::{_inferred(kind)}"
                )
                rows.append((title, _inferred(kind), True, expression, location.label + staged[0].path, index))
        return Result(_INFERRED, rows, statement="select")


def _format(options: Options) -> Options:
    value = options.get("FILE_FORMAT", {})
    return value if isinstance(value, dict) else {"FORMAT_NAME": value}


def _refuse(options: Options) -> None:
    for key in _REFUSED:
        if key in options:
            raise not_supported(f"COPY INTO … {key}")
    if flag(options, "TRUNCATECOLUMNS", default=False):
        raise not_supported("COPY INTO … TRUNCATECOLUMNS")
    if str(options.get("ON_ERROR", "ABORT_STATEMENT")).upper() != "ABORT_STATEMENT":
        raise not_supported("COPY INTO … ON_ERROR other than ABORT_STATEMENT")


def _source(parser: Parser) -> tuple[str | None, StageReference]:
    """Parse ``@stage`` or ``( SELECT … FROM @stage )``; the items of the SELECT are returned as text."""
    if not parser.accept("("):
        return None, parser.stage()
    parser.expect("SELECT")
    start = parser.current.start
    while not (parser.looking_at("FROM") and parser.peek(1).kind in {"stage", "string", "bind"}):
        parser.next()
    items = parser.text[start : parser.current.start]
    parser.expect("FROM")
    reference = parser.stage()
    if not parser.looking_at(")"):
        parser.accept("AS")
        parser.identifier()
    parser.expect(")")
    return items, reference


def _chosen(load: _Load) -> list[StageFile]:
    pattern = str(load.options["PATTERN"]) if "PATTERN" in load.options else None
    staged = load.location.files(pattern)
    if "FILES" not in load.options:
        return staged
    base = load.location.path
    wanted = {base + name: name for name in texts(load.options["FILES"])}
    wanted |= {f"{base.rstrip('/')}/{name}".lstrip("/"): name for name in texts(load.options["FILES"])}
    chosen = [file for file in staged if file.path in wanted]
    missing = set(wanted.values()) - {wanted[file.path] for file in chosen}
    if missing:
        raise SnowflakeError(91016, "22000", f"Remote file '{base}{min(missing)}' was not found.")
    return chosen


@contextmanager
def _transaction(context: Context) -> Iterator[None]:
    """Load all files or none."""
    session = context.session.engine
    with nullcontext() if session.in_transaction else session.link.transaction():
        yield


def _load_file(context: Context, load: _Load, file: StageFile) -> tuple[Any, ...]:
    link, table = context.session.engine.link, load.table
    label = load.location.label + file.path
    stamp = f"{file.file}:{file.file.stat().st_mtime_ns}"
    history = f"{quoted(table.database or '')}._fs_information_schema._fs_load_history"
    temporary = context.session.engine.temporary.get(table.name) == (table.database, table.schema)
    if not temporary and not flag(load.options, "FORCE", default=False) and link.query(
        f"SELECT 1 FROM {history} WHERE file_name = ? AND table_name = ? AND schema_name = ?",
        [stamp, table.name, table.schema],
    ):  # fmt: skip
        return (label, "LOAD_SKIPPED", 0, 0, None, 1, "File was loaded before.", None, None, None)
    names, select = _select(context, load, file)
    target = f"temp.main.{quoted(table.name)}" if temporary else ".".join(
        quoted(part or "") for part in (table.database, table.schema, table.name)
    )  # fmt: skip
    columns = ", ".join(quoted(name) for name in names)
    count = int(link.query(f"INSERT INTO {target} ({columns}) {select}")[0][0])
    if not temporary:
        link.query(
            f"INSERT INTO {history} VALUES (?, ?, ?, now(), 'LOADED', ?, ?, NULL, NULL, NULL, NULL, 0, NULL)",
            [table.schema, stamp, table.name, count, count],
        )
    return (label, "LOADED", count, count, 1, 0, None, None, None, None)


def _select(context: Context, load: _Load, file: StageFile) -> tuple[list[str], str]:
    """Return the columns to fill and the query that yields their values."""
    link, reader = context.session.engine.link, load.reader
    source = reader.source(file.file)
    if load.select is not None:
        from airflow_provider_mljobs.emulator.sql.transformations import transformed

        return [name for name, _ in load.columns], transformed(link, load.select, reader, file.file, load.columns)
    columns = reader.columns(link, file.file)
    kinds = dict(columns)
    mode = str(load.options.get("MATCH_BY_COLUMN_NAME", "NONE")).upper()
    pairs = matched(columns, [name for name, _ in load.columns], mode) if mode != "NONE" else _positional(load, columns)
    targets = dict(load.columns)
    values = [
        f"to_json({value})" if targets[name] == "JSON" and kinds.get(value.strip('"')) != "JSON" else value
        for name, value in pairs.items()
    ]
    return list(pairs), f"SELECT {', '.join(values)} FROM {source} AS staged"


def _positional(load: _Load, columns: Sequence[tuple[str, str]]) -> dict[str, str]:
    names = [name for name, _ in load.columns]
    if load.reader.kind != "CSV":
        if len(names) != 1 or load.columns[0][1] != "JSON":
            raise SnowflakeError(
                2019,
                "0A000",
                f"SQL compilation error:\n{load.reader.kind} file format can produce one and only one column of type "
                "variant, object, or array. Load data into separate columns using the MATCH_BY_COLUMN_NAME copy option "
                "or copy with transformation.",
            )
        return {names[0]: "json" if load.reader.kind == "JSON" else "staged"}
    if len(columns) != len(names):
        raise SnowflakeError(
            100080,
            "22000",
            f"Number of columns in file ({len(columns)}) does not match that of the corresponding table "
            f"({len(names)}), "
            "use file format option error_on_column_count_mismatch=false to ignore this error",
        )
    return {name: quoted(source) for name, (source, _) in zip(names, columns, strict=True)}


_INFERRED_TYPES = {
    "BOOLEAN": "BOOLEAN", "DATE": "DATE", "TIME": "TIME", "TIMESTAMP": "TIMESTAMP_NTZ", "TIMESTAMP_NS": "TIMESTAMP_NTZ",
    "TIMESTAMP_MS": "TIMESTAMP_NTZ", "TIMESTAMP_S": "TIMESTAMP_NTZ", "TIMESTAMP WITH TIME ZONE": "TIMESTAMP_LTZ",
    "TIMESTAMPTZ_NS": "TIMESTAMP_LTZ",
    "DOUBLE": "REAL", "FLOAT": "REAL", "BLOB": "BINARY", "VARCHAR": "TEXT",
}  # fmt: skip


def _inferred(kind: str) -> str:
    if kind.startswith("DECIMAL("):
        return f"NUMBER{kind.removeprefix('DECIMAL')}"
    if kind.endswith("INT") or kind == "INTEGER":
        return "NUMBER(38, 0)"
    return _INFERRED_TYPES.get(kind, "VARIANT")
