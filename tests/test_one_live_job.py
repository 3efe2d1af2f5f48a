"""One live job for a task instance, although Snowflake's answers are late, negative for a moment, or edited."""

import threading
import time
from datetime import timedelta

import pytest
from airflow.sdk.execution_time.timeout import timeout

from airflow_provider_mljobs.emulator.settings import Fault
from airflow_provider_mljobs.exceptions import JobNotFoundError, MLJobFailedError, MLJobTimeoutError
from airflow_provider_mljobs.gateway.payloads import DEFAULT_GRACE_SECONDS, Payloads
from airflow_provider_mljobs.jobs.spec.job import CONTAINER
from tests.budget import budget
from tests.lab import STAGE
from tests.tries import tries

# "Does not exist or not authorized", and a history that isn't enabled for the account.
NO_SERVICE = {"effect": "error", "errno": 2003, "message": "SQL compilation error: Service does not exist"}
NO_HISTORY = {"matching": "GET_JOB_HISTORY", "effect": "error", "errno": 2143, "message": "Unknown table function"}


def seven():
    """Return a value."""
    return 7


def brief():
    """Take three seconds."""
    import time

    time.sleep(3)
    return 7


def failing():
    """Fail."""
    raise ValueError


def sleeper():
    """Run for longer than any test."""
    import time

    time.sleep(300)


def stubborn():
    """Take three seconds, also after a cancel."""
    import signal
    import time

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("stubborn from now on", flush=True)
    time.sleep(3)


@pytest.fixture
def faults(airflow):
    """Return a function that makes statements go wrong until the end of the test."""

    def add(**fault):
        airflow.snowflake.faults.add(Fault(**{"nth": 1, **fault}))

    yield add
    airflow.snowflake.faults.clear()


@pytest.fixture
def hidden(faults):
    """Hide jobs: neither DESCRIBE SERVICE nor the job history shows one for some looks."""

    def hide(nth=1, times=2):
        faults(matching="DESCRIBE SERVICE", **NO_SERVICE, nth=nth, times=times)
        faults(**NO_HISTORY, times=times)

    return hide


def lives(airflow, task):
    """Return the jobs of a task with the times of their life, oldest first."""
    rows = airflow.query(
        "SELECT CREATED_TIME, COALESCE(COMPLETED_TIME, DELETED_TIME) AS END_TIME "
        "FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY(RESULT_LIMIT => 10000)) "
        f"WHERE STARTSWITH(NAME, '{task.job_name('')}') ORDER BY CREATED_TIME"
    )
    return [(row["created_time"], row["end_time"]) for row in rows]


def printed(airflow, job):
    """Return the log of a job, as far as there is one."""
    airflow.query(f"CALL {job}!SPCS_WAIT_FOR('RUNNING', {budget():.0f})")
    (row,) = airflow.query(f"SELECT SYSTEM$GET_SERVICE_LOGS('{job}', 0, '{CONTAINER}') AS LOG")
    return row["log"]


def late_submit(airflow, task, epoch_and_attempt="3_1"):
    """Return the submit of a task's lost try, as it reaches Snowflake after its sender is gone."""
    twin = tries(airflow, sleeper, wait_for_completion=False)
    airflow.snowflake.statements.clear()
    twin.run()
    (statement,) = airflow.snowflake.statements.matching("EXECUTE JOB SERVICE")
    airflow.query(f"DROP SERVICE {twin.job_name('3_1')}")
    epoch = epoch_and_attempt.partition("_")[0]
    names = ((twin.job_name("3_1"), task.job_name(epoch_and_attempt)), (twin.run_id, task.run_id))
    for theirs, ours in (*names, ('"epoch": 3', f'"epoch": {epoch}')):
        statement = statement.replace(theirs, ours)
    return lambda: airflow.query(statement)


