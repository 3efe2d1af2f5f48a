"""The collector: what accidents leave behind goes, and nothing else does."""

import itertools
import json
import time
from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_provider_mljobs.emulator.settings import Fault, VirtualJob
from airflow_provider_mljobs.exceptions import GatewayError, InvalidJobSpecError, NotFoundOrNotAuthorizedError
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.gateway.client import MLJobClient
from airflow_provider_mljobs.gateway.collection import Kind
from airflow_provider_mljobs.gateway.collector import Collector, Rules
from airflow_provider_mljobs.gateway.payloads import put
from airflow_provider_mljobs.jobs.comment import VARIABLES, Origin, TaskKey
from airflow_provider_mljobs.jobs.names import Identifier, Namespace, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.spec.job import JobSpec
from airflow_provider_mljobs.jobs.spec.rendering import RESULT_VOLUME, SpecificationSource
from tests.hostile import COMMENTS
from tests.lab import served

DAY, WEEK = timedelta(days=1), timedelta(days=7)
DATABASE, SCHEMA, OTHER_SCHEMA = Identifier("MLJOBS_DB"), Identifier("PUBLIC"), Identifier("ELSEWHERE")
STAGE = StagePath.parse("ML_PAYLOADS/shared", "stage_name", Namespace(DATABASE, SCHEMA))
OTHER_STAGE = StagePath.parse("OTHER_PAYLOADS", "stage_name", Namespace(DATABASE, SCHEMA))
TRAIN = TaskKey(airflow="prod", dag_id="weekly", run_id="manual__1", task_id="train")
# Of a period that is far away, and of one that is long over.
PAYLOAD, OLD_PAYLOAD = "payload_ab_99999999", "payload_ab_0"
CONTAINER = {"name": "main", "image": "/snowflake/images/snowflake_images/x:1", "command": ["x"]}
SPECIFICATION = SpecificationSource(text=json.dumps({"spec": {"containers": [CONTAINER]}}))


@pytest.fixture(scope="module")
def server():
    """An embedded Snowflake with two schemas and two stages, whose jobs only pretend to run; some are over at once."""
    over, running = VirtualJob(name="%DONE%", seconds=0.0), VirtualJob(name="MLJOB_%", seconds=1e6)
    with served(virtual_jobs=(over, running)) as server:
        yield server


@pytest.fixture
def client(server):
    """A client; there are no jobs and no files at the start."""
    from snowflake import connector

    client = MLJobClient(lambda: connector.connect(**server.connection_kwargs))
    client.connection.rows(f"CREATE SCHEMA IF NOT EXISTS {DATABASE}.{OTHER_SCHEMA}")
    client.connection.rows(f"CREATE STAGE IF NOT EXISTS {OTHER_STAGE.stage}")
    for job in jobs(client):
        client.connection.rows(f"DROP SERVICE {job}")
    for stage in (STAGE, OTHER_STAGE):
        client.connection.rows(statements.remove(stage / ""))
    server.statements.clear()
    yield client
    server.faults.clear()
    client.close()


def origin(task=TRAIN, **parts):
    """Say which task a job is of."""
    return Origin(
        **{"task": task, "run_started": "2026-01-01", "epoch": 0, "try_number": 1, "payload": PAYLOAD} | parts
    )


def start(client, origin, *, comment=None, name=None, schema=SCHEMA, **fields):
    """Start a job as a task does: its name and its COMMENT are those of the task."""
    job = QualifiedName(DATABASE, schema, name or origin.task.job_name(origin.epoch, origin.try_number))
    spec = JobSpec(name=job, compute_pool=Identifier("ML_POOL"), comment=comment or origin.to_comment(), **fields)
    client.connection.rows(statements.execute_job_service(spec, SPECIFICATION))
    return job


def leave(client, *paths, stage=STAGE, payload=PAYLOAD, job=""):
    """Put files on a stage, below the payload or below a job."""
    for path in paths:
        put(client.connection, b"x", stage / payload / job / path if job else stage / payload / path)


def jobs(client):
    """Return the jobs that there are."""
    rows = client.connection.rows("SHOW JOB SERVICES IN ACCOUNT")
    return [f"{row['database_name']}.{row['schema_name']}.{row['name']}" for row in rows]


def files(client, stage=STAGE):
    """Return the files of a stage, without the directories of payload and job."""
    inside = f"{stage.path}/" if stage.path else ""
    rows = client.connection.rows(statements.list_files(stage / ""))
    return sorted(row["name"].partition("/")[2].removeprefix(inside) for row in rows)


