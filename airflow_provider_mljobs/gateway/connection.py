"""One kept-open connection: runs statements, renews what expired, turns vendor errors into ours."""

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
    ServicesLimitError,
    SnowflakeUnavailableError,
)
from airflow_provider_mljobs.jobs.credentials import starred

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snowflake.connector import SnowflakeConnection

logger = logging.getLogger(__name__)
Taken = TypeVar("Taken")

_CANT_CONNECT = 250001
# Snowflake's numbers, and the connector's for what it met on the way: connector 4.x, network.py and errorcode.py.
_ERRORS: dict[int, type[GatewayError]] = {
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
    390303: LoginRefusedError,  # OAuth token invalid
    **dict.fromkeys(range(394_300, 394_307), LoginRefusedError),  # the same, newer
    _CANT_CONNECT: SnowflakeUnavailableError,  # can't connect
    250002: SnowflakeUnavailableError,  # connection closed
    250003: SnowflakeUnavailableError,  # request failed
    251011: SnowflakeUnavailableError,  # connection timeout
    251012: SnowflakeUnavailableError,  # to be retried
    252007: SnowflakeUnavailableError,  # renewal failed
    # HTTP; to the number of what it has tried again in vain the connector adds its 290000 twice.
    **{
        offset + status: SnowflakeUnavailableError
        for offset in (290_000, 580_000)
        for status in (408, 429, *range(500, 600))
    },
}
# What only the text tells, in small letters, of one number or of any.
_TEXTS: list[tuple[int | None, str, type[GatewayError]]] = [
    # No public source has its number.
    (None, "number of services limit exceeded", ServicesLimitError),
    # The same number says "can't connect" and "wrong password"; the login's own one stands in the text.
    *((_CANT_CONNECT, str(errno), kind) for errno, kind in _ERRORS.items() if kind is LoginRefusedError),
]


def translate(error: Exception) -> GatewayError:
    """Return the error of ours that stands for one of the connector's."""
    errno = getattr(error, "errno", None)
    text = str(getattr(error, "raw_msg", None) or getattr(error, "msg", None) or error)
    return _kind(errno, text)(text.strip(), errno, getattr(error, "sqlstate", None), getattr(error, "sfqid", None))


def explained(error: GatewayError, happened: str, *grants: str) -> GatewayError:
    """Return an error of the same kind that also says what failed, and which grants may be missing."""
    advice = "".join(f"\n  {grant};" for grant in grants)
    missing = f"\nIf something is missing for the role:{advice}" if grants else ""
    message = f"{happened} Snowflake says: {error.message}{missing}"
    return type(error)(message, error.errno, error.sqlstate, error.query_id)


def _kind(errno: int | None, text: str) -> type[GatewayError]:
    told = (kind for number, words, kind in _TEXTS if number in {None, errno} and words in text.lower())
    known = GatewayError if errno is None else _ERRORS.get(errno, GatewayError)
    return next(told, known)


class Connection:
    """A connection to Snowflake that is opened when it is needed and opened anew when it has expired.

    Statements of one connection run one after the other; use it from one thread at a time.

    :param connect: opens a connection, e.g. ``MLJobHook.get_conn``.

    ``statements`` counts what was to be sent, logins that failed included. ``query_id`` is Snowflake's id of the last
    statement that went well.
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

    def rows(self, statement: str, *, most: int | None = None) -> list[dict[str, Any]]:
        """Run a statement and return its rows by lower-case column name; see :meth:`fold`.

        :param most: how many rows to read; the rest of a longer answer stays where it is.
        """
        return self.fold(statement, lambda rows: list(islice(rows, most)))

    def columns(self, statement: str, *columns: str) -> list[tuple[Any, ...]]:
        """Run a statement and return some columns of its rows: of long answers those that are needed."""
        return self.fold(statement, lambda rows: [tuple(row[column] for column in columns) for row in rows])

    def fold(self, statement: str, take: Callable[[Iterator[dict[str, Any]]], Taken]) -> Taken:
        """Run a statement and return what is made of its rows, of which only one part is in memory at a time.

        A session that expired between two statements is opened again and the statement repeated. Statements that make
        something have a name chosen before, so that a repetition finds what the first one made.

        :param take: reads rows, by lower-case column name, as far as it likes; it may be called again.
        :raises GatewayError: what Snowflake answered; :class:`SnowflakeUnavailableError` if asking again may help.
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
            # The session may be gone already, and with it the way to say goodbye.
            with contextlib.suppress(*_vendor_errors()):
                connection.close(retry=False)

    def _execute(self, statement: str, take: Callable[[Iterator[dict[str, Any]]], Taken]) -> Taken:
        self.statements += 1
        connection = self._open()
        logger.debug("Snowflake: %s", starred(statement))
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                self.query_id = cursor.sfqid
                names = [column.name.lower() for column in cursor.description or ()]
                # An answer comes in parts; those behind the row at which reading stops are not fetched.
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
                # What is broken in this process stays broken, e.g. a module whose import was interrupted.
                raise
            except Exception as error:
                # Who keeps the connection's parameters can be out of reach, too; if they are wrong, patience ends it.
                raise SnowflakeUnavailableError(f"Can't open a connection to Snowflake: {error}") from error
        return self._connection


def _vendor_errors() -> tuple[type[Exception], ...]:
    from snowflake.connector.errors import Error

    # The connector lets some faults of the network through as they are.
    return (Error, ConnectionError, TimeoutError)
