"""Jobs in Airflow's own metrics, as a statsd server gets them."""

import socket

import pytest
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils

from airflow_provider_mljobs.gateway.outcome import Outcome
from airflow_provider_mljobs.jobs.names import QualifiedName
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.operators import MLJobOperator
from airflow_provider_mljobs.task.notify import metrics as job_stats
from airflow_provider_mljobs.task.xcoms import PROGRESS_XCOM
from tests.budget import slowness
from tests.lab import POOL, STAGE

SETTINGS = {"task_id": "job", "compute_pool": POOL, "stage_name": STAGE, "poll_interval": 0.05}
TIMELINE = [
    {"phase": phase, "at": f"2026-01-01T00:00:{second:02}.000+00:00", "message": ""}
    for phase, second in [("queued", 10), ("pool starting", 12), ("running", 30), ("finishing", 42)]
]


@pytest.fixture
def metrics(monkeypatch):
    """Listen as a statsd server does; returns the lines about jobs that have come."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.2)
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_HOST", "127.0.0.1")
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_PORT", str(server.getsockname()[1]))
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED", "True")
        # As a process of Airflow's does when it starts.
        make, made = stats_utils.get_stats_factory(), []
        stats.initialize(factory=lambda: made.append(make()) or made[-1], export_legacy_names=True)

        def received():
            lines = []
            try:
                while True:
                    lines.append(server.recv(65_536).decode())
            except TimeoutError:
                return [line for line in lines if "mljobs." in line]

        yield received
    for backend in made:
        backend.statsd.close()
    monkeypatch.undo()
    stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "blocking"])
def test_job_that_succeeds(airflow, metrics, deferrable):
    """A successful job counts as DONE, with its queue and run time."""

    def work(seconds):
        # Until a look has shown the job as running.
        import time

        time.sleep(seconds)

    airflow.run_task(lambda: MLJobOperator(source=work, args=[2 * slowness()], deferrable=deferrable, **SETTINGS))

    counted, queued, ran = metrics()
    assert "airflow.mljobs.jobs,state=DONE,pool=ML_POOL,dag_id=lab,task_id=job:1|c" == counted
    assert queued.startswith("airflow.mljobs.queue_duration,state=DONE,pool=ML_POOL,")
    assert ran.startswith("airflow.mljobs.run_duration,state=DONE,pool=ML_POOL,")


def test_job_that_fails(airflow, metrics):
    """A failed job counts by its last status."""

    def fail():
        raise ValueError

    airflow.run_task(lambda: MLJobOperator(source=fail, **SETTINGS))

    assert "state=FAILED" in metrics()[0]


@pytest.mark.parametrize(
    ("timeline", "submitted_at", "expected"),
    [
        (TIMELINE, "2026-01-01T00:00:05.000+00:00", (25, 12)),
        (TIMELINE, None, (20, 12)),
        # The worker's clock is ahead of the triggerer's.
        (TIMELINE, "2026-01-01T00:01:00.000+00:00", (0, 12)),
        (TIMELINE[:3], None, (20, None)),
        (TIMELINE[:2], None, (None, None)),
        ([], None, (None, None)),
    ],
)
def test_durations(timeline, submitted_at, expected):
    """Queue time lasts from submit to start, run time from start to end; unseen parts are unknown."""
    outcome = outcome_of({"submitted_at": submitted_at}, timeline)

    assert expected == tuple(None if each is None else each.total_seconds() for each in job_stats.durations(outcome))


def test_what_cannot_be_counted(caplog):
    """An error in the metrics is logged, and fails no task."""
    job_stats.count(outcome_of({"job_id": "A.B.C"}, [{}]), None)

    assert "Could not send the metrics of job A.B.C." in caplog.text


def outcome_of(facts, timeline):
    """Return the outcome of a job with a timeline."""
    job = QualifiedName.parse("A.B.C", "job")
    return Outcome(job=job, status=JobStatus.DONE, facts=facts, xcoms={PROGRESS_XCOM: {"timeline": timeline}})
