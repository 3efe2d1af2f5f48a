"""docs/account-setup.sql on an embedded Snowflake, and tasks with the role that it makes and nothing else."""

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest

from airflow_provider_mljobs.emulator.containers.instance import can_isolate
from airflow_provider_mljobs.exceptions import JobNotFoundError, LoginRefusedError, NotFoundOrNotAuthorizedError
from airflow_provider_mljobs.gateway import inspection
from airflow_provider_mljobs.hooks import MLJobHook
from airflow_provider_mljobs.jobs.checkup import State
from airflow_provider_mljobs.jobs.names import QualifiedName
from airflow_provider_mljobs.operators import MLJobOperator
from tests.lab import POOL, STAGE, Airflow, submit

SCRIPT = (Path(__file__).parents[1] / "docs" / "account-setup.sql").read_text()
# The statements that some jobs need stand behind two dashes without a space.
OPTIONAL = "\n".join(line[2:] for line in SCRIPT.splitlines() if re.match(r"--\w", line))
RUNNER = "TO ROLE ML_RUNNER"
SECRET = "CREATE SECRET ML.PUBLIC.API_KEY TYPE = GENERIC_STRING SECRET_STRING = 'x'"
IMAGE = "/ml/public/ml_images/own:1"


class Account:
    """An account after the script; its administrator and its logins.

    :param server: the embedded Snowflake.
    :param key: the file with the private key of the user AIRFLOW.
    """

    def __init__(self, server, key):
        self.server = server
        self.key = key

    def admin(self, *scripts):
        """Run statements as ACCOUNTADMIN."""
        from snowflake import connector

        with connector.connect(**self.server.connection_kwargs) as connection:
            for script in scripts:
                connection.execute_string(script, remove_comments=True)

    def set_up(self):
        """Run the script, with the public key of AIRFLOW."""
        self.admin(SCRIPT.replace("<public key>", self.key.with_suffix(".pub").read_text()))

    def connection(self, **extra):
        """Return the Airflow connection of the user AIRFLOW, as JSON."""
        kwargs = self.server.connection_kwargs
        place = {name: kwargs[name] for name in ("account", "host", "port", "protocol")}
        own = {"database": "ML", "warehouse": "ML_WH", "role": "ML_RUNNER", "private_key_file": str(self.key)}
        return json.dumps({
            "conn_type": "snowflake", "login": "AIRFLOW", "schema": "PUBLIC", "extra": place | own | extra,
        })  # fmt: skip


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """Serve an account that has nothing, and run the script there."""
    from airflow_provider_mljobs.emulator import serve
    from airflow_provider_mljobs.emulator.settings import VirtualJob

    key = tmp_path_factory.mktemp("keys") / "airflow.p8"
    key.with_suffix(".pub").write_text(_new_key(key))
    with serve(database="ML", warehouse="ML_WH", virtual_jobs=(VirtualJob(name="GRANT_%", seconds=60),)) as server:
        account = Account(server, key)
        account.set_up()
        account.admin(SECRET, OPTIONAL)
        yield account


def _new_key(file):
    """Write a private key into a file; returns the public key as RSA_PUBLIC_KEY takes it."""
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return "".join(public.decode().splitlines()[1:-1])


@pytest.fixture
def runner(account, monkeypatch, request):
    """Point ``snowflake_default`` to the user AIRFLOW; afterwards run the script again, which restores the grants."""
    for name, value in account.server.environment.items():
        monkeypatch.setenv(name, value)
    # Tasks with equal connections share a session and what it knows of pools.
    monkeypatch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", account.connection(test=request.node.name))
    monkeypatch.setenv("AIRFLOW__MLJOBS__DEPLOYMENT", "account-setup")
    yield account
    account.set_up()


def nothing():
    """Return nothing."""
    return None  # noqa: RET501 (a body)


def printed_grants(account, attempt):
    """Try again after each refusal, with the grant that its error names; return these grants."""
    grants = []
    while True:
        try:
            attempt()
        except NotFoundOrNotAuthorizedError as error:
            (grant,) = re.findall(r"GRANT .*? TO ROLE ML_RUNNER", str(error))
            assert grant not in grants
            grants.append(grant)
            account.admin(grant)
        else:
            return grants


