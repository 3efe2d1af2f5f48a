"""Payloads on a stage: uploaded once, shared, and never removed while a task may still use them."""

import itertools
import json
import logging
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_mljobs.emulator.settings import Fault, VirtualJob
from airflow_provider_mljobs.exceptions import GatewayError
from airflow_provider_mljobs.gateway import locks, statements
from airflow_provider_mljobs.gateway.client import MLJobClient
from airflow_provider_mljobs.gateway.connection import Connection
from airflow_provider_mljobs.gateway.payloads import Payloads, put
from airflow_provider_mljobs.jobs.comment import Origin, TaskKey, payload_of
from airflow_provider_mljobs.jobs.names import Identifier, Namespace, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.payload.archive import Payload
from airflow_provider_mljobs.jobs.spec.job import JobSpec
from airflow_provider_mljobs.jobs.spec.rendering import SpecificationSource, result_directory
from airflow_provider_mljobs.jobs.values.arguments import Arguments
from tests.hostile import COMMENTS
from tests.lab import served

GRACE = 1000.0
DATABASE, SCHEMA = Identifier("MLJOBS_DB"), Identifier("PUBLIC")
STAGE = StagePath.parse("ML_PAYLOADS/shared", "stage_name", Namespace(DATABASE, SCHEMA))
PAYLOAD = Payload(archive=b"the same code")
CONTAINER = {"name": "main", "image": "/snowflake/images/snowflake_images/x:1", "command": ["x"]}
SPECIFICATION = SpecificationSource(text=json.dumps({"spec": {"containers": [CONTAINER]}}))


@pytest.fixture(scope="module")
def server():
    """An embedded Snowflake with virtual jobs."""
    with served(virtual_jobs=(VirtualJob(name="MLJOB_%", seconds=1e6),)) as server:
        yield server


@pytest.fixture
def connect(server):
    """Open connections to a Snowflake with an empty stage and no jobs."""
    from snowflake import connector

    opened = []

    def connect():
        opened.append(Connection(lambda: connector.connect(**server.connection_kwargs)))
        return opened[-1]

    first = connect()
    first.rows(f"REMOVE {STAGE}")
    for row in first.rows("SHOW JOB SERVICES IN ACCOUNT"):
        first.rows(f"DROP SERVICE {row['name']}")
    server.statements.clear()
    yield connect
    for connection in opened:
        connection.close()


def archives(connection):
    """Return the directories that have a payload."""
    return sorted(row["name"].split("/")[-2] for row in connection.rows(statements.list_files(STAGE)))


def start(connection, number, payload):
    """Start a job whose COMMENT names its payload, as the client does."""
    name = QualifiedName(DATABASE, SCHEMA, Identifier(f"MLJOB_{number}"))
    comment = json.dumps({"payload": payload.path.rpartition("/")[2]})
    spec = JobSpec(name=name, compute_pool=Identifier("ML_POOL"), comment=comment)
    connection.rows(statements.execute_job_service(spec, SPECIFICATION))


def test_the_same_code_is_uploaded_once(server, connect):
    """A later task finds the same code by its digest, with one LIST and no PUT."""
    payloads = Payloads(connect(), grace=GRACE, clock=lambda: 5 * GRACE)
    first = payloads.upload(STAGE, PAYLOAD, Identifier("A"))
    server.statements.clear()
    second = payloads.upload(STAGE, PAYLOAD, Identifier("B"))

    assert f"{STAGE}/payload_{PAYLOAD.digest}_5" == str(first) == str(second)
    assert (1, []) == (server.statements.total, server.statements.matching("PUT"))


def test_other_code_lies_elsewhere(connect):
    """Other code has another digest, and so another directory."""
    connection = connect()
    payloads = Payloads(connection, grace=GRACE, clock=lambda: 5 * GRACE)
    payloads.upload(STAGE, PAYLOAD, Identifier("A"))
    payloads.upload(STAGE, Payload(archive=b"other code"), Identifier("A"))

    assert 2 == len(archives(connection))


