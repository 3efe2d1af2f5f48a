"""`airflow mljobs`, by Airflow's own parser, on the embedded Snowflake."""

import json
import os
import signal
import subprocess
import sys
import threading
from datetime import datetime

import pytest
import yaml

from airflow_provider_mljobs.cli.definition import get_mljobs_cli_commands
from airflow_provider_mljobs.emulator.settings import Fault
from airflow_provider_mljobs.hooks import MLJobHook
from airflow_provider_mljobs.jobs.comment import Origin, TaskKey
from airflow_provider_mljobs.operators import MLJobOperator
from tests.budget import budget
from tests.hostile import COMMENTS
from tests.lab import POOL, STAGE, submit

PACKAGE = "airflow_provider_mljobs"
COMMENT = json.dumps({"dag_id": "weekly", "task_id": "train"})


def talk():
    """Print a little, and return a mapping."""
    import time

    for number in range(5):
        print("line", number)
        time.sleep(0.05)
    return {"auc": 0.8}


def fail():
    """Raise."""
    raise ValueError("no such table")


def sleep():
    """Run for a minute."""
    import time

    print("sleeping")
    time.sleep(60)


@pytest.fixture
def mljobs(airflow, capsys):
    """Run a command; returns its exit code, stdout and stderr."""
    from airflow.cli.cli_parser import get_parser

    def run(*words):
        code = 0
        capsys.readouterr()
        try:
            args = get_parser().parse_args(["mljobs", *words])
            args.func(args)
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


def test_list(mljobs):
    """Jobs by prefix and state, with the task that their COMMENT names; the oldest first."""
    submit("MLJOB_A", talk, wait_for="DONE", comment=COMMENT)
    submit("MLJOB_B", sleep, comment="by hand")
    submit("OTHER", sleep)

    rows = json.loads(mljobs("list", "-o", "json")[1])
    sleeping = json.loads(mljobs("list", "--state", "done", "--prefix", "", "-o", "json")[1])

    assert ["MLJOBS_DB.PUBLIC.MLJOB_A", "MLJOBS_DB.PUBLIC.MLJOB_B"] == [row["job_id"] for row in rows]
    assert ["weekly.train", "by hand"] == [row["task"] for row in rows]
    assert {"job_id", "status", "compute_pool", "created_on", "task"} == rows[0].keys()
    assert ["DONE"] == [row["status"] for row in sleeping]


def test_list_with_comments_of_strangers(mljobs):
    """A job whose COMMENT is hostile stands in the list like any other, and beside the others."""
    for number, comment in enumerate((COMMENT, *COMMENTS.values())):
        submit(f"MLJOB_{number}", talk, comment=comment)
    code, printed, _ = mljobs("list", "-o", "json")
    tasks = {row["job_id"].rpartition("_")[2]: row["task"] for row in json.loads(printed)}

    assert (0, 1 + len(COMMENTS)) == (code, len(tasks))
    assert ("weekly.train", COMMENTS["deep list"]) == (tasks["0"], tasks["1"])


@pytest.mark.parametrize(
    ("schema", "expected"), [(None, True), ("public", True), ("MLJOBS_DB.PUBLIC", True), ("ACCOUNT", True)], ids=str
)
def test_list_schema(mljobs, schema, expected):
    """The connection's schema, one by its name, or the whole account."""
    submit("MLJOB_THERE", talk)

    code, out, _ = mljobs("list", *(["--schema", schema] if schema else []))

    assert (0, expected) == (code, "MLJOB_THERE" in out)


def test_list_another_schema(mljobs, airflow):
    """Jobs of other schemas are left out; an empty list is not an error."""
    airflow.query("CREATE SCHEMA IF NOT EXISTS MLJOBS_DB.ELSEWHERE")
    submit("MLJOB_THERE", talk)

    code, out, _ = mljobs("list", "--schema", "elsewhere", "-o", "json")

    assert (0, []) == (code, json.loads(out))