def test_the_readme_grants_what_the_script_grants():
    """The grants in the README are the script's."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    grants = set(re.findall(r"^ *(GRANT .*?;)", readme, re.MULTILINE))

    assert len(grants) >= 6
    assert grants <= {line.removeprefix("--") for line in SCRIPT.splitlines()}


def test_a_task_needs_no_more_than_the_script_grants(runner):
    """A task with this role submits, streams its log, measures, returns its result and leaves nothing behind."""
    airflow = Airflow(runner.server)

    def work():
        print("working")
        return {"answer": 42}

    run = airflow.run_task(lambda: MLJobOperator(task_id="job", compute_pool=POOL, stage_name=STAGE, source=work))
    with MLJobHook() as hook:
        collection = hook.collect(
            timedelta(0), stages=[STAGE], task_states=lambda tasks: dict.fromkeys(tasks, "success")
        )

    assert (run.errors, run.state) == ({}, "success")
    assert run.xcom("job") == {"answer": 42}
    assert (airflow.jobs, airflow.files) == ([], [])
    assert collection.errors == ()


def privileges(grants):
    """Return each privilege of GRANT statements with its object."""
    matches = (re.fullmatch(r"GRANT (.*?) ON (.*?) TO ROLE ML_RUNNER;?", grant) for grant in grants)
    return {(privilege, match[2]) for match in matches if match for privilege in match[1].split(", ")}


def test_the_doctor_needs_no_more_than_the_script_grants(runner):
    """After the script the doctor misses nothing in the account; without its grants, it asks for these only."""
    needs = {"compute_pool": POOL, "stage_name": STAGE}
    of_airflow = {"versions", "triggerer", "deployment"}
    with MLJobHook() as hook:
        healthy = hook.doctor(**needs, run=True)
    granted = [line.removeprefix("--") for line in SCRIPT.splitlines() if line.endswith(f"{RUNNER};")]
    runner.admin(*(line.replace("GRANT", "REVOKE", 1).replace("TO ROLE", "FROM ROLE") for line in granted))
    with MLJobHook() as hook:
        stripped = hook.doctor(**needs, external_access_integrations=["PYPI_ACCESS"], image=IMAGE)
    runner.admin(OPTIONAL.replace("CREATE ", "CREATE OR REPLACE ", 2))
    asked = [statement for finding in stripped for statement in finding.sql]

    assert [] == [
        finding.detail for finding in healthy if finding.state is State.MISSING and finding.check not in of_airflow
    ]
    assert len(asked) >= 8
    assert privileges(asked) <= privileges(granted)
    assert {each for each in asked if "APPLICATION ROLE" in each} <= set(granted)


def test_a_job_has_the_rights_of_its_role(runner):
    """The session of a job reads a table only if the role that submitted the job may."""
    runner.admin("CREATE OR REPLACE TABLE ML.PUBLIC.NUMBERS (N INT)", "INSERT INTO ML.PUBLIC.NUMBERS VALUES (7)")

    def read(session):
        return session.table("ML.PUBLIC.NUMBERS").collect()[0][0]

    def run():
        return Airflow(runner.server).run_task(
            lambda: MLJobOperator(
                task_id="job", compute_pool=POOL, stage_name=STAGE, query_warehouse="ML_WH", source=read
            )
        )

    refused = run()
    runner.admin("GRANT SELECT ON TABLE ML.PUBLIC.NUMBERS TO ROLE ML_RUNNER")

    assert "does not exist or not authorized" in str(refused.errors["job"])
    assert run().xcom("job") == 7


@pytest.mark.skipif(not can_isolate(), reason="only namespaces can mount a directory read-only")
def test_a_stage_without_write_is_mounted_read_only(runner):
    """A job reads a stage on which its role has READ; without WRITE it can't change a file there."""
    runner.admin("CREATE OR REPLACE STAGE ML.PUBLIC.DATA", "GRANT READ ON STAGE ML.PUBLIC.DATA TO ROLE ML_RUNNER")

    def write():
        from pathlib import Path

        try:
            Path("/data/file").touch()
        except OSError as error:
            return error.strerror

    run = Airflow(runner.server).run_task(
        lambda: MLJobOperator(
            task_id="job", compute_pool=POOL, stage_name=STAGE, volumes={"/data": "@ML.PUBLIC.DATA"}, source=write
        )
    )

    assert run.xcom("job") == "Read-only file system"


def test_the_role_looks_at_its_own_job(runner):
    """List, description, log, metrics, cancel and drop of a job need no more than the script grants."""
    from airflow_provider_mljobs.gateway.usage import read_usage

    job = QualifiedName.parse(submit("GRANT_LOOK", nothing, wait_for="RUNNING"), "job")
    with MLJobHook() as hook:
        listed = [row["name"] for row in hook.client.list(hook.schema_of(), "GRANT_LOOK")]
        described = hook.describe(job)
        layout = inspection.layout(hook.client, job)
        read_usage(hook.client, job, None)
        hook.cancel(job)
        hook.drop(job)

    assert listed == ["GRANT_LOOK"]
    assert (described["owner"], layout.is_specified) == ("ML_RUNNER", True)