@pytest.mark.parametrize(
    ("period", "expected"),
    [(5.0, "5"), (5.9, "5"), (6.0, "5"), (6.9, "5"), (7.0, "7"), (9.5, "9")],
)
def test_a_payload_is_used_in_its_period_and_the_next(connect, period, expected):
    """After two periods the same code is uploaded under another name, so that an old payload never becomes new."""
    connection = connect()
    Payloads(connection, grace=GRACE, clock=lambda: 5 * GRACE).upload(STAGE, PAYLOAD, Identifier("A"))
    place = Payloads(connection, grace=GRACE, clock=lambda: period * GRACE).upload(STAGE, PAYLOAD, Identifier("B"))

    assert f"{STAGE}/payload_{PAYLOAD.digest}_{expected}" == str(place)


@pytest.mark.parametrize(("period", "expected"), [(7.9, 1), (8.0, 0)])
def test_sweep(connect, period, expected):
    """A payload is removed one whole period after new jobs have stopped using it."""
    connection = connect()
    Payloads(connection, grace=GRACE, clock=lambda: 5 * GRACE).upload(STAGE, PAYLOAD, Identifier("A"))
    removed = Payloads(connection, grace=GRACE, clock=lambda: period * GRACE).sweep(STAGE)

    assert (1 - expected, expected) == (len(removed), len(archives(connection)))


def test_a_job_keeps_its_payload(connect):
    """A job keeps its payload at any age, because it may wait for a node for days."""
    connection = connect()
    start(connection, 1, Payloads(connection, grace=GRACE, clock=lambda: 0).upload(STAGE, PAYLOAD, Identifier("A")))
    later = Payloads(connection, grace=GRACE, clock=lambda: 99 * GRACE)
    while_it_is_there = later.sweep(STAGE)
    connection.rows("DROP SERVICE MLJOB_1")

    assert [] == while_it_is_there
    assert [f"payload_{PAYLOAD.digest}_0"] == [directory.path.rpartition("/")[2] for directory in later.sweep(STAGE)]


@pytest.mark.parametrize("comment", COMMENTS.values(), ids=COMMENTS)
def test_a_strangers_comment_stops_no_sweep(connect, comment):
    """Other people's COMMENTs, which name no payload, protect none."""
    connection = connect()
    job = QualifiedName(DATABASE, SCHEMA, Identifier("MLJOB_OF_A_STRANGER"))
    spec = JobSpec(name=job, compute_pool=Identifier("ML_POOL"), comment=comment)
    connection.rows(statements.execute_job_service(spec, SPECIFICATION))
    Payloads(connection, grace=GRACE, clock=lambda: 0).upload(STAGE, Payload(archive=b"old"), Identifier("A"))
    Payloads(connection, grace=GRACE, clock=lambda: 9 * GRACE).upload(STAGE, PAYLOAD, Identifier("B"))

    assert [f"payload_{PAYLOAD.digest}_9"] == archives(connection)


def test_a_sweep_describes_no_job_whose_comment_says_enough(server, connect):
    """A task's job without a payload isn't described, because its COMMENT says so."""
    connection = connect()
    task = TaskKey(airflow="", dag_id="dag", run_id="run", task_id="job")
    job = QualifiedName(DATABASE, SCHEMA, task.job_name(0, 1))
    origin = Origin(task=task, run_started="2026-01-01", epoch=0, try_number=1)
    spec = JobSpec(name=job, compute_pool=Identifier("ML_POOL"), comment=origin.to_comment())
    connection.rows(statements.execute_job_service(spec, SPECIFICATION))
    Payloads(connection, grace=GRACE, clock=lambda: 0).upload(STAGE, Payload(archive=b"old"), Identifier("A"))
    Payloads(connection, grace=GRACE, clock=lambda: 9 * GRACE).upload(STAGE, PAYLOAD, Identifier("B"))

    assert [f"payload_{PAYLOAD.digest}_9"] == archives(connection)
    assert [] == server.statements.matching("DESCRIBE SERVICE")


