"""The private and undocumented parts of Airflow that the provider depends on, so that an upgrade breaks one file.

Checked with Airflow 3.3.2. The page's own dependencies on Airflow's API server are in ``ui/``.
"""

from __future__ import annotations

import copy
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk._shared.secrets_masker import (
    _secrets_masker,
    redact as redact,  # noqa: PLC0414 (stars secrets in a text)
)
from airflow.sdk.definitions.asset import AssetRef as AssetRef  # noqa: PLC0414 (the outlets by name or URI)
from airflow.sdk.definitions.context import KNOWN_CONTEXT_KEYS
from airflow.sdk.exceptions import AirflowException
from airflow.sdk.execution_time.context import NEVER_EXPIRE as NEVER_EXPIRE  # noqa: PLC0414 (for the task state store)
from airflow.sdk.execution_time.lazy_sequence import (
    LazyXComSequence as LazyXComSequence,  # noqa: PLC0414 (a mapped task's output, which Airflow reads item by item)
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

# A decorated function's parameters of these names get the context's values.
CONTEXT_KEYS = frozenset(KNOWN_CONTEXT_KEYS)


def empty_masker() -> Any:
    """Return a masker with the settings of Airflow's, and none of its secrets."""
    masker = copy.copy(_secrets_masker())
    masker.reset_masker()
    return masker


def is_in_task() -> bool:
    """Return whether this process runs a task or triggers, which reach Airflow's API through their supervisor."""
    from airflow.sdk.execution_time import task_runner

    # Airflow sets the name when a supervisor is there.
    return hasattr(task_runner, "SUPERVISOR_COMMS")


def is_inline() -> bool:
    """Return whether a trigger runs in ``dag.test()``, which has no triggerer."""
    from airflow.sdk.execution_time import supervisor, task_runner

    return isinstance(getattr(task_runner, "SUPERVISOR_COMMS", None), supervisor.InProcessSupervisorComms)


def task_states(dag_id: str, task_id: str, run_ids: list[str]) -> dict[str, Any]:
    """Return the states of a task's instances by run and name, from Airflow's API; only in a task or trigger."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    return RuntimeTaskInstance.get_task_states(dag_id=dag_id, task_ids=[task_id], run_ids=run_ids)


def database_states(dag_id: str, task_id: str, run_ids: list[str]) -> dict[tuple[str, int], str | None]:
    """Return the states of a task's instances by run and map index, from Airflow's database."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select
    from sqlalchemy.exc import SQLAlchemyError

    states = select(TaskInstance.run_id, TaskInstance.map_index, TaskInstance.state).where(
        TaskInstance.dag_id == dag_id, TaskInstance.task_id == task_id, TaskInstance.run_id.in_(run_ids)
    )
    try:
        with create_session() as session:
            return {(run_id, map_index): state for run_id, map_index, state in session.execute(states)}
    except SQLAlchemyError as error:
        raise AirflowException(f"Airflow's database can't be asked for the states of tasks: {error}") from error


@contextmanager
def as_server() -> Iterator[None]:
    """Read connections from Airflow's database as well, as Airflow's own commands do."""
    name = "_AIRFLOW_PROCESS_CONTEXT"
    before = os.environ.get(name)
    os.environ[name] = "server"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def triggerer_heartbeat() -> tuple[bool, datetime | None]:
    """Return whether a triggerer is alive, and the time of the last heartbeat, from Airflow's database."""
    from airflow.jobs.job import most_recent_job
    from sqlalchemy.exc import SQLAlchemyError

    try:
        job = most_recent_job("TriggererJob")
        return (False, None) if job is None else (job.is_alive(), job.latest_heartbeat)
    except SQLAlchemyError as error:
        raise AirflowException(f"Airflow's database can't be asked for its triggerers: {error}") from error


def through_xcom(value: Any) -> Any:
    """Return a value as a later task gets it: serialised as worker, supervisor and API do, one after the other."""
    import msgspec
    from airflow.sdk.serde import deserialize, serialize
    from pydantic import JsonValue, TypeAdapter

    message = msgspec.msgpack.encode(serialize(value))
    text = json.dumps(msgspec.msgpack.decode(message), ensure_ascii=False, allow_nan=False)
    reader: TypeAdapter[Any] = TypeAdapter(JsonValue)
    return deserialize(reader.validate_json(text.encode()))
