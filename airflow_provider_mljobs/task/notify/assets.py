"""Asset events of a task: facts about its job as their ``extra``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias

from airflow_provider_mljobs.task.airflow_internals import AssetRef
from airflow_provider_mljobs.task.xcoms import progress_of, reported_artifacts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_mljobs.gateway.outcome import Outcome


def announce(outcome: Outcome, outlets: Iterable[Any], events: Any, log: Any) -> None:
    """Add facts about a job to the asset events of its task.

    Keys that the event already has win over keys that the job has reported, and those over the provider's. An asset
    that the job has reported and that isn't an outlet gets its event through an AssetAlias among the outlets. Errors of
    Airflow are logged: they must not fail a task whose job is done.

    :param events: Airflow's ``outlet_events``; ``None`` for a task that runs without Airflow.
    """
    if events is None:
        return
    extra, reported, alias = extra_of(outcome), _reported(outcome, log), None
    for outlet in outlets:
        if isinstance(outlet, Asset | AssetRef):
            try:
                event = events[outlet]
                event.extra = {**extra, **reported.pop(event.key.uri, {}), **event.extra}
            except Exception:
                log.warning(
                    "Could not add job %s to the event of asset %r.", outcome.facts["job_id"], outlet, exc_info=True
                )
        elif isinstance(outlet, AssetAlias):
            alias = alias or outlet
    for uri, own in reported.items():
        if alias is not None:
            _add(events, alias, uri, {**extra, **own}, log)
            continue
        log.warning(
            "Job %s reported asset %s, but the asset is not an outlet of the task: no event was created. Add it to the "
            "outlets, or add an AssetAlias for assets that are only known at run time.",
            outcome.facts["job_id"],
            uri,
        )


def _add(events: Any, alias: AssetAlias, uri: str, extra: dict[str, Any], log: Any) -> None:
    try:
        events[alias].add(Asset(uri=uri), extra=extra)
    except Exception:
        log.warning(
            "Could not create an event of asset %s, which job %s reported.", uri, extra["job_id"], exc_info=True
        )


def extra_of(outcome: Outcome) -> dict[str, Any]:
    """Return the facts about a job for asset events."""
    facts = {
        "job_id": outcome.facts["job_id"],
        "metrics": progress_of(outcome).get("metrics"),
        "stage_path": outcome.facts.get("stage_path"),
        "artifacts": reported_artifacts(outcome),
        "git_commit": outcome.xcoms.get("git_commit"),
    }
    return {key: value for key, value in facts.items() if value}


def _reported(outcome: Outcome, log: Any) -> dict[str, Any]:
    """Return the extras that the job has reported, by the URIs of their assets as Airflow normalises them."""
    extras = {}
    for asset in progress_of(outcome).get("assets", ()):
        try:
            extras[Asset(uri=asset["uri"]).uri] = asset["extra"]
        except Exception as error:  # noqa: BLE001 (each provider normalises the URIs of its own schemes)
            log.warning(
                "Job %s reported %r, which is not a valid asset URI: %s", outcome.facts["job_id"], asset["uri"], error
            )
    return extras
