"""Runs of a short job on one embedded Snowflake, one after the other, and what Airflow's scheduler does for them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter, defaultdict
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from uuid import UUID

from sqlalchemy import select

from airflow_provider_mljobs.taskstates import of_database
from tests import lab
from tests.benchmarks import chaos_tries
from tests.benchmarks.chaos_tries import Order
from tests.benchmarks.chaos_wire import AFTER, AFTER_A_CRASH, AT_THE_END, MESSAGE, Boundary, Hit, Plan, Script, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.process import BaseProcess

    from tests.benchmarks.chaos_tries import Case

# Of a value; a larger one is a reference.
_MAX_XCOM_BYTES = 20_000
# A process that does not end by then hangs, which is worse than any accident.
_PATIENCE_SECONDS = 120.0
# More than any number of accidents of ours can make necessary.
_MOST_PROCESSES = 40
_HISTORY = (
    "SELECT NAME, STATUS, CREATED_TIME, COMPLETED_TIME FROM "
    "TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY(RESULT_LIMIT => 10000)) ORDER BY CREATED_TIME"
)


@dataclass(frozen=True)
class Chaos:
    """One run: a task, and what happens to it.

    :param run: what tells it from the others.
    :param seconds: for how long the job sleeps.
    :param plans: the accidents, in order.
    :param clear: when somebody clears the task: ``after a crash``, or ``at the end``.
    """

    run: str
    case: Case
    seconds: float = 0.0
    plans: tuple[Plan, ...] = ()
    clear: str = ""


@dataclass(frozen=True)
class Job:
    """A job that a run has started."""

    name: str
    status: str
    created: datetime
    completed: datetime | None

    @property
    def epoch(self) -> str:
        """The name without the attempt."""
        return self.name.rpartition("_")[0]


@dataclass
class Report:
    """What came of a run.

    :param expected: the state that the task should have.
    :param processes: how many it took.
    :param cleared: whether somebody has cleared the task.
    :param jobs: those that were started.
    :param hits: the accidents that have happened.
    :param seen: the statements and messages, in order.
    :param wrong: what should not be: its kind, and what exactly.
    """

    chaos: Chaos
    state: str
    expected: str
    processes: int
    cleared: bool
    jobs: list[Job]
    hits: list[Hit]
    seen: list[Boundary]
    seconds: float
    wrong: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Left:
    """What accidents have left behind.

    :param before: how many services and files there were before the collections.
    :param summaries: what the collections say.
    :param lost: files that XCom refers to, and that are gone.
    :param orphans: services and files that are still there.
    """

    before: int
    summaries: tuple[str, ...]
    lost: list[str]
    orphans: list[str]


def _store() -> dict[str, Any]:
    """Store a DAG for each case, and return them as the scheduler knows them."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session

    Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]).mkdir(exist_ok=True)
    initdb()
    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(collect_dags=False)
    dags = [chaos_tries.make(case) for case in chaos_tries.CASES]
    for dag in dags:
        bag.bag_dag(dag)
    with create_session() as session:
        sync_bag_to_db(bag, "dags-folder", None, session=session)
    return {dag.dag_id: DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag)) for dag in dags}


