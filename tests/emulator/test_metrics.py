"""Metrics of containers, through the connector."""

import json
import os
import subprocess
import sys
import time
from collections import defaultdict

import pytest

from airflow_provider_mljobs.emulator.containers.usage import Meter, Process, Sample, UsageLog, processes, used
from airflow_provider_mljobs.emulator.settings import Settings, VirtualJob
from tests.budget import budget

IMAGE = "/snowflake/images/snowflake_images/exampleimage:latest"
INTERVAL = 0.05
ALL = ("system", "system_limits", "status", "network", "storage")
COUNTS = ["sh", "-c", "i=0; while [ $i -lt 9999 ]; do i=$((i+1)); done"]
# Burns CPU time in a child of a child, and holds memory, until it is cancelled.
BUSY = """
import subprocess, sys
held = b"x" * 64 * 2**20
subprocess.run(["sh", "-c", "sh -c 'while :; do :; done'; :"])
"""
IDLE = "import time; time.sleep(60)"


@pytest.fixture
def lab(start, connect):
    """Return a function that starts a server and returns a function that runs a statement."""
    from snowflake.connector import DictCursor

    def lab(**settings):
        connection = connect(start(**{"metric_interval": INTERVAL, **settings}))

        def run(text, *binds):
            return connection.cursor(DictCursor).execute(text, binds or None).fetchall()

        run("CREATE COMPUTE POOL CPUS MIN_NODES = 1 MAX_NODES = 2 INSTANCE_FAMILY = CPU_X64_S")
        run("CREATE COMPUTE POOL GPUS MIN_NODES = 1 MAX_NODES = 2 INSTANCE_FAMILY = GPU_NV_M")
        return run

    return lab


def submit(sql, name, code=IDLE, groups=ALL, *, gpus=0, **more):
    """Start a job that runs Python in a container, with several ``replicas`` and beside idle ``others``."""
    extra = {"nvidia.com/gpu": gpus} if gpus else {}
    resources = {"requests": {"cpu": 0.5, "memory": "1Gi", **extra}, "limits": {"cpu": 2, "memory": "2Gi", **extra}}
    containers = [
        {"name": container, "image": IMAGE, "command": ["python", "-c", text], "resources": resources}
        for container, text in [("main", code), *((other, IDLE) for other in more.get("others", ()))]
    ]
    spec = {"containers": containers, "platformMonitor": {"metricConfig": {"groups": list(groups)}}}
    place = f"COMPUTE POOL {'GPUS' if gpus else 'CPUS'} NAME = {name} REPLICAS = {more.get('replicas', 1)}"
    text = json.dumps({"spec": spec})
    sql(f"EXECUTE JOB SERVICE IN {place} ASYNC = TRUE FROM SPECIFICATION ?", text)


def metrics(sql, name, arguments=""):
    """Return the rows of the function."""
    return sql(f"SELECT * FROM TABLE({name}!SPCS_GET_METRICS({arguments}))")


def measured(sql, name, enough):
    """Wait for a measurement; return values by metric, in their order."""
    deadline = time.monotonic() + budget()
    while time.monotonic() < deadline:
        values = defaultdict(list)
        for row in metrics(sql, name):
            values[row["METRIC_NAME"]].append(float(row["VALUE"]))
        if enough(values):
            return values
        time.sleep(INTERVAL)
    raise TimeoutError(name)


def test_columns(lab):
    """The function has the documented columns; RESOURCE is empty."""
    sql = lab()
    submit(sql, "COLUMNED")
    measured(sql, "COLUMNED", len)
    row = next(row for row in metrics(sql, "COLUMNED") if row["METRIC_NAME"] == "container.memory.limit")

    assert isinstance(row.pop("TIMESTAMP").year, int)
    assert {
        "METRIC_NAME": "container.memory.limit",
        "VALUE": str(2 * 2**30),
        "UNIT": "bytes",
        "INSTANCE_ID": 0,
        "CONTAINER_NAME": "main",
        "RESOURCE": None,
        "RECORD": '{"metric": {"name": "container.memory.limit", "unit": "bytes"}, "metric_type": "gauge", '
        '"value_type": "INT"}',
        "RECORD_ATTRIBUTES": "{}",
    } == row


def test_usage_of_all_processes(lab):
    """CPU and memory of children's children count."""
    sql = lab()
    submit(sql, "BUSY", BUSY)

    def enough(values):
        cores, held = values["container.cpu.usage"], values["container.memory.usage"]
        return any(used > 0.3 for used in cores) and any(used > 64 * 2**20 for used in held)

    assert max(measured(sql, "BUSY", enough)["container.memory.usage"]) < 2**30


