"""The times that an account takes, through the connector: on a server on which they never pass, and on a fast one."""

import json
from contextlib import contextmanager

import pytest

from airflow_provider_mljobs.emulator import serve
from airflow_provider_mljobs.emulator.results import Column
from airflow_provider_mljobs.emulator.settings import Ready
from airflow_provider_mljobs.emulator.spcs.pool import SHOW_COLUMNS, Pool, PoolOptions
from airflow_provider_mljobs.emulator.spcs.specification import Resources
from airflow_provider_mljobs.emulator.timing import REALISTIC, Timing
from tests.budget import budget, wait_until

LAGS = ("status_lag", "stage_lag", "drop_seconds")


@contextmanager
def served(**times):
    """Serve a Snowflake with a pool; the value runs a statement and returns its rows as dictionaries."""
    from snowflake.connector import DictCursor, connect

    with serve(**times) as server, connect(**server.connection_kwargs) as connection:

        def run(text):
            return connection.cursor(DictCursor).execute(text).fetchall()

        run("CREATE COMPUTE POOL P MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_S")
        run("CREATE STAGE S")
        yield run


@pytest.fixture(scope="module")
def slow():
    """Run statements on a server on which nothing arrives."""
    with served(**dict.fromkeys(LAGS, 10_000)) as sql:
        yield sql


@pytest.fixture(scope="module")
def fast():
    """Run statements on a server on which everything takes a moment."""
    with served(**dict.fromkeys(LAGS, 0.3)) as sql:
        yield sql


def job(name, script="true", cpu=0.5):
    """Write the statement that runs a shell script with a directory of the stage mounted at /mnt/s."""
    container = {
        "name": "main",
        "image": "/snowflake/images/snowflake_images/x:1",
        "command": ["sh", "-c", script],
        "volumeMounts": [{"name": "s", "mountPath": "/mnt/s"}],
        "resources": {"requests": {"cpu": cpu}},
    }
    volume = {"name": "s", "source": "stage", "stageConfig": {"name": f"@PUBLIC.S/{name}"}}
    text = json.dumps({"spec": {"containers": [container], "volumes": [volume]}})
    return f"EXECUTE JOB SERVICE IN COMPUTE POOL P NAME = {name} ASYNC = TRUE FROM SPECIFICATION $${text}$$"


def status(sql, name):
    """Return the status of a job."""
    return sql(f"DESCRIBE SERVICE {name}")[0]["status"]


def main_container(sql, name):
    """Return the row of a job's own container."""
    rows = {row["container_name"]: row for row in sql(f"SHOW SERVICE CONTAINERS IN SERVICE {name}")}
    return rows["main"]


def wait(sql, name, wanted="DONE"):
    """Wait for a status."""
    sql(f"CALL {name}!SPCS_WAIT_FOR('{wanted}', {budget():.0f})")


def names(sql, path):
    """Return the paths that LIST shows."""
    return [row["name"] for row in sql(f"LIST @S/{path}")]


def refusal(sql, text):
    """Run a statement that fails, and return the error's number."""
    from snowflake.connector.errors import Error

    with pytest.raises(Error) as caught:
        sql(text)
    return caught.value.errno


class TestStatus:
    """The status RUNNING comes after the start of the containers."""

    def test_early(self, slow):
        """A job whose container is READY is still PENDING, in every statement."""
        slow(job("EARLY", "sleep 600"))
        wait_until(lambda: main_container(slow, "EARLY")["status"] == "READY")
        container = main_container(slow, "EARLY")
        (listed,) = slow("SHOW JOB SERVICES LIKE 'EARLY'")
        (past,) = slow("SELECT STATUS, MESSAGE FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY()) WHERE NAME = 'EARLY'")

        assert ("PENDING", "PENDING", "PENDING") == (status(slow, "EARLY"), listed["status"], past["STATUS"])
        assert ("PENDING", "Job is pending.") == (container["service_status"], past["MESSAGE"])
        slow("DROP SERVICE EARLY")

    def test_end(self, slow):
        """The end of a job isn't late."""
        slow(job("SHORT"))
        wait(slow, "SHORT")

        assert "DONE" == status(slow, "SHORT")

    def test_after_the_lag(self, fast):
        """SPCS_WAIT_FOR returns when the status is shown."""
        fast(job("SHOWN", "sleep 600"))
        wait(fast, "SHOWN", "RUNNING")

        assert "RUNNING" == status(fast, "SHOWN")
        fast("DROP SERVICE SHOWN")


class TestDrop:
    """DROP SERVICE takes time."""

    def test_name_is_taken(self, slow):
        """A dropped service is DELETING, and its name is taken; another DROP changes nothing."""
        slow(job("DROPPED"))
        wait(slow, "DROPPED")
        slow("DROP SERVICE DROPPED")
        (again,) = slow("DROP SERVICE DROPPED")
        (past,) = slow("SELECT * FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY()) WHERE NAME = 'DROPPED'")

        assert "DELETING" == status(slow, "DROPPED")
        assert 2002 == refusal(slow, job("DROPPED"))
        assert "DROPPED successfully dropped." == again["status"]
        assert ("DONE", True) == (past["STATUS"], past["DELETED_TIME"] is not None)

    def test_after_the_drop(self, fast):
        """After a while the service is gone, and its name is free."""
        fast(job("FREED"))
        wait(fast, "FREED")
        fast("DROP SERVICE FREED")
        wait_until(lambda: not fast("SHOW JOB SERVICES LIKE 'FREED'"))
        fast(job("FREED"))
        wait(fast, "FREED")

        assert ["FREED"] == [row["name"] for row in fast("SHOW JOB SERVICES LIKE 'FREED'")]

    def test_schema(self, slow):
        """Services of a dropped schema are gone with it."""
        slow("CREATE SCHEMA BRIEF")
        slow(job("BRIEF.J"))
        slow("DROP SCHEMA BRIEF")
        slow("USE SCHEMA PUBLIC")

        assert [] == slow("SHOW JOB SERVICES LIKE 'J' IN ACCOUNT")


