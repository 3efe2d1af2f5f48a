"""The logs of containers, on the node and in the event table, through the connector."""

import json
from datetime import datetime, timedelta

import pytest

from airflow_provider_mljobs.emulator.settings import Ready, VirtualJob
from tests.budget import budget

POOL = "CREATE COMPUTE POOL IF NOT EXISTS LOGS MIN_NODES = 1 MAX_NODES = 2 INSTANCE_FAMILY = CPU_X64_S"
IMAGE = "/snowflake/images/snowflake_images/exampleimage:latest"


@pytest.fixture
def started(start, connect):
    """Start servers with given settings; return a function that runs a statement on one."""
    from snowflake.connector import DictCursor

    def started(**settings):
        connection = connect(start(**settings))

        def run(text, *binds):
            return connection.cursor(DictCursor).execute(text, binds or None).fetchall()

        run(POOL)
        return run

    return started


def submit(sql, name, script="true", clauses="ASYNC = TRUE", **containers):
    """Run a shell script in each of several containers, in one called main by default."""
    specification = {
        "spec": {
            "containers": [
                {"name": container, "image": IMAGE, "command": ["sh", "-c"], "args": [text]}
                for container, text in (containers or {"main": script}).items()
            ]
        }
    }
    text = json.dumps(specification)
    sql(f"EXECUTE JOB SERVICE IN COMPUTE POOL LOGS NAME = {name} {clauses} FROM SPECIFICATION ?", text)


def logs(sql, name, *more, instance=0, container="main"):
    """Return the log on the node."""
    arguments = ", ".join(["?"] * (3 + len(more)))
    (row,) = sql(f"SELECT SYSTEM$GET_SERVICE_LOGS({arguments}) AS LOG", name, instance, container, *more)
    return row["LOG"]


def attempt(sql, name, container="main"):
    """Return a log, or the text of its error."""
    from snowflake.connector.errors import ProgrammingError

    try:
        return logs(sql, name, container=container)
    except ProgrammingError as error:
        return str(error)


def stamps(sql, name):
    """Return the times of a job's lines, as texts."""
    return [line.split(" ")[0] for line in logs(sql, name, None, False, "", True).splitlines()]


def failure(sql, *statement):
    """Run a statement that fails; return the error."""
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError) as caught:
        sql(*statement)
    return caught.value


class TestNode:
    """SYSTEM$GET_SERVICE_LOGS."""

    def test_since(self, started):
        """A time limits the log to its lines and later ones; an empty text and NULL lines mean all."""
        sql = started()
        submit(sql, "SINCE", "echo a; echo b; echo c; echo d", clauses="")
        times = stamps(sql, "SINCE")

        assert sorted(set(times)) == times
        assert {30} == {len(time) for time in times}
        assert "c\nd\n" == logs(sql, "SINCE", None, False, times[2], False)
        assert f"{times[3]} d\n" == logs(sql, "SINCE", 1, False, times[2], True)
        assert "a\nb\nc\nd\n" == logs(sql, "SINCE", 2**31, False, "", False)
        assert "" == logs(sql, "SINCE", None, False, "2999-01-01T00:00:00Z", False)

    def test_literals(self, started):
        """The Snowflake CLI calls the function with literals."""
        sql = started()
        submit(sql, "LITERALS", "echo a; echo b; echo c", clauses="")
        since = stamps(sql, "LITERALS")[1]
        (row,) = sql(f"call SYSTEM$GET_SERVICE_LOGS('LITERALS', '0', 'main', 500, False, '{since}', True);")

        (block,) = row.values()
        assert ["b", "c"] == [line.split(" ", 1)[1] for line in block.splitlines()]

    def test_since_that_is_no_time(self, started):
        """A text that isn't a time is an error."""
        sql = started()
        submit(sql, "WRONG", clauses="")
        error = failure(sql, "SELECT SYSTEM$GET_SERVICE_LOGS('WRONG', 0, 'main', 9, FALSE, 'yesterday', TRUE)")

        assert 100035 == error.errno
        assert "Timestamp 'yesterday' is not recognized" in error.msg

    def test_limit_of_100_kb(self, started):
        """The times count towards the limit of bytes, and the log keeps its end."""
        sql = started()
        submit(sql, "LONG", "seq 1 50000", clauses="")
        text = logs(sql, "LONG", None, False, "2000-01-01T00:00:00Z", True)

        assert 100 * 1024 == len(text)
        assert text.endswith("Z 50000\n")

    def test_progress_bar(self, started):
        """Parts that end with carriage returns are one line, logged when it ends."""
        sql = started()
        submit(sql, "BAR", r"printf '50%%\r100%%\r\n'; printf 'rest'", clauses="")

        assert "50%\r100%\nrest" == logs(sql, "BAR")

    def test_virtual(self, started):
        """The lines of a virtual job are computed, in any number."""
        sql = started(virtual_jobs=(VirtualJob(name="V%", log_lines=100_000, seconds=0.0),))
        submit(sql, "V1")
        sql(f"CALL V1!SPCS_WAIT_FOR('DONE', {budget():.0f})")

        assert "line 99999 of 100000\nline 100000 of 100000\n" == logs(sql, "V1", 2)
        assert 100 * 1024 == len(logs(sql, "V1"))

    def test_virtual_since(self, started):
        """The lines of a virtual job are spread over its run; the last one comes at its end."""
        sql = started(virtual_jobs=(VirtualJob(name="V%", log_lines=3, seconds=0.003),))
        submit(sql, "V1")
        sql(f"CALL V1!SPCS_WAIT_FOR('DONE', {budget():.0f})")
        (row,) = sql("SHOW JOB SERVICES LIKE 'V1'")
        times = stamps(sql, "V1")

        assert "line 2 of 3\nline 3 of 3\n" == logs(sql, "V1", None, False, times[1], False)
        assert "" == logs(sql, "V1", None, False, "2999-01-01", False)
        assert abs(datetime.fromisoformat(times[2]) - row["updated_on"]) < timedelta(milliseconds=0.01)

    def test_virtual_jobs_start_by_the_clock(self, started):
        """A virtual job has a log before any client reads its status."""
        sql = started(virtual_jobs=(VirtualJob(name="V%", seconds=1000),), job_ready=Ready(seconds=0.01))
        submit(sql, "V1")
        while "Container Status: PENDING" in attempt(sql, "V1"):
            pass

        assert "" == logs(sql, "V1")


