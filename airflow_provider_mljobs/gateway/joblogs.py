"""What the containers of a job have printed: from their nodes, which keep 100 KB, or from the event table."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import GatewayError, SnowflakeUnavailableError, UnreadableError
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.jobs.logs.cursor import (
    Gap,
    LogCursor,
    Tail,
    behind,
    cursors_from_json,
    cursors_to_json,
    goes_back,
    news,
    shifted,
    without_stamps,
)
from airflow_provider_mljobs.jobs.logs.text import readable
from airflow_provider_mljobs.jobs.names import QualifiedName
from airflow_provider_mljobs.jobs.outcome.reports import Reported, take_reports, without_reports
from airflow_provider_mljobs.jobs.untrusted import reading

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from airflow_provider_mljobs.gateway.connection import Connection

logger = logging.getLogger(__name__)
# The platform cuts at 100 KB; a text this long may have lost its beginning.
_FULL_BYTES = 99_000
# Those that a job's end can still ask for; Airflow stores them.
_MOST_GAPS = 20
# Of a line as much as a node has of one.
MOST = statements.Extent(lines=50_000, characters=20_000_000, line_characters=100_000)
_EPOCH = "1970-01-01T00:00:00Z"
# Which looks without anything new are followed by one at the whole log: soon, and then each so many.
_FIRST_SILENCES, _SILENCE = frozenset({1, 2}), 6
# So that the lines around a gap are among those that are asked for.
_MARGIN = timedelta(seconds=2)


@dataclass(frozen=True)
class Source:
    """One container of one instance of a job.

    :param label: what its lines begin with, if the job has others.
    """

    job: QualifiedName
    instance: int
    container: str
    label: str = ""

    @property
    def key(self) -> tuple[int, str]:
        """What tells it from the job's others."""
        return self.instance, self.container


@dataclass(frozen=True)
class Kept:
    """The end of a log in an event table.

    :param lines: times and lines.
    :param is_cut: whether there are lines before these.
    """

    lines: Sequence[tuple[datetime, str]]
    is_cut: bool = False


class LogStore:
    """Reads logs over one connection, and remembers what the account gives.

    :param connection: the connection.
    :param most: how much of a log to read from an event table: one of gigabytes must not fill a worker's memory.
    """

    def __init__(self, connection: Connection, most: statements.Extent = MOST) -> None:
        self._connection = connection
        self._most = most
        self._is_stamped: bool | None = None

    def tail(self, source: Source, since: str = "") -> Tail | None:
        """Return the end of a log, with a time before each line where the account gives that.

        The times come in a form of the function that Snowflake's own command line uses but doesn't document, so what
        an account says of it is checked once.

        :param since: leave away what is older.
        :returns: ``None`` if there is nothing yet, or nothing any more.
        """
        if self._is_stamped is not False:
            log = self._ask(statements.get_stamped_service_logs(source.job, source.instance, source.container, since))
            if log is not None:
                self._is_stamped = True
                return _tail(log, is_stamped=True)
            if self._is_stamped:
                return None
        return self._unstamped(source)

    def kept(self, source: Source, after: str = "", before: str | None = None, *, share: int = 1) -> Kept:
        """Return times and lines that an event table has of a container; none if there is no such table.

        At most 50 000 lines, or 20 million characters, the last ones.

        :param after: only lines from then on; all if empty.
        :param before: only lines until then.
        :param share: how many containers the lines and characters are for; each gets as many.
        """
        place = source.job, source.instance, source.container
        start = after or _EPOCH
        most = self._most.shared(share)
        rows = self._rows(statements.spcs_get_logs(*place, start=start, end=before, most=most))
        if rows is None:
            table = self._event_table()
            if table is None:
                return Kept([])
            rows = self._rows(statements.event_table_logs(table, *place, start=start, end=before, most=most))
        if not rows:
            return Kept([])
        lines = [(row["timestamp"].replace(tzinfo=UTC), str(row["line"])) for row in reversed(rows)]
        return Kept(lines, is_cut=int(rows[0]["lines"]) > len(rows))

    def _event_table(self) -> QualifiedName | None:
        """Return the account's event table, if it has one that the role may know of."""
        return event_table(self._rows(statements.show_event_table()) or [])

    def _rows(self, statement: str) -> list[dict[str, Any]] | None:
        """Run a statement; ``None`` if there isn't what it asks for, or not for this role.

        Too early, the node gone, no event table: Snowflake documents no number that tells these apart.
        """
        try:
            return self._connection.rows(statement)
        except SnowflakeUnavailableError:
            raise
        except GatewayError as error:
            logger.debug("No log to be had: %s", error)
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
        rows = self._rows(statement)
        return str(next(iter(rows[0].values())) or "") if rows else None


