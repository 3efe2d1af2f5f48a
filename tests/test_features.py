"""The parameters of a job and its outputs, from the DAG to the job and back."""

from datetime import datetime

import pytest
import yaml
from airflow.sdk import DAG, task

from airflow_provider_mljobs import exceptions
from airflow_provider_mljobs.hooks import MLJobHook
from airflow_provider_mljobs.operators import MLJobOperator
from tests.lab import POOL, STAGE

SETTINGS = {"task_id": "job", "compute_pool": POOL, "stage_name": STAGE, "poll_interval": 0.05}


def environment(names):
    """Return variables of the job."""
    import os

    return {name: os.environ.get(name) for name in names}


def one():
    """Return one."""
    return 1


def specification(airflow, run):
    """Return Snowflake's specification of a job that was kept."""
    (row,) = airflow.query(f"DESCRIBE SERVICE {run.xcom('job', 'job_id')}")
    return yaml.safe_load(row["spec"])["spec"]


def test_secrets(airflow):
    """As a variable and as files; their values are neither in the specification nor in Airflow."""
    airflow.query("CREATE OR REPLACE SECRET API_KEY TYPE = GENERIC_STRING SECRET_STRING = 'k3y'")
    airflow.query("CREATE OR REPLACE SECRET LOGIN TYPE = PASSWORD USERNAME = 'me' PASSWORD = 'pa55'")

    def read():
        import os
        import pathlib

        files = {path.name: path.read_text() for path in pathlib.Path("/secrets/login").iterdir() if path.is_file()}
        return [os.environ["API_KEY"][::-1], os.environ["USER_NAME"], len(files["password"])]

    secrets = {
        "API_KEY": "api_key",
        "USER_NAME": {"snowflakeSecret": "login", "secretKeyRef": "username"},
        "/secrets/login": "login",
    }
    run = airflow.run_task(lambda: MLJobOperator(source=read, secrets=secrets, on_finish="keep", **SETTINGS))

    assert ["y3k", "me", 4] == run.xcom("job")
    assert "k3y" not in str(specification(airflow, run))


def test_volumes(airflow, tmp_path):
    """A stage's files, and memory, at their mount paths."""
    (tmp_path / "numbers.txt").write_text("1 2 3")
    airflow.query(f"PUT 'file://{tmp_path}/numbers.txt' @ML_PAYLOADS/data/in AUTO_COMPRESS = FALSE")

    def use():
        import pathlib

        pathlib.Path("/cache/x").write_text("cached")
        return pathlib.Path("/data/numbers.txt").read_text()

    volumes = {"/data": "@ML_PAYLOADS/data/in", "/cache": {"source": "memory", "size": "1Gi"}}
    run = airflow.run_task(lambda: MLJobOperator(source=use, volumes=volumes, **SETTINGS))

    assert "1 2 3" == run.xcom("job")


def test_the_rest_of_a_specification(airflow, capsys):
    """Endpoints, log level, metrics, image and overrides stand in it as they were given."""
    run = airflow.run_task(
        lambda: MLJobOperator(
            source=one,
            endpoints=[{"name": "board", "port": 6006}],
            log_level="ERROR",
            enable_metrics=False,
            runtime_environment="2.8.0-py311",
            spec_overrides={"spec": {"containers": [{"name": "main", "resources": {"requests": {"memory": "2Gi"}}}]}},
            on_finish="keep",
            **SETTINGS,
        )
    )
    log = capsys.readouterr().out
    spec = specification(airflow, run)
    (container,) = spec["containers"]

    assert "board" == spec["endpoints"][0]["name"]
    assert {"eventTableConfig": {"logLevel": "ERROR"}} == spec["logExporters"]
    assert "platformMonitor" not in spec
    image = "/snowflake/images/snowflake_images/container_runtime/cpu_x86_64:2.8.0-py311"
    assert container["image"].endswith(image)
    assert "2Gi" == container["resources"]["requests"]["memory"]
    assert 1 == run.xcom("job")
    assert f"Image of job {run.xcom('job', 'job_id')}: {image}, with Python 3.11" in log


def test_a_custom_runtime_environment(airflow):
    """A job with a custom runtime environment is a managed one, as only there Snowflake resolves the reference."""
    run = airflow.run_task(
        lambda: MLJobOperator(source=one, runtime_environment="cre@mine", on_finish="keep", **SETTINGS)
    )

    assert 1 == run.xcom("job")
    assert "cre@mine" == specification(airflow, run)["containers"][0]["image"]


def test_comment_and_query_tag(airflow):
    """People find the job by its task, and the task by the job's queries."""

    def tag(session):
        import json

        return json.loads(session.sql("SHOW PARAMETERS LIKE 'QUERY_TAG' IN SESSION").collect()[0]["value"])

    run = airflow.run_task(
        lambda: MLJobOperator(source=tag, comment="for the {{ task.task_id }}", on_finish="keep", **SETTINGS)
    )
    (row,) = airflow.query(f"DESCRIBE SERVICE {run.xcom('job', 'job_id')}")

    assert '"comment": "for the job"' in row["comment"]
    assert '"task_id": "job"' in row["comment"]
    assert ("lab", "job", 1) == tuple(run.xcom("job")[key] for key in ("dag_id", "task_id", "try_number"))


