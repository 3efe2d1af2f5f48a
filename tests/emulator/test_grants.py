"""Roles and grants, through the connector."""

import pytest

POOL = "CREATE COMPUTE POOL GRANTED MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS"
EXECUTE = """
    EXECUTE JOB SERVICE IN COMPUTE POOL granted NAME = {} ASYNC = TRUE FROM SPECIFICATION $$
    spec: {{containers: [{{name: main, image: /snowflake/images/snowflake_images/exampleimage:latest}}]}}
    $$
"""


@pytest.fixture(scope="module")
def server():
    """Serve a Snowflake with a pool, a stage, a table, and a role ANALYST that the user may use."""
    from snowflake import connector

    from airflow_provider_mljobs.emulator import serve

    setup = f"{POOL}; CREATE STAGE s; CREATE TABLE t (a INT); CREATE VIEW v AS SELECT a FROM t; CREATE ROLE analyst;"
    setup += "CREATE WAREHOUSE granted;"
    with serve(virtual_jobs=(_virtual(),)) as server:
        with connector.connect(**server.connection_kwargs) as connection:
            connection.execute_string(f"{setup} GRANT ROLE analyst TO USER mljobs;")
        yield server


def _virtual():
    from airflow_provider_mljobs.emulator.settings import VirtualJob

    return VirtualJob(name="%", seconds=60)


@pytest.fixture
def admin(server, connect):
    """Return a function that runs statements as ACCOUNTADMIN and returns the rows of the last one."""
    return _runner(connect(server))


@pytest.fixture
def analyst(server, connect, admin):
    """Return a function that runs statements as ANALYST, which has only USAGE on database, schema and a warehouse."""
    admin("CREATE OR REPLACE ROLE analyst", "GRANT ROLE analyst TO USER mljobs")
    admin("GRANT USAGE ON WAREHOUSE mljobs_wh TO ROLE analyst")
    admin("GRANT USAGE ON DATABASE mljobs_db TO ROLE analyst", "GRANT USAGE ON SCHEMA public TO ROLE analyst")
    return _runner(connect(server, role="analyst"))


def _runner(connection):
    def run(*statements):
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    return run


def refused(run, statement):
    """Return the number and the text of a statement's error."""
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError) as caught:
        run(statement)
    return caught.value.errno, caught.value.raw_msg.rpartition("\n")[2]


