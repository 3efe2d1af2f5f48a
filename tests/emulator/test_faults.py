import pytest

from airflow_provider_mljobs.emulator.server.faults import Faults
from airflow_provider_mljobs.emulator.settings import Fault


def effects(faults, *statements):
    """Return the effects that a series of statements meets."""
    return [fault.effect if (fault := faults.decide(sql)) else None for sql in statements]


def test_every_match():
    """Without nth and share a fault hits every matching statement, whatever its case."""
    faults = Faults([Fault(matching="insert", effect="reset")])

    assert effects(faults, "INSERT INTO t", "SELECT 1", "insert into t") == ["reset", None, "reset"]


def test_nth_and_times():
    """Nth counts matching statements only, from 1; times says how many in a row."""
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


def test_master_expired(start, connect):
    """A session whose master token expired is lost: the user gets the error and logs in again."""
    from snowflake.connector.errors import ProgrammingError

    server = start(faults=(Fault(matching="SELECT 7", effect="master_expired", nth=1),))
    with pytest.raises(ProgrammingError) as caught:
        connect(server).cursor().execute("SELECT 7")

    assert caught.value.errno == 390114
    assert connect(server).cursor().execute("SELECT 7").fetchall() == [(7,)]


def test_delay(start, connect):
    """A delayed answer comes after the time that the fault names."""
    import time

    cursor = connect(start(faults=(Fault(matching="USE", effect="delay", seconds=0.2),))).cursor()
    begin = time.monotonic()
    cursor.execute("USE WAREHOUSE w")

    assert time.monotonic() - begin >= 0.2
