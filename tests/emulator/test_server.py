import gc
import http.client
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest

from airflow_provider_mljobs.emulator.tokens import JobIdentity
from tests.budget import budget


def post(server, path, body=None, token="", **headers):
    """Send a request without the connector; returns the HTTP status and the answer."""
    headers = {"Authorization": f'Snowflake Token="{token}"', **headers}
    with closing(http.client.HTTPConnection("127.0.0.1", server.port)) as connection:
        connection.request("POST", path, json.dumps(body or {}), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def log_in(server, **data):
    """Log in without the connector; returns the answer."""
    data = {"LOGIN_NAME": server.connection_kwargs["user"], "PASSWORD": server.password, **data}
    return post(server, "/session/v1/login-request", {"data": data})[1]


def run(server, token, sql, request_id, **body):
    """Run a statement without the connector; returns the answer."""
    return post(server, f"/queries/v1/query-request?requestId={request_id}", {"sqlText": sql, **body}, token)[1]


def test_round_trip(cursor):
    """Create, insert with binds, select, as pandas too."""
    cursor.execute("CREATE OR REPLACE TABLE trip (a INT, b VARCHAR)")
    cursor.execute("INSERT INTO trip VALUES (?, ?), (?, ?)", (1, "x", 2, None))
    inserted = cursor.rowcount
    frame = cursor.execute("SELECT * FROM trip ORDER BY a").fetch_pandas_all()

    assert inserted == 2
    assert frame.astype(object).where(frame.notna(), None).to_dict("list") == {"A": [1, 2], "B": ["x", None]}


def test_password_is_required(snowflake, connect):
    """A wrong password and a wrong user are refused with Snowflake's error."""
    from snowflake.connector.errors import DatabaseError

    for wrong in ({"password": "x"}, {"user": "somebody"}):
        with pytest.raises(DatabaseError, match="Incorrect username or password was specified") as caught:
            connect(snowflake, **wrong)

        assert caught.value.errno == 390100


def test_other_authenticators_are_refused(snowflake):
    """Authenticators that the server can't check are refused."""
    assert log_in(snowflake, AUTHENTICATOR="EXTERNALBROWSER")["code"] == "390190"
    assert post(snowflake, "/session/authenticator-request")[1]["code"] == "390190"


def test_login_context(snowflake, connect):
    """A login gets the database, schema and warehouse that it names, if they exist."""
    with connect(snowflake).cursor() as cursor:
        cursor.execute("CREATE SCHEMA IF NOT EXISTS login_schema")
        cursor.execute("CREATE WAREHOUSE IF NOT EXISTS w3")
    named = connect(snowflake, schema="login_schema", warehouse="w3", role="accountadmin")
    missing = connect(snowflake, database="nope", warehouse="nope")

    assert (named.database, named.schema, named.warehouse, named.role) == (
        "MLJOBS_DB", "LOGIN_SCHEMA", "W3", "ACCOUNTADMIN",
    )  # fmt: skip
    assert (missing.database, missing.schema, missing.warehouse) == (None, None, None)


def test_job_token(snowflake, connect):
    """A job logs in with its token, and its sessions end when the token is revoked."""
    from snowflake.connector.errors import DatabaseError, ProgrammingError

    tokens = snowflake.account.tokens
    token = tokens.issue(JobIdentity("JOB_USER", "ACCOUNTADMIN", "MLJOBS_DB", "PUBLIC", "W"))
    job = {"authenticator": "oauth", "token": token, "user": "", "password": None, "database": None, "schema": None}
    connection = connect(snowflake, **job)
    entered = (connection.database, connection.schema, connection.role)
    tokens.revoke(token)

    assert entered == ("MLJOBS_DB", "PUBLIC", "ACCOUNTADMIN")
    with pytest.raises(ProgrammingError) as caught:
        connection.cursor().execute("USE ROLE public")
    assert caught.value.errno == 390303
    with pytest.raises(DatabaseError, match="Invalid OAuth access token"):
        connect(snowflake, **job)


class Clock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self):
        """Return the time."""
        return self.now


