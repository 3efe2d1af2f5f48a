"""The places of the logs of containers: their nodes, which keep the last 100 KB, and the event table."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import GatewayError, NoWarehouseError, SnowflakeUnavailableError
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.jobs.logs.cursor import Tail
from airflow_provider_mljobs.jobs.names import QualifiedName

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_mljobs.gateway.connection import Connection

logger = logging.getLogger(__name__)
# The platform cuts at 100 KB; a text this long may have lost its beginning.
_FULL_BYTES = 99_000
# A node also cuts a line at this length.
MOST = statements.Extent(lines=50_000, characters=20_000_000, line_characters=100_000)
# The job history has a job for so long.
_RETENTION = timedelta(days=30)
# Lines and metrics have the times of the node's clock, the job's creation has Snowflake's.
_CLOCKS_MARGIN = timedelta(minutes=10)
_MAX_BEGINS = 1000
# Roles that may not read Snowflake's own event table may read this view of it.
_DEFAULT_TABLE, _DEFAULT_VIEW = "SNOWFLAKE.TELEMETRY.EVENTS", "SNOWFLAKE.TELEMETRY.EVENTS_VIEW"


@dataclass(frozen=True)
class Source:
    """One container of one instance of a job.

    :param label: the prefix of its lines, if the job has other containers.
    """

    job: QualifiedName
    instance: int
    container: str
    label: str = ""

    @property
    def key(self) -> tuple[int, str]:
        """Instance and container name, unique in the job."""
        return self.instance, self.container


@dataclass(frozen=True)
class StoredLog:
    """Times and lines of the end of a log in an event table; it is cut if there are lines before these.

    :param refusal: the reason why the event table could not be asked.
    :param is_available: whether there is an event table that this role can read.
    :param is_late: whether more lines may arrive.
    """

    lines: Sequence[tuple[datetime, str]]
    is_cut: bool = False
    refusal: str = ""
    is_available: bool = True
    is_late: bool = False


class LogStore:
    """Reads logs over one connection, and remembers the form of log that the account offers.

    :param most: how much of a log to read from an event table: a log of gigabytes must not fill a worker's memory.
    """

    def __init__(self, connection: Connection, most: statements.Extent = MOST) -> None:
        self._connection = connection
        self._most = most
        self._is_stamped: bool | None = None
        self._begins: dict[QualifiedName, str] = {}

    def tail(self, source: Source, since: str = "") -> Tail | None:
        """Return the end of a log, with a time before each line if the account offers that.

        The form of the function with times is undocumented, but Snowflake's own command line uses it; whether an
        account accepts it is checked once.

        :returns: ``None`` if the node has no log, yet or any more.
        """
        if self._is_stamped is not False:
            log = self._ask(statements.get_stamped_service_logs(source.job, source.instance, source.container, since))
            if log is not None:
                self._is_stamped = True
                return _tail(log, is_stamped=True)
            if self._is_stamped:
                return None
        return self._unstamped(source)

    def stored(self, source: Source, after: str = "", before: str | None = None, *, share: int = 1) -> StoredLog:
        """Return times and lines of a container from the event table; none if the account has no such table.

        At most the last 50 000 lines, or 20 million characters.

        :param share: how many containers share the limit, in equal parts.
        """
        try:
            return self._stored(source, after, before, share)
        except NoWarehouseError as error:
            return StoredLog([], refusal=error.message, is_available=False)

    def begin_of(self, job: QualifiedName) -> str:
        """Return the earliest time of a job's lines, so that Snowflake need not look through the whole event table.

        :returns: a bit before its creation; a month ago for a job that neither its service nor the job history shows.
        """
        begin = self._begins.get(job)
        if begin is None:
            rows = self._rows(statements.describe_service(job))
            created = rows[0]["created_on"] if rows else self._created(job)
            begin = begin_after(created)
            if len(self._begins) >= _MAX_BEGINS:
                self._begins.clear()
            self._begins[job] = begin
        return begin

    def _created(self, job: QualifiedName) -> datetime | None:
        try:
            rows = self._rows(statements.get_job_history(job))
        except NoWarehouseError:
            return None
        return rows[0]["created_time"] if rows else None

    def _stored(self, source: Source, after: str, before: str | None, share: int) -> StoredLog:
        place = source.job, source.instance, source.container
        start = after or self.begin_of(source.job)
        most = self._most.shared(share)
        rows = self._rows(statements.spcs_get_logs(*place, start=start, end=before, most=most))
        if rows is None:
            table = event_table(self._rows(statements.show_event_table()) or [])
            if table is None:
                return StoredLog([], is_available=False)
            rows = self._rows(statements.event_table_logs(table, *place, start=start, end=before, most=most))
        if not rows:
            return StoredLog([], is_available=rows is not None)
        lines = [(row["timestamp"].replace(tzinfo=UTC), str(row["line"])) for row in reversed(rows)]
        return StoredLog(lines, is_cut=int(rows[0]["lines"]) > len(rows))

    def _rows(self, statement: str) -> list[dict[str, Any]] | None:
        """Run a statement; ``None`` if its object doesn't exist, or not for this role.

        Too early, the node gone, no event table: Snowflake documents no error number for each.
        """
        try:
            return self._connection.rows(statement)
        except (SnowflakeUnavailableError, NoWarehouseError):
            raise
        except GatewayError as error:
            logger.debug("No log is available: %s", error)
            return None

    def _unstamped(self, source: Source) -> Tail | None:
        plain = statements.get_service_logs(source.job, source.instance, source.container)
        log = self._ask(plain)
        if log and self._is_stamped is None:
            # The container may have started in between.
            again = self._ask(statements.get_stamped_service_logs(source.job, source.instance, source.container, ""))
            self._is_stamped = again is not None
            if again is not None:
                return _tail(again, is_stamped=True)
        return None if log is None else _tail(log, is_stamped=False)

    def _ask(self, statement: str) -> str | None:
        try:
            rows = self._rows(statement)
        except NoWarehouseError:
            # By the documentation a function without FROM needs none.
            return None
        return str(next(iter(rows[0].values())) or "") if rows else None


def event_table(parameters: Sequence[Mapping[str, Any]]) -> QualifiedName | None:
    """Return the account's event table, from the answer to SHOW PARAMETERS; ``None`` if it has none.

    Of Snowflake's default table it is the view, which more roles may read ("event table overview").
    """
    name = str(parameters[0]["value"]) if parameters else ""
    name = _DEFAULT_VIEW if name.upper() == _DEFAULT_TABLE else name
    return QualifiedName.parse(name, "event table") if name else None


def begin_after(created: datetime | None) -> str:
    """Return the time at which an event table's rows about a job begin, as ISO 8601, from that of its creation."""
    begin = datetime.now(UTC) - _RETENTION if created is None else created.astimezone(UTC) - _CLOCKS_MARGIN
    return begin.strftime("%Y-%m-%dT%H:%M:%SZ")


def _tail(text: str, *, is_stamped: bool) -> Tail:
    return Tail(text, is_stamped, is_cut=len(text.encode(errors="replace")) >= _FULL_BYTES)
