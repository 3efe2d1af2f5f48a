"""Secrets, network rules, external access integrations and image repositories, and their use by jobs."""

import json
import uuid

import pytest

IMAGE = "/snowflake/images/snowflake_images/exampleimage:latest"
RULE = "CREATE NETWORK RULE OUT TYPE = HOST_PORT MODE = EGRESS VALUE_LIST = ('pypi.org:443', 'files.pythonhosted.org')"


@pytest.fixture
def sql(connection):
    """Run a statement in a new schema, which is dropped after the test."""
    from snowflake.connector import DictCursor

    def run(text, *binds):
        return connection.cursor(DictCursor).execute(text, binds or None).fetchall()

    schema = f"O_{uuid.uuid4().hex[:8]}".upper()
    run("CREATE COMPUTE POOL IF NOT EXISTS OBJECTS MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_S")
    run(f"CREATE SCHEMA {schema}")
    run(f"USE SCHEMA {schema}")
    yield run
    run(f"DROP SCHEMA {schema}")


@pytest.fixture
def integration(sql):
    """Create an integration and return its name; the account owns it, so it is dropped after the test."""
    name = f"EAI_{uuid.uuid4().hex[:8]}".upper()
    sql(RULE)
    sql(f"CREATE EXTERNAL ACCESS INTEGRATION {name} ALLOWED_NETWORK_RULES = (OUT) ENABLED = TRUE COMMENT = 'why'")
    yield name
    sql(f"DROP EXTERNAL ACCESS INTEGRATION IF EXISTS {name}")


def failure(sql, text, *binds):
    """Run a statement that fails; return the error."""
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError) as caught:
        sql(text, *binds)
    return caught.value


def run_with(sql, secrets, script="true"):
    """Run a shell script in a container with secrets; return its output."""
    container = {"name": "main", "image": IMAGE, "command": ["sh", "-c", script], "secrets": secrets}
    spec = json.dumps({"spec": {"containers": [container]}})
    sql("EXECUTE JOB SERVICE IN COMPUTE POOL OBJECTS NAME = WITH_SECRETS FROM SPECIFICATION ?", spec)
    (row,) = sql("SELECT SYSTEM$GET_SERVICE_LOGS('WITH_SECRETS', 0, 'main') AS L")
    return row["L"]


SECRETS = {
    "GENERIC_STRING": ("SECRET_STRING = 'it''s $HOME'", {"secret_string": "it's $HOME"}),
    "PASSWORD": ("USERNAME = 'me' PASSWORD = 'p w'", {"username": "me", "password": "p w"}),
    "OAUTH2": (
        "OAUTH_REFRESH_TOKEN = 't0ken' OAUTH_REFRESH_TOKEN_EXPIRY_TIME = '2027-01-01' API_AUTHENTICATION = SOME_API",
        {"access_token": "t0ken"},
    ),
}


@pytest.mark.parametrize("kind", SECRETS)
def test_secret_as_variables(sql, kind):
    """Each key of a secret can be a variable of the container."""
    properties, values = SECRETS[kind]
    sql(f"CREATE SECRET S TYPE = {kind} {properties}")
    entries = [{"snowflakeSecret": "S", "envVarName": f"V_{key}", "secretKeyRef": key} for key in values]
    script = "; ".join(f'echo "$V_{key}"' for key in values)

    assert list(values.values()) == run_with(sql, entries, script).splitlines()


@pytest.mark.parametrize("kind", SECRETS)
def test_secret_as_files(sql, kind):
    """A directory has one file for each key, without a line break at its end."""
    properties, values = SECRETS[kind]
    sql(f"CREATE SECRET S TYPE = {kind} {properties}")
    entries = [{"snowflakeSecret": {"objectName": "S"}, "directoryPath": "/mnt/secret"}]
    script = "cd /mnt/secret; for name in *; do printf '%s=%s|' $name \"$(cat $name)\"; done; cat * | wc -c"
    output, _, size = run_with(sql, entries, script).rpartition("|")

    assert values == dict(entry.split("=", 1) for entry in output.split("|"))
    assert sum(map(len, values.values())) == int(size)


def test_secret_of_another_schema(sql):
    """A job gets secrets by their full names, too; names without schema are of the job's."""
    (names,) = sql("SELECT CURRENT_DATABASE() AS D, CURRENT_SCHEMA() AS S")
    sql("CREATE SECRET S TYPE = GENERIC_STRING SECRET_STRING = 'abc'")
    entry = {"envVarName": "V", "secretKeyRef": "secret_string"}

    assert "abc\n" == run_with(sql, [{"snowflakeSecret": f"{names['D']}.{names['S']}.s", **entry}], "echo $V")


