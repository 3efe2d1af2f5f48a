"""The place up to which a container's log has been read, and the news in another look at its end.

Snowflake returns the last 100 KB of a log. With a time before each line the place is exact; without times, the lines
are compared.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.launcher.contract import BANNER, END, TITLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_STAMPED = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z) ?(.*)", re.DOTALL)
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z")
_DIGEST = re.compile(r"\w{0,8}", re.ASCII)
_SECONDS = len("2026-01-01T00:00:00")
_BANNERS = [(BANNER, title, BANNER) for title in TITLES]
# Both streams of a container stamp their lines before they queue for the file.
_OUT_OF_ORDER = timedelta(seconds=1)
# After a node's clock was set back, new lines have earlier times than the last one that was read. Asking again for this
# much finds them.
_OVERLAP = timedelta(seconds=60)
# How many lines are compared where their number is not enough, and how many of these have to differ from each other:
# fewer may be repeated by chance.
_COMPARED = 8
_TELLING = 3


@dataclass(frozen=True)
class LogCursor:
    """The place in one container's log up to which it has been read.

    :param stamp: the time of the last line; empty if no line has been read, or lines have no times.
    :param count: how many lines of that time have been read, without times how many in all; 0 if that is unknown.
    :param digests: the digests of the last of these lines.
    """

    stamp: str = ""
    count: int = 0
    digests: tuple[str, ...] = ()

    @property
    def has_end(self) -> bool:
        """Whether the launcher's last line has been read."""
        return self.digests[-1:] == (digest(END),)

    def since(self, overlap: timedelta = _OVERLAP) -> str:
        """Return the time since which to ask for lines, to read so much again; empty for all."""
        return shifted(self.stamp, -max(overlap, _OVERLAP)) if self.stamp else ""

    def to_json(self) -> list[Any]:
        """Write the cursor as JSON."""
        return [self.stamp, self.count, *self.digests]

    @classmethod
    def from_json(cls, value: Sequence[Any]) -> LogCursor:
        """Read a cursor."""
        stamp, count, *digests = value
        if type(count) is not int or count < 0 or len(digests) > _COMPARED:
            msg = f"{count!r} lines with {len(digests)} digests are no place in a log"
            raise ValueError(msg)
        return cls(_stamp(stamp), count, tuple(_matching(_DIGEST, digest) for digest in digests))


@dataclass(frozen=True)
class Tail:
    """The end of a log as Snowflake returns it, with a time before each line or without, perhaps cut."""

    text: str
    is_stamped: bool = True
    is_cut: bool = False


@dataclass(frozen=True)
class Gap:
    """Lines that the container's node no longer has.

    :param after: the time of the last line before them; empty if they are the first ones, or lines have no times.
    :param before: the time of the first line after them; empty if they are the last ones, or lines have no times.
    """

    after: str = ""
    last: str = ""
    before: str = ""
    next: str = ""

    @property
    def seconds(self) -> float | None:
        """The time between the lines around the gap; ``None`` if that is unknown."""
        if not self.after or not self.before or self.is_set_back:
            return None
        return (_moment(self.before) - _moment(self.after)).total_seconds()

    @property
    def is_set_back(self) -> bool:
        """Whether the node's clock was set back in the gap."""
        return bool(self.after and self.before) and _moment(self.before) < _moment(self.after)

    def filled(self, stored: Sequence[tuple[datetime, str]]) -> list[str] | None:
        """Return the missing lines from those of an event table; ``None`` if their place isn't certain.

        :param stored: times, which may be less exact, and lines, from before the gap until after it.
        """
        start = _place(stored, self.after, self.last) if self.after else 0
        end = _place(stored, self.before, self.next) if self.before else None
        if start is None or end is None or end <= start:
            return None
        return list(without_banner_lines([text for _, text in stored[start : end - 1]]))

    @classmethod
    def from_json(cls, value: Sequence[Any]) -> Gap:
        """Read a gap."""
        after, last, before, following = value
        return cls(_stamp(after), _matching(_DIGEST, last), _stamp(before), _matching(_DIGEST, following))


