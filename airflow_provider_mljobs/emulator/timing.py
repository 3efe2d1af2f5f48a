"""The time that things take in Snowflake: at once by default, or as on a real account."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Ready:
    """When something becomes ready: at once (default), after ``polls`` looks at it, or after ``seconds``."""

    polls: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Refuse negative and contradictory values."""
        if self.polls < 0 or self.seconds < 0 or (self.polls and self.seconds):
            msg = f"Ready takes polls or seconds, not both, and neither may be negative; got {self}"
            raise ValueError(msg)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long things take, in seconds. By default nothing takes time, and all that was written is there at once.

    :param pool_ready: until a compute pool is up after it was created or resumed, and until a node is that it adds.
    :param job_ready: from the submit, or from the start of the pool, until a job's containers start.
    :param containers_listed: from the submit until SHOW SERVICE CONTAINERS lists the containers of a PENDING job; until
        then it has one row of NULLs.
    :param status_lag: from the start of the containers until the job's status is RUNNING instead of PENDING.
    :param endpoint_ready: from the start of a job until its public endpoints have an address.
    :param log_retention: for how long SYSTEM$GET_SERVICE_LOGS returns the log of an ended container; ``None`` for as
        long as the service exists.
    :param event_table_lag: until lines, events and metrics arrive in the event table.
    :param metric_interval: between two measurements of a container.
    :param stage_lag: from a container's last write to a file on a stage until statements see the file. Other containers
        see it at once.
    :param drop_seconds: for how long a dropped service is DELETING: it is listed, and its name is taken.
    """

    pool_ready: Ready = field(default_factory=Ready)
    job_ready: Ready = field(default_factory=Ready)
    containers_listed: Ready = field(default_factory=Ready)
    status_lag: float = 0.0
    endpoint_ready: Ready = field(default_factory=Ready)
    log_retention: float | None = None
    event_table_lag: float = 0.0
    metric_interval: float = 1.0
    stage_lag: float = 0.0
    drop_seconds: float = 0.0

    def __post_init__(self) -> None:
        """Refuse times below zero, and measurements without a pause."""
        for item in fields(Timing):
            value = getattr(self, item.name)
            if isinstance(value, int | float) and value < 0:
                msg = f"{item.name} must be 0 seconds or more; got {value}"
                raise ValueError(msg)
        if self.metric_interval <= 0:
            msg = f"metric_interval must be more than 0 seconds; got {self.metric_interval}"
            raise ValueError(msg)

    def faster(self, speed: float) -> Self:
        """Return the same with all times divided by a number: at 60, a minute of Snowflake's takes a second."""
        if not speed > 0:
            msg = f"speed must be more than 0; got {speed}"
            raise ValueError(msg)
        values = {item.name: getattr(self, item.name) for item in fields(Timing)}
        return replace(self, **{name: _divided(value, speed) for name, value in values.items()})

    def settings(self) -> dict[str, Any]:
        """Return the times by name, as settings of a server."""
        return {item.name: getattr(self, item.name) for item in fields(Timing)}


def _divided(value: Any, speed: float) -> Any:
    if value is None:
        return None
    return replace(value, seconds=value.seconds / speed) if isinstance(value, Ready) else value / speed


# The times of an account, as far as they were published; the table "Realistic" in docs/emulator.md has the sources.
REALISTIC = Timing(
    # Together 110: a job on a cold pool was seen to run after 105 to 116 s, on a warm one after 16 to 18.
    pool_ready=Ready(seconds=93.0),
    job_ready=Ready(seconds=9.0),
    # The row of NULLs is documented, without a time.
    containers_listed=Ready(seconds=5.0),
    # A comment in the tests of snowflake.ml.jobs measures the difference.
    status_lag=8.0,
    # Users report two to five minutes.
    endpoint_ready=Ready(seconds=180.0),
    # Documented as "a short time"; users report seconds.
    log_retention=10.0,
    # The tests of snowflake.ml.jobs wait for up to 300 s.
    event_table_lag=120.0,
    metric_interval=30.0,
    # Documented as "a delay", without a number.
    stage_lag=5.0,
    # The status is documented; that it lasts is believed.
    drop_seconds=5.0,
)