@pytest.mark.parametrize(
    ("revoked", "grants"),
    [
        ("USAGE ON DATABASE ML", [f"GRANT USAGE ON DATABASE ML {RUNNER}"]),
        (
            "ALL ON SCHEMA ML.PUBLIC",
            [f"GRANT USAGE ON SCHEMA ML.PUBLIC {RUNNER}", f"GRANT CREATE SERVICE ON SCHEMA ML.PUBLIC {RUNNER}"],
        ),
        ("CREATE SERVICE ON SCHEMA ML.PUBLIC", [f"GRANT CREATE SERVICE ON SCHEMA ML.PUBLIC {RUNNER}"]),
        ("READ, WRITE ON STAGE ML.PUBLIC.ML_PAYLOADS", [f"GRANT READ, WRITE ON STAGE ML.PUBLIC.ML_PAYLOADS {RUNNER}"]),
        ("WRITE ON STAGE ML.PUBLIC.ML_PAYLOADS", [f"GRANT READ, WRITE ON STAGE ML.PUBLIC.ML_PAYLOADS {RUNNER}"]),
        ("ALL ON COMPUTE POOL ML_POOL", [f"GRANT USAGE, MONITOR ON COMPUTE POOL ML_POOL {RUNNER}"]),
        ("USAGE ON COMPUTE POOL ML_POOL", [f"GRANT USAGE ON COMPUTE POOL ML_POOL {RUNNER}"]),
        # By Snowflake's documentation, USAGE shows the pool.
        ("MONITOR ON COMPUTE POOL ML_POOL", []),
        ("USAGE ON WAREHOUSE ML_WH", [f"GRANT USAGE ON WAREHOUSE ML_WH {RUNNER}"]),
        ("USAGE ON INTEGRATION PYPI_ACCESS", [f"GRANT USAGE ON INTEGRATION PYPI_ACCESS {RUNNER}"]),
        ("READ ON SECRET ML.PUBLIC.API_KEY", [f"GRANT READ ON SECRET ML.PUBLIC.API_KEY {RUNNER}"]),
        (
            "READ ON IMAGE REPOSITORY ML.PUBLIC.ML_IMAGES",
            [f"GRANT READ ON IMAGE REPOSITORY ML.PUBLIC.ML_IMAGES {RUNNER}"],
        ),
        ("BIND SERVICE ENDPOINT ON ACCOUNT", [f"GRANT BIND SERVICE ENDPOINT ON ACCOUNT {RUNNER}"]),
    ],
)
def test_an_error_names_the_grant_that_was_taken_away(runner, revoked, grants):
    """Without a grant of the script, the submit fails with exactly this grant, and succeeds once it is run."""
    from airflow_provider_mljobs.jobs.names import Identifier
    from airflow_provider_mljobs.jobs.spec.secrets import parse_secrets

    fields = {
        "external_access_integrations": (Identifier("PYPI_ACCESS"),),
        "query_warehouse": Identifier("ML_WH"),
        "runtime_environment": IMAGE,
        "endpoints": ({"name": "web", "port": 8080, "public": True},),
        "secrets": parse_secrets({"API_KEY": "ML.PUBLIC.API_KEY"}),
    }
    runner.admin(f"REVOKE {revoked} FROM ROLE ML_RUNNER", "REMOVE @ML.PUBLIC.ML_PAYLOADS")

    assert grants == printed_grants(runner, lambda: submit("GRANT_TRY", nothing, **fields))
    runner.admin("DROP SERVICE ML.PUBLIC.GRANT_TRY")


def test_a_role_that_is_not_granted_to_the_user(runner):
    """A login with a role that the user doesn't have is refused for good, with the role's name."""
    runner.admin("REVOKE ROLE ML_RUNNER FROM USER AIRFLOW")

    with pytest.raises(LoginRefusedError, match="Role 'ML_RUNNER' specified in the connect string is not granted"):
        submit("GRANT_LOGIN", nothing)


def test_another_role_needs_monitor(runner, monkeypatch):
    """Another role sees a job with MONITOR, which the error names; only the owner drops it, and the error says so."""
    job = QualifiedName.parse(submit("GRANT_OTHER", nothing, wait_for="RUNNING"), "job")
    runner.admin("CREATE ROLE OTHER", "GRANT ROLE OTHER TO USER MLJOBS", "GRANT USAGE ON DATABASE ML TO ROLE OTHER")
    runner.admin("GRANT USAGE ON SCHEMA ML.PUBLIC TO ROLE OTHER")
    login = json.loads(runner.server.environment["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"])
    login["extra"]["role"] = "OTHER"
    monkeypatch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", json.dumps(login))
    with MLJobHook() as hook:
        with pytest.raises(JobNotFoundError, match=f"GRANT MONITOR ON SERVICE {job} TO ROLE OTHER"):
            hook.status(job)
        runner.admin(f"GRANT MONITOR ON SERVICE {job} TO ROLE OTHER")
        status, layout = hook.status(job), inspection.layout(hook.client, job)
        sighting = hook.client.cancel(job)
        with pytest.raises(NotFoundOrNotAuthorizedError, match="role ML_RUNNER owns it"):
            hook.drop(job)
    runner.admin(f"DROP SERVICE {job}")

    assert (status, layout.containers, layout.is_specified) == ("RUNNING", ((0, "main"),), False)
    assert f"GRANT OPERATE ON SERVICE {job} TO ROLE OTHER" in sighting.why
