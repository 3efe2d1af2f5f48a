"""The outcome of jobs that Snowflake ends itself."""

import pytest

from airflow_provider_mljobs.emulator.settings import Fault, VirtualJob
from airflow_provider_mljobs.exceptions import Failure, MLJobCancelledError, MLJobPlatformError
from airflow_provider_mljobs.gateway.client import MLJobClient
from airflow_provider_mljobs.gateway.outcome import Outcome, complete
from airflow_provider_mljobs.jobs.names import Identifier, QualifiedName
from airflow_provider_mljobs.jobs.outcome.failures import KINDS, Retry
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.spec.job import JobSpec
from airflow_provider_mljobs.jobs.spec.rendering import SpecificationSource
from tests.lab import served

JOB = QualifiedName(Identifier("MLJOBS_DB"), Identifier("PUBLIC"), Identifier("MLJOB_1"))
TEXT = "spec: {containers: [{name: main, image: /snowflake/images/snowflake_images/x:1}]}"


@pytest.fixture(scope="module")
def server():
    """An embedded Snowflake whose jobs run for ever."""
    with served(virtual_jobs=(VirtualJob(name="MLJOB_%", seconds=1e6),)) as server:
        yield server


@pytest.fixture
def client(server):
    """A client with a running job."""
    from snowflake import connector

    client = MLJobClient(lambda: connector.connect(**server.connection_kwargs))
    client.submit_specification(JobSpec(name=JOB, compute_pool=Identifier("ML_POOL")), SpecificationSource(text=TEXT))
    client.describe(JOB)
    yield client
    client.drop(JOB)
    client.close()
    server.faults.clear()


def test_maintenance(server, client):
    """A job that Snowflake cancels to replace its node is a failure of the platform, to be retried later."""
    with server.maintenance("ML_POOL"):
        error = complete(client, Outcome(job=JOB, status=JobStatus.CANCELLED)).error

    assert JobStatus.CANCELLED is client.status(JOB)
    assert (MLJobPlatformError, Failure.PLATFORM) == (type(error), error.failure)
    assert Retry.LATER is KINDS[error.failure].retry
    assert "Snowflake replaces nodes of compute pools from 2" in error.advice
    assert "Unless a user cancelled the job, run the task again" in error.advice


@pytest.mark.parametrize("effect", ["none", "error", "empty"])
def test_cancelled_without_maintenance(server, client, effect):
    """A cancelled job is a user's decision where no maintenance is announced, or where it can't be asked for."""
    if effect != "none":
        server.faults.add(Fault(matching="PENDING_MAINTENANCE", effect=effect))
    client.cancel(JOB)
    error = complete(client, Outcome(job=JOB, status=JobStatus.CANCELLED)).error

    assert (MLJobCancelledError, Failure.CANCELLED) == (type(error), error.failure)
