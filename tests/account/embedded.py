"""The embedded Snowflake as the account under test."""

from contextlib import contextmanager
from pathlib import Path

from tests.account.account import Settings
from tests.budget import budget

SETUP = Path(__file__).parents[2] / "example_dags" / "setup.sql"
_SPEED = 10
OBJECTS = """
CREATE COMPUTE POOL GPU_POOL MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = GPU_NV_S;
CREATE ROLE CONTRACT_ROLE;
GRANT ROLE CONTRACT_ROLE TO USER MLJOBS;
"""


@contextmanager
def embedded(*, realistic=False):
    """Serve an embedded Snowflake; yields the settings of a run on it.

    :param realistic: with the times of an account, but a tenth of each.
    """
    from snowflake import connector

    from airflow_provider_mljobs.emulator import serve

    times = {"realistic": True, "speed": _SPEED} if realistic else {}
    with serve(termination_grace=2.0, log_event_level="INFO", **times) as server:
        with connector.connect(**server.connection_kwargs) as connection:
            connection.execute_string(SETUP.read_text() + OBJECTS)
        yield settings_of(server, **({"fit_seconds": Settings.fit_seconds / _SPEED} if realistic else {}))


def settings_of(server, **changes):
    """Return the settings of a run on an embedded Snowflake with the objects of the example DAGs."""
    return Settings(**{
        "connection": server.environment["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"],
        "pool": "ML_POOL",
        "gpu_pool": "GPU_POOL",
        "second_role": "CONTRACT_ROLE",
        "start_seconds": budget(60),
        "fit_seconds": 2.0,
        "is_embedded": True,
        "pause": 0.1,
        **changes,
    })  # fmt: skip