@dataclass(frozen=True)
class News:
    """The result of one look at a log: the new place, new whole lines, and a gap before them."""

    cursor: LogCursor
    lines: tuple[str, ...] = ()
    gap: Gap | None = None


@dataclass(frozen=True)
class _Line:
    stamp: str
    text: str


def news(cursor: LogCursor, tail: Tail, *, is_final: bool = False) -> News:
    """Find the new lines in a log's end.

    :param is_final: whether the log is complete; otherwise an unfinished line, and the beginning of a banner of the
        launcher, wait for the next look.
    """
    lines = _parse(tail, is_final=is_final)
    start, is_certain = _find(cursor, lines, is_cut=tail.is_cut)
    texts, dealt = _without_banners([line.text for line in lines[start:]], is_final=is_final)
    gap = None
    if not is_certain:
        last = cursor.digests[-1] if cursor.digests else ""
        gap = Gap(cursor.stamp, last)
        if start < len(lines):
            gap = replace(gap, before=lines[start].stamp, next=digest(lines[start].text))
    if not dealt:
        # Later lines will show the size of the gap; at the end of the log it is reported without one.
        return News(cursor, gap=gap if is_final else None)
    read = lines[: start + dealt]
    stamp = read[-1].stamp
    same = [line for line in read if line.stamp == stamp]
    count = len(same) if _are_all(stamp, lines, is_cut=tail.is_cut) else 0
    return News(LogCursor(stamp, count, tuple(digest(line.text) for line in same[-_COMPARED:])), tuple(texts), gap)


def behind(cursor: LogCursor, stored: Sequence[tuple[datetime, str]]) -> list[str]:
    """Return the lines of an event table after the place of a cursor."""
    if cursor.stamp:
        moment = _moment(cursor.stamp)
        lines = [_Line(at.isoformat(), text) for at, text in stored]
        start, is_certain = _find(replace(cursor, stamp=moment.isoformat()), lines, is_cut=False)
        if not is_certain and not start:
            start = next((index for index, (at, _) in enumerate(stored) if at > moment), len(stored))
    else:
        start, _ = _find(cursor, [_Line("", text) for _, text in stored], is_cut=False)
    return list(without_banner_lines([text for _, text in stored[start:]]))


def goes_back(tail: Tail) -> bool:
    """Return whether a node's clock was set back within these lines, so that asking by time may hide others."""
    stamps = [line.stamp for line in _parse(tail, is_final=False) if line.stamp]
    falls = (pair for pair in pairwise(stamps) if _key(pair[1]) < _key(pair[0]))
    return any(_moment(before) - _moment(after) > _OUT_OF_ORDER for before, after in falls)


def shifted(stamp: str, by: timedelta) -> str:
    """Return another time in the form of the times before lines, to the second."""
    return f"{(datetime.fromisoformat(stamp[:_SECONDS]) + by).isoformat()}.000000000Z"


def without_stamps(tail: Tail) -> str:
    """Return a log as it was printed."""
    lines = _parse(tail, is_final=True)
    # One line that is longer than the limit has no beginning.
    return "".join(f"{line.text}\n" for line in lines) if lines else tail.text


def without_banner_lines(lines: Sequence[str]) -> tuple[str, ...]:
    """Remove the launcher's banners of three lines each."""
    return tuple(_without_banners(lines, is_final=True)[0])


def cursors_to_json(cursors: Mapping[tuple[int, str], LogCursor]) -> dict[str, list[Any]]:
    """Write the cursors of a job as JSON, by instance and container."""
    return {f"{instance}/{container}": cursor.to_json() for (instance, container), cursor in cursors.items()}


def cursors_from_json(value: Mapping[str, Sequence[Any]]) -> dict[tuple[int, str], LogCursor]:
    """Read the cursors of a job."""
    cursors = {}
    for key, cursor in value.items():
        instance, _, container = key.partition("/")
        cursors[int(instance), container] = LogCursor.from_json(cursor)
    return cursors