def event_table(parameters: Sequence[Mapping[str, Any]]) -> QualifiedName | None:
    """Return the account's event table; ``None`` if it has none.

    :param parameters: the answer to :func:`~airflow_provider_mljobs.gateway.statements.show_event_table`.
    """
    name = str(parameters[0]["value"]) if parameters else ""
    return QualifiedName.parse(name, "event table") if name else None


@dataclass
class Printed:
    """What of a job's log is in the task's log already.

    :param cursors: how far the log of each container has been read, by instance and name.
    :param gaps: what could not be had, with the container of each.
    :param is_whole: whether everything has been read up to the end.
    :param reported: what the job has reported up to there.
    :param characters: how many have been read since this was made or copied.
    :param mask: stars secrets in what the job says of itself, before any of it is cut.
    :param silences: how many looks in a row have brought nothing new, by container.
    """

    cursors: dict[tuple[int, str], LogCursor] = field(default_factory=dict)
    gaps: list[tuple[int, str, Gap]] = field(default_factory=list)
    is_whole: bool = False
    reported: Reported = field(default_factory=Reported)
    characters: int = 0
    mask: Callable[[str], str] = field(default=str, repr=False, compare=False)
    silences: dict[tuple[int, str], int] = field(default_factory=dict, compare=False)

    def cursor(self, source: Source) -> LogCursor:
        """Return how far a container's log has been read."""
        return self.cursors.get(source.key, LogCursor())

    def shown(self, source: Source, lines: Sequence[str]) -> list[str]:
        """Return new lines of a container as people read them, and take note of what they report."""
        self.characters += sum(map(len, lines))
        texts, self.reported = take_reports(lines, self.reported, time.time(), self.mask)
        return [f"{source.label}{readable(text)}" for text in texts]

    def copy(self) -> Printed:
        """Return another one to go on with."""
        copied = (dict(self.cursors), list(self.gaps), self.is_whole, self.reported)
        return Printed(*copied, mask=self.mask, silences=dict(self.silences))

    def to_json(self) -> dict[str, Any]:
        """Write it as JSON, for the task's event and for the next triggerer."""
        return {**self.place_to_json(), **self.reported.to_json()}

    def place_to_json(self) -> dict[str, Any]:
        """Write as JSON how far the log has been read."""
        gaps = [[instance, container, *gap.to_json()] for instance, container, gap in self.gaps]
        return {"cursors": cursors_to_json(self.cursors), "gaps": gaps, "is_whole": self.is_whole}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], mask: Callable[[str], str] = str) -> Printed:
        """Read it again; nothing of it is nothing printed.

        :raises UnreadableError: if it is something else, e.g. another version's.
        """
        with reading("The place in the log"):
            gaps = [(int(instance), str(name), Gap.from_json(gap)) for instance, name, *gap in value.get("gaps", ())]
            cursors = cursors_from_json(value.get("cursors", {}))
            is_whole, reported = value.get("is_whole") is True, Reported.from_json(value)
            return cls(cursors, gaps[-_MOST_GAPS:], is_whole, reported, mask=mask)

    @classmethod
    def restored(cls, value: Any, log: Any, mask: Callable[[str], str] = str) -> Printed:
        """Read it again; if it can't be read, it counts as nothing printed, and a line in the log says so.

        :param log: the task's.
        """
        try:
            return cls.from_json(value, mask)
        except UnreadableError as error:
            log.warning("Lines of the job's log may appear twice: %s", error)
            return cls(mask=mask)


