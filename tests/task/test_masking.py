"""Secrets in a job's texts: starred wherever they are cut, and in no process's memory for longer than needed."""

import asyncio
import json
import logging
import time

import pytest
from airflow.sdk._shared.secrets_masker import _secrets_masker, redact

from airflow_provider_mljobs.emulator.settings import Fault
from airflow_provider_mljobs.exceptions import GatewayError, MLJobError
from airflow_provider_mljobs.gateway import connection
from airflow_provider_mljobs.gateway.watcher.follower import JobEnvironment, LogOutput, Message, WaitEnded
from airflow_provider_mljobs.jobs.names import QualifiedName
from airflow_provider_mljobs.jobs.outcome.reports import Reported, take_reports
from airflow_provider_mljobs.launcher.contract import MARK
from airflow_provider_mljobs.operators import MLJobOperator
from airflow_provider_mljobs.sensors import MLJobSensor
from airflow_provider_mljobs.task.joblog import TaskLog, mask_environment, write_output
from airflow_provider_mljobs.task.masking import Mask
from tests.budget import budget, wait_until
from tests.lab import POOL, STAGE
from tests.tries import tries

JOB = QualifiedName.parse("ML.PUBLIC.TRAIN", "job")
SECRET = "correct-horse-battery"
ADDRESS = "https://user:pa55wordpa55word@feed.acme.com/simple"


@pytest.fixture(autouse=True)
def _forget():
    """Forget the secrets of a test."""
    yield
    _secrets_masker().reset_masker()


class Log:
    """A task's log: the texts of its records."""

    def __init__(self):
        self.records = []

    def info(self, text, *values):
        """Take a record."""
        self.records.append(text % values)

    warning = info


def told(*reports):
    """Return the records, states and events that a task gets from reports on its job."""
    log, events, states = Log(), [], []
    task_log = TaskLog(log, JOB, events.append, states.append)
    for report in reports:
        task_log(report)
    return log.records, states, events


@pytest.mark.parametrize("character", ["x", "é"])
def test_a_secret_on_the_border_of_two_records_is_masked(character):
    """A line of more than 64 KB becomes several records, and the secret lies wherever the cut may be."""
    line = "".join(f"{character * 37}{SECRET}" for _ in range(2500))

    records, _, _ = told(JobEnvironment({"DB_PASSWORD": SECRET}), LogOutput([line], {}))

    assert 1 < len(records)
    assert "".join(f"{character * 37}***" for _ in range(2500)) == "".join(
        record.partition("\n")[2] for record in records
    )


def test_a_secret_of_several_lines_is_masked_line_by_line():
    """A private key is printed in lines, which come in records and turns of their own."""
    key = "-----BEGIN KEY-----\nMIIEvQIBADAN\nBgkqhkiG9w0B\n-----END KEY-----"
    reports = [LogOutput([f"[instance 1] {line}"], {}) for line in key.split("\n")]

    records, _, _ = told(JobEnvironment({"PRIVATE_KEY": key}), *reports)

    assert ["Log of job TRAIN:\n[instance 1] ***"] * 4 == records


@pytest.mark.parametrize("secret", ["hunt$er2secret", "pässwort123", "quo\"te's\\back", "p@ss/word?123"])
def test_a_secret_is_masked_in_every_form(secret):
    """As JSON writes it, as JSON in JSON, as the address of a feed has it, and in each of several lines."""
    from urllib.parse import quote

    forms = [
        secret,
        json.dumps(secret),
        json.dumps(json.dumps({"A": secret})),
        f"https://feed/{quote(secret, safe='')}/",
    ]
    mask = Mask()
    mask.learn({"API_TOKEN": secret})

    assert [] == [form for form in forms if "***" not in mask(form)]
    assert "***" == mask(secret)


