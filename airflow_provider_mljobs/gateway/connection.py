"""One connection that stays open: it runs statements, renews sessions and translates the connector's errors."""

from __future__ import annotations

import contextlib
import logging
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_mljobs.exceptions import (
    GatewayError,
    JobAlreadyExistsError,
    LoginRefusedError,
    NotFoundOrNotAuthorizedError,
    NoWarehouseError,
    ServicesLimitError,
    SnowflakeUnavailableError,
)
from airflow_provider_mljobs.jobs.credentials import starred

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snowflake.connector import SnowflakeConnection

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

_CANT_CONNECT = 250001
# Error numbers of Snowflake and of the connector (4.x, network.py and errorcode.py).
_ERRORS: dict[int, type[GatewayError]] = {
    606: NoWarehouseError,
    2002: JobAlreadyExistsError,
    2003: NotFoundOrNotAuthorizedError,
    3041: JobAlreadyExistsError,  # and the role may not see it
    2043: NotFoundOrNotAuthorizedError,
    3001: NotFoundOrNotAuthorizedError,
    390111: SnowflakeUnavailableError,  # session gone
    390112: SnowflakeUnavailableError,  # session token expired
    390113: SnowflakeUnavailableError,  # master token not found
    390114: SnowflakeUnavailableError,  # master token expired
    390115: SnowflakeUnavailableError,  # master token invalid
    390195: SnowflakeUnavailableError,  # id token invalid
    390318: SnowflakeUnavailableError,  # OAuth token expired
    390100: LoginRefusedError,  # wrong user or password
    390101: LoginRefusedError,  # user disabled
    390144: LoginRefusedError,  # key pair or its token invalid
    390186: LoginRefusedError,  # the role isn't granted to the user
    390189: LoginRefusedError,  # the same, or not allowed with these credentials
    390303: LoginRefusedError,  # OAuth token invalid
    **dict.fromkeys(range(394_300, 394_307), LoginRefusedError),  # the same, newer
    _CANT_CONNECT: SnowflakeUnavailableError,  # can't connect
    250002: SnowflakeUnavailableError,  # connection closed
    250003: SnowflakeUnavailableError,  # request failed
    251011: SnowflakeUnavailableError,  # connection timeout
    251012: SnowflakeUnavailableError,  # to be retried
    252007: SnowflakeUnavailableError,  # renewal failed
    # HTTP statuses. After retries in vain the connector adds its 290000 twice.
    **{
        offset + status: SnowflakeUnavailableError
        for offset in (290_000, 580_000)
        for status in (408, 429, *range(500, 600))
    },
}
# Errors that only the text identifies, in lower case: of one number, or of any.
_TEXTS: list[tuple[int | None, str, type[GatewayError]]] = [
    # Its number is documented nowhere.
    (None, "number of services limit exceeded", ServicesLimitError),
    # "Can't connect" and "wrong password" share a number; the number of the login error is in the text.
    *((_CANT_CONNECT, str(errno), kind) for errno, kind in _ERRORS.items() if kind is LoginRefusedError),
]
# Only for numbers that _ERRORS lacks, since other texts quote names. No source names the number for services.
_NAME_TAKEN = "already exists"
_ADVICE = {
    NoWarehouseError: "Set warehouse in the Airflow connection, to one on which its role has USAGE.",
}


def translate(error: Exception) -> GatewayError:
    """Convert an error of the connector's to one of the provider's."""
    errno = getattr(error, "errno", None)
    text = str(getattr(error, "raw_msg", None) or getattr(error, "msg", None) or error)
    by_text = (kind for number, words, kind in _TEXTS if number in {None, errno} and words in text.lower())
    other = JobAlreadyExistsError if _NAME_TAKEN in text.lower() else GatewayError
    by_number = other if errno is None else _ERRORS.get(errno, other)
    kind = next(by_text, by_number)
    message = " ".join([text.strip(), *([_ADVICE[kind]] if kind in _ADVICE else [])])
    return kind(message, errno, getattr(error, "sqlstate", None), getattr(error, "sfqid", None))


