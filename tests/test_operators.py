"""MLJobOperator, from the DAG to the job and back, on the embedded Snowflake."""

import threading
from datetime import timedelta

import pytest
from airflow.sdk.exceptions import TaskDeferralError, TaskDeferred

from airflow_provider_mljobs import exceptions
from airflow_provider_mljobs.emulator.settings import Fault
from airflow_provider_mljobs.operators import MLJobOperator
from airflow_provider_mljobs.task.run import Try
from tests.budget import budget
from tests.lab import POOL, STAGE
from tests.tries import operator_of

SETTINGS = {"task_id": "job", "compute_pool": POOL, "stage_name": STAGE, "poll_interval": 0.05}
TRICKY = ["$$", "$(HOME)", "${HOME}", "a'b", 'a"b', "a\\b\\n", "two\nlines", "tab\t", "naïve 😀", "", " ", "x" * 20_000]


def script(folder, text, name="script.py"):
    """Write a script and return its name."""
    (folder / name).write_text(text)
    return name


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "blocking"])
def test_function(airflow, deferrable):
    """A function runs in the job, its return value is the task's, and nothing is left behind."""

    def add(a, b):
        print(f"adding {a} and {b}")
        return {"sum": a + b}

    run = airflow.run_task(lambda: MLJobOperator(source=add, args=[1, 2], deferrable=deferrable, **SETTINGS))

    assert ("success", {}) == (run.state, run.errors)
    assert {"sum": 3} == run.xcom("job")
    assert "DONE" == run.xcom("job", "status")
    assert "adding 1 and 2" == run.xcom("job", "logs")
    assert [] == airflow.jobs
    assert [] == airflow.files


def test_file(airflow, tmp_path):
    """A script gets its arguments and environment byte for byte, and returns the global __return__."""
    name = script(tmp_path, "import os, sys\n__return__ = [sys.argv[1:], dict(os.environ)]\n")
    env_vars = {f"V{number}": value for number, value in enumerate(TRICKY)}

    run = airflow.run_task(
        lambda: MLJobOperator(source=name, args=TRICKY, env_vars=env_vars, **SETTINGS), folder=tmp_path
    )

    args, environment = run.xcom("job")
    assert TRICKY == args
    assert env_vars == {name: environment[name] for name in env_vars}


def test_directory(airflow, tmp_path):
    """A source directory is the job's working directory; files beside the entrypoint can be imported and read."""
    (tmp_path / "src" / "pkg").mkdir(parents=True)
    script(tmp_path / "src", "from helper import twice\n__return__ = twice(open('data.txt').read())\n", "main.py")
    script(tmp_path / "src", "def twice(text):\n    return text + text\n", "helper.py")
    (tmp_path / "src" / "data.txt").write_text("ab")

    run = airflow.run_task(lambda: MLJobOperator(source="src", entrypoint="main.py", **SETTINGS), folder=tmp_path)

    assert "abab" == run.xcom("job")


def test_session_in_function(airflow):
    """A function with an argument called session gets the job's own Snowpark session."""

    def rows(session):
        return [session.sql("SELECT 40 + 2").collect()[0][0], session.get_current_schema()]

    run = airflow.run_task(lambda: MLJobOperator(source=rows, **SETTINGS))

    assert [42, '"PUBLIC"'] == run.xcom("job")


def test_session_in_script(airflow, tmp_path):
    """A script connects with Session.builder.getOrCreate() and no configuration."""
    name = script(
        tmp_path,
        "from snowflake.snowpark import Session\n"
        "__return__ = Session.builder.getOrCreate().sql('SELECT 1').collect()[0][0]\n",
    )

    run = airflow.run_task(lambda: MLJobOperator(source=name, **SETTINGS), folder=tmp_path)

    assert 1 == run.xcom("job")


