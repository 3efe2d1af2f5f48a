"""Snowflake ML Jobs as first-class Apache Airflow tasks."""

from __future__ import annotations

__version__ = "0.1.0"
