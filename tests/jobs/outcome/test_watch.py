import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from airflow_provider_mljobs.jobs.outcome.sightings import Sighting
from airflow_provider_mljobs.jobs.outcome.status import JobStatus, Phase
from airflow_provider_mljobs.jobs.outcome.wait_plan import WaitPlan
from airflow_provider_mljobs.jobs.outcome.watch import JobWatch, Overdue, TimelineEntry, Verdict, pause, to_event

NOW = 1_790_000_000.0
TERMINAL = {status for status in JobStatus if status.is_terminal}
PROVISIONING = "Compute pool node(s) are being provisioned."
PULLING = "Waiting to start"


def watching(**limits):
    """Begin a watch over a job."""
    return JobWatch(plan=WaitPlan(job_id="DB.S.J", **limits))


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
    assert expected is watching(deadline=100).observed(status, now).verdict(now)


@pytest.mark.parametrize("status", JobStatus)
def test_every_status_before_and_after_each_deadline(status):
    """An end is an end; anything else is waited for, PENDING also until the queue's deadline."""
    watch = watching(deadline=300, queue_deadline=100).observed(status, 0)
    in_queue = Verdict.QUEUE_TIMED_OUT if status is JobStatus.PENDING else Verdict.WAIT
    expected = [Verdict.FINISHED] * 3 if status in TERMINAL else [Verdict.WAIT, in_queue, Verdict.TIMED_OUT]

    assert expected == [watch.verdict(now) for now in (99, 200, 300)]


@pytest.mark.parametrize("status", JobStatus)
def test_every_status_while_snowflake_is_unreachable(status):
    """An end that was seen stays one; anything else ends with the patience."""
    watch = watching(patience=10).observed(status, 0).failed_to_ask("no route", 5)
    last = Verdict.FINISHED if status in TERMINAL else Verdict.UNREACHABLE

    assert last is watch.verdict(15)
    assert (last if status in TERMINAL else Verdict.WAIT) is watch.verdict(14.9)


def test_before_a_job_has_been_seen_it_is_waited_for():
    """Only the deadline counts then."""
    assert [Verdict.WAIT, Verdict.TIMED_OUT] == [
        watching(deadline=100, queue_deadline=10).verdict(now) for now in (99, 100)
    ]


def test_without_deadline_a_job_may_run_for_ever():
    """No deadline is no end."""
    watch = watching().observed(JobStatus.RUNNING, 10**12)

    assert Verdict.WAIT is watch.verdict(10**12)
    assert watch.next_deadline() is None


def test_an_unreachable_snowflake_is_borne_for_a_while():
    """The patience counts from the first question without an answer, and starts again after an answer."""
    first = watching(patience=10).failed_to_ask("no route", 100)
    second = first.failed_to_ask("no route", 109.9)
    answered = second.observed(JobStatus.RUNNING, 109.95)
    after = answered.failed_to_ask("no route", 200)

    assert [Verdict.WAIT, Verdict.WAIT, Verdict.UNREACHABLE] == [
        first.verdict(100),
        second.verdict(109.9),
        second.verdict(110),
    ]
    assert [Verdict.WAIT, Verdict.WAIT] == [answered.verdict(10**6), after.verdict(209.9)]


def test_the_patience_counts_time_and_no_questions():
    """The patience is a time, for any number of questions."""
    watch = watching(patience=10)
    for tenth in range(100):
        watch = watch.failed_to_ask("no route", tenth / 10)

    assert Verdict.WAIT is watch.verdict(9.99)
    assert 10 == watch.next_deadline()


def test_the_deadline_holds_while_snowflake_is_unreachable():
    """An outage doesn't move a deadline."""
    assert Verdict.TIMED_OUT is watching(deadline=100).failed_to_ask("no route", 100).verdict(100)


def test_a_job_that_is_not_seen_for_long_is_gone():
    """Repeated looks over the patience find a job gone, and only a look does, not the time alone."""
    running = watching(unseen_patience=60).observed(JobStatus.RUNNING, 1)
    looks = [watch := running.unseen("not found", 100)]
    looks += [watch := watch.unseen("not found", now) for now in (101, 159.9, 160)]

    assert [Verdict.WAIT, Verdict.WAIT, Verdict.WAIT, Verdict.GONE] == [each.verdict(10**6) for each in looks]
    assert (JobStatus.RUNNING, JobStatus.DELETED) == (looks[2].status, looks[3].status)
    assert "not found" == watch.why(160)
    assert [TimelineEntry(Phase.RUNNING, 1), TimelineEntry(Phase.FINISHING, 160, "DELETED")] == list(watch.timeline)


