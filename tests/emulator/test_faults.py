import socket

import pytest

from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.server.faults import Faults
from airflow_provider_mljobs.emulator.settings import Fault


def effects(faults, *statements):
    """Return the effects that hit a series of statements."""
    return [fault.effect if (fault := faults.decide(sql)) else None for sql in statements]


def test_every_match():
    """Without nth and share a fault hits every matching statement, ignoring case."""
    faults = Faults([Fault(matching="insert", effect="reset")])

    assert effects(faults, "INSERT INTO t", "SELECT 1", "insert into t") == ["reset", None, "reset"]


def test_nth_and_times():
    """Nth counts matching statements only, from 1; times is their number in a row."""
    faults = Faults([Fault(matching="i", effect="reset", nth=2, times=2)])

    assert effects(faults, "i", "x", "i", "i", "i") == [None, None, "reset", "reset", None]


def test_share_is_repeatable():
    """The same seed draws the same statements."""
    fault = Fault(matching="", effect="reset", share=0.5, seed=3)
    first, second = (effects(Faults([fault]), *["x"] * 100) for _ in range(2))

    assert first == second
    assert 30 < first.count("reset") < 70


def test_add_and_clear():
    """Faults come and go while the server runs."""
    faults = Faults()
    faults.add(Fault(matching="x", effect="reset"))
    before = effects(faults, "x")
    faults.clear()

    assert (before, effects(faults, "x")) == (["reset"], [None])


def test_first_of_several_wins():
    """Of several faults that hit the first wins, and all count."""
    faults = Faults([Fault(matching="x", effect="reset", nth=1), Fault(matching="x", effect="error", nth=2)])

    assert effects(faults, "x", "x") == ["reset", "error"]


@pytest.mark.parametrize("effect", ["reset", "http_503", "session_expired", "reset_after"])
def test_client_survives(start, connect, effect):
    """The connector repeats or renews by itself; the statement takes effect exactly once."""
    server = start(faults=(Fault(matching="INSERT", effect=effect, nth=1),))
    cursor = connect(server).cursor()
    cursor.execute("CREATE TABLE t (a INT)")
    cursor.execute("INSERT INTO t VALUES (1)")

    assert cursor.rowcount == 1
    assert cursor.execute("SELECT COUNT(*) FROM t").fetchall() == [(1,)]


def test_injected_error(start, connect):
    """The statement fails with the number, state and text that the fault names, and has no effect."""
    from snowflake.connector.errors import ProgrammingError

    fault = Fault(matching="CREATE", effect="error", errno=604, sqlstate="57014", message="injected")
    cursor = connect(start(faults=(fault,))).cursor()
    with pytest.raises(ProgrammingError, match="injected") as caught:
        cursor.execute("CREATE TABLE t (a INT)")

    assert (caught.value.errno, caught.value.sqlstate) == (604, "57014")


def test_altered_answers(start, connect):
    """An answer can come without rows, in another order, or with another value in a column."""
    server = start()
    cursor = connect(server).cursor()
    cursor.execute("CREATE TABLE t (a INT, b TEXT)")
    cursor.execute("INSERT INTO t VALUES (1, 'x'), (2, 'y')")
    answers = []
    for changes in ({"effect": "empty"}, {"effect": "reversed"}, {"effect": "rewrite", "column": "a", "value": "odd"}):
        server.faults.add(Fault(matching="FROM t", **changes))
        answers.append(cursor.execute("SELECT a, b FROM t ORDER BY a").fetchall())
        server.faults.clear()

    assert [[], [(2, "y"), (1, "x")], [("odd", "x"), ("odd", "y")]] == answers


def test_an_altered_listing(start, connect):
    """SHOW is rewritten as well; other columns stay as they are."""
    server = start()
    server.faults.add(Fault(matching="SHOW DATABASES", effect="rewrite", column="name"))
    server.faults.add(Fault(matching="SHOW SCHEMAS", effect="rewrite", column="nothing"))
    cursor = connect(server).cursor()

    assert {None} == {row[1] for row in cursor.execute("SHOW DATABASES").fetchall()}
    assert cursor.execute("SHOW SCHEMAS").fetchall()


def test_master_expired(start, connect):
    """A session with an expired master token is lost: the user gets the error and logs in again."""
    from snowflake.connector.errors import ProgrammingError

    server = start(faults=(Fault(matching="SELECT 7", effect="master_expired", nth=1),))
    with pytest.raises(ProgrammingError) as caught:
        connect(server).cursor().execute("SELECT 7")

    assert caught.value.errno == 390114
    assert connect(server).cursor().execute("SELECT 7").fetchall() == [(7,)]


def refused(connect, server, **changes):
    """Fail to log in; return the error."""
    from snowflake.connector.errors import DatabaseError

    with pytest.raises(DatabaseError) as caught:
        connect(server, **changes)
    return caught.value


@pytest.mark.parametrize("effect", ["reset", "reset_after", "http_503"])
def test_login_is_repeated(start, connect, effect):
    """The connector repeats a login that the server didn't answer."""
    server = start(faults=(Fault(request="login", effect=effect, nth=1),))

    assert connect(server).cursor().execute("SELECT 7").fetchall() == [(7,)]


