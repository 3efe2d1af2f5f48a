"""What can be run: a file, a directory, files on a stage, a git repository; and what of it is started."""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, PayloadError
from airflow_provider_mljobs.jobs.names import ANYWHERE, PLACEHOLDER, Namespace, StagePath
from airflow_provider_mljobs.jobs.payload.files import SourceFile, ignored, inside, tree
from airflow_provider_mljobs.jobs.payload.git import GitSource
from airflow_provider_mljobs.jobs.values.escaping import validate_text
from airflow_provider_mljobs.launcher.contract import CONDA_FILE

# In the job's own directory on the stage.
SOURCE_INPUT = "input/source"
_SNOW = re.compile(r"snow://\w+/[^\x00-\x1f\x7f'\\/]+(/[^\x00-\x1f\x7f'\\]*)?")


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a task's relative paths and unqualified names are relative to.

    :param folder: where relative paths begin; the working directory by default.
    :param namespace: database and schema of stages that are named without.
    """

    folder: Path | None = None
    namespace: Namespace = ANYWHERE

    def path(self, path: str | os.PathLike[str]) -> Path:
        """Return a path of the task's."""
        return Path(path) if self.folder is None else self.folder / path


@dataclass(frozen=True, kw_only=True)
class StageCopy:
    """What Snowflake copies into a job's own directory before the job starts.

    :param source: from where, as COPY FILES takes it.
    :param target: the directory to copy into, relative to the job's own.
    """

    source: str
    target: str


@dataclass(frozen=True, kw_only=True)
class Start:
    """What is started.

    :param kind: whether ``command`` begins with a Python file of the source, or with a program.
    :param command: it and its first arguments; those of the task follow.
    """

    kind: Literal["script", "command"]
    command: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LocalSource:
    """A file or a directory beside the DAG.

    :param root: what becomes the job's working directory.
    :param file: the one file that travels; ``None`` for a directory.
    :param start: what is started.
    """

    root: Path
    file: Path | None
    start: Start

    def files(self) -> dict[str, SourceFile]:
        """Return the files that travel, by their names in the working directory.

        :raises PayloadError: if one of them can't, or the file to start doesn't.
        """
        if self.file is not None:
            return {self.file.name: SourceFile.of(self.file)}
        files = tree(self.root)
        if CONDA_FILE in files:
            raise PayloadError(
                f"source {str(self.root)!r} has an {CONDA_FILE}, but ML jobs take no conda environments. Write a "
                f"requirements.txt; if {CONDA_FILE} is for something else, name it in .mljobsignore."
            )
        name = self.start.command[0]
        if self.start.kind == "script" and name not in files:
            reason = ignored(self.root, name)
            why = "files of git and of Python's caches never do"
            if reason is not None:
                why = f"pattern {reason.pattern!r} in {str(reason.file)!r} leaves it out"
            raise PayloadError(f"entrypoint {name!r} doesn't travel: {why}.")
        return files


@dataclass(frozen=True, kw_only=True)
class StagedSource:
    """A directory or a Python file on a stage, or at another place of Snowflake's.

    :param copy: how it comes into the job.
    :param start: what is started.
    """

    copy: StageCopy
    start: Start


def validate_source(source: object, entrypoint: object) -> None:
    """Refuse what can't be a source with an entrypoint, without a look at any disk or stage.

    :raises InvalidJobSpecError: naming ``source`` or ``entrypoint``.
    """
    if isinstance(source, GitSource):
        source.validate()
        start_of_directory(entrypoint, f"source {source.url!r}")
    elif isinstance(source, str) and is_on_stage(source):
        staged(source, entrypoint, Place(namespace=PLACEHOLDER))
    elif isinstance(source, (str, os.PathLike)) and str(source):
        _words(entrypoint)
    else:
        raise InvalidJobSpecError(
            "source must be a function, a file, a directory, a place in Snowflake (it starts with '@' or 'snow://'), "
            f"or a GitSource; got {source!r}."
        )


def is_on_stage(path: object) -> bool:
    """Tell whether a path is Snowflake's to read."""
    return isinstance(path, str) and path.startswith(("@", "snow://"))


