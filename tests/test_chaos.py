"""The chaos benchmark, small: a few accidents at chosen statements, each to one run of a short job."""

from contextlib import closing

import pytest

from tests.benchmarks.chaos_draw import NEW, draw
from tests.benchmarks.chaos_judge import Chaos
from tests.benchmarks.chaos_lane import Lane
from tests.benchmarks.chaos_script import (
    AFTER_A_CRASH,
    AFTER_EACH_CRASH,
    AT_THE_END,
    FOR_GOOD,
    KILLS,
    Boundary,
    Plan,
    kind_of,
)
from tests.benchmarks.chaos_tries import Case

WAITING, DEFERRED = Case("value", deferrable=False), Case("value", deferrable=True)
SUBMIT, FINISHED = "EXECUTE JOB SERVICE", "Airflow SetTaskStateStore"


ONCE = Case("value", deferrable=False, has_retries=False)


def struck(accident, phase, kind, nth=1, *, seconds=0.0):
    """Plan one accident."""
    return (Plan(accident, Boundary(phase, kind, nth), seconds=seconds),)


def then(accident, *, seconds=0.0):
    """Plan another accident, at the next statement that it can happen to."""
    return (Plan(accident, None, later=1, seconds=seconds),)


CHAOS = {
    "before the submit": Chaos("1", WAITING, plans=struck("kill before", "execute", SUBMIT)),
    "between submit and answer": Chaos("2", WAITING, 1.0, struck("kill after", "execute", SUBMIT)),
    "before the job is recorded": Chaos("3", DEFERRED, plans=struck("kill before", "execute", FINISHED, 2)),
    "while the trigger watches": Chaos("4", DEFERRED, plans=struck("kill after", "trigger", "SHOW JOB SERVICES")),
    "while the result is read": Chaos("5", WAITING, plans=struck("kill after", "execute", "GET")),
    "while the job is dropped": Chaos("6", DEFERRED, plans=struck("kill after", "resume", "DROP SERVICE")),
    "a job that can't be dropped": Chaos("7", WAITING, plans=struck("error", "execute", "DROP SERVICE")),
    "a submit without an answer": Chaos("8", WAITING, plans=struck("reset after", "execute", SUBMIT)),
    "a clear after a crash": Chaos("9", WAITING, 1.0, struck("kill after", "execute", SUBMIT), AFTER_A_CRASH),
    "a clear of what has succeeded": Chaos("10", WAITING, clear=AT_THE_END),
    "a crash in the last try": Chaos("11", ONCE, 1.0, struck("kill after", "execute", SUBMIT)),
}
# Odd answers and effects of an account under strain.
ODD = {
    "a late submit": Chaos("20", WAITING, 1.0, struck("kill late", "execute", SUBMIT, seconds=3.0)),
    "a late submit and a clear": Chaos(
        "21", WAITING, 4.0, struck("kill late", "execute", SUBMIT, seconds=3.0), AFTER_A_CRASH
    ),
    "late submits and a clear after each": Chaos(
        "22",
        DEFERRED,
        1.0,
        struck("kill late", "execute", SUBMIT, seconds=4.0) + struck("kill late", "execute", SUBMIT, 2, seconds=1.0),
        AFTER_EACH_CRASH,
    ),
    "a submit that fails, and has its effect": Chaos("23", WAITING, 1.0, struck("error after", "execute", SUBMIT)),
    "a new job that no answer shows": Chaos("24", DEFERRED, 3.0, struck("unseen", "execute", SUBMIT, seconds=1.5)),
    "a retry to which no answer shows the job": Chaos(
        "25", WAITING, 3.0, struck("kill unseen", "execute", SUBMIT, seconds=2.5)
    ),
    "one listing and what follows say no": Chaos(
        "26", ONCE, 3.0, struck("negative", "execute", "SHOW JOB SERVICES", 2, seconds=1.0)
    ),
    "the history says no, too": Chaos(
        "27", DEFERRED, 3.0, struck("negative all", "trigger", "SHOW JOB SERVICES", 2, seconds=1.0)
    ),
    "a retry without a COMMENT": Chaos(
        "28", WAITING, 3.0, struck("kill after", "execute", SUBMIT) + then("comment null", seconds=FOR_GOOD)
    ),
    "a retry with another COMMENT": Chaos(
        "29", WAITING, 3.0, struck("kill after", "execute", SUBMIT) + then("comment edited", seconds=FOR_GOOD)
    ),
    "an account that is full for a while": Chaos("30", WAITING, 0.0, struck("services limit", "execute", SUBMIT)),
    "a result that isn't there yet": Chaos("31", ONCE, 0.0, struck("empty", "execute", "GET", seconds=1.5)),
    "a stage that says no": Chaos("32", DEFERRED, 0.0, struck("negative", "resume", "GET")),
    "an answer of another moment": Chaos("33", DEFERRED, 2.0, struck("stale", "trigger", "SHOW JOB SERVICES", 2)),
}


