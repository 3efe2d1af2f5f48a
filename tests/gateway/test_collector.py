"""The collector removes the leftovers of crashes, and nothing else."""

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
    """An embedded Snowflake with two schemas and two stages. Its jobs are virtual; some end at once."""
    over, running = VirtualJob(name="%DONE%", seconds=0.0), VirtualJob(name="MLJOB_%", seconds=1e6)
    with served(virtual_jobs=(over, running), scarce_families=("CPU_X64_XS", "GPU_NV_S")) as server:
        yield server


@pytest.fixture
def client(server):
    """A client on a Snowflake without jobs and files."""
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
    """Describe the try that submitted a job."""
    return Origin(
        **{"task": task, "run_started": "2026-01-01", "epoch": 0, "try_number": 1, "payload": PAYLOAD} | parts
    )


def start(client, origin, *, comment=None, name=None, schema=SCHEMA, **fields):
    """Start a job with the name and COMMENT of a task's job."""
    job = QualifiedName(DATABASE, schema, name or origin.task.job_name(origin.epoch, origin.try_number))
    pool = fields.pop("compute_pool", Identifier("ML_POOL"))
    spec = JobSpec(name=job, compute_pool=pool, comment=comment or origin.to_comment(), **fields)
    client.connection.rows(statements.execute_job_service(spec, SPECIFICATION))
    return job


def leave(client, *paths, stage=STAGE, payload=PAYLOAD, job=""):
    """Put files on a stage, below the payload or below a job."""
    for path in paths:
        put(client.connection, b"x", stage / payload / job / path if job else stage / payload / path)


def jobs(client):
    """Return the existing jobs."""
    rows = client.connection.rows("SHOW JOB SERVICES IN ACCOUNT")
    return [f"{row['database_name']}.{row['schema_name']}.{row['name']}" for row in rows]


def files(client, stage=STAGE):
    """Return the files of a stage, without the directories of payload and job."""
    inside = f"{stage.path}/" if stage.path else ""
    rows = client.connection.rows(statements.list_files(stage / ""))
    return sorted(row["name"].partition("/")[2].removeprefix(inside) for row in rows)


def collect(client, states=None, *, in_days=8, most=10_000, **rules):
    """Run the collector some days later; tasks that aren't in ``states`` are gone."""
    rules = Rules(**{"airflow": "prod", "older_than": WEEK, "stages": (STAGE,)} | rules)
    collector = Collector(client, rules, clock=lambda: time.time() + in_days * DAY.total_seconds(), most=most)
    return collector.collect(lambda tasks: {task: state for task, state in (states or {}).items() if task in tasks})


@pytest.mark.parametrize("state", ["success", "failed", "skipped", "upstream_failed", "removed", "gone"])
def test_a_task_that_is_over(client, state):
    """The job of a finished task is dropped, running or not."""
    job = start(client, origin())
    report = collect(client, {} if state == "gone" else {TRAIN: state})
    (item,) = report.items

    assert [] == jobs(client)
    assert (Kind.JOB, str(job), "dropped", str(TRAIN), state) == (
        item.kind, item.name, item.action, item.task, item.task_state,
    )  # fmt: skip
    assert (0, 0, ()) == (report.kept_jobs, report.not_ours, report.errors)


@pytest.mark.parametrize(
    "state",
    [
        *("scheduled", "queued", "running", "restarting", "deferred", "up_for_retry", "up_for_reschedule"),
        *("awaiting_input", None, "a state of tomorrow"),
    ],
)
def test_a_task_that_is_not_over(client, state):
    """The job of an unfinished task stays, however old it is."""
    start(client, origin())
    report = collect(client, {TRAIN: state})

    assert ((), 1, 1) == (report.items, report.kept_jobs, len(jobs(client)))


def test_mapped_tasks(client):
    """Each mapped instance is judged by its own state."""
    mapped = [replace(TRAIN, map_index=index) for index in range(3)]
    started = [start(client, origin(task)) for task in mapped]
    collect(client, {mapped[0]: "success", mapped[1]: "running"})

    assert [str(started[1])] == jobs(client)


def test_all_attempts_of_a_task(client):
    """Jobs of attempts before a clear are dropped too."""
    for epoch, attempt in [(0, 1), (0, 12), (3, 1)]:
        start(client, origin(epoch=epoch, try_number=attempt))
    report = collect(client, {TRAIN: "success"})

    assert (3, []) == (len(report.items), jobs(client))


