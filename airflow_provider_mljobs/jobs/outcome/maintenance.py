"""The maintenance of compute pools, in which Snowflake replaces nodes and may cancel running jobs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from airflow_provider_mljobs.exceptions import UnreadableError
from airflow_provider_mljobs.jobs.untrusted import read_json, reading

_WHAT = "The announced maintenance"
# The window is in the time zone of the account's region, which nothing shows: from UTC-12 to UTC+14.
_WESTERNMOST, _EASTERNMOST = timedelta(hours=12), timedelta(hours=14)


@dataclass(frozen=True, kw_only=True)
class Maintenance:
    """A window in which Snowflake replaces nodes.

    :param start: when it begins, in the time zone of the account's region.
    :param end: when it ends.
    """

    start: datetime
    end: datetime

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read the answer of SYSTEM$GET_COMPUTE_POOL_PENDING_MAINTENANCE; ``None`` if no maintenance is due.

        Besides JSON it has two sentences: that nothing is pending, and that no compute pool runs.
        """
        try:
            document = read_json(text, _WHAT)
            with reading(_WHAT):
                window = document["maintenanceWindow"] if document["maintenanceRequired"] is True else None
                if window is None:
                    return None
                start, end = (datetime.fromisoformat(window[key]).replace(tzinfo=None) for key in ("start", "end"))
        except UnreadableError:
            return None
        return cls(start=start, end=end)

    def may_be_on(self, moment: datetime) -> bool:
        """Return whether the window has a moment, in some time zone."""
        local = moment.astimezone(UTC).replace(tzinfo=None)
        return self.start - _EASTERNMOST <= local <= self.end + _WESTERNMOST

    def __str__(self) -> str:
        return f"from {self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M}, in the time zone of the region"
