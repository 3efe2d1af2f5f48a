"""A tree of files on its way into a payload: what of it travels, and what is refused.

Hidden files and files without an extension travel. Caches of Python and the inside of git repositories don't, nor
does what the patterns in ``.mljobsignore`` name, or in ``.gitignore`` where a directory has no ``.mljobsignore``.
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
_LEFT_OUT = {"__pycache__", ".git"}
_CACHES = (".pyc", ".pyo")
_MAX_ENTRIES = 50_000
_MAX_BYTES = 512 * 2**20
_NAMED = 3
_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that travels.

    :param path: where it lies.
    :param size: its bytes.
    :param is_executable: whether its owner may run it; nothing else of its mode travels.
    """

    path: Path
    size: int
    is_executable: bool

    @classmethod
    def of(cls, path: Path) -> SourceFile:
        """Describe a file.

        :raises PayloadError: if it is no regular file, or can't be looked at.
        """
        try:
            status = path.stat()
        except OSError as error:
            raise _unreadable(error) from error
        if not stat.S_ISREG(status.st_mode):
            kind = _SPECIAL.get(stat.S_IFMT(status.st_mode), "no file")
            raise PayloadError(f"{str(path)!r} is {kind}; only files, directories and links to them travel.")
        return cls(path, status.st_size, bool(status.st_mode & stat.S_IXUSR))

    def read(self) -> bytes:
        """Return its content.

        :raises PayloadError: if it can't be read.
        """
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise _unreadable(error) from error


@dataclass(frozen=True, slots=True)
class Ignored:
    """Why something doesn't travel.

    :param file: the file that says so.
    :param pattern: the line in it.
    """

    file: Path
    pattern: str


@dataclass(frozen=True, slots=True)
class _Rules:
    """The patterns of one ignore file, which hold below its directory."""

    file: Path
    prefix: str
    spec: GitIgnoreSpec


@dataclass(frozen=True, slots=True)
class _Directory:
    """A directory to look into: its name in the tree, the real directories that lead to it, the patterns above it."""

    path: Path
    name: str
    chain: tuple[str, ...]
    rules: tuple[_Rules, ...]


def tree(root: Path) -> dict[str, SourceFile]:
    """Return the files below a directory that travel, by their names relative to it.

    Links within the tree are followed.

    :raises PayloadError: if there is too much, or something that can't travel; the message names it.
    """
    found: dict[str, SourceFile] = {}
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
                    f"{str(root)!r} has more than {_MAX_ENTRIES} files; most of them in "
                    f"{_listed({top: f'{count} so far' for top, count in seen.most_common(_NAMED)})}. "
                    f"Name what the job doesn't need in {IGNORE_FILES[0]}."
                )
            if is_directory:
                chain = (*directory.chain, os.path.realpath(path))
                pending.append(_Directory(path, f"{name}/", chain, rules))
            else:
                found[name] = SourceFile.of(path)
    return found


def ignored(root: Path, name: str) -> Ignored | None:
    """Tell why a file of a tree doesn't travel; ``None`` if no pattern leaves it out."""
    rules: list[_Rules] = []
    prefix = ""
    for part in name.split("/"):
        rules += _rules(root / prefix, prefix)
        prefix += f"{part}/"
        below = name if prefix == f"{name}/" else prefix
        if (reason := _left_out_by(below, rules)) is not None:
            return reason
    return None


def refuse_large(files: Mapping[str, bytes | SourceFile], what: str) -> None:
    """Refuse more than a payload can hold.

    :param what: names the payload in the message.
    :raises PayloadError: naming what is large in it.
    """
    sizes: Counter[str] = Counter()
    for name, file in files.items():
        sizes[_top(name.removeprefix("app/"))] += file.size if isinstance(file, SourceFile) else len(file)
    if sizes.total() > _MAX_BYTES:
        largest = {top: f"{size / 2**20:.0f} MiB" for top, size in sizes.most_common(_NAMED)}
        raise PayloadError(
            f"{what} has {sizes.total() / 2**20:.0f} MiB, more than the {_MAX_BYTES // 2**20} MiB that a payload can "
            f"hold; most of it in {_listed(largest)}. Name what the job doesn't need in {IGNORE_FILES[0]}, or put data "
            "on a stage and let the job read it there."
        )


def inside(path: str, what: str, whole: str) -> str:
    """Return a relative path in its simplest form.

    :param what: names the path in the message, ``whole`` what it has to lie in.
    :raises InvalidJobSpecError: if it leads out.
    """
    simple = posixpath.normpath(path)
    if simple.startswith("/") or simple.split("/")[0] == "..":
        raise InvalidJobSpecError(f"{what} is outside of {whole}.")
    return simple


def _travelling(directory: _Directory, inside: str) -> Iterator[tuple[Path, bool, tuple[_Rules, ...]]]:
    """Yield the paths in a directory that travel, whether each is a directory, and the patterns that hold there."""
    try:
        entries = sorted(os.scandir(directory.path), key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(error) from error
    rules = (*directory.rules, *_rules(directory.path, directory.name))
    for entry in entries:
        if entry.name in _LEFT_OUT or entry.name.endswith(_CACHES):
            continue
        path = directory.path / entry.name
        is_directory = path.is_dir() if entry.is_symlink() else entry.is_dir()
        if _left_out_by(directory.name + entry.name + "/" * is_directory, rules) is not None:
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
        # No UTF-8, or no pattern: pathspec's errors are ValueErrors, too.
        raise PayloadError(f"{str(file)!r} can't be understood: {error}") from error


def _left_out_by(name: str, rules: Sequence[_Rules]) -> Ignored | None:
    """Return what leaves a name out: in the nearest directory that speaks of it, the last pattern that does."""
    for rule in reversed(rules):
        answer = rule.spec.check_file(name.removeprefix(rule.prefix))
        if answer.include is not None and answer.index is not None:
            return Ignored(rule.file, str(rule.spec.patterns[answer.index].pattern)) if answer.include else None
    return None


def _refuse_link(path: Path, inside: str, chain: tuple[str, ...]) -> None:
    target = os.path.realpath(path)
    if not os.path.exists(target):  # noqa: PTH110 (a Path raises where links go in a circle)
        raise PayloadError(f"{str(path)!r} is a symbolic link to {target!r}, which does not exist; take it out.")
    if not Path(target).is_relative_to(inside):
        raise PayloadError(
            f"{str(path)!r} is a symbolic link to {target!r}, outside of the source. "
            "Copy what the job needs into the source."
        )
    if target in chain:
        raise PayloadError(f"{str(path)!r} is a symbolic link to a directory that it lies in; take it out.")


def _text(name: str, path: Path) -> str:
    """Refuse a name that no archive can hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise PayloadError(f"{str(path)!r} has a name that is no UTF-8 text; rename it, or take it out.") from None
    return name


def _top(name: str, *, is_directory: bool = False) -> str:
    head, slash, _ = name.partition("/")
    return f"{head}/" if slash or is_directory else head


def _listed(notes: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({note})" for name, note in notes.items())


def _unreadable(error: OSError) -> PayloadError:
    return PayloadError(f"{error.filename!r} of the payload can't be read: {error.strerror}.")
