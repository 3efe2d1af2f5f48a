"""What all tests share: one embedded Snowflake, connections to it, and an Airflow that runs DAGs against it."""

import atexit
import gc
import os
import shutil
import tempfile

import pytest
from hypothesis import settings

from tests.budget import slowness

# The connector would look for cloud metadata servers, which takes seconds where there are none.
os.environ["SNOWFLAKE_DISABLE_PLATFORM_DETECTION"] = "true"

# Airflow reads its configuration when it is imported, so all of it stands here, before any test module.
_HOME = tempfile.mkdtemp(prefix="mljobs-airflow-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
# Airflow keeps exceptions, with all that their frames hold; DuckDB complains about what of its own is alive at exit.
atexit.register(gc.collect)
os.environ |= {
    "AIRFLOW_HOME": _HOME,
    "AIRFLOW__CORE__DAGS_FOLDER": os.path.join(_HOME, "dags"),  # noqa: PTH118 (a string for the environment)
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    # What tasks say of their jobs is tested.
    "AIRFLOW__LOGGING__NAMESPACE_LEVELS": "airflow_provider_mljobs=INFO,airflow.task.operators=INFO",
    "HYPOTHESIS_STORAGE_DIRECTORY": os.path.join(_HOME, "hypothesis"),  # noqa: PTH118 (as above)
}

# The same examples in each run; "make test-nightly" looks for new ones.
settings.register_profile("test", max_examples=300, deadline=None, derandomize=True)
settings.register_profile("nightly", max_examples=10_000, deadline=None)
settings.load_profile("test")

# Measured here, before the workers start: they inherit it.
slowness()

# Fixtures of the tests of payloads, of the launcher and of values alike.
pytest_plugins = ["tests.payload_runs"]


def pytest_collection_finish():
    """Spare the garbage collector the modules and tests, which live as long as the session."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def snowflake():
    """One embedded Snowflake for all tests that don't need settings of their own."""
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
    """An embedded Snowflake with what the example DAGs need: pool, stage, database and schema."""
    from tests.lab import served

    with served() as server:
        yield server


@pytest.fixture
def airflow(jobs_snowflake, monkeypatch):
    """An Airflow whose ``snowflake_default`` is an embedded Snowflake; see :class:`tests.lab.Airflow`."""
    from tests.lab import Airflow

    for name, value in jobs_snowflake.environment.items():
        monkeypatch.setenv(name, value)
    return Airflow(jobs_snowflake)
