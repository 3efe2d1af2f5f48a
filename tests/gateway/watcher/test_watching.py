"""Tasks that wait: the log and XCom of waiting and running jobs, and the limits of their time."""

import re
import time
from datetime import timedelta

import pytest

from airflow_provider_mljobs.emulator.settings import Fault
from airflow_provider_mljobs.exceptions import (
    InvalidJobSpecError,
    MLJobQueueTimeoutError,
    MLJobTimeoutError,
    SnowflakeUnavailableError,
)
from airflow_provider_mljobs.gateway import inspection
from airflow_provider_mljobs.hooks import MLJobHook
from airflow_provider_mljobs.operators import MLJobOperator
from airflow_provider_mljobs.task.joblog import mask_environment
from tests.lab import POOL, STAGE

BOTH = pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "in the worker"])


def talk():
    """Print numbered lines for a while."""
    import time

    for number in range(40):
        print("line", number)
        time.sleep(0.05)


def talk_a_lot():
    """Print more than a node keeps."""
    for number in range(4000):
        print("line", number, "." * 60)


def sleep():
    """Run for longer than any test waits."""
    import time

    time.sleep(60)


def task(source=None, **settings):
    """Build a task that looks at its job often."""
    given = {"source": source, "stage_name": STAGE} if source is not None else {}
    defaults = {"task_id": "task", "compute_pool": POOL, "poll_interval": 0.2, "log_interval": 0.2}
    return MLJobOperator(**{**defaults, **given, **settings})


def lines(text):
    """Return the numbers of the lines that are shown, in order."""
    return [int(number) for number in re.findall(r"^line (\d+)", text, re.MULTILINE)]


@BOTH
def test_the_log_is_read_while_the_job_runs(airflow, capsys, deferrable):
    """Each line is in the task's log once, in order, most of them before the job has ended."""
    run = airflow.run_task(lambda: task(talk, deferrable=deferrable))

    log = capsys.readouterr().out
    assert "success" == run.state
    assert list(range(40)) == lines(log)
    assert log.index("line 5") < log.index("finishing: DONE")
    assert log.count("Log of job") > 2
    assert "line 39" == run.xcom("task", "logs").strip().splitlines()[-1]


@BOTH
def test_the_log_may_come_at_the_end(airflow, capsys, deferrable):
    """With log_interval=0 it is shown as a whole when the job is over."""
    airflow.run_task(lambda: task(talk, deferrable=deferrable, log_interval=0))

    log = capsys.readouterr().out
    assert list(range(40)) == lines(log)
    assert 1 == log.count("Log of job")


@BOTH
def test_a_log_that_is_longer_than_a_node_keeps(airflow, capsys, deferrable):
    """Lines that left the node are announced, and come from the event table at the end."""
    airflow.run_task(lambda: task(talk_a_lot, deferrable=deferrable))

    assert list(range(4000)) == sorted(lines(capsys.readouterr().out))


@BOTH
def test_the_timeline(airflow, deferrable):
    """XCom has the job's phases, and when each began."""
    began = time.time()

    run = airflow.run_task(lambda: task(talk, deferrable=deferrable))

    timeline = run.xcom("task", "timeline")
    assert ["running", "finishing"] == [step["phase"] for step in timeline[-2:]]
    assert "DONE" == timeline[-1]["message"]
    assert sorted(step["at"] for step in timeline) == [step["at"] for step in timeline]
    assert time.strftime("%Y-%m-%dT%H", time.gmtime(began)) == timeline[0]["at"][:13]


@BOTH
def test_a_job_that_does_not_begin(airflow, capsys, deferrable):
    """An image that can't be pulled stays PENDING for ever; the error says so, and nothing of the job is left."""
    spec = {"spec": {"containers": [{"name": "main", "image": "/nowhere/is/this/image:1"}]}}

    run = airflow.run_task(lambda: task(spec=spec, deferrable=deferrable, queue_timeout=2))

    error = run.errors["task"]
    assert MLJobQueueTimeoutError is type(error)
    assert "still PENDING after the task's queue_timeout" in str(error)
    assert "Failed to pull image" in str(error)
    assert "image pull failing: Failed to pull image" in capsys.readouterr().out
    assert [] == airflow.jobs


