"""Compute pools, through the connector."""

import json

import pytest

from airflow_provider_mljobs.emulator.settings import Ready, VirtualJob
from tests.budget import budget

CREATE = "CREATE COMPUTE POOL {} MIN_NODES = 1 MAX_NODES = 2 INSTANCE_FAMILY = CPU_X64_S"


@pytest.fixture
def sql(connection):
    """Run a statement and return its rows as dictionaries; pools of the test are dropped."""
    from snowflake.connector import DictCursor

    def run(text, *binds):
        return connection.cursor(DictCursor).execute(text, binds or None).fetchall()

    yield run
    for row in run("SHOW COMPUTE POOLS LIKE 'TEST\\\\_%'"):
        run(f"ALTER COMPUTE POOL {row['name']} STOP ALL")
        run(f"DROP COMPUTE POOL {row['name']}")


@pytest.fixture
def started():
    """Start servers with given settings; return a function that runs a statement on one."""
    from contextlib import ExitStack

    from snowflake.connector import DictCursor, connect

    from airflow_provider_mljobs.emulator import serve

    with ExitStack() as stack:

        def start(**settings):
            server = stack.enter_context(serve(**settings))
            connection = stack.enter_context(connect(**server.connection_kwargs, paramstyle="qmark"))
            return lambda text, *binds: connection.cursor(DictCursor).execute(text, binds or None).fetchall()

        yield start


def job(name, script, **resources):
    """Write the statement that runs a script, by default alone on its node, on the pool TEST_DROPPED."""
    spec = {
        "name": "main",
        "image": "/snowflake/images/snowflake_images/x:1",
        "command": ["sh", "-c", script],
        "resources": resources or {"requests": {"cpu": 2}},
    }
    text = json.dumps({"spec": {"containers": [spec]}})
    return f"EXECUTE JOB SERVICE IN COMPUTE POOL TEST_DROPPED NAME = {name} ASYNC = TRUE FROM SPECIFICATION $${text}$$"


def failure(sql, text):
    """Run a statement that fails; return the error's number."""
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError) as caught:
        sql(text)
    return caught.value.errno


def test_only_system_pools_exist_at_first(started):
    """A fresh account has the two pools that Snowflake manages."""
    sql = started()

    names = [row["name"] for row in sql("SHOW COMPUTE POOLS")]

    assert names == ["SYSTEM_COMPUTE_POOL_CPU", "SYSTEM_COMPUTE_POOL_GPU"]


def test_create_and_describe(sql):
    """A new pool has Snowflake's defaults."""
    (created,) = sql(CREATE.format("TEST_NEW"))
    (pool,) = sql("DESCRIBE COMPUTE POOL test_new")

    assert created["status"] == "Compute pool TEST_NEW successfully created."
    assert pool["state"] == "IDLE"
    assert (pool["min_nodes"], pool["max_nodes"], pool["target_nodes"]) == (1, 2, 1)
    assert (pool["auto_suspend_secs"], pool["auto_resume"], pool["error_code"]) == (3600, True, "")


def test_names_that_are_taken(sql):
    """A second pool of the same name is refused, unless IF NOT EXISTS says otherwise."""
    sql(CREATE.format("TEST_TAKEN"))

    assert failure(sql, CREATE.format("TEST_TAKEN")) == 2002
    (again,) = sql(CREATE.format("IF NOT EXISTS TEST_TAKEN"))
    assert again["status"] == "TEST_TAKEN already exists, statement succeeded."


@pytest.mark.parametrize(
    "clauses",
    [
        "MIN_NODES = 1 MAX_NODES = 1",
        "MIN_NODES = 2 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS",
        "MIN_NODES = 1 MAX_NODES = 501 INSTANCE_FAMILY = CPU_X64_XS",
        "MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_M68K",
        "MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_S BACKUP_INSTANCE_FAMILIES = ('CPU_M68K')",
        "MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_S BACKUP_INSTANCE_FAMILIES = ('CPU_X64_S')",
        "MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_S BACKUP_INSTANCE_FAMILIES = ('CPU_X64_M', 'CPU_X64_M')",
    ],
)
def test_pools_that_cannot_be(sql, clauses):
    """Missing and contradictory properties are refused."""
    assert failure(sql, f"CREATE COMPUTE POOL TEST_BAD {clauses}") == 395092


def test_unknown_property(sql):
    """A property that pools don't have is refused by name."""
    assert failure(sql, CREATE.format("TEST_BAD") + " COLOUR = 'red'") == 1420


def test_missing_pool(sql):
    """A pool that doesn't exist can't be described, changed or dropped, except with IF EXISTS."""
    assert failure(sql, "DESCRIBE COMPUTE POOL TEST_NONE") == 2003
    assert failure(sql, "ALTER COMPUTE POOL TEST_NONE RESUME") == 2003
    assert failure(sql, "DROP COMPUTE POOL TEST_NONE") == 2003
    (dropped,) = sql("DROP COMPUTE POOL IF EXISTS TEST_NONE")
    assert dropped["status"] == "Drop statement executed successfully (TEST_NONE already dropped)."


