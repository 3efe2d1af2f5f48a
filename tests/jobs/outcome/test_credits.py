"""The price of compute pool nodes."""

import pytest

from airflow_provider_mljobs.emulator.spcs.instance_families import FAMILIES
from airflow_provider_mljobs.jobs.outcome.credits import credits_per_hour


@pytest.mark.parametrize(
    ("family", "nodes", "expected"), [("CPU_X64_S", 1, 0.11), ("gpu_nv_m", 2, 5.36), ("CPU_X64_NEW", 1, None)]
)
def test_credits(family, nodes, expected):
    """Credits are those of the list; an unlisted family has none."""
    assert expected == credits_per_hour(family, nodes)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_that_an_account_offers(family):
    """The list has every family of the embedded Snowflake."""
    assert credits_per_hour(family, 1) > 0
