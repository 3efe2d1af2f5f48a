"""The chaos benchmark, small: a few accidents at chosen statements, each to one run of a short job."""

from contextlib import closing

import pytest

from tests.benchmarks.chaos import draw
from tests.benchmarks.chaos_lane import Chaos, Lane
from tests.benchmarks.chaos_tries import Case
from tests.benchmarks.chaos_wire import AFTER_A_CRASH, AT_THE_END, Boundary, Plan, kind_of

WAITING, DEFERRED = Case("value", deferrable=False), Case("value", deferrable=True)
SUBMIT, FINISHED = "EXECUTE JOB SERVICE", "Airflow SetTaskStateStore"


def struck(accident, phase, kind, nth=1):
    """Plan one accident."""
    return (Plan(accident, Boundary(phase, kind, nth)),)


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
    "a crash in the last try": Chaos(
        "11", Case("value", deferrable=False, has_retries=False), 1.0, struck("kill after", "execute", SUBMIT)
    ),
}


@pytest.fixture(scope="module")
def lane(tmp_path_factory):
    """A Snowflake whose wire can be cut, and an Airflow whose processes can be killed."""
    from tests.lab import served

    with served() as snowflake, closing(Lane(snowflake, tmp_path_factory.mktemp("chaos") / "log")) as lane:
        yield lane


@pytest.mark.parametrize("name", CHAOS)
def test_accident(lane, name):
    """The task ends as it would have without, with one job for each attempt; the accident did happen."""
    report = lane.run(CHAOS[name])

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
    left = lane.collect()

    assert [] == left.orphans
    assert [] == left.lost


def test_what_is_drawn():
    """Every boundary is; then come the kills at what changes something; the same seed draws the same."""
    places = [(WAITING, Boundary("execute", kind, 1)) for kind in ("login", "LIST", SUBMIT, FINISHED)]
    runs = draw(places, 7, seed=3)
    first = [chaos.plans[0] for chaos in runs]

    assert {place for _, place in places} == {plan.at for plan in first[:4]}
    assert {"kill before", "kill after", "kill behind"} <= {plan.accident for plan in first if plan.at.kind == SUBMIT}
    assert runs == draw(places, 7, seed=3)


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
    """A statement is named by its first words, or by what it calls."""
    assert kind == kind_of(sql)