def test_session_expires_and_is_renewed(start, connect):
    """The client renews an expired session token without its user noticing."""
    clock = Clock()
    connection = connect(start(session_lifetime=60, clock=clock))
    token = connection.rest.token
    clock.now += 61
    connection.cursor().execute("USE ROLE public")

    assert token != connection.rest.token


def test_master_token_expires(start):
    """A session that was not renewed in time is gone."""
    clock = Clock()
    server = start(session_lifetime=60, clock=clock)
    master = log_in(server)["data"]["masterToken"]
    clock.now += 4 * 60 + 1

    assert post(server, "/session/token-request", token=master)[1]["code"] == "390114"
    assert post(server, "/session/token-request", token="unknown")[1]["code"] == "390114"


def test_heartbeat_keeps_a_session(start):
    """A heartbeat extends a session."""
    clock = Clock()
    server = start(session_lifetime=60, clock=clock)
    token = log_in(server)["data"]["token"]
    for _ in range(3):
        clock.now += 40
        assert post(server, "/session/heartbeat", token=token)[1]["success"]

    assert run(server, token, "USE ROLE public", "r")["success"]


def test_closed_session(snowflake):
    """A request in a closed session gets an error that no client repeats."""
    token = log_in(snowflake)["data"]["token"]

    assert post(snowflake, "/session?delete=true", token=token)[1]["success"]
    assert run(snowflake, token, "SELECT 1", "r")["code"] == "390111"


def test_request_runs_once(snowflake, cursor):
    """A repeated request gets the first one's answer, also while that still runs."""
    cursor.execute("CREATE OR REPLACE TABLE once (a INT)")
    token = log_in(snowflake)["data"]["token"]
    run(snowflake, token, "USE WAREHOUSE mljobs_wh", "use")
    sql = "SELECT SYSTEM$WAIT(50, 'milliseconds')"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: run(snowflake, token, sql, "same"), range(8)))
    inserts = [run(snowflake, token, "INSERT INTO once VALUES (1)", "insert") for _ in range(3)]

    assert len({answer["data"]["queryId"] for answer in answers}) == 1
    assert len({answer["data"]["queryId"] for answer in inserts}) == 1
    assert cursor.execute("SELECT COUNT(*) FROM once").fetchall() == [(1,)]


def test_long_statement(start, connect):
    """A long statement is answered "in progress", and the client polls until it is done."""
    cursor = connect(start(long_statement=0.05)).cursor()

    assert cursor.execute("SELECT SYSTEM$WAIT(200, 'milliseconds')").fetchall() == [("waited 200 milliseconds",)]


def test_cancel_by_timeout(cursor):
    """The connector cancels by request id; the waiting client gets 604."""
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError) as caught:
        cursor.execute("CALL SYSTEM$WAIT(60)", timeout=1)

    assert (caught.value.errno, caught.value.sqlstate) == (604, "57014")


def test_cancel_in_the_engine(cursor, snowflake, connect):
    """A query that the SQL engine is busy with can be cancelled."""
    from snowflake.connector.errors import ProgrammingError

    heavy = "SELECT COUNT(*) FROM (SELECT a.x * b.x * c.x AS p FROM {0} a, {0} b, {0} c) WHERE p % 7 = 3"
    cursor.execute("CREATE OR REPLACE TABLE numbers (x INT)")
    cursor.executemany("INSERT INTO numbers VALUES (?)", [(n,) for n in range(5_000)])
    cursor.execute_async(heavy.format("numbers"))
    query_id = cursor.sfqid
    other = connect(snowflake).cursor()
    (answer,) = other.execute("SELECT SYSTEM$CANCEL_QUERY(?)", (query_id,)).fetchone()

    assert f"query [{query_id}] terminated." == answer
    cursor.connection.rest.request(f"/queries/{query_id}/result", method="get")
    with pytest.raises(ProgrammingError) as caught:
        cursor.connection.get_query_status_throw_if_error(query_id)
    assert caught.value.errno == 604


