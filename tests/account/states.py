"""Checks of a job's states and texts: how it starts, waits, ends, is cancelled and dropped, and its limits."""

import re
import time

from airflow_provider_mljobs.exceptions import GatewayError, JobAlreadyExistsError, NotFoundOrNotAuthorizedError
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.jobs.names import StagePath
from airflow_provider_mljobs.jobs.spec.rendering import SpecificationSource, render
from tests.account.account import TERMINAL
from tests.account.beliefs import either, has_columns, has_rows, is_, is_at_most, is_refused, says, shows, succeeds
from tests.account.checks import JOBS, check

# Documented for DESCRIBE SERVICE, and those that Snowflake's own clients know.
STATUSES = {"PENDING", "RUNNING", "DONE", "FAILED", "CANCELLING", "CANCELLED", "SUSPENDING", "SUSPENDED", "DELETING",
            "DELETED", "INTERNAL_ERROR"}  # fmt: skip
_NO_CAPACITY = r"unschedulable|insufficient"
_CONTAINER_COLUMNS = (
    "instance_id",
    "instance_status",
    "container_name",
    "status",
    "message",
    "last_exit_code",
    "start_time",
)
_PAUSE = "sleep 600"


@check("C-02b", JOBS, "image", node_minutes=1)
def own_image(account):
    """A job runs an image of one's own, from a repository of the account."""
    container = account.container("exit 0", image=account.settings.image)
    account.ask("start", account.start_statement("C02B", container), succeeds)
    account.note("status", account.wait(account.job("C02B")), is_("DONE"))


@check("C-14", JOBS, node_minutes=1)
def visibility(account):
    """A job that was just started is shown by DESCRIBE, by SHOW … LIKE and by SHOW … STARTS WITH within 30 seconds."""
    job = account.start("C14", "exit 0")
    schema = account.schema
    questions = {
        "describe": statements.describe_service(job),
        "like": statements.show_job_services(schema, "C14"),
        "starts_with": statements.show_jobs_called(schema, "C14", 10),
        "history": statements.get_job_history(job),
    }
    for step, statement in questions.items():
        _, seconds = account.repeat(statement, lambda answer: answer.count > 0, account.settings.fit_seconds)
        account.note(f"{step}_seconds", round(seconds, 1), is_at_most(30 if step != "history" else 600))
    repeated = account.start_statement("C14", account.container("exit 0"))
    account.ask("name_taken", repeated, is_refused(JobAlreadyExistsError, text="already exists"))
    account.wait(job)
    account.ask("name_taken_by_an_ended_job", repeated, is_refused(JobAlreadyExistsError, text="already exists"))


@check("C-15", JOBS, node_minutes=1)
def reuse_of_a_name(account):
    """The name of a dropped job can be used again within a minute, also if the job was running."""
    job = account.start("C15", _PAUSE)
    account.wait(job, "RUNNING")
    account.ask("drop", statements.drop_service(job), succeeds)
    account.ask(
        "describe",
        statements.describe_service(job),
        either(is_refused(NotFoundOrNotAuthorizedError), shows(status={"DELETING", "DELETED"})),
    )
    statement = account.start_statement("C15", account.container("exit 0"))
    answer, seconds = account.repeat(statement, lambda answer: answer.refusal is None, account.settings.fit_seconds)
    account.note("refusal", answer.refusal and answer.refusal.text, is_(None))
    account.note("seconds", round(seconds, 1), is_at_most(60))


@check("C-30", JOBS, node_minutes=1)
def statuses(account):
    """A job goes from PENDING to RUNNING to DONE, in statuses that the provider knows, for DESCRIBE and SHOW."""
    job = account.start("C30", "sleep 2")
    began, seen = time.monotonic(), {"describe": {}, "show": {}}
    questions = {
        "describe": statements.describe_service(job),
        "show": statements.show_job_services(account.schema, "C30"),
    }
    while time.monotonic() - began < account.settings.start_seconds:
        for step, statement in questions.items():
            status = account.repeat(statement, lambda answer: answer.count > 0, 30)[0].cells("status")[0]
            seen[step].setdefault(status, round(time.monotonic() - began, 1))
        if all(TERMINAL & set(each) for each in seen.values()):
            break
        time.sleep(account.settings.pause)
    for step, times in seen.items():
        account.note(f"{step}_unknown", sorted(set(times) - STATUSES), is_([]))
        account.note(f"{step}_last", list(times)[-1], is_("DONE"))
        account.note(f"{step}_times", times)
    columns = (
        "status",
        "comment",
        "owner",
        "spec",
        "target_instances",
        "created_on",
        "compute_pool",
        "query_warehouse",
    )
    account.ask("describe", statements.describe_service(job), has_columns(*columns))
    account.ask(
        "show",
        statements.show_job_services(account.schema, "C30"),
        has_columns("name", "status", "created_on"),
        has_rows(1),
    )


