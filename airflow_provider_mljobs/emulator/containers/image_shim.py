"""Copied into the Python environment of an image: lets it have no pip, or be a system's environment.

It uses the standard library only.
"""

from __future__ import annotations

import site
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class _FinderWithoutPip(PathFinder):
    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return None if fullname == "pip" else super().find_spec(fullname, path, target)


def hide_pip() -> None:
    """Let ``import pip`` fail; a pip that brings its own modules, like one of another Python, works."""
    # Python reads the .pth files of an environment twice.
    sys.meta_path[:] = [_FinderWithoutPip if finder is PathFinder else finder for finder in sys.meta_path]


class _PipFinder(PathFinder):
    """Loads pip so that it leaves the packages of this machine alone, as it does in a virtual environment."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = super().find_spec(fullname, path, target) if fullname == "pip._internal.utils.misc" else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                vars(module)["is_local"] = _is_in_environment

            vars(spec.loader)["exec_module"] = exec_module
        return spec


def _is_in_environment(path: str) -> bool:
    return Path(path).resolve().is_relative_to(Path(sys.prefix).resolve())


def be_system() -> None:
    """Look like the Python of a system, which installers protect, instead of a virtual environment."""
    # Of a system's Python pip would remove other versions of a package: here, from the developer's environment.
    if _PipFinder not in sys.meta_path:
        sys.meta_path.insert(0, _PipFinder)
    sys.base_prefix, sys.base_exec_prefix = sys.prefix, sys.exec_prefix
    version = "python{}.{}".format(*sys.version_info)
    # Where Debian's Python installs outside of virtual environments.
    site.addsitedir(str(Path(sys.prefix, "local", "lib", version, "dist-packages")))
