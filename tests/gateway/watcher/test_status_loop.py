"""The watcher against the embedded Snowflake, in emulated time: one listing for all, and no job is given up."""

import json
import queue
import re
import threading
import time
from functools import partial

import pytest

from airflow_provider_mljobs.emulator import serve
from airflow_provider_mljobs.emulator.settings import Fault, Ready, VirtualJob
from airflow_provider_mljobs.gateway.watcher.follower import JobEnvironment, LogOutput, Message, WaitEnded
from airflow_provider_mljobs.gateway.watcher.status_loop import Clock, Watcher, shared_watcher
from airflow_provider_mljobs.jobs.names import QualifiedName
from airflow_provider_mljobs.jobs.outcome.wait_plan import WaitPlan
from tests.budget import budget, slowness, wait_until

SPEC = """
spec:
  containers:
  - name: main
    image: /snowflake/images/snowflake_images/x:1
    command: ["sh", "-c", "{command}"]
    env: {{DB_PASSWORD: hunter22}}
  endpoints:
  - {{name: dashboard, port: 8265, public: true}}
  - {{name: inner, port: 8266}}
"""
# On a busy machine less happens in a second.
SPEED = 60.0 / min(slowness(), 4.0)
NOT_FOUND = {"effect": "error", "errno": 2003, "sqlstate": "02000", "message": "does not exist or not authorized."}
# Of sixty statements a minute, those of ten seconds can be saved. A turn needs one that is left, and may send two: the
# first one asks where the job prints. Meanwhile the last lines of a job count on the same one, and may cost two.
SAVED, OVERDRAWN = 10, 3


class FastClock(Clock):
    """A clock on which a minute takes a second."""

    def __init__(self, speed=SPEED):
        self._began = time.time()
        self._speed = speed
        self.set_back = 0.0

    def now(self):
        """Return when it is, on this clock."""
        return self._began + (time.time() - self._began) * self._speed - self.set_back

    def monotonic(self):
        """Return seconds on this clock that can't be set."""
        return time.monotonic() * self._speed

    def wait(self, condition, seconds):
        """Wait for so long on this clock."""
        condition.wait(None if seconds is None else seconds / self._speed)


@pytest.fixture(scope="module")
def server():
    """An embedded Snowflake for virtual jobs, which end by the clock and print a number of lines."""
    jobs = (
        VirtualJob(name="QUICK_%", seconds=1.5),
        VirtualJob(name="BAD_%", seconds=0.2, status="FAILED"),
        VirtualJob(name="CHATTY_%", seconds=1.0, log_lines=50),
        VirtualJob(name="ENDLESS_%", seconds=10_000),
    )
    with serve(virtual_jobs=jobs, endpoint_ready=Ready(polls=2)) as server:
        run(server, "CREATE COMPUTE POOL ML_POOL MIN_NODES = 1 MAX_NODES = 50 INSTANCE_FAMILY = CPU_X64_S")
        yield server


def run(server, *statements):
    """Run statements."""
    from snowflake import connector

    with connector.connect(**server.connection_kwargs) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


class Lab:
    """Starts jobs and follows them."""

    def __init__(self, server):
        self.server = server
        self.watchers = []
        self.names = []
        self.logins = 0

    def start(self, *names, command="true", replicas=1, schema="PUBLIC"):
        """Start jobs and return their names."""
        jobs = [QualifiedName.parse(f"MLJOBS_DB.{schema}.{name}", "job") for name in names]
        many = f"REPLICAS = {replicas} " if replicas > 1 else ""
        run(
            self.server,
            *(
                f"EXECUTE JOB SERVICE IN COMPUTE POOL ML_POOL NAME = {job} ASYNC = TRUE {many}"
                f"FROM SPECIFICATION $${SPEC.format(command=command)}$$"
                for job in jobs
            ),
        )
        self.names += jobs
        return jobs

    def watcher(self, clock=None, **settings):
        """Make a watcher of its own."""
        from snowflake import connector

        kwargs = {
            "login_timeout": round(2 * slowness()),
            "network_timeout": round(2 * slowness()),
            **self.server.connection_kwargs,
        }

        def connect():
            self.logins += 1
            return connector.connect(**kwargs)

        made = Watcher(connect, clock=clock or FastClock(), **settings)
        self.watchers.append(made)
        return made

    def await_statement(self, pattern):
        """Wait until Snowflake has been asked something."""
        wait_until(lambda: self.server.statements.matching(pattern), pause=0.01)

    def settle(self):
        """Wait until nothing of the watchers is left."""
        return all(watcher.join(budget()) for watcher in self.watchers)


class Listener:
    """Collects the reports on a job."""

    def __init__(self, watcher, job, *, state=None, log_interval=0.0, cancels=False, **limits):
        self._reports = queue.SimpleQueue()
        self.seen = []
        plan = WaitPlan(job_id=str(job), log_interval=log_interval, cancel_on_timeout=cancels, **limits)
        self.follower = watcher.follow(plan, self._reports.put, state=state or {})

    def until(self, kind):
        """Return the next report of a kind."""
        while True:
            report = self._reports.get(timeout=budget())
            self.seen.append(report)
            if isinstance(report, kind):
                return report

    @property
    def event(self):
        """The event at the end."""
        return self.until(WaitEnded).event

    @property
    def lines(self):
        """The lines of the job's log."""
        return [line for report in self.seen if isinstance(report, LogOutput) for line in report.lines]

    @property
    def notes(self):
        """The messages."""
        return [report.text for report in self.seen if isinstance(report, Message)]


