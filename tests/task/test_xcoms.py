"""What a task tells of its job in XCom, in each of its tries and at the end."""

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
    """Tell how well it goes."""
    from airflow_provider_mljobs import report

    report.progress(0.5, "half")
    report.metrics(auc=0.8, loss=float("nan"))
    report.metrics(auc=0.9)
    return 1


def task(airflow, **settings):
    """Return a task instance to be."""
    return Tries(airflow, lambda: MLJobOperator(**{"source": report, **SETTINGS, **settings}))


def test_facts(airflow):
    """Which job it is, where it runs and since when, what it runs, and by which statement it was started."""
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
    """A retry that goes on with a job tells of it, too: since when Snowflake has it."""
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
    """The last state of the job and of what it has reported; nothing that is for a running job only."""
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
    """A retry that returns what an earlier try has finished with tells the same end."""
    tries = task(airflow)
    tries.die(deadly=("store", "succeeded"), after=True)
    first = tries.xcoms["mljob_watched"]

    assert 1 == tries.run()
    assert first == tries.xcoms["mljob_watched"]


def test_tasks_that_push_nothing(airflow):
    """What Airflow's pages show of the job is there all the same."""
    tries = task(airflow, do_xcom_push=False)
    tries.die(deadly=("store", "succeeded"), after=True)
    expected = {"job_id", "stage_path", "mljob", "mljob_watched"}

    assert expected == {key for key in tries.xcoms if not key.startswith("_link_")}
    tries.run()
    assert expected == {key for key in tries.xcoms if not key.startswith("_link_")}


def test_reported_artifacts():
    """Files that were reported, or lie in a directory that was, are marked and come first; others keep their order."""
    files = [{"path": path, "bytes": 1} for path in ("a.txt", "model/a.bin", "model.bin", "models/b.bin", "z.txt")]

    found = with_reported(files, ["z.txt", "model", "missing"])

    assert ["model/a.bin", "z.txt", "a.txt", "model.bin", "models/b.bin"] == [file["path"] for file in found]
    assert [True, True, None, None, None] == [file.get("reported") for file in found]


class Elsewhere(BaseXCom):
    """Keeps XComs elsewhere, and references in Airflow's database, as the backend for object stores does."""

    kept: ClassVar[list] = []

    @staticmethod
    def serialize_value(value, **_):
        """Keep a value and return a reference."""
        Elsewhere.kept.append(value)
        return f"elsewhere/{len(Elsewhere.kept) - 1}"

    @staticmethod
    def deserialize_value(result):
        """Return what a reference stands for."""
        return Elsewhere.kept[int(result.value.removeprefix("elsewhere/"))]


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "blocking"])
def test_a_backend_for_xcoms(airflow, monkeypatch, deferrable):
    """What Airflow's pages read of the job is in its database; what the task pushes is where XComs are kept."""
    for module in ("xcom", "task_runner"):
        monkeypatch.setattr(f"airflow.sdk.execution_time.{module}.XCom", Elsewhere)
    run = airflow.run_task(lambda: MLJobOperator(source=report, **SETTINGS, deferrable=deferrable))
    with create_session() as session:
        rows = session.query(XComModel).filter(XComModel.run_id == run.instances[0].run_id).all()
        found = {row.key: row.value for row in rows}

    assert "success" == run.state
    assert run.instances[0].run_id
    assert {"metrics", "status"} <= {key for key, value in found.items() if str(value).startswith("elsewhere/")}
    assert ("ML_POOL", "DONE") == (found["mljob"]["compute_pool"], found["mljob_watched"]["status"])
    assert found["_link_SnowsightLink"].startswith("https://app.snowflake.com/")


def test_xcoms_that_cannot_be_read(airflow):
    """A job that has ended well ends its task well; what only XCom knew of it is missing."""
    tries = task(airflow, deferrable=True, durable=False)
    trigger = tries.defer()
    event = asyncio.run(anext(trigger.run())).payload
    tries.gives_xcoms = False

    assert 1 == tries.resume("execute_complete", {"event": event})
    assert {"auc": 0.9, "loss": None} == tries.xcoms["metrics"]


def test_secrets_in_the_tail_of_the_log(airflow):
    """They are masked in XCom as they are in the log."""

    def tell():
        import os

        print("logs in with", os.environ["DB_PASSWORD"])

    tries = task(airflow, source=tell, env_vars={"DB_PASSWORD": "hunter2of3"})
    tries.run()

    assert "logs in with ***" in tries.xcoms["logs"]
