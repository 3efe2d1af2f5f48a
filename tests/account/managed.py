"""Checks of managed jobs: SYSTEM$EXECUTE_ML_JOB with the provider's options."""

import json
import re

from airflow_provider_mljobs.exceptions import GatewayError, JobAlreadyExistsError, NotFoundOrNotAuthorizedError
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.jobs.names import Identifier
from airflow_provider_mljobs.jobs.spec.rendering import ml_job_options
from airflow_provider_mljobs.jobs.values.arguments import Arguments
from tests.account.beliefs import either, has_columns, has_rows, is_, is_refused, says, shows, succeeds
from tests.account.checks import MANAGED, check
from tests.account.payloads import one

_SYSTEM_POOL = Identifier("SYSTEM_COMPUTE_POOL_CPU")


@check("C-60", MANAGED, node_minutes=4)
def managed_job(account):
    """A managed job runs the provider's payload under the provider's name; the name is then taken."""
    account.note("value", account.run("C60", one, managed=True), is_(1))
    account.ask("name_taken", _statement(account, "C60"), is_refused(JobAlreadyExistsError))
    answer = account.ask("suffix", _statement(account, "C60_SUFFIX", generate_suffix=True), says(r"C60_SUFFIX\w+"))
    account.ask("drop", statements.drop_service(account.job("C60")), succeeds)
    if answer.refusal is None:
        job = account.job(re.search(r"C60_SUFFIX\w+", str(answer.value))[0])
        account.ask("drop_suffix", statements.drop_service(job), succeeds)


def _statement(account, name, *, generate_suffix=False, **fields):
    spec = account.spec(name, managed=True, **fields)
    options, job = ml_job_options(
        spec, account.stage / "nothing", Arguments.of_script(()), account.image, generate_suffix=generate_suffix
    )
    return statements.execute_ml_job(str(spec.name), spec.compute_pool, json.dumps(options), json.dumps(job))


@check("C-61", MANAGED, node_minutes=2)
def overrides(account):
    """A managed job takes overrides of its container, or refuses those that aren't supported."""
    override = {"spec": {"containers": [{"name": "main", "resources": {"requests": {"memory": "1Gi"}}}]}}
    answer = account.ask(
        "start", _statement(account, "C61", spec_overrides=override), either(succeeds, is_refused(GatewayError))
    )
    if answer.refusal is None:
        account.ask("describe", statements.describe_service(account.job("C61")), succeeds)
        account.ask("drop", statements.drop_service(account.job("C61")), succeeds)


@check("C-62", MANAGED, node_minutes=2)
def owner(account):
    """A managed job shows owner, status and specification to its role, which may drop it; then it is gone."""
    account.ask("start", _statement(account, "C62"), succeeds)
    job = account.job("C62")
    account.ask(
        "describe",
        statements.describe_service(job),
        has_columns("owner", "spec", "status", "comment"),
        shows(status={"PENDING", "RUNNING", "FAILED", "DONE"}),
    )
    account.ask("show", statements.show_job_services(account.schema, "C62"), has_rows(1))
    account.ask("history", statements.get_job_history(job), has_columns("STATUS", "COMPLETED_TIME", "DELETED_TIME"))
    account.wait(job)
    account.ask("drop", statements.drop_service(job), succeeds)
    account.wait_until_gone(job)
    account.ask("gone", statements.describe_service(job), is_refused(NotFoundOrNotAuthorizedError))


@check("C-63", MANAGED, node_minutes=4)
def system_pool(account):
    """Snowflake's own pool runs managed jobs, and refuses others."""
    # The provider refuses this before Snowflake does.
    plain = account.start_statement("C63_PLAIN", account.container("exit 0"))
    plain = plain.replace(f"POOL {account.pool}", f"POOL {_SYSTEM_POOL}")
    account.ask("plain", plain, is_refused(GatewayError, NotFoundOrNotAuthorizedError))
    account.note("managed", account.run("C63", one, managed=True, compute_pool=_SYSTEM_POOL), is_(1))