def test_processes_that_have_ended_count(lab):
    """The CPU time of short processes is not lost."""
    sql = lab(metric_interval=0.5)
    submit(sql, "SHORT", f"import subprocess\nwhile True: subprocess.run({COUNTS})")
    values = measured(sql, "SHORT", lambda values: max(values["container.cpu.usage"], default=0) > 0.2)

    assert max(values["container.cpu.usage"]) > 0.2


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("system", {"container.cpu.usage", "container.memory.usage"}),
        (
            "system_limits",
            {f"container.{what}.{which}" for what in ("cpu", "memory") for which in ("limit", "requested")},
        ),
        ("status", {"container.restarts", "container.state.started", "container.state.running"}),
    ],
)
def test_groups(lab, group, expected):
    """Only the groups in the specification are measured."""
    sql = lab()
    submit(sql, "GROUPED", groups=[group])

    assert expected == set(measured(sql, "GROUPED", len))


def test_limits(lab):
    """Limits and requests are those of the specification."""
    sql = lab()
    submit(sql, "LIMITED", groups=["system_limits"])
    values = measured(sql, "LIMITED", len)

    assert {
        "container.cpu.limit": 2.0,
        "container.cpu.requested": 0.5,
        "container.memory.limit": 2.0 * 2**30,
        "container.memory.requested": 1.0 * 2**30,
    } == {name: series[0] for name, series in values.items()}


@pytest.mark.parametrize("groups", [[], ["network"]])
def test_nothing_is_asked_for(lab, groups):
    """Without groups there are no metrics; network and storage aren't measured."""
    sql = lab()
    submit(sql, "UNMEASURED", "pass", groups)
    sql(f"CALL UNMEASURED!SPCS_WAIT_FOR('DONE', {budget():.0f})")

    assert [] == metrics(sql, "UNMEASURED")


def test_instances_and_containers(lab):
    """Each container of each instance has its own metrics."""
    sql = lab()
    submit(sql, "MANY", replicas=2, others=("second",))
    expected = {(instance, container) for instance in (0, 1) for container in ("main", "second")}
    deadline = time.monotonic() + budget()
    containers = set()
    while containers != expected and time.monotonic() < deadline:
        containers = {(row["INSTANCE_ID"], row["CONTAINER_NAME"]) for row in metrics(sql, "MANY")}

    assert expected == containers


def test_gpus(lab):
    """Each GPU has its own metrics; their usage is 0, because the machine has none."""
    sql = lab()
    submit(sql, "GPU_USER", gpus=2)
    measured(sql, "GPU_USER", len)
    by_gpu = {
        (row["METRIC_NAME"], row["RECORD_ATTRIBUTES"], float(row["VALUE"]))
        for row in metrics(sql, "GPU_USER")
        if ".gpu." in row["METRIC_NAME"]
    }

    assert {
        (f"container.gpu.{name}", f'{{"gpu": "{gpu}"}}', value)
        for name, value in {
            "utilization": 0,
            "memory.usage": 0,
            "limit": 2,
            "requested": 2,
            "memory.capacity": 24 * 2**30,
        }.items()
        for gpu in (0, 1)
    } == by_gpu


def test_event_table(lab):
    """The event table has the same metrics, as rows of the type METRIC."""
    sql = lab()
    submit(sql, "EVENTFUL", groups=["system_limits"])
    measured(sql, "EVENTFUL", len)
    (row,) = sql(
        "SELECT * FROM SNOWFLAKE.TELEMETRY.EVENTS WHERE RECORD_TYPE = 'METRIC' "
        "AND RECORD['metric']['name']::STRING = 'container.cpu.limit' ORDER BY TIMESTAMP LIMIT 1"
    )
    attributes = json.loads(row["RESOURCE_ATTRIBUTES"])

    assert "2.0" == row["VALUE"]
    assert {
        "snow.service.name": "EVENTFUL",
        "snow.service.type": "Job",
        "snow.service.container.name": "main",
        "snow.service.container.instance": "0",
    }.items() <= attributes.items()
    assert [{"QUERY_ID": attributes["snow.query.id"]}] == sql(
        "SELECT QUERY_ID FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY()) WHERE NAME = 'EVENTFUL'"
    )


def test_window(lab):
    """A window limits the metrics; by default it is the last day."""
    sql = lab()
    submit(sql, "WINDOWED", groups=["status"])
    measured(sql, "WINDOWED", lambda values: len(values["container.restarts"]) > 2)
    times = sorted({row["TIMESTAMP"] for row in metrics(sql, "WINDOWED")})
    chosen = metrics(sql, "WINDOWED", f"START_TIME => '{times[1]}', END_TIME => '{times[1]}'")

    assert {times[1]} == {row["TIMESTAMP"] for row in chosen}


