"""The example DAGs, run to their end: they are what people copy."""

from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag

EXAMPLES = Path(__file__).parents[1] / "example_dags"
DAGS = ["file_with_args", "function_job", "sweep", "weekly_retraining"]


def test_all_are_here():
    """Every DAG file is run below."""
    files = {path.stem for path in EXAMPLES.glob("*.py")} - {"demo"}

    assert set(DAGS) == files


@pytest.fixture
def example(airflow):
    """Run an example DAG by its name."""

    def run(name):
        bag = DagBag(EXAMPLES / f"{name}.py")
        assert {} == bag.import_errors
        return airflow.run(bag.dags[name])

    return run


def test_function_job(example):
    """A function's result goes to the next task."""
    run = example("function_job")

    assert {"mean": 7.25, "stdev": pytest.approx(4.35, abs=0.01)} == run.xcom("describe")
    assert "success" == run.state


def test_file_with_args(example):
    """A script gets rendered arguments, and an environment in which nothing is expanded."""
    run = example("file_with_args")

    expected = {
        "title": "Report for week 47",
        "lines": 3,
        "greeting": "Hello from $(anywhere), nothing is expanded",
    }
    assert expected == run.xcom("report")


def test_sweep(example):
    """One job per candidate; the best one is taken."""
    run = example("sweep")

    assert "success" == run.state
    assert run.xcom("best")["depth"] in {2, 3, 4}


def latest_event(asset):
    """Return the latest event of an asset from Airflow's database."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalars(
            select(AssetEvent)
            .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            .where(AssetModel.name == asset)
            .order_by(AssetEvent.id.desc())
        )
        return found.first()


def test_weekly_retraining(example, airflow):
    """The model is trained, evaluated and promoted; the asset event carries its metrics; only saved files stay."""
    run = example("weekly_retraining")

    metrics = run.xcom("evaluate")
    assert {
        "prepare": "success",
        "train": "success",
        "evaluate": "success",
        "good_enough": "success",
        "promote": "success",
        "keep_current": "skipped",
    } == run.tasks
    assert metrics["auc"] > 0.7
    assert 20_000 == metrics["rows"]
    assert [] == airflow.jobs
    assert {"metrics.json", "model.json"} == {name.rpartition("/")[2] for name in airflow.files}
    assert 1 == len(airflow.query("LIST @ML_PAYLOADS/models/current/model.json"))
    assert metrics == latest_event("loan_default_model").extra
