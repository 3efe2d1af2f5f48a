"""Exactly one live job for a task instance, and no lost result, however its tries end."""

import asyncio
import json
import time
from contextlib import contextmanager
from datetime import timedelta
from types import MappingProxyType

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferralError, TaskDeferralTimeout

from airflow_provider_mljobs import exceptions
from airflow_provider_mljobs.emulator.settings import Fault
from airflow_provider_mljobs.exceptions import Failure
from airflow_provider_mljobs.operators import MLJobOperator
from airflow_provider_mljobs.task.run import Try
from tests.budget import wait_until
from tests.lab import POOL, STAGE
from tests.tries import SETTINGS, Tries, operator_of, tries

# Each step of a try after which it may be gone.
STEPS = [
    ("store", "intended"),
    ("xcom", "job_id"),
    ("store", "submitted"),
    ("xcom", "status"),
    ("store", "succeeded"),
]


def seven():
    """Print and return."""
    print("seven it is")
    return 7


def sleeper():
    """Run for longer than any test."""
    import time

    time.sleep(300)


def brief():
    """Take a second."""
    import time

    time.sleep(1)
    return 7


def failing():
    """Raise an error."""
    raise ValueError("no")


def large():
    """Return more than one value of the state store takes."""
    return "x" * 200_000


def table():
    """Return a value that is not JSON."""
    import pandas as pd

    return pd.DataFrame({"a": [1, 2]})


@contextmanager
def faulty(airflow, **fault):
    """Have something go wrong."""
    airflow.snowflake.faults.add(Fault(**fault))
    yield
    airflow.snowflake.faults.clear()


