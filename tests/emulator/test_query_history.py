"""QUERY_HISTORY and its family, through the connector."""

import json
from types import SimpleNamespace

import pytest

from airflow_provider_mljobs.emulator.server.queries import LONGEST_TEXT, Queries
from airflow_provider_mljobs.emulator.server.query_history import query_type

POOL = "CREATE COMPUTE POOL IF NOT EXISTS HISTORY MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_S"
IMAGE = "/snowflake/images/snowflake_images/exampleimage:latest"
OF_SESSION = "TABLE(INFORMATION_SCHEMA.QUERY_HISTORY_BY_SESSION())"
ALL = "TABLE(INFORMATION_SCHEMA.QUERY_HISTORY(RESULT_LIMIT => 10000))"


@pytest.fixture
def sql(connection):
    """Return a function that runs a statement and returns its rows."""
    from snowflake.connector import DictCursor

    return lambda text, *binds: connection.cursor(DictCursor).execute(text, binds or None).fetchall()


def tags(sql, text):
    """Return the tags with which a statement was run in this session, the latest one first."""
    rows = sql(f"SELECT QUERY_TAG FROM {OF_SESSION} WHERE QUERY_TEXT = ? ORDER BY START_TIME DESC", text)
    return [row["QUERY_TAG"] for row in rows]


class TestRecords:
    """The entry of a statement."""

    def test_success(self, sql, connection, snowflake):
        """An entry has the statement's session, its times and its outcome."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 UNION SELECT 2")
        (row,) = sql(f"SELECT * FROM {OF_SESSION} WHERE QUERY_ID = ?", cursor.sfqid)

        assert {
            "QUERY_TEXT": "SELECT 1 UNION SELECT 2",
            "DATABASE_NAME": snowflake.settings.database,
            "SCHEMA_NAME": snowflake.settings.schema,
            "QUERY_TYPE": "SELECT",
            "SESSION_ID": connection.session_id,
            "USER_NAME": "MLJOBS",
            "USER_TYPE": None,
            "ROLE_NAME": "ACCOUNTADMIN",
            "WAREHOUSE_NAME": snowflake.settings.warehouse,
            "QUERY_TAG": "",
            "EXECUTION_STATUS": "SUCCESS",
            "ERROR_CODE": None,
            "ROWS_PRODUCED": 2,
        }.items() <= row.items()
        assert row["START_TIME"] <= row["END_TIME"]
        assert 0 <= row["TOTAL_ELAPSED_TIME"] < 60_000

    def test_failure(self, sql):
        """The entry of a failed statement has the number and the text of the error."""
        from snowflake.connector.errors import ProgrammingError

        with pytest.raises(ProgrammingError) as caught:
            sql("SELECT * FROM NOWHERE")
        (row,) = sql(f"SELECT * FROM {OF_SESSION} WHERE QUERY_ID = ?", caught.value.sfqid)

        assert ("FAILED_WITH_ERROR", 2003) == (row["EXECUTION_STATUS"], row["ERROR_CODE"])
        assert "'NOWHERE' does not exist" in row["ERROR_MESSAGE"]

    def test_itself(self, sql):
        """A statement sees itself as running; a window with an end has only finished statements."""
        (row,) = sql(f"SELECT *, YEAR(END_TIME) AS Y FROM {OF_SESSION} WHERE QUERY_TEXT LIKE '%itself%' -- itself")
        ended = "TABLE(INFORMATION_SCHEMA.QUERY_HISTORY_BY_SESSION(END_TIME_RANGE_END => CURRENT_TIMESTAMP()))"

        assert ("RUNNING", 1970) == (row["EXECUTION_STATUS"], row["Y"])
        assert [] == sql(f"SELECT 1 FROM {ended} WHERE QUERY_TEXT LIKE '%another%' -- another")

    def test_place_is_that_of_the_time(self, sql):
        """A later USE doesn't change the entry."""
        sql("CREATE SCHEMA IF NOT EXISTS HISTORY_HOME")
        sql("USE SCHEMA HISTORY_HOME")
        sql("SELECT 'there'")
        sql("USE SCHEMA PUBLIC")
        (row,) = sql(f"SELECT SCHEMA_NAME, QUERY_TYPE FROM {OF_SESSION} WHERE QUERY_TEXT = ?", "SELECT 'there'")

        assert {"SCHEMA_NAME": "HISTORY_HOME", "QUERY_TYPE": "SELECT"} == row

    def test_descriptions_are_not_statements(self, sql, connection):
        """A description has no entry."""
        with connection.cursor() as cursor:
            cursor.describe("SELECT 'described'")

        assert [] == tags(sql, "SELECT 'described'")