def test_query_tag_of_your_own(airflow):
    """A query tag of your own arrives with every character."""

    def tag():
        from snowflake import connector

        with connector.connect() as connection, connection.cursor() as cursor:
            return cursor.execute("SHOW PARAMETERS LIKE 'QUERY_TAG' IN SESSION").fetchone()[1]

    run = airflow.run_task(lambda: MLJobOperator(source=tag, query_tag='it\'s "$HOME" \\ ünï', **SETTINGS))

    assert 'it\'s "$HOME" \\ ünï' == run.xcom("job")


@pytest.mark.parametrize("pool", [POOL, "SYSTEM_COMPUTE_POOL_CPU"])
def test_managed(airflow, pool):
    """Submitted by SYSTEM$EXECUTE_ML_JOB a job behaves the same."""
    airflow.query("CREATE OR REPLACE SECRET API_KEY TYPE = GENERIC_STRING SECRET_STRING = 'k3y'")

    def work(numbers, session):
        import os
        import pathlib

        pathlib.Path(os.environ["MLRS_STAGE_RESULT_PATH"], "model.txt").write_text("m")
        return [sum(numbers), len(os.environ["API_KEY"]), os.environ["NASTY"], session.sql("SELECT 1").collect()[0][0]]

    run = airflow.run_task(
        lambda: MLJobOperator(
            source=work,
            args=[[1, 2, 3]],
            managed=None if pool.startswith("SYSTEM") else True,
            secrets={"API_KEY": "api_key"},
            env_vars={"NASTY": "$$ 'a' \"b\" \\ \n $HOME ü"},
            **SETTINGS | {"compute_pool": pool},
        )
    )

    assert [6, 3, "$$ 'a' \"b\" \\ \n $HOME ü", 1] == run.xcom("job")
    assert ["model.txt"] == [artifact["path"] for artifact in run.xcom("job", "artifacts")]
    assert ["model.txt"] == airflow.files
    assert [] == airflow.jobs
    assert 1 == len(airflow.snowflake.statements.matching(f"EXECUTE_ML_JOB.*{run.xcom('job', 'job_id')}"))


def test_overrides_of_a_managed_job(airflow, caplog):
    """Overrides that Snowflake doesn't promise to take are sent, and named in a warning."""
    overrides = {"spec": {"containers": [{"name": "main", "env": {"EXTRA": "more"}}]}}

    def extra():
        import os

        return os.environ.get("EXTRA")

    run = airflow.run_task(lambda: MLJobOperator(source=extra, managed=True, spec_overrides=overrides, **SETTINGS))

    assert "more" == run.xcom("job")
    assert "these may have no effect on job" in caplog.text
    assert "spec.containers[].env" in caplog.text


def test_artifact_repositories_are_for_managed_jobs(airflow):
    """A job with artifact repositories is managed."""
    repositories = ["snowflake.snowpark.pypi_shared_repository"]
    run = airflow.run_task(lambda: MLJobOperator(source=one, artifact_repositories=repositories, **SETTINGS))

    assert 1 == run.xcom("job")
    assert 1 == len(airflow.snowflake.statements.matching(f"EXECUTE_ML_JOB.*{run.xcom('job', 'job_id')}"))


def test_artifacts(airflow, tmp_path):
    """Saved files are listed with size and MD5; arguments may name their directory."""
    (tmp_path / "save.py").write_text(
        "import pathlib, sys\n"
        "place = pathlib.Path(sys.argv[1]) / 'models'\n"
        "place.mkdir()\n"
        "(place / 'model.bin').write_bytes(b'12345')\n"
        "__return__ = sys.argv[2]\n"
    )
    run = airflow.run_task(
        lambda: MLJobOperator(source="save.py", args=["$MLRS_STAGE_RESULT_PATH", "$HOME"], **SETTINGS), folder=tmp_path
    )

    assert [{"path": "models/model.bin", "bytes": 5, "md5": "827ccb0eea8a706c4c34a16891f84e7b"}] == run.xcom(
        "job", "artifacts"
    )
    assert "$HOME" == run.xcom("job")
    assert ["models/model.bin"] == airflow.files


