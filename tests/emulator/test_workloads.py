"""The kinds of services that an account lets run."""

import pytest

from airflow_provider_mljobs.emulator import serve
from tests.lab import POOL, served

JOB = (
    f"EXECUTE JOB SERVICE IN COMPUTE POOL {POOL} ASYNC = TRUE FROM SPECIFICATION $$spec: {{containers: [{{name: main, "
    "image: /snowflake/images/snowflake_images/exampleimage:latest, command: [echo]}]}$$"
)


@pytest.fixture(scope="module")
def server():
    """Serve one account to all tests."""
    with served() as server:
        yield server


@pytest.fixture
def cursor(server):
    """Open a session of an administrator; the parameters get their defaults afterwards."""
    from snowflake import connector

    with connector.connect(**server.connection_kwargs) as connection:
        cursor = connection.cursor()
        yield cursor
        cursor.execute("ALTER ACCOUNT UNSET ALLOWED_SPCS_WORKLOAD_TYPES")
        cursor.execute("ALTER ACCOUNT UNSET DISALLOWED_SPCS_WORKLOAD_TYPES")


def failure(cursor, statement):
    """Return the error of a statement; ``None`` if it succeeds."""
    from snowflake.connector.errors import ProgrammingError

    try:
        cursor.execute(statement)
    except ProgrammingError as error:
        return error
    return None


def shown(cursor):
    """Return value, default and level of the two parameters."""
    return [row[1:4] for row in cursor.execute("SHOW PARAMETERS LIKE '%SPCS_WORKLOAD_TYPES' IN ACCOUNT").fetchall()]


def test_defaults(cursor):
    """All kinds are allowed and none is disallowed; sessions don't have the parameters."""
    assert [("ALL", "ALL", ""), ("", "", "")] == shown(cursor)
    assert [] == cursor.execute("SHOW PARAMETERS LIKE '%WORKLOAD%' IN SESSION").fetchall()
    assert failure(cursor, JOB) is None


@pytest.mark.parametrize(
    ("parameter", "value", "runs"),
    [
        ("ALLOWED_SPCS_WORKLOAD_TYPES", "NOTEBOOK", False),
        ("ALLOWED_SPCS_WORKLOAD_TYPES", "'notebook, USER'", True),
        ("DISALLOWED_SPCS_WORKLOAD_TYPES", "'ML_JOB'", True),
        ("DISALLOWED_SPCS_WORKLOAD_TYPES", "'ALL'", False),
    ],
)
def test_a_job_is_of_type_user(cursor, parameter, value, runs):
    """A job service runs if its type is allowed and not disallowed; a disallowed type outranks an allowed one."""
    cursor.execute(f"ALTER ACCOUNT SET {parameter} = {value}")

    error = failure(cursor, JOB)

    assert runs is (error is None)
    assert runs or "Services of workload type USER are not allowed in this account." in error.msg


def test_unknown_types(cursor):
    """A type that Snowflake doesn't have is refused, and nothing changes."""
    error = failure(cursor, "ALTER ACCOUNT SET ALLOWED_SPCS_WORKLOAD_TYPES = 'USER,GAMES'")

    assert (1008, ("ALL", "ALL", "")) == (error.errno, shown(cursor)[0])


def test_only_administrators_change_the_account(cursor):
    """ALTER ACCOUNT needs the role ACCOUNTADMIN; every role may look."""
    cursor.execute("USE ROLE SYSADMIN")
    error = failure(cursor, "ALTER ACCOUNT SET ALLOWED_SPCS_WORKLOAD_TYPES = 'USER'")
    values = shown(cursor)
    cursor.execute("USE ROLE ACCOUNTADMIN")

    assert (3001, [("ALL", "ALL", ""), ("", "", "")]) == (error.errno, values)


def test_the_parameters_survive_a_restart(tmp_path):
    """A server that starts again in the same root has the same parameters."""
    from snowflake import connector

    with serve(root=tmp_path) as server, connector.connect(**server.connection_kwargs) as connection:
        connection.cursor().execute("ALTER ACCOUNT SET ALLOWED_SPCS_WORKLOAD_TYPES = 'USER,ML_JOB'")
    with serve(root=tmp_path) as server, connector.connect(**server.connection_kwargs) as connection:
        assert ("ML_JOB,USER", "ALL", "ACCOUNT") == shown(connection.cursor())[0]
