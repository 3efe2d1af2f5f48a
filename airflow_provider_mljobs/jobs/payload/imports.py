"""Imports of a job beside its source: packages, modules and zip files, under names that the task chooses."""

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
# Modules of every job.
_RESERVED = {"__main__", "mljob_launcher", "mljob_function", "airflow_provider_mljobs"}


@dataclass(frozen=True, kw_only=True)
class Imports:
    """The packed imports of a job.

    :param manifest: name and place of each import, for the launcher; without paths of this machine.
    :param called: the text for each import in messages, by its name.
    """

    files: dict[str, SourceFile]
    copies: tuple[StageCopy, ...]
    manifest: list[dict[str, str]]
    called: dict[str, str]

    def refuse_hidden(self, names: Collection[str], label: str) -> None:
        """Refuse an import with the name of a module of the source."""
        for name, called in self.called.items():
            top = name.partition(".")[0]
            if not {f"{top}{_MODULE}", f"{top}/__init__{_MODULE}"}.isdisjoint(names):
                raise InvalidJobSpecError(
                    f"{called} is imported as {name!r}, but {label} has a module {top!r} as well. Give the import "
                    "another name."
                )


@dataclass(frozen=True, kw_only=True)
class _Item:
    """One import: its text in messages, its path, and its name; a zip file has none, but its modules have."""

    label: str
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
    """Refuse invalid imports. No file is read.

    :param place: the origin of relative paths; without it the disk isn't checked.
    """
    for index, item in enumerate(_items(imports, place or Place())):
        if is_on_stage(item.path):
            stage_location(item.path, f"imports[{index}]", Place(namespace=PLACEHOLDER), (_MODULE, _ZIP))
        elif place is not None:
            _refuse_missing(item, place)


def plain(imports: Sequence[Import]) -> list[tuple[str, str | None]]:
    """Return imports as paths and names, which can be copied and written as JSON."""
    return [_path_and_name(index, entry)[1:] for index, entry in enumerate(_listed(imports))]


def collect(imports: Sequence[Import], place: Place) -> Imports:
    """Collect the files of imports."""
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
            added = _files(item, place)
            if twice := files.keys() & added.keys():
                raise InvalidJobSpecError(
                    f"{item.label} has a file {min(twice)!r}, as has another import. Give one of them another name."
                )
            files |= added
        manifest.append(entry)
    return Imports(
        files={f"{IMPORTS}/{name}": file for name, file in files.items()},
        copies=tuple(copies),
        manifest=manifest,
        called={item.name: item.label for item in items if item.name},
    )


def _items(imports: object, place: Place) -> list[_Item]:
    items: list[_Item] = []
    for index, entry in enumerate(_listed(imports)):
        label, path, name = _path_and_name(index, entry)
        item = _Item(label=label, path=path, name=_name(label, path, name, place))
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
    """Return an import's text in messages, its path, and its name if it has one."""
    path, name = entry if isinstance(entry, (tuple, list)) and len(entry) == 2 else (entry, None)  # noqa: PLR2004 (a pair)
    label = f"imports[{index}] {getattr(path, '__name__', path)!r}"
    if name is not None and not isinstance(name, str):
        raise InvalidJobSpecError(f"{label} has the name {name!r}; a name must be a text, e.g. 'utils'.")
    if isinstance(path, ModuleType):
        file = _file_of(path, label)
        return label, file, name if file.endswith(_ZIP) else name or path.__name__
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise InvalidJobSpecError(f"imports[{index}] must be a path, a module, or a pair (path, name); got {entry!r}.")
    return label, str(os.fspath(path)), name


def _file_of(module: ModuleType, label: str) -> str:
    """Return the directory or the file of a module."""
    file, directories = getattr(module, "__file__", None), [str(path) for path in getattr(module, "__path__", ())]
    if file is None and len(directories) > 1:
        raise InvalidJobSpecError(
            f"{label} is a package in several directories: {', '.join(directories)}. Name the one that the job needs: "
            f"({directories[0]!r}, {module.__name__!r})."
        )
    path = Path(directories[0] if directories else file or "")
    packed = next((str(parent) for parent in path.parents if parent.is_file()), None)
    if packed is None and not directories and path.suffix != _MODULE:
        raise InvalidJobSpecError(
            f"{label} is no Python file: it is built in or compiled. Add its distribution to pip_requirements."
        )
    return packed or str(path)


def _name(label: str, path: str, name: str | None, place: Place) -> str:
    """Return the dotted name of an import; an empty one for a zip file."""
    if path.endswith(_ZIP):
        if name is not None:
            raise InvalidJobSpecError(
                f"{label} is a zip file, whose modules have their own names. Pass it without the name {name!r}."
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
            f"{label} can't be imported as {name!r}: a name has letters, digits and '_', in parts joined by dots. Give "
            f"it one: ({path!r}, 'name')."
        )
    top = dotted.partition(".")[0]
    if top in sys.stdlib_module_names or top in _RESERVED:
        whose = "the job's" if top in _RESERVED else "Python's"
        raise InvalidJobSpecError(
            f"{label} can't be imported as {dotted!r}: it would hide {whose} own {top!r}. Give it another name: "
            f"({path!r}, 'my_{top}')."
        )
    return dotted


def _refuse_clash(item: _Item, other: _Item) -> None:
    if item.target == other.target or (item.name and item.name == other.name):
        raise InvalidJobSpecError(
            f"{item.label} and {other.label} are both imported as {item.name or item.target!r}. Give one of them "
            "another name."
        )
    for inner, outer in ((item, other), (other, item)):
        if outer.target.endswith(_MODULE) and inner.name.startswith(f"{outer.name}."):
            raise InvalidJobSpecError(
                f"{inner.label} is imported as {inner.name!r}, but {outer.label} makes {outer.name!r} a module, not a "
                "package. Give one of them another name."
            )


def _refuse_missing(item: _Item, place: Place) -> Path:
    """Return the path of an import on this machine."""
    path = place.path(item.path)
    if not path.exists():
        raise PayloadError(f"{item.label} does not exist (looked at {path.absolute()}).")
    if not path.is_dir() and path.suffix not in {_MODULE, _ZIP}:
        raise InvalidJobSpecError(f"{item.label} is neither a directory nor a .py file nor a .zip file.")
    return path


def _files(item: _Item, place: Place) -> dict[str, SourceFile]:
    """Return the files of an import on this machine, by their names among all imports."""
    path = _refuse_missing(item, place)
    if path.is_dir():
        files = tree(path)
        if not files:
            raise PayloadError(f"{item.label} has no file that travels, so there is nothing to import.")
        return {f"{item.target}/{name}": file for name, file in files.items()}
    if path.suffix == _ZIP and not zipfile.is_zipfile(path):
        raise PayloadError(f"{item.label} is named .zip, but is no zip file.")
    return {item.target: SourceFile.of(path)}
