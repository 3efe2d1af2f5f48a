"""Named objects that jobs refer to: the CREATE, DROP and SHOW that their kinds share."""

from __future__ import annotations

import json
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_mljobs.emulator.access.grants import Securable
from airflow_provider_mljobs.emulator.access.needs import creates, located, owned
from airflow_provider_mljobs.emulator.errors import SnowflakeError, already_exists, does_not_exist
from airflow_provider_mljobs.emulator.listing import parse_listing
from airflow_provider_mljobs.emulator.options import parse_options
from airflow_provider_mljobs.emulator.parsing import QualifiedName, parse_name
from airflow_provider_mljobs.emulator.registry import Extension, Statement
from airflow_provider_mljobs.emulator.results import Column, Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_mljobs.emulator.parsing import Parser
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.spcs.state_file import StateFile
    from airflow_provider_mljobs.emulator.sql.catalog import Catalog

_STATUS = (Column("status"),)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of object.

    :param words: its words in SQL.
    :param plural: the last of them in SHOW.
    :param label: its name in messages.
    :param properties: the properties that CREATE accepts.
    :param required: those that CREATE requires.
    :param columns: the columns of SHOW.
    :param in_schema: whether its objects belong to a schema; otherwise to the account.
    :param optional: whether CREATE accepts IF NOT EXISTS.
    """

    words: tuple[str, ...]
    plural: str
    label: str
    properties: frozenset[str]
    columns: tuple[Column, ...]
    required: tuple[str, ...] = ()
    in_schema: bool = True
    optional: bool = True

    @property
    def text(self) -> str:
        """The words as one text."""
        return " ".join(self.words)

    @property
    def securable(self) -> str:
        """The kind in GRANT: the words, or the last of them for an integration."""
        return self.text if self.in_schema else self.words[-1]


class Objects(ABC):
    """The objects of one kind, by name.

    :param state: where they survive a restart.
    :param catalog: the databases of the account.
    """

    kind: ClassVar[Kind]

    def __init__(self, state: StateFile, catalog: Catalog) -> None:
        self._state = state
        self._catalog = catalog
        self._lock = threading.Lock()
        self._records: dict[QualifiedName, dict[str, Any]] = {
            parse_name(name): json.loads(record) for name, record in state.objects(self.kind.label)
        }

    @abstractmethod
    def row(self, name: QualifiedName, record: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return an object's row of SHOW."""

    def check(self, context: Context, record: dict[str, Any]) -> None:  # noqa: ARG002 - for kinds that resolve names
        """Raise if CREATE can't accept the properties; for all kinds, if a required one is missing."""
        missing = [key for key in self.kind.required if key not in record]
        if missing:
            # The number is from memory.
            raise SnowflakeError(2029, "42601", f"SQL compilation error:\nMissing option(s): [{', '.join(missing)}]")

    def get(self, name: QualifiedName) -> dict[str, Any]:
        """Return an object's record; raises 2003 if no object has that name."""
        record = self._records.get(name)
        if record is None:
            raise does_not_exist(self.kind.label, str(name))
        return record

    def all(self) -> list[tuple[QualifiedName, dict[str, Any]]]:
        """Return all objects."""
        with self._lock:
            return list(self._records.items())

    def drop_all(self, database: str, schema: str | None) -> None:
        """Delete the objects of a database or schema that was dropped."""
        with self._lock:
            for name in list(self._records):
                if name.database == database and schema in {None, name.schema}:
                    self._remove(name)

    def _remove(self, name: QualifiedName) -> None:
        del self._records[name]
        self._state.delete_object(self.kind.label, str(name))

    # Statements.

    @property
    def extension(self) -> Extension:
        """The statements of the kind."""
        kind = self.kind
        plural = (*kind.words[:-1], kind.plural)
        create = (
            f"CREATE [OR REPLACE] {kind.text} {'[IF NOT EXISTS] ' if kind.optional else ''}<name> "
            + " ".join(f"{key} = <value>" for key in kind.required)
            + (" " if kind.required else "")
            + "[<property> = <value> …]"
        )
        show = f"SHOW {' '.join(plural)} [LIKE '<pattern>']{' [IN …]' if kind.in_schema else ''}"
        return Extension(
            statements=(
                Statement(("CREATE", *kind.words), self._create, _STATUS, create, creates(kind.securable)),
                Statement(
                    ("CREATE", "OR", "REPLACE", *kind.words),
                    self._replace,
                    _STATUS,
                    create,
                    creates(kind.securable, "OR", "REPLACE"),
                ),
                Statement(
                    ("DROP", *kind.words),
                    self._drop,
                    _STATUS,
                    f"DROP {kind.text} [IF EXISTS] <name>",
                    owned(kind.securable),
                ),
                Statement(("SHOW", *plural), self._show, kind.columns, show),
            )
        )

    def _create(self, context: Context, parser: Parser) -> Result:
        return self._make(context, parser, or_replace=False)

    def _replace(self, context: Context, parser: Parser) -> Result:
        return self._make(context, parser, or_replace=True)

    def _make(self, context: Context, parser: Parser, *, or_replace: bool) -> Result:
        kind = self.kind
        if_not_exists = kind.optional and parser.accept("IF", "NOT", "EXISTS")
        name = self._name(context, parser, f"CREATE {kind.text}")
        if kind.in_schema:
            self._catalog.check_schema(name.database, name.schema)
        record: dict[str, Any] = {"created_on": time.time(), "owner": context.session.role}
        record |= parse_options(parser, kind.properties, kind.text)
        parser.expect_end()
        self.check(context, record)
        with self._lock:
            if name in self._records and if_not_exists:
                return Result.status(f"{name.name} already exists, statement succeeded.")
            if name in self._records and not or_replace:
                raise already_exists(name.name)
            self._records[name] = record
            self._state.save_object(kind.label, str(name), json.dumps(record))
        context.session.rights.created(self._on(name))
        self._state.flush()
        return Result.status(f"{kind.label} {name.name} successfully created.")

    def _drop(self, context: Context, parser: Parser) -> Result:
        if_exists = parser.accept("IF", "EXISTS")
        name = self._name(context, parser, f"DROP {self.kind.text}")
        parser.expect_end()
        with self._lock:
            if name in self._records:
                self._remove(name)
                context.session.rights.dropped(self._on(name))
                return Result.status(f"{name.name} successfully dropped.")
        if not if_exists:
            raise does_not_exist(self.kind.label, str(name))
        return Result.status(f"Drop statement executed successfully ({name.name} already dropped).")

    def _show(self, context: Context, parser: Parser) -> Result:
        listing = parse_listing(context, parser, self._catalog, levels=2 if self.kind.in_schema else 0)
        rights = context.session.rights
        covered = {
            str(name): (name, record | {"owner": rights.owner_of(self._on(name))})
            for name, record in self.all()
            if not self.kind.in_schema or listing.covers(name.database or "", name.schema or "")
            if rights.sees(self._on(name))
        }
        allowed = set(listing.names(name.name for name, _ in covered.values()))
        rows = [self.row(*covered[key]) for key in sorted(covered) if covered[key][0].name in allowed]
        return Result(self.kind.columns, rows, statement="show")

    def _on(self, name: QualifiedName) -> Securable:
        """Return an object as one that privileges are granted on."""
        return (
            located(self.kind.securable, name) if self.kind.in_schema else Securable(self.kind.securable, (name.name,))
        )

    def owner(self, path: tuple[str, ...]) -> str | None:
        """Return the role that made an object; ``None`` if it doesn't exist."""
        record = self._records.get(QualifiedName(*reversed(path)))
        return None if record is None else str(record["owner"])

    def _name(self, context: Context, parser: Parser, command: str) -> QualifiedName:
        name = parser.qualified_name()
        if self.kind.in_schema:
            return context.session.resolve(name, command)
        if name.schema is not None:
            raise parser.error()
        return name