@pytest.mark.parametrize("secret", ["hunt$er2secret", "pässwort123", "quo\"te's\\back"])
def test_statements_in_debug_logs_have_no_secret(airflow, caplog, secret):
    """EXECUTE JOB SERVICE holds the environment in the form in which it travels; Airflow's masker finds it there."""
    with caplog.at_level(logging.DEBUG, logger=connection.__name__):
        airflow.run_task(lambda: operator(lambda: 1, env_vars={"API_TOKEN": secret, "FEED": ADDRESS}))
    statements = [record.getMessage() for record in caplog.records if "EXECUTE JOB SERVICE" in record.getMessage()]

    (masked,) = map(redact, statements)
    assert "API_TOKEN" in masked
    assert "***" in masked.partition("API_TOKEN")[2][:20]
    assert "pa55wordpa55word" not in statements[0]


def test_a_report_is_masked_before_it_is_cut():
    """Of a long message only the beginning is kept; a secret may lie where it ends."""
    mask = Mask()
    mask.learn({"DB_PASSWORD": SECRET})
    message, name = "x" * 190 + SECRET, "y" * 95 + SECRET
    lines = [
        f"{MARK}{json.dumps(report)}" for report in ({"progress": 0.5, "message": message}, {"metrics": {name: 1}})
    ]

    _, reported = take_reports(lines, Reported(), 0.0, mask)

    assert ("x" * 190 + "***", ["y" * 95 + "***"]) == (reported.progress.message, list(reported.metrics))


def test_credentials_in_addresses_are_starred():
    """Credentials in addresses are starred in lines, messages, XComs and events, in any variable or none."""
    reported = {"progress": {"message": f"from {ADDRESS}"}}

    records, states, events = told(
        LogOutput([f"Looking in indexes: {ADDRESS}"], reported),
        Message(f"Waits: {ADDRESS}"),
        WaitEnded({"printed": reported}),
    )

    starred = "https://***@feed.acme.com/simple"
    assert [f"Log of job TRAIN:\nLooking in indexes: {starred}", f"Waits: {starred}"] == records
    assert [{"progress": {"message": f"from {starred}"}}] == states
    assert [{"printed": {"progress": {"message": f"from {starred}"}}}] == events


def test_the_password_of_an_address_is_masked_alone_too():
    """A variable that holds an address is secret by no name; its password may be printed without the rest."""
    records, _, _ = told(
        JobEnvironment({"DATABASE": "postgres://user:pa55wordpa55word@db/ml"}),
        LogOutput(["password pa55wordpa55word"], {}),
    )

    assert ["Log of job TRAIN:\npassword ***"] == records


def test_the_triggerer_remembers_no_secret():
    """Airflow's masker, which all triggers of a process share, is the same after a thousand jobs as before."""
    before = set(_secrets_masker().patterns)
    began = time.perf_counter()
    for number in range(1000):
        records, _, _ = told(
            JobEnvironment({"API_TOKEN": f"secret-of-{number}"}), LogOutput([f"a secret-of-{number}"], {})
        )
        assert ["Log of job TRAIN:\na ***"] == records

    assert before == _secrets_masker().patterns
    assert time.perf_counter() - began < budget(10)


def test_one_job_learns_nothing_of_another():
    """A secret of one job's environment is an ordinary word in the next job's log."""
    told(JobEnvironment({"DB_PASSWORD": SECRET}))

    records, _, _ = told(LogOutput([SECRET], {}))

    assert [f"Log of job TRAIN:\n{SECRET}"] == records


def test_what_airflow_knows_is_masked_too():
    """The password of a connection, and in the worker the environment of its job."""
    mask_environment({"DB_PASSWORD": SECRET})
    log = Log()

    write_output(log, JOB, [f"as {SECRET}"])

    assert ["Log of job TRAIN:\nas ***"] == log.records


