"""Statements about stages and their files, except PUT and GET."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator import errors
from airflow_provider_mljobs.emulator.access.needs import creates, located, of, owned
from airflow_provider_mljobs.emulator.listing import parse_listing
from airflow_provider_mljobs.emulator.options import Options, flag, parse_options, texts
from airflow_provider_mljobs.emulator.registry import Extension, Statement
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.stages.files import Stage, copy, inside, remove

if TYPE_CHECKING:
    from airflow_provider_mljobs.emulator.parsing import Parser, QualifiedName
    from airflow_provider_mljobs.emulator.registry import Context, Handler
    from airflow_provider_mljobs.emulator.sql.catalog import Catalog
    from airflow_provider_mljobs.emulator.stages.files import Location, StageFile
    from airflow_provider_mljobs.emulator.stages.store import Stages

STATUS = (Column("status"),)
_LIST = (Column("name"), Column("size", "fixed", precision=38, scale=0), Column("md5"), Column("last_modified"))
_REMOVE = (Column("name"), Column("result"))
_DESCRIBE = tuple(
    Column(name)
    for name in ("parent_property", "property", "property_type", "property_value", "property_default")
)  # fmt: skip
_SHOW = (
    Column("created_on", "timestamp_ltz"),
    *(
        Column(name)
        for name in (
            "name", "database_name", "schema_name", "url", "has_credentials", "has_encryption_key", "owner", "comment",
            "region", "type", "cloud", "notification_channel", "storage_integration", "endpoint", "owner_role_type",
            "directory_enabled",
        )
    ),
)  # fmt: skip
_KINDS: tuple[tuple[str, ...], ...] = (
    (), ("TEMPORARY",), ("TEMP",), ("SCOPED", "TEMPORARY"), ("SCOPED", "TEMP"), ("LOCAL", "TEMPORARY"),
    ("LOCAL", "TEMP"),
)  # fmt: skip
_CREATE_SYNTAX = (
    "CREATE [ OR REPLACE ] [ TEMPORARY | TEMP | SCOPED TEMPORARY ] STAGE [ IF NOT EXISTS ] <name> "
    "[ ENCRYPTION = ( TYPE = '…' ) ] [ DIRECTORY = ( ENABLE = … ) ] [ FILE_FORMAT = ( … ) ] [ COMMENT = '…' ]"
)
_ALTER_SYNTAX = "ALTER STAGE [ IF EXISTS ] <name> { SET [ COMMENT = '…' ] [ DIRECTORY = ( ENABLE = … ) ] | REFRESH }"
_SHOW_SYNTAX = (
    "SHOW STAGES [ LIKE '…' ] [ IN { ACCOUNT | DATABASE [ <db> ] | SCHEMA [ <schema> ] | <name> } ] "
    "[ STARTS WITH '…' ] [ LIMIT <n> [ FROM '…' ] ]"
)
_FILES_SYNTAX = "@<stage>[/<path>] [ PATTERN = '…' ]"
_COPY_SYNTAX = (
    "COPY FILES INTO @<stage>[/<path>/] FROM @<stage>[/<path>] [ FILES = ( '…' ) ] [ PATTERN = '…' ] "
    "[ DETAILED_OUTPUT = { TRUE | FALSE } ]"
)
_PROPERTIES = {"ENCRYPTION", "DIRECTORY", "FILE_FORMAT", "COPY_OPTIONS", "COMMENT"}
_EXTERNAL = {"URL", "STORAGE_INTEGRATION", "CREDENTIALS", "ENDPOINT"}


def _stage_name(context: Context, parser: Parser, command: str) -> QualifiedName:
    return context.session.resolve(parser.qualified_name(), command)


def _properties(parser: Parser) -> Options:
    """Parse a stage's properties; those of external stages are refused."""
    options = parse_options(parser, _PROPERTIES | _EXTERNAL, "STAGE")
    parser.accept("WITH")
    parser.expect_end()
    if not _EXTERNAL.isdisjoint(options):
        raise errors.not_supported("an external stage")
    return options


def _nested(options: Options, key: str) -> Options:
    value = options.get(key, {})
    return value if isinstance(value, dict) else {}


