"""An embedded Snowflake for laptops and tests: the connector's protocol on 127.0.0.1, in this process.

Submitted jobs run as the current user: it is not a sandbox.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.timing import REALISTIC

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_mljobs.emulator.server.server import Server


def serve(root: str | Path | None = None, *, realistic: bool = False, speed: float = 1.0, **settings: Any) -> Server:
    """Start an embedded Snowflake; use it in a ``with`` statement, or call its ``stop``.

    .. code-block:: python

        with serve() as snowflake:
            connection = snowflake.connector.connect(**snowflake.connection_kwargs)

    :param root: the directory of all state, which survives the server; by default a temporary one, removed at the end.
    :param realistic: take the time that an account takes, as in :data:`~.timing.REALISTIC`: two minutes until the first
        job runs, logs that leave their node, results that reach the stage late. By default nothing takes time.
    :param speed: by which number to divide these times.
    :param settings: any field of :class:`~airflow_provider_mljobs.emulator.settings.Settings`; they come before the
        realistic times.
    """
    if find_spec("fakesnow") is None:
        raise ModuleNotFoundError(
            "The embedded Snowflake needs the 'local' extra, which installs its SQL engine: "
            "pip install 'airflow-provider-mljobs[local]'",
            name="fakesnow",
        )
    from airflow_provider_mljobs.emulator.server.server import Server  # the engine is an optional extra

    if realistic:
        settings = {**REALISTIC.faster(speed).settings(), **settings}
    return Server.start(root=root, **settings)