def test_saved_files_stay(airflow, tmp_path):
    """Files saved under MLRS_STAGE_RESULT_PATH are on the stage afterwards, at XCom stage_path."""
    name = script(
        tmp_path,
        "import os, pathlib\npathlib.Path(os.environ['MLRS_STAGE_RESULT_PATH'], 'model.bin').write_bytes(b'm')\n",
    )

    run = airflow.run_task(lambda: MLJobOperator(source=name, **SETTINGS), folder=tmp_path)

    place = run.xcom("job", "stage_path")
    assert ["model.bin"] == [row["name"].rpartition("/")[2] for row in airflow.query(f"LIST {place}/")]


def test_remote_exception(airflow):
    """A payload that raises fails the task with the remote type, message, traceback and the last log lines."""

    def fail():
        print("about to divide")
        return 1 // 0

    run = airflow.run_task(lambda: MLJobOperator(source=fail, **SETTINGS))

    error = run.errors["job"]
    assert "failed" == run.tasks["job"]
    assert isinstance(error, exceptions.RemoteError)
    assert "builtins.ZeroDivisionError" == error.remote_type
    assert "failed with ZeroDivisionError: integer division or modulo by zero" in str(error)
    assert "return 1 // 0" in error.remote_traceback
    assert "about to divide" in error.log_tail
    assert ([], []) == (airflow.jobs, airflow.files)


def test_remote_traceback_is_that_of_the_dag_file(airflow):
    """The traceback names this file and its lines, includes the cause, and is in the error once."""

    def fail():
        try:
            {}["missing"]
        except KeyError as error:
            raise ValueError("no such thing") from error

    run = airflow.run_task(lambda: MLJobOperator(source=fail, **SETTINGS))

    text = str(run.errors["job"])
    assert f'File "test_operators.py", line {fail.__code__.co_firstlineno + 2}, in fail' in text
    assert "KeyError: 'missing'" in text
    assert 1 == text.count("in fail\n    raise ValueError")


def test_exception_that_is_no_valid_text(airflow):
    """Half a surrogate pair in the message of an exception is harmless."""

    def fail():
        raise ValueError("\ud800")

    run = airflow.run_task(lambda: MLJobOperator(source=fail, **SETTINGS))

    assert "failed with ValueError: \ufffd" in str(run.errors["job"])


def test_exit_code(airflow, tmp_path):
    """A script that exits with a code fails the task."""
    name = script(tmp_path, "import sys\nsys.exit(3)\n")

    run = airflow.run_task(lambda: MLJobOperator(source=name, **SETTINGS), folder=tmp_path)

    assert "SystemExit: 3" in str(run.errors["job"])


def test_killed_container(airflow):
    """A job that dies silently fails with the platform's message about its container."""

    def die():
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    run = airflow.run_task(lambda: MLJobOperator(source=die, **SETTINGS))

    error = run.errors["job"]
    assert exceptions.MLJobKilledError is type(error)
    assert "exit code 137" in str(error)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("float('nan')", None),
        ("[float('inf'), 1.5]", [None, 1.5]),
        ("'a\\0b'", "a\ufffdb"),
        ("__import__('numpy').float64(0.5)", 0.5),
        ("{'auc': __import__('numpy').float32(0.5), 'n': __import__('numpy').int64(3)}", {"auc": 0.5, "n": 3}),
    ],
)
def test_results_are_json_safe(airflow, tmp_path, value, expected):
    """NaN, infinity, NUL and numpy's scalars come back as values that Airflow's database takes."""
    name = script(tmp_path, f"__return__ = {value}\n")

    run = airflow.run_task(lambda: MLJobOperator(source=name, **SETTINGS), folder=tmp_path)

    assert expected == run.xcom("job")


def test_result_that_is_no_json(airflow):
    """A DataFrame stays on the stage as Parquet; XCom gets its place, and the clean-up leaves it there."""

    def frame():
        import pandas as pd

        return pd.DataFrame({"a": [1, 2]})

    run = airflow.run_task(lambda: MLJobOperator(source=frame, **SETTINGS))

    reference = run.xcom("job")
    assert "pandas" == reference["protocol"]
    assert 1 == len(airflow.query(f"LIST {reference['stage_paths'][0]}"))