class TestALostTry:
    """A worker that is killed."""

    @pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "blocking"])
    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    @pytest.mark.parametrize("step", STEPS, ids=":".join)
    def test_killed(self, airflow, step, after, deferrable):
        """The retry continues where the first try was lost: one job, one result, no leftovers."""
        task = tries(airflow, seven, deferrable=deferrable)
        task.die(deadly=step, after=after)

        assert 7 == task.run()
        assert ["DONE"] == [status for _, status in task.jobs]
        assert ("DONE", "seven it is") == (task.xcoms["status"], task.xcoms["logs"])
        assert task.xcoms["job_id"].endswith(task.jobs[0][0])
        assert ([], []) == (airflow.jobs, airflow.files)

    def test_killed_again_and_again(self, airflow):
        """All retries after it continue there as well."""
        task = tries(airflow, seven)
        for step in STEPS:
            task.die(deadly=step)

        assert 7 == task.run()
        assert ["DONE"] == [status for _, status in task.jobs]

    def test_its_job_is_waited_for(self, airflow):
        """A job that still runs isn't submitted again."""
        task = tries(airflow, source=sleeper, timeout=1)
        task.die(deadly=("store", "submitted"))

        with pytest.raises(exceptions.MLJobTimeoutError):
            task.run()
        assert ["3_1"] == [name for name, _ in task.jobs]

    def test_its_job_has_failed(self, airflow):
        """A job that ended badly meanwhile is followed by another one, and is cleaned up."""
        task = tries(airflow, source=failing)
        task.die(deadly=("xcom", "status"))

        with pytest.raises(exceptions.RemoteError, match="no"):
            task.run()
        assert [("3_1", "FAILED"), ("3_2", "FAILED")] == task.jobs
        assert ([], []) == (airflow.jobs, airflow.files)

    def test_its_job_has_gone(self, airflow):
        """A job that was dropped by hand is followed by another one."""
        task = tries(airflow, seven)
        task.die(deadly=("xcom", "status"))
        (job,) = airflow.jobs
        airflow.query(f"DROP SERVICE {job}")

        assert 7 == task.run()
        assert [("3_1", "DONE"), ("3_2", "DONE")] == task.jobs

    def test_its_job_is_being_cancelled(self, airflow):
        """A job that is about to end badly is not waited for, but until it has ended."""

        def stubborn():
            import signal
            import time

            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(3)

        task = tries(airflow, source=stubborn, timeout=1)
        task.die(deadly=("store", "submitted"), after=True)
        (job,) = airflow.jobs
        wait_until(lambda: [("3_1", "RUNNING")] == task.jobs)
        time.sleep(1)
        airflow.query(f"CALL {job}!SPCS_CANCEL_JOB()")
        task.make = lambda: MLJobOperator(source=seven, **SETTINGS)

        assert 7 == task.run()
        assert ["3_1", "3_2"] == [name for name, _ in task.jobs]

    def test_its_exit_code_is_the_last_word(self, airflow):
        """A job whose exit code says that the task is skipped is not followed by another one."""

        def skipping():
            raise SystemExit(99)

        task = tries(airflow, source=skipping, skip_on_exit_code=99)
        task.die(deadly=("xcom", "status"))

        with pytest.raises(AirflowSkipException):
            task.run()
        assert [("3_1", "FAILED")] == task.jobs

    def test_a_large_result(self, airflow):
        """A result that is too large for one value of the state store is stored in pieces."""
        task = tries(airflow, source=large)
        task.die(deadly=("store", "succeeded"), after=True)

        assert "x" * 200_000 == task.run()
        assert [("3_1", "DONE")] == task.jobs
        assert ([], []) == (airflow.jobs, airflow.files)
        assert 65_535 > max(len(json.dumps(value)) for value in task.store.values())

    @pytest.mark.parametrize(
        "piece", [None, {"of": 1}, {"of": 1, "text": "[" * 1200}, {"of": 1, "text": '{"colour": "blue"}'}], ids=repr
    )
    def test_a_damaged_result(self, airflow, piece):
        """A saved result that can't be read any more fails the task for good, and says how to run it again."""
        task = tries(airflow, seven)
        task.die(deadly=("store", "succeeded"), after=True)
        task.store["mljob_left_0"] = piece

        with pytest.raises(AirflowFailException, match=r"has expired or can't be read\. Clear the task"):
            task.run()

    def test_a_result_for_nobody(self, airflow):
        """A value that isn't pushed to XCom is not in the state store either."""
        task = tries(airflow, seven, do_xcom_push=False)

        assert 7 == task.run()
        assert "seven" not in json.dumps(task.store)

    def test_a_reference(self, airflow):
        """A saved reference stays a reference, and its files stay on the stage."""
        task = tries(airflow, source=table)
        task.die(deadly=("store", "succeeded"), after=True)

        from airflow_provider_mljobs.hooks import MLJobHook

        reference = task.run()
        with MLJobHook() as hook:
            assert [1, 2] == list(hook.open(reference)["a"])
        assert [] == airflow.jobs

    def test_without_waiting(self, airflow):
        """A task that only submits is done once its job exists, however the job ends."""
        task = tries(airflow, source=failing, wait_for_completion=False)
        task.die(deadly=("store", "submitted"))

        assert task.xcoms["job_id"] == task.run()
        assert ["3_1"] == [name for name, _ in task.jobs]

    def test_not_durable(self, airflow):
        """With durable=False each try has a job of its own."""
        task = tries(airflow, seven, durable=False)
        task.die(deadly=("xcom", "status"))

        assert 7 == task.run()
        assert [("3_1", "DONE"), ("3_2", "DONE")] == task.jobs


class TestAFailedTry:
    """A job that ended badly, and of which Airflow knows."""

    @pytest.mark.parametrize("on_finish", ["drop", "keep"])
    def test_the_next_attempt(self, airflow, on_finish):
        """The next try has a job of its own."""
        task = tries(airflow, source=failing, on_finish=on_finish)
        for _ in range(2):
            with pytest.raises(exceptions.RemoteError):
                task.run()

        assert [("3_1", "FAILED"), ("3_2", "FAILED")] == task.jobs
        assert {"drop": 0, "keep": 2}[on_finish] == len(airflow.jobs)

    @pytest.mark.parametrize(("try_number", "remaining"), [(1, 1), (2, 0)], ids=["a retry is left", "the last one"])
    def test_a_failure_of_ours(self, airflow, try_number, remaining):
        """A failure after the submit leaves the job to the retry; the last try ends the job."""

        class Broken(Try):
            def _plan(self, *_):
                raise OSError("no more memory")

        task = Tries(airflow, lambda: operator_of(Broken)(source=sleeper, **SETTINGS), retries=1)
        task.try_number = try_number - 1

        with pytest.raises(OSError, match="no more memory"):
            task.run()
        assert remaining == len(airflow.jobs)


class TestAKilledProcess:
    """A worker that is killed although no user has ended the task: it shuts down, or was unreachable for too long."""

    @pytest.mark.parametrize(("retries", "expected"), [(1, "success"), (0, "failed")])
    def test_on_kill(self, airflow, retries, expected):
        """A killed worker leaves the job to the next try; without a next try it cancels the job."""

        class ShutDown(Try):
            def _plan(self, *args):
                self.kill()
                return super()._plan(*args)

        settings = {"retries": retries, "retry_delay": timedelta(0), "deferrable": False}
        run = airflow.run_task(lambda: operator_of(ShutDown)(source=brief, **SETTINGS, **settings))

        assert {"job": expected} == run.tasks


