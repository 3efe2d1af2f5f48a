"""Jobs of several instances, from the DAG to the instances and back."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_provider_mljobs import exceptions
from airflow_provider_mljobs.operators import MLJobOperator
from tests.budget import budget
from tests.lab import POOL, STAGE, Airflow, served
from tests.ml_client.client import ML_PYTHON

ROOT = Path(__file__).parents[1]
SETTINGS = {
    "task_id": "job",
    "compute_pool": POOL,
    "stage_name": STAGE,
    "poll_interval": 0.05,
    "on_finish": "keep",
    "target_instances": 3,
}


def has_ray(python):
    """Return whether an interpreter can run a Ray cluster whose instances find each other."""
    code = "import importlib.util as u, sys; sys.exit(not (u.find_spec('ray') and u.find_spec('snowflake.snowpark')))"
    return Path(python).exists() and 0 == subprocess.run([python, "-c", code], check=False).returncode


RAY_PYTHONS = [Path(python) for python in (sys.executable, ML_PYTHON) if has_ray(python)]
needs_ray = pytest.mark.skipif(not RAY_PYTHONS, reason="Ray is installed neither in .venv nor in .venv-ml")


@pytest.fixture(scope="module")
def ray_snowflake():
    """An embedded Snowflake whose jobs have Ray."""
    with served(python=RAY_PYTHONS[0]) as server:
        yield server


@pytest.fixture
def ray_airflow(ray_snowflake, monkeypatch):
    """An Airflow whose ``snowflake_default`` is that one."""
    for name, value in ray_snowflake.environment.items():
        monkeypatch.setenv(name, value)
    return Airflow(ray_snowflake)


def containers(airflow):
    """Wait until nothing of the job runs any more, and return the exit code of each instance."""
    (job,) = airflow.jobs
    deadline = time.monotonic() + budget()
    while time.monotonic() < deadline:
        rows = airflow.query(f"SHOW SERVICE CONTAINERS IN SERVICE {job}")
        if all(row["status"] in {"DONE", "FAILED"} for row in rows):
            return {int(row["instance_id"]): row["last_exit_code"] for row in rows if row["container_name"] == "main"}
    raise TimeoutError(rows)


def records(airflow, directory):
    """Return the files of the instances, by their numbers."""
    airflow.query(f"GET '{STAGE}' 'file://{directory}/' PATTERN = '.*/output/instances/[0-9]+[.]json'")
    return {int(file.stem): json.loads(file.read_text()) for file in directory.glob("*.json")}


@pytest.mark.parametrize("managed", [False, True], ids=["EXECUTE JOB SERVICE", "SYSTEM$EXECUTE_ML_JOB"])
def test_every_instance_runs_the_entrypoint(airflow, tmp_path, managed):
    """The task's value is the first one's; all are in the records."""

    def square():

        print("on", os.environ["SNOWFLAKE_JOB_INDEX"], "of", os.environ["SNOWFLAKE_JOBS_COUNT"])
        return int(os.environ["SNOWFLAKE_JOB_INDEX"]) ** 2

    run = airflow.run_task(lambda: MLJobOperator(source=square, parallel=True, managed=managed, **SETTINGS))

    assert 0 == run.xcom("job")
    assert {0: 0, 1: 1, 2: 4} == {index: record["value"] for index, record in records(airflow, tmp_path).items()}
    assert [
        {"instance": 0, "exit_code": 0, "value": 0},
        {"instance": 1, "exit_code": 0, "value": 1},
        {"instance": 2, "exit_code": 0, "value": 4},
    ] == run.xcom("job", "instances")
    assert {0: 0, 1: 0, 2: 0} == containers(airflow)
    assert all(f"[instance {index}] on {index} of 3" in run.xcom("job", "logs") for index in range(3))


# All are at work before one of them ends.
TOGETHER = """
import os, pathlib, signal, time

place, index = pathlib.Path(os.environ["MLRS_STAGE_RESULT_PATH"]), os.environ["SNOWFLAKE_JOB_INDEX"]
(place / f"ready-{index}").touch()
while len(list(place.glob("ready-*"))) < 3:
    time.sleep(0.05)
if index == "1":
    END
