"""The nodes of compute pools, and the jobs that fit them."""

import json
import logging

import pytest

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.gateway.client import MLJobClient
from airflow_provider_mljobs.jobs.names import Identifier, Namespace, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.payload.archive import Payload
from airflow_provider_mljobs.jobs.spec.job import JobSpec, Resources
from airflow_provider_mljobs.jobs.spec.rendering import SpecificationSource
from tests.lab import served

DATABASE, SCHEMA = Identifier("MLJOBS_DB"), Identifier("PUBLIC")
STAGE = StagePath.parse("ML_PAYLOADS", "stage_name", Namespace(DATABASE, SCHEMA))
PAYLOAD = Payload(archive=b"code")
POOLS = """
CREATE COMPUTE POOL tiny MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS;
CREATE COMPUTE POOL backed MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_M
    BACKUP_INSTANCE_FAMILIES = ('CPU_X64_L', 'CPU_X64_S');
CREATE COMPUTE POOL graphics MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = GPU_NV_M
    BACKUP_INSTANCE_FAMILIES = ('GPU_NV_S', 'CPU_X64_XS');
"""


@pytest.fixture(scope="module")
def client():
    """A client on an embedded Snowflake with several pools."""
    from snowflake import connector

    with served() as server:
        client = MLJobClient(lambda: connector.connect(**server.connection_kwargs))
        for statement in filter(str.strip, POOLS.split(";")):
            client.connection.rows(statement)
        yield client
        client.close()


def job(pool, **fields):
    """Describe a job on a pool."""
    name = QualifiedName(DATABASE, SCHEMA, Identifier("MLJOB_1"))
    return JobSpec(name=name, compute_pool=Identifier(pool), **fields)


def own(**resources):
    """Write a specification of an author's own."""
    container = {"name": "main", "image": "/snowflake/images/snowflake_images/x:1", "command": ["true"]}
    document = {"spec": {"containers": [container | resources]}}
    return SpecificationSource(text=json.dumps(document), document=document)


def test_the_smallest_node_of_a_pool(client):
    """With backup families a node may have the least of each of their resources; one without GPUs is no backup."""
    backed, graphics = client.runtimes.of(job("BACKED")), client.runtimes.of(job("GRAPHICS"))

    assert (28, 13) == (backed.resources.memory_gib, backed.node.memory_gib)
    assert "CPU_X64_M or CPU_X64_L or CPU_X64_S" == backed.node.family
    assert Resources(cpu=6, memory_gib=28, gpu=1, family="GPU_NV_M or GPU_NV_S") == graphics.node


def test_a_job_without_room_uploads_nothing(client):
    """A task whose volumes leave no room on a node is refused before its payload is uploaded."""
    config = {"name": "@DB.S.DATA", "resources": {"requests": {"memory": "5.6Gi"}}}
    large = {"name": "data", "source": "stage", "stageConfig": config}

    with pytest.raises(InvalidJobSpecError, match=r"requests 6\.1 GiB of memory .* node of compute pool TINY"):
        client.upload(job("TINY", stage=STAGE, volumes=[large]), PAYLOAD)

    assert [] == client.connection.rows(f"LIST {STAGE}")


@pytest.mark.parametrize("pool", ["TINY", "BACKED"])
def test_an_own_specification_without_room_is_not_submitted(client, pool):
    """An author's own specification is compared with the pool's smallest node before the submit."""
    with pytest.raises(InvalidJobSpecError, match="requests 14 GiB of memory"):
        client.submit_specification(job(pool), own(resources={"requests": {"memory": "14Gi"}}))

    assert [] == client.connection.rows("SHOW JOB SERVICES IN ACCOUNT")


def test_gpus_that_no_container_requests(client, caplog):
    """A job on GPU nodes whose containers request no GPU is submitted with a warning."""
    with caplog.at_level(logging.WARNING):
        client.submit_specification(job("GRAPHICS"), own())
    client.connection.rows("DROP SERVICE MLJOBS_DB.PUBLIC.MLJOB_1 FORCE")

    assert "No container of job MLJOBS_DB.PUBLIC.MLJOB_1 requests nvidia.com/gpu" in caplog.text
