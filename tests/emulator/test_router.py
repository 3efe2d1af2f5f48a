import pytest


def test_use(cursor):
    """USE moves the session, and the client follows."""
    connection = cursor.connection
    cursor.execute("CREATE SCHEMA IF NOT EXISTS elsewhere")
    cursor.execute("USE SCHEMA public")
    cursor.execute("CREATE WAREHOUSE IF NOT EXISTS w2")
    for statement in ("USE SCHEMA elsewhere", "use warehouse w2", "USE SECONDARY ROLES ALL", "USE ROLE sysadmin"):
        cursor.execute(statement)

    assert (connection.schema, connection.warehouse, connection.role) == ("ELSEWHERE", "W2", "SYSADMIN")
    assert cursor.execute("SELECT CURRENT_SCHEMA(), CURRENT_WAREHOUSE()").fetchall() == [("ELSEWHERE", "W2")]


def test_use_database_enters_public(cursor):
    """USE DATABASE enters its PUBLIC schema."""
    cursor.execute("CREATE SCHEMA IF NOT EXISTS elsewhere")
    cursor.execute("USE SCHEMA mljobs_db.elsewhere")
    cursor.execute("USE mljobs_db")

    assert (cursor.connection.database, cursor.connection.schema) == ("MLJOBS_DB", "PUBLIC")


@pytest.mark.parametrize(
    "statement", ["USE DATABASE nope", "USE SCHEMA nope", "USE nope.public", 'USE SCHEMA "public"']
)
def test_use_of_what_is_missing(cursor, statement):
    """USE fails for objects that don't exist."""
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError) as caught:
        cursor.execute(statement)

    assert caught.value.errno == 2043


def test_alter_session(cursor):
    """A parameter can be set, shown and unset; the client stores those that concern it."""
    cursor.execute("ALTER SESSION SET TIMEZONE = 'Europe/Berlin' QUERY_TAG = 'it''s', AUTOCOMMIT = FALSE")
    rows = cursor.execute("SHOW PARAMETERS LIKE 'query_tag' IN SESSION").fetchall()
    autocommit = cursor.connection._session_parameters["AUTOCOMMIT"]
    cursor.execute("ALTER SESSION UNSET QUERY_TAG, AUTOCOMMIT")

    assert [row[:4] for row in rows] == [("QUERY_TAG", "it's", "", "SESSION")]
    assert autocommit is False
    assert cursor.connection._session_parameters["TIMEZONE"] == "Europe/Berlin"
    assert cursor.execute("SHOW PARAMETERS LIKE 'QUERY_TAG'").fetchone()[1] == ""


@pytest.mark.parametrize(("setting", "errno"), [("NOPE = 1", 1006), ("AUTOCOMMIT = 'maybe'", 1008), ("", 1003)])
def test_alter_session_errors(cursor, setting, errno):
    """An unknown parameter, an invalid value and a missing parameter are errors."""
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError) as caught:
        cursor.execute(f"ALTER SESSION SET {setting}")

    assert errno == caught.value.errno


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT SYSTEM$WAIT(1, 'MILLISECONDS')",
        "call system$wait(1, 'milliseconds');",
        "/* c */ select system$wait(?, ?) -- c",
    ],
)
def test_function_as_statement(cursor, statement):
    """A function of ours is a whole statement, in any case, with literals or binds."""
    cursor.execute(statement, (1, "milliseconds") if "?" in statement else None)

    assert cursor.fetchall() == [("waited 1 milliseconds",)]
    assert cursor.description[0].name == "SYSTEM$WAIT"


def test_function_with_alias(cursor):
    """An alias names the column, upper-cased unless quoted."""
    cursor.execute("SELECT SYSTEM$WAIT(0) AS done")

    assert cursor.description[0].name == "DONE"


def test_function_inside_a_query(cursor):
    """A function of ours can stand in a larger query; the other binds keep their places."""
    cursor.execute("SELECT ? AS a, UPPER(SYSTEM$WAIT(?, 'milliseconds')) AS b, ? AS c", ("it's", 1, 3))

    assert cursor.fetchall() == [("it's", "WAITED 1 MILLISECONDS", 3)]


def test_function_in_a_string_is_text(cursor):
    """A text that looks like a call of ours, in a string or a comment, is left alone."""
    text = "SYSTEM$WAIT(60) TABLE(RESULT_SCAN('x'))"

    assert [(text,)] == cursor.execute(f"SELECT $${text}$$ AS a /* {text} */").fetchall()


