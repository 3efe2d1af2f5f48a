"""Jobs in Airflow's database: task instances with an XCom `mljob`, their XComs and their connections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.models.dagrun import DagRun
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import JSON, Text, and_, case, cast, distinct, func, literal, or_, select
from sqlalchemy.orm import aliased

from airflow_provider_mljobs.task.xcoms import JOB_XCOM, PROGRESS_XCOM

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import ColumnElement, RowMapping, Select
    from sqlalchemy.orm import Session

    from airflow_provider_mljobs.jobs.comment import TaskKey

# The keys of a task instance: in the primary key of XComs, and in that of task instances.
_TASK = ("dag_run_id", "task_id", "map_index")
_PLACE = ("dag_id", "task_id", "run_id", "map_index")
_Job, _Watched = aliased(XComModel, name="job"), aliased(XComModel, name="watched")
# The curves, which are most of an XCom.
_LARGE = "series"
NO_STATE = "none"


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Selects jobs.

    :param dag_ids: of these DAGs.
    :param states: with a task instance in one of these states, ``none`` for no state; empty for all.
    :param pool: on this compute pool; empty for all.
    :param text: with this in the id of DAG, task, run or job, ignoring case; empty for all.
    """

    dag_ids: Collection[str]
    states: Collection[str] = ()
    pool: str = ""
    text: str = ""


def dags_with_jobs(session: Session) -> set[str]:
    """Return the ids of all DAGs whose tasks have jobs."""
    return set(session.scalars(select(distinct(_Job.dag_id)).where(_Job.key == JOB_XCOM)))


def pools(session: Session, dag_ids: Collection[str]) -> list[str]:
    """Return the compute pools of the jobs of some DAGs."""
    pool = _part(session, "compute_pool")
    names = session.scalars(select(distinct(pool)).where(_Job.key == JOB_XCOM, _Job.dag_id.in_(dag_ids)))
    return sorted(name for name in names if isinstance(name, str) and name)


def page(session: Session, chosen: Filter, limit: int, offset: int) -> tuple[int, Sequence[RowMapping]]:
    """Return the number of jobs, and one page of them, newest first."""
    jobs = _chosen(session, chosen)
    total = session.scalar(select(func.count()).select_from(jobs.subquery())) or 0
    order = (_Job.timestamp.desc(), _Job.dag_run_id.desc(), _Job.task_id, _Job.map_index)
    some = jobs.order_by(*order).limit(limit).offset(offset)
    return total, session.execute(_described(session, some).order_by(*order)).mappings().all()


def runs(session: Session, dag_id: str, task_id: str, limit: int, map_indexes: int) -> Sequence[RowMapping]:
    """Return the jobs of a task in its newest runs, oldest first.

    :param map_indexes: the number of mapped instances of each run.
    """
    jobs = _chosen(session, Filter(dag_ids=(dag_id,))).where(_Job.task_id == task_id, _Job.map_index < map_indexes)
    newest = (
        jobs.join(DagRun, DagRun.id == _Job.dag_run_id)
        .with_only_columns(DagRun.id)
        .group_by(DagRun.id, DagRun.run_after)
        .order_by(DagRun.run_after.desc(), DagRun.id.desc())
        .limit(limit)
        .subquery()
    )
    some = _described(session, jobs.join(newest, newest.c.id == _Job.dag_run_id))
    return session.execute(some.order_by(DagRun.run_after, DagRun.id, _Job.map_index)).mappings().all()


def one(session: Session, task: TaskKey) -> RowMapping | None:
    """Return the job of a task instance, or ``None``."""
    jobs = _chosen(session, Filter(dag_ids=(task.dag_id,))).where(_is_of(task, _PLACE))
    return session.execute(_described(session, jobs)).mappings().one_or_none()