class TestADeferredTry:
    """A try whose trigger doesn't come to its end."""

    @pytest.mark.parametrize(
        ("error", "retries"), [("Trigger failure", 0), ("Trigger timeout", 0), ("Trigger timeout", 3)]
    )
    def test_its_job_is_ended(self, airflow, error, retries):
        """A job that no try will wait for, or that is out of time, is ended."""
        task = tries(airflow, source=sleeper, deferrable=True, retries=retries)
        task.defer()

        with pytest.raises((TaskDeferralError, TaskDeferralTimeout)):
            task.resume("__fail__", {"error": error})
        assert ([], []) == (airflow.jobs, airflow.files)

    def test_its_job_goes_on(self, airflow):
        """A trigger that fails is no reason to end a job that the next try will wait for."""
        task = tries(airflow, source=brief, deferrable=True)
        task.defer()
        with pytest.raises(TaskDeferralError):
            task.resume("__fail__", {"error": "Trigger failure"})

        assert 7 == task.run()
        assert [("3_1", "DONE")] == task.jobs

    @pytest.mark.parametrize("error", ["Trigger failure", "Trigger timeout"])
    def test_its_job_is_done(self, airflow, error):
        """A job that ended although its trigger failed completes the task."""
        task = tries(airflow, seven, deferrable=True)
        trigger = task.defer()
        asyncio.run(anext(trigger.run()))

        assert 7 == task.resume("__fail__", {"error": error})
        assert [("3_1", "DONE")] == task.jobs

    @pytest.mark.parametrize("source", [seven, table, failing])
    def test_a_late_kill(self, airflow, source):
        """A triggerer that was away finds the job over: its end is for the worker that takes it."""
        task = tries(airflow, source=source, deferrable=True)
        trigger = task.defer()
        asyncio.run(anext(trigger.run()))
        before = airflow.jobs, airflow.files
        asyncio.run(trigger.on_kill())

        assert before == (airflow.jobs, airflow.files)


class TestAnEndThatIsNotTaken:
    """Snowflake doesn't give the result of a job that is DONE."""

    def test_stays(self, airflow):
        """An unreadable result is kept by this try and by the next one."""
        task = tries(airflow, seven)
        task.die(deadly=("xcom", "status"))
        refusal = {"matching": "^(LIST|GET) ", "effect": "error", "message": "Insufficient privileges"}
        with faulty(airflow, **refusal), pytest.raises(exceptions.ResultError, match="it stays in"):
            task.run()

        assert 7 == task.run()
        assert [("3_1", "DONE")] == task.jobs

    def test_listed_but_not_there_yet(self, airflow):
        """A result that LIST shows and GET doesn't find for a moment is asked for again."""
        task = tries(airflow, seven)
        with faulty(airflow, matching="^GET ", effect="empty", nth=1, times=2):
            value = task.run()

        assert (7, [("3_1", "DONE")]) == (value, task.jobs)

    def test_listed_but_not_there(self, airflow):
        """A result that LIST shows and GET doesn't find stays, with its job, and the next try reads it."""
        task = tries(airflow, seven)
        with faulty(airflow, matching="^GET ", effect="empty"), pytest.raises(exceptions.ResultError, match="stays in"):
            task.run()

        assert (7, [("3_1", "DONE")]) == (task.run(), task.jobs)

    def test_done_at_the_last_moment(self, airflow):
        """A job that has ended well when it was to be cancelled has ended well."""

        class Late(Try):
            def _wait(self, plan):
                event = super()._wait(plan)
                return {**event, "verdict": "timed_out", "status": "RUNNING", "message": "timeout"}

        assert 7 == Tries(airflow, lambda: operator_of(Late)(source=seven, **SETTINGS)).run()