@pytest.fixture
def lab(server):
    """Start jobs and follow them; all are dropped at the end."""
    lab = Lab(server)
    server.statements.clear()
    yield lab
    server.faults.clear()
    run(server, *(f"DROP SERVICE IF EXISTS {job} FORCE" for job in lab.names))


def test_one_listing_serves_all(lab, server):
    """Two hundred jobs cost as much as one: a SHOW at a time, on one session, which is closed with the last job."""
    jobs = lab.start(*(f"QUICK_{number}" for number in range(200)))
    server.statements.clear()
    watcher = lab.watcher()

    listeners = [Listener(watcher, job) for job in jobs]
    statuses = {listener.event["status"] for listener in listeners}

    assert {"DONE"} == statuses
    assert lab.settle()
    texts = server.statements.texts
    assert texts == server.statements.matching(
        "^SHOW JOB SERVICES LIKE 'QUICK_.*%' IN SCHEMA MLJOBS_DB.PUBLIC LIMIT 10000$"
    )
    assert len(texts) < 30
    assert 1 == server.statements.logins


@pytest.mark.parametrize(("name", "status"), [("QUICK_E", "DONE"), ("BAD_E", "FAILED")])
def test_the_end_of_a_job(lab, name, status):
    """The event has the job's end and its timeline."""
    (job,) = lab.start(name)

    listener = Listener(lab.watcher(), job)
    event = listener.event

    assert (str(job), "finished", status) == (event["job_id"], event["verdict"], event["status"])
    assert "finishing" == event["timeline"][-1]["phase"]
    assert f"Job {job}: finishing: {status}." == listener.notes[-1]


def test_long_listings_are_read_in_pages(lab, server):
    """A listing ends with a page that isn't full."""
    from snowflake import connector

    from airflow_provider_mljobs.gateway.client import MLJobClient

    jobs = lab.start(*(f"QUICK_PAGE{number}" for number in range(7)))
    server.statements.clear()
    client = MLJobClient(lambda: connector.connect(**server.connection_kwargs))

    statuses = client.statuses(jobs[0].namespace, "QUICK_PAGE", most=3)

    assert [job.name.value for job in jobs] == sorted(statuses)
    assert 3 == server.statements.total
    client.close()


def test_several_schemas_share_a_session(lab, server):
    """Each schema has its own listing, the login is one."""
    run(server, "CREATE SCHEMA IF NOT EXISTS MLJOBS_DB.OTHER")
    jobs = lab.start("QUICK_A") + lab.start("QUICK_A", schema="OTHER")
    server.statements.clear()
    watcher = lab.watcher()

    assert ["DONE", "DONE"] == [listener.event["status"] for listener in [Listener(watcher, job) for job in jobs]]
    assert 1 == server.statements.logins


def test_a_new_job_wakes_the_watcher(lab):
    """A job that comes while the watcher looks away for an hour is looked for at once."""
    endless, quick = lab.start("ENDLESS_A", "BAD_A")
    watcher = lab.watcher(Clock())
    slow = Listener(watcher, endless, poll_interval=3600)
    slow.until(Message)

    assert "FAILED" == Listener(watcher, quick, poll_interval=0.2).event["status"]

    watcher.stop(slow.follower)
    assert lab.settle()


def test_a_job_that_nothing_shows_is_gone(lab, server):
    """A job that neither its service nor the history shows is looked for over two minutes before it counts as gone."""
    never = QualifiedName.parse("MLJOBS_DB.PUBLIC.NEVER", "job")
    began = time.monotonic()

    listener = Listener(lab.watcher(), never)
    event = listener.event

    assert ("gone", "DELETED") == (event["verdict"], event["status"])
    assert "The job history doesn't have it" in event["message"]
    assert (time.monotonic() - began) * SPEED > 120
    assert 1 == len([text for text in listener.notes if "doesn't show job" in text])
    looks = [len(server.statements.matching(text)) for text in ("^DESCRIBE", "JOB_HISTORY")]
    assert all(3 <= count <= 10 for count in looks)


@pytest.mark.parametrize(
    "hidden",
    [
        [Fault(matching="^SHOW JOB|^DESCRIBE SERVICE", times=2, nth=1, **NOT_FOUND)],
        [Fault(matching="^SHOW JOB|^DESCRIBE SERVICE|JOB_HISTORY", times=9, nth=1, **NOT_FOUND)],
        [
            Fault(matching="^SHOW JOB", effect="empty", nth=1, times=5),
            Fault(matching="^DESCRIBE SERVICE", nth=1, times=3, **NOT_FOUND),
            Fault(matching="JOB_HISTORY", effect="empty", nth=1, times=3),
        ],
    ],
    ids=["once, and the history has it", "for a while, and there is no history", "empty for a while"],
)
def test_a_healthy_job_that_is_not_shown_for_a_while(lab, server, hidden):
    """Negative answers give up no job: it is seen again, and ends as it would have."""
    (job,) = lab.start("QUICK_HIDDEN")
    server.faults.add(*hidden)

    listener = Listener(lab.watcher(), job)
    event = listener.event

    assert ("finished", "DONE") == (event["verdict"], event["status"])
    assert server.statements.matching("^DESCRIBE SERVICE")


