"""The page "ML Jobs", as Airflow reads it in every process: data, and an app that is made at its first request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.sdk.configuration import conf
from airflow.sdk.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

URL_PREFIX = "/mljobs"


class LazyApp:
    """An ASGI app that is made at its first request: only the API server gets one, and every process imports this."""

    def __init__(self) -> None:
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if self._app is None:
            # In a thread: what it imports takes longer than the API server's event loop should stand still.
            self._app = await asyncio.to_thread(_made)
        await self._app(scope, receive, send)


def _made() -> ASGIApp:
    from airflow_provider_mljobs.ui.app import create_app

    return create_app()


def _bundle_url() -> str:
    """Return where browsers find the page's code; Airflow may live below a path of its host."""
    base = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
    return f"{base}{URL_PREFIX}/static/mljobs.js"


def _react_app(name: str, destination: str, url_route: str, **more: str) -> dict[str, str]:
    return {"name": name, "bundle_url": _bundle_url(), "destination": destination, "url_route": url_route, **more}


class MLJobsPlugin(AirflowPlugin):
    """The page in the menu "Browse", a tab of task instances and one of tasks, and the routes that they ask."""

    name = "mljobs"
    fastapi_apps: list[Any] = [{"app": LazyApp(), "url_prefix": URL_PREFIX, "name": "ML Jobs"}]  # noqa: RUF012 (as Airflow has it)
    react_apps: list[Any] = [  # noqa: RUF012 (as Airflow has it)
        _react_app("ML Jobs", "nav", "mljobs", category="browse"),
        _react_app("ML Job", "task_instance", "mljob"),
        _react_app("ML Model", "task", "mlmodel"),
    ]
