"""Checks that start no job: the session, the columns of answers, the runtime images, and files on stages."""

import re
import tempfile
from pathlib import Path

from airflow_provider_mljobs.exceptions import GatewayError, NotFoundOrNotAuthorizedError
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.jobs.names import ANYWHERE, Identifier, StagePath
from tests.account.beliefs import either, has_columns, has_rows, is_, is_refused, shows, succeeds
from tests.account.checks import QUICK, check

# A path in Snowflake's own repository, or a custom runtime environment.
IMAGE = re.compile(r"^(/snowflake/images/\S+:\S+|cre@\S+)$")
_NO_WAREHOUSE = 606
_NO_POOL = Identifier("NO_SUCH_POOL")
_PARAMETERS = ("EVENT_TABLE", "ALLOWED_SPCS_WORKLOAD_TYPES", "DISALLOWED_SPCS_WORKLOAD_TYPES", "LOG_LEVEL",
               "ENABLE_PER_ACCOUNT_APP_SERVICE_URL")  # fmt: skip
_ODD_NAMES = {
    "plain": "plain.txt",
    "space": "two words.txt",
    "percent": "100%25.txt",
    "hash": "a#b.txt",
    "unicode": "über-ß.txt",
    "double_quote": 'say "hi".txt',
}


@check("C-01", QUICK)
def login(account):
    """A session has a role and a warehouse, and shows the parameters that decide about jobs."""
    account.ask("version", "SELECT CURRENT_VERSION(), CURRENT_REGION()", has_rows(1))
    account.ask("role", "SELECT CURRENT_ROLE() IS NOT NULL", is_(expected=True))
    account.ask("warehouse", "SELECT CURRENT_WAREHOUSE() IS NOT NULL", is_(expected=True))
    account.ask("event_table", statements.show_event_table(), has_columns("key", "value", "level"), has_rows(1))
    for name in _PARAMETERS[1:]:
        account.ask(
            name.lower(), f"SHOW PARAMETERS LIKE '{name}' IN ACCOUNT", has_columns("key", "value", "default", "level")
        )


@check("C-02", QUICK)
def image_repositories(account):
    """The image repositories of an account can be listed; without any, an account may refuse ML jobs."""
    account.ask(
        "repositories",
        "SHOW IMAGE REPOSITORIES IN ACCOUNT",
        has_columns("created_on", "name", "database_name", "schema_name", "repository_url", "owner"),
        is_private=True,
    )


@check("C-03", QUICK)
def columns(account):
    """The lists of pools, families and jobs have the columns that the provider reads."""
    account.ask(
        "compute_pools",
        statements.show_compute_pools(account.pool),
        has_columns("name", "instance_family", "max_nodes"),
        has_rows(),
    )
    account.ask(
        "instance_families",
        statements.show_instance_families(),
        has_columns("name", "vcpu", "memory_gib", "gpu_count"),
        has_rows(),
    )
    account.ask(
        "job_services",
        statements.show_job_services(account.schema, "NO_SUCH_", limit=1),
        has_columns("name", "status", "database_name", "schema_name", "compute_pool", "comment", "created_on", "owner"),
        has_rows(0),
    )
    missing = account.job("NO_SUCH_JOB")
    for step, statement in {
        "describe_missing": statements.describe_service(missing),
        "containers_missing": statements.show_service_containers(missing),
        "endpoints_missing": statements.show_endpoints(missing),
        "cancel_missing": statements.cancel_job(missing),
        "logs_missing": statements.get_service_logs(missing, 0, "main"),
    }.items():
        account.ask(step, statement, is_refused(NotFoundOrNotAuthorizedError, text="does not exist or not authorized"))
    account.ask("drop_missing", statements.drop_service(missing), succeeds)


@check("C-04", QUICK, "second_role")
def grants(account):
    """Each grant of the README is needed: without it a statement is refused, as if its object didn't exist."""
    role, schema = account.settings.second_role, account.schema
    visible = is_refused(NotFoundOrNotAuthorizedError)
    with account.connect(role=role) as session, session.cursor() as cursor:
        account.ask("secondary_roles", "USE SECONDARY ROLES NONE", succeeds, cursor=cursor)
        start = account.start_statement("C04", account.container("exit 0"))
        files = statements.list_files(account.stage)
        account.ask("list_without_schema", files, visible, cursor=cursor)
        _grant(account, ["USAGE"], "DATABASE", account.database)
        _grant(account, ["USAGE"], "SCHEMA", schema)
        account.ask("list_without_stage", files, visible, cursor=cursor)
        _grant(account, ["READ", "WRITE"], "STAGE", f"{schema}.PAYLOADS")
        account.ask("list", files, succeeds, cursor=cursor)
        account.ask("execute_without_service", start, visible, cursor=cursor)
        _grant(account, ["CREATE SERVICE"], "SCHEMA", schema)
        account.ask("execute_without_pool", start, visible, cursor=cursor)
        account.ask("pools_without_pool", statements.show_compute_pools(account.pool), has_rows(0), cursor=cursor)
        _grant(account, ["USAGE", "MONITOR"], "COMPUTE POOL", account.pool)
        account.ask("pools", statements.show_compute_pools(account.pool), has_rows(), cursor=cursor)
        account.ask("execute", start, succeeds, cursor=cursor)
        account.ask("drop", statements.drop_service(account.job("C04")), succeeds, cursor=cursor)


