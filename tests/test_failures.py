"""How tasks fail, by the way in which their jobs do: on the embedded Snowflake, deferred and in the worker."""

import contextlib
import json
import logging
import re
from datetime import timedelta
from pathlib import Path

import pytest
from airflow.sdk import RetryAction, RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_provider_mljobs import exceptions
from airflow_provider_mljobs.emulator.settings import Fault, VirtualJob
from airflow_provider_mljobs.exceptions import Failure
from airflow_provider_mljobs.jobs.outcome.failures import KINDS, ContainerEnd, Retry, past_containers
from airflow_provider_mljobs.operators import MLJobOperator
from airflow_provider_mljobs.retries import DEFAULT_DELAY, mljob_retry_policy
from airflow_provider_mljobs.task.completion import raise_as
from airflow_provider_mljobs.task.run import Try
from tests.lab import POOL, STAGE, Airflow, served
from tests.tries import operator_of

BOTH = pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "in the worker"])
RUNBOOK = Path(__file__).parents[1] / "docs" / "runbook.md"
IMAGE = "/snowflake/images/snowflake_images/greeter:1.0"


def task(source=None, **settings):
    """Build the task that all tests run."""
    settings = {"task_id": "job", "compute_pool": POOL, "poll_interval": 0.05, **settings}
    return MLJobOperator(**settings) if source is None else MLJobOperator(source=source, stage_name=STAGE, **settings)


def of(command):
    """Build a specification whose container runs a command."""
    return {"spec": {"containers": [{"name": "main", "image": IMAGE, "command": ["sh", "-c", command]}]}}


def retried(error):
    """Return the policy's decision."""
    return mljob_retry_policy().evaluate(error, try_number=1, max_tries=3)


@pytest.fixture
def own(monkeypatch):
    """Give an Airflow with its own Snowflake, for jobs that would disturb other tests."""
    with contextlib.ExitStack() as stack:

        def own(**settings):
            server = stack.enter_context(served(**settings))
            for name, value in server.environment.items():
                monkeypatch.setenv(name, value)
            return Airflow(server)

        yield own


@pytest.fixture
def broken(own):
    """An Airflow whose Snowflake loses the node of each job."""
    return own(virtual_jobs=(VirtualJob(name="MLJOB_%", seconds=0.1, status="INTERNAL_ERROR"),))


@pytest.fixture
def dropping(airflow):
    """Run a task whose job is dropped when it has ended, and return the error.

    An ``exit_code`` is written into the history.
    """

    def run(exit_code=None, **settings):
        class Dropping(Try):
            def _complete(self, event):
                jobs = airflow.snowflake.account.services.past()
                (job,) = (job for job in jobs if str(event["job_id"]).endswith(job.name.name))
                if exit_code is not None:
                    job.instances[0].containers[0].exit_code = exit_code
                airflow.query(f"DROP SERVICE {event['job_id']} FORCE")
                return super()._complete(event)

        settings = {"task_id": "job", "compute_pool": POOL, "poll_interval": 0.05, **settings}
        return airflow.run_task(lambda: operator_of(Dropping)(**settings)).errors["job"]

    return run


@BOTH
def test_exit_code(airflow, deferrable):
    """The error has the exit code, Snowflake's message, the instance, the last lines and advice."""
    run = airflow.run_task(lambda: task(spec=of("echo out of luck; exit 3"), deferrable=deferrable))

    error = run.errors["job"]
    assert exceptions.MLJobExitCodeError is type(error)
    assert (Failure.EXIT_CODE, 3, 0) == (error.failure, error.exit_code, error.instance)
    assert "Encountered fatal error while running, check container logs" == error.container_message
    assert "out of luck" == error.log_tail
    assert KINDS[Failure.EXIT_CODE].advice == error.advice
    assert f"What to do: {error.advice}" in str(error)
    assert [] == airflow.jobs


