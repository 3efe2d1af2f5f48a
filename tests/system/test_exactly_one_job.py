"""One live job per task instance at every moment, and no leftovers, through crashes and interventions.

Each scenario is a DAG run on a real Airflow. Scenarios that leave the triggerer alone run side by side.
"""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.budget import slowness, wait_until
from tests.lab import served
from tests.system.real_airflow import RealAirflow, postgres

SCENARIOS, OPTIONS = {}, {}
# Each starts several processes that import Airflow; a task that Airflow ends has five seconds to clean up.
AT_ONCE = 6
CANCELLED, DONE, FAILED = "CANCELLED", "DONE", "FAILED"


def together(**options):
    """Mark a scenario that runs beside others; its test waits for the outcome.

    :param options: the options of its task: see :class:`tests.system.real_airflow.RealAirflow`.
    """

    def register(scenario):
        name = scenario.__name__.removeprefix("test_")

        def test(outcomes):
            outcomes[name].result()

        test.__name__, test.__doc__ = scenario.__name__, scenario.__doc__
        SCENARIOS[name], OPTIONS[name] = scenario, options
        return test

    return register


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    """A real Airflow on Postgres, with a separate embedded Snowflake."""
    with served() as snowflake, postgres() as database:
        airflow = RealAirflow(tmp_path_factory.mktemp("real"), snowflake, database, OPTIONS | ALONE_OPTIONS)
        try:
            airflow.start()
            yield airflow
        finally:
            airflow.stop()


@pytest.fixture(scope="module")
def outcomes(airflow, request):
    """The futures of all selected scenarios that run side by side."""
    chosen = {item.originalname.removeprefix("test_") for item in request.session.items} & SCENARIOS.keys()
    with ThreadPoolExecutor(AT_ONCE) as threads:

        def play(name):
            with airflow.run(name) as run:
                SCENARIOS[name](run)

        yield {name: threads.submit(play, name) for name in SCENARIOS if name in chosen}
        threads.shutdown(cancel_futures=True)


def assert_over(run, state, jobs):
    """Check a task's end: its state, the history of its jobs, and that neither services nor files remain.

    :param jobs: epoch and attempt of each job, and its final status.
    """
    run.await_state(state)
    wait_until(lambda: not run.services and not run.files)
    assert jobs == run.history
    assert run.airflow.triggerers[-1].is_alive


def assert_success(run, value, jobs, *, history=None):
    """Check that a task succeeded with the value of its last job.

    :param history: the jobs that the history still has; by default all.
    """
    assert_over(run, "success", jobs if history is None else history)
    xcoms = run.xcoms()
    assert (value, DONE) == (xcoms["return_value"], xcoms["status"])
    assert xcoms["job_id"].endswith(f"_{jobs[-1][0]}")


# --- Workers that die ---


@together(retries=1, args=["{{ dag_run.conf['port'] }}", 60_000 * "x"])
def test_killed_before_submit(run):
    """A worker dies before it submits its job; the next try submits it under the same name."""
    upload = run.hold("^PUT ")
    run.start()
    run.await_statement(upload)
    run.kill_worker()
    run.await_job().finish("value")

    assert_success(run, "value", [("1_1", DONE)])
    assert 2 == run.task()["try_number"]


@together(retries=1)
def test_killed_between_submit_and_record(run):
    """A worker dies after the submit, before the answer arrives; the next try attaches to the job."""
    run.hold("^EXECUTE JOB SERVICE")
    run.start()
    job = run.await_job()
    run.kill_worker()
    run.await_state("deferred", number=2)
    job.finish("value")

    assert_success(run, "value", [("1_1", DONE)])
    assert 1 == len(run.submissions)


@together(retries=1, deferrable=False)
def test_killed_while_waiting(run):
    """A worker dies while it waits for its job; the next try waits for the same job."""
    run.start()
    job = run.await_job()
    run.await_log("Submitted job")
    run.kill_worker()
    run.await_state("running", number=2)
    run.await_log("attaching to it", number=2)
    job.finish("value")

    assert_success(run, "value", [("1_1", DONE)])
    assert 1 == len(run.submissions)


@together(retries=1, managed=True)
def test_killed_after_managed_submit(run):
    """A worker dies after SYSTEM$EXECUTE_ML_JOB; the next try attaches to the job."""
    run.hold(r"SYSTEM\$EXECUTE_ML_JOB")
    run.start()
    job = run.await_job()
    run.kill_worker()
    run.await_state("deferred", number=2)
    job.finish("value")

    # Snowflake's history has a managed job until it is dropped.
    assert_success(run, "value", [("1_1", DONE)], history=[])


@together(retries=1, deferrable=False)
def test_stalled_while_waiting(run):
    """A worker wakes up after the next try has taken over; Airflow ends the worker, and the job keeps running."""
    run.start()
    job = run.await_job()
    run.await_log("Submitted job")
    with run.stalled_worker():
        run.await_log("attaching to it", number=2)
    run.await_log("keeps running and the next try will attach to it")
    job.finish("value")

    assert_success(run, "value", [("1_1", DONE)])
    assert 1 == len(run.submissions)


