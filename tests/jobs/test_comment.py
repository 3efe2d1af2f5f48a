"""The COMMENT of a job, which identifies its task."""

import json
from dataclasses import replace

import pytest

from airflow_provider_mljobs.jobs.comment import Origin, TaskKey, is_same_job, payload_of, with_payload

TASK = TaskKey(airflow="https://airflow", dag_id="weekly", run_id="r", task_id="train", map_index=3)
ORIGIN = Origin(task=TASK, run_started="2026-01-01 00:00:00+00:00", epoch=1, try_number=1, payload="payload_a_1")


def test_there_and_back():
    """A COMMENT reads back as the same origin, and has the provider's version."""
    comment = ORIGIN.to_comment()

    assert ORIGIN == Origin.parse(comment)
    nameless = replace(ORIGIN, task=replace(TASK, airflow=""))
    assert nameless == Origin.parse(nameless.to_comment())
    assert ("weekly", 1, 3) == tuple(json.loads(comment)[name] for name in ("dag_id", "epoch", "map_index"))


def test_fields_of_a_later_version():
    """Fields of a later version are ignored, because two versions may share a schema."""
    assert ORIGIN == Origin.parse(json.dumps({**json.loads(ORIGIN.to_comment()), "colour": "blue"}))


@pytest.mark.parametrize(
    "comment", [None, "", "nightly", "[]", "7", "[" * 100_000, '{"dag_id": "weekly"}', '{"provider": "1", "a": "b"}']
)
def test_other_comments(comment):
    """Any other COMMENT names no task."""
    assert Origin.parse(comment) is None


@pytest.mark.parametrize(
    "part", [{"epoch": "1"}, {"epoch": True}, {"map_index": 1.0}, {"waits": None}, {"task_id": ["train"]}], ids=str
)
def test_forged_fields(part):
    """A field of another type makes a COMMENT invalid."""
    assert Origin.parse(json.dumps({**json.loads(ORIGIN.to_comment()), **part})) is None


def test_same_attempt():
    """A later try has the same attempt; a cleared task or a repeated run has another."""
    assert ORIGIN.is_same_attempt(replace(ORIGIN, try_number=2, payload=""))
    assert not ORIGIN.is_same_attempt(replace(ORIGIN, epoch=2))
    assert not ORIGIN.is_same_attempt(replace(ORIGIN, run_started="2026-01-02 00:00:00+00:00"))
    assert not ORIGIN.is_same_attempt(replace(ORIGIN, task=replace(TASK, airflow="https://other")))
    assert not ORIGIN.is_same_attempt(None)


CUT = with_payload(replace(ORIGIN, waits=False, comment='a "word", "and" more').to_comment(), "payload_a_1")


@pytest.mark.parametrize("length", range(len(CUT)))
def test_a_comment_that_was_cut(length):
    """The beginning of a COMMENT names its whole task or none, never a payload less, and never a wait more."""
    beginning = CUT[:length]
    origin = Origin.parse(beginning)

    assert origin is None or (TASK, "2026-01-01 00:00:00+00:00", 1, False) == (
        origin.task, origin.run_started, origin.epoch, origin.waits,
    )  # fmt: skip
    assert payload_of(beginning) in {None, "payload_a_1"}
    assert (origin is not None) is is_same_job(ORIGIN.to_comment(), beginning)


def test_where_a_comment_may_be_cut():
    """A COMMENT of this task is recognised by its first 256 characters, and by any longer beginning."""
    assert all(Origin.parse(CUT[:length]) is not None for length in range(256, len(CUT)))


def test_in_words():
    """A task instance reads well in messages."""
    assert "weekly.train[3] of run r" == str(TASK)
    assert "weekly.train of run r" == str(replace(TASK, map_index=-1))