def public_key(private):
    """Return the public key of a private one as RSA_PUBLIC_KEY takes it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return "".join(pem.splitlines()[1:-1])


def names(rows):
    """Return the names of listed objects."""
    return [row["name"] for row in rows]


@pytest.mark.parametrize(
    ("statement", "grant"),
    [
        ("SELECT * FROM t", "SELECT ON TABLE t"),
        ("SELECT * FROM v", "SELECT ON VIEW v"),
        ("INSERT INTO t VALUES (1)", "INSERT ON TABLE t"),
        ("UPDATE t SET a = 2 WHERE FALSE", "UPDATE ON TABLE t"),
        ("DELETE FROM t WHERE FALSE", "DELETE ON TABLE t"),
        ("TRUNCATE TABLE t", "TRUNCATE ON TABLE t"),
        ("DESCRIBE TABLE t", "REFERENCES ON TABLE t"),
        ("CREATE OR REPLACE TABLE granted_table (a INT)", "CREATE TABLE ON SCHEMA public"),
        ("CREATE STAGE IF NOT EXISTS granted_stage", "CREATE STAGE ON SCHEMA public"),
        ("LIST @s", "READ ON STAGE s"),
        ("REMOVE @s", "READ, WRITE ON STAGE s"),
        ("DESCRIBE STAGE s", "READ ON STAGE s"),
        ("DESCRIBE COMPUTE POOL granted", "MONITOR ON COMPUTE POOL granted"),
        ("ALTER COMPUTE POOL granted RESUME", "OPERATE ON COMPUTE POOL granted"),
        ("ALTER COMPUTE POOL granted SET MAX_NODES = 1", "MODIFY ON COMPUTE POOL granted"),
        ("CALL SYSTEM$GET_ML_JOB_RUNTIME('GRANTED')", "USAGE ON COMPUTE POOL granted"),
        ("CREATE DATABASE IF NOT EXISTS granted_db", "CREATE DATABASE ON ACCOUNT"),
        ("CREATE SCHEMA IF NOT EXISTS granted_schema", "CREATE SCHEMA ON DATABASE mljobs_db"),
        ("USE WAREHOUSE granted", "USAGE ON WAREHOUSE granted"),
        ("CREATE ROLE IF NOT EXISTS granted_role", "CREATE ROLE ON ACCOUNT"),
    ],
)
def test_a_statement_needs_its_documented_privilege(admin, analyst, statement, grant):
    """A role without the privilege is refused with 2003, 2043 or 3001, and allowed once it has the privilege."""
    number, _ = refused(analyst, statement)
    admin(f"GRANT {grant} TO ROLE analyst")
    analyst(statement)

    assert number in {2003, 2043, 3001}


@pytest.mark.parametrize("statement", ["DROP TABLE {}", "DROP STAGE {}", "DROP COMPUTE POOL {}"])
def test_only_the_owner_drops(admin, analyst, statement):
    """DROP IF EXISTS of an object that the role doesn't see succeeds without dropping it; a visible one is refused."""
    kind = statement.split(" ", 1)[1].removesuffix(" {}")
    name = {"TABLE": "t", "STAGE": "s"}.get(kind, "granted")
    hidden = analyst(f"DROP {kind} IF EXISTS {name}")
    admin(f"GRANT ALL ON {kind} {name} TO ROLE analyst")

    assert hidden == [{"status": f"Drop statement executed successfully ({name.upper()} already dropped)."}]
    assert refused(analyst, statement.format(name))[0] == 3001
    assert admin(f"SHOW GRANTS ON {kind} {name}")


def test_show_lists_what_the_role_may_see(admin, analyst):
    """SHOW lists the objects on which the role has at least one privilege."""
    before = [
        names(analyst(f"SHOW {kind} LIKE '{name}'"))
        for kind, name in (("TABLES", "T"), ("STAGES", "S"), ("COMPUTE POOLS", "GRANTED"), ("WAREHOUSES", "%"))
    ]
    for grant in ("SELECT ON TABLE t", "READ ON STAGE s", "MONITOR ON COMPUTE POOL granted"):
        admin(f"GRANT {grant} TO ROLE analyst")

    assert before == [[], [], [], ["MLJOBS_WH"]]
    assert names(analyst("SHOW TABLES LIKE 'T'")) == ["T"]
    assert names(analyst("SHOW STAGES LIKE 'S'")) == ["S"]
    assert names(analyst("SHOW COMPUTE POOLS LIKE 'GRANTED'")) == ["GRANTED"]
    assert names(analyst("SHOW DATABASES")) == ["MLJOBS_DB"]


def test_a_table_keeps_its_owner(admin, analyst):
    """The role that creates a table owns it, also when it is replaced or renamed; its grants go with it."""
    admin("GRANT CREATE TABLE ON SCHEMA public TO ROLE analyst")
    analyst("CREATE TABLE own (a INT)", "GRANT SELECT ON TABLE own TO ROLE public", "ALTER TABLE own RENAME TO own2")
    renamed = [(row["privilege"], row["grantee_name"]) for row in analyst("SHOW GRANTS ON TABLE own2")]
    analyst("CREATE OR REPLACE TABLE own2 (b INT)")
    replaced = [(row["privilege"], row["grantee_name"]) for row in analyst("SHOW GRANTS ON TABLE own2")]
    administrator = refused(admin, "SELECT * FROM own2")
    analyst("DROP TABLE own2")

    assert renamed == [("OWNERSHIP", "ANALYST"), ("SELECT", "PUBLIC")]
    assert replaced == [("OWNERSHIP", "ANALYST")]
    assert administrator == (3001, "Insufficient privileges to operate on table 'OWN2'.")