def test_no_single_look_finds_a_job_gone():
    """Three looks are the least, however short the patience."""
    looks = [watch := watching(unseen_patience=0).unseen("no", 1)]
    looks += [watch := watch.unseen("no", now) for now in (500, 501)]

    assert [False, False, True] == [each.is_gone for each in looks]


@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.RUNNING, JobStatus.UNKNOWN])
def test_a_job_that_the_history_has_as_alive_is_not_gone(status):
    """The job history counts as a sight of a job, and the patience begins again behind it."""
    sighting = Sighting(status=status, why="does not exist")
    watch = watching(unseen_patience=10).unseen("no", 0).unseen("no", 9).sighted(sighting, 20)

    assert (None, 0, "does not exist") == (watch.unseen_since, watch.unseen_looks, watch.trouble)
    assert Verdict.WAIT is watch.unseen("no", 21).unseen("no", 30.9).verdict(31)


def test_an_end_in_the_history_is_an_end():
    """One look at the history is enough for that."""
    watch = watching().sighted(Sighting(status=JobStatus.DONE, why="does not exist"), 5)

    assert (Verdict.FINISHED, "") == (watch.verdict(5), watch.why(5))


def test_a_job_that_cannot_be_seen_is_out_of_time_at_its_deadline():
    """A deadline holds for a job that nothing shows as well."""
    watch = watching(deadline=50, unseen_patience=100).unseen("no", 1)

    assert [Verdict.WAIT, Verdict.TIMED_OUT] == [watch.verdict(now) for now in (49, 50)]


@pytest.mark.parametrize(
    ("watch", "limit", "verdict"),
    [
        (watching(deadline=10), "execution_timeout", Verdict.TIMED_OUT),
        (watching(timeout=10), "timeout", Verdict.TIMED_OUT),
        (watching(deadline=10, timeout=5), "execution_timeout", Verdict.TIMED_OUT),
    ],
)
def test_out_of_time_is_for_good(watch, limit, verdict):
    """A job that was still running at its deadline stays out of time after its end, in the next process too."""
    late = watch.observed(JobStatus.RUNNING, 0).out_of_time(10)
    stored = json.loads(json.dumps(late.overdue.to_json()))
    again = watching(deadline=10**9).resumed(late.timeline, Overdue.from_json(stored))

    for each in (late.observed(JobStatus.DONE, 11), late.cancelled(11), again.observed(JobStatus.CANCELLED, 500)):
        assert (verdict, limit) == (each.verdict(10**10), each.why(10**10))


def test_out_of_time_in_the_queue():
    """A job that has left the queue meanwhile isn't out of time."""
    waiting = watching(queue_deadline=10).observed(JobStatus.PENDING, 0).explained(PULLING, 1)
    late, started = waiting.out_of_time(10), waiting.observed(JobStatus.RUNNING, 10.5).out_of_time(11)

    assert (Verdict.QUEUE_TIMED_OUT, PULLING) == (late.cancelled(12).verdict(12), late.cancelled(12).why(12))
    assert started.overdue is None


@pytest.mark.parametrize(
    "value", [{}, {"verdict": "gone", "limit": "x"}, {"verdict": "late", "limit": "x"}, {"limit": 1}]
)
def test_what_is_no_decision(value):
    """Another version's, or people's."""
    with pytest.raises((ValueError, LookupError)):
        Overdue.from_json(value)


def test_the_queue_deadline_does_not_bind_a_job_that_nobody_can_see():
    """A job that is not visible may have started, so its queue deadline binds only once it is seen to wait."""
    waiting = watching(queue_deadline=100).observed(JobStatus.PENDING, 0)
    unseen = waiting.failed_to_ask("no route", 50)
    seen = unseen.observed(JobStatus.PENDING, 150)

    assert [Verdict.QUEUE_TIMED_OUT, Verdict.WAIT, Verdict.QUEUE_TIMED_OUT] == [
        waiting.verdict(150),
        unseen.verdict(150),
        seen.verdict(150),
    ]


def test_the_queue_deadline_binds_no_job_that_runs():
    """A running job has no queue deadline, before or after it."""
    watch = watching(queue_deadline=100).observed(JobStatus.PENDING, 0).observed(JobStatus.RUNNING, 99)

    assert [Verdict.WAIT] * 2 == [watch.verdict(200), watch.observed(JobStatus.UNKNOWN, 200).verdict(300)]


def test_the_timeout_counts_from_the_start_of_the_job():
    """Not from the submit, and not from each look."""
    watch = watching(timeout=60).observed(JobStatus.PENDING, 0).observed(JobStatus.RUNNING, 1000)
    again = watch.observed(JobStatus.RUNNING, 1050)

    assert [Verdict.WAIT, Verdict.TIMED_OUT] == [again.verdict(1059.9), again.verdict(1060)]
    assert ("", "timeout") == (again.why(1059.9), again.why(1060))


