"""What a task tells of its job in XCom, for its links, for Airflow's pages and for lineage."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_mljobs.exceptions import MLJobError
    from airflow_provider_mljobs.hooks import MLJobHook
    from airflow_provider_mljobs.jobs.attempts import Record
    from airflow_provider_mljobs.jobs.names import QualifiedName
    from airflow_provider_mljobs.jobs.outcome.status import JobStatus
    from airflow_provider_mljobs.task.fields import JobFields

# XCom of a task: its current job.
FACTS = "mljob"
# XCom of a task: what is known of its running job, and how far a triggerer has watched it, for the next one.
WATCHED = "mljob_watched"
# What the endpoint is called at which a Ray cluster shows itself.
DASHBOARD = "ray-dashboard-endpoint"


@dataclass(frozen=True, kw_only=True)
class JobEnd:
    """The end of a task's job, for whoever wants to tell of it.

    :param facts: what was known of it from the beginning: see :func:`facts_of`.
    :param account: the account that it was in, as the connection has it.
    :param watched: what has become known of it: see :func:`watched_at_the_end`.
    :param xcoms: what it has left, by the keys of XCom.
    :param values: the files on its stage that its value is in, if that is no XCom.
    :param error: what the task fails with.
    """

    facts: Mapping[str, Any]
    account: str = ""
    watched: Mapping[str, Any] = field(default_factory=dict)
    xcoms: Mapping[str, Any] = field(default_factory=dict)
    values: Sequence[str] = ()
    error: MLJobError | None = None

    @property
    def artifacts(self) -> list[str]:
        """The files and directories on its stage that the job has reported."""
        files = [f"{file['path']}/" for file in self.xcoms.get("artifacts", ()) if file.get("reported")]
        place, paths = self.facts.get("stage_path"), self.watched.get("artifacts", ())
        saved = [path for path in paths if any(file.startswith(f"{path}/") for file in files)]
        return [f"{place}/{path}" for path in saved] if place else []


def keep(ti: Any, key: str, value: Any) -> None:
    """Push an XCom that Airflow's pages read: into Airflow's database, wherever XComs of tasks are kept.

    :param ti: the task instance, as a task or a trigger has it.
    """
    from airflow.sdk.bases.xcom import BaseXCom

    BaseXCom.set(key=key, value=value, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index)


def kept(ti: Any, key: str) -> Mapping[str, Any]:
    """Return what :func:`keep` has pushed for a task instance; nothing if that is no mapping.

    :param ti: the task instance, or its key.
    """
    from airflow.sdk.bases.xcom import BaseXCom

    value = BaseXCom.get_value(ti_key=ti, key=key)
    return value if isinstance(value, dict) else {}


def facts_of(
    fields: JobFields, hook: MLJobHook, record: Record, *, submitted_at: str | None = None, query_id: str | None = None
) -> dict[str, Any]:
    """Return the XCom of a job that has a name.

    :param submitted_at: the time of its submit as ISO 8601; ``None`` before it.
    :param query_id: the id of the statement that submitted it, if this try did.
    """
    # Imported here: triggers don't need it.
    from airflow_provider_mljobs.task.fields import identifier

    return {
        "job_id": record.job_id,
        "snowflake_conn_id": record.snowflake_conn_id,
        "compute_pool": str(identifier(fields.compute_pool, "compute_pool")),
        "target_instances": fields.target_instances,
        "submitted_at": submitted_at,
        "snowsight": snowsight_url(hook.account_name, hook.job(record.job_id)),
        "stage_path": record.stage_path,
        "payload": _payload(record.stage_path),
        "query_id": query_id,
    }


def watched_at_the_end(
    job_id: str, status: str, timeline: Sequence[Mapping[str, str]], reported: Mapping[str, Any]
) -> dict[str, Any]:
    """Say what is known of a job that is over, in the form of what is kept of running ones.

    :param timeline: what it was doing, and since when.
    :param reported: what it has reported, as JSON.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"job_id": job_id, "at": now, "status": status, "timeline": timeline, **reported, "endpoints": {}}


def with_reported(artifacts: Sequence[Mapping[str, Any]], reported: Sequence[str]) -> list[dict[str, Any]]:
    """Mark the files that a job has reported, by themselves or by their directory, and put them first.

    :param artifacts: what it has saved.
    :param reported: paths.
    """
    marked = [
        {**file, "reported": True}
        for file in artifacts
        if any(f"{file['path']}/".startswith(f"{path}/") for path in reported)
    ]
    known = {file["path"] for file in marked}
    return [*marked, *(dict(file) for file in artifacts if file["path"] not in known)]


def keep_end(ti: Any, job_id: str, status: JobStatus, log: Any) -> None:
    """Keep how a job has ended that no task waits for any more, unless what is kept is of another job already.

    :param ti: the task instance, as a task or a trigger has it.
    :param log: the task's log.
    """
    # Imported here: DAG files don't need it.
    from airflow_provider_mljobs.jobs.outcome.reports import Reported
    from airflow_provider_mljobs.jobs.outcome.status import Phase
    from airflow_provider_mljobs.jobs.outcome.watch import TimelineEntry

    try:
        known = kept(ti, WATCHED)
        if known.get("job_id") != job_id or not status.is_terminal:
            return
        steps = known.get("timeline")
        timeline = [
            *(steps if isinstance(steps, list) else ()),
            TimelineEntry(Phase.FINISHING, time.time(), status.value).to_xcom(),
        ]
        reported = Reported.from_json(known).to_json()
        keep(ti, WATCHED, watched_at_the_end(job_id, status.value, timeline, reported))
    except Exception:  # whatever Airflow has to say: the job has ended, and that is what counts
        log.warning("XCom %s can't tell how job %s has ended.", WATCHED, job_id, exc_info=True)


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


def _payload(stage_path: str | None) -> str | None:
    """Return the hash of a payload, by where its job's directory lies."""
    # Imported here: DAG files have no payloads.
    from airflow_provider_mljobs.jobs.payload.archive import PREFIX

    found = re.search(rf"/{PREFIX}([0-9a-f]+)_[^/]+/", stage_path or "")
    return found[1] if found else None
