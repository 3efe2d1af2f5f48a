"""Job services, through the connector."""

import json
import threading
import uuid

import pytest

from airflow_provider_mljobs.emulator.settings import Ready, VirtualJob
from tests.budget import budget

POOL = "CREATE COMPUTE POOL IF NOT EXISTS SERVICES MIN_NODES = 1 MAX_NODES = 2 INSTANCE_FAMILY = CPU_X64_S"
FULL = {"resources": {"requests": {"cpu": 2}, "limits": {"cpu": 2}}}
IMAGE = "/snowflake/images/snowflake_images/exampleimage:latest"


def specification(script="true", **spec):
    """Write a specification whose container runs a shell script."""
    container = {"name": "main", "image": IMAGE, "command": ["sh", "-c"], "args": [script]}
    container |= spec.pop("container", {})
    return json.dumps({"spec": {"containers": [container], **spec}}).replace("$$", "\\u0024$")


def execute(name, script="true", clauses="ASYNC = TRUE", **spec):
    """Write the statement that runs a script as a job."""
    text = specification(script, **spec)
    return f"EXECUTE JOB SERVICE IN COMPUTE POOL SERVICES FROM SPECIFICATION $${text}$$ NAME = {name} {clauses}"


def pair(name, clauses, **second):
    """Write the statement that runs two containers; one of them may be special."""
    containers = [{"name": "main", "image": IMAGE, "command": ["true"]}]
    containers.append({**containers[0], "name": "second", **second})
    text = json.dumps({"spec": {"containers": containers}})
    return f"EXECUTE JOB SERVICE IN COMPUTE POOL SERVICES FROM SPECIFICATION $${text}$$ NAME = {name} {clauses}"


def reasons(sql, name):
    """Return status and message of each container."""
    rows = sql(f"SHOW SERVICE CONTAINERS IN SERVICE {name}")
    return [(row["status"], row["message"]) for row in rows]


def runner(connection):
    """Return a function that runs a statement and returns rows as dictionaries."""
    from snowflake.connector import DictCursor

    return lambda text, *binds: connection.cursor(DictCursor).execute(text, binds or None).fetchall()


@pytest.fixture
def sql(connection):
    """Run a statement in a new schema, which is dropped with its services after the test."""
    run = runner(connection)
    schema = f"S_{uuid.uuid4().hex[:8]}".upper()
    run(POOL)
    run(f"CREATE SCHEMA {schema}")
    run(f"USE SCHEMA {schema}")
    yield run
    run(f"DROP SCHEMA {schema}")


@pytest.fixture
def started(tmp_path):
    """Start servers with given settings; return a function that runs a statement on one."""
    from contextlib import ExitStack

    from snowflake.connector import connect

    from airflow_provider_mljobs.emulator import serve

    with ExitStack() as stack:

        def start(root=None, **settings):
            server = stack.enter_context(serve(root, **settings))
            run = runner(stack.enter_context(connect(**server.connection_kwargs)))
            run(POOL)
            return run

        yield start


def failure(sql, text, *binds):
    """Run a statement that fails; return the error."""
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError) as caught:
        sql(text, *binds)
    return caught.value


def wait(sql, name, status="DONE"):
    """Wait until a job has a status."""
    sql(f"CALL {name}!SPCS_WAIT_FOR('{status}', {budget():.0f})")


def status(sql, name):
    """Return the status of a job."""
    return sql(f"DESCRIBE SERVICE {name}")[0]["status"]


def logs(sql, name, *more):
    """Return the log of a job's first instance."""
    arguments = ", ".join(["?"] * (3 + len(more)))
    (row,) = sql(f"SELECT SYSTEM$GET_SERVICE_LOGS({arguments}) AS LOG", name, 0, "main", *more)
    return row["LOG"]