time.sleep(300)
"""


@pytest.fixture
def ended_by(airflow, tmp_path):
    """Run a job on three instances, of which the second ends as a test says."""

    def ended_by(statement):
        (tmp_path / "work.py").write_text(TOGETHER.replace("END", statement))
        return airflow.run_task(lambda: MLJobOperator(source="work.py", parallel=True, **SETTINGS), folder=tmp_path)

    return ended_by


def test_one_instance_fails(airflow, ended_by, tmp_path):
    """The others are stopped; the error is that of the one that failed, not of those that were stopped."""
    error = ended_by("raise ValueError('no such shard')").errors["job"]

    assert {0: 143, 1: 1, 2: 143} == containers(airflow)
    assert {0: 143, 1: 1, 2: 143} == {
        index: record["exit_code"] for index, record in records(airflow, tmp_path).items()
    }
    assert isinstance(error, exceptions.RemoteError)
    assert "failed on instance 1 with ValueError: no such shard" in str(error)
    assert "FAILED" == error.status


def test_one_instance_is_killed(airflow, ended_by, tmp_path):
    """As by the kernel that runs out of memory: it leaves no record, and the platform says how it ended."""
    error = ended_by("os.kill(os.getpid(), signal.SIGKILL)").errors["job"]

    assert {0: 143, 1: 137, 2: 143} == containers(airflow)
    assert {0: 143, 2: 143} == {index: record["exit_code"] for index, record in records(airflow, tmp_path).items()}
    assert isinstance(error, exceptions.MLJobFailedError)
    assert "Instance 1, container main:" in str(error)
    assert "(exit code 137)" in str(error)


MAIN = """
import ray
from ray.util import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from airflow_provider_mljobs import report
from shards import total


@ray.remote(num_cpus=1)
def work(number):
    report.metrics(**{f"shard {number % 3}": number})
    return ray.get_runtime_context().get_node_id(), total(number)


group = placement_group([{"CPU": 1}] * 3, strategy="STRICT_SPREAD")
places = [PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index) for index in range(3)]
found = ray.get([work.options(scheduling_strategy=places[number % 3]).remote(number) for number in range(9)])
__return__ = {
    "nodes": len({node for node, _ in found}),
    "totals": [value for _, value in found],
    "workers": ray.cluster_resources()["node_tag:worker"],
}
"""


@needs_ray
def test_ray_spreads_over_the_instances(ray_airflow, tmp_path):
    """The entrypoint runs on the first one only; its tasks run on all, with the payload's modules, and may report."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source/main.py").write_text(MAIN)
    (tmp_path / "source/shards.py").write_text("def total(n):\n    return sum(range(n))\n")
    run = ray_airflow.run_task(
        lambda: MLJobOperator(source="source", entrypoint="main.py", **SETTINGS), folder=tmp_path
    )

    assert {"nodes": 3, "totals": [0, 0, 1, 3, 6, 10, 15, 21, 28], "workers": 2.0} == run.xcom("job")
    assert {"shard 0", "shard 1", "shard 2"} == run.xcom("job", "metrics").keys()
    assert {0: 0, 1: 0, 2: 0} == containers(ray_airflow)
    assert "Target instance requirement met: 3 instances available" in run.xcom("job", "logs")
    assert "[instance 2] The head has ended." in run.xcom("job", "logs")


@needs_ray
def test_a_worker_of_ray_is_killed(ray_airflow):
    """The job fails, and the head doesn't wait for an instance that is lost."""

    def wait_for_workers():
        import ray

        @ray.remote(num_cpus=1, resources={"node_tag:worker": 1}, max_retries=0)
        def kill_the_instance():
            import pathlib
            import signal

            process = pathlib.Path("/proc", str(os.getpid()))
            while b"payload.pyz" not in (process / "cmdline").read_bytes():
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                process = pathlib.Path("/proc", parent)
            os.kill(int(process.name), signal.SIGKILL)

        @ray.remote(resources={"node_tag:never": 1})
        def never():
            return None

        kill_the_instance.remote()
        return ray.get(never.remote())

    settings = SETTINGS | {"target_instances": 2}
    run = ray_airflow.run_task(lambda: MLJobOperator(source=wait_for_workers, **settings))

    codes = containers(ray_airflow)

    # A stopped head ends in one of several ways, which depend on Ray.
    assert (137, True) == (codes[1], codes[0] > 0)
    assert "Instance 1, container main:" in str(run.errors["job"])
    assert "(exit code 137)" in str(run.errors["job"])
