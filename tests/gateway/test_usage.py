"""CPU, memory and GPU usage of a job's containers, through the connector."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_mljobs.emulator.containers.usage import Sample
from airflow_provider_mljobs.emulator.parsing import parse_name
from airflow_provider_mljobs.emulator.settings import VirtualJob
from airflow_provider_mljobs.exceptions import SnowflakeUnavailableError
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.gateway.client import MLJobClient
from airflow_provider_mljobs.gateway.usage import MAX_POINTS, UNITS, Series, Usage, read_usage
from airflow_provider_mljobs.jobs.names import Identifier, QualifiedName
from tests.budget import budget, slowness
from tests.lab import failing, served

IMAGE = "/snowflake/images/snowflake_images/exampleimage:latest"
GROUPS = ("system", "system_limits", "status")
FUNCTION = "SPCS_GET_METRICS"
GPU_POOL = "CREATE COMPUTE POOL IF NOT EXISTS GPUS MIN_NODES = 1 MAX_NODES = 4 INSTANCE_FAMILY = GPU_NV_M"


class Lab:
    """Jobs on an embedded Snowflake, and a client."""

    def __init__(self, server):
        from snowflake import connector

        self.server = server
        self.client = MLJobClient(
            lambda: connector.connect(**server.connection_kwargs, network_timeout=round(5 * slowness()))
        )
        self.client.connection.rows(GPU_POOL)

    def start(self, command="true", groups=GROUPS, replicas=1, prefix="V"):
        """Start a job, by default a virtual one."""
        job = QualifiedName(
            Identifier("MLJOBS_DB"), Identifier("PUBLIC"), Identifier(f"{prefix}_{time.monotonic_ns()}")
        )
        resources = {"cpu": 2, "memory": "1Gi", "nvidia.com/gpu": 2}
        container = {"name": "main", "image": IMAGE, "command": ["sh", "-c", command]}
        spec = {
            "containers": [{**container, "resources": {"requests": resources, "limits": resources}}],
            "platformMonitor": {"metricConfig": {"groups": list(groups)}},
        }
        self.client.connection.rows(
            f"EXECUTE JOB SERVICE IN COMPUTE POOL GPUS NAME = {job} ASYNC = TRUE REPLICAS = {replicas} "
            f"FROM SPECIFICATION $${json.dumps({'spec': spec})}$$"
        )
        return job

    def run(self, *args, **kwargs):
        """Run a job to its end."""
        job = self.start(*args, **kwargs)
        self.client.connection.rows(f"CALL {job}!SPCS_WAIT_FOR('DONE', {budget():.0f})")
        return job

    def failing(self, matching, **effect):
        """Make statements fail for a while."""
        return failing(self.server, matching, **effect)


@pytest.fixture(scope="module")
def server():
    """An embedded Snowflake whose jobs are virtual if their names begin with V."""
    with served(virtual_jobs=(VirtualJob(name="V%", seconds=0.1),), metric_interval=0.1) as server:
        yield server


@pytest.fixture
def lab(server):
    """Jobs and a client."""
    lab = Lab(server)
    yield lab
    lab.client.close()


def values_of(usage):
    """Return instance 0's metrics with units and values."""
    return {
        (series.metric, series.unit): {value for _, value in series.points}
        for series in usage.series
        if series.instance == 0
    }


def test_series(lab):
    """Each metric is one series in standard units, also with several GPUs."""
    usage = read_usage(lab.client, lab.run())

    assert {
        ("container.cpu.usage", "cores"): {1.0},
        ("container.cpu.limit", "cores"): {2.0},
        ("container.memory.usage", "bytes"): {2.0**29},
        ("container.memory.limit", "bytes"): {2.0**30},
        ("container.gpu.utilization", "ratio"): {0.5},
        ("container.gpu.memory.usage", "bytes"): {12.0 * 2**30},
        ("container.gpu.memory.capacity", "bytes"): {24.0 * 2**30},
    } == values_of(usage)
    assert "" == usage.reason
    assert all(abs(seconds - time.time()) < 60 for series in usage.series for seconds, _ in series.points)


def test_of_processes(lab):
    """A running process has a CPU and memory usage."""
    job = lab.start("sleep 3600", prefix="REAL")
    while not (usage := read_usage(lab.client, job)).series:
        time.sleep(0.05)
    lab.client.drop(job)

    (memory,) = values_of(usage)["container.memory.usage", "bytes"]
    assert 0 < memory < 2**30


def test_instances(lab):
    """Each instance has its own series, in the order of instances."""
    usage = read_usage(lab.client, lab.run(replicas=2))

    assert [0, 1] == list(dict.fromkeys(series.instance for series in usage.series))
    assert 14 == len(usage.series)


def test_json(lab):
    """The page gets series as JSON."""
    job = QualifiedName(Identifier("DB"), Identifier("S"), Identifier("J"))
    usage = Usage(job, (Series("container.cpu.usage", "cores", 1, "main", ((10.0, 0.5), (20.0, 0.75))),), "why")

    assert {
        "job_id": "DB.S.J",
        "usage": [
            {
                "metric": "container.cpu.usage",
                "unit": "cores",
                "instance": 1,
                "container": "main",
                "points": [[10.0, 0.5], [20.0, 0.75]],
            }
        ],
        "reason": "why",
    } == json.loads(json.dumps(usage.to_json()))


def test_since(lab):
    """Samples from long before the submit are left out, with a margin for different clocks."""
    job = lab.run()
    now = datetime.now(UTC)

    assert read_usage(lab.client, job, now + timedelta(minutes=1)).series
    assert () == read_usage(lab.client, job, now + timedelta(hours=1)).series


