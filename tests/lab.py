"""A Snowflake and an Airflow for tests: runs a DAG to its end and returns its states, errors and XComs."""

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path

from tests.budget import budget

ARCHIVE = "payload.pyz"
POOL = "ML_POOL"
STAGE = "@ML_PAYLOADS"

SETUP = Path(__file__).parents[1] / "example_dags" / "setup.sql"


@contextmanager
def served(**settings):
    """Serve an embedded Snowflake with the pool, stage, database and schema of the example DAGs."""
    from snowflake import connector

    from airflow_provider_mljobs.emulator import serve

    with serve(**settings) as server:
        with connector.connect(**server.connection_kwargs) as connection:
            connection.execute_string(SETUP.read_text())
        yield server


@contextmanager
def failing(server, matching, **effect):
    """Make statements fail within a ``with`` block; ``effect`` are fields of :class:`Fault`."""
    from airflow_provider_mljobs.emulator.settings import Fault

    server.faults.add(Fault(matching=matching, **{"effect": "error", **effect}))
    try:
        yield
    finally:
        server.faults.clear()


@cache
def _database():
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.utils.db import initdb

    Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]).mkdir(exist_ok=True)
    initdb()
    DagBundlesManager().sync_bundles_to_db()


def submit(name, function, *, wait_for=None, **fields):
    """Submit a job without a task; ``wait_for`` is a status to wait for."""
    from airflow_provider_mljobs.hooks import MLJobHook
    from airflow_provider_mljobs.jobs.names import Identifier
    from airflow_provider_mljobs.jobs.payload.archive import Payload
    from airflow_provider_mljobs.jobs.spec.job import JobSpec

    with MLJobHook() as hook:
        spec = JobSpec(name=hook.job(name), compute_pool=Identifier(POOL), stage=hook.stage(STAGE), **fields)
        job_id = hook.submit(spec, Payload.of_function(function))
        if wait_for:
            hook.run(f"CALL {job_id}!SPCS_WAIT_FOR('{wait_for}', {budget():.0f})")
    return job_id


@dataclass
class Run:
    """A finished DAG run.

    :param state: the state of the run.
    :param tasks: the states of the tasks.
    :param errors: the exceptions of the failed tasks, by task.
    :param instances: the task instances.
    """

    state: str
    tasks: dict
    errors: dict
    instances: list = field(repr=False)

    def xcom(self, task_id, key="return_value", map_index=-1):
        """Return an XCom of a task."""
        for ti in self.instances:
            if (ti.task_id, ti.map_index) == (task_id, map_index):
                return ti.xcom_pull(task_ids=task_id, key=key, map_indexes=map_index if map_index >= 0 else None)
        raise KeyError(task_id)


def run_dag(dag, params=None):
    """Run a DAG in this process, as ``airflow dags test`` does, and return its result."""
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    _database()
    bag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    errors = {}

    def remember(context):
        errors[context["ti"].task_id] = context["exception"]

    for task in dag.tasks:
        task.on_failure_callback = [*task.on_failure_callback, remember]
    run = dag.test(run_conf=params)
    instances = run.get_task_instances()
    return Run(str(run.state), {ti.task_id: str(ti.state) for ti in instances}, errors, instances)


class Airflow:
    """Runs DAGs in this process, as ``airflow dags test`` does.

    :param snowflake: the embedded Snowflake that the connection ``snowflake_default`` points to.
    """

    def __init__(self, snowflake):
        self.snowflake = snowflake
        _database()
        # Earlier tests leave jobs and files on purpose.
        with self._session() as cursor:
            for job in [row["name"] for row in _rows(cursor.execute("SHOW JOB SERVICES IN ACCOUNT"))]:
                cursor.execute(f"DROP SERVICE {job}")
            cursor.execute(f"REMOVE {STAGE}")

    def run(self, dag, params=None):
        """Run a DAG, with other parameters than its defaults, and return its result."""
        return run_dag(dag, params)

    def run_task(self, make, dag_id="lab", folder=None):
        """Run one task: ``make`` builds it within a DAG."""
        from airflow.sdk import DAG

        with DAG(dag_id, schedule=None, start_date=datetime(2026, 1, 1)) as dag:
            if folder is not None:
                dag.fileloc = str(Path(folder) / "dag.py")
            make()
        return self.run(dag)

    def query(self, statement):
        """Run a statement on the embedded Snowflake, and return its rows."""
        with self._session() as cursor:
            return _rows(cursor.execute(statement))

    @contextmanager
    def _session(self):
        from snowflake import connector

        with connector.connect(**self.snowflake.connection_kwargs) as connection, connection.cursor() as cursor:
            yield cursor

    @property
    def jobs(self):
        """The names of the existing job services, without those that are being deleted."""
        return [row["name"] for row in self.query("SHOW JOB SERVICES IN ACCOUNT") if row["status"] != "DELETING"]

    @property
    def files(self):
        """The files of jobs on the stage, below the job's directory; payloads are left out."""
        names = [row["name"].split("/") for row in self.query(f"LIST {STAGE}")]
        return sorted("/".join(parts[3:]) for parts in names if parts[-1] != ARCHIVE)

    @property
    def payloads(self):
        """The directories of payloads on the stage."""
        names = [row["name"].split("/") for row in self.query(f"LIST {STAGE}")]
        return sorted(parts[-2] for parts in names if parts[-1] == ARCHIVE)


def _rows(cursor):
    names = [column.name.lower() for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