def test_cancel_all(cursor, snowflake):
    """SYSTEM$CANCEL_ALL_QUERIES stops the session's other statements."""
    cursor.execute_async("CALL SYSTEM$WAIT(60)")
    query_id = cursor.sfqid
    answer = cursor.execute(f"select system$cancel_all_queries({cursor.connection.session_id})").fetchone()
    ended = cursor.connection.rest.request(f"/queries/{query_id}/result", method="get")

    assert answer == ("1 queries cancelled.",)
    assert ended["code"] == "000604"


def test_async(cursor, snowflake, connect):
    """An asynchronous statement returns at once; its result is available by id, also in another session."""
    cursor.execute_async("SELECT SYSTEM$WAIT(100, 'milliseconds') AS a")
    query_id = cursor.sfqid
    running = cursor.connection.get_query_status(query_id).name
    other = connect(snowflake)
    with other.cursor() as second:
        second.get_results_from_sfqid(query_id)
        rows = second.fetchall()

    assert (running, other.get_query_status(query_id).name) == ("RUNNING", "SUCCESS")
    assert rows == [("waited 100 milliseconds",)]


def test_failing_async(cursor):
    """A failing asynchronous statement raises when its results are fetched."""
    from snowflake.connector.errors import DatabaseError

    cursor.execute_async("SELECT * FROM no_such_table")
    query_id = cursor.sfqid
    with pytest.raises(DatabaseError) as caught:  # noqa: PT012  # the first call only triggers the look
        cursor.get_results_from_sfqid(query_id)
        cursor.fetchall()

    assert caught.value.errno == 2003
    assert cursor.connection.get_query_status(query_id).name == "FAILED_WITH_ERROR"


def test_unknown_query(cursor):
    """An unknown query has no status and no result."""
    unknown = "00000000-0000-0000-0000-000000000000"

    assert cursor.connection.get_query_status(unknown).name == "NO_DATA"
    assert cursor.connection.rest.request(f"/queries/{unknown}/result", method="get")["code"] == "000709"


def test_multiple_statements(cursor):
    """Several statements are one request; each has its result, and binds belong to the statement that contains them."""
    cursor.execute("SELECT ? AS a; USE ROLE public; SELECT ';' AS b, ? AS c", (1, 2), num_statements=3)
    results = [cursor.fetchall()]
    while cursor.nextset():
        results.append(cursor.fetchall())

    assert results == [[(1,)], [("Statement executed successfully.",)], [(";", 2)]]


def test_statement_count(cursor):
    """By default a request has one statement; 0 allows any number."""
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError, match="statement count 2 did not match the desired statement count 1"):
        cursor.execute("SELECT 1; SELECT 2")

    assert cursor.execute("SELECT 1; SELECT 2;", num_statements=0).fetchall() == [(1,)]
    assert cursor.execute("SELECT 3;").fetchall() == [(3,)]


def test_failing_part(cursor):
    """The first failing part ends the request."""
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError) as caught:
        cursor.execute("USE ROLE sysadmin; USE SCHEMA nope; USE ROLE public", num_statements=3)

    assert caught.value.errno == 2043
    assert cursor.execute("SELECT CURRENT_ROLE()").fetchall() == [("SYSADMIN",)]


def test_waiting_blocks_nobody(cursor):
    """While one statement of a session waits, the others run."""
    cursor.execute_async("CALL SYSTEM$WAIT(60)")
    query_id = cursor.sfqid

    assert cursor.execute("SELECT 1").fetchall() == [(1,)]
    assert cursor.abort_query(query_id)


def test_threads_share_a_connection(connection):
    """Each thread gets its own rows from a connection that many share."""

    def ask(number):
        return connection.cursor().execute("SELECT ?", (number,)).fetchone()[0]

    with ThreadPoolExecutor(8) as pool:
        assert list(range(64)) == list(pool.map(ask, range(64)))


def test_host_header(snowflake):
    """A request under another host name is refused: a web page may have sent it."""
    assert post(snowflake, "/telemetry/send", Host=f"evil.example:{snowflake.port}")[0] == 403
    assert post(snowflake, "/telemetry/send", Host=f"localhost:{snowflake.port}")[0] == 200


