import datetime as dt
import os
import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal

import pytest


@pytest.fixture
def fresh(cursor):
    """Work in a schema that is dropped afterwards."""
    cursor.execute("CREATE OR REPLACE SCHEMA mljobs_db.scratch")
    yield cursor
    cursor.execute("DROP SCHEMA IF EXISTS mljobs_db.scratch")


@pytest.fixture
def session(fresh, snowflake):
    """Open a Snowpark session in the scratch schema."""
    from snowflake.snowpark import Session

    with Session.builder.configs({**snowflake.connection_kwargs, "schema": "scratch"}).create() as session:
        yield session


def failure(cursor, sql, *binds):
    """Return number, SQLSTATE and text of the error of a statement."""
    from snowflake.connector.errors import Error

    with pytest.raises(Error) as caught:
        cursor.execute(sql, *binds)
    return caught.value.errno, caught.value.sqlstate, caught.value.raw_msg


def value(cursor, expression, *binds):
    """Return the value of an expression."""
    return cursor.execute(f"SELECT {expression}", *binds).fetchone()[0]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT * FROM nope", (2003, "42S02", "Object 'NOPE' does not exist or not authorized.")),
        ("DROP TABLE nope", (2003, "42S02", "Object 'NOPE' does not exist or not authorized.")),
        ("CREATE TABLE t (a INT)", (2002, "42710", "Object 'T' already exists.")),
        ("SELECT missing FROM t", (904, "42000", "invalid identifier 'MISSING'")),
        ("SELECT missing", (904, "42000", "invalid identifier 'MISSING'")),
        ("SELECT a FROM t GROUP BY a + 1", (979, "42601", "[A] is not a valid group by expression")),
        ("SELECT nofn(1)", (2140, "42601", "Unknown function NOFN")),
        ("SELEC 1", (1003, "42000", "syntax error")),
        ("SELECT 1/0", (100051, "22012", "Division by zero")),
        ("SELECT a / (a - a) FROM t", (100051, "22012", "Division by zero")),
        ("SELECT MOD(a, 0) FROM t", (100051, "22012", "Division by zero")),
        ("SELECT 'x'::INT", (100038, "22018", "Numeric value 'x' is not recognized")),
        ("SELECT 'x'::DATE", (100040, "22007", "Date 'x' is not recognized")),
        ("INSERT INTO t VALUES (NULL)", (100072, "22000", "NULL result in a non-nullable column 'A'")),
        ("SELECT $nope", (2211, "02000", "Session variable '$NOPE' does not exist")),
        ("SHOW TABLES IN SCHEMA nope", (2043, "02000", "Object does not exist, or operation cannot be performed.")),
    ],
)
def test_errors(fresh, sql, expected):
    """Errors have Snowflake's numbers."""
    fresh.execute("CREATE TABLE t (a INT NOT NULL)")
    fresh.execute("INSERT INTO t VALUES (1)")
    errno, sqlstate, text = failure(fresh, sql)

    assert (errno, sqlstate) == expected[:2]
    assert expected[2] in text


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE FUNCTION f(x INT) RETURNS INT AS 'x + 1'",
        "CREATE PROCEDURE p() RETURNS INT LANGUAGE SQL AS 'x'",
        "CREATE DYNAMIC TABLE d TARGET_LAG = '1 minute' WAREHOUSE = w AS SELECT 1 a",
        "CREATE EXTERNAL TABLE x (a INT)",
        "CREATE ICEBERG TABLE x (a INT)",
        "CREATE MATERIALIZED VIEW x AS SELECT 1 a",
        "CREATE TASK x AS SELECT 1",
        "CREATE STREAM x ON TABLE t",
        "EXECUTE IMMEDIATE 'SELECT 1'",
        "EXPLAIN SELECT 1",
        "SELECT * FROM t AT (OFFSET => -60)",
        "SELECT $1 FROM @~/x",
        "SELECT TO_CHAR(1, '999')",
        "SELECT RANDSTR(5, RANDOM())",
        "UNDROP TABLE t",
        "ALTER TABLE t SWAP WITH u",
        "SELECT CURRENT_USER",
        "DELETE FROM _fs_global.main.objects",
        "SELECT * FROM _fs_global.objects",
        'SELECT * FROM "/etc/x.csv"',
        "DROP SCHEMA information_schema",
        'DROP SCHEMA "_fs_information_schema"',
        'CREATE SCHEMA "main"',
        "CREATE DATABASE SELECT",
        'CREATE DATABASE "ORDER"',
        "SELECT * FROM TABLE(INFER_SCHEMA())",
        "PRAGMA database_list",
        "LOAD httpfs",
    ],
)
def test_refusals(fresh, sql):
    """Statements that DuckDB would silently run in another way are refused."""
    fresh.execute("CREATE TABLE t (a INT)")
    errno, _, text = failure(fresh, sql)

    assert errno == 2
    assert "not supported by the embedded Snowflake" in text