def collect(client, states=None, *, in_days=8, most=10_000, **rules):
    """Run the collector some days later; ``states`` are those of tasks, and other tasks are gone."""
    rules = Rules(**{"airflow": "prod", "older_than": WEEK, "stages": (STAGE,)} | rules)
    collector = Collector(client, rules, clock=lambda: time.time() + in_days * DAY.total_seconds(), most=most)
    return collector.collect(lambda tasks: {task: state for task, state in (states or {}).items() if task in tasks})


@pytest.mark.parametrize("state", ["success", "failed", "skipped", "upstream_failed", "removed", "gone"])
def test_a_task_that_is_over(client, state):
    """Its job goes, running or not."""
    job = start(client, origin())
    found = collect(client, {} if state == "gone" else {TRAIN: state})
    (item,) = found.items

    assert [] == jobs(client)
    assert (Kind.JOB, str(job), "dropped", str(TRAIN), state) == (
        item.kind, item.name, item.action, item.task, item.task_state,
    )  # fmt: skip
    assert (0, 0, ()) == (found.kept, found.not_ours, found.errors)


@pytest.mark.parametrize(
    "state",
    [
        *("scheduled", "queued", "running", "restarting", "deferred", "up_for_retry", "up_for_reschedule"),
        *("awaiting_input", None, "a state of tomorrow"),
    ],
)
def test_a_task_that_is_not_over(client, state):
    """Its job stays, however old."""
    start(client, origin())
    found = collect(client, {TRAIN: state})

    assert ((), 1, 1) == (found.items, found.kept, len(jobs(client)))


def test_mapped_tasks(client):
    """Each instance has a state of its own."""
    mapped = [replace(TRAIN, map_index=index) for index in range(3)]
    started = [start(client, origin(task)) for task in mapped]
    collect(client, {mapped[0]: "success", mapped[1]: "running"})

    assert [str(started[1])] == jobs(client)


def test_all_attempts_of_a_task(client):
    """Also those before a clear, which somebody has forgotten."""
    for epoch, attempt in [(0, 1), (0, 12), (3, 1)]:
        start(client, origin(epoch=epoch, try_number=attempt))
    found = collect(client, {TRAIN: "success"})

    assert (3, []) == (len(found.items), jobs(client))


@pytest.mark.parametrize(
    "comment",
    ["by hand", '{"provider": "1"}', '{"dag_id": "weekly", "task_id": "train"}', *COMMENTS.values()],
    ids=["by hand", "no task", "no provider", *COMMENTS],
)
def test_jobs_of_nobodys(client, comment):
    """What has been submitted by hand, or by something else, stays, whatever it is called."""
    start(client, origin(), comment=comment)
    found = collect(client)

    assert ((), 1, 1) == (found.items, found.not_ours, len(jobs(client)))


def test_jobs_of_another_airflow(client):
    """They stay, although this one doesn't know their tasks."""
    start(client, origin(replace(TRAIN, airflow="staging")))
    found = collect(client)

    assert ((), 1, 1) == (found.items, found.not_ours, len(jobs(client)))


@pytest.mark.parametrize(
    "forged",
    [
        origin(replace(TRAIN, task_id="other")),
        origin(replace(TRAIN, map_index=1)),
        origin(replace(TRAIN, run_id="manual__1\0")),
        origin(replace(TRAIN, run_id="manual__\ud800")),
        origin(replace(TRAIN, task_id="t" * 1000), epoch=10**300),
        origin(epoch=1),
        *(origin(payload=payload) for payload in ("../x", "a/b", f"{PAYLOAD}/..", "payload_ab_OTHER", "definition_ab")),
    ],
    ids=lambda origin: repr(origin)[-150:],
)
def test_forged_comments(client, forged):
    """A COMMENT of another task than the job's name, or one that no task has written: nothing is touched."""
    name = origin().task.job_name(0, 1)
    start(client, forged, name=name)
    leave(client, "input/args", "output/mljob_result", job=name.value)
    found = collect(client)

    assert ((), 1, 1) == (found.items, found.not_ours, len(jobs(client)))
    assert 2 == len(files(client))