def test_lag(lab):
    """Metrics arrive after the lag."""
    sql = lab(event_table_lag=60)
    submit(sql, "LATE", "import time; time.sleep(0.5)")
    sql(f"CALL LATE!SPCS_WAIT_FOR('DONE', {budget():.0f})")

    assert [] == metrics(sql, "LATE")


def test_no_event_table(lab):
    """Without an event table SPCS_GET_METRICS is unknown."""
    from snowflake.connector.errors import ProgrammingError

    sql = lab(event_table=False)
    submit(sql, "TABLELESS")
    with pytest.raises(ProgrammingError) as caught:
        metrics(sql, "TABLELESS")

    assert 2143 == caught.value.errno


def test_restart(start, connect, tmp_path):
    """Metrics survive the server and the job."""
    results = []
    for _ in range(2):
        server = start(root=tmp_path, metric_interval=INTERVAL)
        with connect(server) as connection:

            def sql(text, *binds, connection=connection):
                from snowflake.connector import DictCursor

                return connection.cursor(DictCursor).execute(text, binds or None).fetchall()

            if not results:
                sql("CREATE COMPUTE POOL CPUS MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_S")
                submit(sql, "KEPT")
                measured(sql, "KEPT", len)
                sql("DROP SERVICE KEPT")
            results.append(metrics(sql, "KEPT"))
        server.stop()

    assert results[0]
    # The last samples may come after the DROP, which does not wait for the end of the processes.
    assert results[0] == results[1][: len(results[0])]


def test_virtual(lab):
    """A virtual job uses half of its limits, from its begin to its end."""
    sql = lab(virtual_jobs=(VirtualJob(name="V%", seconds=0.1),))
    submit(sql, "V1", gpus=1)
    sql(f"CALL V1!SPCS_WAIT_FOR('DONE', {budget():.0f})")
    values = defaultdict(set)
    for row in metrics(sql, "V1"):
        values[row["METRIC_NAME"]].add(float(row["VALUE"]))

    assert [{1.0}, {float(2**30)}, {0.5}] == [
        values[f"container.{name}"] for name in ("cpu.usage", "memory.usage", "gpu.utilization")
    ]
    assert 10 == len({row["TIMESTAMP"] for row in metrics(sql, "V1")})


class TestMeter:
    """The meter and its samples."""

    def test_supervisors_do_not_count(self):
        """The usage of supervisors doesn't count, except for the processes that they waited for."""
        server = os.getpid()
        children = {
            server: [Process(2, server, 100, 7, 1000), Process(9, server, 100, 100, 1000)],
            2: [Process(3, 2, 100, 20, 1000)],
            3: [Process(4, 3, 300, 1, 10), Process(5, 3, 4000, 2, 20)],
            5: [Process(6, 5, 50_000, 3, 40)],
        }

        assert (54_333, 70) == used(children, 2, 2)
        assert (0, 0) == used(children, 8, 2)

    def test_processes(self):
        """A child process is listed with its memory."""
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
            (listed,) = [process for process in processes()[os.getpid()] if process.pid == child.pid]

        assert 0 < listed.memory < 2**30

    def test_files(self, tmp_path):
        """Stored samples are read back; an incomplete one is ignored, and a missing file means no samples."""
        log = UsageLog(tmp_path / "main.usage")
        samples = [Sample(1, 0.5, 10), Sample(2, 0.25, 2**40)]
        before = log.read()
        for sample in samples:
            log.append(sample)
        with log.path.open("ab") as file:
            file.write(b"torn")

        assert [] == before
        assert samples == log.read()

    def test_full_disk(self, tmp_path, caplog):
        """A sample that can't be written is lost; later ones are stored."""

        class Container:
            pid, supervisors = os.getpid(), 1

            def poll(self):
                return None

        meter = Meter(0.01)
        lost, stored = UsageLog(tmp_path / "missing" / "main.usage"), UsageLog(tmp_path / "main.usage")
        meter.add(Container(), lost)
        meter.add(Container(), stored)
        while len(stored.read()) < 2:
            time.sleep(0.01)
        meter.close()

        assert "Could not store a usage sample" in caplog.text

    def test_settings(self, tmp_path):
        """The interval of measurements must be positive."""
        with pytest.raises(ValueError, match="metric_interval must be more than 0 seconds; got 0"):
            Settings(root=tmp_path, metric_interval=0)
