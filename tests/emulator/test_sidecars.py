"""The containers that Snowflake adds to a service for its stage volumes."""

import json
import uuid

import pytest

from airflow_provider_mljobs.emulator.settings import VirtualJob

IMAGE = "/snowflake/images/snowflake_images/exampleimage:latest"
SETUP = """
CREATE COMPUTE POOL CPUS MIN_NODES = 1 MAX_NODES = 2 INSTANCE_FAMILY = CPU_X64_S;
CREATE STAGE FILES
"""


@pytest.fixture(scope="module")
def sql():
    """Return a function that runs a statement on a server whose jobs are virtual."""
    from snowflake import connector

    from airflow_provider_mljobs.emulator import serve

    jobs = (VirtualJob(name="ENDLESS%", seconds=600), VirtualJob(name="%", seconds=0.05))
    with serve(virtual_jobs=jobs) as server, connector.connect(**server.connection_kwargs) as connection:
        connection.execute_string(SETUP)
        yield lambda text: connection.cursor(connector.DictCursor).execute(text).fetchall()


def submit(sql, name, **resources):
    """Start a job with a stage volume, and return its name."""
    name = f"{name}_{uuid.uuid4().hex[:8]}".upper()
    volume = {"name": "data", "source": "stage", "stageConfig": {"name": "@FILES"}}
    if resources:
        volume["stageConfig"]["resources"] = resources
    mounts = [{"name": "data", "mountPath": "/data"}]
    spec = {
        "containers": [{"name": "main", "image": IMAGE, "volumeMounts": mounts}],
        "volumes": [volume, {"name": "scratch", "source": "local"}],
        "platformMonitor": {"metricConfig": {"groups": ["system", "system_limits"]}},
    }
    text = json.dumps({"spec": spec})
    sql(f"EXECUTE JOB SERVICE IN COMPUTE POOL CPUS NAME = {name} ASYNC = TRUE FROM SPECIFICATION $${text}$$")
    return name


def containers(sql, name):
    """Return the instance, name, status and message of each container."""
    rows = sql(f"SHOW SERVICE CONTAINERS IN SERVICE {name}")
    return [(row["instance_id"], row["container_name"], row["status"], row["message"]) for row in rows]


@pytest.mark.parametrize(
    ("name", "status", "state"),
    [("ENDLESS", "RUNNING", ("READY", "Running")), ("QUICK", "DONE", ("DONE", "Completed successfully"))],
)
def test_stage_volumes_have_containers(sql, name, status, state):
    """The container of a stage volume starts and ends with the job's own; other volumes have none."""
    job = submit(sql, name)
    sql(f"CALL {job}!SPCS_WAIT_FOR('{status}', 60)")

    assert [("0", "main", *state), ("0", "stage-mount-v2-sidecar-data", *state)] == containers(sql, job)


def test_they_are_measured(sql):
    """Metrics have the container of a stage volume, with the resources of the volume or else the documented ones."""
    jobs = [submit(sql, "PLAIN"), submit(sql, "SIZED", limits={"memory": "2Gi"})]
    limits = []
    for job in jobs:
        sql(f"CALL {job}!SPCS_WAIT_FOR('DONE', 60)")
        limits.append(
            sql(
                f"SELECT DISTINCT METRIC_NAME, VALUE FROM TABLE({job}!SPCS_GET_METRICS()) WHERE "
                "CONTAINER_NAME = 'stage-mount-v2-sidecar-data' AND METRIC_NAME LIKE '%memory.limit'"
            )[0]["VALUE"]
        )

    assert [str(2**30), str(2 * 2**30)] == limits