def test_missing_secret(sql):
    """A missing secret fails the statement, not the job; the error is the same as for a secret of another role."""
    entry = {"snowflakeSecret": "NONE", "envVarName": "V", "secretKeyRef": "secret_string"}
    container = {"name": "main", "image": IMAGE, "command": ["true"], "secrets": [entry]}
    spec = json.dumps({"spec": {"containers": [container]}})
    error = failure(sql, "EXECUTE JOB SERVICE IN COMPUTE POOL OBJECTS NAME = J FROM SPECIFICATION ?", spec)

    assert (2003, "02000") == (error.errno, error.sqlstate)
    assert ".NONE' does not exist or not authorized" in error.msg
    assert [] == sql("SHOW SERVICES")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"envVarName": "V", "secretKeyRef": "secret_string"}, "invalid value secret_string for 'secretKeyRef'"),
        ({"envVarName": "V"}, "missing required option 'secretKeyRef'"),
        ({"directoryPath": "/s", "secretKeyRef": "password"}, "'secretKeyRef' may only be given with 'envVarName'"),
        ({"envVarName": "V", "secretKeyRef": "key"}, "invalid value key for 'containers[0].secrets[0].secretKeyRef'"),
        ({"envVarName": "V", "directoryPath": "/s"}, "exactly one of 'directoryPath' and 'envVarName'"),
        ({}, "exactly one of 'directoryPath' and 'envVarName'"),
    ],
)
def test_wrong_use_of_a_secret(sql, entry, reason):
    """A key that the type of the secret lacks, or an unknown form, makes the specification invalid."""
    sql("CREATE SECRET S TYPE = PASSWORD USERNAME = 'u' PASSWORD = 'p'")
    container = {"name": "main", "image": IMAGE, "command": ["true"], "secrets": [{"snowflakeSecret": "S", **entry}]}
    spec = json.dumps({"spec": {"containers": [container]}})
    error = failure(sql, "EXECUTE JOB SERVICE IN COMPUTE POOL OBJECTS NAME = J FROM SPECIFICATION ?", spec)

    assert 395018 == error.errno
    assert reason in error.msg


@pytest.mark.parametrize(
    ("statement", "errno"),
    [
        ("CREATE SECRET S TYPE = SYMMETRIC_KEY", 2),
        ("CREATE SECRET S TYPE = PASSWORD USERNAME = 'u'", 2),
        ("CREATE SECRET S SECRET_STRING = 'x'", 2029),
        ("CREATE SECRET S TYPE = GENERIC_STRING SECRET_STRING = 'x' COLOUR = 1", 1420),
        ("CREATE SECRET NO_SCHEMA.S TYPE = GENERIC_STRING SECRET_STRING = 'x'", 2003),
        ("DROP SECRET S", 2003),
        ("CREATE NETWORK RULE R TYPE = HOST_PORT MODE = INGRESS VALUE_LIST = ('a:1')", 1008),
        ("CREATE NETWORK RULE R TYPE = COLOUR MODE = EGRESS VALUE_LIST = ('a:1')", 1008),
        ("CREATE NETWORK RULE R TYPE = HOST_PORT MODE = EGRESS", 2029),
        ("CREATE NETWORK RULE R TYPE = HOST_PORT MODE = EGRESS VALUE_LIST = 'a:1'", 1008),
        ("CREATE NETWORK RULE IF NOT EXISTS R TYPE = HOST_PORT MODE = EGRESS VALUE_LIST = ('a:1')", 1003),
        ("CREATE EXTERNAL ACCESS INTEGRATION I ALLOWED_NETWORK_RULES = (NONE) ENABLED = TRUE", 2003),
        ("CREATE EXTERNAL ACCESS INTEGRATION I ALLOWED_NETWORK_RULES = (INWARD) ENABLED = TRUE", 1008),
        ("CREATE EXTERNAL ACCESS INTEGRATION I ALLOWED_NETWORK_RULES = (INWARD)", 2029),
        ("CREATE EXTERNAL ACCESS INTEGRATION PUBLIC.I ALLOWED_NETWORK_RULES = (INWARD) ENABLED = TRUE", 1003),
        ("DROP EXTERNAL ACCESS INTEGRATION NO_INTEGRATION", 2003),
    ],
)
def test_refusals(sql, statement, errno):
    """Objects that can't be created or don't exist are errors."""
    sql("CREATE NETWORK RULE INWARD TYPE = IPV4 MODE = INGRESS VALUE_LIST = ('1.2.3.4')")

    assert errno == failure(sql, statement).errno


def test_network_rules(sql):
    """Network rules are listed with their kind, and dropped with their schema."""
    (created,) = sql(RULE)
    (row,) = sql("SHOW NETWORK RULES LIKE 'out'")

    assert {"status": "Network rule OUT successfully created."} == created
    assert ("OUT", "HOST_PORT", "EGRESS", 2) == (row["name"], row["type"], row["mode"], row["entries_in_valuelist"])