class TestSubmit:
    """EXECUTE JOB SERVICE."""

    def test_synchronous(self, sql):
        """The statement returns when the job is done."""
        (row,) = sql(execute("SYNC", clauses=""))

        assert row == {"status": "Job SYNC completed successfully with status: DONE."}

    def test_synchronous_failure(self, sql):
        """The statement fails with the job."""
        error = failure(sql, execute("BROKEN", "exit 3", clauses=""))

        assert "Job BROKEN failed with status: FAILED" in error.msg
        assert status(sql, "BROKEN") == "FAILED"

    def test_asynchronous(self, sql):
        """The statement returns at once, with the name as the first thing in quotes."""
        (row,) = sql(execute("ASYNCHRONOUS"))
        wait(sql, "ASYNCHRONOUS")

        assert row == {"status": "Started Snowpark Container Services Job 'ASYNCHRONOUS'."}

    def test_specification_last(self, sql):
        """Properties may stand before the specification, and binds in both."""
        sql("CREATE NETWORK RULE ANYWHERE TYPE = HOST_PORT MODE = EGRESS VALUE_LIST = ('0.0.0.0:443')")
        properties = "ALLOWED_NETWORK_RULES = (ANYWHERE) ENABLED = TRUE"
        for name in "AB":
            sql(f"CREATE OR REPLACE EXTERNAL ACCESS INTEGRATION {name} {properties}")
        text = (
            "EXECUTE JOB SERVICE IN COMPUTE POOL IDENTIFIER(?) NAME = IDENTIFIER(?) ASYNC = true REPLICAS = ? "
            "QUERY_WAREHOUSE = IDENTIFIER(?) EXTERNAL_ACCESS_INTEGRATIONS = (A, B) COMMENT = 'why' "
            "FROM SPECIFICATION ?"
        )
        sql(text, "SERVICES", "BINDS", 2, "WH", specification())
        (described,) = sql("DESC SERVICE BINDS")

        assert (described["target_instances"], described["query_warehouse"], described["comment"]) == (2, "WH", "why")
        assert described["external_access_integrations"] == "[A, B]"

    @pytest.mark.parametrize("clause", ["SPECIFICATION_FILE", "SPEC"])
    def test_staged_specification(self, sql, tmp_path, clause):
        """The specification may lie on a stage."""
        (tmp_path / "job.yaml").write_text(specification("echo staged"))
        sql("CREATE STAGE SPECS")
        sql(f"PUT file://{tmp_path}/job.yaml @SPECS/dir AUTO_COMPRESS = FALSE")

        sql(f"EXECUTE JOB SERVICE IN COMPUTE POOL SERVICES NAME = STAGED FROM @SPECS/dir {clause} = 'job.yaml'")

        assert logs(sql, "STAGED") == "staged\n"

    def test_missing_specification_file(self, sql):
        """A missing file and a missing stage are errors."""
        sql("CREATE STAGE EMPTY")
        text = "EXECUTE JOB SERVICE IN COMPUTE POOL SERVICES FROM @{} SPEC = 'no.yaml'"

        assert failure(sql, text.format("EMPTY")).errno == 2003
        assert failure(sql, text.format("NO_STAGE")).errno == 2003

    @pytest.mark.parametrize(
        ("template", "values", "output"),
        [
            ("{{ word }} {{ other | default('there') }}", "\"word\" => 'hello'", "hello there"),
            ("{{word}}{{ word }}{{  word  }}", "word => 'x'", "xxx"),
            ("{{ n }} {{ yes }}", "n => 7, yes => true", "7 true"),
            ("{{ Word }} {{ word }}", "Word => 'big', word => 'small'", "big small"),
            ("{{ a | default(7) }}", "unused => 'u'", "7"),
            ("{{ a | default('d') }}", "a => ''", ""),
            ("{{ a | default('d', true) }}", "a => ''", "d"),
            ("{{ a | default('d', false) }}", "a => 'v'", "v"),
        ],
    )
    def test_template(self, sql, template, values, output):
        """Variables of a template are filled in, case-sensitively."""
        sql(
            "EXECUTE JOB SERVICE IN COMPUTE POOL SERVICES NAME = TEMPLATED "
            f"FROM SPECIFICATION_TEMPLATE $${specification(f'echo {template}')}$$ USING ({values})"
        )

        assert logs(sql, "TEMPLATED") == f"{output}\n"

    def test_template_with_json(self, sql):
        """A value may be JSON, with quotes, for whole parts of the specification."""
        container = {"name": "main", "image": IMAGE, "command": ["sh", "-c"], "args": ['echo "it\'s" $MINE']}
        text = f"spec: {{containers: [{json.dumps(container)[:-1]}, env: {{{{ env }}}}}}]}}"
        sql(
            "EXECUTE JOB SERVICE IN COMPUTE POOL SERVICES NAME = JSONED FROM SPECIFICATION_TEMPLATE ? USING (env => ?)",
            text,
            json.dumps({"MINE": "\"quoted\" {{ not }} 'again'"}),
        )

        assert logs(sql, "JSONED") == "it's \"quoted\" {{ not }} 'again'\n"

    def test_template_file(self, sql, tmp_path):
        """A template may lie on a stage."""
        (tmp_path / "job.yaml").write_text(specification("echo {{ word }}"))
        sql("CREATE STAGE TEMPLATES")
        sql(f"PUT file://{tmp_path}/job.yaml @TEMPLATES AUTO_COMPRESS = FALSE")

        sql(
            "EXECUTE JOB SERVICE IN COMPUTE POOL SERVICES NAME = STAGED_TEMPLATE "
            "FROM @TEMPLATES SPECIFICATION_TEMPLATE_FILE = 'job.yaml' USING (word => 'staged')"
        )

        assert logs(sql, "STAGED_TEMPLATE") == "staged\n"

    @pytest.mark.parametrize(
        ("template", "values", "reason"),
        [
            ("{{ word }}", "other => 1", "'word' is undefined"),
            ("{{ word }}", "WORD => 1", "'word' is undefined"),
            ("{{ a | upper }}", "a => 1", "invalid expression 'a | upper'"),
            ("{{ a.b }}", "a => 1", "invalid expression 'a.b'"),
            ("{{ a }}", "a => 'two words'", "value of 'a' is neither alphanumeric nor valid JSON"),
            ("{{ a }}", "a => 'x: y'", "value of 'a' is neither alphanumeric nor valid JSON"),
        ],
    )
    def test_template_that_cannot_be_rendered(self, sql, template, values, reason):
        """Errors of templates have one number and different texts."""
        error = failure(
            sql,
            "EXECUTE JOB SERVICE IN COMPUTE POOL SERVICES "
            f"FROM SPECIFICATION_TEMPLATE $${specification(f'echo {template}')}$$ USING ({values})",
        )

        assert error.errno == 395069
        assert f"Unable to render service spec from given template: {reason}" in error.msg

    def test_default_name(self, sql):
        """Without NAME the job is called after the query."""
        (row,) = sql(execute("X").replace("NAME = X", ""))

        assert row["status"].split("'")[1].startswith("JOB_")

    def test_name_as_text(self, sql):
        """A name may be a string, with its schema."""
        (schema,) = sql("SELECT CURRENT_SCHEMA() AS S")
        sql(execute(f"'{schema['S']}.TEXTUAL'"))

        wait(sql, f"{schema['S']}.TEXTUAL")

    def test_name_is_taken_until_the_drop(self, sql):
        """A finished job keeps its name."""
        sql(execute("TAKEN", clauses=""))

        assert failure(sql, execute("TAKEN")).errno == 2002
        (dropped,) = sql("DROP SERVICE TAKEN")
        assert dropped == {"status": "TAKEN successfully dropped."}
        sql(execute("TAKEN"))

    @pytest.mark.parametrize(
        ("text", "errno"),
        [
            (execute("J").replace("POOL SERVICES", "POOL NO_POOL"), 2003),
            (execute("NO_SCHEMA.J"), 2003),
            (execute("NO_DB.PUBLIC.J"), 2003),
            (execute('"quoted"'), 395088),
            (execute("J", clauses="COLOUR = 1"), 1420),
            (execute("J", clauses="ASYNC = TRUE ASYNC = TRUE"), 1003),
            (execute("J").replace("POOL SERVICES", "POOL SYSTEM_COMPUTE_POOL_CPU"), 395087),
            (execute("J", container={"resources": {"requests": {"cpu": 4}, "limits": {"cpu": 4}}}), 395083),
            (execute("J", container={"foo": 1}), 395018),
            (execute("J", volumes=[{"name": "v", "source": "stage", "stageConfig": {"name": "@NO_STAGE"}}]), 2003),
            (execute("J", volumes=[{"name": "v", "source": "@FILES"}]), 395018),
            (execute("J", clauses="EXTERNAL_ACCESS_INTEGRATIONS = (NO_INTEGRATION)"), 2003),
            ("CREATE SERVICE J IN COMPUTE POOL SERVICES", 2),
            ("EXECUTE JOB SERVICE IN COMPUTE POOL SERVICES", 1003),
            ("EXECUTE JOB SERVICE IN COMPUTE POOL SERVICES FROM SPECIFICATION_TEMPLATE '{{x}}' USING (y => 1)", 395069),
        ],
    )
    def test_refusals(self, sql, text, errno):
        """Invalid requests fail at once."""
        assert failure(sql, text).errno == errno

    @pytest.mark.parametrize("statement", ["EXECUTE JOB SERVICE", "SYSTEM$EXECUTE_ML_JOB"])
    def test_too_many_services(self, started, statement):
        """Finished services count towards the limit until they are dropped; a refused one leaves nothing behind."""
        sql = started(max_services=2, virtual_jobs=(VirtualJob(name="%", seconds=0.0),))
        sql("CREATE STAGE PAYLOADS")
        options = """'{"STAGE_PATH": "@PAYLOADS/p", "ARGS": [], "RUNTIME": "2.9"}', '{"TARGET_INSTANCES": 1}'"""
        texts = {
            "EXECUTE JOB SERVICE": execute("MANY"),
            "SYSTEM$EXECUTE_ML_JOB": f"CALL SYSTEM$EXECUTE_ML_JOB('MANY', 'SERVICES', {options})",
        }
        sql(execute("ONE"))
        sql(execute("TWO"))
        wait(sql, "TWO")

        error = failure(sql, texts[statement])
        assert error.errno == 395093
        assert "Number of services limit exceeded for the account" in error.msg
        assert {row["name"] for row in sql("SHOW JOB SERVICES")} == {"ONE", "TWO"}
        assert len(sql("SELECT * FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY())")) == 2
        # The name clash comes first: a client that repeats after a lost answer must learn that the job exists.
        assert failure(sql, execute("TWO")).errno == 2002
        sql("DROP SERVICE ONE")
        sql(texts[statement])
        wait(sql, "MANY")

    def test_a_limit_below_zero(self, started):
        """A negative limit of services is an error."""
        with pytest.raises(ValueError, match="max_services must be 0 or more"):
            started(max_services=-1)