class StageStatements:
    """Statements about stages and their files, except PUT and GET.

    :param catalog: the databases of the account.
    :param stages: its stages.
    """

    def __init__(self, catalog: Catalog, stages: Stages) -> None:
        self._catalog = catalog
        self._stages = stages

    @property
    def extension(self) -> Extension:
        """The statements."""
        return Extension(
            statements=(
                *(
                    Statement(
                        ("CREATE", *prefix, *kind, "STAGE"),
                        self.create,
                        STATUS,
                        _CREATE_SYNTAX,
                        () if kind else creates("STAGE", *prefix),
                    )
                    for prefix in ((), ("OR", "REPLACE"))
                    for kind in _KINDS
                ),
                Statement(("DROP", "STAGE"), self.drop, STATUS, "DROP STAGE [ IF EXISTS ] <name>", owned("STAGE")),
                Statement(("ALTER", "STAGE"), self.alter, STATUS, _ALTER_SYNTAX, owned("STAGE")),
                *(
                    Statement(
                        (verb, "STAGE"), self.describe, _DESCRIBE, "{ DESCRIBE | DESC } STAGE <name>", of("STAGE")
                    )
                    for verb in ("DESCRIBE", "DESC")
                ),
                Statement(("SHOW", "STAGES"), self.show, _SHOW, _SHOW_SYNTAX),
                *_each(("LIST", "LS"), self.list, _LIST, f"{{ LIST | LS }} {_FILES_SYNTAX}"),
                *_each(("REMOVE", "RM"), self.remove, _REMOVE, f"{{ REMOVE | RM }} {_FILES_SYNTAX}"),
                Statement(("COPY", "FILES", "INTO"), self.copy, (Column("file"),), _COPY_SYNTAX),
            )
        )

    def create(self, context: Context, parser: Parser) -> Result:
        """Run ``CREATE STAGE``; OR REPLACE and TEMPORARY are among the keywords that the router has read."""
        or_replace = parser.tokens[1].keyword == "OR"
        temporary = any(token.keyword in {"TEMP", "TEMPORARY"} for token in parser.tokens[: parser.position])
        if_not_exists = parser.accept("IF", "NOT", "EXISTS")
        name = _stage_name(context, parser, "CREATE STAGE")
        options = _properties(parser)
        self._catalog.check_schema(name.database, name.schema)
        stages = self._stages
        if if_not_exists and stages.get(name) is not None:
            return Result.status(f"{name.name} already exists, statement succeeded.")
        file_format = _nested(options, "FILE_FORMAT")
        stage = Stage(
            created_on=time.time(),
            comment=str(options.get("COMMENT", "")),
            temporary=temporary,
            directory=flag(_nested(options, "DIRECTORY"), "ENABLE", default=False),
            encryption=str(_nested(options, "ENCRYPTION").get("TYPE", "SNOWFLAKE_FULL")),
            file_format=dict(file_format) or None,  # type: ignore[arg-type]
        )
        stages.create(name, stage, or_replace=or_replace)
        context.session.rights.created(located("STAGE", name))
        if temporary:
            context.session.engine.at_close(lambda: stages.drop(name))
        return Result.status(f"Stage area {name.name} successfully created.")

    def drop(self, context: Context, parser: Parser) -> Result:
        """Run ``DROP STAGE``."""
        if_exists = parser.accept("IF", "EXISTS")
        name = _stage_name(context, parser, "DROP STAGE")
        parser.expect_end()
        if self._stages.drop(name):
            context.session.rights.dropped(located("STAGE", name))
            return Result.status(f"{name.name} successfully dropped.")
        if if_exists:
            return Result.status(f"Drop statement executed successfully ({name.name} already dropped).")
        raise errors.does_not_exist("Stage", str(name))

    def alter(self, context: Context, parser: Parser) -> Result:
        """Run ``ALTER STAGE … SET COMMENT / DIRECTORY`` and ``… REFRESH``."""
        if_exists = parser.accept("IF", "EXISTS")
        name = _stage_name(context, parser, "ALTER STAGE")
        stages = self._stages
        if stages.get(name) is None:
            if if_exists:
                return Result.status("Statement executed successfully.")
            raise errors.does_not_exist("Stage", str(name))
        if parser.accept("REFRESH"):
            return Result.status("Statement executed successfully.")
        if not parser.accept("SET"):
            raise errors.not_supported("ALTER STAGE without SET")
        options = _properties(parser)
        if not options.keys() <= {"COMMENT", "DIRECTORY"}:
            raise errors.not_supported("ALTER STAGE SET other than COMMENT and DIRECTORY")
        comment = str(options["COMMENT"]) if "COMMENT" in options else None
        directory = flag(_nested(options, "DIRECTORY"), "ENABLE", default=False) if "DIRECTORY" in options else None
        stages.alter(name, comment=comment, directory=directory)
        return Result.status("Statement executed successfully.")

    def describe(self, context: Context, parser: Parser) -> Result:
        """Run ``DESCRIBE STAGE``; raises 2003 for a missing stage, which clients rely on."""
        name = _stage_name(context, parser, "DESCRIBE STAGE")
        parser.expect_end()
        stage = self._stages.get(name)
        if stage is None:
            raise errors.does_not_exist("Stage", str(name))
        file_format = {"TYPE": "CSV", **(stage.file_format or {})}
        rows = [
            ("STAGE_FILE_FORMAT", key, _type_name(value), str(value), "CSV" if key == "TYPE" else "")
            for key, value in file_format.items()
        ]
        rows.append(("STAGE_LOCATION", "URL", "String", "", ""))
        rows.append(("STAGE_ENCRYPTION", "TYPE", "String", stage.encryption, "SNOWFLAKE_FULL"))
        rows.append(("DIRECTORY", "ENABLE", "Boolean", str(stage.directory).lower(), "false"))
        return Result(_DESCRIBE, rows, statement="show")

    def show(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW STAGES``."""
        listing = parse_listing(context, parser, self._catalog)
        rights = context.session.rights
        covered = {
            name: stage
            for name, stage in self._stages.all().items()
            if listing.covers(name.database or "", name.schema or "") and rights.sees(located("STAGE", name))
        }
        names = listing.names({name.name for name in covered})
        rows = [
            _row(name, stage, rights.owner_of(located("STAGE", name)))
            for name, stage in sorted(covered.items(), key=lambda item: str(item[0]))
            if name.name in names
        ]
        return Result(_SHOW, rows, statement="show")

    def _files(self, context: Context, parser: Parser, privilege: str) -> tuple[Location, list[StageFile]]:
        """Parse ``@stage/path [PATTERN = '…']`` and find the files."""
        location = self._stages.locate(context, parser.stage(), privilege)
        options = parse_options(parser, {"PATTERN"}, "LIST")
        parser.expect_end()
        pattern = str(options["PATTERN"]) if "PATTERN" in options else None
        return location, location.files(pattern)

    def list(self, context: Context, parser: Parser) -> Result:
        """Run ``LIST @stage``."""
        location, listed = self._files(context, parser, "READ")
        rows = [(location.label + file.path, file.size, file.md5, file.last_modified) for file in listed]
        return Result(_LIST, rows, statement="show")

    def remove(self, context: Context, parser: Parser) -> Result:
        """Run ``REMOVE @stage``."""
        location, listed = self._files(context, parser, "WRITE")
        for file in listed:
            remove(location.directory, file)
        return Result(_REMOVE, [(location.label + file.path, "removed") for file in listed])

    def copy(self, context: Context, parser: Parser) -> Result:
        """Run ``COPY FILES INTO @a/p/ FROM @b/q``."""
        target = self._stages.locate(context, parser.stage(), "WRITE")
        parser.expect("FROM")
        if parser.looking_at("("):
            raise errors.not_supported("COPY FILES from a query")
        source = self._stages.locate(context, parser.stage(), "READ")
        options = parse_options(parser, {"FILES", "PATTERN", "DETAILED_OUTPUT"}, "COPY FILES")
        parser.expect_end()
        copied = []
        for file, relative in _chosen(source, options):
            path = f"{target.path.rstrip('/')}/{relative}".lstrip("/")
            place = inside(target.directory, path)
            copy(file, place)
            target.arrivals.uploaded([place])
            copied.append((path,))
        if flag(options, "DETAILED_OUTPUT", default=True):
            return Result((Column("file"),), copied)
        return Result((Column("number of files copied", "fixed", precision=38, scale=0),), [(len(copied),)])


def _type_name(value: object) -> str:
    return {bool: "Boolean", int: "Integer", list: "List"}.get(type(value), "String")


def _row(name: QualifiedName, stage: Stage, owner: str) -> tuple[object, ...]:
    created = datetime.fromtimestamp(stage.created_on, tz=UTC)
    kind = "INTERNAL TEMPORARY" if stage.temporary else "INTERNAL"
    if stage.encryption == "SNOWFLAKE_SSE":
        # No client-side encryption.
        kind += " NO CSE"
    enabled = "Y" if stage.directory else "N"
    return (
        created, name.name, name.database, name.schema, "", "N", "N", owner, stage.comment,
        None, kind, None, None, None, None, "ROLE", enabled,
    )  # fmt: skip


def _chosen(source: Location, options: Options) -> list[tuple[StageFile, str]]:
    """Return the files to copy, each with its path below the source path."""
    pattern = str(options["PATTERN"]) if "PATTERN" in options else None
    candidates = source.files(pattern)
    base = source.path if source.path.endswith("/") or not source.path else f"{source.path}/"
    parent = source.path.rpartition("/")[0]
    relatives = [
        (file, file.path.removeprefix(base if file.path.startswith(base) else f"{parent}/" if parent else ""))
        for file in candidates
    ]
    if "FILES" not in options:
        return relatives
    wanted = texts(options["FILES"])
    missing = set(wanted) - {relative for _, relative in relatives}
    if missing:
        # The number of COPY INTO for a missing file, from memory.
        raise errors.SnowflakeError(91016, "22000", f"Remote file '{min(missing)}' was not found.")
    return [(file, relative) for file, relative in relatives if relative in wanted]


def _each(verbs: tuple[str, ...], handler: Handler, columns: tuple[Column, ...], syntax: str) -> list[Statement]:
    return [Statement(tuple(words.split()), handler, columns, syntax) for words in verbs]