def _grant(account, privileges, kind, name):
    """Grant privileges to the second role, and revoke those that it didn't have at the end of the run."""
    from snowflake.connector import DictCursor

    role = account.settings.second_role
    rows = account.connection.cursor(DictCursor).execute(f"SHOW GRANTS TO ROLE {role}").fetchall()
    on = kind.replace(" ", "_"), str(name)
    has = {row["privilege"] for row in rows if (row["granted_on"], row["name"]) == on}
    step = f"grant_{privileges[0]}_on_{kind}".lower().replace(" ", "_")
    account.ask(step, _on("GRANT", privileges, kind, name, f"TO ROLE {role}"), succeeds)
    if new := [privilege for privilege in privileges if privilege not in has]:
        account.at_end(_on("REVOKE", new, kind, name, f"FROM ROLE {role}"))


def _on(verb, privileges, kind, name, role):
    return f"{verb} {', '.join(privileges)} ON {kind} {name} {role}"


@check("C-05", QUICK)
def no_warehouse(account):
    """Without a warehouse, SHOW, DESCRIBE, CALL and a SELECT without FROM work; a SELECT from a table is error 606."""
    missing = account.job("NO_SUCH_JOB")
    # A login with a warehouse that doesn't exist succeeds, and its session has none.
    with account.connect(warehouse="MLJOBS_NO_SUCH_WAREHOUSE") as session, session.cursor() as cursor:
        account.ask("warehouse", "SELECT CURRENT_WAREHOUSE()", is_(None), cursor=cursor)
        for step, statement in {
            "show_compute_pools": statements.show_compute_pools(account.pool),
            "show_instance_families": statements.show_instance_families(),
            "get_ml_job_runtime": statements.get_ml_job_runtime(account.pool, None, "3.11"),
            "show_job_services": statements.show_job_services(account.schema, "C"),
            "list_files": statements.list_files(account.stage),
            "remove": statements.remove(account.stage),
            "show_event_table": statements.show_event_table(),
            "current_timestamp": statements.current_timestamp(),
        }.items():
            account.ask(step, statement, succeeds, cursor=cursor)
        account.ask(
            "describe", statements.describe_service(missing), is_refused(NotFoundOrNotAuthorizedError), cursor=cursor
        )
        account.ask(
            "job_history",
            statements.get_job_history(missing),
            is_refused(GatewayError, errno=_NO_WAREHOUSE, text="No active warehouse"),
            cursor=cursor,
        )


@check("C-10", QUICK)
def runtime_by_python(account):
    """An account has a runtime image for Python 3.10 to 3.12, and refuses or replaces newer ones."""
    pools = {"cpu": account.pool} | ({"gpu": account.gpu_pool} if account.settings.gpu_pool else {})
    for kind, pool in pools.items():
        account.ask(f"{kind}_any", f"CALL SYSTEM$GET_ML_JOB_RUNTIME('{pool}', '{{}}')", is_(IMAGE))
        for python in ("3.10", "3.11", "3.12"):
            account.ask(f"{kind}_{python}", statements.get_ml_job_runtime(pool, None, python), is_(IMAGE))
        for python in ("3.13", "3.14"):
            statement = statements.get_ml_job_runtime(pool, None, python)
            account.ask(f"{kind}_{python}", statement, either(is_(IMAGE), is_refused(GatewayError)))


@check("C-11", QUICK)
def runtime_by_tag(account):
    """A runtime is found by its whole tag; a tag that no image has is refused."""
    for tag in ("latest", "2.10", "2.10.0", "2.10.0-py311", "3.0"):
        statement = statements.get_ml_job_runtime(account.pool, tag, "3.11")
        account.ask(f"tag_{tag}", statement, either(is_(IMAGE), is_refused(GatewayError)))
    statement = statements.get_ml_job_runtime(account.pool, "nonsense", "3.11")
    account.ask("tag_nonsense", statement, is_refused(GatewayError))


@check("C-12", QUICK)
def runtime_by_path(account):
    """The provider uses a full image path as it is; Snowflake's answer to one is an image or a refusal."""
    image = account.ask("image", statements.get_ml_job_runtime(account.pool, None, "3.11"), is_(IMAGE)).value
    statement = statements.get_ml_job_runtime(account.pool, str(image), "3.11")
    account.ask("path", statement, either(is_(IMAGE), is_refused(GatewayError)))


