"""The tries of a task instance without an Airflow: the state that survives from try to try, and deadly moments."""

import asyncio
import itertools
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace

from airflow.sdk.exceptions import TaskDeferred
from airflow.sdk.execution_time.comms import GetXCom, MaskSecret, SetXCom, XComResult
from airflow.sdk.execution_time.supervisor import set_supervisor_comms

from airflow_provider_mljobs.jobs.comment import TaskKey
from airflow_provider_mljobs.operators import MLJobOperator
from tests.lab import POOL, STAGE

_NUMBERS = itertools.count()


SETTINGS = {"task_id": "job", "compute_pool": POOL, "stage_name": STAGE, "poll_interval": 0.05}


def tries(airflow, source, *, retries=3, store=(), map_index=-1, **settings):
    """Return the tries of a task."""
    return Tries(
        airflow,
        lambda: MLJobOperator(source=source, **{**SETTINGS, **settings}),
        retries=retries,
        map_index=map_index,
        store=None if store is None else dict(store),
    )


def operator_of(try_type):
    """Return an operator whose tries are of another type, which intervenes in them."""
    return type("Intervening", (MLJobOperator,), {"_try_type": try_type})


class Killed(BaseException):
    """The death of the process: only the test that waits for it catches it."""


@dataclass
class Tries:
    """A task instance and the state that Airflow keeps for it.

    :param airflow: the embedded Snowflake; see :class:`tests.lab.Airflow`.
    :param make: builds the task, once for each of its processes.
    :param map_index: -1 for a task that isn't mapped.
    :param store: its task state store; ``None`` for an Airflow without one.
    :param gives_xcoms: whether Airflow answers requests for XComs.
    """

    airflow: object
    make: object
    retries: int = 3
    map_index: int = -1
    store: dict | None = field(default_factory=dict)
    xcoms: dict = field(default_factory=dict)
    try_number: int = 0
    clear_number: int = 0
    gives_xcoms: bool = True
    run_started: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def __post_init__(self):
        """Begin a DAG run."""
        self.run_id = f"run_{next(_NUMBERS)}"
        self.max_tries = self.retries
        self._deadly = (None, False)

    def run(self, *, deadly=None, after=False):
        """Run the next try and return its value.

        :param deadly: the step at which it dies: ``("store", "submitted")`` for a write to the task state store,
            ``("xcom", "status")`` for a push.
        :param after: whether it dies right after that step instead of right before.
        """
        self._deadly = (deadly, after)
        try:
            return self._begin()
        except TaskDeferred as deferral:
            event = asyncio.run(anext(deferral.trigger.run()))
            return self.resume("execute_complete", {"event": event.payload})

    def defer(self):
        """Run the next try until it is deferred, and return its trigger."""
        try:
            value = self._begin()
        except TaskDeferred as deferral:
            return deferral.trigger
        raise AssertionError(f"The task was not deferred; it returned {value!r}")

    def resume(self, method, kwargs):
        """Resume a deferred try and return its value."""
        with set_supervisor_comms(SimpleNamespace(send=self._answer)):
            return self.make().resume_execution(method, kwargs, self._context())

    def _begin(self):
        self.try_number += 1
        self.xcoms.clear()
        with set_supervisor_comms(SimpleNamespace(send=self._answer)):
            return self.make().execute(self._context())

    def _answer(self, message):
        """Answer a message as Airflow's supervisor does."""
        match message:
            case SetXCom(key=key, value=value):
                return self._push(key, value)
            case GetXCom(key=key) if self.gives_xcoms:
                return XComResult(key=key, value=self.xcoms.get(key))
            case MaskSecret():
                return None
        raise RuntimeError("Airflow does not answer")

    def die(self, **accident):
        """Run a try that dies."""
        try:
            value = self.run(**accident)
        except Killed:
            return
        raise AssertionError(f"The try did not die; it returned {value!r}")

    def clear(self):
        """Clear the task."""
        self.max_tries = self.try_number + self.retries
        self.clear_number += 1

    def repeat_run(self):
        """Delete the DAG run and create it again."""
        self.try_number, self.max_tries, self.run_started = 0, self.retries, datetime.now(UTC)
        self.clear_number = 0
        self.store.clear()

    @property
    def jobs(self):
        """All jobs of the task instance, in order of submission: pairs of ``epoch_attempt`` and status."""
        beginning = self.job_name("")
        rows = self.airflow.query(
            "SELECT NAME, STATUS FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY(RESULT_LIMIT => 10000)) "
            f"WHERE STARTSWITH(NAME, '{beginning}') ORDER BY CREATED_TIME"
        )
        return [(row["name"].removeprefix(beginning), row["status"]) for row in rows]

    def job_name(self, epoch_and_attempt):
        """Return the name of a job, e.g. for ``3_1``; for ``""`` the prefix that all of them share."""
        task = TaskKey(airflow="", dag_id="dag", run_id=self.run_id, task_id="job", map_index=self.map_index)
        return task.job_name(0, 0).value.removesuffix("0_0") + epoch_and_attempt

    def _context(self):
        ti = SimpleNamespace(
            dag_id="dag",
            run_id=self.run_id,
            task_id="job",
            map_index=self.map_index,
            try_number=self.try_number,
            max_tries=self.max_tries,
            start_date=datetime.now(UTC),
            xcom_push=self._push,
            xcom_pull=lambda key, **_: self.xcoms.get(key),
        )
        store = SimpleNamespace(
            get=lambda key: self.store.get(key),  # noqa: PLW0108 (tests replace the store)
            set=lambda key, value, retention: self._do(
                ("store", value.get("progress")), lambda: self.store.__setitem__(key, json.loads(json.dumps(value)))
            ),
        )
        context = {"ti": ti, "dag_run": SimpleNamespace(start_date=self.run_started, clear_number=self.clear_number)}
        return context if self.store is None else {**context, "task_state_store": store}

    def _push(self, key, value):
        self._do(("xcom", key), lambda: self.xcoms.__setitem__(key, value))

    def _do(self, step, act):
        deadly, after = self._deadly
        if deadly != step:
            act()
        elif after:
            act()
            raise Killed
        else:
            raise Killed
