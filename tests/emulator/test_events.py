"""Platform events of jobs, and the row of a job without instances."""

import json
import uuid

import pytest

from airflow_provider_mljobs.emulator.settings import Ready, VirtualJob

IMAGE = "/snowflake/images/snowflake_images/exampleimage:latest"
SETUP = """
CREATE COMPUTE POOL CPUS MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_S;
CREATE COMPUTE POOL RESTING MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_S AUTO_RESUME = FALSE;
ALTER COMPUTE POOL RESTING SUSPEND
"""
JOBS = (VirtualJob(name="BAD%", seconds=0.01, status="FAILED"), VirtualJob(name="GOOD%", seconds=0.01))
PENDING = ("CONTAINER.STATUS_CHANGE", "INFO", 0, "main", "PENDING")


@pytest.fixture(scope="module")
def serving():
    """Return a function that starts a server, and returns a function that runs a statement."""
    from contextlib import ExitStack

    from snowflake import connector

    from airflow_provider_mljobs.emulator import serve

    with ExitStack() as stack:

        def start(**settings):
            server = stack.enter_context(serve(virtual_jobs=JOBS, **settings))
            connection = stack.enter_context(connector.connect(**server.connection_kwargs))
            connection.execute_string(SETUP)
            return lambda text: connection.cursor(connector.DictCursor).execute(text).fetchall()

        yield start


@pytest.fixture(scope="module")
def sql(serving):
    """Return a function that runs a statement on a server that records all events."""
    return serving(log_event_level="INFO")


def submit(sql, name, pool="CPUS"):
    """Start a job that needs a whole node, and return its name."""
    name = f"{name}_{uuid.uuid4().hex[:8]}".upper()
    container = {"name": "main", "image": IMAGE, "command": ["sleep", "600"], "resources": {"requests": {"cpu": 3}}}
    text = json.dumps({"spec": {"containers": [container]}})
    sql(f"EXECUTE JOB SERVICE IN COMPUTE POOL {pool} NAME = {name} ASYNC = TRUE FROM SPECIFICATION $${text}$$")
    return name


def events(sql, name):
    """Return the events of a job, without their times."""
    rows = sql(f"SELECT * FROM TABLE({name}!SPCS_GET_EVENTS())")
    columns = ("EVENT_NAME", "SEVERITY", "INSTANCE_ID", "CONTAINER_NAME")
    details = [json.loads(row["EVENT_DETAILS"]) for row in rows]
    return [
        (*(row[column] for column in columns), detail["status"], detail["message"])
        for row, detail in zip(rows, details, strict=True)
    ]


def containers(sql, name):
    """Return instance, name and message of each container."""
    rows = sql(f"SHOW SERVICE CONTAINERS IN SERVICE {name}")
    return [(row["instance_id"], row["container_name"], row["message"]) for row in rows]


def test_events_of_a_job(sql):
    """A job, its instances and its containers have an event for each status, as in Snowflake's example."""
    job = submit(sql, "GOOD")
    sql(f"CALL {job}!SPCS_WAIT_FOR('DONE', 60)")

    assert {
        ("SERVICE.STATUS_CHANGE", "INFO", None, None, "PENDING", "Job is pending"),
        ("SERVICE.STATUS_CHANGE", "INFO", None, None, "RUNNING", "Job is running"),
        ("SERVICE.STATUS_CHANGE", "INFO", None, None, "DONE", "Job is completed"),
        ("SERVICE_INSTANCE.STATUS_CHANGE", "INFO", 0, None, "PENDING", "Job instance is pending"),
        ("SERVICE_INSTANCE.STATUS_CHANGE", "INFO", 0, None, "READY", "Job instance is running"),
        ("SERVICE_INSTANCE.STATUS_CHANGE", "INFO", 0, None, "SUCCEEDED", "Job instance has completed"),
        (*PENDING, "Waiting to start"),
        ("CONTAINER.STATUS_CHANGE", "INFO", 0, "main", "READY", "Running"),
        ("CONTAINER.STATUS_CHANGE", "INFO", 0, "main", "DONE", "Completed successfully"),
    } == set(events(sql, job))


