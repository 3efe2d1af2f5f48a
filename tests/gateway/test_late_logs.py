"""Logs that have left their node before the event table has their end."""

import re

import pytest

from airflow_provider_mljobs.emulator.settings import Fault
from airflow_provider_mljobs.gateway.client import MLJobClient
from airflow_provider_mljobs.gateway.inspection import rest_of_log
from airflow_provider_mljobs.gateway.joblogs import Printed, read_rest
from airflow_provider_mljobs.gateway.late_logs import LogPatience
from airflow_provider_mljobs.jobs.logs.cursor import digest
from airflow_provider_mljobs.launcher.contract import END
from tests.gateway.test_joblogs import TABLE, Lab
from tests.lab import served

WITH_END = f"seq 3; echo; echo '{END}'"


@pytest.fixture(scope="module")
def server():
    """An embedded Snowflake whose nodes forget a log at once."""
    with served(log_retention=0.0) as server:
        yield server


@pytest.fixture
def lab(server):
    """Jobs that are dropped at the end."""
    lab = Lab(server)
    yield lab
    server.faults.clear()
    lab.close()


@pytest.fixture
def waiting(lab):
    """Return a function that reads the log of a job, and returns its new lines and the pauses before they came."""

    def waiting(source, *, seconds=1200.0, started=True, printed=None):
        pauses = []
        keys = frozenset({source.key} if started else ())
        patience = LogPatience(seconds=seconds, started=keys, pause=pauses.append)
        return read_rest(lab.store, [source], printed or Printed(), patience).unseen, pauses

    return waiting


def late(lab, looks):
    """Let the event table be empty for a number of looks."""
    lab.server.faults.add(Fault(matching=TABLE, effect="empty", nth=1, times=looks))


def test_the_end_comes_later(lab, waiting):
    """The log is read again until it has the launcher's last line, which isn't shown."""
    source = lab.run(WITH_END)
    late(lab, 2)

    assert (("1", "2", "3"), [100.0, 100.0]) == waiting(source)


def test_the_end_comes_too_late(lab, waiting):
    """The log says where the missing lines will be, with a query that finds them later."""
    source = lab.run(WITH_END)
    late(lab, 2)
    (announcement,), pauses = waiting(source, seconds=0.0)
    query = re.search(r"Read it later with: (.*)\]", announcement)[1]

    assert [] == pauses
    assert announcement.startswith("[… the log has left its node and is not in the event table yet")
    assert ["1", "2", "3", "", END] == [row["log"] for row in lab.connection.rows(query)]


def test_lines_before_the_missing_ones(lab, waiting):
    """Lines that are there are shown, and the announcement says from which time on lines may be missing."""
    source = lab.run("seq 2")
    (*lines, announcement), _ = waiting(source, seconds=0.0)

    assert ["1", "2"] == lines
    assert re.match(r"\[… the log after 2\d{3}-\d\d-\d\dT[\d:.+]+ has left its node", announcement)


def test_a_log_without_an_end(lab, waiting):
    """The log of another image is complete once three looks have brought nothing new."""
    source = lab.run("seq 2")
    late(lab, 1)

    assert (("1", "2"), [100.0] * 4) == waiting(source)


def test_a_log_that_was_read_whole(lab, waiting):
    """Once the launcher's last line was read from the node, nothing is waited for."""
    source = lab.run(WITH_END)
    place = {"cursors": {"0/main": ["2026-01-01T00:00:00Z", 1, digest(END)]}}
    late(lab, 100)

    assert ((), []) == waiting(source, printed=Printed.from_json(place))


@pytest.mark.parametrize(
    ("errno", "reason"),
    [(2143, "no event table has it."), (606, "the event table can't be read: ")],
    ids=["no event table", "no warehouse"],
)
def test_nothing_will_come(lab, waiting, errno, reason):
    """Without an event table that can be read, nothing is waited for."""
    source = lab.run(WITH_END)
    lab.server.faults.add(Fault(matching=TABLE, effect="error", errno=errno))
    (line,), pauses = waiting(source)

    assert [] == pauses
    assert f"is not on its node (any more), and {reason}" in line


def test_a_log_that_is_not_exported(lab):
    """With log_level NONE or ERROR the event table never has the end of a log, and nothing is waited for."""
    from snowflake.connector import connect

    source = lab.run(WITH_END, logExporters={"eventTableConfig": {"logLevel": "ERROR"}})
    client = MLJobClient(lambda: connect(**lab.server.connection_kwargs))
    (line,) = rest_of_log(client, source.job, Printed(), patience=100_000).unseen
    client.close()

    assert line.endswith("is not on its node (any more), and no event table has it.]")


def test_a_container_that_never_started(lab, waiting):
    """A container that was cancelled before its start has no log to wait for."""
    source = lab.run("true")

    assert [] == waiting(source, started=False)[1]
