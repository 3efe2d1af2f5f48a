"""Job services of several instances, each with its own processes, address, log and end."""

import json
import uuid

import pytest

from airflow_provider_mljobs.emulator.containers.instance import probe_isolation
from airflow_provider_mljobs.emulator.settings import VirtualJob
from tests.budget import budget

IMAGE = "/snowflake/images/snowflake_images/exampleimage:latest"
POOL = "CREATE COMPUTE POOL IF NOT EXISTS INSTANCES MIN_NODES = 1 MAX_NODES = 2 INSTANCE_FAMILY = CPU_X64_S"


@pytest.fixture
def sql(connection):
    """Run a statement in a new schema, which is dropped with its services after the test."""
    from snowflake.connector import DictCursor

    def run(text, *binds):
        return connection.cursor(DictCursor).execute(text, binds or None).fetchall()

    schema = f"I_{uuid.uuid4().hex[:8]}".upper()
    run(POOL)
    run(f"CREATE SCHEMA {schema}")
    run(f"USE SCHEMA {schema}")
    yield run
    run(f"DROP SCHEMA {schema}")


def submit(sql, name, script, instances=3, clauses="", **container):
    """Run a shell script on several instances."""
    container = {"name": "main", "image": IMAGE, "command": ["bash", "-c"], "args": [script], **container}
    text = json.dumps({"spec": {"containers": [container]}})
    replicas = f"REPLICAS = {instances}" if instances else ""
    sql(
        f"EXECUTE JOB SERVICE IN COMPUTE POOL INSTANCES NAME = {name} ASYNC = TRUE {replicas} {clauses} "
        "FROM SPECIFICATION ?",
        text,
    )


def wait(sql, name, status="DONE"):
    """Wait until a job has a status."""
    sql(f"CALL {name}!SPCS_WAIT_FOR('{status}', {budget():.0f})")


def instances(sql, name):
    """Return the rows of a job's instances."""
    return sql(f"SHOW SERVICE INSTANCES IN SERVICE {name}")


def log(sql, name, index):
    """Return the log of an instance."""
    (row,) = sql("SELECT SYSTEM$GET_SERVICE_LOGS(?, ?, 'main') AS L", name, index)
    return row["L"]


def wait_for_output(sql, name, text, *indexes):
    """Wait until instances have printed something."""
    from snowflake.connector.errors import ProgrammingError

    waiting = set(indexes)
    while waiting:
        for index in list(waiting):
            try:
                if text in log(sql, name, index):
                    waiting.discard(index)
            except ProgrammingError as error:
                # The container hasn't started.
                assert "Container Status: PENDING" in error.msg  # noqa: PT017 (anything else is a failure)


def ends(sql, name):
    """Return status and exit code of each instance's container."""
    rows = sql(f"SHOW SERVICE CONTAINERS IN SERVICE {name}")
    return [(row["instance_status"], row["last_exit_code"]) for row in rows]


def test_addresses(sql):
    """Each instance of each job has an address that can be listened on, and keeps it to the end."""
    script = "echo started; until [ -e $HOME/never ]; do sleep 0.05; done"
    for name in ("ONE", "TWO"):
        submit(sql, name, script)
        wait_for_output(sql, name, "started", 0, 1, 2)

    running = [row["ip_address"] for name in ("ONE", "TWO") for row in instances(sql, name)]
    sql("CALL ONE!SPCS_CANCEL_JOB()")
    wait(sql, "ONE", "CANCELLED")

    assert 6 == len(set(running))
    assert all(address.startswith("127.") for address in running)
    assert running[:3] == [row["ip_address"] for row in instances(sql, "ONE")]


@pytest.mark.skipif(probe_isolation() == "rewrite", reason="without namespaces the host's name is the machine's")
def test_own_address(sql):
    """An instance finds its own address by its host name, as the documentation says."""
    submit(sql, "SELF", "python -c 'import socket; print(socket.gethostbyname(socket.gethostname()))'")
    wait(sql, "SELF")

    assert [row["ip_address"] for row in instances(sql, "SELF")] == [
        log(sql, "SELF", index).strip() for index in range(3)
    ]


