"""Options of ``[mljobs]`` that several parts of the shell read, each when it needs them."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlsplit

from airflow.sdk.configuration import conf

from airflow_provider_mljobs.jobs.outcome.results import DEFAULT_MAX_XCOM_BYTES
from airflow_provider_mljobs.jobs.outcome.sightings import MAX_UNSEEN_SECONDS


def max_unreachable_seconds() -> float:
    """Return for how many seconds Snowflake may be out of reach before a wait is given up."""
    return float(conf.getfloat("mljobs", "max_unreachable_seconds", fallback=600.0))


def max_unseen_seconds() -> float:
    """Return for how many seconds nothing may show a job before it counts as lost."""
    return float(conf.getfloat("mljobs", "max_unseen_seconds", fallback=MAX_UNSEEN_SECONDS))


def max_finish_seconds() -> float:
    """Return for how many seconds a task may read what its job has left, once the job is over."""
    return float(conf.getfloat("mljobs", "max_finish_seconds", fallback=900.0))


def max_xcom_bytes() -> int:
    """Return how many bytes of a value XCom may get; a larger one is a reference."""
    return int(conf.getint("mljobs", "max_xcom_bytes", fallback=DEFAULT_MAX_XCOM_BYTES))


def deployment() -> str:
    """Return what this Airflow is called in the COMMENT of its jobs, to tell them from those of another one."""
    name = conf.get("mljobs", "deployment", fallback="") or conf.get("api", "base_url", fallback="")
    return str(name or "")


def base_path() -> str:
    """Return below which path of its host Airflow's UI lives; empty if below none."""
    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")


def result_retention() -> timedelta:
    """Return how old the result of a job that is gone has to be for the collector; 0 keeps it for ever."""
    return timedelta(days=conf.getfloat("mljobs", "result_retention_days", fallback=0.0))