@check("C-13", QUICK)
def runtime_environments(account):
    """A reference to a custom runtime environment that doesn't exist is refused."""
    statement = statements.get_ml_job_runtime(account.pool, "cre@NO_SUCH_ENVIRONMENT", "3.11")
    account.ask("cre", statement, either(is_(IMAGE), is_refused(GatewayError)))


@check("C-70", QUICK)
def quoted_paths(account):
    """Each stage statement takes a path between quotes, with blanks, percent signs and other letters in it."""
    account.ask(
        "lower_case_stage", f"""CREATE STAGE {account.schema}."lower" ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')""", succeeds
    )
    stages = {"": account.stage, "lower_": StagePath.parse('@"lower"', "stage", account.schema)}
    with tempfile.TemporaryDirectory(prefix="mljobs-") as folder:
        for prefix, stage in stages.items():
            for step, name in _ODD_NAMES.items():
                if prefix and step != "plain":
                    continue
                file = Path(folder, name)
                file.write_text("hello\n", "utf-8")
                # Double quotes delimit parts of a path to a Git repository; in a file's name nothing is documented.
                listed = () if step == "double_quote" else (has_rows(1),)
                Path(folder, step).mkdir(exist_ok=True)
                source, target = stage / f"odd {step}", stage / f"copy {step}"
                account.ask(f"put_{prefix}{step}", statements.put(file, source), shows(status="UPLOADED"))
                account.ask(
                    f"list_{prefix}{step}",
                    statements.list_files(source / name),
                    has_columns("name", "size", "md5"),
                    *listed,
                )
                account.ask(f"copy_{prefix}{step}", statements.copy_named_files(source, [name], target), has_rows(1))
                account.ask(
                    f"get_{prefix}{step}", statements.get_matching(target / name, Path(folder, step), ".*"), *listed
                )
                account.ask(f"remove_{prefix}{step}", statements.remove(source / ""), has_rows(1))
        missing = statements.copy_named_files(account.stage / "nowhere", ["no.txt"], account.stage / "copies")
        account.ask("copy_missing", missing, either(has_rows(0), is_refused(GatewayError)))


@check("C-71", QUICK)
def patterns(account):
    """A path is a prefix of names, and a PATTERN has to fit the whole path from the stage on."""
    with tempfile.TemporaryDirectory(prefix="mljobs-") as folder:
        file = Path(folder, "b.txt")
        file.write_text("hello\n", "utf-8")
        for directory in ("p/a", "p/ab"):
            account.ask(
                f"put_{directory[2:]}", statements.put(file, account.stage / directory), shows(status="UPLOADED")
            )
    account.ask("prefix", statements.list_files(account.stage / "p" / "a"), has_rows(2))
    account.ask("directory", statements.list_files(account.stage / "p" / "a" / ""), has_rows(1))
    account.ask("whole", statements.list_files(account.stage / "p", r".*/a/b\.txt"), has_rows(1))
    account.ask("end_only", statements.list_files(account.stage / "p", r"b\.txt"), has_rows(0))
    account.ask("beginning_only", statements.list_files(account.stage / "p", r".*/a"), has_rows(0))
    account.ask(
        "nothing",
        statements.list_files(account.stage / "nowhere"),
        has_columns("name", "size", "md5", "last_modified"),
        has_rows(0),
    )
    account.ask(
        "remove", statements.remove(account.stage / "p" / "", r".*/ab/.*"), has_columns("name", "result"), has_rows(1)
    )
    account.ask(
        "no_stage",
        statements.list_files(StagePath.parse("@NO_SUCH_STAGE", "stage", account.schema)),
        is_refused(NotFoundOrNotAuthorizedError, text="does not exist or not authorized"),
    )


@check("C-78", QUICK)
def refusals(account):
    """The provider recognises what doesn't exist, or isn't visible; the recording has all errors of the run."""
    missing = account.job("NO_SUCH_JOB")
    nowhere = "NO_SUCH_DATABASE_X.NO_SUCH_SCHEMA"
    for step, statement in {
        "pool": statements.get_ml_job_runtime(_NO_POOL, None, "3.11"),
        "schema": f"SHOW JOB SERVICES IN SCHEMA {nowhere}",
        "service": statements.describe_service(missing),
        "database": f"DESCRIBE SERVICE {nowhere}.J",
    }.items():
        account.ask(step, statement, is_refused(NotFoundOrNotAuthorizedError, text="does not exist"))
    account.ask("syntax", "EXECUTE JOB SERVICE NONSENSE", is_refused(GatewayError, errno=1003, text="syntax error"))
    account.ask(
        "history",
        statements.get_jobs_called(ANYWHERE, "NO_SUCH_"),
        has_columns("NAME", "STATUS", "DELETED_TIME"),
        has_rows(0),
    )
    account.note_refusals("catalogue")