def test_a_job_that_only_the_history_shows(lab, server):
    """The job history has the status and the end of a service that the role may no longer see."""
    (job,) = lab.start("QUICK_HISTORY")
    server.faults.add(Fault(matching="^SHOW JOB|^DESCRIBE SERVICE", **NOT_FOUND))

    listener = Listener(lab.watcher(), job)
    event = listener.event

    assert ("finished", "DONE") == (event["verdict"], event["status"])
    assert any(text.startswith(f"Only the job history shows job {job}") for text in listener.notes)


@pytest.mark.parametrize(
    "odd",
    [
        Fault(matching="^SHOW JOB SERVICES.*ODD_SCHEMA", effect="rewrite", column="status", value="EXPLODING"),
        Fault(matching="^SHOW JOB SERVICES.*ODD_SCHEMA", effect="rewrite", column="status"),
        Fault(matching="^SHOW JOB SERVICES.*ODD_SCHEMA", effect="rewrite", column="name"),
        Fault(matching="^SHOW SERVICE CONTAINERS.*ODD_SCHEMA", effect="rewrite", column="start_time", value="Tuesday"),
        Fault(matching="^SHOW SERVICE CONTAINERS.*ODD_SCHEMA", effect="rewrite", column="start_time", value="9" * 30),
        Fault(matching="^SHOW SERVICE CONTAINERS.*ODD_SCHEMA", effect="rewrite", column="instance_id", value="first"),
        Fault(matching="^SELECT CURRENT_TIMESTAMP", effect="empty"),
        Fault(matching="^SELECT CURRENT_TIMESTAMP", effect="rewrite", column="moment", value="noon"),
    ],
    ids=lambda fault: f"{fault.matching} {fault.effect} {fault.column} {fault.value}",
)
def test_an_odd_answer_concerns_one_job(lab, server, odd):
    """An unreadable answer about one job stops the watch over no job, not even that one."""
    run(server, "CREATE SCHEMA IF NOT EXISTS MLJOBS_DB.ODD_SCHEMA")
    (strange,) = lab.start("QUICK_ODD", schema="ODD_SCHEMA")
    (other,) = lab.start("QUICK_EVEN")
    server.faults.add(odd)
    watcher = lab.watcher()

    first, second = Listener(watcher, strange, timeout=5_000, patience=200), Listener(watcher, other, patience=200)

    assert "DONE" == second.event["status"]
    server.faults.clear()
    assert "DONE" == first.event["status"]


def test_a_description_without_rows(lab, server):
    """A description without rows counts as none: the job history is asked, and the job is looked for again."""
    (job,) = lab.start("QUICK_BLANK")
    server.faults.add(
        Fault(matching="^SHOW JOB", effect="empty", nth=1, times=2),
        Fault(matching="^DESCRIBE SERVICE", effect="empty", nth=1, times=2),
    )

    assert "DONE" == Listener(lab.watcher(), job).event["status"]


def test_a_dropped_job_is_looked_up_in_the_history(lab, server):
    """A job that was dropped after its end has ended as the history says."""
    (job,) = lab.start("BAD_D")
    Listener(lab.watcher(), job).until(WaitEnded)
    run(server, f"DROP SERVICE {job}")

    event = Listener(lab.watcher(), job).event

    assert ("finished", "FAILED") == (event["verdict"], event["status"])


def test_a_schema_that_is_gone(lab, server):
    """A schema that can't be listed has no jobs that are still there."""
    nowhere = QualifiedName.parse("MLJOBS_DB.NOWHERE.J", "job")

    assert "gone" == Listener(lab.watcher(), nowhere).event["verdict"]


def test_many_jobs_are_gone_at_once(lab, server):
    """Of many missing jobs, asked for singly, all count as gone soon; other jobs are looked at as often as before."""
    (job,) = lab.start("ENDLESS_M")
    names = [QualifiedName.parse(f"MLJOBS_DB.PUBLIC.GONE_{number}", "job") for number in range(30)]
    watcher = lab.watcher()
    keeper = Listener(watcher, job)

    listeners = [Listener(watcher, name, unseen_patience=20) for name in names]

    assert {"gone"} == {listener.event["verdict"] for listener in listeners}
    assert 30 * 3 <= len(server.statements.matching("^DESCRIBE")) <= 30 * 10
    watcher.stop(keeper.follower)


