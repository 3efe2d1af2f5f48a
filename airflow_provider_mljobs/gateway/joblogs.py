"""The log of a job in the task's log: which lines are new, and which are missing."""

from __future__ import annotations

import logging
import time
from dataclasses import astuple, dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import (
    UnreadableError,
)
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.gateway.late_logs import is_behind, later
from airflow_provider_mljobs.gateway.log_store import Source
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
from airflow_provider_mljobs.jobs.outcome.reports import Reported, take_reports, without_reports
from airflow_provider_mljobs.jobs.untrusted import reading
from airflow_provider_mljobs.launcher.contract import END

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_mljobs.gateway.late_logs import LogPatience
    from airflow_provider_mljobs.gateway.log_store import LogStore, StoredLog
    from airflow_provider_mljobs.jobs.names import QualifiedName

logger = logging.getLogger(__name__)
# Gaps that the end of a job can still fill; Airflow stores them.
_MAX_GAPS = 20
# After these numbers of looks in a row without news the whole log is read, and then after each multiple.
_FIRST_SILENCES, _SILENCE = frozenset({1, 2}), 6
# The lines around a gap have to be among the answers.
_MARGIN = timedelta(seconds=2)


@dataclass
class Printed:
    """The part of a job's log that the task's log already has.

    :param gaps: missing parts, with the container of each.
    :param is_whole: whether the log has been read up to its end.
    :param characters: how many have been read since this object was made or copied.
    :param mask: stars secrets in the job's own reports, before they are cut.
    :param silences: how many looks in a row have brought no news, by container.
    """

    cursors: dict[tuple[int, str], LogCursor] = field(default_factory=dict)
    gaps: list[tuple[int, str, Gap]] = field(default_factory=list)
    is_whole: bool = False
    reported: Reported = field(default_factory=Reported)
    characters: int = 0
    mask: Callable[[str], str] = field(default=str, repr=False, compare=False)
    silences: dict[tuple[int, str], int] = field(default_factory=dict, compare=False)

    def cursor(self, source: Source) -> LogCursor:
        """Return the place up to which a container's log has been read."""
        return self.cursors.get(source.key, LogCursor())

    def shown(self, source: Source, lines: Sequence[str]) -> list[str]:
        """Return new lines of a container in readable form, and record the reports in them."""
        self.characters += sum(map(len, lines))
        texts, self.reported = take_reports(lines, self.reported, time.time(), self.mask)
        return [f"{source.label}{readable(text)}" for text in texts]

    def copy(self) -> Printed:
        """Return a copy that can be changed."""
        return replace(
            self, cursors=dict(self.cursors), gaps=list(self.gaps), characters=0, silences=dict(self.silences)
        )

    def to_json(self) -> dict[str, Any]:
        """Write it as JSON, for the task's event."""
        return {**self.place_to_json(), **self.reported.to_json()}

    def place_to_json(self) -> dict[str, Any]:
        """Write the place in the log as JSON."""
        gaps = [[instance, container, *astuple(gap)] for instance, container, gap in self.gaps]
        return {"cursors": cursors_to_json(self.cursors), "gaps": gaps, "is_whole": self.is_whole}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], mask: Callable[[str], str] = str) -> Printed:
        """Read it from JSON; missing parts are empty.

        :raises UnreadableError: if the value has another form, e.g. that of another version.
        """
        with reading("The place in the log"):
            gaps = [(int(instance), str(name), Gap.from_json(gap)) for instance, name, *gap in value.get("gaps", ())]
            cursors = cursors_from_json(value.get("cursors", {}))
            is_whole, reported = value.get("is_whole") is True, Reported.from_json(value)
            return cls(cursors, gaps[-_MAX_GAPS:], is_whole, reported, mask=mask)

    @classmethod
    def restored(cls, value: Any, log: Any, mask: Callable[[str], str] = str) -> Printed:
        """Read it from JSON; if that fails, warn in the log and start from the beginning."""
        try:
            return cls.from_json(value, mask)
        except UnreadableError as error:
            log.warning("Lines of the job's log may appear twice: %s", error)
            return cls(mask=mask)