def test_snowflake_may_know_better_when_a_job_started():
    """A start between two looks counts, and later looks don't move it."""
    watch = watching(timeout=60).observed(JobStatus.RUNNING, 1000).started(990).observed(JobStatus.RUNNING, 1010)

    assert 1050 == watch.next_deadline()


@pytest.mark.parametrize(("said", "expected"), [(600, 995), (997, 997), (1400, 1000)])
def test_a_start_lies_between_two_looks(said, expected):
    """A clock that is 400 s wrong says otherwise: the job was seen to wait at 995, and to run at 1000."""
    waiting = watching(timeout=300).observed(JobStatus.PENDING, 900).observed(JobStatus.PENDING, 995)
    watch = waiting.observed(JobStatus.RUNNING, 1000).started(said)

    assert expected == watch.running_since


def test_a_start_lies_behind_the_last_wait_that_another_process_saw():
    """The timeline has when the job began to wait for the last time."""
    steps = (
        TimelineEntry(Phase.QUEUED, 900),
        TimelineEntry(Phase.IMAGE_PULLING, 950),
        TimelineEntry(Phase.RUNNING, 1000),
    )

    assert 950 == watching(timeout=300).resumed(steps).started(600).running_since


def test_the_timeout_survives_another_process():
    """The timeline has the start of the job."""
    first = watching(timeout=60).observed(JobStatus.PENDING, NOW).observed(JobStatus.RUNNING, NOW + 1)
    stored = json.loads(json.dumps([step.to_xcom() for step in first.timeline]))
    second = watching(timeout=60).resumed(tuple(TimelineEntry.from_xcom(step) for step in stored))

    assert first.timeline == second.timeline
    assert NOW + 61 == second.next_deadline() == second.observed(JobStatus.RUNNING, NOW + 30).next_deadline()
    assert second.timeline == second.observed(JobStatus.RUNNING, NOW + 30).timeline


def test_which_deadline_has_passed():
    """The task's own comes first in the message: Airflow would have ended the task by itself."""
    watch = watching(deadline=100, timeout=50).observed(JobStatus.RUNNING, 0)

    assert ["timeout", "execution_timeout"] == [watch.why(60), watch.why(100)]
    assert PULLING == (
        watching(queue_deadline=1).observed(JobStatus.PENDING, 0).explained(PULLING, 0).why(1)
    )  # fmt: skip
    assert "no route" == watching(patience=1).failed_to_ask("no route", 0).why(1)


MOMENTS = st.floats(NOW, NOW + 10**6)
SPANS = st.floats(0, 10**6)
EVENTS = st.one_of(
    st.tuples(st.just("observed"), st.sampled_from(JobStatus)),
    st.tuples(st.just("failed_to_ask"), st.just("no route")),
    st.tuples(st.just("unseen"), st.just("not found")),
    st.tuples(st.just("explained"), st.sampled_from([PROVISIONING, PULLING])),
)
WATCHES = st.builds(
    watching,
    deadline=st.none() | MOMENTS,
    queue_deadline=st.none() | MOMENTS,
    timeout=st.none() | SPANS,
    patience=SPANS,
)


@given(WATCHES, st.lists(st.tuples(EVENTS, MOMENTS), max_size=10))
def test_the_verdict_changes_at_the_next_deadline_and_not_before(watch, events):
    """A caller that sleeps until the next deadline misses no change and needs no other look."""
    for (event, value), now in sorted(events, key=lambda pair: pair[1]):
        watch = getattr(watch, event)(value, now)
    if watch.status in TERMINAL or watch.is_gone:
        return
    moment = watch.next_deadline()

    if moment is None:
        assert Verdict.WAIT is watch.verdict(math.inf)
    else:
        assert watch.verdict(moment) is not Verdict.WAIT
        assert Verdict.WAIT is watch.verdict(math.nextafter(moment, -math.inf))


def test_a_timeline_tells_what_the_job_was_doing():
    """The timeline has an entry for each change of phase, with the reason to wait or the final status."""
    watch = watching()
    for status in (JobStatus.PENDING, JobStatus.PENDING):
        watch = watch.observed(status, 1)
    watch = watch.explained(PROVISIONING, 2).explained(PROVISIONING, 3).explained(PULLING, 4)
    for now, status in enumerate(("PENDING", "RUNNING", "UNKNOWN", "RUNNING", "CANCELLING", "CANCELLED"), start=5):
        watch = watch.observed(JobStatus(status), now)

    assert [
        TimelineEntry(Phase.QUEUED, 1),
        TimelineEntry(Phase.POOL_STARTING, 2, PROVISIONING),
        TimelineEntry(Phase.IMAGE_PULLING, 4, PULLING),
        TimelineEntry(Phase.RUNNING, 6),
        TimelineEntry(Phase.CANCELLING, 9),
        TimelineEntry(Phase.FINISHING, 10, "CANCELLED"),
    ] == list(watch.timeline)


