"""Ordinary SQL: Snowflake's dialect on DuckDB, by way of fakesnow."""

from __future__ import annotations
