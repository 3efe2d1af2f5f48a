"""Imports of the fork server, done once, so that forked processes start at once."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from http import HTTPStatus
from uuid import UUID

import a2wsgi  # noqa: F401 (only imported, as all here)
import httpx
import snowflake.connector  # noqa: F401, TID253 (as above; no DAG file is parsed here)
from airflow import settings
from airflow.models.dagbag import DBDagBag  # noqa: F401 (as above)
from airflow.sdk.execution_time.supervisor import in_process_api_server

import airflow_provider_mljobs
from tests.benchmarks import chaos_tries  # noqa: F401 (as above)

# Parts of other processes: a server with threads, and the program of containers.
_ELSEWHERE = ("airflow_provider_mljobs.emulator", "airflow_provider_mljobs.launcher")


def _import_all() -> None:
    """Import the whole provider, so that edits during a benchmark do not change it."""
    for module in pkgutil.walk_packages(airflow_provider_mljobs.__path__, "airflow_provider_mljobs."):
        if not module.name.startswith(_ELSEWHERE):
            importlib.import_module(module.name)


async def _ask_airflow() -> None:
    """Build the routes of the API and the queries of the database toolkit: the first requests take seconds."""
    app = in_process_api_server().app
    began = {"state": "running", "hostname": "", "unixname": "", "pid": 1, "start_date": "2026-01-01T00:00:00Z"}
    nobody = f"/task-instances/{UUID(int=0)}"
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://airflow") as client,
    ):
        (await client.get("/health")).raise_for_status()
        # The task instance does not exist; the same queries run to find out.
        assert (await client.patch(f"{nobody}/run", json=began)).status_code == HTTPStatus.NOT_FOUND
        await client.post("/xcoms/none/none/none/none", json=None)
        await client.patch(f"{nobody}/state", json={"state": "success", "end_date": began["start_date"]})


_import_all()
# Neither threads nor an open database may remain: they do not survive a fork.
asyncio.run(_ask_airflow())
settings.dispose_orm(do_log=False)