def test_jobs_that_cannot_be_asked_for_are_asked_ever_more_rarely(lab, server):
    """A job that neither the listing nor a single question shows is asked for after ever longer pauses."""
    (job,) = lab.start("ENDLESS_W")
    names = [QualifiedName.parse(f"MLJOBS_DB.PUBLIC.ODD_{number}", "job") for number in range(5)]
    watcher = lab.watcher()
    keeper = Listener(watcher, job)
    server.faults.add(Fault(matching="DESCRIBE SERVICE", effect="error", errno=604))

    listeners = [Listener(watcher, name, patience=120) for name in names]

    assert {"unreachable"} == {listener.event["verdict"] for listener in listeners}
    assert len(server.statements.matching("^DESCRIBE")) < 5 * 12
    watcher.stop(keeper.follower)


def test_nothing_is_left_after_the_last_job(lab, server):
    """Threads and sessions end with the last job, also when it is stopped in the middle of a look."""
    threads = {thread for thread in threading.enumerate() if thread.name == "mljobs-watcher"}
    (job,) = lab.start("ENDLESS_B")
    server.faults.add(Fault(matching="SHOW JOB", effect="delay", seconds=0.5))
    watcher = lab.watcher(Clock())

    listener = Listener(watcher, job, log_interval=0.1)
    watcher.stop(listener.follower)

    assert lab.settle()
    assert threads == {thread for thread in threading.enumerate() if thread.name == "mljobs-watcher"}


def test_a_watcher_begins_anew(lab, server):
    """After the last job has left, the next one is watched like the first, on a new session."""
    first, second = lab.start("BAD_F", "BAD_G")
    watcher = lab.watcher()
    Listener(watcher, first).until(WaitEnded)
    assert lab.settle()
    server.statements.clear()

    assert "FAILED" == Listener(watcher, second).event["status"]
    assert 1 == server.statements.logins


def test_a_job_that_comes_during_a_look(lab, server):
    """A job that is added during a listing doesn't count as missing from it."""
    first, second = lab.start("ENDLESS_C", "QUICK_C")
    server.faults.add(Fault(matching="SHOW JOB", effect="delay", seconds=0.5, nth=1))
    watcher = lab.watcher(Clock())

    keeper = Listener(watcher, first)
    listener = Listener(watcher, second)

    assert "DONE" == listener.event["status"]
    assert [] == server.statements.matching("^DESCRIBE")
    watcher.stop(keeper.follower)


def test_shared_by_login(lab):
    """Equal logins share a watcher, which is forgotten after its last job."""
    one, same, other = (shared_watcher(identity, lab.watcher) for identity in ("a", "a", "b"))

    assert one is same
    assert one is not other


def test_another_ones_bad_password_hurts_nobody(lab, server):
    """A refused login delays only the watcher with that login."""
    from snowflake import connector

    (job,) = lab.start("QUICK_P")
    kwargs = {**server.connection_kwargs, "password": "wrong", "login_timeout": 5}
    bad = Watcher(lambda: connector.connect(**kwargs), clock=FastClock())
    good = lab.watcher()

    refused, welcome = Listener(bad, job, patience=100), Listener(good, job)

    assert "DONE" == welcome.event["status"]
    event = refused.event
    assert ("unreachable", "UNKNOWN") == (event["verdict"], event["status"])
    assert "Incorrect username or password" in event["message"]
    assert bad.join(budget())


def test_logins_that_fail(lab, server):
    """Half of the logins and a tenth of the statements go wrong, each time a session is lost: the jobs are seen."""
    jobs = lab.start(*(f"QUICK_L{number}" for number in range(20)))
    server.faults.add(
        Fault(request="login", effect="http_503", share=0.5, seed=1),
        Fault(matching="SHOW", effect="master_expired", share=0.5, seed=2),
    )
    watcher = lab.watcher()

    assert {"DONE"} == {listener.event["status"] for listener in [Listener(watcher, job) for job in jobs]}


@pytest.mark.parametrize("effect", ["reset", "http_503", "session_expired", "master_expired", "delay"])
def test_faults_hurt_no_job(lab, server, effect):
    """One statement in ten fails: no job is given up or forgotten, and the number of statements stays bounded."""
    jobs = lab.start(*(f"QUICK_{effect}_{number}".upper() for number in range(200)))
    server.statements.clear()
    server.faults.add(Fault(matching=".", effect=effect, share=0.1, seed=4, seconds=0.5))
    watcher = lab.watcher()

    listeners = [Listener(watcher, job) for job in jobs]

    assert {("finished", "DONE")} == {(e["verdict"], e["status"]) for e in (each.event for each in listeners)}
    assert server.statements.total < 100


# The connector cancels slow statements from a timer of its own, whose requests are cut as well.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_outage_of_three_minutes(lab, server):
    """During an outage of minutes the tasks get a message, and the watch continues after it."""
    jobs = lab.start(*(f"ENDLESS_O{number}" for number in range(20)))
    watcher = lab.watcher()
    # The connector doesn't use the fast clock: its timeouts count sixty times.
    listeners = [Listener(watcher, job, patience=36_000) for job in jobs]
    for listener in listeners:
        listener.until(Message)

    with server.outage():
        warnings = [listener.until(Message).is_warning for listener in listeners]
        time.sleep(180 / SPEED)

    assert all(warnings)
    for listener in listeners:
        while not listener.until(Message).text.endswith("is visible in Snowflake again."):
            pass
        assert [] == [report for report in listener.seen if isinstance(report, WaitEnded)]
        watcher.stop(listener.follower)


