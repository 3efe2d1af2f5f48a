"""The stages of the account: each a directory, with a file of its properties beside it. They survive a restart."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.access.needs import located
from airflow_provider_mljobs.emulator.errors import already_exists, does_not_exist
from airflow_provider_mljobs.emulator.identity import ROLE
from airflow_provider_mljobs.emulator.parsing import QualifiedName
from airflow_provider_mljobs.emulator.stages.arrivals import Arrivals
from airflow_provider_mljobs.emulator.stages.files import Location, Stage, decode, encode, inside

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_mljobs.emulator.access.rights import Access
    from airflow_provider_mljobs.emulator.parsing import StageReference
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.sessions import Session

_USER_STAGE = "~"


class Stages:
    """The stages of the account.

    :param directory: their directory: ``<database>/<schema>/<stage>/…``, with encoded names.
    :param lag: seconds until statements see the files that containers write.
    """

    def __init__(self, directory: Path, lag: float = 0.0) -> None:
        self._directory = directory
        self.arrivals = Arrivals(lag)
        self._lock = threading.RLock()
        directory.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.scratch, ignore_errors=True)
        for name, stage in self.all().items():
            if stage.temporary:
                self._remove(name)

    @property
    def scratch(self) -> Path:
        """A directory beside the stages for uploads that a PUT discards."""
        return self._directory / ".scratch"

    def all(self) -> dict[QualifiedName, Stage]:
        """Return every named stage."""
        stages = {}
        with self._lock:
            for file in sorted(self._directory.glob("*/*/*.json")):
                schema = file.parent
                name = QualifiedName(decode(file.stem), decode(schema.name), decode(schema.parent.name))
                stages[name] = Stage(**json.loads(file.read_text(encoding="utf-8")))
        return stages

    def register(self, access: Access) -> None:
        """Make the stages known to the account's rights."""
        access.register("STAGE", lambda path: None if self.get(QualifiedName(*reversed(path))) is None else ROLE)

    def paths(self) -> list[tuple[str, ...]]:
        """Return database, schema and name of every named stage."""
        return [name.path for name in self.all()]

    def get(self, name: QualifiedName) -> Stage | None:
        """Return a stage's properties, or ``None`` if it doesn't exist."""
        with self._lock:
            file = self._properties(name)
            return Stage(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None

    def create(self, name: QualifiedName, stage: Stage, *, or_replace: bool = False) -> None:
        """Create a stage; raises 2002 if the name is taken, unless it replaces the other."""
        with self._lock:
            if self.get(name) is not None:
                if not or_replace:
                    raise already_exists(name.name)
                self._remove(name)
            self._place(name).mkdir(parents=True, exist_ok=True)
            self._write(name, stage)

    def alter(self, name: QualifiedName, *, comment: str | None = None, directory: bool | None = None) -> None:
        """Change a stage's properties."""
        with self._lock:
            stage = self.get(name)
            if stage is None:
                raise does_not_exist("Stage", str(name))
            comment = stage.comment if comment is None else comment
            directory = stage.directory if directory is None else directory
            self._write(name, replace(stage, comment=comment, directory=directory))

    def drop(self, name: QualifiedName) -> bool:
        """Delete a stage and its files; return whether it existed."""
        with self._lock:
            if self.get(name) is None:
                return False
            self._remove(name)
            return True

    def drop_all(self, database: str, schema: str | None) -> None:
        """Delete the stages of a database or schema that was dropped."""
        place = self._directory / encode(database)
        with self._lock:
            shutil.rmtree(place / encode(schema) if schema is not None else place, ignore_errors=True)

    def drop_table_stage(self, table: QualifiedName) -> None:
        """Delete the files of the stage of a table that was dropped."""
        with self._lock:
            shutil.rmtree(self._place(replace(table, name="%" + table.name)), ignore_errors=True)

    def path(self, name: QualifiedName) -> Path:
        """Return the directory of a stage; raises 2003 if it doesn't exist.

        :param name: with database and schema, ``~`` for the user stage, ``%T`` for a table's stage.
        """
        place = self._place(name)
        if name.name == _USER_STAGE or name.name.startswith("%"):
            place.mkdir(parents=True, exist_ok=True)
        elif self.get(name) is None:
            raise does_not_exist("Stage", str(name))
        return place

    def mount(self, reference: StageReference, resolved: Session | QualifiedName) -> Path:
        """Return the directory of a job's volume, created if missing.

        :param resolved: the stage's full name, or the session whose database and schema complete it.
        """
        # snowflake.ml.jobs creates its stages with SNOWFLAKE_SSE "for mounts" (payload_utils), yet no public source
        # names the error for another encryption, so none is refused here.
        name = resolved if isinstance(resolved, QualifiedName) else self._complete(reference.stage, resolved)
        place = inside(self.path(name), reference.path)
        place.mkdir(parents=True, exist_ok=True)
        return place

    def locate(self, context: Context, reference: StageReference, privilege: str) -> Location:
        """Return the place that a statement names; raises 2003 without such a stage, 1011 if the path leaves it.

        :param privilege: the privilege that the statement needs on the stage: READ or WRITE.
        """
        session = context.session
        name = self._complete(reference.stage, session)
        if name.name.startswith("%"):
            table = replace(name, name=name.name[1:])
            _check_table(context, table)
            if session.engine.temporary.get(table.name) != (table.database, table.schema):
                session.rights.require(located("TABLE", table), "OWNERSHIP")
        elif name.name != _USER_STAGE:
            session.rights.require(located("STAGE", name), privilege)
        directory = self.path(name)
        inside(directory, reference.path)
        plain = name.name == _USER_STAGE or name.name.startswith("%")
        label = "" if plain else f"{name.name.lower()}/"
        return Location(directory, reference.path.lstrip("/"), label, self.get(name) or Stage(0.0), self.arrivals)

    def _complete(self, name: QualifiedName, session: Session) -> QualifiedName:
        return name if name.name == _USER_STAGE else session.resolve(name, "stage access")

    def _place(self, name: QualifiedName) -> Path:
        if name.name == _USER_STAGE:
            return self._directory / ".user"
        if not (name.database and name.schema and name.name):
            raise does_not_exist("Stage", str(name))
        return self._directory / encode(name.database) / encode(name.schema) / encode(name.name)

    def _properties(self, name: QualifiedName) -> Path:
        place = self._place(name)
        return place.with_name(f"{place.name}.json")

    def _write(self, name: QualifiedName, stage: Stage) -> None:
        file = self._properties(name)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(stage)), encoding="utf-8")
        partial.replace(file)

    def _remove(self, name: QualifiedName) -> None:
        self._properties(name).unlink(missing_ok=True)
        shutil.rmtree(self._place(name), ignore_errors=True)


def _check_table(context: Context, table: QualifiedName) -> None:
    """Raise 2003 unless the session sees a table of this name; it may be busy with another statement."""
    with context.session.running(context.query_id, context.cancelled):
        exists = context.session.engine.sees(table)
    if not exists:
        raise does_not_exist("Table", str(table))
