"""The app below `/mljobs`: the page's files, which are public, and its routes, which are not."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.responses import FileResponse, JSONResponse
from starlette.staticfiles import NotModifiedResponse, StaticFiles

from airflow_provider_mljobs.ui.routes import router

if TYPE_CHECKING:
    import os

    from fastapi import Request
    from starlette.responses import Response
    from starlette.types import Scope

_FILES = Path(__file__).with_name("static")
# What the machine's own list may lack, or have otherwise; a browser runs no module of another type.
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".map": "application/json"}


class PageFiles(StaticFiles):
    """The files of the page. Browsers ask each time whether they have changed, so that an upgrade is seen at once."""

    def file_response(
        self, full_path: os.PathLike[str] | str, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Answer with a file, or that it is still the same."""
        path = Path(full_path)
        headers = {
            "Cache-Control": "no-cache",
            "ETag": _etag(path),
            "X-Content-Type-Options": "nosniff",
        }
        media_type = _TYPES.get(path.suffix)
        response = FileResponse(path, status_code, headers, media_type, stat_result=stat_result)
        if self.is_not_modified(response.headers, Headers(scope=scope)):
            return NotModifiedResponse(response.headers)
        return response


def _etag(path: Path) -> str:
    """Return what tells a file's content. Installed files may all be of one day, and each API server has its own."""
    return f'"{hashlib.sha256(path.read_bytes()).hexdigest()[:32]}"'


def create_app() -> FastAPI:
    """Make the app."""
    # The routes are the page's own: nothing to be documented, or relied on.
    app = FastAPI(title="ML Jobs", openapi_url=None)
    app.mount("/static", PageFiles(directory=_FILES), name="static")
    app.include_router(router, prefix="/api")
    app.add_exception_handler(RequestValidationError, _explain)
    return app


async def _explain(_: Request, error: Exception) -> JSONResponse:
    """Say in one sentence what is wrong with a request."""
    errors = error.errors() if isinstance(error, RequestValidationError) else ()
    told = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in errors[:1]]
    return JSONResponse({"detail": f"This can't be answered: {'; '.join(told)}."}, status_code=400)
