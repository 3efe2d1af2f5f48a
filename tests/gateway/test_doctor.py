"""The doctor's checks of an account and its probe job, on an embedded Snowflake."""

import platform
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from airflow_provider_mljobs.emulator.containers.images import Image
from airflow_provider_mljobs.emulator.settings import Ready
from airflow_provider_mljobs.gateway.client import MLJobClient
from airflow_provider_mljobs.gateway.doctor.account import Account, Subject
from airflow_provider_mljobs.gateway.doctor.checks import account_checks
from airflow_provider_mljobs.gateway.doctor.probe import (
    CLEAN_UP,
    INDEX,
    NODE,
    PACKAGE_INDEX,
    RUN,
    SUBMIT,
    UPLOAD,
    Probe,
)
from airflow_provider_mljobs.jobs.checkup import State, run
from airflow_provider_mljobs.jobs.names import Identifier, Namespace, StagePath
from tests.budget import budget
from tests.lab import POOL, STAGE, failing, served

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

    def probe(self, *, timeout=None, login=None, index=PACKAGE_INDEX, **changes):
        """Run the probe job, and return the findings of its steps by their names."""
        with self.client(**(login or {})) as client:
            account = Account(client, replace(SUBJECT, **changes))
            with Probe(account, timeout=timeout or budget(), report=lambda _: None, index=index, patience=1) as probe:
                return {finding.check: finding for finding in run(probe.checks())}

    def failing(self, matching, **effect):
        """Make statements fail for a while."""
        return failing(self.server, matching, **effect)

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


@pytest.fixture
def integration(lab):
    """Create an integration."""
    lab.query("CREATE OR REPLACE NETWORK RULE PYPI TYPE = HOST_PORT MODE = EGRESS VALUE_LIST = ('pypi.org')")
    lab.query("CREATE OR REPLACE EXTERNAL ACCESS INTEGRATION PYPI_ACCESS ALLOWED_NETWORK_RULES = (PYPI) ENABLED = TRUE")
    return Identifier("PYPI_ACCESS")


def test_a_refused_login_skips_the_rest(lab):
    """A wrong password is the one thing to change; no other check is shown as missing."""
    findings = lab.findings(login={"password": "wrong"})

    assert ["login"] == [name for name, finding in findings.items() if finding.state is State.MISSING]
    assert "login and password of connection snowflake_default" == findings["login"].setting
    assert {"Not checked without: login."} == {
        finding.detail for name, finding in findings.items() if name not in {"login", "runtime image"}
    }


def test_a_refused_key(lab):
    """A key pair that doesn't fit is the connection's private key to change."""
    with lab.failing("", request="login", errno=390144, message="JWT token is invalid."):
        finding = lab.findings()["login"]

    assert (State.MISSING, "the private key of connection snowflake_default") == (finding.state, finding.setting)


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


def test_a_runtime_with_another_python(lab):
    """If Snowflake has no image for this Python, the finding says that pickled code can't run."""
    own = ".".join(platform.python_version_tuple()[:2])
    other = "3.12" if own == "3.11" else "3.11"
    finding = lab.findings(image=f"2.9.0-py{other.replace('.', '')}")["runtime image"]

    assert State.OK is finding.state
    assert f"with Python {other} instead of this machine's {own}: it can't run code" in finding.detail


@pytest.mark.parametrize(
    ("pool", "statements"),
    [
        (POOL, ["ALTER ACCOUNT SET ALLOWED_SPCS_WORKLOAD_TYPES = 'NOTEBOOK'"]),
        ("SYSTEM_COMPUTE_POOL_CPU", ["ALTER ACCOUNT SET DISALLOWED_SPCS_WORKLOAD_TYPES = 'ML_JOB,NOTEBOOK'"]),
    ],
    ids=["not allowed", "disallowed"],
)
def test_workload_types(lab, pool, statements):
    """An account may refuse the kind of service that a job is; the statements of the finding allow it, and no other."""
    subject = replace(SUBJECT, compute_pool=Identifier(pool))
    try:
        for statement in statements:
            lab.query(statement)
        before, refused = lab.findings(subject)["workload types"], lab.probe(compute_pool=Identifier(pool))[SUBMIT]
        for statement in before.sql:
            lab.query(statement)
        after, accepted = lab.findings(subject)["workload types"], lab.probe(compute_pool=Identifier(pool))[SUBMIT]
        values = [row["value"] for row in lab.query("SHOW PARAMETERS LIKE '%SPCS_WORKLOAD_TYPES' IN ACCOUNT")]
    finally:
        lab.query("ALTER ACCOUNT UNSET ALLOWED_SPCS_WORKLOAD_TYPES")
        lab.query("ALTER ACCOUNT UNSET DISALLOWED_SPCS_WORKLOAD_TYPES")

    assert [State.MISSING, State.MISSING, State.OK, State.OK] == [
        finding.state for finding in (before, refused, after, accepted)
    ]
    assert values in (["NOTEBOOK,USER", ""], ["ALL", "NOTEBOOK"])


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