def test_an_incomplete_listing(server, client):
    """Files of jobs that a listing lacks stay, as long as the job history shows such a job running."""
    job = start(client, origin())
    leave(client, "input/args", job=job.name.value)
    leave(client, "input/args", job=TRAIN.job_name(7, 7).value)
    server.faults.add(Fault(matching="SHOW JOB SERVICES", effect="empty", nth=1))
    lacking = collect(client, {TRAIN: "running"}), files(client)
    complete = collect(client, {TRAIN: "running"})

    assert (((), False), 2) == ((lacking[0].items, lacking[0].is_complete), len(lacking[1]))
    assert ([Kind.INPUT], 1) == ([item.kind for item in complete.items], len(files(client)))


class TestALostComment:
    """A job of a task whose COMMENT was replaced."""

    @pytest.fixture
    def job(self, client):
        """Start a job with the environment and the volume of a task's job, and files on the stage."""

        def start_one(task):
            job = QualifiedName(DATABASE, SCHEMA, task.job_name(0, 1))
            volume = {"name": RESULT_VOLUME, "source": f"{STAGE}/{PAYLOAD}/{job.name.value}"}
            values = (task.dag_id, task.run_id, task.task_id, task.map_index, 1)
            container = {**CONTAINER, "env": dict(zip(VARIABLES.values(), map(str, values), strict=True))}
            text = json.dumps({"spec": {"containers": [container], "volumes": [volume]}})
            spec = JobSpec(name=job, compute_pool=Identifier("ML_POOL"), comment="being looked into")
            client.connection.rows(statements.execute_job_service(spec, SpecificationSource(text=text)))
            leave(client, "input/args", job=job.name.value)
            return job

        return start_one

    def test_over(self, client, job):
        """Name and specification agree on the task: the job is dropped, with its files."""
        task = replace(TRAIN, task_id="done")
        job(task)
        (item,) = collect(client).items

        assert ("dropped", str(task)) == (item.action, item.task)
        assert ([], []) == (jobs(client), files(client))

    def test_running(self, client, job):
        """Whether a task waits for the job is lost with the COMMENT: while it runs it stays."""
        job(TRAIN)

        assert ((), 1, 1) == (collect(client).items, len(jobs(client)), len(files(client)))

    @pytest.mark.parametrize("part", [{"airflow": "staging"}, {"run_id": "manual__2"}], ids=str)
    def test_another_task(self, client, job, part):
        """A name that doesn't fit the specification is not ours."""
        started = job(replace(TRAIN, **part))
        if "run_id" in part:
            client.drop(started)
            client.connection.rows(
                statements.execute_job_service(
                    JobSpec(name=started, compute_pool=Identifier("ML_POOL"), comment="x"), SPECIFICATION
                )
            )

        assert ((), 1) == (collect(client).items, collect(client).not_ours)


@pytest.mark.parametrize("run_id", ["manual__\0", "manual__\ud800"], ids=ascii)
def test_names_that_no_run_has(client, run_id):
    """Airflow's database would stumble over them; it isn't asked."""
    start(client, origin(replace(TRAIN, run_id=run_id)))

    assert ((), 1) == (collect(client).items, len(jobs(client)))


def test_young_jobs(client):
    """They stay, and Airflow isn't even asked for their tasks."""
    start(client, origin())
    found = collect(client, in_days=6)

    assert ((), 1) == (found.items, found.kept)


@pytest.mark.parametrize(("task_id", "expected"), [("train", 1), ("done", 0)])
def test_a_job_that_nobody_waits_for(client, task_id, expected):
    """Its task is over while it runs on purpose: it goes when it is over itself."""
    task = replace(TRAIN, task_id=task_id)
    start(client, origin(task, waits=False))

    assert expected == collect(client, {task: "success"}).kept == len(jobs(client))


@pytest.mark.parametrize("task_id", ["train", "done"], ids=["running", "over"])
@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("failed", ["saved/model"]),
        ("success", ["output/instances/1/mljob_result", "output/mljob_result", "saved/model"]),
    ],
)
def test_files_of_a_job(client, task_id, state, expected):
    """Input and result go; the result stays if XCom may refer to it. What the payload has saved always stays."""
    task = replace(TRAIN, task_id=task_id)
    job = start(client, origin(task)).name.value
    own = ("input/args", "output/mljob_result", "output/instances/1/mljob_result")
    leave(client, *own, "saved/model", job=job)
    leave(client, "payload.pyz")
    collect(client, {task: state})

    assert [*(f"{PAYLOAD}/{job}/{path}" for path in expected), f"{PAYLOAD}/payload.pyz"] == files(client)
    assert [] == jobs(client)