@BOTH
def test_killed(airflow, deferrable):
    """A bare 137 is a kill, not a lack of memory."""
    run = airflow.run_task(lambda: task(spec=of("kill -9 $$"), deferrable=deferrable))

    error = run.errors["job"]
    assert exceptions.MLJobKilledError is type(error)
    assert isinstance(error, exceptions.MLJobExitCodeError)
    assert 137 == error.exit_code
    assert RetryDecision.default() == retried(error)


@BOTH
def test_out_of_memory(airflow, deferrable):
    """Snowflake's message decides that a container was out of memory; the payload's exception is the cause."""
    words = "Container was OOMKilled due to resource usage"

    class OutOfMemory(Try):
        def _complete(self, event):
            # The embedded Snowflake doesn't bound memory.
            jobs = airflow.snowflake.account.services.past()
            (job,) = (job for job in jobs if str(event["job_id"]).endswith(job.name.name))
            job.instances[0].containers[0].message = words
            return super()._complete(event)

    def die():
        import sys

        sys.exit(137)

    settings = {"task_id": "job", "compute_pool": POOL, "stage_name": STAGE, "poll_interval": 0.05}
    run = airflow.run_task(lambda: operator_of(OutOfMemory)(source=die, deferrable=deferrable, **settings))

    error = run.errors["job"]
    assert exceptions.MLJobOutOfMemoryError is type(error)
    assert (Failure.OUT_OF_MEMORY, 137, 0, words) == (
        error.failure,
        error.exit_code,
        error.instance,
        error.container_message,
    )
    assert "builtins.SystemExit" == error.__cause__.remote_type
    assert "larger instance family" in str(error)
    assert RetryAction.FAIL is retried(error).action


@BOTH
def test_user_error(airflow, deferrable):
    """The payload's exception stays the error, with the facts about its container."""

    def fail():
        import no_such_module  # noqa: F401 (there is none)

    run = airflow.run_task(lambda: task(fail, deferrable=deferrable))

    error = run.errors["job"]
    assert exceptions.RemoteError is type(error)
    assert "builtins.ModuleNotFoundError" == error.remote_type
    assert (Failure.USER_ERROR, 1, 0) == (error.failure, error.exit_code, error.instance)
    assert "pip_requirements" in error.advice
    assert "RemoteError (user error) would fail again; not retrying." == retried(error).reason


@BOTH
def test_image_pull(airflow, deferrable):
    """A timeout in the queue has a reason, and isn't retried."""
    spec = {"spec": {"containers": [{"name": "main", "image": "/nowhere/is/this/image:1"}]}}
    run = airflow.run_task(lambda: task(spec=spec, deferrable=deferrable, queue_timeout=2))

    error = run.errors["job"]
    assert exceptions.MLJobQueueTimeoutError is type(error)
    assert Failure.IMAGE_PULL is error.failure
    assert "Failed to pull image" in error.container_message
    assert "READ on its image repository" in str(error)
    assert "MLJobQueueTimeoutError (image pull) would fail again; not retrying." == retried(error).reason


@BOTH
def test_capacity(own, deferrable):
    """A pool whose only node is taken."""
    airflow = own()
    airflow.query("CREATE COMPUTE POOL TAKEN MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS")
    spec = of("sleep 60")
    spec["spec"]["containers"][0]["resources"] = {"requests": {"cpu": 1}}
    airflow.run_task(lambda: task(spec=spec, compute_pool="TAKEN", wait_for_completion=False), dag_id="holder")
    run = airflow.run_task(lambda: task(spec=spec, compute_pool="TAKEN", deferrable=deferrable, queue_timeout=2))

    error = run.errors["job"]
    assert exceptions.MLJobQueueTimeoutError is type(error)
    assert Failure.CAPACITY is error.failure
    assert "Unschedulable due to insufficient CPU resources" in error.container_message
    assert DEFAULT_DELAY == retried(error).retry_delay


