"""Secrets and image repositories: no more than specifications of jobs need of them."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.errors import already_exists, does_not_exist, not_supported
from airflow_provider_mljobs.emulator.listing import parse_listing
from airflow_provider_mljobs.emulator.parsing import QualifiedName, parse_name
from airflow_provider_mljobs.emulator.registry import Extension, Statement
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.services.pools import moment
from airflow_provider_mljobs.emulator.services.specification import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_mljobs.emulator.parsing import Parser
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.services.history import History

_STATUS = (Column("status"),)
_BUILT_IN = "/snowflake/images/"
# What each type of secret hands to a container.
_KEYS = {
    "GENERIC_STRING": ("SECRET_STRING",),
    "PASSWORD": ("USERNAME", "PASSWORD"),
}
_REPOSITORY_COLUMNS = (
    Column("created_on", "timestamp_ltz"),
    Column("name"),
    Column("database_name"),
    Column("schema_name"),
    Column("repository_url"),
    Column("owner"),
    Column("owner_role_type"),
    Column("comment"),
)
_SECRET_COLUMNS = (
    Column("created_on", "timestamp_ltz"),
    Column("name"),
    Column("schema_name"),
    Column("database_name"),
    Column("owner"),
    Column("comment"),
    Column("secret_type"),
)


@dataclass(frozen=True)
class _Kind:
    """A kind of object: its words in SQL, and the properties that CREATE takes."""

    words: tuple[str, ...]
    label: str
    properties: frozenset[str]


_REPOSITORY = _Kind(("IMAGE", "REPOSITORY"), "Image repository", frozenset({"COMMENT", "ENCRYPTION"}))
_SECRET = _Kind(("SECRET",), "Secret", frozenset({"COMMENT", "TYPE", "SECRET_STRING", "USERNAME", "PASSWORD"}))


class Objects:
    """The objects of one kind, by name.

    :param history: where they survive a restart.
    """

    def __init__(self, kind: _Kind, history: History) -> None:
        self.kind = kind
        self._history = history
        self._lock = threading.Lock()
        self._records: dict[QualifiedName, dict[str, Any]] = {
            parse_name(name): json.loads(record) for name, record in history.objects(kind.label)
        }

    def get(self, name: QualifiedName) -> dict[str, Any] | None:
        """Return an object's record."""
        return self._records.get(name)

    def all(self) -> list[tuple[QualifiedName, dict[str, Any]]]:
        """Return all objects."""
        with self._lock:
            return list(self._records.items())

    def create(self, name: QualifiedName, record: dict[str, Any], *, or_replace: bool, if_not_exists: bool) -> str:
        """Make an object; return what CREATE says."""
        with self._lock:
            if name in self._records and if_not_exists:
                return f"{name.name} already exists, statement succeeded."
            if name in self._records and not or_replace:
                raise already_exists(name.name)
            self._records[name] = record
            self._history.save_object(self.kind.label, str(name), json.dumps(record))
        return f"{self.kind.label} {name.name} successfully created."

    def drop(self, name: QualifiedName, *, if_exists: bool) -> str:
        """Delete an object; return what DROP says."""
        with self._lock:
            if name in self._records:
                self._remove(name)
                return f"{name.name} successfully dropped."
        if not if_exists:
            raise does_not_exist(self.kind.label, str(name))
        return f"Drop statement executed successfully ({name.name} already dropped)."

    def drop_all(self, database: str, schema: str | None) -> None:
        """Delete the objects of a database or schema that was dropped."""
        with self._lock:
            for name in list(self._records):
                if name.database == database and schema in {None, name.schema}:
                    self._remove(name)

    def _remove(self, name: QualifiedName) -> None:
        del self._records[name]
        self._history.delete_object(self.kind.label, str(name))


class Repositories(Objects):
    """The image repositories. They hold no images: what runs is the machine's own software."""

    def __init__(self, history: History) -> None:
        super().__init__(_REPOSITORY, history)
        self.extension = _extension(self, _REPOSITORY_COLUMNS, _repository_row)

    def knows(self, image: str) -> bool:
        """Tell whether an image, ``/db/schema/repository/…``, could be pulled."""
        if image.startswith((_BUILT_IN, "cre@")):
            return True
        parts = [part.upper() for part in image.strip("/").split("/")[:3]]
        with self._lock:
            return any(
                [name.database, name.schema, name.name] == parts or str(name).upper() == ".".join(parts)
                for name in self._records
            )


