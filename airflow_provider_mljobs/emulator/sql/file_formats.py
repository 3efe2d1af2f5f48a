"""File formats: named sets of options for COPY INTO and INFER_SCHEMA."""

# ruff: noqa: S608 statements of our own for DuckDB; names are quoted and values are bound
from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.errors import already_exists, does_not_exist
from airflow_provider_mljobs.emulator.listing import parse_listing
from airflow_provider_mljobs.emulator.options import Options, parse_options
from airflow_provider_mljobs.emulator.parsing import QualifiedName, parse_name
from airflow_provider_mljobs.emulator.registry import Statement
from airflow_provider_mljobs.emulator.results import Column, Result

if TYPE_CHECKING:
    from airflow_provider_mljobs.emulator.parsing import Parser
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.sql.engine import Engine

_TABLE = "_fs_global._fs_information_schema._fs_file_formats"
_STATUS = (Column("status"),)
_SHOW = (
    Column("created_on", "timestamp_ltz"),
    *(
        Column(name)
        for name in (
            "name", "database_name", "schema_name", "type", "owner", "comment", "format_options", "owner_role_type",
        )
    ),
)  # fmt: skip
_DESCRIBE = tuple(Column(name) for name in ("property", "property_type", "property_value", "property_default"))
_WHERE = "WHERE database_name = ? AND schema_name = ? AND name = ?"


def _find(context: Context, name: QualifiedName) -> Options | None:
    found = context.account.engine.query(
        f"SELECT options FROM {_TABLE} {_WHERE}", name.database, name.schema, name.name
    )
    return dict(json.loads(str(found[0][0]))) if found else None


def _delete(context: Context, name: QualifiedName) -> None:
    context.account.engine.change(f"DELETE FROM {_TABLE} {_WHERE}", name.database, name.schema, name.name)


def drop_all(engine: Engine, database: str, schema: str | None) -> None:
    """Drop the file formats of a schema, or of a whole database."""
    place = "WHERE database_name = ? AND schema_name = coalesce(?, schema_name)"
    engine.change(f"DELETE FROM {_TABLE} {place}", database, schema)


def file_format(context: Context, options: Options) -> Options:
    """Return the options of a ``FILE_FORMAT`` property: those of the named format, then those written beside it.

    :param options: what FILE_FORMAT holds.
    """
    name = options.get("FORMAT_NAME")
    named: Options = {}
    if name is not None:
        full = context.session.resolve(parse_name(str(name)), "FILE FORMAT")
        found = _find(context, full)
        if found is None:
            raise does_not_exist("File format", str(full))
        named = found
    return {**named, **{key: value for key, value in options.items() if key != "FORMAT_NAME"}}


def create_file_format(context: Context, parser: Parser) -> Result:
    """Run ``CREATE FILE FORMAT``."""
    words = {token.keyword for token in parser.tokens[: parser.position]}
    if_not_exists = parser.accept("IF", "NOT", "EXISTS")
    name = context.session.resolve(parser.qualified_name(), "CREATE FILE FORMAT")
    options = parse_options(parser)
    parser.expect_end()
    if not context.account.engine.schema_exists(name.database or "", name.schema or ""):
        raise does_not_exist("Schema", f"{name.database}.{name.schema}")
    if _find(context, name) is not None and "REPLACE" not in words:
        if not if_not_exists:
            raise already_exists(name.name)
        return Result.status(f"{name.name} already exists, statement succeeded.")
    _delete(context, name)
    comment = str(options.pop("COMMENT", ""))
    kind = str(options.setdefault("TYPE", "CSV")).upper()
    values: tuple[Any, ...] = (name.name, name.database, name.schema, kind, json.dumps(options), comment)
    context.account.engine.change(f"INSERT INTO {_TABLE} VALUES (now(), ?, ?, ?, ?, ?, ?)", *values)
    if words & {"TEMP", "TEMPORARY"}:
        context.session.engine.at_close(lambda: _delete(context, name))
    return Result.status(f"File format {name.name} successfully created.")


def drop_file_format(context: Context, parser: Parser) -> Result:
    """Run ``DROP FILE FORMAT``."""
    if_exists = parser.accept("IF", "EXISTS")
    name = context.session.resolve(parser.qualified_name(), "DROP FILE FORMAT")
    parser.expect_end()
    if _find(context, name) is None:
        if not if_exists:
            raise does_not_exist("File format", str(name))
        return Result.status(f"Drop statement executed successfully ({name.name} already dropped).")
    _delete(context, name)
    return Result.status(f"{name.name} successfully dropped.")


def show_file_formats(context: Context, parser: Parser) -> Result:
    """Run ``SHOW FILE FORMATS``."""
    listing = parse_listing(context, parser)
    found = context.account.engine.query(
        f"SELECT created_on, name, database_name, schema_name, type, comment, options FROM {_TABLE} ORDER BY 3, 4, 2"
    )
    covered = [row for row in found if listing.covers(str(row[2]), str(row[3]))]
    wanted = listing.names({str(row[1]) for row in covered})
    role = context.account.role
    rows = [(*row[:5], role, row[5], row[6], "ROLE") for row in covered if row[1] in wanted]
    return Result(_SHOW, rows, statement="show")


def describe_file_format(context: Context, parser: Parser) -> Result:
    """Run ``DESCRIBE FILE FORMAT``: the options that were set."""
    name = context.session.resolve(parser.qualified_name(), "DESCRIBE FILE FORMAT")
    parser.expect_end()
    options = _find(context, name)
    if options is None:
        raise does_not_exist("File format", str(name))
    return Result(_DESCRIBE, [(key, "String", str(value), "") for key, value in options.items()], statement="show")


_KINDS: tuple[tuple[str, ...], ...] = ((), ("TEMP",), ("TEMPORARY",), ("SCOPED", "TEMP"), ("SCOPED", "TEMPORARY"))
STATEMENTS = (
    *(
        Statement(
            ("CREATE", *replace, *kind, "FILE", "FORMAT"),
            create_file_format,
            _STATUS,
            "CREATE [ OR REPLACE ] [ TEMPORARY | TEMP ] FILE FORMAT [ IF NOT EXISTS ] <name> "
            "TYPE = { CSV | JSON | PARQUET } [ <option> = <value> … ]",
        )
        for replace in ((), ("OR", "REPLACE"))
        for kind in _KINDS
    ),
    Statement(("DROP", "FILE", "FORMAT"), drop_file_format, _STATUS, "DROP FILE FORMAT [ IF EXISTS ] <name>"),
    Statement(("SHOW", "FILE", "FORMATS"), show_file_formats, _SHOW, "SHOW FILE FORMATS [ LIKE '…' ] [ IN … ]"),
    *(
        Statement((verb, "FILE", "FORMAT"), describe_file_format, _DESCRIBE, "{ DESCRIBE | DESC } FILE FORMAT <name>")
        for verb in ("DESCRIBE", "DESC")
    ),
)
