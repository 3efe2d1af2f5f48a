"""The record of a task's job, and the first step of the next try."""

import json
from dataclasses import replace

import pytest

from airflow_provider_mljobs.jobs.attempts import Epoch, NextStep, Record
from airflow_provider_mljobs.jobs.outcome.status import JobStatus

EPOCH = Epoch(max_tries=1, clear_number=2)
RECORD = Record(
    job_id="DB.S.MLJOB_TRAIN_1_1",
    snowflake_conn_id="snowflake_default",
    epoch=EPOCH,
    run_started="2026-01-01",
    attempt=1,
    stage_path="@DB.S.ST/payload_a_1/MLJOB_TRAIN_1_1",
)
SUBMITTED = RECORD.submitted()


@pytest.mark.parametrize(
    "record", [RECORD, SUBMITTED, SUBMITTED.failed(), SUBMITTED.succeeded()], ids=lambda record: record.progress
)
def test_there_and_back(record):
    """Airflow's store keeps JSON."""
    assert record == Record.from_json(json.loads(json.dumps(record.to_json())))


def test_unseen_jobs():
    """Jobs whose submit may still take effect are handed on from attempt to attempt, in the same JSON."""
    second = replace(RECORD, attempt=2).after(RECORD, has_ended=False)
    third = replace(RECORD, attempt=3).after(second, has_ended=False)

    assert (RECORD, replace(RECORD, attempt=2)) == third.unseen
    assert third == Record.from_json(json.loads(json.dumps(third.to_json())))


def test_at_most_twenty_unseen_jobs():
    """A task that is cleared again and again keeps its record small."""
    record = RECORD
    for attempt in range(2, 50):
        record = replace(RECORD, attempt=attempt).after(record, has_ended=False)

    assert list(range(29, 49)) == [each.attempt for each in record.unseen]


@pytest.mark.parametrize(
    "part",
    [
        *({"job_id": 7}, {"attempt": "1"}, {"attempt": True}, {"epoch": {"max_tries": None}}, {"epoch": []}),
        *({"intended_at": "now"}, {"unseen": 1}, {"unseen": [[]]}, {"unseen": [{}]}),
    ],
    ids=str,
)
def test_a_damaged_record(part):
    """A field of another type makes the whole record unreadable."""
    with pytest.raises(ValueError, match="no record"):
        Record.from_json({**RECORD.to_json(), **part})


@pytest.mark.parametrize("document", [None, "MLJOB_TRAIN", [], {}, {"version": 1}], ids=str)
def test_what_is_no_record_at_all(document):
    """A record of a foreign shape is refused, not guessed at."""
    with pytest.raises(ValueError, match=r"a record of version None|no record"):
        Record.from_json(document)


@pytest.mark.parametrize("part", [{"version": 2}, {"progress": "lost"}, {"colour": "blue"}], ids=str)
def test_a_record_of_another_version(part):
    """A record written by a newer version is refused."""
    with pytest.raises(ValueError, match=r"a record of version 2|no record|not a valid Progress"):
        Record.from_json({**RECORD.to_json(), **part})


@pytest.mark.parametrize("record", [RECORD, SUBMITTED], ids=lambda record: record.progress)
class TestNextStep:
    """A try that finds that an earlier one has not come to an end."""

    @pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.RUNNING, JobStatus.UNKNOWN, JobStatus.DONE])
    def test_goes_on(self, record, status):
        """The next try waits for a job that runs, and reads the result of one that is DONE."""
        assert NextStep.ATTACH is record.next_step(EPOCH, status)

    @pytest.mark.parametrize(
        "status",
        [JobStatus.FAILED, JobStatus.CANCELLING, JobStatus.CANCELLED, JobStatus.DELETING, JobStatus.INTERNAL_ERROR],
    )
    def test_tries_again(self, record, status):
        """A job that ends badly is followed by another one, unless the task was to submit it and no more."""
        assert NextStep.SUBMIT_ANOTHER is record.next_step(EPOCH, status)
        assert NextStep.ATTACH is record.next_step(EPOCH, status, waits=False)

    def test_takes_a_failure(self, record):
        """A task that has something to say about exit codes looks at that of the job."""
        assert NextStep.ATTACH is record.next_step(EPOCH, JobStatus.FAILED, takes_failures=True)
        assert NextStep.SUBMIT_ANOTHER is record.next_step(EPOCH, JobStatus.CANCELLED, takes_failures=True)

    @pytest.mark.parametrize("status", [None, *JobStatus])
    def test_cleared(self, record, status):
        """A cleared task gets another job, in every state of the old one."""
        assert NextStep.SUBMIT_ANOTHER is record.next_step(Epoch(max_tries=2, clear_number=3), status)

    def test_another_task_was_cleared(self, record):
        """A clear of another task of the DAG run does not end a running job."""
        assert NextStep.ATTACH is record.next_step(Epoch(max_tries=1, clear_number=3), JobStatus.RUNNING)


def test_a_job_that_is_not_there():
    """One that never came to be is submitted; one that is gone may have left something in its place."""
    assert NextStep.SUBMIT is RECORD.next_step(EPOCH, None)
    assert NextStep.SUBMIT_ANOTHER is SUBMITTED.next_step(EPOCH, None)


def test_a_failure_is_told_once():
    """A job whose failure the task has reported is followed by another one."""
    assert NextStep.SUBMIT_ANOTHER is SUBMITTED.failed().next_step(EPOCH, JobStatus.DONE)


def test_a_success_that_airflow_has_not_heard_of():
    """The try was lost between its end and Airflow: the next one returns the same; a cleared one does not."""
    assert NextStep.RETURN is SUBMITTED.succeeded().next_step(EPOCH, None)
    assert NextStep.SUBMIT_ANOTHER is SUBMITTED.succeeded().next_step(Epoch(max_tries=2, clear_number=3), None)
    assert NextStep.SUBMIT_ANOTHER is SUBMITTED.succeeded().next_step(Epoch(max_tries=1, clear_number=3), None)