@pytest.mark.parametrize("view", ["PACKAGES", "stages"])
def test_views_that_snowflake_has(fresh, view):
    """A view of Snowflake's that is missing here is refused by its name; one that Snowflake lacks doesn't exist."""
    refused, unknown = (
        failure(fresh, f"SELECT * FROM INFORMATION_SCHEMA.{view}"),
        failure(fresh, f"SELECT * FROM INFORMATION_SCHEMA.{view}_OF_MINE"),
    )

    assert (2, 2003) == (refused[0], unknown[0])
    assert f"INFORMATION_SCHEMA.{view.upper()} is not supported by the embedded Snowflake" in refused[2]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM \"read_text\"('/etc/hostname')",
        "SELECT * FROM '/etc/hostname'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT getenv('HOME')",
        "SELECT * FROM query('SELECT 1')",
        "COPY (SELECT 1) TO '/tmp/mljobs-escape'",
        "ATTACH '/tmp/mljobs-escape.db' AS x",
        "INSTALL httpfs",
        "SET GLOBAL enable_external_access = true",
        "SELECT * FROM duckdb_settings()",
    ],
)
def test_no_way_out(cursor, sql):
    """SQL reaches neither files nor DuckDB's settings."""
    assert failure(cursor, sql)[0] in {2, 1003, 2140, 2143}
    assert not os.path.exists("/tmp/mljobs-escape")  # noqa: PTH110


def test_duckdb_is_locked(tmp_path):
    """Even DuckDB's own SQL can't read outside the root or change that."""
    import duckdb

    from airflow_provider_mljobs.emulator.sql.bridge import Databases

    databases = Databases(tmp_path)
    link = databases.link()
    for sql in ("SELECT * FROM read_text('/etc/hostname')", "ATTACH '/tmp/x.db'", "INSTALL httpfs", "LOAD httpfs"):
        with pytest.raises(duckdb.Error):
            link.query(sql)
    with pytest.raises(duckdb.Error):
        link.query("SET GLOBAL enable_external_access = true")
    link.close()
    databases.close()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("NULL::TIMESTAMP", None),
        ("7 % 2", 1),
        ("DIV0(1, 0)", 0),
        ("TYPEOF(PARSE_JSON('1'))", "INTEGER"),
        ("TYPEOF(PARSE_JSON('[1]'))", "ARRAY"),
        ("TO_CHAR('2024-01-02 03:04:05'::TIMESTAMP, 'YYYY/MM/DD HH24:MI:SS')", "2024/01/02 03:04:05"),
        ("TO_VARCHAR('2024-01-02'::DATE, 'DD.MM.YY')", "02.01.24"),
        ("'ff'::BINARY", b"\xff"),
        ("v::STRING FROM (SELECT PARSE_JSON('\"x\"') AS v)", "x"),
        ("v::VARCHAR FROM (SELECT PARSE_JSON('[1,\"x\"]') AS v)", '[1,"x"]'),
        ("LEFT(v::STRING, 1) FROM (SELECT PARSE_JSON('42') AS v)", "4"),
        ("v::STRING FROM (SELECT PARSE_JSON(NULL) AS v)", None),
        ("v::STRING FROM (SELECT '2024-01-02'::DATE AS v)", "2024-01-02"),
        ("v::STRING FROM (SELECT 'x' AS v)", "x"),
        ("'5.25'::NUMBER(10,2)", Decimal("5.25")),
        ("SUM(column1) FROM VALUES (1), (2)", 3),
        ("SUM(column1) FROM VALUES (1.5), (2.25)", Decimal("3.75")),
        ("$2 FROM VALUES (1, 'x')", "x"),
        ("column2 FROM VALUES (1, 'x') AS t", "x"),
        ("TO_TIMESTAMP(0)", dt.datetime(1970, 1, 1)),
        ("COUNT(*) FROM TABLE(GENERATOR(ROWCOUNT => 100000))", 100000),
        ("MAX(s) FROM (SELECT SEQ4() AS s FROM TABLE(GENERATOR(ROWCOUNT => 10)))", 9),
    ],
)
def test_values(cursor, expression, expected):
    """Expressions have Snowflake's results."""
    assert value(cursor, expression) == expected


