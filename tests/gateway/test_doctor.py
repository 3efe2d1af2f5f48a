"""The doctor's checks of an account and its probe job, on an embedded Snowflake."""

import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from airflow_provider_mljobs.emulator.settings import Fault, Ready
from airflow_provider_mljobs.gateway.client import MLJobClient
from airflow_provider_mljobs.gateway.doctor.account import Account, Subject
from airflow_provider_mljobs.gateway.doctor.checks import account_checks
from airflow_provider_mljobs.gateway.doctor.probe import CLEAN_UP, NODE, RUN, SUBMIT, UPLOAD, Probe
from airflow_provider_mljobs.jobs.checkup import State, run
from airflow_provider_mljobs.jobs.names import Identifier, Namespace, StagePath
from tests.budget import budget
from tests.lab import POOL, STAGE, served

NAMESPACE = Namespace(Identifier("MLJOBS_DB"), Identifier("PUBLIC"))
SUBJECT = Subject(
    connection="snowflake_default",
    user="MLJOBS",
    warehouse=Identifier("MLJOBS_WH"),
    namespace=NAMESPACE,
    compute_pool=Identifier(POOL),
    stage=StagePath.parse(STAGE, "stage", NAMESPACE),
)


class Lab:
    """An account with the pool and stage of the example DAGs."""

    def __init__(self, server):
        self.server = server

    @contextmanager
    def client(self, **login):
        """Connect as the doctor does."""
        from snowflake import connector

        client = MLJobClient(lambda: connector.connect(**self.server.connection_kwargs | login), payload_grace=0)
        yield client
        client.close()

    def findings(self, subject=SUBJECT, *, login=None, clock=None, **changes):
        """Run all checks of the account, and return the findings by their names."""
        with self.client(**(login or {})) as client:
            account = Account(client, replace(subject, **changes), **({"clock": clock} if clock else {}))
            return {finding.check: finding for finding in run(account_checks(account))}

    def probe(self, *, timeout=None, **changes):
        """Run the probe job, and return the findings of its steps by their names."""
        with self.client() as client:
            account = Account(client, replace(SUBJECT, **changes))
            with Probe(account, timeout=timeout or budget(), report=lambda _: None) as probe:
                return {finding.check: finding for finding in run(probe.checks())}

    @contextmanager
    def failing(self, matching, **effect):
        """Make statements fail for a while."""
        self.server.faults.add(Fault(matching=matching, **{"effect": "error", **effect}))
        try:
            yield
        finally:
            self.server.faults.clear()

    def query(self, statement):
        """Run a statement as an administrator."""
        with self.client() as client:
            return client.connection.rows(statement)

    @property
    def leftovers(self):
        """The jobs of the account, and the files on the stage."""
        return self.query("SHOW JOB SERVICES IN ACCOUNT") + self.query(f"LIST {STAGE}")


@pytest.fixture(scope="module")
def lab():
    """Serve one account to all tests."""
    with served() as server:
        yield Lab(server)


def test_a_refused_login_skips_the_rest(lab):
    """A wrong password is the one thing to change; no other check is shown as missing."""
    findings = lab.findings(login={"password": "wrong"})

    assert ["login"] == [name for name, finding in findings.items() if finding.state is State.MISSING]
    assert "login and password of connection snowflake_default" == findings["login"].setting
    assert {"Not checked without: login."} == {
        finding.detail for name, finding in findings.items() if name not in {"login", "runtime image"}
    }


def test_an_account_that_is_out_of_reach(lab):
    """An address at which nothing answers is a finding about the connection's account."""
    finding = lab.findings(login={"port": 9, "login_timeout": 1})["login"]

    assert State.MISSING is finding.state
    assert "account of connection snowflake_default" in finding.setting


@pytest.mark.parametrize(
    ("namespace", "setting"),
    [
        (Namespace(None, None), "database of connection snowflake_default"),
        (Namespace(Identifier("ML"), None), "schema of connection snowflake_default"),
        (
            Namespace(Identifier("ML"), Identifier("my jobs")),
            "a schema with an upper-case name in connection snowflake_default",
        ),
    ],
    ids=["no database", "no schema", "a name in quotes"],
)
def test_a_connection_without_a_schema_for_jobs(lab, namespace, setting):
    """Jobs need a database and a schema whose names need no quotes."""
    finding = lab.findings(namespace=namespace, stage=None)["database and schema"]

    assert (State.MISSING, setting) == (finding.state, finding.setting)


def test_without_arguments_the_doctor_lists_the_pools(lab):
    """Pool, stage and image aren't checked unless they are named; the user sees which pools there are."""
    findings = lab.findings(compute_pool=None, stage=None)

    assert f"Pass --compute-pool. The role can see: {POOL}" in findings["compute pool"].detail
    assert [State.UNSEEN] * 3 == [findings[name].state for name in ("compute pool", "stage", "runtime image")]


def test_a_suspended_pool_that_does_not_resume(lab):
    """Jobs on a suspended pool wait for ever without AUTO_RESUME; the statement of the finding mends it."""
    lab.query("CREATE COMPUTE POOL ASLEEP MIN_NODES = 1 MAX_NODES = 2 INSTANCE_FAMILY = CPU_X64_S AUTO_RESUME = FALSE")
    lab.query("ALTER COMPUTE POOL ASLEEP SUSPEND")
    before = lab.findings(compute_pool=Identifier("ASLEEP"))["compute pool"]
    for statement in before.sql:
        lab.query(statement)

    assert (State.MISSING, ("ALTER COMPUTE POOL ASLEEP SET AUTO_RESUME = TRUE;",)) == (before.state, before.sql)
    assert lab.findings(compute_pool=Identifier("ASLEEP"))["compute pool"].state is not State.MISSING


