"""What a task tells of its job in XCom, in each of its tries and at the end."""

import time
from datetime import datetime

import pytest

from airflow_provider_mljobs.facts import with_reported
from airflow_provider_mljobs.operators import MLJobOperator
from tests.lab import POOL, STAGE
from tests.tries import Tries

SETTINGS = {"task_id": "job", "compute_pool": POOL.lower(), "stage_name": STAGE, "poll_interval": 0.05}


def report():
    """Tell how well it goes."""
    from mljobs import report

    report.progress(0.5, "half")
    report.metrics(auc=0.8, loss=float("nan"))
    report.metrics(auc=0.9)
    return 1


def task(airflow, **settings):
    """Return a task instance to be."""
    return Tries(airflow, lambda: MLJobOperator(source=report, **{**SETTINGS, **settings}))


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
