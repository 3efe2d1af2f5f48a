"""The account: the parts of the embedded Snowflake and what they share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.spcs.service import Services
from airflow_provider_mljobs.emulator.sql.engine import Engine
from airflow_provider_mljobs.emulator.stages.store import Stages
from airflow_provider_mljobs.emulator.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_mljobs.emulator.registry import Extension
    from airflow_provider_mljobs.emulator.settings import Settings

LOCATOR = "MLJOBS"
ORGANIZATION = "EMBEDDED"
USER = "MLJOBS"
ROLE = "ACCOUNTADMIN"


class Account:
    """Everything that outlives a session.

    :param settings: the settings of this start.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.locator = LOCATOR
        self.organization = ORGANIZATION
        self.user = USER
        self.role = ROLE
        # Where jobs log in; the server fills them in once its socket is bound.
        self.host = "127.0.0.1"
        self.port = 0
        self.tokens = Tokens()
        self.stages = Stages(settings.root / "stages")
        self.engine = Engine(settings, self.stages)
        self.services = Services(self)

    @property
    def extensions(self) -> Sequence[Extension]:
        """What each part adds to SQL."""
        return (self.engine.extension, self.stages.extension, self.services.extension)

    @staticmethod
    def now() -> float:
        """Return the account's time, in seconds since the epoch."""
        return time.time()

    def close(self) -> None:
        """Stop the jobs, then close the databases."""
        self.services.close()
        self.engine.close()
