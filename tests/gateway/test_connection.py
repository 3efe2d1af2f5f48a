import pytest
from snowflake.connector.errors import DatabaseError, OperationalError, ProgrammingError  # noqa: TID253 (a test)

from airflow_provider_mljobs.exceptions import (
    GatewayError,
    JobAlreadyExistsError,
    NotFoundOrNotAuthorizedError,
    SnowflakeUnavailableError,
)
from airflow_provider_mljobs.gateway.connection import translate


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ProgrammingError("exists", errno=2002), JobAlreadyExistsError),
        (ProgrammingError("does not exist or not authorized", errno=2003), NotFoundOrNotAuthorizedError),
        (ProgrammingError("object 'T_390100' does not exist", errno=2003), NotFoundOrNotAuthorizedError),
        (ProgrammingError("insufficient privileges", errno=3001), NotFoundOrNotAuthorizedError),
        (ProgrammingError("syntax error", errno=1003), GatewayError),
        (DatabaseError("token expired", errno=390114), SnowflakeUnavailableError),
        (OperationalError("HTTP 503", errno=290503), SnowflakeUnavailableError),
        (OperationalError("can't connect", errno=250001), SnowflakeUnavailableError),
        (OperationalError("can't connect: 390100 incorrect password", errno=250001), GatewayError),
        (DatabaseError("incorrect password", errno=390100), GatewayError),
        (ValueError("no number"), GatewayError),
    ],
    ids=str,
)
def test_the_connectors_errors_become_ours(error, expected):
    """By their numbers: what may help to repeat, what a GRANT may help, and what nothing helps."""
    assert expected is type(translate(error))


def test_what_snowflake_said_is_kept():
    """Text, number, SQLSTATE and query id go along."""
    error = translate(ProgrammingError("no such thing", errno=2003, sqlstate="02000", sfqid="01b-2"))

    assert (2003, "02000", "01b-2") == (error.errno, error.sqlstate, error.query_id)
    assert "no such thing" in error.message