def test_an_upload_sweeps(connect):
    """An upload removes old payloads; other files on the stage stay."""
    connection = connect()
    Payloads(connection, grace=GRACE, clock=lambda: 0).upload(STAGE, Payload(archive=b"old"), Identifier("A"))
    now = Payloads(connection, grace=GRACE, clock=lambda: 9 * GRACE)
    definition = now.keep(STAGE, Payload(archive=b"old"))
    now.upload(STAGE, PAYLOAD, Identifier("B"))

    assert sorted([definition.path.rpartition("/")[2], f"payload_{PAYLOAD.digest}_9"]) == archives(connection)


def test_no_grace_no_sharing(connect):
    """Without sharing, each job has its own payload, and its clean-up removes it."""
    connection = connect()
    payloads = Payloads(connection, grace=0)
    first = payloads.upload(STAGE, PAYLOAD, Identifier("MLJOB_A"))
    second = payloads.upload(STAGE, PAYLOAD, Identifier("MLJOB_B"))

    assert first != second
    payloads.remove_own(first)
    assert [second.name] == archives(connection)


@pytest.mark.parametrize("name", ["payload_0a1b_5", "definition_0a1b", "payload_0a1b", "0a1b_MLJOB_A", "payloads"])
def test_only_a_jobs_own_payload_goes_with_its_job(connect, name):
    """A job's clean-up removes no directory but its own payload, least of all a definition's payload."""
    connection = connect()
    put(connection, b"", STAGE / name / "payload.pyz")
    Payloads(connection, grace=0).remove_own(STAGE / name)

    assert [name] == archives(connection)


@pytest.fixture
def client(server):
    """A client without sharing whose jobs are refused; its stage is empty."""
    from snowflake import connector

    client = MLJobClient(lambda: connector.connect(**server.connection_kwargs), payload_grace=0)
    client.connection.rows(statements.remove(STAGE / ""), most=0)
    server.faults.add(Fault(matching="EXECUTE JOB", effect="error", message="no more jobs"))
    yield client
    server.faults.clear()
    client.close()


def test_a_job_of_a_definition_leaves_the_payload(client):
    """A definition's payload survives refused submits and clean-ups."""
    job = QualifiedName(DATABASE, SCHEMA, Identifier("MLJOB_OF_A_DEFINITION"))
    spec = JobSpec(name=job, compute_pool=Identifier("ML_POOL"), stage=STAGE)
    definition = client.keep(spec, PAYLOAD)
    with pytest.raises(GatewayError, match="no more jobs"):
        client.submit(spec, definition, Arguments.of_script(()))
    client.clean_up(job, result_directory(spec, definition))

    assert [f"definition_{PAYLOAD.digest}"] == archives(client.connection)


def test_a_job_takes_its_own_payload_with_it(client):
    """A refused job leaves no unshared payload behind."""
    job = QualifiedName(DATABASE, SCHEMA, Identifier("MLJOB_ALONE"))
    spec = JobSpec(name=job, compute_pool=Identifier("ML_POOL"), stage=STAGE)
    place = client.upload(spec, PAYLOAD)
    with pytest.raises(GatewayError, match="no more jobs"):
        client.submit(spec, place, Arguments.of_script(()))

    assert [] == archives(client.connection)


def test_tasks_that_start_together_upload_once(server, connect):
    """Tasks that start together on one machine upload once."""
    clients = [Payloads(connect(), grace=GRACE, clock=lambda: 5 * GRACE) for _ in range(16)]
    barrier = threading.Barrier(len(clients))

    def upload(payloads):
        barrier.wait()
        return payloads.upload(STAGE, PAYLOAD, Identifier("A"))

    with ThreadPoolExecutor(len(clients)) as pool:
        places = set(pool.map(upload, clients))

    assert 1 == len(places)
    assert 1 == len(server.statements.matching("PUT"))


