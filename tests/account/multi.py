"""Checks of jobs with several instances, and of GPUs."""

from airflow_provider_mljobs.exceptions import GatewayError
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.jobs.names import Identifier
from tests.account.beliefs import either, has_columns, has_rows, is_, is_at_least, is_refused, says, succeeds
from tests.account.checks import GPU, MULTI, check
from tests.account.payloads import cluster_nodes, gpus, rank


@check("C-50", MULTI, node_minutes=10)
def cluster(account):
    """Two instances of a job form one Ray cluster on the ports of the provider's specification."""
    account.note("nodes", account.run("C50", cluster_nodes, target_instances=2), says(r"^\[2, '2', '0'\]$"))
    job = account.job("C50")
    account.ask(
        "instances",
        f"SHOW SERVICE INSTANCES IN SERVICE {job}",
        has_columns("instance_id", "status", "start_time", "ip_address"),
        has_rows(2),
    )
    account.ask("endpoints", statements.show_endpoints(job), has_columns("name", "port", "port_range", "protocol"))
    account.ask("drop", statements.drop_service(job), succeeds)


@check("C-51", MULTI, node_minutes=5)
def parallel(account):
    """With parallel, each instance runs the function; the job's own result is that of the first."""
    account.note("first", account.run("C51", rank, target_instances=2, parallel=True), is_(0))
    account.ask("files", statements.list_files(account.stage, r".*/C51/output/.*"), has_rows(least=2))
    account.ask("drop", statements.drop_service(account.job("C51")), succeeds)


@check("C-52", MULTI, node_minutes=3)
def failed_instance(account):
    """A job is FAILED if one of its instances fails; each container has its own exit code."""
    script = 'test "$SNOWFLAKE_JOB_INDEX" = 1 && exit 3; exit 0'
    job = account.start("C52", script, target_instances=2)
    account.note("status", account.wait(job), is_("FAILED"))
    account.ask("containers", statements.show_service_containers(job), has_rows(2), says("3"))
    account.ask(
        "instances", f"SHOW SERVICE INSTANCES IN SERVICE {job}", has_columns("instance_id", "status"), has_rows(2)
    )


@check("C-53", MULTI)
def too_many_instances(account):
    """More instances than the pool can have nodes are refused, or wait as PENDING."""
    job = account.job("C53")
    statement = account.start_statement(
        "C53", account.container("sleep 1", resources=_whole(account)), target_instances=200
    )
    if account.ask("start", statement, either(succeeds, is_refused(GatewayError))).refusal is None:
        account.note(
            "status", account.wait(job, "RUNNING", seconds=account.settings.fit_seconds), is_({"PENDING", "RUNNING"})
        )
        account.ask("drop", statements.drop_service(job), succeeds)


def _whole(account):
    asked = {"cpu": f"{account.runtime.resources.cpu * 1000}m", "memory": "1Gi"}
    return {"requests": asked, "limits": asked}


@check("C-80", GPU, "gpu_pool", node_minutes=6)
def gpu(account):
    """A GPU pool has a runtime image of its own, and runs jobs that ask for GPUs."""
    pool = Identifier.parse(account.settings.gpu_pool, "pool")
    account.ask("runtime", statements.get_ml_job_runtime(pool, None, "3.11"), says("gpu|GPU|cre@"))
    statement = account.start_statement("C80_WITHOUT", account.container("exit 0"), compute_pool=pool)
    account.ask("without_start", statement)
    account.note("without_status", account.wait(account.job("C80_WITHOUT"), seconds=account.settings.fit_seconds))


@check("C-80b", GPU, "gpu_pool", node_minutes=4, only_accounts="this machine may have no GPU")
def visible_gpus(account):
    """A job of the provider on a GPU pool sees its GPUs."""
    pool = Identifier.parse(account.settings.gpu_pool, "pool")
    account.note("gpus", account.run("C80B", gpus, compute_pool=pool), is_at_least(1))