def connection_of(session: Session, task: TaskKey) -> str | None:
    """Return the id of a task instance's connection; ``None`` if Airflow no longer has it.

    XCom ``mljob`` names a connection as well, but it can be forged by users who may edit XComs.
    The id is a rendered field. Airflow keeps those of the newest runs only; for older runs the DAG version has the
    field, unless it is a template.
    """
    place = {name: getattr(task, name) for name in _PLACE}
    rendered = session.scalar(select(RenderedTaskInstanceFields.rendered_fields).filter_by(**place))
    if rendered is not None:
        return _text(rendered.get("snowflake_conn_id"))
    version = select(TaskInstance.dag_version_id).filter_by(**place).scalar_subquery()
    dag = session.scalar(select(SerializedDagModel).where(SerializedDagModel.dag_version_id == version))
    written = None if dag is None else _field(dag.data or {}, task.task_id)
    return None if written is None or "{{" in written or "{%" in written else written


def _chosen(session: Session, chosen: Filter) -> Select[Any]:
    """Select the keys of XComs `mljob`."""
    jobs = select(*(getattr(_Job, name) for name in _TASK)).where(_Job.key == JOB_XCOM, _Job.dag_id.in_(chosen.dag_ids))
    if chosen.states:
        state = func.coalesce(TaskInstance.state, NO_STATE)
        jobs = jobs.join(TaskInstance, _is_of(TaskInstance, _PLACE)).where(state.in_(chosen.states))
    if chosen.pool:
        jobs = jobs.where(_part(session, "compute_pool") == chosen.pool)
    if chosen.text:
        ids = (_Job.dag_id, _Job.task_id, _Job.run_id, _part(session, "job_id"))
        jobs = jobs.where(or_(*(each.icontains(chosen.text, autoescape=True) for each in ids)))
    return jobs


def _described(session: Session, some: Select[Any]) -> Select[Any]:
    """Select the columns of some jobs. Reading JSON is slow, so it happens for one page only."""
    keys = some.subquery()
    columns = (
        TaskInstance.dag_id,
        TaskInstance.run_id,
        TaskInstance.task_id,
        TaskInstance.map_index,
        TaskInstance.rendered_map_index.label("map_label"),  # type: ignore[attr-defined]
        TaskInstance.try_number,
        TaskInstance.state,
        TaskInstance.start_date,
        TaskInstance.end_date,
        DagRun.run_after,
        _Job.value.label("job"),
        _without_curves(session, _Watched.value).label("watched"),
    )
    return (
        select(*columns)
        .select_from(keys)
        .join(_Job, and_(_is_of(keys.c, _TASK), _Job.key == JOB_XCOM))
        .join(DagRun, DagRun.id == _Job.dag_run_id)
        .join(TaskInstance, _is_of(TaskInstance, _PLACE))
        .outerjoin(_Watched, and_(_is_of(_Watched, _TASK), _Watched.key == PROGRESS_XCOM))
    )


def _is_of(other: Any, names: Sequence[str]) -> ColumnElement[bool]:
    """Match the task instance of an XCom `mljob`."""
    return and_(*(getattr(other, name) == getattr(_Job, name) for name in names))


def _part(session: Session, name: str) -> ColumnElement[str]:
    """Return a string in XComs `mljob`."""
    value: Any = _Job.value
    if _is_sqlite(session):
        # SQLite stores invalid JSON, e.g. NaN or half of a surrogate pair, and fails when it reads it.
        is_sound = and_(func.json_valid(value) == 1, cast(value, Text).not_like("%\\ud%"))
        value = case((is_sound, value))
    part: ColumnElement[str] = value[name].as_string()
    return part


def _without_curves(session: Session, value: Any) -> ColumnElement[Any]:
    """Return JSON without the curves, which the list doesn't show."""
    if session.get_bind().dialect.name == "postgresql":
        # Postgres removes keys from objects only, and fails for other values.
        return case((func.jsonb_typeof(value) == "object", value.op("-")(literal(_LARGE, Text))))
    rest = func.json_remove(value, f"$.{_LARGE}", type_=JSON())
    return case((func.json_valid(value) == 1, rest)) if _is_sqlite(session) else rest


def _is_sqlite(session: Session) -> bool:
    return session.get_bind().dialect.name == "sqlite"


def _field(data: dict[str, Any], task_id: str) -> str | None:
    """Return the field of a task of a serialised DAG, before rendering."""
    tasks = [task.get("__var", {}) for task in data.get("dag", {}).get("tasks", ())]
    for task in tasks:
        if task.get("task_id") == task_id:
            return _text(task.get("partial_kwargs", task).get("snowflake_conn_id"))
    return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