class TestPrivileges:
    """Privileges of a role that isn't an administrator's."""

    @pytest.fixture
    def role(self, lab):
        """Create a role that may do nothing."""
        lab.query("CREATE OR REPLACE ROLE ML_RUNNER")
        lab.query("GRANT ROLE ML_RUNNER TO USER MLJOBS")
        yield "ML_RUNNER"
        lab.query("DROP ROLE ML_RUNNER")

    def missing(self, findings):
        """Return the statements of what is missing, each once."""
        return list(dict.fromkeys(statement for finding in findings.values() for statement in finding.sql))

    def test_a_role_with_nothing(self, lab, role, integration):
        """Exactly the missing grants are printed, and once they are run nothing is missing, and a job runs."""
        subject = replace(SUBJECT, external_access_integrations=(integration,))
        before = self.missing(lab.findings(subject, login={"role": role}))
        for statement in before:
            lab.query(statement)
        after = lab.findings(subject, login={"role": role})

        assert [
            "GRANT USAGE ON WAREHOUSE MLJOBS_WH TO ROLE ML_RUNNER;",
            "GRANT USAGE ON DATABASE MLJOBS_DB TO ROLE ML_RUNNER;",
            "GRANT USAGE ON SCHEMA MLJOBS_DB.PUBLIC TO ROLE ML_RUNNER;",
            "GRANT CREATE SERVICE ON SCHEMA MLJOBS_DB.PUBLIC TO ROLE ML_RUNNER;",
            f"GRANT USAGE ON COMPUTE POOL {POOL} TO ROLE ML_RUNNER;",
            "GRANT READ, WRITE ON STAGE MLJOBS_DB.PUBLIC.ML_PAYLOADS TO ROLE ML_RUNNER;",
            "GRANT USAGE ON INTEGRATION PYPI_ACCESS TO ROLE ML_RUNNER;",
            "GRANT APPLICATION ROLE SNOWFLAKE.EVENTS_VIEWER TO ROLE ML_RUNNER;",
        ] == before
        assert {} == {name: each.detail for name, each in after.items() if each.state is State.MISSING}
        assert [] == [name for name, step in lab.probe(login={"role": role}).items() if step.state is State.MISSING]

    def test_a_name_that_may_be_wrong(self, lab):
        """An object on which the role has no privilege at all may not exist, and the finding says so."""
        finding = lab.findings(replace(SUBJECT, compute_pool=Identifier("NOPE")))["compute pool"]

        assert State.MISSING is finding.state
        assert (
            "Role ACCOUNTADMIN lacks USAGE on compute pool NOPE. Check the name, too: the role can't see whether "
            "compute pool NOPE exists."
        ) == finding.detail

    @pytest.mark.parametrize(
        ("privilege", "on", "check"),
        [
            ("USAGE", "WAREHOUSE MLJOBS_WH", "warehouse"),
            ("USAGE", "DATABASE MLJOBS_DB", "database and schema"),
            ("CREATE SERVICE", "SCHEMA MLJOBS_DB.PUBLIC", "CREATE SERVICE"),
            ("USAGE", f"COMPUTE POOL {POOL}", "compute pool"),
            ("WRITE", "STAGE MLJOBS_DB.PUBLIC.ML_PAYLOADS", "stage"),
        ],
    )
    def test_each_grant_is_seen(self, lab, role, privilege, on, check):
        """One missing grant is one finding, with the statement that grants it."""
        for statement in self.missing(lab.findings(login={"role": role})):
            lab.query(statement)
        lab.query(f"REVOKE {privilege} ON {on} FROM ROLE {role}")

        findings = lab.findings(login={"role": role})

        assert {check: (f"GRANT {privilege} ON {on} TO ROLE ML_RUNNER;",)} == {
            name: finding.sql for name, finding in findings.items() if finding.state is State.MISSING
        }

    def test_inherited_roles(self, lab, role):
        """Privileges of a role that the connection's role inherits count, also over several steps."""
        lab.query("CREATE OR REPLACE ROLE POOLS")
        lab.query("CREATE OR REPLACE ROLE MACHINES")
        lab.query(f"GRANT USAGE ON COMPUTE POOL {POOL} TO ROLE MACHINES")
        lab.query("GRANT ROLE MACHINES TO ROLE POOLS")
        before = lab.findings(login={"role": role})["compute pool"]
        lab.query(f"GRANT ROLE POOLS TO ROLE {role}")
        after = lab.findings(login={"role": role})

        assert (State.MISSING, State.OK) == (before.state, after["compute pool"].state)
        assert "Role ML_RUNNER inherits PUBLIC, POOLS, MACHINES" in after["role"].detail

    def test_secondary_roles(self, lab, role):
        """A job runs with its owner role alone, so privileges of the session's secondary roles don't count."""
        lab.query("CREATE OR REPLACE USER PERSON PASSWORD = 'a long word' DEFAULT_ROLE = ML_RUNNER")
        lab.query("GRANT ROLE ML_RUNNER TO USER PERSON")
        lab.query("GRANT ROLE ACCOUNTADMIN TO USER PERSON")

        finding = lab.findings(login={"user": "PERSON", "password": "a long word"})["compute pool"]

        assert (State.MISSING, (f"GRANT USAGE ON COMPUTE POOL {POOL} TO ROLE ML_RUNNER;",)) == (
            finding.state,
            finding.sql,
        )

    def test_grants_that_can_not_be_read(self, lab, role):
        """If the grants of an inherited role can't be read, an absent grant proves nothing."""
        with lab.failing("SHOW GRANTS TO ROLE PUBLIC", errno=3001, message="Insufficient privileges"):
            findings = lab.findings(login={"role": role})

        assert State.UNSEEN is findings["role"].state
        assert State.UNSEEN is findings["compute pool"].state
        assert f"If jobs fail: GRANT USAGE ON COMPUTE POOL {POOL} TO ROLE ML_RUNNER;" in findings["compute pool"].detail

    def test_names_in_quotes(self, lab):
        """A role and a stage whose names need quotes get them in the statement, which then mends."""
        lab.query('CREATE OR REPLACE ROLE "ml runner"')
        lab.query('GRANT ROLE "ml runner" TO USER MLJOBS')
        lab.query("""CREATE OR REPLACE STAGE "my stage" ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')""")
        changes = {"stage": StagePath.parse('"my stage"', "stage", NAMESPACE), "login": {"role": '"ml runner"'}}
        before = lab.findings(**changes)
        for statement in self.missing(before):
            lab.query(statement)

        assert ('GRANT READ, WRITE ON STAGE MLJOBS_DB.PUBLIC."my stage" TO ROLE "ml runner";',) == before["stage"].sql
        assert State.OK is lab.findings(**changes)["stage"].state

    def test_a_role_that_the_user_does_not_have(self, lab):
        """A login with a role that isn't granted to the user is mended by the grant."""
        lab.query("CREATE OR REPLACE ROLE STRANGER")
        finding = lab.findings(login={"role": "STRANGER"}, role=Identifier("STRANGER"))["login"]

        assert (State.MISSING, ("GRANT ROLE STRANGER TO USER MLJOBS;",)) == (finding.state, finding.sql)

    def test_a_disabled_integration(self, lab, integration):
        """A disabled integration is enabled by the statement of the finding."""
        with lab.failing("SHOW EXTERNAL ACCESS", effect="rewrite", column="enabled", value="false"):
            finding = lab.findings(external_access_integrations=(integration,))["integration PYPI_ACCESS"]

        assert ("ALTER EXTERNAL ACCESS INTEGRATION PYPI_ACCESS SET ENABLED = TRUE;",) == finding.sql

    def test_an_image_of_ones_own(self, lab, role):
        """An image of one's own needs READ on its repository, and Snowflake's own images don't."""
        lab.query("CREATE IMAGE REPOSITORY IF NOT EXISTS ML_IMAGES")
        own = lab.findings(login={"role": role}, image="/mljobs_db/public/ml_images/train:1")["image repository"]
        vendor = lab.findings(login={"role": role}, image="/snowflake/images/x/y:1")["image repository"]

        assert "GRANT READ ON IMAGE REPOSITORY MLJOBS_DB.PUBLIC.ML_IMAGES TO ROLE ML_RUNNER;" in own.sql
        assert State.UNSEEN is vendor.state

    def test_any_image_repository(self, lab, role):
        """An account needs an image repository of its own; one that the role can't see proves nothing."""
        lab.query("CREATE IMAGE REPOSITORY IF NOT EXISTS ML_IMAGES")
        hidden = lab.findings(login={"role": role})["image repository"]
        visible = lab.findings()["image repository"]

        assert (State.UNSEEN, State.OK) == (hidden.state, visible.state)
        assert "ML_IMAGES" in visible.detail

    def test_a_stage_of_another_schema(self, lab, role):
        """The parents of a stage in another schema need a privilege, too."""
        lab.query("CREATE SCHEMA IF NOT EXISTS MLJOBS_DB.ELSEWHERE")
        lab.query("CREATE STAGE IF NOT EXISTS MLJOBS_DB.ELSEWHERE.S ENCRYPTION = (TYPE = 'SNOWFLAKE_FULL')")
        stage = StagePath.parse("@MLJOBS_DB.ELSEWHERE.S", "stage")

        stranger = lab.findings(stage=stage, login={"role": role})["stage"]
        owner = lab.findings(stage=stage)["stage"]

        assert "GRANT USAGE ON SCHEMA MLJOBS_DB.ELSEWHERE TO ROLE ML_RUNNER;" in stranger.sql
        assert State.UNSEEN is owner.state
        assert "CREATE STAGE MLJOBS_DB.ELSEWHERE.S_SSE ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE');" in owner.detail