@BOTH
@pytest.mark.parametrize("limit", [1, timedelta(seconds=1)], ids=["seconds", "timedelta"])
def test_a_job_that_runs_for_too_long(airflow, deferrable, limit):
    """A job that runs for too long is cancelled, and the error names the limit."""
    run = airflow.run_task(lambda: task(sleep, deferrable=deferrable, timeout=limit))

    error = run.errors["task"]
    assert MLJobTimeoutError is type(error)
    assert "did not end within the task's timeout; it was cancelled" in str(error)
    assert [] == airflow.jobs


@BOTH
def test_snowflake_out_of_reach(airflow, monkeypatch, deferrable):
    """The error has the reason, and the job is left alone."""
    monkeypatch.setenv("AIRFLOW__MLJOBS__MAX_UNREACHABLE_SECONDS", "1")
    airflow.snowflake.faults.add(Fault(matching="SHOW JOB", effect="error", errno=390195, message="id token invalid"))
    try:
        run = airflow.run_task(lambda: task(sleep, deferrable=deferrable))
    finally:
        airflow.snowflake.faults.clear()

    error = run.errors["task"]
    assert SnowflakeUnavailableError is type(error)
    assert "Reason: id token invalid" in str(error)
    assert ["RUNNING"] == [row["status"] for row in airflow.query("SHOW JOB SERVICES IN ACCOUNT")]


@BOTH
def test_out_of_time_in_a_short_outage(airflow, deferrable):
    """A job that is out of time during an outage is cancelled after it."""
    airflow.snowflake.faults.add(Fault(matching="SPCS_CANCEL_JOB", effect="error", errno=390195, nth=1, times=2))
    try:
        run = airflow.run_task(lambda: task(sleep, deferrable=deferrable, timeout=1))
    finally:
        airflow.snowflake.faults.clear()

    assert MLJobTimeoutError is type(run.errors["task"])
    assert [] == airflow.jobs


def test_the_triggerer_learns_what_is_secret(airflow):
    """Secrets of the job's environment are starred, also those that travel encoded, with a ``$`` or non-ASCII text."""
    secrets = {"DB_PASSWORD": "hunt$er2secret", "API_TOKEN": "pässwort123", "PLAIN_PASSWORD": "correct-horse"}
    run = airflow.run_task(lambda: task(talk, env_vars=secrets, on_finish="keep"))

    with MLJobHook() as hook:
        environment = inspection.layout(hook.client, hook.job(run.xcom("task", "job_id"))).environment

    assert secrets == {name: environment.get(name) for name in secrets}


def test_everyday_words_are_not_secret():
    """MAX_TOKENS is secret by its name; masking its value would mask the same number in all logs."""
    from airflow.sdk._shared.secrets_masker.secrets_masker import redact

    mask_environment({"MAX_TOKENS": "16384", "TOKENIZERS_PARALLELISM": "false", "API_TOKEN": "abcdef123456"})

    assert "16384 false ***" == redact("16384 false abcdef123456")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"log_interval": -1}, "log_interval must be a number of seconds, or 0 for none, got -1."),
        ({"log_interval": "10"}, "log_interval must be a number of seconds"),
        ({"log_interval": float("nan")}, "log_interval must be a number of seconds"),
        ({"queue_timeout": 0}, "queue_timeout must be more than 0 seconds, a timedelta, or None; got 0."),
        ({"queue_timeout": timedelta(0)}, "queue_timeout must be more than 0 seconds"),
        ({"timeout": -5}, "timeout must be more than 0 seconds, a timedelta, or None; got -5."),
        ({"timeout": True}, "timeout must be more than 0 seconds"),
        ({"timeout": float("inf")}, "timeout must be more than 0 seconds"),
    ],
    ids=str,
)
def test_limits_that_are_none(settings, message):
    """Impossible limits are refused while the DAG is parsed."""
    with pytest.raises(InvalidJobSpecError, match=re.escape(message)):
        task(talk, **settings)
