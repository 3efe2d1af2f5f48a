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
    """Run for longer than anybody waits."""
    import time

    print("sleeping")
    time.sleep(60)


@pytest.fixture
def mljobs(airflow, capsys):
    """Run a command; returns its exit code and what it printed on stdout and stderr."""
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

    code, shown, _ = mljobs("list", *(["--schema", schema] if schema else []))

    assert (0, expected) == (code, "MLJOB_THERE" in shown)


def test_list_another_schema(mljobs, airflow):
    """What is elsewhere isn't shown; an empty list is no error."""
    airflow.query("CREATE SCHEMA IF NOT EXISTS MLJOBS_DB.ELSEWHERE")
    submit("MLJOB_THERE", talk)

    code, shown, _ = mljobs("list", "--schema", "elsewhere", "-o", "json")

    assert (0, []) == (code, json.loads(shown))


@pytest.mark.parametrize(("output", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_describe(mljobs, output, load):
    """One mapping, with the job's containers."""
    job_id = submit("MLJOB_A", talk, wait_for="DONE", comment=COMMENT)

    found = load(mljobs("describe", "mljob_a", "-o", output)[1])

    assert [job_id, "DONE", POOL] == [found[key] for key in ("job_id", "status", "compute_pool")]
    assert "weekly" == json.loads(found["comment"])["dag_id"]
    assert [("0", "main", "0")] == [
        (each["instance_id"], each["name"], each["last_exit_code"]) for each in found["containers"]
    ]


def test_describe_as_a_table(mljobs):
    """Two tables: the job and its containers."""
    submit("MLJOB_A", talk, wait_for="DONE")

    code, shown, _ = mljobs("describe", "MLJOB_A")

    assert 0 == code
    assert [] == [word for word in ("compute_pool", POOL, "instance_id", "main") if word not in shown]


def test_logs(mljobs):
    """What was printed, on stdout."""
    submit("MLJOB_A", talk, wait_for="DONE")

    code, shown, _ = mljobs("logs", "MLJOB_A")

    assert (0, 1) == (code, shown.count("line 4\n"))


def test_follow(mljobs):
    """Each line once, from the beginning to the end of the job; what became of it is the exit code."""
    submit("MLJOB_A", talk)

    code, shown, told = mljobs("logs", "-f", "MLJOB_A")

    assert (0, [1] * 5) == (code, [shown.count(f"line {number}\n") for number in range(5)])
    assert "Job MLJOBS_DB.PUBLIC.MLJOB_A: finishing: DONE." in told


def test_follow_a_job_that_fails(mljobs):
    """The exit code says so, and the traceback is in the job's log."""
    submit("MLJOB_A", fail)

    code, shown, told = mljobs("logs", "-f", "MLJOB_A")

    assert 1 == code
    assert "ValueError: no such table" in shown
    assert "finishing: FAILED" in told


def test_logs_of_one_instance(mljobs):
    """Of several instances one can be chosen, also while it is followed."""
    submit("MLJOB_A", talk, target_instances=2, parallel=True)

    followed = mljobs("logs", "-f", "MLJOB_A", "--instance", "1")[1]
    read = mljobs("logs", "MLJOB_A", "--instance", "1", "--container", "main")[1]
    nothing = mljobs("logs", "MLJOB_A", "--instance", "7")

    assert "[instance 1] line 4\n" in followed
    assert "[instance 1] line 4\n" in read
    assert "[instance 0]" not in followed + read
    assert (1, "Job MLJOBS_DB.PUBLIC.MLJOB_A has no such container.\n") == (nothing[0], nothing[2])


@pytest.fixture
def heeded():
    """Have a command heed Ctrl-C, also where these tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
def test_ctrl_c(airflow):
    """It ends the command without a traceback, and the job goes on."""
    submit("MLJOB_A", sleep)
    command = [sys.executable, "-m", "airflow", "mljobs", "logs", "-f", "MLJOB_A"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as shell:
        next(line for line in shell.stdout if "sleeping" in line)
        shell.send_signal(signal.SIGINT)
        _, told = shell.communicate(timeout=budget())

    assert (130, "Job MLJOBS_DB.PUBLIC.MLJOB_A goes on.") == (shell.returncode, told.splitlines()[-1])
    assert "Traceback" not in told
    assert ["RUNNING"] == [row["status"] for row in airflow.query("SHOW JOB SERVICES IN ACCOUNT")]


def test_no_thread_is_left(mljobs):
    """The watcher of a command ends with it."""
    submit("MLJOB_A", talk)

    mljobs("logs", "-f", "MLJOB_A")

    assert [] == [thread.name for thread in threading.enumerate() if thread.name == "mljobs-watcher"]


def test_result(mljobs):
    """The value, as JSON or YAML."""
    submit("MLJOB_A", talk, wait_for="DONE")

    assert {"auc": 0.8} == json.loads(mljobs("result", "MLJOB_A")[1])
    assert "auc: 0.8\n" == mljobs("result", "MLJOB_A", "-o", "yaml")[1]


def test_result_of_a_failure(mljobs):
    """One line says which exception it was."""
    submit("MLJOB_A", fail, wait_for="FAILED")

    message = "Job MLJOBS_DB.PUBLIC.MLJOB_A failed with ValueError: no such table\n"
    assert (1, "", message) == mljobs("result", "MLJOB_A")


def test_cancel_and_drop(mljobs, airflow):
    """A running job isn't dropped by mistake; one that has ended is."""
    submit("MLJOB_A", sleep, wait_for="RUNNING")

    early, drop = mljobs("result", "MLJOB_A"), mljobs("drop", "MLJOB_A")
    cancelled, again = mljobs("cancel", "MLJOB_A"), mljobs("cancel", "MLJOB_A")
    with MLJobHook() as hook:
        hook.run(f"CALL MLJOBS_DB.PUBLIC.MLJOB_A!SPCS_WAIT_FOR('CANCELLED', {budget():.0f})")

    assert (1, "Job MLJOBS_DB.PUBLIC.MLJOB_A is RUNNING: it has no result yet.\n") == (early[0], early[2])
    assert (1, "Job MLJOBS_DB.PUBLIC.MLJOB_A is RUNNING: cancel it first, or pass --force.\n") == (drop[0], drop[2])
    assert (0, "Cancelled job MLJOBS_DB.PUBLIC.MLJOB_A.\n", "") == cancelled
    assert 0 == again[0]
    assert (0, "Dropped job MLJOBS_DB.PUBLIC.MLJOB_A.\n", "") == mljobs("drop", "MLJOB_A")
    assert [] == airflow.jobs


def test_cancel_in_vain(mljobs, airflow):
    """A job that Snowflake shows and doesn't cancel may still run, and the command says so."""
    submit("MLJOB_A", sleep, wait_for="RUNNING")
    refusal = {"effect": "error", "errno": 2003, "message": "Service does not exist or not authorized."}
    airflow.snowflake.faults.add(Fault(matching="SPCS_CANCEL_JOB", **refusal))
    try:
        code, shown, told = mljobs("cancel", "MLJOB_A")
    finally:
        airflow.snowflake.faults.clear()

    message = "Job MLJOBS_DB.PUBLIC.MLJOB_A may still run: Service does not exist or not authorized.\n"
    assert (1, "", message) == (code, shown, told)


def test_forced_drop(mljobs, airflow):
    """With --force a running job is dropped."""
    submit("MLJOB_A", sleep)

    assert 0 == mljobs("drop", "MLJOB_A", "--force")[0]
    assert [] == airflow.jobs


@pytest.fixture
def named(monkeypatch):
    """Call this Airflow something."""
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
    """Submit four jobs: of a task that has succeeded, of one that runs, of one that is gone; and of another Airflow."""
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
        "gone": submit_of("nobody_knows", sleep),
        "foreign": submit_of("nobody_knows_either", talk, airflow="other"),
    }


def test_gc(mljobs, airflow, left_behind):
    """Jobs whose tasks are over or gone go, with their files but for a result that XCom may refer to."""
    code, shown, told = mljobs("gc", "--older-than", "0s", "--stage-name", STAGE, "-o", "json")
    rows = {row["name"].rpartition(".")[2]: row for row in json.loads(shown)}

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
    assert (0, 1) == (code, told.count("\n"))
    assert "dropped 2 jobs; 1 job kept; 1 job not of this Airflow; their nodes cost 0.11 credits" in told


def test_gc_dry_run(mljobs, airflow, left_behind):
    """It only tells."""
    before = airflow.query(f"LIST {STAGE}")
    code, shown, told = mljobs("gc", "--older-than", "0s", "--stage-name", STAGE, "--dry-run")

    assert (0, 4, before) == (code, len(airflow.jobs), airflow.query(f"LIST {STAGE}"))
    assert "would drop" in shown
    assert "would drop 2 jobs" in told


def test_gc_of_what_is_young(mljobs, airflow, left_behind):
    """By default everything is, for a week."""
    code, _, told = mljobs("gc", "--schema", "account")

    assert (0, 4) == (code, len(airflow.jobs))
    assert "nothing to collect; 3 jobs kept; 1 job not of this Airflow." in told


@pytest.mark.parametrize("fails", [False, True], ids=["success", "failed"])
def test_gc_of_a_kept_job(mljobs, airflow, named, fails):
    """A job that a task has kept on purpose goes by its age, too; what a task has returned stays."""
    job = {"task_id": "keep", "compute_pool": POOL, "stage_name": STAGE, "on_finish": "keep"}
    airflow.run_task(lambda: MLJobOperator(source=fail if fails else talk, **job))
    kept = airflow.files
    code, _, told = mljobs("gc", "--older-than", "0s", "--stage-name", STAGE)

    assert (0, []) == (code, airflow.jobs)
    assert "dropped 1 job; 0 jobs kept" in told
    assert ([] if fails else kept) == airflow.files


def test_gc_without_rights(mljobs, airflow, left_behind):
    """What could not be dropped is listed on stderr, and the exit code says so; the rest is collected."""
    airflow.snowflake.faults.add(
        Fault(matching=f"DROP SERVICE.*{left_behind['over']}", effect="error", errno=3001, message="Not\nyours")
    )
    try:
        code, _, told = mljobs("gc", "--older-than", "0s", "--stage-name", STAGE)
    finally:
        airflow.snowflake.faults.clear()

    assert (1, 2) == (code, told.count("\n"))
    assert f"left job MLJOBS_DB.PUBLIC.{left_behind['over']}" in told
    assert told.endswith(": Not yours\n")
    assert left_behind["gone"] not in airflow.jobs


def test_gc_on_a_stage_that_is_not_there(mljobs, airflow, left_behind):
    """One line on stderr, and nothing is dropped."""
    code, shown, told = mljobs("gc", "--older-than", "0s", "--stage-name", "nowhere")

    assert (1, "", 1, 4) == (code, shown, told.count("\n"), len(airflow.jobs))
    assert "NOWHERE" in told


def test_gc_in_an_airflow_without_a_name(mljobs):
    """It can't tell its jobs from those of another one, and says what to set."""
    code, _, told = mljobs("gc")

    assert (2, 1) == (code, told.count("\n"))
    assert "Set [mljobs] deployment" in told


@pytest.mark.parametrize("command", ["describe", "logs", "result", "cancel", "drop"])
def test_a_job_that_never_was(mljobs, command):
    """One line on stderr, exit code 1."""
    code, shown, told = mljobs(command, "MLJOB_NEVER")

    assert (1, "", 1) == (code, shown, told.count("\n"))
    assert "MLJOB_NEVER" in told
    assert "does not exist or not authorized" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["describe", "a b"], "job 'a b' is not a name"),
        (["list", "--schema", "a.b.c"], "schema 'a.b.c' is not a name"),
        (["list", "--state", "SLEEPING"], "invalid choice: 'SLEEPING'"),
        (["logs", "J", "--instance", "-1"], "invalid positive int value"),
        (["logs"], "the following arguments are required: job"),
        *((["gc", f"--older-than={age}"], f"{age!r} is no duration") for age in ("7", "d", "-7d", "1.5d", "")),
        (["gc", "--older-than", "9" * 20 + "d"], "is more than anything can be old"),
        (["gc", "--stage-name", "a b"], "stage_name 'a b' is not a name"),
        (["gc", "--schema", "a.b.c"], "schema 'a.b.c' is not a name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage(mljobs, words, message):
    """Exit code 2, and what is wrong."""
    code, _, told = mljobs(*words)

    assert 2 == code
    assert message in told
    assert "Traceback" not in told


@pytest.mark.parametrize("command", ["list", "describe", "logs", "result", "cancel", "drop", "gc"])
def test_help(mljobs, command):
    """Airflow takes what stands in brackets for markup, and stumbles over some of it."""
    code, shown, _ = mljobs(command, "--help")

    assert 0 == code
    assert "--conn-id" in shown


def test_no_such_connection(mljobs):
    """It is named."""
    code, _, told = mljobs("list", "--conn-id", "nobody_knows")

    assert (1, 1) == (code, told.count("\n"))
    assert "nobody_knows" in told


def test_a_connection_of_airflows_database(airflow, monkeypatch, mljobs):
    """As for Airflow's own commands: not only those of the environment are found."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    parts = json.loads(airflow.snowflake.environment["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"])
    with create_session() as session:
        session.add(Connection(**{**parts, "conn_id": "of_database", "extra": json.dumps(parts["extra"])}))

    assert 0 == mljobs("list", "--conn-id", "of_database")[0]
    assert os.environ.get("_AIRFLOW_PROCESS_CONTEXT") != "server"


def test_commands_cost_nothing_until_they_are_called():
    """`airflow version` reads what commands there are, and loads neither Snowflake nor the hook."""
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
    """Each leads to a function."""
    (group,) = get_mljobs_cli_commands()
    from airflow_provider_mljobs.cli import commands

    names = [command.func.__name__ for command in group.subcommands]
    assert [] == [name for name in names if not callable(getattr(commands, name, None))]


TRICKS = "\x1b[2J\x1b]0;title\x07\x9b31m\u202e[bold red]x[/] [link=https://evil.example]y[/link] :boom:"
COMMANDS = ("\x1b", "\x07", "\x9b", "\u202e")


def trick():
    """Print and return what a terminal would obey; half of a character can't even be printed."""
    tricks = "\x1b[2J\x1b]0;title\x07\x9b31m\u202e[bold red]x[/] [link=https://evil.example]y[/link] :boom:"
    print(tricks)
    return {tricks: [tricks, "\ud800"]}


def trick_and_fail():
    """Raise it."""
    raise ValueError("\x1b[2J\x1b]0;title\x07\x9b31m\u202e[bold red]x[/] [link=https://evil.example]y[/link] :boom:")


class TestTerminal:
    """Words of jobs and strangers give the terminal no commands and the tables no markup, whatever is printed how."""

    @pytest.mark.parametrize("output", ["table", "plain", "json", "yaml"])
    @pytest.mark.parametrize("command", [("list",), ("describe", "MLJOB_A")], ids=" ".join)
    def test_comments(self, mljobs, command, output):
        """Anybody who may create a service writes a COMMENT."""
        submit("MLJOB_A", talk, wait_for="DONE", comment=f"{TRICKS}\nMLJOB_FAKE DONE")

        code, shown, told = mljobs(*command, "-o", output)

        assert 0 == code
        assert [] == [character for character in COMMANDS if character in shown + told]
        assert [] == [line for line in shown.splitlines() if line.startswith("MLJOB_FAKE")]
        # A narrow table breaks lines.
        assert "[boldred]x[/][link=https://evil.example]y[/link]:boom:" in "".join(shown.split()).replace("|", "")

    @pytest.mark.parametrize("follow", [(), ("-f",)])
    def test_logs(self, mljobs, follow):
        """Lines are shown as a log shows them."""
        submit("MLJOB_A", trick, wait_for="DONE")

        code, shown, told = mljobs("logs", *follow, "MLJOB_A")

        assert 0 == code
        assert [] == [character for character in COMMANDS if character in shown + told]
        assert "[bold red]x[/] [link=https://evil.example]y[/link] :boom:" in shown

    @pytest.mark.parametrize(("output", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
    def test_results(self, mljobs, output, load):
        """The value is the same when it is read again."""
        submit("MLJOB_A", trick, wait_for="DONE")

        code, shown, _ = mljobs("result", "MLJOB_A", "-o", output)

        assert 0 == code
        assert [] == [character for character in COMMANDS if character in shown]
        assert [TRICKS] == list(load(shown))
        assert TRICKS == load(shown)[TRICKS][0]

    def test_errors(self, mljobs):
        """The exception of a payload has the payload's words."""
        submit("MLJOB_A", trick_and_fail, wait_for="FAILED")

        code, _, told = mljobs("result", "MLJOB_A")

        assert 1 == code
        assert [] == [character for character in COMMANDS if character in told]
        assert r"ValueError: \u001b[2J" in told


def test_the_error_of_a_task_gives_no_commands(airflow):
    """Airflow writes it to a terminal as well: `airflow dags test`."""
    run = airflow.run_task(
        lambda: MLJobOperator(task_id="job", source=trick_and_fail, compute_pool=POOL, stage_name=STAGE)
    )

    assert [] == [character for character in COMMANDS if character in f"{run.errors['job']}{run.errors['job'].args}"]
