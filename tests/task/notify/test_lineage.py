"""OpenLineage events of jobs, which Airflow's own provider writes to a file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_mljobs.task.notify import lineage
from tests.budget import budget

# As Airflow's Snowflake provider writes a locator without a region.
ACCOUNT = "snowflake://MLJOBS.us-west-1.aws"


@pytest.fixture(scope="module")
def emitted(jobs_snowflake, tmp_path_factory):
    """Run the DAG in another process; returns the events of each task's end and its XComs."""
    home = tmp_path_factory.mktemp("airflow")
    events, facts = home / "events.jsonl", home / "facts.json"
    environment = {
        **os.environ,
        **jobs_snowflake.environment,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "file", "log_file_path": str(events), "append": True}),
        "AIRFLOW__OPENLINEAGE__NAMESPACE": "tests",
    }
    program = [sys.executable, "-m", "tests.lineage_run", json.dumps(jobs_snowflake.connection_kwargs), str(facts)]
    done = subprocess.run(
        program,
        env=environment,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=budget(),
        check=False,
    )
    assert facts.exists(), done.stdout + done.stderr
    ends = [event for line in events.read_text().splitlines() if (event := json.loads(line))["eventType"] != "START"]
    by_task = {event["job"]["name"].removeprefix("lineage."): event for event in ends if "." in event["job"]["name"]}
    return by_task, json.loads(facts.read_text())


def outputs(event):
    """Return the output datasets of a task."""
    return [(each["namespace"], each["name"]) for each in event["outputs"]]


@pytest.mark.parametrize(
    ("task_id", "event_type", "status", "failure"),
    [
        ("train", "COMPLETE", "DONE", None),
        ("frame", "COMPLETE", "DONE", None),
        ("fail", "FAIL", "FAILED", "user error"),
        ("leave", "COMPLETE", None, None),
    ],
)
def test_facet_of_a_job(emitted, task_id, event_type, status, failure):
    """The facet of a run names the job, its payload and its status."""
    events, xcoms = emitted
    event, facts = events[task_id], xcoms[task_id]["mljob"]
    facet = event["run"]["facets"]["snowflake_mljob"]

    assert event_type == event["eventType"]
    assert (facts["job_id"], facts["payload"], "ML_POOL") == (facet["jobId"], facet["payload"], facet["computePool"])
    assert (status, failure) == (facet.get("status"), facet.get("failure"))
    assert [facts["query_id"]] == facet["queryIds"]


def test_query_of_the_submit(emitted, jobs_snowflake):
    """The run names the query that started the job."""
    from snowflake import connector

    events, xcoms = emitted
    query = events["train"]["run"]["facets"]["externalQuery"]
    with connector.connect(**jobs_snowflake.connection_kwargs) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT QUERY_TEXT FROM TABLE(INFORMATION_SCHEMA.QUERY_HISTORY(RESULT_LIMIT => 10000)) "
            f"WHERE QUERY_ID = '{query['externalQueryId']}'"
        )
        ((text,),) = cursor.fetchall()

    assert ACCOUNT == query["source"]
    assert text.startswith("EXECUTE JOB SERVICE")
    assert xcoms["train"]["mljob"]["job_id"] in text


def test_outputs(emitted):
    """Outputs are the job's reported artifacts and assets, and the task's outlets."""
    events, xcoms = emitted
    place = xcoms["train"]["mljob"]["stage_path"].removeprefix("@")

    assert {
        (ACCOUNT, f"{place}/model.bin"),
        ("snowflake://acc", "DB.SCHEMA.MODEL"),
        ("s3://features", "daily/2026"),
        ("snowflake://acc", "DB.SCHEMA.TABLE"),
    } == set(outputs(events["train"]))


def test_value_that_stays_on_the_stage(emitted):
    """The files of a value on the stage are an output."""
    events, xcoms = emitted
    paths = [path.removeprefix("@") for path in xcoms["frame"]["return_value"]["stage_paths"]]

    assert [(ACCOUNT, path) for path in paths] == outputs(events["frame"])


def test_task_without_a_job(emitted):
    """A task that failed before its submit has no facet."""
    events, _ = emitted

    assert ("FAIL", []) == (events["refused"]["eventType"], outputs(events["refused"]))


def test_parent_of_the_job(emitted):
    """The job can name the task's run as the parent of its own events."""
    events, xcoms = emitted

    assert f"tests/lineage.train/{events['train']['run']['runId']}" == xcoms["train"]["return_value"]


def test_without_a_transport():
    """Without OpenLineage, jobs have no parent."""
    assert {} == lineage.environment(None)


def test_a_transport_that_cannot_be_read(monkeypatch, caplog):
    """An error of OpenLineage doesn't fail the job."""
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", "[")

    assert {} == lineage.environment(None)
    assert "Could not set OPENLINEAGE_PARENT_ID" in caplog.text