def test_alter(sql):
    """ALTER COMPUTE POOL has SET, UNSET, SUSPEND and RESUME."""
    sql(CREATE.format("TEST_ALTER"))

    sql("ALTER COMPUTE POOL TEST_ALTER SET MAX_NODES = 5 COMMENT = 'five'")
    sql("ALTER COMPUTE POOL TEST_ALTER SUSPEND")
    (suspended,) = sql("SHOW COMPUTE POOLS LIKE ?", "test_alter")
    sql("ALTER COMPUTE POOL TEST_ALTER UNSET COMMENT")
    sql("ALTER COMPUTE POOL TEST_ALTER RESUME")
    (resumed,) = sql("SHOW COMPUTE POOLS LIKE ?", "test_alter")

    assert (suspended["state"], suspended["max_nodes"], suspended["comment"]) == ("SUSPENDED", 5, "five")
    assert (resumed["state"], resumed["comment"]) == ("IDLE", None)
    assert resumed["resumed_on"] is not None


def test_system_pools_stay(sql):
    """Snowflake's own pools can't be dropped."""
    assert failure(sql, "DROP COMPUTE POOL SYSTEM_COMPUTE_POOL_CPU") == 395087


def test_instance_families(sql):
    """The machine types are listed with the resources of their nodes."""
    (family,) = sql("SHOW COMPUTE POOL INSTANCE FAMILIES LIKE 'GPU_NV_S'")

    assert (family["vcpu"], family["memory_gib"], family["gpu_count"]) == (6, 28, 1)


def test_pool_becomes_ready_after_looks(started):
    """With emulated time in looks, a pool is STARTING for that many of them, after each start."""
    sql = started(pool_ready=Ready(polls=2))
    sql(CREATE.format("TEST_SLOW"))

    states = [sql("DESCRIBE COMPUTE POOL TEST_SLOW")[0]["state"] for _ in range(3)]
    sql("ALTER COMPUTE POOL TEST_SLOW SUSPEND")
    sql("ALTER COMPUTE POOL TEST_SLOW RESUME")
    (again,) = sql("DESCRIBE COMPUTE POOL TEST_SLOW")

    assert states == ["STARTING", "STARTING", "IDLE"]
    assert (again["state"], again["status_message"]) == ("STARTING", "Compute pool is starting for last 0 minutes")


def test_pools_survive_a_restart(tmp_path):
    """A pool and its options survive a restart."""
    from snowflake.connector import DictCursor, connect

    from airflow_provider_mljobs.emulator import serve

    with serve(tmp_path) as server, connect(**server.connection_kwargs) as connection:
        connection.cursor().execute(CREATE.format("KEPT") + " COMMENT = 'kept'")
    with serve(tmp_path) as server, connect(**server.connection_kwargs) as connection:
        (pool,) = connection.cursor(DictCursor).execute("DESCRIBE COMPUTE POOL KEPT").fetchall()

    assert (pool["comment"], pool["max_nodes"]) == ("kept", 2)


def test_drop_aborts_jobs(sql):
    """DROP COMPUTE POOL cancels running and waiting jobs, which stay; a new pool of that name has free nodes."""
    one_node = CREATE.format("TEST_DROPPED").replace("MAX_NODES = 2", "MAX_NODES = 1")
    sql(one_node)
    sql(job("RUNS", "sleep 600"))
    sql(f"CALL RUNS!SPCS_WAIT_FOR('RUNNING', {budget():.0f})")
    sql(job("WAITS", "true"))

    (dropped,) = sql("DROP COMPUTE POOL TEST_DROPPED")
    sql(one_node)
    sql(job("NEXT", "true"))
    for name, status in (("RUNS", "CANCELLED"), ("WAITS", "CANCELLED"), ("NEXT", "DONE")):
        sql(f"CALL {name}!SPCS_WAIT_FOR('{status}', {budget():.0f})")
    sql(job("LAST", "true"))
    sql(f"CALL LAST!SPCS_WAIT_FOR('DONE', {budget():.0f})")
    (pool,) = sql("SHOW COMPUTE POOLS LIKE 'TEST_DROPPED'")

    assert dropped == {"status": "TEST_DROPPED successfully dropped."}
    assert (pool["active_nodes"], pool["idle_nodes"], pool["num_jobs"]) == (0, 1, 0)
    for name in ("RUNS", "WAITS", "NEXT", "LAST"):
        sql(f"DROP SERVICE {name}")