class TestAJobThatIsNotShown:
    """A job of a lost try that Snowflake says does not exist, though it runs."""

    def test_retry(self, airflow, hidden):
        """The retry looks again and attaches to the job."""
        task = tries(airflow, brief)
        task.die(deadly=("store", "submitted"), after=True)
        hidden()

        assert 7 == task.run()
        assert [("3_1", "DONE")] == task.jobs

    def test_known_to_the_history(self, airflow, faults):
        """A job that the history shows running counts as live, also when DESCRIBE SERVICE fails."""
        task = tries(airflow, brief)
        task.die(deadly=("store", "submitted"), after=True)
        faults(matching="DESCRIBE SERVICE", **NO_SERVICE)

        assert 7 == task.run()
        assert [("3_1", "DONE")] == task.jobs

    def test_cleared(self, airflow, hidden):
        """A cleared task ends its old job before it submits another."""
        task = tries(airflow, sleeper, wait_for_completion=False)
        task.run()
        hidden()
        task.clear()
        task.run()

        (_, old_end), (new_start, _) = lives(airflow, task)
        assert ["3_1", "4_2"] == [name for name, _ in task.jobs]
        assert old_end <= new_start

    def test_cleared_before_the_submit_was_recorded(self, airflow, faults):
        """A job that only the history shows is described again and ended before another one is submitted."""
        task = tries(airflow, sleeper, wait_for_completion=False)
        task.die(deadly=("store", "submitted"))
        faults(matching="DESCRIBE SERVICE", **NO_SERVICE)
        task.clear()
        task.run()

        (_, old_end), (new_start, _) = lives(airflow, task)
        assert ["3_1", "4_2"] == [name for name, _ in task.jobs]
        assert old_end <= new_start

    def test_a_failed_task(self, airflow, faults):
        """The job of a failed try that is still ending, says the history, is waited for before the next submit."""
        task = tries(airflow, stubborn, timeout=1, on_finish="keep")
        with pytest.raises(MLJobTimeoutError):
            task.run()
        assert "failed" == task.store["mljob"]["progress"]
        faults(matching="DESCRIBE SERVICE", **NO_SERVICE)
        task.die(deadly=("store", "submitted"), after=True)

        (_, old_end), (new_start, _) = lives(airflow, task)
        assert old_end is not None
        assert old_end <= new_start

    def test_cancelled(self, airflow, hidden):
        """A job that isn't shown after its cancel may still be ending: the next submit waits for its end."""
        task = tries(airflow, stubborn, wait_for_completion=False)
        task.run()
        while "stubborn" not in printed(airflow, task.job_name("3_1")):
            pass
        # Two looks decide about the cancel.
        hidden(nth=3)
        task.clear()
        task.run()

        (_, old_end), (new_start, _) = lives(airflow, task)
        assert old_end <= new_start

    def test_name_is_taken(self, airflow, faults):
        """A submit that finds its name taken looks until it sees by which job."""
        task = tries(airflow, seven)
        task.die(deadly=("store", "submitted"))
        faults(matching="DESCRIBE SERVICE", **NO_SERVICE, times=3)

        assert 7 == task.run()
        assert [("3_1", "DONE")] == task.jobs

    def test_out_of_time(self, airflow, hidden):
        """A try that is out of time while it looks for the job ends the job."""
        task = tries(airflow, sleeper, execution_timeout=timedelta(minutes=1))
        task.die(deadly=("store", "submitted"), after=True)
        hidden()

        with pytest.raises(MLJobTimeoutError), timeout(0.5):
            task.run()
        assert [] == airflow.jobs

    def test_an_empty_listing(self, airflow, faults):
        """Without a record, a running job that the listing lacks is found in the job history."""
        task = tries(airflow, sleeper, store=None, wait_for_completion=False)
        task.run()
        faults(matching="SHOW JOB SERVICES", effect="empty")
        task.run()

        assert ["3_1"] == [name for name, _ in task.jobs]

    def test_an_incomplete_listing(self, airflow, faults):
        """Without a record, a running job is found in the job history though the listing has an older one only."""
        task = tries(airflow, failing, store=None, on_finish="keep")
        with pytest.raises(MLJobFailedError):
            task.run()
        task.make = tries(airflow, brief, deferrable=True).make
        task.defer()
        faults(matching="SHOW JOB SERVICES", effect="rewrite", column="name", value=task.job_name("3_1"))

        assert 7 == task.run()
        assert [("3_1", "FAILED"), ("3_2", "DONE")] == task.jobs

    def test_without_a_record_and_a_history(self, airflow, faults):
        """Where the job history can't be asked, the listing has to do."""
        task = tries(airflow, brief, store=None, deferrable=True)
        task.defer()
        faults(matching="GET_JOB_HISTORY", effect="error", errno=606, message="No active warehouse", times=1000)

        assert 7 == task.run()
        airflow.snowflake.faults.clear()
        assert ["3_1"] == [name for name, _ in task.jobs]

    def test_a_job_that_cannot_be_described(self, airflow, faults, monkeypatch):
        """Without a record, a running job that this role can't describe is no reason to submit another."""
        monkeypatch.setenv("AIRFLOW__MLJOBS__MAX_UNSEEN_SECONDS", "1")
        task = tries(airflow, sleeper, store=None, wait_for_completion=False)
        task.run()
        faults(matching="SHOW JOB SERVICES", effect="empty")
        faults(matching="DESCRIBE SERVICE", **NO_SERVICE, times=1000)

        with pytest.raises(JobNotFoundError, match="end the job with: DROP SERVICE"):
            task.run()
        assert ["3_1"] == [name for name, _ in task.jobs]

    def test_unseen_for_longer_than_the_task_is_patient(self, airflow, faults, monkeypatch):
        """A job that nothing shows for two minutes is followed by another one, and ended when it is seen again."""
        monkeypatch.setenv("AIRFLOW__MLJOBS__MAX_UNSEEN_SECONDS", "1")
        task = tries(airflow, sleeper, wait_for_completion=False)
        task.run()
        faults(**NO_HISTORY, times=4)
        faults(matching="DESCRIBE SERVICE", **NO_SERVICE, times=4)
        task.run()

        assert [("3_1", "CANCELLED"), ("3_2", "RUNNING")] == [
            (name, "CANCELLED" if status == "DELETED" else status) for name, status in task.jobs
        ]
        assert [] == task.store["mljob"]["unseen"]


