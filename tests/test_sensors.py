"""MLJobSensor: jobs that others have submitted, on the embedded Snowflake."""

import re
import time
from types import SimpleNamespace

import pytest
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk.exceptions import AirflowSensorTimeout, TaskDeferred

from airflow_provider_mljobs.emulator.settings import Fault
from airflow_provider_mljobs.exceptions import (
    InvalidJobSpecError,
    JobNotFoundError,
    MLJobCancelledError,
    RemoteError,
    ResultError,
)
from airflow_provider_mljobs.hooks import MLJobHook
from airflow_provider_mljobs.sensors import MLJobSensor
from airflow_provider_mljobs.triggers import MLJobTrigger
from tests.lab import POOL, STAGE, submit

BOTH = pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "in the worker"])
CONTEXT = {"ti": SimpleNamespace(dag_id="dag", run_id="run", task_id="sensor", map_index=-1, try_number=1)}
OWN_IMAGE = (
    "EXECUTE JOB SERVICE IN COMPUTE POOL ML_POOL NAME = MLJOBS_DB.PUBLIC.{name} ASYNC = TRUE FROM SPECIFICATION "
    "$${{spec: {{containers: [{{name: main, image: /snowflake/images/snowflake_images/greeter:1.0, "
    "command: [sh, -c, 'echo hello']}}]}}}}$$"
)


def talk():
    """Print a little, and return a mapping."""
    import time

    for number in range(10):
        print("line", number)
        time.sleep(0.05)
    return {"auc": 0.8}


def fail():
    """Raise."""
    raise ValueError("no such table")


def sleep():
    """Run for longer than any test waits."""
    import time

    time.sleep(60)


def sensor(**settings):
    """Build a sensor that looks often."""
    return MLJobSensor(**{"task_id": "sensor", "poll_interval": 0.2, "log_interval": 0.2, "timeout": 60, **settings})


@BOTH
def test_wait_for_a_job(airflow, capsys, deferrable):
    """The task ends with the job, has its log and its id, and leaves it alone."""
    job_id = submit("MLJOB_TALKS", talk)

    run = airflow.run_task(lambda: sensor(job_id="mljob_talks", deferrable=deferrable))

    log = capsys.readouterr().out
    assert ("success", job_id) == (run.state, run.xcom("sensor"))
    assert [job_id, "DONE"] == [run.xcom("sensor", key) for key in ("job_id", "status")]
    assert "finishing" == run.xcom("sensor", "timeline")[-1]["phase"]
    assert [1] * 10 == [len(re.findall(rf"^line {number}\b", log, re.MULTILINE)) for number in range(10)]
    assert ["MLJOB_TALKS"] == airflow.jobs


def test_a_job_that_is_over(airflow, capsys):
    """Nothing is waited for; log, status and the job's value are there."""
    submit("MLJOB_OVER", talk, wait_for="DONE")

    run = airflow.run_task(lambda: sensor(job_id="MLJOB_OVER", result=True, deferrable=True))

    assert {"auc": 0.8} == run.xcom("sensor")
    assert "line 9" in capsys.readouterr().out
    assert ["finishing"] == [step["phase"] for step in run.xcom("sensor", "timeline")]


def test_a_job_of_another_task(airflow):
    """A task that doesn't wait hands its job's id to the sensor."""
    from airflow_provider_mljobs.operators import MLJobOperator

    def two():
        start = MLJobOperator(
            task_id="start", source=talk, compute_pool=POOL, stage_name=STAGE, wait_for_completion=False
        )
        sensor(job_id=start.output, result=True)

    run = airflow.run_task(two)

    assert ("success", {"auc": 0.8}) == (run.state, run.xcom("sensor"))


def test_the_newest_of_a_pattern(airflow):
    """Of several jobs the last one counts; the pattern is that of LIKE, not the beginning of a name."""
    submit("TRAIN_OLD", talk)
    newest = submit("TRAIN_NEW", talk)
    submit("TRAIN_NEW_BUT_LONGER", talk)

    run = airflow.run_task(lambda: sensor(name_pattern="train____"))

    assert newest == run.xcom("sensor")


def test_an_escaped_pattern(airflow):
    r"""``\_`` is an underscore and nothing else."""
    fitting = submit("TRAIN_1", talk)
    submit("TRAINX1", talk)

    with MLJobHook() as hook:
        assert fitting == str(hook.newest("TRAIN\\_%"))
        assert hook.newest("NOBODY%") is None


def test_a_job_that_comes_later(airflow):
    """A deferrable sensor gives its worker back until it looks again; its deadline stays the same."""
    task = sensor(name_pattern="LATER%", deferrable=True, poke_interval=60, timeout=600)
    with pytest.raises(TaskDeferred) as first:
        task.execute(CONTEXT)
    submit("LATER_1", talk)
    with pytest.raises(TaskDeferred) as second:
        task.look(CONTEXT, None, **first.value.kwargs)

    until_look = first.value.trigger.moment.timestamp() - time.time()
    assert (DateTimeTrigger, "look") == (type(first.value.trigger), first.value.method_name)
    assert 50 < until_look <= 60
    assert (MLJobTrigger, "execute_complete") == (type(second.value.trigger), second.value.method_name)
    assert first.value.kwargs["deadline"] == second.value.trigger.plan.deadline
    assert not second.value.trigger.plan.cancel_on_kill


