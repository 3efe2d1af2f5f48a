"""The page "ML Jobs" as an Airflow plugin. Every process imports it, so the app is made at its first request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow.sdk.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

URL_PREFIX = "/mljobs"


class LazyApp:
    """An ASGI app that is made at its first request, which only the API server receives."""

    def __init__(self) -> None:
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if self._app is None:
            # In a thread: its imports would block the API server's event loop.
            self._app = await asyncio.to_thread(_make_app)
        await self._app(scope, receive, send)


def _make_app() -> ASGIApp:
    from airflow_provider_mljobs.ui.app import create_app

    return create_app()


class MLJobsPlugin(AirflowPlugin):
    """The page in the menu "Browse", the tabs of task instances and of tasks, and their routes."""

    name = "mljobs"
    fastapi_apps: list[Any] = [{"app": LazyApp(), "url_prefix": URL_PREFIX, "name": "ML Jobs"}]  # noqa: RUF012 (as Airflow has it)

    @property
    def react_apps(self) -> list[Any]:  # type: ignore[override]
        """The page for Airflow's UI: a property, so that only the API server reads the files for their version."""
        from airflow_provider_mljobs.task.settings import base_path
        from airflow_provider_mljobs.ui.files import version

        places = [
            {"name": "ML Jobs", "destination": "nav", "url_route": "mljobs", "category": "browse"},
            {"name": "ML Job", "destination": "task_instance", "url_route": "mljob"},
            {"name": "ML Model", "destination": "task", "url_route": "mlmodel"},
        ]
        # Airflow may be served below a path of its host.
        bundle_url = f"{base_path()}{URL_PREFIX}/static/{version()}/mljobs.js"
        return [{**place, "bundle_url": bundle_url} for place in places]
