"""The containers of stage volumes are no part of a job's logs, labels and charts."""

import json

import pytest

from airflow_provider_mljobs.emulator.settings import Fault, VirtualJob
from airflow_provider_mljobs.gateway import inspection
from airflow_provider_mljobs.gateway.client import MLJobClient
from airflow_provider_mljobs.gateway.log_store import Source
from airflow_provider_mljobs.gateway.usage import read_usage
from airflow_provider_mljobs.jobs.names import QualifiedName
from tests.lab import POOL, STAGE, served

JOB = QualifiedName.parse("MLJOBS_DB.PUBLIC.MOUNTING", "job")
SIDECAR = "stage-mount-v2-sidecar-data"
SPEC = {
    "containers": [{"name": "main", "image": "/snowflake/images/snowflake_images/exampleimage:latest"}],
    "volumes": [{"name": "data", "source": "stage", "stageConfig": {"name": STAGE}}],
    "platformMonitor": {"metricConfig": {"groups": ["system", "system_limits"]}},
}


@pytest.fixture(scope="module")
def server():
    """An embedded Snowflake with a job that mounts a stage, and has ended."""
    with served(virtual_jobs=(VirtualJob(name="%", seconds=0.05),)) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    """Return a client, after the job has ended."""
    from snowflake import connector

    client = MLJobClient(lambda: connector.connect(**server.connection_kwargs))
    text = json.dumps({"spec": SPEC})
    client.connection.rows(
        f"EXECUTE JOB SERVICE IN COMPUTE POOL {POOL} NAME = {JOB} ASYNC = TRUE FROM SPECIFICATION $${text}$$"
    )
    client.connection.rows(f"CALL {JOB}!SPCS_WAIT_FOR('DONE', 60)")
    yield client
    client.close()


def test_a_listing_has_them(client):
    """A description of the job lists all containers, as Snowflake does."""
    assert ["main", SIDECAR] == [container.name for container in inspection.containers(client, JOB)]


@pytest.mark.parametrize("spec", ["shown", "hidden"])
def test_logs_have_no_label(client, server, spec):
    """A job of one container has one log, without labels, also where the role can't see the specification."""
    if spec == "hidden":
        server.faults.add(Fault(matching="^DESCRIBE", effect="rewrite", column="spec", value=None))
    sources = inspection.sources(client, JOB)
    server.faults.clear()

    assert [Source(JOB, 0, "main")] == sources


@pytest.mark.parametrize("source", ["function", "event table"])
def test_charts_have_the_jobs_own_containers(client, server, source):
    """Series of stage volumes don't take the place of the job's own."""
    if source == "event table":
        server.faults.add(Fault(matching="SPCS_GET_METRICS", effect="error", errno=2143))
    usage = read_usage(client, JOB)
    server.faults.clear()

    assert {"main"} == {series.container for series in usage.series}
    assert "" == usage.reason