def test_large_result(airflow):
    """More than a megabyte of JSON stays on the stage, too."""

    def large():
        return "x" * 2_000_000

    run = airflow.run_task(lambda: MLJobOperator(source=large, **SETTINGS))

    reference = run.xcom("job")
    assert "json" == reference["protocol"]
    assert [f"{run.xcom('job', 'stage_path')}/output/mljob_result"] == reference["stage_paths"]
    assert 1 == len(airflow.query(f"LIST {reference['stage_paths'][0]}"))


def test_no_xcom(airflow):
    """With do_xcom_push=False only the job's id and place are pushed, by which a later phase of the task finds it."""

    def one():
        return 1

    run = airflow.run_task(lambda: MLJobOperator(source=one, do_xcom_push=False, **SETTINGS))

    keys = ("return_value", "status", "logs", "artifacts")
    assert dict.fromkeys(keys) == {key: run.xcom("job", key) for key in keys}
    assert run.xcom("job", "stage_path").startswith("@MLJOBS_DB.PUBLIC.ML_PAYLOADS/payload_")
    assert run.xcom("job", "job_id").startswith("MLJOBS_DB.PUBLIC.MLJOB_JOB_")


def test_reference_with_multiple_outputs(airflow):
    """A dict with a value that is no JSON is one reference, not an XCom for each of its keys."""

    def frame() -> dict:
        return {"a": {1, 2}}

    run = airflow.run_task(lambda: MLJobOperator(source=frame, multiple_outputs=True, **SETTINGS))

    assert "cloudpickle" == run.xcom("job")["protocol"]
    assert run.xcom("job", "protocol") is None


@pytest.mark.parametrize("on_finish", ["keep", "drop_on_success"])
def test_keep(airflow, on_finish):
    """After a failure, on_finish may keep the service and its files."""

    def fail():
        raise RuntimeError

    run = airflow.run_task(lambda: MLJobOperator(source=fail, on_finish=on_finish, **SETTINGS))

    assert [run.xcom("job", "job_id").rpartition(".")[2]] == airflow.jobs
    assert ["output/mljob_result"] == airflow.files
    assert 1 == len(airflow.payloads)


def test_warehouse_of_the_connection(airflow):
    """Queries in the job run on the connection's warehouse: a container's session has none of its own."""

    def one():
        return 1

    run = airflow.run_task(lambda: MLJobOperator(source=one, on_finish="keep", **SETTINGS))

    (row,) = airflow.query(f"DESCRIBE SERVICE {run.xcom('job', 'job_id')}")
    assert "MLJOBS_WH" == row["query_warehouse"]


def test_retry(airflow):
    """Another try is another job; the first one is gone like the last."""

    def fail():
        raise RuntimeError

    run = airflow.run_task(lambda: MLJobOperator(source=fail, retries=1, retry_delay=timedelta(0), **SETTINGS))

    assert run.xcom("job", "job_id").endswith("_1_2")
    assert ([], []) == (airflow.jobs, airflow.files)


def test_map(airflow, tmp_path):
    """Sources and arguments can be mapped over."""
    script(tmp_path, "import sys\n__return__ = ['a', sys.argv[1:]]\n", "a.py")
    script(tmp_path, "import sys\n__return__ = ['b', sys.argv[1:]]\n", "b.py")
    each = [{"source": "a.py"}, {"source": "b.py", "args": ["1"]}]

    run = airflow.run_task(lambda: MLJobOperator.partial(**SETTINGS).expand_kwargs(each), folder=tmp_path)

    assert [["a", []], ["b", ["1"]]] == [run.xcom("job", map_index=0), run.xcom("job", map_index=1)]


def test_no_wait(airflow):
    """Without wait_for_completion the task returns the job's id and leaves the job alone."""

    def wait():
        import time

        time.sleep(60)

    run = airflow.run_task(lambda: MLJobOperator(source=wait, wait_for_completion=False, **SETTINGS))

    job_id = run.xcom("job")
    assert [job_id.rpartition(".")[2]] == airflow.jobs


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "blocking"])
def test_execution_timeout(airflow, deferrable):
    """A job that is too slow is cancelled and dropped, deferred or not."""

    def wait():
        import time

        time.sleep(600)

    # Enough for the submit.
    limit = timedelta(seconds=budget(1))
    run = airflow.run_task(
        lambda: MLJobOperator(source=wait, deferrable=deferrable, execution_timeout=limit, **SETTINGS)
    )

    assert isinstance(run.errors["job"], exceptions.MLJobTimeoutError)
    assert run.xcom("job", "status") in {"CANCELLING", "CANCELLED"}
    assert ([], []) == (airflow.jobs, airflow.files)