def test_nested_values_are_json(cursor):
    """Arrays and objects travel as JSON."""
    row = cursor.execute("SELECT ARRAY_CONSTRUCT(1, 2), OBJECT_CONSTRUCT('a', 1), [1, 'x']::VARIANT").fetchone()

    assert [text.replace(" ", "") for text in row[:2]] == ["[1,2]", '{"a":1}']


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("select count(*), max( a ) from t", ["COUNT(*)", "MAX( A )"]),
        ("select distinct a, b b2, 'x', a+1 from t", ["A", "B2", "'X'", "A+1"]),
        ("with c as (select 1 one) select one, one + 1 from c", ["ONE", "ONE + 1"]),
        ("select listagg(b) within group (order by b), 1 from t", ["LISTAGG(B) WITHIN GROUP (ORDER BY B)", "1"]),
        ("select * from (select count(1) from t)", ["COUNT(1)"]),
        ('select 1 as "lower", 2 as upper', ["lower", "UPPER"]),
    ],
)
def test_column_names(fresh, sql, names):
    """Columns without a name are called after their text, in upper case."""
    fresh.execute("CREATE TABLE t (a INT, b VARCHAR)")
    fresh.execute(sql)

    assert [column.name for column in fresh.description] == names


def test_session_functions(fresh):
    """Session functions return the state of the session."""
    row = fresh.execute(
        "SELECT CURRENT_DATABASE(), CURRENT_SCHEMA(), CURRENT_WAREHOUSE(), CURRENT_USER(), CURRENT_ACCOUNT()"
    ).fetchone()

    assert row == ("MLJOBS_DB", "SCRATCH", "MLJOBS_WH", "MLJOBS", "MLJOBS")


def test_binds(fresh):
    """Binds keep their places, IDENTIFIER takes qualified names, also where both stand in one statement."""
    fresh.execute("CREATE TABLE IDENTIFIER(?) (a INT, b VARCHAR)", ("mljobs_db.scratch.b",))
    fresh.execute("INSERT INTO IDENTIFIER(?) SELECT ?, ?", ("scratch.b", 1, "it's ?"))
    rows = fresh.execute("SELECT a, ? FROM IDENTIFIER(?) WHERE b = ? LIMIT ?", ("x", "b", "it's ?", 1)).fetchall()

    assert rows == [(1, "x")]


def test_dml_counts(fresh):
    """DML returns counts under Snowflake's names."""
    fresh.execute("CREATE TABLE t (a INT, b VARCHAR)")
    results = []
    for sql in (
        "INSERT INTO t VALUES (1, 'x'), (2, 'y')",
        "UPDATE t SET b = 'z' WHERE a = 1",
        """MERGE INTO t USING (SELECT 2 k UNION SELECT 3) s ON t.a = s.k WHEN MATCHED THEN UPDATE SET b = 'm'
        WHEN NOT MATCHED THEN INSERT (a) VALUES (s.k)""",
        "DELETE FROM t WHERE a = 3",
        "INSERT OVERWRITE INTO t VALUES (9, 'o')",
    ):
        row = fresh.execute(sql).fetchone()
        results.append((dict(zip([column.name for column in fresh.description], row, strict=True)), fresh.rowcount))

    assert results == [
        ({"number of rows inserted": 2}, 2),
        ({"number of rows updated": 1, "number of multi-joined rows updated": 0}, 1),
        ({"number of rows inserted": 1, "number of rows updated": 1}, 2),
        ({"number of rows deleted": 1}, 1),
        ({"number of rows inserted": 1}, 1),
    ]
    assert fresh.execute("SELECT * FROM t").fetchall() == [(9, "o")]