def sources(job: QualifiedName, containers: Sequence[tuple[int, str]]) -> list[Source]:
    """Return the containers of a job with labels that tell them apart."""
    instances = {instance for instance, _ in containers}
    names = {name for _, name in containers}

    def label(instance: int, name: str) -> str:
        if len(names) > 1:
            return f"[instance {instance}, {name}] "
        return f"[instance {instance}] " if len(instances) > 1 else ""

    return [Source(job, instance, name, label(instance, name)) for instance, name in sorted(containers)]


def read_news(
    store: LogStore,
    source: Source,
    printed: Printed,
    *,
    is_final: bool = False,
    overlap: timedelta = timedelta(),
) -> list[str] | None:
    """Return the new lines of a container, and take note of them in ``printed``; ``None`` if its log can't be had.

    Only what is newer than the last line is asked for. Where a node's clock was set back that isn't all, so a log that
    brings nothing new is now and then read as a whole, and one whose times go back always is.

    :param is_final: whether the job is over, so that nothing more will come.
    :param overlap: how much of the log to ask for again, at least: as much as lies between two looks.
    """
    cursor, silence = printed.cursor(source), printed.silences.get(source.key, 0)
    is_whole = is_final or silence in _FIRST_SILENCES or (silence and not silence % _SILENCE)
    tail = store.tail(source, "" if is_whole else cursor.since(overlap))
    if tail is not None and not is_whole and goes_back(tail):
        tail = store.tail(source) or tail
    if tail is None:
        return None
    is_silent = news(cursor, tail, is_final=is_final).cursor == cursor
    printed.silences[source.key] = silence + 1 if is_silent else 0
    return _take(source, tail, printed, is_final=is_final)


@dataclass(frozen=True)
class WholeLog:
    """A job's log at its end.

    :param text: what is to be had of it now: of a long one the end.
    :param unseen: the lines of it that aren't in the task's log yet.
    :param reported: all that the job has reported.
    """

    text: str
    unseen: tuple[str, ...]
    reported: Reported


def read_rest(store: LogStore, found: Sequence[Source], printed: Printed) -> WholeLog:
    """Return the log of a job that is over; what the nodes don't have comes from the event table, if there is one."""
    texts: list[str] = []
    unseen: list[str] = []
    # Should the next one not be answered, all of it is read again.
    printed = printed.copy()
    for source in found:
        earlier = [gap for *key, gap in printed.gaps if tuple(key) == source.key]
        tail = store.tail(source)
        if tail is None:
            kept = store.kept(source, share=len(found))
            text = "\n".join(line for _, line in kept.lines)
            unseen += _from_table(source, kept, printed)
        else:
            text = without_stamps(tail)
            unseen += _take(source, tail, printed, is_final=True, store=store)
        unseen += _filled(store, source, earlier, printed)
        texts.append(_labelled(source, "\n".join(map(readable, without_reports(text).split("\n")))))
    return WholeLog("\n".join(text.rstrip("\n") for text in texts), tuple(unseen), printed.reported)


def read_log(store: LogStore, source: Source, *, share: int = 1) -> str:
    """Return the log of one container, as much as is to be had; a missing beginning is announced.

    :param share: how many containers are read.
    """
    return without_reports(_raw_log(store, source, share))


def _raw_log(store: LogStore, source: Source, share: int) -> str:
    tail = store.tail(source)
    text = "" if tail is None else without_stamps(tail)
    if tail is not None and not tail.is_cut:
        return text
    kept = "\n".join(line for _, line in store.kept(source, share=share).lines)
    if tail is None or (len(kept) > len(text) and kept.rstrip().endswith(text.rstrip().rpartition("\n")[2])):
        return kept
    return f"[the log is longer than the 100 KB that Snowflake keeps on the node; its beginning is cut off]\n{text}"


