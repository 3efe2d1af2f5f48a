"""An Airflow database full of jobs, as if they had run for years: for tests and benchmarks of the page."""

import math
from datetime import UTC, datetime, timedelta
from itertools import islice
from random import Random

from airflow_provider_mljobs.jobs.comment import TaskKey
from airflow_provider_mljobs.jobs.outcome.status import JobStatus, Phase
from airflow_provider_mljobs.jobs.outcome.watch import TimelineEntry

DAGS = ("churn_weekly", "fraud_weekly", "loan_default", "recommender", "tide_forecast")
POOLS = ("ML_POOL", "ML_POOL_GPU", "ML_POOL_LARGE")
# The jobs that each task has in a run, by map index.
TASKS = {"train": (-1,), "tune": (0, 1, 2, 3)}
JOBS_OF_A_RUN = sum(map(len, TASKS.values()))
_BUNDLE = "seeds"
_WEEK = timedelta(days=7)
_ROWS = 2_000


def fill(session, jobs=100, *, points=40, now=None):
    """Fill an Airflow database with jobs of :data:`DAGS`, newest first: in each run one of `train`, four of `tune`.

    The newest run of each DAG is running; of those before, one job in ten has failed. The DAGs have no files.

    :param session: a session of SQLAlchemy, or a connection.
    :param jobs: how many jobs.
    :param points: how many points the curve of each metric has.
    :param now: when the newest jobs were submitted.
    """
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from sqlalchemy import insert, select

    seeds = list(islice(_seeds(now or datetime.now(UTC), points), jobs))
    session.execute(insert(DagBundleModel.__table__), [{"name": _BUNDLE, "active": True}])
    session.execute(insert(DagModel.__table__), [_dag(dag_id) for dag_id in DAGS])
    runs = {(seed.dag_id, seed.run_id): seed for seed in seeds}
    session.execute(insert(DagRun.__table__), [seed.dag_run() for seed in runs.values()])
    rows = session.execute(select(DagRun.dag_id, DagRun.run_id, DagRun.id).where(DagRun.dag_id.in_(DAGS)))
    numbers = {(dag_id, run_id): number for dag_id, run_id, number in rows}
    for first in range(0, jobs, _ROWS):
        some = seeds[first : first + _ROWS]
        session.execute(insert(TaskInstance.__table__), [seed.task_instance() for seed in some])
        session.execute(
            insert(XComModel.__table__), [row for seed in some for row in seed.xcoms(numbers[seed.dag_id, seed.run_id])]
        )
    session.commit()


def _seeds(now, points):
    week = 0
    while True:
        for number, dag_id in enumerate(DAGS):
            submitted = now - week * _WEEK - timedelta(hours=number)
            for task_id, indexes in TASKS.items():
                for map_index in indexes:
                    yield Seed(dag_id, task_id, map_index, week, submitted, points)
        week += 1


def _dag(dag_id):
    return {
        "dag_id": dag_id,
        "bundle_name": _BUNDLE,
        "fileloc": f"/dags/{dag_id}.py",
        "relative_fileloc": f"{dag_id}.py",
        "owners": "ml",
        "is_paused": False,
        "is_stale": False,
        "max_active_tasks": 16,
        "max_active_runs": 16,
        "max_consecutive_failed_dag_runs": 0,
        "has_task_concurrency_limits": False,
    }