def sources(job: QualifiedName, containers: Sequence[tuple[int, str]]) -> list[Source]:
    """Return the containers of a job, each with its label."""
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
    """Return the new lines of a container, and record them in ``printed``; ``None`` if its log is not available.

    Snowflake is asked for lines that are newer than the last one. After a node's clock was set back, these are not all:
    so a log without news is sometimes read as a whole, and a log whose times go back always is.

    :param overlap: how much of the log to read again, at least: the time between two looks.
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
    return _take(store, source, tail, printed, is_final=is_final)


@dataclass(frozen=True)
class WholeLog:
    """The end of a job's log, the lines that the task's log doesn't have yet, and the job's own reports.

    :param has_end: whether the launcher's last line is among the lines of a container.
    """

    text: str
    unseen: tuple[str, ...]
    reported: Reported
    has_end: bool = False


def read_rest(
    store: LogStore, containers: Sequence[Source], printed: Printed, patience: LogPatience | None = None
) -> WholeLog:
    """Return the log of a job that is over; lines that are gone from the nodes come from the event table.

    :param patience: how long to wait for lines that aren't there yet.
    """
    texts: list[str] = []
    unseen: list[str] = []
    has_end = False
    # After an error, all of it is read again.
    printed = printed.copy()
    for source in containers:
        earlier = [gap for *key, gap in printed.gaps if tuple(key) == source.key]
        tail = store.tail(source)
        if tail is None:
            is_late = _is_behind(store, source, printed, patience)
            stored = replace(store.stored(source, share=len(containers)), is_late=is_late)
            text = "\n".join(line for _, line in stored.lines)
            unseen += _from_table(store, source, stored, printed)
        else:
            text = without_stamps(tail)
            unseen += _take(store, source, tail, printed, is_final=True, fills=True)
        unseen += _filled(store, source, earlier, printed)
        has_end = has_end or printed.cursor(source).has_end or END in text
        texts.append(_labelled(source, "\n".join(map(readable, without_reports(text).split("\n")))))
    return WholeLog("\n".join(text.rstrip("\n") for text in texts), tuple(unseen), printed.reported, has_end)


def read_log(store: LogStore, source: Source, *, share: int = 1) -> str:
    """Return the log of one container, as far as it is available; a line says so if its beginning is missing."""
    tail = store.tail(source)
    text = "" if tail is None else without_stamps(tail)
    if tail is None or tail.is_cut:
        stored = "\n".join(line for _, line in store.stored(source, share=share).lines)
        if tail is None or (len(stored) > len(text) and stored.rstrip().endswith(text.rstrip().rpartition("\n")[2])):
            text = stored
        else:
            cut = "[the log is longer than the 100 KB that Snowflake keeps on the node; its beginning is cut off]"
            text = f"{cut}\n{text}"
    return without_reports(text)


def read_logs(store: LogStore, containers: Sequence[Source]) -> str:
    """Return the logs of several containers as one text, in which each line has its container's label."""
    logs = (_labelled(source, read_log(store, source, share=len(containers))) for source in containers)
    return "\n".join(log.rstrip("\n") for log in logs)


def _labelled(source: Source, text: str) -> str:
    if not source.label or not text:
        return text
    return "".join(f"{source.label}{line}\n" for line in text.removesuffix("\n").split("\n"))


def _take(
    store: LogStore, source: Source, tail: Tail, printed: Printed, *, is_final: bool, fills: bool = False
) -> list[str]:
    """Return the new lines of a log, after the missing ones from the event table, or a line that announces a gap.

    :param fills: whether to ask the event table.
    """
    new = news(printed.cursor(source), tail, is_final=is_final)
    if new.cursor != LogCursor():
        printed.cursors[source.key] = new.cursor
    lines = printed.shown(source, new.lines)
    if new.gap is None or (*source.key, new.gap) in printed.gaps:
        return lines
    filled = _missing(store, source, new.gap, printed) if fills else None
    if filled is not None:
        return [*filled, *lines]
    printed.gaps = [*printed.gaps, (*source.key, new.gap)][-_MAX_GAPS:]
    return [f"{source.label}{_announcement(store, source, new.gap)}", *lines]


def _is_behind(store: LogStore, source: Source, printed: Printed, patience: LogPatience | None) -> bool:
    """Wait for the end of a log that has left its node; returns whether lines may still be missing."""
    cursor = printed.cursor(source)
    if patience is None or printed.is_whole or cursor.has_end:
        return False
    return is_behind(lambda: store.stored(source, cursor.since()), cursor, source.key, patience)


def _later(store: LogStore, source: Source, after: str) -> str:
    query = statements.spcs_get_logs(
        source.job, source.instance, source.container, start=after or store.begin_of(source.job)
    )
    return f"{source.label}{later(query, after)}"


def _announcement(store: LogStore, source: Source, gap: Gap) -> str:
    start, end = gap.after or store.begin_of(source.job), gap.before or None
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


def _from_table(store: LogStore, source: Source, stored: StoredLog, printed: Printed) -> list[str]:
    """Return the lines of an event table after the last one that was read, and a line that says what is missing."""
    cursor = printed.cursor(source)
    lines: list[str] = []
    if stored.lines:
        new = behind(cursor, stored.lines)
        lines = printed.shown(source, new)
        if stored.is_late:
            last = stored.lines[-1][0].isoformat(timespec="milliseconds") if new else cursor.stamp
            lines.append(_later(store, source, last))
        if not stored.is_cut or len(new) < len(stored.lines):
            return lines
        start = cursor.stamp or store.begin_of(source.job)
        first = statements.spcs_get_logs(source.job, source.instance, source.container, start=start)
        return [f"{source.label}[… only the last {len(new)} lines; this query finds the earlier ones: {first}]", *lines]
    if printed.is_whole or cursor.has_end:
        return []
    if stored.is_late:
        return [_later(store, source, cursor.stamp)]
    since = f" Its output after {cursor.stamp} is missing." if cursor.stamp else ""
    table = f"the event table can't be read: {stored.refusal}" if stored.refusal else "no event table has it."
    gone = f"is not on its node (any more), and {table}"
    return [f"{source.label}[The log of instance {source.instance}, container {source.container} {gone}{since}]"]


def _filled(store: LogStore, source: Source, gaps: Sequence[Gap], printed: Printed) -> list[str]:
    """Return lines that were missing before, and that the event table has by now."""
    lines: list[str] = []
    for gap in gaps:
        missing = _missing(store, source, gap, printed)
        if missing is not None:
            first = gap.after or "the beginning"
            lines += [f"{source.label}[Missing above, between {first} and {gap.before}:]", *missing]
    return lines


def _missing(store: LogStore, source: Source, gap: Gap, printed: Printed) -> list[str] | None:
    """Return the lines of a gap from an event table; ``None`` if it doesn't have all of them."""
    if not gap.before:
        return None
    stored = store.stored(source, gap.after and shifted(gap.after, -_MARGIN), shifted(gap.before, _MARGIN))
    lines = gap.filled(stored.lines)
    return None if lines is None else printed.shown(source, lines)
