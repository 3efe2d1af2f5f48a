"""Pytest fixtures: ``pytest_plugins = ["airflow_provider_mljobs.emulator.fixtures"]`` in a ``conftest.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_mljobs.emulator import serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_mljobs.emulator.server.server import Server


@pytest.fixture(scope="session")
def snowflake_emulator_settings() -> dict[str, Any]:
    """Return the arguments of ``serve``; redefine it in your ``conftest.py``: ``{"realistic": True, "speed": 60}``."""
    return {}


@pytest.fixture(scope="session")
def snowflake_emulator(snowflake_emulator_settings: dict[str, Any]) -> Iterator[Server]:
    """Run one embedded Snowflake for all tests and point Airflow's ``snowflake_default`` connection at it."""
    with serve(**snowflake_emulator_settings) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def snowflake_connection(snowflake_emulator: Server) -> Iterator[Any]:
    """Connect to the embedded Snowflake; the connection closes after the test, its tables stay."""
    from snowflake import connector  # costs seconds, and only tests that connect need it

    with connector.connect(**snowflake_emulator.connection_kwargs) as connection:
        yield connection