def test_files_on_a_stage_that_was_not_given(client):
    """They stay, also those of a job that goes."""
    job = start(client, origin()).name.value
    leave(client, "input/args", job=job, stage=OTHER_STAGE)
    leave(client, "input/args", job="MLJOB_X_0123456789AB_0_1", stage=OTHER_STAGE)
    found = collect(client)
    without = collect(client, stages=())

    assert (1, 0) == (len(found.items), len(without.items))
    assert 2 == len(files(client, OTHER_STAGE))


def test_a_whole_stage(client):
    """Payloads may lie on a stage itself, too."""
    job = start(client, origin(payload=OLD_PAYLOAD)).name.value
    leave(client, "payload.pyz", f"{job}/input/args", f"{job}/saved", stage=OTHER_STAGE, payload=OLD_PAYLOAD)
    leave(client, "input/args", stage=OTHER_STAGE, job="MLJOB_X_0123456789AB_0_1")
    found = collect(client, stages=(OTHER_STAGE,))

    assert [f"{OLD_PAYLOAD}/{job}/saved"] == files(client, OTHER_STAGE)
    assert [Kind.JOB, Kind.INPUT, Kind.PAYLOAD] == [item.kind for item in found.items]


def test_a_payload_of_its_own(client):
    """It goes with its job; where there is no such job any more, it goes as well."""
    name, gone = TRAIN.job_name(0, 1).value, TRAIN.job_name(0, 2).value
    for job in (name, gone):
        leave(client, "payload.pyz", f"{job}/input/args", payload=f"payload_ab_{job}")
    start(client, origin(payload=f"payload_ab_{name}"))
    found = collect(client)

    assert [] == files(client)
    assert {Kind.JOB, Kind.PAYLOAD, Kind.INPUT} == {item.kind for item in found.items}


@pytest.mark.parametrize(("in_days", "expected"), [(6, 1), (8, 0)])
def test_input_without_a_job(client, in_days, expected):
    """What a submit that was killed has left goes by its age."""
    leave(client, "input/args", job=TRAIN.job_name(0, 1).value)
    found = collect(client, in_days=in_days)

    assert (1 - expected, expected) == (len(found.items), len(files(client)))


@pytest.mark.parametrize("directory", ["MLJOB_BY_HAND", "job", "MLJOB_X_0123456789AB_0", "MLJOB_X_0123456789ab_0_1"])
def test_files_of_jobs_that_are_not_a_tasks(client, directory):
    """Those of jobs that a hook has submitted stay: only what a task's job is called may go."""
    leave(client, "input/args", "output/mljob_result", job=directory)
    leave(client, "input/args", job=TRAIN.job_name(0, 1).value, payload="definition_ab")
    leave(client, "input/args", job=TRAIN.job_name(0, 1).value, payload="mine/payload_ab_5")
    collect(client, result_retention=DAY)

    assert 4 == len(files(client))


def test_files_of_a_job_in_another_schema(client):
    """A job that is there keeps its files, wherever it is."""
    job = start(client, origin(replace(TRAIN, airflow="staging")), schema=OTHER_SCHEMA)
    leave(client, "input/args", job=job.name.value)
    collect(client, schema=Namespace(DATABASE, SCHEMA))

    assert (1, 1) == (len(jobs(client)), len(files(client)))


@pytest.mark.parametrize(("retention", "expected"), [(0, 2), (9, 2), (7, 1)])
def test_results_without_a_job(client, retention, expected):
    """They go by the age that was chosen, or never; what lies beside them stays."""
    leave(client, "output/mljob_result", "output/model", job=TRAIN.job_name(0, 1).value)
    found = collect(client, result_retention=timedelta(days=retention))

    assert (2 - expected, expected) == (len(found.items), len(files(client)))


def test_payloads(client):
    """Those that nobody needs go; of jobs only those that stay need theirs."""
    leave(client, "payload.pyz", "MLJOB_MINE/saved", payload=OLD_PAYLOAD)
    leave(client, "payload.pyz", payload="payload_cd_0")
    leave(client, "payload.pyz")
    start(client, origin(payload=OLD_PAYLOAD))
    start(client, origin(replace(TRAIN, airflow="staging", run_id="2"), payload="payload_cd_0"))
    found = collect(client)

    assert [(Kind.JOB, "dropped"), (Kind.PAYLOAD, "removed")] == [(item.kind, item.action) for item in found.items]
    assert [f"{OLD_PAYLOAD}/MLJOB_MINE/saved", f"{PAYLOAD}/payload.pyz", "payload_cd_0/payload.pyz"] == files(client)