def _stamp(text: object) -> str:
    """Return the time of a line, or an empty text; refuse all else."""
    if text == "":
        return ""
    stamp = _matching(_STAMP, text)
    _moment(stamp)
    return stamp


def _matching(pattern: re.Pattern[str], text: object) -> str:
    if not isinstance(text, str) or pattern.fullmatch(text) is None:
        msg = f"{text!r:.100} is no place in a log"
        raise ValueError(msg)
    return text


def _parse(tail: Tail, *, is_final: bool) -> list[_Line]:
    *texts, rest = tail.text.split("\n")
    if rest and is_final:
        texts.append(rest)
    if tail.is_cut:
        # The first line has no beginning, and perhaps no time: one in the line may be the payload's own.
        del texts[:1]
    lines: list[_Line] = []
    for text in texts:
        match = _STAMPED.fullmatch(text) if tail.is_stamped else None
        if match is not None:
            lines.append(_Line(*match.groups()))
        elif lines or not tail.is_stamped:
            lines.append(_Line(lines[-1].stamp if lines else "", text))
    return lines


def _find(cursor: LogCursor, lines: Sequence[_Line], *, is_cut: bool) -> tuple[int, bool]:
    """Return the index after the last line that was read, and whether the gap there is surely empty.

    The lines from that index on are new, with or without a gap.
    """
    if cursor == LogCursor():
        return 0, not is_cut
    same = [index for index, line in enumerate(lines) if line.stamp == cursor.stamp]
    digests = [digest(lines[index].text) for index in same]
    counts = [count for count in range(1, len(same) + 1) if _agree(digests, count, cursor.digests)]
    if cursor.count in counts and _are_all(cursor.stamp, lines, is_cut=is_cut):
        return same[cursor.count - 1] + 1, True
    if not counts:
        # The place isn't in the text, so all of it is new.
        return 0, False
    (*others, count) = counts
    is_telling = not is_cut if cursor.stamp else len(set(cursor.digests[-count:])) >= _TELLING
    return same[count - 1] + 1, not others and is_telling


def _agree(digests: Sequence[str], count: int, earlier: Sequence[str]) -> bool:
    """Return whether the first lines may be those that were read; lines before them may have been cut off."""
    compared = min(count, len(earlier))
    return list(digests[count - compared : count]) == list(earlier[-compared:])


def _are_all(stamp: str, lines: Sequence[_Line], *, is_cut: bool) -> bool:
    """Return whether the text has all lines of a time, or without times all lines."""
    return not is_cut or lines[0].stamp != stamp


def _without_banners(lines: Sequence[str], *, is_final: bool) -> tuple[list[str], int]:
    """Return the lines without banners, and how many were processed: the beginning of a banner waits for its rest."""
    texts: list[str] = []
    at = 0
    while at < len(lines):
        ahead = tuple(lines[at : at + 3])
        if ahead in _BANNERS:
            at += 3
        elif not is_final and any(ahead == banner[: len(ahead)] for banner in _BANNERS):
            break
        else:
            texts.append(lines[at])
            at += 1
    return texts, at


def _place(stored: Sequence[tuple[datetime, str]], stamp: str, line: str) -> int | None:
    """Return the index after a line of an event table; ``None`` unless the table has it exactly once."""
    moment = _moment(stamp)
    places = [index for index, (at, text) in enumerate(stored, start=1) if at == moment and digest(text) == line]
    return places[0] if len(places) == 1 else None


def _key(stamp: str) -> tuple[str, str]:
    """Make stamps comparable: Go omits the zeros at the end of a fraction."""
    return stamp[:_SECONDS], stamp[_SECONDS + 1 : -1].ljust(9, "0")


def _moment(stamp: str) -> datetime:
    seconds, fraction = _key(stamp)
    return datetime.fromisoformat(f"{seconds}.{fraction[:6]}+00:00")


def digest(text: str) -> str:
    """Return a short digest of a line."""
    return f"{zlib.crc32(text.encode(errors='replace')):08x}"
