"""The app below `/mljobs`: the page's files, which are public, and its routes, which are not."""

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
    """Make the app."""
    # The routes are the page's own: nothing to be documented, or relied on.
    app = FastAPI(title="ML Jobs", openapi_url=None)
    app.mount("/static/{version}", PageFiles(), name="static")
    app.include_router(router, prefix="/api")
    app.add_exception_handler(RequestValidationError, _explain)
    return app


async def _explain(_: Request, error: Exception) -> JSONResponse:
    """Say in one sentence what is wrong with a request."""
    errors = error.errors() if isinstance(error, RequestValidationError) else ()
    told = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in errors[:1]]
    return JSONResponse({"detail": f"This can't be answered: {'; '.join(told)}."}, status_code=400)
