"""What a job can import beside its source: packages, modules and zip files, under the names that a task gives them."""

from __future__ import annotations

import keyword
import os
import posixpath
import re
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, PayloadError
from airflow_provider_mljobs.jobs.names import PLACEHOLDER
from airflow_provider_mljobs.jobs.payload.files import SourceFile, tree
from airflow_provider_mljobs.jobs.payload.sources import Place, StageCopy, is_on_stage, stage_location
from airflow_provider_mljobs.launcher.contract import IMPORTS

if TYPE_CHECKING:
    from collections.abc import Collection

Importable = str | os.PathLike[str] | ModuleType
Import = Importable | tuple[Importable, str | None]

# In the job's own directory on the stage.
INPUT = "input/imports"
_MODULE, _ZIP = ".py", ".zip"
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
# What every payload has.
_RESERVED = {"__main__", "mljob_launcher", "mljob_function", "airflow_provider_mljobs"}


@dataclass(frozen=True, kw_only=True)
class Imports:
    """What a job can import, packed.

    :param files: what lies in the archive, by its name there.
    :param copies: what Snowflake copies.
    :param manifest: for the launcher: where each import belongs, and what is copied for it; no path of this machine.
    :param called: what the task calls each import, by its name.
    """

    files: dict[str, SourceFile]
    copies: tuple[StageCopy, ...]
    manifest: list[dict[str, str]]
    called: dict[str, str]

    def refuse_hidden(self, names: Collection[str], what: str) -> None:
        """Refuse an import that a module of the source would hide.

        :param names: the files of the source.
        :raises InvalidJobSpecError: naming the import.
        """
        for name, called in self.called.items():
            top = name.partition(".")[0]
            if not {f"{top}{_MODULE}", f"{top}/__init__{_MODULE}"}.isdisjoint(names):
                raise InvalidJobSpecError(
                    f"{called} is imported as {name!r}, but {what} has a module {top!r} of its own; import it under "
                    "another name."
                )


@dataclass(frozen=True, kw_only=True)
class _Item:
    """One import: its path, and its name unless it is a zip file, whose modules have names of their own."""

    what: str
    path: str
    name: str

    @property
    def target(self) -> str:
        """The name of its file or directory among the imports."""
        path = self.path.rstrip("/")
        if path.endswith(_ZIP):
            return posixpath.basename(path)
        return self.name.replace(".", "/") + (_MODULE if path.endswith(_MODULE) else "")


def validate_imports(imports: object, place: Place | None = None) -> None:
    """Refuse what can't be imported in a job. No file is read.

    :param imports: paths, modules, stage paths, or any of these with a name: ``[("src/utils/", "utils")]``.
    :param place: what relative paths are relative to; without it no disk is looked at.
    :raises InvalidJobSpecError: naming the import.
    :raises PayloadError: if one isn't there.
    """
    for index, item in enumerate(_items(imports, place or Place())):
        if is_on_stage(item.path):
            stage_location(item.path, f"imports[{index}]", Place(namespace=PLACEHOLDER), (_MODULE, _ZIP))
        elif place is not None:
            _refuse_missing(item, place)


def plain(imports: Sequence[Import]) -> list[tuple[str, str | None]]:
    """Return imports as paths and names: no modules, so that they can be copied and written as JSON.

    :raises InvalidJobSpecError: naming the import that can be none.
    """
    return [_path_and_name(index, entry)[1:] for index, entry in enumerate(_listed(imports))]


def collect(imports: Sequence[Import], place: Place) -> Imports:
    """Find the files of imports.

    :param imports: as for :func:`validate_imports`.
    :param place: what relative paths and unqualified stage names are relative to.
    :raises InvalidJobSpecError: naming the import that can be none.
    :raises PayloadError: if one isn't there, or can't travel.
    """
    files: dict[str, SourceFile] = {}
    copies: list[StageCopy] = []
    manifest: list[dict[str, str]] = []
    items = _items(imports, place)
    for index, item in enumerate(items):
        entry = {"name": item.name, "target": item.target}
        if is_on_stage(item.path):
            location, file = stage_location(item.path, f"imports[{index}]", place, (_MODULE, _ZIP))
            copies.append(StageCopy(source=location, target=f"{INPUT}/{index}"))
            entry |= {"from": location, "input": f"{INPUT}/{index}/{file}" if file else f"{INPUT}/{index}"}
        else:
            _add(files, _files(item, place), item)
        manifest.append(entry)
    return Imports(
        files={f"{IMPORTS}/{name}": file for name, file in files.items()},
        copies=tuple(copies),
        manifest=manifest,
        called={item.name: item.what for item in items if item.name},
    )


def _add(files: dict[str, SourceFile], found: dict[str, SourceFile], item: _Item) -> None:
    if twice := files.keys() & found.keys():
        raise InvalidJobSpecError(
            f"{item.what} has a file {min(twice)!r}, which another import brings, too; import it under another name."
        )
    files |= found


def _items(imports: object, place: Place) -> list[_Item]:
    items: list[_Item] = []
    for index, entry in enumerate(_listed(imports)):
        what, path, name = _path_and_name(index, entry)
        item = _Item(what=what, path=path, name=_name(what, path, name, place))
        for other in items:
            _refuse_clash(item, other)
        items.append(item)
    return items


