import pytest
from snowflake.connector.errors import (  # noqa: TID253 (a test)
    BadGatewayError,
    DatabaseError,
    ForbiddenError,
    OperationalError,
    OtherHTTPRetryableError,
    ProgrammingError,
    ServiceUnavailableError,
    TooManyRequests,
)

from airflow_provider_mljobs.exceptions import (
    GatewayError,
    JobAlreadyExistsError,
    LoginRefusedError,
    NotFoundOrNotAuthorizedError,
    NoWarehouseError,
    ServicesLimitError,
    SnowflakeUnavailableError,
)
from airflow_provider_mljobs.gateway.connection import Connection, translate


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ProgrammingError("exists", errno=2002), JobAlreadyExistsError),
        (ProgrammingError("exists, but current role has no privileges on it", errno=3041), JobAlreadyExistsError),
        (ProgrammingError("does not exist or not authorized", errno=2003), NotFoundOrNotAuthorizedError),
        (ProgrammingError("object 'T_390100' does not exist", errno=2003), NotFoundOrNotAuthorizedError),
        (ProgrammingError("insufficient privileges", errno=3001), NotFoundOrNotAuthorizedError),
        (ProgrammingError("syntax error", errno=1003), GatewayError),
        (ProgrammingError("No active warehouse selected in the current session.", errno=606), NoWarehouseError),
        (ProgrammingError("Service 'J' already exists.", errno=395999), JobAlreadyExistsError),
        (ProgrammingError("Object 'J' already exists."), JobAlreadyExistsError),
        (
            ProgrammingError("Stage 'already exists' does not exist or not authorized", errno=2003),
            NotFoundOrNotAuthorizedError,
        ),
        (DatabaseError("token expired", errno=390114), SnowflakeUnavailableError),
        (OperationalError("HTTP 503", errno=290503), SnowflakeUnavailableError),
        (OperationalError("can't connect", errno=250001), SnowflakeUnavailableError),
        # The connector raises this after its last retry.
        (ServiceUnavailableError(errno=290503), SnowflakeUnavailableError),
        (BadGatewayError(errno=290502), SnowflakeUnavailableError),
        (TooManyRequests(errno=290429), SnowflakeUnavailableError),
        (OtherHTTPRetryableError(code=522, errno=290522), SnowflakeUnavailableError),
        (ForbiddenError(errno=290403), GatewayError),
        (ValueError("no number"), GatewayError),
    ],
    ids=str,
)
def test_the_connectors_errors_become_ours(error, expected):
    """Errors are classified by number: worth a repetition, a missing GRANT, or final."""
    assert expected is type(translate(error))


@pytest.mark.parametrize("errno", [390100, 390101, 390144, 390303, 394300])
def test_a_refused_login_is_no_outage(errno):
    """The number of a refused login is the error's own or, while a connection opens, part of the text."""
    text = f"250001 (08001): None: Failed to connect to DB: localhost:1. {errno} (08001): refused"

    assert LoginRefusedError is type(translate(DatabaseError("refused", errno=errno)))
    assert LoginRefusedError is type(translate(OperationalError(text, errno=250001)))
    assert GatewayError is type(translate(DatabaseError(text, errno=1003)))


@pytest.mark.parametrize("errno", [None, 1, 2043, 395093])
@pytest.mark.parametrize(
    "words", ["Number of services limit exceeded for the account", "NUMBER OF SERVICES LIMIT EXCEEDED"]
)
def test_the_limit_of_services(errno, words):
    """The limit of services is classified by its text, because its number is undocumented."""
    error = translate(ProgrammingError(f"SQL execution error: {words}.", errno=errno, sqlstate="54000"))

    assert ServicesLimitError is type(error)
    assert words in error.message
    assert ServicesLimitError is not type(translate(ProgrammingError("Number of tables limit exceeded", errno=1)))


def test_so_many_services_as_the_account_may_have():
    """One job more than the account's limit raises ServicesLimitError."""
    from snowflake import connector

    from airflow_provider_mljobs.emulator import serve

    with serve(max_services=0) as server:
        connection = Connection(lambda: connector.connect(**server.connection_kwargs))
        connection.rows("CREATE COMPUTE POOL P MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_S")
        spec = "{spec: {containers: [{name: main, image: /snowflake/images/snowflake_images/x:1}]}}"

        with pytest.raises(ServicesLimitError, match="Number of services limit exceeded for the account"):
            connection.rows(
                f"EXECUTE JOB SERVICE IN COMPUTE POOL P NAME = J ASYNC = TRUE FROM SPECIFICATION $${spec}$$"
            )
        connection.close()


def test_a_connection_counts_its_statements(snowflake):
    """Refused statements count too, and columns have lower-case names."""
    from snowflake import connector

    connection = Connection(lambda: connector.connect(**snowflake.connection_kwargs))

    assert [{"a": 1, "b": "x"}] == connection.rows("SELECT 1 AS A, 'x' AS B")
    with pytest.raises(GatewayError):
        connection.rows("SELECT * FROM NOWHERE")
    connection.close()
    assert [1] == connection.fold("SELECT 1 AS A", lambda rows: [row["a"] for row in rows])
    connection.close()
    assert 3 == connection.statements


def test_a_wrong_password_is_a_refused_login(snowflake):
    """A wrong password through the real connector is a refused login."""
    from snowflake import connector

    wrong = {**snowflake.connection_kwargs, "password": "wrong"}
    with pytest.raises(LoginRefusedError):
        Connection(lambda: connector.connect(**wrong)).rows("SELECT 1")


def test_what_snowflake_said_is_kept():
    """The converted error keeps text, number, SQLSTATE and query id."""
    error = translate(ProgrammingError("no such thing", errno=2003, sqlstate="02000", sfqid="01b-2"))

    assert (2003, "02000", "01b-2") == (error.errno, error.sqlstate, error.query_id)
    assert "no such thing" in error.message
