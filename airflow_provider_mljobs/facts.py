"""What a task tells of its job in XCom, for its links, for Airflow's pages and for lineage."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_mljobs.arguments import identifier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_mljobs.exceptions import MLJobError
    from airflow_provider_mljobs.jobs.identifiers import QualifiedName
    from airflow_provider_mljobs.jobs.record import Record
    from airflow_provider_mljobs.operators import MLJobOperator

# XCom of a task: its current job.
FACTS = "mljob"


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
        """The files on its stage that the job has reported."""
        files = [file["path"] for file in self.xcoms.get("artifacts", ()) if file.get("reported")]
        place = self.facts.get("stage_path")
        return [f"{place}/{path}" for path in files] if place else []


def facts_of(
    task: MLJobOperator, record: Record, *, submitted_at: str | None = None, query_id: str | None = None
) -> dict[str, Any]:
    """Say what is known of a task's job as soon as it has a name.

    :param submitted_at: when it was submitted, as ISO 8601; ``None`` if it hasn't been.
    :param query_id: the id of the statement that has submitted it, if this try has.
    """
    return {
        "job_id": record.job_id,
        "snowflake_conn_id": record.snowflake_conn_id,
        "compute_pool": str(identifier(task.compute_pool, "compute_pool")),
        "target_instances": task.target_instances,
        "submitted_at": submitted_at,
        "snowsight": snowsight_url(task.hook.account_name, task.hook.job(record.job_id)),
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
    from airflow_provider_mljobs.jobs.payload import PREFIX

    found = re.search(rf"/{PREFIX}([0-9a-f]+)_[^/]+/", stage_path or "")
    return found[1] if found else None
