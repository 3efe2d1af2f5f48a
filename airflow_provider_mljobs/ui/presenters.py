"""A job as the page shows it, from its XComs. They can be forged by users who may edit XComs: each part is checked."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_mljobs.jobs.outcome.status import JobStatus, Phase
from airflow_provider_mljobs.jobs.values.portability import jsonb_safe
from airflow_provider_mljobs.task.xcoms import DASHBOARD

if TYPE_CHECKING:
    from collections.abc import Mapping

    Step = tuple[Phase, datetime, str]

_OF_TASK = ("dag_id", "run_id", "task_id", "map_index", "map_label", "try_number", "state")
_MAX_CHARACTERS = 1000
_MAX_METRICS = 100
# A task in one of these states that has not ended waits for its job, or is about to read its result.
_WAITING = frozenset({"running", "deferred", "scheduled", "queued"})


def job(row: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return a job for the page; unknown values are ``None``.

    :param row: of :mod:`airflow_provider_mljobs.ui.listing`.
    :param now: the end of the queue or run time of a job that its task waits for; for others it is the end of the task.
    """
    facts = mapping(row["job"])
    job_id = text(facts.get("job_id"))
    watched = mapping(row["watched"])
    if job_id is None or watched.get("job_id") != job_id:
        watched = {}  # of an earlier job
    steps = _steps(watched.get("timeline"))
    last = steps[-1] if steps else None
    started = next((at for phase, at, _ in steps if phase is Phase.RUNNING), None)
    ended = next((at for phase, at, _ in steps if phase is Phase.FINISHING), None)
    submitted = moment(facts.get("submitted_at"))
    is_waited_for = row["end_date"] is None and row["state"] in _WAITING
    until = now if is_waited_for else row["end_date"] if steps else None
    status = _status(watched.get("status"))
    # A job that is DONE has run, even if no look saw it running.
    waited = started or (None if status == JobStatus.DONE else ended or until)
    return {
        **{name: row[name] for name in _OF_TASK},
        **{name: _written(row[name]) for name in ("run_after", "start_date", "end_date")},
        "job_id": job_id,
        "snowflake_conn_id": text(facts.get("snowflake_conn_id")),
        "compute_pool": text(facts.get("compute_pool")),
        "target_instances": _count(facts.get("target_instances")),
        "submitted_at": _written(submitted),
        "snowsight": link(facts.get("snowsight")),
        "status": status,
        "phase": None if last is None else last[0].value,
        "message": None if last is None else last[2],
        "started_at": _written(started),
        "ended_at": _written(ended),
        "queued_seconds": _seconds(submitted, waited),
        "run_seconds": _seconds(started, ended or until),
        "progress": _progress(watched.get("progress")),
        "metrics": _metrics(watched.get("metrics")),
        "ray_dashboard": link(mapping(watched.get("endpoints")).get(DASHBOARD)) if is_waited_for else None,
    }


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping; an empty one for any other value."""
    return value if isinstance(value, dict) else {}


def text(value: Any) -> str | None:
    """Return a string, cut and without half surrogate pairs; ``None`` for any other value."""
    return jsonb_safe(value[:_MAX_CHARACTERS]) if isinstance(value, str) and value else None


def number(value: Any) -> float | None:
    """Return a finite number, or ``None``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def moment(value: Any) -> datetime | None:
    """Return an ISO 8601 time with a zone, or ``None``."""
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
        return at.astimezone(UTC) if at.tzinfo else None
    except (ValueError, OverflowError):
        return None


def link(value: Any) -> str | None:
    """Return an http or https address, or ``None``: ``javascript:`` would run in the page."""
    address = text(value)
    try:
        is_safe = (
            address is not None and urlsplit(address).scheme in {"http", "https"} and len(value) <= _MAX_CHARACTERS
        )
    except ValueError:
        return None
    return address if is_safe else None


def _steps(timeline: Any) -> list[Step]:
    steps = timeline if isinstance(timeline, list) else []
    checked = ((_phase(step.get("phase")), moment(step.get("at")), step) for step in steps if isinstance(step, dict))
    return [(phase, at, text(step.get("message")) or "") for phase, at, step in checked if phase and at]


def _phase(value: Any) -> Phase | None:
    return Phase(value) if isinstance(value, str) and value in {phase.value for phase in Phase} else None


def _status(value: Any) -> str | None:
    return JobStatus(value).value if isinstance(value, str) else None


def _progress(value: Any) -> dict[str, Any] | None:
    fraction = number(mapping(value).get("fraction"))
    if fraction is None:
        return None
    return {
        "fraction": min(1.0, max(0.0, fraction)),
        "message": text(value.get("message")) or "",
        "at": _written(moment(value.get("at"))),
    }


def _metrics(value: Any) -> dict[str, float | None]:
    """Return metrics by name; ``None`` for NaN and infinity."""
    metrics = list(mapping(value).items())[:_MAX_METRICS]
    named = ((text(name), metric) for name, metric in metrics if metric is None or number(metric) is not None)
    return {name: number(metric) for name, metric in named if name is not None}


def _count(value: Any) -> int | None:
    count = number(value)
    return None if count is None else int(count)


def _seconds(begin: datetime | None, end: datetime | None) -> float | None:
    return None if begin is None or end is None else round(max(0.0, (end - begin).total_seconds()), 3)


def _written(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
