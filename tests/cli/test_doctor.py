"""`airflow mljobs doctor`, by Airflow's own parser, on the embedded Snowflake."""

import json
import os
import signal
import subprocess
import sys

import pytest
import yaml

from airflow_provider_mljobs.emulator.settings import Fault
from airflow_provider_mljobs.hooks import MLJobHook
from airflow_provider_mljobs.jobs.checkup import State
from tests.budget import budget
from tests.lab import POOL, STAGE

ARGUMENTS = ("--compute-pool", POOL, "--stage", STAGE)


@pytest.fixture
def doctor(airflow, capsys, monkeypatch):
    """Run the command in an Airflow with a name and a live triggerer; returns its exit code, stdout and stderr."""
    from airflow.cli.cli_parser import get_parser
    from airflow.jobs.job import Job
    from airflow.sdk.timezone import utcnow
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    monkeypatch.setenv("AIRFLOW__MLJOBS__DEPLOYMENT", "laboratory")
    with create_session() as session:
        session.add(Job(job_type="TriggererJob", state="running", latest_heartbeat=utcnow()))

    def run(*words):
        code = 0
        capsys.readouterr()
        try:
            args = get_parser().parse_args(["mljobs", "doctor", *words])
            args.func(args)
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    yield run
    with create_session() as session:
        session.execute(delete(Job))


@pytest.mark.parametrize(("output", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_a_healthy_account(doctor, output, load):
    """The exit code is 0 if nothing is missing; each check has a state and a reason."""
    code, out, err = doctor(*ARGUMENTS, "-o", output)
    findings = load(out)

    assert (0, "") == (code, err)
    assert {"check", "state", "detail", "sql", "setting"} == findings[0].keys()
    assert ["login", "role", "warehouse"] == [finding["check"] for finding in findings[:3]]
    assert {"ok", "can't be seen"} >= {finding["state"] for finding in findings}


def test_something_is_missing(doctor, monkeypatch):
    """The exit code is 1 if something is missing; below the table is the line that mends it, unbroken."""
    monkeypatch.delenv("AIRFLOW__MLJOBS__DEPLOYMENT")

    code, out, _ = doctor(*ARGUMENTS)

    assert 1 == code
    assert "-- deployment: AIRFLOW__MLJOBS__DEPLOYMENT=production" in out.splitlines()


def test_a_role_with_nothing(doctor, airflow, monkeypatch):
    """An administrator runs the lines below the table; then nothing is missing, and a job runs."""
    connection = json.loads(airflow.snowflake.environment["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"])
    connection["extra"]["role"] = "STRIPPED"
    monkeypatch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", json.dumps(connection))
    airflow.query("CREATE OR REPLACE ROLE STRIPPED")
    airflow.query("GRANT ROLE STRIPPED TO USER MLJOBS")
    before, table, _ = doctor(*ARGUMENTS)
    for line in table.splitlines():
        if line.startswith("GRANT"):
            airflow.query(line)
    after, out, _ = doctor(*ARGUMENTS, "--run", "-o", "json")
    airflow.query("DROP ROLE STRIPPED")

    assert (1, 0) == (before, after)
    assert [] == [finding for finding in json.loads(out) if finding["state"] == "missing"]


def test_the_hook_gives_the_same(doctor):
    """`MLJobHook.doctor()` returns the findings that the command prints."""
    printed = json.loads(doctor(*ARGUMENTS, "-o", "json")[1])
    with MLJobHook() as hook:
        returned = hook.doctor(compute_pool=POOL, stage_name=STAGE)

    assert [(row["check"], row["state"]) for row in printed] == [(each.check, each.state) for each in returned]
    assert State.MISSING not in {each.state for each in returned}


def test_run(doctor, airflow):
    """--run prints each step of a tiny job with its time, and leaves nothing."""
    code, out, err = doctor(*ARGUMENTS, "--run", "-o", "json")
    steps = [finding for finding in json.loads(out) if finding["check"].startswith("probe")]

    assert 0 == code
    assert ["upload", "submit", "node", "run", "result", "log", "metrics", "clean-up"] == [
        step["check"].removeprefix("probe: ") for step in steps
    ]
    assert [True] * len(steps) == [
        f"{step['check']}: {step['state']} after {step['seconds']} s." in err for step in steps
    ]
    assert ([], []) == (airflow.jobs, airflow.query(f"LIST {STAGE}"))


def test_run_without_a_pool(doctor):
    """A probe without a pool and a stage is an invalid command."""
    code, _, err = doctor("--run")

    assert (2, "A probe job needs a compute pool and a stage: pass both.\n") == (code, err)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--compute-pool", "a b"), "compute_pool 'a b' is not a name"),
        (("--stage", "a b"), "stage_name 'a b' is not a name"),
        (("--external-access-integration", "a.b"), "external_access_integrations 'a.b' is not a name"),
        (("--timeout", "0"), "invalid positive int value"),
        (("--conn-id", "unknown"), "unknown"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_usage(doctor, words, message):
    """Invalid arguments end the command with one line on stderr before it logs in."""
    code, _, err = doctor(*words)

    assert code in {1, 2}
    assert message in err
    assert "Traceback" not in err


def test_a_wrong_password(doctor, airflow):
    """A connection that can't log in is the one thing to change."""
    airflow.snowflake.faults.add(
        Fault(request="login", effect="error", errno=390100, message="Incorrect username or password was specified.")
    )
    try:
        code, out, _ = doctor(*ARGUMENTS, "-o", "json")
    finally:
        airflow.snowflake.faults.clear()
    missing = [finding for finding in json.loads(out) if finding["state"] == "missing"]

    assert 1 == code
    assert ["login and password of connection snowflake_default"] == [finding["setting"] for finding in missing]


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c(airflow):
    """Ctrl-C during the probe ends the command without a traceback, and with neither a job nor a file left."""
    command = [sys.executable, "-m", "airflow", "mljobs", "doctor", *ARGUMENTS, "--run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as shell:
        next(line for line in shell.stderr if line.startswith("probe: submit: ok"))
        shell.send_signal(signal.SIGINT)
        _, err = shell.communicate(timeout=budget())

    assert 130 == shell.returncode
    assert "Neither a job nor a file is left." in err.splitlines()[-1]
    assert "Traceback" not in err
    assert ([], []) == (airflow.jobs, airflow.query(f"LIST {STAGE}"))