def test_templates(airflow, tmp_path):
    """Arguments, environment and names are rendered."""
    name = script(tmp_path, "import os, sys\n__return__ = [sys.argv[1], os.environ['RUN']]\n")

    run = airflow.run_task(
        lambda: MLJobOperator(
            source=name, args=["{{ task.task_id }}"], env_vars={"RUN": "{{ dag.dag_id }}"}, **SETTINGS
        ),
        folder=tmp_path,
    )

    assert ["job", "lab"] == run.xcom("job")


@pytest.fixture
def faults(airflow):
    """Faults in Snowflake, until the end of the test."""
    yield airflow.snowflake.faults
    airflow.snowflake.faults.clear()


def seven():
    """The value of the jobs below."""
    return 7


class TestFaults:
    """Leftovers are named in the log, whichever statement fails."""

    @pytest.mark.parametrize("nth", range(1, 13))
    @pytest.mark.parametrize("effect", ["reset_after", "session_expired"])
    def test_survived(self, airflow, faults, effect, nth):
        """Each statement may be repeated after it took effect: one job runs, and it is cleaned up."""
        count = "SELECT COUNT(*) AS JOBS FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY(RESULT_LIMIT => 10000))"
        (before,) = airflow.query(count)
        faults.add(Fault(matching=".", effect=effect, nth=nth))

        run = airflow.run_task(lambda: MLJobOperator(source=seven, **SETTINGS))
        faults.clear()

        (after,) = airflow.query(count)
        assert (7, 1) == (run.xcom("job"), after["jobs"] - before["jobs"])
        assert ([], []) == (airflow.jobs, airflow.files)

    def test_refused_submit(self, airflow, faults, caplog):
        """The error has the reason, also when the job's input can't be removed; leftovers are named."""
        faults.add(
            Fault(matching="EXECUTE JOB", effect="error", message="no more jobs"),
            Fault(matching="REMOVE", effect="error"),
        )

        run = airflow.run_task(lambda: MLJobOperator(source=len, args=["x" * 100_000], **SETTINGS))
        faults.clear()

        assert "no more jobs" in str(run.errors["job"])
        assert ["input/arguments.zip"] == airflow.files
        assert "Could not remove the files" in caplog.text

    def test_lost_submit(self, airflow, faults):
        """If it is unknown whether the job has started, the error says how to find out and how to end it."""
        faults.add(Fault(matching="EXECUTE JOB", effect="master_expired"))

        run = airflow.run_task(lambda: MLJobOperator(source=seven, **SETTINGS))

        error = run.errors["job"]
        assert isinstance(error, exceptions.SnowflakeUnavailableError)
        assert f"DROP SERVICE IF EXISTS {run.xcom('job', 'job_id')}" in str(error)

    def test_lost_result(self, airflow, faults):
        """A result that Snowflake doesn't give stays, and so does its job: a retry may get it."""
        faults.add(Fault(matching="^GET", effect="error"))

        run = airflow.run_task(lambda: MLJobOperator(source=seven, **SETTINGS))

        assert isinstance(run.errors["job"], exceptions.ResultError)
        assert (1, ["output/mljob_result"]) == (len(airflow.jobs), airflow.files)

    @pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "blocking"])
    def test_an_end_that_takes_too_long(self, airflow, faults, monkeypatch, capfd, deferrable):
        """Once the job is over, reading its result has its own deadline; after it nothing is removed."""
        monkeypatch.setenv("AIRFLOW__MLJOBS__MAX_FINISH_SECONDS", "3")
        faults.add(Fault(matching="^GET", effect="delay", seconds=600))

        run = airflow.run_task(
            lambda: MLJobOperator(source=seven, deferrable=deferrable, execution_timeout=timedelta(hours=1), **SETTINGS)
        )

        assert isinstance(run.errors["job"], exceptions.SnowflakeUnavailableError)
        assert "within 3 s; job and files are kept." in str(run.errors["job"])
        assert (1, ["output/mljob_result"]) == (len(airflow.jobs), airflow.files)
        assert "Skipped clean-up: job" in capfd.readouterr().out

    def test_lost_stage(self, airflow):
        """A job whose stage is dropped while it runs is dropped nevertheless."""

        def drop(session):
            session.sql("DROP STAGE MLJOBS_DB.PUBLIC.SHORT").collect()

        airflow.query("CREATE STAGE SHORT ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')")
        run = airflow.run_task(lambda: MLJobOperator(**{**SETTINGS, "source": drop, "stage_name": "@SHORT"}))

        assert isinstance(run.errors["job"], exceptions.MLJobFailedError)
        assert [] == airflow.jobs

    def test_dropped_job(self, airflow):
        """A job that is dropped while it runs is gone, and the task says so."""

        def drop(session):
            import os
            import time

            session.sql(f"DROP SERVICE {os.environ['SNOWFLAKE_SERVICE_NAME']} FORCE").collect()
            time.sleep(60)

        run = airflow.run_task(lambda: MLJobOperator(source=drop, **SETTINGS))

        assert "is gone: it was dropped" in str(run.errors["job"])
        assert ([], []) == (airflow.jobs, airflow.files)

    def test_lost_cancel(self, airflow, faults, capfd, monkeypatch):
        """A job out of time that can't be cancelled is named."""
        monkeypatch.setenv("AIRFLOW__MLJOBS__MAX_UNREACHABLE_SECONDS", "0")

        def wait():
            import time

            time.sleep(60)

        faults.add(Fault(matching="SPCS_CANCEL_JOB", effect="error"))
        run = airflow.run_task(lambda: MLJobOperator(source=wait, timeout=timedelta(seconds=0.5), **SETTINGS))

        assert isinstance(run.errors["job"], exceptions.GatewayError)
        assert f"Skipped clean-up: job {run.xcom('job', 'job_id')}" in capfd.readouterr().out

    def test_damaged_result_of_a_failed_job(self, airflow, tmp_path):
        """The error of the task is the job's failure."""
        name = script(
            tmp_path,
            "import os, pathlib\n"
            "path = pathlib.Path(os.environ['MLRS_STAGE_RESULT_PATH'], os.environ['MLRS_RESULT_PATH'])\n"
            "path.parent.mkdir()\npath.write_text('{')\nos._exit(3)\n",
        )

        run = airflow.run_task(lambda: MLJobOperator(source=name, **SETTINGS), folder=tmp_path)

        assert exceptions.MLJobExitCodeError is type(run.errors["job"])
        assert "exit code 3" in str(run.errors["job"])

    def test_failed_trigger(self, airflow):
        """A deferral that fails without an event ends the job and cleans up."""

        class Orphaned(MLJobOperator):
            def execute(self, context):
                try:
                    return super().execute(context)
                except TaskDeferred:
                    return self.resume_execution("__fail__", {"error": "Trigger failure"}, context)

        run = airflow.run_task(lambda: Orphaned(source=seven, deferrable=True, **SETTINGS))

        assert TaskDeferralError is type(run.errors["job"])
        assert ([], []) == (airflow.jobs, airflow.files)

    def test_kill_before_the_submit(self, airflow):
        """A kill while the payload is packed ends the job that is submitted after it."""

        class Killed(Try):
            def _payload(self):
                self.kill()
                return super()._payload()

        def wait():
            import time

            time.sleep(60)

        run = airflow.run_task(lambda: operator_of(Killed)(source=wait, **SETTINGS))

        assert isinstance(run.errors["job"], exceptions.MLJobCancelledError)
        assert ([], []) == (airflow.jobs, airflow.files)


