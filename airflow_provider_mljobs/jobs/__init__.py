"""What a job is: no Airflow, no Snowflake, no I/O but reading payload files."""

from __future__ import annotations