class TestRetention:
    """The retention of logs on a node."""

    def test_by_default(self, started):
        """Without a retention the log exists as long as the service."""
        sql = started()
        submit(sql, "KEPT", "echo kept", clauses="")

        assert "kept\n" == logs(sql, "KEPT")
        sql("DROP SERVICE KEPT")
        assert 2003 == failure(sql, "SELECT SYSTEM$GET_SERVICE_LOGS('KEPT', 0, 'main')").errno

    def test_after_the_end(self, started):
        """After the retention the instance is gone; its output is in the event table."""
        sql = started(log_retention=0.0)
        submit(sql, "GONE", "echo gone", clauses="")
        error = failure(sql, "SELECT SYSTEM$GET_SERVICE_LOGS('GONE', 0, 'main')")

        assert "Unable to get container status for instance id: 0. Available instances: " in error.msg
        assert error.msg.endswith(": ")
        assert [{"LOG": "gone"}] == sql("SELECT LOG FROM TABLE(GONE!SPCS_GET_LOGS())")

    def test_soon_after_the_end(self, started):
        """Before the end of the retention the log is still readable."""
        sql = started(log_retention=1000.0)
        submit(sql, "STAYS", "echo stays", clauses="")

        assert "stays\n" == logs(sql, "STAYS")

    def test_each_container_for_itself(self, started):
        """Running instances keep their logs."""
        sql = started(log_retention=0.0)
        submit(sql, "BOTH", short="echo short", long="echo long; sleep 60")
        while "long\n" != attempt(sql, "BOTH", "long"):
            pass
        while "Available instances: " not in attempt(sql, "BOTH", "short"):
            pass

        assert "long\n" == logs(sql, "BOTH", container="long")

    def test_each_instance_for_itself(self, started):
        """The error names the remaining instances."""
        sql = started(log_retention=0.0)
        submit(sql, "TWO", "[ $SNOWFLAKE_JOB_INDEX = 0 ] || sleep 60", "ASYNC = TRUE REPLICAS = 2")
        while "Available instances: 1" not in attempt(sql, "TWO"):
            pass

    def test_virtual(self, started):
        """The retention also ends a virtual job's log."""
        sql = started(virtual_jobs=(VirtualJob(name="V%", log_lines=1, seconds=0.0),), log_retention=0.0)
        submit(sql, "V1")

        assert "Available instances: " in attempt(sql, "V1")
        assert [{"LOG": "line 1 of 1"}] == sql("SELECT LOG FROM TABLE(V1!SPCS_GET_LOGS())")


