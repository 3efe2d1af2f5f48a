"""The page's files, below the version of their content, so that browsers can cache them forever.

All files share one version, since modules import each other by relative paths.
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
# Browsers refuse modules of another type, and the machine's own list may differ.
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".map": "application/json"}
_FOREVER = "public, max-age=31536000, immutable"


class PageFiles(StaticFiles):
    """The files of the page, mounted below a path with a parameter ``version``.

    Other versions get the current files, for pages that were open during an upgrade or come from another API server.
    Browsers revalidate those each time.
    """

    def __init__(self, directory: Path = FILES) -> None:
        super().__init__(directory=directory)
        self._files = directory

    def file_response(
        self, full_path: os.PathLike[str] | str, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Respond with a file, or with 304 if it is unchanged."""
        is_current = scope["path_params"]["version"] == version(self._files)
        path = Path(full_path)
        headers = {
            "Cache-Control": _FOREVER if is_current else "no-cache",
            # By content: modification times differ between API servers.
            "ETag": f'"{_digest(path.read_bytes())}"',
            "X-Content-Type-Options": "nosniff",
        }
        media_type = _TYPES.get(path.suffix)
        response = FileResponse(path, status_code, headers, media_type, stat_result=stat_result)
        if self.is_not_modified(response.headers, Headers(scope=scope)):
            return NotModifiedResponse(response.headers)
        return response


def version(directory: Path = FILES) -> str:
    """Return a digest of the files' content. It takes less than a millisecond, so that each change shows at once."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    lines = (f"{path.relative_to(directory)} {_digest(path.read_bytes())}" for path in files)
    return _digest("\n".join(lines).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]
