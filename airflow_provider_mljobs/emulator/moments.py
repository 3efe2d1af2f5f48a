"""Times in arguments and results: nanoseconds since the epoch, UTC timestamps, and windows."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.containers.joblog import nanoseconds
from airflow_provider_mljobs.emulator.errors import SnowflakeError

if TYPE_CHECKING:
    from collections.abc import Mapping

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # the epoch of TIMESTAMP_NTZ
_DAY = 24 * 3600 * 1_000_000_000


def to_nanoseconds(seconds: float) -> int:
    """Return a time of the account in nanoseconds."""
    return round(seconds * 1_000_000_000)


def without_zone(at: int) -> datetime:
    """Return a time as a TIMESTAMP_NTZ in UTC."""
    return _EPOCH + timedelta(microseconds=at // 1000)


def read_time(value: Any) -> int | None:
    """Read an argument as a time, in UTC unless it has a zone; raises 100035 if it isn't a time."""
    if value is None or value == "":
        return None
    try:
        if str(value).replace(".", "", 1).isdigit():
            return to_nanoseconds(float(value))
        return nanoseconds(value if isinstance(value, datetime) else str(value))
    except ValueError:
        raise SnowflakeError(100035, "22007", f"Timestamp '{value}' is not recognized") from None


def window(now: float, named: Mapping[str, Any], names: tuple[str, str], days: int) -> tuple[int, int]:
    """Return the window between two arguments.

    :param now: the account's time.
    :param named: the arguments of a function.
    :param names: the names of the two.
    :param days: the length of the window up to now, if no begin is given.
    """
    start, end = (read_time(named.get(name)) for name in names)
    begin = start if start is not None else to_nanoseconds(now) - days * _DAY
    # The window includes this very moment.
    return begin, end if end is not None else to_nanoseconds(now + 1)