def test_columns_and_order(sql):
    """The newest event comes first; RECORD has name and severity, RECORD_ATTRIBUTES nothing."""
    job = submit(sql, "GOOD")
    sql(f"CALL {job}!SPCS_WAIT_FOR('DONE', 60)")
    rows = sql(f"SELECT * FROM TABLE({job}!SPCS_GET_EVENTS())")
    row = rows[0]

    assert sorted((each["TIMESTAMP"] for each in rows), reverse=True) == [each["TIMESTAMP"] for each in rows]
    assert {"name": row["EVENT_NAME"], "severity_text": row["SEVERITY"]} == json.loads(row["RECORD"])
    assert row["RECORD_ATTRIBUTES"] is None


def test_an_event_says_why_a_job_waits(sql):
    """Each reason for which a job has no node is an event of its containers."""
    holder, waiting = submit(sql, "HOLDER"), submit(sql, "WAITING")
    reasons = [event for event in events(sql, waiting) if event[:5] == PENDING]
    for job in (holder, waiting):
        sql(f"DROP SERVICE {job}")

    assert {(*PENDING, "Waiting to start"), (*PENDING, "Unschedulable due to insufficient CPU resources")} == set(
        reasons
    )


def test_events_in_the_event_table(sql):
    """The event table has the events, with Snowflake's scope."""
    job = submit(sql, "BAD")
    sql(f"CALL {job}!SPCS_WAIT_FOR('FAILED', 60)")
    rows = sql(
        "SELECT SCOPE['name']::STRING AS SCOPE, RECORD['name']::STRING AS NAME, VALUE['status']::STRING AS STATUS "
        "FROM SNOWFLAKE.TELEMETRY.EVENTS_VIEW WHERE RECORD_TYPE = 'EVENT' "
        f"AND RESOURCE_ATTRIBUTES['snow.service.name']::STRING = '{job}' AND RECORD['severity_text']::STRING = 'ERROR'"
    )

    assert {
        ("snow.spcs.platform", f"{subject}.STATUS_CHANGE", "FAILED")
        for subject in ("SERVICE", "SERVICE_INSTANCE", "CONTAINER")
    } == {(row["SCOPE"], row["NAME"], row["STATUS"]) for row in rows}


@pytest.mark.parametrize(("level", "expected"), [("OFF", set()), ("ERROR", {"ERROR"}), (None, set())])
def test_levels(serving, level, expected):
    """Events are recorded from LOG_EVENT_LEVEL on; by default none is."""
    sql = serving(**({} if level is None else {"log_event_level": level}))
    job = submit(sql, "BAD")
    sql(f"CALL {job}!SPCS_WAIT_FOR('FAILED', 60)")

    assert expected == {severity for _, severity, *_ in events(sql, job)}


def test_containers_before_there_are_instances(serving):
    """Until Snowflake has made the instances of a job, its containers are one row of NULLs."""
    sql = serving(containers_listed=Ready(polls=2), job_ready=Ready(polls=100))
    job = submit(sql, "WAITING")

    assert [
        [(None, None, None)],
        [(None, None, None)],
        [("0", "main", "Waiting to start")],
    ] == [containers(sql, job) for _ in range(3)]


def test_containers_on_a_suspended_pool(sql):
    """A job that waits for its pool to be resumed has no instances."""
    job = submit(sql, "WAITING", pool="RESTING")
    rows = sql(f"SHOW SERVICE CONTAINERS IN SERVICE {job}")
    sql(f"DROP SERVICE {job}")

    assert [{"database_name", "schema_name", "service_name", "service_status"}] == [
        {name for name, value in row.items() if value is not None} for row in rows
    ]
