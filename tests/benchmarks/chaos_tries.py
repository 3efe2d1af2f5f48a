"""The work of the processes that are killed: one try of a task, or the watch of its trigger."""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args
from uuid import UUID

import attrs
from airflow import settings
from airflow.sdk import DAG
from airflow.sdk._shared.module_loading import import_string
from airflow.sdk.api.datamodels._generated import TaskInstance
from airflow.sdk.execution_time.supervisor import InProcessTestSupervisor

from airflow_provider_mljobs.operators import MLJobOperator

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# The end of a payload: a value, a value on the stage, an error in the first attempt only, or always an error.
Outcome = Literal["value", "reference", "fails once", "fails"]
TASK = "t"
# Too long for a specification: the arguments become a file of the job.
TEXT_LENGTH = 60_000


@dataclass(frozen=True)
class Case:
    """The kind of a task.

    :param deferrable: whether it waits in a trigger.
    :param has_retries: whether it has retries.
    :param durable: whether a retry attaches to the job of the try before.
    """

    outcome: Outcome
    deferrable: bool
    has_retries: bool = True
    durable: bool = True

    @property
    def dag_id(self) -> str:
        """The DAG with such a task."""
        mode = "deferred" if self.deferrable else "waiting"
        retries = "retries" if self.has_retries else "once"
        durable = "durable" if self.durable else "forgetful"
        return f"chaos_{self.outcome.replace(' ', '_')}_{mode}_{retries}_{durable}"

    @property
    def retries(self) -> int:
        """More retries than accidents; few for a task that fails."""
        if not self.has_retries:
            return 0
        return 10 if self.succeeds else 1

    @property
    def succeeds(self) -> bool:
        """Whether the task succeeds with retries."""
        return self.outcome != "fails"


CASES = (
    *(Case(outcome, deferrable) for outcome in get_args(Outcome) for deferrable in (False, True)),
    *(Case("value", deferrable, has_retries=False) for deferrable in (False, True)),
    Case("value", deferrable=False, durable=False),
)


def make(case: Case) -> DAG:
    """Make the DAG of a case."""
    with DAG(case.dag_id, schedule=None, start_date=datetime(2026, 1, 1)) as dag:
        MLJobOperator(
            task_id=TASK,
            source=payload,
            args=["{{ dag_run.conf.run }}", case.outcome, "{{ dag_run.conf.seconds }}", "x" * TEXT_LENGTH],
            compute_pool="ML_POOL",
            stage_name="@ML_PAYLOADS",
            deferrable=case.deferrable,
            durable=case.durable,
            retries=case.retries,
            retry_delay=timedelta(0),
            poll_interval=0.3,
            log_interval=10.0,
        )
    return dag


def payload(run, outcome, seconds, text):
    """Run as the job: short, with a value that identifies the run."""
    import os
    import time

    time.sleep(float(seconds))
    attempt = int(os.environ["SNOWFLAKE_SERVICE_NAME"].rsplit("_", 1)[1])
    if outcome == "fails" or (outcome == "fails once" and attempt == 1):
        raise ValueError(f"run {run} fails in attempt {attempt}")
    if outcome == "reference":
        return run * 10_000
    return {"run": run, "text": len(text), "job": os.environ["SNOWFLAKE_SERVICE_NAME"]}


@dataclass(frozen=True)
class Order:
    """The order for a process.

    :param ti: the task instance, as a worker receives it.
    :param trigger: class path and arguments of a trigger to run instead of the task.
    :param kill_at: the message to Airflow at which the process ends: its type, its number, and whether it dies after
        Airflow has received it.
    :param environment: its environment variables, above all the connection to Snowflake.
    :param log: its log file.
    """

    case: Case
    ti: dict[str, Any]
    trigger: tuple[str, dict[str, Any]] | None
    kill_at: tuple[str, int, bool] | None
    environment: dict[str, str]
    log: str


def run(pipe: Connection, order: Order) -> None:
    """Carry out an order; sends the messages to Airflow and the event of a trigger through the pipe."""
    log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= order.environment
    # A forked process must not share the open database of its parent.
    settings.dispose_orm(do_log=False)
    settings.configure_orm()
    ti = TaskInstance(**{**order.ti, "id": UUID(order.ti["id"]), "dag_version_id": UUID(order.ti["dag_version_id"])})
    if order.trigger is not None:
        pipe.send(_watch(ti, *order.trigger))
        return
    task = make(order.case).get_task(TASK)
    result = Worker.start(what=ti, task=task, pipe=pipe, kill_at=order.kill_at)
    pipe.send(("error", None if result.error is None else f"{type(result.error).__name__}: {result.error}"))


def _watch(ti: TaskInstance, path: str, arguments: dict[str, Any]) -> tuple[str, Any]:
    """Run a trigger; returns its event, or its failure."""
    try:
        event = InProcessTestSupervisor.run_trigger_in_process(trigger=import_string(path)(**arguments), ti=ti)
    except Exception as error:  # noqa: BLE001 (the boundary: Airflow resumes the task with it)
        return "failure", repr(error)
    return "event", event.payload


@attrs.define(kw_only=True)
class Worker(InProcessTestSupervisor):
    """Airflow's supervisor in the process of the task, which may end at any message from one to the other.

    :param kill_at: see :class:`Order`.
    :param counts: the messages so far, by type.
    """

    pipe: Any
    kill_at: tuple[str, int, bool] | None
    counts: Counter[str] = attrs.field(factory=Counter)

    def _handle_request(self, msg: Any, log: Any, req_id: int) -> None:
        kind = type(msg).__name__
        self.counts[kind] += 1
        self.pipe.send(("message", kind))
        if self.kill_at == (kind, self.counts[kind], False):
            os.kill(os.getpid(), signal.SIGKILL)
        super()._handle_request(msg, log, req_id)
        if self.kill_at == (kind, self.counts[kind], True):
            os.kill(os.getpid(), signal.SIGKILL)