def test_points_are_thinned():
    """A long job has a bounded number of points, with each peak of its memory."""
    with served(metric_interval=3600) as server:
        lab = Lab(server)
        job = lab.run(groups=["system"])
        services = server.account.services
        log = services.files.usage(services.latest(parse_name(str(job))).request.id, 0, "main")
        begin = int(time.time()) - 36_000
        for second in range(0, 36_000, 30):
            peak = 7 if second == 18_000 else 1
            log.append(Sample((begin + second) * 10**9, float(second % 60 == 0), peak))
        series = {each.metric: each.points for each in read_usage(lab.client, job).series}
        lab.client.close()
    cpu, memory = series["container.cpu.usage"], series["container.memory.usage"]

    assert MAX_POINTS == len(cpu) == len(memory)
    assert sorted(cpu) == list(cpu)
    assert {0.5} == {value for _, value in cpu}
    assert [7.0] == [value for _, value in memory if value > 1]


def test_rows_are_bounded(lab):
    """A series that may be cut is left out, with a reason."""
    job = lab.run(replicas=2)
    whole = read_usage(lab.client, job).series
    most = sum(len(each.points) for each in whole)
    usage = read_usage(lab.client, job, max_rows=most)

    assert whole[:-1] == usage.series
    assert "There is too much to show; series are missing from instance 1 on." == usage.reason


class TestEventTable:
    """The event table, for jobs whose function doesn't answer."""

    def test_not_enabled(self, lab):
        """The event table has the same measurements."""
        job = lab.run(replicas=2)
        expected = read_usage(lab.client, job)
        with lab.failing(FUNCTION, errno=2143):
            usage = read_usage(lab.client, job)

        assert expected == usage

    def test_dropped(self, lab):
        """The event table still has the measurements of a dropped job."""
        job = lab.run()
        expected = read_usage(lab.client, job)
        lab.client.drop(job)
        with lab.failing(FUNCTION, errno=2003):
            usage = read_usage(lab.client, job)

        assert expected == usage

    @pytest.mark.parametrize(
        ("record", "value", "instance"),
        [
            ({"metric": {"name": "container.cpu.usage"}}, 1.5, "snow.service.instance"),
            ({"name": "container.cpu.usage", "unit": "core"}, {"double_value": 1.5}, "snow.container.instance"),
            ({"name": "container.memory.usage"}, {"int_value": 3}, "snow.service.container.instance"),
            ({"name": "of.the.payload"}, {"bucket_counts": [1, 2]}, "snow.service.instance"),
        ],
    )
    def test_shapes(self, lab, record, value, instance):
        """Accounts differ in the places of names, values and instances."""
        table = QualifiedName(Identifier("MLJOBS_DB"), Identifier("PUBLIC"), Identifier("OTHER_EVENTS"))
        job = QualifiedName(Identifier("DB"), Identifier("S"), Identifier("J"))
        attributes = {"database.name": "DB", "schema.name": "S", "service.name": "J", "service.container.name": "main"}
        attributes = {f"snow.{name}": text for name, text in attributes.items()} | {instance: "11"}
        variants = ", ".join(f"PARSE_JSON($${json.dumps(each)}$$)" for each in (record, attributes, value))
        rows = lab.client.connection.rows
        rows(
            f"CREATE OR REPLACE TABLE {table} AS SELECT TO_TIMESTAMP_NTZ('2026-01-02T00:00:00') AS TIMESTAMP, "
            f"'METRIC' AS RECORD_TYPE, A AS RECORD, B AS RESOURCE_ATTRIBUTES, C AS VALUE "
            f"FROM (SELECT {variants}) AS V(A, B, C)"
        )
        usage = rows(statements.event_table_metrics(table, job, UNITS, start="2026-01-01T00:00:00Z", points=9, most=9))

        name = record.get("name", "container.cpu.usage")
        assert [(name, 11, "main", float(3 if "memory" in name else 1.5))] * (name in UNITS) == [
            (row["metric"], row["instance"], row["container"], row["peak"]) for row in usage
        ]

    def test_no_table(self, lab):
        """An account without an event table has no metrics."""
        job = lab.run()
        with served(event_table=False) as server:
            other = Lab(server)
            usage = read_usage(other.client, job)
            other.client.close()

        assert "The account has no event table, so Snowflake keeps no metrics of jobs." == usage.reason
        assert () == usage.series

    def test_refused(self, lab):
        """The reason for missing metrics has Snowflake's refusal."""
        job = lab.run()
        with lab.failing(f"{FUNCTION}|TELEMETRY", errno=3001, message="Insufficient privileges"):
            usage = read_usage(lab.client, job)

        assert f"Snowflake refuses to show the usage of job {job}: Insufficient privileges" in usage.reason

    def test_unavailable(self, lab):
        """An outage is an error, because a repetition may help."""
        job = lab.run()
        with lab.failing(FUNCTION, errno=390114), pytest.raises(SnowflakeUnavailableError):
            read_usage(lab.client, job)


class TestReasons:
    """The reasons for missing metrics."""

    @pytest.mark.parametrize("groups", [[], ["network"]])
    def test_not_measured(self, lab, groups):
        """A specification without the metric group is the reason."""
        usage = read_usage(lab.client, lab.run(groups=groups))

        assert "enable_metrics = False" in usage.reason
        assert () == usage.series

    def test_not_yet(self, lab):
        """A short or young job has no metrics yet."""
        usage = read_usage(lab.client, lab.start("true", prefix="SHORT"))

        assert "some minutes later" in usage.reason

    def test_unknown_job(self, lab):
        """A job without a readable specification has the general reason."""
        usage = read_usage(
            lab.client, QualifiedName(Identifier("MLJOBS_DB"), Identifier("PUBLIC"), Identifier("NOBODY"))
        )

        assert "has no metrics of job MLJOBS_DB.PUBLIC.NOBODY" in usage.reason
