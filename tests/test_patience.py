"""Tasks whose jobs Snowflake doesn't show, or not in time: no healthy job is dropped, and deadlines hold."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from dataclasses import replace

import pytest
from airflow.sdk.exceptions import AirflowException

from airflow_provider_mljobs import exceptions
from airflow_provider_mljobs.emulator.settings import Fault
from airflow_provider_mljobs.operators import MLJobOperator
from airflow_provider_mljobs.task.run import Try
from tests.budget import wait_until
from tests.lab import POOL, STAGE
from tests.tries import Tries, operator_of

BOTH = pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "in the worker"])
NOT_FOUND = {"effect": "error", "errno": 2003, "sqlstate": "02000", "message": "does not exist or not authorized."}
LOOKS = "^SHOW JOB|^DESCRIBE SERVICE|GET_JOB_HISTORY"
SETTINGS = {"task_id": "job", "compute_pool": POOL, "stage_name": STAGE, "poll_interval": 0.1, "log_interval": 0.1}


def seven():
    """Return a number after a moment."""
    import time

    time.sleep(1)
    return 7


def sleeper():
    """Run for longer than the test waits."""
    import time

    time.sleep(60)


@pytest.fixture
def faults(airflow, monkeypatch):
    """Let things go wrong until the end of the test; a job that nothing shows is given up after a second."""
    monkeypatch.setenv("AIRFLOW__MLJOBS__MAX_UNSEEN_SECONDS", "1")
    airflow.snowflake.statements.clear()
    yield airflow.snowflake.faults
    airflow.snowflake.faults.clear()


def tries(airflow, source, **settings):
    """Return the tries of a task."""
    settings = {**SETTINGS, **settings}
    return Tries(airflow, lambda: MLJobOperator(source=source, **settings))


@BOTH
def test_one_negative_answer(airflow, faults, deferrable):
    """A listing and a DESCRIBE that don't show a running job change nothing: the job history has it."""
    faults.add(Fault(matching="^SHOW JOB|^DESCRIBE SERVICE", nth=1, times=2, **NOT_FOUND))

    run = airflow.run_task(lambda: MLJobOperator(source=seven, deferrable=deferrable, **SETTINGS))

    assert 7 == run.xcom("job")


@BOTH
def test_a_job_that_is_not_shown_any_more_is_not_dropped(airflow, faults, capsys, deferrable):
    """The task is lost, but its job may live: it stays with its files, and the log leaves it to the collector."""
    task = tries(airflow, sleeper, deferrable=deferrable)
    faults.add(Fault(matching=LOOKS, **NOT_FOUND))

    with pytest.raises(exceptions.MLJobLostError, match="is not shown any more"):
        task.run()
    faults.clear()

    assert [] == airflow.snowflake.statements.matching("^DROP|^REMOVE|CANCEL")
    assert [("3_1", "RUNNING")] == task.jobs
    assert "was not seen to end, so it may still run: it is not dropped" in capsys.readouterr().out
    assert "submitted" == task.store["mljob"]["progress"]


def test_a_job_that_is_shown_again_when_its_end_is_taken(airflow, faults, monkeypatch):
    """A job that counted as gone and is there again is waited for as patiently as an outage, and then left alone."""
    monkeypatch.setenv("AIRFLOW__MLJOBS__MAX_UNREACHABLE_SECONDS", "1")
    task = tries(airflow, sleeper, deferrable=True)
    trigger = task.defer()
    faults.add(Fault(matching=LOOKS, **NOT_FOUND))
    event = asyncio.run(anext(trigger.run())).payload
    faults.clear()

    with pytest.raises(exceptions.SnowflakeUnavailableError, match="was not shown for too long, and is RUNNING now"):
        task.resume("execute_complete", {"event": event})
    assert ("gone", [("3_1", "RUNNING")]) == (event["verdict"], task.jobs)


def test_a_kill_that_finds_nothing(airflow, faults, capsys):
    """A job that nothing shows is cancelled as soon as it can be, not taken for ended."""
    trigger = tries(airflow, sleeper, deferrable=True).defer()
    faults.add(Fault(matching=f"{LOOKS}|SPCS_CANCEL_JOB", nth=1, times=3, **NOT_FOUND))

    asyncio.run(trigger.on_kill())

    assert [] == airflow.jobs
    assert "Cancelled job" in capsys.readouterr().out


def test_a_kill_in_vain(airflow, faults, capsys):
    """A job that nothing shows for long is left to the collector, and the log says so."""
    task = tries(airflow, sleeper, deferrable=True)
    trigger = task.defer()
    faults.add(Fault(matching=f"{LOOKS}|SPCS_CANCEL_JOB", **NOT_FOUND))

    asyncio.run(trigger.on_kill())
    faults.clear()

    assert [("3_1", "RUNNING")] == task.jobs
    assert [] == airflow.snowflake.statements.matching("^DROP")
    assert "The collector (airflow mljobs gc) will remove it" in capsys.readouterr().out


