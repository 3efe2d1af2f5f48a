"""The checks of a Snowflake account, in the order in which a job needs their subjects.

Each check is a function that looks at the account, changes nothing, and returns one finding. :func:`account_checks` has
their order and dependencies.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_mljobs.exceptions import GatewayError, LoginRefusedError, SnowflakeUnavailableError
from airflow_provider_mljobs.gateway import statements as jobs_statements
from airflow_provider_mljobs.gateway.doctor import account_wide, statements
from airflow_provider_mljobs.gateway.doctor.privileges import first, lacking
from airflow_provider_mljobs.jobs.checkup import Check, Finding, missing, ok, unseen
from airflow_provider_mljobs.jobs.grants import lacking as absent
from airflow_provider_mljobs.jobs.names import Identifier, QualifiedName
from airflow_provider_mljobs.jobs.payload.pickles import python_version
from airflow_provider_mljobs.jobs.spec.job import JobSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow_provider_mljobs.gateway.doctor.account import Account, Subject
    from airflow_provider_mljobs.gateway.doctor.privileges import Privileges

LOGIN, SCHEMA, CREATE_SERVICE = "login", "database and schema", "CREATE SERVICE"
POOL, STAGE, IMAGE = "compute pool", "stage", "runtime image"
# The checks without which no job can be submitted.
NEEDED_BY_A_JOB = (LOGIN, SCHEMA, CREATE_SERVICE, POOL, STAGE, IMAGE)
_ROLE_REFUSED = {390186, 390189}
_KEY_REFUSED = {390144, *range(394_300, 394_307)}
# The type of a stage with server-side encryption only, in SHOW STAGES.
_SERVER_SIDE = "INTERNAL NO CSE"


def account_checks(account: Account) -> list[Check]:
    """Return the checks of an account, in their order."""

    def check(name: str, look: Callable[[Account], Finding], *needs: str) -> Check:
        return Check(name, partial(look, account), needs)

    return [
        check(LOGIN, login),
        check("role", role, LOGIN),
        check("warehouse", warehouse, LOGIN),
        check(SCHEMA, database_and_schema, LOGIN),
        check(CREATE_SERVICE, create_service, LOGIN),
        check(POOL, compute_pool, LOGIN),
        check(STAGE, stage, LOGIN),
        check(IMAGE, runtime_image, LOGIN, POOL),
        check("image repository", image_repository, LOGIN),
        *(
            check(integration_name(name), partial(integration, name), LOGIN)
            for name in account.subject.external_access_integrations
        ),
        check("event table", account_wide.event_table, LOGIN),
        check("workload types", account_wide.workload_types, LOGIN),
        check("services limit", account_wide.services_limit, LOGIN),
        check("clock", account_wide.clock, LOGIN),
    ]


def integration_name(name: Identifier) -> str:
    """Return the name of the check of an integration."""
    return f"integration {name}"


def login(account: Account) -> Finding:
    """Log in."""
    subject = account.subject
    try:
        session = account.session
    except LoginRefusedError as error:
        refusal = f"Snowflake refuses the login: {error.message}"
        if _is_one_of(error, _ROLE_REFUSED):
            user, asked = Identifier(subject.user.upper() or "USER"), subject.role or Identifier("PUBLIC")
            return missing(refusal, statements.grant_role(asked, user))
        if _is_one_of(error, _KEY_REFUSED):
            return missing(refusal, setting=f"the private key of connection {subject.connection}")
        return missing(refusal, setting=f"login and password of connection {subject.connection}")
    except GatewayError as error:
        return missing(
            f"Snowflake can't be reached: {error.message}",
            setting=f"account of connection {subject.connection}, or the network between this machine and Snowflake",
        )
    return ok(f"User {session.user}, Snowflake {session.version}.")


def _is_one_of(error: GatewayError, numbers: Collection[int]) -> bool:
    """Whether an error has one of some numbers, which the connector may leave in the text only."""
    return error.errno in numbers or any(str(number) in error.message for number in numbers)


def role(account: Account) -> Finding:
    """Read the privileges of the session's role."""
    grants = account.grants
    if grants.unread:
        return unseen(" ".join(grants.unread))
    own, *inherited = grants.roles
    return ok(f"Role {own} inherits {', '.join(map(str, inherited))}; {len(grants.grants)} privileges.")