@together(retries=1)
def test_killed_at_remove(run):
    """A worker dies after it removed its job's files with the result; the job does not run again."""
    remove = run.hold("^REMOVE")
    run.start()
    run.await_job().finish("value")
    run.await_statement(remove)
    run.kill_worker()

    assert_success(run, "value", [("1_1", DONE)])


@together(retries=1)
def test_killed_at_drop(run):
    """A worker dies after it dropped its job, its last step; the value is not lost."""
    drop = run.hold("^DROP SERVICE")
    run.start()
    run.await_job().finish("value")
    run.await_statement(drop)
    run.kill_worker()

    assert_success(run, "value", [("1_1", DONE)])


@together(retries=1, deferrable=False, mapped=3)
def test_killed_one_of_several(run):
    """The worker of one mapped task dies; each of the three has one job and gets its own value."""
    run.start()
    jobs = [run.await_job() for _ in range(3)]
    for index in range(3):
        run.await_log("Submitted job", index=index)
    run.kill_worker(1)
    run.await_log("attaching to it", number=2, index=1)
    for job in jobs:
        job.finish(job.name)

    for index in range(3):
        run.await_state("success", index)
        assert run.xcoms(index)["job_id"].endswith(run.xcoms(index)["return_value"])
    assert [1, 2, 1] == [run.task(index)["try_number"] for index in range(3)]
    assert 3 * [("1_1", DONE)] == run.history
    assert ([], []) == (run.services, run.files)


# --- People who intervene ---


def assert_ended(run, job, state):
    """Check that an intervention ended a task for good, and its job with it."""
    job.await_end()
    assert_over(run, state, [("0_1", CANCELLED)])
    assert run.xcoms()["job_id"].endswith(job.name)
    assert "return_value" not in run.xcoms()


def assert_begun_again(run, job):
    """Check that a cleared task ended its job and runs another one."""
    job.await_end()
    run.await_job().finish("second")
    assert_success(run, "second", [("0_1", CANCELLED), ("1_2", DONE)])


def await_watch(run):
    """Wait until the last triggerer watches the job."""
    run.await_log(": running.", kind=f".trigger.{run.airflow.triggerers[-1].id}")


def deferred(run):
    """Start a run; return its job once the trigger watches it."""
    run.start()
    job = run.await_job()
    run.await_state("deferred")
    await_watch(run)
    return job


def running(run):
    """Start a run; return its job once the worker waits for it."""
    run.start()
    job = run.await_job()
    run.await_log("Submitted job")
    return job


@together()
def test_cleared_while_deferred(run):
    """Clearing a deferred task cancels its job and starts another one."""
    job = deferred(run)
    run.clear()
    assert_begun_again(run, job)


@together()
def test_marked_failed_while_deferred(run):
    """Marking a deferred task as failed cancels and drops its job."""
    job = deferred(run)
    run.mark("failed")
    assert_ended(run, job, "failed")


@together()
def test_marked_success_while_deferred(run):
    """Marking a deferred task as a success cancels and drops its job, which has no waiter."""
    job = deferred(run)
    run.mark("success")
    assert_ended(run, job, "success")


@together()
def test_run_failed_while_deferred(run):
    """Marking a run as failed ends the job of its deferred task."""
    job = deferred(run)
    run.fail_run()
    assert_ended(run, job, "failed")


@together(dagrun_timeout=60 * slowness())
def test_run_out_of_time_while_deferred(run):
    """A run that exceeds its dagrun_timeout ends the job of its deferred task, which Airflow skips."""
    job = deferred(run)
    assert_ended(run, job, "skipped")


@together(deferrable=False)
def test_cleared_while_running(run):
    """Clearing a running task cancels its job and starts another one."""
    job = running(run)
    run.clear()
    assert_begun_again(run, job)


@together(deferrable=False)
def test_marked_failed_while_running(run):
    """Marking a running task as failed cancels and drops its job."""
    job = running(run)
    run.mark("failed")
    assert_ended(run, job, "failed")


@together(deferrable=False)
def test_marked_success_while_running(run):
    """Marking a running task as a success cancels and drops its job."""
    job = running(run)
    run.mark("success")
    assert_ended(run, job, "success")


@together(deferrable=False)
def test_run_failed_while_running(run):
    """Marking a run as failed ends the job of its running task."""
    job = running(run)
    run.fail_run()
    assert_ended(run, job, "failed")


@together()
def test_cleared_after_success(run):
    """Clearing a successful task runs it again, with another job and another value."""
    run.start()
    run.await_job().finish("first")
    # Airflow loses a clear that arrives while it ends the run.
    run.await_end("success")
    run.clear()
    run.await_job().finish("second")

    assert_success(run, "second", [("0_1", DONE), ("1_2", DONE)])


