"""Events of assets: what a job says of the assets that its task updates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias
from airflow.sdk.definitions.asset import AssetRef

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_mljobs.task.xcoms import JobEnd


def announce(end: JobEnd, outlets: Iterable[Any], events: Any, log: Any) -> None:
    """Put what there is to know of a job into the events of its task's outlets.

    What is there already stays, and what the job itself says of an asset counts more than what we say. An asset that
    the job has reported and that is none of the outlets gets its event through an outlet that is an AssetAlias.
    Whatever Airflow says of an asset is logged: it must not cost the job's result.

    :param outlets: the task's.
    :param events: Airflow's ``outlet_events``; ``None`` for a task that runs without Airflow.
    :param log: the task's log.
    """
    if events is None:
        return
    extra, reported, alias = extra_of(end), _reported(end, log), None
    for outlet in outlets:
        if isinstance(outlet, Asset | AssetRef):
            try:
                event = events[outlet]
                event.extra = {**extra, **reported.pop(event.key.uri, {}), **event.extra}
            except Exception:
                log.warning("The event of %r says nothing of job %s.", outlet, end.facts["job_id"], exc_info=True)
        elif isinstance(outlet, AssetAlias):
            alias = alias or outlet
    for uri, said in reported.items():
        if alias is not None:
            _add(events, alias, uri, {**extra, **said}, log)
            continue
        log.warning(
            "Job %s has reported asset %s, which gets no event, being none of the task's outlets. Add it to them, "
            "or an AssetAlias for assets that are only known when the job runs.",
            end.facts["job_id"],
            uri,
        )


def _add(events: Any, alias: AssetAlias, uri: str, extra: dict[str, Any], log: Any) -> None:
    try:
        events[alias].add(Asset(uri=uri), extra=extra)
    except Exception:
        log.warning("Asset %s of job %s gets no event.", uri, extra["job_id"], exc_info=True)


def extra_of(end: JobEnd) -> dict[str, Any]:
    """Return what the event of an asset says of the job that has updated it."""
    found = {
        "job_id": end.facts["job_id"],
        "metrics": end.watched.get("metrics"),
        "stage_path": end.facts.get("stage_path"),
        "artifacts": end.artifacts,
        "git_commit": end.xcoms.get("git_commit"),
    }
    return {key: value for key, value in found.items() if value}


def _reported(end: JobEnd, log: Any) -> dict[str, Any]:
    """Return what the job has said of assets, by their URIs as Airflow writes them."""
    found = {}
    for asset in end.watched.get("assets", ()):
        try:
            found[Asset(uri=asset["uri"]).uri] = asset["extra"]
        except Exception as error:  # noqa: BLE001 (each provider normalises the URIs of its own schemes)
            log.warning("Job %s has reported %r, which can't be an asset: %s", end.facts["job_id"], asset["uri"], error)
    return found
