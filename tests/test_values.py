"""Return values of jobs are data: the next task gets the same value, also if it looks like an object of Airflow's."""

import json
from datetime import datetime

import pytest
from airflow.sdk import dag, task

from airflow_provider_mljobs import exceptions
from airflow_provider_mljobs.gateway.outcome import Outcome
from airflow_provider_mljobs.hooks import MLJobHook
from airflow_provider_mljobs.jobs.names import QualifiedName
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.operators import MLJobOperator
from airflow_provider_mljobs.task.xcoms import refused
from tests.lab import POOL, STAGE
from tests.tries import Tries

JOB = {"compute_pool": POOL, "stage_name": STAGE, "poll_interval": 0.05, "deferrable": True}
SETTINGS = {"task_id": "job", **JOB}


def nested(levels, opening, closing):
    """Return JSON that is so many levels deep."""
    return opening * levels + "1" + closing * levels


VALUES = {
    "object": '{"__type": "airflow.sdk.io.path.ObjectStoragePath", "__var": {"path": "file:///etc/passwd"}}',
    "new_object": '[{"__classname__": "builtins.tuple", "__version__": 1, "__data__": [1, 2]}]',
    "dict": '{"a": {"__type": "dict", "__var": {"b": 1}}}',
    "reference": '{"__mljob_ref__": 1, "stage_paths": ["@MLJOBS_DB.PUBLIC.PRIVATE/key.pem"], "protocol": "file"}',
    "text": json.dumps('{"__type": "airflow.sdk.io.path.ObjectStoragePath", "__var": {"path": "/"}}'),
    "deep_list": nested(700, "[", "]"),
    "deep_dict": nested(470, '{"a": ', "}"),
    "number": f'{{"n": [{2**64}, 1e20]}}',
}


@task.mljob(**JOB)
def forge(text):
    """Return any JSON."""
    import json

    return json.loads(text)


def test_values_that_airflow_would_change(airflow):
    """A value that Airflow would take for an object, or can't pass on, reaches the next job unchanged, by reference."""

    def build():
        @task.mljob(**JOB)
        def is_same(value, text):
            import json

            return value == json.loads(text)

        for name, text in VALUES.items():
            is_same.override(task_id=f"{name}_is_same")(forge.override(task_id=name)(text), text)

    run = airflow.run(dag(dag_id="values", schedule=None, start_date=datetime(2026, 1, 1))(build)())

    references = {name: run.xcom(name) for name in VALUES}
    assert dict.fromkeys(VALUES, True) == {name: run.xcom(f"{name}_is_same") for name in VALUES}
    assert {"json"} == {reference["protocol"] for reference in references.values()}
    with MLJobHook() as hook:
        assert json.loads(VALUES["object"]) == hook.open(references["object"])


def test_a_retry_returns_the_deepest_value(airflow):
    """The largest value for XCom survives a crash in the task state store."""

    def deep():
        value = 1
        for _ in range(50):
            value = {"a": [value]}
        return value

    task = Tries(airflow, lambda: MLJobOperator(source=deep, **SETTINGS))
    task.die(deadly=("store", "succeeded"), after=True)

    assert deep() == task.run()
    assert ["DONE"] == [status for _, status in task.jobs]


def test_what_a_job_prints_is_text(airflow):
    """Output that is an object to Airflow's API stays readable, and is none."""

    def speak():
        print('{"__type": "airflow.sdk.io.path.ObjectStoragePath", "__var": {"path": "/"}}')

    run = airflow.run_task(lambda: MLJobOperator(source=speak, **SETTINGS))

    assert run.xcom("job", "logs").startswith('…\n{"__type": ')


@pytest.mark.parametrize("key", ["../other/return_value", "a?b", "mljob", "x" * 600], ids=range(4))
def test_outputs_that_no_xcom_can_have(airflow, key):
    """Outputs that Airflow would lose, or write elsewhere, fail the task with the reason, and the result stays."""
    run = airflow.run_task(
        lambda: MLJobOperator(source=forge.function, args=[json.dumps({key: 1})], multiple_outputs=True, **SETTINGS)
    )

    error = run.errors["job"]
    assert exceptions.ResultError is type(error)
    assert "with multiple_outputs=True" in str(error)
    assert run.xcom("job") is None
    assert run.xcom("job", "mljob")["job_id"] == run.xcom("job", "job_id")
    assert ["output/mljob_result"] == airflow.files
    assert [] == airflow.jobs


def test_a_record_of_an_instance_with_an_impossible_exit_code(airflow):
    """A number that no exit code can be is an error of the result, and nothing of that is removed."""

    def lie():
        import os
        import pathlib

        index = os.environ["SNOWFLAKE_JOB_INDEX"]
        if index == "1":
            place = pathlib.Path(os.environ["MLRS_STAGE_RESULT_PATH"], "output/instances")
            place.mkdir(parents=True, exist_ok=True)
            (place / "1.json").write_text('{"exit_code": 1e999, "exc": null}')
            os._exit(0)

    run = airflow.run_task(lambda: MLJobOperator(source=lie, target_instances=2, parallel=True, **SETTINGS))

    assert exceptions.ResultError is type(run.errors["job"])
    assert "The record of instance 1 is damaged" in str(run.errors["job"])
    assert {"output/mljob_result", "output/instances/1.json"} <= set(airflow.files)


@pytest.mark.parametrize(
    ("xcoms", "value", "key"),
    [
        ({"metrics": {"__classname__": 1}}, 1, "metrics"),
        ({"logs": "\ud800"}, 1, "logs"),
        ({"instances": [{"exit_code": 2**64}]}, 1, "instances"),
        ({}, {"__type": "dict", "__var": {"a": 1}}, "return_value"),
        ({}, float("inf"), "return_value"),
    ],
    ids=["reserved", "no text", "number", "changed", "infinite"],
)
def test_airflow_itself_is_asked(xcoms, value, key):
    """Before anything is pushed or removed, Airflow's own serialisers are tried on the XComs."""
    outcome = Outcome(job=QualifiedName.parse("A.B.C", "job"), status=JobStatus.DONE, xcoms=xcoms, return_value=value)

    refusal = refused(outcome, multiple_outputs=False)

    assert key == refusal[0]
    assert refusal[1]
