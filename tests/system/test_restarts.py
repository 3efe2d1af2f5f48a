"""Triggerers that end, die, stall and take over: the watch continues, and each line of the log is there once."""

import signal
from datetime import UTC, datetime
from itertools import count

import pytest

from tests.budget import wait_until
from tests.system.lab import PASSWORD, Installation

ANNOUNCEMENT = "Another triggerer watched job"
NUMBERS = count()


@pytest.fixture(scope="module")
def installation(jobs_snowflake, tmp_path_factory):
    """An Airflow for this module."""
    installation = Installation(tmp_path_factory.mktemp("airflow"), jobs_snowflake)
    yield installation
    for triggerer in installation.triggerers:
        triggerer.kill()


@pytest.fixture
def triggerer(installation):
    """The triggerer of an earlier test, as on a server that runs for months; or a new one."""
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
    """Check that the job ran once and to its end, that no statement ended it, and that the event says so."""
    (row,) = task.ask(f"DESCRIBE SERVICE {task.job}")
    assert "DONE" == row["status"]
    assert not task.is_started_again
    assert [] == task.interventions
    assert ("finished", "DONE", "") == tuple(task.event[key] for key in ("verdict", "status", "message"))
    assert ["running", "finishing"] == [step["phase"] for step in task.event["timeline"]][-2:]
    assert task.event["printed"]["is_whole"]


def assert_taken_over(task, first, second, printed):
    """Check that two triggerers logged all lines; repeated are only lines that the second announces."""
    before, after = dict(task.lines(first)), dict(task.lines(second))
    (announcement,) = (text for text in task.log(second) if text.startswith(ANNOUNCEMENT))
    until = datetime.fromisoformat(announcement.partition(" until ")[2].partition(";")[0]).timestamp()

    assert not any(text.startswith(ANNOUNCEMENT) for text in task.log(first))
    assert list(range(1, max(before) + 1)) == [number for number, _ in task.lines(first)]
    assert list(range(min(after), printed + 1)) == [number for number, _ in task.lines(second)]
    assert min(after) <= max(before) + 1
    # A line reaches Snowflake a moment after it is printed.
    early = {number: after[number] - until for number in before.keys() & after.keys() if after[number] < until - 1}
    assert {} == early


def test_undisturbed(triggerer, task):
    """Each line is logged once, while the job runs; afterwards no thread and no connection remain.

    Secrets of the job's environment are masked: the triggerer reads them from Snowflake.
    """
    task.await_lines(triggerer)
    assert "deferred" == task.state
    assert "gateway/watcher/status_loop.py" in triggerer.stacks
    printed = task.finish()

    assert list(range(1, printed + 1)) == [number for number, _ in task.lines(triggerer)]
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
    """A killed triggerer leaves the job to the next one, once Airflow misses its heartbeat.

    It dies after it has stored its progress, while Airflow still writes its lines to the log.
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
    """A killed triggerer leaves the job to one that was running already."""
    task.await_lines(triggerer)
    second = installation.triggerer()
    assert triggerer.id == task.watched_by
    triggerer.kill()
    task.await_lines(second)
    printed = task.finish()

    assert_taken_over(task, triggerer, second, printed)
    assert_untouched(task)


def test_stalled(triggerer, task, installation):
    """A triggerer that wakes up after another has taken over stops watching, and does not cancel the job."""
    task.await_lines(triggerer)
    triggerer.send(signal.SIGSTOP)
    second = installation.triggerer()
    task.await_lines(second)
    triggerer.send(signal.SIGCONT)
    goes_on = f"Another triggerer has taken over job {task.job}; it keeps running."
    wait_until(lambda: goes_on in task.log(triggerer))
    wait_until(lambda: "gateway/watcher/status_loop.py" not in triggerer.stacks)
    printed = task.finish()

    assert_taken_over(task, triggerer, second, printed)
    assert_untouched(task)
