"""Exactly one live job for a task instance, and no result lost, whatever becomes of its tries."""

from contextlib import suppress

import pytest

from airflow_provider_mljobs import exceptions
from airflow_provider_mljobs.emulator.settings import Fault
from airflow_provider_mljobs.operators import MLJobOperator
from tests.lab import POOL, STAGE
from tests.tries import Tries

SETTINGS = {"task_id": "job", "compute_pool": POOL, "stage_name": STAGE, "poll_interval": 0.05}
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


def failing():
    """Raise an error."""
    raise ValueError("no")


def large():
    """Return more than the state store takes."""
    return "x" * 100_000


def table():
    """Return what is no JSON."""
    import pandas as pd

    return pd.DataFrame({"a": [1, 2]})


def tries(airflow, source=seven, *, retries=3, store=(), map_index=-1, **settings):
    """Return the tries of a task."""
    return Tries(
        airflow,
        lambda: MLJobOperator(source=source, **{**SETTINGS, **settings}),
        retries=retries,
        map_index=map_index,
        store=None if store is None else dict(store),
    )


class TestALostTry:
    """A worker that is killed."""

    @pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "blocking"])
    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    @pytest.mark.parametrize("step", STEPS, ids=":".join)
    def test_killed(self, airflow, step, after, deferrable):
        """The retry goes on where the first try was lost: one job, one result, nothing left."""
        task = tries(airflow, deferrable=deferrable)
        task.die(deadly=step, after=after)

        assert 7 == task.run()
        assert ["DONE"] == [status for _, status in task.jobs]
        assert ("DONE", "seven it is") == (task.xcoms["status"], task.xcoms["logs"])
        assert task.xcoms["job_id"].endswith(task.jobs[0][0])
        assert ([], []) == (airflow.jobs, airflow.files)

    def test_killed_again_and_again(self, airflow):
        """So do all that follow."""
        task = tries(airflow)
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
        """A job that somebody has dropped is submitted again, under its name."""
        task = tries(airflow)
        task.die(deadly=("xcom", "status"))
        (job,) = airflow.jobs
        airflow.query(f"DROP SERVICE {job}")

        assert 7 == task.run()
        assert [("3_1", "DONE"), ("3_1", "DONE")] == task.jobs

    def test_a_large_result(self, airflow):
        """What is too large for the state store stays on the stage, for a retry that is never known to be needed."""
        task = tries(airflow, source=large)
        task.die(deadly=("store", "succeeded"), after=True)

        assert "x" * 100_000 == task.run()
        assert [("3_1", "DONE")] == task.jobs
        assert [] == airflow.jobs
        assert ["output/mljob_result"] == airflow.files

    def test_a_reference(self, airflow):
        """A reference stays one, and what it stands for stays where it is."""
        task = tries(airflow, source=table)
        task.die(deadly=("store", "succeeded"), after=True)

        from airflow_provider_mljobs.hooks import MLJobHook

        reference = task.run()
        with MLJobHook() as hook:
            assert [1, 2] == list(hook.open(reference)["a"])
        assert [] == airflow.jobs

    def test_without_waiting(self, airflow):
        """A task that only submits has done its part when the job is there, whatever becomes of it."""
        task = tries(airflow, source=failing, wait_for_completion=False)
        task.die(deadly=("store", "submitted"))

        assert task.xcoms["job_id"] == task.run()
        assert ["3_1"] == [name for name, _ in task.jobs]

    def test_not_durable(self, airflow):
        """With durable=False each try has a job of its own."""
        task = tries(airflow, durable=False)
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

    @pytest.mark.parametrize(("try_number", "left"), [(1, 1), (2, 0)], ids=["a retry is left", "the last one"])
    def test_a_failure_of_ours(self, airflow, try_number, left):
        """Whatever fails after the submit leaves the job to the retry; the last try ends it."""

        class Broken(MLJobOperator):
            def _request(self, *_):
                raise OSError("no more memory")

        task = Tries(airflow, lambda: Broken(source=sleeper, **SETTINGS), retries=1)
        task.try_number = try_number - 1

        with pytest.raises(OSError, match="no more memory"):
            task.run()
        assert left == len(airflow.jobs)


class TestASupersededTry:
    """A worker that was away for so long that Airflow has begun another try."""

    @pytest.mark.parametrize(("is_superseded", "expected"), [(True, "DONE"), (False, "CANCELLED")])
    def test_is_killed(self, airflow, is_superseded, expected):
        """It ends without ending the job, which is the other try's by then."""

        class Away(MLJobOperator):
            def _request(self, *args):
                # Airflow has nothing for a try that isn't the last one.
                kept = dict(task.store)
                if is_superseded:
                    task.store.clear()
                self.on_kill()
                task.store |= kept
                return super()._request(*args)

        def brief():
            import time

            time.sleep(1)

        task = Tries(airflow, lambda: Away(source=brief, on_finish="keep", **SETTINGS))
        with suppress(exceptions.MLJobCancelledError):
            task.run()

        assert [("3_1", expected)] == task.jobs


class TestACleared:
    """A task that somebody has cleared."""

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
        """It runs again."""
        task = tries(airflow)
        task.run()
        task.clear()

        assert 7 == task.run()
        assert [("3_1", "DONE"), ("4_2", "DONE")] == task.jobs

    def test_done_but_not_taken(self, airflow):
        """Even if there is a result that nobody has taken: somebody wants another one."""
        task = tries(airflow)
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
        """The retry takes what the first try has left, and not what others have."""
        other = tries(airflow, store=None, map_index=7)
        task = tries(airflow, store=None, map_index=map_index)
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
        """It is left alone until there is something to note; the job is looked for by its name."""
        task = tries(airflow, retries=2)
        task.die(deadly=("xcom", "status"))
        task.store["mljob"] = {"version": 99, "job": "whatever"}

        assert 7 == task.run()
        assert [("2_1", "DONE")] == task.jobs
        assert "not a record of version 1" in capsys.readouterr().out


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
        """Who made it is told to whoever can do something about it, and it stays as it is, with its files."""
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

        with pytest.raises(exceptions.JobAlreadyExistsError, match="exists and was not submitted by this task"):
            task.run()
        assert ([row["name"]], before) == (airflow.jobs, airflow.files)


class TestTooManyServices:
    """An account that has as many services as it may have."""

    @pytest.fixture
    def refuse(self, airflow):
        """Return what refuses so many submits."""
        limit = {"effect": "error", "message": "Number of services limit exceeded for the account"}
        faults = airflow.snowflake.faults
        yield lambda times: faults.add(Fault(matching="EXECUTE JOB", nth=1, times=times, **limit))
        faults.clear()

    def test_waits(self, airflow, refuse, capsys):
        """The task waits for one to go."""
        refuse(3)
        task = tries(airflow)

        assert 7 == task.run()
        assert [("3_1", "DONE")] == task.jobs
        assert 3 == capsys.readouterr().out.count("Number of services limit exceeded")

    def test_within_its_time(self, airflow, refuse):
        """But not longer than for a node."""
        refuse(1000)
        task = tries(airflow, queue_timeout=0.2)

        with pytest.raises(
            exceptions.MLJobQueueTimeoutError, match="could not be submitted within the task's queue_timeout"
        ):
            task.run()
        assert ([], []) == (airflow.jobs, airflow.files)
