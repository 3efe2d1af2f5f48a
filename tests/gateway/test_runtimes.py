"""The nodes of compute pools with the jobs that fit them, and the images of jobs."""

import json
import logging
import time

import pytest

from airflow_provider_mljobs.emulator.settings import Fault
from airflow_provider_mljobs.exceptions import (
    GatewayError,
    InvalidJobSpecError,
    PayloadError,
    SnowflakeUnavailableError,
)
from airflow_provider_mljobs.gateway.client import MLJobClient
from airflow_provider_mljobs.jobs.names import Identifier, Namespace, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.payload.archive import Payload
from airflow_provider_mljobs.jobs.payload.pickles import python_version
from airflow_provider_mljobs.jobs.spec.job import JobSpec, Resources, RuntimeImage
from airflow_provider_mljobs.jobs.spec.rendering import SpecificationSource
from airflow_provider_mljobs.jobs.values.arguments import Arguments
from tests.lab import served

DATABASE, SCHEMA = Identifier("MLJOBS_DB"), Identifier("PUBLIC")
STAGE = StagePath.parse("ML_PAYLOADS", "stage_name", Namespace(DATABASE, SCHEMA))
PAYLOAD = Payload(archive=b"code")
POOLS = """
CREATE COMPUTE POOL tiny MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS;
CREATE COMPUTE POOL large MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_SL;
CREATE COMPUTE POOL backed MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_M
    BACKUP_INSTANCE_FAMILIES = ('CPU_X64_L', 'CPU_X64_S');
CREATE COMPUTE POOL graphics MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = GPU_NV_M
    BACKUP_INSTANCE_FAMILIES = ('GPU_NV_S', 'CPU_X64_XS');
"""


@pytest.fixture(scope="module")
def server():
    """An embedded Snowflake."""
    with served() as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    """A client on an embedded Snowflake with several pools."""
    from snowflake import connector

    client = MLJobClient(lambda: connector.connect(**server.connection_kwargs))
    for statement in filter(str.strip, POOLS.split(";")):
        client.connection.rows(statement)
    yield client
    client.close()


@pytest.fixture
def faults(server, client):
    """The faults of the server, and a client without answers of earlier tests."""
    client.runtimes.forget()
    yield server.faults
    server.faults.clear()
    client.runtimes.forget()


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


@pytest.mark.parametrize(("margin", "expected"), [(0.1, "RUNNING"), (0.0, "PENDING")])
def test_the_margin_lets_a_job_start(client, margin, expected):
    """A job starts on a node that has less room than Snowflake shows, because it requests less than that."""
    spec = job("LARGE", stage=STAGE, node_memory_margin=margin)
    client.submit(spec, client.upload(spec, Payload.of_function(lambda: time.sleep(60))), Arguments.of_script(()))
    status = client.status(spec.name)
    client.drop(spec.name)
    client.connection.rows(f"REMOVE {STAGE}")

    assert expected == status


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


CPU = "/snowflake/images/snowflake_images/container_runtime/cpu_x86_64"
SUFFIX = f"-py{python_version().replace('.', '')}"
NO_PYTHON = "No ML job runtime available: Python version 3.99 is not supported."
REFUSED = Fault(matching="GET_ML_JOB_RUNTIME.*pythonVersion", effect="error", errno=395091, message=NO_PYTHON)
PICKLED = Payload(archive=b"code", pickled=("Function 'train'",))


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        (None, f"{CPU}:3.0.0{SUFFIX}"),
        ("2.9.0", f"{CPU}:2.9.0{SUFFIX}"),
        ("2.5.0-py310", f"{CPU}:2.5.1-py310"),
        (f"{CPU}:2.9.0", f"{CPU}:2.9.0"),
        ("/ml/public/images/mine:1", "/ml/public/images/mine:1"),
        ("cre@mine", "cre@mine"),
    ],
)
def test_the_image_of_a_job(faults, client, wanted, path):
    """A version leads to the image for this worker's Python; full paths and references stay as they are."""
    assert RuntimeImage(path=path) == client.runtimes.image(job("TINY", runtime_environment=wanted))


def test_a_python_without_an_image(faults, client):
    """If Snowflake has no image for the worker's Python, the job gets the default one, asked for once."""
    faults.add(REFUSED)
    image = client.runtimes.image(job("TINY", runtime_environment="2.9.0"))

    assert RuntimeImage(path=f"{CPU}:2.9.0", refusal=NO_PYTHON) == image
    assert f"{CPU}:2.9.0. Snowflake has none with the Python of this worker" == str(image)
    assert image is client.runtimes.image(job("TINY", runtime_environment="2.9.0"))


def test_a_version_without_an_image(faults, client):
    """A version that Snowflake doesn't have with any Python is an error with Snowflake's first answer."""
    with pytest.raises(GatewayError, match=r"runtime_environment='nonsense', with Python .* or any other: .*does not"):
        client.runtimes.image(job("TINY", runtime_environment="nonsense"))


def test_an_outage_is_no_refusal(faults, client):
    """If Snowflake can't be reached, the image is not known, instead of that of another Python."""
    faults.add(Fault(matching="GET_ML_JOB_RUNTIME.*pythonVersion", effect="error", errno=390114))

    with pytest.raises(SnowflakeUnavailableError):
        client.runtimes.image(job("TINY"))


def test_a_pickle_without_its_python_is_refused(faults, client):
    """A pickled function is refused before the upload where Snowflake has no image for the worker's Python."""
    faults.add(REFUSED)

    with pytest.raises(PayloadError) as caught:
        client.upload(job("TINY", stage=STAGE), PICKLED, pickled=("Argument 'model'",))

    assert str(caught.value).startswith(
        f"Function 'train' and Argument 'model' can only travel as a pickle, which needs Python {python_version()} of "
        f"this worker in the job, and Snowflake has no image for it: {NO_PYTHON}"
    )
    assert [] == client.connection.rows(f"LIST {STAGE}")


def test_a_pickle_for_an_image_of_another_python_is_refused(faults, client):
    """A pickle is refused before the upload if the image's tag names another Python; source never is."""
    other = job("TINY", stage=STAGE, runtime_environment="2.9.0-py310")

    with pytest.raises(PayloadError, match=f"image {CPU}:2.9.0-py310 has Python 3.10."):
        client.upload(other, PICKLED)

    client.runtimes.check_python(other, PAYLOAD.pickled)


@pytest.mark.parametrize("wanted", [None, "/ml/public/images/mine:1-py310"])
def test_a_pickle_travels_where_its_python_may_be(faults, client, wanted):
    """A pickle travels to an image of its Python, and to one whose tag says nothing: there the job compares."""
    client.runtimes.check_python(job("TINY", runtime_environment=wanted), PICKLED.pickled)