def test_refused_login(start, connect):
    """A fault can fail logins; matching statements are not hit."""
    message = "Incorrect username or password was specified."
    server = start()
    cursor = connect(server).cursor()
    server.faults.add(Fault(request="login", effect="error", errno=390100, sqlstate="08001", message=message))
    error = refused(connect, server)

    assert 390100 == error.errno
    assert f"Failed to connect to DB: 127.0.0.1:{server.port}. {message}" in error.msg
    assert [(7,)] == cursor.execute("SELECT 7").fetchall()


def test_logins_match_by_user(start, connect):
    """A login matches by its user, and only such matches count."""
    server = start()
    server.faults.add(
        Fault(request="login", matching="^somebody$", effect="error", errno=1, nth=2),
        Fault(request="statement", matching="MLJOBS", effect="error", errno=2),
    )
    connect(server)
    errors = [refused(connect, server, user="somebody") for _ in range(2)]

    assert [390100, 1] == [error.errno for error in errors]


def test_slow_login(start, connect):
    """A login can be delayed."""
    import time

    server = start(faults=(Fault(request="login", effect="delay", seconds=0.2),))
    begin = time.monotonic()
    connect(server)

    assert time.monotonic() - begin >= 0.2


def test_what_logins_cannot_meet():
    """Faults of sessions can't hit logins."""
    with pytest.raises(ValueError, match="The effect 'master_expired' hits statements only"):
        Fault(request="login", effect="master_expired")


def test_revoked_credentials(start, connect):
    """Revoked credentials expire sessions and refuse logins, until the password is restored."""
    from snowflake.connector.errors import ProgrammingError

    server = start()
    old = connect(server)
    server.revoke_credentials()
    with pytest.raises(ProgrammingError) as caught:
        old.cursor().execute("SELECT 7")
    error = refused(connect, server)
    server.restore_credentials()

    assert 390114 == caught.value.errno
    assert 390100 == error.errno
    assert [(7,)] == connect(server).cursor().execute("SELECT 7").fetchall()
    with pytest.raises(ProgrammingError):
        old.cursor().execute("SELECT 7")


def test_jobs_survive_revoked_credentials(start, connect):
    """Revoked credentials don't affect the tokens of jobs."""
    from airflow_provider_mljobs.emulator.tokens import JobIdentity

    server = start()
    identity = JobIdentity("J", "ACCOUNTADMIN", server.settings.database, server.settings.schema, None)
    job = {"authenticator": "oauth", "token": server.account.tokens.issue(identity)}
    before = connect(server, **job)
    server.revoke_credentials()

    for connection in (before, connect(server, **job)):
        assert [("J",)] == connection.cursor().execute("SELECT CURRENT_USER()").fetchall()


def test_outage(start, connect):
    """An outage cuts open connections and refuses new ones; afterwards sessions continue."""
    import threading
    import time

    from snowflake.connector.errors import OperationalError

    server = start()
    connection = connect(server)
    answered = []

    def run():
        answered.extend(connection.cursor().execute("SELECT SYSTEM$WAIT(1) AS W, 7").fetchall())

    waiting = threading.Thread(target=run)
    waiting.start()
    while not server.statements.matching("WAIT"):
        time.sleep(0.01)
    with server.outage():
        with pytest.raises(OperationalError, match="250001"):
            connect(server, login_timeout=1, network_timeout=1)
        open_socket = socket.create_connection(("127.0.0.1", server.port))
        with open_socket, pytest.raises(ConnectionResetError):
            open_socket.recv(1)
        assert [] == answered
    waiting.join()

    assert 7 == answered[0][1]
    assert 1 == len(server.statements.matching("WAIT"))
    assert [(7,)] == connection.cursor().execute("SELECT 7").fetchall()


def test_outage_cuts_open_connections(start):
    """An outage also resets a request that waits for its answer."""
    server = start()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /session HTTP/1.1\r\nContent-Length: 2\r\n\r\n")
        with server.outage(), pytest.raises(ConnectionResetError):
            client.recv(1)


def test_delay(start, connect):
    """A delayed answer comes after the time that the fault names."""
    import time

    cursor = connect(start(faults=(Fault(matching="USE", effect="delay", seconds=0.2),))).cursor()
    begin = time.monotonic()
    cursor.execute("USE WAREHOUSE mljobs_wh")

    assert time.monotonic() - begin >= 0.2


def test_answer(start, connect):
    """A given answer replaces the statement: its columns, types and rows reach the client, and nothing runs."""
    answer = Result((Column("name"), Column("count", "fixed")), [("a", 1), (None, 2)], statement="show")
    server = start(faults=(Fault(matching="CREATE TABLE", effect="answer", answer=answer),))
    cursor = connect(server).cursor()

    rows = cursor.execute("CREATE TABLE t (a INT)").fetchall()

    assert rows == [("a", 1), (None, 2)]
    assert [(column.name, column.type_code) for column in cursor.description] == [("name", 2), ("count", 0)]
    assert cursor.execute("SHOW TABLES").fetchall() == []


@pytest.mark.parametrize("fields", [{"effect": "answer"}, {"effect": "reset", "answer": Result(())}])
def test_answer_without_its_effect(fields):
    """An answer and the effect 'answer' belong together."""
    with pytest.raises(ValueError, match="needs an answer"):
        Fault(matching="x", **fields)