class Connection:
    """A connection to Snowflake that opens on first use and reopens after its session has expired.

    Statements run one after the other; use it from one thread at a time.

    :param connect: opens a connection, e.g. ``MLJobHook.get_conn``.

    ``statements`` counts attempts to send a statement, failed logins included. ``query_id`` is Snowflake's id of the
    last statement that succeeded.
    """

    def __init__(self, connect: Callable[[], SnowflakeConnection]) -> None:
        self._connect = connect
        self._connection: SnowflakeConnection | None = None
        self.statements = 0
        self.query_id: str | None = None

    @property
    def role(self) -> str:
        """The role of the session, for messages that name a GRANT."""
        return str(self._open().role or "<your role>")

    @property
    def warehouse(self) -> str | None:
        """The warehouse of the session; ``None`` if it has none, and queries are refused."""
        return self._open().warehouse or None

    def rows(self, statement: str, *, most: int | None = None) -> list[dict[str, Any]]:
        """Run a statement and return its rows by lower-case column name; see :meth:`fold`.

        :param most: the number of rows to read; the rest isn't fetched.
        """
        return self.fold(statement, lambda rows: list(islice(rows, most)))

    def rows_or_refusal(self, statement: str) -> tuple[list[dict[str, Any]], str]:
        """Run a query that accounts and roles may lack; returns its rows, or none and the reason.

        Snowflake doesn't document the error numbers of all such refusals. Other errors are raised.
        """
        try:
            return self.rows(statement), ""
        except (SnowflakeUnavailableError, LoginRefusedError):
            raise
        except GatewayError as error:
            logger.debug("Snowflake refuses: %s", error)
            return [], error.message

    def fold(self, statement: str, take: Callable[[Iterator[dict[str, Any]]], Result]) -> Result:
        """Run a statement and reduce its rows, without holding all of them in memory.

        If the session has expired, a new one opens and the statement is repeated. That is safe: each object that a
        statement creates has a name chosen beforehand, so a repetition meets the first one's object.

        :param take: reads rows, by lower-case column name, as many as it needs; a repetition calls it again.
        :raises GatewayError: Snowflake's refusal; :class:`SnowflakeUnavailableError` if a repetition may help.
        """
        reused = self._connection is not None
        try:
            return self._execute(statement, take)
        except SnowflakeUnavailableError:
            self.close()
            if not reused:
                raise
        return self._execute(statement, take)

    def close(self) -> None:
        """Close the session; the next statement opens one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # An expired session can't be closed.
            with contextlib.suppress(*_vendor_errors()):
                connection.close(retry=False)

    def _execute(self, statement: str, take: Callable[[Iterator[dict[str, Any]]], Result]) -> Result:
        self.statements += 1
        connection = self._open()
        logger.debug("Snowflake: %s", starred(statement))
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                self.query_id = cursor.sfqid
                names = [column.name.lower() for column in cursor.description or ()]
                # An answer comes in parts; the connector fetches only those that are read.
                return take(dict(zip(names, row, strict=True)) for row in cursor)
        except _vendor_errors() as error:
            raise translate(error) from error

    def _open(self) -> SnowflakeConnection:
        if self._connection is None:
            try:
                self._connection = self._connect()
            except _vendor_errors() as error:
                raise translate(error) from error
            except (ImportError, AttributeError):
                # A process with a broken module stays broken, e.g. after an interrupted import.
                raise
            except Exception as error:
                # Airflow or a secrets backend may be out of reach for a while. Wrong parameters fail for good once the
                # caller's patience ends.
                raise SnowflakeUnavailableError(f"Could not open a connection to Snowflake: {error}") from error
        return self._connection


def _vendor_errors() -> tuple[type[Exception], ...]:
    from snowflake.connector.errors import Error

    # The connector passes some network errors on unchanged.
    return (Error, ConnectionError, TimeoutError)