@pytest.mark.parametrize(
    "statement",
    [
        "MERGE INTO t USING (SELECT 1 AS b) ON a = b WHEN MATCHED THEN DELETE",
        "INSERT OVERWRITE INTO t VALUES (1)",
        "CREATE OR REPLACE TABLE t (b INT)",
        "ALTER TABLE t ADD COLUMN b INT",
        "CREATE TABLE copy_of_t AS SELECT * FROM t",
        "CREATE VIEW view_of_t AS SELECT * FROM t",
        "SELECT (SELECT MAX(a) FROM t)",
        "COPY INTO @~ FROM t",
        "COPY INTO t FROM @~",
    ],
)
def test_no_statement_gets_around_the_rights_on_a_table(admin, analyst, statement):
    """A table is protected in each place of a statement; a name of the statement's own is no table."""
    admin("GRANT CREATE TABLE, CREATE VIEW ON SCHEMA public TO ROLE analyst")

    assert refused(analyst, statement)[0] in {2003, 3001}
    assert analyst("WITH t AS (SELECT 5 AS a) SELECT * FROM t") == [{"A": 5}]


def test_job_rights(admin, analyst):
    """A job belongs to the role that starts it; another role sees it with MONITOR, and its specification never."""
    execute = EXECUTE.format("owned_job")
    for grant in ("CREATE SERVICE ON SCHEMA public", "USAGE ON COMPUTE POOL granted"):
        assert refused(analyst, execute)[0] in {2003, 3001}
        admin(f"GRANT {grant} TO ROLE analyst")
    analyst(execute)
    admin("CREATE OR REPLACE ROLE watcher", "GRANT ROLE watcher TO USER mljobs")
    admin("GRANT USAGE ON DATABASE mljobs_db TO ROLE watcher", "GRANT USAGE ON SCHEMA public TO ROLE watcher")
    history = "SELECT NAME FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY())"
    own = analyst(history)
    analyst("USE ROLE watcher")
    unseen = (analyst("SHOW JOB SERVICES"), refused(analyst, "DESCRIBE SERVICE owned_job")[0], analyst(history))
    admin("GRANT MONITOR ON ALL SERVICES IN SCHEMA public TO ROLE watcher")
    (described,) = analyst("DESCRIBE SERVICE owned_job")

    assert (own, unseen) == ([{"NAME": "OWNED_JOB"}], ([], 2003, []))
    assert (described["owner"], "spec" in described) == ("ANALYST", False)
    assert refused(analyst, "CALL owned_job!SPCS_CANCEL_JOB()")[0] == 3001
    assert refused(analyst, "DROP SERVICE IF EXISTS owned_job")[0] == 3001
    analyst("USE ROLE analyst", "DROP SERVICE owned_job")


def test_grants_on_future_services(admin, analyst):
    """MONITOR on future services of a schema, for the role of a page or of a clean-up."""
    admin("GRANT MONITOR ON FUTURE SERVICES IN SCHEMA public TO ROLE analyst")
    (future,) = analyst("SHOW FUTURE GRANTS TO ROLE analyst")
    admin(EXECUTE.format("future_job"))
    listed = names(analyst("SHOW JOB SERVICES"))
    admin("DROP SERVICE future_job")

    assert (future["privilege"], future["grant_on"], future["name"]) == (
        "MONITOR", "SERVICE", "MLJOBS_DB.PUBLIC.<SERVICE>",
    )  # fmt: skip
    assert listed == ["FUTURE_JOB"]
    assert refused(admin, "GRANT USAGE ON FUTURE COMPUTE POOLS IN SCHEMA public TO ROLE analyst")[0] == 3008


