"""The files of a source that travel in the payload.

Hidden files and files without an extension travel. Caches of Python, the inside of git repositories, and files that
``.mljobsignore`` excludes don't. A directory without ``.mljobsignore`` has the patterns of its ``.gitignore``.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, PayloadError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pathspec import GitIgnoreSpec

IGNORE_FILES = (".mljobsignore", ".gitignore")
_EXCLUDED = {"__pycache__", ".git"}
_CACHES = (".pyc", ".pyo")
_MAX_ENTRIES = 50_000
_MAX_BYTES = 512 * 2**20
_MAX_NAMED = 3
_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that travels: of its mode only whether its owner may run it."""

    path: Path
    size: int
    is_executable: bool

    @classmethod
    def of(cls, path: Path) -> SourceFile:
        """Describe a file."""
        try:
            status = path.stat()
        except OSError as error:
            raise _unreadable(error) from error
        if not stat.S_ISREG(status.st_mode):
            kind = _SPECIAL.get(stat.S_IFMT(status.st_mode), "no file")
            raise PayloadError(f"{str(path)!r} is {kind}; only files, directories and links to them travel.")
        return cls(path, status.st_size, bool(status.st_mode & stat.S_IXUSR))

    def read(self) -> bytes:
        """Return its content."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise _unreadable(error) from error


@dataclass(frozen=True, slots=True)
class _Rules:
    """The patterns of one ignore file, for everything below its directory."""

    file: Path
    prefix: str
    spec: GitIgnoreSpec


@dataclass(frozen=True, slots=True)
class _Directory:
    """A directory to visit: its name in the tree, the real directories above it, their patterns."""

    path: Path
    name: str
    chain: tuple[str, ...]
    rules: tuple[_Rules, ...]


def tree(root: Path) -> dict[str, SourceFile]:
    """Return the files below a directory that travel, by their names relative to it.

    Links within the tree are followed.
    """
    files: dict[str, SourceFile] = {}
    seen: Counter[str] = Counter()
    inside = os.path.realpath(root)
    pending = [_Directory(root, "", (inside,), ())]
    while pending:
        directory = pending.pop()
        for path, is_directory, rules in _travelling(directory, inside):
            name = _text(directory.name + path.name, path)
            seen[_top(name, is_directory=is_directory)] += 1
            if seen.total() > _MAX_ENTRIES:
                raise PayloadError(
                    f"{str(root)!r} has more than {_MAX_ENTRIES} files. Most of them are in "
                    f"{_listed({top: f'{count} so far' for top, count in seen.most_common(_MAX_NAMED)})}. "
                    f"Exclude files that the job doesn't need in {IGNORE_FILES[0]}."
                )
            if is_directory:
                chain = (*directory.chain, os.path.realpath(path))
                pending.append(_Directory(path, f"{name}/", chain, rules))
            else:
                files[name] = SourceFile.of(path)
    return files


def exclusion(root: Path, name: str) -> str:
    """Return the pattern that excludes a file of a tree, for a message; an empty text if none does."""
    rules: list[_Rules] = []
    prefix = ""
    for part in name.split("/"):
        rules += _rules(root / prefix, prefix)
        prefix += f"{part}/"
        below = name if prefix == f"{name}/" else prefix
        if reason := _excluded_by(below, rules):
            return reason
    return ""


def refuse_large(files: Mapping[str, bytes | SourceFile]) -> None:
    """Refuse a payload that is too large."""
    sizes: Counter[str] = Counter()
    for name, file in files.items():
        sizes[_top(name.removeprefix("app/"))] += file.size if isinstance(file, SourceFile) else len(file)
    if sizes.total() > _MAX_BYTES:
        largest = {top: f"{size / 2**20:.0f} MiB" for top, size in sizes.most_common(_MAX_NAMED)}
        raise PayloadError(
            f"The payload has {sizes.total() / 2**20:.0f} MiB, more than the limit of {_MAX_BYTES // 2**20} MiB. Most "
            f"of it is in {_listed(largest)}. Exclude files that the job doesn't need in {IGNORE_FILES[0]}, or put "
            "data on a stage and read it from there in the job."
        )


def inside(path: str, label: str, whole: str) -> str:
    """Return a relative path in its simplest form; refuse one that leads out of its root."""
    simple = posixpath.normpath(path)
    if simple.startswith("/") or simple.split("/")[0] == "..":
        raise InvalidJobSpecError(f"{label} is outside of {whole}.")
    return simple


def _travelling(directory: _Directory, inside: str) -> Iterator[tuple[Path, bool, tuple[_Rules, ...]]]:
    """Yield the paths in a directory that travel, whether each is a directory, and the patterns for it."""
    try:
        entries = sorted(os.scandir(directory.path), key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(error) from error
    rules = (*directory.rules, *_rules(directory.path, directory.name))
    for entry in entries:
        if entry.name in _EXCLUDED or entry.name.endswith(_CACHES):
            continue
        path = directory.path / entry.name
        is_directory = path.is_dir() if entry.is_symlink() else entry.is_dir()
        if _excluded_by(directory.name + entry.name + "/" * is_directory, rules):
            continue
        if entry.is_symlink():
            _refuse_link(path, inside, directory.chain)
        yield path, is_directory, rules


def _rules(directory: Path, name: str) -> list[_Rules]:
    """Read a directory's ignore file, if it has one."""
    file = next((file for file in map(directory.joinpath, IGNORE_FILES) if file.is_file()), None)
    if file is None:
        return []
    from pathspec import GitIgnoreSpec

    try:
        return [_Rules(file, name, GitIgnoreSpec.from_lines(file.read_text("utf-8-sig").splitlines()))]
    except OSError as error:
        raise _unreadable(error) from error
    except ValueError as error:
        # Also the errors of pathspec are ValueErrors.
        raise PayloadError(f"{str(file)!r} has an invalid pattern or no UTF-8: {error}") from error


def _excluded_by(name: str, rules: Sequence[_Rules]) -> str:
    """Return the pattern that excludes a name: the last that matches in the nearest directory with a match."""
    for rule in reversed(rules):
        answer = rule.spec.check_file(name.removeprefix(rule.prefix))
        if answer.include is not None and answer.index is not None:
            pattern = str(rule.spec.patterns[answer.index].pattern)
            return f"pattern {pattern!r} in {str(rule.file)!r} excludes it" if answer.include else ""
    return ""


def _refuse_link(path: Path, inside: str, chain: tuple[str, ...]) -> None:
    target = os.path.realpath(path)
    if not os.path.exists(target):  # noqa: PTH110 (a Path raises where links go in a circle)
        raise PayloadError(f"{str(path)!r} is a symbolic link to {target!r}, which does not exist. Remove the link.")
    if not Path(target).is_relative_to(inside):
        raise PayloadError(
            f"{str(path)!r} is a symbolic link to {target!r}, outside of the source. "
            "Copy what the job needs into the source."
        )
    if target in chain:
        raise PayloadError(f"{str(path)!r} is a symbolic link to a directory that contains it. Remove the link.")


def _text(name: str, path: Path) -> str:
    """Refuse a name that an archive can't hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise PayloadError(f"{str(path)!r} has a name that is no UTF-8 text. Rename or remove it.") from None
    return name


def _top(name: str, *, is_directory: bool = False) -> str:
    head, slash, _ = name.partition("/")
    return f"{head}/" if slash or is_directory else head


def _listed(notes: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({note})" for name, note in notes.items())


def _unreadable(error: OSError) -> PayloadError:
    return PayloadError(f"Could not read {error.filename!r} for the payload: {error.strerror}.")
