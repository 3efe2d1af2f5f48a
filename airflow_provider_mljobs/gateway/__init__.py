"""The only code that talks to Snowflake; it knows no Airflow."""

from __future__ import annotations
