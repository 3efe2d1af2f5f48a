"""Options of ``[mljobs]`` that several parts of the shell read, each when it needs them."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlsplit

from airflow.sdk.configuration import conf


def max_unreachable_seconds() -> float:
    """Return the seconds that Snowflake may be unreachable before a wait ends."""
    return float(conf.getfloat("mljobs", "max_unreachable_seconds", fallback=600.0))


def max_unseen_seconds() -> float:
    """Return the seconds after which a job that nothing shows counts as lost."""
    from airflow_provider_mljobs.jobs.outcome.sightings import MAX_UNSEEN_SECONDS

    return float(conf.getfloat("mljobs", "max_unseen_seconds", fallback=MAX_UNSEEN_SECONDS))


def max_finish_seconds() -> float:
    """Return the seconds that a task may spend on reading log and result of a job that is over."""
    return float(conf.getfloat("mljobs", "max_finish_seconds", fallback=900.0))


def max_log_lag_seconds() -> float:
    """Return the seconds that a task may wait for the end of its job's log, once that has left its node."""
    return float(conf.getfloat("mljobs", "max_log_lag_seconds", fallback=180.0))


def max_xcom_bytes() -> int:
    """Return the maximum bytes of a value in XCom; XCom has a reference to a larger one."""
    from airflow_provider_mljobs.jobs.outcome.results import DEFAULT_MAX_XCOM_BYTES

    return int(conf.getint("mljobs", "max_xcom_bytes", fallback=DEFAULT_MAX_XCOM_BYTES))


def node_memory_margin() -> float:
    """Return the share of a node's memory that a job doesn't request."""
    from airflow_provider_mljobs.jobs.spec.job import NODE_MEMORY_MARGIN

    return float(conf.getfloat("mljobs", "node_memory_margin", fallback=NODE_MEMORY_MARGIN))


def deployment() -> str:
    """Return the name of this Airflow, which its jobs have in their COMMENT."""
    name = conf.get("mljobs", "deployment", fallback="") or conf.get("api", "base_url", fallback="")
    return str(name or "")


def base_path() -> str:
    """Return the path of Airflow's UI on its host; empty for the root."""
    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")


def result_retention() -> timedelta:
    """Return the age at which the collector removes the result of a job that is gone; 0 for never."""
    return timedelta(days=conf.getfloat("mljobs", "result_retention_days", fallback=0.0))
