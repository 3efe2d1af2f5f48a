"""The source of a payload, and its start: a file, a directory, files on a stage, a git repository."""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, PayloadError
from airflow_provider_mljobs.jobs.names import ANYWHERE, PLACEHOLDER, Namespace, StagePath
from airflow_provider_mljobs.jobs.payload.files import SourceFile, exclusion, inside, tree
from airflow_provider_mljobs.jobs.payload.git import GitSource
from airflow_provider_mljobs.jobs.values.escaping import validate_text
from airflow_provider_mljobs.launcher.contract import CONDA_FILE

# In the job's own directory on the stage.
SOURCE_INPUT = "input/source"
_SNOW = re.compile(r"snow://\w+/[^\x00-\x1f\x7f'\\/]+(/[^\x00-\x1f\x7f'\\]*)?")


@dataclass(frozen=True, kw_only=True)
class Place:
    """The origin of a task's relative paths, by default the working directory, and of unqualified stages."""

    folder: Path | None = None
    namespace: Namespace = ANYWHERE

    def path(self, path: str | os.PathLike[str]) -> Path:
        """Return a path relative to the folder."""
        return Path(path) if self.folder is None else self.folder / path


@dataclass(frozen=True, kw_only=True)
class StageCopy:
    """Files that Snowflake copies, before a job starts, into a directory relative to the job's own."""

    source: str
    target: str


@dataclass(frozen=True, kw_only=True)
class Start:
    """The start of a payload: a Python file of the source or a program, and its first arguments; the task's follow."""

    kind: Literal["script", "command"]
    command: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LocalSource:
    """A file or a directory beside the DAG.

    :param root: the directory that becomes the job's working directory.
    :param file: the only file that travels; ``None`` for a directory.
    """

    root: Path
    file: Path | None
    start: Start

    def files(self) -> dict[str, SourceFile]:
        """Return the files that travel, by their names in the working directory."""
        if self.file is not None:
            return {self.file.name: SourceFile.of(self.file)}
        files = tree(self.root)
        if CONDA_FILE in files:
            raise PayloadError(
                f"source {str(self.root)!r} has an {CONDA_FILE}, but ML jobs take no conda environments. Write a "
                f"requirements.txt; if {CONDA_FILE} is for something else, exclude it in .mljobsignore."
            )
        name = self.start.command[0]
        if self.start.kind == "script" and name not in files:
            reason = exclusion(self.root, name) or "it is a file of git or of Python's caches"
            raise PayloadError(f"entrypoint {name!r} doesn't travel: {reason}.")
        return files


def validate_source(source: object, entrypoint: object) -> None:
    """Refuse an invalid source or entrypoint, without access to disks or stages."""
    if isinstance(source, GitSource):
        source.validate()
        start_of_directory(entrypoint, f"source {source.url!r}")
    elif isinstance(source, str) and is_on_stage(source):
        staged(source, entrypoint, Place(namespace=PLACEHOLDER))
    elif isinstance(source, (str, os.PathLike)) and str(source):
        _words(entrypoint)
    else:
        raise InvalidJobSpecError(
            "source must be a function, a file, a directory, an address in Snowflake ('@…' or 'snow://…'), "
            f"or a GitSource; got {source!r}."
        )


def is_on_stage(path: object) -> bool:
    """Return whether a path is an address in Snowflake."""
    return isinstance(path, str) and path.startswith(("@", "snow://"))


def locate(source: str | os.PathLike[str], entrypoint: object) -> LocalSource:
    """Describe a source on this machine. No file is read."""
    path, label = Path(source), f"source {str(source)!r}"
    if not path.exists():
        raise PayloadError(f"{label} does not exist (looked at {path.absolute()}).")
    if not path.is_dir():
        return LocalSource(root=path.parent, file=path, start=_start_of_file(path.name, entrypoint, label))
    if isinstance(entrypoint, (str, os.PathLike)) and Path(entrypoint).is_absolute():
        entrypoint = os.path.relpath(entrypoint, path)
    start = start_of_directory(entrypoint, label)
    if start.kind == "script" and not (path / start.command[0]).is_file():
        words = start.command[0].split()
        hint = f" A command is written as a list: entrypoint={words!r}." if len(words) > 1 else ""
        raise PayloadError(f"entrypoint {str(entrypoint)!r} is not a file in {label}.{hint}")
    return LocalSource(root=path, file=None, start=start)


def staged(source: str, entrypoint: object, place: Place) -> tuple[StageCopy, Start]:
    """Return the copy and the start of a source on a stage or at another address in Snowflake.

    A path that ends in ``.py`` is one file.
    """
    location, file = stage_location(source, "source", place, (".py",))
    label = f"source {source!r}"
    start = start_of_directory(entrypoint, label) if file is None else _start_of_file(file, entrypoint, label)
    return StageCopy(source=location, target=SOURCE_INPUT), start


def stage_location(path: str, label: str, place: Place, files: tuple[str, ...]) -> tuple[str, str | None]:
    """Return an address in Snowflake as COPY FILES takes it, and the name of the file if it is one.

    :param files: the endings of files; any other path is a directory.
    """
    if path.startswith("snow://"):
        if not _SNOW.fullmatch(path) or ".." in path.split("/"):
            raise InvalidJobSpecError(
                f"{label} {path!r} is no valid address: write snow://<kind>/<name>/versions/<version>/<path>."
            )
        whole = path.rstrip("/")
    elif path.startswith(("@~", "@%")):
        raise InvalidJobSpecError(
            f"{label} {path!r} is the stage of a user or a table. Name a stage: @db.schema.stage."
        )
    else:
        whole = str(StagePath.parse(path, label, place.namespace))
    name = path.rpartition("/")[2]
    return (whole, name) if "/" in path and name.endswith(files) else (f"{whole}/", None)


def start_of_directory(entrypoint: object, label: str) -> Start:
    """Return the start of a directory."""
    words, kind = _words(entrypoint)
    if not words:
        raise InvalidJobSpecError(
            f"{label} is a directory: entrypoint must name the file to start, e.g. 'train.py', or a command, e.g. "
            "['torchrun', 'train.py']."
        )
    if kind == "command":
        return Start(kind=kind, command=words)
    return Start(kind=kind, command=(inside(words[0], f"entrypoint {words[0]!r}", label), *words[1:]))


def _start_of_file(file: str, entrypoint: object, label: str) -> Start:
    words, kind = _words(entrypoint)
    if not words:
        words, kind = _words(file)
    if kind == "script" and posixpath.basename(words[0]) != file:
        raise InvalidJobSpecError(f"entrypoint {words[0]!r} is not the file that {label} names.")
    return Start(kind=kind, command=words if kind == "command" else (file, *words[1:]))


def _words(entrypoint: object) -> tuple[tuple[str, ...], Literal["script", "command"]]:
    """Return the words of an entrypoint, and its kind; no words if it is missing."""
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
        f"entrypoint {words[0]!r} is not a Python file: its name must end in .py. Start anything else with a "
        "command, which is a list, e.g. ['bash', 'run.sh']."
    )
