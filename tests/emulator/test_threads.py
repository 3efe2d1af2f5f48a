import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

THREADS = 8
STATEMENTS = 200


@pytest.fixture
def session(snowflake):
    """Open a Snowpark session."""
    from snowflake.snowpark import Session

    with Session.builder.configs(snowflake.connection_kwargs).create() as session:
        yield session


def in_threads(action):
    """Call an action with each number, in eight threads, and return the results."""
    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(action, range(STATEMENTS)))


@pytest.fixture
def ddl(connection):
    """Create and drop tables in another thread of the same connection while a test runs."""
    done = threading.Event()

    def work():
        cursor = connection.cursor()
        while not done.is_set():
            cursor.execute("CREATE OR REPLACE TABLE mljobs_db.public.beside AS SELECT 1 AS a")
            cursor.execute("CREATE OR REPLACE TEMPORARY TABLE beside_t (a INT)")
            cursor.execute("DROP TABLE mljobs_db.public.beside")

    with ThreadPoolExecutor(1) as thread:
        working = thread.submit(work)
        yield
        done.set()
        working.result()


def test_snowpark_collects_in_threads(session):
    """Each thread of a Snowpark session collects the rows of its own query."""
    assert in_threads(lambda n: session.sql(f"SELECT {n} AS a").collect()) == [[(n,)] for n in range(STATEMENTS)]


def test_snowpark_frames_in_threads(session):
    """Threads of a Snowpark session build, save, describe and read frames of their own."""

    def work(n):
        frame = session.create_dataframe([(n, "a"), (n + 1, "b")], schema=["n", "s"])
        frame.write.save_as_table(f"threads_{n}", mode="overwrite", table_type="temporary")
        table = session.table(f"threads_{n}")
        return table.schema.names, table.filter("s = 'b'").collect(), session.range(n).count()

    with ThreadPoolExecutor(THREADS) as threads:
        results = list(threads.map(work, range(24)))

    assert results == [(["N", "S"], [(n + 1, "b")], n) for n in range(24)]


def test_snowpark_jobs_in_threads(session):
    """Queries that Snowpark starts without waiting return their own rows."""

    def work(n):
        job = session.sql(f"SELECT {n} AS a").collect_nowait()
        return job.result()

    assert in_threads(work) == [[(n,)] for n in range(STATEMENTS)]


@pytest.mark.usefixtures("ddl")
def test_cursors_in_threads(connection):
    """Cursors of one connection read their own rows, by their own query ids, also beside DDL."""

    def work(n):
        cursor = connection.cursor()
        rows = cursor.execute("SELECT ?, COUNT(*) FROM TABLE(GENERATOR(ROWCOUNT => 3))", (n,)).fetchall()
        again = connection.cursor().execute(f"SELECT * FROM TABLE(RESULT_SCAN('{cursor.sfqid}'))").fetchall()
        return rows, again

    assert in_threads(work) == [([(n, 3)], [(n, 3)]) for n in range(STATEMENTS)]


@pytest.mark.usefixtures("ddl")
def test_asynchronous_cursors_in_threads(connection):
    """Statements that are started without waiting return their own rows, also beside DDL."""

    def work(n):
        cursor = connection.cursor()
        cursor.execute_async("SELECT ?", (n,))
        results = connection.cursor()
        results.get_results_from_sfqid(cursor.sfqid)
        return results.fetchall()

    assert in_threads(work) == [[(n,)] for n in range(STATEMENTS)]


def test_writers_in_threads(connection):
    """Threads of one connection that write to one table lose no row."""
    connection.cursor().execute("CREATE OR REPLACE TABLE mljobs_db.public.threads_written (n INT)")

    def work(n):
        return connection.cursor().execute("INSERT INTO mljobs_db.public.threads_written VALUES (?)", (n,)).rowcount

    assert in_threads(work) == [1] * STATEMENTS
    total = connection.cursor().execute("SELECT COUNT(DISTINCT n) FROM mljobs_db.public.threads_written").fetchone()
    assert total == (STATEMENTS,)


def test_stages_in_threads(connection, tmp_path):
    """Statements about the stage of a table and its files leave the rows of other threads alone."""
    (tmp_path / "a.csv").write_text("n\n1\n")
    cursor = connection.cursor()
    cursor.execute("CREATE OR REPLACE TABLE mljobs_db.public.threads_staged (n INT)")
    cursor.execute(f"PUT file://{tmp_path}/a.csv @mljobs_db.public.%threads_staged AUTO_COMPRESS = FALSE")
    cursor.execute("CREATE OR REPLACE FILE FORMAT mljobs_db.public.with_header TYPE = CSV PARSE_HEADER = TRUE")
    infer = (
        "SELECT column_name FROM TABLE(INFER_SCHEMA(LOCATION => '@mljobs_db.public.%threads_staged', "
        "FILE_FORMAT => 'mljobs_db.public.with_header'))"
    )
    statements = ("LIST @mljobs_db.public.%threads_staged", infer, "SELECT 7 AS a")

    results = in_threads(lambda n: connection.cursor().execute(statements[n % 3]).fetchone()[0])

    cursor.execute("DROP TABLE mljobs_db.public.threads_staged")

    assert set(results[0::3]) == {"a.csv"}
    assert set(results[1::3]) == {"n"}
    assert set(results[2::3]) == {7}


def test_cancelling_one_of_many(connection, snowflake, connect):
    """A cancelled statement ends, and those of the same session that wait behind it run."""
    numbers = "TABLE(GENERATOR(ROWCOUNT => 100000))"
    heavy = (
        f"SELECT COUNT(*) FROM (SELECT SEQ4() x FROM {numbers}) a, (SELECT SEQ4() y FROM {numbers}) b WHERE x + y = 7"
    )
    cursor, other = connection.cursor(), connect(snowflake).cursor()
    for _ in range(5):
        cursor.execute_async(heavy)
        cancelled = cursor.sfqid
        with ThreadPoolExecutor(THREADS) as threads:
            waiting = [
                threads.submit(lambda n: connection.cursor().execute("SELECT ?", (n,)).fetchall(), n) for n in range(20)
            ]
            other.execute("SELECT SYSTEM$CANCEL_QUERY(?)", (cancelled,))

            assert [answer.result() for answer in waiting] == [[(n,)] for n in range(20)]
        answer = connection.rest.request(f"/queries/{cancelled}/result", method="get")
        assert answer["code"] == "000604"