def test_unknown_endpoint(snowflake):
    """An unknown endpoint is an error that no client repeats."""
    status, answer = post(snowflake, "/nothing/here")

    assert (status, answer["success"]) == (501, False)


def test_internal_error(snowflake, caplog):
    """An exception in the server is an error with its name, and its traceback is in the log."""
    token = log_in(snowflake)["data"]["token"]
    answer = run(snowflake, token, "SELECT 1", "r", bindings={"1": 5})

    assert (answer["code"], answer["data"]["sqlState"]) == ("000603", "XX000")
    assert "AttributeError" in answer["message"]
    assert "Traceback" in caplog.text


def test_statements_are_recorded(snowflake, connect):
    """The recorder counts statements and logins."""
    snowflake.statements.clear()
    cursor = connect(snowflake).cursor()
    cursor.execute("USE ROLE sysadmin")
    cursor.describe("USE ROLE public")

    assert (snowflake.statements.logins, snowflake.statements.matching("use role")) == (1, ["USE ROLE sysadmin"])
    assert snowflake.statements.total == 1


def test_one_server_per_root(start, tmp_path):
    """A second server on a root is refused with an error that names the first; after a stop the root is free."""
    from airflow_provider_mljobs.emulator.server.roots import RootInUseError

    first = start(root=tmp_path / "root")
    with pytest.raises(RootInUseError, match=f"process [0-9]+, port {first.port}"):
        start(root=tmp_path / "root")
    first.stop()

    assert first.password != start(root=tmp_path / "root").password


def test_root_is_private(start):
    """Only the user can read the password."""
    server = start()
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (server.root, server.root / "password")]

    assert modes == [0o700, 0o600]
    assert server.password == (server.root / "password").read_text()


def test_tables_survive_a_restart(start, connect, tmp_path):
    """Data on a root survives a restart."""
    with start(root=tmp_path / "root") as server:
        connect(server).cursor().execute("CREATE TABLE kept AS SELECT 1 AS a")
    server = start(root=tmp_path / "root")

    assert connect(server).cursor().execute("SELECT * FROM kept").fetchall() == [(1,)]


def test_temporary_root_is_removed():
    """A temporary root is removed at the end."""
    from airflow_provider_mljobs.emulator import serve

    with serve() as server:
        root = server.root
        was_there = root.is_dir()

    assert (was_there, root.exists()) == (True, False)


def test_stop_ends_what_runs(start, connect):
    """A stop doesn't wait for running statements, and their clients get an error."""
    server = start()
    cursor = connect(server).cursor()
    ended = threading.Event()

    def wait():
        with pytest.raises(Exception, match=r"."):
            cursor.execute("CALL SYSTEM$WAIT(60)", _no_retry=True)
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    while not server.statements.matching("WAIT"):
        time.sleep(0.01)
    server.stop()

    assert ended.wait(budget())