@pytest.mark.parametrize("limit", ["timeout", "execution_timeout"])
def test_a_deadline_holds_without_a_worker(airflow, capsys, limit):
    """The trigger cancels the job by itself, and its line in the log says why; the worker comes later."""
    now = time.time()
    task = tries(airflow, sleeper, deferrable=True, **({"timeout": 1} if limit == "timeout" else {}))
    trigger = task.defer()
    if limit == "execution_timeout":
        trigger.plan = replace(trigger.plan, deadline=now + 1)

    event = asyncio.run(anext(trigger.run())).payload

    assert ("timed_out", limit, True) == (event["verdict"], event["message"], event["is_overdue"])
    assert task.jobs[0][1] in {"CANCELLING", "CANCELLED"}
    log = capsys.readouterr().out
    assert "is out of time: it" in log
    assert f"the task's {limit}" in log
    with pytest.raises(exceptions.MLJobTimeoutError, match=f"within the task's {limit}; it was cancelled"):
        task.resume("execute_complete", {"event": event})
    assert [] == airflow.jobs


def test_a_queue_deadline_holds_without_a_worker(airflow):
    """A job that doesn't begin in time is cancelled by the trigger, too."""
    container = {"name": "main", "image": "/nowhere/is/this/image:1"}
    settings = {**SETTINGS, "stage_name": None, "queue_timeout": 1, "deferrable": True}
    task = Tries(airflow, lambda: MLJobOperator(spec={"spec": {"containers": [container]}}, **settings))

    event = asyncio.run(anext(task.defer().run())).payload

    assert "queue_timed_out" == event["verdict"]
    assert task.jobs[0][1] in {"CANCELLING", "CANCELLED"}
    with pytest.raises(exceptions.MLJobQueueTimeoutError, match="it was cancelled"):
        task.resume("execute_complete", {"event": event})


def test_a_queue_deadline_holds_whatever_the_containers_say(airflow, faults):
    """Why the job waits may be unknown; it is cancelled all the same."""
    container = {"name": "main", "image": "/nowhere/is/this/image:1"}
    settings = {**SETTINGS, "stage_name": None, "queue_timeout": 1, "log_interval": 0, "deferrable": True}
    task = Tries(airflow, lambda: MLJobOperator(spec={"spec": {"containers": [container]}}, **settings))
    trigger = task.defer()
    faults.add(Fault(matching="SHOW SERVICE CONTAINERS", effect="error"))

    event = asyncio.run(asyncio.wait_for(anext(trigger.run()), 60)).payload

    assert ("queue_timed_out", True) == (event["verdict"], event["is_overdue"])
    assert task.jobs[0][1] in {"CANCELLING", "CANCELLED"}


def test_the_end_of_a_job_that_was_out_of_time(airflow):
    """A job that was still running at its deadline fails its task, though it may be DONE meanwhile."""
    task = tries(airflow, seven, deferrable=True)
    event = asyncio.run(anext(task.defer().run())).payload
    late = {**event, "verdict": "timed_out", "message": "timeout", "is_overdue": True}

    with pytest.raises(exceptions.MLJobTimeoutError, match="within the task's timeout; it ended DONE after that"):
        task.resume("execute_complete", {"event": late})


@BOTH
def test_a_cancel_at_the_deadline_is_tried_again(airflow, faults, deferrable):
    """Whether Snowflake is out of reach for a moment, or doesn't show the job."""
    faults.add(
        Fault(matching="SPCS_CANCEL_JOB", effect="error", errno=390195, nth=1, times=2),
        Fault(matching="SPCS_CANCEL_JOB", nth=3, **NOT_FOUND),
    )

    run = airflow.run_task(lambda: MLJobOperator(source=sleeper, deferrable=deferrable, timeout=1, **SETTINGS))

    assert exceptions.MLJobTimeoutError is type(run.errors["job"])
    assert [] == airflow.jobs


@pytest.mark.parametrize(
    "printed",
    [
        {"cursors": [1]},
        {"cursors": {"0/main": None}},
        {"cursors": {"first/main": ["", 0]}},
        {"cursors": {"0/main": ["2026-99-01T00:00:00Z", 1]}},
        {"cursors": {"0/main": ["yesterday", 1]}},
        {"cursors": {"0/main": ["", 1e999]}},
        {"gaps": [[0, "main", "a"]]},
        {"gaps": [[0, "main", {"after": ""}, "", "", ""]]},
        {"gaps": 7},
        {"series": [[["x"]]]},
        [1, 2],
        "newer",
    ],
    ids=str,
)
def test_an_unreadable_place_in_the_log(airflow, printed):
    """An event of another version, or one that people have edited, costs lines that appear twice, and no job."""

    class Edited(Try):
        def _complete(self, event):
            return super()._complete({**event, "printed": printed})

    run = airflow.run_task(lambda: operator_of(Edited)(source=seven, deferrable=True, **SETTINGS))

    assert 7 == run.xcom("job")
    assert [] == airflow.jobs


def test_a_log_without_a_row(airflow, faults):
    """An empty answer to a question for a log is a log that isn't there, and costs no job."""
    faults.add(Fault(matching="GET_SERVICE_LOGS", effect="empty"))

    run = airflow.run_task(lambda: MLJobOperator(source=seven, **SETTINGS))

    assert 7 == run.xcom("job")


@pytest.mark.usefixtures("interruptible")
@BOTH
def test_an_interrupt_ends_the_job(airflow, capsys, deferrable):
    """Ctrl-C of `airflow dags test` ends the job as a kill does."""

    def interrupt():
        wait_until(lambda: [row for row in airflow.query("SHOW JOB SERVICES IN ACCOUNT") if row["status"] == "RUNNING"])
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with contextlib.suppress(KeyboardInterrupt, AirflowException):
        airflow.run_task(lambda: MLJobOperator(source=sleeper, deferrable=deferrable, **SETTINGS))
    thread.join()

    assert [] == airflow.jobs
    assert "Cancelled job" in capsys.readouterr().out