def test_instances_talk_to_each_other(sql):
    """The head listens on its address; a worker looks the address up by SQL, from within the job, and connects."""
    program = """
import os, socket
from snowflake import connector

with connector.connect(host=os.environ["SNOWFLAKE_HOST"], account=os.environ["SNOWFLAKE_ACCOUNT"],
                       token=open(TOKEN).read(), authenticator="oauth") as connection:
    rows = []
    while not rows or not rows[0][9]:
        rows = connection.cursor().execute("SHOW SERVICE INSTANCES IN SERVICE TALK").fetchall()
head = rows[0][9]
if os.environ["SNOWFLAKE_JOB_INDEX"] == "0":
    with socket.create_server((head, 23017)) as server:
        server.accept()[0].sendall(b"hello from the head")
else:
    while True:
        try:
            print(socket.create_connection((head, 23017)).recv(100).decode())
            break
        except ConnectionRefusedError:
            pass
"""
    token = "os.environ.get('SNOWFLAKE_TOKEN_FILE', '/snowflake/session/token')"
    submit(sql, "TALK", "", 2, command=["python", "-c", program.replace("TOKEN)", f"{token})")], args=[])
    wait(sql, "TALK")

    assert "hello from the head\n" == log(sql, "TALK", 1)


@pytest.mark.parametrize(("count", "expected"), [(None, "-/-\n"), (1, "0/1\n")])
def test_index_and_count_need_replicas(sql, count, expected):
    """Without REPLICAS a job has neither count nor index; with REPLICAS = 1 it has both."""
    submit(sql, "INDEXED", 'echo "${SNOWFLAKE_JOB_INDEX--}/${SNOWFLAKE_JOBS_COUNT--}"', count)
    wait(sql, "INDEXED")

    assert expected == log(sql, "INDEXED", 0)


def test_one_fails(sql):
    """A failing instance fails the job and terminates the others; each has its exit code and its log."""
    script = (
        "trap 'echo asked to end; exit 5' TERM; echo started; "
        "[ $SNOWFLAKE_JOB_INDEX = 1 ] || { while :; do sleep 0.05; done; }; "
        "until [ -e $HOME/go ]; do sleep 0.5; touch $HOME/go; done; exit 3"
    )
    submit(sql, "ONE_FAILS", script)
    wait(sql, "ONE_FAILS", "FAILED")
    wait_for_output(sql, "ONE_FAILS", "asked to end", 0, 2)
    while any(status == "TERMINATING" for status, _ in ends(sql, "ONE_FAILS")):
        pass

    assert [("FAILED", 5), ("FAILED", 3), ("FAILED", 5)] == ends(sql, "ONE_FAILS")
    assert "started\n" == log(sql, "ONE_FAILS", 1)


def test_one_is_killed(sql, snowflake):
    """An instance that is killed from outside, as for its memory, fails the job."""
    (names,) = sql("SELECT CURRENT_SCHEMA() AS S")
    submit(sql, "ONE_DIES", "echo started; sleep 60")
    wait_for_output(sql, "ONE_DIES", "started", 0, 1, 2)

    snowflake.kill_instance(f"{names['S']}.ONE_DIES", 2)
    wait(sql, "ONE_DIES", "FAILED")
    while any(status == "TERMINATING" for status, _ in ends(sql, "ONE_DIES")):
        pass

    assert [("FAILED", 143), ("FAILED", 143), ("FAILED", 137)] == ends(sql, "ONE_DIES")
    with pytest.raises(ValueError, match="Instance 2 of job"):
        snowflake.kill_instance(f"{names['S']}.ONE_DIES", 2)