def test_an_outage_while_nothing_is_found(airflow, capsys):
    """An outage is waited out like the absence of a job."""
    submit("MLJOB_HIDDEN", talk)
    airflow.snowflake.faults.add(
        Fault(matching="SHOW JOB SERVICES LIKE 'MLJOB_HID", effect="error", errno=250003, nth=1)
    )
    try:
        run = airflow.run_task(lambda: sensor(name_pattern="MLJOB_HID%", poke_interval=0.1))
    finally:
        airflow.snowflake.faults.clear()

    assert "success" == run.state
    assert "Could not look for jobs like MLJOB_HID%" in capsys.readouterr().out


@BOTH
def test_a_failed_job(airflow, deferrable):
    """The payload's exception is the task's; the job is left as it is."""
    submit("MLJOB_FAILS", fail)

    run = airflow.run_task(lambda: sensor(job_id="MLJOB_FAILS", deferrable=deferrable))

    assert RemoteError is type(run.errors["sensor"])
    assert "ValueError: no such table" in str(run.errors["sensor"])
    assert "FAILED" == run.xcom("sensor", "status")
    assert ["MLJOB_FAILS"] == airflow.jobs


def test_a_cancelled_job(airflow):
    """A job that another user cancels fails the task."""
    job_id = submit("MLJOB_CANCELLED", sleep)
    airflow.query(f"CALL {job_id}!SPCS_CANCEL_JOB()")

    run = airflow.run_task(lambda: sensor(job_id=job_id))

    assert MLJobCancelledError is type(run.errors["sensor"])


@BOTH
def test_timeout(airflow, deferrable):
    """After the timeout the sensor gives up, and the job keeps running."""
    job_id = submit("MLJOB_SLEEPS", sleep)

    run = airflow.run_task(lambda: sensor(job_id=job_id, timeout=1, deferrable=deferrable))

    assert AirflowSensorTimeout is type(run.errors["sensor"])
    assert "is still RUNNING after the sensor's timeout of 1 s" in str(run.errors["sensor"])
    assert ["RUNNING"] == [row["status"] for row in airflow.query("SHOW JOB SERVICES IN ACCOUNT")]


def test_nothing_comes(airflow):
    """A pattern that no job ever fits ends with the timeout."""
    run = airflow.run_task(lambda: sensor(name_pattern="NOBODY%", timeout=0.3, poke_interval=0.1))

    assert AirflowSensorTimeout is type(run.errors["sensor"])
    assert "no job like NOBODY% within 0.3 s" in str(run.errors["sensor"])


@pytest.mark.parametrize("settings", [{"deferrable": True}, {}, {"mode": "reschedule"}], ids=str)
def test_soft_fail(airflow, settings):
    """With soft_fail, a job that fails skips the task."""
    submit("MLJOB_SOFT", fail, wait_for="FAILED")

    run = airflow.run_task(lambda: sensor(job_id="MLJOB_SOFT", soft_fail=True, **settings))

    assert {"sensor": "skipped"} == run.tasks


@BOTH
def test_a_job_that_never_was(airflow, monkeypatch, deferrable):
    """A sensor by id fails when repeated looks don't show the job, and says why it doesn't wait."""
    monkeypatch.setenv("AIRFLOW__MLJOBS__MAX_UNSEEN_SECONDS", "1")
    run = airflow.run_task(lambda: sensor(job_id="MLJOB_NEVER", deferrable=deferrable, soft_fail=True))

    assert JobNotFoundError is type(run.errors["sensor"])
    assert "Job MLJOBS_DB.PUBLIC.MLJOB_NEVER does not exist" in str(run.errors["sensor"])
    assert "Use name_pattern instead of job_id" in str(run.errors["sensor"])


def test_reschedule(airflow):
    """Airflow's own loop finds a job that is over, and one that isn't."""
    submit("MLJOB_POKED", talk, wait_for="DONE")
    running = submit("MLJOB_POKED_TOO", sleep)

    run = airflow.run_task(lambda: sensor(job_id="MLJOB_POKED", mode="reschedule", result=True))

    assert {"auc": 0.8} == run.xcom("sensor")
    assert not sensor(job_id=running, mode="reschedule").poke(CONTEXT)


def test_a_job_without_a_result(airflow):
    """A job of a specification has no result: its end is enough, unless the sensor asks for a result."""
    for name in ("OWN_IMAGE", "OWN_IMAGE_TOO"):
        airflow.query(OWN_IMAGE.format(name=name))

    without = airflow.run_task(lambda: sensor(job_id="OWN_IMAGE"))
    asked = airflow.run_task(lambda: sensor(job_id="OWN_IMAGE_TOO", result=True))

    assert "success" == without.state
    assert ResultError is type(asked.errors["sensor"])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"job_id": "J", "name_pattern": "J%"},
        {"job_id": "J", "poll_interval": 0},
        {"job_id": "J", "log_interval": -1},
    ],
    ids=str,
)
def test_refused(settings):
    """Impossible arguments are refused while the DAG is parsed."""
    with pytest.raises(InvalidJobSpecError):
        sensor(**settings)


def test_an_empty_id(airflow):
    """An id that a template has left empty is named."""
    run = airflow.run_task(lambda: sensor(job_id="{{ '' }}"))

    assert "job_id is empty." == str(run.errors["sensor"])