@pytest.fixture(scope="module")
def lane(tmp_path_factory):
    """A Snowflake whose wire can be cut, and an Airflow whose processes can be killed."""
    from tests.lab import served

    with served() as snowflake, closing(Lane(snowflake, tmp_path_factory.mktemp("chaos") / "log")) as lane:
        yield lane


@pytest.mark.parametrize("name", CHAOS)
def test_accident(lane, name):
    """After an accident the task ends as it does without, with one job for each attempt."""
    report = lane.run(CHAOS[name])

    assert [] == report.wrong
    assert len(report.chaos.plans) == len(report.hits)


@pytest.mark.parametrize("name", ODD)
def test_odd_account(lane, name):
    """After an odd answer or effect the task ends as it does without, with one job at a time."""
    report = lane.run(ODD[name])

    assert [] == report.wrong
    assert len(report.chaos.plans) == len(report.hits)


def test_what_is_wrong_is_seen(lane):
    """A task that takes no notice of earlier tries starts a second job beside the first."""
    forgetful = Case("value", deferrable=False, durable=False)
    report = lane.run(Chaos("12", forgetful, 1.0, struck("kill after", "execute", SUBMIT)))

    assert "duplicate" == report.wrong[0][0]
    assert 2 == len(report.jobs)


def test_nothing_is_left(lane):
    """After the collection there is no service and no file of a job."""
    remains = lane.collect()

    assert [] == remains.orphans
    assert [] == remains.lost


def test_what_is_drawn():
    """A draw covers every place, all kinds of odd accounts and clears after crashes; equal seeds draw equal runs."""
    kinds = ("login", "LIST", "GET", "SHOW JOB SERVICES", "DESCRIBE SERVICE", SUBMIT, FINISHED)
    places = [(WAITING, Boundary("execute", kind, 1)) for kind in kinds]
    runs = draw(places, 100, seed=3)
    plans = [plan for chaos in runs for plan in chaos.plans]

    assert {place for _, place in places} <= {plan.at for plan in plans}
    assert set(NEW) <= {plan.accident for plan in plans}
    assert set(KILLS) <= {plan.accident for plan in plans if plan.at is not None and plan.at.kind == SUBMIT}
    assert 10 <= sum(chaos.clear == AFTER_EACH_CRASH for chaos in runs)
    assert runs == draw(places, 100, seed=3)


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("EXECUTE JOB SERVICE\nIN COMPUTE POOL p", SUBMIT),
        ("SHOW JOB SERVICES LIKE 'X%' IN ACCOUNT", "SHOW JOB SERVICES"),
        ("CALL a.b.c!SPCS_CANCEL_JOB()", "SPCS_CANCEL_JOB"),
        ("SELECT SYSTEM$GET_SERVICE_LOGS('j', 0, 'main')", "SYSTEM$GET_SERVICE_LOGS"),
        ("DROP SERVICE IF EXISTS j FORCE", "DROP SERVICE"),
        ("REMOVE '@s/x'", "REMOVE"),
    ],
)
def test_kinds_of_statements(sql, kind):
    """The kind of a statement is its first words, or the function that it calls."""
    assert kind == kind_of(sql)
