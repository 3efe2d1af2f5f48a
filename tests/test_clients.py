"""Other people's clients on the embedded Snowflake, unmodified: Snowflake's ML client and Airflow's own operator."""

import json
import math
from datetime import datetime
from pathlib import Path

import pytest
from airflow.sdk import DAG

from airflow_provider_mljobs.gateway.client import MLJobClient
from airflow_provider_mljobs.gateway.downloads import open_reference, read_result
from airflow_provider_mljobs.jobs.names import QualifiedName
from airflow_provider_mljobs.operators import MLJobOperator
from tests.lab import POOL, STAGE, served
from tests.ml_client.client import ML_PYTHON, NO_ML_CLIENT, has_ml_client, run_ml_client

needs_ml_client = pytest.mark.skipif(not has_ml_client(), reason=NO_ML_CLIENT)


@pytest.fixture(scope="module")
def seen():
    """The observations of Snowflake's client; its jobs run in its environment."""
    from snowflake import connector

    with served(python=ML_PYTHON) as server:
        seen = run_ml_client(server.connection_kwargs)
        client = MLJobClient(lambda: connector.connect(**server.connection_kwargs))
        ids = {what: QualifiedName.parse(job_id, "job") for what, job_id in seen["ids"].items()}
        seen["read"] = {
            what: read_result(client.connection, client.directory(job), patience=10) for what, job in ids.items()
        }
        seen["opened"] = open_reference(client.connection, seen["read"]["frame"].reference)
        client.close()
        yield seen


@needs_ml_client
class TestMLClient:
    """snowflake.ml.jobs 2.6 from submit to delete."""

    def test_submit_file(self, seen):
        """A file runs with its arguments; wait, status, result and logs agree."""
        assert {
            "wait": "DONE",
            "result": {"args": ["--lr", "0.1"]},
            "logs": "training with ['--lr', '0.1']",
            "status": "DONE",
            "listed": True,
        } == seen["file"]

    def test_delete_job(self, seen):
        """A deleted job is in no list, and its files are gone."""
        assert {"listed": False, "files": []} == seen["deleted"]

    def test_submit_directory(self, seen):
        """A directory runs its entrypoint with its packages."""
        assert 42 == seen["directory"]

    def test_instances(self, seen):
        """A job of two instances is done when both are: with Ray together, without it the head alone."""
        instances = seen["instances"]

        assert ("DONE", 2) == (instances["wait"], instances["target"])
        assert (2 if instances["has_ray"] else 1) == instances["nodes"]
        assert ("Worker node started" if instances["has_ray"] else "Ray is not available here") in instances["worker"]

    def test_remote(self, seen):
        """A decorated function runs with defaults and with keyword arguments; the second call of it, too."""
        assert [2, 42] == seen["remote"]

    def test_remote_dataframe(self, seen):
        """A DataFrame comes back as a DataFrame."""
        assert [0, 1, 2] == seen["frame"]

    def test_remote_exception(self, seen):
        """An exception comes back as that exception."""
        message, status = seen["error"]

        assert "ValueError('on purpose')" in message
        assert "FAILED" == status

    def test_we_read_its_results(self, seen):
        """A value, a DataFrame as a reference, and an exception with its traceback."""
        value, frame, error = (seen["read"][what] for what in ("value", "frame", "error"))

        assert (True, 42) == (value.success, value.value)
        assert ("pandas", [0, 1, 2]) == (frame.reference.protocol, seen["opened"]["a"].tolist())
        assert (False, "builtins.ValueError", "on purpose") == (error.success, error.remote_type, error.message)
        assert "in fail" in error.traceback

    def test_cancel(self, seen):
        """A cancelled job ends CANCELLED."""
        assert "CANCELLED" == seen["cancelled"]


def frame():
    """Return a DataFrame."""
    import pandas as pd

    return pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})


def array():
    """Return an array."""
    import numpy as np

    return np.arange(4).reshape(2, 2)


def failing():
    """Raise an exception."""
    raise LookupError("nothing there")


@needs_ml_client
def test_ml_client_reads_our_frames_arrays_and_exceptions(airflow):
    """As if they were its own."""
    ids = []
    for function in (frame, array, failing):
        run = airflow.run_task(
            lambda function=function: MLJobOperator(
                task_id="job",
                source=function,
                compute_pool=POOL,
                stage_name=STAGE,
                poll_interval=0.05,
                on_finish="keep",
            ),
            dag_id=function.__name__,
        )
        ids.append(run.xcom("job", "job_id"))
    table, numbers, error = run_ml_client(airflow.snowflake.connection_kwargs, *ids)

    assert {"a": [1, 2], "b": ["x", "y"]} == table["result"]
    assert [[0, 1], [2, 3]] == numbers["result"]
    assert "nothing there" in error["result"][1]
    assert ["DONE", "DONE", "FAILED"] == [table["status"], numbers["status"], error["status"]]


