"""The announced maintenance of compute pools."""

from datetime import UTC, datetime

import pytest

from airflow_provider_mljobs.jobs.outcome.maintenance import Maintenance

WINDOW = '{"maintenanceRequired":true,"maintenanceWindow":{"start":"2026-02-28T20:00","end":"2026-03-01T08:00"}}'


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(2026, 2, 28, 5, 59, tzinfo=UTC), False),
        (datetime(2026, 2, 28, 6, 0, tzinfo=UTC), True),
        (datetime(2026, 3, 1, 20, 0, tzinfo=UTC), True),
        (datetime(2026, 3, 1, 20, 1, tzinfo=UTC), False),
    ],
)
def test_the_time_zone_is_unknown(moment, expected):
    """The window is in the time of the region: any moment counts that is in it somewhere on Earth."""
    maintenance = Maintenance.parse(WINDOW)

    assert expected is maintenance.may_be_on(moment)
    assert "from 2026-02-28 20:00 to 2026-03-01 08:00, in the time zone of the region" == str(maintenance)


@pytest.mark.parametrize(
    "text",
    [
        WINDOW.replace("true", "false"),
        "No pending maintenance actions.",
        "No running Snowpark Container Services found.",
        "",
        "[]",
        "{}",
        '{"maintenanceRequired": true}',
        WINDOW.replace("2026-02-28T20:00", "soon"),
        WINDOW.replace('"2026-02-28T20:00"', "5"),
    ],
)
def test_no_maintenance(text):
    """A window without required maintenance, a sentence, and anything unreadable announce nothing."""
    assert Maintenance.parse(text) is None