class TestAChangedTask:
    """A DAG file that is another one when the task is tried again."""

    def test_another_schema(self, airflow):
        """A job that was not submitted yet is submitted to the task's current schema."""
        airflow.query("CREATE SCHEMA IF NOT EXISTS OTHERS")
        task = tries(airflow, seven)
        task.die(deadly=("store", "intended"), after=True)
        stage = STAGE.replace("@", "@MLJOBS_DB.PUBLIC.")
        task.make = lambda: MLJobOperator(source=seven, **{**SETTINGS, "stage_name": stage, "schema": "OTHERS"})

        assert 7 == task.run()
        assert task.xcoms["job_id"].startswith("MLJOBS_DB.OTHERS.")
        assert ([], []) == (airflow.jobs, airflow.files)

    def test_another_connection(self, airflow, monkeypatch):
        """The job of the old connection is ended by it."""
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", airflow.snowflake.environment["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"])
        task = tries(airflow, source=sleeper, timeout=1)
        task.die(deadly=("store", "submitted"), after=True)
        task.make = lambda: MLJobOperator(source=seven, snowflake_conn_id="other", **SETTINGS)

        assert 7 == task.run()
        assert ["3_1", "3_2"] == [name for name, _ in task.jobs]
        assert ([], []) == (airflow.jobs, airflow.files)

    def test_a_connection_that_is_gone(self, airflow, monkeypatch, capsys):
        """A job whose connection is gone doesn't keep the task from getting another one."""
        monkeypatch.setenv("AIRFLOW_CONN_OLD", airflow.snowflake.environment["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"])
        task = tries(airflow, snowflake_conn_id="old", source=sleeper)
        task.die(deadly=("store", "submitted"), after=True)
        monkeypatch.delenv("AIRFLOW_CONN_OLD")
        task.make = lambda: MLJobOperator(source=seven, **SETTINGS)

        assert 7 == task.run()
        assert "may still run; connection old failed" in capsys.readouterr().out

    def test_a_specification(self, airflow):
        """A job with the user's own specification has no directory on the stage, although the earlier job had one."""
        task = tries(airflow, seven)
        task.die(deadly=("store", "intended"), after=True)
        container = {"name": "x", "image": "/snowflake/images/snowflake_images/x:1", "command": ["true"]}
        settings = {name: value for name, value in SETTINGS.items() if name != "stage_name"}
        task.make = lambda: MLJobOperator(spec={"spec": {"containers": [container]}}, **settings)

        assert task.run() is None

    def test_fewer_retries(self, airflow):
        """A cleared task gets a new job also where the number of its tries stays the same."""
        task = tries(airflow, seven, retries=3)
        task.run()
        task.retries = 2
        task.clear()

        assert 7 == task.run()
        assert [("3_1", "DONE"), ("3_2", "DONE")] == task.jobs


class TestACleared:
    """A task that a user has cleared."""

    def test_running(self, airflow):
        """The old job has ended before the new one begins."""
        task = tries(airflow, source=sleeper, timeout=1)
        task.die(deadly=("store", "submitted"), after=True)
        airflow.snowflake.statements.clear()
        task.clear()

        with pytest.raises(exceptions.MLJobTimeoutError):
            task.run()
        assert ["3_1", "4_2"] == [name for name, _ in task.jobs]
        ended, submitted = airflow.snowflake.statements.matching("3_1!SPCS_CANCEL_JOB|EXECUTE JOB SERVICE")[:2]
        assert ("CALL", "EXECUTE") == (ended.split()[0], submitted.split()[0])
        assert ([], []) == (airflow.jobs, airflow.files)

    def test_succeeded(self, airflow):
        """A cleared task runs again."""
        task = tries(airflow, seven)
        task.run()
        task.clear()

        assert 7 == task.run()
        assert [("3_1", "DONE"), ("4_2", "DONE")] == task.jobs

    def test_done_but_not_taken(self, airflow):
        """A cleared task gets another job even if the old one has an unread result."""
        task = tries(airflow, seven)
        task.die(deadly=("xcom", "status"))
        task.clear()

        assert 7 == task.run()
        assert [("3_1", "DONE"), ("4_2", "DONE")] == task.jobs
        assert ([], []) == (airflow.jobs, airflow.files)

    def test_without_waiting(self, airflow):
        """The job that it has submitted before is ended first."""
        task = tries(airflow, source=sleeper, wait_for_completion=False)
        task.run()
        task.clear()
        task.run()

        assert ["3_1", "4_2"] == [name for name, _ in task.jobs]
        assert dict(task.jobs)["3_1"] in {"CANCELLED", "DELETED"}