class TestStage:
    """Files that containers write reach their stage late."""

    def test_files_of_containers(self, slow, tmp_path):
        """LIST, GET and COPY FILES see files that statements wrote, and not yet those of a container."""
        (tmp_path / "put.txt").write_text("1")
        slow(f"PUT 'file://{tmp_path}/put.txt' @S/late AUTO_COMPRESS = FALSE")
        slow("COPY FILES INTO @S/late/copied/ FROM @S/late")
        slow(job("LATE", "echo 1 > /mnt/s/written.txt"))
        wait(slow, "LATE")

        assert [] == names(slow, "LATE")
        assert ["s/late/copied/put.txt", "s/late/put.txt"] == names(slow, "late")
        assert [] == slow("COPY FILES INTO @S/other/ FROM @S/LATE")
        assert 253006 == refusal(slow, f"GET @S/LATE 'file://{tmp_path}'")

    def test_after_the_lag(self, fast):
        """The files arrive."""
        fast(job("ARRIVED", "echo 1 > /mnt/s/written.txt"))
        wait(fast, "ARRIVED")
        wait_until(lambda: names(fast, "ARRIVED"))

        assert ["s/ARRIVED/written.txt"] == names(fast, "ARRIVED")


class TestPreset:
    """The realistic times."""

    def test_each_is_settable(self):
        """A setting comes before the preset, and speed divides the rest."""
        with serve(realistic=True, speed=10, event_table_lag=0.5, drop_seconds=0) as server:
            settings = server.settings

        assert (0.5, 0) == (settings.event_table_lag, settings.drop_seconds)
        assert (Ready(seconds=9.3), 0.8, 1.0, 3.0) == (
            settings.pool_ready, settings.status_lag, settings.log_retention, settings.metric_interval,
        )  # fmt: skip

    def test_all_take_time(self):
        """No time of the preset is the default."""
        assert {} == {name: value for name, value in REALISTIC.settings().items() if value == Timing().settings()[name]}

    def test_looks_and_for_ever(self):
        """Speed leaves numbers of looks alone, and a log that stays."""
        timing = Timing(pool_ready=Ready(polls=3), log_retention=None).faster(60)

        assert (Ready(polls=3), None) == (timing.pool_ready, timing.log_retention)

    @pytest.mark.parametrize("speed", [0, -1, float("nan")])
    def test_impossible_speed(self, speed):
        """A speed is more than 0."""
        with pytest.raises(ValueError, match="speed must be more than 0"):
            serve(realistic=True, speed=speed)

    @pytest.mark.parametrize("name", ["event_table_lag", "log_retention", *LAGS])
    def test_negative_time(self, name):
        """Times below zero are refused."""
        with pytest.raises(ValueError, match=f"{name} must be 0 seconds or more; got -1"):
            serve(**{name: -1})


class TestNodes:
    """Nodes beyond the minimum of a pool take as long to start as the pool."""

    def test_a_new_node(self):
        """The first node comes with the pool; the second one takes its time, and counts as a target until then."""
        pool = Pool("P", PoolOptions(max_nodes=2, instance_family="CPU_X64_S"), "R", 0.0, Ready(seconds=93))
        alone = Resources(2, 0, 0)
        first, second = (pool.place(alone, 100.0) for _ in range(2))
        nodes = SHOW_COLUMNS.index(Column("active_nodes", "fixed")), SHOW_COLUMNS.index(Column("target_nodes", "fixed"))

        assert (0.0, 193.0) == (pool.up_on(first), pool.up_on(second))
        assert [(1, 2), (2, 2)] == [tuple(pool.row(now, "R")[place] for place in nodes) for now in (100.0, 193.0)]

    def test_jobs_on_a_new_node(self):
        """A job on a new node runs later; one that is cancelled before leaves the node free for the next."""
        with served(pool_ready=Ready(seconds=0.5)) as sql:
            sql("ALTER COMPUTE POOL P SET MAX_NODES = 2")
            for name in ("FIRST", "CANCELLED", "SECOND"):
                sql(job(name, "sleep 600", cpu=2))
                if name == "FIRST":
                    wait(sql, name, "RUNNING")
                if name == "CANCELLED":
                    sql(f"CALL {name}!SPCS_CANCEL_JOB()")
                    wait(sql, name, "CANCELLED")
            wait(sql, "SECOND", "RUNNING")
            (pool,) = sql("SHOW COMPUTE POOLS LIKE 'P'")

        assert (2, 2) == (pool["active_nodes"], pool["target_nodes"])
