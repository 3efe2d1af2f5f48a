"""MLJobTrigger on its own: what it stores, what it survives, what it reports."""

import asyncio
import json
import threading
import time

import pytest
from airflow.sdk.serde import deserialize, serialize

from airflow_provider_mljobs import triggers
from airflow_provider_mljobs.emulator.settings import Fault
from airflow_provider_mljobs.triggers import MLJobTrigger
from tests.lab import POOL

SPEC = """
spec:
  containers:
  - name: main
    image: /snowflake/images/snowflake_images/st_plat/runtime/x86/runtime_image/snowbooks:1
    command: ["sh", "-c", "{command}"]
"""


@pytest.fixture
def job(airflow):
    """Start a job of a shell command; returns its qualified name. Dropped at the end."""
    names = []

    def start(command):
        name = f"MLJOBS_DB.PUBLIC.T{len(names)}_{time.monotonic_ns()}"
        airflow.query(
            f"EXECUTE JOB SERVICE IN COMPUTE POOL {POOL} NAME = {name} ASYNC = TRUE "
            f"FROM SPECIFICATION $${SPEC.format(command=command)}$$"
        )
        names.append(name)
        return name

    yield start
    for name in names:
        airflow.query(f"DROP SERVICE IF EXISTS {name}")


def watch(job_id, **settings):
    """Run a trigger until it fires and return its event."""
    trigger = MLJobTrigger(job_id, **{"snowflake_conn_id": "snowflake_default", "poll_interval": 0.05, **settings})

    async def first():
        return await anext(aiter(trigger.run()))

    return asyncio.run(first()).payload


def test_serialize_round_trip():
    """Any triggerer can build the trigger again from what is stored, through Airflow's own serialisation."""
    trigger = MLJobTrigger(
        "DB.S.J",
        "snowflake_default",
        poll_interval=5.0,
        deadline=1.5,
        patience=60.0,
        cancel_on_kill=False,
        drop_on_kill=True,
        stage_path="@DB.S.P/J",
    )

    path, kwargs = trigger.serialize()
    again = MLJobTrigger(**deserialize(json.loads(json.dumps(serialize(kwargs)))))

    assert "airflow_provider_mljobs.triggers.MLJobTrigger" == path
    assert trigger.serialize() == again.serialize()


@pytest.mark.parametrize(("command", "status"), [("true", "DONE"), ("exit 3", "FAILED")])
def test_end_of_job(job, command, status):
    """The event names the job, the verdict and the status, and nothing else that could grow."""
    job_id = job(command)

    event = watch(job_id)

    expected = {"job_id": job_id, "verdict": "finished", "status": status, "message": "", "stage_path": None}
    assert expected == event


def test_gone(airflow):
    """A job that nobody knows is reported as gone."""
    event = watch("MLJOBS_DB.PUBLIC.NEVER_THERE")

    assert ("gone", "DELETED") == (event["verdict"], event["status"])


def test_deadline(job):
    """A job that runs past its deadline is reported; the task decides what to do with it."""
    event = watch(job("sleep 60"), deadline=time.time())

    assert "timed_out" == event["verdict"]


@pytest.mark.parametrize("effect", ["reset", "http_503", "session_expired", "master_expired", "error"])
def test_faults_are_survived(airflow, job, effect):
    """What goes wrong between the trigger and Snowflake is not the job's fault: the watch goes on."""
    job_id = job("true")
    airflow.snowflake.faults.add(Fault(matching="DESCRIBE SERVICE", effect=effect, nth=1))
    try:
        event = watch(job_id)
    finally:
        airflow.snowflake.faults.clear()

    assert ("finished", "DONE") == (event["verdict"], event["status"])


def test_one_login(airflow, job):
    """A watch logs in once, however often it looks."""
    job_id = job("sleep 0.5")
    before = airflow.snowflake.statements.logins

    watch(job_id)

    assert 1 == airflow.snowflake.statements.logins - before


def test_patience(airflow, job):
    """A Snowflake that is out of reach for longer than the patience is reported as that."""
    job_id = job("true")
    airflow.snowflake.faults.add(Fault(matching="DESCRIBE SERVICE", effect="error"))
    try:
        event = watch(job_id, patience=0.1)
    finally:
        airflow.snowflake.faults.clear()

    assert ("unreachable", "UNKNOWN") == (event["verdict"], event["status"])


def test_connection_out_of_reach(airflow):
    """So is an Airflow that doesn't give the connection: the job goes on, and so does the watch."""
    event = watch("MLJOBS_DB.PUBLIC.J", patience=0.1, snowflake_conn_id="nowhere")

    assert ("unreachable", "UNKNOWN") == (event["verdict"], event["status"])


def test_cancelled_in_the_middle_of_a_look(airflow):
    """The connection is closed when the look is over: its second question would open another one for ever."""
    before = airflow.snowflake.statements.logins
    airflow.snowflake.faults.add(Fault(matching="DESCRIBE SERVICE", effect="delay", seconds=1))

    async def cancelled():
        trigger = MLJobTrigger("MLJOBS_DB.PUBLIC.NEVER_THERE", "snowflake_default")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(aiter(trigger.run())), 0.5)

    try:
        asyncio.run(cancelled())
        # When all threads meet, none of them looks or closes any more.
        meeting = threading.Barrier(triggers._THREADS._max_workers)
        list(triggers._THREADS.map(lambda _: meeting.wait(30), range(meeting.parties)))
    finally:
        airflow.snowflake.faults.clear()

    assert 1 == airflow.snowflake.statements.logins - before


def test_on_kill_cancels(airflow, job):
    """A user's kill cancels the job, also when Airflow gives the trigger no time to wait for that."""
    job_id = job("sleep 60")
    trigger = MLJobTrigger(job_id, "snowflake_default")

    async def killed():
        kill = asyncio.create_task(trigger.on_kill())
        await asyncio.sleep(0)
        kill.cancel()
        await asyncio.gather(kill, return_exceptions=True)
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    asyncio.run(killed())

    (row,) = airflow.query(f"DESCRIBE SERVICE {job_id}")
    assert row["status"] in {"CANCELLING", "CANCELLED"}


def test_on_kill_cleans_up(airflow, job):
    """If the task would drop the job, so does a kill, and its input is removed: no task will do it."""
    job_id = job("sleep 60")
    place = "@MLJOBS_DB.PUBLIC.ML_PAYLOADS/payload_1/J"

    asyncio.run(MLJobTrigger(job_id, "snowflake_default", stage_path=place, drop_on_kill=True).on_kill())

    assert [] == airflow.jobs


def test_on_kill_is_patient(airflow, job):
    """A Snowflake that is out of reach is asked again: nobody else will cancel the job."""
    job_id = job("sleep 60")
    airflow.snowflake.faults.add(Fault(matching="DESCRIBE SERVICE", effect="error", nth=1))
    try:
        asyncio.run(MLJobTrigger(job_id, "snowflake_default", patience=3).on_kill())
    finally:
        airflow.snowflake.faults.clear()

    (row,) = airflow.query(f"DESCRIBE SERVICE {job_id}")
    assert row["status"] in {"CANCELLING", "CANCELLED"}


def test_on_kill_can_be_switched_off(airflow, job):
    """With cancel_on_kill=False a kill leaves the job alone."""
    job_id = job("sleep 60")

    asyncio.run(MLJobTrigger(job_id, "snowflake_default", cancel_on_kill=False).on_kill())

    (row,) = airflow.query(f"DESCRIBE SERVICE {job_id}")
    assert row["status"] in {"PENDING", "RUNNING"}