class Seed:
    """A task instance and its job.

    :param week: how many weeks ago it ran.
    :param submitted: when its job was submitted.
    :param points: how many points the curve of each metric has.
    """

    def __init__(self, dag_id, task_id, map_index, week, submitted, points):
        self.dag_id = dag_id
        self.task_id = task_id
        self.map_index = map_index
        self.run_id = f"scheduled__{submitted:%Y-%m-%dT%H:%M:%S}+00:00"
        self._points = points
        self._submitted = submitted + timedelta(seconds=map_index)
        self._random = random = Random(f"{dag_id} {task_id} {map_index} {week}")  # noqa: S311 (the same in each run)
        self._queued = timedelta(seconds=random.uniform(5, 90))
        self._ran = timedelta(seconds=random.uniform(300, 3000))
        self._is_running = week == 0
        self._failed = not self._is_running and random.random() < 0.1
        self._auc = 0.95 - 0.002 * week + random.uniform(-0.01, 0.01)
        key = TaskKey(airflow="seeds", dag_id=dag_id, run_id=self.run_id, task_id=task_id, map_index=map_index)
        self.job_id = f"MLJOBS_DB.PUBLIC.{key.job_name(0, 1)}"

    @property
    def state(self):
        """Airflow's state of the task instance."""
        return "deferred" if self._is_running else "failed" if self._failed else "success"

    @property
    def _started(self):
        return self._submitted + self._queued

    @property
    def _ended(self):
        return None if self._is_running else self._started + self._ran

    def dag_run(self):
        """The row of its DAG run."""
        return {
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "run_type": "scheduled",
            "state": "running" if self._is_running else "success",
            "logical_date": self._submitted,
            "run_after": self._submitted,
            "start_date": self._submitted,
            "end_date": self._ended,
        }

    def task_instance(self):
        """The row of its task instance."""
        return {
            "dag_id": self.dag_id,
            "task_id": self.task_id,
            "run_id": self.run_id,
            "map_index": self.map_index,
            "state": self.state,
            "try_number": 1,
            "max_tries": 0,
            "start_date": self._submitted - timedelta(seconds=2),
            "end_date": self._ended,
            "pool": "default_pool",
            "operator": "_MLJobDecoratedOperator",
            "rendered_map_index": None if self.map_index < 0 else f"depth {2 + 2 * self.map_index}",
        }

    def xcoms(self, dag_run_id):
        """The rows of its XComs."""
        place = {
            "dag_run_id": dag_run_id,
            "dag_id": self.dag_id,
            "task_id": self.task_id,
            "run_id": self.run_id,
            "map_index": self.map_index,
            "timestamp": self._submitted,
            "dag_result": False,
        }
        return [{**place, "key": key, "value": value} for key, value in self._values().items()]

    def _values(self):
        watched = self._watched()
        values = {"job_id": self.job_id, "mljob": self._mljob(), "mljob_watched": watched}
        if not self._is_running:
            values |= {
                "status": watched["status"],
                "timeline": watched["timeline"],
                "metrics": watched["metrics"],
                "return_value": None if self._failed else {"auc": self._auc},
            }
        return values

    def _mljob(self):
        return {
            "job_id": self.job_id,
            "snowflake_conn_id": "snowflake_default",
            "compute_pool": POOLS[DAGS.index(self.dag_id) % len(POOLS)],
            "target_instances": 1 if self.map_index < 0 else 2,
            "submitted_at": self._submitted.isoformat(timespec="milliseconds"),
            "snowsight": f"https://app.snowflake.com/org/account/#/compute/services/{self.job_id}",
            "stage_path": f"@MLJOBS_DB.PUBLIC.ML_PAYLOADS/payload_0123456789ab_1/{self.job_id.rpartition('.')[2]}",
            "payload": "0123456789ab",
        }

    def _watched(self):
        status = JobStatus.RUNNING if self._is_running else JobStatus.FAILED if self._failed else JobStatus.DONE
        steps = [
            TimelineEntry(Phase.QUEUED, self._submitted.timestamp(), "Waiting to start"),
            TimelineEntry(Phase.RUNNING, self._started.timestamp()),
        ]
        if not self._is_running:
            steps.append(TimelineEntry(Phase.FINISHING, self._ended.timestamp(), status.value))
        done = 0.4 if self._is_running else 1.0
        series = self._series(done)
        return {
            "job_id": self.job_id,
            "at": (self._ended or self._started).isoformat(timespec="milliseconds"),
            "status": status.value,
            "timeline": [step.to_xcom() for step in steps],
            "progress": {
                "fraction": done,
                "message": f"epoch {round(10 * done)}/10",
                "at": (self._ended or self._started).isoformat(timespec="milliseconds"),
            },
            "metrics": {name: curve[-1][2] for name, curve in series.items()},
            "series": series,
            "artifacts": [] if self._is_running else ["model.json"],
            "assets": [],
            "endpoints": (
                {"ray-dashboard-endpoint": "https://abcdef-spcs.org-account.us-west-2.aws.snowflake.app"}
                if self._is_running and self.map_index >= 0
                else {}
            ),
        }

    def _series(self, done):
        begin, seconds = self._started.timestamp(), self._ran.total_seconds()
        curves = {"auc": [], "loss": []}
        for step in range(1, max(1, round(self._points * done)) + 1):
            share = step / self._points
            at = round(begin + share * seconds, 3)
            noise = self._random.uniform(-0.004, 0.004)
            curves["auc"].append([at, step, round(self._auc - 0.3 * math.exp(-5 * share) + noise, 5)])
            curves["loss"].append([at, step, round(0.1 + math.exp(-4 * share) + noise, 5)])
        return curves