def _listed(imports: object) -> Sequence[object]:
    if isinstance(imports, (str, bytes, ModuleType)) or not isinstance(imports, Sequence):
        raise InvalidJobSpecError(
            f"imports must be a list of paths, modules or pairs, e.g. [('src/utils/', 'utils')]; got {imports!r}."
        )
    return imports


def _path_and_name(index: int, entry: object) -> tuple[str, str, str | None]:
    """Return what an import is called in messages, its path, and the name that it was given."""
    path, name = entry if isinstance(entry, (tuple, list)) and len(entry) == 2 else (entry, None)  # noqa: PLR2004 (a pair)
    what = f"imports[{index}] {getattr(path, '__name__', path)!r}"
    if name is not None and not isinstance(name, str):
        raise InvalidJobSpecError(f"{what} has name {name!r}; a name is a text, e.g. 'utils'.")
    if isinstance(path, ModuleType):
        file = _file_of(path, what)
        return what, file, name if file.endswith(_ZIP) else name or path.__name__
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise InvalidJobSpecError(f"imports[{index}] must be a path, a module, or a pair (path, name); got {entry!r}.")
    return what, str(os.fspath(path)), name


def _file_of(module: ModuleType, what: str) -> str:
    """Return the directory or the file that a module was imported from."""
    file, directories = getattr(module, "__file__", None), [str(path) for path in getattr(module, "__path__", ())]
    if file is None and len(directories) > 1:
        raise InvalidJobSpecError(
            f"{what} is a package in several directories: {', '.join(directories)}. Import the one that the job needs: "
            f"({directories[0]!r}, {module.__name__!r})."
        )
    path = Path(directories[0] if directories else file or "")
    packed = next((str(parent) for parent in path.parents if parent.is_file()), None)
    if packed is None and not directories and path.suffix != _MODULE:
        raise InvalidJobSpecError(
            f"{what} is no Python file: it is built in or compiled. Add what it is installed from to pip_requirements."
        )
    return packed or str(path)


def _name(what: str, path: str, name: str | None, place: Place) -> str:
    """Return the name to import, in dots; none for a zip file."""
    if path.endswith(_ZIP):
        if name is not None:
            raise InvalidJobSpecError(
                f"{what} is a zip file, whose modules have names of their own; write it without the name {name!r}."
            )
        return ""
    if name is None:
        # A link keeps its own name, so nothing is resolved.
        whole = path.rstrip("/") if is_on_stage(path) else os.path.abspath(place.path(path))  # noqa: PTH100 (as above)
        last = posixpath.basename(whole)
        name = "" if last.startswith("@") else last.removesuffix(_MODULE)
    dotted = name.strip("/").replace("/", ".")
    if not _NAME.fullmatch(dotted) or any(map(keyword.iskeyword, dotted.split("."))):
        raise InvalidJobSpecError(
            f"{what} can't be imported as {name!r}: a name has letters, digits and '_', in parts joined by dots. Give "
            f"it one: ({path!r}, 'name')."
        )
    top = dotted.partition(".")[0]
    if top in sys.stdlib_module_names or top in _RESERVED:
        whose = "the job's" if top in _RESERVED else "Python's"
        raise InvalidJobSpecError(
            f"{what} can't be imported as {dotted!r}: it would hide {whose} own {top!r}. Give it another name: "
            f"({path!r}, 'my_{top}')."
        )
    return dotted


def _refuse_clash(item: _Item, other: _Item) -> None:
    if item.target == other.target or (item.name and item.name == other.name):
        raise InvalidJobSpecError(
            f"{item.what} and {other.what} are both imported as {item.name or item.target!r}; give one of them "
            "another name."
        )
    for inner, outer in ((item, other), (other, item)):
        if outer.target.endswith(_MODULE) and inner.name.startswith(f"{outer.name}."):
            raise InvalidJobSpecError(
                f"{inner.what} is imported as {inner.name!r}, but {outer.what} makes {outer.name!r} a module, which "
                "holds no other; give one of them another name."
            )


def _refuse_missing(item: _Item, place: Place) -> Path:
    """Return the path of an import on this machine."""
    path = place.path(item.path)
    if not path.exists():
        raise PayloadError(f"{item.what} does not exist (looked for it at {path.absolute()}).")
    if not path.is_dir() and path.suffix not in {_MODULE, _ZIP}:
        raise InvalidJobSpecError(f"{item.what} is neither a directory nor a .py file nor a .zip file.")
    return path


def _files(item: _Item, place: Place) -> dict[str, SourceFile]:
    """Return the files of an import on this machine, by their names among all imports."""
    path = _refuse_missing(item, place)
    if path.is_dir():
        found = tree(path)
        if not found:
            raise PayloadError(f"{item.what} has no file that travels; there is nothing to import.")
        return {f"{item.target}/{name}": file for name, file in found.items()}
    if path.suffix == _ZIP and not zipfile.is_zipfile(path):
        raise PayloadError(f"{item.what} is called .zip, but is no zip file.")
    return {item.target: SourceFile.of(path)}
