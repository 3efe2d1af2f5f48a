"""What a task remembers of its job, and what the next try does about it."""

import json

import pytest

from airflow_provider_mljobs.jobs.record import Progress, Record, Step
from airflow_provider_mljobs.jobs.status import JobStatus

RECORD = Record(job_id="DB.S.MLJOB_TRAIN_0_1", epoch=0, attempt=1, stage_path="@DB.S.ST/payload_a_1/MLJOB_TRAIN_0_1")
SUBMITTED = RECORD.submitted()


@pytest.mark.parametrize(
    "record",
    [RECORD, SUBMITTED, SUBMITTED.failed(), SUBMITTED.succeeded({"status": "DONE", "return_value": [1.5, "a"]})],
    ids=lambda record: record.progress,
)
def test_there_and_back(record):
    """Airflow's store keeps JSON."""
    assert record == Record.from_json(json.loads(json.dumps(record.to_json())))


@pytest.mark.parametrize("document", [None, "MLJOB_TRAIN", [], {}, {"version": 1}], ids=str)
def test_what_is_no_record_at_all(document):
    """What somebody else has written is refused, not guessed at."""
    with pytest.raises(ValueError, match="not a record"):
        Record.from_json(document)


@pytest.mark.parametrize("part", [{"version": 2}, {"progress": "lost"}, {"colour": "blue"}], ids=str)
def test_a_record_of_another_version(part):
    """So is what a later version has written."""
    with pytest.raises(ValueError, match=r"not a (record|valid Progress)"):
        Record.from_json({**RECORD.to_json(), **part})


@pytest.mark.parametrize("record", [RECORD, SUBMITTED], ids=lambda record: record.progress)
class TestNextStep:
    """A try that finds that an earlier one has not come to an end."""

    @pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.RUNNING, JobStatus.UNKNOWN, JobStatus.DONE])
    def test_goes_on(self, record, status):
        """It waits for a job that runs, and takes what one has left that is DONE."""
        assert Step.ATTACH is record.next_step(0, status)

    @pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.INTERNAL_ERROR])
    def test_tries_again(self, record, status):
        """A job that ended badly is followed by another one, unless the task was to submit it and no more."""
        assert Step.SUBMIT_ANOTHER is record.next_step(0, status)
        assert Step.ATTACH is record.next_step(0, status, waits=False)

    def test_repeats(self, record):
        """A job that never came to be, or is gone, is submitted under its name."""
        assert Step.REPEAT is record.next_step(0, None)

    @pytest.mark.parametrize("status", [None, *JobStatus])
    def test_starts_over(self, record, status):
        """Somebody has cleared the task: whatever there is, he wants another job."""
        assert Step.START_OVER is record.next_step(1, status)


def test_a_failure_is_told_once():
    """A job whose failure the task has told of is followed by another one."""
    assert Step.SUBMIT_ANOTHER is SUBMITTED.failed().next_step(0, JobStatus.DONE)


def test_a_success_that_airflow_has_not_heard_of():
    """The try was lost between its end and Airflow: the next one returns the same; a cleared one does not."""
    record = SUBMITTED.succeeded({"return_value": 7})

    assert Step.RETURN is record.next_step(0, None)
    assert Step.START_OVER is record.next_step(1, None)


def test_a_large_value_stays_on_the_stage():
    """Airflow's store is for small values."""
    record = SUBMITTED.succeeded({"return_value": "x" * 70_000})

    assert (Progress.SUCCEEDED, False, {}) == (record.progress, record.is_whole, record.values)