def test_a_failed_merge_changes_nothing(fresh):
    """A statement that becomes several is one transaction."""
    fresh.execute("CREATE TABLE t (a INT NOT NULL)")
    fresh.execute("INSERT INTO t VALUES (1)")
    failure(
        fresh,
        "MERGE INTO t USING (SELECT 1 k UNION SELECT 2) s ON t.a = s.k WHEN MATCHED THEN DELETE "
        "WHEN NOT MATCHED THEN INSERT (a) VALUES (NULL)",
    )

    assert fresh.execute("SELECT a FROM t").fetchall() == [(1,)]


def test_describe_runs_nothing(fresh):
    """A description returns the columns and changes nothing."""
    described = [column.name for column in fresh.describe("CREATE TABLE t AS SELECT 1 a")]
    fresh.execute("CREATE TABLE t (a INT)")
    inserted = [column.name for column in fresh.describe("INSERT INTO t SELECT 1")]
    selected = [(column.name, column.type_code) for column in fresh.describe("SELECT a, 'x' b FROM t WHERE a = 1")]

    assert (described, inserted) == (["status"], ["number of rows inserted"])
    assert selected == [("A", 0), ("B", 2)]
    assert value(fresh, "COUNT(*) FROM t") == 0


def test_transactions(fresh):
    """A transaction is committed or rolled back; DDL ends it; a COMMIT without one does nothing."""
    fresh.execute("CREATE TABLE t (a INT)")
    for sql in ("BEGIN", "BEGIN", "INSERT INTO t VALUES (1)", "ROLLBACK", "COMMIT"):
        fresh.execute(sql)
    nothing = value(fresh, "COUNT(*) FROM t")
    for sql in ("BEGIN", "INSERT INTO t VALUES (1)", "CREATE TABLE u (a VARCHAR(3))", "ROLLBACK"):
        fresh.execute(sql)

    assert (nothing, value(fresh, "COUNT(*) FROM t")) == (0, 1)


def test_autocommit_off(fresh):
    """Without AUTOCOMMIT a DML statement opens a transaction."""
    fresh.execute("CREATE TABLE t (a INT)")
    fresh.execute("ALTER SESSION SET AUTOCOMMIT = FALSE")
    fresh.execute("INSERT INTO t VALUES (1)")
    fresh.execute("ROLLBACK")

    assert value(fresh, "COUNT(*) FROM t") == 0


def test_many_writers(fresh, snowflake):
    """Autocommitted writers of one row wait for each other."""
    from snowflake import connector

    fresh.execute("CREATE TABLE mljobs_db.scratch.counter (n INT)")
    fresh.execute("INSERT INTO mljobs_db.scratch.counter VALUES (0)")
    failures = []

    def count():
        with connector.connect(**snowflake.connection_kwargs) as connection:
            for _ in range(10):
                try:
                    connection.cursor().execute("UPDATE mljobs_db.scratch.counter SET n = n + 1")
                except connector.errors.Error as problem:
                    failures.append(problem)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert value(fresh, "n FROM mljobs_db.scratch.counter") == 40


