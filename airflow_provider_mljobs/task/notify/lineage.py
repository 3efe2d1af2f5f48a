"""OpenLineage of a task's job. Inactive without Airflow's OpenLineage provider."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_mljobs.task.xcoms import progress_of, reported_artifacts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import BaseOperator
    from openlineage.client.event_v2 import OutputDataset

    from airflow_provider_mljobs.gateway.outcome import Outcome

logger = logging.getLogger(__name__)
# The environment variable by which OpenLineage's integrations find their parent run.
_PARENT = "OPENLINEAGE_PARENT_ID"
_FACET = "snowflake_mljob"


def environment(ti: Any) -> dict[str, str]:
    """Return the environment variable that makes the task the parent of the job's own OpenLineage events."""
    if find_spec("airflow.providers.openlineage") is None:
        return {}
    try:
        from airflow.providers.openlineage.conf import is_disabled

        if is_disabled():
            return {}
        from airflow.providers.openlineage.plugins.macros import lineage_parent_id

        return {_PARENT: lineage_parent_id(ti)}
    except Exception:  # lineage must not fail the task
        logger.warning("Could not set OPENLINEAGE_PARENT_ID: the job's own lineage has no parent.", exc_info=True)
        return {}


def lineage_of(task: BaseOperator, ti: Any, outcome: Outcome | None) -> OperatorLineage[Any, Any]:
    """Return the lineage of a task's job. Airflow's OpenLineage provider calls this when the task has ended.

    The run has a facet ``snowflake_mljob``, and ``externalQuery`` with the query that started the job. Outputs are the
    job's files on its stage, the assets that it has reported, and the task's outlets; inputs are the task's inlets.

    :param outcome: the outcome of the job, or the facts about one that has not ended; ``None`` without a job.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.providers.openlineage.extractors.manager import ExtractorManager

    lineage: OperatorLineage[Any, Any] = OperatorLineage()
    if outcome is not None:
        lineage.run_facets = _run_facets(outcome)
        lineage.outputs = _on_stage(outcome)
    with _unless_bad("the task's inlets and outlets"):
        # The provider ignores them for operators with outputs of their own.
        ExtractorManager().extract_inlets_and_outlets(lineage, task, ti)
    names = {(each.namespace, each.name) for each in lineage.outputs}
    for asset in () if outcome is None else progress_of(outcome).get("assets", ()):
        with _unless_bad(asset["uri"]):
            reported = _dataset(asset["uri"])
            if (reported.namespace, reported.name) not in names:
                lineage.outputs.append(reported)
    return lineage


@contextmanager
def _unless_bad(subject: str) -> Iterator[None]:
    """Log an error of one dataset, and leave only that one out."""
    try:
        yield
    except Exception:  # converters and URIs come from elsewhere
        logger.warning("Left %s out of the task's lineage.", subject, exc_info=True)


def _run_facets(outcome: Outcome) -> dict[str, Any]:
    from openlineage.client.facet_v2 import external_query_run

    facts, query_id = outcome.facts, outcome.facts.get("query_id")
    facet = _facet_class()(
        jobId=facts["job_id"],
        computePool=facts.get("compute_pool"),
        targetInstances=facts.get("target_instances"),
        status=progress_of(outcome).get("status"),
        failure=str(failure) if (failure := getattr(outcome.error, "failure", None)) else None,
        payload=facts.get("payload"),
        gitCommit=outcome.xcoms.get("git_commit"),
        stagePath=facts.get("stage_path"),
        queryIds=[query_id] if query_id else [],
    )
    if not query_id:
        return {_FACET: facet}
    query = external_query_run.ExternalQueryRunFacet(externalQueryId=query_id, source=_namespace(outcome))
    return {_FACET: facet, "externalQuery": query}


@cache
def _facet_class() -> Any:
    from attrs import define
    from openlineage.client.facet_v2 import RunFacet

    @define
    class SnowflakeMLJobRunFacet(RunFacet):
        """A run of an ML job."""

        jobId: str  # noqa: N815 (as OpenLineage's own)
        computePool: str | None  # noqa: N815
        targetInstances: int | None  # noqa: N815
        status: str | None
        failure: str | None
        payload: str | None
        gitCommit: str | None  # noqa: N815
        stagePath: str | None  # noqa: N815
        queryIds: list[str]  # noqa: N815

    return SnowflakeMLJobRunFacet


def _namespace(outcome: Outcome) -> str:
    """Return the namespace of a Snowflake account, as Airflow's Snowflake provider writes it."""
    from airflow.providers.snowflake.utils.openlineage import fix_account_name

    return f"snowflake://{fix_account_name(outcome.account)}"


def _on_stage(outcome: Outcome) -> list[OutputDataset]:
    """Return the datasets on a job's stage: its value, if that stayed there, and its files.

    The files are the artifacts that it has reported, or without reports its whole directory.
    """
    from openlineage.client.event_v2 import OutputDataset

    saved = reported_artifacts(outcome) or ([outcome.facts["stage_path"]] if outcome.xcoms.get("artifacts") else [])
    values = outcome.return_value["stage_paths"] if outcome.is_reference else ()
    places = [*values, *saved]
    return [OutputDataset(namespace=_namespace(outcome), name=place.removeprefix("@")) for place in places]


def _dataset(uri: str) -> OutputDataset:
    """Return the dataset that a URI names."""
    from airflow.providers.openlineage.utils.utils import translate_airflow_asset
    from airflow.sdk import Asset
    from openlineage.client.event_v2 import OutputDataset

    asset = Asset(uri=uri)
    dataset = translate_airflow_asset(asset, None)
    if dataset is not None:
        return OutputDataset(namespace=dataset.namespace, name=dataset.name)
    parts = urlsplit(asset.uri)
    if not parts.scheme:
        return OutputDataset(namespace="airflow", name=uri)
    return OutputDataset(namespace=f"{parts.scheme}://{parts.netloc}", name=parts.path.strip("/") or "/")