class Secrets(Objects):
    """The secrets. They lie unencrypted in the emulator's files."""

    def __init__(self, history: History) -> None:
        super().__init__(_SECRET, history)
        self.extension = _extension(self, _SECRET_COLUMNS, _secret_row)

    def values(self, reference: Mapping[str, str], home: QualifiedName) -> dict[str, str]:
        """Return what a secret hands to a container; raises 2003 if there is no such secret."""
        if "objectName" not in reference:
            raise not_supported("A secret by objectReference")
        name = parse_name(reference["objectName"])
        full = QualifiedName(name.name, name.schema or home.schema, name.database or home.database)
        record = self.get(full)
        if record is None:
            raise does_not_exist("Secret", str(full))
        return {key.lower(): str(record.get(key, "")) for key in _KEYS[record["TYPE"]]}


def _extension(objects: Objects, columns: tuple[Column, ...], row: Any) -> Extension:
    words = objects.kind.words
    text = " ".join(words)
    plural = (*words[:-1], "REPOSITORIES" if words[-1] == "REPOSITORY" else f"{words[-1]}S")

    def create(context: Context, parser: Parser) -> Result:
        return _create(objects, context, parser, or_replace=False)

    def replace(context: Context, parser: Parser) -> Result:
        return _create(objects, context, parser, or_replace=True)

    def drop(context: Context, parser: Parser) -> Result:
        if_exists = parser.accept("IF", "EXISTS")
        name = context.session.resolve(parser.qualified_name(), f"DROP {text}")
        parser.expect_end()
        return Result.status(objects.drop(name, if_exists=if_exists))

    def show(context: Context, parser: Parser) -> Result:
        listing = parse_listing(context, parser)
        covered = {
            str(name): (name, record)
            for name, record in objects.all()
            if listing.covers(name.database or "", name.schema or "")
        }
        allowed = set(listing.names(name.name for name, _ in covered.values()))
        rows = [row(*covered[key]) for key in sorted(covered) if covered[key][0].name in allowed]
        return Result(columns, rows, statement="show")

    syntax = f"CREATE [OR REPLACE] {text} [IF NOT EXISTS] <name> [<property> = <value> …]"
    listing_syntax = f"SHOW {' '.join(plural)} [LIKE '<pattern>'] [IN …]"
    return Extension(
        statements=(
            Statement(("CREATE", *words), create, _STATUS, syntax),
            Statement(("CREATE", "OR", "REPLACE", *words), replace, _STATUS, syntax),
            Statement(("DROP", *words), drop, _STATUS, f"DROP {text} [IF EXISTS] <name>"),
            Statement(("SHOW", *plural), show, columns, listing_syntax),
        )
    )


def _create(objects: Objects, context: Context, parser: Parser, *, or_replace: bool) -> Result:
    if_not_exists = parser.accept("IF", "NOT", "EXISTS")
    name = context.session.resolve(parser.qualified_name(), f"CREATE {' '.join(objects.kind.words)}")
    if not context.account.engine.schema_exists(name.database or "", name.schema or ""):
        raise does_not_exist("Schema", f"{name.database}.{name.schema}")
    record: dict[str, Any] = {"created_on": context.account.now(), "owner": context.session.role}
    while not parser.at_end():
        key = parser.identifier()
        if key not in objects.kind.properties:
            raise parser.error()
        parser.expect("=")
        record[key] = _property(parser)
    if objects.kind is _SECRET and record.get("TYPE") not in _KEYS:
        raise not_supported(f"A secret of type {record.get('TYPE')}")
    text = objects.create(name, record, or_replace=or_replace, if_not_exists=if_not_exists)
    context.account.services.flush()
    return Result.status(text)


def _property(parser: Parser) -> str:
    if parser.current.kind in {"string", "bind"}:
        return parser.string()
    if not parser.accept("("):
        return parser.identifier()
    words = []
    while not parser.accept(")"):
        words.append(parser.next().text)
    return "".join(words)


def _repository_row(name: QualifiedName, record: Mapping[str, Any]) -> tuple[Any, ...]:
    url = "/".join([REGISTRY, *(str(part).lower() for part in (name.database, name.schema, name.name))])
    created, owner = moment(record["created_on"]), record["owner"]
    return (created, name.name, name.database, name.schema, url, owner, "ROLE", record.get("COMMENT", ""))


def _secret_row(name: QualifiedName, record: Mapping[str, Any]) -> tuple[Any, ...]:
    created, owner = moment(record["created_on"]), record["owner"]
    return (created, name.name, name.schema, name.database, owner, record.get("COMMENT"), record["TYPE"])