class TaskState:
    """What Airflow knows of a run's task, and what its scheduler and triggerer do with it; no process of the task's.

    :param dag: the task's, as the scheduler knows it.
    """

    def __init__(self, dag: Any, chaos: Chaos) -> None:
        from airflow.sdk import timezone
        from airflow.utils.session import create_session
        from airflow.utils.state import DagRunState
        from airflow.utils.types import DagRunTriggeredByType, DagRunType

        self._dag = dag
        self._run_id = f"chaos__{chaos.run}"
        now = timezone.utcnow()
        with create_session() as session:
            dag.create_dagrun(
                run_id=self._run_id,
                logical_date=None,
                run_after=now,
                conf={"run": chaos.run, "seconds": str(chaos.seconds)},
                run_type=DagRunType.MANUAL,
                state=DagRunState.RUNNING,
                triggered_by=DagRunTriggeredByType.TEST,
                triggering_user_name="chaos",
                start_date=now,
                session=session,
            )

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """Read the task instance, and write what is changed of it."""
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session

        with create_session() as session:
            query = select(TaskInstance).where(
                TaskInstance.dag_id == self._dag.dag_id, TaskInstance.run_id == self._run_id
            )
            ti = session.scalars(query).one()
            ti.task = self._dag.get_task(chaos_tries.TASK)
            yield ti, session

    @property
    def state(self) -> str:
        """The task's state."""
        with self._opened() as (ti, _):
            return str(ti.state)

    @property
    def identity(self) -> dict[str, Any]:
        """What a worker is told of the task."""
        with self._opened() as (ti, _):
            names = ("id", "task_id", "dag_id", "run_id", "try_number", "map_index", "dag_version_id")
            return {name: str(value) if isinstance(value := getattr(ti, name), UUID) else value for name in names}

    @property
    def trigger(self) -> tuple[str, dict[str, Any]]:
        """What a triggerer is told of the task's trigger."""
        with self._opened() as (ti, _):
            return ti.trigger.classpath, dict(ti.trigger.kwargs)

    @property
    def value(self) -> Any:
        """What the task has returned."""
        with self._opened() as (ti, session):
            return ti.xcom_pull(task_ids=ti.task_id, session=session)

    def queue(self) -> bool:
        """Queue the task for a worker, and tell whether it goes on after its trigger."""
        with self._opened() as (ti, _):
            is_resumed = ti.next_method is not None
            ti.try_number += not is_resumed
            ti.state = "queued"
            return is_resumed

    def fire(self, payload: Any) -> None:
        """Take the event of the task's trigger."""
        from airflow.models.trigger import Trigger
        from airflow.triggers.base import TriggerEvent

        with self._opened() as (ti, session):
            Trigger.submit_event(ti.trigger_id, TriggerEvent(payload), session=session)

    def fail_trigger(self, error: str) -> None:
        """Take the failure of the task's trigger."""
        from airflow.models.trigger import Trigger

        with self._opened() as (ti, session):
            Trigger.submit_failure(ti.trigger_id, [error], session=session)

    def bury(self) -> None:
        """Take the worker for dead: the task is up for retry, or has failed."""
        with self._opened() as (ti, session):
            ti.handle_failure("its worker is dead", session=session)

    def clear(self) -> None:
        """Clear the task, as a person does."""
        from airflow.models.taskinstance import clear_task_instances
        from airflow.utils.state import DagRunState

        with self._opened() as (ti, session):
            clear_task_instances([ti], session, dag_run_state=DagRunState.RUNNING)


