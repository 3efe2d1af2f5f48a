"""The app below `/mljobs`: the page's public files and its protected routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse

from airflow_provider_mljobs.ui.files import PageFiles
from airflow_provider_mljobs.ui.routes import router

if TYPE_CHECKING:
    from fastapi import Request


def create_app() -> FastAPI:
    """Create the app."""
    # The routes are private to the page: no OpenAPI document.
    app = FastAPI(title="ML Jobs", openapi_url=None)
    app.mount("/static/{version}", PageFiles(), name="static")
    app.include_router(router, prefix="/api")
    app.add_exception_handler(RequestValidationError, _refuse)
    return app


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    """Describe the first problem of a request in one sentence."""
    errors = error.errors() if isinstance(error, RequestValidationError) else ()
    problems = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in errors[:1]]
    return JSONResponse({"detail": f"Invalid request: {'; '.join(problems)}."}, status_code=400)
