"""The one place that writes and reads XComs, for tasks, links, Airflow's pages and the next try."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_mljobs.task.airflow_internals import through_xcom
from airflow_provider_mljobs.task.timeout_signals import held_back

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_mljobs.gateway.outcome import Outcome
    from airflow_provider_mljobs.hooks import MLJobHook
    from airflow_provider_mljobs.jobs.attempts import Record
    from airflow_provider_mljobs.jobs.names import QualifiedName
    from airflow_provider_mljobs.jobs.outcome.status import JobStatus
    from airflow_provider_mljobs.task.fields import JobFields

# The current job of a task.
JOB_XCOM = "mljob"
# The progress of the job, with the place in its log from which the next triggerer continues.
PROGRESS_XCOM = "mljob_watched"
# The name of the endpoint of a Ray cluster's dashboard.
DASHBOARD = "ray-dashboard-endpoint"
# Airflow's name for the XCom of a returned value.
_RETURN_VALUE = "return_value"


def push_xcom(ti: Any, key: str, value: Any) -> None:
    """Push an output of a task."""
    with held_back():
        ti.xcom_push(key=key, value=value)


def pull_xcom(ti: Any, key: str) -> str | None:
    """Return an XCom that an earlier process of this try has pushed."""
    with held_back():
        value = ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index)
    return str(value) if value else None


def pull_job_id(ti: Any) -> Any:
    """Return the id of the task's current job, for a trigger, which has no ``xcom_pull``."""
    from airflow.sdk.execution_time.xcom import XCom

    return XCom.get_one(key="job_id", dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index)