@check("C-31", JOBS)
def suspended_pool(account):
    """A job on a suspended pool that doesn't resume by itself waits as PENDING, or is refused; it can be cancelled."""
    name = f"{account.schema.schema.value}_POOL"
    made = account.ask(
        "create_pool",
        f"CREATE COMPUTE POOL {name} MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS "
        "INITIALLY_SUSPENDED = TRUE AUTO_RESUME = FALSE",
    )
    if made.refusal is not None:
        # The role may not create pools.
        return
    account.at_end(f"DROP COMPUTE POOL IF EXISTS {name}")
    statement = account.start_statement("C31", account.container("exit 0")).replace(
        f"POOL {account.pool}", f"POOL {name}"
    )
    started = account.ask("start", statement, either(succeeds, is_refused(GatewayError, text="suspend")))
    if started.refusal is None:
        job = account.job("C31")
        account.ask("describe", statements.describe_service(job), shows(status="PENDING"))
        account.ask("containers", statements.show_service_containers(job), has_columns(*_CONTAINER_COLUMNS))
        account.ask("logs", statements.get_service_logs(job, 0, "main"), is_refused(GatewayError))
        account.ask("cancel", statements.cancel_job(job), succeeds)
        account.note("status", account.wait(job), is_({"CANCELLED", "DELETED"}))
        account.ask("drop", statements.drop_service(job), succeeds)


@check("C-32", JOBS, node_minutes=1)
def no_capacity(account):
    """A job that no node has room for is refused, or stays PENDING: both name insufficient resources."""
    asked = {
        "memory": {"memory": "4000Gi", "cpu": "100m"},
        "cpu": {"memory": "1Gi", "cpu": "1000"},
        "gpu": {"memory": "1Gi", "cpu": "100m", "nvidia.com/gpu": 8},
    }
    for step, resources in asked.items():
        container = account.container("exit 0", resources={"requests": resources, "limits": resources})
        job = account.job(f"C32_{step}")
        answer = account.ask(
            f"{step}_start",
            account.start_statement(job.name.value, container),
            either(succeeds, is_refused(GatewayError, text=_NO_CAPACITY)),
        )
        if answer.refusal is None:
            account.note(f"{step}_status", account.wait(job, seconds=account.settings.fit_seconds), is_("PENDING"))
            account.ask(f"{step}_containers", statements.show_service_containers(job), says(_NO_CAPACITY))
            account.ask(f"{step}_drop", statements.drop_service(job), succeeds)


@check("C-33", JOBS, node_minutes=2)
def containers(account):
    """SHOW SERVICE CONTAINERS and INSTANCES list a running job; a stage volume may add a container of the platform."""
    volumes = [{"name": "data", "source": "stage", "stageConfig": {"name": f"{account.stage}/c33"}}]
    container = account.container(_PAUSE, volumeMounts=[{"name": "data", "mountPath": "/data"}])
    account.ask("start", account.start_statement("C33", container, spec={"volumes": volumes}), succeeds)
    job = account.job("C33")
    account.ask("at_once", statements.show_service_containers(job), has_columns(*_CONTAINER_COLUMNS), has_rows())
    account.note("status", account.wait(job, "RUNNING"), is_("RUNNING"))
    running = account.ask("running", statements.show_service_containers(job), has_columns(*_CONTAINER_COLUMNS))
    others = {name for name in running.cells("container_name") if name != "main"}
    account.note("others", sorted(others), either(is_([]), is_(["stage-mount-v2-sidecar-data"])))
    account.ask(
        "instances", f"SHOW SERVICE INSTANCES IN SERVICE {job}", has_columns("instance_id", "status", "ip_address")
    )
    account.ask("drop", statements.drop_service(job), succeeds)


@check("C-34", JOBS, node_minutes=3)
def ends(account):
    """A job that ends well is DONE, any other FAILED, with the exit code of its container; a bad image never starts."""
    scripts = {
        "zero": ("exit 0", "DONE", 0),
        "three": ("exit 3", "FAILED", 3),
        "killed": ("kill -9 $$", "FAILED", 137),
        "terminated": ("kill -15 $$", "FAILED", 143),
    }
    for step, (script, _, _) in scripts.items():
        account.start(f"C34_{step}", script)
    memory = "python3 -c 'x = bytearray(10**9); print(len(x))'"
    others = {
        "out_of_memory": account.container(memory),
        "bad_command": account.container("") | {"command": ["/no/such/program"]},
        "bad_image": account.container("exit 0", image=re.sub(":[^:/]*$", ":no-such-tag", account.image)),
    }
    for step, container in others.items():
        account.ask(f"{step}_start", account.start_statement(f"C34_{step}", container))
    for step, (_, status, code) in scripts.items():
        job = account.job(f"C34_{step}")
        account.note(f"{step}_status", account.wait(job), is_(status))
        answer = account.ask(
            f"{step}_containers", statements.show_service_containers(job), has_columns(*_CONTAINER_COLUMNS)
        )
        codes = [record["last_exit_code"] for record in answer.records if record["container_name"] == "main"]
        account.note(f"{step}_code", str(*codes), is_(str(code)))
    for step in others:
        job = account.job(f"C34_{step}")
        if account.trial.answers[f"{step}_start"].refusal is None:
            account.note(f"{step}_status", account.wait(job, seconds=account.settings.fit_seconds))
            account.ask(f"{step}_containers", statements.show_service_containers(job))
            account.ask(f"{step}_drop", statements.drop_service(job), succeeds)