class TestTags:
    """QUERY_TAG, however it is set."""

    def test_alter_session(self, sql):
        """SET and UNSET of the tag apply from the next statement on."""
        sql("SELECT 'tagged'")
        sql("ALTER SESSION SET QUERY_TAG = '{\"dag\": \"it''s\"}'")
        sql("SELECT 'tagged'")
        sql("ALTER SESSION UNSET QUERY_TAG")
        sql("SELECT 'tagged'")

        assert ["", '{"dag": "it\'s"}', ""] == tags(sql, "SELECT 'tagged'")

    def test_login(self, snowflake, connect):
        """The session parameters of a connection may set the tag."""
        connection = connect(snowflake, session_parameters={"QUERY_TAG": "of a login"})
        rows = connection.cursor().execute(f"SELECT DISTINCT QUERY_TAG FROM {OF_SESSION}").fetchall()

        assert [("of a login",)] == rows

    def test_statement(self, sql, connection):
        """A single statement may bring its own tag, as Snowpark's do."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT 'alone'", _statement_params={"QUERY_TAG": "of a statement"})
        sql("SELECT 'alone'")

        assert ["", "of a statement"] == tags(sql, "SELECT 'alone'")

    def test_several_statements(self, sql, connection):
        """Each statement of a request has the tag of its request, and is in the history."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT 'one'; SELECT 'two'",
                num_statements=2,
                _statement_params={"QUERY_TAG": "both", "MULTI_STATEMENT_COUNT": 2},
            )

        assert ["both"] == tags(sql, "SELECT 'two'")

    def test_longest(self, sql):
        """A tag has 2000 characters at most."""
        from snowflake.connector.errors import ProgrammingError

        sql(f"ALTER SESSION SET QUERY_TAG = '{'x' * 2000}'")
        with pytest.raises(ProgrammingError) as caught:
            sql(f"ALTER SESSION SET QUERY_TAG = '{'x' * 2001}'")

        assert 1008 == caught.value.errno


class TestFunctions:
    """The family and its arguments."""

    def test_limit(self, sql):
        """RESULT_LIMIT limits the entries to the latest, by default 100."""
        for number in range(3):
            sql(f"SELECT {number} AS LIMITED")
        rows = sql("SELECT QUERY_TEXT FROM TABLE(INFORMATION_SCHEMA.QUERY_HISTORY_BY_SESSION(RESULT_LIMIT => 3))")

        assert "SELECT 2 AS LIMITED" == rows[1]["QUERY_TEXT"]
        assert 3 == len(rows)

    def test_positions(self, sql):
        """The window may be positional, as in Snowflake's documentation."""
        window = "DATEADD('hours', -1, CURRENT_TIMESTAMP()), CURRENT_TIMESTAMP(), 10000"
        sql("SELECT 'positions'")
        rows = sql(f"SELECT QUERY_TEXT FROM TABLE(INFORMATION_SCHEMA.QUERY_HISTORY({window}))")

        assert {"QUERY_TEXT": "SELECT 'positions'"} in rows
        assert [] == sql(
            "SELECT 1 FROM TABLE(INFORMATION_SCHEMA.QUERY_HISTORY(END_TIME_RANGE_END => '2020-01-01'::TIMESTAMP_LTZ))"
        )

    def test_other_sessions(self, sql, snowflake, connect):
        """Statements of other sessions are selected by session, user and warehouse."""
        other = connect(snowflake)
        other.cursor().execute("CREATE WAREHOUSE HISTORY_WH")
        other.cursor().execute("SELECT 'other'")

        for function in (
            f"BY_SESSION(SESSION_ID => {other.session_id}, RESULT_LIMIT => 10)",
            "BY_WAREHOUSE(WAREHOUSE_NAME => 'history_wh')",
            "BY_USER(USER_NAME => CURRENT_USER())",
        ):
            source = f"TABLE(INFORMATION_SCHEMA.QUERY_HISTORY_{function})"
            rows = sql(f"SELECT SESSION_ID FROM {source} WHERE QUERY_TEXT = ?", "SELECT 'other'")
            assert [{"SESSION_ID": other.session_id}] == rows
        assert [] == tags(sql, "SELECT 'other'")

    @pytest.mark.parametrize("arguments", ["RESULT_LIMIT => 0", "RESULT_LIMIT => 10001", "USER => 'x'", "1, 2, 3, 4"])
    def test_wrong_arguments(self, sql, arguments):
        """Invalid arguments are errors."""
        from snowflake.connector.errors import ProgrammingError

        with pytest.raises(ProgrammingError) as caught:
            sql(f"SELECT * FROM TABLE(INFORMATION_SCHEMA.QUERY_HISTORY({arguments}))")

        assert 939 == caught.value.errno