class Lane:
    """Runs tasks against a Snowflake of its own, with an Airflow of its own.

    :param snowflake: the embedded Snowflake, with what :func:`tests.lab.served` sets up.
    :param log: the file that the processes write to.
    """

    def __init__(self, snowflake: Any, log: Path) -> None:
        self._snowflake = snowflake
        self._log = log
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(["tests.benchmarks.chaos_warm"])
        self._process: BaseProcess | None = None
        self._wire = Wire(snowflake.port, self._kill)
        connection = json.loads(snowflake.environment["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"])
        connection["extra"]["port"] = self._wire.port
        self._environment = {
            "AIRFLOW_CONN_SNOWFLAKE_DEFAULT": json.dumps(connection),
            "AIRFLOW__MLJOBS__MAX_XCOM_BYTES": str(_MAX_XCOM_BYTES),
            "AIRFLOW__MLJOBS__DEPLOYMENT": "chaos",
        }
        self._known: set[tuple[str, datetime]] = set()
        self._references: list[str] = []
        self._dags = _store()

    def close(self) -> None:
        """Stop the proxy."""
        self._wire.close()

    def run(self, chaos: Chaos) -> Report:
        """Run a task to its end, as the scheduler and a triggerer would, and say what came of it."""
        began = time.monotonic()
        with self._log.open("a") as log:
            log.write(f"\n=== {chaos}\n")
        script = Script(chaos.plans)
        self._wire.play(script)
        airflow = TaskState(self._dags[chaos.case.dag_id], chaos)
        cleared, buried, tries = False, 0, 0
        while tries < _MOST_PROCESSES and not script.hung:
            if airflow.state in {"success", "failed"}:
                if chaos.clear != AT_THE_END or cleared:
                    break
                cleared, buried = True, 0
                airflow.clear()
            was_killed = self._phase(chaos.case, airflow, script)
            tries += 1
            if was_killed and airflow.state in {"queued", "running"}:
                airflow.bury()
                buried += 1
            if was_killed and chaos.clear == AFTER_A_CRASH and not cleared:
                cleared, buried = True, 0
                airflow.clear()
        report = Report(
            chaos=chaos,
            state=airflow.state,
            expected="success" if chaos.case.succeeds and (chaos.case.has_retries or not buried) else "failed",
            processes=tries,
            cleared=cleared,
            jobs=self._new_jobs(),
            hits=script.hits,
            seen=script.seen,
            seconds=time.monotonic() - began,
        )
        self._judge(report, script, airflow.value)
        return report

    def _phase(self, case: Case, airflow: TaskState, script: Script) -> bool:
        """Run the next process of a task, and tell whether it was killed."""
        trigger = None
        if airflow.state == "deferred":
            script.phase, trigger = "trigger", airflow.trigger
        else:
            script.phase = "resume" if airflow.queue() else "execute"
        plan = script.next_message
        kill_at = None if plan is None else (plan.at.kind.removeprefix(MESSAGE), plan.at.nth, plan.accident == AFTER)
        heard = self._listen(Order(case, airflow.identity, trigger, kill_at, self._environment, str(self._log)))
        counts: Counter[str] = Counter()
        for kind in heard["message"]:
            counts[kind] += 1
            script.note(Boundary(script.phase, MESSAGE + kind, counts[kind]))
        if heard["hung"]:
            script.hung = f"in {script.phase}"
        if heard["killed"]:
            if kill_at is not None and counts[kill_at[0]] == kill_at[1]:
                script.strike(plan)
            return True
        for payload in heard["event"]:
            airflow.fire(payload)
        for error in heard["failure"]:
            airflow.fail_trigger(error)
        return False

    def _listen(self, order: Order) -> dict[str, list[Any]]:
        """Run a process to its end, and return what it has told."""
        ours, theirs = self._context.Pipe()
        self._process = self._context.Process(target=chaos_tries.run, args=(theirs, order))
        self._process.start()
        theirs.close()
        heard: defaultdict[str, list[Any]] = defaultdict(list)
        with ours, suppress(EOFError):
            while ours.poll(_PATIENCE_SECONDS):
                what, value = ours.recv()
                heard[what].append(value)
            self._kill()
            heard["hung"].append(order)
        self._process.join()
        if self._process.exitcode not in {0, -signal.SIGKILL}:
            raise RuntimeError(f"{order.case}: a process failed with {self._process.exitcode}; see {self._log}")
        if self._process.exitcode:
            heard["killed"].append(self._process.exitcode)
        return heard

    def _kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        # Only looked at: how it ended is told once, to whoever joins.
        wait([self._process.sentinel])

    def collect(self) -> Left:
        """Have what accidents have left behind collected, and look for what is left of it then."""
        self._wire.play(Script())
        before = [*self._services(), *self._files()]
        # What is as old as nothing is older than nothing only in the next second.
        time.sleep(2)
        summary = self._collect()
        files = self._files()
        lost = [path for path in self._references if path not in files]
        # Results are kept for as long as [mljobs] says, since XCom may refer to them. That time is over now.
        later = self._collect(AIRFLOW__MLJOBS__RESULT_RETENTION_DAYS="0.00001")
        return Left(
            before=len(before), summaries=(summary, later), lost=lost, orphans=[*self._services(), *self._files()]
        )

    def _collect(self, **environment: str) -> str:
        from airflow_provider_mljobs.hooks import MLJobHook

        with patch.dict(os.environ, self._environment | environment), MLJobHook() as hook:
            return hook.collect(timedelta(0), stages=[lab.STAGE], task_states=of_database).summary

    def _services(self) -> list[str]:
        return [str(row[0]) for row in self.query("SHOW JOB SERVICES IN ACCOUNT")]

    def _files(self) -> list[str]:
        """List the files of jobs, without the stage; no payloads, which jobs share."""
        names = (str(row[0]) for row in self.query(f"LIST {lab.STAGE}"))
        return [name.partition("/")[2] for name in names if not name.endswith(lab.ARCHIVE)]

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the embedded Snowflake, past the wire."""
        from snowflake import connector

        with connector.connect(**self._snowflake.connection_kwargs) as connection, connection.cursor() as cursor:
            return cursor.execute(statement).fetchall()

    def _new_jobs(self) -> list[Job]:
        jobs = [Job(*row) for row in self.query(_HISTORY)]
        new = [job for job in jobs if (job.name, job.created) not in self._known]
        self._known.update((job.name, job.created) for job in new)
        return new

    def _judge(self, report: Report, script: Script, value: Any) -> None:
        for index, job in enumerate(report.jobs):
            for earlier in report.jobs[:index]:
                is_same_epoch = earlier.epoch == job.epoch
                if earlier.completed is None or earlier.completed > job.created:
                    report.wrong.append(("duplicate", f"{job.name} was started while {earlier.name} was alive"))
                elif is_same_epoch and earlier.status == "DONE":
                    report.wrong.append(("duplicate", f"{job.name} was started though {earlier.name} was done"))
                    report.wrong.append(("lost result", f"that of {earlier.name}"))
        if script.hung:
            report.wrong.append(("wrong state", f"{script.hung}: no end for {_PATIENCE_SECONDS:g} s"))
        elif report.state != report.expected:
            report.wrong.append(("wrong state", f"{report.state} instead of {report.expected}"))
        elif report.state == "success":
            self._judge_value(report, value)

    def _judge_value(self, report: Report, value: Any) -> None:
        case, run = report.chaos.case, report.chaos.run
        if case.outcome == "reference" and isinstance(value, dict) and "stage_paths" in value:
            self._references += [path.partition("/")[2] for path in value["stage_paths"]]
        elif value != {"run": run, "text": chaos_tries.TEXT_LENGTH}:
            report.wrong.append(("lost result", f"the task returned {str(value)[:200]}"))