class TestRun:
    """The view of a container, and its end."""

    def test_environment(self, sql):
        """A container has the documented variables; count and index only with REPLICAS."""
        sql(execute("ENVIRONMENT", "env", clauses="", container={"env": {"MINE": "$(x) 'y'"}}))
        environment = dict(line.split("=", 1) for line in logs(sql, "ENVIRONMENT").splitlines())

        assert environment["SNOWFLAKE_SERVICE_NAME"] == "ENVIRONMENT"
        assert environment["MINE"] == "$(x) 'y'"
        assert {"SNOWFLAKE_ACCOUNT", "SNOWFLAKE_HOST", "SNOWFLAKE_DATABASE", "SNOWFLAKE_SCHEMA"} <= environment.keys()
        assert "SNOWFLAKE_JOBS_COUNT" not in environment
        assert "SNOWFLAKE_WAREHOUSE" not in environment

    def test_replicas(self, sql):
        """Each instance has its index and its own logs."""
        sql(execute("MANY", "echo $SNOWFLAKE_JOB_INDEX of $SNOWFLAKE_JOBS_COUNT", clauses="REPLICAS = 2"))

        texts = [sql(f"SELECT SYSTEM$GET_SERVICE_LOGS('MANY', {i}, 'main') AS L")[0]["L"] for i in range(2)]

        assert texts == ["0 of 2\n", "1 of 2\n"]
        rows = sql("SHOW SERVICE INSTANCES IN SERVICE MANY")
        assert [(row["instance_id"], row["status"]) for row in rows] == [("0", "SUCCEEDED"), ("1", "SUCCEEDED")]

    def test_one_failed_instance_fails_the_job(self, sql):
        """A failing instance stops the others."""
        sql(execute("ONE_FAILS", "[ $SNOWFLAKE_JOB_INDEX = 1 ] && exit 7; sleep 60", "ASYNC = TRUE REPLICAS = 2"))
        wait(sql, "ONE_FAILS", "FAILED")

        codes = {
            row["instance_id"]: row["last_exit_code"] for row in sql("SHOW SERVICE CONTAINERS IN SERVICE ONE_FAILS")
        }
        assert codes["1"] == 7

    def test_containers_of_an_instance_share_volumes(self, sql):
        """A local volume is one directory for all containers of the instance."""
        mounts = {"volumeMounts": [{"name": "shared", "mountPath": "/mnt/shared"}]}
        write = {"name": "writer", "image": IMAGE, "command": ["sh", "-c", "echo hi > /mnt/shared/x"], **mounts}
        read = {
            "name": "main",
            "image": IMAGE,
            "command": ["sh", "-c", "until cat /mnt/shared/x 2>/dev/null; do sleep 0.01; done"],
            **mounts,
        }
        text = json.dumps({"spec": {"containers": [read, write], "volumes": [{"name": "shared", "source": "local"}]}})
        sql(f"EXECUTE JOB SERVICE IN COMPUTE POOL SERVICES NAME = SHARED FROM SPECIFICATION $${text}$$")

        assert logs(sql, "SHARED") == "hi\n"

    def test_stage_volumes(self, sql):
        """A stage is a directory of the container."""
        sql("CREATE STAGE FILES")
        volume = {"name": "files", "source": "stage", "stageConfig": {"name": "@FILES/in"}}
        mounts = {"volumeMounts": [{"name": "files", "mountPath": "/mnt/files"}]}
        sql(execute("WRITER", "echo result > /mnt/files/out.txt", clauses="", container=mounts, volumes=[volume]))

        assert [row["name"] for row in sql("LIST @FILES")] == ["files/in/out.txt"]

    def test_files_from_within(self, sql):
        """A program in a job puts files on stages and gets them, wherever the server keeps these."""
        program = (
            "import pathlib, sys, tempfile; from snowflake import connector; "
            "folder = pathlib.Path(tempfile.mkdtemp()); (folder / 'in').write_text('hello'); "
            "cursor = connector.connect(connection_name='default').cursor(); "
            "cursor.execute(f'PUT file://{folder}/in @EXCHANGE/put AUTO_COMPRESS = FALSE'); "
            "(folder / 'got').mkdir(); cursor.execute(f'GET @EXCHANGE/put/in file://{folder}/got/'); "
            "print((folder / 'got' / 'in').read_text())"
        )
        sql("CREATE STAGE EXCHANGE")
        sql(execute("EXCHANGES", clauses="", container={"command": ["python", "-c", program], "args": []}))

        assert [("exchange/put/in", 5)] == [(row["name"], row["size"]) for row in sql("LIST @EXCHANGE")]
        assert "hello\n" == logs(sql, "EXCHANGES")

    def test_program_that_cannot_start(self, sql):
        """A container that can't start fails, with the reason in its log."""
        sql(execute("NO_PROGRAM", container={"command": ["no-such-program"]}))
        wait(sql, "NO_PROGRAM", "FAILED")

        (row,) = sql("SHOW SERVICE CONTAINERS IN SERVICE NO_PROGRAM")
        assert row["message"] == "Encountered fatal error while starting container"
        assert "no-such-program" in logs(sql, "NO_PROGRAM")

    def test_image_that_cannot_be_pulled(self, sql):
        """A job stays PENDING until the repository of its image exists."""
        (names,) = sql("SELECT CURRENT_DATABASE() AS D, CURRENT_SCHEMA() AS S")
        image = f"/{names['D']}/{names['S']}/repo/image:1".lower()
        sql(execute("NO_IMAGE", container={"image": image}))
        (before,) = sql("SHOW SERVICE CONTAINERS IN SERVICE NO_IMAGE")

        sql("CREATE IMAGE REPOSITORY REPO")

        assert (before["service_status"], before["message"]) == ("PENDING", "Failed to pull image")
        assert logs_pending(sql, "NO_IMAGE")
        wait(sql, "NO_IMAGE")

    def test_no_room(self, sql):
        """Jobs without room on the pool's nodes wait until others have ended."""
        node = {"resources": {"requests": {"cpu": 3}, "limits": {"cpu": 3}}}
        sql(execute("FULL", "sleep 60", "ASYNC = TRUE REPLICAS = 2", container=node))
        sql(execute("NEXT", container=node))
        (before,) = sql("SHOW SERVICE CONTAINERS IN SERVICE NEXT")

        sql("DROP SERVICE FULL")

        assert before["message"] == "Unschedulable due to insufficient CPU resources"
        wait(sql, "NEXT")

    def test_stage_volumes_take_room(self, sql):
        """A job that fits a node only without the sidecars of its volumes is accepted, and never starts."""
        sql("CREATE STAGE FILES")
        whole = {"resources": {"requests": {"memory": "13Gi"}}}
        volume = {"name": "v", "source": "stage", "stageConfig": {"name": "@FILES"}}
        sql(execute("NEVER", container=whole, volumes=[volume]))
        never = sql("SHOW SERVICE CONTAINERS IN SERVICE NEVER")[0]
        volume["stageConfig"]["resources"] = {"requests": {"memory": "0Gi", "cpu": "0"}}
        sql(execute("FITS", container=whole, volumes=[volume]))
        wait(sql, "FITS")

        assert ("PENDING", "Unschedulable due to insufficient memory resources") == (
            never["service_status"],
            never["message"],
        )


