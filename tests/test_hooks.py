"""MLJobHook: the connection that knows jobs."""

from datetime import timedelta

import pytest
from airflow.sdk.exceptions import AirflowException

from airflow_provider_mljobs.emulator.settings import Fault
from airflow_provider_mljobs.exceptions import GatewayError, JobAlreadyExistsError, JobNotFoundError
from airflow_provider_mljobs.hooks import MLJobHook
from airflow_provider_mljobs.jobs.comment import Origin, TaskKey
from airflow_provider_mljobs.jobs.names import Identifier, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.payload.archive import Payload
from airflow_provider_mljobs.jobs.spec.job import JobSpec
from airflow_provider_mljobs.jobs.values.arguments import Arguments
from tests.budget import budget
from tests.lab import POOL


def three():
    """Return three."""
    print("counting")
    return 3


def spec(hook, name, **fields):
    """Describe a job."""
    return JobSpec(
        **{"name": hook.job(name), "compute_pool": Identifier(POOL), "stage": hook.stage("@ML_PAYLOADS")} | fields
    )


def test_life_of_a_job(airflow):
    """The hook submits, lists, reads and drops a job without an operator."""
    with MLJobHook() as hook:
        job_id = hook.submit(spec(hook, "MLJOB_BY_HAND", comment="by hand"), Payload.of_function(three))
        job = hook.job(job_id)
        hook.run(f"CALL {job_id}!SPCS_WAIT_FOR('DONE', {budget():.0f})")
        status, log, result = hook.status(job), hook.logs(job), hook.result(job)
        names = [row["name"] for row in hook.list()]
        hook.drop(job)

    assert "MLJOBS_DB.PUBLIC.MLJOB_BY_HAND" == job_id
    assert JobStatus.DONE is status
    assert "counting" in log
    assert (True, 3) == (result.success, result.value)
    assert ["MLJOB_BY_HAND"] == names
    assert [] == airflow.jobs


def test_submit_twice(airflow):
    """Submitting the same job twice, as a repetition after a lost answer does, finds the first one."""
    with MLJobHook() as hook:
        twice = spec(hook, "MLJOB_TWICE", comment="twice")
        hook.submit(twice, Payload.of_function(three))
        hook.submit(twice, Payload.of_function(three))
        names = [row["name"] for row in hook.list()]

    assert ["MLJOB_TWICE"] == names


def test_name_of_another_job(airflow):
    """A job of the same name that another try has left is not taken for this one's."""
    with MLJobHook() as hook:
        hook.submit(spec(hook, "MLJOB_TAKEN", comment="first"), Payload.of_function(three))
        with pytest.raises(JobAlreadyExistsError, match="was not submitted by this task"):
            hook.submit(spec(hook, "MLJOB_TAKEN", comment="second"), Payload.of_function(three))


def test_unchanged_submit(airflow):
    """On an open session: one statement that finds the payload, one that starts the job."""
    with MLJobHook() as hook:
        hook.submit(spec(hook, "MLJOB_FIRST"), Payload.of_function(three))
        airflow.snowflake.statements.clear()
        hook.submit(spec(hook, "MLJOB_SECOND"), Payload.of_function(three))
        statements = airflow.snowflake.statements.texts

    assert ["LIST", "EXECUTE"] == [text.split()[0] for text in statements]


def test_a_refused_job_leaves_the_shared_payload(airflow):
    """A refused job leaves the shared payload for other jobs, and none of its own files."""
    with MLJobHook() as hook:
        refused = spec(hook, "MLJOB_REFUSED", query_warehouse=Identifier("X"), external_access_integrations=())
        place = hook.client.upload(refused, Payload.of_function(three))
        airflow.snowflake.faults.add(Fault(matching="EXECUTE JOB", effect="error", message="no more jobs"))
        try:
            with pytest.raises(GatewayError, match="no more jobs"):
                hook.client.submit(refused, place, Arguments(inline=None, files={"arguments.json": b"{}"}))
        finally:
            airflow.snowflake.faults.clear()

    assert ([], [place.path]) == (airflow.files, airflow.payloads)


