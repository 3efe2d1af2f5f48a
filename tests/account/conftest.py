"""Fixtures of the suite's own tests: an embedded Snowflake, an account on it, and one run of the cheap checks."""

import pytest

from tests.account.account import Account
from tests.account.checks import all_checks
from tests.account.embedded import OBJECTS, SETUP, settings_of
from tests.account.suite import run

# Seconds or minutes, and covered by tests of their own: pip, Airflow, Ray, large specifications, lags.
COSTLY = {"C-24", "C-26", "C-27", "C-28", "C-28b", "C-42", "C-44", "C-50", "C-73"}


@pytest.fixture(scope="session")
def server():
    """Serve an embedded Snowflake with the objects of the example DAGs, and a GPU pool."""
    from snowflake import connector

    from airflow_provider_mljobs.emulator import serve

    with serve(termination_grace=2.0, log_event_level="INFO") as server:
        with connector.connect(**server.connection_kwargs) as connection:
            connection.execute_string(SETUP.read_text() + OBJECTS)
        yield server


@pytest.fixture(scope="session")
def account(server):
    """Open the embedded Snowflake as an account."""
    with Account(settings_of(server, fit_seconds=1.0)) as account:
        yield account


@pytest.fixture(scope="session")
def report(account, tmp_path_factory):
    """Run the cheap checks once."""
    checks = [check for number, check in all_checks().items() if number not in COSTLY]
    return run(checks, account, tmp_path_factory.mktemp("golden"))