def warehouse(account: Account) -> Finding:
    """Check the warehouse of the session, which queries about jobs and in jobs need."""
    current, asked = account.session.warehouse, account.subject.warehouse
    name = asked or current
    if name is None:
        visible = [str(Identifier(str(row["name"]))) for row in account.rows(statements.show_warehouses())]
        example = visible[0] if visible else "COMPUTE_WH"
        return missing(
            "The connection names no warehouse, and the user has no default. Job history and logs need one.",
            setting=f'"warehouse": "{example}" in the extra of connection {account.subject.connection}',
        )
    return first(
        lacking(account, ("WAREHOUSE", name, ("USAGE",))),
        lambda: (
            ok(f"Warehouse {current}.")
            if current is not None
            else unseen(f"The session doesn't use warehouse {name}, although its role may.")
        ),
    )


def database_and_schema(account: Account) -> Finding:
    """Check the schema that jobs are created in."""
    schema = account.subject.namespace
    if schema.database is None or schema.schema is None:
        absent = "database" if schema.database is None else "schema"
        return missing(
            f"The connection names no {absent}.",
            setting=f"{absent} of connection {account.subject.connection}",
        )
    if not (schema.database.is_bare and schema.schema.is_bare):
        return missing(
            f"Snowflake takes no job in schema {schema}, because its name needs quotes.",
            setting=f"a schema with an upper-case name in connection {account.subject.connection}",
        )
    return lacking(account, ("DATABASE", schema.database, ()), ("SCHEMA", schema, ())) or ok(f"Schema {schema}.")


def create_service(account: Account) -> Finding:
    """Check the privilege to create jobs."""
    schema = account.subject.namespace
    if schema.schema is None:
        return unseen("Not checked without a schema.")
    return lacking(account, ("SCHEMA", schema, ("CREATE SERVICE",))) or ok(f"On schema {schema}.")


def compute_pool(account: Account) -> Finding:
    """Check the pool: the privilege to use it, its state and its nodes."""
    name = account.subject.compute_pool
    if name is None:
        visible = [str(row["name"]) for row in account.rows(statements.show_compute_pools())]
        return unseen(f"Pass --compute-pool. The role can see: {', '.join(visible) or 'none'}.")
    return first(lacking(account, ("COMPUTE POOL", name, ("USAGE",))), lambda: _state_of_pool(account, name))


def _state_of_pool(account: Account, name: Identifier) -> Finding:
    """Check that a pool starts jobs."""
    pool = account.pool
    if pool is None:
        return unseen(f"Compute pool {name} is not listed, although the role may use it; it may be new.")
    state, resumes = str(pool["state"]), str(pool.get("auto_resume")).lower() == "true"
    if str(pool.get("is_exclusive")).lower() == "true":
        return missing(
            f"Compute pool {name} is for application {pool.get('application')} only.", setting="another compute_pool"
        )
    if state in {"SUSPENDED", "STOPPING"} and not resumes:
        return missing(
            f"Compute pool {name} is {state} and doesn't resume by itself; to resume it by hand needs OPERATE.",
            statements.resume_automatically(name),
        )
    auto_resume = f"auto-resume {'on' if resumes else 'off'}"
    monitors = not absent(account.grants.privileges("COMPUTE POOL", name), ("MONITOR",))
    usage = "MONITOR" if monitors else "no MONITOR, which shows how busy it is"
    return ok(f"Compute pool {name}: {state}, {_nodes(account, pool)}; {auto_resume}; {usage}.")


def _nodes(account: Account, pool: dict[str, object]) -> str:
    """Describe the nodes of a pool."""
    family, most = str(pool["instance_family"]), pool["max_nodes"]
    rows = account.rows(jobs_statements.show_instance_families())
    row = next((row for row in rows if row["name"] == family), None)
    size = "" if row is None else f" ({row['vcpu']} CPU, {row['memory_gib']} GiB, {row['gpu_count'] or 0} GPU)"
    return f"at most {most} nodes of {family}{size}"


def stage(account: Account) -> Finding:
    """Check the stage for payloads and results: the privileges, and whether containers can mount it."""
    path = account.subject.stage
    if path is None:
        return unseen("Pass --stage.")
    name = path.stage
    needs = (*_parents(account, name), ("STAGE", name, ("READ", "WRITE")))
    return first(lacking(account, *needs), lambda: _encryption_of_stage(account, name))


def _parents(account: Account, name: QualifiedName) -> tuple[Privileges, ...]:
    """Return the needs of an object's database and schema, unless they are those of the jobs, which are checked."""
    if name.namespace == account.subject.namespace:
        return ()
    return ("DATABASE", name.database, ()), ("SCHEMA", name.namespace, ())


