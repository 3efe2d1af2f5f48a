"""Asset events in Airflow, with facts about the job that updated the asset."""

import pytest
from airflow.sdk import Asset, AssetAlias

from airflow_provider_mljobs.operators import MLJobOperator
from tests.lab import POOL, STAGE

SETTINGS = {"task_id": "job", "compute_pool": POOL, "stage_name": STAGE, "poll_interval": 0.05}
MODEL = Asset(name="model", uri="s3://models/loan_default")


def train():
    """Save a model and report it."""
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
    """Run a task with some outlets; returns its run, and the extras of its asset events by URI."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    def run(**settings):
        run = airflow.run_task(lambda: MLJobOperator(**{**SETTINGS, "source": train, **settings}))
        rows = select(AssetModel.uri, AssetEvent.extra).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        with create_session() as session:
            extras = session.execute(rows.where(AssetEvent.source_run_id == run.instances[0].run_id)).all()
        return run, dict(map(tuple, extras))

    return run


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "blocking"])
def test_outlet(events, deferrable, capsys):
    """The event has the job, its metrics, its model and its extra; an asset that is no outlet is logged."""
    run, extras = events(outlets=[MODEL], deferrable=deferrable)

    place = run.xcom("job", "stage_path")
    assert {
        "job_id": run.xcom("job", "job_id"),
        "metrics": {"auc": 0.91},
        "stage_path": place,
        "artifacts": [f"{place}/model"],
        "rows": 3,
    } == extras.pop(MODEL.uri)
    assert {} == extras
    assert "reported asset s3://features/daily, but the asset is not an outlet of the task" in capsys.readouterr().out


def test_artifacts_that_are_reported(events):
    """Reported files are marked and come first in XCom."""
    run, _ = events()

    files = [(file["path"], file.get("reported")) for file in run.xcom("job", "artifacts")]
    assert [("model/weights.bin", True), ("notes.txt", None)] == files


def test_alias(events):
    """An asset that only the job reports gets its event through an alias."""
    run, extras = events(outlets=[MODEL, AssetAlias("made by jobs")])

    assert {MODEL.uri, "s3://features/daily"} == extras.keys()
    assert run.xcom("job", "job_id") == extras["s3://features/daily"]["job_id"]


def test_what_the_author_says_stays(events):
    """Existing keys of an extra are kept."""

    def say(context):
        context["outlet_events"][MODEL].extra = {"job_id": "mine", "team": "risk"}

    # Airflow calls it again when the task resumes.
    _, extras = events(outlets=[MODEL], pre_execute=say)

    assert ("mine", "risk", 3) == tuple(extras[MODEL.uri][key] for key in ("job_id", "team", "rows"))


def test_without_a_report(events):
    """A job without reports is in the event as well."""
    run, extras = events(source=lambda: 1, outlets=[MODEL])

    assert {"job_id": run.xcom("job", "job_id"), "stage_path": run.xcom("job", "stage_path")} == extras[MODEL.uri]


def test_what_is_no_asset(events):
    """An invalid URI doesn't fail the task."""

    def make():
        from airflow_provider_mljobs import report

        report.asset("airflow://nothing")

    run, extras = events(source=make, outlets=[AssetAlias("made by jobs")])

    assert ("success", {}) == (run.state, extras)


def test_an_outlet_that_airflow_does_not_know(events):
    """An error of Airflow about an asset doesn't fail the task."""
    run, extras = events(outlets=[Asset.ref(name="nobody's")])

    assert ("success", {}) == (run.state, extras)
