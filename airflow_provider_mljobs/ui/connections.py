"""The Airflow connection of a task instance, from Airflow's own records.

XCom ``mljob`` names a connection as well, but it can be forged by users who may edit XComs.
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
    """Return the id of a task instance's connection; ``None`` if Airflow no longer has it.

    It is a rendered field. Airflow keeps the rendered fields of the newest runs only; for older runs the DAG version
    has the field, unless it is a template.
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
    """Return the field of a task of a serialised DAG, before rendering."""
    tasks = [task.get("__var", {}) for task in data.get("dag", {}).get("tasks", ())]
    for task in tasks:
        if task.get("task_id") == task_id:
            return _text(task.get("partial_kwargs", task).get(_FIELD))
    return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