def test_who_does_not_end_is_killed(start, connect):
    """An instance may ignore SIGTERM, but not the SIGKILL after the grace."""
    server = start(termination_grace=0.2)
    cursor = connect(server).cursor
    from snowflake.connector import DictCursor

    def sql(text, *binds):
        return cursor(DictCursor).execute(text, binds or None).fetchall()

    sql(POOL)
    submit(sql, "STUBBORN", "trap '' TERM; echo started; while :; do sleep 0.05; done", 2)
    wait_for_output(sql, "STUBBORN", "started", 0, 1)
    server.kill_instance("STUBBORN", 0)
    wait(sql, "STUBBORN", "FAILED")
    while any(status == "TERMINATING" for status, _ in ends(sql, "STUBBORN")):
        pass

    assert [("FAILED", 137), ("FAILED", 137)] == ends(sql, "STUBBORN")


FIRST = {"resourceManagement": {"controlPolicy": {"startupOrder": {"type": "FirstInstance"}}}}


@pytest.mark.parametrize(("order", "last"), [(FIRST, 2), ({}, 0)], ids=["first instance first", "no order"])
def test_more_instances_than_nodes(sql, order, last):
    """Instances without room on the nodes wait, and start later; without an order this may be the first instance."""
    node = {"resources": {"requests": {"cpu": 3}, "limits": {"cpu": 3}}}
    script = "echo started; [ $SNOWFLAKE_JOB_INDEX = $LAST ] || until [ -e /mnt/stage/go ]; do sleep 0.05; done"
    sql("CREATE STAGE SIGNALS")
    volume = {"volumes": [{"name": "stage", "source": "stage", "stageConfig": {"name": "@SIGNALS"}}]}
    container = {
        "name": "main", "image": IMAGE, "command": ["sh", "-c", script], **node, "env": {"LAST": last},
        "volumeMounts": [{"name": "stage", "mountPath": "/mnt/stage"}],
    }  # fmt: skip
    sql(
        "EXECUTE JOB SERVICE IN COMPUTE POOL INSTANCES NAME = CROWD ASYNC = TRUE REPLICAS = 3 FROM SPECIFICATION ?",
        json.dumps({"spec": {"containers": [container], **volume, **order}}),
    )
    wait_for_output(sql, "CROWD", "started", *({0, 1, 2} - {last}))
    containers = sql("SHOW SERVICE CONTAINERS IN SERVICE CROWD")
    before = [row for row in containers if row["container_name"] == "main"]
    (waiting,) = [row["ip_address"] for row in instances(sql, "CROWD") if row["instance_id"] == str(last)]
    sql("COPY INTO @SIGNALS/go/ FROM (SELECT 1)")
    wait(sql, "CROWD")

    assert ["PENDING" if index == last else "READY" for index in range(3)] == [row["instance_status"] for row in before]
    assert ("RUNNING", "Unschedulable due to insufficient CPU resources") == (
        before[last]["service_status"],
        before[last]["message"],
    )
    assert "" == waiting
    assert "started\n" == log(sql, "CROWD", last)


def test_unknown_instance(sql):
    """A log of an instance that doesn't exist is an error."""
    from snowflake.connector.errors import ProgrammingError

    submit(sql, "TWINS", "true", 2)
    wait(sql, "TWINS")
    with pytest.raises(ProgrammingError) as caught:
        log(sql, "TWINS", 2)

    assert "instance id: 2. Available instances: 0, 1" in caught.value.msg


def test_virtual_instances(start, connect):
    """Virtual jobs have simulated addresses."""
    server = start(virtual_jobs=(VirtualJob(name="V%", seconds=1000),))
    cursor = connect(server).cursor()
    cursor.execute(POOL)
    cursor.execute(
        "EXECUTE JOB SERVICE IN COMPUTE POOL INSTANCES NAME = V1 ASYNC = TRUE REPLICAS = 2 FROM SPECIFICATION ?",
        (json.dumps({"spec": {"containers": [{"name": "main", "image": IMAGE, "command": ["true"]}]}}),),
    )

    assert ["127.0.0.1"] * 2 == [row[9] for row in cursor.execute("SHOW SERVICE INSTANCES IN SERVICE V1").fetchall()]