@check("C-36", JOBS, node_minutes=2)
def cancel(account):
    """A cancelled job gets SIGTERM and time to end, and is CANCELLED; its service stays until it is dropped."""
    count = "i=0; while true; do echo grace $i; i=$((i+1)); sleep 1; done"
    trap = f"trap '{count}' TERM; echo ready; while true; do sleep 0.2; done"
    job = account.start("C36", trap)
    account.wait(job, "RUNNING")
    account.repeat(
        statements.get_service_logs(job, 0, "main"),
        lambda answer: "ready" in str(answer.value),
        account.settings.fit_seconds,
    )
    began = time.monotonic()
    account.ask("cancel", statements.cancel_job(job), succeeds)
    account.ask("at_once", statements.describe_service(job), shows(status={"CANCELLING", "CANCELLED", "RUNNING"}))
    account.note("status", account.wait(job), is_("CANCELLED"))
    account.note("seconds", round(time.monotonic() - began, 1), is_at_most(120))
    account.note("log", account.log(job)[-300:])
    account.ask("cancel_again", statements.cancel_job(job))
    account.ask("containers", statements.show_service_containers(job))
    account.ask("drop", statements.drop_service(job), succeeds)


@check("C-37", JOBS, node_minutes=1)
def drop(account):
    """A dropped job is gone for DESCRIBE and stays in the job history, with its status and the time of its end."""
    job = account.start("C37", "exit 3")
    account.wait(job)
    columns = ("STATUS", "COMPLETED_TIME", "DELETED_TIME")
    history = statements.get_job_history(job)
    account.repeat(history, lambda answer: bool(answer.cells("completed_time")), account.settings.fit_seconds)
    account.ask("before", history, has_columns(*columns), shows(status="FAILED", deleted_time=None))
    account.ask("instances", statements.get_job_instances(job), has_columns("INSTANCE_STATUSES"), says("exit"))
    own = f"SELECT * FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY()) WHERE NAME = '{job.name.value}'"
    account.ask("all", own, has_columns("NAME", "DATABASE_NAME", "SCHEMA_NAME", "MESSAGE"))
    account.ask("drop", statements.drop_service(job), succeeds)
    account.note("seconds", round(account.wait_until_gone(job), 1), is_at_most(60))
    account.ask("again", statements.drop_service(job), succeeds)
    account.ask("describe", statements.describe_service(job), is_refused(NotFoundOrNotAuthorizedError))
    account.ask("containers", statements.show_service_containers(job), is_refused(NotFoundOrNotAuthorizedError))
    account.ask("logs", statements.get_service_logs(job, 0, "main"), is_refused(NotFoundOrNotAuthorizedError))
    answer, _ = account.repeat(
        history, lambda answer: answer.cells("deleted_time") != [None], account.settings.fit_seconds
    )
    account.note("deleted", answer.cells("deleted_time") not in ([], [None]), is_(expected=True))
    account.ask("after", history, has_rows(1), shows(status="FAILED"))


@check("C-72", JOBS, node_minutes=1)
def comments(account):
    """A COMMENT of 4 000 characters, and one with an emoji, comes back as it was written."""
    texts = {"256": "x" * 256, "1000": "x" * 1_000, "4000": "x" * 4_000, "16000": "x" * 16_000, "emoji": "it's \\ ü 🎈"}
    for step, text in texts.items():
        job = account.job(f"C72_{step}")
        answer = account.ask(
            f"{step}_start", account.start_statement(job.name.value, account.container("exit 0"), comment=text)
        )
        comment = account.repeat(statements.describe_service(job), lambda answer: answer.count > 0, 30)[0].cells(
            "comment"
        )
        believed = [is_(expected=True)] if step != "16000" else []
        account.note(f"{step}_equal", answer.refusal is None and comment == [text], *believed)


