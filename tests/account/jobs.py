"""Checks of one container: what fits a node, what the runtime image holds, and a job from submit to result."""

import io
import tempfile
import zipfile
from datetime import datetime
from pathlib import Path

from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.jobs.names import Identifier
from tests.account.account import RefusedError
from tests.account.beliefs import has_rows, is_, says, succeeds
from tests.account.checks import JOBS, check
from tests.account.payloads import (
    distributed,
    files,
    greeting,
    job_session,
    limits,
    one,
    programs,
    pypi_version,
    with_probe,
)
from tests.lab import run_dag
from tests.ml_client.client import NO_ML_CLIENT, has_ml_client, run_ml_client

_NO_RESOURCES = {"requests": {"memory": "0Gi", "cpu": "0"}}
_PROBE = "mljobs_contract_probe"


@check("C-06", JOBS, node_minutes=2)
def stage_encryption(account):
    """A container mounts a stage with server-side encryption; with Snowflake's default encryption it may not."""
    account.ask("default_stage", f"CREATE STAGE {account.schema}.DEFAULT_ENCRYPTION", succeeds)
    for step, stage in {"sse": account.stage, "default": f"@{account.schema}.DEFAULT_ENCRYPTION"}.items():
        container = account.container("echo x > /data/written", volumeMounts=[{"name": "data", "mountPath": "/data"}])
        volumes = [_stage_volume("data", f"{stage}/encryption")]
        account.ask(f"{step}_start", account.start_statement(f"C06_{step}", container, spec={"volumes": volumes}))
        believed = [is_("DONE")] if step == "sse" else []
        account.note(f"{step}_status", account.wait(account.job(f"C06_{step}")), *believed)


@check("C-20", JOBS, node_minutes=6)
def whole_node(account):
    """A job may ask for its whole node if the sidecars of its stage volumes ask for nothing, and 1 GiB less else."""
    account.note("default", account.run("C20_DEFAULT", one), is_(1))
    cases = {
        "bare_0": (0, _NO_RESOURCES, True),
        "sidecars_2": (2, None, True),
        "sidecars_1": (1, None, True),
        "sidecars_half": (0.5, None, False),
        "sidecars_0": (0, None, False),
    }
    for step, (less, resources, fits) in cases.items():
        job = account.job(f"C20_{step}")
        answer = account.ask(f"{step}_start", _of_the_node(account, job.name.value, less, resources))
        if answer.refusal is not None:
            account.note(f"{step}_status", "refused", *([is_("DONE")] if fits else []))
            continue
        status = account.wait(job, seconds=None if fits else account.settings.fit_seconds)
        account.ask(f"{step}_containers", statements.show_service_containers(job))
        account.note(f"{step}_status", status, is_("DONE" if fits else "PENDING"))
        account.ask(f"{step}_drop", statements.drop_service(job), succeeds)


def _of_the_node(account, name, less, resources):
    """Return the statement that starts a job of the node's resources but for some GiB, with two stage volumes."""
    node = account.runtime.resources
    asked = {"cpu": f"{node.cpu * 1000}m", "memory": f"{int((node.memory_gib - less) * 1024)}Mi"}
    names = ("one", "two")
    container = account.container(
        "exit 0",
        resources={"requests": asked, "limits": asked},
        volumeMounts=[{"name": each, "mountPath": f"/mnt/{each}"} for each in names],
    )
    volumes = [_stage_volume(each, f"{account.stage}/{each}", resources) for each in names]
    return account.start_statement(name, container, spec={"volumes": volumes})


def _stage_volume(name, path, resources=None):
    config = {"name": str(path)} | ({"resources": resources} if resources else {})
    return {"name": name, "source": "stage", "stageConfig": config}