class TestWithoutAStore:
    """An Airflow that has forgotten: the job is found by its name, and known by its COMMENT."""

    @pytest.mark.parametrize("map_index", [-1, 0, 3])
    def test_killed(self, airflow, map_index):
        """The retry finds the job of the first try by its name, and ignores jobs of other tasks."""
        other = tries(airflow, seven, store=None, map_index=7)
        task = tries(airflow, seven, store=None, map_index=map_index)
        other.run_id = task.run_id
        other.die(deadly=("xcom", "status"))
        task.die(deadly=("xcom", "status"))

        assert 7 == task.run()
        assert [("3_1", "DONE")] == task.jobs
        assert task.xcoms["stage_path"].endswith("_3_1")
        assert 1 == len(airflow.jobs)

    def test_cleared(self, airflow):
        """The old job has ended before the new one begins."""
        task = tries(airflow, source=sleeper, store=None, wait_for_completion=False)
        task.run()
        task.clear()
        task.run()

        assert ["3_1", "4_2"] == [name for name, _ in task.jobs]
        assert dict(task.jobs)["3_1"] in {"CANCELLED", "DELETED"}

    def test_a_record_of_another_version(self, airflow, capsys):
        """An unreadable record stays until the try writes its own; the job is looked up by its name."""
        task = tries(airflow, seven, retries=2)
        task.die(deadly=("xcom", "status"))
        task.store["mljob"] = {"version": 99, "job": "whatever"}

        assert 7 == task.run()
        assert [("2_1", "DONE")] == task.jobs
        assert "a record of version 99, not 1" in capsys.readouterr().out


class TestATakenName:
    """Another job that is called like ours."""

    def test_of_a_deleted_run(self, airflow):
        """A DAG run that is repeated takes other names, and touches nothing of its first life."""
        task = tries(airflow, on_finish="keep", args=["x"], source=lambda text: text)
        task.run()
        before = airflow.query(f"LIST {STAGE}")
        task.repeat_run()

        assert "x" == task.run()
        assert [("3_1", "DONE"), ("3_2", "DONE")] == task.jobs
        assert all(row in airflow.query(f"LIST {STAGE}") for row in before)

    def test_of_somebody_else(self, airflow):
        """A job of another owner stays untouched with its files, and the error names the owner."""
        task = tries(airflow, on_finish="keep", source=seven)
        task.run()
        (row,) = airflow.query("SHOW JOB SERVICES IN ACCOUNT")
        airflow.query(f"DROP SERVICE {row['name']}")
        airflow.query(
            f"EXECUTE JOB SERVICE IN COMPUTE POOL {POOL} NAME = {row['name']} ASYNC = TRUE COMMENT = 'mine' FROM "
            "SPECIFICATION $$ {spec: {containers: [{name: x, image: /snowflake/images/snowflake_images/x:1}]}} $$"
        )
        before = airflow.files
        task.repeat_run()

        # Neither a retry nor the last one may take it for its own.
        task.make = lambda: MLJobOperator(source=seven, **SETTINGS)
        for _ in range(4):
            with pytest.raises(exceptions.JobAlreadyExistsError, match="was not submitted by this task"):
                task.run()
        assert ([row["name"]], before) == (airflow.jobs, airflow.files)


class TestTooManyServices:
    """An account that has as many services as it may have."""

    FULL = MappingProxyType(
        {
            "matching": "EXECUTE JOB",
            "effect": "error",
            "nth": 1,
            "message": "Number of services limit exceeded for the account",
        }
    )

    def test_waits(self, airflow, capsys):
        """The task waits for one to go."""
        task = tries(airflow, seven)
        with faulty(airflow, times=3, **self.FULL):
            assert 7 == task.run()

        assert [("3_1", "DONE")] == task.jobs
        # Not at each look.
        assert 1 == capsys.readouterr().out.count("Number of services limit exceeded")

    def test_which_failure_it_is(self, airflow):
        """The retry policy tries it again later."""
        task = tries(airflow, seven, queue_timeout=0.2)
        with faulty(airflow, times=1000, **self.FULL), pytest.raises(exceptions.MLJobQueueTimeoutError) as raised:
            task.run()

        assert Failure.CAPACITY is raised.value.failure

    def test_within_its_time(self, airflow):
        """But not longer than for a node."""
        task = tries(airflow, seven, queue_timeout=0.2)
        with (
            faulty(airflow, times=1000, **self.FULL),
            pytest.raises(
                exceptions.MLJobQueueTimeoutError, match="could not be submitted within the task's queue_timeout"
            ),
        ):
            task.run()
        assert ([], []) == (airflow.jobs, airflow.files)
