"""The states of tasks are the same from Airflow's API and from its database."""

from datetime import datetime

import pytest
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowException
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from airflow_provider_mljobs.jobs.comment import TaskKey
from airflow_provider_mljobs.task.task_states import of_api, of_database


def key(run_id, dag_id, task_id, map_index=-1):
    """Name a task instance."""
    return TaskKey(airflow="", dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index)


@pytest.fixture
def answers(airflow):
    """Ask both ways, in a DAG with a mapped task, one that is called like an instance of it, and one that waits."""
    states_by_way = {}
    with DAG("states", schedule=None, start_date=datetime(2026, 1, 1)) as dag:

        @task
        def train(number):
            if number:
                raise RuntimeError

        @task.skip_if(lambda _: True)
        @task
        def train_1():
            pass

        @task(trigger_rule="all_done")
        def ask(run_id=None):
            places = [("train", 0), ("train", 1), ("train", 7), ("train", -1), ("train_1", -1), ("never", -1)]
            tasks = [key(run_id, "states", *place) for place in places]
            tasks += [key(run_id, "nobodys", "train"), key(run_id, "states", "nobodys")]
            # More than can be asked for at once.
            tasks += [key(f"never {number}", "states", "train_1") for number in range(60)]
            for way in (of_api, of_database):
                states = {(each.task_id, each.map_index): state for each, state in way(tasks).items()}
                states_by_way[way] = (states, way([]))

        @task
        def never():
            pass

        [train.expand(number=[0, 1]), train_1()] >> ask() >> never()
    airflow.run(dag)
    return states_by_way


@pytest.mark.parametrize("way", [of_api, of_database])
def test_states(answers, way):
    """A mapped instance is distinct from a task of the same name; unknown tasks are missing."""
    expected = {("train", 0): "success", ("train", 1): "failed", ("train_1", -1): "skipped", ("never", -1): None}

    assert (expected, {}) == answers[way]


def test_outside_of_a_task(airflow):
    """Outside of a task the API can't be asked, and the error names the database instead."""
    with pytest.raises(AirflowException, match="ask its database"):
        of_api([key("r", "states", "train")])


def test_a_database_that_is_away(airflow, monkeypatch):
    """One error says so."""
    from airflow import settings

    monkeypatch.setattr(settings, "Session", sessionmaker(create_engine("sqlite:////nowhere/at/all.db")))
    with pytest.raises(AirflowException, match="database can't be asked for the states of tasks"):
        of_database([key("r", "states", "train")])