def print_and_fail():
    """Print a secret at the end of a line that the tail of the log cuts, and raise it in an exception."""
    import os

    print("x" * 9000 + os.environ["DB_PASSWORD"] + "y" * (8 * 1024 - 10))
    raise ValueError(f"{os.environ['DB_PASSWORD']} for https://user:pa55wordpa55word@feed.acme.com/simple")


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "in the worker"])
def test_a_failed_job_tells_no_secret(airflow, capsys, deferrable):
    """The secret of a failed job is in neither the task's error nor XCom, not even a part of it in the log's tail."""
    run = airflow.run_task(lambda: operator(print_and_fail, deferrable=deferrable, env_vars={"DB_PASSWORD": SECRET}))
    error, tail = run.errors["job"], run.xcom("job", "logs")

    assert isinstance(error, MLJobError)
    for text in (str(error), repr(error.args), repr(vars(error)), tail, capsys.readouterr().out):
        assert SECRET not in text
        assert "pa55word" not in text
    assert SECRET[-9:] not in tail


def fail_when_stopped():
    """Put an address with a password into the exception that a cancel causes."""
    import signal
    import time

    def stop(*_):
        raise ValueError("Can't reach https://user:pa55wordpa55word@feed.acme.com/simple")

    signal.signal(signal.SIGTERM, stop)
    print("is printed")
    time.sleep(60)


def test_the_cause_of_an_error_tells_no_secret(airflow):
    """The exception of a cancelled payload is the cause of its task's error, and stands in the task's log, too."""
    task = tries(airflow, fail_when_stopped, deferrable=True)
    trigger, job = task.defer(), task.job_name("3_1")
    printed(airflow, job)
    airflow.query(f"CALL {job}!SPCS_CANCEL_JOB()")
    event = asyncio.run(anext(trigger.run())).payload

    with pytest.raises(MLJobError) as caught:
        task.resume("execute_complete", {"event": event})
    cause = caught.value.__cause__
    assert "https://***@feed.acme.com" in str(cause)
    assert "pa55word" not in repr((str(cause), cause.args, vars(cause)))


def print_and_wait():
    """Print a secret."""
    import os
    import time

    print(os.environ["DB_PASSWORD"], "is printed")
    time.sleep(60)


def printed(airflow, job):
    """Wait until a job has printed its secret."""
    query = f"SELECT SYSTEM$GET_SERVICE_LOGS('{job}', 0, 'main')"
    wait_until(lambda: "is printed" in str(airflow.query(query)))
    # Another process resumes the task.
    _secrets_masker().reset_masker()


@pytest.fixture
def faults(airflow):
    """Let things go wrong until the end of the test."""
    yield airflow.snowflake.faults
    airflow.snowflake.faults.clear()


def test_a_kill_tells_no_secret(airflow, faults, capsys):
    """A job that one look doesn't show is described again, before its log is shown and the job is dropped."""
    task = tries(airflow, print_and_wait, deferrable=True, env_vars={"DB_PASSWORD": SECRET})
    trigger = task.defer()
    printed(airflow, task.job_name("3_1"))
    faults.add(Fault(matching="DESCRIBE SERVICE", nth=1, effect="error", errno=2003, message="does not exist"))

    asyncio.run(trigger.on_kill())

    log = capsys.readouterr().out
    assert "*** is printed" in log
    assert SECRET not in log


def test_a_sensor_tells_no_secret(airflow, faults, capsys):
    """A job whose secrets can't be asked for is not shown; the sensor's next try shows it."""
    task = tries(airflow, print_and_wait, wait_for_completion=False, env_vars={"DB_PASSWORD": SECRET})
    job = task.run().rpartition(".")[2]
    printed(airflow, job)
    airflow.query(f"CALL {job}!SPCS_CANCEL_JOB()")
    airflow.query(f"CALL {job}!SPCS_WAIT_FOR('CANCELLED', {budget():.0f})")
    faults.add(Fault(matching="DESCRIBE SERVICE", nth=2, effect="error"))

    run = airflow.run_task(lambda: MLJobSensor(task_id="sensor", job_id=job))

    assert GatewayError is type(run.errors["sensor"])
    assert SECRET not in capsys.readouterr().out


def operator(source, **settings):
    """Build a task that looks at its job often."""
    defaults = {"task_id": "job", "compute_pool": POOL, "stage_name": STAGE, "poll_interval": 0.05}
    return MLJobOperator(source=source, **{**defaults, **settings})