@needs_ml_client
def test_ml_client_reads_our_jobs(airflow):
    """get_job(job_id).result() of Snowflake's client returns the value of our job, NaN included."""

    def value():
        import numpy as np

        print("ours")
        return {"auc": np.float64(0.5), "nan": float("nan"), "text": "é😀", "list": [1, None, True]}

    run = airflow.run_task(
        lambda: MLJobOperator(
            task_id="job", source=value, compute_pool=POOL, stage_name=STAGE, poll_interval=0.05, on_finish="keep"
        )
    )
    (theirs,) = run_ml_client(airflow.snowflake.connection_kwargs, run.xcom("job", "job_id"))

    assert math.isnan(theirs["result"].pop("nan"))
    assert {"auc": 0.5, "text": "é😀", "list": [1, None, True]} == theirs["result"]
    assert ("ours", "DONE") == (theirs["logs"], theirs["status"])


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "blocking"])
def test_official_operator(airflow, deferrable):
    """Airflow's own SnowparkContainerJobOperator runs a job."""
    from airflow.providers.snowflake.operators.snowpark_containers import SnowparkContainerJobOperator

    spec = {
        "spec": {"containers": [{"name": "main", "image": "/snowflake/images/x/y:1", "command": ["echo", "official"]}]}
    }
    with DAG("official", schedule=None, start_date=datetime(2026, 1, 1)) as dag:
        SnowparkContainerJobOperator(
            task_id="job",
            name="OFFICIAL",
            compute_pool=POOL,
            container_name="main",
            spec_text=json.dumps(spec),
            database="MLJOBS_DB",
            schema="PUBLIC",
            poll_interval=1,
            deferrable=deferrable,
        )

    run = airflow.run(dag)

    assert ("success", "OFFICIAL") == (run.state, run.xcom("job"))
    assert [] == airflow.jobs


class TestOfficialHook:
    """Airflow's own SnowflakeHook on the connection as the emulator exports it: it speaks HTTPS."""

    @pytest.fixture
    def hook(self, airflow):
        """The hook that Airflow's operators use."""
        from airflow.providers.snowflake.hooks.snowflake import SnowflakeHook

        return SnowflakeHook()

    def test_records(self, hook):
        """Rows come back, and binds go in."""
        hook.run(["CREATE OR REPLACE TABLE HOOKED (A INT, B VARCHAR)", "INSERT INTO HOOKED VALUES (1, 'é')"])
        hook.insert_rows("HOOKED", [(2, "it's"), (3, None)], commit_every=1)

        assert [(1, "é"), (2, "it's"), (3, None)] == hook.get_records("SELECT * FROM HOOKED ORDER BY A")
        assert (2,) == hook.get_first("SELECT A FROM HOOKED WHERE B = %s", parameters=("it's",))

    @pytest.mark.filterwarnings("ignore:pandas only supports SQLAlchemy")
    def test_data_frame(self, hook):
        """A query's answer as a DataFrame."""
        frame = hook.get_df("SELECT SEQ4() AS N FROM TABLE(GENERATOR(ROWCOUNT => 3))")

        assert [0, 1, 2] == frame.iloc[:, 0].tolist()

    def test_connection_can_be_tested(self, hook):
        """The button of the UI says that all is well."""
        assert (True, "Connection successfully tested") == hook.test_connection()

    def test_sqlalchemy(self, hook):
        """An engine of SQLAlchemy; its URL has no protocol either."""
        import sqlalchemy

        engine = hook.get_sqlalchemy_engine()
        with engine.connect() as connection:
            rows = connection.execute(sqlalchemy.text("SELECT 1 AS a")).fetchall()
        engine.dispose()

        assert [(1,)] == [tuple(row) for row in rows]

    def test_snowpark(self, hook):
        """A session of Snowpark, on the same connection."""
        with hook.get_snowpark_session() as session:
            rows = session.sql("SELECT 1 AS A").collect()

        assert [1] == [row["A"] for row in rows]

    def test_open_lineage(self, hook):
        """Airflow's lineage of a query names the tables of the account."""
        info = hook.get_openlineage_database_info(hook.get_connection("snowflake_default"))

        assert ("snowflake", "MLJOBS_DB") == (info.scheme, info.database)

    def test_public_hosts_are_checked(self, hook):
        """The other programs of the process keep their own authorities: the bundle has those, too."""
        import requests

        trusted = requests.Session().merge_environment_settings("https://example.com", {}, None, None, None)["verify"]

        assert Path(trusted).read_text().count("BEGIN CERTIFICATE") > 100