@pytest.mark.parametrize(
    "comment",
    ["by hand", '{"provider": "1"}', '{"dag_id": "weekly", "task_id": "train"}', *COMMENTS.values()],
    ids=["by hand", "no task", "no provider", *COMMENTS],
)
def test_jobs_of_nobodys(client, comment):
    """Jobs that no task submitted stay with any COMMENT."""
    start(client, origin(), comment=comment)
    report = collect(client)

    assert ((), 1, 1) == (report.items, report.not_ours, len(jobs(client)))


def test_jobs_of_another_airflow(client):
    """Jobs of another Airflow stay, although this one doesn't have their tasks."""
    start(client, origin(replace(TRAIN, airflow="staging")))
    report = collect(client)

    assert ((), 1, 1) == (report.items, report.not_ours, len(jobs(client)))


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
    """A job whose COMMENT doesn't fit its name, or that no task wrote, is left alone."""
    name = origin().task.job_name(0, 1)
    start(client, forged, name=name)
    leave(client, "input/args", "output/mljob_result", job=name.value)
    report = collect(client)

    assert ((), 1, 1) == (report.items, report.not_ours, len(jobs(client)))
    assert 2 == len(files(client))


def test_an_incomplete_listing(server, client):
    """If a listing lacks a job that the job history shows running, files without a job stay."""
    job = start(client, origin())
    leave(client, "input/args", job=job.name.value)
    leave(client, "input/args", job=TRAIN.job_name(7, 7).value)
    server.faults.add(Fault(matching="SHOW JOB SERVICES", effect="empty", nth=1))
    lacking = collect(client, {TRAIN: "running"}), files(client)
    complete = collect(client, {TRAIN: "running"})

    assert (((), False), 2) == ((lacking[0].items, lacking[0].is_complete), len(lacking[1]))
    assert ([Kind.INPUT], 1) == ([item.kind for item in complete.items], len(files(client)))


class TestALostComment:
    """A task's job whose COMMENT was replaced."""

    @pytest.fixture
    def job(self, client):
        """Start a job with the environment and the volume of a task's job, and files on the stage."""

        def start_one(task):
            job = QualifiedName(DATABASE, SCHEMA, task.job_name(0, 1))
            config = {"name": f"{STAGE}/{PAYLOAD}/{job.name.value}"}
            volume = {"name": RESULT_VOLUME, "source": "stage", "stageConfig": config}
            values = (task.dag_id, task.run_id, task.task_id, task.map_index, 1)
            container = {**CONTAINER, "env": dict(zip(VARIABLES.values(), map(str, values), strict=True))}
            text = json.dumps({"spec": {"containers": [container], "volumes": [volume]}})
            spec = JobSpec(name=job, compute_pool=Identifier("ML_POOL"), comment="being looked into")
            client.connection.rows(statements.execute_job_service(spec, SpecificationSource(text=text)))
            leave(client, "input/args", job=job.name.value)
            return job

        return start_one

    def test_over(self, client, job):
        """If name and specification agree on a finished task, the job is dropped with its files."""
        task = replace(TRAIN, task_id="done")
        job(task)
        (item,) = collect(client).items

        assert ("dropped", str(task)) == (item.action, item.task)
        assert ([], []) == (jobs(client), files(client))

    def test_running(self, client, job):
        """A running job stays, because only the lost COMMENT says whether its task waits for it."""
        job(TRAIN)

        assert ((), 1, 1) == (collect(client).items, len(jobs(client)), len(files(client)))

    @pytest.mark.parametrize("part", [{"airflow": "staging"}, {"run_id": "manual__2"}], ids=str)
    def test_another_task(self, client, job, part):
        """A job whose name doesn't fit its specification stays."""
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
    """Airflow isn't asked for task names that its database can't hold."""
    start(client, origin(replace(TRAIN, run_id=run_id)))

    assert ((), 1) == (collect(client).items, len(jobs(client)))


def test_young_jobs(client):
    """Young jobs stay, and Airflow isn't asked for their tasks."""
    start(client, origin())
    report = collect(client, in_days=6)

    assert ((), 1) == (report.items, report.kept_jobs)


@pytest.mark.parametrize(("task_id", "expected"), [("train", 1), ("done", 0)])
def test_a_job_that_nobody_waits_for(client, task_id, expected):
    """A job that no task waits for is dropped only once it has ended itself."""
    task = replace(TRAIN, task_id=task_id)
    start(client, origin(task, waits=False))

    assert expected == collect(client, {task: "success"}).kept_jobs == len(jobs(client))


