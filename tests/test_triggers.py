"""MLJobTrigger on its own: its stored form, the faults that it survives, its reports."""

import asyncio
import json
import re
import threading
import time
from types import SimpleNamespace

import pytest
from airflow.sdk.execution_time.comms import GetTaskStates, GetXCom, SetXCom, TaskStatesResult, XComResult
from airflow.sdk.execution_time.supervisor import set_supervisor_comms
from airflow.sdk.serde import deserialize, serialize

from airflow_provider_mljobs import triggers
from airflow_provider_mljobs.emulator.settings import Fault
from airflow_provider_mljobs.jobs.outcome.reports import Reported
from airflow_provider_mljobs.triggers import MLJobTrigger
from tests.budget import budget
from tests.lab import POOL

SPEC = """
spec:
  containers:
  - name: main
    image: /snowflake/images/snowflake_images/st_plat/runtime/x86/runtime_image/snowbooks:1.8.0
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
    return watch_all([job_id], **settings)[0]


def watch_all(job_ids, **settings):
    """Run triggers in one loop until each has fired, and return their events."""
    settings = {"snowflake_conn_id": "snowflake_default", "poll_interval": 0.05, **settings}

    async def first(job_id):
        return await anext(aiter(MLJobTrigger(job_id, **settings).run()))

    async def all_of_them():
        return await asyncio.gather(*map(first, job_ids))

    return [event.payload for event in asyncio.run(all_of_them())]


def watchers():
    """Return the threads that watch jobs."""
    return [thread for thread in threading.enumerate() if thread.name == "mljobs-watcher"]


def test_serialize_round_trip():
    """Any triggerer can build the trigger again from its stored form, through Airflow's own serialisation."""
    trigger = MLJobTrigger(
        "DB.S.J",
        "snowflake_default",
        poll_interval=5.0,
        log_interval=0.0,
        deadline=1.5,
        queue_deadline=2.5,
        timeout=60.0,
        patience=60.0,
        unseen_patience=30.0,
        cancel_on_timeout=True,
        cancel_on_kill=False,
        drop_on_kill=True,
        stage_path="@DB.S.P/J",
    )

    path, kwargs = trigger.serialize()
    again = MLJobTrigger(**deserialize(json.loads(json.dumps(serialize(kwargs)))))

    assert "airflow_provider_mljobs.triggers.MLJobTrigger" == path
    assert trigger.serialize() == again.serialize()


def test_a_trigger_of_an_earlier_version_loads():
    """Arguments that an earlier version has not stored have their defaults."""
    trigger = MLJobTrigger(job_id="DB.S.J", snowflake_conn_id="snowflake_default", poll_interval=5.0)

    assert (5.0, 120.0, None) == (trigger.plan.poll_interval, trigger.plan.unseen_patience, trigger.plan.timeout)


def test_an_argument_that_no_trigger_has():
    """A misspelt argument is refused where the trigger is made."""
    with pytest.raises(TypeError, match="log_intervall"):
        MLJobTrigger("DB.S.J", "snowflake_default", log_intervall=5.0)


@pytest.mark.parametrize(("command", "status"), [("true", "DONE"), ("exit 3", "FAILED")])
def test_end_of_job(job, command, status):
    """The event names the job, the verdict and the status, and nothing else that could grow."""
    job_id = job(command)

    event = watch(job_id)

    assert {"job_id": job_id, "verdict": "finished", "status": status, "message": "", "stage_path": None} == {
        key: value for key, value in event.items() if key not in {"timeline", "printed"}
    }
    assert f"finishing: {status}" == "{phase}: {message}".format(**event["timeline"][-1])
    assert {"cursors": {}, "gaps": [], "is_whole": True, **Reported().to_json()} == event["printed"]


def test_gone(airflow):
    """A job that nothing shows is reported as gone."""
    event = watch("MLJOBS_DB.PUBLIC.NEVER_THERE", unseen_patience=1)

    assert ("gone", "DELETED") == (event["verdict"], event["status"])


