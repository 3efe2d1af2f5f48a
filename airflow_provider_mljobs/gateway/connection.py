"""One kept-open connection: runs statements, renews what expired, turns vendor errors into ours."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import (
    GatewayError,
    JobAlreadyExistsError,
    NotFoundOrNotAuthorizedError,
    SnowflakeUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from snowflake.connector import SnowflakeConnection

logger = logging.getLogger(__name__)

_CANT_CONNECT = 250001
# Snowflake's numbers, and the connector's for what it met on the way: connector 4.x, network.py and errorcode.py.
_ERRORS: dict[int, type[GatewayError]] = {
    2002: JobAlreadyExistsError,
    2003: NotFoundOrNotAuthorizedError,
    2043: NotFoundOrNotAuthorizedError,
    3001: NotFoundOrNotAuthorizedError,
    390111: SnowflakeUnavailableError,  # session gone
    390112: SnowflakeUnavailableError,  # session token expired
    390113: SnowflakeUnavailableError,  # master token not found
    390114: SnowflakeUnavailableError,  # master token expired
    390115: SnowflakeUnavailableError,  # master token invalid
    390195: SnowflakeUnavailableError,  # id token invalid
    390318: SnowflakeUnavailableError,  # OAuth token expired
    _CANT_CONNECT: SnowflakeUnavailableError,  # can't connect
    250002: SnowflakeUnavailableError,  # connection closed
    250003: SnowflakeUnavailableError,  # request failed
    251011: SnowflakeUnavailableError,  # connection timeout
    251012: SnowflakeUnavailableError,  # to be retried
    252007: SnowflakeUnavailableError,  # renewal failed
    290429: SnowflakeUnavailableError,  # HTTP 429
    290500: SnowflakeUnavailableError,  # HTTP 500
    290502: SnowflakeUnavailableError,  # HTTP 502
    290503: SnowflakeUnavailableError,  # HTTP 503
    290504: SnowflakeUnavailableError,  # HTTP 504
}
# The same number says "can't connect" and "wrong password": only the login's own number tells, in the text.
_LOGIN_REFUSED = {390100, 390101, 390144, 390303, 394300}


def translate(error: Exception) -> GatewayError:
    """Return the error of ours that stands for one of the connector's."""
    errno = getattr(error, "errno", None)
    kind = _ERRORS.get(errno, GatewayError) if isinstance(errno, int) else GatewayError
    text = str(getattr(error, "raw_msg", None) or getattr(error, "msg", None) or error)
    if errno == _CANT_CONNECT and any(str(number) in text for number in _LOGIN_REFUSED):
        kind = GatewayError
    return kind(text.strip(), errno, getattr(error, "sqlstate", None), getattr(error, "sfqid", None))


class Connection:
    """A connection to Snowflake that is opened when it is needed and opened anew when it has expired.

    Statements of one connection run one after the other; use it from one thread at a time.

    :param connect: opens a connection, e.g. ``MLJobHook.get_conn``.
    """

    def __init__(self, connect: Callable[[], SnowflakeConnection]) -> None:
        self._connect = connect
        self._connection: SnowflakeConnection | None = None

    @property
    def role(self) -> str:
        """The role of the session, for messages that name a GRANT."""
        return str(self._open().role or "<your role>")

    def rows(self, statement: str) -> list[dict[str, Any]]:
        """Run a statement and return its rows by lower-case column name.

        A session that expired between two statements is opened again and the statement repeated. Statements that make
        something have a name chosen before, so that a repetition finds what the first one made.

        :raises GatewayError: what Snowflake answered; :class:`SnowflakeUnavailableError` if asking again may help.
        """
        reused = self._connection is not None
        try:
            return self._rows(statement)
        except SnowflakeUnavailableError:
            self.close()
            if not reused:
                raise
        return self._rows(statement)

    def close(self) -> None:
        """Close the session; the next statement opens one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # The session may be gone already, and with it the way to say goodbye.
            with contextlib.suppress(*_vendor_errors()):
                connection.close(retry=False)

    def _rows(self, statement: str) -> list[dict[str, Any]]:
        connection = self._open()
        logger.debug("Snowflake: %s", statement)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                names = [column.name.lower() for column in cursor.description or ()]
                return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        except _vendor_errors() as error:
            raise translate(error) from error

    def _open(self) -> SnowflakeConnection:
        if self._connection is None:
            try:
                self._connection = self._connect()
            except _vendor_errors() as error:
                raise translate(error) from error
            except Exception as error:
                # Who keeps the connection's parameters can be out of reach, too; if they are wrong, patience ends it.
                raise SnowflakeUnavailableError(f"Can't open a connection to Snowflake: {error}") from error
        return self._connection


def _vendor_errors() -> tuple[type[Exception], ...]:
    from snowflake.connector.errors import Error

    # The connector lets some faults of the network through as they are.
    return (Error, ConnectionError, TimeoutError)