def test_an_upload_waits_no_longer_than_its_limit(connect, tmp_path, monkeypatch, caplog):
    """After the limit a task uploads without the lock; the log has the reason and the limit."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    caplog.set_level(logging.INFO, logger=locks.__name__)
    payloads = Payloads(connect(), grace=GRACE, clock=lambda: 5 * GRACE, lock_seconds=0.3)
    directory = f"{STAGE}/payload_{PAYLOAD.digest}_5"
    with locks.locked(directory, "the test", 0.0):
        place = payloads.upload(STAGE, PAYLOAD, Identifier("A"))

    (lock,) = (tmp_path / f"mljobs-{os.geteuid()}").iterdir()
    assert directory == str(place)
    assert [
        f"Waiting for the upload to {directory} by another process of this machine, at most 0.3 s (lock: {lock}).",
        f"Another process of this machine still holds {lock}, after 0.3 s; continuing without the lock.",
    ] == caplog.messages


class TestUnsafePlace:
    """An unsafe directory for locks isn't used: no link is followed, and nothing fails."""

    @pytest.fixture
    def upload(self, connect, tmp_path, monkeypatch, caplog):
        """Upload with the directory for locks below this path; returns the log."""
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

        def upload():
            place = Payloads(connect(), grace=GRACE, clock=lambda: 5 * GRACE).upload(STAGE, PAYLOAD, Identifier("A"))

            assert f"{STAGE}/payload_{PAYLOAD.digest}_5" == str(place)
            return "\n".join(caplog.messages)

        return upload

    @pytest.fixture
    def directory(self, tmp_path):
        """The path of the directory for locks, which doesn't exist yet."""
        return tmp_path / f"mljobs-{os.geteuid()}"

    def test_nothing_to_say_about_a_safe_one(self, upload, directory):
        """A new directory belongs to this user alone, and the log is empty."""
        assert "" == upload()
        assert 0o700 == stat.S_IMODE(directory.stat().st_mode)

    def test_a_file_in_its_place(self, upload, directory):
        """A file in place of the directory is no reason to fail, because locks only save uploads."""
        directory.write_text("in the way")

        assert f"Continuing without a lock for the upload to {STAGE}/" in upload()

    def test_a_link_in_its_place(self, upload, directory, tmp_path):
        """A link in place of the directory isn't followed."""
        target = tmp_path / "target"
        target.mkdir(mode=0o700)
        directory.symlink_to(target)

        assert "Continuing without a lock" in upload()
        assert [] == list(target.iterdir())

    def test_a_directory_that_others_can_write_to(self, upload, directory):
        """A directory that others can write to is refused with its owner and with advice."""
        directory.mkdir()
        directory.chmod(0o777)

        assert "with mode 0777, not to this user alone (0700). Remove it, or set TMPDIR" in upload()
        assert [] == list(directory.iterdir())

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory of another user's")
    def test_a_directory_of_another_user(self, upload, directory):
        """A directory of another user is refused with any mode."""
        directory.mkdir(mode=0o700)
        os.chown(directory, 12345, 12345)

        assert f"{directory} belongs to user 12345" in upload()
        assert [] == list(directory.iterdir())

    def test_a_link_in_place_of_a_lock(self, upload, directory, tmp_path):
        """A link in place of a lock isn't followed, even in a safe directory."""
        directory.mkdir(mode=0o700)
        for number in range(64):
            (directory / f"{number}.lock").symlink_to(tmp_path / "target")

        assert "Continuing without a lock" in upload()
        assert not (tmp_path / "target").exists()

    def test_a_pipe_in_place_of_a_lock(self, upload, directory):
        """A pipe without a writer in place of a lock doesn't block."""
        directory.mkdir(mode=0o700)
        for number in range(64):
            os.mkfifo(directory / f"{number}.lock")

        assert "" == upload()