@BOTH
def test_platform(broken, deferrable):
    """Snowflake loses a node."""
    run = broken.run_task(lambda: task(spec=of("true"), deferrable=deferrable))

    error = run.errors["job"]
    assert exceptions.MLJobPlatformError is type(error)
    assert (Failure.PLATFORM, None, "INTERNAL_ERROR") == (error.failure, error.exit_code, error.status)
    assert "The node was lost" == error.container_message
    assert DEFAULT_DELAY == retried(error).retry_delay


@BOTH
@pytest.mark.parametrize(
    ("statement", "kind", "failure"),
    [
        ("DROP SERVICE {} FORCE", exceptions.MLJobLostError, Failure.LOST),
        ("CALL {}!SPCS_CANCEL_JOB()", exceptions.MLJobCancelledError, Failure.CANCELLED),
    ],
    ids=["dropped", "cancelled"],
)
def test_ended_from_outside(airflow, deferrable, statement, kind, failure):
    """A job that was dropped or cancelled by hand."""

    def payload(session):
        import os
        import time

        session.sql(os.environ["STATEMENT"].format(os.environ["SNOWFLAKE_SERVICE_NAME"])).collect()
        time.sleep(60)

    run = airflow.run_task(lambda: task(payload, deferrable=deferrable, env_vars={"STATEMENT": statement}))

    error = run.errors["job"]
    assert kind is type(error)
    assert (failure, None, "") == (error.failure, error.exit_code, error.container_message)
    assert error.advice in str(error)


@BOTH
def test_dropped_after_its_end(dropping, deferrable):
    """The job history has the same facts about each container as its service."""
    error = dropping(spec=of("exit 3"), deferrable=deferrable)

    assert exceptions.MLJobExitCodeError is type(error)
    assert ("FAILED", Failure.EXIT_CODE, 3, 0) == (error.status, error.failure, error.exit_code, error.instance)
    assert "Encountered fatal error while running, check container logs" == error.container_message
    assert "Instance 0, container main: Encountered fatal error" in error.message


def test_several_instances_dropped_after_their_end(dropping):
    """The one that the job failed by is found, not one that was stopped because of it."""
    spec = of('[ "$SNOWFLAKE_JOB_INDEX" = 1 ] && exit 7; sleep 60')

    error = dropping(spec=spec, target_instances=3)

    assert (Failure.EXIT_CODE, 7, 1) == (error.failure, error.exit_code, error.instance)


def test_dropped_where_there_is_no_history(dropping, airflow):
    """A dropped job without a history keeps its last status, without a reason."""
    airflow.snowflake.faults.add(Fault(matching="GET_JOB_HISTORY", effect="error", errno=2143))
    try:
        error = dropping(spec=of("exit 3"))
    finally:
        airflow.snowflake.faults.clear()

    assert exceptions.MLJobFailedError is type(error)
    assert (Failure.UNKNOWN, "FAILED", None) == (error.failure, error.status, error.exit_code)
    assert "Its containers can't be asked for" in error.message


def test_dropped_with_a_history_of_another_shape(dropping, caplog):
    """An unreadable history row adds nothing to the failure."""
    error = dropping(spec=of("exit 3"), exit_code="three")

    assert (Failure.UNKNOWN, "FAILED", None) == (error.failure, error.status, error.exit_code)
    assert "INSTANCE_STATUSES " in caplog.text
    assert "can't be read: invalid literal for int()" in caplog.text


@pytest.mark.parametrize("code", ["3", 3, None, ""], ids=repr)
def test_containers_of_the_history(code):
    """Numbers may be texts; a container that didn't end has no exit code."""
    container = {"containerName": "main", "status": "FAILED", "lastExitCode": code, "image": "x"}
    statuses = {"totalInstances": 1, "instances": [{"instanceId": "2", "containers": [container, container]}]}
    expected = ContainerEnd(instance=2, name="main", status="FAILED", exit_code=3 if code else None)

    assert [expected, expected] == past_containers(json.dumps(statuses))
    assert [] == past_containers('{"instances": []}')
    assert [] == past_containers(None)