@pytest.mark.parametrize(("output", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_describe(mljobs, output, load):
    """A description is one mapping with the job's containers, those of its stage volumes included."""
    job_id = submit("MLJOB_A", talk, wait_for="DONE", comment=COMMENT)

    job = load(mljobs("describe", "mljob_a", "-o", output)[1])

    assert [job_id, "DONE", POOL] == [job[key] for key in ("job_id", "status", "compute_pool")]
    assert "weekly" == json.loads(job["comment"])["dag_id"]
    containers = [(each["instance_id"], each["name"], each["last_exit_code"]) for each in job["containers"]]
    assert ("0", "main", "0") == containers[0]
    assert [("0", f"stage-mount-v2-sidecar-{name}", "0") for name in ("stage-volume", "result-volume")] == containers[
        1:
    ]


def test_describe_as_a_table(mljobs):
    """Two tables: the job and its containers."""
    submit("MLJOB_A", talk, wait_for="DONE")

    code, out, _ = mljobs("describe", "MLJOB_A")

    assert 0 == code
    assert [] == [word for word in ("compute_pool", POOL, "instance_id", "main") if word not in out]


def test_logs(mljobs):
    """The log is printed on stdout."""
    submit("MLJOB_A", talk, wait_for="DONE")

    code, out, _ = mljobs("logs", "MLJOB_A")

    assert (0, 1) == (code, out.count("line 4\n"))


def test_follow(mljobs):
    """Following prints each line once, until the job ends; the exit code is 0 if the job is DONE."""
    submit("MLJOB_A", talk)

    code, out, err = mljobs("logs", "-f", "MLJOB_A")

    assert (0, [1] * 5) == (code, [out.count(f"line {number}\n") for number in range(5)])
    assert "Job MLJOBS_DB.PUBLIC.MLJOB_A: finishing: DONE." in err


def test_follow_a_job_that_fails(mljobs):
    """Following a job that fails exits with 1, and prints the traceback of the job."""
    submit("MLJOB_A", fail)

    code, out, err = mljobs("logs", "-f", "MLJOB_A")

    assert 1 == code
    assert "ValueError: no such table" in out
    assert "finishing: FAILED" in err


def test_logs_of_one_instance(mljobs):
    """--instance selects one of several instances, also with --follow."""
    submit("MLJOB_A", talk, target_instances=2, parallel=True)

    followed = mljobs("logs", "-f", "MLJOB_A", "--instance", "1")[1]
    read = mljobs("logs", "MLJOB_A", "--instance", "1", "--container", "main")[1]
    nothing = mljobs("logs", "MLJOB_A", "--instance", "7")

    assert "[instance 1] line 4\n" in followed
    assert "[instance 1] line 4\n" in read
    assert "[instance 0]" not in followed + read
    assert 1 == nothing[0]
    assert nothing[2].startswith("Job MLJOBS_DB.PUBLIC.MLJOB_A has no such instance or container.")


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c(airflow):
    """Ctrl-C ends the command without a traceback; the job keeps running."""
    submit("MLJOB_A", sleep)
    command = [sys.executable, "-m", "airflow", "mljobs", "logs", "-f", "MLJOB_A"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as shell:
        next(line for line in shell.stdout if "sleeping" in line)
        shell.send_signal(signal.SIGINT)
        _, err = shell.communicate(timeout=budget())

    assert (130, "Stopped following; job MLJOBS_DB.PUBLIC.MLJOB_A keeps running.") == (
        shell.returncode,
        err.splitlines()[-1],
    )
    assert "Traceback" not in err
    assert ["RUNNING"] == [row["status"] for row in airflow.query("SHOW JOB SERVICES IN ACCOUNT")]


def test_no_thread_is_left(mljobs):
    """The watcher of a command ends with it."""
    submit("MLJOB_A", talk)

    mljobs("logs", "-f", "MLJOB_A")

    assert [] == [thread.name for thread in threading.enumerate() if thread.name == "mljobs-watcher"]


def test_result(mljobs):
    """A result is printed as JSON or YAML."""
    submit("MLJOB_A", talk, wait_for="DONE")

    assert {"auc": 0.8} == json.loads(mljobs("result", "MLJOB_A")[1])
    assert "auc: 0.8\n" == mljobs("result", "MLJOB_A", "-o", "yaml")[1]


def test_result_of_a_failure(mljobs):
    """The result of a failed job is one line with its exception."""
    submit("MLJOB_A", fail, wait_for="FAILED")

    message = "Job MLJOBS_DB.PUBLIC.MLJOB_A failed with ValueError: no such table\n"
    assert (1, "", message) == mljobs("result", "MLJOB_A")


def test_cancel_and_drop(mljobs, airflow):
    """Without --force only an ended job is dropped."""
    submit("MLJOB_A", sleep, wait_for="RUNNING")

    early, drop = mljobs("result", "MLJOB_A"), mljobs("drop", "MLJOB_A")
    cancelled, again = mljobs("cancel", "MLJOB_A"), mljobs("cancel", "MLJOB_A")
    with MLJobHook() as hook:
        hook.run(f"CALL MLJOBS_DB.PUBLIC.MLJOB_A!SPCS_WAIT_FOR('CANCELLED', {budget():.0f})")

    assert (1, "Job MLJOBS_DB.PUBLIC.MLJOB_A is RUNNING; its result is available once it ends.\n") == (
        early[0],
        early[2],
    )
    assert (1, "Job MLJOBS_DB.PUBLIC.MLJOB_A is RUNNING: cancel it first, or pass --force.\n") == (drop[0], drop[2])
    assert (0, "Cancelled job MLJOBS_DB.PUBLIC.MLJOB_A.\n", "") == cancelled
    assert 0 == again[0]
    assert (0, "Dropped job MLJOBS_DB.PUBLIC.MLJOB_A.\n", "") == mljobs("drop", "MLJOB_A")
    assert [] == airflow.jobs


def test_cancel_in_vain(mljobs, airflow):
    """An unconfirmed cancel is reported as an error."""
    submit("MLJOB_A", sleep, wait_for="RUNNING")
    refusal = {"effect": "error", "errno": 2003, "message": "Service does not exist or not authorized."}
    airflow.snowflake.faults.add(Fault(matching="SPCS_CANCEL_JOB", **refusal))
    try:
        code, out, err = mljobs("cancel", "MLJOB_A")
    finally:
        airflow.snowflake.faults.clear()

    assert (1, "") == (code, out)
    assert err.startswith("Job MLJOBS_DB.PUBLIC.MLJOB_A may still be running")


def test_forced_drop(mljobs, airflow):
    """With --force a running job is dropped."""
    submit("MLJOB_A", sleep)

    assert 0 == mljobs("drop", "MLJOB_A", "--force")[0]
    assert [] == airflow.jobs


@pytest.fixture
def named(monkeypatch):
    """Name this Airflow."""
    monkeypatch.setenv("AIRFLOW__MLJOBS__DEPLOYMENT", "lab")


def submit_of(run_id, function, airflow="lab", **parts):
    """Submit a job as the task ``train`` of the DAG ``left_behind`` does; returns its name."""
    task = TaskKey(airflow=airflow, dag_id="left_behind", run_id=run_id, task_id="train")
    origin = Origin(task=task, run_started="2026-01-01", epoch=0, try_number=1, **parts)
    name = str(task.job_name(0, 1))
    submit(name, function, comment=origin.to_comment(), wait_for="DONE" if function is talk else "RUNNING")
    return name


@pytest.fixture
def left_behind(airflow, named):
    """Submit jobs of a finished, a running and a deleted task, and of another Airflow."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.sdk import DAG, task
    from airflow.utils.session import create_session
    from sqlalchemy import update

    with DAG("left_behind", schedule=None, start_date=datetime(2026, 1, 1)) as dag:
        task(lambda: None, task_id="train")()
    over, running = (airflow.run(dag).instances[0].run_id for _ in range(2))
    with create_session() as session:
        session.execute(update(TaskInstance).where(TaskInstance.run_id == running).values(state="running"))
    return {
        "over": submit_of(over, talk),
        "running": submit_of(running, sleep),
        "gone": submit_of("unknown", sleep),
        "foreign": submit_of("unknown_too", talk, airflow="other"),
    }


def test_gc(mljobs, airflow, left_behind):
    """Jobs of finished and deleted tasks are collected with their files, except results that XCom may refer to."""
    code, out, err = mljobs("gc", "--older-than", "0s", "--stage-name", STAGE, "-o", "json")
    rows = {row["name"].rpartition(".")[2]: row for row in json.loads(out)}

    assert {left_behind["running"], left_behind["foreign"]} == set(airflow.jobs)
    assert {left_behind["over"], left_behind["gone"]} == rows.keys()
    assert ["dropped", "success", "DONE"] == [
        rows[left_behind["over"]][key] for key in ("action", "task_state", "job_status")
    ]
    assert ["dropped", "gone", "RUNNING", "0.11"] == [
        rows[left_behind["gone"]][key] for key in ("action", "task_state", "job_status", "credits_per_hour")
    ]
    assert f"{left_behind['over']}/output/mljob_result" in "\n".join(
        row["name"] for row in airflow.query(f"LIST {STAGE}")
    )
    assert (0, 1) == (code, err.count("\n"))
    assert "dropped 2 jobs; 1 job kept; 1 job not of this Airflow; their nodes cost 0.11 credits" in err


def test_gc_dry_run(mljobs, airflow, left_behind):
    """--dry-run shows what would be dropped, and drops nothing."""
    before = airflow.query(f"LIST {STAGE}")
    code, out, err = mljobs("gc", "--older-than", "0s", "--stage-name", STAGE, "--dry-run")

    assert (0, 4, before) == (code, len(airflow.jobs), airflow.query(f"LIST {STAGE}"))
    assert "would drop" in out
    assert "would drop 2 jobs" in err


def test_gc_of_new_jobs(mljobs, airflow, left_behind):
    """By default only jobs older than a week are collected."""
    code, _, err = mljobs("gc", "--schema", "account")

    assert (0, 4) == (code, len(airflow.jobs))
    assert "nothing to collect; 3 jobs kept; 1 job not of this Airflow." in err


@pytest.mark.parametrize("fails", [False, True], ids=["success", "failed"])
def test_gc_of_a_kept_job(mljobs, airflow, named, fails):
    """A job of ``on_finish="keep"`` is collected by its age; the result of a task is kept."""
    job = {"task_id": "keep", "compute_pool": POOL, "stage_name": STAGE, "on_finish": "keep"}
    airflow.run_task(lambda: MLJobOperator(source=fail if fails else talk, **job))
    files = airflow.files
    code, _, err = mljobs("gc", "--older-than", "0s", "--stage-name", STAGE)

    assert (0, []) == (code, airflow.jobs)
    assert "dropped 1 job; 0 jobs kept" in err
    assert ([] if fails else files) == airflow.files


def test_gc_without_rights(mljobs, airflow, left_behind):
    """Failed drops are listed on stderr and set the exit code; everything else is collected."""
    airflow.snowflake.faults.add(
        Fault(matching=f"DROP SERVICE.*{left_behind['over']}", effect="error", errno=3001, message="Not\nyours")
    )
    try:
        code, _, err = mljobs("gc", "--older-than", "0s", "--stage-name", STAGE)
    finally:
        airflow.snowflake.faults.clear()

    assert (1, 2) == (code, err.count("\n"))
    assert f"left job MLJOBS_DB.PUBLIC.{left_behind['over']}" in err
    assert err.endswith(": Not yours\n")
    assert left_behind["gone"] not in airflow.jobs


def test_gc_on_a_stage_that_is_not_there(mljobs, airflow, left_behind):
    """One line on stderr, and nothing is dropped."""
    code, out, err = mljobs("gc", "--older-than", "0s", "--stage-name", "nowhere")

    assert (1, "", 1, 4) == (code, out, err.count("\n"), len(airflow.jobs))
    assert "NOWHERE" in err


def test_gc_in_an_airflow_without_a_name(mljobs):
    """Without a name the collector can't recognise its own jobs; the error names the setting."""
    code, _, err = mljobs("gc")

    assert (2, 1) == (code, err.count("\n"))
    assert "Set [mljobs] deployment" in err


@pytest.mark.parametrize("command", ["describe", "logs", "result", "cancel", "drop"])
def test_a_job_that_never_was(mljobs, command):
    """One line on stderr, exit code 1."""
    code, out, err = mljobs(command, "MLJOB_NEVER")

    assert (1, "", 1) == (code, out, err.count("\n"))
    assert "MLJOB_NEVER" in err
    assert "does not exist or not authorized" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["describe", "a b"], "job 'a b' is not a name"),
        (["list", "--schema", "a.b.c"], "schema 'a.b.c' is not a name"),
        (["list", "--state", "SLEEPING"], "invalid choice: 'SLEEPING'"),
        (["logs", "J", "--instance", "-1"], "invalid positive int value"),
        (["logs"], "the following arguments are required: job"),
        *((["gc", f"--older-than={age}"], f"{age!r} is not a duration") for age in ("7", "d", "-7d", "1.5d", "")),
        (["gc", "--older-than", "9" * 20 + "d"], "is too long"),
        (["gc", "--stage-name", "a b"], "stage_name 'a b' is not a name"),
        (["gc", "--schema", "a.b.c"], "schema 'a.b.c' is not a name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage(mljobs, words, message):
    """Invalid arguments exit with 2 and a message."""
    code, _, err = mljobs(*words)

    assert 2 == code
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["list", "describe", "logs", "result", "cancel", "drop", "gc", "doctor"])
def test_help(mljobs, command):
    """Each command has a help text. Airflow would parse text in brackets as markup."""
    code, out, _ = mljobs(command, "--help")

    assert 0 == code
    assert "--conn-id" in out


def test_no_such_connection(mljobs):
    """An unknown connection is named in the error."""
    code, _, err = mljobs("list", "--conn-id", "unknown")

    assert (1, 1) == (code, err.count("\n"))
    assert "unknown" in err


def test_a_connection_of_airflows_database(airflow, monkeypatch, mljobs):
    """Connections of Airflow's database work as in Airflow's own commands."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    parts = json.loads(airflow.snowflake.environment["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"])
    with create_session() as session:
        session.add(Connection(**{**parts, "conn_id": "of_database", "extra": json.dumps(parts["extra"])}))

    assert 0 == mljobs("list", "--conn-id", "of_database")[0]
    assert os.environ.get("_AIRFLOW_PROCESS_CONTEXT") != "server"


def test_commands_cost_nothing_until_they_are_called():
    """Parsing the commands, as `airflow version` does, imports neither Snowflake nor the hook."""
    code = """
import sys
from airflow.cli.cli_parser import get_parser
get_parser().parse_args(["mljobs", "list"])
print(*sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    loaded = ended.stdout.splitlines()[-1].split()
    ours = tuple(f"{PACKAGE}.{part}" for part in ("gateway", "hooks", "cli"))
    heavy = ("snowflake.", "airflow.providers.snowflake.hooks", *ours)

    assert [f"{PACKAGE}.cli", f"{PACKAGE}.cli.definition"] == [name for name in loaded if name.startswith(heavy)]


def test_every_command_is_there():
    """Each command has a function."""
    (group,) = get_mljobs_cli_commands()
    from airflow_provider_mljobs.cli import commands

    names = [command.func.__name__ for command in group.subcommands]
    assert [] == [name for name in names if not callable(getattr(commands, name, None))]


TRICKS = "\x1b[2J\x1b]0;title\x07\x9b31m\u202e[bold red]x[/] [link=https://evil.example]y[/link] :boom:"
COMMANDS = ("\x1b", "\x07", "\x9b", "\u202e")


def trick():
    """Print and return control sequences, and half of a surrogate pair, which can't be printed."""
    tricks = "\x1b[2J\x1b]0;title\x07\x9b31m\u202e[bold red]x[/] [link=https://evil.example]y[/link] :boom:"
    print(tricks)
    return {tricks: [tricks, "\ud800"]}


def trick_and_fail():
    """Raise an error with control sequences."""
    raise ValueError("\x1b[2J\x1b]0;title\x07\x9b31m\u202e[bold red]x[/] [link=https://evil.example]y[/link] :boom:")


class TestTerminal:
    """Untrusted text reaches the terminal without control sequences and the tables without markup."""

    @pytest.mark.parametrize("output", ["table", "plain", "json", "yaml"])
    @pytest.mark.parametrize("command", [("list",), ("describe", "MLJOB_A")], ids=" ".join)
    def test_comments(self, mljobs, command, output):
        """A COMMENT is untrusted: every role with CREATE SERVICE can write one."""
        submit("MLJOB_A", talk, wait_for="DONE", comment=f"{TRICKS}\nMLJOB_FAKE DONE")

        code, out, err = mljobs(*command, "-o", output)

        assert 0 == code
        assert [] == [character for character in COMMANDS if character in out + err]
        assert [] == [line for line in out.splitlines() if line.startswith("MLJOB_FAKE")]
        # A narrow table breaks lines.
        assert "[boldred]x[/][link=https://evil.example]y[/link]:boom:" in "".join(out.split()).replace("|", "")

    @pytest.mark.parametrize("follow", [(), ("-f",)])
    def test_logs(self, mljobs, follow):
        """Lines of a log are printed without control sequences."""
        submit("MLJOB_A", trick, wait_for="DONE")

        code, out, err = mljobs("logs", *follow, "MLJOB_A")

        assert 0 == code
        assert [] == [character for character in COMMANDS if character in out + err]
        assert "[bold red]x[/] [link=https://evil.example]y[/link] :boom:" in out

    @pytest.mark.parametrize(("output", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
    def test_results(self, mljobs, output, load):
        """A printed result parses to the same value."""
        submit("MLJOB_A", trick, wait_for="DONE")

        code, out, _ = mljobs("result", "MLJOB_A", "-o", output)

        assert 0 == code
        assert [] == [character for character in COMMANDS if character in out]
        assert [TRICKS] == list(load(out))
        assert TRICKS == load(out)[TRICKS][0]

    def test_errors(self, mljobs):
        """The message of a payload's exception is printed without control sequences."""
        submit("MLJOB_A", trick_and_fail, wait_for="FAILED")

        code, _, err = mljobs("result", "MLJOB_A")

        assert 1 == code
        assert [] == [character for character in COMMANDS if character in err]
        assert r"ValueError: \u001b[2J" in err


def test_the_error_of_a_task_gives_no_commands(airflow):
    """The error of a task has no control sequences: `airflow dags test` prints it to a terminal."""
    run = airflow.run_task(
        lambda: MLJobOperator(task_id="job", source=trick_and_fail, compute_pool=POOL, stage_name=STAGE)
    )

    assert [] == [character for character in COMMANDS if character in f"{run.errors['job']}{run.errors['job'].args}"]
