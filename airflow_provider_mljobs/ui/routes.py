"""The routes of the page and their permissions. They read Airflow's database; :mod:`.actions` talks to Snowflake."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.api_fastapi.logging.decorators import action_logging
from airflow.utils.state import TaskInstanceState
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import BaseModel, Field

from airflow_provider_mljobs.jobs.comment import TaskKey
from airflow_provider_mljobs.task.settings import deployment
from airflow_provider_mljobs.ui import access, actions, listing, presenters

T = TypeVar("T")
Limit = Annotated[int, Field(ge=1, le=500)]
MapIndex = Annotated[int, Field(ge=-1, lt=2**31)]
# Names in Airflow have at most 250 characters, fully qualified ones in Snowflake three times 257.
_MAX_CHARACTERS, _MAX_VALUES = 1000, 100
Text = Annotated[str, Field(max_length=_MAX_CHARACTERS)]
Name = Annotated[Text, Field(min_length=1, pattern=r"^[^\x00]*$")]
State = TaskInstanceState | Literal["none", ""]

# The most jobs of one task over its runs.
_MAX_JOBS = 1000
# Requests to Snowflake must not block the threads of Airflow's own routes, and a cancel must not wait behind reads.
_READERS, _WRITERS = ThreadPoolExecutor(4, "mljobs-read"), ThreadPoolExecutor(4, "mljobs-write")


def is_text(request: Request) -> None:
    """Refuse NUL, which Postgres can't store, and values longer than any name."""
    values = [*map(str, request.path_params.values()), *(value for _, value in request.query_params.multi_items())]
    if any("\0" in value for value in values):
        raise HTTPException(400, "The request contains a NUL character.")
    if len(values) > _MAX_VALUES or any(len(value) > _MAX_CHARACTERS for value in values):
        raise HTTPException(
            400, f"A request has at most {_MAX_VALUES} parameters of at most {_MAX_CHARACTERS} characters each."
        )


