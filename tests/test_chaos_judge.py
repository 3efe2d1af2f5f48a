"""The verdicts of the chaos benchmark, on jobs of a task and their times."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.benchmarks.chaos_answers import hidden, job_of, odd
from tests.benchmarks.chaos_judge import Chaos, Course, Job, Report, judge
from tests.benchmarks.chaos_script import LateEffect
from tests.benchmarks.chaos_tries import Case

RUN = "7"
LISTING = {
    "success": True,
    "code": None,
    "message": None,
    "data": {
        "rowtype": [{"name": "name"}, {"name": "comment"}],
        "rowset": [["J_1", "ours"], ["J_2", "theirs"]],
        "total": 2,
        "returned": 2,
    },
}


def job(name, began, ended, status="DONE", **fields):
    """Make a job of some seconds of the epoch."""
    completed = None if ended is None else datetime.fromtimestamp(ended, UTC)
    made = Job(f"MLJOB_T_{name}", status, datetime.fromtimestamp(began, UTC), completed, seen_from=began)
    return replace(made, **fields)


def report(*jobs, state="success", epoch=3, **course):
    """Report a run of a task that has waited from second 20 to 30 and was over at second 32."""
    course = {"waits": [(20.0, 30.0)], "ended": 32.0, **course}
    return Report(
        chaos=Chaos(RUN, Case("value", deferrable=False)),
        course=Course(**course),
        state=state,
        expected="success",
        epoch=epoch,
        jobs=list(jobs),
        hits=[],
        seen=[],
        odd=0,
        late=[],
        blind=[],
        trace=[],
    )


def kinds(made, name="3_1"):
    """Judge a run that has returned the value of a job."""
    return [kind for kind, _ in judge(made, {"run": RUN, "text": 5, "job": f"MLJOB_T_{name}"}, 5)]


THE_JOB = job("3_1", 18, 28)


@pytest.mark.parametrize(
    ("others", "wrong"),
    [
        ([], []),
        ([job("2_1", 5, 15, "CANCELLED")], []),
        # The submit of an older epoch has taken effect while the task waited, and was seen at its end.
        ([job("2_1", 25, 31, "CANCELLED", is_late=True)], []),
        ([job("2_1", 25, None, "RUNNING", is_late=True)], ["duplicate"]),
        ([job("2_1", 10, 29)], ["duplicate"]),
        ([job("3_0", 17.5, 29)], ["duplicate"]),
        ([job("3_0", 5, 15)], ["duplicate", "lost result"]),
        ([job("3_0", 5, 19)], ["duplicate", "lost result"]),
        # It was of the same name, which was free again.
        ([job("3_1", 40, 41, is_late=True)], []),
    ],
    ids=[
        "one",
        "cancelled before",
        "late",
        "left behind",
        "two at once",
        "two in a moment",
        "done before",
        "done beside",
        "late after the end",
    ],
)
def test_pairs_of_jobs(others, wrong):
    """A waiting task has one job; later jobs end with the task, or in a collection."""
    jobs = sorted([THE_JOB, *others], key=lambda each: each.began)

    assert wrong == kinds(report(*jobs, clears={2: 9.0}))


def test_twins_before_the_wait():
    """Two jobs at once are no duplicates before the task waits, nor while no answer could have shown the older one."""
    older = job("2_1", 10, 27, "CANCELLED", seen_from=26.0)

    assert [] == kinds(report(job("2_1", 10, 19, "CANCELLED"), THE_JOB, clears={2: 9.0}))
    assert [] == kinds(report(older, THE_JOB, clears={2: 9.0}))
    assert [] == kinds(replace(report(replace(older, seen_from=10.0), THE_JOB, clears={2: 9.0}), blind=[(9.0, 26.0)]))


def test_job_ended_in_health():
    """Ending the only job of a task that was not cleared is wrong."""
    dropped = job("3_0", 5, 15, "DELETED")

    assert ["wrong state"] == kinds(report(dropped, THE_JOB))
    assert [] == kinds(report(job("2_1", 5, 15, "DELETED"), THE_JOB, clears={2: 14.0}))
    assert [] == kinds(report(job("3_0", 5, 19, "DELETED"), THE_JOB))


def test_task_that_ends_wrong():
    """Wrong are a try that fails as lost, a task that ends differently than its job, and the value of a cleared job."""
    assert ["wrong state"] == kinds(report(THE_JOB, errors=["MLJobLostError: Job 3_1 is gone"]))
    assert ["wrong state"] == kinds(report(THE_JOB, state="failed"))
    assert ["lost result"] == kinds(report(THE_JOB), name="2_1")
    assert ["lost result"] == [kind for kind, _ in judge(report(THE_JOB), None, 5)]


def test_late_effect_that_makes_a_job():
    """A job is a late effect's if it has its name and came to be meanwhile; a refused one makes none."""
    effect = LateEffect("EXECUTE JOB SERVICE", "J", begun=10.0, done=11.0)

    assert effect.has_made("J", 10.5)
    assert not effect.has_made("J", 9.0)
    assert not effect.has_made("K", 10.5)
    assert not replace(effect, done=None).has_made("J", 10.5)


@pytest.mark.parametrize(
    ("accident", "rows"),
    [
        ("empty", []),
        ("reversed", [["J_2", "theirs"], ["J_1", "ours"]]),
        ("comment null", [["J_1", None], ["J_2", None]]),
        ("stale", [["J_1", "ours"]]),
    ],
)
def test_odd_listing(accident, rows):
    """A listing has other rows than it should; one that would be the same is no accident."""
    before = {**LISTING, "data": {**LISTING["data"], "rowset": [["J_1", "ours"]]}}
    answer = odd(accident, "SHOW JOB SERVICES", "SHOW", LISTING, before)

    assert rows == answer["data"]["rowset"]
    assert odd(accident, "SHOW JOB SERVICES", "SHOW", answer, answer) is None or accident == "reversed"


def test_negative_answers():
    """A listing and a description are refused with Snowflake's number; the history has no rows."""
    history = {**LISTING, "data": {"rowsetBase64": "abc", "total": 1, "returned": 1}}

    assert "002003" == odd("negative", "DESCRIBE SERVICE", "DESCRIBE SERVICE j", LISTING, None)["code"]
    assert "" == odd("negative all", "GET_JOB_HISTORY", "SELECT", history, None)["data"]["rowsetBase64"]
    assert odd("negative", "DESCRIBE SERVICE", "DESCRIBE SERVICE j", {**LISTING, "success": False}, None) is None


def test_hidden_job():
    """A hidden job is in no answer; answers about other jobs are unchanged."""
    listing = hidden("J_1", "SHOW JOB SERVICES", "SHOW", LISTING)

    assert [["J_2", "theirs"]] == listing["data"]["rowset"]
    assert "002003" == hidden("J_1", "DESCRIBE SERVICE", "DESCRIBE SERVICE db.s.J_1", LISTING)["code"]
    assert hidden("J_1", "DESCRIBE SERVICE", "DESCRIBE SERVICE db.s.J_10", LISTING) is None


def test_name_of_a_new_job():
    """The job that a statement makes stands in it, qualified."""
    assert "J_1" == job_of("EXECUTE JOB SERVICE\nIN COMPUTE POOL p\nNAME = db.s.J_1\nASYNC = TRUE")
    assert "" == job_of("DROP SERVICE j")