def logs_pending(sql, name):
    """Return whether the logs are refused as those of a pending container."""
    from snowflake.connector.errors import ProgrammingError

    try:
        logs(sql, name)
    except ProgrammingError as error:
        return "Container Status: PENDING" in error.msg
    return True


class TestEnd:
    """Cancelling and dropping jobs."""

    def test_cancel(self, sql):
        """A cancelled job ends and stays listed."""
        sql(execute("CANCELLED", "sleep 60"))
        sql("CALL CANCELLED!SPCS_CANCEL_JOB()")
        wait(sql, "CANCELLED", "CANCELLED")

        assert status(sql, "CANCELLED") == "CANCELLED"

    def test_cancelled_statement_cancels_the_job(self, sql, connection):
        """Cancelling the statement of a synchronous job cancels the job."""
        cursor = connection.cursor()
        cursor.execute_async(execute("GIVEN_UP", "sleep 60", clauses=""))
        while not sql("SHOW SERVICES LIKE 'GIVEN_UP'"):
            pass
        wait(sql, "GIVEN_UP", "RUNNING")

        sql(f"SELECT SYSTEM$CANCEL_QUERY('{cursor.sfqid}')")

        wait(sql, "GIVEN_UP", "CANCELLED")

    def test_wait_times_out(self, sql):
        """SPCS_WAIT_FOR raises after its timeout."""
        sql(execute("ENDLESS", "sleep 60"))

        assert "Current status: RUNNING" in failure(sql, "CALL ENDLESS!SPCS_WAIT_FOR('DONE', 0)").msg

    def test_wait_for_what_will_not_come(self, sql):
        """SPCS_WAIT_FOR raises at once if the job ended with another status."""
        sql(execute("FAILS", "exit 1"))

        assert "Current status: FAILED" in failure(sql, f"CALL FAILS!SPCS_WAIT_FOR('DONE', {budget():.0f})").msg

    def test_dropped_job_lives_on_in_history(self, sql):
        """A dropped job is only in the history and the event table."""
        sql(execute("PAST", "echo one; echo two >&2", clauses="REPLICAS = 1"))
        sql("DROP SERVICE PAST")

        assert failure(sql, "DESCRIBE SERVICE PAST").errno == 2003
        assert failure(sql, "SELECT SYSTEM$GET_SERVICE_LOGS('PAST', 0, 'main')").errno == 2003
        (row,) = sql(
            "SELECT * FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY(RESULT_LIMIT => 1000)) "
            "WHERE NAME = 'PAST' AND SCHEMA_NAME = CURRENT_SCHEMA()"
        )
        since = "DATEADD('day', -1, CURRENT_TIMESTAMP())"
        recent = sql(f"SELECT NAME FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY(CREATED_TIME_START => {since}))")
        assert {"NAME": "PAST"} in recent
        assert (row["STATUS"], row["MESSAGE"]) == ("DONE", "Job completed successfully.")
        assert json.loads(row["PARAMETERS"]) == {"ASYNC": False, "REPLICAS": 1}
        container = json.loads(row["INSTANCE_STATUSES"])["instances"][0]["containers"][0]
        assert container["lastExitCode"] == 0
        lines = sql("SELECT LOG FROM TABLE(PAST!SPCS_GET_LOGS()) WHERE CONTAINER_NAME = 'main' ORDER BY LOG")
        assert [line["LOG"] for line in lines] == ["one", "two"]

    def test_drop_of_what_is_not_there(self, sql):
        """DROP SERVICE IF EXISTS of a missing service succeeds."""
        assert failure(sql, "DROP SERVICE NOTHING").errno == 2003
        (row,) = sql("DROP SERVICE IF EXISTS NOTHING FORCE")
        assert row == {"status": "Drop statement executed successfully (NOTHING already dropped)."}

    def test_block_volumes_need_force(self, sql):
        """Dropping a service with block volumes requires FORCE."""
        sql(execute("BLOCKY", volumes=[{"name": "disk", "source": "block", "size": "1Gi"}]))

        assert failure(sql, "DROP SERVICE BLOCKY").errno == 395090
        sql("DROP SERVICE BLOCKY FORCE")

    def test_alter_is_not_for_jobs(self, sql):
        """Jobs can't be suspended or changed."""
        sql(execute("FIXED"))

        assert failure(sql, "ALTER SERVICE FIXED SUSPEND").errno == 395089

    def test_comment(self, sql):
        """A COMMENT can be replaced and removed while the job runs."""
        sql(execute("REMARKED", "sleep 60", "ASYNC = TRUE COMMENT = 'first'"))
        sql("COMMENT ON SERVICE REMARKED IS 'second'")
        second = sql("DESCRIBE SERVICE REMARKED")[0]["comment"]
        sql("COMMENT IF EXISTS ON SERVICE REMARKED IS ''")
        sql("COMMENT IF EXISTS ON SERVICE MISSING IS 'third'")

        assert ("second", None) == (second, sql("SHOW JOB SERVICES")[0]["comment"])

    def test_comment_on_what_is_not_there(self, sql):
        """Without IF EXISTS the service has to exist."""
        assert failure(sql, "COMMENT ON SERVICE MISSING IS 'x'").errno == 2003

    def test_dropped_schema_takes_its_jobs(self, sql):
        """Services are dropped with their schema."""
        sql("CREATE SCHEMA DOOMED")
        sql(execute("DOOMED.J", "sleep 60"))
        sql("DROP SCHEMA DOOMED")

        assert failure(sql, "DESCRIBE SERVICE DOOMED.J").errno == 2003

    def test_stop_all(self, sql):
        """STOP ALL cancels jobs; SUSPEND lets them finish."""
        sql(execute("STOPPED", "sleep 60"))
        sql("ALTER COMPUTE POOL SERVICES SUSPEND")
        (pool,) = sql("SHOW COMPUTE POOLS LIKE 'SERVICES'")
        sql("ALTER COMPUTE POOL SERVICES RESUME")
        running = status(sql, "STOPPED")

        sql("ALTER COMPUTE POOL SERVICES STOP ALL")

        assert (pool["state"], running) == ("STOPPING", "RUNNING")
        wait(sql, "STOPPED", "CANCELLED")


