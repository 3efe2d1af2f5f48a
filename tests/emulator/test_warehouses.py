"""Sessions with and without a warehouse."""

import pytest

POOL = "WAREHOUSE_POOL"
SETUP = f"""
CREATE COMPUTE POOL {POOL} MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS;
CREATE TABLE t (a INT);
CREATE STAGE s;
EXECUTE JOB SERVICE IN COMPUTE POOL {POOL} NAME = j ASYNC = TRUE
    FROM SPECIFICATION $$ {{"spec": {{"containers": [{{"name": "main", "image": "/snowflake/images/a/b:1"}}]}}}} $$
"""


@pytest.fixture(scope="module")
def account():
    """Return a server with a job, a table and a stage."""
    from snowflake import connector

    from airflow_provider_mljobs.emulator import serve
    from airflow_provider_mljobs.emulator.settings import VirtualJob

    with serve(virtual_jobs=(VirtualJob(name="J"),)) as server:
        with connector.connect(**server.connection_kwargs) as connection:
            connection.execute_string(SETUP)
        yield server


@pytest.fixture
def cursor(account, connect):
    """Return a cursor of a session without a warehouse."""
    return connect(account, warehouse=None).cursor()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM t",
        "SELECT * FROM VALUES (1)",
        "SELECT table_name FROM information_schema.tables",
        "SELECT a.x FROM (SELECT 1 x) a",
        "INSERT INTO t VALUES (1)",
        "UPDATE t SET a = 2",
        "DELETE FROM t",
        "MERGE INTO t USING (SELECT 1 b) s ON t.a = s.b WHEN MATCHED THEN DELETE",
        "CREATE TABLE u AS SELECT 1 a",
        "COPY INTO t FROM @s",
        "COPY INTO @s FROM t",
        "SELECT * FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY())",
        "SELECT name FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY()) WHERE name = 'J'",
        "SELECT * FROM TABLE(j!SPCS_GET_LOGS())",
        "SELECT * FROM TABLE(j!SPCS_GET_EVENTS())",
        "SELECT * FROM TABLE(j!SPCS_GET_METRICS())",
        "SELECT * FROM SNOWFLAKE.TELEMETRY.EVENTS",
        "SELECT COUNT(*) FROM SNOWFLAKE.TELEMETRY.EVENTS",
        "SELECT query_id FROM TABLE(INFORMATION_SCHEMA.QUERY_HISTORY())",
    ],
)
def test_statements_that_compute_need_a_warehouse(cursor, statement):
    """A session without a warehouse gets 606 for whatever reads or changes rows."""
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError, match="No active warehouse selected") as caught:
        cursor.execute(statement)

    assert (606, "57P03") == (caught.value.errno, caught.value.sqlstate)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1, CURRENT_TIMESTAMP(), CURRENT_WAREHOUSE()",
        "SHOW JOB SERVICES IN ACCOUNT",
        "SHOW SERVICE CONTAINERS IN SERVICE j",
        "DESCRIBE SERVICE j",
        "SELECT SYSTEM$GET_SERVICE_STATUS('j')",
        "CALL j!SPCS_CANCEL_JOB()",
        "CALL SYSTEM$GET_ML_JOB_RUNTIME('WAREHOUSE_POOL')",
        "LIST @s",
        "REMOVE @s/nothing",
        "COPY FILES INTO @s/b/ FROM @s/a/",
        "CREATE TABLE IF NOT EXISTS v (a INT)",
        "CREATE VIEW IF NOT EXISTS w AS SELECT a FROM t",
        "SET x = 1",
    ],
)
def test_other_statements_need_no_warehouse(cursor, statement):
    """Metadata, jobs, stages and constants need no warehouse."""
    cursor.execute(statement)

    assert cursor.connection.warehouse is None


def test_a_session_gets_a_warehouse(cursor):
    """USE WAREHOUSE takes one that exists; CREATE WAREHOUSE takes the new one, and DROP WAREHOUSE leaves none."""
    from snowflake.connector.errors import ProgrammingError

    def current():
        return cursor.execute("SELECT CURRENT_WAREHOUSE()").fetchone()[0]

    with pytest.raises(ProgrammingError, match="does not exist") as caught:
        cursor.execute("USE WAREHOUSE nope")
    seen = [current()]
    for statement in ("USE WAREHOUSE mljobs_wh", "CREATE WAREHOUSE mine", "DROP WAREHOUSE mine"):
        cursor.execute(statement)
        seen.append(current())

    assert 2043 == caught.value.errno
    assert [None, "MLJOBS_WH", "MINE", None] == seen
