import json

import pytest

from airflow_provider_mljobs.jobs.status import JobStatus
from airflow_provider_mljobs.jobs.watch import JobWatch, Verdict, pause, to_event


@pytest.mark.parametrize(
    ("status", "now", "expected"),
    [
        (JobStatus.PENDING, 0, Verdict.WAIT),
        (JobStatus.RUNNING, 99.9, Verdict.WAIT),
        (JobStatus.RUNNING, 100, Verdict.TIMED_OUT),
        (JobStatus.CANCELLING, 101, Verdict.TIMED_OUT),
        (JobStatus.UNKNOWN, 50, Verdict.WAIT),
        (JobStatus.DONE, 50, Verdict.FINISHED),
        (JobStatus.DONE, 200, Verdict.FINISHED),
        (JobStatus.FAILED, 50, Verdict.FINISHED),
        (JobStatus.DELETED, 50, Verdict.FINISHED),
    ],
)
def test_a_status_is_judged_by_itself_and_the_deadline(status, now, expected):
    """The end counts, even after the deadline; without an end, the deadline does."""
    assert expected is JobWatch(deadline=100).observed(status, now)[1]


def test_without_deadline_a_job_may_run_for_ever():
    """No deadline is no end."""
    assert Verdict.WAIT is JobWatch().observed(JobStatus.RUNNING, 10**12)[1]


def test_an_unreachable_snowflake_is_borne_for_a_while():
    """The patience counts from the first question without answer, and starts anew after an answer."""
    watch, first = JobWatch(patience=10).failed_to_ask(100)
    watch, second = watch.failed_to_ask(110)
    _, third = watch.failed_to_ask(110.1)
    answered, _ = watch.observed(JobStatus.RUNNING, 111)
    _, after = answered.failed_to_ask(200)

    assert [Verdict.WAIT, Verdict.WAIT, Verdict.UNREACHABLE, Verdict.WAIT] == [first, second, third, after]


def test_the_deadline_holds_while_snowflake_is_unreachable():
    """Nobody's network moves a deadline."""
    assert Verdict.TIMED_OUT is JobWatch(deadline=100).failed_to_ask(100)[1]


def test_a_missing_job_is_gone():
    """A job that nobody knows isn't waited for."""
    assert Verdict.GONE is JobWatch().missing()[1]


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_but_wait_is_final(verdict):
    """The loops that wait end with the first other one."""
    assert (verdict is not Verdict.WAIT) is verdict.is_final


def test_events_are_small_and_plain():
    """Airflow stores and logs an event, so its shape is fixed and its text bounded."""
    event = to_event("DB.ML.JOB", Verdict.GONE, JobStatus.DELETED, "x" * 5000, stage_path="@DB.ML.S/payload_1/JOB")

    assert {
        "job_id": "DB.ML.JOB",
        "verdict": "gone",
        "status": "DELETED",
        "message": "x" * 1000,
        "stage_path": "@DB.ML.S/payload_1/JOB",
    } == event
    assert event == json.loads(json.dumps(event))


@pytest.mark.parametrize(("age", "expected"), [(0, 0.5), (3, 1.0), (15, 5.0), (30, 10.0), (3600, 10.0)])
def test_a_young_job_is_looked_at_more_often(age, expected):
    """The pause grows with the age of the watch, up to the poll interval."""
    assert expected == pause(age, 10.0)


def test_a_short_poll_interval_is_kept():
    """Nobody waits longer than the poll interval."""
    assert 0.1 == pause(0, 0.1)


def test_an_event_holds_nothing_that_breaks_a_database():
    """A NUL in an event would take the triggerer down on PostgreSQL, again and again."""
    event = to_event("DB.S.J", Verdict.GONE, JobStatus.DELETED, "a\0b")

    assert "a\ufffdb" == event["message"]