def test_a_runtime_that_snowflake_does_not_have(lab):
    """A refused image is found before any job asks for it."""
    with lab.failing("GET_ML_JOB_RUNTIME", errno=395091, message="Runtime 'nonsense' is not supported"):
        finding = lab.findings(image="nonsense")["runtime image"]

    assert (State.MISSING, "another --image") == (finding.state, finding.setting)
    assert "Runtime 'nonsense' is not supported" in finding.detail


@pytest.mark.parametrize(("offset", "state"), [(0, State.OK), (-90, State.MISSING), (90, State.MISSING)])
def test_clock(lab, offset, state):
    """A clock that is more than half a minute off makes key-pair logins and deadlines fail."""
    assert state is lab.findings(clock=lambda: time.time() + offset)["clock"].state


def test_a_check_that_fails_to_run(lab):
    """A statement that the account refuses makes one finding unproven; the others are the same as before."""
    before = lab.findings()
    with lab.failing("SHOW IMAGE REPOSITORIES", errno=1003, message="syntax error"):
        after = lab.findings()

    assert ["image repository"] == [
        name for name in before if "clock" != name and before[name].detail != after[name].detail
    ]
    assert State.UNSEEN is after["image repository"].state
    assert "syntax error" in after["image repository"].detail


def test_no_check_changes_anything(lab):
    """The checks consist of SELECT, SHOW and the CALL that resolves the image."""
    with lab.failing(r"^\s*(?!SELECT|SHOW|CALL SYSTEM\$GET_ML_JOB_RUNTIME)", message="a change"):
        findings = lab.findings(external_access_integrations=(Identifier("PYPI_ACCESS"),))

    assert [] == [finding.detail for finding in findings.values() if "a change" in finding.detail]
    assert State.OK is findings["login"].state


class TestProbe:
    """A probe job that takes every step of a task's job."""

    def test_success(self, lab):
        """Each step says how long it took; neither a job nor a file is left."""
        steps = lab.probe()

        assert [] == [step for step in steps.values() if step.state is State.MISSING or step.seconds is None]
        assert "Neither a job nor a file is left." == steps[CLEAN_UP].detail
        assert [] == lab.leftovers

    def test_a_pool_that_never_starts(self, lab):
        """A job that gets no node in time is cancelled and dropped; the finding says why it waits."""
        with served(pool_ready=Ready(seconds=3600)) as server:
            steps, leftovers = Lab(server).probe(timeout=2), Lab(server).leftovers

        assert State.MISSING is steps[NODE].state
        assert "is still PENDING after 2 s" in steps[NODE].detail
        assert "Compute pool node(s) are being provisioned" in steps[NODE].detail
        assert (State.OK, []) == (steps[CLEAN_UP].state, leftovers)

    def test_a_refused_submit(self, lab):
        """Snowflake's refusal is the finding; the uploaded code is removed."""
        with lab.failing("EXECUTE JOB SERVICE", errno=3001, message="Insufficient privileges"):
            steps = lab.probe()

        assert State.MISSING is steps[SUBMIT].state
        assert "GRANT CREATE SERVICE ON SCHEMA MLJOBS_DB.PUBLIC" in steps[SUBMIT].detail
        assert [] == lab.leftovers

    def test_a_lost_answer(self, lab):
        """A submit whose answer is lost may have taken effect: the job is looked for, ended and dropped."""
        with lab.failing("EXECUTE JOB SERVICE", effect="reset_after", times=10):
            steps = lab.probe()

        assert State.OK is steps[CLEAN_UP].state
        assert [] == lab.leftovers

    def test_ctrl_c(self, lab):
        """Ctrl-C while the job runs ends it and removes all of it before the interrupt goes through."""
        reported = []

        def interrupt(client):
            with Probe(Account(client, SUBJECT), timeout=budget(), report=reported.append) as probe:
                for finding in run(probe.checks()):
                    if finding.check == SUBMIT:
                        raise KeyboardInterrupt

        with lab.client() as client, pytest.raises(KeyboardInterrupt):
            interrupt(client)

        assert [(CLEAN_UP, State.UNSEEN), (CLEAN_UP, State.OK)] == [(each.check, each.state) for each in reported]
        assert [] == lab.leftovers

    def test_a_failed_clean_up(self, lab):
        """Leftovers that can't be removed are named, with the statements that remove them."""
        with lab.failing("^REMOVE", errno=3001, message="Insufficient privileges"):
            step = lab.probe()[CLEAN_UP]
        for statement in step.sql:
            lab.query(statement)

        assert State.MISSING is step.state
        assert [] == lab.leftovers

    def test_a_job_that_fails(self, lab):
        """The error of the job, with the advice of a task's error, is the finding."""
        with lab.failing("DESCRIBE SERVICE", effect="rewrite", column="status", value="FAILED"):
            steps = lab.probe()

        assert State.MISSING is steps[RUN].state
        assert "ended FAILED" in steps[RUN].detail

    def test_without_a_stage(self, lab):
        """A probe needs a pool and a stage."""
        steps = lab.probe(stage=None)

        assert (State.MISSING, "--compute-pool and --stage") == (steps[UPLOAD].state, steps[UPLOAD].setting)
        assert "The probe did not begin." == steps[CLEAN_UP].detail
