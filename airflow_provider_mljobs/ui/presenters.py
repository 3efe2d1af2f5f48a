"""What the page is told of a job, out of XComs. Whoever may edit XComs may have written them: each part is checked."""

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
_CHARACTERS = 1000
_MOST_METRICS = 100
# A task in one of these states that has not ended waits for its job, or is about to take its result.
_WAITING = frozenset({"running", "deferred", "scheduled", "queued"})


def job(row: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return a job as the page gets it; what isn't known is ``None``.

    :param row: of :mod:`airflow_provider_mljobs.ui.listing`.
    :param now: until when a job that is waited for has been queued, or running; any other one, until its task's end.
    """
    facts = mapping(row["job"])
    job_id = text(facts.get("job_id"))
    # An XCom that tells of another job is an earlier one's.
    told = mapping(row["watched"])
    watched = told if job_id is not None and told.get("job_id") == job_id else {}
    steps = _steps(watched.get("timeline"))
    last = steps[-1] if steps else None
    started = next((at for phase, at, _ in steps if phase is Phase.RUNNING), None)
    ended = next((at for phase, at, _ in steps if phase is Phase.FINISHING), None)
    submitted = moment(facts.get("submitted_at"))
    is_waited_for = row["end_date"] is None and row["state"] in _WAITING
    until = now if is_waited_for else row["end_date"] if steps else None
    status = _status(watched.get("status"))
    # A job that is done has run, even if nobody saw it.
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
    """Return a mapping; one of nothing if it is none."""
    return value if isinstance(value, dict) else {}


def text(value: Any) -> str | None:
    """Return a text, or ``None`` if it is none; what is too long is cut, half characters are replaced."""
    return jsonb_safe(value[:_CHARACTERS]) if isinstance(value, str) and value else None


def number(value: Any) -> float | None:
    """Return a finite number, or ``None``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def moment(value: Any) -> datetime | None:
    """Return a time that was written as ISO 8601 with its zone, or ``None``."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
        return found.astimezone(UTC) if found.tzinfo else None
    except (ValueError, OverflowError):
        return None


def link(value: Any) -> str | None:
    """Return an address that a browser may be sent to, or ``None``: ``javascript:`` is one, too."""
    found = text(value)
    try:
        is_safe = found is not None and urlsplit(found).scheme in {"http", "https"} and len(value) <= _CHARACTERS
    except ValueError:
        return None
    return found if is_safe else None


def _steps(timeline: Any) -> list[Step]:
    steps = timeline if isinstance(timeline, list) else []
    found = ((_phase(step.get("phase")), moment(step.get("at")), step) for step in steps if isinstance(step, dict))
    return [(phase, at, text(step.get("message")) or "") for phase, at, step in found if phase and at]


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
    """Return metrics by name; ``None`` for what was reported as NaN, or infinite."""
    metrics = list(mapping(value).items())[:_MOST_METRICS]
    found = ((text(name), metric) for name, metric in metrics if _may_be_measured(metric))
    return {name: number(metric) for name, metric in found if name is not None}


def _may_be_measured(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _count(value: Any) -> int | None:
    found = number(value)
    return None if found is None else int(found)


def _seconds(begin: datetime | None, end: datetime | None) -> float | None:
    return None if begin is None or end is None else round(max(0.0, (end - begin).total_seconds()), 3)


def _written(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