def test_a_password_that_is_changed(lab, server):
    """All tasks of the login end with the one reason, and their jobs are left alone; few logins are tried."""
    jobs = lab.start(*(f"ENDLESS_P{number}" for number in range(20)))
    watcher = lab.watcher()
    listeners = [Listener(watcher, job, log_interval=5, patience=120) for job in jobs]
    for listener in listeners:
        listener.until(Message)
    server.statements.clear()
    before = lab.logins

    server.revoke_credentials()
    events = [listener.event for listener in listeners]
    server.restore_credentials()

    assert {"unreachable"} == {event["verdict"] for event in events}
    assert ["Incorrect username or password was specified." in event["message"] for event in events] == [True] * 20
    assert [] == server.statements.matching("CANCEL|DROP")
    # An account would lock the user.
    assert lab.logins - before < 10


def test_a_password_that_is_mended(lab, server):
    """Each login reads the connection again, so a corrected password needs no restart."""
    (job,) = lab.start("ENDLESS_N")
    watcher = lab.watcher()
    listener = Listener(watcher, job)
    listener.until(Message)

    server.revoke_credentials()
    trouble = listener.until(Message)
    server.restore_credentials()

    assert trouble.is_warning
    assert listener.until(Message).text.endswith("is visible in Snowflake again.")
    watcher.stop(listener.follower)


def test_people_are_told_once(lab, server):
    """A reason that stays the same is one warning, however often it is met."""
    (job,) = lab.start("ENDLESS_V")
    server.faults.add(Fault(matching="SHOW JOB", effect="error", errno=390195, message="id token invalid"))

    listener = Listener(lab.watcher(), job, patience=100)
    listener.until(WaitEnded)

    assert 1 == len([text for text in listener.notes if "Could not check" in text])
    assert len(server.statements.matching("SHOW JOB")) > 3


def test_a_clock_that_is_set_back(lab, server):
    """A clock that is set back by an hour delays neither looks nor logs."""
    (job,) = lab.start("TALKER_C", command="for i in $(seq 60); do echo line $i; sleep 0.05; done")
    clock = FastClock()
    listener = Listener(lab.watcher(clock), job, log_interval=5)
    listener.until(LogOutput)

    clock.set_back = 3600.0

    assert "DONE" == listener.event["status"]
    assert [f"line {number}" for number in range(1, 61)] == listener.lines
    assert len([report for report in listener.seen if isinstance(report, LogOutput)]) > 2


def test_patience_is_measured_in_time(lab, server):
    """A Snowflake that stays away is given up after the patience, with the reason; the job is left alone."""
    (job,) = lab.start("ENDLESS_Q")
    server.faults.add(Fault(matching="SHOW JOB", effect="error", errno=390195, message="id token invalid"))

    event = Listener(lab.watcher(), job, patience=30).event

    assert "unreachable" == event["verdict"]
    assert "id token invalid" in event["message"]
    assert [] == server.statements.matching("CANCEL")


def test_deadlines_need_no_look(lab):
    """A task's deadline is kept while the watcher looks away."""
    (job,) = lab.start("ENDLESS_T")
    clock = FastClock()

    event = Listener(lab.watcher(clock), job, poll_interval=3600, deadline=clock.now() + 60).event

    assert ("timed_out", "execution_timeout") == (event["verdict"], event["message"])


def test_a_timeout_counts_from_the_start_of_the_job(lab):
    """Also for who begins to watch a job that has been running for a while: its containers know since when."""
    (job,) = lab.start("ENDLESS_S")
    watcher = lab.watcher()
    Listener(watcher, job).until(Message)

    event = Listener(watcher, job, timeout=30).event

    assert ("timed_out", "timeout") == (event["verdict"], event["message"])


def test_a_job_that_waits_for_too_long(lab):
    """The messages name the reason why a job waits; so does the event of a queue timeout."""
    with serve(pool_ready=Ready(seconds=600)) as server:
        run(server, "CREATE COMPUTE POOL ML_POOL MIN_NODES = 1 MAX_NODES = 5 INSTANCE_FAMILY = CPU_X64_S")
        away = Lab(server)
        (job,) = away.start("WAITING")
        clock = FastClock()

        listener = Listener(away.watcher(clock), job, log_interval=2, queue_deadline=clock.now() + 60)
        event = listener.event

        assert "queue_timed_out" == event["verdict"]
        assert "Compute pool node(s) are being provisioned" == event["message"]
        assert ["queued", "pool starting"] == [step["phase"] for step in event["timeline"]]
        assert away.settle()


def test_the_log_of_a_job_that_is_not_shown_running(lab):
    """A job that Snowflake shows as PENDING after its start has a log; a short one is never shown as RUNNING."""
    chatty = VirtualJob(name="CHATTY_%", seconds=1000, log_lines=10_000)
    with serve(status_lag=10_000, virtual_jobs=(chatty,)) as server:
        run(server, "CREATE COMPUTE POOL ML_POOL MIN_NODES = 1 MAX_NODES = 5 INSTANCE_FAMILY = CPU_X64_S")
        away = Lab(server)
        (job,) = away.start("CHATTY_EARLY")
        watcher = away.watcher()
        listener = Listener(watcher, job, log_interval=2)
        # The first report may only have the reason of the wait.
        output = next(report for report in iter(partial(listener.until, LogOutput), None) if report.lines)
        watcher.stop(listener.follower)

        assert "PENDING" == output.state["status"]
        assert "line 1 of 10000" == output.lines[0]
        assert away.settle()