class TestALateSubmit:
    """A worker is gone before its submit takes effect, and the task is cleared."""

    def test_before_the_next_submit(self, airflow):
        """The next try waits for the lost submit, and ends its job before it submits another."""
        task = tries(airflow, seven)
        task.die(deadly=("store", "intended"), after=True)
        task.clear()
        late = threading.Timer(1.5, late_submit(airflow, task))
        late.start()

        assert 7 == task.run()
        late.join()
        (_, old_end), (new_start, _) = lives(airflow, task)
        assert ["3_1", "4_2"] == [name for name, _ in task.jobs]
        assert old_end <= new_start
        assert [] == airflow.jobs

    def test_beside_the_next_job(self, airflow):
        """A submit that takes effect later still is ended with the task, and nothing of it stays."""
        task = tries(airflow, brief)
        task.die(deadly=("store", "intended"), after=True)
        task.clear()
        task.store["mljob"]["intended_at"] -= timedelta(minutes=1).total_seconds()
        late = threading.Timer(1.5, late_submit(airflow, task))
        late.start()

        assert 7 == task.run()
        late.join()
        assert {"4_2", "3_1"} == {name for name, _ in task.jobs}
        assert ([], []) == (airflow.jobs, task.store["mljob"]["unseen"])

    def test_another_schema(self, airflow):
        """A task that has moved to another schema still ends the job that its lost submit makes in the old one."""
        airflow.query("CREATE SCHEMA IF NOT EXISTS OTHERS")
        task = tries(airflow, seven)
        task.die(deadly=("store", "intended"), after=True)
        late = threading.Timer(1.5, late_submit(airflow, task))
        task.make = tries(airflow, brief, schema="OTHERS", stage_name=STAGE.replace("@", "@MLJOBS_DB.PUBLIC.")).make
        task.store["mljob"]["intended_at"] = 0
        late.start()

        assert 7 == task.run()
        late.join()
        assert ([], []) == (airflow.jobs, task.store["mljob"]["unseen"])

    def test_several_connections(self, airflow, monkeypatch):
        """Each lost submit is looked for by the connection that has sent it."""
        default = airflow.snowflake.environment["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"]
        task = tries(airflow, seven)
        for conn_id in ("gone", "other", "snowflake_default"):
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", default)
            task.make = tries(airflow, seven, snowflake_conn_id=conn_id).make
            task.die(deadly=("store", "intended"), after=True)
            task.store["mljob"]["intended_at"] = 0
            task.clear()
        monkeypatch.delenv("AIRFLOW_CONN_GONE")
        late_submit(airflow, task, "4_2")()

        assert 7 == task.run()
        assert [] == airflow.jobs
        assert ["gone", "snowflake_default"] == [each["snowflake_conn_id"] for each in task.store["mljob"]["unseen"]]

    def test_the_result_is_safe_first(self, airflow):
        """The result is saved before the task looks for a late job, which may take long."""
        task = tries(airflow, seven)
        task.die(deadly=("store", "intended"), after=True)
        task.store["mljob"]["intended_at"] = 0
        task.clear()
        airflow.snowflake.statements.clear()
        task.die(deadly=("store", "succeeded"), after=True)

        # Before and after the submit.
        assert 2 == len(airflow.snowflake.statements.matching(f"DESCRIBE SERVICE .*{task.job_name('3_1')}"))
        assert 7 == task.run()

    def test_remembered(self, airflow):
        """Names of several epochs stay in the record until their jobs are seen to end."""
        task = tries(airflow, seven)
        for _ in range(3):
            task.die(deadly=("store", "intended"), after=True)
            task.store["mljob"]["intended_at"] = 0
            task.clear()
        task.die(deadly=("store", "intended"), after=True)

        assert ["3_1", "4_2", "5_3"] == [
            "_".join(each["job_id"].rsplit("_", 2)[1:]) for each in task.store["mljob"]["unseen"]
        ]

    def test_out_of_reach(self, airflow, faults, capsys):
        """A look at the lost job that fails at the end doesn't turn success into failure."""
        task = tries(airflow, seven)
        task.die(deadly=("store", "intended"), after=True)
        task.store["mljob"]["intended_at"] = 0
        task.clear()
        faults(matching=f"DESCRIBE SERVICE .*{task.job_name('3_1')}", effect="error", nth=2, times=1000)

        assert 7 == task.run()
        assert "Could not check job" in capsys.readouterr().out


