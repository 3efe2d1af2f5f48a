"""The XComs about a job, in each try of its task and at the end."""

import asyncio
import time
from datetime import datetime
from typing import ClassVar

import pytest
from airflow.models.xcom import XComModel
from airflow.sdk.bases.xcom import BaseXCom
from airflow.utils.session import create_session

from airflow_provider_mljobs.operators import MLJobOperator
from airflow_provider_mljobs.task.xcoms import with_reported
from tests.lab import POOL, STAGE
from tests.tries import Tries

SETTINGS = {"task_id": "job", "compute_pool": POOL.lower(), "stage_name": STAGE, "poll_interval": 0.05}


def report():
    """Report progress and metrics."""
    from airflow_provider_mljobs import report

    report.progress(0.5, "half")
    report.metrics(auc=0.8, loss=float("nan"))
    report.metrics(auc=0.9)
    return 1


def task(airflow, **settings):
    """Return a task instance to be."""
    return Tries(airflow, lambda: MLJobOperator(**{"source": report, **SETTINGS, **settings}))


def test_facts(airflow):
    """XCom has the job with its pool, time of submit, payload and query id."""
    tries = task(airflow)
    tries.run()

    facts = tries.xcoms["mljob"]
    place = tries.xcoms["stage_path"]
    assert {
        "job_id": tries.xcoms["job_id"],
        "snowflake_conn_id": "snowflake_default",
        "compute_pool": "ML_POOL",
        "target_instances": 1,
        "stage_path": place,
        "payload": place.split("/payload_")[1].partition("_")[0],
    } == {key: facts[key] for key in facts if key not in {"submitted_at", "snowsight", "query_id"}}
    assert abs(datetime.fromisoformat(facts["submitted_at"]).timestamp() - time.time()) < 30
    assert facts["query_id"]


def test_facts_of_a_job_that_is_there(airflow):
    """A retry that attaches to a job pushes the same facts, with Snowflake's time of the submit."""
    tries = task(airflow)
    tries.die(deadly=("store", "submitted"), after=True)
    first = tries.xcoms["mljob"]
    tries.run()

    facts = tries.xcoms["mljob"]
    assert (None, first["job_id"], first["stage_path"]) == (first["submitted_at"], facts["job_id"], facts["stage_path"])
    assert datetime.fromisoformat(facts["submitted_at"])
    assert facts["query_id"] is None


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "blocking"])
def test_the_end(airflow, deferrable):
    """XCom ends with the job's last status and its reports, without the parts for running jobs."""
    tries = task(airflow, deferrable=deferrable)
    tries.run()

    watched = tries.xcoms["mljob_watched"]
    assert ("DONE", tries.xcoms["job_id"]) == (watched["status"], watched["job_id"])
    assert ["running", "finishing"] == [step["phase"] for step in watched["timeline"]][-2:]
    assert {"auc": 0.9, "loss": None} == watched["metrics"] == tries.xcoms["metrics"]
    assert [0.8, 0.9] == [value for _, _, value in watched["series"]["auc"]]
    assert (0.5, "half") == (watched["progress"]["fraction"], watched["progress"]["message"])
    assert not {"cursors", "gaps"} & watched.keys()


def test_the_end_of_a_try_that_was_lost(airflow):
    """A retry that returns a saved result pushes the same end."""
    tries = task(airflow)
    tries.die(deadly=("store", "succeeded"), after=True)
    first = tries.xcoms["mljob_watched"]

    assert 1 == tries.run()
    assert first == tries.xcoms["mljob_watched"]


def test_tasks_that_push_nothing(airflow):
    """The XComs for Airflow's pages are pushed without do_xcom_push, too."""
    tries = task(airflow, do_xcom_push=False)
    tries.die(deadly=("store", "succeeded"), after=True)
    expected = {"job_id", "stage_path", "mljob", "mljob_watched"}

    assert expected == {key for key in tries.xcoms if not key.startswith("_link_")}
    tries.run()
    assert expected == {key for key in tries.xcoms if not key.startswith("_link_")}


def test_reported_artifacts():
    """Files that were reported, or lie in a directory that was, are marked and come first; others keep their order."""
    files = [{"path": path, "bytes": 1} for path in ("a.txt", "model/a.bin", "model.bin", "models/b.bin", "z.txt")]

    marked = with_reported(files, ["z.txt", "model", "missing"])

    assert ["model/a.bin", "z.txt", "a.txt", "model.bin", "models/b.bin"] == [file["path"] for file in marked]
    assert [True, True, None, None, None] == [file.get("reported") for file in marked]


class Elsewhere(BaseXCom):
    """Keeps XComs elsewhere, and references in Airflow's database, as the backend for object stores does."""

    values: ClassVar[list] = []

    @staticmethod
    def serialize_value(value, **_):
        """Keep a value and return a reference."""
        Elsewhere.values.append(value)
        return f"elsewhere/{len(Elsewhere.values) - 1}"

    @staticmethod
    def deserialize_value(result):
        """Return the value of a reference."""
        return Elsewhere.values[int(result.value.removeprefix("elsewhere/"))]


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "blocking"])
def test_a_backend_for_xcoms(airflow, monkeypatch, deferrable):
    """XComs for Airflow's pages are in its database; outputs of the task are in the backend."""
    for module in ("xcom", "task_runner"):
        monkeypatch.setattr(f"airflow.sdk.execution_time.{module}.XCom", Elsewhere)
    run = airflow.run_task(lambda: MLJobOperator(source=report, **SETTINGS, deferrable=deferrable))
    with create_session() as session:
        rows = session.query(XComModel).filter(XComModel.run_id == run.instances[0].run_id).all()
        xcoms = {row.key: row.value for row in rows}

    assert "success" == run.state
    assert run.instances[0].run_id
    assert {"metrics", "status"} <= {key for key, value in xcoms.items() if str(value).startswith("elsewhere/")}
    assert ("ML_POOL", "DONE") == (xcoms["mljob"]["compute_pool"], xcoms["mljob_watched"]["status"])
    assert xcoms["_link_SnowsightLink"].startswith("https://app.snowflake.com/")


def test_xcoms_that_cannot_be_read(airflow):
    """A task succeeds with its job although its XComs can't be read."""
    tries = task(airflow, deferrable=True, durable=False)
    trigger = tries.defer()
    event = asyncio.run(anext(trigger.run())).payload
    tries.gives_xcoms = False

    assert 1 == tries.resume("execute_complete", {"event": event})
    assert {"auc": 0.9, "loss": None} == tries.xcoms["metrics"]


def test_secrets_in_the_tail_of_the_log(airflow):
    """Secrets in the tail of the log are masked in XCom."""

    def tell():
        import os

        print("logs in with", os.environ["DB_PASSWORD"])

    tries = task(airflow, source=tell, env_vars={"DB_PASSWORD": "hunter2of3"})
    tries.run()

    assert "logs in with ***" in tries.xcoms["logs"]