@check("C-73", JOBS, node_minutes=1)
def sizes(account):
    """A variable of 50 KB, and a specification of 500 KB, reach the container."""
    cases = {"50K": (1, 50, True), "500K": (10, 50, True), "128K": (1, 128, False), "1M": (20, 50, False)}
    for step, (count, kilobytes, is_believed) in cases.items():
        env = {f"V{index}": "x" * (kilobytes * 1024) for index in range(count)}
        job = account.job(f"C73_{step}")
        statement = account.start_statement(job.name.value, account.container("echo ${#V0}", env=env))
        believed = [succeeds] if is_believed else []
        answer = account.ask(f"{step}_start", statement, *believed)
        if answer.refusal is None:
            account.note(f"{step}_status", account.wait(job), *([is_("DONE")] if is_believed else []))
            account.note(
                f"{step}_log", account.log(job)[-300:], *([says(str(kilobytes * 1024))] if is_believed else [])
            )


@check("C-74", JOBS, node_minutes=1)
def specification_files(account):
    """A specification comes from a file on a stage with a quoted name, and a template takes its values from USING."""
    account.ask("stage", f"""CREATE STAGE {account.schema}."Specs" ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')""", succeeds)
    stage = StagePath.parse('@"Specs"', "stage", account.schema)
    text = render({"spec": {"containers": [account.container("exit 0")]}})
    template = text.replace("exit 0", "exit {{ code }}")
    for name, content in {"plain.yaml": text, "template.yaml": template}.items():
        account.put(f"put_{name}", content, stage / name)
    file, template_file = stage / "plain.yaml", stage / "template.yaml"
    sources = {
        "file": (SpecificationSource(file=file), "DONE"),
        "template": (SpecificationSource(text=template, using={"code": "0"}), "DONE"),
        "template_file": (SpecificationSource(file=template_file, using={"code": "3"}), "FAILED"),
    }
    for step, (source, status) in sources.items():
        spec = account.spec(f"C74_{step}")
        account.ask(f"{step}_start", statements.execute_job_service(spec, source), succeeds)
        account.note(f"{step}_status", account.wait(spec.name), is_(status))
    unset = SpecificationSource(text=template, using={"other": "0"})
    account.ask(
        "unset",
        statements.execute_job_service(account.spec("C74_UNSET"), unset),
        is_refused(GatewayError, text="template"),
    )


@check("C-75", JOBS, node_minutes=1)
def names(account):
    """A job's name is an upper-case identifier of up to 63 characters; quoted names are refused."""
    container = account.container("exit 0")
    usual = account.start_statement("C75", container)
    for step, (name, beliefs) in {
        "63": ("C" * 63, [succeeds]),
        "64": ("C" * 64, []),
        "dollar": ("C75$X", []),
        "lower": ("c75_lower", [succeeds]),
        "quoted": ('"c75 quoted"', [is_refused(GatewayError)]),
    }.items():
        statement = usual.replace(f"NAME = {account.schema}.C75", f"NAME = {account.schema}.{name}")
        account.ask(step, statement, *beliefs)


@check("C-76", JOBS, node_minutes=1)
def first_stage_volumes(account):
    """A stage volume of the first version is refused with a text that names the second, or still accepted."""
    container = account.container("exit 0", volumeMounts=[{"name": "data", "mountPath": "/data"}])
    volumes = [{"name": "data", "source": f"{account.stage}/c76"}]
    statement = account.start_statement("C76", container, spec={"volumes": volumes})
    account.ask("start", statement, either(succeeds, is_refused(GatewayError, text="v1 not supported|use v2")))


@check("C-77", JOBS, node_minutes=1)
def endpoints(account):
    """A public endpoint has an address of Snowflake's, or a sentence while it is provisioned."""
    ports = [{"name": "board", "port": 8000, "public": True}, {"name": "inside", "port": 8001}]
    statement = account.start_statement("C77", account.container(_PAUSE), spec={"endpoints": ports})
    if account.ask(
        "start", statement, either(succeeds, is_refused(GatewayError, text="BIND SERVICE ENDPOINT|privilege"))
    ).refusal:
        return
    job = account.job("C77")
    account.ask(
        "at_once",
        statements.show_endpoints(job),
        has_columns("name", "port", "protocol", "is_public", "ingress_url"),
        has_rows(2),
    )
    account.wait(job, "RUNNING")
    answer, seconds = account.repeat(
        statements.show_endpoints(job),
        lambda answer: "provisioning" not in str(answer.rows),
        account.settings.fit_seconds * 5,
    )
    account.note("seconds", round(seconds, 1))
    addresses = [record["ingress_url"] for record in answer.records if record["name"] == "board"]
    account.note("address", str(*addresses), says(r"\.snowflakecomputing\.app$|\.snowflake\.app$|provisioning"))
    account.ask("drop", statements.drop_service(job), succeeds)
