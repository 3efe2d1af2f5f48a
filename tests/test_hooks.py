"""MLJobHook: the connection that knows jobs."""

from dataclasses import replace

import pytest

from airflow_provider_mljobs.exceptions import JobAlreadyExistsError
from airflow_provider_mljobs.hooks import MLJobHook
from airflow_provider_mljobs.jobs.identifiers import Identifier, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.payload import Payload
from airflow_provider_mljobs.jobs.spec import JobSpec
from airflow_provider_mljobs.jobs.status import JobStatus
from tests.lab import POOL


def three():
    """Return three."""
    print("counting")
    return 3


def test_life_of_a_job(airflow):
    """The hook submits, lists, reads and drops a job without an operator."""
    with MLJobHook() as hook:
        job = hook.job("MLJOB_BY_HAND")
        directory = hook.stage("@ML_PAYLOADS/MLJOB_BY_HAND")
        spec = JobSpec(name=job, compute_pool=Identifier(POOL), directory=directory, comment="by hand")
        job_id = hook.submit(spec, Payload.of_function(three))
        hook.run(f"CALL {job_id}!SPCS_WAIT_FOR('DONE', 30)")
        status, log, result = hook.status(job), hook.logs(job), hook.result(job, directory)
        names = [row["name"] for row in hook.list()]
        hook.drop(job)
        hook.client.remove(directory)

    assert "MLJOBS_DB.PUBLIC.MLJOB_BY_HAND" == job_id
    assert JobStatus.DONE is status
    assert "counting" in log
    assert (True, 3) == (result.success, result.value)
    assert ["MLJOB_BY_HAND"] == names
    assert ([], []) == (airflow.jobs, airflow.files)


def test_submit_twice(airflow):
    """Submitting the same job twice, as a repetition after a lost answer does, finds the first one."""
    with MLJobHook() as hook:
        job, directory = hook.job("MLJOB_TWICE"), hook.stage("@ML_PAYLOADS/MLJOB_TWICE")
        spec = JobSpec(name=job, compute_pool=Identifier(POOL), directory=directory, comment="twice")
        hook.submit(spec, Payload.of_function(three))
        hook.submit(spec, Payload.of_function(three))
        names = [row["name"] for row in hook.list()]
        hook.drop(job)
        hook.client.remove(directory)

    assert ["MLJOB_TWICE"] == names


def test_name_of_another_job(airflow):
    """A job of the same name that another try has left is not taken for this one's."""
    with MLJobHook() as hook:
        job, directory = hook.job("MLJOB_TAKEN"), hook.stage("@ML_PAYLOADS/MLJOB_TAKEN")
        spec = JobSpec(name=job, compute_pool=Identifier(POOL), directory=directory, comment="first")
        hook.submit(spec, Payload.of_function(three))
        with pytest.raises(JobAlreadyExistsError, match="was not submitted by this task"):
            hook.submit(replace(spec, comment="second"), Payload.of_function(three))


def test_cancel_gone_job(airflow):
    """Cancelling a job that is gone is fine: it doesn't run."""
    with MLJobHook() as hook:
        hook.cancel(hook.job("MLJOB_NEVER_THERE"))

    assert [] == airflow.jobs


def test_names_of_the_connection(airflow):
    """Unqualified names get the connection's database and schema; quoted and qualified ones stay what they are."""
    hook = MLJobHook()

    database, schema = Identifier("MLJOBS_DB"), Identifier("PUBLIC")
    assert QualifiedName(database, schema, Identifier("J")) == hook.job("j")
    assert "@MLJOBS_DB.ML.PAYLOADS/a/B" == str(hook.stage("@ml.payloads/a/B"))
    assert StagePath(QualifiedName(Identifier("X"), Identifier("Y"), Identifier("z z"))) == hook.stage('x.y."z z"')


def test_snowpark_session(airflow):
    """The rest of SnowflakeHook works on the same connection."""
    session = MLJobHook().get_snowpark_session()
    rows = session.sql("SELECT 1 AS ONE").collect()
    session.close()

    assert 1 == rows[0]["ONE"]