def test_references(airflow):
    """A DataFrame goes from job to job on the stage; a plain task opens it through the hook."""
    settings = {"compute_pool": POOL, "stage_name": STAGE}
    with DAG("references", schedule=None, start_date=datetime(2026, 1, 1)) as dag:

        @task.mljob(**settings)
        def make(rows):
            import pandas as pd

            return pd.DataFrame({"a": range(rows)})

        @task.mljob(**settings)
        def total(frame, frames):
            return [type(frame).__name__, int(frame["a"].sum()), len(frames["again"][0])]

        @task
        def first(reference):
            with MLJobHook() as hook:
                return int(hook.open(reference)["a"].max())

        frame = make(4)
        total(frame, {"again": [frame]})
        first(frame)
    run = airflow.run(dag)

    assert ["DataFrame", 6, 4] == run.xcom("total")
    assert 3 == run.xcom("first")
    assert "pandas" == run.xcom("make")["protocol"]


def test_pickles_are_for_jobs(airflow):
    """A later job gets the object; Airflow opens it only where the deployment allows it."""
    settings = {"compute_pool": POOL, "stage_name": STAGE}
    with DAG("pickles", schedule=None, start_date=datetime(2026, 1, 1)) as dag:

        @task.mljob(**settings)
        def make():
            return 1 + 2j

        @task.mljob(**settings)
        def conjugate(number):
            return number.conjugate().imag

        conjugate(make())
    run = airflow.run(dag)
    with MLJobHook() as hook, pytest.raises(exceptions.ResultError, match="allow_pickle"):
        hook.open(run.xcom("make"))

    assert -2.0 == run.xcom("conjugate")


@pytest.mark.parametrize("entry", [("code/", "helpers"), ("{{ 'co' }}de/", "helpers"), "{{ 'helpers' }}/"], ids=str)
def test_imports(airflow, tmp_path, entry):
    """Code beside the source, under the name that the task gives it."""
    (tmp_path / "helpers").symlink_to("code")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "tools.py").write_text("def twice(x):\n    return 2 * x\n")

    def use():
        from helpers.tools import twice

        return twice(21)

    run = airflow.run_task(lambda: MLJobOperator(source=use, imports=[entry], **SETTINGS), folder=tmp_path)

    assert 42 == run.xcom("job")


def test_source_on_a_stage(airflow, tmp_path):
    """Snowflake copies it to the job; the copy goes with the job."""
    (tmp_path / "main.py").write_text("import helper\n__return__ = helper.NUMBER\n")
    (tmp_path / "helper.py").write_text("NUMBER = 7\n")
    for name in ("main.py", "helper.py"):
        airflow.query(f"PUT 'file://{tmp_path / name}' @ML_PAYLOADS/code AUTO_COMPRESS = FALSE")
    run = airflow.run_task(lambda: MLJobOperator(source="@ML_PAYLOADS/code/", entrypoint="main.py", **SETTINGS))

    assert 7 == run.xcom("job")
    assert [] == [name for name in airflow.files if "input" in name]


def test_command(airflow, tmp_path):
    """An entrypoint may be a command; its exit code is the job's."""
    (tmp_path / "run.sh").write_text("echo running $1; exit $2\n")
    settings = {**SETTINGS, "source": str(tmp_path), "entrypoint": ["bash", "run.sh"]}
    good = airflow.run_task(lambda: MLJobOperator(args=["well", "0"], **settings))
    bad = airflow.run_task(lambda: MLJobOperator(args=["badly", "7"], **settings))

    assert "running well" == good.xcom("job", "logs")
    assert isinstance(bad.errors["job"], exceptions.MLJobFailedError)
    assert "7" in str(bad.errors["job"])


def test_large_results_stay_on_the_stage(airflow, monkeypatch):
    """``[mljobs] max_xcom_bytes`` is the limit of a value in XCom."""
    monkeypatch.setenv("AIRFLOW__MLJOBS__MAX_XCOM_BYTES", "1000")
    run = airflow.run_task(lambda: MLJobOperator(source="x".ljust, args=[2000], **SETTINGS))

    assert "json" == run.xcom("job")["protocol"]


def test_too_many_instances_for_the_pool(airflow):
    """More instances than the pool has nodes are refused: the job would never begin."""
    run = airflow.run_task(lambda: MLJobOperator(source=one, target_instances=5, **SETTINGS))

    assert "compute pool ML_POOL has at most 4 nodes" in str(run.errors["job"])
    assert ([], []) == (airflow.jobs, airflow.payloads)


@pytest.mark.parametrize("managed", [False, True], ids=["EXECUTE JOB SERVICE", "SYSTEM$EXECUTE_ML_JOB"])
def test_dry_run(capsys, managed, monkeypatch):
    """A dry run prints the statement and connects to nothing."""
    monkeypatch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", "snowflake://u:p@/S?account=nowhere&database=D")
    operator = MLJobOperator(source=one, managed=managed, secrets={"KEY": "k"}, **SETTINGS)
    operator.dry_run()
    printed = capsys.readouterr().out

    assert printed.startswith(("EXECUTE JOB SERVICE", "CALL SYSTEM$EXECUTE_ML_JOB")[managed])
    assert "D.S.MLJOB_JOB_" in printed
    assert "D.S.K" in printed
