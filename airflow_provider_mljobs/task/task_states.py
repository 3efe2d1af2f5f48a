"""What Airflow says of task instances: asked by a task of its API, by a command of its database."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowException

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from airflow_provider_mljobs.jobs.comment import TaskKey

# The ids of runs, up to 250 characters each, travel in a URL.
_RUNS = 25


def of_api(tasks: Collection[TaskKey]) -> dict[TaskKey, str | None]:
    """Return the states of task instances, inside of a task; one that Airflow doesn't know isn't in the answer.

    It asks for one task at a time: in the answer, instance 1 of ``train`` and a task ``train_1`` are called the same.

    :raises AirflowException: if this isn't a task. What Airflow's API answers if it isn't the states is raised, too.
    """
    from airflow.sdk.execution_time import task_runner

    if not hasattr(task_runner, "SUPERVISOR_COMMS"):
        raise AirflowException("Only a task can ask Airflow's API for the states of tasks; outside, ask its database.")
    found: dict[TaskKey, str | None] = {}
    for dag_id, task_id, runs, keys in _batches(tasks):
        states = task_runner.RuntimeTaskInstance.get_task_states(dag_id=dag_id, task_ids=[task_id], run_ids=runs)
        for key in keys:
            name = task_id if key.map_index < 0 else f"{task_id}_{key.map_index}"
            if name in states.get(key.run_id, {}):
                found[key] = states[key.run_id][name]
    return found


def of_database(tasks: Collection[TaskKey]) -> dict[TaskKey, str | None]:
    """Return the states of task instances, on a machine with Airflow's database; likewise.

    :raises AirflowException: if the database can't be asked.
    """
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select
    from sqlalchemy.exc import SQLAlchemyError

    found: dict[TaskKey, str | None] = {}
    try:
        with create_session() as session:
            for dag_id, task_id, runs, keys in _batches(tasks):
                rows = session.execute(
                    select(TaskInstance.run_id, TaskInstance.map_index, TaskInstance.state).where(
                        TaskInstance.dag_id == dag_id, TaskInstance.task_id == task_id, TaskInstance.run_id.in_(runs)
                    )
                )
                states = {(run_id, map_index): state for run_id, map_index, state in rows}
                found |= {key: states[place] for key in keys if (place := (key.run_id, key.map_index)) in states}
    except SQLAlchemyError as error:
        raise AirflowException(f"Airflow's database can't be asked for the states of tasks: {error}") from error
    return found


def _batches(tasks: Collection[TaskKey]) -> Iterator[tuple[str, str, list[str], list[TaskKey]]]:
    """Put together what can be asked for at once: a DAG, a task, some runs, and the instances that are in them."""
    by_task: dict[tuple[str, str], dict[str, list[TaskKey]]] = defaultdict(lambda: defaultdict(list))
    for key in tasks:
        by_task[key.dag_id, key.task_id][key.run_id].append(key)
    for (dag_id, task_id), by_run in by_task.items():
        for runs in _chunks(list(by_run)):
            yield dag_id, task_id, runs, [key for run in runs for key in by_run[run]]


def _chunks(runs: list[str]) -> Iterator[list[str]]:
    for first in range(0, len(runs), _RUNS):
        yield runs[first : first + _RUNS]