def read_logs(store: LogStore, found: Sequence[Source]) -> str:
    """Return the logs of several containers as one text; each line says whose it is, if there are several."""
    return "\n".join(_labelled(source, read_log(store, source, share=len(found))).rstrip("\n") for source in found)


def _labelled(source: Source, text: str) -> str:
    if not source.label or not text:
        return text
    return "".join(f"{source.label}{line}\n" for line in text.removesuffix("\n").split("\n"))


def _tail(text: str, *, is_stamped: bool) -> Tail:
    return Tail(text, is_stamped, is_cut=len(text.encode(errors="replace")) >= _FULL_BYTES)


def _take(source: Source, tail: Tail, printed: Printed, *, is_final: bool, store: LogStore | None = None) -> list[str]:
    """Return the new lines of a log with what is missing before them: from ``store``, or announced."""
    found = news(printed.cursor(source), tail, is_final=is_final)
    if found.cursor != LogCursor():
        printed.cursors[source.key] = found.cursor
    lines = printed.shown(source, found.lines)
    if found.gap is None or (*source.key, found.gap) in printed.gaps:
        return lines
    filled = _missing(store, source, found.gap, printed) if store is not None else None
    if filled is not None:
        return [*filled, *lines]
    printed.gaps = [*printed.gaps, (*source.key, found.gap)][-_MOST_GAPS:]
    return [f"{source.label}{_announcement(source, found.gap)}", *lines]


def _announcement(source: Source, gap: Gap) -> str:
    start, end = gap.after or _EPOCH, gap.before or None
    if gap.is_set_back:
        start, end = gap.before, gap.after
    query = statements.spcs_get_logs(source.job, source.instance, source.container, start=start, end=end)
    if gap.seconds is not None:
        size = f"{gap.seconds:.3f} s of output are missing here, from {gap.after} to {gap.before}"
    elif gap.is_set_back:
        size = f"lines may be missing here: the node's clock was set back from {gap.after} to {gap.before} or before"
    elif gap.before:
        size = f"everything before {gap.before} is missing here"
    else:
        size = "lines may be missing here"
    return f"[… {size}: the node keeps the last 100 KB only. An event table may have them: {query}]"


def _from_table(source: Source, kept: Kept, printed: Printed) -> list[str]:
    """Return what an event table has behind the place up to which a log was read; say so if it has nothing."""
    cursor = printed.cursor(source)
    if kept.lines:
        new = behind(cursor, kept.lines)
        lines = printed.shown(source, new)
        if not kept.is_cut or len(new) < len(kept.lines):
            return lines
        first = statements.spcs_get_logs(source.job, source.instance, source.container, start=cursor.stamp or _EPOCH)
        return [f"{source.label}[… only the last {len(new)} lines; this finds those before them: {first}]", *lines]
    if printed.is_whole:
        return []
    since = f" What it printed after {cursor.stamp} can't be shown." if cursor.stamp else ""
    gone = "is not on its node (any more), and no event table has it."
    return [f"{source.label}[The log of instance {source.instance}, container {source.container} {gone}{since}]"]


def _filled(store: LogStore, source: Source, gaps: Sequence[Gap], printed: Printed) -> list[str]:
    """Return what was missing when it was to be shown and an event table has by now."""
    lines: list[str] = []
    for gap in gaps:
        found = _missing(store, source, gap, printed)
        if found is not None:
            first = gap.after or "the beginning"
            lines += [f"{source.label}[What was missing above, between {first} and {gap.before}:]", *found]
    return lines


def _missing(store: LogStore, source: Source, gap: Gap, printed: Printed) -> list[str] | None:
    """Return the lines of a gap from an event table; ``None`` if it doesn't have all of them."""
    if not gap.before:
        return None
    kept = store.kept(source, gap.after and shifted(gap.after, -_MARGIN), shifted(gap.before, _MARGIN))
    lines = gap.filled(kept.lines)
    return None if lines is None else printed.shown(source, lines)