@pytest.mark.parametrize(
    "statuses",
    [
        "",
        "null",
        "[]",
        "{}",
        "undefined",
        "1e999",
        "[" * 100_000,
        '{"instances": null}',
        '{"instances": ["x"]}',
        '{"instances": {"0": {}}}',
        '{"instances": [{"instanceId": 0}]}',
        '{"instances": [{"instanceId": 0, "containers": [[]]}]}',
        '{"instances": [{"instanceId": 0, "containers": [{"containerName": "main"}]}]}',
        '{"instances": [{"instanceId": Infinity, "containers": [{"containerName": "m", "status": "DONE"}]}]}',
        '{"instances": [{"instanceId": 0, "containers": [{"containerName": "m", "status": "", "lastExitCode": []}]}]}',
    ],
    ids=range(15),
)
def test_a_history_of_another_shape(statuses):
    """Each unreadable row is refused with the same error."""
    with pytest.raises(exceptions.UnreadableError, match=r"^INSTANCE_STATUSES .* can't be read: "):
        past_containers(statuses)


@BOTH
def test_timeout(airflow, deferrable):
    """A timeout has advice, and no exit code, because the provider ended the job."""
    run = airflow.run_task(lambda: task(spec=of("sleep 60"), deferrable=deferrable, timeout=0.5, skip_on_exit_code=143))

    error = run.errors["job"]
    assert exceptions.MLJobTimeoutError is type(error)
    assert (Failure.TIMEOUT, None) == (error.failure, error.exit_code)
    assert RetryDecision.default() == retried(error)


@BOTH
@pytest.mark.parametrize("codes", [99, [3, 99], {99}], ids=["one", "several", "a set"])
def test_skip_on_exit_code(airflow, deferrable, codes):
    """The task is skipped, and cleaned up like any other."""
    run = airflow.run_task(lambda: task(spec=of("exit 99"), deferrable=deferrable, skip_on_exit_code=codes))

    assert ({"job": "skipped"}, {}) == (run.tasks, run.errors)
    assert [] == airflow.jobs


@BOTH
def test_skip_by_a_script(airflow, tmp_path, deferrable):
    """A script's sys.exit has the launcher's result beside its exit code."""
    (tmp_path / "script.py").write_text("import sys\nsys.exit(99)\n")
    run = airflow.run_task(lambda: task("script.py", deferrable=deferrable, skip_on_exit_code=99), folder=tmp_path)

    assert {"job": "skipped"} == run.tasks
    assert [] == airflow.jobs


def test_another_exit_code_is_no_skip(airflow):
    """Another exit code fails the task."""
    run = airflow.run_task(lambda: task(spec=of("exit 3"), skip_on_exit_code=99, fail_on_exit_code=[98, 97]))

    assert exceptions.MLJobExitCodeError is type(run.errors["job"])


@BOTH
def test_fail_on_exit_code(airflow, deferrable):
    """The task fails at once, with the job's error as the cause."""
    run = airflow.run_task(
        lambda: task(
            spec=of("exit 3"), deferrable=deferrable, fail_on_exit_code=3, retries=5, retry_delay=timedelta(seconds=0)
        )
    )

    error = run.errors["job"]
    assert {"job": "failed"} == run.tasks
    assert [1] == [ti.try_number for ti in run.instances]
    assert AirflowFailException is type(error)
    assert "[exit code 3 is in fail_on_exit_code]" in str(error)
    assert exceptions.MLJobExitCodeError is type(error.__cause__)


def test_the_reason_of_a_skip(airflow):
    """The cause of a skip is the job's error."""
    operator = task(spec=of("exit 3"), skip_on_exit_code=3)
    cause = exceptions.MLJobExitCodeError("It ended.", "J", "FAILED")
    cause.exit_code = 3

    with pytest.raises(AirflowSkipException, match=r"It ended\. \[exit code 3 is in skip_on_exit_code\]") as raised:
        raise_as(operator.job_fields(), cause)

    assert cause is raised.value.__cause__


