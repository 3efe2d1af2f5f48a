"""Submits that an account answers unlike others."""

import pytest

from airflow_provider_mljobs.emulator.settings import Fault, VirtualJob
from airflow_provider_mljobs.exceptions import GatewayError
from airflow_provider_mljobs.gateway.client import MLJobClient
from airflow_provider_mljobs.jobs.names import Identifier, Namespace, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.payload.archive import Payload
from airflow_provider_mljobs.jobs.spec.job import JobSpec
from airflow_provider_mljobs.jobs.values.arguments import Arguments
from tests.lab import served

DATABASE, SCHEMA = Identifier("MLJOBS_DB"), Identifier("PUBLIC")
STAGE = StagePath.parse("ML_PAYLOADS", "stage_name", Namespace(DATABASE, SCHEMA))
UNKNOWN = "Invalid spec: unknown option 'controlPolicy' for 'resourceManagement'."


@pytest.fixture(scope="module")
def server():
    """An embedded Snowflake with virtual jobs."""
    with served(virtual_jobs=(VirtualJob(name="MLJOB_%", seconds=1e6),)) as server:
        yield server


@pytest.fixture
def submit(server):
    """Submit a job; return the statements that start it, and drop it afterwards."""
    from snowflake import connector

    client = MLJobClient(lambda: connector.connect(**server.connection_kwargs))

    def submit(name, **fields):
        job = QualifiedName(DATABASE, SCHEMA, Identifier(name))
        spec = JobSpec(name=job, compute_pool=Identifier("ML_POOL"), stage=STAGE, **fields)
        place = client.upload(spec, Payload(archive=b"code"))
        server.statements.clear()
        try:
            client.submit(spec, place, Arguments.of_script(()))
        finally:
            client.drop(job)
        return server.statements.matching("^EXECUTE")

    yield submit
    server.faults.clear()
    client.close()


def test_an_account_without_start_orders(server, submit, caplog):
    """An account that doesn't know the start order of instances gets the job once more, without it."""
    server.faults.add(Fault(matching="FirstInstance", effect="error", errno=395018, message=UNKNOWN))
    first, second = submit("MLJOB_TWO", target_instances=2)

    assert ("FirstInstance" in first, "FirstInstance" in second) == (True, False)
    assert "Submitting job MLJOBS_DB.PUBLIC.MLJOB_TWO without a start order of its instances" in caplog.text


@pytest.mark.parametrize(
    ("message", "instances"), [("Invalid spec: unknown option 'args'.", 2), (UNKNOWN, 1)], ids=["other", "one"]
)
def test_other_refusals_are_final(server, submit, message, instances):
    """A refusal for another reason, or of a job without a start order, is not followed by another submit."""
    server.faults.add(Fault(matching="^EXECUTE", effect="error", errno=395018, message=message))

    with pytest.raises(GatewayError, match="Invalid spec"):
        submit("MLJOB_REFUSED", target_instances=instances)

    assert 1 == len(server.statements.matching("^EXECUTE"))
