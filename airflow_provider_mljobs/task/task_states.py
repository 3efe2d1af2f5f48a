"""The states of task instances: a task asks Airflow's API for them, a command Airflow's database."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowException

from airflow_provider_mljobs.task.airflow_internals import database_states, is_in_task, task_states

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from airflow_provider_mljobs.jobs.comment import TaskKey

# The ids of runs, up to 250 characters each, travel in a URL.
_RUNS = 25


def of_api(tasks: Collection[TaskKey]) -> dict[TaskKey, str | None]:
    """Return the states of task instances, inside of a task; unknown instances are missing.

    Each request is for one task, because instance 1 of ``train`` and a task ``train_1`` share a name in a response.

    :raises AirflowException: if this isn't a task. Errors of Airflow's API are raised as they are.
    """
    if not is_in_task():
        raise AirflowException("Only a task can ask Airflow's API for the states of tasks; outside, ask its database.")
    states: dict[TaskKey, str | None] = {}
    for dag_id, task_id, runs, keys in _batches(tasks):
        by_run = task_states(dag_id, task_id, runs)
        for key in keys:
            name = task_id if key.map_index < 0 else f"{task_id}_{key.map_index}"
            if name in by_run.get(key.run_id, {}):
                states[key] = by_run[key.run_id][name]
    return states


def of_database(tasks: Collection[TaskKey]) -> dict[TaskKey, str | None]:
    """Return the states of task instances, on a machine with Airflow's database; unknown instances are missing."""
    states: dict[TaskKey, str | None] = {}
    for dag_id, task_id, runs, keys in _batches(tasks):
        rows = database_states(dag_id, task_id, runs)
        states |= {key: rows[place] for key in keys if (place := (key.run_id, key.map_index)) in rows}
    return states


def _batches(tasks: Collection[TaskKey]) -> Iterator[tuple[str, str, list[str], list[TaskKey]]]:
    """Group instances into requests: a DAG, a task, some runs, and the instances in them."""
    by_task: dict[tuple[str, str], dict[str, list[TaskKey]]] = defaultdict(lambda: defaultdict(list))
    for key in tasks:
        by_task[key.dag_id, key.task_id][key.run_id].append(key)
    for (dag_id, task_id), by_run in by_task.items():
        for first in range(0, len(by_run), _RUNS):
            runs = list(by_run)[first : first + _RUNS]
            yield dag_id, task_id, runs, [key for run in runs for key in by_run[run]]