@pytest.mark.parametrize("codes", ["3", 0, -1, 256, True, [1, "2"], [None], 1.0, {1: 2}, b"1"])
@pytest.mark.parametrize("field", ["skip_on_exit_code", "fail_on_exit_code"])
def test_refused_exit_codes(field, codes):
    """An exit code that no failed job can have is refused while the DAG is parsed."""
    with pytest.raises(exceptions.InvalidJobSpecError, match=f"{field} takes exit codes from 1 to 255"):
        task(spec=of("true"), **{field: codes})


class TestRetryPolicy:
    """``retry_policy=mljob_retry_policy()``."""

    def test_what_fails_again_is_not_tried_again(self, airflow, caplog):
        """The task fails at its first try; the log says why."""
        caplog.set_level(logging.INFO)

        def fail():
            raise ValueError("no rows")

        run = airflow.run_task(lambda: task(fail, retries=5, retry_policy=mljob_retry_policy()))

        assert {"job": "failed"} == run.tasks
        assert [1] == [ti.try_number for ti in run.instances]
        assert exceptions.RemoteError is type(run.errors["job"])

    @BOTH
    def test_what_may_be_over_is_tried_again(self, broken, deferrable):
        """As often as the task's retries allow."""
        policy = mljob_retry_policy(timedelta(milliseconds=1))
        run = broken.run_task(lambda: task(spec=of("true"), deferrable=deferrable, retries=1, retry_policy=policy))

        assert {"job": "failed"} == run.tasks
        assert [2] == [ti.try_number for ti in run.instances]
        assert exceptions.MLJobPlatformError is type(run.errors["job"])

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (exceptions.InvalidJobSpecError("no"), Retry.NEVER),
            (exceptions.PayloadError("no"), Retry.NEVER),
            (exceptions.JobNotFoundError("no"), Retry.NEVER),
            (exceptions.ServicesLimitError("no"), Retry.LATER),
            (exceptions.SnowflakeUnavailableError("no"), Retry.LATER),
            (exceptions.GatewayError("no"), Retry.AS_THE_TASK_SAYS),
            (exceptions.ResultError("no"), Retry.AS_THE_TASK_SAYS),
            (exceptions.MLJobFailedError("no", "J", "UNKNOWN"), Retry.AS_THE_TASK_SAYS),
            (RuntimeError("no"), Retry.AS_THE_TASK_SAYS),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_errors_of_no_job(self, error, expected):
        """The policy distinguishes permanent failures, an unreachable Snowflake, and the rest."""
        decisions = {
            Retry.NEVER: RetryDecision.fail(f"{type(error).__name__} would fail again; not retrying."),
            Retry.LATER: RetryDecision.retry(
                DEFAULT_DELAY, f"{type(error).__name__} may be transient; retrying in 0:15:00."
            ),
            Retry.AS_THE_TASK_SAYS: RetryDecision.default(),
        }

        assert decisions[expected] == retried(error)

    def test_the_delay_is_the_users(self):
        """The delay is one parameter, for capacity and platform failures."""
        error = exceptions.SnowflakeUnavailableError("no")
        policy = mljob_retry_policy(timedelta(hours=1))

        assert isinstance(policy, RetryPolicy)
        assert timedelta(hours=1) == policy.evaluate(error, 1, 3).retry_delay

    @pytest.mark.parametrize("delay", [timedelta(), timedelta(seconds=-1)])
    def test_a_delay_is_positive(self, delay):
        """Anything else is refused where it is written."""
        with pytest.raises(ValueError, match="delay must be more than 0 seconds"):
            mljob_retry_policy(delay)


def test_the_runbook_says_what_the_policy_does():
    """The documentation's table has a row for each class of failures, with the policy's answer."""
    words = {Retry.NEVER: "no", Retry.LATER: "later", Retry.AS_THE_TASK_SAYS: "as the task"}
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\w ]+) \|$", RUNBOOK.read_text(), re.MULTILINE)

    assert {kind.error.__name__: words[kind.retry] for kind in KINDS.values()}.items() <= dict(rows).items()