def test_integrations(sql, integration):
    """Integrations belong to the account: every schema sees them."""
    (row,) = sql(f"SHOW EXTERNAL ACCESS INTEGRATIONS LIKE '{integration}'")
    sql("USE SCHEMA PUBLIC")

    assert (integration, "EXTERNAL_ACCESS", "true", "why") == (
        row["name"],
        row["type"],
        row["enabled"],
        row["comment"],
    )
    assert (
        2002
        == failure(
            sql, f"CREATE EXTERNAL ACCESS INTEGRATION {integration} ALLOWED_NETWORK_RULES = () ENABLED = TRUE"
        ).errno
    )
    assert [{"status": f"{integration} successfully dropped."}] == sql(
        f"DROP EXTERNAL ACCESS INTEGRATION {integration}"
    )


def test_rule_of_another_schema(sql):
    """An integration may name rules of any schema."""
    (names,) = sql("SELECT CURRENT_DATABASE() AS D, CURRENT_SCHEMA() AS S")
    sql(RULE)
    sql("USE SCHEMA PUBLIC")
    sql(
        "CREATE OR REPLACE EXTERNAL ACCESS INTEGRATION ELSEWHERE "
        f"ALLOWED_NETWORK_RULES = ({names['D']}.{names['S']}.out) ALLOWED_AUTHENTICATION_SECRETS = all ENABLED = true"
    )

    assert [{"status": "ELSEWHERE successfully dropped."}] == sql("DROP EXTERNAL ACCESS INTEGRATION ELSEWHERE")


def test_jobs_name_integrations_that_are_there(sql, integration):
    """A job with an integration runs; once it is dropped the next one is refused."""
    text = (
        "EXECUTE JOB SERVICE IN COMPUTE POOL OBJECTS NAME = {} EXTERNAL_ACCESS_INTEGRATIONS = ({}) FROM SPECIFICATION ?"
    )
    spec = json.dumps({"spec": {"containers": [{"name": "main", "image": IMAGE, "command": ["true"]}]}})
    sql(text.format("FIRST", integration.lower()), spec)
    sql(f"DROP EXTERNAL ACCESS INTEGRATION {integration}")
    error = failure(sql, text.format("SECOND", integration), spec)

    assert (2003, "02000") == (error.errno, error.sqlstate)
    assert f"Integration '{integration}' does not exist or not authorized" in error.msg
    assert ["FIRST"] == [row["name"] for row in sql("SHOW SERVICES")]


def test_restart(start, connect, tmp_path):
    """Secrets, rules, integrations and repositories survive a restart."""
    from snowflake.connector import DictCursor

    server = start(root=tmp_path)
    for statement in (
        RULE,
        "CREATE EXTERNAL ACCESS INTEGRATION KEPT ALLOWED_NETWORK_RULES = (OUT) ENABLED = TRUE",
        "CREATE SECRET KEPT TYPE = GENERIC_STRING SECRET_STRING = 'x'",
        "CREATE IMAGE REPOSITORY KEPT ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')",
    ):
        connect(server).cursor().execute(statement)
    server.stop()
    cursor = connect(start(root=tmp_path)).cursor(DictCursor)
    kinds = ("NETWORK RULES", "EXTERNAL ACCESS INTEGRATIONS", "SECRETS", "IMAGE REPOSITORIES")

    assert ["OUT", "KEPT", "KEPT", "KEPT"] == [
        row["name"] for kind in kinds for row in cursor.execute(f"SHOW {kind}").fetchall()
    ]


def test_images_of_a_repository(sql):
    """A repository holds no images; one that doesn't exist is an error."""
    sql("CREATE IMAGE REPOSITORY IMAGES")

    assert [] == sql("SHOW IMAGES IN IMAGE REPOSITORY IMAGES")
    assert [] == sql("SHOW IMAGES LIKE '%x%' IN IMAGE REPOSITORY images")
    assert 2003 == failure(sql, "SHOW IMAGES IN IMAGE REPOSITORY NONE").errno


def test_repository_of_snowflake(sql):
    """Snowflake's own repository shows the host of the registry."""
    (row,) = sql("SHOW IMAGE REPOSITORIES IN SCHEMA snowflake.images LIMIT 1")

    assert ("SNOWFLAKE_IMAGES", "/snowflake/images/snowflake_images") == (
        row["name"], row["repository_url"][row["repository_url"].index("/") :],
    )  # fmt: skip


def test_roles_of_a_service(sql):
    """A service has the role for all endpoints, and those of its specification."""
    endpoint = {"name": "web", "port": 8000}
    container = {"name": "main", "image": IMAGE, "command": ["true"]}
    spec = {
        "spec": {"containers": [container], "endpoints": [endpoint]},
        "serviceRoles": [{"name": "reader", "endpoints": ["web"]}],
    }
    sql("EXECUTE JOB SERVICE IN COMPUTE POOL OBJECTS NAME = ROLES FROM SPECIFICATION ?", json.dumps(spec))

    assert ["ALL_ENDPOINTS_USAGE", "READER"] == [row["name"] for row in sql("SHOW ROLES IN SERVICE ROLES")]