def test_temporary_tables(fresh, snowflake):
    """A temporary table has a schema, hides a permanent one of the same name, and belongs to the session."""
    from snowflake import connector

    fresh.execute("CREATE TABLE t AS SELECT 'permanent' a")
    fresh.execute("CREATE SCOPED TEMPORARY TABLE mljobs_db.scratch.t (a VARCHAR(9))")
    fresh.execute("INSERT INTO scratch.t VALUES ('temporary')")
    mine = value(fresh, "a FROM mljobs_db.scratch.t")
    described = fresh.execute("DESCRIBE TABLE t").fetchall()[0][:2]
    with connector.connect(**snowflake.connection_kwargs) as other:
        theirs = other.cursor().execute("SELECT a FROM mljobs_db.scratch.t").fetchone()[0]
    fresh.execute("DROP TABLE t")

    assert (mine, theirs) == ("temporary", "permanent")
    assert described == ("A", "VARCHAR(9)")
    assert value(fresh, "a FROM t") == "permanent"


def test_databases_and_schemas(cursor):
    """CREATE moves the session into the new schema, DROP out of it."""
    created = cursor.execute("CREATE OR REPLACE DATABASE other COMMENT = 'x'").fetchone()[0]
    inside = (value(cursor, "CURRENT_DATABASE()"), value(cursor, "CURRENT_SCHEMA()"))
    cursor.execute("CREATE TABLE t (a INT)")
    listed = [row[1] for row in cursor.execute("SHOW DATABASES LIKE 'oth%'").fetchall()]
    cursor.execute("CREATE SCHEMA s")
    cursor.execute("DROP SCHEMA s")
    after = value(cursor, "CURRENT_SCHEMA()")
    cursor.execute("DROP DATABASE other")

    assert created == "Database OTHER successfully created."
    assert inside == ("OTHER", "PUBLIC")
    assert (listed, after) == (["OTHER"], None)
    assert cursor.execute("DROP DATABASE IF EXISTS other").fetchone()[0].endswith("(OTHER already dropped).")
    assert failure(cursor, "SELECT * FROM other.public.t")[0] == 2003
    assert failure(cursor, "CREATE TABLE t (a INT)")[0] == 90105


@pytest.mark.parametrize(
    ("sql", "binds"),
    [
        ("SELECT ? a, ? b, ? c, ? d, ? e, ? f", (1, 1.5, "x", True, b"x", None)),
        ("SELECT ? a, ? b, ? c", (dt.date(2024, 1, 1), dt.time(1), dt.datetime(2024, 1, 1))),
        ("SELECT * FROM t WHERE a = ? AND d < ? LIMIT ?", (1, "2024-01-01", 1)),
        ("SELECT * FROM IDENTIFIER(?)", ("t",)),
        ("SELECT PARSE_JSON(?):a, DATEADD(day, ?, d), COALESCE(?, 'x') FROM t", ('{"a": 1}', 1, None)),
    ],
)
def test_describe_with_binds(fresh, sql, binds):
    """A description has the types that the execution with these binds has."""
    fresh.execute("CREATE TABLE t (a INT, d DATE)")
    described = [(column.name, column.type_code) for column in fresh.describe(sql, binds)]

    assert [(column.name, column.type_code) for column in fresh.execute(sql, binds).description] == described


def test_the_current_time_needs_no_parentheses(fresh):
    """CURRENT_DATE and its like may be written without parentheses, and be columns' names."""
    names = ("CURRENT_TIMESTAMP", "CURRENT_DATE", "CURRENT_TIME", "LOCALTIME", "LOCALTIMESTAMP")
    (row,) = fresh.execute(f"SELECT {', '.join(names)}").fetchall()

    assert [type(value) for value in row] == [dt.datetime, dt.date, dt.time, dt.time, dt.datetime]
    assert [column.name for column in fresh.description] == list(names)


def test_infer_schema_of_something_else(fresh, tmp_path):
    """A file of another format is an error of the statement."""
    (tmp_path / "x.csv").write_bytes(b"\x1f\x8b\xff\xfe\n" * 3)
    fresh.execute("CREATE STAGE s")
    fresh.execute("CREATE FILE FORMAT f TYPE = CSV")
    fresh.execute(f"PUT file://{tmp_path}/x.csv @s AUTO_COMPRESS = FALSE")

    assert 603 != failure(fresh, "SELECT * FROM TABLE(INFER_SCHEMA(LOCATION => '@s/x.csv', FILE_FORMAT => 'f'))")[0]