class TestOnKill:
    """The fate of the job when a user ends the task."""

    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({}, "drop"),
            ({"on_finish": "keep"}, "cancel"),
            ({"on_finish": "drop_on_success"}, "cancel"),
            ({"on_finish": "keep", "on_kill_action": "drop"}, "drop"),
            ({"on_kill_action": "cancel"}, "cancel"),
            ({"on_kill_action": "none"}, "none"),
            ({"cancel_on_kill": False}, "none"),
        ],
        ids=str,
    )
    def test_the_action(self, settings, expected):
        """A task that drops its jobs drops one that is killed, too, unless it says otherwise."""
        assert expected == MLJobOperator(source=seven, **SETTINGS, **settings).job_fields().kill_action

    @pytest.mark.parametrize(
        ("action", "expected"), [("drop", (0, "cancelled")), ("cancel", (1, "cancelled")), ("none", (1, "out of time"))]
    )
    def test_in_the_worker(self, airflow, action, expected):
        """A killed task's job is dropped, cancelled, or left running, by on_kill_action."""

        class Killed(Try):
            def _plan(self, *args):
                self.kill()
                return super()._plan(*args)

        def wait():
            import time

            time.sleep(60)

        on_finish = "drop" if action == "cancel" else "keep"
        settings = {"on_kill_action": action, "on_finish": on_finish, "timeout": 1}
        run = airflow.run_task(lambda: operator_of(Killed)(source=wait, **SETTINGS, **settings))

        is_cancelled = isinstance(run.errors["job"], exceptions.MLJobCancelledError)
        assert expected == (len(airflow.jobs), "cancelled" if is_cancelled else "out of time")