class TestJobs:
    """Statements of jobs in the history."""

    def run(self, sql, name, code):
        """Run Python in a container to its end."""
        container = {"name": "main", "image": IMAGE, "command": ["python", "-c", code]}
        text = json.dumps({"spec": {"containers": [container]}})
        sql(POOL)
        sql(f"EXECUTE JOB SERVICE IN COMPUTE POOL HISTORY NAME = {name} FROM SPECIFICATION ?", text)

    def test_session_in_a_container(self, sql):
        """A job is a user of the type SNOWFLAKE_SERVICE; its tag is that of its session."""
        code = """
from snowflake import connector
with connector.connect(connection_name='default', session_parameters={"QUERY_TAG": "inside"}) as connection:
    connection.cursor().execute("SELECT 'from a container'")
"""
        sql("DROP SERVICE IF EXISTS HISTORIAN")
        self.run(sql, "HISTORIAN", code)
        names = "USER_NAME, USER_TYPE, USER_DATABASE_NAME, USER_SCHEMA_NAME, QUERY_TAG"
        (row,) = sql(f"SELECT {names} FROM {ALL} WHERE QUERY_TEXT = ?", "SELECT 'from a container'")

        assert {
            "USER_NAME": "HISTORIAN",
            "USER_TYPE": "SNOWFLAKE_SERVICE",
            "USER_DATABASE_NAME": "MLJOBS_DB",
            "USER_SCHEMA_NAME": "PUBLIC",
            "QUERY_TAG": "inside",
        } == row

    def test_job_history(self, sql):
        """QUERY_ID of a job is that of the statement that submitted it."""
        sql("ALTER SESSION SET QUERY_TAG = 'submits'")
        sql("DROP SERVICE IF EXISTS SUBMITTED")
        self.run(sql, "SUBMITTED", "pass")
        (row,) = sql(
            f"SELECT QUERY_TYPE, QUERY_TAG FROM {ALL} Q JOIN TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY()) J "
            "ON J.QUERY_ID = Q.QUERY_ID WHERE J.NAME = 'SUBMITTED'"
        )

        assert {"QUERY_TYPE": "EXECUTE_JOB_SERVICE", "QUERY_TAG": "submits"} == row


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select 1", "SELECT"),
        ("-- insert\n /* update */ WITH a AS (SELECT 1) SELECT * FROM a", "SELECT"),
        ("CREATE OR REPLACE TEMPORARY TABLE t (a INT)", "CREATE_TABLE"),
        ("create stage s", "CREATE"),
        ("ALTER SESSION SET a = 1", "ALTER_SESSION"),
        ("PUT 'file:///a' @s", "PUT_FILES"),
        ("desc service s", "DESCRIBE"),
        ("CALL a!b()", "CALL"),
        ("", "UNKNOWN"),
    ],
)
def test_query_type(text, expected):
    """The first words of a statement give its type."""
    assert expected == query_type(text)


def test_bounds():
    """The history keeps the latest statements, and of a long one the beginning."""
    from airflow_provider_mljobs.emulator.results import Result
    from airflow_provider_mljobs.emulator.sessions import Session

    queries = Queries(lambda _: None, most=2)
    session = Session(id=1, rights=SimpleNamespace(user="U", role="R"), engine=None)
    begun = [queries.begin(session, str(number) * (LONGEST_TEXT + 1))[0] for number in range(3)]
    for query in begun:
        queries.finish(query, Result(()))

    assert ["1" * LONGEST_TEXT, "2" * LONGEST_TEXT] == [record.text for record in queries.history]