def test_file_formats_go_with_their_schema(fresh):
    """A schema is dropped with its file formats."""
    fresh.execute("CREATE FILE FORMAT f TYPE = CSV")
    fresh.execute("CREATE OR REPLACE SCHEMA mljobs_db.scratch")

    assert fresh.execute("SHOW FILE FORMATS LIKE 'f'").fetchall() == []


def test_show_and_describe(fresh):
    """SHOW and DESCRIBE return types, lengths, keys, comments and the creation time of a table."""
    fresh.execute("CREATE TABLE t (a INT NOT NULL PRIMARY KEY, b VARCHAR(10) DEFAULT 'x', c VARIANT) COMMENT = 'c'")
    fresh.execute("CREATE VIEW v AS SELECT a FROM t")
    described = [row[:6] for row in fresh.execute("DESC TABLE t").fetchall()]
    tables = fresh.execute("SHOW TABLES LIKE 't' IN SCHEMA scratch").fetchall()
    columns = [row[2] for row in fresh.execute("SHOW COLUMNS IN TABLE t").fetchall()]
    objects = [(row[1], row[4]) for row in fresh.execute("SHOW OBJECTS").fetchall()]
    terse = fresh.execute("SHOW TERSE VIEWS").fetchall()
    schemas = [row[1] for row in fresh.execute("SHOW SCHEMAS STARTS WITH 'SC'").fetchall()]

    assert described == [
        ("A", "NUMBER(38,0)", "COLUMN", "N", None, "Y"),
        ("B", "VARCHAR(10)", "COLUMN", "Y", "'x'", "N"),
        ("C", "VARIANT", "COLUMN", "Y", None, "N"),
    ]
    assert (tables[0][1], tables[0][5]) == ("T", "c")
    assert time.time() - tables[0][0].timestamp() < 60
    assert (columns, objects) == (["A", "B", "C"], [("T", "TABLE"), ("V", "VIEW")])
    assert (terse[0][1:], schemas) == (("V", "VIEW", "MLJOBS_DB", "SCRATCH"), ["SCRATCH"])


def test_warehouses(cursor):
    """Warehouses are names."""
    cursor.execute("CREATE WAREHOUSE IF NOT EXISTS wh2 WAREHOUSE_SIZE = XSMALL")
    cursor.execute("ALTER WAREHOUSE wh2 SET AUTO_SUSPEND = 60")
    listed = [row[0] for row in cursor.execute("SHOW WAREHOUSES LIKE 'WH2'").fetchall()]
    cursor.execute("USE WAREHOUSE mljobs_wh")
    cursor.execute("DROP WAREHOUSE wh2")

    assert listed == ["WH2"]
    assert failure(cursor, "ALTER WAREHOUSE nope SUSPEND")[0] == 2003


def test_variables(cursor):
    """Variables hold values and names."""
    cursor.execute("SET x = 40 + 2")
    cursor.execute("SET name = 'it''s'")
    row = cursor.execute("SELECT $x, $name").fetchone()
    cursor.execute("UNSET x")

    assert row == (42, "it's")
    assert failure(cursor, "SELECT $x")[0] == 2211


def test_generated_data(fresh):
    """A table of 100,000 generated rows: whole and real numbers, seeded and not."""
    fresh.execute(
        "CREATE TABLE big AS SELECT SEQ8() id, UNIFORM(1, 10, RANDOM(1)) u, UNIFORM(0::FLOAT, 1::FLOAT, RANDOM()) f, "
        "NORMAL(5, 2, RANDOM(2)) n FROM TABLE(GENERATOR(ROWCOUNT => 100000))"
    )
    row = fresh.execute(
        "SELECT COUNT(DISTINCT id), MIN(u), MAX(u), AVG(f), AVG(n), STDDEV(n), COUNT(DISTINCT f) FROM big"
    ).fetchone()

    assert row[:3] == (100000, 1, 10)
    assert row[3:6] == (pytest.approx(0.5, abs=0.02), pytest.approx(5, abs=0.1), pytest.approx(2, abs=0.1))
    assert row[6] > 90000