@check("C-21", JOBS, node_minutes=3)
def entrypoint(account):
    """The provider's job starts in the runtime image, whichever entrypoint the image has."""
    listing = 'ls -l /usr/local/bin/*entrypoint* 2>&1; tr "\\0" " " < /proc/1/cmdline; echo; env | cut -d= -f1 | sort'
    job = account.start("C21_LIST", listing)
    account.wait(job)
    account.note("listing", account.log(job))
    account.note("provider", account.run("C21_PROVIDER", one), is_(1))
    commands = {"new": ["/usr/local/bin/entrypoint.sh"], "old": ["/usr/local/bin/_entrypoint.sh"], "none": None}
    for step, command in commands.items():
        container = account.container("") | {"command": command, "args": ["/bin/sh", "-c", "echo reached"]}
        if command is None:
            del container["command"]
        job = account.job(f"C21_{step}")
        account.ask(f"{step}_start", account.start_statement(job.name.value, container))
        account.note(f"{step}_status", account.wait(job))
        account.note(f"{step}_log", account.log(job))


@check("C-22", JOBS, node_minutes=2)
def image_programs(account):
    """The runtime image has Python, Snowpark and cloudpickle, for a job that the provider starts."""
    facts = account.run("C22", programs)
    account.note(
        "facts", facts, says("'executable': '/"), says("'cloudpickle': True"), says("'snowflake.snowpark': True")
    )
    bare = "for p in python python3 pip uv git bash ray; do echo $p=$(command -v $p); done; ls /opt /opt/*"
    job = account.start("C22_BARE", bare)
    account.wait(job)
    account.note("without_entrypoint", account.log(job))


@check("C-23", JOBS, node_minutes=2)
def user_and_files(account):
    """A job reads its payload, writes whole files and directories to its result, and has shared memory."""
    facts = account.run("C23", files)
    account.note("files", facts, says("'read': True"), says("'write': 'x'"), says("'mkdir': 'x'"))
    account.note("disk", account.run("C23_LIMITS", limits), says("'shared_memory': [1-9]"))


@check("C-24", JOBS, node_minutes=3)
def installation(account):
    """A job installs its requirements without a network from wheels on a stage."""
    with tempfile.TemporaryDirectory(prefix="mljobs-") as folder:
        wheel = Path(folder, f"{_PROBE}-1.0-py3-none-any.whl")
        wheel.write_bytes(_wheel())
        account.ask("put", statements.put(wheel, account.stage / "wheels"), succeeds)
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels", "UV_NO_INDEX": "1", "UV_FIND_LINKS": "/wheels"}
    mounted = {
        "volumes": [_stage_volume("wheels", account.stage / "wheels", _NO_RESOURCES)],
        "volume_mounts": [{"name": "wheels", "mountPath": "/wheels"}],
    }
    value = account.run("C24", with_probe, requirements=[_PROBE], env_vars=offline, **mounted)
    account.note("provider", value, is_("1.0"))
    ways = {
        "pip": "pip install",
        "module": "python -m pip install",
        "uv": "uv pip install --system --break-system-packages",
    }
    for step, way in ways.items():
        script = f"{way} --no-index /wheels/{_PROBE}-1.0-py3-none-any.whl; echo ended $?"
        container = account.container(script, volumeMounts=mounted["volume_mounts"])
        job = account.job(f"C24_{step}")
        statement = account.start_statement(job.name.value, container, spec={"volumes": mounted["volumes"]})
        account.ask(f"{step}_start", statement, succeeds)
        account.wait(job)
        account.note(step, account.log(job), says(r"ended \d+"))