def test_without_grace(server, client):
    """Who shares no payloads doesn't know for how long others do: shared ones stay."""
    from snowflake import connector

    leave(client, "payload.pyz", payload=OLD_PAYLOAD)
    alone = MLJobClient(lambda: connector.connect(**server.connection_kwargs), payload_grace=0)

    assert () == collect(alone).items
    alone.close()


def test_schema(client):
    """Only the jobs of one schema are looked at."""
    here = start(client, origin())
    start(client, origin(), schema=OTHER_SCHEMA)
    found = collect(client, schema=Namespace(DATABASE, OTHER_SCHEMA), stages=())

    assert [str(here)] == jobs(client)
    assert (1, 0, 0) == (len(found.items), found.kept, found.not_ours)


def litter(client):
    """Leave something of each kind."""
    job, gone = start(client, origin(payload=OLD_PAYLOAD)).name.value, TRAIN.job_name(0, 9).value
    start(client, origin(replace(TRAIN, task_id="done")))
    leave(client, "payload.pyz", f"{job}/input/args", payload=OLD_PAYLOAD)
    leave(client, "input/args", "output/mljob_result", "saved", job=gone)


def test_dry_run(server, client):
    """It tells exactly what would be done, and does nothing."""
    litter(client)
    before = (jobs(client), files(client))
    server.statements.clear()
    dry = collect(client, result_retention=WEEK, dry_run=True)
    words = {text.split()[0] for text in server.statements.texts}
    after = (jobs(client), files(client))
    wet = collect(client, result_retention=WEEK)

    assert before == after
    assert {"SHOW", "LIST", "SELECT"} == words
    assert [(item.name, item.action) for item in dry.items] == [
        (item.name, {"dropped": "would drop", "removed": "would remove"}[item.action]) for item in wet.items
    ]
    assert [Kind.JOB, Kind.JOB, Kind.INPUT, Kind.RESULT, Kind.PAYLOAD] == [item.kind for item in dry.items]
    assert dry.credits_per_hour == wet.credits_per_hour == 0.11
    assert [f"{PAYLOAD}/{TRAIN.job_name(0, 9).value}/saved"] == files(client)


def test_a_second_run_finds_nothing(client):
    """What has been collected is gone."""
    litter(client)
    collect(client, result_retention=WEEK)

    assert () == collect(client, result_retention=WEEK).items


def test_no_right_to_drop(server, client):
    """It is told, and the rest is collected; a job that runs keeps its files then."""
    forbidden = start(client, origin(replace(TRAIN, run_id="1")))
    start(client, origin(replace(TRAIN, run_id="2")))
    leave(client, "input/args", job=forbidden.name.value)
    message = "Insufficient privileges to operate on service"
    server.faults.add(
        Fault(matching=f"DROP SERVICE.*{forbidden.name}", effect="error", errno=3001, sqlstate="42501", message=message)
    )
    found = collect(client)

    assert [str(forbidden)] == jobs(client)
    assert [(str(forbidden), "left")] == [(item.name, item.action) for item in found.errors]
    assert message in found.errors[0].error
    assert 1 == len(files(client))


def test_snowflake_goes_away_in_the_middle(server, client):
    """What is left isn't tried any more but told; the next run finishes it."""
    for run in range(3):
        start(client, origin(replace(TRAIN, run_id=str(run))))
    server.faults.add(Fault(matching="DROP SERVICE", effect="error", errno=390195, message="gone", nth=2, times=100))
    first, left = collect(client), jobs(client)
    tried = len(server.statements.matching("DROP SERVICE"))
    server.faults.clear()
    second = collect(client)

    assert ["dropped", "left", "left"] == [item.action for item in first.items]
    assert (2, 3) == (len(left), tried)
    assert ([], 2, ()) == (jobs(client), len(second.items), second.errors)


@pytest.mark.parametrize("statement", ["SHOW JOB SERVICES", "LIST"])
def test_what_can_not_be_listed(server, client, statement):
    """Nothing is dropped then."""
    litter(client)
    before = (jobs(client), files(client))
    server.faults.add(Fault(matching=statement, effect="error", message="not now", nth=1))
    with pytest.raises(GatewayError, match="not now"):
        collect(client)

    assert before == (jobs(client), files(client))


