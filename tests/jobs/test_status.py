import pytest

from airflow_provider_mljobs.jobs.status import JobStatus

TERMINAL = {"DONE", "FAILED", "CANCELLED", "INTERNAL_ERROR", "DELETED"}


@pytest.mark.parametrize("status", JobStatus)
def test_terminal_statuses_are_those_that_do_not_change(status):
    """A job in transition, or in a status that says nothing, is watched on."""
    assert (status.value in TERMINAL) is status.is_terminal


@pytest.mark.parametrize("value", ["RESUMING", "done", "", None])
def test_a_status_of_tomorrow_says_nothing(value):
    """An unknown status is no error and no end."""
    assert JobStatus.UNKNOWN is JobStatus(value)