def test_patient_tasks_leave_the_upload_to_another_machine(server, connect):
    """On other machines, later mapped tasks wait a moment for the first one's upload."""
    first, other = (Payloads(connect(), grace=GRACE, clock=lambda: 5 * GRACE) for _ in range(2))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(other.upload, STAGE, PAYLOAD, Identifier("B"), patience=30)
        place = first.upload(STAGE, PAYLOAD, Identifier("A"))

        assert place == waiting.result()
    assert 1 == len(server.statements.matching("PUT"))


class Stepped(Connection):
    """A connection that runs each statement on the test's command."""

    role = "PUBLIC"

    def __init__(self, connection):
        self._inner = connection
        self._turn, self._done = threading.Semaphore(0), threading.Semaphore(0)

    def fold(self, statement, take):
        """Wait for the command, then run the statement."""
        self._turn.acquire()
        try:
            return self._inner.fold(statement, take)
        finally:
            self._done.release()

    def step(self, thread):
        """Run one more statement of a thread, if it has any."""
        self._turn.release()
        while thread.is_alive() and not self._done.acquire(timeout=0.005):
            pass


# The cleaner: LIST, SHOW, REMOVE. The submitter: LIST, and if it uploads LIST, PUT, LIST; then EXECUTE.
TURNS = sorted(set(itertools.permutations("ccc" + "sssss")))


@pytest.mark.parametrize("age", [1.9, 2.0, 2.9, 3.0, 7.5])
@pytest.mark.parametrize("turns", TURNS[::7], ids="".join)
def test_no_payload_is_removed_between_its_choice_and_its_job(connect, turns, age):
    """No order of the statements of a cleaning task and a submitting one removes the submitter's payload.

    The submitter's clock may be almost a period behind.
    """
    setup, for_cleaner, for_submitter = connect(), Stepped(connect()), Stepped(connect())
    Payloads(setup, grace=GRACE, clock=lambda: 0.0).upload(STAGE, PAYLOAD, Identifier("OLD"))
    cleaner = Payloads(for_cleaner, grace=GRACE, clock=lambda: age * GRACE)
    submitter = Payloads(for_submitter, grace=GRACE, clock=lambda: (age - 0.9) * GRACE)
    chosen = []

    def submit():
        chosen.append(submitter.upload(STAGE, PAYLOAD, Identifier("NEW")))
        start(for_submitter, 1, chosen[0])

    threads = {"c": threading.Thread(target=cleaner.sweep, args=[STAGE]), "s": threading.Thread(target=submit)}
    stepped = {"c": for_cleaner, "s": for_submitter}
    for thread in threads.values():
        thread.start()
    for turn in (*turns, *"ccccssssss"):
        stepped[turn].step(threads[turn])
    for thread in threads.values():
        thread.join()

    assert chosen[0].path.rpartition("/")[2] in archives(setup)


def test_an_incomplete_listing(server, connect):
    """A listing that lacks a running job removes no payload, because that job may need it."""
    first, later = (Payloads(connect(), grace=GRACE, clock=lambda at=at: at * GRACE) for at in (5, 9))
    place = first.upload(STAGE, PAYLOAD, Identifier("A"))
    start(connect(), 1, place)
    server.faults.add(Fault(matching="SHOW JOB SERVICES", effect="empty", nth=1))

    assert ([], []) == (later.unused(STAGE), later.unused(STAGE))
    assert [place] == later.unused(STAGE, [QualifiedName(DATABASE, SCHEMA, Identifier("MLJOB_1"))])


@pytest.mark.parametrize("comment", ["", "by hand", "[]", "{", '{"payload": 5}', '{"dag_id": "x"}'])
def test_comments_without_a_payload(comment):
    """Other people's COMMENTs name no payload."""
    assert payload_of(comment) is None
