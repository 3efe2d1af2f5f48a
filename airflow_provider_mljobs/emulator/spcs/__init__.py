"""Snowpark Container Services: compute pools, job services, their logs and their history."""

from __future__ import annotations
