"""Events of assets, as Airflow keeps them: what they say of the job that has updated the asset."""

import pytest
from airflow.sdk import Asset, AssetAlias

from airflow_provider_mljobs.operators import MLJobOperator
from tests.lab import POOL, STAGE

SETTINGS = {"task_id": "job", "compute_pool": POOL, "stage_name": STAGE, "poll_interval": 0.05}
MODEL = Asset(name="model", uri="s3://models/loan_default")


def train():
    """Save a model and tell of it."""
    import os
    from pathlib import Path

    from airflow_provider_mljobs import report

    place = Path(os.environ["MLRS_STAGE_RESULT_PATH"])
    (place / "model").mkdir()
    (place / "model" / "weights.bin").write_bytes(b"w")
    (place / "notes.txt").write_text("n")
    report.metrics(auc=0.91)
    report.artifact(place / "model")
    report.asset("s3://models/loan_default/", {"rows": 3})
    report.asset("s3://features/daily")


@pytest.fixture
def events(airflow):
    """Run a task with some outlets; returns its run, and what the events of its assets say, by URI."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    def run(**settings):
        run = airflow.run_task(lambda: MLJobOperator(**{**SETTINGS, "source": train, **settings}))
        rows = select(AssetModel.uri, AssetEvent.extra).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        with create_session() as session:
            found = session.execute(rows.where(AssetEvent.source_run_id == run.instances[0].run_id)).all()
        return run, dict(map(tuple, found))

    return run


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "blocking"])
def test_outlet(events, deferrable, capsys):
    """The event has the job, its metrics, its model and what the job says of the asset; of others the log tells."""
    run, found = events(outlets=[MODEL], deferrable=deferrable)

    place = run.xcom("job", "stage_path")
    assert {
        "job_id": run.xcom("job", "job_id"),
        "metrics": {"auc": 0.91},
        "stage_path": place,
        "artifacts": [f"{place}/model"],
        "rows": 3,
    } == found.pop(MODEL.uri)
    assert {} == found
    assert "reported asset s3://features/daily, but the asset is not an outlet of the task" in capsys.readouterr().out


def test_artifacts_that_are_reported(events):
    """They are marked, and come first."""
    run, _ = events()

    files = [(file["path"], file.get("reported")) for file in run.xcom("job", "artifacts")]
    assert [("model/weights.bin", True), ("notes.txt", None)] == files


def test_alias(events):
    """An asset that only the job knows gets its event through an alias, and with it what is known of the job."""
    run, found = events(outlets=[MODEL, AssetAlias("made by jobs")])

    assert {MODEL.uri, "s3://features/daily"} == found.keys()
    assert run.xcom("job", "job_id") == found["s3://features/daily"]["job_id"]


def test_what_the_author_says_stays(events):
    """An extra that is there before the job's end is not overwritten."""

    def say(context):
        context["outlet_events"][MODEL].extra = {"job_id": "mine", "team": "risk"}

    # Airflow calls it again when the task goes on after its deferral.
    _, found = events(outlets=[MODEL], pre_execute=say)

    assert ("mine", "risk", 3) == tuple(found[MODEL.uri][key] for key in ("job_id", "team", "rows"))


def test_without_a_report(events):
    """A job that reports nothing is in the event all the same."""
    run, found = events(source=lambda: 1, outlets=[MODEL])

    assert {"job_id": run.xcom("job", "job_id"), "stage_path": run.xcom("job", "stage_path")} == found[MODEL.uri]


def test_what_is_no_asset(events):
    """A URI that Airflow refuses fails no task."""

    def make():
        from airflow_provider_mljobs import report

        report.asset("airflow://nothing")

    run, found = events(source=make, outlets=[AssetAlias("made by jobs")])

    assert ("success", {}) == (run.state, found)


def test_an_outlet_that_airflow_does_not_know(events):
    """Whatever Airflow says of an asset fails no task."""
    run, found = events(outlets=[Asset.ref(name="nobody's")])

    assert ("success", {}) == (run.state, found)