def locate(source: str | os.PathLike[str], entrypoint: object) -> LocalSource:
    """Find a source on this machine, and what of it is started. No file is read.

    :param entrypoint: a Python file of the source, or a command as a list.
    :raises PayloadError: if the source or the entrypoint doesn't exist.
    :raises InvalidJobSpecError: if the entrypoint is missing, outside the source, or no Python file.
    """
    path, what = Path(source), f"source {str(source)!r}"
    if not path.exists():
        raise PayloadError(f"{what} does not exist (looked for it at {path.absolute()}).")
    if not path.is_dir():
        return LocalSource(root=path.parent, file=path, start=_start_of_file(path.name, entrypoint, what))
    if isinstance(entrypoint, (str, os.PathLike)) and Path(entrypoint).is_absolute():
        entrypoint = os.path.relpath(entrypoint, path)
    start = start_of_directory(entrypoint, what)
    if start.kind == "script" and not (path / start.command[0]).is_file():
        words = start.command[0].split()
        hint = f" A command is written as a list: entrypoint={words!r}." if len(words) > 1 else ""
        raise PayloadError(f"entrypoint {str(entrypoint)!r} is not a file in {what}.{hint}")
    return LocalSource(root=path, file=None, start=start)


def staged(source: str, entrypoint: object, place: Place) -> StagedSource:
    """Describe a source on a stage, or at another place of Snowflake's. A path that ends in ``.py`` is one file.

    :param entrypoint: a Python file of the source, or a command as a list.
    :raises InvalidJobSpecError: if no such place can be, or there is no entrypoint for it.
    """
    location, file = stage_location(source, "source", place, (".py",))
    what = f"source {source!r}"
    start = start_of_directory(entrypoint, what) if file is None else _start_of_file(file, entrypoint, what)
    return StagedSource(copy=StageCopy(source=location, target=SOURCE_INPUT), start=start)


def stage_location(path: str, what: str, place: Place, files: tuple[str, ...]) -> tuple[str, str | None]:
    """Return a place of Snowflake's as COPY FILES takes it, and the name of the file if it is one.

    :param what: names the path in the message.
    :param files: the endings by which a file is told from a directory.
    :raises InvalidJobSpecError: if no such place can be.
    """
    if path.startswith("snow://"):
        if not _SNOW.fullmatch(path) or ".." in path.split("/"):
            raise InvalidJobSpecError(
                f"{what} {path!r} is no place in Snowflake: write snow://<kind>/<name>/versions/<version>/<path>."
            )
        whole = path.rstrip("/")
    elif path.startswith(("@~", "@%")):
        raise InvalidJobSpecError(
            f"{what} {path!r} is the stage of a user or a table; Snowflake copies from named stages: @db.schema.stage."
        )
    else:
        whole = str(StagePath.parse(path, what, place.namespace))
    name = path.rpartition("/")[2]
    return (whole, name) if "/" in path and name.endswith(files) else (f"{whole}/", None)


def start_of_directory(entrypoint: object, what: str) -> Start:
    """Return what of a directory is started.

    :param what: names the source in the message.
    :raises InvalidJobSpecError: if there is no entrypoint, or it can be none.
    """
    words, kind = _words(entrypoint)
    if not words:
        raise InvalidJobSpecError(
            f"{what} is a directory: entrypoint must name the file to start, e.g. 'train.py', or a command, e.g. "
            "['torchrun', 'train.py']."
        )
    if kind == "command":
        return Start(kind=kind, command=words)
    return Start(kind=kind, command=(inside(words[0], f"entrypoint {words[0]!r}", what), *words[1:]))


def _start_of_file(file: str, entrypoint: object, what: str) -> Start:
    words, kind = _words(entrypoint)
    if not words:
        words, kind = _words(file)
    if kind == "script" and posixpath.basename(words[0]) != file:
        raise InvalidJobSpecError(f"entrypoint {words[0]!r} is not the file that {what} names.")
    return Start(kind=kind, command=words if kind == "command" else (file, *words[1:]))


def _words(entrypoint: object) -> tuple[tuple[str, ...], Literal["script", "command"]]:
    """Read an entrypoint; no words if there is none."""
    if entrypoint is None or entrypoint == "":
        return (), "script"
    if isinstance(entrypoint, (str, os.PathLike)):
        words: tuple[Any, ...] = (os.fspath(entrypoint),)
    else:
        words = tuple(entrypoint) if isinstance(entrypoint, (list, tuple)) else ()
    if not words or not words[0] or not all(isinstance(word, str) for word in words):
        raise InvalidJobSpecError(
            "entrypoint must be a Python file of the source, e.g. 'train.py', or a command as a list of texts, e.g. "
            f"['torchrun', 'train.py']; got {entrypoint!r}."
        )
    for word in words:
        validate_text(word, "entrypoint")
    if words[0].endswith(".py"):
        return words, "script"
    if isinstance(entrypoint, (list, tuple)):
        return words, "command"
    raise InvalidJobSpecError(
        f"entrypoint {words[0]!r} is not a Python file: its name must end in .py. Anything else is started by a "
        "command, which is a list, e.g. ['bash', 'run.sh']."
    )
