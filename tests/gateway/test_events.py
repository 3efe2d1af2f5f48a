"""The platform's events as the reason why a job waits or has failed, where its containers say nothing."""

import json
from contextlib import contextmanager

import pytest

from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.settings import Fault, Ready, VirtualJob
from airflow_provider_mljobs.exceptions import Failure
from airflow_provider_mljobs.gateway import inspection
from airflow_provider_mljobs.gateway.client import MLJobClient
from airflow_provider_mljobs.gateway.outcome import Outcome, complete
from airflow_provider_mljobs.gateway.watcher.follower import Follower
from airflow_provider_mljobs.jobs.names import QualifiedName
from airflow_provider_mljobs.jobs.outcome.failures import ContainerEnd
from airflow_provider_mljobs.jobs.outcome.status import JobStatus, Phase
from airflow_provider_mljobs.jobs.outcome.wait_plan import WaitPlan
from tests.lab import served

EVENTS, LISTING = "SPCS_GET_EVENTS", "SHOW SERVICE CONTAINERS"
REASON = "Unschedulable due to insufficient CPU resources"
FATAL = "Encountered fatal error while running, check container logs"
SILENT = ("instance_id", "container_name", "status", "message")
POOL = "CREATE COMPUTE POOL IF NOT EXISTS ONE MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_S"
WAITING, FAILED = (QualifiedName.parse(f"MLJOBS_DB.PUBLIC.{name}", "job") for name in ("WAITING", "FAILED"))
NOW = 1_000_000.0


@pytest.fixture(scope="module")
def server():
    """An embedded Snowflake that records events, and lists no containers of a job that waits."""
    jobs = (VirtualJob(name="FAILED", seconds=0.01, status="FAILED"),)
    timing = {"containers_listed": Ready(polls=10**6), "termination_grace": 0.1}
    with served(virtual_jobs=jobs, log_event_level="INFO", **timing) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    """Return a client; a job holds the only node of the pool, another waits for it, and a third has failed."""
    from snowflake import connector

    client = MLJobClient(lambda: connector.connect(**server.connection_kwargs))
    image = "/snowflake/images/snowflake_images/exampleimage:latest"
    container = {"name": "main", "image": image, "command": ["sleep", "600"], "resources": {"requests": {"cpu": 3}}}
    text = json.dumps({"spec": {"containers": [container]}})
    client.connection.rows(POOL)
    for name in ("HOLDER", WAITING, FAILED):
        client.connection.rows(
            f"EXECUTE JOB SERVICE IN COMPUTE POOL ONE NAME = {name} ASYNC = TRUE FROM SPECIFICATION $${text}$$"
        )
    client.connection.rows(f"CALL {FAILED}!SPCS_WAIT_FOR('FAILED', 60)")
    yield client
    client.close()


@pytest.fixture
def follower():
    """Return the wait for the job that waits, which was just seen to."""
    follower = Follower(WaitPlan(job_id=str(WAITING)), lambda report: None, NOW)
    follower.update(lambda watch: watch.observed(JobStatus.PENDING, NOW), NOW)
    return follower


@contextmanager
def faults(server, **matching):
    """Make statements go wrong for a while, each in its way."""
    for words, effect in matching.items():
        pattern = {"events": EVENTS, "listing": LISTING, "history": "GET_JOB_HISTORY"}[words]
        server.faults.add(Fault(matching=pattern, **{"effect": "error", **effect}))
    try:
        yield
    finally:
        server.faults.clear()


def asks(server, client, follower, moments):
    """Return at which of some moments the events are asked for."""
    asked = []
    for moment in moments:
        server.statements.clear()
        follower.explain(client, NOW + moment)
        if server.statements.matching(EVENTS):
            asked.append(moment)
    return asked


def test_the_last_events_of_containers(client):
    """Each container has the status and message of its last event."""
    ends = [inspection.last_events(client, job) for job in (WAITING, FAILED)]

    assert [
        [ContainerEnd(instance=0, name="main", status="PENDING", message=REASON)],
        [ContainerEnd(instance=0, name="main", status="FAILED", message=FATAL)],
    ] == ends


def test_why_a_job_waits(client, follower):
    """The reason of the events is the reason of the wait, in its phase."""
    follower.explain(client, NOW)
    silent = follower.watch.timeline[-1]
    follower.explain(client, NOW + 60)

    assert (Phase.QUEUED, "") == (silent.phase, silent.message)
    assert REASON == follower.watch.reason
    assert Phase.NO_CAPACITY is follower.watch.timeline[-1].phase


def test_events_are_asked_for_less_and_less_often(server, client, follower):
    """Each look at events costs time of a warehouse: the pauses grow from a minute to a quarter of an hour."""
    moments = range(0, 3600, 10)

    assert [60, 180, 420, 900, 1800, 2700] == asks(server, client, follower, moments)


def test_events_that_are_refused(server, client, follower):
    """A role that may not read events, and an account without an event table, are asked once."""
    with faults(server, events={"errno": 2143}):
        assert [60] == asks(server, client, follower, range(0, 3600, 60))


def test_containers_that_give_a_reason(server, client, follower):
    """While the containers say why they wait, no event is asked for."""
    answer = Result(tuple(map(Column, (*SILENT, "last_exit_code", "start_time"))), [])
    answer.rows.append(("0", "main", "PENDING", "Failed to pull image", None, None))
    with faults(server, listing={"effect": "answer", "answer": answer}):
        assert [] == asks(server, client, follower, range(0, 3600, 60))
    assert "Failed to pull image" == follower.watch.reason


def test_silent_containers_keep_the_reason_of_the_events(server, client, follower):
    """Containers that are listed without a message leave the reason that the events have given."""
    answer = Result(tuple(map(Column, (*SILENT, "last_exit_code", "start_time"))), [])
    answer.rows.append(("0", "main", "PENDING", "", None, None))
    with faults(server, listing={"effect": "answer", "answer": answer}):
        asked = asks(server, client, follower, (0, 60, 70))

    assert [60] == asked
    assert REASON == follower.watch.reason


def test_the_last_question_before_a_cancel(client, follower):
    """A job that is about to be cancelled is asked for its reason at once."""
    follower.learn_why(client, NOW)

    assert REASON == follower.watch.reason


def test_why_a_job_failed(server, client):
    """The error of a job whose containers are gone has the message of its last event."""
    with faults(server, listing={"errno": 2003}, history={"errno": 606}):
        error = complete(client, Outcome(job=FAILED, status=JobStatus.FAILED)).error

    assert (Failure.UNKNOWN, FATAL, 0) == (error.failure, error.container_message, error.instance)
    assert f"Instance 0, container main: {FATAL}." in error.message


def test_a_failure_that_containers_explain(server, client):
    """A container that says why it failed saves the question for events."""
    server.statements.clear()
    error = complete(client, Outcome(job=FAILED, status=JobStatus.FAILED)).error

    assert Failure.EXIT_CODE is error.failure
    assert [] == server.statements.matching(EVENTS)
