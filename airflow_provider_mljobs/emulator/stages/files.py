"""The files of a stage, which is a directory that no path leaves."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from airflow_provider_mljobs.emulator.errors import SnowflakeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_mljobs.emulator.stages.arrivals import Arrivals


@dataclass(frozen=True)
class Stage:
    """The properties of a stage.

    :param created_on: seconds since the epoch.
    :param temporary: whether it ends with the session that created it.
    :param file_format: its FILE_FORMAT options, the default of COPY INTO.
    """

    created_on: float
    comment: str = ""
    temporary: bool = False
    directory: bool = False
    encryption: str = "SNOWFLAKE_FULL"
    file_format: dict[str, str | bool | int | list[str]] | None = None


@dataclass(frozen=True)
class Location:
    """A place in an existing stage: its directory, the path below it, and the prefix of paths in LIST.

    :param arrivals: which of its files are there yet.
    """

    directory: Path
    path: str
    label: str
    stage: Stage
    arrivals: Arrivals

    def files(self, pattern: str | None = None) -> list[StageFile]:
        """Return the files whose path starts with that of the place; see :func:`files`."""
        return [file for file in files(self.directory, self.path, pattern) if self.arrivals.has(file.file)]


def encode(name: str) -> str:
    """Write an identifier as a file name, unique and without special characters."""
    return quote(name, safe="").replace(".", "%2E")


def decode(name: str) -> str:
    """Return the identifier that ``encode`` wrote."""
    return unquote(name)


def outside(path: str) -> SnowflakeError:
    """Build the error for a path that leaves its stage; the number is ours, as a real stage has no such paths."""
    return SnowflakeError(1011, "42601", f"SQL compilation error:\ninvalid path '{path}': it leaves the stage.")


def inside(directory: Path, path: str) -> Path:
    """Return the file of a path in a stage; raises if ``..`` or a link leads out of the stage."""
    parts = PurePosixPath(path.replace("\0", "")).parts
    parts = tuple(part for part in parts if part not in {"/", "//", "."})
    if ".." in parts:
        raise outside(path)
    place = directory.joinpath(*parts)
    if not place.resolve().is_relative_to(directory.resolve()):
        raise outside(path)
    return place


@dataclass(frozen=True)
class StageFile:
    """A file of a stage: its path in the stage and on disk."""

    path: str
    file: Path

    @property
    def md5(self) -> str:
        """The checksum in LIST."""
        with self.file.open("rb") as content:
            return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.file.stat().st_size

    @property
    def last_modified(self) -> str:
        """The time of its last change, as in LIST."""
        changed = datetime.fromtimestamp(self.file.stat().st_mtime, tz=UTC)
        return changed.strftime("%a, %d %b %Y %H:%M:%S GMT")


def files(directory: Path, prefix: str = "", pattern: str | None = None) -> list[StageFile]:
    """Return the files whose path starts with a prefix, as object stores do: ``a`` also matches ``ab/c``.

    :param pattern: regular expression that the whole path must match.
    """
    prefix = prefix.lstrip("/")
    inside(directory, prefix)
    wanted = _compiled(pattern) if pattern is not None else None
    return [
        file
        for file in sorted(_walk(directory, prefix), key=lambda file: file.path)
        if file.path.startswith(prefix) and (wanted is None or wanted.fullmatch(file.path))
    ]


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as problem:
        # The number is from memory.
        raise SnowflakeError(100048, "2201B", f"Invalid regular expression: '{pattern}', {problem}") from problem


def _walk(directory: Path, prefix: str) -> Iterator[StageFile]:
    """Walk the deepest directory of the prefix, without following links, which jobs may point anywhere."""
    top = directory / prefix.rpartition("/")[0]
    for folder, _, names in os.walk(top):
        for name in names:
            file = Path(folder, name)
            if file.is_file() and not file.is_symlink():
                yield StageFile(file.relative_to(directory).as_posix(), file)


def remove(directory: Path, target: StageFile) -> None:
    """Delete a file and the folders that are empty then: a stage has paths, not folders."""
    target.file.unlink(missing_ok=True)
    folder = target.file.parent
    while folder != directory and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def copy(source: StageFile, target: Path) -> None:
    """Copy a file atomically: readers see the old or the new content."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    shutil.copyfile(source.file, partial)
    partial.replace(target)