class TestNodes:
    """SHOW NODES, the room on nodes, and nodes of other families than the pool's own."""

    def test_room(self, started):
        """A node may have less room than Snowflake shows; a job that lacks GPUs waits for them."""
        sql = started()
        sql("CREATE COMPUTE POOL TEST_DROPPED MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = GPU_NV_S")
        gpu = {"nvidia.com/gpu": 1}
        sql(job("FULL", "true", requests={"memory": "28Gi"}))
        sql(job("FITS", "sleep 60", requests={"memory": "2Gi", **gpu}, limits=gpu))
        sql(job("NEXT", "true", requests={"memory": "2Gi", **gpu}, limits=gpu))
        reasons = {name: sql(f"SHOW SERVICE CONTAINERS IN SERVICE {name}")[0]["message"] for name in ("FULL", "NEXT")}
        sql("DROP SERVICE FITS")

        assert "Unschedulable due to insufficient memory resources" == reasons["FULL"]
        assert "Unschedulable due to insufficient GPU resources" == reasons["NEXT"]

    def test_nodes_of_a_pool(self, sql):
        """A pool has its minimum of nodes, of its own family; a suspended pool has none."""
        sql(CREATE.format("TEST_NODES"))
        (node,) = sql("SHOW NODES IN COMPUTE POOL test_nodes")
        (same,) = sql("SHOW NODES IN COMPUTE POOL TEST_NODES LIKE ? LIMIT 1", node["node_id"].upper())
        sql("ALTER COMPUTE POOL TEST_NODES SUSPEND")

        assert node == same
        assert ("CPU_X64_S", 3, 13, "", 0) == (
            node["instance_family"], node["vcpu"], node["memory_gib"], node["gpu"], node["gpu_count"],
        )  # fmt: skip
        assert [] == sql("SHOW NODES IN COMPUTE POOL TEST_NODES")
        assert 2003 == failure(sql, "SHOW NODES IN COMPUTE POOL TEST_NONE")

    def test_backup_families(self, started):
        """Without capacity in its own family a pool gets nodes of the first backup that has some, or waits for one."""
        sql = started(scarce_families=("CPU_X64_S", "CPU_X64_M"))
        backups = "BACKUP_INSTANCE_FAMILIES = ('CPU_X64_M', 'CPU_X64_XS', 'CPU_X64_L')"
        sql(f"{CREATE.format('TEST_DROPPED')} {backups}")
        sql(job("TOO_LARGE", "true"))
        (waiting,) = sql("SHOW SERVICE CONTAINERS IN SERVICE TOO_LARGE")
        sql("ALTER COMPUTE POOL TEST_DROPPED SET BACKUP_INSTANCE_FAMILIES = ('CPU_X64_L')")
        sql(f"CALL TOO_LARGE!SPCS_WAIT_FOR('DONE', {budget():.0f})")
        (pool,) = sql("SHOW COMPUTE POOLS LIKE 'TEST_DROPPED'")
        (node,) = sql("SHOW NODES IN COMPUTE POOL TEST_DROPPED")
        sql("CREATE COMPUTE POOL TEST_NONE MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_M")

        assert ("PENDING", "Unschedulable due to insufficient CPU resources") == (waiting["status"], waiting["message"])
        assert ("CPU_X64_S", "[CPU_X64_L]") == (pool["instance_family"], pool["backup_instance_families"])
        assert "CPU_X64_L" == node["instance_family"]
        assert [] == sql("SHOW NODES IN COMPUTE POOL TEST_NONE")


def test_maintenance(start, connect):
    """Maintenance cancels the running jobs of a pool and replaces its nodes; it is announced until its end."""
    from snowflake.connector import DictCursor

    server = start(virtual_jobs=(VirtualJob(name="%", seconds=1e6),))
    connection = connect(server)

    def sql(text):
        return connection.cursor(DictCursor).execute(text).fetchall()

    def announced():
        ((answer,),) = connection.cursor().execute("SELECT SYSTEM$GET_COMPUTE_POOL_PENDING_MAINTENANCE()").fetchall()
        return answer

    sql(CREATE.format("TEST_DROPPED"))
    sql(job("RUNNING", "true"))
    (before,) = sql("SHOW NODES IN COMPUTE POOL TEST_DROPPED")
    with server.maintenance("TEST_DROPPED"):
        during = json.loads(announced())
    (after,) = sql("SHOW NODES IN COMPUTE POOL TEST_DROPPED")

    assert during["maintenanceRequired"] is True
    assert during["maintenanceWindow"]["start"] < during["maintenanceWindow"]["end"]
    assert "No pending maintenance actions." == announced()
    assert ["CANCELLED"] == [row["status"] for row in sql("SHOW JOB SERVICES IN ACCOUNT")]
    assert before["node_id"] != after["node_id"]


def test_status_function(sql):
    """SYSTEM$GET_COMPUTE_POOL_STATUS returns state and message as JSON; a missing pool is an error."""
    sql(CREATE.format("TEST_STATUS"))

    (row,) = sql("call system$get_compute_pool_status('test_status')")

    assert json.loads(row["SYSTEM$GET_COMPUTE_POOL_STATUS"]) == {
        "status": "IDLE",
        "message": "Compute pool is idle",
        "errorCode": "",
    }
    assert failure(sql, "SELECT SYSTEM$GET_COMPUTE_POOL_STATUS('TEST_MISSING')") == 2003
