"""By which Airflow connection a task runs its jobs: asked of what Airflow itself has noted of the task instance.

XCom ``mljob`` names a connection, too, but whoever may edit XComs may have written it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from sqlalchemy import select

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from airflow_provider_mljobs.jobs.comment import TaskKey

_FIELD = "snowflake_conn_id"


def connection_of(session: Session, task: TaskKey) -> str | None:
    """Return the id of a task instance's connection; ``None`` if Airflow doesn't know it any more.

    That is its rendered field. Airflow keeps those of the newest runs; of an older one the DAG says it, in the version
    that ran, unless the field is a template.
    """
    place = {"dag_id": task.dag_id, "run_id": task.run_id, "task_id": task.task_id, "map_index": task.map_index}
    rendered = session.scalar(select(RenderedTaskInstanceFields.rendered_fields).filter_by(**place))
    if rendered is not None:
        return _text(rendered.get(_FIELD))
    version = select(TaskInstance.dag_version_id).filter_by(**place).scalar_subquery()
    dag = session.scalar(select(SerializedDagModel).where(SerializedDagModel.dag_version_id == version))
    written = None if dag is None else _field(dag.data or {}, task.task_id)
    return None if written is None or "{{" in written or "{%" in written else written


def _field(data: dict[str, Any], task_id: str) -> str | None:
    """Return the field of a task of a serialised DAG, as its author has written it."""
    tasks = [task.get("__var", {}) for task in data.get("dag", {}).get("tasks", ())]
    for task in tasks:
        if task.get("task_id") == task_id:
            return _text(task.get("partial_kwargs", task).get(_FIELD))
    return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
