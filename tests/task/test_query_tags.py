"""Snowflake's query history names the task of each statement, and a job's environment names its task."""

import json

import pytest

from airflow_provider_mljobs.hooks import MLJobHook
from airflow_provider_mljobs.operators import MLJobOperator
from airflow_provider_mljobs.sensors import MLJobSensor
from airflow_provider_mljobs.task import query_tags
from tests.lab import POOL, STAGE, submit

SETTINGS = {"compute_pool": POOL, "stage_name": STAGE, "poll_interval": 0.05, "log_interval": 0.1}
WATCHER = json.dumps({"provider": "airflow-provider-mljobs", "role": "watcher"})


def ask(session):
    """Ask Snowflake something, from within the job."""
    return session.sql("SELECT 'asked in the job'").collect()[0][0]


@pytest.fixture
def history(airflow):
    """Return the statements of Snowflake's history since the test began, by their QUERY_TAG."""

    def statements():
        rows = airflow.query(
            "SELECT QUERY_ID, QUERY_TEXT, QUERY_TAG FROM TABLE(INFORMATION_SCHEMA.QUERY_HISTORY(RESULT_LIMIT => 10000))"
        )
        return {row["query_id"]: (row["query_tag"], row["query_text"]) for row in rows}

    before = statements().keys()

    def since():
        by_tag = {}
        for query_id, (tag, text) in statements().items():
            if query_id not in before and tag:
                by_tag.setdefault(tag, []).append(text)
        return by_tag

    return since


def tag_of(run, map_index=-1):
    """Return the QUERY_TAG of a task."""
    (ti,) = (ti for ti in run.instances if ti.map_index == map_index)
    names = {"dag_id": "lab", "run_id": ti.run_id, "task_id": ti.task_id, "map_index": map_index, "try_number": 1}
    return json.dumps(names)


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "blocking"])
def test_a_task(airflow, history, deferrable):
    """Upload, submit, clean-up and the job's own queries have the task's tag; the watcher of all tasks has its own."""
    run = airflow.run_task(lambda: MLJobOperator(task_id="job", source=ask, deferrable=deferrable, **SETTINGS))

    by_tag = history()
    assert {tag_of(run), WATCHER} == by_tag.keys()
    for words in ("PUT", "LIST", "EXECUTE JOB SERVICE", "SELECT 'asked in the job'", "GET", "DROP SERVICE"):
        assert any(text.lstrip().startswith(words) for text in by_tag[tag_of(run)]), words
    assert {"SHOW", "CALL", "SELECT", "DESCRIBE"} >= {text.split()[0] for text in by_tag[WATCHER]}


def test_mapped_tasks(airflow, history):
    """Each instance has a tag of its own."""
    run = airflow.run_task(
        lambda: MLJobOperator.partial(task_id="job", source=len, **SETTINGS).expand(args=[[[]], [[1]]])
    )

    assert {tag_of(run, 0), tag_of(run, 1), WATCHER} == history().keys()


def test_a_sensor(airflow, history):
    """The statements of a sensor have its own tag, not that of the task that submitted the job."""
    submit("NIGHTLY", lambda: None)
    run = airflow.run_task(lambda: MLJobSensor(task_id="wait", job_id="NIGHTLY", poll_interval=0.05))

    assert {query_tags.role_tag("hook"), tag_of(run), WATCHER} >= history().keys() >= {tag_of(run)}


@pytest.mark.parametrize("given", ["QUERY_TAG", "query_tag"])
def test_a_tag_of_ones_own(airflow, history, given):
    """One that the connection or the hook's caller sets counts more."""
    with MLJobHook(session_parameters={given: "finance"}, query_tag="ours") as hook:
        hook.list()

    assert ["finance"] == list(history())


def test_other_parameters_of_a_session(airflow, history):
    """Other session parameters stay beside the tag."""
    with MLJobHook(session_parameters={"TIMEZONE": "Asia/Tokyo"}, query_tag="ours") as hook:
        rows = hook.client.connection.rows("SHOW PARAMETERS LIKE 'TIMEZONE'")

    assert ["Asia/Tokyo"] == [row["value"] for row in rows]
    assert ["ours"] == list(history())


def test_one_watcher_for_all_tags(airflow):
    """Tasks with the same login share a watcher, although their tags differ."""
    hooks = [MLJobHook(query_tag=tag) for tag in ("one", "two")]

    assert hooks[0].watcher is hooks[1].watcher


def test_the_job_knows_its_task(airflow):
    """A job's environment names its task, with the variables of Airflow's own operators."""

    def environment():
        import os

        return {name: value for name, value in os.environ.items() if name.startswith("AIRFLOW_CTX_")}

    run = airflow.run_task(
        lambda: MLJobOperator(task_id="job", source=environment, env_vars={"AIRFLOW_CTX_TASK_ID": "mine"}, **SETTINGS)
    )

    assert {
        "AIRFLOW_CTX_DAG_ID": "lab",
        "AIRFLOW_CTX_DAG_RUN_ID": run.instances[0].run_id,
        "AIRFLOW_CTX_TASK_ID": "mine",
        "AIRFLOW_CTX_MAP_INDEX": "-1",
        "AIRFLOW_CTX_TRY_NUMBER": "1",
    } == run.xcom("job")


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("short", "short"),
        ("x" * 2000, "x" * 2000),
        ("x" * 2001, "x" * 1999 + "…"),
        (
            json.dumps({"dag_id": "d" * 3000, "n": 1}),
            json.dumps({"dag_id": "d" * 199 + "…", "n": 1}, ensure_ascii=False),
        ),
        (json.dumps(["x" * 2000]), json.dumps(["x" * 2000])[:1999] + "…"),
    ],
)
def test_long_tags(tag, expected):
    """A tag that is too long for Snowflake is cut; JSON stays JSON."""
    assert expected == query_tags.shortened(tag)


def test_a_long_tag_of_ones_own(airflow):
    """A job whose query_tag is too long runs all the same."""

    def tag(session):
        return len(session.sql("SHOW PARAMETERS LIKE 'QUERY_TAG'").collect()[0]["value"])

    run = airflow.run_task(lambda: MLJobOperator(task_id="job", source=tag, query_tag="x" * 3000, **SETTINGS))

    assert 2000 == run.xcom("job")