def is_json(request: Request) -> None:
    """Refuse the forms of other sites: browsers send JSON across sites only after a preflight request."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "Send JSON: Content-Type: application/json.")


def may_clean_up(user: GetUserDep) -> None:
    """Refuse users who may not clean up."""
    if not access.may_clean_up(user):
        raise HTTPException(403, "Cleaning up needs permission to edit all DAGs and all connections.")


OF_TASK = "/dags/{dag_id}/runs/{run_id}/tasks/{task_id}"
READS_TASKS = [Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.TASK_INSTANCE))]
READS_JOBS = [*READS_TASKS, Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.XCOM))]
EDITS_TASKS = [Depends(requires_access_dag(method="PUT", access_entity=DagAccessEntity.TASK_INSTANCE))]
router = APIRouter(dependencies=[Depends(is_text)])


class MeantJob(BaseModel):
    """The job that the user saw when they pressed the button."""

    map_index: MapIndex = -1
    job_id: Text


class CleanUp(BaseModel):
    """The parameters of :meth:`~airflow_provider_mljobs.hooks.MLJobHook.collect`; by default a dry run."""

    snowflake_conn_id: Name = "snowflake_default"
    older_than_hours: Annotated[float, Field(ge=0, le=1e6)] = 24
    stages: Annotated[list[Name], Field(max_length=_MAX_VALUES)] = []
    schema_name: Annotated[Name | None, Field(alias="schema")] = None
    dry_run: bool = True


def task_key(dag_id: str, run_id: str, task_id: str, map_index: Annotated[MapIndex, Query()] = -1) -> TaskKey:
    """Return the key of a task instance of this Airflow."""
    return TaskKey(airflow=deployment(), dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index)


class Wanted(BaseModel):
    """The parameters of a list: see :class:`~airflow_provider_mljobs.ui.listing.Filter`; an empty string means any."""

    limit: Limit = 50
    offset: Annotated[int, Field(ge=0, le=10**9)] = 0
    dag_id: str = ""
    state: list[State] = []
    pool: str = ""
    text: str = ""


@router.get("/jobs")
def list_jobs(session: SessionDep, user: GetUserDep, wanted: Annotated[Wanted, Query()]) -> dict[str, Any]:
    """List the jobs of the DAGs that the user may read."""
    dag_ids = {wanted.dag_id} if wanted.dag_id else listing.dags_with_jobs(session)
    dag_ids = access.readable(session, user, dag_ids)
    states = [state for state in wanted.state if state]
    chosen = listing.Filter(dag_ids=dag_ids, states=states, pool=wanted.pool, text=wanted.text)
    total, rows = listing.page(session, chosen, wanted.limit, wanted.offset)
    return {"total": total, "jobs": _jobs(rows)}


@router.get("/filters")
def list_filters(session: SessionDep, user: GetUserDep) -> dict[str, Any]:
    """List the values of the filters, and whether the user may clean up."""
    dag_ids = access.readable(session, user, listing.dags_with_jobs(session))
    return {
        "dag_ids": sorted(dag_ids),
        "pools": listing.pools(session, dag_ids),
        "can_clean_up": access.may_clean_up(user),
    }


@router.get("/dags/{dag_id}/tasks/{task_id}/runs", dependencies=READS_JOBS)
def list_runs(session: SessionDep, dag_id: str, task_id: str, limit: Annotated[Limit, Query()] = 30) -> dict[str, Any]:
    """List the jobs of a task in its newest runs, oldest first."""
    map_indexes = max(1, _MAX_JOBS // limit)
    return {"runs": _jobs(listing.runs(session, dag_id, task_id, limit, map_indexes)), "map_indexes": map_indexes}


@router.get("/dags/{dag_id}/rights", dependencies=READS_TASKS)
def list_rights(user: GetUserDep, dag_id: str) -> dict[str, bool]:
    """Whether the user may cancel and drop the jobs of a DAG."""
    return {"can_edit": access.may_edit(user, dag_id)}


@router.get(OF_TASK + "/specification", dependencies=READS_JOBS)
async def show_specification(task: Annotated[TaskKey, Depends(task_key)]) -> dict[str, Any]:
    """Show the specification of a job, without secrets."""
    return await _in_thread(_READERS, partial(actions.specification, task))


@router.get(OF_TASK + "/usage", dependencies=READS_JOBS)
async def show_usage(task: Annotated[TaskKey, Depends(task_key)]) -> dict[str, Any]:
    """Show CPU, memory and GPU of a job's containers."""
    return await _in_thread(_READERS, partial(actions.usage, task))


@router.post(
    OF_TASK + "/cancel", dependencies=[Depends(is_json), Depends(action_logging("mljobs.cancel")), *EDITS_TASKS]
)
async def cancel_job(dag_id: str, run_id: str, task_id: str, body: MeantJob) -> dict[str, Any]:
    """Cancel a job."""
    task = task_key(dag_id, run_id, task_id, body.map_index)
    return await _in_thread(_WRITERS, partial(actions.cancel, task, body.job_id))


@router.post(OF_TASK + "/drop", dependencies=[Depends(is_json), Depends(action_logging("mljobs.drop")), *EDITS_TASKS])
async def drop_job(dag_id: str, run_id: str, task_id: str, body: MeantJob) -> dict[str, Any]:
    """Drop an ended job."""
    task = task_key(dag_id, run_id, task_id, body.map_index)
    return await _in_thread(_WRITERS, partial(actions.drop, task, body.job_id))


@router.post(
    "/clean-up",
    dependencies=[Depends(is_json), Depends(action_logging("mljobs.clean_up")), Depends(may_clean_up)],
)
async def clean_up(body: CleanUp) -> dict[str, Any]:
    """Drop orphaned jobs, and remove their files from stages."""
    age = timedelta(hours=body.older_than_hours)
    collect = partial(actions.clean_up, body.snowflake_conn_id, age, body.stages, body.schema_name)
    return await _in_thread(_WRITERS, partial(collect, dry_run=body.dry_run))


def _jobs(rows: Any) -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    return [presenters.job(row, now) for row in rows]


async def _in_thread(threads: ThreadPoolExecutor, function: Callable[[], T]) -> T:
    """Run a blocking function in a thread."""
    return await asyncio.get_running_loop().run_in_executor(threads, function)