def test_describe_runs_nothing(cursor, snowflake):
    """A client that only asks for a description changes nothing."""
    described = cursor.describe("CREATE TABLE never (a INT)")
    waited = cursor.describe("CALL SYSTEM$WAIT(60)")
    used = cursor.describe("USE SCHEMA nope")
    cursor.describe("SELECT SYSTEM$WAIT(SYSTEM$WAIT(60)), 1 + SYSTEM$WAIT(SYSTEM$WAIT(60))")

    assert [columns[0].name for columns in (described, waited, used)] == ["status", "SYSTEM$WAIT", "status"]
    assert cursor.execute("SHOW TABLES LIKE 'never'").fetchall() == []
    assert snowflake.statements.matching("CREATE TABLE never") == []


def test_result_scan(cursor):
    """The result of an earlier statement is a table, also in a subquery, with its lower-case names."""
    cursor.execute("SHOW PARAMETERS LIKE 'TIME%'")
    query_id = cursor.sfqid
    whole = cursor.execute(f"SELECT * FROM TABLE(RESULT_SCAN('{query_id}'))").fetchall()
    scan = f"(SELECT * FROM table(result_scan('{query_id}')))"
    sub = f'SELECT "key" AS k FROM {scan} WHERE "type" = ? ORDER BY 1 LIMIT 2'

    assert whole == cursor.execute("SELECT * FROM TABLE(RESULT_SCAN(LAST_QUERY_ID()))").fetchall()
    assert cursor.execute(sub, ("STRING",)).fetchall() == [
        ("TIMESTAMP_INPUT_FORMAT",),
        ("TIMESTAMP_LTZ_OUTPUT_FORMAT",),
    ]


def test_result_scan_in_another_session(cursor, snowflake, connect):
    """A result can be read by its id from another session."""
    cursor.execute("SELECT 5 AS a")
    other = connect(snowflake).cursor()

    assert other.execute("SELECT * FROM TABLE(RESULT_SCAN(?))", (cursor.sfqid,)).fetchall() == [(5,)]


def test_result_scan_describes(cursor):
    """The description of a scanned result has the result's columns."""
    cursor.execute("SELECT 1 AS a, 'x' AS b")

    assert [column.name for column in cursor.describe(f"SELECT * FROM TABLE(RESULT_SCAN('{cursor.sfqid}'))")] == [
        "A",
        "B",
    ]


@pytest.mark.parametrize(
    ("statement", "errno"),
    [
        ("SELECT * FROM TABLE(RESULT_SCAN('00000000-0000-0000-0000-000000000000'))", 709),
        ("SELECT * FROM TABLE(a.b.c!NO_SUCH())", 2143),
        ("SELECT * FROM TABLE(SNOWFLAKE.SPCS.NO_SUCH())", 2143),
        ("CALL a.b.c!no_such(1)", 2140),
        ("SELECT SYSTEM$WAIT(1", 1003),
        ("SELECT SYSTEM$WAIT(?)", 100037),
        (";", 900),
        ("-- only a comment", 900),
        ("USE", 1003),
    ],
)
def test_errors(cursor, statement, errno):
    """Invalid array binds are Snowflake's errors, at once."""
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError) as caught:
        cursor.execute(statement)

    assert errno == caught.value.errno


def test_array_binds(cursor):
    """Executemany is one statement, with NULLs, expressions and mixed numbers."""
    cursor.execute("CREATE OR REPLACE TEMPORARY TABLE many (a INT, b VARCHAR, c NUMBER(10, 2), d DATE)")
    from datetime import date
    from decimal import Decimal

    rows = [(1, "it's", Decimal("1.25"), date(2020, 1, 2)), (2, None, Decimal(3), date(1960, 1, 1))]
    cursor.executemany("INSERT INTO many (a, b, c, d) VALUES (?, UPPER(?), ?, ?)", rows)

    assert cursor.rowcount == 2
    assert [
        (1, "IT'S", Decimal("1.25"), date(2020, 1, 2)),
        (2, None, Decimal("3.00"), date(1960, 1, 1)),
    ] == cursor.execute("SELECT * FROM many ORDER BY a").fetchall()


def test_array_binds_of_a_select(cursor):
    """An INSERT of a SELECT takes array binds too."""
    cursor.execute("CREATE OR REPLACE TEMPORARY TABLE selected (a INT, b VARCHAR)")
    cursor.executemany("INSERT INTO selected SELECT ?, LOWER(?)", [(1, "A"), (2, "B")])

    assert cursor.execute("SELECT * FROM selected ORDER BY a").fetchall() == [(1, "a"), (2, "b")]