def _wheel():
    """Build a wheel of one module."""
    information = f"{_PROBE}-1.0.dist-info"
    files = {
        f"{_PROBE}.py": "VERSION = '1.0'\n",
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {_PROBE}\nVersion: 1.0\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: contract\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{information}/RECORD"))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as wheel:
        for name, text in {**files, f"{information}/RECORD": record}.items():
            wheel.writestr(name, text)
    return content.getvalue()


@check("C-25", JOBS, "eai", node_minutes=3)
def installation_from_pypi(account):
    """A job reaches PyPI through an external access integration, and not without one."""
    integrations = (Identifier.parse(account.settings.eai, "integration"),)
    requirements = ["iniconfig==2.0.0"]
    value = account.run("C25_WITH", pypi_version, requirements=requirements, external_access_integrations=integrations)
    account.note("with", value, is_("2.0.0"))
    account.note("without", account.run("C25_WITHOUT", pypi_version, requirements=requirements), says("FAILED"))


@check("C-26", JOBS, node_minutes=2)
def single_node_ray(account):
    """The distributed parts of the ML runtime can be imported in a job of one instance."""
    account.note("facts", account.run("C26", distributed))


@check("C-27", JOBS, node_minutes=2)
def session(account):
    """A job has a token, and opens a Snowpark session with the role, database and schema of its service."""
    facts = account.run("C27", job_session, query_tag='{"a": 1}')
    account.note(
        "facts",
        facts,
        says("'token': True"),
        says(f"'database': '{account.database.value}'"),
        says(f"'schema': '{account.schema.schema.value}'"),
        says("'query_tag': {'a': 1}"),
    )


@check("C-28", JOBS, node_minutes=6)
def round_trip(account):
    """Airflow tasks return a job's value and files, raise its exception, take large arguments, and leave only files."""
    from airflow.sdk import DAG, task

    from airflow_provider_mljobs.operators import MLJobOperator

    settings = {
        "compute_pool": account.pool.value,
        "stage_name": str(account.stage),
        "snowflake_conn_id": account.conn_id,
        "database": account.database.value,
        "schema": account.schema.schema.value,
    }

    def fail():
        raise KeyError("on purpose")

    def length(text):
        return len(text)

    @task.mljob(**settings)
    def save(text):
        import os
        from pathlib import Path

        Path(os.environ["MLRS_STAGE_RESULT_PATH"], "saved.txt").write_text(text)
        return text.upper()

    with DAG("mljobs_contract", schedule=None, start_date=datetime(2026, 1, 1)) as dag:
        save("kept")
        MLJobOperator(task_id="value", source=one, **settings)
        MLJobOperator(task_id="error", source=fail, **settings)
        MLJobOperator(task_id="large", source=length, args=["x" * 200_000], **settings)
    run = run_dag(dag)
    account.note("value", run.xcom("value"), is_(1))
    account.note("large", run.xcom("large"), is_(200_000))
    account.note("decorated", run.xcom("save"), is_("KEPT"))
    account.note("artifacts", [file["path"] for file in run.xcom("save", "artifacts")], is_(["saved.txt"]))
    account.note("error", f"{type(run.errors.get('error')).__name__}: {run.errors.get('error')}", says("on purpose"))
    names = account.ask("files", statements.list_files(account.stage), succeeds).cells("name")
    remaining = sorted(name.partition("/MLJOB_")[2].partition("/")[2] for name in names if "/MLJOB_" in name)
    account.note("files_of_jobs", remaining, is_(["saved.txt"]))
    jobs = statements.show_job_services(account.schema, "MLJOB_")
    # A dropped job may be listed as DELETING for a while.
    account.repeat(jobs, lambda answer: answer.count == 0, account.settings.fit_seconds)
    account.ask("jobs", jobs, has_rows(0))


@check("C-28b", JOBS, node_minutes=1)
def ml_client(account):
    """Snowflake's ML client reads the result and the status of a job of the provider."""
    if not has_ml_client():
        raise RefusedError(NO_ML_CLIENT)
    account.run("C28B", greeting)
    (theirs,) = run_ml_client(account.parameters, str(account.job("C28B")))
    account.note("result", theirs["result"], is_("hello"))
    account.note("status", theirs["status"], is_("DONE"))
    # Empty between the end of the node's log and its arrival in the event table.
    account.note("logs", theirs["logs"])