class TestALostComment:
    """A job whose COMMENT was replaced while it runs."""

    COMMENTS = ("", "being looked into", '{"owner": "platform"}', "[" * 1200)

    @pytest.mark.parametrize("comment", COMMENTS, ids=["none", "text", "json", "deep"])
    def test_submitted(self, airflow, comment):
        """Name and record are enough: the retry attaches to the job."""
        task = tries(airflow, brief)
        task.die(deadly=("store", "submitted"), after=True)
        airflow.query(f"COMMENT ON SERVICE {task.job_name('3_1')} IS '{comment}'")

        assert 7 == task.run()
        assert [("3_1", "DONE")] == task.jobs

    def test_intended(self, airflow):
        """A job that the record only intended is the task's if it has the task's directory on the stage."""
        task = tries(airflow, brief)
        task.die(deadly=("store", "submitted"))
        airflow.query(f"COMMENT ON SERVICE {task.job_name('3_1')} IS ''")

        assert 7 == task.run()
        assert [("3_1", "DONE")] == task.jobs

    def test_without_a_record(self, airflow):
        """Without a record it may be an earlier life's of the DAG run: it is ended, and another submitted."""
        task = tries(airflow, brief, store=None)
        task.die(deadly=("xcom", "status"))
        airflow.query(f"COMMENT ON SERVICE {task.job_name('3_1')} IS ''")

        assert 7 == task.run()
        assert ["3_1", "3_2"] == [name for name, _ in task.jobs]
        assert [] == airflow.jobs

    def test_its_payload(self, airflow):
        """The payload of a running job stays on the stage, also if no COMMENT names it."""
        from airflow_provider_mljobs.hooks import MLJobHook

        task = tries(airflow, sleeper, wait_for_completion=False)
        task.run()
        airflow.query(f"COMMENT ON SERVICE {task.job_name('3_1')} IS ''")
        with MLJobHook() as hook:
            payloads = Payloads(hook.client.connection, clock=lambda: time.time() + 4 * DEFAULT_GRACE_SECONDS)
            unused = payloads.unused(hook.stage(STAGE))
        (payload,) = airflow.payloads

        assert payload not in [directory.name for directory in unused]