def test_deadline(job):
    """A job that runs past its deadline is reported, and the task decides about it."""
    event = watch(job("sleep 60"), deadline=time.time())

    assert "timed_out" == event["verdict"]


@pytest.mark.parametrize("effect", ["reset", "http_503", "session_expired", "master_expired", "error"])
def test_faults_are_survived(airflow, job, effect):
    """A fault between the trigger and Snowflake does not end the wait."""
    job_id = job("true")
    airflow.snowflake.faults.add(Fault(matching="SHOW JOB SERVICES", effect=effect, nth=1))
    try:
        event = watch(job_id)
    finally:
        airflow.snowflake.faults.clear()

    assert ("finished", "DONE") == (event["verdict"], event["status"])


def test_one_login(airflow, job):
    """All triggers of a loop look with one session, however many jobs they wait for; another one is for the logs."""
    jobs = [job(f"echo {number}; sleep 0.5") for number in range(5)]
    before = airflow.snowflake.statements.logins

    events = watch_all(jobs)

    assert ["DONE"] * 5 == [event["status"] for event in events]
    assert 2 == airflow.snowflake.statements.logins - before


def test_patience(airflow, job):
    """A Snowflake that is out of reach for longer than the patience is reported as that, with the reason."""
    job_id = job("true")
    airflow.snowflake.faults.add(Fault(matching="SHOW JOB", effect="error", message="no answer today"))
    try:
        event = watch(job_id, patience=0.1)
    finally:
        airflow.snowflake.faults.clear()

    assert ("unreachable", "UNKNOWN") == (event["verdict"], event["status"])
    assert "no answer today" in event["message"]


def test_connection_out_of_reach(airflow):
    """An Airflow that doesn't return the connection counts as unreachable, with the reason."""
    event = watch("MLJOBS_DB.PUBLIC.J", patience=0.1, snowflake_conn_id="nowhere")

    assert ("unreachable", "UNKNOWN") == (event["verdict"], event["status"])
    assert "nowhere" in event["message"]


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_cancelled(airflow, job, seconds):
    """A trigger that is cancelled, at its very start or in the middle of a look, leaves no thread and no session."""
    job_id = job("sleep 60")
    airflow.snowflake.faults.add(Fault(matching="SHOW JOB", effect="delay", seconds=1))

    async def cancelled():
        trigger = MLJobTrigger(job_id, "snowflake_default", log_interval=0.1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(aiter(trigger.run())), seconds)

    try:
        asyncio.run(cancelled())
        # When all threads meet, none of them is still beginning a wait.
        meeting = threading.Barrier(triggers._THREADS._max_workers)
        list(triggers._THREADS.map(lambda _: meeting.wait(budget()), range(meeting.parties)))
        for thread in watchers():
            thread.join(budget())
    finally:
        airflow.snowflake.faults.clear()

    assert [] == watchers()
    assert "RUNNING" == airflow.query(f"DESCRIBE SERVICE {job_id}")[0]["status"]


