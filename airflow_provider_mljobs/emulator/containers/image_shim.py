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


def be_system() -> None:
    """Look like the Python of a system, which installers protect, instead of a virtual environment."""
    sys.base_prefix, sys.base_exec_prefix = sys.prefix, sys.exec_prefix
    version = "python{}.{}".format(*sys.version_info)
    # Where Debian's Python installs outside of virtual environments.
    site.addsitedir(str(Path(sys.prefix, "local", "lib", version, "dist-packages")))