class TestRefusedWhileParsing:
    """Known errors are refused when the DAG is parsed."""

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"compute_pool": ""}, "compute_pool is missing"),
            ({"compute_pool": "my pool"}, "compute_pool 'my pool' is not a name"),
            ({"stage_name": None}, "stage_name is missing"),
            ({"target_instances": 0}, "target_instances must be a whole number of at least 1, got 0"),
            ({"target_instances": True}, "target_instances must be a whole number"),
            ({"target_instances": ()}, "target_instances must be a whole number"),
            ({"serializer": ()}, "serializer must be one of"),
            ({"poll_interval": 0}, "poll_interval must be more than 0 seconds, got 0"),
            ({"on_finish": "delete"}, "on_finish must be one of drop, drop_on_success, keep; got 'delete'"),
            ({"on_kill_action": "stop"}, "on_kill_action must be one of cancel, drop, none; got 'stop'"),
            ({"on_kill_action": "drop", "cancel_on_kill": False}, "on_kill_action='drop' ends the job"),
            ({"env_vars": {"A B": "x"}}, "'A B' in env_vars can't be the name"),
            ({"env_vars": {"A": 1}}, "env_vars['A'] is of type int"),
            ({"env_vars": {"SNOWFLAKE_HOST": "x"}}, "'SNOWFLAKE_HOST' in env_vars is set by Snowflake"),
            ({"env_vars": {"A": "a\0b"}}, "env_vars['A'] holds a NUL character"),
            ({"pip_requirements": "lightgbm"}, "pip_requirements must be a list"),
            ({"pip_requirements": ["a\nb"]}, "pip_requirements[0] is 'a\\nb'"),
            ({"external_access_integrations": "PYPI"}, "external_access_integrations must be a list of names"),
            ({"external_access_integrations": ["a b"]}, "external_access_integrations 'a b' is not a name"),
            ({"query_warehouse": "my wh"}, "query_warehouse 'my wh' is not a name"),
            ({"schema": "a.b"}, "schema 'a.b' is not a name"),
            ({"poll_interval": "10"}, "poll_interval must be more than 0 seconds, got '10'"),
            ({"entrypoint": "main.py"}, "entrypoint 'main.py' is for a directory; source is a callable"),
            ({"args": {"a": 1}}, "args must be a list of arguments, got {'a': 1}"),
        ],
    )
    def test_argument(self, change, message):
        """A wrong argument is named, with the reason."""
        with pytest.raises(exceptions.InvalidJobSpecError) as raised:
            MLJobOperator(**{**SETTINGS, "source": print, **change})

        assert message in str(raised.value)

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            ([threading.Lock()], "Argument 'value' of"),
            ([1, 2, 3], "can't be called with these arguments: too many positional arguments"),
            ([], "can't be called with these arguments: missing a required argument: 'value'"),
        ],
    )
    def test_call(self, args, message):
        """Arguments that can't be sent, or that the function doesn't take, are named."""

        def use(value, session):
            return value

        with pytest.raises(exceptions.PayloadError) as raised:
            MLJobOperator(**SETTINGS, source=use, args=args)

        assert message in str(raised.value)

    def test_empty_function(self):
        """A function without a body is refused."""

        def nothing():
            """Only words."""

        with pytest.raises(exceptions.PayloadError, match="has an empty body"):
            MLJobOperator(**SETTINGS, source=nothing)

    def test_unknown_option(self):
        """A misspelt option is no option."""
        with pytest.raises(TypeError, match="computepool"):
            MLJobOperator(**SETTINGS, source=print, computepool="x")

    def test_no_compute_pool(self):
        """The pool has no default."""
        with pytest.raises(TypeError, match="compute_pool"):
            MLJobOperator(task_id="job", stage_name=STAGE, source=print)

    @pytest.mark.parametrize(
        ("source", "entrypoint", "message"),
        [
            ("missing.py", None, "source '{folder}/missing.py' does not exist"),
            ("src", None, "is a directory: entrypoint must name the file to start"),
            ("src", "missing.py", "entrypoint 'missing.py' is not a file in source"),
            ("src", "../script.py", "entrypoint '../script.py' is outside of source"),
            ("src", "run.sh", "entrypoint 'run.sh' is not a Python file"),
            ("script.py", "other.py", "entrypoint 'other.py' is not the file that source"),
        ],
    )
    def test_source(self, airflow, tmp_path, source, entrypoint, message):
        """A source that isn't there, or has no such entrypoint, is refused with the place that was looked at."""
        (tmp_path / "src").mkdir()
        (tmp_path / "src" / "run.sh").touch()
        script(tmp_path, "")

        with pytest.raises(exceptions.MLJobError) as raised:
            airflow.run_task(lambda: MLJobOperator(source=source, entrypoint=entrypoint, **SETTINGS), folder=tmp_path)

        assert message.format(folder=tmp_path) in str(raised.value)