def test_several_loops(job):
    """Triggers of different event loops share a watcher, and each gets its own event."""
    jobs = [job(f"sleep 0.{number}") for number in range(2, 5)]
    events = []

    threads = [threading.Thread(target=lambda name=name: events.append(watch(name))) for name in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(budget())

    assert sorted(jobs) == sorted(event["job_id"] for event in events)
    assert {"DONE"} == {event["status"] for event in events}


def test_the_log_while_the_job_runs(job, capsys):
    """The job's output is in the trigger's log before its end, without colours, each line once."""
    job_id = job("for i in 1 2 3 4; do printf '\\\\033[32mstep %s\\\\033[0m\\\\n' $i; sleep 0.3; done")

    event = watch(job_id, log_interval=0.2)

    log = capsys.readouterr().out
    assert ["step 1", "step 2", "step 3", "step 4"] == re.findall(r"^step \d", log, re.MULTILINE)
    assert log.count(f"Log of job {job_id.rpartition('.')[2]}:") > 1
    assert log.index("step 1") < log.index("finishing: DONE")
    assert event["printed"]["is_whole"]


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


@pytest.mark.parametrize("is_ours", [True, False], ids=["its job", "another one"])
def test_on_kill_tells_of_the_end(job, is_ours):
    """A kill writes the job's end to XCom, unless XCom has the job of the next try already."""
    job_id = job("sleep 60")
    reported = {"metrics": {"auc": 0.5}, "series": {"auc": [[1.0, None, 0.5]]}}
    running = {"job_id": job_id if is_ours else "A.B.C", "status": "RUNNING", "timeline": [], **reported}
    xcoms = {"mljob_watched": running}

    def answer(message):
        match message:
            case GetTaskStates():
                return TaskStatesResult(task_states={})
            case GetXCom(key=key):
                return XComResult(key=key, value=xcoms.get(key))
            case SetXCom(key=key, value=value):
                xcoms[key] = value
        return None

    trigger = MLJobTrigger(job_id, "snowflake_default")
    trigger.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1)
    with set_supervisor_comms(SimpleNamespace(send=answer)):
        asyncio.run(trigger.on_kill())

    watched = xcoms["mljob_watched"]
    assert is_ours == (watched != running)
    if is_ours:
        assert ("CANCELLED", {"auc": 0.5}) == (watched["status"], watched["metrics"])
        assert [("finishing", "CANCELLED")] == [(step["phase"], step["message"]) for step in watched["timeline"]]


def test_on_kill_is_the_task_s(airflow, job):
    """The cancel has the task's query tag in Snowflake's history."""
    job_id = job("sleep 60")
    trigger = MLJobTrigger(job_id, "snowflake_default")
    trigger.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1)

    def answer(message):
        return TaskStatesResult(task_states={}) if isinstance(message, GetTaskStates) else None

    with set_supervisor_comms(SimpleNamespace(send=answer)):
        asyncio.run(trigger.on_kill())

    rows = airflow.query(
        "SELECT QUERY_TEXT, QUERY_TAG FROM TABLE(INFORMATION_SCHEMA.QUERY_HISTORY(RESULT_LIMIT => 1000))"
    )
    (tag,) = {row["query_tag"] for row in rows if f"{job_id}!SPCS_CANCEL_JOB" in row["query_text"]}
    assert {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1} == json.loads(tag)


def test_on_kill_drops_no_log_that_it_cannot_read(airflow, job):
    """A job whose log can't be read is cancelled, and not dropped."""
    job_id = job("echo precious; sleep 60")
    airflow.snowflake.faults.add(Fault(matching="GET_SERVICE_LOGS", effect="error", errno=390195))
    try:
        asyncio.run(MLJobTrigger(job_id, "snowflake_default", drop_on_kill=True).on_kill())
    finally:
        airflow.snowflake.faults.clear()

    (row,) = airflow.query(f"DESCRIBE SERVICE {job_id}")
    assert row["status"] in {"CANCELLING", "CANCELLED"}


def test_xcom_out_of_reach(job, capsys):
    """Without XCom no job ends and no line is repeated in each turn; the event has the reports that XCom lacks."""
    metrics = r"echo ::mljobs::{\\\"metrics\\\":{\\\"auc\\\":1},\\\"at\\\":5}"
    job_id = job(f"echo once; {metrics}; sleep 1; echo twice; sleep 1")
    trigger = MLJobTrigger(job_id, "snowflake_default", poll_interval=0.1, log_interval=0.1)
    trigger.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1)

    async def first():
        return await anext(aiter(trigger.run()))

    event = asyncio.run(first()).payload

    log = capsys.readouterr().out
    assert ("finished", "DONE") == (event["verdict"], event["status"])
    assert {"auc": [[5, None, 1]]} == event["printed"]["series"]
    assert "Could not read XCom mljob_watched; log lines of job" in log
    assert (1, 1) == (log.count("once"), log.count("Could not save the progress of job"))


def test_on_kill_is_patient(airflow, job):
    """A cancel that fails in an outage is tried again."""
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
