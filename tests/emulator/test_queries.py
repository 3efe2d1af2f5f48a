import threading
from types import SimpleNamespace

import pytest

from airflow_provider_mljobs.emulator import errors
from airflow_provider_mljobs.emulator.errors import SnowflakeError
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.server.queries import Queries
from airflow_provider_mljobs.emulator.server.workers import Workers
from airflow_provider_mljobs.emulator.sessions import Session
from tests.budget import budget


def make_queries(**limits):
    """Return a store, a session, and the queries that were interrupted."""
    interrupted = []
    return (
        Queries(interrupted.append, **limits),
        Session(1, rights=SimpleNamespace(user="u", role="r"), engine=None),
        interrupted,
    )


def rows(count):
    """Return a result with so many rows."""
    return Result((Column("a"),), [("x",)] * count)


def test_request_is_registered_once():
    """A repeated request gets the query that the first one started, also after it ended."""
    queries, session, _ = make_queries()
    first, is_new = queries.begin(session, "x", "request")
    queries.finish(first, rows(1))

    assert is_new
    assert queries.begin(session, "x", "request") == (first, False)
    assert queries.requested(session, "request") is first


def test_oldest_results_go_first():
    """Beyond the limit the oldest finished queries are dropped, running ones never."""
    queries, session, _ = make_queries(most=3)
    running, _ = queries.begin(session, "runs", "r0")
    done = [queries.begin(session, "x", f"r{number}")[0] for number in range(1, 5)]
    for query in done:
        queries.finish(query, rows(1))

    assert queries.find(running.id) is running
    assert [queries.find(query.id) for query in done[2:]] == done[2:]
    assert queries.requested(session, "r1") is None
    with pytest.raises(SnowflakeError, match="not found"):
        queries.find(done[0].id)


def test_newest_result_is_kept_whatever_its_size():
    """Beyond the limit of bytes older results are dropped; the newest stays."""
    queries, session, _ = make_queries(most_bytes=1000)
    small, _ = queries.begin(session, "x")
    large, _ = queries.begin(session, "x")
    queries.finish(small, rows(1))
    queries.finish(large, rows(1000))

    assert queries.find(large.id) is large
    with pytest.raises(SnowflakeError):
        queries.find(small.id)


def test_cancelled_query_fails_with_604():
    """A cancelled query ends with 604 instead of its own error; an earlier result stays."""
    queries, session, interrupted = make_queries()
    failed, _ = queries.begin(session, "x")
    won, _ = queries.begin(session, "x")
    for query in (failed, won):
        queries.cancel(query)
    queries.finish(failed, SnowflakeError(1, "XX000", "torn"))
    queries.finish(won, rows(1))

    assert interrupted == [failed, won]
    assert str(failed.error) == str(errors.cancelled())
    assert (won.error, won.status) == (None, "SUCCESS")


def test_finished_query_is_not_interrupted():
    """Cancelling a finished query does nothing."""
    queries, session, interrupted = make_queries()
    query, _ = queries.begin(session, "x")
    queries.finish(query, rows(1))
    queries.cancel(query)

    assert interrupted == []


def test_descriptions_are_not_the_last_query():
    """LAST_QUERY_ID() is the id of the last statement that ran."""
    queries, session, _ = make_queries()
    query, _ = queries.begin(session, "x", "a")
    described, _ = queries.begin(session, "x", "b", describe_only=True)
    for each in (query, described):
        queries.finish(each, rows(1))

    assert session.last_query_id == query.id


def test_workers_run_at_once_and_are_kept():
    """Tasks never wait for each other, and an idle thread takes the next one."""
    workers = Workers()
    meeting = threading.Barrier(5, timeout=budget())
    for _ in range(4):
        workers.run(meeting.wait)
    meeting.wait()
    names = set()
    for _ in range(20):
        done = threading.Event()
        workers.run(lambda done=done: (names.add(threading.current_thread().ident), done.set()))
        done.wait(budget())
    workers.close()

    assert len(names) <= 5


def test_closed_workers():
    """A closed set of workers takes no task, and its threads end."""
    workers = Workers()
    accepted = workers.run(lambda: None)
    workers.close()
    workers.join(budget())

    assert (True, False) == (accepted, workers.run(lambda: None))
    assert not any(thread.is_alive() for thread in workers._threads)