def push_page_xcom(ti: Any, key: str, value: Any) -> None:
    """Push an XCom that Airflow's pages read: into Airflow's database, wherever XComs of tasks are stored."""
    from airflow.sdk.bases.xcom import BaseXCom

    place = {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": ti.map_index}
    with held_back():
        BaseXCom.set(key=key, value=value, **place)


def pull_page_xcom(ti: Any, key: str) -> Mapping[str, Any]:
    """Return an XCom that Airflow's pages read; an empty one if it is missing or no mapping."""
    from airflow.sdk.bases.xcom import BaseXCom

    value = BaseXCom.get_value(ti_key=ti, key=key)
    return value if isinstance(value, dict) else {}


def push_end(ti: Any, job_id: str, status: JobStatus, log: Any) -> None:
    """Push the end of a job that no task waits for any more, unless the task has another job already."""
    # Imported here: DAG files don't need it.
    from airflow_provider_mljobs.jobs.outcome.reports import Reported
    from airflow_provider_mljobs.jobs.outcome.status import Phase
    from airflow_provider_mljobs.jobs.outcome.watch import TimelineEntry

    try:
        progress = pull_page_xcom(ti, PROGRESS_XCOM)
        if progress.get("job_id") != job_id or not status.is_terminal:
            return
        steps = progress.get("timeline")
        timeline = [
            *(steps if isinstance(steps, list) else ()),
            TimelineEntry(Phase.FINISHING, time.time(), status.value).to_xcom(),
        ]
        reported = Reported.from_json(progress).to_json()
        push_page_xcom(ti, PROGRESS_XCOM, final_progress(job_id, status.value, timeline, reported))
    except Exception:  # any error of Airflow's: the job has ended, and that counts more
        log.warning("Could not write the end of job %s to XCom %s.", job_id, PROGRESS_XCOM, exc_info=True)


def job_facts(
    fields: JobFields, hook: MLJobHook, record: Record, *, submitted_at: str | None = None, query_id: str | None = None
) -> dict[str, Any]:
    """Return the facts about a job that has a name, for XCom.

    :param query_id: the id of the statement that submitted it, if this try did.
    """
    # Imported here: triggers don't need it.
    from airflow_provider_mljobs.jobs.payload.archive import PREFIX
    from airflow_provider_mljobs.task.fields import identifier

    payload = re.search(rf"/{PREFIX}([0-9a-f]+)_[^/]+/", record.stage_path or "")
    return {
        "job_id": record.job_id,
        "snowflake_conn_id": record.snowflake_conn_id,
        "compute_pool": str(identifier(fields.compute_pool, "compute_pool")),
        "target_instances": fields.target_instances,
        "submitted_at": submitted_at,
        "snowsight": snowsight_url(hook.account_name, hook.job(record.job_id)),
        "stage_path": record.stage_path,
        "payload": payload and payload[1],
        "query_id": query_id,
    }


def final_progress(
    job_id: str, status: str, timeline: Sequence[Mapping[str, str]], reported: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the progress of a job that is over, in the form of a running one's."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"job_id": job_id, "at": now, "status": status, "timeline": timeline, **reported, "endpoints": {}}


def progress_of(outcome: Outcome) -> Mapping[str, Any]:
    """Return the last progress of a job that is over."""
    progress: Mapping[str, Any] = outcome.xcoms.get(PROGRESS_XCOM, {})
    return progress


def reported_artifacts(outcome: Outcome) -> list[str]:
    """Return the files and directories on its stage that a job has reported."""
    files = [f"{file['path']}/" for file in outcome.xcoms.get("artifacts", ()) if file.get("reported")]
    place, paths = outcome.facts.get("stage_path"), progress_of(outcome).get("artifacts", ())
    saved = [path for path in paths if any(file.startswith(f"{path}/") for file in files)]
    return [f"{place}/{path}" for path in saved] if place else []


def with_reported(artifacts: Sequence[Mapping[str, Any]], reported: Sequence[str]) -> list[dict[str, Any]]:
    """Mark the files that a job has reported, alone or with their directory, and put them first."""
    marked = [
        {**file, "reported": True}
        for file in artifacts
        if any(f"{file['path']}/".startswith(f"{path}/") for path in reported)
    ]
    paths = {file["path"] for file in marked}
    return [*marked, *(dict(file) for file in artifacts if file["path"] not in paths)]


def refused(outcome: Outcome, *, multiple_outputs: bool) -> tuple[str, str] | None:
    """Return the key of an XCom that Airflow can't store, or would change on the way to a later task, and why.

    A dry run of Airflow's own serialisers, before anything of the job is removed.
    """
    for key, value in {**outcome.xcoms, _RETURN_VALUE: outcome.return_value}.items():
        try:
            is_same = through_xcom(value) == value
        except Exception as error:  # noqa: BLE001 (each serialiser has errors of its own)
            return key, f"{type(error).__name__}: {error}"
        if not is_same:
            return key, "a later task would get another value"
    if not multiple_outputs or outcome.is_reference or outcome.return_value is None:
        return None
    from airflow_provider_mljobs.jobs.values.portability import misfit_outputs

    reason = misfit_outputs(outcome.return_value)
    return (_RETURN_VALUE, f"with multiple_outputs=True {reason}") if reason else None


def snowsight_url(account: str, job: QualifiedName) -> str:
    """Return the address of a job's page in Snowsight; empty if the account isn't known.

    The paths are those that Snowflake's own client uses: ``snowflake.ml._internal.utils.url`` has ``#/compute/job/``,
    ``snowflake.ml.experiment`` has ``app.snowflake.com/_deeplink/``, where people choose their account, so that it does
    for any (snowflake-ml-python 2.6).

    :param account: as in a connection: ``organization-account``, or a locator, or either with more behind a dot.
    """
    if not account:
        return ""
    organization, hyphen, name = account.partition("-")
    # Names of organizations have no hyphens, and those of accounts have one only in the place of an underscore.
    is_named = hyphen and "." not in account
    place = f"{quote(organization, safe='')}/{quote(name.replace('-', '_'), safe='')}" if is_named else "_deeplink"
    parts = (job.database, job.schema, job.name)
    return f"https://app.snowflake.com/{place}/#/compute/job/{'/'.join(quote(part.value, safe='') for part in parts)}"
