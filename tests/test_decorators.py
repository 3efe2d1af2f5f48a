"""@task.mljob in DAGs, on the embedded Snowflake."""

from datetime import datetime

import pytest
from airflow.sdk import dag, task

from tests.lab import POOL, STAGE

SETTINGS = {"compute_pool": POOL, "stage_name": STAGE, "poll_interval": 0.05, "deferrable": True}
MODULE_GLOBAL = 7


def run(airflow, build):
    """Build a DAG of one function's body and run it."""
    return airflow.run(dag(dag_id="decorated", schedule=None, start_date=datetime(2026, 1, 1))(build)())


def test_return_value_to_next_task(airflow):
    """The return value of the remote function is an XCom like any other."""

    def build():
        @task.mljob(**SETTINGS)
        def double(number):
            return number * 2

        @task
        def add_one(number):
            return number + 1

        add_one(double(20))

    assert 41 == run(airflow, build).xcom("add_one")


def test_expand(airflow):
    """A mapped task runs one job per element, with partial arguments."""

    def build():
        @task.mljob(**SETTINGS)
        def power(base, exponent):
            return base**exponent

        @task
        def total(values):
            return sum(values)

        total(power.partial(exponent=2).expand(base=[1, 2, 3]))

    assert 14 == run(airflow, build).xcom("total")


def test_output_of_a_mapped_task(airflow):
    """All results of a mapped task are a list in the job, as they are for any task: nothing of Airflow travels."""

    def build():
        @task.mljob(**SETTINGS)
        def square(number):
            return number**2

        @task.mljob(**SETTINGS)
        def total(values):
            import sys

            return [sum(values), "airflow" in sys.modules]

        total(square.expand(number=[1, 2, 3]))

    assert [14, False] == run(airflow, build).xcom("total")


def test_override(airflow):
    """One function serves several tasks with other settings."""

    def build():
        @task.mljob(**SETTINGS)
        def where():
            import os

            return os.environ.get("WHERE", "here")

        where()
        where.override(task_id="elsewhere", env_vars={"WHERE": "there"})()

    finished = run(airflow, build)

    assert ["here", "there"] == [finished.xcom("where"), finished.xcom("elsewhere")]


def test_multiple_outputs(airflow):
    """A dict becomes one XCom a key."""

    def build():
        @task.mljob(multiple_outputs=True, **SETTINGS)
        def metrics():
            return {"auc": 0.9, "rows": 10}

        metrics()

    finished = run(airflow, build)

    assert [0.9, 10] == [finished.xcom("metrics", "auc"), finished.xcom("metrics", "rows")]


def test_session(airflow):
    """An argument called session is the job's Snowpark session, wherever it stands."""

    def build():
        @task.mljob(**SETTINGS)
        def ask(number, session):
            return session.sql(f"SELECT {number} + 1").collect()[0][0]

        ask(1)

    assert 2 == run(airflow, build).xcom("ask")


def test_context_variable(airflow):
    """An argument named after a context variable gets it, as in any task function."""

    def build():
        @task.mljob(**SETTINGS)
        def who(run_id):
            return run_id

        who()

    assert run(airflow, build).xcom("who").startswith("manual__")


def test_date_of_the_context(airflow):
    """A date is Python's own: the container may have no pendulum."""

    def build():
        @task.mljob(**SETTINGS)
        def when(logical_date):
            return [type(logical_date).__module__, logical_date.year]

        when()

    assert "datetime" == run(airflow, build).xcom("when")[0]


def test_closure(airflow):
    """A function that needs more than itself is pickled by value."""
    local = 5

    def build():
        @task.mljob(**SETTINGS)
        def add(number):
            return number + local + MODULE_GLOBAL

        add(1)

    assert 13 == run(airflow, build).xcom("add")


def test_pip_requirements(airflow):
    """Requirements are installed by the job; one that can't be installed fails the task and is named."""

    def build():
        @task.mljob(pip_requirements=["no-such-distribution-anywhere==1.0"], env_vars={"PIP_NO_INDEX": "1"}, **SETTINGS)
        def never():
            return 1

        never()

    finished = run(airflow, build)

    assert "failed" == finished.tasks["never"]
    assert "could not install ['no-such-distribution-anywhere==1.0']: the package index has no such" in str(
        finished.errors["never"]
    )
    assert ([], []) == (airflow.jobs, airflow.files)


def test_no_wait_for_a_dict(airflow):
    """Without waiting the task's value is the job's id, also for a function that returns a dict."""

    def build():
        @task.mljob(wait_for_completion=False, **SETTINGS)
        def metrics() -> dict:
            return {"auc": 0.9}

        metrics()

    finished = run(airflow, build)

    assert finished.xcom("metrics") == finished.xcom("metrics", "job_id")


@pytest.mark.parametrize("serializer", ["auto", "source"])
def test_imports_that_are_not_known_yet(serializer):
    """The names that a function imports are checked once its imports are rendered."""

    @dag(dag_id="decorated", schedule=None, start_date=datetime(2026, 1, 1))
    def build():
        @task.mljob(imports=["{{ params.code }}"], serializer=serializer, **SETTINGS)
        def one(number):
            return number

        one(1)

    assert ["one"] == build().task_ids


def test_unbound_argument(airflow):
    """A call without a required argument fails while the DAG is parsed."""

    def build():
        @task.mljob(**SETTINGS)
        def needs(number):
            return number

        needs()

    with pytest.raises(TypeError, match="number"):
        run(airflow, build)


@pytest.mark.parametrize("option", ["source", "entrypoint", "args"])
def test_options_of_other_payloads(airflow, option):
    """Fields that the function replaces are refused, not ignored."""

    def build():
        @task.mljob(**SETTINGS, **{option: ["x"]})
        def one():
            return 1

        one()

    with pytest.raises(TypeError, match=option):
        run(airflow, build)
