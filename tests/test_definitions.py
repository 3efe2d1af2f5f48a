"""MLJobDefinition: declared once, run many times, from Airflow and from SQL."""

from datetime import datetime

import pytest
from airflow.sdk import DAG

from airflow_provider_mljobs.definitions import MLJobDefinition
from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.hooks import MLJobHook
from tests.budget import budget
from tests.lab import POOL, STAGE

SETTINGS = {"compute_pool": POOL, "stage_name": STAGE}


def double(number):
    """Double a number."""
    return 2 * number


@pytest.fixture
def script(tmp_path):
    """A directory with a script that returns its arguments."""
    (tmp_path / "main.py").write_text("import sys\n__return__ = sys.argv[1:]\n")
    return tmp_path


def test_tasks_share_one_upload(airflow, script):
    """Tasks of one definition differ in their arguments and overrides."""
    definition = MLJobDefinition("shared", source=script, entrypoint="main.py", **SETTINGS)
    airflow.snowflake.statements.clear()
    with DAG("definition", schedule=None, start_date=datetime(2026, 1, 1)) as dag:
        definition.task(task_id="one", args=["1"])
        definition.task(task_id="two", args=["2"], on_finish="keep")
        definition.partial(task_id="many").expand(args=[["3"], ["4"]])
    run = airflow.run(dag)

    assert [["1"], ["2"], ["3"], ["4"]] == [
        run.xcom("one"),
        run.xcom("two"),
        run.xcom("many", map_index=0),
        run.xcom("many", map_index=1),
    ]
    assert 1 == len(airflow.snowflake.statements.matching("^PUT"))
    assert [run.xcom("two", "job_id").rpartition(".")[2]] == airflow.jobs


def test_a_function(airflow):
    """The payload may be a function as well."""
    definition = MLJobDefinition("doubles", source=double, **SETTINGS)

    assert 14 == airflow.run_task(lambda: definition.task("job", args=[7])).xcom("job")


def test_to_sql_runs_as_printed(airflow):
    """In a worksheet or a TASK: each run is a job of its own, and its result can be read."""
    with MLJobHook() as hook:
        statement = MLJobDefinition("nightly", source=double, **SETTINGS).to_sql([21], hook=hook)
        first, second = (hook.get_first(statement)[0] for _ in range(2))
        for job_id in (first, second):
            hook.run(f"CALL {job_id}!SPCS_WAIT_FOR('DONE', {budget():.0f})")
        values = [hook.result(hook.job(job_id)).value for job_id in (first, second)]

    assert [42, 42] == values
    assert first != second
    assert first.startswith("MLJOBS_DB.PUBLIC.NIGHTLY_")
    assert statement.startswith("CALL SYSTEM$EXECUTE_ML_JOB('MLJOBS_DB.PUBLIC.NIGHTLY_', 'ML_POOL', ")


def test_to_sql_in_the_definitions_own_schema(airflow):
    """Job and unqualified stage are where the definition says, not where the connection is."""
    airflow.query("CREATE SCHEMA IF NOT EXISTS MLJOBS_DB.DEFINED")
    airflow.query("CREATE STAGE IF NOT EXISTS MLJOBS_DB.DEFINED.PAYLOADS ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')")
    settings = {"compute_pool": POOL, "stage_name": "@payloads", "database": "mljobs_db", "schema": "defined"}
    with MLJobHook() as hook:
        statement = MLJobDefinition("elsewhere", source=double, **settings).to_sql([21], hook=hook)

    assert statement.startswith("CALL SYSTEM$EXECUTE_ML_JOB('MLJOBS_DB.DEFINED.ELSEWHERE_', 'ML_POOL', ")
    assert '"STAGE_PATH":"@MLJOBS_DB.DEFINED.PAYLOADS/definition_' in statement
    assert 1 == len(airflow.query("LIST @MLJOBS_DB.DEFINED.PAYLOADS"))


def test_to_sql_within_a_dag(airflow, script):
    """The DAG that is being declared gets no task by it."""
    definition = MLJobDefinition("inside", source=script.name, entrypoint="main.py", **SETTINGS)
    with DAG("declared", schedule=None, start_date=datetime(2026, 1, 1)) as dag, MLJobHook() as hook:
        definition.to_sql(["x"], hook=hook, folder=script.parent, asynchronous=False)

    assert [] == dag.task_ids


def test_registered_definitions():
    """Another module finds a definition by its name; the same one may be registered again."""
    definition = MLJobDefinition.register("by_name", source=double, **SETTINGS)
    MLJobDefinition.register("by_name", source=double, **SETTINGS)

    assert definition is MLJobDefinition.get("by_name")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLJobDefinition('"quoted name"', source=double, **SETTINGS), "takes no quoted names for jobs"),
        (lambda: MLJobDefinition("x", source=double, args=[1], **SETTINGS), "args can't be given to a definition"),
        (lambda: MLJobDefinition.get("nobody"), "No definition is registered as 'nobody'. Registered: "),
        (
            lambda: [
                MLJobDefinition.register("twice", source=double, **SETTINGS),
                MLJobDefinition.register("twice", source=double, **SETTINGS, parallel=True),
            ],
            "A definition 'twice' with other arguments is registered",
        ),
    ],
    ids=["name", "args", "unknown", "other arguments"],
)
def test_refused(make, message):
    """A wrong definition is refused where it is declared."""
    with pytest.raises(InvalidJobSpecError) as raised:
        make()

    assert message in str(raised.value)


def test_to_sql_refuses_what_is_no_text(airflow):
    """A statement that stands by itself can hold only so much."""
    with MLJobHook() as hook, pytest.raises(InvalidJobSpecError, match="don't fit into a statement"):
        MLJobDefinition("large", source=double, **SETTINGS).to_sql(["x" * 200_000], hook=hook)
    with MLJobHook() as hook, pytest.raises(InvalidJobSpecError, match="args of definition 'dated' has templates"):
        MLJobDefinition("dated", source=double, **SETTINGS).to_sql(["{{ ds }}"], hook=hook)
    with MLJobHook() as hook, pytest.raises(InvalidJobSpecError, match="would have to be copied for each run"):
        MLJobDefinition("staged", source="@ML_PAYLOADS/code/main.py", **SETTINGS).to_sql([], hook=hook)