@pytest.mark.parametrize("task_id", ["train", "done"], ids=["running", "over"])
@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("failed", ["saved/model"]),
        ("success", ["output/instances/1/mljob_result", "output/mljob_result", "saved/model"]),
    ],
)
def test_files_of_a_job(client, task_id, state, expected):
    """A job's input and result are removed, except a result that XCom may refer to. Saved files always stay."""
    task = replace(TRAIN, task_id=task_id)
    job = start(client, origin(task)).name.value
    own = ("input/args", "output/mljob_result", "output/instances/1/mljob_result")
    leave(client, *own, "saved/model", job=job)
    leave(client, "payload.pyz")
    collect(client, {task: state})

    assert [*(f"{PAYLOAD}/{job}/{path}" for path in expected), f"{PAYLOAD}/payload.pyz"] == files(client)
    assert [] == jobs(client)


def test_files_on_a_stage_that_was_not_given(client):
    """Files on a stage that the rules don't name stay, also those of a dropped job."""
    job = start(client, origin()).name.value
    leave(client, "input/args", job=job, stage=OTHER_STAGE)
    leave(client, "input/args", job="MLJOB_X_0123456789AB_0_1", stage=OTHER_STAGE)
    report = collect(client)
    without = collect(client, stages=())

    assert (1, 0) == (len(report.items), len(without.items))
    assert 2 == len(files(client, OTHER_STAGE))


def test_a_whole_stage(client):
    """Payloads directly on a stage are collected too."""
    job = start(client, origin(payload=OLD_PAYLOAD)).name.value
    leave(client, "payload.pyz", f"{job}/input/args", f"{job}/saved", stage=OTHER_STAGE, payload=OLD_PAYLOAD)
    leave(client, "input/args", stage=OTHER_STAGE, job="MLJOB_X_0123456789AB_0_1")
    report = collect(client, stages=(OTHER_STAGE,))

    assert [f"{OLD_PAYLOAD}/{job}/saved"] == files(client, OTHER_STAGE)
    assert [Kind.JOB, Kind.INPUT, Kind.PAYLOAD] == [item.kind for item in report.items]


def test_a_payload_of_its_own(client):
    """An unshared payload is removed with its job, or after it."""
    name, gone = TRAIN.job_name(0, 1).value, TRAIN.job_name(0, 2).value
    for job in (name, gone):
        leave(client, "payload.pyz", f"{job}/input/args", payload=f"payload_ab_{job}")
    start(client, origin(payload=f"payload_ab_{name}"))
    report = collect(client)

    assert [] == files(client)
    assert {Kind.JOB, Kind.PAYLOAD, Kind.INPUT} == {item.kind for item in report.items}


@pytest.mark.parametrize(("in_days", "expected"), [(6, 1), (8, 0)])
def test_input_without_a_job(client, in_days, expected):
    """Files of a submit that was killed are removed by their age."""
    leave(client, "input/args", job=TRAIN.job_name(0, 1).value)
    report = collect(client, in_days=in_days)

    assert (1 - expected, expected) == (len(report.items), len(files(client)))


@pytest.mark.parametrize("directory", ["MLJOB_BY_HAND", "job", "MLJOB_X_0123456789AB_0", "MLJOB_X_0123456789ab_0_1"])
def test_files_of_jobs_that_are_not_a_tasks(client, directory):
    """Files of jobs that a hook submitted stay: their names are not those of tasks' jobs."""
    leave(client, "input/args", "output/mljob_result", job=directory)
    leave(client, "input/args", job=TRAIN.job_name(0, 1).value, payload="definition_ab")
    leave(client, "input/args", job=TRAIN.job_name(0, 1).value, payload="mine/payload_ab_5")
    collect(client, result_retention=DAY)

    assert 4 == len(files(client))


def test_files_of_a_job_in_another_schema(client):
    """An existing job keeps its files in any schema."""
    job = start(client, origin(replace(TRAIN, airflow="staging")), schema=OTHER_SCHEMA)
    leave(client, "input/args", job=job.name.value)
    collect(client, schema=Namespace(DATABASE, SCHEMA))

    assert (1, 1) == (len(jobs(client)), len(files(client)))


