"""The files of a stage: a stage is a directory, and no path leads out of it."""

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


@dataclass(frozen=True)
class Stage:
    """The properties of a stage.

    :param created_on: seconds since the epoch.
    :param temporary: whether it ends with the session that made it.
    :param file_format: its FILE_FORMAT options; COPY INTO falls back on them.
    """

    created_on: float
    comment: str = ""
    temporary: bool = False
    directory: bool = False
    encryption: str = "SNOWFLAKE_FULL"
    file_format: dict[str, str | bool | int | list[str]] | None = None


@dataclass(frozen=True)
class Location:
    """A place in an existing stage: its directory, the path below it, and what LIST writes before each path."""

    directory: Path
    path: str
    label: str
    stage: Stage


def encode(name: str) -> str:
    """Write an identifier as a file name that means only itself, whatever it holds."""
    return quote(name, safe="").replace(".", "%2E")


def decode(name: str) -> str:
    """Return the identifier that ``encode`` wrote."""
    return unquote(name)


def outside(path: str) -> SnowflakeError:
    """Build the error for a path that leads out of its stage; the number is ours, a real stage has no such paths."""
    return SnowflakeError(1011, "42601", f"SQL compilation error:\ninvalid path '{path}': it leaves the stage.")


def inside(directory: Path, path: str) -> Path:
    """Return the place of a path in a stage's directory; raises where ``..`` or a link leads out of it."""
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
    """A file: its path in the stage and where it lies."""

    path: str
    file: Path

    @property
    def md5(self) -> str:
        """The checksum that LIST shows."""
        with self.file.open("rb") as content:
            return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.file.stat().st_size

    @property
    def last_modified(self) -> str:
        """When it was written, as LIST shows it."""
        changed = datetime.fromtimestamp(self.file.stat().st_mtime, tz=UTC)
        return changed.strftime("%a, %d %b %Y %H:%M:%S GMT")


def files(directory: Path, prefix: str = "", pattern: str | None = None) -> list[StageFile]:
    """Return the files whose path starts with a prefix, as object stores do: ``a`` also finds ``ab/c``.

    :param pattern: regular expression that the whole path must match.
    """
    prefix = prefix.lstrip("/")
    inside(directory, prefix)
    wanted = _compiled(pattern) if pattern is not None else None
    return [
        found
        for found in sorted(_walk(directory, prefix), key=lambda found: found.path)
        if found.path.startswith(prefix) and (wanted is None or wanted.fullmatch(found.path))
    ]


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as problem:
        # The number is from memory.
        raise SnowflakeError(100048, "2201B", f"Invalid regular expression: '{pattern}', {problem}") from problem


def _walk(directory: Path, prefix: str) -> Iterator[StageFile]:
    """Walk the deepest directory that the prefix fixes; links are not followed, since jobs may point them anywhere."""
    top = directory / prefix.rpartition("/")[0]
    for folder, _, names in os.walk(top):
        for name in names:
            file = Path(folder, name)
            if file.is_file() and not file.is_symlink():
                yield StageFile(file.relative_to(directory).as_posix(), file)


def remove(directory: Path, found: StageFile) -> None:
    """Delete a file, and the folders that it leaves empty: a stage has paths, not folders."""
    found.file.unlink(missing_ok=True)
    folder = found.file.parent
    while folder != directory and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def copy(source: StageFile, target: Path) -> None:
    """Copy a file so that readers see the old or the new content, never a part."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    shutil.copyfile(source.file, partial)
    partial.replace(target)
