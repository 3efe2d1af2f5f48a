"""What the fork server imports and makes once, so that the processes that it forks begin at once."""

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

# Another process's part: a server with threads, and what runs in containers.
_ELSEWHERE = ("airflow_provider_mljobs.emulator", "airflow_provider_mljobs.launcher")


def _import_all() -> None:
    """Import the whole provider; so nobody who edits it meanwhile changes what is measured."""
    for module in pkgutil.walk_packages(airflow_provider_mljobs.__path__, "airflow_provider_mljobs."):
        if not module.name.startswith(_ELSEWHERE):
            importlib.import_module(module.name)


async def _ask_airflow() -> None:
    """Have the API make its routes, and the database toolkit its queries: at the first questions, and for seconds."""
    app = in_process_api_server().app
    began = {"state": "running", "hostname": "", "unixname": "", "pid": 1, "start_date": "2026-01-01T00:00:00Z"}
    nobody = f"/task-instances/{UUID(int=0)}"
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://airflow") as client,
    ):
        (await client.get("/health")).raise_for_status()
        # It doesn't exist, which takes the same queries to find out.
        assert (await client.patch(f"{nobody}/run", json=began)).status_code == HTTPStatus.NOT_FOUND
        await client.post("/xcoms/none/none/none/none", json=None)
        await client.patch(f"{nobody}/state", json={"state": "success", "end_date": began["start_date"]})


_import_all()
# No thread is left by that, and no open database: neither survives a fork.
asyncio.run(_ask_airflow())
settings.dispose_orm(do_log=False)