class TestRefusedBeforeSubmit:
    """Errors that only Snowflake can see are raised before the submit, and nothing stays on the stage."""

    @pytest.mark.parametrize(
        ("change", "messages"),
        [
            (
                {"compute_pool": "NO_POOL"},
                ["Compute pool NO_POOL does not exist", "GRANT USAGE", "COMPUTE POOL NO_POOL"],
            ),
            (
                {"stage_name": "@NO_STAGE"},
                ["Stage MLJOBS_DB.PUBLIC.NO_STAGE does not exist", "GRANT READ, WRITE ON STAGE"],
            ),
            ({"stage_name": "@NO_DB.X.S"}, ["Stage NO_DB.X.S does not exist"]),
            ({"schema": "no_schema"}, ["NO_SCHEMA"]),
            ({"schema": '"low"'}, ["accepts no quoted names"]),
        ],
    )
    def test_missing_object(self, airflow, change, messages):
        """An object that is missing or not authorised is named, with the GRANT that may be missing."""

        def nothing():
            return 1

        run = airflow.run_task(lambda: MLJobOperator(**{**SETTINGS, "source": nothing, **change}))

        assert [] == [message for message in messages if message not in str(run.errors["job"])]
        assert ([], []) == (airflow.jobs, airflow.files)

    def test_connection_without_database(self, airflow, monkeypatch):
        """A connection without database and schema is named as the reason."""
        import json

        connection = json.loads(airflow.snowflake.environment["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"])
        connection.pop("schema")
        connection["extra"].pop("database")
        monkeypatch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", json.dumps(connection))

        def one():
            return 1

        run = airflow.run_task(lambda: MLJobOperator(source=one, **SETTINGS))

        assert "has no database and schema" in str(run.errors["job"])
        assert "set them on the Snowflake connection" in str(run.errors["job"])
