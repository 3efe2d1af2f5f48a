import pytest

from airflow_provider_mljobs.jobs.outcome.status import PHASES, JobStatus, Phase, phase_of

TERMINAL = {"DONE", "FAILED", "CANCELLED", "INTERNAL_ERROR", "DELETED"}


@pytest.mark.parametrize("status", JobStatus)
def test_terminal_statuses_are_those_that_do_not_change(status):
    """A job in transition, or in a status that says nothing, is watched on."""
    assert (status.value in TERMINAL) is status.is_terminal


@pytest.mark.parametrize("value", ["RESUMING", "done", "", None])
def test_a_status_of_tomorrow_says_nothing(value):
    """An unknown status is no error and no end."""
    assert JobStatus.UNKNOWN is JobStatus(value)
    assert phase_of(JobStatus(value)) is None


def test_every_status_but_unknown_has_a_meaning():
    """A status without a phase would be watched for ever without a message."""
    assert set(JobStatus) - {JobStatus.UNKNOWN} == set(PHASES)
    assert all(phase_of(status) is phase for status, phase in PHASES.items())


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("", Phase.QUEUED),
        ("something new", Phase.QUEUED),
        ("Compute pool node(s) are being provisioned.", Phase.POOL_STARTING),
        ("Unschedulable due to insufficient resources.", Phase.NO_CAPACITY),
        ("Unschedulable due to insufficient memory resources.", Phase.NO_CAPACITY),
        ("Unschedulable due to insufficient GPU resources.", Phase.NO_CAPACITY),
        ("Unschedulable due to insufficient CPU, memory resources.", Phase.NO_CAPACITY),
        ("Waiting to start, Container Status: PENDING", Phase.QUEUED),
        ("Failed to pull image '/a/b/c/d:1'", Phase.IMAGE_PULL_FAILING),
        ("Waiting to start", Phase.IMAGE_PULLING),
        ("Waiting to start; Failed to pull image '/a/b/c/d:1'", Phase.IMAGE_PULL_FAILING),
        ("Waiting to start; Unschedulable due to insufficient resources.", Phase.NO_CAPACITY),
    ],
)
def test_why_a_job_waits(reason, expected):
    """The worst message of its containers decides the phase; other messages mean queued."""
    assert expected is phase_of(JobStatus.PENDING, reason)


def test_a_job_that_runs_does_not_wait():
    """A running job is running, regardless of earlier messages of its containers."""
    assert Phase.RUNNING is phase_of(JobStatus.RUNNING, "Waiting to start")