def test_show_grants(admin, analyst):
    """SHOW GRANTS lists the privileges of a role, the grants on an object, the members of a role, a user's roles."""
    admin("GRANT READ ON STAGE s TO ROLE analyst WITH GRANT OPTION")
    to_role = [(row["privilege"], row["granted_on"], row["name"]) for row in analyst("SHOW GRANTS TO ROLE analyst")]
    on_stage = [
        (row["privilege"], row["grantee_name"], row["grant_option"], row["granted_by"])
        for row in admin("SHOW GRANTS ON STAGE s")
    ]

    assert to_role == [
        ("USAGE", "DATABASE", "MLJOBS_DB"),
        ("USAGE", "SCHEMA", "MLJOBS_DB.PUBLIC"),
        ("READ", "STAGE", "MLJOBS_DB.PUBLIC.S"),
        ("USAGE", "WAREHOUSE", "MLJOBS_WH"),
    ]
    assert on_stage == [
        ("OWNERSHIP", "ACCOUNTADMIN", "true", "ACCOUNTADMIN"),
        ("READ", "ANALYST", "true", "ACCOUNTADMIN"),
    ]
    assert [row["grantee_name"] for row in admin("SHOW GRANTS OF ROLE analyst")] == ["MLJOBS"]
    assert {"ACCOUNTADMIN", "ANALYST"} <= {row["role"] for row in admin("SHOW GRANTS")}


def test_revoke_takes_back(admin, analyst):
    """A revoked privilege is gone at once, also for open sessions."""
    admin("GRANT READ, WRITE ON STAGE s TO ROLE analyst")
    analyst("LIST @s")
    admin("REVOKE ALL PRIVILEGES ON STAGE s FROM ROLE analyst")

    assert refused(analyst, "LIST @s") == (2003, "Stage 'MLJOBS_DB.PUBLIC.S' does not exist or not authorized.")


def test_who_may_grant(admin, analyst):
    """The owner may grant, a role with the grant option that privilege only, others nothing."""
    admin("GRANT READ ON STAGE s TO ROLE analyst")
    without = refused(analyst, "GRANT READ ON STAGE s TO ROLE public")[0]
    admin("GRANT READ ON STAGE s TO ROLE analyst WITH GRANT OPTION")
    analyst("GRANT READ ON STAGE s TO ROLE public")
    more = refused(analyst, "GRANT READ, WRITE ON STAGE s TO ROLE public")[0]
    admin("REVOKE READ ON STAGE s FROM ROLE public", "GRANT OWNERSHIP ON STAGE s TO ROLE analyst COPY CURRENT GRANTS")
    analyst("GRANT READ, WRITE ON STAGE s TO ROLE public")
    admin("GRANT OWNERSHIP ON STAGE s TO ROLE accountadmin REVOKE CURRENT GRANTS")

    assert (without, more) == (3001, 3001)


@pytest.mark.parametrize(
    ("statement", "errno"),
    [
        ("GRANT READ ON STAGE nope TO ROLE public", 2003),
        ("GRANT READ ON STAGE s TO ROLE nope", 2003),
        ("GRANT WRITE ON STAGE s TO ROLE public", 3008),
        ("GRANT SELECT ON COMPUTE POOL granted TO ROLE public", 3008),
        ("GRANT APPLICATION ROLE SNOWFLAKE.EVENTS_VIEWER TO USER mljobs", 3008),
        ("GRANT ROLE accountadmin TO ROLE sysadmin", 3008),
        ("GRANT OWNERSHIP ON COMPUTE POOL granted TO ROLE nope", 2003),
        ("DROP ROLE accountadmin", 3001),
        ("USE ROLE nope", 2043),
    ],
)
def test_grants_that_snowflake_does_not_have(admin, statement, errno):
    """Unknown objects, roles and privileges, WRITE on a stage without READ, and circles of roles are refused."""
    assert refused(admin, statement)[0] == errno