class TestProbe:
    """A probe job that takes every step of a task's job."""

    def test_success(self, lab):
        """Each step says how long it took; neither a job nor a file is left."""
        steps = lab.probe()

        assert [] == [step for step in steps.values() if step.state is State.MISSING or step.seconds is None]
        assert "Neither a job nor a file is left." == steps[CLEAN_UP].detail
        assert [] == lab.leftovers

    def test_a_system_pool(self, lab):
        """A pool of Snowflake's runs the probe as a managed job."""
        steps = lab.probe(compute_pool=Identifier("SYSTEM_COMPUTE_POOL_CPU"))

        assert [] == [step.detail for step in steps.values() if step.state is State.MISSING]
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
        refusal = "Insufficient privileges to operate on schema 'PUBLIC'."
        with lab.failing("EXECUTE JOB SERVICE", errno=3001, message=refusal):
            steps = lab.probe()

        assert State.MISSING is steps[SUBMIT].state
        assert refusal in steps[SUBMIT].detail
        assert [] == lab.leftovers

    def test_a_lost_answer(self, lab):
        """A submit whose answer is lost may have taken effect: the job is looked for, ended and dropped."""
        with lab.failing("EXECUTE JOB SERVICE", effect="reset_after", times=10):
            steps = lab.probe()

        assert State.OK is steps[CLEAN_UP].state
        assert [] == lab.leftovers

    @pytest.mark.parametrize("step", [UPLOAD, SUBMIT, NODE, RUN, CLEAN_UP])
    def test_an_outage(self, lab, step):
        """While Snowflake is out of reach a step fails or waits; afterwards nothing is left, or is named."""
        statement = {
            UPLOAD: "^PUT", SUBMIT: "^EXECUTE", NODE: "^DESCRIBE SERVICE", RUN: "^DESCRIBE SERVICE", CLEAN_UP: "^LIST",
        }[step]  # fmt: skip
        with lab.failing(statement, effect="error", errno=390111, nth=2 if step == RUN else 1, times=4):
            steps = lab.probe()

        assert steps[step].state is not State.OK
        for by_hand in steps[CLEAN_UP].sql:
            lab.query(by_hand)
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

    def test_an_image_without_python(self):
        """The finding names the image as the thing to change."""
        plain = "/mljobs_db/public/ml_images/plain:1"
        with served(images={plain: Image(programs=frozenset())}) as server:
            lab = Lab(server)
            lab.query("CREATE IMAGE REPOSITORY MLJOBS_DB.PUBLIC.ML_IMAGES")
            steps, leftovers = lab.probe(image=plain), lab.leftovers

        assert State.MISSING is steps[RUN].state
        assert "This image has no Python" in steps[RUN].detail
        assert (State.OK, []) == (steps[CLEAN_UP].state, leftovers)

    @pytest.fixture
    def index(self):
        """Serve a package index."""
        with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/"
            server.shutdown()

    @pytest.mark.parametrize("answers", [True, False])
    def test_package_index(self, lab, integration, index, answers):
        """With an integration, the job asks a package index; the statements of a finding open the way to PyPI."""
        step = lab.probe(
            index=index if answers else "http://127.0.0.1:9/", external_access_integrations=(integration,)
        )[INDEX]

        assert (State.OK if answers else State.MISSING) is step.state
        assert answers or "SNOWFLAKE.EXTERNAL_ACCESS.PYPI_RULE" in step.sql[0]

    def test_without_a_stage(self, lab):
        """A probe needs a pool and a stage."""
        steps = lab.probe(stage=None)

        assert (State.MISSING, "--compute-pool and --stage") == (steps[UPLOAD].state, steps[UPLOAD].setting)
        assert "The probe did not begin." == steps[CLEAN_UP].detail
