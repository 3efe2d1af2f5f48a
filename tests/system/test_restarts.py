"""Triggerers that end, die, stall and take over: the watch goes on, and the log is neither torn nor told twice."""

import signal
from datetime import UTC, datetime
from itertools import count

import pytest

from tests.budget import wait_until
from tests.system.lab import PASSWORD, Installation

ANNOUNCEMENT = "Another triggerer has watched job"
NUMBERS = count()


@pytest.fixture(scope="module")
def installation(jobs_snowflake, tmp_path_factory):
    """An Airflow of its own."""
    installation = Installation(tmp_path_factory.mktemp("airflow"), jobs_snowflake)
    yield installation
    for triggerer in installation.triggerers:
        triggerer.kill()


@pytest.fixture
def triggerer(installation):
    """The triggerer that an earlier test has left, as on a server that goes on for months; or a new one."""
    *others, last = [triggerer for triggerer in installation.triggerers if triggerer.is_alive] or [
        installation.triggerer()
    ]
    for other in others:
        other.kill()
    return last


@pytest.fixture
def task(installation):
    """A task that waits for its job."""
    task = installation.task(next(NUMBERS))
    yield task
    task.close()


def assert_untouched(task):
    """Check that the job ran once and to its end, that nobody wanted it otherwise, and that the task is told so."""
    (row,) = task.ask(f"DESCRIBE SERVICE {task.job}")
    assert "DONE" == row["status"]
    assert not task.is_started_again
    assert [] == task.interventions
    assert ("finished", "DONE", "") == tuple(task.event[key] for key in ("verdict", "status", "message"))
    assert ["running", "finishing"] == [step["phase"] for step in task.event["timeline"]][-2:]
    assert task.event["printed"]["is_whole"]


def assert_taken_over(task, first, second, printed):
    """Check that two triggerers have shown all lines, and only those twice of which the second says so."""
    before, after = dict(task.shown(first)), dict(task.shown(second))
    (announcement,) = (text for text in task.log(second) if text.startswith(ANNOUNCEMENT))
    until = datetime.fromisoformat(announcement.partition(" until ")[2].partition(";")[0]).timestamp()

    assert not any(text.startswith(ANNOUNCEMENT) for text in task.log(first))
    assert list(range(1, max(before) + 1)) == [number for number, _ in task.shown(first)]
    assert list(range(min(after), printed + 1)) == [number for number, _ in task.shown(second)]
    assert min(after) <= max(before) + 1
    # A line is on its way to Snowflake for a moment.
    early = {number: after[number] - until for number in before.keys() & after.keys() if after[number] < until - 1}
    assert {} == early


def test_undisturbed(triggerer, task):
    """Each line is shown once, while the job runs; then nothing is left in the triggerer of having watched it.

    What is secret in the job's environment is masked: the triggerer learns it from Snowflake, nobody has given it.
    """
    task.await_lines(triggerer)
    assert "deferred" == task.state
    assert "gateway/watcher/status_loop.py" in triggerer.stacks
    printed = task.finish()

    assert list(range(1, printed + 1)) == [number for number, _ in task.shown(triggerer)]
    assert_untouched(task)
    log = "\n".join(task.log(triggerer))
    assert PASSWORD not in log
    assert "password ***" in log
    wait_until(lambda: "gateway/watcher/status_loop.py" not in triggerer.stacks)
    assert 0 == triggerer.connections
    assert triggerer.is_alive


def test_terminated(triggerer, task, installation):
    """A triggerer that is shut down leaves the job to the next one."""
    task.await_lines(triggerer)
    triggerer.terminate()
    second = installation.triggerer()
    task.await_lines(second)
    printed = task.finish()

    assert not triggerer.is_alive
    assert_taken_over(task, triggerer, second, printed)
    assert_untouched(task)


def test_killed(triggerer, task, installation):
    """A triggerer that dies without a word leaves the job to the next one, when Airflow has given it up.

    It dies when it has told the next one how far it has come, but Airflow is still writing what it has shown.
    """
    task.await_lines(triggerer)
    task.print_much()
    asked = datetime.now(UTC).isoformat()
    wait_until(lambda: task.watched["cursors"]["0/main"][0] > asked, pause=0.001)
    triggerer.kill()
    second = installation.triggerer()
    task.await_lines(second)
    printed = task.finish()

    assert_taken_over(task, triggerer, second, printed)
    assert_untouched(task)


def test_killed_with_another_running(triggerer, task, installation):
    """So it does to one that has been there before."""
    task.await_lines(triggerer)
    second = installation.triggerer()
    assert triggerer.id == task.watched_by
    triggerer.kill()
    task.await_lines(second)
    printed = task.finish()

    assert_taken_over(task, triggerer, second, printed)
    assert_untouched(task)


def test_stalled(triggerer, task, installation):
    """A triggerer that comes back after another one has taken over lets go of the job, and doesn't cancel it."""
    task.await_lines(triggerer)
    triggerer.send(signal.SIGSTOP)
    second = installation.triggerer()
    task.await_lines(second)
    triggerer.send(signal.SIGCONT)
    goes_on = f"Another triggerer has taken job {task.job} over; it goes on."
    wait_until(lambda: goes_on in task.log(triggerer))
    wait_until(lambda: "gateway/watcher/status_loop.py" not in triggerer.stacks)
    printed = task.finish()

    assert_taken_over(task, triggerer, second, printed)
    assert_untouched(task)