def test_event_table_roles(admin, analyst):
    """EVENTS_VIEW needs the application role EVENTS_VIEWER, and the event table EVENTS_ADMIN."""
    view, table = (f"SELECT * FROM SNOWFLAKE.TELEMETRY.{name}" for name in ("EVENTS_VIEW", "EVENTS"))
    before = (refused(analyst, view)[0], refused(analyst, table)[0])
    admin("GRANT APPLICATION ROLE SNOWFLAKE.EVENTS_VIEWER TO ROLE analyst")
    analyst(view)

    assert before == (2003, 2003)
    assert refused(analyst, table)[0] == 2003
    assert admin(table) == admin(view)


def test_a_user_of_its_own(server, admin, analyst, connect):
    """A user logs in with the password and default role that CREATE USER gave it, and with all its roles active."""
    admin(
        "CREATE OR REPLACE USER robot PASSWORD = 'swordfish' DEFAULT_ROLE = analyst", "GRANT ROLE analyst TO USER robot"
    )
    robot = _runner(connect(server, user="robot", password="swordfish"))
    ((current, roles, secondary),) = [
        tuple(row.values())
        for row in robot("SELECT CURRENT_ROLE(), CURRENT_AVAILABLE_ROLES(), CURRENT_SECONDARY_ROLES()")
    ]

    assert (current, roles, secondary) == (
        "ANALYST",
        '["ANALYST", "PUBLIC"]',
        '{"roles": "PUBLIC", "value": "ALL"}',
    )
    assert refused(robot, "USE ROLE sysadmin") == (
        3013,
        "Requested role 'SYSADMIN' is not assigned to the executing user. Specify another role to activate.",
    )


def test_a_key_pair(server, admin, connect):
    """A user with RSA_PUBLIC_KEY logs in with the private key, and with no other key."""
    from cryptography.hazmat.primitives.asymmetric import rsa
    from snowflake.connector.errors import DatabaseError

    keys = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
    admin(f"CREATE OR REPLACE USER signer TYPE = SERVICE RSA_PUBLIC_KEY = '{public_key(keys[0])}'")
    login = {"user": "signer", "password": None, "authenticator": "SNOWFLAKE_JWT"}

    assert connect(server, **login, private_key=keys[0]).role == "PUBLIC"
    with pytest.raises(DatabaseError, match="JWT token is invalid"):
        connect(server, **login, private_key=keys[1])


@pytest.mark.parametrize(
    ("login", "reason"),
    [
        ({"role": "analyst"}, "Role 'ANALYST' specified in the connect string is not granted to this user"),
        ({"password": "wrong"}, "Incorrect username or password was specified"),
    ],
)
def test_refused_logins(server, admin, connect, login, reason):
    """A login with a role that isn't granted to the user, or with another password, is refused."""
    from snowflake.connector.errors import DatabaseError

    admin("CREATE OR REPLACE USER guest PASSWORD = 'swordfish'")

    with pytest.raises(DatabaseError, match=reason) as caught:
        connect(server, **{"user": "guest", "password": "swordfish", **login})
    assert caught.value.errno in {390189, 390100, 250001}


def test_rights_survive_a_restart(start, connect, tmp_path):
    """Roles, users and grants are stored under the root."""
    server = start(root=tmp_path / "root")
    run = _runner(connect(server))
    run("CREATE ROLE r", "GRANT USAGE ON DATABASE mljobs_db TO ROLE r")
    run("CREATE USER u PASSWORD = 'p' DEFAULT_ROLE = r", "GRANT ROLE r TO USER u")
    before = run("SHOW GRANTS TO ROLE r")
    server.stop()
    again = _runner(connect(start(root=tmp_path / "root"), user="u", password="p", schema=None))

    assert again("SHOW GRANTS TO ROLE r") == before
    assert names(again("SHOW DATABASES")) == ["MLJOBS_DB"]