def test_the_log_is_told_while_the_job_runs(lab):
    """Each line is reported once, in order, before the end; the environment comes before any line."""
    (job,) = lab.start("TALKER", command="for i in $(seq 100); do echo line $i; sleep 0.02; done")

    listener = Listener(lab.watcher(), job, poll_interval=1, log_interval=5)
    event = listener.event

    assert [f"line {number}" for number in range(1, 101)] == listener.lines
    assert JobEnvironment({"DB_PASSWORD": "hunter22"}) == next(r for r in listener.seen if not isinstance(r, Message))
    assert len([report for report in listener.seen if isinstance(report, LogOutput)]) > 1
    assert event["printed"]["is_whole"]


def test_the_log_of_several_instances(lab):
    """Each line says whose it is."""
    (job,) = lab.start("MANY", command="echo I am $SNOWFLAKE_JOB_INDEX", replicas=2)

    listener = Listener(lab.watcher(), job, log_interval=5)
    listener.until(WaitEnded)

    assert ["[instance 0] I am 0", "[instance 1] I am 1"] == sorted(listener.lines)


@pytest.mark.parametrize(("replicas", "asked"), [(2, 3), (1, 0)], ids=["several", "one"])
def test_public_endpoints(lab, server, replicas, asked):
    """The endpoints of a running job of several instances are asked for until Snowflake has provisioned them."""
    (job,) = lab.start("OPEN", command="while true; do echo line; sleep 0.1; done", replicas=replicas)
    listener = Listener(lab.watcher(), job, log_interval=5)
    state = listener.until(LogOutput).state
    while asked and not state["endpoints"]:
        state = listener.until(LogOutput).state
    run(server, f"CALL {job}!SPCS_CANCEL_JOB()")
    listener.until(WaitEnded)

    states = [report.state for report in listener.seen if isinstance(report, LogOutput)]
    addresses = {url for state in states for url in state["endpoints"].values()}
    assert {name for state in states for name in state["endpoints"]} == ({"dashboard"} if asked else set())
    assert all(re.fullmatch(r"https://[\w.-]+\.snowflake\.app", url) for url in addresses)
    assert {} == states[-1]["endpoints"]
    assert asked == len(server.statements.matching("SHOW ENDPOINTS"))


def test_another_process_goes_on_with_the_log(lab):
    """From the saved state another process repeats the latest lines of the first, and no earlier ones."""
    (job,) = lab.start("HANDED_OVER", command="for i in $(seq 60); do echo line $i; sleep 0.05; done")
    watcher = lab.watcher()
    first = Listener(watcher, job, log_interval=5)
    reports = []
    while sum(bool(report.lines) for report in reports) < 2:
        reports.append(first.until(LogOutput))
    watcher.stop(first.follower)

    second = Listener(lab.watcher(), job, log_interval=5, state=reports[-1].state)
    second.until(WaitEnded)

    before = [line for report in reports[:-1] for line in report.lines]
    assert before
    assert [f"line {number}" for number in range(1, 61)] == before + second.lines
    assert ["running", "finishing"] == [step["phase"] for step in second.seen[-1].event["timeline"][-2:]]


def test_what_is_being_read_does_not_count_as_shown(lab, server):
    """Lines of a turn that is cut off by the end of the wait are left to the task that takes the result."""
    from snowflake import connector

    from airflow_provider_mljobs.gateway import inspection
    from airflow_provider_mljobs.gateway.client import MLJobClient
    from airflow_provider_mljobs.gateway.joblogs import Printed

    (job,) = lab.start("CUT_SHORT", command="for i in 1 2 3 4 5; do echo line $i; done; sleep 60", replicas=3)
    server.faults.add(Fault(matching="GET_SERVICE_LOGS", effect="delay", seconds=0.3))
    clock = FastClock()
    listener = Listener(lab.watcher(clock), job, log_interval=1, deadline=clock.now() + 60)
    event = listener.event

    client = MLJobClient(lambda: connector.connect(**server.connection_kwargs))
    rest = inspection.rest_of_log(client, job, Printed.from_json(event["printed"])).unseen
    client.close()

    expected = [f"[instance {instance}] line {number}" for instance in range(3) for number in range(1, 6)]
    assert expected == sorted([*listener.lines, *rest])


def test_logs_cost_no_more_than_their_budget(lab, server):
    """Fifty jobs that print share so many statements a minute, in turn."""
    jobs = lab.start(*(f"CHATTY_{number}" for number in range(50)))
    server.statements.clear()
    clock = FastClock()
    watcher = lab.watcher(clock, log_statements_per_minute=60)
    began = clock.now()

    listeners = [Listener(watcher, job, log_interval=1) for job in jobs]
    for listener in listeners:
        listener.until(WaitEnded)

    minutes = (clock.now() - began) / 60
    asked = len(server.statements.matching("SYSTEM.GET_SERVICE_LOGS|^DESCRIBE|CONTAINERS"))
    assert asked <= 60 * minutes + SAVED + OVERDRAWN


