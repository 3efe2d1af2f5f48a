"""The page's files, below the version of their content: a browser that has them once never asks for them again.

The version is that of all files together, since modules name each other by relative paths.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.staticfiles import NotModifiedResponse, StaticFiles

if TYPE_CHECKING:
    import os

    from starlette.responses import Response
    from starlette.types import Scope

FILES = Path(__file__).with_name("static")
_DIGITS = 16
# What the machine's own list may lack, or have otherwise; a browser runs no module of another type.
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".map": "application/json"}
_FOR_EVER = "public, max-age=31536000, immutable"


class PageFiles(StaticFiles):
    """The files of the page, mounted below a path with a parameter ``version``.

    Of any other version than that of the files they are served, too: for pages that are open during an upgrade, or
    come from an API server that has another one. Browsers ask each time whether those have changed.
    """

    def __init__(self, directory: Path = FILES) -> None:
        super().__init__(directory=directory)
        self._files = directory

    def file_response(
        self, full_path: os.PathLike[str] | str, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Answer with a file, or that it is still the same."""
        is_known = scope["path_params"]["version"] == version(self._files)
        path = Path(full_path)
        headers = {
            "Cache-Control": _FOR_EVER if is_known else "no-cache",
            # Installed files may all be of one day, and each API server has its own.
            "ETag": f'"{_digest(path.read_bytes())}"',
            "X-Content-Type-Options": "nosniff",
        }
        media_type = _TYPES.get(path.suffix)
        response = FileResponse(path, status_code, headers, media_type, stat_result=stat_result)
        if self.is_not_modified(response.headers, Headers(scope=scope)):
            return NotModifiedResponse(response.headers)
        return response


def version(directory: Path = FILES) -> str:
    """Return what tells the content of the files. It takes less than a millisecond, and sees each change at once."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    told = (f"{path.relative_to(directory)} {_digest(path.read_bytes())}" for path in files)
    return _digest("\n".join(told).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]
