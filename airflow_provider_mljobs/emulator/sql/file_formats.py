"""File formats: named sets of options for COPY INTO and INFER_SCHEMA."""

# ruff: noqa: S608 statements of our own for DuckDB; names are quoted and values are bound
from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.access.needs import creates
from airflow_provider_mljobs.emulator.errors import already_exists, does_not_exist
from airflow_provider_mljobs.emulator.identity import ROLE
from airflow_provider_mljobs.emulator.listing import parse_listing
from airflow_provider_mljobs.emulator.options import Options, parse_options
from airflow_provider_mljobs.emulator.parsing import QualifiedName, parse_name
from airflow_provider_mljobs.emulator.registry import Extension, Statement
from airflow_provider_mljobs.emulator.results import Column, Result

if TYPE_CHECKING:
    from airflow_provider_mljobs.emulator.parsing import Parser
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.sql.catalog import Catalog

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
_KINDS: tuple[tuple[str, ...], ...] = ((), ("TEMP",), ("TEMPORARY",), ("SCOPED", "TEMP"), ("SCOPED", "TEMPORARY"))
_WHERE = "WHERE database_name = ? AND schema_name = ? AND name = ?"


class FileFormats:
    """The file formats of the account.

    :param catalog: the databases of the account.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    @property
    def extension(self) -> Extension:
        """The statements."""
        return Extension(
            statements=(
                *(
                    Statement(
                        ("CREATE", *replace, *kind, "FILE", "FORMAT"),
                        self.create,
                        _STATUS,
                        "CREATE [ OR REPLACE ] [ TEMPORARY | TEMP ] FILE FORMAT [ IF NOT EXISTS ] <name> "
                        "TYPE = { CSV | JSON | PARQUET } [ <option> = <value> … ]",
                        () if kind else creates("FILE FORMAT"),
                    )
                    for replace in ((), ("OR", "REPLACE"))
                    for kind in _KINDS
                ),
                Statement(("DROP", "FILE", "FORMAT"), self.drop, _STATUS, "DROP FILE FORMAT [ IF EXISTS ] <name>"),
                Statement(("SHOW", "FILE", "FORMATS"), self.show, _SHOW, "SHOW FILE FORMATS [ LIKE '…' ] [ IN … ]"),
                *(
                    Statement(
                        (verb, "FILE", "FORMAT"), self.describe, _DESCRIBE, "{ DESCRIBE | DESC } FILE FORMAT <name>"
                    )
                    for verb in ("DESCRIBE", "DESC")
                ),
            )
        )

    def _find(self, name: QualifiedName) -> Options | None:
        rows = self._catalog.query(f"SELECT options FROM {_TABLE} {_WHERE}", name.database, name.schema, name.name)
        return dict(json.loads(str(rows[0][0]))) if rows else None

    def _delete(self, name: QualifiedName) -> None:
        self._catalog.change(f"DELETE FROM {_TABLE} {_WHERE}", name.database, name.schema, name.name)

    def drop_all(self, database: str, schema: str | None) -> None:
        """Drop the file formats of a schema, or of a whole database."""
        place = "WHERE database_name = ? AND schema_name = coalesce(?, schema_name)"
        self._catalog.change(f"DELETE FROM {_TABLE} {place}", database, schema)

    def resolve(self, context: Context, options: Options) -> Options:
        """Return the options of a ``FILE_FORMAT`` property: those of the named format, then those written beside it.

        :param options: the value of FILE_FORMAT.
        """
        name = options.get("FORMAT_NAME")
        named: Options = {}
        if name is not None:
            full = context.session.resolve(parse_name(str(name)), "FILE FORMAT")
            stored = self._find(full)
            if stored is None:
                raise does_not_exist("File format", str(full))
            named = stored
        return {**named, **{key: value for key, value in options.items() if key != "FORMAT_NAME"}}

    def create(self, context: Context, parser: Parser) -> Result:
        """Run ``CREATE FILE FORMAT``."""
        words = {token.keyword for token in parser.tokens[: parser.position]}
        if_not_exists = parser.accept("IF", "NOT", "EXISTS")
        name = context.session.resolve(parser.qualified_name(), "CREATE FILE FORMAT")
        options = parse_options(parser)
        parser.expect_end()
        self._catalog.check_schema(name.database, name.schema)
        if self._find(name) is not None and "REPLACE" not in words:
            if not if_not_exists:
                raise already_exists(name.name)
            return Result.status(f"{name.name} already exists, statement succeeded.")
        self._delete(name)
        comment = str(options.pop("COMMENT", ""))
        kind = str(options.setdefault("TYPE", "CSV")).upper()
        values: tuple[Any, ...] = (name.name, name.database, name.schema, kind, json.dumps(options), comment)
        self._catalog.change(f"INSERT INTO {_TABLE} VALUES (now(), ?, ?, ?, ?, ?, ?)", *values)
        if words & {"TEMP", "TEMPORARY"}:
            context.session.engine.at_close(lambda: self._delete(name))
        return Result.status(f"File format {name.name} successfully created.")

    def drop(self, context: Context, parser: Parser) -> Result:
        """Run ``DROP FILE FORMAT``."""
        if_exists = parser.accept("IF", "EXISTS")
        name = context.session.resolve(parser.qualified_name(), "DROP FILE FORMAT")
        parser.expect_end()
        if self._find(name) is None:
            if not if_exists:
                raise does_not_exist("File format", str(name))
            return Result.status(f"Drop statement executed successfully ({name.name} already dropped).")
        self._delete(name)
        return Result.status(f"{name.name} successfully dropped.")

    def show(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW FILE FORMATS``."""
        listing = parse_listing(context, parser, self._catalog)
        columns = "created_on, name, database_name, schema_name, type, comment, options"
        formats = self._catalog.query(f"SELECT {columns} FROM {_TABLE} ORDER BY 3, 4, 2")
        covered = [row for row in formats if listing.covers(str(row[2]), str(row[3]))]
        wanted = listing.names({str(row[1]) for row in covered})
        rows = [(*row[:5], ROLE, row[5], row[6], "ROLE") for row in covered if row[1] in wanted]
        return Result(_SHOW, rows, statement="show")

    def describe(self, context: Context, parser: Parser) -> Result:
        """Run ``DESCRIBE FILE FORMAT``: the options that were set."""
        name = context.session.resolve(parser.qualified_name(), "DESCRIBE FILE FORMAT")
        parser.expect_end()
        options = self._find(name)
        if options is None:
            raise does_not_exist("File format", str(name))
        return Result(_DESCRIBE, [(key, "String", str(value), "") for key, value in options.items()], statement="show")