def test_stop_while_clients_log_in(start):
    """A login while the server stops opens no session: it gets 503, or no connection."""
    server = start()
    body = {"data": {"LOGIN_NAME": server.connection_kwargs["user"], "PASSWORD": server.password}}
    first, answers = threading.Event(), []

    def keep_coming():
        with suppress(OSError, http.client.HTTPException):
            while True:
                answers.append(post(server, "/session/v1/login-request", body)[0])
                first.set()

    threads = [threading.Thread(target=keep_coming, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    first.wait(budget())
    server.stop()
    opened = len(server._protocol.sessions.all())
    for thread in threads:
        thread.join(budget())

    assert opened == 0
    assert {200, 503} >= set(answers)


@pytest.mark.parametrize("stop", ["server.stop()", ""])
def test_the_interpreter_ends_quietly(stop):
    """The SQL engine is closed at exit, also without a stop."""
    program = f"""
from airflow_provider_mljobs.emulator import serve
from snowflake.connector import connect
server = serve()
cursor = connect(**server.connection_kwargs).cursor()
cursor.connection.close = lambda *_: None
cursor.execute("SELECT 1")
{stop}
"""
    environment = os.environ | {"SNOWFLAKE_DISABLE_PLATFORM_DETECTION": "true"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def test_environment(snowflake):
    """The environment has Airflow's connection as JSON, a variable for each part, and the authorities to trust."""
    environment = snowflake.environment
    connection = json.loads(environment["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"])

    assert ("snowflake", "MLJOBS", snowflake.password, "PUBLIC") == tuple(
        connection[key] for key in ("conn_type", "login", "password", "schema")
    )
    assert {
        "account": "MLJOBS",
        "database": "MLJOBS_DB",
        "warehouse": "MLJOBS_WH",
        "host": "127.0.0.1",
        "port": snowflake.port,
        "protocol": "http",
    } == connection["extra"]
    assert str(snowflake.port) == environment["SNOWFLAKE_PORT"]
    assert Path(environment["REQUESTS_CA_BUNDLE"]).is_file()


def test_import_is_light():
    """Importing the package loads none of the heavy libraries."""
    code = (
        "import sys, airflow_provider_mljobs.emulator.fixtures, airflow_provider_mljobs.emulator.__main__\n"
        "print({'duckdb', 'fakesnow', 'pyarrow', 'snowflake.connector', 'sqlglot'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


def test_missing_extra():
    """Without the extra, as in an interpreter without site-packages, the error names the package to install."""
    program = "from airflow_provider_mljobs import emulator; emulator.serve()"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-S", "-c", program], cwd=root, capture_output=True, text=True, check=False)

    assert done.stderr.endswith(
        "'local' extra, which installs its SQL engine: pip install 'airflow-provider-mljobs[local]'\n"
    )


def test_many_rows(cursor):
    """A large result arrives completely."""
    cursor.execute("SELECT SEQ4() AS a, 'text' AS b FROM TABLE(GENERATOR(ROWCOUNT => 200000))")

    assert len(cursor.fetch_pandas_all()) == 200_000


def test_a_stopped_server_lets_go_of_duckdb():
    """A reference to a stopped server, or to a finished query, keeps no connection of the engine alive."""
    from snowflake import connector

    from airflow_provider_mljobs.emulator import serve

    def live():
        gc.collect()
        return [item for item in gc.get_objects() if type(item).__name__ == "DuckDBPyConnection"]

    # References instead of counts, because objects of earlier tests, sockets among them, may be collected meanwhile.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        before = live()
    with serve() as server:
        for _ in range(3):
            with connector.connect(**server.connection_kwargs) as connection:
                connection.cursor().execute("SELECT 1")

    assert [] == [item for item in live() if not any(item is old for old in before)]


def test_the_python_of_jobs(tmp_path):
    """The interpreter may be a text: a path or a name; one that can't run is refused at the start."""
    from airflow_provider_mljobs.emulator.settings import Settings

    assert Path(sys.executable) == Settings(root=tmp_path, python=sys.executable).python
    assert Path(shutil.which("python3")) == Settings(root=tmp_path, python="python3").python
    for python in ("no-such-python", tmp_path, __file__):
        with pytest.raises(ValueError, match="python must be the path of an interpreter, or its name on PATH; got"):
            Settings(root=tmp_path, python=python)


def test_images_of_your_own(start, connect):
    """An image that is described to the server has its entrypoint: arguments alone replace its CMD."""
    from airflow_provider_mljobs.emulator.containers.images import Image

    script = {"/opt/greet": '#!/bin/sh\necho "hello $*"\n'}
    server = start(images={"/mljobs_db/public/own/greeter:*": Image(entrypoint=("sh", "/opt/greet"), files=script)})
    cursor = connect(server).cursor()
    cursor.execute("CREATE IMAGE REPOSITORY own")
    cursor.execute("CREATE COMPUTE POOL P MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS")
    spec = "{spec: {containers: [{name: main, image: /mljobs_db/public/own/greeter:1, args: [you]}]}}"
    cursor.execute(f"EXECUTE JOB SERVICE IN COMPUTE POOL P NAME = greet FROM SPECIFICATION $${spec}$$")

    assert [("hello you\n",)] == cursor.execute("SELECT SYSTEM$GET_SERVICE_LOGS('greet', 0, 'main')").fetchall()