def test_cancel_gone_job(airflow):
    """Cancelling a job that is gone is fine: it doesn't run."""
    with MLJobHook() as hook:
        hook.cancel(hook.job("MLJOB_NEVER_THERE"))

    assert [] == airflow.jobs


def test_status_without_a_job_history(airflow):
    """Without a job history, a job that is gone has no status."""
    airflow.snowflake.statements.clear()
    airflow.snowflake.faults.add(Fault(matching="GET_JOB_HISTORY", effect="error", errno=2143))
    try:
        with MLJobHook() as hook, pytest.raises(JobNotFoundError, match=r"PUBLIC\.MLJOB_NEVER_THERE does not exist"):
            hook.status(hook.job("MLJOB_NEVER_THERE"))
        asked = airflow.snowflake.statements.matching("GET_JOB_HISTORY")
    finally:
        airflow.snowflake.faults.clear()

    assert 1 == len(asked)


def submitted_by(airflow, *, task_id="train", **fields):
    """Submit a job as a task of a DAG that this Airflow doesn't know, and wait until it is over."""
    task = TaskKey(airflow=airflow, dag_id="nobodys", run_id="r", task_id=task_id)
    origin = Origin(task=task, run_started="2026-01-01", epoch=0, try_number=1)
    with MLJobHook() as hook:
        job_id = hook.submit(
            spec(hook, str(task.job_name(0, 1)), comment=origin.to_comment(), **fields), Payload.of_function(three)
        )
        hook.run(f"CALL {job_id}!SPCS_WAIT_FOR('DONE', {budget():.0f})")
    return job_id


def test_collect(airflow, monkeypatch):
    """Only this Airflow's jobs go, with their files on the stages that are named, and results by their age."""
    monkeypatch.setenv("AIRFLOW__MLJOBS__DEPLOYMENT", "lab")
    mine, foreign = submitted_by("lab"), submitted_by("other", task_id="other")
    with MLJobHook() as hook:
        dry = hook.collect(timedelta(0), stages=["@ML_PAYLOADS"], task_states=lambda tasks: {}, dry_run=True)
        files = airflow.files
        wet = hook.collect(timedelta(0), stages=["ml_payloads"] * 2, task_states=lambda tasks: {})

    assert [(mine, "would drop")] == [(item.name, item.action) for item in dry.items]
    assert [(mine, "dropped")] == [(item.name, item.action) for item in wet.items]
    assert [foreign.rpartition(".")[2]] == airflow.jobs
    assert (["output/mljob_result"] * 2, ["output/mljob_result"]) == (files, airflow.files)


def test_collect_results(airflow, monkeypatch):
    """``[mljobs] result_retention_days`` bounds for how long the result of a job that is gone stays."""
    monkeypatch.setenv("AIRFLOW__MLJOBS__DEPLOYMENT", "lab")
    job_id = submitted_by("lab")
    with MLJobHook() as hook:
        hook.drop(hook.job(job_id))
        forever = hook.collect(timedelta(0), stages=["@ML_PAYLOADS"])
        monkeypatch.setenv("AIRFLOW__MLJOBS__RESULT_RETENTION_DAYS", "0.0000001")
        bounded = hook.collect(timedelta(0), stages=["@ML_PAYLOADS"])

    assert [] == [item for item in forever.items if item.kind == "result"]
    assert ["removed"] == [item.action for item in bounded.items if item.kind == "result"]
    assert [] == airflow.files


def test_collect_outside_of_a_task(airflow, monkeypatch):
    """There Airflow can't be asked without a word how; nothing is dropped."""
    monkeypatch.setenv("AIRFLOW__MLJOBS__DEPLOYMENT", "lab")
    submitted_by("lab")
    with MLJobHook() as hook, pytest.raises(AirflowException, match="Only a task can ask"):
        hook.collect(timedelta(0))

    assert 1 == len(airflow.jobs)


def test_names_of_the_connection(airflow):
    """Unqualified names get the connection's database and schema; quoted and qualified ones don't change."""
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
