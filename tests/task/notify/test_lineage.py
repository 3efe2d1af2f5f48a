"""What OpenLineage is told of jobs, by Airflow's own provider, which writes it to a file."""

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
def told(jobs_snowflake, tmp_path_factory):
    """Run the DAG in a process of its own; returns what was told at each task's end, and what is in its XComs."""
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
    """Return the datasets that a task has written."""
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
def test_facet_of_a_job(told, task_id, event_type, status, failure):
    """The run says which job it was, what that ran, and how it ended."""
    events, xcoms = told
    event, facts = events[task_id], xcoms[task_id]["mljob"]
    facet = event["run"]["facets"]["snowflake_mljob"]

    assert event_type == event["eventType"]
    assert (facts["job_id"], facts["payload"], "ML_POOL") == (facet["jobId"], facet["payload"], facet["computePool"])
    assert (status, failure) == (facet.get("status"), facet.get("failure"))
    assert [facts["query_id"]] == facet["queryIds"]


def test_query_of_the_submit(told, jobs_snowflake):
    """The query that the run names is the one that has started the job."""
    from snowflake import connector

    events, xcoms = told
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


def test_outputs(told):
    """They are what the job has reported, and the task's outlets."""
    events, xcoms = told
    place = xcoms["train"]["mljob"]["stage_path"].removeprefix("@")

    assert {
        (ACCOUNT, f"{place}/model.bin"),
        ("snowflake://acc", "DB.SCHEMA.MODEL"),
        ("s3://features", "daily/2026"),
        ("snowflake://acc", "DB.SCHEMA.TABLE"),
    } == set(outputs(events["train"]))


def test_value_that_stays_on_the_stage(told):
    """The files of a task's value are its output."""
    events, xcoms = told
    paths = [path.removeprefix("@") for path in xcoms["frame"]["return_value"]["stage_paths"]]

    assert [(ACCOUNT, path) for path in paths] == outputs(events["frame"])


def test_task_without_a_job(told):
    """A task that has failed before it had one says so, and nothing more."""
    events, _ = told

    assert ("FAIL", []) == (events["refused"]["eventType"], outputs(events["refused"]))


def test_parent_of_the_job(told):
    """What the job itself tells OpenLineage can name the task's run as its parent."""
    events, xcoms = told

    assert f"tests/lineage.train/{events['train']['run']['runId']}" == xcoms["train"]["return_value"]


def test_without_a_transport():
    """Where OpenLineage is told nothing, jobs have no parent."""
    assert {} == lineage.environment(None)


def test_a_transport_that_cannot_be_read(monkeypatch, caplog):
    """No job fails for that."""
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", "[")

    assert {} == lineage.environment(None)
    assert "Could not set OPENLINEAGE_PARENT_ID" in caplog.text
