"""Tasks and jobs on a Snowflake that takes an account's time: results arrive late, logs leave their node, names stay.

The provider must not depend on answers that are there at once. A minute of Snowflake's takes a second here, except for
the files and names that are compared with the provider's own patience; a log leaves its node at once.
"""

import asyncio
import os
from datetime import timedelta

import pytest

from airflow_provider_mljobs import exceptions, report
from airflow_provider_mljobs.emulator.settings import Fault
from airflow_provider_mljobs.hooks import MLJobHook
from airflow_provider_mljobs.jobs.comment import Origin, TaskKey
from airflow_provider_mljobs.jobs.names import Identifier
from airflow_provider_mljobs.jobs.payload.archive import Payload
from airflow_provider_mljobs.jobs.spec.job import JobSpec
from tests.budget import wait_until
from tests.lab import POOL, STAGE, Airflow, served
from tests.tries import tries

SPEED = 60
BOTH = pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "in the worker"])


@pytest.fixture(scope="module")
def server():
    """Serve a Snowflake on which no log is there after the end, and files and names come more than a second later."""
    with served(realistic=True, speed=SPEED, stage_lag=4.0, drop_seconds=1.5, log_retention=0.0) as server:
        yield server


@pytest.fixture
def airflow(server, monkeypatch):
    """Point ``snowflake_default`` to it; tasks wait as long for a log as three minutes would be."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AIRFLOW__MLJOBS__MAX_LOG_LAG_SECONDS", "12")
    server.statements.clear()
    yield Airflow(server)
    server.faults.clear()


def train(rows):
    """Print, report and save something."""
    from pathlib import Path

    print("training")
    report.metrics(auc=0.9)
    Path(os.environ["MLRS_STAGE_RESULT_PATH"], "model.bin").write_bytes(bytes(rows))
    print("trained")
    return {"rows": rows}


def fail():
    """Raise the exception of a payload."""
    raise LookupError("no rows this week")


def sleep():
    """Run for longer than the test waits."""
    import time

    time.sleep(600)


@BOTH
def test_a_job(airflow, capsys, deferrable):
    """Value, file, metric and each line of the log reach Airflow, and nothing is left."""
    task = tries(airflow, train, args=[100], deferrable=deferrable)
    value = task.run()
    log = capsys.readouterr().out

    assert {"rows": 100} == value
    assert [("model.bin", 100)] == [(file["path"], file["bytes"]) for file in task.xcoms["artifacts"]]
    assert {"auc": 0.9} == task.xcoms["metrics"]
    assert (1, 1) == (log.count("training"), log.count("trained"))
    assert ([], ["model.bin"]) == (airflow.jobs, airflow.files)


@BOTH
def test_an_exception(airflow, deferrable):
    """The exception of a payload is on the stage after the job has FAILED."""
    with pytest.raises(exceptions.RemoteError, match="no rows this week"):
        tries(airflow, fail, deferrable=deferrable).run()


def test_a_log_that_never_comes(airflow, capsys, monkeypatch):
    """A task doesn't wait for ever for the end of a log; it has the value, and the log says where the lines will be."""
    monkeypatch.setenv("AIRFLOW__MLJOBS__MAX_LOG_LAG_SECONDS", "0")
    airflow.snowflake.faults.add(Fault(matching="SPCS_GET_LOGS", effect="empty"))

    assert {"rows": 1} == tries(airflow, train, args=[1]).run()
    assert "has left its node and is not in the event table yet" in capsys.readouterr().out


def test_a_retry(airflow):
    """A retry runs a new job while the failed one is still being deleted."""
    task = tries(airflow, fail, on_finish="drop")
    with pytest.raises(exceptions.RemoteError):
        task.run()
    with pytest.raises(exceptions.RemoteError):
        task.run()

    assert [("3_1", "FAILED"), ("3_2", "FAILED")] == task.jobs


def test_a_lost_worker(airflow):
    """A try that follows a lost one attaches to its job, which is PENDING all the time."""
    task = tries(airflow, train, args=[7], deferrable=True)
    task.defer()

    assert {"rows": 7} == task.run()
    assert 1 == len(task.jobs)


def test_a_kill(airflow):
    """A kill cancels a job that has not started yet, and drops it."""
    trigger = tries(airflow, sleep, deferrable=True).defer()

    asyncio.run(trigger.on_kill())

    assert [] == airflow.jobs
    wait_until(lambda: not airflow.query("SHOW JOB SERVICES IN ACCOUNT"))


def by_hand(hook, name, comment=""):
    """Submit a job without a task."""
    spec = JobSpec(name=hook.job(name), compute_pool=Identifier(POOL), stage=hook.stage(STAGE), comment=comment)
    return hook.submit(spec, Payload.of_function(lambda: 5))


def test_a_name_again(airflow):
    """A job is submitted under the name of one that is being deleted, instead of being taken for it."""
    with MLJobHook() as hook:
        first = by_hand(hook, "AGAIN")
        wait_until(lambda: hook.status(hook.job("AGAIN")).is_terminal)
        hook.drop(hook.job("AGAIN"))
        second = by_hand(hook, "AGAIN")
        status = hook.status(hook.job("AGAIN"))

    assert first == second
    assert not status.is_terminal
    assert "DELETING" != status


def test_a_clean_up(airflow, monkeypatch):
    """The collector drops a job whose DAG run is gone, once."""
    monkeypatch.setenv("AIRFLOW__MLJOBS__DEPLOYMENT", "lab")
    task = TaskKey(airflow="lab", dag_id="deleted", run_id="r", task_id="train")
    origin = Origin(task=task, run_started="2026-01-01", epoch=0, try_number=1)
    with MLJobHook() as hook:
        by_hand(hook, str(task.job_name(0, 1)), origin.to_comment())
        first, second = (hook.collect(timedelta(0), task_states=lambda _: {}) for _ in range(2))

    assert first.summary.startswith("dropped 1 job")
    assert second.summary.startswith("nothing to collect")