# --- Time, failures, hostile values ---


@together(execution_timeout=45 * slowness())
def test_out_of_time_while_deferred(run):
    """The execution_timeout of a deferred task ends its job, though Airflow itself does not enforce it."""
    job = deferred(run)
    assert_ended(run, job, "failed")


@together(deferrable=False, execution_timeout=45 * slowness())
def test_out_of_time_while_running(run):
    """The execution_timeout of a running task ends its job."""
    job = running(run)
    assert_ended(run, job, "failed")


@together(retries=1)
def test_retried_after_failure(run):
    """A payload fails; the next try runs it again, in another job."""
    run.start()
    run.await_job().finish(error="the first attempt fails")
    run.await_job().finish("value")

    assert_success(run, "value", [("1_1", FAILED), ("1_2", DONE)])


@together(retries=1, compute_pool="ML_POOL", snowflake_conn_id="restarted")
def test_snowflake_restarted(run):
    """A restarted Snowflake has lost the running job; the next try runs another one."""
    root = run.airflow.home / "restarted"
    with served(root=root) as snowflake:
        run.use(snowflake, "restarted")
        run.start()
        job = run.await_job()
        run.await_state("deferred")
    with served(root=root, port=snowflake.port) as restarted:
        run.use(restarted, "restarted")
        job.await_end()
        run.await_job().finish("value")

        assert_success(run, "value", [("1_1", "INTERNAL_ERROR"), ("1_2", DONE)])


@together()
def test_hostile_result(run):
    """Values that JSON or Postgres refuse become values that they accept."""
    run.start()
    run.await_job().finish({"nan": float("nan"), "infinity": float("inf"), "nul": "a\0b"})

    assert_success(run, {"nan": None, "infinity": None, "nul": "a\ufffdb"}, [("0_1", DONE)])


@together()
def test_large_result(run):
    """A result of 1 MB fits into an XCom; no file of it remains."""
    value = "x" * 2**20
    run.start()
    run.await_job().finish(value)

    assert_success(run, value, [("0_1", DONE)])


@together()
def test_hostile_error(run):
    """Null bytes, surrogates and 1 MB in an error and in the output fail the task as any error does."""
    text = "NaN \0 \ud800 " + "x" * 2**20
    run.start()
    run.await_job().finish(error=text, text=text)

    assert_over(run, "failed", [("0_1", FAILED)])
    assert "\0" not in run.xcoms()["logs"]


# --- Triggerers that die: alone, because other scenarios need the triggerer ---

ALONE_OPTIONS = {
    "triggerer_terminated": {},
    "triggerer_killed": {},
    "triggerer_stalled": {},
    "collected": {"deferrable": False},
}


def assert_continued(run, job):
    """Check that a job kept running, and that the task gets its value."""
    await_watch(run)
    assert "deferred" == run.task()["state"]
    job.finish("value")
    assert_success(run, "value", [("0_1", DONE)])


def test_triggerer_terminated(airflow):
    """A triggerer that is shut down leaves the job to the next one."""
    with airflow.run("triggerer_terminated") as run:
        job = deferred(run)
        airflow.triggerers[-1].terminate()
        airflow.triggerer()
        assert_continued(run, job)


def test_triggerer_killed(airflow):
    """A triggerer that dies leaves the job to the next one."""
    with airflow.run("triggerer_killed") as run:
        job = deferred(run)
        airflow.triggerers[-1].kill()
        airflow.triggerer()
        assert_continued(run, job)


def test_triggerer_stalled(airflow):
    """A triggerer that wakes up after another has taken over stops watching, without a cancel."""
    with airflow.run("triggerer_stalled") as run:
        job = deferred(run)
        stalled = airflow.triggerers[-1]
        stalled.send(signal.SIGSTOP)
        airflow.triggerer()
        await_watch(run)
        stalled.send(signal.SIGCONT)
        run.await_log("has taken over job", kind=".trigger")
        assert_continued(run, job)
        assert stalled.is_alive


def test_collected(airflow):
    """A worker dies in the last try of its task; the example DAG collects the orphaned job."""
    with airflow.run("collected") as run:
        run.start()
        job = run.await_job()
        run.await_log("Submitted job")
        run.kill_worker()
        run.await_state("failed")
        assert 1 == len(run.services)
        collection = airflow.api("POST", "dags/maintenance/dagRuns", {"logical_date": None, "conf": {"days": 0}})
        path = f"dags/maintenance/dagRuns/{collection['dag_run_id']}"
        wait_until(lambda: airflow.api("GET", path)["state"] == "success", pause=0.5)
        job.await_end()

        assert_over(run, "failed", [("0_1", CANCELLED)])


def test_one_payload(airflow):
    """All jobs share one payload."""
    names = [row["name"] for row in airflow.ask("LIST @ML_PAYLOADS")]

    assert 1 == sum(name.endswith("/payload.pyz") for name in names)