@pytest.mark.parametrize(("retention", "expected"), [(0, 2), (9, 2), (7, 1)])
def test_results_without_a_job(client, retention, expected):
    """Results without a job are removed after the retention, or never; files beside them stay."""
    leave(client, "output/mljob_result", "output/model", job=TRAIN.job_name(0, 1).value)
    report = collect(client, result_retention=timedelta(days=retention))

    assert (2 - expected, expected) == (len(report.items), len(files(client)))


def test_payloads(client):
    """Shared payloads are removed once none of the remaining jobs needs them."""
    leave(client, "payload.pyz", "MLJOB_MINE/saved", payload=OLD_PAYLOAD)
    leave(client, "payload.pyz", payload="payload_cd_0")
    leave(client, "payload.pyz")
    start(client, origin(payload=OLD_PAYLOAD))
    start(client, origin(replace(TRAIN, airflow="staging", run_id="2"), payload="payload_cd_0"))
    report = collect(client)

    assert [(Kind.JOB, "dropped"), (Kind.PAYLOAD, "removed")] == [(item.kind, item.action) for item in report.items]
    assert [f"{OLD_PAYLOAD}/MLJOB_MINE/saved", f"{PAYLOAD}/payload.pyz", "payload_cd_0/payload.pyz"] == files(client)


def test_without_grace(server, client):
    """A client without sharing leaves shared payloads alone, because their grace is unknown to it."""
    from snowflake import connector

    leave(client, "payload.pyz", payload=OLD_PAYLOAD)
    alone = MLJobClient(lambda: connector.connect(**server.connection_kwargs), payload_grace=0)

    assert () == collect(alone).items
    alone.close()


def test_schema(client):
    """Only the jobs of the given schema are collected."""
    here = start(client, origin())
    start(client, origin(), schema=OTHER_SCHEMA)
    report = collect(client, schema=Namespace(DATABASE, OTHER_SCHEMA), stages=())

    assert [str(here)] == jobs(client)
    assert (1, 0, 0) == (len(report.items), report.kept_jobs, report.not_ours)


def litter(client):
    """Leave something of each kind."""
    job, gone = start(client, origin(payload=OLD_PAYLOAD)).name.value, TRAIN.job_name(0, 9).value
    start(client, origin(replace(TRAIN, task_id="done")))
    leave(client, "payload.pyz", f"{job}/input/args", payload=OLD_PAYLOAD)
    leave(client, "input/args", "output/mljob_result", "saved", job=gone)


def test_dry_run(server, client):
    """A dry run reports exactly the later actions, and changes nothing."""
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
    """A second run finds nothing."""
    litter(client)
    collect(client, result_retention=WEEK)

    assert () == collect(client, result_retention=WEEK).items


def test_no_right_to_drop(server, client):
    """A job that can't be dropped is reported, the rest is collected, and a running job keeps its files."""
    forbidden = start(client, origin(replace(TRAIN, run_id="1")))
    start(client, origin(replace(TRAIN, run_id="2")))
    leave(client, "input/args", job=forbidden.name.value)
    message = "Insufficient privileges to operate on service"
    server.faults.add(
        Fault(matching=f"DROP SERVICE.*{forbidden.name}", effect="error", errno=3001, sqlstate="42501", message=message)
    )
    report = collect(client)

    assert [str(forbidden)] == jobs(client)
    assert [(str(forbidden), "left")] == [(item.name, item.action) for item in report.errors]
    assert message in report.errors[0].error
    assert 1 == len(files(client))


def test_snowflake_goes_away_in_the_middle(server, client):
    """After an outage the rest is reported without further tries; the next run finishes it."""
    for run in range(3):
        start(client, origin(replace(TRAIN, run_id=str(run))))
    server.faults.add(Fault(matching="DROP SERVICE", effect="error", errno=390195, message="gone", nth=2, times=100))
    first, remaining = collect(client), jobs(client)
    tried = len(server.statements.matching("DROP SERVICE"))
    server.faults.clear()
    second = collect(client)

    assert ["dropped", "left", "left"] == [item.action for item in first.items]
    assert (2, 3) == (len(remaining), tried)
    assert ([], 2, ()) == (jobs(client), len(second.items), second.errors)


@pytest.mark.parametrize("statement", ["SHOW JOB SERVICES", "LIST"])
def test_what_can_not_be_listed(server, client, statement):
    """If jobs or files can't be listed, nothing is dropped."""
    litter(client)
    before = (jobs(client), files(client))
    server.faults.add(Fault(matching=statement, effect="error", message="not now", nth=1))
    with pytest.raises(GatewayError, match="not now"):
        collect(client)

    assert before == (jobs(client), files(client))