@pytest.mark.filterwarnings("ignore:is_datetime64tz_dtype is deprecated")
@pytest.mark.parametrize("unit", ["us", "ns"])
def test_write_pandas_times(fresh, unit):
    """Times of a DataFrame stay times, also nanoseconds with a time zone."""
    import pandas as pd
    from snowflake.connector.pandas_tools import write_pandas

    times = pd.to_datetime(["2026-01-01 12:00:00.25"]).as_unit(unit)
    frame = pd.DataFrame({"ZONED": times.tz_localize("Europe/Berlin"), "PLAIN": times})
    write_pandas(fresh.connection, frame, f"TIMES_{unit}".upper(), auto_create_table=True, use_logical_type=True)

    plain = dt.datetime(2026, 1, 1, 12, 0, 0, 250_000)
    assert [(plain.replace(hour=11, tzinfo=dt.UTC), plain)] == fresh.execute(f"SELECT * FROM TIMES_{unit}").fetchall()


@pytest.mark.filterwarnings("ignore:is_datetime64tz_dtype is deprecated")
def test_write_pandas(fresh):
    """100,000 rows of pandas go in and come back, into a new table and an existing one."""
    import pandas as pd
    from snowflake.connector.pandas_tools import write_pandas

    frame = pd.DataFrame({"id": range(100_000), "s": "ü'\",", "t": pd.Timestamp("2020-01-01 10:00"), "b": True})
    frame["x"] = frame["id"] / 7
    write_pandas(fresh.connection, frame, "wp", auto_create_table=True)
    write_pandas(fresh.connection, frame, "wp")
    fresh.execute('SELECT * FROM "wp" WHERE "id" < 50000 ORDER BY "id" LIMIT 1 OFFSET 2')
    back = fresh.fetch_pandas_all()

    assert value(fresh, 'COUNT(*) FROM "wp"') == 200_000
    assert back.to_dict("records") == [frame.iloc[1].to_dict()]


def test_snowpark(session):
    """Frames are created, cached, split, described, saved, merged, sampled and read back."""
    from snowflake.snowpark import functions

    frame = session.create_dataframe([(1, "a"), (2, None)], schema=["k", "v"])
    frame.write.save_as_table("sp", mode="overwrite")
    frame.write.save_as_table("sp", mode="append")
    table = session.table("sp")
    other = session.create_dataframe([(1, "z")], schema=["k", "v"])
    merged = table.merge(other, table["k"] == other["k"], [functions.when_matched().update({"v": other["v"]})])

    assert merged.rows_updated == 2
    assert sorted(row[0] for row in frame.cache_result().collect()) == [1, 2]
    assert sum(part.count() for part in session.range(1000).random_split([0.5, 0.5], seed=1)) == 1000
    assert {row[0] for row in table.describe().collect()} == {"count", "mean", "stddev", "min", "max"}
    assert table.sample(n=2).count() == 2
    assert table.group_by("k").agg(functions.sum("k").alias("s")).sort("k").collect()[1]["S"] == 4
    assert table.to_pandas()["K"].tolist() == [1, 2, 1, 2]
    assert [field.datatype.simple_string() for field in table.schema] == ["bigint", "string"]


def test_snowpark_appends_to_a_new_table(session):
    """The first append creates the table: Snowpark writes IF NOT EXISTS behind its name, quoted or not."""
    frame = session.create_dataframe([(1, "a")], schema=["k", "v"])
    for _ in range(2):
        frame.write.save_as_table('mljobs_db.scratch."New one"', mode="append")

    assert 2 == session.table('"New one"').count()


