"""ML jobs in DAGs: groups, mapping, setup and teardown, nested templates."""

from datetime import datetime

import pytest
import yaml
from airflow.sdk import DAG, setup, task, task_group, teardown

from airflow_provider_mljobs.operators import MLJobOperator
from tests.lab import POOL, STAGE

SETTINGS = {"compute_pool": POOL, "stage_name": STAGE}


def variables(*names):
    """Return variables of the job."""
    import os

    return [os.environ.get(name) for name in names]


def lab(**fields):
    """Declare a DAG."""
    return DAG("lab", schedule=None, start_date=datetime(2026, 1, 1), **fields)


def test_nested_templates(airflow):
    """Every text in every templated argument, however deep, also params."""
    airflow.query("CREATE OR REPLACE SECRET TOKEN TYPE = GENERIC_STRING SECRET_STRING = 't0ken'")
    with lab(params={"secret": "token", "team": "red", "pool": POOL}) as dag:
        MLJobOperator(
            task_id="job",
            source=variables,
            args=["TEAM", "{{ params.team | upper }}"],
            env_vars={"TEAM": "{{ params.team }}", "RED": "{{ task.task_id }}"},
            secrets={"TOKEN": {"snowflakeSecret": "{{ params.secret }}", "secretKeyRef": "secret_string"}},
            volumes={"/data": {"source": "stage", "stageConfig": {"name": "@ML_PAYLOADS/{{ params.team }}"}}},
            spec_overrides={"spec": {"containers": [{"name": "main", "env": {"EXTRA": "{{ dag.dag_id }}"}}]}},
            endpoints=[{"name": "{{ params.team }}", "port": 8080}],
            compute_pool="{{ params.pool }}",
            stage_name="@{{ 'ML_PAYLOADS' }}",
            on_finish="keep",
        )
    run = airflow.run(dag)
    (row,) = airflow.query(f"DESCRIBE SERVICE {run.xcom('job', 'job_id')}")
    spec = yaml.safe_load(row["spec"])["spec"]

    assert ["red", "job"] == run.xcom("job")
    assert "lab" == spec["containers"][0]["env"]["EXTRA"]
    assert "MLJOBS_DB.PUBLIC.TOKEN" in str(spec["containers"][0]["secrets"])
    assert "@MLJOBS_DB.PUBLIC.ML_PAYLOADS/red" in str(spec["volumes"])
    assert "red" == spec["endpoints"][0]["name"]


def test_task_group_with_default_args(airflow):
    """A group, mapped, whose tasks take their pool and stage from the DAG."""
    with lab(default_args=SETTINGS) as dag:

        @task_group
        def fold(number):
            @task.mljob
            def train(number):
                return number + 1

            @task.mljob
            def evaluate(model):
                return model * 10

            evaluate(train(number))

        fold.expand(number=[1, 2])
    run = airflow.run(dag)

    assert [20, 30] == [run.xcom("fold.evaluate", map_index=index) for index in range(2)]


def test_mapping_over_other_arguments(airflow):
    """Environment and arguments together; the index has a name that people read."""
    with lab() as dag:
        MLJobOperator.partial(
            task_id="job",
            source=variables,
            args=["TEAM"],
            map_index_template="team {{ task.env_vars['TEAM'] }}",
            **SETTINGS,
        ).expand(env_vars=[{"TEAM": "red"}, {"TEAM": "blue"}])
    run = airflow.run(dag)

    assert [["red"], ["blue"]] == [run.xcom("job", map_index=index) for index in range(2)]
    assert {"team red", "team blue"} == {ti.rendered_map_index for ti in run.instances}


@pytest.mark.parametrize("fails", [False, True], ids=["success", "failure"])
def test_setup_and_teardown(airflow, fails):
    """The teardown runs however the job ends."""
    with lab() as dag:

        @setup
        def prepare():
            return "ready"

        @task.mljob(**SETTINGS)
        def work(state, fails):
            if fails:
                raise RuntimeError
            return state

        @teardown
        def clean():
            return "clean"

        ready = prepare()
        work(ready, fails) >> clean().as_teardown(setups=ready)
    run = airflow.run(dag)

    assert ("failed" if fails else "success") == run.tasks["work"]
    assert "clean" == run.xcom("clean")


def test_multiple_outputs_of_a_script(airflow, tmp_path):
    """Also an operator's dict becomes one XCom a key."""
    (tmp_path / "main.py").write_text("__return__ = {'auc': 0.9, 'rows': 10}\n")
    run = airflow.run_task(
        lambda: MLJobOperator(task_id="job", source="main.py", multiple_outputs=True, **SETTINGS), folder=tmp_path
    )

    assert [0.9, 10] == [run.xcom("job", "auc"), run.xcom("job", "rows")]


def test_xcom_of_another_task_as_a_source(airflow, tmp_path):
    """Any templated argument accepts the value of an upstream task."""
    (tmp_path / "main.py").write_text("import sys\n__return__ = sys.argv[1:]\n")
    with lab() as dag:

        @task
        def where():
            return str(tmp_path)

        @task
        def arguments():
            return ["a", "b"]

        MLJobOperator(task_id="job", source=where(), entrypoint="main.py", args=arguments(), **SETTINGS)

    assert ["a", "b"] == airflow.run(dag).xcom("job")