def test_a_stage_that_is_not_there(client):
    """A missing stage is an error that names it, and nothing is dropped."""
    start(client, origin())
    with pytest.raises(NotFoundOrNotAuthorizedError, match="NOWHERE"):
        collect(client, stages=(StagePath.parse("NOWHERE", "stage", Namespace(DATABASE, SCHEMA)),))

    assert 1 == len(jobs(client))


def test_payloads_that_can_not_be_listed(server, client):
    """If payloads can't be listed, the report has the error beside the dropped jobs."""
    start(client, origin())
    server.faults.add(Fault(matching="LIST", effect="error", message="not now", nth=2))
    report = collect(client)

    assert [("dropped", ""), ("left", "not now")] == [(item.action, item.error) for item in report.items]


def test_airflow_can_not_be_asked(client):
    """If Airflow is out of reach, nothing is dropped, and its error is passed on."""
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
    """Bad rules are refused before any statement."""
    with pytest.raises(InvalidJobSpecError, match=message):
        Rules(**{"airflow": "prod", "older_than": WEEK} | rules)


def test_for_ever(client):
    """An age longer than all of history is no error."""
    start(client, origin())

    assert () == collect(client, older_than=timedelta.max).items


def test_credits(server, client):
    """Running jobs have a price, finished ones have none, and the price is unknown if the pool can't be read."""
    start(client, origin(), target_instances=3)
    start(client, origin(replace(TRAIN, run_id="2")))
    start(client, origin(replace(TRAIN, task_id="done")))
    priced = collect(client, dry_run=True)
    asked = len(server.statements.matching("SHOW COMPUTE POOLS"))
    server.faults.add(Fault(matching="SHOW COMPUTE POOLS", effect="error", message="no"))
    unknown = collect(client)

    assert (pytest.approx(0.44), 1) == (priced.credits_per_hour, asked)
    assert "their nodes cost 0.44 credits an hour (an estimate" in priced.summary
    assert "their nodes cost 0.00 credits an hour, without 2 jobs whose rate is unknown" in unknown.summary


def test_credits_of_backup_nodes(client):
    """The price is that of the nodes that a pool has now, not that of its own instance family."""
    client.connection.rows(
        "CREATE COMPUTE POOL backed MIN_NODES = 1 MAX_NODES = 2 INSTANCE_FAMILY = CPU_X64_XS "
        "BACKUP_INSTANCE_FAMILIES = ('GPU_NV_S', 'CPU_X64_M')"
    )
    start(client, origin(), compute_pool=Identifier("BACKED"))

    assert 0.22 == collect(client, dry_run=True).credits_per_hour


def test_more_jobs_than_one_answer_has(client):
    """Jobs that exceed one answer are listed by longer names, also across schemas with equal names."""
    tasks = [replace(TRAIN, run_id=str(run)) for run in range(4)]
    for task, schema in itertools.product(tasks, (SCHEMA, OTHER_SCHEMA)):
        start(client, origin(task), schema=schema)
    report = collect(client, {tasks[0]: "running"}, most=3)

    assert (6, 2, True) == (len(report.items), report.kept_jobs, report.is_complete)
    assert 2 == len(jobs(client))


def test_jobs_that_can_not_all_be_listed(client):
    """With an incomplete listing, listed jobs are collected, and files without a job stay."""
    for schema in (SCHEMA, OTHER_SCHEMA):
        start(client, origin(), name=Identifier("MLJOB_"), schema=schema)
    leave(client, "input/args", job=TRAIN.job_name(0, 1).value)
    report = collect(client, most=2)

    assert (False, (), 1) == (report.is_complete, report.items, len(files(client)))
    assert "not all jobs can be listed" in report.summary


def test_in_words(client):
    """Each item is one line, and the totals are another."""
    job = start(client, origin())
    start(client, origin(replace(TRAIN, run_id="2")))
    report = collect(client, {replace(TRAIN, run_id="2"): "running"})

    assert f"dropped job {job} (RUNNING) of {TRAIN} (gone)" == str(report.items[0])
    assert report.summary.startswith("dropped 1 job; 1 job kept; 0 jobs not of this Airflow; their nodes cost 0.11")