def test_jobs_that_end_together_share_the_budget(lab, server):
    """The last lines of some jobs are read; the logs of the others are left to their tasks."""
    jobs = lab.start(*(f"CHATTY_END{number}" for number in range(30)))
    run(server, *(f"CALL {job}!SPCS_WAIT_FOR('DONE', {budget():.0f})" for job in jobs))
    server.statements.clear()
    clock = Clock()
    watcher = lab.watcher(clock, log_statements_per_minute=60)
    began = clock.monotonic()

    listeners = [Listener(watcher, job, log_interval=100) for job in jobs]
    for listener in listeners:
        listener.until(WaitEnded)

    seconds = clock.monotonic() - began
    asked = len(server.statements.matching("SYSTEM.GET_SERVICE_LOGS|^DESCRIBE"))
    assert {0, 50} == {len(listener.lines) for listener in listeners}
    assert asked <= seconds + SAVED + OVERDRAWN


def test_last_lines_that_nobody_waits_for_leave_the_budget_to_others(lab, server):
    """Statements that were reserved for the last lines of a stopped wait can be spent again."""
    jobs = lab.start(*(f"CHATTY_LEFT{number}" for number in range(9)))
    run(server, *(f"CALL {job}!SPCS_WAIT_FOR('DONE', {budget():.0f})" for job in jobs))
    server.statements.clear()
    watcher = lab.watcher(Clock(), log_statements_per_minute=60)

    server.faults.add(Fault(matching="^DESCRIBE", effect="delay", seconds=2))
    stopped = [Listener(watcher, job, log_interval=100) for job in jobs[:5]]
    for listener in stopped:
        assert "finishing: DONE" in listener.until(Message).text
    lab.await_statement("^DESCRIBE")
    for listener in stopped:
        watcher.stop(listener.follower)
    server.faults.clear()
    others = [Listener(watcher, job, log_interval=100) for job in jobs[5:]]
    for listener in others:
        listener.until(WaitEnded)

    assert [50] * 4 == [len(listener.lines) for listener in others]


def test_no_log_costs_nothing(lab, server):
    """Without a log interval, or without a budget, no log is read."""
    one, other = lab.start("CHATTY_X", "CHATTY_Y")
    server.statements.clear()

    Listener(lab.watcher(), one, log_interval=0).until(WaitEnded)
    Listener(lab.watcher(log_statements_per_minute=0), other, log_interval=5).until(WaitEnded)

    assert [] == server.statements.matching("GET_SERVICE_LOGS")
    assert lab.settle()


def test_a_log_that_cannot_be_read_ends_no_job(lab, server):
    """An unreadable log is read later, or by the task that takes the result."""
    (job,) = lab.start("CHATTY_Z")
    server.faults.add(Fault(matching="GET_SERVICE_LOGS", effect="error", errno=604))

    listener = Listener(lab.watcher(), job, log_interval=5)

    assert "DONE" == listener.event["status"]
    assert [] == listener.lines


def test_who_cannot_take_a_report_disturbs_nobody(lab):
    """A task's log that raises doesn't end the watch over the others, nor its own."""
    jobs = lab.start("BAD_R", "BAD_S")
    watcher = lab.watcher()
    ends = queue.SimpleQueue()

    def refuse(report):
        ends.put(report)
        raise OSError("No space left on device")

    watcher.follow(WaitPlan(job_id=str(jobs[0]), log_interval=0), refuse)

    assert "FAILED" == Listener(watcher, jobs[1]).event["status"]
    while not isinstance(ends.get(timeout=budget()), WaitEnded):
        pass
    assert lab.settle()


@pytest.mark.parametrize(
    ("limits", "limit"),
    [({"timeout": 60}, "timeout"), ({"deadline": 60}, "execution_timeout")],
    ids=["timeout", "execution_timeout"],
)
def test_a_job_that_is_out_of_time_is_cancelled(lab, server, limits, limit):
    """A job out of time is looked at once more, then cancelled, and the wait ends."""
    (job,) = lab.start("ENDLESS_LATE")
    clock = FastClock()
    if "deadline" in limits:
        limits = {"deadline": clock.now() + limits["deadline"]}

    listener = Listener(lab.watcher(clock), job, cancels=True, **limits)
    event = listener.event

    assert ("timed_out", limit, "CANCELLING", True) == tuple(
        event[key] for key in ("verdict", "message", "status", "is_overdue")
    )
    assert 1 == len(server.statements.matching("SPCS_CANCEL_JOB"))
    assert [text for text in listener.notes if "is out of time" in text and f"the task's {limit}" in text]


def test_a_job_whose_waiter_does_not_end_it(lab, server):
    """Without being asked to the watcher cancels nothing: a sensor's job is another one's."""
    (job,) = lab.start("ENDLESS_SENSED")

    event = Listener(lab.watcher(), job, timeout=30).event

    assert ("timed_out", "RUNNING") == (event["verdict"], event["status"])
    assert [] == server.statements.matching("SPCS_CANCEL_JOB")


