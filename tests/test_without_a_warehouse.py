"""A connection without a warehouse: jobs run to their end, and a warning names the questions that go unanswered."""

import json
import os
from datetime import timedelta

import pytest

from airflow_provider_mljobs.exceptions import JobNotFoundError, MLJobLostError
from airflow_provider_mljobs.gateway.usage import read_usage
from airflow_provider_mljobs.hooks import MLJobHook
from airflow_provider_mljobs.operators import MLJobOperator
from tests.lab import POOL, STAGE, submit

SETTINGS = {"task_id": "job", "compute_pool": POOL, "stage_name": STAGE, "poll_interval": 0.05}
VARIABLE = "AIRFLOW_CONN_SNOWFLAKE_DEFAULT"
NEVER = "MLJOBS_DB.PUBLIC.NEVER"


def seven():
    """Print a line and return seven."""
    print("counting")
    return 7


def sleep():
    """Run until the job is ended."""
    import time

    time.sleep(600)


@pytest.fixture
def connection(airflow, monkeypatch):
    """Return a function that sets the connection's warehouse; at first it names none."""

    def set_warehouse(**warehouse):
        connection = json.loads(os.environ[VARIABLE])
        connection["extra"].pop("warehouse", None)
        connection["extra"] |= warehouse
        monkeypatch.setenv(VARIABLE, json.dumps(connection))

    set_warehouse()
    return set_warehouse


def test_a_job_runs_to_its_end(airflow, connection, capsys):
    """The task defers, logs, returns its value and cleans up; one warning names the setting that is missing."""
    run = airflow.run_task(lambda: MLJobOperator(source=seven, deferrable=True, log_interval=0.1, **SETTINGS))

    assert 7 == run.xcom("job")
    log = capsys.readouterr().out
    assert "counting" in log
    assert 1 == log.count("The session has no warehouse")
    assert "connection snowflake_default names none" in log
    assert "Set warehouse in the connection" in log
    assert ([], []) == (airflow.jobs, airflow.files)


def test_a_warehouse_that_the_session_did_not_get(airflow, connection, capsys):
    """A login with a warehouse that doesn't exist succeeds without one; the warning names it."""
    connection(warehouse="GONE_WH")

    run = airflow.run_task(lambda: MLJobOperator(source=seven, **SETTINGS))

    assert 7 == run.xcom("job")
    assert "names GONE_WH, which doesn't exist" in capsys.readouterr().out


def test_a_warehouse_is_no_reason_for_a_warning(airflow, capsys):
    """A session with a warehouse is not warned about."""
    airflow.run_task(lambda: MLJobOperator(source=seven, **SETTINGS))

    assert "no warehouse" not in capsys.readouterr().out


def test_a_dropped_job_is_lost(airflow, connection, monkeypatch):
    """A job that was dropped counts as gone after a while, though the job history can't be asked."""
    monkeypatch.setenv("AIRFLOW__MLJOBS__MAX_UNSEEN_SECONDS", "1")

    def drop(session):
        import os
        import time

        session.sql(f"DROP SERVICE {os.environ['SNOWFLAKE_SERVICE_NAME']}").collect()
        time.sleep(60)

    run = airflow.run_task(lambda: MLJobOperator(source=drop, log_interval=0.1, **SETTINGS))

    assert MLJobLostError is type(run.errors["job"])
    assert "The job history can't be read: No active warehouse" in run.errors["job"].message


def test_a_job_that_nothing_shows(airflow, connection):
    """The status of a job that Snowflake doesn't show is an error that says how to make the history readable."""
    with MLJobHook() as hook, pytest.raises(JobNotFoundError, match="Set warehouse in the Airflow connection"):
        hook.status(hook.job(NEVER))


def test_usage(airflow, connection):
    """The charts of a job say that Snowflake needs a warehouse for its metrics."""
    with MLJobHook() as hook:
        job = hook.job(submit("MLJOB_MEASURED", seven, wait_for="DONE"))
        usage = read_usage(hook.client, job)

    assert () == usage.series
    assert "No active warehouse" in usage.reason
    assert "Set warehouse in the Airflow connection" in usage.reason


def test_collect(airflow, connection, monkeypatch):
    """The collector works on the listing alone."""
    monkeypatch.setenv("AIRFLOW__MLJOBS__DEPLOYMENT", "lab")
    airflow.run_task(lambda: MLJobOperator(source=seven, on_finish="keep", **SETTINGS))
    with MLJobHook() as hook:
        collection = hook.collect(timedelta(0), stages=[STAGE], task_states=lambda _: {})

    assert ["dropped"] == [item.action for item in collection.items if item.kind == "job"]
    assert collection.is_complete
    assert [] == airflow.jobs
