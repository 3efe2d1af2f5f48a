"""Fixtures of all tests: an embedded Snowflake, connections to it, and an Airflow that runs DAGs against it.

Each worker of pytest-xdist is a process with a home, a database and an embedded Snowflake of its own.
"""

import atexit
import gc
import os
import shutil
import signal
import tempfile

import pytest
from hypothesis import settings

from tests.budget import slowness

# Without this the connector looks for cloud metadata servers, for seconds where none answers.
os.environ["SNOWFLAKE_DISABLE_PLATFORM_DETECTION"] = "true"

# Airflow reads its configuration on import, so all of it is here, before any test module.
_HOME = tempfile.mkdtemp(prefix="mljobs-airflow-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
# Airflow keeps exceptions and so their frames; DuckDB complains about connections that are alive at exit.
atexit.register(gc.collect)
os.environ |= {
    "AIRFLOW_HOME": _HOME,
    "AIRFLOW__CORE__DAGS_FOLDER": os.path.join(_HOME, "dags"),  # noqa: PTH118 (a string for the environment)
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    # Tests read the log lines of tasks.
    "AIRFLOW__LOGGING__NAMESPACE_LEVELS": "airflow_provider_mljobs=INFO,airflow.task.operators=INFO",
    "HYPOTHESIS_STORAGE_DIRECTORY": os.path.join(_HOME, "hypothesis"),  # noqa: PTH118 (as above)
}

# The same examples in each run; "make test-nightly" looks for new ones.
settings.register_profile("test", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("nightly", max_examples=10_000, deadline=None)
settings.load_profile("test")

# Workers inherit the measurement, so it comes before they start.
slowness()

# Fixtures that the tests of payloads, values and the launcher share.
pytest_plugins = ["tests.payload_runs"]


def pytest_collection_finish():
    """Spare the garbage collector the modules and tests, which live as long as the session."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def snowflake():
    """Serve an embedded Snowflake with default settings."""
    from airflow_provider_mljobs.emulator import serve

    with serve() as server:
        yield server


@pytest.fixture
def connection(snowflake):
    """Connect to the embedded Snowflake, with ``?`` for parameters."""
    from snowflake import connector

    with connector.connect(**snowflake.connection_kwargs, paramstyle="qmark") as connection:
        yield connection


@pytest.fixture(scope="session")
def jobs_snowflake():
    """Serve an embedded Snowflake with the pool, stage, database and schema of the example DAGs."""
    from tests.lab import served

    with served() as server:
        yield server


@pytest.fixture
def airflow(jobs_snowflake, monkeypatch):
    """Point ``snowflake_default`` to the embedded Snowflake; see :class:`tests.lab.Airflow`."""
    from tests.lab import Airflow

    for name, value in jobs_snowflake.environment.items():
        monkeypatch.setenv(name, value)
    return Airflow(jobs_snowflake)


@pytest.fixture
def interruptible():
    """Handle Ctrl-C, which a background shell would ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