class TestShow:
    """SHOW SERVICES and the functions of one service."""

    def test_filters(self, sql):
        """SHOW SERVICES filters by LIKE, STARTS WITH, LIMIT … FROM and scope."""
        for name in ("A1", "A2", "B1"):
            sql(execute(name))

        def names(clauses):
            return [row["name"] for row in sql(f"SHOW JOB SERVICES {clauses}")]

        assert names("") == ["A1", "A2", "B1"]
        assert names("LIKE 'a_'") == ["A1", "A2"]
        assert names("STARTS WITH 'B'") == ["B1"]
        assert names("STARTS WITH 'b'") == []
        assert names("LIMIT 1 FROM 'A1'") == ["A2"]
        assert {"A1", "A2", "B1"} <= set(names("LIKE '%1' IN ACCOUNT") + names("LIKE '%2' IN COMPUTE POOL SERVICES"))
        assert sql("SHOW SERVICES EXCLUDE JOBS") == []

    def test_columns(self, sql):
        """DESCRIBE has one column more than SHOW, the specification."""
        sql(execute("COLUMNS_JOB"))
        (row,) = sql("SHOW SERVICES")
        (described,) = sql("DESCRIBE SERVICE COLUMNS_JOB")

        assert list(described)[:7] == [
            "name",
            "status",
            "database_name",
            "schema_name",
            "owner",
            "compute_pool",
            "spec",
        ]
        assert [name for name in described if name != "spec"] == list(row)

    def test_service_status(self, sql):
        """SYSTEM$GET_SERVICE_STATUS is a JSON list of containers."""
        sql(execute("STATUS_JOB", clauses=""))
        (row,) = sql("SELECT SYSTEM$GET_SERVICE_STATUS('STATUS_JOB') AS S")

        (container,) = json.loads(row["S"])
        assert (container["status"], container["message"]) == ("DONE", "Completed successfully")

    def test_endpoints(self, sql):
        """Declared endpoints are listed."""
        sql(execute("ENDPOINTS_JOB", endpoints=[{"name": "api", "port": 8000}]))

        (row,) = sql("SHOW ENDPOINTS IN SERVICE ENDPOINTS_JOB")
        assert (row["name"], row["port"], row["protocol"]) == ("api", 8000, "HTTP")

    def test_logs(self, sql):
        """A log has the last lines, with optional timestamps; unknown instances and containers are errors."""
        sql(execute("LOGGING", "echo a; echo b; echo c", clauses=""))

        assert logs(sql, "LOGGING", 2) == "b\nc\n"
        assert logs(sql, "LOGGING", 1, False, "", True).startswith("20")
        assert "Available instances: 0" in failure(sql, "SELECT SYSTEM$GET_SERVICE_LOGS('LOGGING', 1, 'main')").msg
        assert "Available containers: main" in failure(sql, "SELECT SYSTEM$GET_SERVICE_LOGS('LOGGING', 0, 'x')").msg

    def test_logs_are_cut_to_100_kb(self, sql):
        """Only the end of a long log is returned."""
        sql(execute("CHATTY", "seq 1 50000", clauses=""))

        text = logs(sql, "CHATTY")
        assert len(text) == 100 * 1024
        assert text.endswith("\n50000\n")