def test_what_containers_say_of_a_job_that_runs_is_no_step():
    """A running job's containers give no entry: they may have been asked before it started."""
    watch = watching().observed(JobStatus.RUNNING, 1).explained(PULLING, 2)

    assert [TimelineEntry(Phase.RUNNING, 1)] == list(watch.timeline)


def test_a_timeline_stays_small():
    """A pool that flips for days loses steps from the middle; how it began and how it ends stay."""
    watch = watching().observed(JobStatus.PENDING, 0)
    for now in range(1, 1001):
        watch = watch.explained([PROVISIONING, PULLING][now % 2] + "x" * 10_000, now)

    assert 40 == len(watch.timeline)
    assert TimelineEntry(Phase.QUEUED, 0) == watch.timeline[0]
    assert list(range(962, 1001)) == [step.at for step in watch.timeline[1:]]
    assert all(len(step.message) <= 200 for step in watch.timeline)


@given(st.sampled_from(Phase), st.integers(0, 4 * 10**12), st.text())
def test_a_step_survives_json(phase, milliseconds, message):
    """To the millisecond; the text as far as a database takes it."""
    step = TimelineEntry(phase, milliseconds / 1000, message)
    stored = json.loads(json.dumps(step.to_xcom()))
    again = TimelineEntry.from_xcom(stored)

    assert stored == again.to_xcom()
    assert replace(step, message=again.message) == again
    assert "\0" not in again.message
    assert stored["at"].endswith("+00:00")


def test_a_step_in_words():
    """As the task's log has it."""
    assert "running" == str(TimelineEntry(Phase.RUNNING, 0))
    assert "image pulling: Waiting to start" == str(TimelineEntry(Phase.IMAGE_PULLING, 0, PULLING))


def test_events_are_small_and_plain():
    """Airflow stores and logs an event, so its shape is fixed and its text bounded."""
    event = to_event(
        "DB.ML.JOB",
        Verdict.GONE,
        JobStatus.DELETED,
        "x" * 5000,
        stage_path="@DB.ML.S/payload_1/JOB",
        timeline=[TimelineEntry(Phase.RUNNING, NOW), TimelineEntry(Phase.FINISHING, NOW + 1.5, "DELETED")],
        printed={"is_whole": False},
    )

    assert {
        "job_id": "DB.ML.JOB",
        "verdict": "gone",
        "status": "DELETED",
        "message": "x" * 1000,
        "stage_path": "@DB.ML.S/payload_1/JOB",
        "timeline": [
            {"phase": "running", "at": "2026-09-21T14:13:20.000+00:00", "message": ""},
            {"phase": "finishing", "at": "2026-09-21T14:13:21.500+00:00", "message": "DELETED"},
        ],
        "printed": {"is_whole": False},
    } == event
    assert event == json.loads(json.dumps(event))


def test_an_event_of_a_long_watch_is_small():
    """The event of a long watch with many phases stays small."""
    watch = watching().observed(JobStatus.PENDING, 0)
    for now in range(100):
        watch = watch.explained(f"{now}{PULLING}" + "x" * 10_000, now)
    event = to_event("J", Verdict.QUEUE_TIMED_OUT, watch.status, watch.reason, timeline=watch.timeline)

    assert len(json.dumps(event)) < 16_000


@pytest.mark.parametrize(("age", "expected"), [(0, 0.5), (3, 1.0), (15, 5.0), (30, 10.0), (3600, 10.0)])
def test_a_young_job_is_looked_at_more_often(age, expected):
    """The pause grows with the age of the watch, up to the poll interval."""
    assert expected == pause(age, 10.0)


def test_a_short_poll_interval_is_kept():
    """No pause is longer than the poll interval."""
    assert 0.1 == pause(0, 0.1)


def test_an_event_holds_nothing_that_breaks_a_database():
    """A NUL in an event would take the triggerer down on PostgreSQL, again and again."""
    steps = [TimelineEntry(Phase.QUEUED, 0, "c\0d")]
    event = to_event("DB.S.J", Verdict.GONE, JobStatus.DELETED, "a\0b", timeline=steps)

    assert ("a\ufffdb", "c\ufffdd") == (event["message"], event["timeline"][0]["message"])
