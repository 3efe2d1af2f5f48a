"""What the COMMENT of a job says about its task."""

import json
from dataclasses import replace

import pytest

from airflow_provider_mljobs.jobs.comment import Origin, TaskKey

TASK = TaskKey(airflow="https://airflow", dag_id="weekly", run_id="r", task_id="train", map_index=3)
ORIGIN = Origin(task=TASK, run_started="2026-01-01 00:00:00+00:00", epoch=1, try_number=1, payload="payload_a_1")


def test_there_and_back():
    """A COMMENT holds all of it, beside the provider's version."""
    comment = ORIGIN.to_comment()

    assert ORIGIN == Origin.parse(comment)
    nameless = replace(ORIGIN, task=replace(TASK, airflow=""))
    assert nameless == Origin.parse(nameless.to_comment())
    assert ("weekly", 1, 3) == tuple(json.loads(comment)[name] for name in ("dag_id", "epoch", "map_index"))


def test_what_a_later_version_adds_is_passed_over():
    """Two versions of the provider may work in one schema."""
    assert ORIGIN == Origin.parse(json.dumps({**json.loads(ORIGIN.to_comment()), "colour": "blue"}))


@pytest.mark.parametrize(
    "comment", [None, "", "nightly", "[]", "7", "[" * 100_000, '{"dag_id": "weekly"}', '{"provider": "1", "a": "b"}']
)
def test_what_is_not_ours(comment):
    """Whatever else stands in a COMMENT is nobody's."""
    assert Origin.parse(comment) is None


@pytest.mark.parametrize(
    "part", [{"epoch": "1"}, {"epoch": True}, {"map_index": 1.0}, {"waits": None}, {"task_id": ["train"]}], ids=str
)
def test_what_somebody_has_made_up(part):
    """A part of another type isn't ours, either."""
    assert Origin.parse(json.dumps({**json.loads(ORIGIN.to_comment()), **part})) is None


def test_who_has_the_name():
    """A later try takes over what an earlier one has submitted; a cleared task, or a repeated run, doesn't."""
    assert ORIGIN.is_same_attempt(replace(ORIGIN, try_number=2, payload=""))
    assert not ORIGIN.is_same_attempt(replace(ORIGIN, epoch=2))
    assert not ORIGIN.is_same_attempt(replace(ORIGIN, run_started="2026-01-02 00:00:00+00:00"))
    assert not ORIGIN.is_same_attempt(replace(ORIGIN, task=replace(TASK, airflow="https://other")))
    assert not ORIGIN.is_same_attempt(None)


def test_in_words():
    """People are told which task it is."""
    assert "weekly.train[3] of run r" == str(TASK)
    assert "weekly.train of run r" == str(replace(TASK, map_index=-1))