class TestTime:
    """Emulated time, virtual jobs and restarts."""

    def test_job_starts_after_looks(self, started):
        """With job_ready in polls the job is PENDING for that many reads of its status."""
        sql = started(job_ready=Ready(polls=2), virtual_jobs=(VirtualJob(name="V%", seconds=1000),))
        sql(execute("V1"))

        assert [status(sql, "V1") for _ in range(3)] == ["PENDING", "PENDING", "RUNNING"]

    def test_pool_comes_first(self, started):
        """A job waits for its pool; reading the job counts as reading the pool."""
        sql = started(pool_ready=Ready(polls=1))
        sql(execute("FIRST"))
        (before,) = sql("SHOW SERVICE CONTAINERS IN SERVICE FIRST")

        assert before["message"] == "Compute pool node(s) are being provisioned"
        wait(sql, "FIRST")

    def test_seconds(self, started):
        """With job_ready in seconds the clock starts the job, without a read."""
        sql = started(job_ready=Ready(seconds=0.05))
        sql(execute("LATER", clauses=""))

        assert status(sql, "LATER") == "DONE"

    def test_virtual_jobs_need_no_process(self, started):
        """The end and the log of a virtual job follow from the clock."""
        virtual = (VirtualJob(name="V%", seconds=0.0, log_lines=3), VirtualJob(name="F%", seconds=0.0, status="FAILED"))
        sql = started(virtual_jobs=virtual)
        threads = threading.active_count()
        for index in range(50):
            sql(execute(f"V{index}", "no such program"))
        sql(execute("F"))

        assert threading.active_count() <= threads + 1
        assert {row["status"] for row in sql("SHOW JOB SERVICES LIKE 'V%'")} == {"DONE"}
        assert status(sql, "F") == "FAILED"
        (row,) = sql("SELECT SYSTEM$GET_SERVICE_LOGS('V7', 0, 'main') AS L")
        assert row["L"] == "line 1 of 3\nline 2 of 3\nline 3 of 3\n"

    def test_virtual_jobs_end_at_many_moments(self, started):
        """A spread gives each name its own duration, exact in the history."""
        virtual = VirtualJob(name="V%", seconds=0.01, spread=0.2)
        sql = started(virtual_jobs=(virtual,))
        for index in range(20):
            sql(execute(f"V{index}"))
        for index in range(20):
            wait(sql, f"V{index}")
        rows = sql("SELECT NAME, CREATED_TIME, COMPLETED_TIME FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY())")
        lasted = {row["NAME"]: (row["COMPLETED_TIME"] - row["CREATED_TIME"]).total_seconds() for row in rows}

        assert {name: pytest.approx(virtual.duration(name), abs=1e-5) for name in lasted} == lasted
        assert len(set(lasted.values())) == 20
        assert min(lasted.values()) >= 0.01
        assert max(lasted.values()) <= 0.21

    def test_pages(self, started):
        """Many jobs can be listed page by page, in the order of their names."""
        sql = started(virtual_jobs=(VirtualJob(name="V%", seconds=1000),))
        expected = [f"V{index:03}" for index in range(25)]
        for name in reversed(expected):
            sql(execute(name))
        pages, last = [], ""
        while page := [row["name"] for row in sql(f"SHOW JOB SERVICES LIKE 'v%' IN SCHEMA LIMIT 10 FROM '{last}'")]:
            pages.append(page)
            last = page[-1]

        assert [10, 10, 5] == [len(page) for page in pages]
        assert expected == [name for page in pages for name in page]

    @pytest.mark.parametrize("name", ["REAL", "VIRTUAL"])
    def test_all_containers_wait_for_the_pool(self, started, name):
        """As long as nodes are being provisioned, each container of each instance says so."""
        sql = started(pool_ready=Ready(seconds=1000), virtual_jobs=(VirtualJob(name="VIRTUAL"),))
        sql(pair(name, "ASYNC = TRUE REPLICAS = 2"))

        assert [("PENDING", "Compute pool node(s) are being provisioned")] * 4 == reasons(sql, name)

    @pytest.mark.parametrize("name", ["REAL", "VIRTUAL"])
    def test_one_image_is_missing(self, started, name):
        """A job with a missing image stays PENDING, with the reason in all its containers."""
        sql = started(virtual_jobs=(VirtualJob(name="VIRTUAL"),))
        sql(pair(name, "ASYNC = TRUE REPLICAS = 2", image="/MLJOBS_DB/PUBLIC/NOT_YET/image:1"))
        before = reasons(sql, name)
        sql("CREATE IMAGE REPOSITORY MLJOBS_DB.PUBLIC.NOT_YET")
        wait(sql, name)

        assert [("PENDING", "Failed to pull image")] * 4 == before

    def test_no_room_for_all_containers(self, started):
        """An instance is placed as a whole: its containers wait together."""
        sql = started()
        sql(execute("FULL", "sleep 60", "ASYNC = TRUE REPLICAS = 2", container=FULL))
        sql(pair("CROWDED", "ASYNC = TRUE REPLICAS = 2", resources={"requests": {"cpu": 1.4}, "limits": {"cpu": 1.4}}))
        before = reasons(sql, "CROWDED")
        sql("DROP SERVICE FULL")
        wait(sql, "CROWDED")

        assert [("PENDING", "Unschedulable due to insufficient CPU resources")] * 4 == before

    def test_services_of_an_earlier_server_count(self, started, tmp_path):
        """Services of an earlier server count towards the limit."""
        from snowflake.connector import connect

        from airflow_provider_mljobs.emulator import serve

        with serve(tmp_path) as server, connect(**server.connection_kwargs) as connection:
            runner(connection)(POOL)
            runner(connection)(execute("OLD", clauses=""))
        sql = started(tmp_path, max_services=1)

        assert failure(sql, execute("NEW")).errno == 395093

    def test_restart(self, started, tmp_path):
        """Finished jobs and their logs survive; running jobs are lost with the server's processes."""
        from snowflake.connector import connect

        from airflow_provider_mljobs.emulator import serve

        with serve(tmp_path) as server, connect(**server.connection_kwargs) as connection:
            sql = runner(connection)
            sql(POOL)
            sql(execute("BEFORE", "echo before", clauses=""))
            sql(execute("RUNS", "sleep 60"))

        sql = started(tmp_path)

        assert status(sql, "BEFORE") == "DONE"
        assert status(sql, "RUNS") == "INTERNAL_ERROR"
        (row,) = sql("SELECT SYSTEM$GET_SERVICE_LOGS('BEFORE', 0, 'main') AS L")
        assert row["L"] == "before\n"
