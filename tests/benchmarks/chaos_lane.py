"""Runs of a short job on one embedded Snowflake, one after the other, with the duties of Airflow's scheduler."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter, defaultdict
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from uuid import UUID

from sqlalchemy import select

from airflow_provider_mljobs.task.task_states import of_database
from tests import lab
from tests.benchmarks import chaos_tries
from tests.benchmarks.chaos_judge import Chaos, Course, Job, Report, judge
from tests.benchmarks.chaos_script import AFTER, AFTER_A_CRASH, AFTER_EACH_CRASH, AT_THE_END, MESSAGE, Boundary, Script
from tests.benchmarks.chaos_tries import Order
from tests.benchmarks.chaos_wire import Wire
from tests.budget import budget

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.process import BaseProcess

    from tests.benchmarks.chaos_tries import Case

# A larger value is a reference.
_MAX_XCOM_BYTES = 20_000
# More than the accidents of any run make necessary.
_MOST_PROCESSES = 60
# The most clears of a task whose worker crashes.
_MOST_CLEARS = 3
_HISTORY = (
    "SELECT NAME, STATUS, CREATED_TIME, COMPLETED_TIME FROM "
    "TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY(RESULT_LIMIT => 10000)) ORDER BY CREATED_TIME"
)


@dataclass(frozen=True)
class Left:
    """The leftovers of accidents.

    :param before: the number of services and files before the collections.
    :param summaries: the summaries of the collections.
    :param lost: deleted files to which an XCom refers.
    :param orphans: services and files that remain.
    """

    before: int
    summaries: tuple[str, ...]
    lost: list[str]
    orphans: list[str]


def _store() -> dict[str, Any]:
    """Store a DAG for each case, and return them as the scheduler reads them."""
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
    """The task of a run in Airflow's database, and the actions of scheduler and triggerer on it.

    :param dag: its DAG, as the scheduler reads it.
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
        """Read the task instance, and write its changes."""
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
    def max_tries(self) -> int:
        """The number of tries that the task may have: more with each clear."""
        with self._opened() as (ti, _):
            return int(ti.max_tries)

    @property
    def identity(self) -> dict[str, Any]:
        """The task instance as a worker receives it."""
        with self._opened() as (ti, _):
            names = ("id", "task_id", "dag_id", "run_id", "try_number", "map_index", "dag_version_id")
            return {name: str(value) if isinstance(value := getattr(ti, name), UUID) else value for name in names}

    @property
    def trigger(self) -> tuple[str, dict[str, Any]]:
        """The trigger as a triggerer receives it."""
        with self._opened() as (ti, _):
            return ti.trigger.classpath, dict(ti.trigger.kwargs)

    @property
    def value(self) -> Any:
        """The return value of the task."""
        with self._opened() as (ti, session):
            return ti.xcom_pull(task_ids=ti.task_id, session=session)

    def queue(self) -> bool:
        """Queue the task for a worker, and return whether its trigger has fired."""
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
    """Runs tasks, with a separate Snowflake and a separate Airflow.

    :param snowflake: an embedded Snowflake of :func:`tests.lab.served`.
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
        self._judged: set[tuple[str, datetime]] = set()
        self._references: list[str] = []
        self._dags = _store()

    def close(self) -> None:
        """Stop the proxy."""
        self._wire.close()

    def run(self, chaos: Chaos) -> Report:
        """Run a task to its end, as scheduler and triggerer do, and return the report."""
        with self._log.open("a") as log:
            log.write(f"\n=== {chaos}\n")
        script = Script(chaos.plans, self._execute)
        self._wire.play(script)
        airflow = TaskState(self._dags[chaos.case.dag_id], chaos)
        course = self._play(chaos, airflow, script)
        script.settle()
        is_lost = course.buried and not chaos.case.has_retries
        report = Report(
            chaos=chaos,
            course=course,
            state=airflow.state,
            expected="success" if chaos.case.succeeds and not is_lost else "failed",
            epoch=airflow.max_tries,
            jobs=self._new_jobs(script),
            hits=script.hits,
            seen=script.seen,
            odd=script.odd,
            late=script.late,
            blind=script.blind,
            trace=script.trace,
            hung=f"{script.hung}: no end for {budget():.0f} s" if script.hung else "",
        )
        value = airflow.value
        report.wrong = list(judge(report, value, chaos_tries.TEXT_LENGTH))
        if chaos.case.outcome == "reference" and isinstance(value, dict) and report.state == "success":
            self._references += [path.partition("/")[2] for path in value.get("stage_paths", ())]
        if not report.wrong:
            # The trace is long, and travels between processes.
            report.trace = []
        return report

    def _play(self, chaos: Chaos, airflow: TaskState, script: Script) -> Course:
        """Run the task's processes, one after the other, until it is over."""
        course = Course()
        most = {AFTER_A_CRASH: 1, AFTER_EACH_CRASH: _MOST_CLEARS}.get(chaos.clear, 0)
        while course.processes < _MOST_PROCESSES and not script.hung:
            if airflow.state in {"success", "failed"}:
                if chaos.clear != AT_THE_END or course.clears:
                    break
                self._clear(airflow, script, course)
            script.waits_since = None
            was_killed = self._phase(chaos.case, airflow, script, course)
            if script.waits_since is not None:
                course.waits.append((script.waits_since, time.time()))
            course.processes += 1
            if was_killed and airflow.state in {"queued", "running"}:
                airflow.bury()
                course.buried += 1
            if was_killed and len(course.clears) < most:
                self._clear(airflow, script, course)
        course.ended = time.time()
        return course

    @staticmethod
    def _clear(airflow: TaskState, script: Script, course: Course) -> None:
        """Clear the task, as a person does."""
        course.clears[airflow.max_tries] = time.time()
        course.buried = 0
        airflow.clear()
        script.tell("--- the task is cleared")

    def _execute(self, statement: str) -> bool:
        """Run a statement with a late effect; returns whether Snowflake accepted it."""
        from snowflake.connector.errors import Error

        try:
            self.query(statement)
        except Error:
            return False
        return True

    def _phase(self, case: Case, airflow: TaskState, script: Script, course: Course) -> bool:
        """Run the next process of a task, and return whether it was killed."""
        trigger = None
        if airflow.state == "deferred":
            script.phase, trigger = "trigger", airflow.trigger
        else:
            script.phase = "resume" if airflow.queue() else "execute"
        script.tell(f"--- {script.phase}, try {airflow.identity['try_number']} of {airflow.max_tries}")
        plan = script.next_message
        kill_at = None if plan is None else (plan.at.kind.removeprefix(MESSAGE), plan.at.nth, plan.accident == AFTER)
        heard = self._listen(Order(case, airflow.identity, trigger, kill_at, self._environment, str(self._log)))
        counts = self._note(heard, script, course)
        if heard["killed"]:
            if kill_at is not None and counts[kill_at[0]] == kill_at[1]:
                script.strike(plan)
            return True
        for payload in heard["event"]:
            airflow.fire(payload)
        for error in heard["failure"]:
            airflow.fail_trigger(error)
        return False

    @staticmethod
    def _note(heard: dict[str, list[Any]], script: Script, course: Course) -> Counter[str]:
        """Note the messages of a process; returns the number of each kind that it sent to Airflow."""
        counts: Counter[str] = Counter()
        for kind in heard["message"]:
            counts[kind] += 1
            script.note(Boundary(script.phase, MESSAGE + kind, counts[kind]))
        if heard["hung"]:
            script.hung = f"in {script.phase}"
        for error in filter(None, [*heard["error"], *heard["failure"]]):
            script.tell(f"    ended with {' '.join(error.split())[:300]}")
            course.errors.append(error)
        return counts

    def _listen(self, order: Order) -> dict[str, list[Any]]:
        """Run a process to its end, and return its messages by kind."""
        ours, theirs = self._context.Pipe()
        self._process = self._context.Process(target=chaos_tries.run, args=(theirs, order))
        self._process.start()
        theirs.close()
        heard: defaultdict[str, list[Any]] = defaultdict(list)
        with ours, suppress(EOFError):
            # A process that takes longer hangs, which is worse than any accident.
            while ours.poll(budget()):
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
        # Waits for the sentinel only: the exit code goes to the first caller that joins.
        wait([self._process.sentinel])

    def collect(self) -> Left:
        """Collect the leftovers of accidents, and return those that remain."""
        script = Script()
        for kind in ("SHOW JOB SERVICES", "LIST"):
            script.spell("reversed", kind)
        self._wire.play(script)
        before = [*self._services(), *self._files()]
        # Ages are whole seconds, so a leftover becomes older than 0 s only in the next second.
        time.sleep(2)
        summary = self._collect()
        files = self._files()
        lost = [path for path in self._references if path not in files]
        # XComs may refer to results, so they stay for the retention of [mljobs]; this ends it.
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

    def _new_jobs(self, script: Script) -> list[Job]:
        jobs = [Job(*row) for row in self.query(_HISTORY)]
        new = [job for job in jobs if (job.name, job.created) not in self._judged]
        self._judged.update((job.name, job.created) for job in new)
        return [self._with_script(job, script) for job in new]

    @staticmethod
    def _with_script(job: Job, script: Script) -> Job:
        """Note the accidents that concern a job."""
        is_late = any(effect.has_made(job.name, job.began) for effect in script.late)
        return replace(job, is_late=is_late, seen_from=max(job.began, script.seen_from.get(job.name, 0.0)))