def test_a_stage_that_is_not_there(client):
    """It is named, and nothing is dropped."""
    start(client, origin())
    with pytest.raises(NotFoundOrNotAuthorizedError, match="NOWHERE"):
        collect(client, stages=(StagePath.parse("NOWHERE", "stage", Namespace(DATABASE, SCHEMA)),))

    assert 1 == len(jobs(client))


def test_payloads_that_can_not_be_listed(server, client):
    """By then jobs have been dropped, which is told."""
    start(client, origin())
    server.faults.add(Fault(matching="LIST", effect="error", message="not now", nth=2))
    found = collect(client)

    assert [("dropped", ""), ("left", "not now")] == [(item.action, item.error) for item in found.items]


def test_airflow_can_not_be_asked(client):
    """Nothing is dropped, and the error is Airflow's."""
    litter(client)
    before = (jobs(client), files(client))

    def ask(tasks):
        raise ConnectionError("Airflow is away")

    with pytest.raises(ConnectionError, match="Airflow is away"):
        Collector(
            client,
            Rules(airflow="prod", older_than=WEEK, stages=(STAGE,)),
            clock=lambda: time.time() + 1e6,
        ).collect(ask)

    assert before == (jobs(client), files(client))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"older_than": timedelta(seconds=-1)}, "older_than must not be negative"),
        ({"result_retention": timedelta(seconds=-1)}, "result_retention must not be negative"),
        ({"airflow": ""}, r"This Airflow has no name.*deployment"),
    ],
    ids=["older_than", "result_retention", "airflow"],
)
def test_bad_rules(rules, message):
    """They are refused before anything is asked."""
    with pytest.raises(InvalidJobSpecError, match=message):
        Rules(**{"airflow": "prod", "older_than": WEEK} | rules)


def test_for_ever(client):
    """An age that nothing has is no error."""
    start(client, origin())

    assert () == collect(client, older_than=timedelta.max).items


def test_credits(server, client):
    """What runs costs something; what is over doesn't, and a pool that can't be asked is unknown."""
    start(client, origin(), target_instances=3)
    start(client, origin(replace(TRAIN, run_id="2")))
    start(client, origin(replace(TRAIN, task_id="done")))
    known = collect(client, dry_run=True)
    asked = len(server.statements.matching("SHOW COMPUTE POOLS"))
    server.faults.add(Fault(matching="SHOW COMPUTE POOLS", effect="error", message="no"))
    unknown = collect(client)

    assert (pytest.approx(0.44), 1) == (known.credits_per_hour, asked)
    assert "their nodes cost 0.44 credits an hour (an estimate" in known.summary
    assert "their nodes cost 0.00 credits an hour, without 2 jobs whose rate is unknown" in unknown.summary


def test_more_jobs_than_one_answer_has(client):
    """They are asked for by longer names; also where two schemas have jobs of the same names."""
    tasks = [replace(TRAIN, run_id=str(run)) for run in range(4)]
    for task, schema in itertools.product(tasks, (SCHEMA, OTHER_SCHEMA)):
        start(client, origin(task), schema=schema)
    found = collect(client, {tasks[0]: "running"}, most=3)

    assert (6, 2, True) == (len(found.items), found.kept, found.is_complete)
    assert 2 == len(jobs(client))


def test_jobs_that_can_not_all_be_listed(client):
    """Jobs that are seen go; files without a job stay, since it may be there."""
    for schema in (SCHEMA, OTHER_SCHEMA):
        start(client, origin(), name=Identifier("MLJOB_"), schema=schema)
    leave(client, "input/args", job=TRAIN.job_name(0, 1).value)
    found = collect(client, most=2)

    assert (False, (), 1) == (found.is_complete, found.items, len(files(client)))
    assert "not all jobs can be listed" in found.summary


def test_in_words(client):
    """A line for each thing, and one for all."""
    job = start(client, origin())
    start(client, origin(replace(TRAIN, run_id="2")))
    found = collect(client, {replace(TRAIN, run_id="2"): "running"})

    assert f"dropped job {job} (RUNNING) of {TRAIN} (gone)" == str(found.items[0])
    assert found.summary.startswith("dropped 1 job; 1 job kept; 0 jobs not of this Airflow; their nodes cost 0.11")
