"""Looks at a job through the connector: its sources, and that a single negative answer is no end."""

import pytest

from airflow_provider_mljobs.emulator import serve
from airflow_provider_mljobs.emulator.settings import Fault, VirtualJob
from airflow_provider_mljobs.exceptions import JobNotFoundError, SnowflakeUnavailableError
from airflow_provider_mljobs.gateway.client import MLJobClient
from airflow_provider_mljobs.jobs.names import QualifiedName
from airflow_provider_mljobs.jobs.outcome.sightings import Sighting, in_history, pauses
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from tests.budget import budget

SPEC = "spec: {containers: [{name: main, image: /snowflake/images/snowflake_images/x:1}]}"
NEVER = QualifiedName.parse("MLJOBS_DB.PUBLIC.NEVER", "job")
NOT_FOUND = {"effect": "error", "errno": 2003, "sqlstate": "02000", "message": "does not exist or not authorized."}


@pytest.fixture(scope="module")
def server():
    """An embedded Snowflake with jobs that run for ever, and others that end at once."""
    jobs = (VirtualJob(name="ENDLESS_%", seconds=10_000), VirtualJob(name="QUICK_%", seconds=0))
    with serve(virtual_jobs=jobs) as server:
        yield server


@pytest.fixture
def client(server):
    """A client of that Snowflake, which is in order again at the end."""
    from snowflake import connector

    client = MLJobClient(lambda: connector.connect(**server.connection_kwargs))
    client.connection.rows(
        "CREATE COMPUTE POOL IF NOT EXISTS ML_POOL MIN_NODES = 1 MAX_NODES = 5 INSTANCE_FAMILY = CPU_X64_S"
    )
    yield client
    server.faults.clear()
    client.close()


@pytest.fixture
def job(client):
    """Start a job of a name; it is dropped at the end."""
    names = []

    def start(name):
        job = QualifiedName.parse(f"MLJOBS_DB.PUBLIC.{name}", "job")
        client.connection.rows(
            f"EXECUTE JOB SERVICE IN COMPUTE POOL ML_POOL NAME = {job} ASYNC = TRUE COMMENT = 'mine' "
            f"FROM SPECIFICATION $${SPEC}$$"
        )
        names.append(job)
        return job

    yield start
    for name in names:
        client.drop(name)


def test_a_job_that_is_there(client, job):
    """A look shows the status, and the row of DESCRIBE SERVICE with the COMMENT."""
    sighting = client.look(job("ENDLESS_A"))

    assert sighting.lives
    assert not sighting.has_ended
    assert "mine" == sighting.row["comment"]


def test_a_job_that_only_the_history_shows(client, job, server):
    """One negative DESCRIBE says nothing while the job history has the job as running."""
    endless = job("ENDLESS_B")
    server.faults.add(Fault(matching="^DESCRIBE SERVICE", **NOT_FOUND))

    sighting = client.look(endless)

    assert sighting.lives
    assert sighting.row is None
    assert "does not exist or not authorized" in sighting.why
    assert sighting.status is client.status(endless)


def test_a_job_that_was_dropped(client, job):
    """The job history has the end of a job that was dropped: while it ran, or after its end."""
    endless, quick = job("ENDLESS_C"), job("QUICK_C")
    client.connection.rows(f"CALL {quick}!SPCS_WAIT_FOR('DONE', {budget():.0f})")
    client.drop(endless)
    client.drop(quick)

    assert [JobStatus.DELETED, JobStatus.DONE] == [client.look(each).status for each in (endless, quick)]
    assert all(client.look(each).has_ended for each in (endless, quick))


@pytest.mark.parametrize(("errno", "reason"), [(2143, "can't be read"), (606, "can't be read"), (None, "have it")])
def test_a_job_that_nothing_shows(client, server, errno, reason):
    """A job is unseen, not gone, if the history has no such job, isn't enabled, or needs a warehouse."""
    if errno is not None:
        server.faults.add(Fault(matching="GET_JOB_HISTORY", effect="error", errno=errno))

    sighting = client.look(NEVER)

    assert sighting.is_unseen
    assert reason in sighting.why
    with pytest.raises(JobNotFoundError, match=r"NEVER does not exist or not authorized"):
        client.status(NEVER)


def test_a_history_that_is_out_of_reach(client, server):
    """Nothing is known of a job whose history could not be asked for the moment."""
    server.faults.add(Fault(matching="GET_JOB_HISTORY", effect="error", errno=390195))

    with pytest.raises(SnowflakeUnavailableError):
        client.look(NEVER)


def test_a_job_is_looked_for(client, job, server):
    """The answer of the second look counts if the first one shows nothing."""
    endless = job("ENDLESS_D")
    server.faults.add(
        Fault(matching="^DESCRIBE SERVICE", nth=1, **NOT_FOUND), Fault(matching="GET_JOB_HISTORY", nth=1, **NOT_FOUND)
    )

    assert client.look_for(endless, patience=10).lives


def test_a_job_is_looked_for_in_vain(client, server):
    """However short the patience, three looks at least are made."""
    server.statements.clear()

    assert client.look_for(NEVER, patience=0).is_unseen
    assert 3 == len(server.statements.matching("^DESCRIBE SERVICE"))


def test_a_cancel_does_not_depend_on_one_look(client, job, server):
    """A job that one look doesn't show is cancelled; of one that isn't cancelled the caller learns it."""
    endless = job("ENDLESS_E")
    server.faults.add(Fault(matching="^DESCRIBE SERVICE|GET_JOB_HISTORY", **NOT_FOUND))

    sighting = client.cancel(endless)

    assert sighting.lives
    assert client.cancel(NEVER).is_unseen
    server.faults.clear()
    assert client.look(endless).status in {JobStatus.CANCELLING, JobStatus.CANCELLED}


def test_a_row_that_is_not_as_documented():
    """An unknown or missing status is UNKNOWN: the job lives unless it was dropped."""
    rows = [{"status": status, "deleted_time": None} for status in ("EXPLODING", None)]

    assert [JobStatus.UNKNOWN] * 2 == [in_history(row) for row in rows]
    assert JobStatus.DELETED is in_history({"status": "RUNNING", "deleted_time": "2026-01-01"})
    assert not Sighting(status=JobStatus.UNKNOWN).has_ended


def test_looks_become_rarer():
    """The pauses double up to a minute, and cover the patience."""
    assert [1, 2, 4, 8, 16, 32, 60] == list(pauses(120))
    assert [1, 2] == list(pauses(0))