def test_copy_into(fresh, tmp_path):
    """CSV is loaded as text and stored by type, once; columns can be transformed; a failure loads nothing."""
    (tmp_path / "a.csv").write_text("id,name\n1,007\n2,\n")
    (tmp_path / "bad.csv").write_text("3,x\noops,y\n")
    fresh.execute("CREATE TABLE t (id INT, name VARCHAR)")
    fresh.execute("CREATE STAGE s")
    fresh.execute("CREATE FILE FORMAT f TYPE = CSV SKIP_HEADER = 1")
    fresh.execute(f"PUT file://{tmp_path}/*.csv @s")
    first = fresh.execute("COPY INTO t FROM @s/a.csv FILE_FORMAT = (FORMAT_NAME = f)").fetchone()
    again = fresh.execute("COPY INTO t FROM @s/a.csv FILE_FORMAT = (FORMAT_NAME = 'F')").fetchone()
    fresh.execute(
        "COPY INTO t (id) FROM (SELECT $1::INT * 10 FROM @s) FILES = ('a.csv.gz') FILE_FORMAT = f FORCE = TRUE"
    )
    errno = failure(fresh, "COPY INTO t FROM @s PATTERN = '.*bad.*' FILE_FORMAT = (TYPE = CSV)")[0]

    assert (first[:4], again[1]) == (("s/a.csv.gz", "LOADED", 2, 2), "LOAD_SKIPPED")
    assert errno == 100038
    assert sorted(fresh.execute("SELECT * FROM t").fetchall(), key=str) == [
        (1, "007"),
        (10, None),
        (2, None),
        (20, None),
    ]
    assert failure(fresh, "COPY INTO t FROM @s ON_ERROR = CONTINUE")[0] == 2


def test_unload(fresh):
    """A table goes into a stage as Parquet and comes back by column name; CSV has Snowflake's NULL."""
    fresh.execute("CREATE TABLE t AS SELECT $1 id, $2 name FROM VALUES (1, 'a,b'), (2, NULL)")
    fresh.execute("CREATE STAGE s")
    unloaded = fresh.execute("COPY INTO @s/p/ FROM t FILE_FORMAT = (TYPE = PARQUET)").fetchone()[0]
    fresh.execute("COPY INTO @s/c/ FROM (SELECT * FROM t ORDER BY id) FILE_FORMAT = (TYPE = CSV COMPRESSION = NONE)")
    fresh.execute("CREATE TABLE u (name VARCHAR, id INT)")
    fresh.execute("COPY INTO u FROM @s/p FILE_FORMAT = (TYPE = PARQUET) MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE")

    assert unloaded == 2
    assert fresh.execute("SELECT * FROM u ORDER BY id").fetchall() == [("a,b", 1), (None, 2)]
    assert [row[0] for row in fresh.execute("LIST @s/c/").fetchall()] == ["s/c/data_0_0_0.csv"]


_WRITER = """
import os, signal, sys
from airflow_provider_mljobs.emulator import serve
from snowflake import connector
server = serve(sys.argv[1])
cursor = connector.connect(**server.connection_kwargs).cursor()
for sql in ("CREATE DATABASE d2", "CREATE TABLE t (a VARCHAR(7)) COMMENT = 'kept'", "INSERT INTO t VALUES ('x')",
            "CREATE SEQUENCE q", "CREATE FILE FORMAT f TYPE = JSON", "CREATE STAGE st", "SELECT q.NEXTVAL"):
    cursor.execute(sql)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_everything_survives_a_kill(tmp_path, start, connect):
    """Tables, comments, lengths, sequences, file formats and stages outlive a server that was killed."""
    root = tmp_path / "killed"
    done = subprocess.run([sys.executable, "-c", _WRITER, str(root)], check=False, cwd=os.getcwd())  # noqa: PTH109
    cursor = connect(start(root=root)).cursor()
    cursor.execute("USE DATABASE d2")
    table = cursor.execute("SHOW TABLES").fetchone()

    assert done.returncode == -signal.SIGKILL
    assert cursor.execute("SELECT a FROM t").fetchall() == [("x",)]
    assert (table[1], table[5]) == ("T", "kept")
    assert cursor.execute("DESCRIBE TABLE t").fetchone()[1] == "VARCHAR(7)"
    assert [row[1] for row in cursor.execute("SHOW FILE FORMATS").fetchall()] == ["F"]
    assert [row[1] for row in cursor.execute("SHOW STAGES").fetchall()] == ["ST"]
    assert value(cursor, "q.NEXTVAL") > 1