def _encryption_of_stage(account: Account, name: QualifiedName) -> Finding:
    """Check that containers can mount a stage."""
    rows = account.rows(statements.show_stages(name))
    row = next((row for row in rows if row["name"] == name.name.value), None)
    if row is None:
        return unseen(f"Stage {name} is not listed, although the role may use it.")
    kind = str(row["type"])
    if kind.startswith("EXTERNAL"):
        return missing(
            f"Stage {name} is external; containers mount internal stages only. Choose another name for a new one.",
            statements.create_stage(_renamed(name)),
        )
    if kind != _SERVER_SIDE:
        return unseen(
            f"Stage {name} is {kind}, not encrypted by the server alone (SNOWFLAKE_SSE). Some accounts mount such a "
            f"stage, others refuse. To be sure: {statements.create_stage(_renamed(name))};"
        )
    return ok(f"Stage {name}: READ, WRITE, {kind}.")


def _renamed(stage_name: QualifiedName) -> QualifiedName:
    """Return a name for a new stage beside one: the encryption of a stage can't be changed."""
    return QualifiedName(stage_name.database, stage_name.schema, Identifier(f"{stage_name.name.value}_SSE"))


def runtime_image(account: Account) -> Finding:
    """Resolve the image of the ML runtime as a job does."""
    subject = account.subject
    if subject.compute_pool is None:
        return unseen("Pass --compute-pool: the image depends on it.")
    try:
        image = account.client.runtimes.image(job_spec(subject, subject.compute_pool, "MLJOB_DOCTOR"))
    except SnowflakeUnavailableError:
        raise
    except GatewayError as error:
        advice = "runtime_environment, e.g. a full image path" if subject.image is None else "another --image"
        return missing(error.message, setting=advice)
    own = python_version()
    if image.refusal or image.python not in {None, own}:
        other = "another Python" if image.python is None else f"Python {image.python}"
        return ok(
            f"{image.path}, with {other} instead of this machine's {own}: it can't run code that has to be pickled."
        )
    return ok(f"{image.path}, for Python {own}.")


def image_repository(account: Account) -> Finding:
    """Check the repository of the job's own image, or that the account has any.

    Without any image repository, accounts can't retrieve even Snowflake's own images ("Known limitations" of
    Snowflake's samples for ML jobs).
    """
    own = _repository_of(account.subject.image)
    if own is not None:
        needs = (*_parents(account, own), ("IMAGE REPOSITORY", own, ("READ",)))
        return lacking(account, *needs) or ok(f"READ on image repository {own}.")
    # Every role sees the repository of Snowflake's images.
    visible = [row for row in account.rows(statements.show_image_repositories()) if row["database_name"] != "SNOWFLAKE"]
    if not visible:
        return unseen(
            f"Role {account.session.role} sees no image repository of the account. An account without any can't "
            "retrieve Snowflake's images: if a job fails to pull its image, create one, empty."
        )
    return ok(f"Image repositories of the account: {', '.join(sorted(str(row['name']) for row in visible))}.")


def _repository_of(image: str | None) -> QualifiedName | None:
    """Return the repository in an image's path, ``[host]/database/schema/repository/image:tag``."""
    parts = (image or "").split("/")[1:4]
    if len(parts) < 3 or parts[0].lower() == "snowflake":  # noqa: PLR2004 (database, schema, repository)
        return None
    return QualifiedName(*(Identifier(part.upper()) for part in parts))


def integration(name: Identifier, account: Account) -> Finding:
    """Check an external access integration: the privilege to use it, and whether it is enabled."""
    return first(lacking(account, ("INTEGRATION", name, ("USAGE",))), lambda: _state_of_integration(account, name))


def _state_of_integration(account: Account, name: Identifier) -> Finding:
    row = next((row for row in account.rows(statements.show_integrations(name)) if row["name"] == name.value), None)
    if row is None:
        return unseen(f"Integration {name} is not listed, although the role may use it.")
    if str(row["enabled"]).lower() != "true":
        return missing(f"Integration {name} is disabled.", statements.enable_integration(name))
    return ok(f"Integration {name} is enabled.")


def job_spec(subject: Subject, pool: Identifier, name: str) -> JobSpec:
    """Describe a job with the subject's arguments.

    :raises InvalidJobSpecError: if no job can have them.
    """
    return JobSpec(
        name=QualifiedName.parse(name, "job", subject.namespace),
        compute_pool=pool,
        stage=subject.stage,
        query_warehouse=subject.warehouse,
        external_access_integrations=subject.external_access_integrations,
        runtime_environment=subject.image,
        managed=subject.is_managed,
    )