def test_a_job_that_ends_before_its_deadline(lab, server):
    """A job that is seen to be DONE by the look after its deadline has ended well."""
    (job,) = lab.start("BAD_AND_SOON")
    clock = FastClock()
    time.sleep(0.5)

    event = Listener(lab.watcher(clock), job, cancels=True, deadline=clock.now() - 1).event

    assert ("finished", "FAILED") == (event["verdict"], event["status"])
    assert [] == server.statements.matching("SPCS_CANCEL_JOB")


def test_a_job_that_ended_behind_its_deadline(lab, server):
    """For a job that was DONE at the first look after its deadline, the time of its end decides."""
    (job,) = lab.start("QUICK_UNWATCHED")
    clock = FastClock(speed=1)
    began = clock.now()
    run(server, f"CALL {job}!SPCS_WAIT_FOR('DONE', {budget():.0f})")

    watcher = lab.watcher(clock)
    late, early = (Listener(watcher, job, cancels=True, deadline=began + after).event for after in (0.5, 2.5))

    assert ("timed_out", "execution_timeout", "DONE", True) == tuple(
        late[key] for key in ("verdict", "message", "status", "is_overdue")
    )
    assert ("finished", "DONE") == (early["verdict"], early["status"])


def test_a_process_that_dies_between_the_cancel_and_the_event(lab, server):
    """The next one comes to the same verdict: the decision was handed over before the cancel."""
    (job,) = lab.start("ENDLESS_CRASH")
    first = Listener(lab.watcher(), job, cancels=True, timeout=30)
    event = first.event
    states = [report.state for report in first.seen if isinstance(report, LogOutput) and "overdue" in report.state]
    order = [type(report).__name__ for report in first.seen]

    again = Listener(lab.watcher(), job, cancels=True, timeout=10_000, state=json.loads(json.dumps(states[-1]))).event

    assert "LogOutput" in order[:-1]
    assert ("timed_out", "timeout", True) == tuple(again[key] for key in ("verdict", "message", "is_overdue"))
    assert event["verdict"] == again["verdict"]
    assert 1 == len(server.statements.matching("SPCS_CANCEL_JOB"))


def test_a_cancel_that_cannot_be_said(lab, server):
    """A job out of time is cancelled as patiently as an outage is borne; then the task has to see to it."""
    (job,) = lab.start("ENDLESS_UNCANCELLED")
    server.faults.add(Fault(matching="SPCS_CANCEL_JOB", effect="error", errno=390195))

    event = Listener(lab.watcher(), job, cancels=True, timeout=30, patience=60).event

    assert ("timed_out", "RUNNING") == (event["verdict"], event["status"])
    assert len(server.statements.matching("SPCS_CANCEL_JOB")) > 1


def test_a_cancel_that_is_refused(lab, server):
    """A cancel that Snowflake refuses is repeated and reported once; the job counts as seen."""
    (job,) = lab.start("ENDLESS_REFUSED")
    server.faults.add(Fault(matching="SPCS_CANCEL_JOB", effect="error"))

    listener = Listener(lab.watcher(), job, cancels=True, timeout=30, patience=60)
    event = listener.event

    assert ("timed_out", "RUNNING") == (event["verdict"], event["status"])
    assert len(server.statements.matching("SPCS_CANCEL_JOB")) > 1
    assert 1 == sum(note.startswith(f"Could not cancel job {job}; trying again: ") for note in listener.notes)
    assert not any("visible in Snowflake again" in note for note in listener.notes)


@pytest.mark.parametrize(
    "state",
    [
        {"timeline": None},
        {"timeline": [1]},
        {"timeline": [{"phase": "dreaming", "at": "2026-01-01T00:00:00Z", "message": ""}]},
        {"timeline": [{"phase": "running", "at": "0001-01-01T00:00:00+14:00", "message": ""}]},
        {"timeline": [{"phase": "running", "at": 5, "message": ""}]},
        {"cursors": [1]},
        {"gaps": [[0, "main", {}]]},
        {"overdue": {"verdict": "gone"}},
        {"overdue": 1},
    ],
    ids=str,
)
def test_a_state_that_cannot_be_read(lab, state):
    """An unreadable state starts the watch from the beginning, with a message."""
    (job,) = lab.start("QUICK_STATE")

    listener = Listener(lab.watcher(), job, state=state, log_interval=1)
    event = listener.event

    assert ("finished", "DONE") == (event["verdict"], event["status"])
    assert "can't be read; watching the job from the beginning" in listener.notes[0]


@pytest.mark.parametrize("ahead", [400, -400], ids=["Snowflake's clock is ahead", "ours is ahead"])
def test_a_timeout_by_clocks_that_differ(lab, ahead):
    """A job with a timeout of 300 s runs for 300 s, though the two clocks differ by more."""
    (job,) = lab.start("ENDLESS_CLOCK")
    clock = FastClock()
    clock.set_back = ahead
    began = clock.now()

    event = Listener(lab.watcher(clock), job, timeout=300).event

    assert "timed_out" == event["verdict"]
    assert 240 < clock.now() - began < 650