class TestEventTable:
    """SPCS_GET_LOGS and SPCS_GET_EVENTS."""

    def test_times(self, started):
        """The times are those of the node, and a window applies to them to the nanosecond."""
        sql = started()
        submit(sql, "TIMES", "echo a; echo b; echo c", clauses="")
        times = stamps(sql, "TIMES")
        rows = sql("SELECT TIMESTAMP, LOG FROM TABLE(TIMES!SPCS_GET_LOGS()) ORDER BY TIMESTAMP")
        b = times[1]
        later = f"{b[:20]}{int(b[20:29]) + 1:09}Z"

        assert ["a", "b", "c"] == [row["LOG"] for row in rows]
        assert [datetime.fromisoformat(time).replace(tzinfo=None) for time in times] == [
            row["TIMESTAMP"] for row in rows
        ]
        for window, expected in {
            f"START_TIME => TO_TIMESTAMP_LTZ('{b}')": ["b", "c"],
            f"START_TIME => TO_TIMESTAMP_LTZ('{later}')": ["c"],
            f"START_TIME => '{b}'::TIMESTAMP_LTZ, END_TIME => '{b}'::TIMESTAMP_LTZ": ["b"],
            f"END_TIME => TO_TIMESTAMP('{b}')": ["a", "b"],
            f"START_TIME => '{b}'": ["b", "c"],
        }.items():
            rows = sql(f"SELECT LOG FROM TABLE(TIMES!SPCS_GET_LOGS({window})) ORDER BY TIMESTAMP")
            assert expected == [row["LOG"] for row in rows]

    def test_bound_times(self, started):
        """A window may be a bind, as a text or a timestamp."""
        sql = started()
        submit(sql, "BOUND", "echo a; echo b", clauses="")
        times = stamps(sql, "BOUND")
        query = "SELECT LOG FROM TABLE(BOUND!SPCS_GET_LOGS(START_TIME => TO_TIMESTAMP_LTZ(?))) ORDER BY TIMESTAMP"

        assert [{"LOG": "b"}] == sql(query, times[1])
        assert [{"LOG": "b"}] == sql(query, ("TIMESTAMP_LTZ", datetime.fromisoformat(times[1])))

    def test_window_that_is_no_time(self, started):
        """A text that isn't a time is an error."""
        sql = started()
        submit(sql, "WRONG", clauses="")

        for time in ("'soon'", "TO_TIMESTAMP_LTZ('soon')"):
            assert 100035 == failure(sql, f"SELECT * FROM TABLE(WRONG!SPCS_GET_LOGS(START_TIME => {time}))").errno

    def test_view(self, started):
        """The view of the default event table has its rows."""
        sql = started()
        submit(sql, "VIEWED", "echo seen", clauses="")
        rows = [
            sql(f"SELECT TIMESTAMP, VALUE::STRING AS LINE FROM SNOWFLAKE.TELEMETRY.{name} WHERE RECORD_TYPE = 'LOG'")
            for name in ("EVENTS", "EVENTS_VIEW")
        ]

        assert ["seen"] == [row["LINE"] for row in rows[0]]
        assert rows[0] == rows[1]

    def test_account_without_one(self, started):
        """Without an event table the functions are unknown; the node's log works."""
        sql = started(event_table=False)
        submit(sql, "NOWHERE", "echo node", clauses="")

        for function in ("LOGS", "EVENTS", "METRICS"):
            assert 2143 == failure(sql, f"SELECT * FROM TABLE(NOWHERE!SPCS_GET_{function}())").errno
        assert "node\n" == logs(sql, "NOWHERE")
        assert sql("SELECT * FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY())")

    def test_lag(self, started):
        """Lines and events arrive after the lag."""
        sql = started(event_table_lag=1000.0)
        submit(sql, "LATE", "echo late", clauses="")

        assert [] == sql("SELECT * FROM TABLE(LATE!SPCS_GET_LOGS())")
        assert [] == sql("SELECT * FROM TABLE(LATE!SPCS_GET_EVENTS())")
        assert "late\n" == logs(sql, "LATE")

    def test_after_the_lag(self, started):
        """After the lag all lines have arrived."""
        sql = started(event_table_lag=0.2)
        submit(sql, "ARRIVES", "echo arrives", clauses="")
        while not (rows := sql("SELECT LOG FROM TABLE(ARRIVES!SPCS_GET_LOGS())")):
            pass

        assert [{"LOG": "arrives"}] == rows


def test_the_event_table_itself(started):
    """The event table has a record for each line, with its attributes; a parameter of the account names the table."""
    run = started()
    submit(run, "RECORDED", "echo one; echo two", clauses="")

    (parameter,) = run("SHOW PARAMETERS LIKE 'event_table' IN ACCOUNT")
    rows = run(
        f"SELECT VALUE, RECORD_TYPE, RESOURCE_ATTRIBUTES FROM {parameter['value']} "
        "WHERE RESOURCE_ATTRIBUTES['snow.service.name']::STRING = 'RECORDED' ORDER BY TIMESTAMP"
    )

    assert ["one", "two"] == [json.loads(row["VALUE"]) for row in rows]
    assert {"LOG"} == {row["RECORD_TYPE"] for row in rows}
    assert "main" == json.loads(rows[0]["RESOURCE_ATTRIBUTES"])["snow.service.container.name"]


def test_an_account_without_an_event_table_has_none(started):
    """An account without an event table has neither the table nor the parameter."""
    from snowflake.connector.errors import ProgrammingError

    run = started(event_table=False)

    assert [] == run("SHOW PARAMETERS LIKE 'event_table' IN ACCOUNT")
    with pytest.raises(ProgrammingError):
        run("SELECT * FROM SNOWFLAKE.TELEMETRY.EVENTS")
